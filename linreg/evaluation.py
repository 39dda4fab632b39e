"""A trained model on its data or on others: what it logs there, and what it predicts."""

import inspect
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch import Tensor
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_leaves

from linreg.metrics import LOADER
from linreg.module import Module
from linreg.report.findings import classes_of, show_table, stage_of
from linreg.rows import inputs_of
from linreg.stack.draws import SEED, seed_draws
from linreg.stack.trainer import all_flags, make_trainer
from linreg.system.atomic import atomic_write
from linreg.system.errors import InputError, given, with_remedies
from linreg.system.ranks import world
from linreg.system.screen import counted, say, wrapped


def check_objects(model: Any, data: Any) -> None:
    """InputError for what is no model, or no data module, of Lightning."""
    for thing, kind, remedy in (
        (model, LightningModule, "a torch.nn.Module becomes one as the hypothesis of a Regressor or a Module"),
        (data, LightningDataModule, "LightningDataModule.from_datasets(train, val) makes one of Datasets"),
    ):
        if not isinstance(thing, kind):
            found = f"the class {thing.__name__}" if isinstance(thing, type) else f"a {type(thing).__name__}"
            raise InputError(f"{found}, where an object of a {kind.__name__} is expected; {remedy}")
    if type(model).train_dataloader is not LightningModule.train_dataloader:
        remedy = "move it to a LightningDataModule, in which self.trainer.lightning_module is the model"
        raise InputError(f"{type(model).__name__}.train_dataloader: the loaders are those of the data; {remedy}")


def measure(
    stage: str, model: LightningModule, data: LightningDataModule, seed: int | None = None, **flags: Any
) -> dict[str, float]:
    """What a trained model logs on the rows of a stage, "validate" or "test", and draws by the seed of its run."""
    trainer = make_trainer(flags_for(model, flags), logger=False, enable_checkpointing=False)
    split = "val" if stage == "validate" else stage
    announce(data, trainer)
    if not has_rows(data, split):
        why = f"the run had {split}_fraction 0; give a file of others"
        why = why if hasattr(data, "row_counts") else f"{type(data).__name__} has no {split}_dataloader; define it"
        raise InputError(f"there are no {split} rows: {why}")
    if not has_step(model, split):
        name = f"{type(model).__name__}.{'validation' if split == 'val' else split}_step(batch, batch_idx)"
        raise InputError(f"there is no {name}; define it, and log there what is to be measured")
    seed_draws(seed, 0, trainer.global_rank)
    measured = getattr(trainer, stage)(model, datamodule=data, verbose=False)  # by each loader
    values = {tag: value for of_loader in measured for tag, value in of_loader.items()}
    if not values:
        raise InputError(f"nothing was measured on the {split} rows; leave out --limit_{split}_batches")
    width, tags = max(12, *map(len, values)), sorted(values, key=lambda tag: tag.partition(LOADER)[2].zfill(3))
    lines = [f"{tag:{width}} {values[tag]:.7g}" for tag in tags]
    for tag, values_of in tables_of(model, split).items():
        lines += show_table(tag, values_of, classes_of(model, data))
    say("\n".join(lines), trainer.is_global_zero)
    return values


def tables_of(model: LightningModule, stage: str | None = None) -> dict[str, Any]:
    """The metrics of a model that are no single number, as nested lists; those of one stage, or all."""
    tables = getattr(model, "tables", {})
    return {tag: value for tag, value in tables.items() if stage in (None, stage_of(tag)[0])}


