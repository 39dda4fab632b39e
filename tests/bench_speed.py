"""How fast this template is, beside what one would use instead: ``python -m tests.bench_speed``; not run by pytest.

Contenders take turns in each round, and a figure is the median of its rounds. What is not installed is left out.
"""

import argparse
import contextlib
import datetime
import importlib.util
import io
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MeanSquaredError

from linreg.command.main import main as train
from linreg.regression.exact.baseline import ExactBaseline, excess_mse
from linreg.tables.batches import TensorBatches

ROOT = Path(__file__).parents[1]
FEATURES = 32
HAS_SKLEARN = importlib.util.find_spec("sklearn") is not None
Contender = Callable[[], float]


def rows(n: int) -> tuple[Tensor, Tensor]:
    """Standard normal x (n, 32) and y (n, 1), in float32."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, FEATURES, generator=generator)
    return x, x @ torch.randn(FEATURES, 1, generator=generator) + 0.5 * torch.randn(n, 1, generator=generator)


def loop(batches: Callable[[], Any], epochs: int) -> float:
    """Seconds that a bare PyTorch loop takes."""
    hypothesis = torch.nn.Linear(FEATURES, 1)
    optimizer = torch.optim.SGD(hypothesis.parameters(), lr=0.01)
    start = time.perf_counter()
    for _ in range(epochs):
        for x, y in batches():
            loss = mse_loss(hypothesis(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return time.perf_counter() - start


class Usual(pl.LightningModule):
    """A LightningModule as it is usually written; it can be asked to stop at a loss."""

    def __init__(self, lean: bool = False, goal: float = 0.0, batch: Any = None) -> None:
        super().__init__()
        self.hypothesis, self.lean, self.goal, self.all = torch.nn.Linear(FEATURES, 1), lean, goal, batch
        self.mse = MeanSquaredError()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        y_hat = self.hypothesis(x)
        loss = mse_loss(y_hat, y)
        if not self.lean:
            self.log("loss", loss, prog_bar=True)
            self.mse(y_hat, y)
            self.log("mse", self.mse)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters())  # at torch's default rate, 1e-3

    def on_train_start(self) -> None:
        self.start = time.perf_counter()

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self.goal and batch_idx % 50 == 0:
            asked = time.perf_counter()
            with torch.no_grad():
                self.trainer.should_stop = bool(mse_loss(self.hypothesis(self.all[0]), self.all[1]) < self.goal)
            self.start += time.perf_counter() - asked

    def on_train_end(self) -> None:
        self.seconds = time.perf_counter() - self.start


def usual_loader(x: Tensor, y: Tensor, size: int) -> DataLoader:
    return DataLoader(TensorDataset(x, y), size, shuffle=True)


def usual(x: Tensor, y: Tensor, size: int, epochs: int = 1, **goal: Any) -> float:
    with tempfile.TemporaryDirectory() as folder, quiet():
        model = Usual(**goal)
        trainer = pl.Trainer(
            max_epochs=epochs, logger=TensorBoardLogger(folder), callbacks=[ModelCheckpoint()], accelerator="cpu"
        )
        trainer.fit(model, usual_loader(x, y, size))
    return model.seconds


def barebones(x: Tensor, y: Tensor, size: int, epochs: int) -> float:
    model = Usual(lean=True)
    with quiet():
        trainer = pl.Trainer(max_epochs=epochs, barebones=True, accelerator="cpu")
        trainer.fit(model, TensorBatches(x, y, size, seed=0))
    return model.seconds


def ours(n: int, size: int | None, *flags: object, until: float | None = None) -> float:
    """Seconds from the first to the last step of ``python train.py``, with everything on; or of fit until a goal."""
    clock = {}

    def stop_at(yardstick: ExactBaseline, trainer: Any, model: Any, *_: Any) -> None:
        if "goal" not in clock and excess_mse(model) < until:
            clock["goal"] = time.perf_counter()

    def started(key: str) -> Callable[..., None]:
        return lambda *_, **__: clock.setdefault(key, time.perf_counter())

    ExactBaseline.setup, ExactBaseline.on_train_epoch_start = started("setup"), started("start")
    ExactBaseline.on_train_end = started("end")
    ExactBaseline.on_train_batch_end = stop_at if until else pl.Callback.on_train_batch_end
    typed = ["--data.num_rows", n, "--data.num_features", FEATURES, "--data.noise_std", 0.5]
    typed += ["--data.val_fraction", 0.01, "--data.test_fraction", 0.01, "--enable_progress_bar", "true", *flags]
    typed += ["--data.batch_size", size] * bool(size)
    with quiet():
        assert train([str(flag) for flag in typed]) == 0
    return clock["goal"] - clock["setup"] if until else clock["end"] - clock["start"]


def sklearn_epoch(x: Tensor, y: Tensor) -> float:
    from sklearn.linear_model import SGDRegressor

    model, data = SGDRegressor(max_iter=1, tol=None), (x.numpy(), y.numpy().ravel())
    start = time.perf_counter()
    model.fit(*data)
    return time.perf_counter() - start


@contextlib.contextmanager
def quiet() -> Any:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def steps(rounds: int) -> dict[str, dict[str, float]]:
    """Time of an epoch beside that of the bare loop that shuffles, at several batch sizes."""
    table = {}
    for size, n, epochs in ((32, 200_000, 1), (256, 1_000_000, 1), (4_096, 1_000_000, 3), (980_000, 1_000_000, 100)):
        table["all" if size == 980_000 else f"{size:,}"] = ratios(epoch_contenders(size, n, epochs), rounds)
    return table


def epoch_contenders(size: int, n: int, epochs: int) -> dict[str, Contender]:
    """Each measures seconds for a row; the slow ones by a twentieth of the rows."""
    x, y = (part[: n * 98 // 100] for part in rows(n))  # as many as linreg trains on
    few = max(min(len(x) // 20, 20_000), size)
    some = x[:few], y[:few]
    contenders: dict[str, Contender] = {
        "bare loop, shuffled": lambda: loop(lambda: TensorBatches(x, y, size, seed=0), epochs) / len(x),
        "bare loop, slices": lambda: loop(lambda: zip(x.split(size), y.split(size), strict=True), epochs) / len(x),
        "bare loop, DataLoader": lambda: loop(lambda: usual_loader(*some, size), 1) / few * epochs,
        "Lightning, as usually written": lambda: usual(*some, size) / few * epochs,
        "Lightning, barebones": lambda: barebones(x, y, size, epochs) / len(x),
        "linreg": lambda: ours(n, size, "--max_epochs", epochs) / len(x),
    }
    if size < len(x):
        chunk = ["--max_epochs", epochs, "--chunk", max(4_096 // size, 2)]
        contenders["linreg --chunk"] = lambda: ours(n, size, *chunk) / len(x)
        contenders["linreg --chunk --formula"] = lambda: ours(n, size, *chunk, "--formula", "true") / len(x)
    if HAS_SKLEARN:
        contenders["scikit-learn SGDRegressor"] = lambda: sklearn_epoch(*some) / few * epochs
    return contenders


def to_one_percent(rounds: int) -> dict[str, float]:
    """Time until the training loss is 1 % above the optimum: 1,000,000 rows, in process, default settings."""
    x, y = rows(980_000)
    exact = np.linalg.lstsq(x.double().numpy(), y.double().numpy(), rcond=None)
    goal = 1.01 * float(exact[1][0]) / len(x)
    contenders: dict[str, Contender] = {"linreg": lambda: ours(1_000_000, None, until=0.01)}
    if HAS_SKLEARN:
        contenders = {"scikit-learn SGDRegressor": lambda: sklearn_until(x, y, goal)} | contenders
    contenders["Lightning, as usually written"] = lambda: usual(x, y, 256, goal=goal, batch=(x, y))
    return ratios(contenders, rounds)


def sklearn_until(x: Tensor, y: Tensor, goal: float) -> float:
    """Seconds of standardizing and of SGDRegressor until its loss is below a goal."""
    from sklearn.linear_model import SGDRegressor
    from sklearn.preprocessing import StandardScaler

    data, target, spent = x.numpy(), y.numpy().ravel(), 0.0
    start = time.perf_counter()
    data, model = StandardScaler().fit_transform(data), SGDRegressor()
    for i in range(0, len(data), 1_000):
        model.partial_fit(data[i : i + 1_000], target[i : i + 1_000])
        asked = time.perf_counter()
        done = np.square(model.predict(data) - target).mean() < goal
        spent += time.perf_counter() - asked
        if done:
            break
    return time.perf_counter() - start - spent


def ratios(contenders: dict[str, Contender], rounds: int) -> dict[str, float]:
    """Each contender's median time over the first one's; and that one's own, in seconds."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            times[name].append(contender())
    first = statistics.median(next(iter(times.values())))
    return {name: statistics.median(values) / first for name, values in times.items()} | {"seconds": first}


