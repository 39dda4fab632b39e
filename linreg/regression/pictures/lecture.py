"""What the lecture draws: ways to the optimum over the exact surface of the loss, and their excess over time.

All but the ways of the three trainings follows from the summary of the rows. Positions are (K, D + 1): weights and
bias, in standardized units, of which two coordinates are drawn: slope and intercept in the data's units of a single
feature; else the distances from the optimum along the eigenvectors of the largest and the smallest curvature.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from linreg.regression.exact.expected import NO_RESIDUAL, ExpectedDescent
from linreg.regression.exact.learning_rate import HessianSpectrum, stability_limit
from linreg.regression.pictures.theory import excess_over_rate
from linreg.report import figures
from linreg.system.errors import InputError
from linreg.system.screen import counted, told_from, wrapped

MOST_ROWS = 200  # that are descended on, so that a row a step takes seconds
MINI = 16
EASY = 0.02  # of the limit: slow enough to be watched
RATES = {"too large": 1.05, "too small": 0.02, "right": 0.7}  # as shares of the limit
STEPS = 10  # with each of them


class Lesson:
    """Three trainings on the same few rows, from the same beginning and at one rate, the model's if it has one.

    The training rows of its RegressionData are cut down to the first 200, or 5 a feature.
    """

    def __init__(self, model: Any, data: Any) -> None:
        if len(getattr(data, "target_names", [])) != 1 or not (model.has_intercept and hasattr(data, "splits")):
            raise InputError("a lecture is about one target with an intercept; name one --data.target, no bias false")
        self.model, self.data, self.of = model, data, data.row_counts["train"]
        self.num_rows = min(self.of, max(MOST_ROWS, 5 * data.num_features))
        x, y = (part[: self.num_rows] for part in data.splits["train"])
        data.splits["train"] = x, y
        model.feature_names, model.target_names = data.feature_names, data.target_names
        model.fit_standardizers([(x, y)])
        if model.exact is None or not model.exact.rank or float(model.exact.mse(model.exact.weight())) < NO_RESIDUAL:
            needed = "features that vary, 2,000 at most, and a target that they do not determine"
            raise InputError(f"a lecture needs {needed}")
        self.spectrum = HessianSpectrum(model.exact, 0.0)
        self.limit = stability_limit(self.spectrum.lmax)
        self.lr = model.lr or min(EASY * self.limit, 0.5 / self.spectrum.row_curvature)
        self.regimes = {"batch": self.num_rows, "mini-batch": MINI, "stochastic": 1}
        _, s, v = model.exact.svd
        self.root = torch.block_diag(v * s, torch.ones(1, 1, dtype=torch.float64))  # |error @ root|^2 is the excess
        self.optimum = torch.cat([model.exact.weight()[0], torch.zeros(1, dtype=torch.float64)])
        if data.num_features == 1:
            self.names, first, best = ("slope", "intercept"), -1.0, model.exact.solve()
            (mean, _), (std_x, std_y) = model.exact.mean.tolist(), model.exact.std.tolist()
            self.axes = torch.tensor([[std_y / std_x, -mean * std_y / std_x], [0.0, std_y]], dtype=torch.float64)
            self.at, self.back = torch.cat([best.coef[0], best.intercept]), torch.linalg.inv(self.axes) @ self.root
        else:
            self.names, first = ("along the largest curvature", "along the smallest"), 0.0
            self.axes, self.at = torch.cat([v[:, [0, -1]], torch.zeros(1, 2)]), torch.zeros(2)
            self.back = torch.linalg.pinv(self.axes) @ self.root  # of a single eigenvector both axes are that one
        self.start = torch.cat([0 * self.optimum[:-1], torch.tensor([first])])
        self.least = float(model.exact.mse(model.exact.weight()))
        self.spectrum.excess[-1] = float(self.start[-1]) ** 2 / self.least  # of the intercept, which begins elsewhere

    def describe(self) -> str:
        """How the three are alike."""
        rows = f"{self.num_rows:,} of {self.of:,} training rows" if self.of > self.num_rows else f"{self.of:,} rows"
        share = told_from(100 * self.lr / self.limit, 100, 3)
        return wrapped(f"lecture {rows}, lr {self.lr:.3g} = {share} % of the full-batch limit")

    def learner(self, batch_size: int) -> Any:
        """A model at the beginning, and the data in batches of a size."""
        learner = copy.deepcopy(self.model)
        learner.lr, learner.momentum, self.data.batch_size = self.lr, self.model.momentum or 0.0, batch_size
        learner.hypothesis.weight.data[:] = self.start[:-1]
        learner.hypothesis.bias.data[:] = self.start[-1:]
        vars(learner)["configure_callbacks"] = list  # it is held against the exact solution here
        return learner

    def excess(self, way: Tensor) -> list[float]:
        """The excess_mse at each position of a way (K, D + 1)."""
        return (((way - self.optimum) @ self.root).square().sum(1) / self.least).tolist()

    def descent(self, lr: float) -> Tensor:
        """The way of full-batch descent by the lecture's formula, without training."""
        way = [self.start]
        for _ in range(STEPS):
            way.append(way[-1] - lr * 2 * (self.root @ (self.root.T @ (way[-1] - self.optimum))))
        return torch.stack(way)

    def place(self, way: Tensor) -> np.ndarray:
        """The two coordinates (K, 2) of a way that are drawn."""
        return ((way - self.optimum) @ self.axes + self.at).numpy()

    def surface(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """The exact excess_mse over a grid of the two coordinates."""
        places = torch.from_numpy(np.stack([x, y], -1))
        return (((places - self.at) @ self.back).square().sum(-1) / self.least).numpy()

    def draw(self, ways: dict[str, Tensor]) -> np.ndarray:
        """The picture: above the three trainings, below the three rates."""
        figure, ((first, *over), (second, rates, limits)) = figures.panels(2, 3, width=15, height=9)
        colours, theory = (figures.BLUE, figures.RED, figures.ORANGE), ExpectedDescent(self.model)
        self._contour(first, ways, colours, f"the loss of {self.num_rows:,} rows, lr {self.lr:.3g}")
        first.legend(fontsize="small")
        titles = "the same steps (dotted: noise at epochs' ends)", f"the same rows: {self.num_rows:,} an epoch"
        for axes, unit, title in zip(over, ("step", "epoch"), titles, strict=True):
            curves = {}
            for (regime, way), colour in zip(ways.items(), colours, strict=True):
                size = self.regimes[regime]
                time = np.arange(len(way)) / (-(-self.num_rows // size) if unit == "epoch" else 1)
                rows = "all rows" if size == self.num_rows else counted(size, "row")
                curves[f"{regime}: {rows} a step"] = time, np.array(self.excess(way)), "-"
                level = theory.noise_level(size, self.lr, self.model.momentum or 0.0, self.model.nesterov)
                if 0 < level < math.inf:  # where the noise of its batches ends the way down
                    axes.axhline(level, color=colour, linestyle=":")
            figures.log_curves(axes, curves, (unit, "excess_mse (0 at the exact optimum)", title), colours)
        over[0].set_xscale("symlog", linthresh=1)
        over[0].set_xlim(left=0)
        shares = {f"{name}: {share:g} of the limit": share * self.limit for name, share in RATES.items()}
        hues = (figures.PINK, figures.SKY, figures.GREEN)
        descents = {name: self.descent(lr) for name, lr in shares.items()}
        self._contour(second, descents, hues, f"all rows, {STEPS} steps, three rates (colours as beside)")
        curves = {name: (np.arange(STEPS + 1), np.array(self.excess(way)), "o-") for name, way in descents.items()}
        figures.log_curves(rates, curves, ("step", "excess_mse", "too large, too small, right"), hues)
        excess_over_rate(limits, self.spectrum, self.limit, 0.0, False)
        for lr, colour in zip(shares.values(), hues, strict=True):
            limits.axvline(lr, color=colour, linewidth=2, alpha=0.8)
        limits.set_title("the same for any rate (upright: the three)", fontsize="medium")
        limits.legend(fontsize="small", loc="upper left")
        return figures.to_image(figure)

    def _contour(self, axes: Any, ways: dict[str, Tensor], colours: Sequence[str], title: str) -> None:
        """The ways over the lines of equal loss, with the optimum."""
        places = {name: self.place(way) for name, way in ways.items()}
        best = self.place(self.optimum[None])[0]
        points = np.concatenate([*places.values(), best[None]])
        low, high = points.min(0), points.max(0)
        margin = 0.15 * np.maximum(high - low, 0.2 * (high - low).max())
        grids = [np.linspace(a, b, 120) for a, b in zip(low - margin, high + margin, strict=True)]
        x, y = np.meshgrid(*grids)
        height = self.surface(x, y)
        levels = np.geomspace(max(height.max() / 1e3, 1e-12), height.max(), 12)
        axes.contour(x, y, height, levels=levels, colors="0.7", linewidths=0.8)
        for (name, place), colour in zip(places.items(), colours, strict=True):
            style, above = ".-" if len(place) < 100 else "-", 3 - len(place) / 1e5
            axes.plot(*place.T, style, color=colour, linewidth=1, label=name, zorder=above)
        axes.plot(*places[next(iter(places))][0], "ks", markersize=5, label="beginning")
        axes.plot(*best, "k*", markersize=11, label="exact optimum", zorder=4)
        figures.label(axes, *self.names, title)
