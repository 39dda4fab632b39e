"""Does it learn? The first loss, two rows by heart, the gradient. (After Karpathy, "A Recipe for Training".)"""

import contextlib
import math
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map

from linreg.checks.batch import call, change, flat, num_rows, tensors, together
from linreg.checks.context import Context
from linreg.checks.fits import alone
from linreg.checks.gradients import judge_steps, pairs_anew, trainable, varies
from linreg.checks.rows import classes_are_balanced, nothing_is_missing, splits_are_alike, target_varies
from linreg.verdict import CannotTell, Verdict, judge

TOO_FAR = {"classes": 2.0, "binary": 3.0, "squared": 10.0, "absolute": 4.0}  # times the loss of knowing nothing
FALL = 0.02  # of what a loss has fallen by: more is what two rows lose that are exchanged
BY_HEART = (False, 1e-2), (True, 1e-2), (False, 1e-1), (False, 1e-3)  # with statistics of the batch; Adam's rate


def loss_at_start(context: Context) -> Verdict:
    """The first loss is about that of knowing nothing."""
    context.needs(nothing_is_missing)
    first = context.step(context.train[0])
    if len(first.calls) == 1 and abs(first.size + float(first.calls[0].value.mean())) < 1e-6 * abs(first.size):
        return judge(False, f"the loss is minus a loss, {first.size:.3g}", "a loss", "turn its sign")
    calls = [known for batch in context.train if (known := context.step(batch).known)]
    if len(calls) < len(context.train) or calls[0].settings["reduction"] != "mean":
        raise CannotTell("the loss is not one of torch.nn.functional's alone, or no mean")
    found = sum(float(each.value) for each in calls) / len(calls)
    if calls[0].name == "nll_loss" and abs(float(calls[0].prediction.detach().exp().sum(1).mean()) - 1) > 0.01:
        return judge(False, "nll_loss gets scores", "log-probabilities", "log_softmax before it, or cross_entropy")
    nothing = replace(calls[0], target=together([each.target for each in calls])).knowing_nothing()
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
    *others, y = tensors(batch)
    both = tree_map(lambda leaf: leaf[[0, 0]] if leaf is y else leaf, batch)  # have one target
    goal = first.goal_by_heart(has_targets=bool(others) and context.step(both, training=False).size != start)
    if goal is not None and start < goal:
        raise CannotTell(f"their loss is {start:.3g} before the first step, and below {goal:.3g} is by heart")
    for training, lr in BY_HEART:
        model = context.copy(training=False)
        model.training = not first.loss.requires_grad  # of it alone: it may evaluate an average of its weights
        for norm in (m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)):
            norm.train(training)  # and no dropout, by whose masks the rows could be told apart
        lowest = min(lowest, learn(context, model, batch, lr, goal))
        if goal is not None:
            text = f"loss {start:.3g} -> {lowest:.3g}; below {goal:.3g} is by heart"
            is_learned = lowest < goal
        else:
            own, other = own_and_exchanged(context, model, batch)
            least = own + FALL * (start - own)
            text = f"loss {start:.3g} -> {own:.3g}; of exchanged targets {other:.3g}, goal {least:.3g}"
            is_learned = own < start and other > least
        if is_learned:
            return Verdict("ok", text)
    remedy = "look for an activation behind the last layer, a loss that does not fit it, an input that is not used"
    return judge_steps(context, False, text, "that goal", f"{remedy}, targets in another order")


def learn(context: Context, model: Any, batch: Any, lr: float, goal: float | None) -> float:
    """Learns two rows until a goal is reached; without one for longer, with other draws each step. The lowest loss."""
    optimizer, lowest = torch.optim.Adam(trainable(model).values(), lr), math.inf
    for step in range(150 if goal is not None else 300):
        loss = context.observe(model, batch, seed=0 if goal is not None else step).loss
        lowest = min(lowest, float(loss.detach()))
        if not loss.isfinite() or (goal is not None and lowest < goal):
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return lowest


def own_and_exchanged(context: Context, model: Any, batch: Any) -> tuple[float, float]:
    """The loss of two rows, and the highest where one of a row's tensors is that of the other, as its target."""
    parts = tensors(batch)
    batches = [batch, *(tree_map(lambda leaf, x=x: x.flip(0) if leaf is x else leaf, batch) for x in parts)]
    own, *others = (sum(context.observe(model, each, seed=s).size for s in range(8)) / 8 for each in batches)
    return own, max(others)


def loss_does_not_broadcast(context: Context) -> Verdict:
    """Predictions and targets have one shape, or each is compared with every other."""
    first = context.step(context.train[0])
    if not (first.calls or first.broadcasts):
        raise CannotTell("it calls no loss function of torch, and subtracts no column from a row")
    is_pairwise = any(call.is_pairwise for call in first.calls)
    if first.broadcasts and not is_pairwise:
        fewer = change(context.train[0], lambda each: each[:-1])  # what is pairwise by chance only is none of these
        is_pairwise = bool(context.step(fewer).broadcasts)
    a, b = (first.broadcasts or [(first.calls[0].prediction, first.calls[0].target)])[0]
    text = f"prediction and target: {tuple(a.shape)}, {tuple(b.shape)}"
    return judge(not is_pairwise, text, "one shape", "y_hat.squeeze(1), or y.unsqueeze(1)")


