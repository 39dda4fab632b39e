"""What a check may look at: a model and its data as they are before the first step, and short trainings of copies."""

import contextlib
import copy
import random
import time
from collections.abc import Callable, Generator
from functools import cached_property
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor

from linreg.checks.batch import call, pair, tensors, together
from linreg.checks.fits import ALWAYS, UNNEEDED, Nowhere, Probe, alone, ignore
from linreg.checks.observer import Observer
from linreg.evaluation import has_rows
from linreg.runs.loggers import several
from linreg.stack.trainer import make_fitter
from linreg.system.errors import RunError, one_line
from linreg.verdict import CannotTell, Check, Verdict

BATCHES, ROWS, SECONDS = 8, 20_000, 3.0  # of a split: those that steps are tried on, at most read, in about that time


class Context:
    """A model and its data as they are before the first step, which are never changed.

    Its ``trainer`` has not taken a step, but has optimizers; ``train`` are the first batches of the training rows,
    ``val`` those of the validation rows, or of training if there are none; ``seconds`` is what a fit of a step takes.
    """

    def __init__(self, model: Any, data: Any, flags: dict[str, Any]) -> None:
        self.model, self.data, self.flags = model, data, flags
        self.unread, begin = copy.copy(data), time.perf_counter()
        for name in [name for name in vars(data) if isinstance(getattr(type(data), name, None), cached_property)]:
            del vars(self.unread)[name]  # for the constructor of the model, perhaps
        has_rows(data, "train")  # a table is read once, and not for each fit
        self.unread = data if time.perf_counter() - begin > SECONDS else self.unread
        self.trainer, begin = self.fit(steps=0), time.perf_counter()
        with contextlib.suppress(RunError):  # whatever else fails here fails in a run, too
            self.fit(steps=1)
        self.seconds = time.perf_counter() - begin
        self.device = self.trainer.strategy.root_device
        self.loaders: Any = getattr(self.trainer, "datamodule")  # noqa: B009
        self.prepared: Any = self.trainer.lightning_module
        vars(self.prepared).update(log=ignore, log_dict=ignore)  # there is no loop to keep it
        self.verdicts: dict[Check, Verdict] = {}
        self.batches: dict[str, list[Any]] = {}
        self.losses: dict[float, float] = {}
        self.rates: dict[float, float] = {}  # what ten steps leave of the learning rate
        self.train = self.read("train")[:BATCHES]
        self.val = self.read("val")[:BATCHES] or self.train

    def fit(
        self,
        steps: int = -1,
        epochs: int = -1,
        seed: int = 0,
        scale: float = 1.0,
        prepare: Callable[[Any, Any], None] = lambda model, data: None,
        folder: str | None = None,
        ckpt_path: str | None = None,
        data: Any = None,
        **flags: Any,
    ) -> Trainer:
        """A training of copies, which ``prepare`` may change, as by ``run``; -1 steps or epochs are no limit."""
        with alone(seed):
            model, data = copy.deepcopy((self.model, self.data if data is None else data))
            prepare(model, data)
            kept = [copy.deepcopy(each) for each in several(self.flags["callbacks"]) if not isinstance(each, UNNEEDED)]
            kept.append(Probe(steps, epochs, scale))
            how = ALWAYS | {"callbacks": kept, "enable_checkpointing": folder is not None} | flags
            trainer = make_fitter(self.flags | how, model, "")
            trainer.loggers = [logger := Nowhere()]
            vars(logger).update(save_dir=folder, log_dir=folder)
            for callback in trainer.checkpoint_callbacks:
                callback.dirpath = folder  # type: ignore[attr-defined]
            trainer.fit(model, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
        return trainer

    def short(self, epochs: int, **how: Any) -> Trainer:
        """A training of four batches an epoch, with validation, of a run of two epochs or more."""
        how = {"limit_val_batches": 2, "max_epochs": max(self.flags["max_epochs"] or 2, 2)} | how
        return self.fit(epochs=epochs, limit_train_batches=4, **how)

    def saved(self, folder: str, **how: Any) -> Trainer:
        """Such a training of an epoch, with its last.ckpt; CannotTell if no batch makes a step: it saves none."""
        trainer = self.short(1, folder=folder, **how)
        if not trainer.global_step:
            raise CannotTell(f"the first {trainer.num_training_batches} batches make no step, and nothing is saved")
        return trainer

    def load(self, split: str) -> Generator[Any, None, None]:
        """The batches of a split, as a step gets them, from a loader that is made anew."""
        mode: Any = "max_size_cycle" if split == "train" else "sequential"
        if split == "test":
            _ = random.random(), np.random.random(), torch.rand(())  # as a run, which fits first: others are next
            self.loaders.prepare_data()
            self.loaders.setup("test")
        source = getattr(self.loaders, f"{split}_dataloader")() if has_rows(self.loaders, split) else []
        for batch, *_ in CombinedLoader(source, mode) if source not in (None, []) else ():
            yield self.hand_over(batch)

    def hand_over(self, batch: Any) -> Any:
        """A batch of a loader as a step gets it."""
        batch = self.prepared._on_before_batch_transfer(self.trainer.precision_plugin.convert_input(batch), 0)
        return self.trainer.strategy.batch_to_device(batch, dataloader_idx=0)

    def read(self, split: str) -> list[Any]:
        """The first batches of a split."""
        if split not in self.batches:
            self.batches[split], count, end = [], 0, time.perf_counter() + SECONDS
            with alone(), contextlib.closing(self.load(split)) as loader:
                for batch in loader:
                    self.batches[split].append(batch)
                    count += len(tensors(batch)[0])
                    if count >= ROWS or time.perf_counter() > end:
                        break
        return self.batches[split]

    def rows(self, split: str = "train") -> Any:
        """One batch of the first rows of a split; CannotTell if there are none, or of different shapes."""
        if not self.read(split):
            raise CannotTell(f"there are no {split} rows")
        return together(self.read(split))

    def table(self) -> tuple[Tensor, Tensor]:
        """Columns x (N, D) and targets (N, ...) of the first training rows; CannotTell for data of another kind."""
        x, y = pair(self.rows())
        if x.ndim != 2 or not x.is_floating_point() or x.shape[1] > 200:
            raise CannotTell(f"the inputs are no table of up to 200 columns, but {x.dtype} {tuple(x.shape)}")
        return x.double(), y

    def names(self, columns: Any) -> str:
        """Columns of the table by their numbers, or by their names if the data know these."""
        known = getattr(self.data, "feature_names", None)
        return ", ".join(known[i] if known else f"{i + 1}" for i in columns) or "none"

    def copy(self, training: bool = True) -> Any:
        """A copy of the model that may be changed, in training mode or in that of evaluation."""
        self.prepared._trainer = None
        model = copy.deepcopy(self.prepared)
        self.prepared._trainer = model._trainer = self.trainer
        return model.to(self.device).train(training)

    def observe(self, model: Any, batch: Any, seed: int = 0) -> Observer:
        """A training step of a model, and what it hands to the loss functions of torch."""
        handed: list[Any] = []
        if not model.automatic_optimization:  # nothing that it does by hand moves a weight
            idle: list[Any] = [torch.optim.SGD(model.parameters(), lr=0.0) for _ in self.trainer.optimizers]
            for each, real in zip(idle, self.trainer.optimizers, strict=True):  # for what only the real one can do
                vars(each).update(dict.fromkeys({*dir(real)} - {*dir(each)}, ignore))
            vars(model)["optimizers"] = lambda *args, **kwargs: idle if len(idle) > 1 else idle[0]
            vars(model).update(toggle_optimizer=ignore, untoggle_optimizer=ignore)
            vars(model)["manual_backward"] = lambda loss, *args, **kwargs: handed.append(loss)
        with alone(seed), Observer() as observer:
            output = call(model.training_step, batch)
        if model.automatic_optimization or (not handed and isinstance(output, Tensor | dict)):
            observer.given = output["loss"] if isinstance(output, dict) else output
        elif len(handed) == len(self.trainer.optimizers) == 1:  # of several losses none is that of the model
            observer.given = handed[0]
        return observer

    def step(self, batch: Any, training: bool = True, seed: int = 0) -> Observer:
        """The same of the model as it is before the first step, in training mode or in that of evaluation."""
        return self.observe(self.copy(training), batch, seed)

    def trained(self, steps: int, scale: float = 1.0) -> Any:
        """What some steps make of the model, in evaluation mode."""
        model = self.fit(steps=steps, scale=scale).lightning_module.to(self.device).eval()
        vars(model).update(log=ignore, log_dict=ignore)
        return model

    def after(self, scale: float) -> float:
        """The loss after ten steps at a multiple of the learning rate, infinite where that diverges; 0: of no step."""
        if scale not in self.losses:
            self.losses[scale] = float("inf")
            with contextlib.suppress(RunError):
                model = self.trained(10, scale) if scale else self.copy(training=False)
                self.rates[scale] = model.trainer.optimizers[0].param_groups[0]["lr"] / (scale or 1)
                self.losses[scale] = sum(self.observe(model, batch).size for batch in self.train) / len(self.train)
        return self.losses[scale]

    def verdict(self, check: Check) -> Verdict:
        """The verdict of a check; one that cannot be made here is skipped with the reason."""
        if check not in self.verdicts:
            try:
                found: Any = check(self)
                self.verdicts[check] = found if isinstance(found, Verdict) else Verdict("skip", "it returns no verdict")
            except CannotTell as reason:
                self.verdicts[check] = Verdict("skip", str(reason))
            except Exception as error:
                text = "a run fails here" if isinstance(error, RunError) else "it could not be made"
                said = one_line(error)
                is_known = any(each.status == "FAIL" and said in each.text for each in self.verdicts.values())
                self.verdicts[check] = Verdict("skip", f"{text}, as is said above" if is_known else f"{text}: {said}")
        return self.verdicts[check]

    def needs(self, *checks: Check) -> None:
        """CannotTell if one of these checks fails, which is then the one to look at."""
        for check in checks:
            if self.verdict(check).status == "FAIL":
                raise CannotTell(f"it fails by itself where this one does: {check.__name__.replace('_', ' ')}")
