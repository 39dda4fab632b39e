"""What decides the order of rows besides the seed of an epoch: samplers and generators of a user's own."""

import pickle
import zlib
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

FROM_SEED = ("torch", "torchdata", "builtins", "linreg")  # whose samplers keep nothing from one epoch to the next


def own_samplers(loaders: list[Any], with_state: bool) -> list[Any]:
    """The samplers of loaders, of rows and of batches, that say where they are by a ``state_dict``, or else do not."""
    found = list[Any]()
    for loader in loaders:
        if isinstance(loader, DataLoader) and not type(loader).__module__.startswith("torchdata"):  # which asks them
            batches = getattr(loader.batch_sampler, "batches", loader.batch_sampler)  # of which a process has a share
            found += [batches, getattr(batches, "sampler", loader.sampler)]
    found = [each for each in found if type(each).__module__.split(".")[0] not in FROM_SEED]
    return [each for each in found if hasattr(each, "load_state_dict") == with_state]


def unsaved(loaders: list[Any]) -> dict[str, list[Any]]:
    """What samplers without a state keep from one epoch to the next, to be compared; by the names of their classes."""
    return {type(each).__name__: kept_by(each) for each in own_samplers(loaders, with_state=False)}


class Digest:
    """A file of which nothing is left but its checksum: what is written may be as large as memory."""

    sum = 0

    def write(self, data: Any) -> None:
        self.sum = zlib.crc32(data, self.sum)


def kept_by(sampler: Any) -> list[Any]:
    """What an object holds but for data and generators, as checksums; an open iterator, say, is never the same."""
    names = [name for cls in type(sampler).__mro__ for name in getattr(cls, "__slots__", ())]
    found = list[Any]()
    for value in [*getattr(sampler, "__dict__", {}).values(), *(getattr(sampler, name, None) for name in names)]:
        digest: Any = Digest()
        try:
            pickle.Pickler(digest).dump(None if isinstance(value, Dataset | torch.Generator) else value)
        except Exception:
            found.append(object())
        found.append(digest.sum)
    return found


def reseed_generators(loaders: list[Any], epoch: int, seeds: dict[torch.Generator, int]) -> None:
    """Lets the generators that loaders and samplers were given go on with the epoch, from the seeds that they had."""
    loaders = [each for each in loaders if isinstance(each, DataLoader)]
    torchs = [each.sampler for each in loaders if not hasattr(each.sampler, "load_state_dict")]
    for owner in (*loaders, *torchs, *own_samplers(loaders, with_state=False)):
        for own in getattr(owner, "__dict__", {}).values():
            if isinstance(own, torch.Generator):
                own.manual_seed(seeds.setdefault(own, own.initial_seed()) + epoch)
