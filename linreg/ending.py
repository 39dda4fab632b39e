"""The end of a run: what is said, written to its folder and drawn, whether it succeeded or failed."""

import io
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Trainer

from linreg.metrics import as_plain
from linreg.report.card import make_card
from linreg.report.findings import Findings, FirstLoader, Picture, logged
from linreg.runs.folder import folder_of, steps_of
from linreg.runs.loggers import RunLogger
from linreg.runs.record import mini_batch_size, values_of_epoch
from linreg.runs.restored import Restored
from linreg.system.atomic import atomic_write
from linreg.system.errors import find_own, one_line
from linreg.system.screen import say


def how_trained(trainer: Trainer, epochs: int, seconds: float) -> dict[str, Any]:
    """How long a training was, and with which settings it began."""
    began = next(c.began for c in trainer.callbacks if isinstance(c, Restored))["optimizers"]  # type: ignore[attr-defined]
    rates = {name: began[0]["groups"][0].get(name) if began else None for name in ("lr", "momentum")}
    length = {"epochs": epochs, "steps": trainer.global_step, "seconds": round(seconds, 3)}
    return length | rates | {"batch_size": mini_batch_size(trainer.train_dataloader)}


@contextmanager
def failure_recorded(trainer: Trainer, start: float) -> Iterator[None]:
    """Leaves metrics.json of a training that has failed, too: what it had logged, how long it was, and why it ended."""
    try:
        yield
    except Exception as error:
        folder = folder_of(trainer)
        has_begun = any(getattr(each, "is_written", False) for each in trainer.callbacks)  # type: ignore[attr-defined]
        if folder is not None and trainer.is_global_zero and has_begun:  # else the record of a run that went well stays
            values = values_of_epoch(trainer) if trainer.world_size == 1 else {}  # else it would wait for the others
            found, seconds = logged(plain(values)), time.perf_counter() - start
            trained = how_trained(trainer, trainer.current_epoch, seconds)
            found.metrics["run"] = {"checkpoint": None, "failed": str(find_own(error) or one_line(error)), **trained}
            atomic_write(folder.path / "metrics.json", found.to_json())
            log_reported(found.metrics, trainer)
        raise


def log_reported(metrics: dict[str, Any], trainer: Trainer) -> None:
    """Logs what is reported for the HParams table, which would else show the last epoch's, of whatever checkpoint."""
    values = {name: metrics["run"][name] for name in ("epochs", "seconds")}
    for tag in getattr(trainer.lightning_module, "headlines", ["loss/val"]):
        name, _, stage = tag.partition("/")
        if isinstance(value := FirstLoader(metrics.get(stage, {})).get(name) if stage else metrics.get(name), float):
            values[tag.replace("/", "_")] = value
    points = {f"reported/{name}": float(value) for name, value in values.items()}
    for logger in trainer.loggers:
        logger.log_metrics(points, steps_of(trainer))
        logger.save()


def plain(values: Any) -> dict[str, Any]:
    """The numbers, and lists of them, among what was logged."""
    items = [(tag, as_plain(value)) for tag, value in (values.items() if isinstance(values, dict) else ())]
    return {tag: value for tag, value in items if value is None or isinstance(value, float | list)}


def tell(found: Findings, trainer: Trainer, run: dict[str, Any], figures: bool) -> None:
    """Says what was found, on screen and in the run's folder if there is one."""
    if not trainer.is_global_zero:
        return
    found.metrics["run"] = run
    epochs = f"epoch {run['epoch']:,} of {run['epochs']:,}, {run['seconds']:.1f} s"
    which = f"of {run['checkpoint'] or 'the weights'}, {epochs}"
    lines = ["", found.text, "", *([found.verdict] if found.verdict else []), f"report  {which}"]
    folder = folder_of(trainer)
    if folder is not None:
        data, device = getattr(trainer, "datamodule", None), f"{trainer.num_devices} x {trainer.strategy.root_device}"
        found.files["card.md"] = make_card(found, trainer.lightning_module, data, device)
        for name, content in {"metrics.json": found.to_json(), **found.files}.items():
            atomic_write(folder.path / name, content)
        lines.append(f"run     {folder.path}")
        log_reported(found.metrics, trainer)
        if board := board_of(trainer):
            board.experiment.add_text("card", found.files["card.md"].decode())
        if leave_pictures(found.pictures() if figures else (), folder.path, trainer):
            lines.append(f"curves  tensorboard --logdir {folder.logdir}")
    say("\n".join(lines))


def board_of(trainer: Trainer) -> Any:
    """TensorBoard's logger, if the run has one."""
    return next((logger for logger in trainer.loggers if isinstance(logger, RunLogger)), None)


def leave_pictures(pictures: Iterable[Picture], folder: Path, trainer: Trainer) -> bool:
    """Shows pictures in TensorBoard, and returns True; or else leaves them as files in the run's folder."""
    board = board_of(trainer)
    for tag, image, step in pictures:
        if board:
            board.experiment.add_image(tag, image, steps_of(trainer) if step is None else step, dataformats="HWC")
        elif step is None:
            atomic_write(folder / (re.sub(r"[^\w.-]", "_", tag) + ".png"), as_png(image))
    for logger in trainer.loggers:
        logger.save()
    return board is not None


def as_png(image: np.ndarray) -> bytes:
    """The content of a PNG file of pixels, (height, width, 3) of uint8."""
    from matplotlib.image import imsave

    buffer = io.BytesIO()
    imsave(buffer, image, format="png")
    return buffer.getvalue()
