"""Which rows train, validate and test: at random or in their order."""

import torch
from torch import Tensor

from linreg.system.errors import InputError
from linreg.system.screen import counted

SPLITS = ("train", "val", "test")
SEEDS = (1 << 32) - 1  # the largest one


def check_split(val_fraction: float, test_fraction: float, split: str, split_seed: int) -> None:
    """InputError for settings by which no rows could be split."""
    for name, share in (("val_fraction", val_fraction), ("test_fraction", test_fraction)):
        if not 0 <= share <= 1:
            raise InputError(f"{name}={share}: a share from 0 to 1 is expected")
    if val_fraction + test_fraction > 1:
        raise InputError(f"val_fraction={val_fraction} and test_fraction={test_fraction} are more than all rows")
    if split not in ("random", "order"):
        raise InputError(f"split={split!r}: 'random' or 'order' is expected")
    if not 0 <= split_seed <= SEEDS:
        raise InputError(f"split_seed={split_seed}: a value from 0 to {SEEDS:,} is expected")


def split_rows(
    num_rows: int,
    val_fraction: float,
    test_fraction: float,
    split: str = "random",
    split_seed: int = 0,
    gap: int = 0,
    origin: str = "the data",
) -> dict[str, Tensor | range]:
    """The rows of "train", "val" and "test" by number, ranges if in order; of a fraction above 0 there is at least one.

    In "order" the first rows train, the last ones test. Between two splits ``gap`` rows are left out, for rows that
    share values with those after them; InputError, which calls the data ``origin``, if there are too few.
    """
    shares = (val_fraction, test_fraction)
    num_val, num_test = (max(round(num_rows * share), 1) if share else 0 for share in shares)
    num_train = num_rows - num_val - num_test
    num_gaps = (min(num_train, 1) + min(num_val, 1) + min(num_test, 1) - 1) * bool(gap)
    if num_train < num_gaps * gap or (num_train == num_gaps * gap and sum(shares) < 1):
        few = f"too few to split into training, validation ({val_fraction}) and test ({test_fraction}) rows"
        few += f", {gap} left out between each two of them" if num_gaps else ""
        remedy = "set --data.val_fraction 0 --data.test_fraction 0"
        raise InputError(f"{origin}: {counted(num_rows, 'row')}: {few}; {remedy}")
    order: Tensor | range = range(num_rows)
    if split == "random":
        order = torch.randperm(num_rows, generator=torch.Generator().manual_seed(split_seed))
    found, start = dict[str, Tensor | range](), 0
    for name, size in zip(SPLITS, (num_train - num_gaps * gap, num_val, num_test), strict=True):
        found[name] = order[start : start + size]
        start += size + (gap if size else 0)
    return found


def same_rows(before: Tensor, now: Tensor) -> bool:
    """Whether two fingerprints are of the same rows, but for rounding: of 20 million, 4e-13 in another order."""
    is_alike = (before.shape, before.dtype) == (now.shape, now.dtype)
    return is_alike and torch.allclose(before, now, rtol=1e-10, atol=0.0, equal_nan=True)
