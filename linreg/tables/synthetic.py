"""Rows whose true coefficients are known."""

import os
from typing import Any

import torch
from torch import Tensor

from linreg.split import SEEDS
from linreg.system.errors import InputError
from linreg.tables.data import RegressionData
from linreg.tables.table import Table


class SyntheticData(RegressionData):
    """Rows made from known coefficients: ``y = x W^T + b + noise``, with standard normal x.

    Args:
        num_rows: rows to make, at least 1.
        num_features: D, at least 1.
        noise_std: standard deviation of the noise, in the target's units, from 0 to 1e140.
        data_seed: seed of the coefficients, the features and the noise; from 0 to 2^32 - 1.
        **split: see RegressionData.
    """

    def __init__(
        self, num_rows: int = 1_000, num_features: int = 3, noise_std: float = 0.1, data_seed: int = 0, **split: Any
    ) -> None:
        super().__init__(**split)
        limits: list[tuple[str, float, float, float]]
        limits = [("num_rows", 1, 1 << 53, num_rows), ("num_features", 1, 1 << 53, num_features)]
        limits += [("noise_std", 0, 1e140, noise_std), ("data_seed", 0, SEEDS, data_seed)]  # noise has to be squared
        for name, least, most, value in limits:
            if not least <= value <= most:
                raise InputError(f"{name}={value}: a value from {least} to {most:,} is expected")
        gigabytes, needed = memory() >> 30, 24 * num_rows * (num_features + 1) + 100 * num_features >> 30  # with splits
        if needed > gigabytes:
            found = f"num_rows={num_rows} and num_features={num_features}: they would take {needed:,} GB"
            raise InputError(f"{found}, this machine has {gigabytes:,} GB; lower one of them")
        self.num_rows, self.columns, self.noise_std, self.data_seed = num_rows, num_features, noise_std, data_seed

    def load(self) -> Table:
        generator = torch.Generator().manual_seed(self.data_seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64)

        parameters = normal(self.columns + 1)
        parameters += parameters.sign()  # at least 1 in size, so that "within 1 %" means something
        coef, intercept = parameters[None, :-1], parameters[-1:]
        x = normal(self.num_rows, self.columns)
        y = x @ coef.T + intercept + self.noise_std * normal(self.num_rows, 1)
        names = [f"x{i + 1}" for i in range(self.columns)]
        return Table(x, y, names, ["y"], self.num_rows, true_coef=coef, true_intercept=intercept)


def memory() -> int:
    """The machine's, in bytes; where it does not say (Windows), more than any has."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 1 << 44
