"""Is the gradient right? It arrives everywhere, is of one step alone, and that of finite differences."""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import Node
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from linreg.checks.batch import change, flat
from linreg.checks.context import Context
from linreg.checks.fits import alone
from linreg.verdict import CannotTell, Verdict, judge


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


@torch.no_grad()
def leave_zero(model: nn.Module) -> None:
    """Moves what begins at zero, behind which nothing else would get a gradient."""
    for p in [p for p in trainable(model).values() if not p.any()]:
        p.normal_(std=1e-2)


def judge_layer(path: str, layer: nn.Module, seen: dict[nn.Parameter, Tensor], has: set[Any]) -> Verdict | None:
    """What is wrong with the gradients of a layer's own parameters, by the largest that was seen and who has them."""
    own = {name: p for name, p in layer.named_parameters(path, recurse=False) if p.requires_grad}
    for name, p in own.items():
        if p not in seen and p in has:
            return judge(False, f"{name} gets no gradient", "one", "use it; look for detach(), no_grad() or .data")
        if p in seen and p not in has:
            return judge(False, f"no optimizer has {name}", "one that has it", "see configure_optimizers")
        if p not in seen or isinstance(layer, nn.Embedding | nn.EmbeddingBag):  # where rare words get none
            continue
        if not seen[p].isfinite().all():
            return judge(False, f"{name}: not finite", "numbers", "look for log(0), sqrt(0), 0 / 0")
        # A bias alone may have none by right: that of a score of which only differences count.
        units = torch.stack([seen[q] for q in own.values() if q in seen and len(seen[q]) == len(seen[p])]).amax(0)
        if (share := (units == 0).double().mean()) > 0.9:
            found = f"{share:.0%} of {name} has gradient 0 on all rows"
            return judge(False, found, "90 % at most", "look for a ReLU that is never above 0, or a product with 0")
    return None


def gradients_arrive(context: Context) -> Verdict:
    """Each parameter that an optimizer has gets a gradient, a finite one, and a layer's is not zero on all rows."""
    seen: dict[nn.Parameter, Tensor] = {}  # the largest gradient of each unit: of a row of a weight, of a bias
    stepped = set[Optimizer]()

    def note(p: nn.Parameter) -> None:
        if p.grad is not None:
            units = flat(p.grad.to_dense().detach().abs().reshape(len(p) if p.ndim else 1, -1)).amax(1)
            seen[p] = units.maximum(seen.get(p, units))

    def watch(model: Any, data: Any) -> None:
        leave_zero(model)
        for p in trainable(model).values():
            p.register_post_accumulate_grad_hook(note)

    def look(optimizer: Optimizer, *_: Any) -> None:  # for what is written by hand, or grows in training
        stepped.add(optimizer)
        for p in [p for group in optimizer.param_groups for p in group["params"]]:
            note(p)

    with register_optimizer_step_pre_hook(look):
        trainer = context.fit(steps=10, scale=1e-3, prepare=watch)
    idle = [o for o in trainer.optimizers if o not in stepped and any(p in seen for p in o.param_groups[0]["params"])]
    if 0 < len(idle) < len(trainer.optimizers):  # one alone may have others inside it, which step
        found = f"optimizer {trainer.optimizers.index(idle[0]) + 1} takes no step, though its weights get gradients"
        return judge(False, found, "a step", "call its step(), too")
    has = {p for optimizer in trainer.optimizers for group in optimizer.param_groups for p in group["params"]}
    for path, layer in trainer.lightning_module.named_modules():
        if verdict := judge_layer(path, layer, seen, has):
            return verdict
    parameters = [*trainer.lightning_module.parameters()]
    return Verdict("ok", f"{len(seen.keys() & {*parameters})} of {len(parameters)} parameters have one")


def gradients_are_of_one_step(context: Context) -> Verdict:
    """No step is taken along the gradient of an earlier one once more."""
    used: dict[Tensor, tuple[int, float]] = {}  # which gradient a step took, and its size, if it was not 0 since
    stale, kept, begun = set[Tensor](), set[Tensor](), list[Optimizer]()  # more was added; used again; steps in steps

    def before(p: Tensor) -> None:
        if p.grad is None or not p.grad.to_dense().any():
            used.pop(p, None)
        (stale.add if p in used else stale.discard)(p)

    def after(optimizer: Optimizer, *_: Any) -> None:
        begun.pop()
        for p in [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None and not begun]:
            now = id(p.grad), float(p.grad.to_dense().norm())
            if p in stale or (now[1] and used.get(p) == now):
                kept.add(p)
            used[p] = now

    def watch(model: Any, data: Any) -> None:
        for p in trainable(model).values():
            p.register_hook(lambda gradient, p=p: before(p))

    before_it = register_optimizer_step_pre_hook(lambda optimizer, *_: begun.append(optimizer))
    with before_it, register_optimizer_step_post_hook(after):
        context.fit(steps=4, scale=1e-3, prepare=watch)
    text = f"{len(kept)} parameters kept a gradient from one step to the next"
    return judge(not kept, text, "none", "call optimizer.zero_grad() before manual_backward()")


