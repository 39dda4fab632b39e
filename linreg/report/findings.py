"""The end of a run: what was found, on screen and as files in the run's folder."""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from linreg.metrics import LOADER
from linreg.report import figures
from linreg.system.errors import RunError
from linreg.system.screen import say

STAGES = {"train": "train", "val": "val", "valid": "val", "test": "test"}  # as they may be spelled


class Picture(NamedTuple):
    """Pixels (height, width, 3) of uint8, with their tag; ``step`` is when that was, None for the end of the run."""

    tag: str
    image: np.ndarray
    step: int | None = None


@dataclass
class Findings:
    """What a trained model amounts to."""

    metrics: dict[str, Any]  # the content of metrics.json
    text: str = ""  # the same for the screen
    verdict: str = ""  # one line that says how good that is
    # The training MSE above that of the exact solution, as a share of it; the loss where that has a penalty too:
    excess: float | None = None  # where there is no such solution
    is_optimum: bool = False  # whether that solution is the model's own, and no baseline that it may surpass
    rows: list[dict[str, Any]] = field(default_factory=list)  # the coefficients
    files: dict[str, bytes] = field(default_factory=dict)  # beside metrics.json, by name
    pictures: Callable[[], Iterable[Picture]] = tuple  # draws them, for TensorBoard

    def check(self, most: float | None, is_first: bool = True) -> None:
        """RunError if a run was asked to come within ``most`` (above 0) of the exact solution and did not."""
        share, name = self.excess, "excess_loss" if "excess_loss" in self.metrics else "excess_mse"
        if most is None:
            return
        if share is not None and (abs(share) if self.is_optimum else share) <= most:
            say(f"check   passed: {name} {share:.2g} is within {most:g}", is_first)
            return
        found = "there is no exact solution to hold it against" if share is None else f"its {name} is {share:.2g}"
        raise RunError(f"the run missed --check {most:g}: {found}")

    def to_json(self) -> bytes:
        """The content of metrics.json."""
        return (json.dumps(self.metrics, indent=2) + "\n").encode()


def logged(values: dict[str, Any], classes: Sequence[str] = (), by_steps: Iterable[str] = ()) -> Findings:
    """What a model that brings no report of its own has logged, by stage: numbers, and tables as nested lists.

    Args:
        values: by tag.
        classes: the names of what a table with a row for each may be about.
        by_steps: the tags that are of no epoch, which are named where no value stands for them.
    """
    metrics: dict[str, Any] = {}
    for tag, value in values.items():
        if not (tag.endswith("_step") and tag.removesuffix("_step") in values):
            stage, name = stage_of(tag)
            metrics.setdefault(stage, {})[name] = value
    metrics = {stage: metrics[stage] for stage in ("train", "val", "test", "other") if stage in metrics}
    rows = [["metric", "value"]]
    parts = [(stage, name.partition(LOADER), value) for stage in metrics for name, value in metrics[stage].items()]
    found = {f"{name}/{stage}{mark}{loader}": value for stage, (name, mark, loader), value in parts}
    rows += [[tag, show_number(value)] for tag, value in found.items() if not isinstance(value, list)]
    lists = {tag: value for tag, value in found.items() if isinstance(value, list)}
    tables = [line for tag, value in lists.items() for line in ["", *show_table(tag, value, classes)]]
    verdict = "train values are of the epoch as it went, while the weights changed" if "train" in metrics else ""
    left = [tag for tag in by_steps if stage_of(tag.removesuffix("_step")) not in map(stage_of, values)]
    note = f"logged by steps only: {', '.join(sorted(left))}; see the curves, or self.log(..., on_epoch=True)"
    text = "\n".join([*table(rows), *tables, *["", note] * bool(left)])
    return Findings(metrics, text, verdict, pictures=lambda: draw_matrices(lists, classes))


def classes_of(model: Any, data: Any) -> list[str]:
    """The names of the classes that a model, or else its data, tell apart; none where neither knows them."""
    known = getattr(model, "classes", None) or getattr(data, "classes", None)
    return [str(name) for name in known] if isinstance(known, list | tuple) else []


def draw_matrices(lists: dict[str, list[Any]], classes: Sequence[str]) -> Iterator[Picture]:
    """A picture of each table of counts that has as many rows as columns: a confusion matrix, whatever its name."""
    for tag, value in lists.items():
        array = np.array(value)
        if array.ndim == 2 and len(array) == array.shape[1] > 1 and array.dtype.kind in "if" and (array >= 0).all():
            names = classes if len(classes) == len(array) else [str(i) for i in range(len(array))]
            yield Picture(tag, figures.to_image(figures.confusion_matrix(array, names, tag)))


def show_table(tag: str, values: list[Any], classes: Sequence[str] = ()) -> list[str]:
    """A metric of several numbers: a row for each class of a confusion matrix, or all in one."""
    rows = values if isinstance(values[0], list) else [values]
    if not isinstance(rows[0][0], int | float | None):
        return [f"{tag}  {len(rows)} tables, in metrics.json"]
    names = [name[:20] for name in classes] if len(classes) == len(rows) == len(rows[0]) else []
    cells = [[names[i] if names else str(i), *map(show_number, row)] for i, row in enumerate(rows)]
    return [tag, *table([["", *names], *cells] if names else cells)]


def stage_of(tag: str) -> tuple[str, str]:
    """The stage and the name in a tag such as "loss/val", "val_loss" or "test/loss_epoch"; "other" if it has none."""
    tag, mark, loader = tag.partition(LOADER)  # which stay at the end of the name
    tag = tag.removesuffix("_epoch")
    for separator in "/_":
        first, *middle, last = tag.split(separator) if separator in tag else ("", tag)
        if last in STAGES:
            return STAGES[last], separator.join([first, *middle]) + mark + loader
        if first in STAGES:
            return STAGES[first], separator.join([*middle, last]) + mark + loader
    return "other", tag + mark + loader


class FirstLoader(dict[str, Any]):
    """Values by tag; of several loaders a tag without the mark of one stands for the first one's that there is."""

    def get(self, tag: Any, default: Any = None) -> Any:
        of_loaders = (value for known, value in self.items() if known.partition(LOADER)[0] == tag)
        return super().get(tag, next(of_loaders, default))

    def __contains__(self, tag: object) -> bool:
        return self.get(tag) is not None

    def __missing__(self, tag: str) -> Any:
        if tag not in self:
            raise KeyError(tag)
        return self.get(tag)


def show_number(value: float | None, digits: int = 7) -> str:
    """Seven digits or fewer, of a large number all before the point; nothing for what does not exist."""
    if value is None or math.isnan(value):
        return ""
    return f"{value:,.0f}" if digits < 7 and 10**digits <= abs(value) < 1e12 else f"{value:.{digits}g}"


def table(rows: list[list[str]]) -> list[str]:
    """Lines of aligned cells: the first column to the left, the others to the right."""
    rows = [[cell.replace("\n", "\\n") for cell in row] for row in rows]
    first, *others = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]  # widths
    return [
        "  ".join([row[0].ljust(first), *(cell.rjust(width) for cell, width in zip(row[1:], others, strict=True))])
        for row in rows
    ]
