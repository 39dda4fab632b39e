"""What a run says at its beginning: how a Regressor will be trained, and what its columns make of that."""

import math
from typing import Any

from linreg.regression.exact.coefficients import nearly_collinear, variance_inflation
from linreg.regression.exact.learning_rate import GOAL, MAX_STEPS
from linreg.system.screen import counted, wrapped

ILL_CONDITIONED, REPEATED = 30, 10  # a condition number, and a variance inflation factor, above which a word is due


def describe_training(model: Any, optimizers: list[Any], steps_per_epoch: int, max_epochs: int | None) -> str:
    """How a Regressor will be trained, and how soon that is expected to reach the optimum."""
    until = "no last epoch"
    if max_epochs is not None and max_epochs >= 0:
        until = f"at most {counted(max_epochs, 'epoch')} of {counted(steps_per_epoch, 'step')}"
    plan, size = getattr(model, "plan", None), counted(sum(p.numel() for p in model.parameters()), "parameter")
    if plan is None:
        rates = [f"{type(each).__name__}, lr {each.param_groups[0]['lr']:.3g}" for each in optimizers]
        return wrapped(f"train   {', '.join([size, *rates])}; {until}")
    noisy = " (batches are noisy: less is stable)" if plan.decay else ""
    rate = f"lr {plan.lr:.3g} = {100 * plan.lr / plan.lr_limit:.2g} % of the full-batch limit{noisy}"
    if plan.lr > plan.lr_limit:
        rate = f"lr {plan.lr:.3g}"
    first = f"train   {size}, SGD, {rate}, momentum {plan.momentum:g}, batches of {plan.batch_size:,}; {until}"
    lines = [wrapped(first)]
    if model.exact is None:
        return lines[0] + "\n        more than 2,000 features: no exact solution, and a rate that is safe but slow"
    vague = model.exact.not_identifiable | nearly_collinear(model.exact)
    names = [name for name, flag in zip(model.feature_names, vague, strict=True) if flag]
    if names:
        said = f"        constant or collinear, without coefficients of their own: {', '.join(names[:20])}"
        lines.append(wrapped(said))
    soon = "more than this run has"
    if plan.steps_to_goal < MAX_STEPS:
        soon = f"about {counted(math.ceil(plan.steps_to_goal / steps_per_epoch), 'epoch')}"
    if plan.noise > GOAL and not plan.decay:
        soon += f", but for noise of about {100 * plan.noise:.0f} %"
    condition = model.exact.condition_number
    lines.append(wrapped(f"        condition number {condition:.3g}; expected to be within 1 % after {soon}"))
    if condition > ILL_CONDITIONED:
        lines.append(wrapped(describe_collinearity(model)))
    if plan.lr > plan.lr_limit:
        times = f"{plan.lr / plan.lr_limit:.3g} times the full-batch limit, {plan.lr_limit:.3g}"
        lines.append(
            wrapped(f"        warning: this lr diverges: it is {times}; stay below that, or leave out --model.lr")
        )
    return "\n".join(lines)


def describe_collinearity(model: Any) -> str:
    """Which columns nearly repeat each other, and how much that inflates the variance of their coefficients (VIF)."""
    factors = variance_inflation(model.exact).tolist()
    worst = sorted(zip(factors, model.feature_names, strict=True), reverse=True)
    shown = [f"{name} ({factor:.3g})" for i, (factor, name) in enumerate(worst) if factor > REPEATED or i < 2][:5]
    more = f" and {len(factors) - 5:,} more" if sum(f > REPEATED for f in factors) > 5 else ""
    return f"        columns that nearly repeat others, with their VIF: {', '.join(shown)}{more}; descent is slow there"