def what_is_trained_is_a_parameter(context: Context) -> Verdict:
    """Each weight that a step computes gradients of is among the model's parameters, and so in its checkpoint."""
    model = context.copy()
    one, again = (context.observe(model, context.train[0]).parameters for _ in range(2))
    hidden = (one & again) - {*model.parameters()}  # a copy for an inner loop is another one in each step
    found = f"{len(hidden)} of its weights, of shapes {[tuple(p.shape) for p in hidden]}, are none of the model's"
    return judge(not hidden, found if hidden else "all", "parameters", "put layers into an nn.ModuleList")


def varies(context: Context, model: nn.Module, batch: Any, seeds: tuple[int, ...]) -> bool:
    """Whether the loss of a batch is another one; several times, as a byte of noise is the same in one of 256."""
    return len({context.observe(model, batch, seed=seed).size for seed in seeds}) > 1


def judge_steps(context: Context, is_right: bool, *said: str) -> Verdict:
    """A verdict on losses before and after steps; CannotTell for a FAIL where the same weights have several."""
    model = context.copy(training=False)
    model.training = True  # of it alone, as norms gather statistics
    if not is_right and varies(context, model, context.train[0], seeds=(0, 0)):
        raise CannotTell("a step changes the loss even where weights stay, as by a queue or a counter")
    return judge(is_right, *said)


def pairs_anew(context: Context, model: nn.Module, batch: Any) -> bool:
    """Whether other draws compare the same predictions with the same targets, but not each with the same one."""
    calls = [call for seed in (0, 1) if (call := context.observe(model, batch, seed=seed).known)]
    sides = [[flat(side.detach()).tolist() for side in (call.prediction, call.target)] for call in calls]
    if len(sides) < 2 or len({len(side) for both in sides for side in both}) > 1:
        return False
    is_same = all(sorted(one) == sorted(other) for one, other in zip(*sides, strict=True))
    one, other = (sorted(zip(*both, strict=True)) for both in sides)
    return is_same and one != other


def turned_round(loss: Tensor) -> list[Node]:
    """Fills up, in a backward pass, with functions of a user's own that give their gradient back with another sign."""
    found, seen, nodes = list[Node](), set[Node](), [loss.grad_fn]

    def note(node: Node, inner: Any, outer: Any) -> None:
        a, b = inner[0], outer[0]
        is_like = a is not None and b is not None and a.shape == b.shape
        if is_like and F.cosine_similarity(a.flatten(), b.flatten(), dim=0) < -0.999:
            found.append(node)

    while nodes:
        if (node := nodes.pop()) is not None and node not in seen:
            seen.add(node)
            nodes += [each for each, _ in node.next_functions]
            if isinstance(node, BackwardCFunction):
                node.register_hook(partial(note, node))
    return found


def finite_differences(context: Context) -> Verdict:
    """The gradient of autograd is that of finite differences, along a random direction of each parameter."""
    _ = context.step(context.train[0]).loss  # that there is one
    model = context.copy(training=False)
    leave_zero(model)
    single = context.observe(model, context.train[0]).size
    model.double()
    batch = change(context.train[0], lambda each: each.double() if each.is_floating_point() else each)
    first = context.observe(model, batch)
    is_another = abs(first.size - single) > 1e-3 * abs(single)  # as where attention gets a mask that stays float32
    if first.loss.dtype != torch.float64 or is_another or varies(context, model, batch, seeds=(0, 0, 0, 0)):
        raise CannotTell("some of the loss is computed in float32 whatever it is given, or is not the same twice")
    some = [*trainable(model).items()]
    some = some[:: len(some) // 25 + 1]
    turned = turned_round(first.loss)
    gradients = torch.autograd.grad(first.loss, [p for _, p in some], materialize_grads=True)

    def slope(p: Tensor, direction: Tensor, size: float) -> float:
        values = []
        for move in (size, -2 * size, size):
            with torch.no_grad():
                p.add_(direction, alpha=move)
                values.append(context.observe(model, batch).size)
        return (values[0] - values[1]) / (2 * size)

    worst, where = 0.0, ""
    for (name, p), gradient in zip(some, gradients, strict=True):
        with alone():
            direction = torch.randn_like(p) * (gradient != 0)  # a row that stands for padding stays
        expected = float((gradient * direction).sum())
        error = min(abs(slope(p, direction, size) - expected) for size in (1e-4, 1e-5, 1e-6))
        worst, where = max((worst, where), (error / (abs(expected) + 1e-4 * max(abs(first.size), 1)), name))
    if worst > 0.01 and (first.cuts or turned):
        how = "turned round by a function of your own" if turned else "cut (detach, no_grad, a metric)"
        raise CannotTell(f"the gradient is {how}, so that they need not be equal")
    return judge(worst <= 0.01, f"they differ by {worst:.1g} of it at {where}", "0.01", "look at your own backward()")
