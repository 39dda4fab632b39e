"""Does it learn? The first loss, two rows by heart, the gradient. (After Karpathy, "A Recipe for Training".)"""

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from linreg.checks.batch import change, flat, num_rows, tensors, together
from linreg.checks.context import Context
from linreg.checks.fits import alone
from linreg.verdict import CannotTell, Verdict, judge

TOO_FAR = {"classes": 2.0, "binary": 3.0, "squared": 10.0, "absolute": 4.0}  # times the loss of knowing nothing
# Whether with statistics of the batch, steps, how: LBFGS where rows are alike, Adam where the loss is bent.
BY_HEART: list[Any] = [
    (False, 150, torch.optim.Adam, {"lr": 1e-2}),
    (False, 10, torch.optim.LBFGS, {"line_search_fn": "strong_wolfe"}),
    (True, 150, torch.optim.Adam, {"lr": 1e-2}),
    (False, 150, torch.optim.Adam, {"lr": 1e-3}),
]


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


@torch.no_grad()
def leave_zero(model: nn.Module, *_: Any) -> None:
    """Moves what begins at zero, behind which nothing else would get a gradient."""
    for p in trainable(model).values():
        if not p.any():
            p.normal_(std=1e-2)


def loss_at_start(context: Context) -> Verdict:
    """The first loss is about that of knowing nothing."""
    first = context.observe(context.copy(), context.train[0])
    value = float(first.calls[0].value) if len(first.calls) == 1 else 0.0
    if value and abs(first.size + value) < 1e-6 * abs(value):
        return judge(False, f"the loss is minus a loss, {first.size:.3g}", "a loss", "turn its sign")
    calls = [context.known_loss(context.copy(), batch) for batch in context.train]
    found = sum(float(each.value) for each in calls) / len(calls)
    nothing = replace(calls[0], target=torch.cat([each.target for each in calls])).knowing_nothing()
    most = TOO_FAR.get(calls[0].kind, 1.0)
    if not (nothing > 0 and math.isfinite(found)) or calls[0].settings["reduction"] != "mean":
        raise CannotTell("what the loss of knowing nothing would be is not known of this one")
    text, remedy = f"{found:.3g}; knowing nothing: {nothing:.3g}", "standardize the targets, or begin smaller"
    return judge(found <= most * nothing, text, f"at most {most:g} times that", remedy)


def two_rows_by_heart(context: Context) -> Verdict:
    """Two rows can be learned by heart, whatever optimizer the run has."""
    batch = context.train[0] if num_rows(context.train[0]) > 1 else together(context.train[:2])
    targets = flat(tensors(batch)[-1])
    inputs, one = flat(tensors(batch)[0]), int((targets - targets.mean(0)).abs().sum(1).argmax())
    apart = (targets - targets[one]).abs().sum(1) * (inputs != inputs[one]).any(1)
    if not apart.max() > 0:
        raise CannotTell("no two rows of a batch differ in inputs and target")
    batch = change(batch, lambda each: each[[one, int(apart.argmax())]])
    first = context.observe(context.copy(training=False), batch)
    if first.broadcasts:
        raise CannotTell("prediction and target have different shapes")
    if sum(p.numel() for p in trainable(context.prepared).values()) < 2 * targets.shape[1]:
        raise CannotTell("there are fewer parameters than targets in two rows")
    start = lowest = first.size
    goal = start - 0.1 * abs(start)
    if (known := first.known) and known.knowing_nothing() > 0 and not known.settings.get("label_smoothing"):
        is_hard = known.kind in ("classes", "binary") and not ((known.target != 0) & (known.target < 1)).any()
        differ = float((known.target.reshape(2, -1)[0] != known.target.reshape(2, -1)[1]).double().mean())
        goal = math.log(2) * differ / 2 if is_hard else goal  # half of what is best without regard to the input
        goal = known.knowing_nothing() / 10 if known.kind == "squared" else goal
    for training, steps, cls, how in BY_HEART:
        model = context.copy(training=False)
        for norm in (m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)):
            norm.train(training)  # and no dropout, by whose masks the rows could be told apart
        optimizer = cls(trainable(model).values(), **how)

        def loss(model: Any = model, optimizer: torch.optim.Optimizer = optimizer) -> Tensor:
            optimizer.zero_grad()
            loss = context.observe(model, batch).loss
            loss.backward()
            return loss

        for _ in range(steps):
            lowest = min(lowest, float(optimizer.step(loss).detach()))
            if lowest < goal:
                return Verdict("ok", f"loss {start:.3g} -> {lowest:.3g}")
    remedy = "look for an activation behind the last layer, a loss that does not fit it, an input that is not used"
    return judge(False, f"loss {start:.3g} -> {lowest:.3g}", f"below {goal:.3g}", remedy)


def gradients_arrive(context: Context) -> Verdict:
    """Each parameter that an optimizer has gets a gradient, a finite one, and not zero on all rows."""
    seen: dict[str, Tensor] = {}  # by the name of a parameter: the largest gradient in each of its rows

    def watch(model: Any, data: Any) -> None:
        leave_zero(model)
        for name, p in trainable(model).items():
            p.register_post_accumulate_grad_hook(lambda p, name=name: note(name, p.grad))

    def note(name: str, gradient: Tensor | None) -> None:
        if gradient is not None:
            rows = flat(gradient.to_dense().detach().abs().reshape(len(gradient) if gradient.ndim else 1, -1)).amax(1)
            seen[name] = rows.maximum(seen.get(name, rows))

    trainer = context.fit(steps=4, scale=1e-3, prepare=watch)
    has = {id(p) for optimizer in trainer.optimizers for group in optimizer.param_groups for p in group["params"]}
    modules = trainer.lightning_module.modules()
    rare = {id(m.weight) for m in modules if isinstance(m, nn.Embedding)}  # words that do not occur get none
    for name, p in trainable(trainer.lightning_module).items():
        if name not in seen and id(p) in has:
            return judge(False, f"{name} gets no gradient", "one", "use it; look for detach(), no_grad() or .data")
        if name in seen and id(p) not in has:
            return judge(False, f"no optimizer has {name}", "one that has it", "see configure_optimizers")
        if name in seen and not seen[name].isfinite().all():
            return judge(False, f"the gradient of {name} is not finite", "numbers", "look for log(0), sqrt(0), 0 / 0")
        if name in seen and id(p) not in rare and (share := (seen[name] == 0).double().mean()) > 0.9:
            found = f"{share:.0%} of {name} has gradient 0 on all rows"
            return judge(False, found, "90 % at most", "look for a ReLU that is never above 0, or a product with 0")
    return Verdict("ok", f"{len(seen)} of {len([*trainer.lightning_module.parameters()])} parameters have one")


