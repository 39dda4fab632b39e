"""Whether the columns of other rows come in the unit in which a model has learned them."""

import math
from collections.abc import Mapping
from typing import Any

from linreg.system.ranks import rank
from linreg.system.screen import say, wrapped

FAR, NEAR = 10, 3  # standard deviations of a training column between its mean and that of the other rows
ROUGHLY = 0.05  # of a power of ten between these means, as of grams and kilograms, for the second
Moments = dict[str, list[float]]  # the mean and the standard deviation of each column


def known_moments(model: Any) -> Moments:
    """Of the columns of numbers that a model was trained on, where it knows them."""
    levels = {f"{name}={text}" for name, texts in getattr(model, "levels", {}).items() for text in texts}
    found: Moments = {}
    for side, names in (("x_standardizer", "feature_names"), ("y_standardizer", "target_names")):
        if (units := getattr(model, side, None)) is not None:
            pairs = zip(units.mean.tolist(), units.std.tolist(), strict=True)
            found |= {name: [*pair] for name, pair in zip(getattr(model, names), pairs, strict=True)}
    return {name: pair for name, pair in found.items() if name not in levels and pair != [0.0, 1.0]}


def say_other_units(known: Moments, means: Mapping[str, float]) -> None:
    """Says which columns lie so far from the training rows that their unit may be another."""
    for name, (mean, std) in known.items():
        here = means.get(name, mean)
        power = math.log10(here / mean) if here * mean > 0 else 0.0
        is_scaled = round(power) != 0 and abs(power - round(power)) < ROUGHLY
        if abs(here - mean) > (NEAR if is_scaled else FAR) * std:
            there = f"{mean:,.4g}, give or take {std:,.4g}, in the training rows"
            text = f"data    {name!r} averages {here:,.4g} here and {there}; is it in the same unit?"
            say(wrapped(text), not rank())
