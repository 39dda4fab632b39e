"""A trained model on its data or on others: what it logs there, and what it predicts."""

import os
from collections.abc import Callable
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule, Trainer

from linreg.errors import InputError, given
from linreg.screen import say
from linreg.stack.trainer import all_flags, make_trainer


def measure(stage: str, model: LightningModule, data: LightningDataModule, **flags: Any) -> dict[str, float]:
    """What a trained model logs on the rows of a stage, "validate" or "test"."""
    trainer = make_trainer(all_flags(flags), logger=False, enable_checkpointing=False)
    split = "val" if stage == "validate" else stage
    announce(data, trainer)
    if not has_rows(data, split):
        raise InputError(f"there are no {split} rows: the run had {split}_fraction 0; set --data.{split}_fraction")
    measured = getattr(trainer, stage)(model, datamodule=data, verbose=False)
    if not measured or not measured[0]:
        raise InputError(f"nothing was measured on the {split} rows; leave out --limit_{split}_batches")
    values = measured[0]
    for tag, value in values.items():
        say(f"{tag:12} {value:.7g}", trainer.is_global_zero)
    return values


def predict(model: LightningModule, data: LightningDataModule, output: str, **flags: Any) -> None:
    """Writes a prediction beside each row, as the data module's ``writer`` does it."""
    writer: Callable[[str], Any] | None = getattr(data, "writer", None)
    if writer is None:
        raise InputError(f"predict: a {type(data).__name__} has no writer; give --data.path, the path of a CSV file")
    for name, harmless in (("limit_predict_batches", (None,)), ("fast_dev_run", (False, None))):
        if flags.get(name) not in harmless:
            raise InputError(f"--{name}: each row of the file is predicted; leave it out")
    one = {"devices": 1}  # rows are written in the order in which they are read
    trainer = make_trainer(all_flags(flags), (writer(output),), logger=False, enable_checkpointing=False, **one)
    trainer.predict(model, datamodule=data, return_predictions=False)


def announce(data: LightningDataModule, trainer: Trainer) -> None:
    """Says what the data are, and where the run will be."""
    with given("the data"):
        lines = data.describe() if hasattr(data, "describe") else [type(data).__name__]
    where = f"device  {trainer.num_devices} x {trainer.strategy.root_device.type}"
    seed = os.environ.get("PL_GLOBAL_SEED")
    lines = [
        f"data    {lines[0]}",
        *(f"        {line}" for line in lines[1:]),
        where + (f", seed {seed}" if seed else ""),
    ]
    say("\n".join(lines), trainer.is_global_zero)


def has_rows(data: LightningDataModule, split: str) -> bool:
    """Whether there is anything to measure a model on."""
    if hasattr(data, "row_counts"):
        return bool(data.row_counts[split])
    return getattr(type(data), f"{split}_dataloader") is not getattr(LightningDataModule, f"{split}_dataloader")
