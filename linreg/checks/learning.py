"""Does it learn? The first loss, two rows by heart, the gradient. (After Karpathy, "A Recipe for Training".)"""

import math
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from linreg.checks.batch import call, change, flat, num_rows, tensors, together
from linreg.checks.context import Context
from linreg.checks.fits import alone
from linreg.checks.gradients import trainable, varies
from linreg.verdict import CannotTell, Verdict, judge

TOO_FAR = {"classes": 2.0, "binary": 3.0, "squared": 10.0, "absolute": 4.0}  # times the loss of knowing nothing
BY_HEART = (False, 1e-2), (True, 1e-2), (False, 1e-1), (False, 1e-3)  # with statistics of the batch; Adam's rate


def loss_at_start(context: Context) -> Verdict:
    """The first loss is about that of knowing nothing."""
    first = context.step(context.train[0])
    if len(first.calls) == 1 and abs(first.size + float(first.calls[0].value.mean())) < 1e-6 * abs(first.size):
        return judge(False, f"the loss is minus a loss, {first.size:.3g}", "a loss", "turn its sign")
    calls = [known for batch in context.train if (known := context.step(batch).known)]
    if len(calls) < len(context.train) or calls[0].settings["reduction"] != "mean":
        raise CannotTell("the loss is not one of torch.nn.functional's alone, or no mean")
    found = sum(float(each.value) for each in calls) / len(calls)
    if calls[0].name == "nll_loss" and abs(float(calls[0].prediction.detach().exp().sum(1).mean()) - 1) > 0.01:
        return judge(False, "nll_loss gets scores", "log-probabilities", "log_softmax before it, or cross_entropy")
    nothing = replace(calls[0], target=torch.cat([each.target for each in calls])).knowing_nothing()
    most = TOO_FAR.get(calls[0].kind, 1.0)
    if not (nothing > 0 and math.isfinite(found)):
        raise CannotTell("what the loss of knowing nothing would be is not known of this one")
    text, remedy = f"{found:.3g}; knowing nothing: {nothing:.3g}", "standardize the targets, or begin smaller"
    return judge(found <= most * nothing, text, f"at most {most:g} times that", remedy)


def two_rows_by_heart(context: Context) -> Verdict:
    """Two rows can be learned by heart, whatever optimizer the run has."""
    batch = context.train[0] if num_rows(context.train[0]) > 1 else together(context.train[:2])
    inputs, targets = flat(tensors(batch)[0]), flat(tensors(batch)[-1])
    one = int((targets - targets.mean(0)).abs().sum(1).argmax())
    apart = (targets - targets[one]).abs().sum(1) * (inputs != inputs[one]).any(1)
    if not apart.max() > 0:
        raise CannotTell("no two rows of a batch differ in inputs and target")
    batch = change(batch, lambda each: each[[one, int(apart.argmax())]])
    first = context.step(batch, training=False)
    context.needs(loss_does_not_broadcast)
    start = lowest = first.size
    if not start or sum(p.numel() for p in trainable(context.prepared).values()) < 2 * targets.shape[1]:
        raise CannotTell("their loss is 0, or there are fewer parameters than targets")
    goal = start - 0.1 * abs(start)
    if (known := first.known) and known.knowing_nothing() > 0 and not known.settings.get("label_smoothing"):
        is_hard = known.kind in ("classes", "binary") and not ((known.target != 0) & (known.target < 1)).any()
        differ = float((known.target.reshape(2, -1)[0] != known.target.reshape(2, -1)[1]).double().mean())
        goal = math.log(2) * differ / 2 if is_hard else goal  # half of what is best without regard to the input
        goal = known.knowing_nothing() / 10 if known.kind == "squared" else goal
    for training, lr in BY_HEART:
        model = context.copy(training=False)
        for norm in (m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)):
            norm.train(training)  # and no dropout, by whose masks the rows could be told apart
        optimizer = torch.optim.Adam(trainable(model).values(), lr)
        for _ in range(150):
            loss = context.observe(model, batch).loss
            if (lowest := min(lowest, float(loss.detach()))) < goal:
                return Verdict("ok", f"loss {start:.3g} -> {lowest:.3g}; below {goal:.3g} is by heart")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    remedy = "look for an activation behind the last layer, a loss that does not fit it, an input that is not used"
    return judge(False, f"loss {start:.3g} -> {lowest:.3g}", f"below {goal:.3g}", remedy)


def loss_does_not_broadcast(context: Context) -> Verdict:
    """Predictions and targets have one shape, or each is compared with every other."""
    first = context.step(context.train[0])
    if not (first.calls or first.broadcasts):
        raise CannotTell("it calls no loss function of torch, and subtracts no column from a row")
    fewer = change(context.train[0], lambda each: each[:-1])  # what is pairwise by chance only is none of these
    is_pairwise = bool(first.broadcasts and context.step(fewer).broadcasts)
    a, b = (first.broadcasts or [(first.calls[0].prediction, first.calls[0].target)])[0]
    text = f"prediction and target: {tuple(a.shape)}, {tuple(b.shape)}"
    return judge(not is_pairwise, text, "one shape", "y_hat.squeeze(1), or y.unsqueeze(1)")


def loss_is_a_mean_over_rows(context: Context) -> Verdict:
    """The loss of a batch stays what it is where each row is in it thrice, or they are in another order."""
    batch, model = context.train[0], context.copy(training=False)
    num_rows(batch)
    others = batch, together([batch] * 3), change(batch, lambda each: each.flip(0))
    once, thrice, turned = (context.observe(model, each).size for each in others)
    if abs(thrice - 3 * once) < 0.05 * abs(once):
        return judge(False, f"the rows of a batch thrice: {once:.3g} -> {thrice:.3g}", "the same", "take the mean")
    if varies(context, model, batch, seeds=(0, 1, 2, 3)):
        raise CannotTell("the loss is drawn, or not the same twice")
    text, remedy = (
        f"the rows turned round: {once:.5g} -> {turned:.5g}",
        "look for a transpose or reshape that mixes rows",
    )
    return judge(abs(turned - once) <= 1e-3 * abs(once), text, "the same", remedy)


def training_and_validation_agree(context: Context) -> Verdict:
    """The loss of a step is about a loss that validation reports of the same rows, in evaluation mode."""
    batch, reported = context.train[0], dict[str, Any]()
    loss, model = context.step(batch, training=False).size, context.copy(training=False)
    vars(model)["log"] = lambda name, value, *args, **kwargs: reported.update({name: value})
    vars(model)["log_dict"] = lambda values, *args, **kwargs: reported.update(values)
    with alone(), torch.no_grad():
        call(model.validation_step, batch)
    losses = [float(value) for name, value in reported.items() if "loss" in name.lower() and value.numel() == 1]
    if not losses:
        raise CannotTell("validation reports nothing that is called a loss")
    nearest = min(losses, key=lambda each: abs(each - loss))
    text = f"loss of the same rows: {loss:.4g} in training, {nearest:.4g} in validation"
    is_about = abs(loss - nearest) <= max(abs(loss), abs(nearest)) / 2 + 1e-6
    return judge(is_about, text, "about the same", "compare units, reduction and terms of the two steps")


LEARNING = [loss_at_start, two_rows_by_heart, loss_does_not_broadcast, loss_is_a_mean_over_rows]
LEARNING += [training_and_validation_agree]
