"""What several tests measure with: curves, states and an oracle for the exact solution."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

CKPT = "runs/default/version_0/checkpoints"  # of the first run that has no name


def load(path: str | Path) -> dict[str, Any]:
    return torch.load(path, weights_only=True)


def events(folder: str | Path) -> EventAccumulator:
    """All that a run has told TensorBoard."""
    accumulator = EventAccumulator(str(folder), size_guidance={"tensors": 0, "scalars": 0, "images": 0})
    accumulator.Reload()
    return accumulator


def scalars(folder: str | Path) -> dict[str, list[tuple[int, float]]]:
    """The curves of a run by their tags: steps and values; the seconds of a run are its own."""
    found = events(folder)
    tags = [tag for tag in found.Tags()["scalars"] if tag != "reported/seconds"]
    return {tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in tags}


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """All that is in a nested structure, with its place there; of the containers the empty ones only."""
    if isinstance(value, dict | list | tuple) and value:
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(inner, f"{path}/{key}")
    else:
        yield path, value


def assert_same(one: Any, other: Any, tolerance: float = 0.0) -> None:
    """Of two nested states: the same places, and there the same tensors to the bit, or within a tolerance."""
    one, other = dict(leaves(one)), dict(leaves(other))
    assert one.keys() == other.keys(), one.keys() ^ other.keys()
    for place, value in one.items():
        if isinstance(value, torch.Tensor) and isinstance(other[place], torch.Tensor):
            torch.testing.assert_close(
                value, other[place], rtol=tolerance, atol=tolerance, equal_nan=True, msg=lambda m, p=place: f"{p}: {m}"
            )
        else:
            assert value is other[place] or value == other[place], f"{place}: {value}, {other[place]}"


def ols(x: Any, y: Any) -> np.ndarray:
    """(D + 1, T): coefficients, then the intercept; numpy's lstsq on standardized columns, back in the data's units."""
    x, y = np.asarray(x), np.asarray(y)
    z = (x - x.mean(0)) / x.std(0)
    coef = np.linalg.lstsq(z, y - y.mean(0), rcond=None)[0] / x.std(0)[:, None]
    return np.r_[coef, y.mean(0, keepdims=True) - x.mean(0) @ coef]
