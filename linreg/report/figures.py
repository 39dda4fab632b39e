"""Pictures of a fit: pure functions from numbers to a figure, and from a figure to its pixels.

The colours are Okabe and Ito's, which the colour-blind can tell apart, on white, which either theme can have around it.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from linreg.system.messages import MISSING_GLYPH
from linreg.system.screen import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_POINTS = 2_000  # that a picture needs
BLUE, RED, GREEN, ORANGE, SKY, PINK = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7"
GREY = "0.55"
LONGEST = 22  # letters of a name on an axis
COLOURS = (BLUE, RED, GREEN, ORANGE, SKY, PINK)
Curves = dict[str, tuple[np.ndarray, np.ndarray, str]]


def predicted_vs_actual(y_hat: np.ndarray, y: np.ndarray, name: str, of: str) -> Figure:
    """Predictions (N,) over targets (N,), on equal axes: a perfect model lies on the diagonal."""
    figure, ((axes,),) = panels(1, 1, width=4.5, height=4.5)
    left, total = np.square(y_hat - y).sum(), np.square(y - y.mean()).sum()
    label(axes, f"actual {name}", f"predicted {name}", f"R2 {1 - left / total:.4f}, {of}" if np.ptp(y) else of)
    ends = [min(y.min(), y_hat.min()), max(y.max(), y_hat.max())]
    axes.plot(ends, ends, color=GREY, label="predicted = actual")
    axes.plot(y, y_hat, ".", color=BLUE, alpha=0.5)
    axes.set_aspect("equal", adjustable="datalim")
    axes.legend(loc="upper left")
    return figure


def residual_plots(
    y_hat: np.ndarray, residual: np.ndarray, scaled: np.ndarray, leverage: np.ndarray, parameters: int, of: str
) -> Figure:
    """R's four pictures of a fit: residuals, their quantiles, their size over predictions, and over leverage.

    Args:
        y_hat: (N,) predictions.
        residual: (N,) what is left of the target.
        scaled: (N,) the same, by its own standard deviation; NaN where it has none.
        leverage: (N,) how far a row is from the others, as a share of the fit that is its own.
        parameters: of the fit, for the lines of equal Cook's distance.
        of: which rows these are.
    """
    figure, (first, second) = panels(2, 2, width=7, height=6)
    label(first[0], "prediction", "residual", of)
    first[0].axhline(0, color=GREY)
    first[0].plot(y_hat, residual, ".", color=BLUE, alpha=0.5)
    known = np.isfinite(scaled)
    left_out = "" if known.all() else f", without {counted((~known).sum(), 'row')} of leverage 1"
    order, ranks = np.sort(scaled[known]), (np.arange(known.sum()) + 0.5) / max(known.sum(), 1)
    normal = torch.special.ndtri(torch.from_numpy(ranks)).numpy()
    label(first[1], "quantile of a normal distribution", "standardized residual", f"Q-Q{left_out}")
    first[1].plot(normal, normal, color=GREY)
    first[1].plot(normal, order, ".", color=BLUE, alpha=0.5)
    label(second[0], "prediction", "root of |standardized residual|", "scale")
    second[0].plot(y_hat, np.sqrt(np.abs(scaled)), ".", color=BLUE, alpha=0.5)
    label(second[1], "leverage", "standardized residual")
    second[1].axhline(0, color=GREY)
    second[1].plot(leverage[known], scaled[known], ".", color=BLUE, alpha=0.5)
    limits, most = second[1].get_ylim(), float(leverage[known].max(initial=0))
    h = np.linspace(max(most / 100, 1e-9), min(max(most, 1e-6), 0.999), 100)
    for distance, style in ((0.5, "--"), (1.0, "-")):
        edge = np.sqrt(distance * parameters * (1 - h) / h)
        both, name = np.r_[edge, np.nan, -edge], f"Cook's D = {distance:g}"
        second[1].plot(np.r_[h, np.nan, h], both, style, color=RED, linewidth=1, label=name)
    second[1].set_ylim(limits)
    second[1].legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False, fontsize="small")
    return figure


def coefficient_bars(
    names: Sequence[str], size: np.ndarray, spread: np.ndarray, learned: np.ndarray, level: str
) -> Figure:
    """The exact coefficients (K,) as intervals, the learned ones as dots; and how far these are apart, in errors.

    Args:
        names: K of them.
        size: the exact ones.
        spread: half the length of an interval around each.
        learned: what training has found.
        level: what the intervals are.
    """
    figure, ((left, right),) = panels(1, 2, width=7.5, height=1.6 + 0.32 * len(names))
    rows = np.arange(len(names))[::-1]
    label(left, "standardized coefficient", "", f"bars: exact {level}")
    left.axvline(0, color=GREY, linewidth=1)
    left.use_sticky_edges = False  # else the axis begins where the lowest bar does
    left.barh(rows, 2 * spread, left=size - spread, color=SKY)
    left.plot(learned, rows, "o", color=RED, markersize=5)
    short = [name if len(name) <= LONGEST else f"{name[: LONGEST // 2]}…{name[-LONGEST // 2 + 1 :]}" for name in names]
    left.set_yticks(rows, short, parse_math=False)
    label(right, "learned - exact, in standard errors", "", "dots: learned")
    right.axvspan(-2, 2, color=SKY, alpha=0.5)
    right.axvline(0, color=GREY, linewidth=1)
    right.plot(2 * (learned - size) / np.where(spread > 0, spread, np.nan), rows, "o", color=RED, markersize=5)
    right.set_yticks(rows, [""] * len(rows))
    right.set_ylim(left.get_ylim())
    margin = 0.2 + 0.105 * max(map(len, short), default=0)  # inches, of capitals
    figure.subplots_adjust(left=margin / 7.5, bottom=0.65 / (1.6 + 0.32 * len(names)), wspace=0.08)
    return figure


def fitted_line(
    x: np.ndarray, y: np.ndarray, y_hat: np.ndarray, exact: np.ndarray, half: np.ndarray, names: tuple[str, str, str]
) -> Figure:
    """One feature (N,) and its target: the rows, the fitted and the exact predictions, each (N,).

    Args:
        x: the feature.
        y: the target.
        y_hat: the model's predictions.
        exact: those of the exact solution.
        half: two standard errors of these.
        names: of the feature and the target, and which rows these are.
    """
    figure, ((axes,),) = panels(1, 1)
    label(axes, *names)
    order = x.argsort()
    axes.plot(x, y, ".", color=GREY, alpha=0.5, label="rows")
    low, high = exact - half, exact + half
    axes.fill_between(x[order], low[order], high[order], color=SKY, alpha=0.5, label="exact, 2 standard errors")
    axes.plot(x[order], exact[order], "--", color=BLUE, label="exact least squares")
    axes.plot(x[order], y_hat[order], color=RED, linewidth=2, label="fitted")
    axes.legend(fontsize="small", framealpha=0.5)
    return figure


def log_curves(
    axes: Axes, curves: Curves, names: Sequence[str], colours: Sequence[str] = COLOURS, log_x: bool = False
) -> None:
    """Curves on a log scale, by name: x, y and a line's style; what no scale can hold, or all, is left out."""
    label(axes, *names)
    for (name, (x, y, style)), colour in zip(curves.items(), colours, strict=False):
        y = np.asarray(y, dtype=float)
        shown = np.where((y > 1e-30) & (y < 1e30), y, np.nan)
        axes.plot(x, shown, style, color=colour, label=name, linewidth=1.2, markersize=4)
    is_drawn = any(np.isfinite(line.get_ydata()).any() for line in axes.get_lines())  # else there is no log scale
    for side in (("y", "x") if log_x else ("y",)) if is_drawn else ():
        axes.set(**{f"{side}scale": "log"})
        axes.locator_params(axis=side, numticks=6)
        getattr(axes, f"{side}axis").set_major_formatter("{x:g}")  # formulas, as minor ticks, take as long as all else
    if not log_x:
        axes.locator_params(axis="x", integer=True)
    axes.minorticks_off()
    if curves:
        axes.legend(fontsize="small", framealpha=0.5)


