"""Golden runs: what seeded runs leave behind, number by number, so that moving code shows whether it changed anything.

``python -m tests.golden write FILE.json`` records all runs with the code that is here; ``python -m tests.golden compare
OLD.json NEW.json`` says which numbers differ, and by how much. Bits repeat on one machine only, so ``golden.json``,
which the tests hold the code against, is compared with a tolerance.
"""

import argparse
import contextlib
import importlib
import io
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from linreg.command.main import main
from tests.conftest import ROOT, read_rows
from tests.tools import leaves, scalars

STEP = "{class_path: torch.optim.lr_scheduler.StepLR, init_args: {step_size: 20, gamma: 0.7}, interval: step}"
THREE = ["--data.num_features", "3"]
NOISY = ["--data.noise_std", "1", "--data.batch_size", "64", "--max_epochs", "4"]
GIVEN = [*NOISY, "--model.lr", "0.02"]
TABLE = ["--data.path", "table.csv", "--data.batch_size", "50", "--model.lr", "0.02", "--max_epochs", "3"]
MLP = """
from torch import nn
from linreg import Regressor
class MLP(Regressor):
    def __init__(self, num_features: int, num_targets: int = 1, width: int = 64, **training):
        layers = nn.Linear(num_features, width), nn.ReLU(), nn.Linear(width, num_targets)
        super().__init__(nn.Sequential(*layers), num_features, num_targets, **training)
"""
LAST = "runs/halves/version_0/checkpoints/last.ckpt"
RUNS: dict[str, list[list[str]]] = {  # each by the command lines that make it, in one folder
    "default": [[]],
    "penguins": [["--config", "configs/csv.yaml"]],
    "batch": [["--config", "configs/batch.yaml", *THREE]],
    "mini_batch": [["--config", "configs/mini_batch.yaml", *THREE]],
    "stochastic": [["--config", "configs/stochastic.yaml", *THREE, "--max_epochs", "4"]],
    "planned": [NOISY],
    "momentum": [[*GIVEN, "--model.momentum", "0.9"]],
    "nesterov": [[*GIVEN, "--model.momentum", "0.9", "--model.nesterov", "true", "--model.weight_decay", "0.01"]],
    "adam": [[*GIVEN, "--model.optimizer", "Adam"]],
    "scheduler": [[*GIVEN, "--model.lr_scheduler", STEP]],
    "chunk": [[*NOISY, "--chunk", "5"]],
    "formula": [[*GIVEN, "--model.momentum", "0.9", "--chunk", "5", "--formula", "true"]],
    "mlp": [["--model", "golden_mlp.MLP", "--model.momentum", "0.9", *TABLE, "--data.target", "y"]],
    "two_targets": [[*TABLE, "--data.target", "[y, b]"]],
    "no_intercept": [[*TABLE, "--data.target", "y", "--model.bias", "false"]],
    "mapped": [[*TABLE, "--data.target", "y", "--data.cache", "cache"]],
    "two_and_two": [[*GIVEN, "--max_epochs", "2", "--name", "halves"], ["--ckpt_path", LAST, "--max_epochs", "4"]],
}


@contextlib.contextmanager
def folder_of(name: str) -> Iterator[Path]:
    """A folder with the configs of a clone and a table, as the current one."""
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as place:
        shutil.copytree(ROOT / "configs", Path(place, "configs"))
        rng = np.random.default_rng(0)
        x = rng.normal(size=(400, 3)) * [1, 50, 0.01] + [0, 2_000, 3]
        table = np.column_stack([x, x @ [2, -0.03, 100] + 1 + rng.normal(size=400)]).round(4)
        Path(place, "table.csv").write_text(
            "\n".join(["a,b,c,y", *(",".join(map(str, row)) for row in table.tolist())])
        )
        Path(place, "golden_mlp.py").write_text(MLP)
        os.chdir(place)
        sys.path.insert(0, place)
        data = importlib.import_module("linreg.tables.csv_data")
        most, data.MAX_CELLS = data.MAX_CELLS, 500 if name == "mapped" else data.MAX_CELLS
        try:
            yield Path(place)
        finally:
            data.MAX_CELLS = most
            sys.path.remove(place)
            sys.modules.pop("golden_mlp", None)
            os.chdir(here)


def flat(value: Any, path: str = "") -> dict[str, list[float]]:
    """All numbers of a nested structure by their place in it."""
    return {
        place: leaf.double().flatten().tolist() if isinstance(leaf, torch.Tensor) else [float(leaf)]
        for place, leaf in leaves(value, path)
        if isinstance(leaf, torch.Tensor | int | float)
    }


def play(name: str) -> dict[str, list[float]]:
    """Makes a run; every number that it left: weights, optimizer, metrics, coefficients, curves."""
    with folder_of(name):
        for typed in RUNS[name]:
            with contextlib.redirect_stdout(io.StringIO()):
                assert main(typed) == 0, typed
        (folder,) = (path.parent for path in Path("runs").glob("*/*/metrics.json"))
        found: dict[str, list[float]] = {}
        for kind in ("last", "best"):
            content = torch.load(folder / f"checkpoints/{kind}.ckpt", weights_only=True)
            for part in ("state_dict", "optimizer_states", "lr_schedulers", "epoch", "global_step"):
                found |= flat(content[part], f"{kind}/{part}")
        metrics = json.loads((folder / "metrics.json").read_text())
        found |= flat({k: v for k, v in metrics.items() if k != "run"}, "metrics")
        for row in read_rows(folder / "coefficients.csv"):
            found |= {f"coefficients/{row['name']}/{k}": [float(v)] for k, v in row.items() if k != "name" and v}
        for tag, points in scalars(folder).items():
            found[f"curve/{tag}"] = [number for point in points for number in point]
        return found


def differences(
    old: dict[str, list[float]], new: dict[str, list[float]], tolerance: float = 0.0, least: float = 0.0
) -> list[str]:
    """The places whose numbers differ by more than a share of the largest among them, a line each.

    Args:
        old: numbers by place.
        new: the same, later.
        tolerance: the share.
        least: what the largest among them counts as, if it is smaller.
    """
    added = {place for place in new.keys() - old.keys() if place.startswith("curve/")}  # a curve more is no change
    lines = [
        f"{place}: only {'before' if place in old else 'after'}" for place in sorted((old.keys() ^ new.keys()) - added)
    ]
    for place in sorted(old.keys() & new.keys()):
        a, b = np.array(old[place]), np.array(new[place])
        if a.shape != b.shape:
            lines.append(f"{place}: {a.size} numbers, now {b.size}")
        elif not np.array_equal(a, b, equal_nan=True):
            off = float(np.nanmax(np.abs(a - b)) / (max(np.nanmax(np.abs(a)), least) or 1.0))
            lines += [f"{place}: off by {off:.2g} of the largest"] * (off > tolerance)
    return lines


def command_line() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["write", "compare"])
    parser.add_argument("files", nargs="+")
    typed = parser.parse_args()
    if typed.what == "write":
        record = {name: play(name) for name in RUNS}
        Path(typed.files[0]).write_text(json.dumps(record, indent=0) + "\n")
        return 0
    old, new = (json.loads(Path(file).read_text()) for file in typed.files)
    for name in old.keys() | new.keys():
        lines = differences(old.get(name, {}), new.get(name, {}))
        print(f"{name}: {len(old.get(name, {}))} places, {len(lines)} differ", *lines[:10], sep="\n    ")
    return 0


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    sys.exit(command_line())
