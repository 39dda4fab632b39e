"""What a check may look at: a model and its data as they are before the first step, and short trainings of copies."""

import contextlib
import copy
import inspect
import time
from collections.abc import Callable, Generator
from functools import cached_property
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor

from linreg.checks.batch import pair, tensors, together
from linreg.checks.fits import ALWAYS, UNNEEDED, Probe, alone, weights
from linreg.checks.observer import LossCall, Observer
from linreg.evaluation import has_rows
from linreg.stack.trainer import as_list, make_fitter
from linreg.system.errors import RunError
from linreg.verdict import CannotTell

BATCHES, ROWS, SECONDS = 8, 20_000, 3.0  # of a split: those that steps are tried on, at most read, in about that time


class Context:
    """A model and its data as they are before the first step.

    Args:
        model: never changed.
        data: likewise.
        flags: all of the Trainer's.

    Attributes:
        trainer: of a fit that has not taken a step, with its optimizers.
        train: the first batches of the training rows.
        val: those of the validation rows, or of the training rows if there are none.
        seconds: what it took to begin a fit, and to take a step.
    """

    def __init__(self, model: Any, data: Any, flags: dict[str, Any]) -> None:
        self.model, self.data, self.flags = model, data, flags
        has_rows(data, "train")  # a table is read once, and not for each fit
        moments = [time.perf_counter()]
        with contextlib.suppress(RunError):  # whatever else fails here fails in a run, too
            self.fit(steps=1)
        moments.append(time.perf_counter())
        self.trainer = self.fit(steps=0)
        moments.append(time.perf_counter())
        first, second = moments[1] - moments[0], moments[2] - moments[1]
        self.seconds = second, max(first - second, 0.0)
        self.device = self.trainer.strategy.root_device
        self.loaders: Any = getattr(self.trainer, "datamodule")  # noqa: B009
        self.prepared: Any = self.trainer.lightning_module
        for name in ("log", "log_dict"):  # there is no loop to keep it
            vars(self.prepared)[name] = lambda *args, **kwargs: None
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
        **flags: Any,
    ) -> Trainer:
        """Trains a copy as ``run`` would, but soon ends; the trainer has it as ``lightning_module``.

        Args:
            steps: to take; -1 for no limit.
            epochs: to take; -1 for no limit.
            seed: of all that is drawn.
            scale: of every learning rate.
            prepare: may change the copies (model, data) before.
            folder: for the checkpoints, if there are to be any.
            ckpt_path: a checkpoint to go on from.
            **flags: of the Trainer.
        """
        with alone(seed):
            model, data = copy.deepcopy((self.model, self.data))
            prepare(model, data)
            kept = [copy.deepcopy(each) for each in as_list(self.flags["callbacks"]) if not isinstance(each, UNNEEDED)]
            flags |= {"callbacks": [*kept, Probe(steps, epochs, scale)], "enable_checkpointing": folder is not None}
            trainer = make_fitter(self.flags | ALWAYS | flags, model, "")
            for callback in trainer.checkpoint_callbacks:
                callback.dirpath = folder  # type: ignore[attr-defined]
            trainer.fit(model, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
        return trainer

    @cached_property
    def repeats(self) -> bool:
        """Whether the same seed gives the same bits."""
        one, again = (weights(self.fit(steps=4)) for _ in "12")
        return all(torch.equal(value, again[name]) for name, value in one.items())

    def load(self, split: str) -> Generator[Any, None, None]:
        """The batches of a split, as a step gets them, from a loader that is made anew."""
        mode: Any = "max_size_cycle" if split == "train" else "sequential"
        source = getattr(self.loaders, f"{split}_dataloader")() if has_rows(self.loaders, split) else []
        for batch, *_ in CombinedLoader(source, mode) if source else ():
            batch = self.trainer.precision_plugin.convert_input(batch)
            batch = self.prepared._on_before_batch_transfer(batch, 0)
            yield self.trainer.strategy.batch_to_device(batch, dataloader_idx=0)

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

    def loss(self, model: Any, batch: Any) -> Tensor:
        """The loss of a training step; CannotTell where the step says none."""
        if not model.automatic_optimization:
            raise CannotTell("with manual optimization a step has no loss that is known")
        output = call(model.training_step, batch)
        return output["loss"] if isinstance(output, dict) else output

    def observe(self, model: Any, batch: Any, seed: int = 0) -> Observer:
        """A training step, and what it hands to the loss functions of torch."""
        with alone(seed), Observer() as observer:
            observer.loss = self.loss(model, batch)
        return observer

    def known_loss(self, model: Any, batch: Any) -> LossCall:
        """The loss of a training step where that is one of torch's; CannotTell where it is another."""
        if (known := self.observe(model, batch).known) is None:
            raise CannotTell("the loss is not one of torch.nn.functional's alone")
        return known

    def after(self, scale: float) -> float:
        """The loss after ten steps at a multiple of the learning rate, infinite where that diverges; 0: of no step."""
        if scale not in self.losses:
            trained = self.copy(training=False)
            try:
                if scale:
                    trainer = self.fit(steps=10, scale=scale)
                    trained.load_state_dict(trainer.lightning_module.state_dict())
                    self.rates[scale] = trainer.optimizers[0].param_groups[0]["lr"] / scale
                losses = [self.observe(trained, batch).size for batch in self.train]
                self.losses[scale] = sum(losses) / len(losses)
            except RunError:
                self.losses[scale] = float("inf")
        return self.losses[scale]

    def predict(self, batch: Any, seed: int = 0) -> Tensor:
        """What the model predicts in evaluation for each row, (N, K); CannotTell for one that predicts no rows."""
        model = self.copy(training=False)
        own = type(model).predict_step is not LightningModule.predict_step
        try:
            with alone(seed), torch.no_grad():
                found = tensors(call(model.predict_step, batch) if own else model(tensors(batch)[0]))
        except Exception as error:
            raise CannotTell(f"it predicts nothing for a batch: {type(error).__name__}: {str(error)[:80]}") from None
        parts = [each.double().reshape(len(each), -1) for each in found if len(each) == len(tensors(batch)[0])]
        if not parts:
            raise CannotTell("what it predicts has no row for each row")
        return torch.cat(parts, 1)


def call(step: Callable[..., Any], batch: Any) -> Any:
    """A step of a batch; the batch's number is given to one that takes it."""
    return step(*(batch, 0)[: len(inspect.signature(step).parameters)])