def loss_is_a_mean_over_rows(context: Context) -> Verdict:
    """The loss of a batch stays what it is where each row is in it thrice, or they are in another order."""
    batch, model = context.train[0], context.copy(training=False)
    half = num_rows(batch) // 2
    others = batch, together([batch] * 3), change(batch, lambda each: each.flip(0))
    once, thrice, turned = (context.step(each, training=False).size for each in others)
    if shape := normalized_over_rows(context, batch):
        remedy = "take the softmax along classes, dim=1"
        return judge(False, f"a softmax runs over the {shape[0]} rows of scores {shape}", "over classes", remedy)
    if abs(thrice - 3 * once) < 0.05 * abs(once):
        return judge(False, f"the rows of a batch thrice: {once:.3g} -> {thrice:.3g}", "the same", "take the mean")
    if varies(context, model, batch, seeds=(0, 1, 2, 3)):
        if pairs_anew(context, model, batch):
            found = "other draws pair the same predictions and targets otherwise"
            return judge(False, found, "each row's own target", "shuffle inputs and targets together")
        raise CannotTell("the loss is drawn, or not the same twice")
    text, remedy = f"the rows turned round: {once:.5g} -> {turned:.5g}", "look for a transpose that mixes rows"
    if half and abs(turned - once) <= 1e-3 * abs(once):
        parts = change(batch, lambda each: each[:half]), change(batch, lambda each: each[half : 2 * half])
        halves = sum(context.observe(model, part).size for part in parts) / 2
        whole = context.observe(model, change(batch, lambda each: each[: 2 * half])).size
        if abs(halves - whole) > 1e-3 * abs(whole):  # as of a contrastive loss, or a mean of what differs in number
            text += f"; {halves:.5g} of its halves: rows are coupled, and each of several processes couples its own"
    return judge(abs(turned - once) <= 1e-3 * abs(once), text, "the same", remedy)


def normalized_over_rows(context: Context, batch: Any) -> tuple[int, ...]:
    """The shape (N, K) of scores of K classes, K whatever N is, that sum to one over the rows; () if there are none."""
    y, num = tensors(batch)[-1], num_rows(batch)
    if y.is_floating_point() or y.shape != (num,) or num < 2:
        return ()
    few = change(batch, lambda each: each[: num - 1])
    less = {shape[1] for shape in context.step(few, training=False).over_rows if shape[0] == num - 1}
    shapes = context.step(batch, training=False).over_rows
    return next((tuple(s) for s in shapes if s[0] == num and s[1] in less and int(y.max()) < s[1]), ())


def training_and_validation_agree(context: Context) -> Verdict:
    """The loss of a step is about one that validation reports of the same rows, and draws for only if a step does."""
    batch, model = context.train[0], context.copy(training=False)
    losses, loss = validation_losses(model, [batch]), context.step(batch, training=False).size
    nearest = min(losses, key=lambda each: abs(each - loss))
    text = f"loss of the same rows: {loss:.4g} in training, {nearest:.4g} in validation"
    again = validation_losses(context.copy(training=False), [batch], seed=1)
    if again != losses and not varies(context, model, batch, (0, 1)):
        found = f"of the same rows validation reports {losses[0]:.4g}, then {again[0]:.4g}"
        return judge(False, found, "the same", "draw, as for augmentation, in training only")
    is_about = abs(loss - nearest) <= max(abs(loss), abs(nearest)) / 2 + 1e-6
    return judge(is_about, text, "about the same", "compare units, reduction and terms of the two steps")


def validation_losses(model: Any, batches: list[Any], seed: int = 0) -> list[float]:
    """Means over batches of whatever a validation step reports that is called a loss; CannotTell if nothing is."""
    reported: dict[str, list[float]] = {}

    def log_dict(values: Any, *args: Any, **kwargs: Any) -> None:
        for name, value in values.items():
            if "loss" in name.lower() and torch.as_tensor(value).numel() == 1:
                reported.setdefault(name, []).append(float(value))

    vars(model).update(log=lambda name, value, *args, **kwargs: log_dict({name: value}), log_dict=log_dict)
    with alone(seed), torch.no_grad():
        with contextlib.suppress(Exception):  # a list to append to may be made there
            model.on_validation_epoch_start()
        for batch in batches:
            call(model.validation_step, batch)
    if not reported:
        raise CannotTell("validation reports nothing that is called a loss")
    return [sum(values) / len(values) for values in reported.values()]


def validation_follows(context: Context) -> Verdict:
    """Where the loss of training rows falls, one of validation rows does, too."""
    if context.val is context.train:
        raise CannotTell("there are no validation rows")
    context.needs(training_and_validation_agree, target_varies, classes_are_balanced, splits_are_alike)

    def losses(model: Any) -> tuple[float, list[float]]:
        held_out = validation_losses(model, context.val)
        return sum(context.observe(model, batch).size for batch in context.train) / len(context.train), held_out

    start, begins = losses(context.copy(training=False))
    for steps in (10, 100):  # the first few, as a small table is soon learned by heart
        loss, ends = losses(context.trained(steps))
        if is_falling := any(end < begin for begin, end in zip(begins, ends, strict=True)):
            break
    if not is_falling and start - loss < 0.2 * abs(start):
        raise CannotTell("a hundred steps hardly lower the loss of training rows")
    text = f"{start:.3g} -> {loss:.3g} in training, {begins[0]:.3g} -> {ends[0]:.3g} in validation"
    return judge_steps(
        context, is_falling, text, "a fall in both", "are its targets in the order and units of training's?"
    )
