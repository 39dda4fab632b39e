"""What a run says at its beginning: how a Regressor will be trained, and what its columns make of that."""

import math
from typing import Any

from linreg.optimizers import describe_training
from linreg.regression.exact.coefficients import nearly_collinear, variance_inflation
from linreg.regression.exact.learning_rate import GOAL, MAX_STEPS
from linreg.system.screen import counted, told_from, wrapped
from linreg.verdict import ILL_CONDITIONED, REPEATED


def describe_descent(model: Any, optimizers: list[Any], steps_per_epoch: int, max_epochs: int | None) -> str:
    """How a Regressor will be trained, and how soon that is expected to reach the optimum."""
    plan = getattr(model, "plan", None)
    if plan is None:
        return describe_training(model, optimizers, steps_per_epoch, max_epochs)
    times, is_stable = plan.lr / plan.lr_limit, plan.lr <= plan.lr_limit
    noisy = " (batches are noisy: less is stable)" if plan.decay else ""
    share = f" = {told_from(100 * times, 100, 2)} % of the full-batch limit{noisy}" if is_stable else ""
    how = f"SGD, lr {plan.lr:.3g}{share}, momentum {plan.momentum:g}, batches of {plan.batch_size:,}"
    first = describe_training(model, how, steps_per_epoch, max_epochs)
    if model.exact is None:
        return first + "\n        more than 2,000 features: no exact solution, and a rate that is safe but slow"
    lines = []
    vague = model.exact.not_identifiable | nearly_collinear(model.exact)
    if names := [name for name, flag in zip(model.feature_names, vague, strict=True) if flag]:
        more = f" and {len(names) - 20:,} more" if len(names) > 20 else ""
        lines.append(f"constant or collinear, without coefficients of their own: {', '.join(names[:20])}{more}")
    soon = "after more than this run has" if is_stable else "never"
    if is_stable and plan.steps_to_goal < MAX_STEPS:
        soon = f"after about {counted(math.ceil(plan.steps_to_goal / steps_per_epoch), 'epoch')}"
    if is_stable and plan.noise > GOAL and not plan.decay:
        endless = "noise that grows without end: lower the rate, or take larger batches"
        soon += f", but for {endless if math.isinf(plan.noise) else f'noise of about {100 * plan.noise:.0f} %'}"
    condition = model.exact.condition_number
    lines.append(f"condition number {condition:.3g}; expected to be within 1 % {soon}")
    if condition > ILL_CONDITIONED:
        lines.append(describe_collinearity(model))
    if not is_stable:
        limit = f"it is {told_from(times, 1, 3)} times the full-batch limit, {plan.lr_limit:.3g}"
        lines.append(f"warning: this lr diverges: {limit}; stay below that, or leave out --model.lr")
    return "\n".join([first, *(wrapped(f"        {line}") for line in lines)])


def describe_collinearity(model: Any) -> str:
    """Which columns nearly repeat each other, and how much that inflates the variance of their coefficients (VIF)."""
    factors = variance_inflation(model.exact).tolist()
    worst = sorted(zip(factors, model.feature_names, strict=True), reverse=True)
    shown = [f"{name} ({factor:.3g})" for i, (factor, name) in enumerate(worst) if factor > REPEATED or i < 2][:5]
    more = f" and {len(factors) - 5:,} more" if sum(f > REPEATED for f in factors) > 5 else ""
    return f"columns that nearly repeat others, with their VIF: {', '.join(shown)}{more}; descent is slow there"
