"""What an epoch draws: the order of rows, dropout, augmentation; and how a run goes on amid these draws."""

import copy
import os
import random
from itertools import islice
from typing import Any, cast

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loops.fetchers import _DataFetcher
from lightning.pytorch.utilities.combined_loader import _SUPPORTED_MODES
from torch.utils.data import DataLoader, Dataset, IterableDataset

from linreg.split import SEEDS
from linreg.stack.samplers import own_samplers, reseed_generators, unsaved
from linreg.system.errors import InputError, given
from linreg.system.screen import say, wrapped

SEED = "PL_GLOBAL_SEED"  # in the environment: Lightning's, of the first weights and of a run's own draws


class Draws(Callback):
    """Seeds every generator anew at an epoch's beginning, so that its draws are a function of seed, epoch and process.

    Nothing but the number of an epoch has to be saved then for a run to go on with the draws that it would have had;
    those of a ``DataLoader(shuffle=True)`` and of its workers are among them.
    """

    seed: int | None = None  # of the run
    seen = 0  # batches of the first epoch, by the run that goes on
    kept: tuple[Any, ...] | None = None  # by the data module, its loaders and their samplers, where the epoch began

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self.seed = checkpoint.get("seed")
        if self.seed is not None and not (type(self.seed) is int and 0 <= self.seed < 1 << 64):
            raise InputError("the checkpoint's 'seed' is none; resume from another one")
        data = checkpoint.get(type(getattr(trainer, "datamodule", None)).__qualname__)
        loaders = checkpoint["loops"]["fit_loop"]["state_dict"].get("combined_loader", [])
        self.kept = data, loaders, checkpoint.get("samplers", [])

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["seed"] = self.seed
        if states := [each.state_dict() for each in own_samplers(loaders_of(trainer), with_state=True)]:
            checkpoint["samplers"] = states

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.own_seeds: dict[torch.Generator, int] = {}  # of generators that loaders were given
        self.unsaved: dict[str, list[Any]] = {}  # what samplers keep as a run goes on
        self.is_first, make_loaders, kind = True, trainer.fit_loop.setup_data, cast(Any, _DataFetcher)

        def make_without_iterator() -> None:
            make_iterator = kind.__iter__
            kind.__iter__ = without_iterator if self.is_first else make_iterator
            try:  # which is made behind the seed: two would draw batches of a stream that no step takes
                make_loaders()
            finally:
                kind.__iter__ = make_iterator

        vars(trainer.fit_loop)["setup_data"] = make_without_iterator

    def on_fit_start(self, trainer: Any, pl_module: LightningModule) -> None:
        typed = os.environ.get(SEED)
        if typed is not None:
            self.seed = int(typed)
        elif self.seed is None:  # where nobody has given a seed, it is another one for each run
            begun = torch.initial_seed()
            self.seed = begun if begun <= SEEDS else int(torch.randint(1 << 62, ()))
        begin = pl_module.on_train_epoch_start

        def begin_with_loaders() -> None:
            begin()
            data, loaders = trainer.datamodule, trainer.fit_loop._combined_loader
            goes_on = self.is_first and trainer.global_step > 0
            if goes_on:
                start_staying_workers(loaders.flattened, trainer)
            if self.is_first and self.kept:
                with given("the checkpoint's state of the data"):
                    self._restore(trainer, loaders, *self.kept)
            else:
                of_samplers = [each.state_dict() for each in own_samplers(loaders.flattened, with_state=True)]
                self.kept = copy.deepcopy((data and data.state_dict(), loaders._state_dicts(), of_samplers))
            self.unsaved = unsaved(loaders.flattened) if goes_on else {}
            self.on_train_epoch_start(trainer, pl_module)
            if self.is_first:  # whose iterator was made before; those of the other epochs are made next
                self.is_first = False
                begin_behind(trainer, self.seen)

        vars(pl_module)["on_train_epoch_start"] = begin_with_loaders

    def _restore(self, trainer: Any, loaders: Any, of_data: Any, of_loaders: Any, of_samplers: Any = ()) -> None:
        """Lets data, loaders and samplers go on from where they were, and says which begin anew."""
        samplers, every = own_samplers(loaders.flattened, with_state=True), trainer.reload_dataloaders_every_n_epochs
        is_known = len(samplers) == len(of_samplers)
        if of_data:  # again, for an iterator may have moved on since
            trainer.datamodule.load_state_dict(of_data)
        if not every or trainer.current_epoch % every:  # else they are new ones, as they would have been
            loaders._load_state_dicts(of_loaders)  # Lightning does so inside epochs only
            for each, state in zip(samplers, of_samplers, strict=True) if is_known else ():
                each.load_state_dict(state)
        if not is_known:
            found = f"{len(samplers)} samplers have a state here, {len(of_samplers)} in the checkpoint"
            say(f"        {found}: they begin anew", trainer.is_global_zero)
        is_stream = any(isinstance(getattr(each, "dataset", None), IterableDataset) for each in loaders.flattened)
        if is_stream and not (of_data or of_loaders):
            where = "in no state_dict of the data module or the loader"
            say(f"        this stream begins anew: where it was is {where}", trainer.is_global_zero)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loader: Any = trainer.train_dataloader
        is_rows = isinstance(loader, Dataset) and not isinstance(loader, IterableDataset)
        if is_rows or hasattr(loader, "__getitems__"):  # Lightning would take each row for a batch
            found = f"train_dataloader gives a {type(loader).__name__}"
            raise InputError(f"{found}, whose rows are no batches; give a DataLoader(rows, batch_size=32)")
        rows, num_workers = getattr(loader, "dataset", None), getattr(loader, "num_workers", 0)
        if isinstance(rows, IterableDataset) and num_workers > 1:
            each = f"each of its {num_workers} workers gives all of it"
            say(f"        {type(rows).__name__}: {each}, unless it asks get_worker_info", trainer.is_global_zero)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        epoch = 0 if vars(trainer)["overfit_batches"] else trainer.current_epoch  # the same draws are the same batches
        seed_draws(self.seed, epoch, trainer.global_rank)
        is_news = not self.own_seeds
        reseed_generators(loaders_of(trainer), epoch, self.own_seeds)
        if is_news and self.own_seeds:
            how = "begins each epoch with its seed plus the epoch's number, so that a run can go on"
            say(wrapped(f"        the generator of a loader's own {how}"), trainer.is_global_zero)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        now, before, self.unsaved = unsaved(loaders_of(trainer)) if self.unsaved else {}, self.unsaved, {}
        for name in [name for name in now if now[name] != before[name]]:
            text = f"{name} began anew: what it keeps is in no state_dict, and may be what decides the order"
            say(wrapped(f"        {text}"), trainer.is_global_zero)


