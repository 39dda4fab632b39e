"""Several processes, the answer of one: each takes its rows of every batch, and its gradient counts by their number.

What cannot be so: batch norm sees the rows of its own process only, and a loss that is no mean over rows is weighted as
if it were.
"""

import copy
from collections.abc import Iterator
from itertools import chain
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import RunningStage
from torch.nn.modules.batchnorm import SyncBatchNorm, _BatchNorm
from torch.utils.data import DataLoader, IterableDataset

from linreg.system.errors import InputError
from linreg.system.ranks import check_agreement, from_first, gathered, numbers_of, rank, summed, weight, world
from linreg.system.screen import counted, say

WORTH = 500_000  # rows of a batch times weights: below it, on CPUs, what is told takes longer than what is saved


class ShareOfBatches:
    """The rows of this process in each batch that a DataLoader's sampler draws; the first process draws for all.

    Args:
        batches: the sampler of batches, each a list of rows.
        training: whether a process without a row takes one that counts for nothing; else batches that have too few rows
            for all join the one before.
    """

    def __init__(self, batches: Any, training: bool) -> None:
        self.batches, self.training = batches, training
        self.sampler = getattr(batches, "sampler", None)  # whose set_epoch Lightning calls
        self.sizes: list[int] = []

    def __len__(self) -> int:
        return len(self.batches) if self.training else len(self._joined([*self.batches]))

    def __iter__(self) -> Iterator[list[Any]]:
        drawn = from_first([[*batch] for batch in self.batches] if rank() == 0 else None)
        drawn = drawn if self.training else self._joined(drawn)
        self.sizes = [len(batch) for batch in drawn]
        for batch in drawn:
            yield batch[rank() :: world()] or (batch[:1] if self.training else batch)

    def _joined(self, batches: list[list[Any]]) -> list[list[Any]]:
        joined: list[list[Any]] = []
        for batch in batches:
            if joined and min(len(batch), len(joined[-1])) < world():
                joined[-1] = joined[-1] + [*batch]
            else:
                joined.append([*batch])
        return joined

    def weight_of(self, batch_idx: int) -> float:
        """What a mean over this process's rows of a batch counts in the mean over all processes."""
        return weight(self.sizes[batch_idx])


class InStep:
    """The batches of a stream, which may end in one process before another: those for which the others have one too.

    Args:
        loader: of the stream.
        training: whether all processes go from batch to batch together; else each of them has to have one at least.
    """

    def __init__(self, loader: Any, training: bool) -> None:
        self.loader, self.training = loader, training

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)

    def __iter__(self) -> Iterator[Any]:
        for i, batch in enumerate(chain(self.loader, [None])):
            if (self.training or not i) and summed(torch.tensor(int(batch is not None))) < world():
                if not i:
                    kind = type(self.dataset).__name__
                    raise InputError(f"{kind}: each process needs a batch of it, and one has none")
                return
            if batch is not None:
                yield batch


def share(loader: Any, training: bool) -> Any:
    """A loader of this process's rows, if it is a DataLoader that can have one; what is counted twice is said."""
    rows, batches = getattr(loader, "dataset", loader), getattr(loader, "batch_sampler", None)
    name, num_rows = type(getattr(rows, "dataset", rows)).__name__, len(rows) if hasattr(rows, "__len__") else 0
    samplers = (getattr(loader, "sampler", None), batches, getattr(batches, "sampler", None))
    dealer = next((each for each in samplers if hasattr(each, "num_replicas")), None)
    if hasattr(loader, "weight_of"):
        num_rows = loader.num_rows
    elif not isinstance(loader, DataLoader) or isinstance(rows, IterableDataset) or batches is None:
        note(f"{name}: each process reads, and counts, all of it, unless it asks torch.distributed for its rank")
        if training:
            note(f"{name}: an epoch ends with the last batch that every process has")
        loader = loader if num_rows else InStep(loader, training)
    elif dealer is not None:
        repeated = getattr(dealer, "total_size", 0) - num_rows
        if repeated > 0:
            remedy = "leave the sampler out, and each process gets its share of the rows"
            note(f"{type(dealer).__name__}: {counted(repeated, 'row')} of {name} counted twice; {remedy}")
    elif not isinstance(batches, ShareOfBatches):
        check_agreement(f"the rows of {name}", num_rows)
        sample, again = numbers_of(rows), numbers_of(rows)
        if all(gathered(bool(sample) and sample == again)):  # else they are drawn anew each time
            check_agreement(f"three rows of {name}, summed up", ", ".join(sample))
        loader = copy.copy(loader)
        vars(loader)["batch_sampler"] = ShareOfBatches(batches, training)  # torch refuses to be told so
    if not training and 0 < num_rows < world():
        few = f"{counted(num_rows, 'row')} of {name} to measure: fewer than processes"
        note(f"{few}, so each measures all of them, and a sum is {world()} times as large")
    return loader


def note(text: str) -> None:
    """Says something about several processes, once."""
    say(f"        {text}", not rank())


class Shares(Callback):
    """Lets each process take its share of the rows, and weigh its loss by it."""

    loss_weight = 1.0
    weights: Any = None  # what knows how much each batch of this epoch counts

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        connector = cast(Any, trainer._data_connector)
        prepare, backward, step = connector._prepare_dataloader, pl_module.backward, pl_module.optimizer_step

        def prepare_share(loader: Any, shuffle: bool, mode: RunningStage) -> Any:
            return share(prepare(loader, shuffle=shuffle, mode=mode), mode == RunningStage.TRAINING)

        def backward_weighted(loss: Any, *args: Any, **kwargs: Any) -> None:
            backward(loss if self.loss_weight == 1 else loss * self.loss_weight, *args, **kwargs)

        def step_together(epoch: int, batch_idx: int, optimizer: Any, closure: Any = None) -> None:
            def mean_loss() -> Any:
                loss = closure()
                return loss if loss is None else summed(loss.detach() * self.loss_weight) / world()

            # LBFGS goes on, or ends, by the loss that it is told.
            searches = isinstance(getattr(optimizer, "optimizer", optimizer), torch.optim.LBFGS)
            step(epoch, batch_idx, optimizer, mean_loss if searches else closure)

        vars(connector)["_prepare_dataloader"] = prepare_share
        vars(pl_module).update(backward=backward_weighted, optimizer_step=step_together)
        norms = [module for module in pl_module.modules() if isinstance(module, _BatchNorm)]
        if stage == "fit" and any(not isinstance(norm, SyncBatchNorm) for norm in norms):
            note("batch norm sees the rows of its own process only; on GPUs: --sync_batchnorm true")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loader: Any = trainer.train_dataloader
        num_rows = min(getattr(loader, name, None) or WORTH for name in ("batch_size", "num_rows"))
        is_small = num_rows * sum(each.numel() for each in pl_module.parameters()) < WORTH
        if is_small and pl_module.device.type == "cpu":
            note(f"batches of {num_rows:,} rows are little work: one process alone is faster than {world()}")

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loader: Any = trainer.train_dataloader
        batches = loader.batch_sampler if isinstance(loader, DataLoader) else loader
        self.weights = batches if hasattr(batches, "weight_of") else None
        if isinstance(loader, dict | list | tuple) and not trainer.current_epoch:
            note(f"of several loaders each share of a batch counts alike, and less than {world()} rows as {world()}")

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.loss_weight = 1.0 if self.weights is None else self.weights.weight_of(batch_idx)
        vars(pl_module)["loss_weight"] = self.loss_weight

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        vars(trainer._data_connector).pop("_prepare_dataloader", None)
        for name in ("backward", "optimizer_step"):
            vars(pl_module).pop(name, None)
