"""Batches: every row once, in an order that (seed, epoch) alone decides."""

from itertools import chain

import torch

from linreg.tables.batches import TensorBatches

X = torch.arange(10.0)[:, None]


def rows(loader: TensorBatches) -> list[list[int]]:
    return [x.flatten().int().tolist() for x, y in loader if torch.equal(x, y)]


def test_every_row_once_in_batches_of_the_size_asked_for() -> None:
    batches = rows(TensorBatches(X, X, 4, seed=0))
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert sorted(chain(*batches)) == list(range(10))
    assert list(chain(*batches)) != list(range(10))
    assert len(TensorBatches(X, X, 4)) == 3


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    loader, again, other = (TensorBatches(X, X, 4, seed=seed) for seed in (0, 0, 1))
    first = rows(loader)
    assert rows(loader) == first  # iterating does not advance anything
    loader.sampler.set_epoch(3)
    again.sampler.set_epoch(3)
    assert rows(loader) == rows(again) != first
    assert rows(other) != first


def test_without_a_seed_the_order_is_kept() -> None:
    assert rows(TensorBatches(X, X, 4)) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_a_full_batch_is_copied_once_only() -> None:
    """The first copy shows whether steps change their batch."""
    loader = TensorBatches(X, X, 10, seed=0)
    ((first, _),), ((x, _),), ((again, _),) = loader, loader, loader
    assert first.data_ptr() != X.data_ptr() == x.data_ptr() == again.data_ptr()
