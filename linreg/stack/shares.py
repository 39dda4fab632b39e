"""Several processes, the answer of one: each takes its rows of every batch, and its gradient counts by their number.

What cannot be so: batch norm sees the rows of its own process only; a loss that is no mean over rows is weighted as if
it were; and what is logged in some batches only needs ``sync_dist=False``, since the other processes wait for it.
"""

import copy
from collections.abc import Iterator
from functools import partial
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import RunningStage
from torch.nn.modules.batchnorm import SyncBatchNorm, _BatchNorm
from torch.utils.data import DataLoader, DistributedSampler, IterableDataset

from linreg.system.ranks import check_agreement, from_first, rank, weight, world
from linreg.system.screen import say

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


def share(loader: Any, training: bool) -> Any:
    """A loader of this process's rows, if it is a DataLoader that can have one; all others say what they do."""
    if hasattr(loader, "weight_of"):
        return loader
    batches = getattr(loader, "batch_sampler", None)
    if isinstance(loader, DataLoader) and isinstance(loader.sampler, DistributedSampler):
        return loader
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset) or batches is None:
        kind = type(getattr(loader, "dataset", loader)).__name__
        say(f"        {kind}: each process reads all of it, unless it asks torch.distributed for its rank", not rank())
        return loader
    if isinstance(batches, ShareOfBatches):
        return loader
    check_agreement(f"the rows of {type(loader.dataset).__name__}", len(loader.dataset))  # type: ignore[arg-type]
    shared = copy.copy(loader)
    vars(shared)["batch_sampler"] = ShareOfBatches(batches, training)  # torch refuses to be told so
    return shared


class Shares(Callback):
    """Lets each process take its share of the rows, weigh its loss by it, and log what all processes have found."""

    loss_weight = 1.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if trainer.world_size == 1:
            return
        connector: Any = trainer._data_connector
        prepare, backward = connector._prepare_dataloader, pl_module.backward

        def prepare_share(loader: Any, shuffle: bool, mode: RunningStage) -> Any:
            return share(prepare(loader, shuffle=shuffle, mode=mode), mode == RunningStage.TRAINING)

        def backward_weighted(loss: Any, *args: Any, **kwargs: Any) -> None:
            backward(loss if self.loss_weight == 1 else loss * self.loss_weight, *args, **kwargs)

        vars(connector)["_prepare_dataloader"] = prepare_share
        synced = {name: partial(getattr(pl_module, name), sync_dist=True) for name in ("log", "log_dict")}
        vars(pl_module).update(synced, backward=backward_weighted)
        norms = [module for module in pl_module.modules() if isinstance(module, _BatchNorm)]
        if stage == "fit" and any(not isinstance(norm, SyncBatchNorm) for norm in norms):
            say("        batch norm sees the rows of its own process only; on GPUs: --sync_batchnorm true", not rank())

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loader: Any = trainer.train_dataloader
        num_rows = min(getattr(loader, name, None) or WORTH for name in ("batch_size", "num_rows"))
        is_small = num_rows * sum(each.numel() for each in pl_module.parameters()) < WORTH
        if trainer.world_size > 1 and is_small and pl_module.device.type == "cpu":
            slow = f"batches of {num_rows:,} rows are little work: one process alone is faster"
            say(f"        {slow} than {trainer.world_size}", not rank())

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.world_size > 1:
            loader: Any = trainer.train_dataloader
            weights = getattr(loader, "batch_sampler", None) or loader
            self.loss_weight = weights.weight_of(batch_idx) if hasattr(weights, "weight_of") else 1.0
            vars(pl_module)["loss_weight"] = self.loss_weight

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        vars(trainer._data_connector).pop("_prepare_dataloader", None)
        for name in ("log", "log_dict", "backward"):
            vars(pl_module).pop(name, None)
