"""The lecture in one command: descent with all rows, with some and with one row a step, side by side in one picture."""

import json
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, Trainer
from torch import Tensor

from linreg.ending import as_png, leave_pictures
from linreg.evaluation import announce
from linreg.experiment import opened
from linreg.report.findings import Picture
from linreg.runs.folder import folder_of
from linreg.runs.loggers import Curves
from linreg.stack.guard import DivergenceGuard
from linreg.stack.lean import Lean
from linreg.stack.stopping import StopBetweenBatches, explain_interruption
from linreg.stack.trainer import all_flags, make_trainer, no_false_alarms
from linreg.system.atomic import atomic_write
from linreg.system.errors import InputError
from linreg.system.screen import counted, say

FIXED: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "limit_val_batches": 0, "devices": 1}
ALWAYS = {"figures": True, "mode": "min"}  # flags of fit that are on where nobody has typed them; all others are off


class Way(Callback):
    """Writes down the weights: before the first step, and after each."""

    def __init__(self) -> None:
        self.points: list[Tensor] = []

    def _note(self, trainer: Trainer, pl_module: Any, *args: Any, **kwargs: Any) -> None:
        self.points.append(torch.cat([p.detach().flatten().cpu() for p in pl_module.hypothesis.parameters()]))

    on_train_start = on_train_batch_end = _note


def lecture(model: Any, data: LightningDataModule, name: str, settings: dict[str, Any]) -> Path:
    """Trains a model three times from one beginning, and draws the three ways to the optimum; where the picture is.

    ``settings`` are the flags of fit and the resolved ``config``; InputError for a flag that it cannot honour, or a
    model without a ``lesson``, which a LinearRegression has.
    """
    others = {flag: value for flag, value in settings.items() if flag not in all_flags({})}
    flags = all_flags({flag: value for flag, value in settings.items() if flag not in others})
    typed = [flag for flag, value in others.items() if (value or None) != ALWAYS.get(flag)]
    typed += ["fast_dev_run"] if flags["fast_dev_run"] else []
    if isinstance(epochs := flags["max_epochs"], int) and epochs < 1:
        raise InputError(f"--max_epochs {epochs}: a lecture has at least 1 epoch, and an end")
    if wrong := [flag for flag in typed if flag not in ("name", "config")]:
        raise InputError(f"--{wrong[0]}: a lecture is three short trainings, and cannot honour it; leave it out")
    if not hasattr(model, "lesson"):
        raise InputError(f"{type(model).__name__} has no lesson: a lecture is about a LinearRegression")
    lesson = model.lesson(data)
    announce(data, make_trainer(flags, **FIXED))
    say(lesson.describe() + "\n")
    ways, rows = dict[str, Tensor](), dict[str, dict[str, Any]]()
    for regime, batch_size in lesson.regimes.items():
        start, way = time.perf_counter(), Way()
        trainer = make_trainer(flags, (StopBetweenBatches(), DivergenceGuard(), way, Lean()), **FIXED)
        with explain_interruption(trainer), no_false_alarms():
            trainer.fit(lesson.learner(batch_size), datamodule=data)
        ways[regime] = torch.stack(way.points).double()
        size = {"batch_size": batch_size, "steps": len(way.points) - 1, "epochs": trainer.current_epoch}
        seconds = round(time.perf_counter() - start, 3)
        rows[regime] = size | {"excess_mse": lesson.excess(ways[regime])[-1], "seconds": seconds}
        taken = f"{counted(len(way.points) - 1, 'step')} of {counted(batch_size, 'row')}"
        say(f"{regime:12}{taken:24}excess_mse {rows[regime]['excess_mse']:.2g}, {seconds:.1f} s")
    with opened(trainer, flags, name, None, None), no_false_alarms():
        return leave(trainer, lesson.draw(ways), {"lr": lesson.lr, "lecture": rows}, settings["config"])


def leave(trainer: Trainer, image: Any, found: dict[str, Any], config: str) -> Path:
    """Writes the picture, and what it was made from, to the run's folder; shows it in TensorBoard, too."""
    folder = folder_of(trainer)
    assert folder is not None  # since this is no fast_dev_run
    path = folder.path / "lecture.png"
    atomic_write(folder.path / "config.yaml", f"# run {folder.run}\n{config}".encode())
    atomic_write(folder.path / "metrics.json", (json.dumps(found, indent=2) + "\n").encode())
    atomic_write(path, as_png(image))
    for logger in trainer.loggers:
        if isinstance(logger, Curves):
            logger.log_start({}, [])
    say(f"picture {path}")
    if leave_pictures([Picture("lecture", image)], folder.path, trainer):
        say(f"curves  tensorboard --logdir {folder.logdir}")
    return path
