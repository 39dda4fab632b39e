"""How far a training is: one line on a terminal, redrawn in place, of any model."""

import math
import time
from datetime import timedelta
from functools import partialmethod
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar

from linreg.metrics import LOADER
from linreg.system.screen import hide_status, show_status

PAUSE = 0.1  # seconds between two drawings
WIDTH = 10  # of the bar itself


class ProgressLine(ProgressBar):
    """The epoch, a bar over the whole training, the loss, what the model logs with ``prog_bar``, and the time left.

    An evaluation has no length that is known beforehand: it is shown once it takes time, as a number that grows.
    """

    is_enabled, began, drawn, share = True, 0.0, 0.0, 0.0

    def disable(self) -> None:
        self.is_enabled = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.drawn = self.began = time.monotonic()
        self.share = share_done(trainer, 0)  # before

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if not self._is_due():
            return
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        values = {} if loss is None else {"loss": float(loss) * trainer.accumulate_grad_batches}
        values |= {name: v for name, v in trainer.progress_bar_metrics.items() if isinstance(v, float)}
        parts = [f"{name.replace(LOADER, '/')} {value:.3g}" for name, value in values.items()]
        share, of = share_done(trainer, batch_idx + 1), trainer.max_epochs or -1
        if share:
            left = (time.monotonic() - self.began) * (1 - share) / max(share - self.share, 1e-9)
            filled = round(WIDTH * share)
            bar, time_left = "#" * filled + "." * (WIDTH - filled), timedelta(seconds=math.ceil(min(left, 1e8)))
            parts = [f"[{bar}]", f"{time_left} left", *parts]
        epoch = f"epoch {trainer.current_epoch + 1:,}" + (f" of {of:,}" if of > 0 else f", batch {batch_idx + 1:,}")
        show_status("  ".join([epoch, *parts]))

    def _count(self, trainer: Any, model: Any, outputs: Any, batch: Any, batch_idx: int, *args: Any, what: str) -> None:
        if self._is_due():
            show_status(f"{what}, batch {batch_idx + 1:,}")

    on_validation_batch_end: Any = partialmethod(_count, what="validating")
    on_test_batch_end: Any = partialmethod(_count, what="testing")
    on_predict_batch_end: Any = partialmethod(_count, what="predicting")

    def _is_due(self) -> bool:
        now = time.monotonic()
        if not self.is_enabled or now - self.drawn < PAUSE:
            return False
        self.drawn = now
        return True

    def _end(self, *args: Any, **kwargs: Any) -> None:
        hide_status()

    teardown: Any = _end
    on_exception: Any = _end

    def print(self, *args: Any, **kwargs: Any) -> None:
        hide_status()
        print(*args, **kwargs)


def share_done(trainer: Trainer, batches: int) -> float:
    """The share of a training that is done after some batches of its epoch, from 0 to 1; 0 if it has no known end."""
    epochs, of = trainer.current_epoch + batches / (trainer.num_training_batches or 1), trainer.max_epochs or -1
    of_epochs = epochs / of if of > 0 else 0.0
    of_steps = trainer.global_step / trainer.max_steps if trainer.max_steps > 0 else 0.0
    return min(max(of_epochs, of_steps), 1.0)
