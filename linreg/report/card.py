"""A run on one page, card.md: what a number was made of, and how to make it again."""

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from linreg.report.findings import Findings
from linreg.system.errors import printable

MOST_OF_A_CARD = 1 << 20  # characters of one that is read again
PACKAGES = ("linreg", "torch", "lightning", "numpy")


def make_card(found: Findings, model: Any, data: Any, device: str) -> bytes:
    """The card of a run.

    Args:
        found: with what was reported under ``metrics["run"]``.
        model: what was left to the data is in its ``chosen``, if it has such a thing.
        data: may have ``describe``, ``feature_names``, and in ``fingerprints`` a line for each file that it is from.
        device: what it was trained on.
    """
    of = found.metrics["run"]
    given = [name for name in ("lr", "momentum", "batch_size") if of.get(name) is not None]
    chosen = getattr(model, "chosen", {})
    settings = [f"{name} {of[name]:g}{' (chosen from the data)' * (name in chosen)}" for name in given]
    names = feature_names(data)
    told = data.describe() if hasattr(data, "describe") else [type(data).__name__]
    trained = f"{type(model).__name__}, {', '.join(settings)}; {of['steps']:,} steps, {of['seconds']:g} s"
    is_one = len(getattr(model, "target_names", ("y",))) == 1
    parts = {
        "Command": [shlex.join(["python", *sys.argv])],
        "Data": [*told, *[f"features: {names}"] * bool(names), *getattr(data, "fingerprints", ())],
        "Training": [trained, f"reported: {of['checkpoint']}, epoch {of['epoch']:,} of {of['epochs']:,}"],
        "Result": [*found.text.splitlines(), *(equation(found.rows) if is_one else []), found.verdict],
        "Made with": [*made_with(), device],
    }
    bodies = {title: printable("\n".join(lines)).strip("\n") for title, lines in parts.items()}
    return "\n".join(f"## {title}\n```\n{body}\n```\n" for title, body in bodies.items()).encode()


def feature_names(data: Any) -> str:
    """Of a table, in a line; empty of other data."""
    return ", ".join(map(str, getattr(data, "feature_names", None) or ())).replace("\n", " ")


def equation(rows: list[dict[str, Any]]) -> list[str]:
    """The learned coefficients of a single target as a formula."""
    if not rows or any(row.get("learned") is None for row in rows):
        return []
    terms = [f"{row['learned']:+.10g}" + f" * [{row['name']}]" * (row["name"] != "(intercept)") for row in rows]
    return ["", f"prediction = {' '.join(terms)}"]


def differences(config: str, data: Any) -> str:
    """What is no longer as on the card beside a run's config, in one line; empty if all is, or if there is no card."""
    try:
        with Path(config).with_name("card.md").open(encoding="utf-8") as file:
            card = file.read(MOST_OF_A_CARD).split("\n")
    except (OSError, UnicodeDecodeError):
        return ""
    changed = [line for line in map(printable, [*made_with(), *getattr(data, "fingerprints", ())]) if line not in card]
    before = {line.split(" ")[0]: line for line in card}  # by a package, or a file
    told = [f"{line} (was {before.get(line.split(' ')[0], 'none')})" for line in changed]
    if "features:" in before:  # not on older cards
        lists = before["features:"].removeprefix("features: "), printable(feature_names(data))
        then, now = ({*names.split(", ")} - {""} for names in lists)
        parts = {"new": now - then, "gone": then - now}
        told += [f"features that are {what}: {', '.join(sorted(names))}" for what, names in parts.items() if names]
    return "; ".join(told)


def made_with() -> Iterator[str]:
    """Versions, the commit, and the machine."""
    for name in PACKAGES:
        try:
            build = getattr(sys.modules.get(name), "__version__", None)  # names a torch's CUDA too, as 2.6.0+cu124
            yield f"{name} {build or version(name)}"
        except PackageNotFoundError:
            yield f"{name}, not installed"
    yield f"python {platform.python_version()}"
    git = ["git", "-C", str(Path(__file__).parent), "-c", "core.fsmonitor=false"]
    git += ["describe", "--always", "--exclude=*", "--abbrev=40", "--dirty=, with changes"]
    try:
        done = subprocess.run(git, capture_output=True, text=True, timeout=9)
        yield f"commit {done.stdout.strip()}" if done.stdout else "no commit"
    except (OSError, subprocess.TimeoutExpired):
        yield "no commit"
    yield f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors"
