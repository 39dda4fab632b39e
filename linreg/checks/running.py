"""Does it run, to its end, in the right modes, at the right rate and precision?"""

import math
import tempfile
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torchmetrics import Metric, MetricCollection

from linreg.checks.context import Context
from linreg.checks.fits import weights
from linreg.checks.gradients import judge_steps, trainable
from linreg.checks.observer import Observer
from linreg.system.errors import RunError, one_line
from linreg.verdict import CannotTell, Verdict, judge


def a_short_run_ends(context: Context) -> Verdict:
    """Two short epochs, with validation, come to their end without an error."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            context.short(epochs=2, folder=folder)
        except RunError:
            raise  # it diverges, say, of which other checks know more
        except Exception as error:
            remedy = "a fit shows where; detach() what a step keeps of the loss for later ones"
            return judge(False, one_line(error), "no error", remedy)
    return Verdict("ok", "two short ones with validation")


def evaluation_is_evaluation(context: Context) -> Verdict:
    """What is reported is measured in evaluation mode, and with statistics that were gathered in training."""
    found = ["the model is trained in evaluation mode"] * (not context.prepared.training)

    def watch(model: Any, data: Any) -> None:
        step = model.validation_step

        def watched(*args: Any, **kwargs: Any) -> Any:
            for name, m in model.named_modules():
                is_wrong = m.training and not isinstance(m, Metric | MetricCollection)  # which have no modes
                found.extend([f"{name or 'the model'} is in training mode"] * is_wrong)
                is_still = bool(getattr(m, "num_batches_tracked", None) and (m.running_var == 1).all())
                found.extend([f"{name} gathers no statistics"] * is_still)
            with Observer() as observer:
                result = step(*args, **kwargs)
            found.extend(["the model is put in training mode"] * model.training)
            found.extend(["a dropout function drops"] * observer.drops)
            return result

        vars(model)["validation_step"] = watched

    if context.val is context.train:
        raise CannotTell("there are no validation rows")
    context.fit(epochs=1, limit_train_batches=1, limit_val_batches=1, prepare=watch)
    remedy = "leave the mode to Lightning; F.dropout(x, p, self.training); BatchNorm(momentum=0.1)"
    return judge(not found, found[0] if found else "all of it is in evaluation mode", "another", remedy)


def frozen_parts_are_still(context: Context) -> Verdict:
    """No batch norm gathers statistics, and no dropout draws, in a part whose parameters are frozen in training."""
    if all(p.requires_grad for p in context.prepared.parameters()):
        raise CannotTell("no parameter is frozen")
    active: dict[str, nn.Module] = {}

    def note(m: Any, name: str) -> None:
        if m.training and (m.p if isinstance(m, _DropoutNd) else m.track_running_stats):
            active[name] = m

    def watch(model: Any, data: Any) -> None:
        for name, m in model.named_modules():
            if isinstance(m, _BatchNorm | _DropoutNd):
                m.register_forward_pre_hook(lambda m, _, name=name: note(m, name))

    trainer = context.short(epochs=2, prepare=watch)
    before, after = weights(context.trainer), weights(trainer)
    parameters = dict(trainer.lightning_module.named_parameters())
    # What moves all the same follows other weights, as a momentum encoder, whose norms are in training mode by right.
    still = {name for name, p in parameters.items() if not p.requires_grad and torch.equal(before[name], after[name])}

    def inside(part: str) -> set[str]:
        return {name for name in parameters if name.startswith(f"{part}." if part else "")}

    for name, m in active.items():
        if isinstance(m, _BatchNorm):  # one that is frozen alone, as what standardizes inputs, has to gather them
            around, own = inside(name.rpartition(".")[0]), inside(name)
            is_wrong = (own or around) <= still and any(parameters[each].ndim > 1 for each in around & still)
        else:  # beside layers that are trained, as adapters are, it draws by right
            part = inside(name.partition(".")[0])
            is_wrong = bool(part) and part <= still
        if is_wrong:
            does = "gathers statistics" if isinstance(m, _BatchNorm) else "draws"
            remedy = "call its eval() in __init__ (a Trainer calls no train(), and leaves modes as they are)"
            return judge(False, f"{name} {does}, though its part is frozen", "evaluation mode", remedy)
    return Verdict("ok", f"{len(still)} of {len(parameters)} parameters are frozen, and nothing draws there")


def ten_steps_lower_the_loss(context: Context) -> Verdict:
    """Ten steps move the weights and, at some rate, lower the loss."""
    if context.prepared.automatic_optimization and not abs(context.after(0)) > 1e-12:
        raise CannotTell("there is nothing to learn, or the loss is no number")
    before, after = weights(context.trainer), weights(context.fit(steps=10, scale=0.1))
    if all(torch.equal(before[name], after[name]) for name in trainable(context.prepared)):
        return judge(False, "ten steps move no weight", "a step", "look at the learning rate, and at step()")
    start, best = context.after(0), min(context.after(scale) for scale in (1, 0.1, 10, 0.001))
    remedy = "look for a sign, an optimizer without the weights, a zero_grad or step that is left out"
    return judge_steps(context, best < start, f"{start:.4g} -> {best:.4g}", "less", remedy)


def rate_is_neither_small_nor_large(context: Context) -> Verdict:
    """At the rate that is given the loss falls, and the run is long enough for it to fall far."""
    start, tenth, once, ten = (context.after(scale) for scale in (0, 0.1, 1, 10))
    small = context.after(0.001)
    if min(tenth, once, ten, small) >= start:
        raise CannotTell("the loss falls at no rate")
    group = context.trainer.optimizers[0].param_groups[0]
    text = f"lr {group['lr']:.3g}; ten steps at a tenth, once, ten times of it: {start:.3g} -> "
    text += ", ".join(f"{loss:.3g}" for loss in (tenth, once, ten))
    top = float(getattr(context.prepared, "curvature", None) or 0)
    if isinstance(context.trainer.optimizers[0], torch.optim.SGD) and top > 0:
        b = group["momentum"]
        limit = 2 * (1 + b) / ((1 + 2 * b if group["nesterov"] else 1) * top)
        text += f"; {group['lr'] / limit:.2g} of the limit by the largest curvature, {top:.3g}"
    if (share := group["lr"] * group.get("weight_decay", 0.0)) > 0.02:
        return judge(False, f"weight decay takes {share:.0%} of the weights in each step", "2 % at most", "take less")
    if once > start and min(tenth, small) < start:
        return judge_steps(context, False, text, "a fall", f"take a {'tenth' if tenth < start else 'thousandth'} of it")
    if (left := context.rates.get(1, math.inf) / group["lr"]) < 0.01:
        return judge(False, f"after ten steps {left:.1g} of the rate is left", "most", "step the schedule each epoch")
    steps = (context.flags["max_epochs"] or 1000) * context.trainer.num_training_batches
    is_slow = ten < once and (start - once) / 10 * max(steps, 10) < 0.1 * abs(start)
    said = text, "a fall by a tenth in the whole run", "take ten times of it, or more epochs"
    return judge_steps(context, not is_slow, *said)


def bfloat16(context: Context) -> Verdict:
    """The loss in bfloat16 is that in float32, where the run has half precision."""
    full = context.step(context.train[0], training=False).size
    with torch.autocast(context.device.type, torch.bfloat16):
        half = context.step(context.train[0], training=False).size
    is_close = abs(half - full) <= 0.05 * abs(full) or "16" not in str(context.flags["precision"])
    text = f"{full:.4g} in float32, {half:.4g} in bfloat16"
    return judge(is_close, text, "within 5 %", "train with --precision 32-true")