def seed_draws(seed: int | None, epoch: int, rank: int) -> None:
    """Seeds every generator as at the beginning of an epoch; of what is measured behind a run, as of the first."""
    seed = ((seed or 0) * 1_000_003 + epoch + (rank << 20)) % (1 << 63)
    torch.default_generator.manual_seed(seed)  # torch.manual_seed keeps a list for GPUs that are not in use
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


def loaders_of(trainer: Trainer) -> list[Any]:
    """All that training rows come from, one or several."""
    loaders = trainer.fit_loop._combined_loader
    return [] if loaders is None else loaders.flattened  # which are not there yet where a run begins


def without_iterator(fetcher: Any) -> Any:
    """What ``_DataFetcher.__iter__`` does, but that the loaders are not iterated over yet."""
    loaders, fetcher.iterator = fetcher.combined_loader, iter(())
    loaders._iterator = _SUPPORTED_MODES[loaders._mode]["iterator"](loaders.flattened, loaders.limits)  # for its length
    fetcher.reset()
    return fetcher


def generator_states() -> dict[str, Any]:
    """The states of all generators, in types that a checkpoint may hold."""
    numpy: Any = np.random.get_state()
    states: dict[str, Any] = {"torch": torch.get_rng_state(), "python": random.getstate()}
    states["numpy"] = [each.tolist() if isinstance(each, np.ndarray) else each for each in numpy]
    return states | ({"cuda": torch.cuda.get_rng_state_all()} if torch.cuda.is_initialized() else {})


def restore_generators(states: dict[str, Any]) -> None:
    """Lets all generators go on from where they were."""
    torch.set_rng_state(states["torch"])
    random.setstate(states["python"])
    np.random.set_state(tuple(states["numpy"]))
    if "cuda" in states and torch.cuda.is_initialized():
        torch.cuda.set_rng_state_all(states["cuda"])


def start_staying_workers(loaders: list[Any], trainer: Trainer) -> None:
    """Starts the persistent workers of a run that goes on, which would have been there; says what they cannot know.

    They draw a seed where they are started, and so would draw one in this epoch that the run has drawn in its first.
    """
    staying = [each for each in loaders if getattr(each, "persistent_workers", False)]
    for each in staying if trainer.current_epoch else []:
        if not isinstance(each.dataset, IterableDataset):  # which may not stand where it stood after being asked twice
            iter(each)
    if staying:
        say("        persistent_workers begin anew: no checkpoint has what they draw and keep", trainer.is_global_zero)


def begin_behind(trainer: Trainer, seen: int) -> None:
    """Makes the iterator of an epoch, behind the batches that were seen; says what it has to load again for that."""
    fetcher: Any = trainer.fit_loop._data_fetcher
    loader: Any = trainer.train_dataloader
    if hasattr(loader, "seen"):
        loader.seen, seen = seen, 0
    is_plain = isinstance(loader, DataLoader) and not isinstance(loader.dataset, IterableDataset)
    if is_plain and not loader.num_workers and loader.batch_sampler is not None:
        iter(fetcher)
        batches: Any = trainer.fit_loop._combined_loader._iterator.iterators[0]  # type: ignore[union-attr]
        next(islice(batches._sampler_iter, seen, seen), None)
        return
    iter(fetcher)
    for _ in range(seen):
        next(fetcher)
    fetcher.fetched -= seen  # Lightning adds them
    if seen:
        unless = "" if getattr(loader, "num_workers", 0) else "; exact, unless these data draw at random in between"
        say(f"        the batches that were seen are loaded again, and passed over{unless}", trainer.is_global_zero)
