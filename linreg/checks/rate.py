"""Is the learning rate right, is the precision?"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from linreg.checks.context import Context
from linreg.checks.fits import alone, weights
from linreg.checks.gradients import trainable
from linreg.verdict import CannotTell, Verdict, judge


def derivative(of: Tensor, model: nn.Module, **how: Any) -> Tensor:
    """By all parameters, as one vector."""
    parts = torch.autograd.grad(of, [*trainable(model).values()], materialize_grads=True, **how)
    return torch.cat([part.flatten() for part in parts])


def curvature(context: Context, batches: list[Any], steps: int) -> float:
    """The largest eigenvalue of the Hessian of the loss over some batches, by power iteration."""
    model, top = context.copy(training=False), 0.0
    with alone():
        product = torch.cat([torch.randn_like(p).flatten() for p in trainable(model).values()])
    for _ in range(steps):
        direction = product / product.norm()
        product = torch.zeros_like(direction)
        for batch in batches:
            loss = context.observe(model, batch).loss / len(batches)
            along = derivative(loss, model, create_graph=True) @ direction
            product += derivative(along, model) if along.requires_grad else 0.0
        before, top = top, float(product @ direction)
        if abs(top - before) <= 0.03 / steps * abs(top):
            break
    return top


def ten_steps_lower_the_loss(context: Context) -> Verdict:
    """Ten steps move the weights and, at some rate, lower the loss."""
    if context.prepared.automatic_optimization and not abs(context.after(0)) > 1e-12:
        raise CannotTell("there is nothing to learn, or the loss is no number")
    before, after = weights(context.trainer), weights(context.fit(steps=10, scale=0.1))
    if all(torch.equal(before[name], after[name]) for name in trainable(context.prepared)):
        return judge(False, "ten steps move no weight", "a step", "look at the learning rate, and at step()")
    start, best = context.after(0), min(context.after(scale) for scale in (1, 0.1, 10, 0.001))
    remedy = "look for a sign, an optimizer without the weights, a zero_grad or step that is left out"
    return judge(best < start, f"{start:.4g} -> {best:.4g}", "less", remedy)


def rate_is_neither_small_nor_large(context: Context) -> Verdict:
    """At the rate that is given the loss falls, and the run is long enough for it to fall far."""
    start, tenth, once, ten = (context.after(scale) for scale in (0, 0.1, 1, 10))
    small = context.after(0.001)
    if min(tenth, once, ten, small) >= start:
        raise CannotTell("the loss falls at no rate")
    group = context.trainer.optimizers[0].param_groups[0]
    text = f"lr {group['lr']:.3g}; ten steps at a tenth, once, ten times of it: {start:.3g} -> "
    text += ", ".join(f"{loss:.3g}" for loss in (tenth, once, ten))
    if isinstance(context.trainer.optimizers[0], torch.optim.SGD):
        b, known = group["momentum"], getattr(context.prepared, "curvature", None)
        top = curvature(context, context.train, steps=100) if known is None else float(known)
        limit = 2 * (1 + b) / ((1 + 2 * b if group["nesterov"] else 1) * top) if top > 0 else math.inf
        text += f"; {group['lr'] / limit:.2g} of the limit by the largest curvature, {top:.3g}"
    if (share := group["lr"] * group.get("weight_decay", 0.0)) > 0.02:
        return judge(False, f"weight decay takes {share:.0%} of the weights in each step", "2 % at most", "take less")
    if once > start and min(tenth, small) < start:
        return judge(False, text, "a fall", f"take a {'tenth' if tenth < start else 'thousandth'} of it")
    if (left := context.rates.get(1, math.inf) / group["lr"]) < 0.01:
        return judge(False, f"after ten steps {left:.1g} of the rate is left", "most", "step the schedule each epoch")
    steps = (context.flags["max_epochs"] or 1000) * context.trainer.num_training_batches
    is_slow = ten < once and (start - once) / 10 * max(steps, 10) < 0.1 * abs(start)
    return judge(not is_slow, text, "a fall by a tenth in the whole run", "take ten times of it, or more epochs")


def curvature_is_the_known_one(context: Context) -> Verdict:
    """The largest curvature by power iteration is the one that the model knows."""
    if (known := getattr(context.prepared, "curvature", None)) is None:
        raise CannotTell("the model does not know its own")
    found = curvature(context, [context.rows()], steps=300)
    remedy = "look at the loss, or at which rows it is of"
    return judge(abs(found / known - 1) < 0.05, f"{found:.4g}; known: {known:.4g}", "within 5 %", remedy)


def bfloat16(context: Context) -> Verdict:
    """The loss in bfloat16 is that in float32, where the run has half precision."""
    full = context.step(context.train[0], training=False).size
    with torch.autocast(context.device.type, torch.bfloat16):
        half = context.step(context.train[0], training=False).size
    is_close = abs(half - full) <= 0.05 * abs(full) or "16" not in str(context.flags["precision"])
    text = f"{full:.4g} in float32, {half:.4g} in bfloat16"
    return judge(is_close, text, "within 5 %", "train with --precision 32-true")


RATE = [ten_steps_lower_the_loss, rate_is_neither_small_nor_large, curvature_is_the_known_one, bfloat16]
