"""Pictures of a fit: pure functions from tensors to an image for TensorBoard, or a PNG file."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from linreg.messages import MISSING_GLYPH

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_POINTS = 2_000  # that a picture needs


def predicted_vs_actual(y_hat: Tensor, y: Tensor, name: str) -> Figure:
    """Predictions (N,) over targets (N,): a perfect model lies on the diagonal."""
    figure, axes = _axes(f"actual {name}", f"predicted {name}")
    ends = [min(y.min(), y_hat.min()), max(y.max(), y_hat.max())]
    axes.plot(ends, ends, color="0.6", label="predicted = actual")
    axes.plot(y, y_hat, ".", alpha=0.5, label=f"{len(y):,} rows")
    axes.legend()
    return figure


def fitted_line(x: Tensor, y: Tensor, y_hat: Tensor, exact: Tensor, x_name: str, y_name: str) -> Figure:
    """One feature (N,), its target, the fitted and the exact predictions, each (N,)."""
    figure, axes = _axes(x_name, y_name)
    order = x.argsort()
    axes.plot(x, y, ".", color="0.6", alpha=0.5, label="rows")
    axes.plot(x[order], y_hat[order], linewidth=3, label="fitted")
    axes.plot(x[order], exact[order], "--", label="exact least squares")
    axes.legend()
    return figure


def to_image(figure: Figure) -> np.ndarray:
    """The figure's pixels, (height, width, 3) of uint8."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", MISSING_GLYPH)  # a column's name in a script that the font lacks
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def as_png(image: np.ndarray) -> bytes:
    """The content of a PNG file of pixels, (height, width, 3) of uint8."""
    from matplotlib.image import imsave

    buffer = io.BytesIO()
    imsave(buffer, image, format="png")
    return buffer.getvalue()


def _axes(x_label: str, y_label: str) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure  # here, because it takes 0.3 s and only the end of a run draws

    figure = Figure(figsize=(6, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(x_label, parse_math=False)  # a $ in a column's name begins no formula
    axes.set_ylabel(y_label, parse_math=False)
    return figure, axes
