"""What a run says of itself on screen before its report."""

import math
from typing import Any

from lightning.pytorch import Trainer
from torch.utils.data import DataLoader, RandomSampler

from linreg.regression.exact.learning_rate import MAX_STEPS
from linreg.regression.regressor import Regressor
from linreg.tables.data import RegressionData


def describe_data(data: RegressionData, trainer: Trainer, seed: int) -> str:
    """The lines that open a run: what the data are, and where it runs."""
    rows = data.row_counts
    sizes = ", ".join(f"{rows[split]:,} {split}" for split in ("train", "val", "test"))
    lines = [
        f"data    {rows['read']:,} rows, {data.num_features:,} feature(s) -> {', '.join(data.target_names)}; "
        f"{rows['dropped']:,} dropped; {sizes}",
        *(f"        {note}" for note in data.table.notes),
        f"device  {trainer.num_devices} x {trainer.strategy.root_device.type}, seed {seed}",
    ]
    return "\n".join(lines)


def describe_plan(model: Regressor, steps_per_epoch: int, max_epochs: int) -> str:
    """How the model will be trained, and how soon that is expected to reach the optimum."""
    until = f"at most {max_epochs:,} epoch(s) of {steps_per_epoch:,} step(s)" if max_epochs != -1 else "no last epoch"
    plan, summary = model.plan, model.summary
    if plan is None:
        return f"train   {model.optimizer}, {until}"
    noisy = " (batches are noisy: less is stable)" if plan.decay else ""
    lines = [
        f"train   SGD, lr {plan.lr:.3g} = {100 * plan.lr / plan.limit:.2g} % of the full-batch limit{noisy}, "
        f"momentum {plan.momentum:g}, batches of {plan.batch_size:,}; {until}"
    ]
    if summary is None:
        lines.append("        more than 2,000 features: no exact solution, and a rate that is safe but slow")
    else:
        names = [name for name, flag in zip(model.feature_names, summary.undetermined, strict=True) if flag]
        if names:
            lines.append(f"        constant or collinear, without coefficients of their own: {', '.join(names[:20])}")
        soon = plan.steps_to_goal < MAX_STEPS
        epochs = (
            f"about {math.ceil(plan.steps_to_goal / steps_per_epoch):,} epoch(s)" if soon else "more than this run has"
        )
        lines.append(
            f"        condition number {summary.condition_number:.3g}; expected to be within 1 % after {epochs}"
        )
        if plan.lr > plan.limit:
            lines.append(f"        warning: this lr diverges; stay below {plan.limit:.3g}, or leave out --model.lr")
    return "\n".join(lines)


def describe_resume(epoch: int, changed: list[str], loader: Any) -> str:
    """From where a run goes on, and what it does otherwise than before."""
    if isinstance(loader, DataLoader) and isinstance(loader.sampler, RandomSampler):
        changed = [
            *changed,
            "the order of the rows: shuffle=True does not repeat it; use linreg.tables.batches.TensorBatches",
        ]
    lines = [f"resume  after epoch {epoch:,}, as before" + (" but for:" if changed else "")]
    return "\n".join(lines + [f"        {line}" for line in changed])