def predict(model: LightningModule, data: LightningDataModule, output: str, **flags: Any) -> None:
    """Writes what a model predicts: beside each row, as the data module's ``writer`` does, or else all as tensors."""
    if world() > 1:
        raise InputError("predict: one process writes the rows in their order; start it without torchrun or srun")
    for name, harmless in (("limit_predict_batches", (None,)), ("fast_dev_run", (False, None))):
        if flags.get(name) not in harmless:
            raise InputError(f"--{name}: each row is predicted; leave it out")
    writer: Callable[[str], Any] | None = getattr(data, "writer", None)
    if writer is None and not has_rows(data, "predict"):
        raise InputError(f"predict: {type(data).__name__} has no predict_dataloader; give it one")
    if writer is None and os.path.lexists(output):
        raise InputError(f"--output {output}: there is such a file already; give another name")
    if writer is None and Path(output).suffix != ".pt":
        why = f"{type(data).__name__} is no table, and its predictions are tensors"
        raise InputError(f"--output {output}: {why}; give a name that ends in .pt")
    callbacks = () if writer is None else (writer(output),)
    prepare_to_predict(model)
    # On one device, in the order in which they are read:
    trainer = make_trainer(flags_for(model, flags), callbacks, logger=False, enable_checkpointing=False, devices=1)
    with with_remedies():
        found: Any = trainer.predict(model, datamodule=data, return_predictions=writer is None) or []
    if writer is None:
        are_several = len(trainer.num_predict_batches) > 1
        wholes = [joined(batches) for batches in (found if are_several else [found])]
        content = io.BytesIO()
        torch.save(wholes if are_several else wholes[0], content)
        atomic_write(Path(output), content.getvalue())
        what = f"{' and '.join(map(describe_parts, wholes))} of {type(data).__name__}.predict_dataloader"
        say(wrapped(f"{output}: {what}" + ", a list with one entry for each loader" * are_several))


def joined(batches: list[Any]) -> Any:
    """Batches of predictions as one tensor, where they fit together."""
    shapes = {part.shape[1:] if isinstance(part, Tensor) and part.ndim else None for part in batches}
    return torch.cat(batches) if len(shapes) == 1 and shapes != {None} else batches


def describe_parts(parts: Any) -> str:
    """How many rows were predicted, or else batches, and rows where all that is predicted of a batch has as many."""
    if isinstance(parts, Tensor):
        return f"{len(parts):,} predictions"
    lengths = [{len(t) if isinstance(t, Tensor) and t.ndim else 0 for t in tree_leaves(part)} for part in parts]
    rows = sum(map(max, lengths)) if all(len(each) == 1 for each in lengths) else 0
    return f"{len(parts):,} batches" + (f", {counted(rows, 'row')} in all," if rows else "")


def flags_for(model: LightningModule, flags: dict[str, Any]) -> dict[str, Any]:
    """All flags of the Trainer; the data of a model that was trained in float64 are too."""
    is_double = any(parameter.dtype == torch.float64 for parameter in model.parameters())
    return all_flags(flags | ({"precision": "64-true"} if is_double and not flags.get("precision") else {}))


def announce(data: LightningDataModule, trainer: Trainer, model: LightningModule | None = None) -> None:
    """Says what the data are, and where the run will be; with a model, if its first weights have no seed."""
    with given("the data"):
        lines = data.describe() if hasattr(data, "describe") else [type(data).__name__]
    where = f"device  {trainer.num_devices} x {trainer.strategy.root_device.type}"
    seed = f", seed {os.environ[SEED]}" if SEED in os.environ else ""
    weights = model.parameters() if model else ()
    if not seed and any(each.any() for each in weights if not is_lazy(each)):
        remedy = "call it right before each model, with a number of its own"
        seed = f"; lightning.seed_everything was not called for this model: config.yaml may give it others; {remedy}"
    told = [wrapped(f"{'        ' if i else 'data    '}{line}") for i, line in enumerate(lines)]
    say("\n".join([*told, wrapped(where + seed)]), trainer.is_global_zero)


def has_rows(data: LightningDataModule, split: str) -> bool:
    """Whether there is anything to measure a model on."""
    counts = getattr(data, "row_counts", {})
    if split in counts:
        return counts[split] != 0  # None of a stream, whose length nobody knows
    return getattr(type(data), f"{split}_dataloader") is not getattr(LightningDataModule, f"{split}_dataloader")


def prepare_to_predict(model: LightningModule) -> None:
    """Lets a model without a predict_step of its own predict from x, also of a pair; InputError if it needs more."""
    if type(model).predict_step not in (LightningModule.predict_step, Module.predict_step):
        return
    parameters, name = inspect.signature(model.forward).parameters.values(), type(model).__name__
    needed = [p.name for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    if len(needed) != 1:
        found = f"{name}.forward({', '.join(needed)})" if needed else f"{name} without a forward(x)"
        raise InputError(f"{found}: what it predicts from is not known; define {name}.predict_step(batch, batch_idx)")
    vars(model)["predict_step"] = lambda batch, batch_idx, dataloader_idx=0: model(inputs_of(batch))  # not a pair


def has_step(model: LightningModule, split: str) -> bool:
    """Whether a model says what to do with the rows of a split."""
    step = "validation_step" if split == "val" else f"{split}_step"
    return getattr(type(model), step) is not getattr(LightningModule, step)