SKLEARN = """
import sys, pandas as pd
from sklearn.linear_model import SGDRegressor
from sklearn.preprocessing import StandardScaler
table = pd.read_csv(sys.argv[1])
x, y = table.drop(columns="y").to_numpy("float32"), table["y"].to_numpy("float32")
x = StandardScaler().fit_transform(x)
print(SGDRegressor().fit(x, y).score(x, y))
"""
BARE = """
import torch
torch.set_num_threads(1)
x = torch.randn(1000, 3)
y = x @ torch.tensor([[2.5], [-1.3], [-3.2]]) + 1.5 + 0.1 * torch.randn(1000, 1)
model = torch.nn.Linear(3, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
for step in range(17):
    loss = torch.nn.functional.mse_loss(model(x[:800]), y[:800])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print(model.weight, model.bias, loss.item())
"""
READ = """
import sys, time
{imports}
start = time.perf_counter()
before = int(open("/proc/self/statm").read().split()[1]) * 4
{read}
seconds = time.perf_counter() - start
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(seconds, (peak - before) * 1024 / 132e6)
"""
READERS = {  # names of linreg are loaded where they are first used: here, before the clock starts
    "pandas.read_csv": ("import pandas", "pandas.read_csv(sys.argv[1])"),
    "linreg.read_csv (float64)": ("import pyarrow.csv; from linreg import read_csv", "read_csv(sys.argv[1], 'y')"),
    "linreg.CSVData, first time": (
        "import tempfile, pyarrow.csv; from linreg import CSVData",
        "CSVData(sys.argv[1], 'y', cache=tempfile.mkdtemp(dir='.')).splits",
    ),
    "linreg.CSVData, again": ("from linreg import CSVData", "CSVData(sys.argv[1], 'y', cache='cache').splits"),
}