def confusion_matrix(counts: np.ndarray, classes: Sequence[str], of: str) -> Figure:
    """How many rows of each class (down) were taken for which (across)."""
    figure, ((axes,),) = panels(1, 1, width=4.5, height=4.5)
    label(axes, "predicted class", "actual class", of)
    axes.imshow(counts / np.maximum(counts.sum(1, keepdims=True), 1e-9), cmap="Blues", vmin=0, vmax=1)
    for set_ticks in (axes.set_xticks, axes.set_yticks):
        set_ticks(range(len(classes)), classes, parse_math=False)
    for i, row in enumerate(counts.tolist()) if len(classes) <= 20 else ():
        for j, count in enumerate(row):
            dark = count > counts[i].sum() / 2
            axes.text(j, i, f"{count:.4g}", ha="center", va="center", color="white" if dark else "black")
    return figure


def to_image(figure: Figure) -> np.ndarray:
    """The figure's pixels, (height, width, 3) of uint8."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.ticker import MaxNLocator

    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = axis.get_view_interval()
        if axis.get_scale() == "log" and np.floor(np.log10(high)) < np.ceil(np.log10(low)) + 1:  # one power of ten
            axis.set_major_locator(MaxNLocator(6))
            if high < 1.1 * low:  # of numbers that hardly differ, no digit would be seen
                axis.set_view_interval(low / 1.2, high * 1.2)
    canvas = FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", MISSING_GLYPH)  # a column's name in a script that the font lacks
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def panels(rows: int, columns: int, width: float = 5, height: float = 3.8) -> tuple[Figure, np.ndarray]:
    """An empty figure, and its axes (rows, columns); with fixed margins: to find some takes as long as to draw."""
    from matplotlib.figure import Figure  # here, because it takes 0.3 s and only the end of a run draws

    figure = Figure(figsize=(width, height), dpi=100)
    axes = figure.subplots(rows, columns, squeeze=False)
    edge = {"left": 0.85 / width, "right": 1 - 0.2 / width, "bottom": 0.6 / height, "top": 1 - 0.4 / height}
    figure.subplots_adjust(**edge, wspace=0.36, hspace=0.42)
    return figure, axes


def label(axes: Axes, x: str, y: str, title: str = "") -> None:
    """Names on the axes; a $ in a column's name begins no formula."""
    axes.set_xlabel(x[:50], parse_math=False)
    axes.set_ylabel(y[:50], parse_math=False)
    axes.set_title(title, fontsize="medium", parse_math=False)
    axes.locator_params(nbins=5)  # a text takes longer than a thousand points
