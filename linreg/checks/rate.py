"""Is the learning rate right, are the batches large enough, is the precision?"""

import math
from typing import Any

import torch

from linreg.checks.batch import num_rows
from linreg.checks.context import Context
from linreg.checks.fits import alone, weights
from linreg.checks.learning import trainable
from linreg.verdict import CannotTell, Verdict, judge


def curvature(context: Context, batches: list[Any], steps: int = 30) -> float:
    """The largest eigenvalue of the Hessian of the loss over some batches, by power iteration."""
    model = context.copy(training=False)
    parameters = [*trainable(model).values()]
    with alone():
        direction, top = [torch.randn_like(p) for p in parameters], 0.0
    for _ in range(steps):
        norm = math.sqrt(sum(float(v.square().sum()) for v in direction))
        direction, product = [v / norm for v in direction], [torch.zeros_like(p) for p in parameters]
        for batch in batches:
            loss = context.observe(model, batch).loss / len(batches)
            gradients = torch.autograd.grad(loss, parameters, create_graph=True, materialize_grads=True)
            along = torch.stack([(g * v).sum() for g, v in zip(gradients, direction, strict=True)]).sum()
            if along.requires_grad:
                more = torch.autograd.grad(along, parameters, materialize_grads=True)
                product = [a + b for a, b in zip(product, more, strict=True)]
        before, top = top, sum(float((a * v).sum()) for a, v in zip(product, direction, strict=True))
        direction = product
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
    optimizer = context.trainer.optimizers[0]
    group = optimizer.param_groups[0]
    text = f"lr {group['lr']:.3g}; ten steps at a tenth, once, ten times of it: {start:.3g} -> "
    text += ", ".join(f"{loss:.3g}" for loss in (tenth, once, ten))
    if isinstance(optimizer, torch.optim.SGD):
        b, top = group["momentum"], curvature(context, context.train)
        limit = 2 * (1 + b) / ((1 + 2 * b if group["nesterov"] else 1) * top) if top > 0 else math.inf
        text += f"; {group['lr'] / limit:.2g} of the limit by the largest curvature, {top:.3g}"
    if once > start and min(tenth, small) < start:
        return judge(False, text, "a fall", f"take a {'tenth' if tenth < start else 'thousandth'} of it")
    if (left := context.rates.get(1, math.inf) / group["lr"]) < 0.01:
        return judge(False, f"after ten steps {left:.1g} of the rate is left", "most", "step the schedule each epoch")
    steps = (context.flags["max_epochs"] or 1000) * context.trainer.num_training_batches
    is_slow = ten < once and (start - once) / 10 * max(steps, 10) < 0.1 * abs(start)
    return judge(not is_slow, text, "a fall by a tenth in the whole run", "take ten times of it, or more epochs")


def curvature_is_the_known_one(context: Context) -> Verdict:
    """The largest curvature by power iteration is the one that the model knows."""
    known = getattr(context.prepared, "curvature", None)
    if known is None:
        raise CannotTell("the model does not know its own")
    found = curvature(context, [context.rows()], steps=300)
    remedy = "look at the loss, or at which rows it is of"
    return judge(abs(found / known - 1) < 0.05, f"{found:.4g}; known: {known:.4g}", "within 5 %", remedy)


def gradient_noise(context: Context) -> Verdict:
    """How noisy the gradient of a batch is, and up to what size a larger one saves steps; it never fails."""
    model = context.copy(training=False)
    if len(context.train) < 4:
        raise CannotTell("there are fewer than four batches")
    gradients, weights = [], [*trainable(model).values()]
    for batch in context.train:
        parts = torch.autograd.grad(context.observe(model, batch).loss, weights, materialize_grads=True)
        gradients.append(torch.cat([part.flatten() for part in parts]))
    rows, noise = num_rows(context.train[0]), float(torch.stack(gradients).var(0).sum())  # tr(S) / B
    signal = float(torch.stack(gradients).mean(0).square().sum()) - noise / len(gradients)
    # McCandlish et al. 2018, "An Empirical Model of Large-Batch Training": B = tr(S) / |G|^2
    size = f"about {rows * noise / signal:,.0f}" if signal > 0 else "any size"
    return Verdict("ok", f"batches of {rows:,}; up to {size} a larger one saves steps")


def bfloat16(context: Context) -> Verdict:
    """The loss in bfloat16 is that in float32, where the run has half precision."""

    model, batch = context.copy(training=False), context.train[0]
    full = context.observe(model, batch).size
    with torch.autocast(context.device.type, torch.bfloat16):
        half = context.observe(model, batch).size
    is_close = abs(half - full) <= 0.05 * abs(full) or "16" not in str(context.flags["precision"])
    text = f"{full:.4g} in float32, {half:.4g} in bfloat16"
    return judge(is_close, text, "within 5 %", "train with --precision 32-true")


RATE = [ten_steps_lower_the_loss, rate_is_neither_small_nor_large, curvature_is_the_known_one]
RATE += [gradient_noise, bfloat16]