def process(*command: object) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *map(str, command)], check=True, capture_output=True)
    return time.perf_counter() - start


def csv_file() -> Path:
    """1,000,000 x 33 numbers of 6 decimals, 300 MB."""
    values = torch.cat(rows(1_000_000), dim=1).numpy()
    path = Path("table.csv")
    with path.open("w") as file:
        file.write(",".join([f"x{i}" for i in range(FEATURES)] + ["y"]) + "\n")
        line = ",".join(["%.6f"] * (FEATURES + 1)) + "\n"
        file.writelines(line % tuple(row) for row in values.tolist())
    return path


def whole_processes(rounds: int) -> dict[str, dict[str, float]]:
    """Start-up, and a run from a large CSV file to its report."""
    start_up = {"bare torch script": lambda: process("-c", BARE), "linreg": lambda: process(ROOT / "train.py")}
    start_up["linreg --help"] = lambda: process(ROOT / "train.py", "--help")
    result = {"start-up": ratios(start_up, rounds)}
    path = csv_file()
    run = [ROOT / "train.py", "--data.path", path, "--data.target", "y", "--data.cache"]
    from_csv: dict[str, Contender] = {}
    if HAS_SKLEARN and importlib.util.find_spec("pandas"):
        from_csv["pandas, StandardScaler, SGDRegressor"] = lambda: process("-c", SKLEARN, path)
    from_csv["linreg, first time"] = lambda: process(*run, tempfile.mkdtemp(dir="."))
    from_csv["linreg, again"] = lambda: process(*run, "cache")
    process(*run, "cache")
    return result | {"from a 300 MB CSV": ratios(from_csv, rounds)} | reading(path, rounds)


def reading(path: Path, rounds: int) -> dict[str, dict[str, float]]:
    """Seconds and memory of reading 1,000,000 x 33 numbers, beside pandas."""
    found: dict[str, list[list[float]]] = {}
    for _ in range(rounds):
        for name, (imports, read) in READERS.items():
            code = READ.format(imports=imports, read=read)
            environment = os.environ | {"PYTHONPATH": str(ROOT)}
            done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, env=environment)
            if done.returncode == 0:
                found.setdefault(name, []).append([float(number) for number in done.stdout.split()])
    middle = {name: np.median(values, axis=0) for name, values in found.items()}
    first = next(iter(middle.values()))[0]
    return {
        "reading it into tensors": {name: value[0] / first for name, value in middle.items()} | {"seconds": first},
        "peak memory over the float32 tensor": {name: value[1] for name, value in middle.items()},
    }


def show(result: dict[str, dict[str, float]]) -> str:
    """Two Markdown tables: the steps, and all else; each figure beside the 1 of the same column or title."""

    def cell(value: float | None) -> str:
        return "" if value is None else f"{value:,.0f}" if value >= 10 else f"{value:.2g}"

    steps = {title: column for title, column in result.items() if title.startswith("a step")}
    lines = ["| " + " | ".join(["", *steps]) + " |", "|---" * (len(steps) + 1) + "|"] if steps else []
    for name in next(iter(steps.values()), {}):
        if name != "seconds":
            lines.append("| " + " | ".join([name, *(cell(column.get(name)) for column in steps.values())]) + " |")
    others = {title: column for title, column in result.items() if title not in steps}
    lines += ["", "| | |", "|---|---|"] if others else []
    for title, column in others.items():
        first, *rest = [(name, value) for name, value in column.items() if name != "seconds"]
        beside = f", beside {first[0]}" if first[1] == 1 else ""
        shown = rest if beside else [first, *rest]
        lines.append(f"| {title}{beside} | " + "; ".join(f"{name} {cell(value)}" for name, value in shown) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, default=None, help="a file for the figures")
    parser.add_argument(
        "--only", choices=["steps", "goal", "processes"], nargs="*", default=["steps", "goal", "processes"]
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    packages = ["torch", "lightning", "numpy", *(["scikit-learn", "pandas"] if HAS_SKLEARN else [])]
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    about = f"{datetime.date.today()}, Python {platform.python_version()}, {os.cpu_count()} cores, {versions}"
    output = options.json.absolute() if options.json else None
    result: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        if "steps" in options.only:
            result |= {f"a step, {size} rows": column for size, column in steps(options.rounds).items()}
        if "goal" in options.only:
            result["time to 1 %"] = to_one_percent(options.rounds)
        if "processes" in options.only:
            result |= whole_processes(options.rounds)
        os.chdir(ROOT)
    print(about, show(result), sep="\n")
    if output:
        output.write_text(json.dumps({"about": about, "result": result}, indent=1))


if __name__ == "__main__":
    main()
