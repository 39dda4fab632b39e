"""Cross-validation: mean and spread over five folds, and each fold's exact solution beside what was learned.

``python -m linreg.examples.folds configs/penguins.csv body_mass_g``
"""

import statistics
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from linreg import CSVData, LinearRegression, run, script


class Fold(CSVData):
    """A table of which every row is in the test of one of several folds, and in the training of the others."""

    def __init__(self, fold: int, **table: Any) -> None:
        super().__init__(val_fraction=0, test_fraction=0, **table)
        self.fold = fold

    @cached_property
    def splits(self) -> dict[str, tuple[Tensor, Tensor]]:
        x, y = self.table.x, self.table.y
        order = torch.arange(len(x))
        in_test = order * 5 // len(x) == self.fold
        if self.split == "random":
            order = torch.randperm(len(x), generator=torch.Generator().manual_seed(self.split_seed))
        rows = {"train": order[~in_test], "val": order[:0], "test": order[in_test]}
        return {name: (x[part], y[part]) for name, part in rows.items()}


def main(path: str, target: str, categories: Any = "all", **table: Any) -> None:
    """Trains on four fifths of a table, five times, and tests on the others; see CSVData for its flags."""
    found = []
    for k in range(5):
        data = Fold(k, path=path, target=target, categories=categories, **table)
        found.append(run(LinearRegression(data.num_features), data, name="folds").metrics)
    for metric in ("rmse", "r2"):
        learned, exact = [m["test"][metric] for m in found], [m["exact"]["test"][metric] for m in found]
        print(f"{metric}: {statistics.mean(learned):.7g} +- {statistics.stdev(learned):.2g}")
        for k, (ours, best) in enumerate(zip(learned, exact, strict=True)):
            print(f"  fold {k}: {ours:.7g}, exact {best:.7g}")


if __name__ == "__main__":
    script(main)