def what_is_trained_is_a_parameter(context: Context) -> Verdict:
    """Each weight that the loss depends on is among the model's parameters, and so in its checkpoint."""
    model = context.copy()
    known, seen = {id(p) for p in model.parameters()}, set()
    waiting = [context.observe(model, context.train[0]).loss.grad_fn]
    while waiting:
        node: Any = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        waiting += [each for each, _ in node.next_functions]
        if isinstance(weight := getattr(node, "variable", None), nn.Parameter) and id(weight) not in known:
            found = f"a weight of shape {tuple(weight.shape)} is none of the model's"
            return judge(False, found, "a parameter", "put layers into an nn.ModuleList, and no plain list")
    return Verdict("ok", f"{len(known)} parameters")


def varies(context: Context, model: nn.Module, batch: Any, seeds: tuple[int, ...]) -> bool:
    """Whether the loss of a batch is another one; several times, as a byte of noise is the same in one of 256."""
    return len({context.observe(model, batch, seed=seed).size for seed in seeds}) > 1


def finite_differences(context: Context) -> Verdict:
    """The gradient of autograd is that of finite differences, along a random direction of each parameter."""
    model = context.copy(training=False).double()
    leave_zero(model)
    batch = change(context.train[0], lambda each: each.double() if each.is_floating_point() else each)
    first = context.observe(model, batch)
    if first.loss.dtype != torch.float64 or varies(context, model, batch, seeds=(0, 0, 0, 0)):
        raise CannotTell("the loss is computed in float32 whatever it is given, or is not the same twice")
    some = [*trainable(model).items()]
    some = some[:: len(some) // 25 + 1]
    gradients = torch.autograd.grad(first.loss, [p for _, p in some], materialize_grads=True)

    def slope(p: Tensor, direction: Tensor, size: float) -> float:
        values = []
        for move in (size, -2 * size, size):
            p.data.add_(direction, alpha=move)
            with torch.no_grad():
                values.append(context.observe(model, batch).size)
        return (values[0] - values[1]) / (2 * size)

    worst, where = 0.0, ""
    for (name, p), gradient in zip(some, gradients, strict=True):
        with alone():
            direction = torch.randn_like(p)
        expected = float((gradient * direction).sum())
        error = min(abs(slope(p, direction, size) - expected) for size in (1e-4, 1e-5, 1e-6))
        worst, where = max((worst, where), (error / (abs(expected) + 1e-4 * max(abs(first.size), 1)), name))
    if worst > 0.01 and first.cuts:
        raise CannotTell("the graph is cut (detach, no_grad, a metric), so that they need not be equal")
    return judge(worst <= 0.01, f"they differ by {worst:.1g} of it at {where}", "0.01", "look at your own backward()")


def loss_does_not_broadcast(context: Context) -> Verdict:
    """Predictions and targets have one shape, or each is compared with every other."""
    first = context.observe(context.copy(), context.train[0])
    if not (first.calls or first.broadcasts):
        raise CannotTell("it calls no loss function of torch, and subtracts no column from a row")
    a, b = (first.broadcasts or [(first.calls[0].prediction, first.calls[0].target)])[0]
    text = f"prediction and target: {tuple(a.shape)}, {tuple(b.shape)}"
    return judge(not first.broadcasts, text, "one shape", "y_hat.squeeze(1), or y.unsqueeze(1)")


def loss_is_a_mean(context: Context) -> Verdict:
    """The loss does not grow with the number of rows, with which the rate would have to fall."""
    model, batch = context.copy(training=False), context.train[0]
    once, thrice = (context.observe(model, together([batch] * n)).size for n in (1, 3))
    is_sum = abs(thrice - 3 * once) < 0.05 * abs(once)
    return judge(not is_sum, f"the rows of a batch thrice: {once:.3g} -> {thrice:.3g}", "the same", "take the mean")


def order_of_rows_is_no_matter(context: Context) -> Verdict:
    """The rows of a batch in another order, inputs and targets together, have the same loss."""
    model, batch = context.copy(training=False), context.train[0]
    num_rows(batch)
    once, turned = context.observe(model, batch), context.observe(model, change(batch, lambda each: each.flip(0)))
    if varies(context, model, batch, seeds=(0, 1, 2, 3)):
        raise CannotTell("the loss is drawn, or not the same twice")
    off = abs(turned.size - once.size)
    text = f"the rows of a batch turned round: {once.size:.5g} -> {turned.size:.5g}"
    return judge(off <= 1e-3 * abs(once.size), text, "the same", "look for a transpose or reshape that mixes rows")


LEARNING = [loss_at_start, two_rows_by_heart, gradients_arrive, what_is_trained_is_a_parameter, finite_differences]
LEARNING += [loss_does_not_broadcast, loss_is_a_mean, order_of_rows_is_no_matter]
