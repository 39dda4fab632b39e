"""Schedules of the learning rate in shares of a run's own steps: it rises, and then stays or falls to the last step."""

import math
from typing import Any

from lightning.pytorch import Trainer
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from linreg.system.errors import InputError


class WarmupConstant(LambdaLR):
    """A rate that rises in a straight line, and then stays.

    Args:
        optimizer: whose rate it changes, at each step.
        total_steps: of the run, as ``trainer.estimated_stepping_batches`` has them.
        warmup: share of the steps in which the rate rises, from 0 to below 1.
    """

    end = 1.0  # share of the rate that is left after the last step

    def __init__(self, optimizer: Optimizer, total_steps: float, warmup: float = 0.1) -> None:
        if not 0 <= total_steps < math.inf:  # Lightning says -1 or infinity
            found = f"lr_scheduler {type(self).__name__}: the steps of this run cannot be counted beforehand"
            raise InputError(f"{found}; give --max_epochs, or --max_steps for data without a length")
        if not 0 <= warmup < 1:
            raise InputError(f"lr_scheduler warmup={warmup}: a share of the steps from 0 to below 1 is expected")
        self.total_steps, self.warmup = max(int(total_steps), 1), warmup
        super().__init__(optimizer, self.share)

    def share(self, step: int) -> float:
        """The share of the optimizer's own rate at a step, the first of which is 0."""
        rising = self.warmup * self.total_steps
        if step + 1 < rising:
            return (step + 1) / rising
        return self.after(min(max(step - rising, 0.0) / (self.total_steps - rising), 1.0))

    def after(self, progress: float) -> float:
        """The same from the end of the rise (0) to that of the run (1)."""
        return self.end + (1 - self.end) * (1 - progress)


class WarmupLinear(WarmupConstant):
    """A rate that rises in a straight line, and falls in another.

    Args:
        optimizer: see WarmupConstant.
        total_steps: see WarmupConstant.
        warmup: see WarmupConstant.
        end: share of the rate that is left after the last step, from 0 to 1.
    """

    def __init__(self, optimizer: Optimizer, total_steps: float, warmup: float = 0.1, end: float = 0.0) -> None:
        if not 0 <= end <= 1:
            raise InputError(f"lr_scheduler end={end}: a share of the rate from 0 to 1 is expected")
        self.end = end
        super().__init__(optimizer, total_steps, warmup)


class WarmupCosine(WarmupLinear):
    """A rate that rises in a straight line, and falls as half a cosine (Loshchilov and Hutter, SGDR, 2017)."""

    def after(self, progress: float) -> float:
        return super().after((1 - math.cos(math.pi * progress)) / 2)


def count_all(trainer: Trainer, interval: str) -> float:
    """The steps of a run, or its epochs where that is the interval of a schedule."""
    steps, batches = trainer.estimated_stepping_batches, trainer.num_training_batches or 1
    return steps if interval == "step" else -(-steps // -(-batches // trainer.accumulate_grad_batches))


def check_intervals(configs: list[Any]) -> None:
    """InputError for a schedule in steps, among Lightning's configs of schedulers, that would count something else."""
    for config in configs:
        if isinstance(config.scheduler, WarmupConstant) and (config.interval, config.frequency) != ("step", 1):
            name, every = type(config.scheduler).__name__, f"every {config.frequency} {config.interval}(s)"
            remedy = "give interval: step, in configure_optimizers too, and leave out frequency"
            raise InputError(f"lr_scheduler {name} counts steps, and not {every}: {remedy}")
