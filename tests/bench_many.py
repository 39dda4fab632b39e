"""What several processes cost: ``python tests/bench_many.py``, and ``torchrun --nproc_per_node 2 tests/bench_many.py``.

Prints for each size the bytes that a step exchanges, the median step, and the pass that gives the exact solution.
"""

import logging
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from lightning.pytorch import Callback, Trainer

from linreg import LinearRegression, SyntheticData
from linreg.processes.meeting import meet
from linreg.stack.trainer import all_flags, make_trainer
from linreg.system.ranks import rank, world

SIZES = ((32, 256, 100_000), (32, 65_536, 500_000), (4_096, 256, 5_000), (4_096, 8_192, 21_000))


class Clock(Callback):
    """When each step ended, and how long the pass over the rows took."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        self.ends.append(time.perf_counter())


class Timed(LinearRegression):
    def fit_standardizers(self, rows: Any) -> None:
        start = time.perf_counter()
        super().fit_standardizers(rows)
        self.seconds = time.perf_counter() - start


def main() -> None:
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    meet()
    for num_features, batch_size, num_rows in SIZES:
        data = SyntheticData(num_rows, num_features, batch_size=batch_size, val_fraction=0, test_fraction=0)
        model, clock = Timed(num_features, lr=1e-4), Clock()
        flags = {"max_steps": 60, "max_epochs": None, "logger": False, "enable_checkpointing": False}
        trainer: Trainer = make_trainer(all_flags(flags), (clock,), accelerator="cpu", enable_progress_bar=False)
        trainer.fit(model, datamodule=data)
        steps = [after - before for before, after in zip(clock.ends, clock.ends[1:], strict=False)]
        if rank() == 0:
            nbytes = 4 * sum(parameter.numel() for parameter in model.parameters())
            print(
                f"{world()} process(es), {num_features:,} features, batches of {batch_size:,}: "
                f"{nbytes:,} bytes a step, "
                f"{1e3 * statistics.median(steps):.2f} ms a step, {model.seconds:.2f} s for the exact pass over "
                f"{num_rows:,} rows",
                flush=True,
            )


if __name__ == "__main__":
    main()
