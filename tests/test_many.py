"""Several processes: however they are started they are one run with the answer of one, and end together."""

import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, TensorDataset

from linreg import LeastSquares
from linreg.processes.shares import share
from linreg.system.ranks import numbers_of
from tests.conftest import LONG, ROOT, command, completed, posix, read_metrics, started, until
from tests.tools import CKPT, assert_same, load, scalars

pytestmark = [posix]
QUICK = ["--data.num_rows", 200, "--max_epochs", 2, "--data.batch_size", 101, "--model.lr", 0.05]
ENDLESS = ["--max_epochs", 1_000_000, "--data.batch_size", 64, "--model.lr", 0.05]
NAMES = ("LINREG_FIRST_PROCESS", "LINREG_RUN_FOLDER", "WORLD_SIZE", "LOCAL_RANK", "NODE_RANK", "MASTER_PORT")
CLEAN = {name: value for name, value in os.environ.items() if name not in NAMES}
CASES = """
import sys
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
from torchmetrics import CatMetric, MeanAbsoluteError, MeanSquaredError, Metric, MetricCollection, R2Score, SumMetric
from linreg import LinearRegression, Regressor, SyntheticData, run

class Rows(LightningDataModule):
    def __init__(self, num_rows, batch_size):
        super().__init__()
        self.rows, self.size = SyntheticData(num_rows).splits, batch_size
    def loader(self, split, size, **more):
        return DataLoader(TensorDataset(*(side.float() for side in self.rows[split])), size, **more)
    def train_dataloader(self):
        return self.loader("train", self.size, shuffle=True, num_workers=1)
    def val_dataloader(self):
        return self.loader("val", 7)
    def test_dataloader(self):
        return self.loader("test", 7)

class Rewound(IterableDataset):
    def __init__(self, rows):
        self.rows = rows
    def __iter__(self):
        return iter(self.rows)

class Stream(Rows):
    def loader(self, split, size, shuffle=False, **more):
        return DataLoader(Rewound(super().loader(split, size).dataset), size)

class Bare(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
    def log_loss(self, name, batch):
        loss = nn.functional.mse_loss(self.net(batch[0]), batch[1])
        self.log(name, loss, on_step=False, on_epoch=True)
        return loss
    def training_step(self, batch, i):
        return self.log_loss("loss/train", batch)
    def validation_step(self, batch, i):
        self.log_loss("loss/val", batch)
    def test_step(self, batch, i):
        self.log_loss("loss/test", batch)
    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 0.01)

class Measured(Bare):  # in every way; a process that has no row of a batch is given one
    def __init__(self):
        super().__init__()
        self.added, self.passed, self.kept, self.r2 = SumMetric(), MeanAbsoluteError(), CatMetric(), R2Score()
        self.several = MetricCollection({"mse": MeanSquaredError(), "rmse": MeanSquaredError(squared=False)})
    def training_step(self, batch, i):
        x, y = batch
        y_hat, big, ends = self.net(x), y[y > 2], {"on_step": False, "on_epoch": True}
        for name, found in {"sum": y.sum(), "min": y.min(), "max": y.double().max(), "mean": y.mean()}.items():
            self.log(f"mse/{name}", found, reduce_fx=name, **ends)
            self.log(f"mae/{name}", found, reduce_fx=name)
        self.log("mse/rows", len(x), reduce_fx=torch.sum, **ends)
        if len(big):  # which one process may have, and another not
            self.log("mse/big", big.mean(), batch_size=len(big), **ends)
        self.added.update(y)
        self.log("mse/added", self.added, **ends)
        self.r2.update(y_hat, y)
        self.log("r2/r2", self.r2, **ends)
        self.passed(y_hat, y)
        self.log("passed", self.passed, on_step=True, on_epoch=True)
        self.log_dict(self.several, **ends)
        self.several(y_hat, y)
        return super().training_step(batch, i)
    def on_train_batch_end(self, outputs, batch, i):
        self.kept.update(batch[1])
    def on_train_epoch_end(self):
        if self.global_rank == 0:
            self.log("mse/first", 1.0)
        self.log("mse/kept", self.kept.compute().sort(0).values[::2].sum())
        self.kept.reset()

class MLP(Regressor):
    def __init__(self, num_features=3, **training):
        net = nn.Sequential(nn.Linear(num_features, 8), nn.Tanh(), nn.Linear(8, 1))
        super().__init__(net, num_features, **training)

class Counted(Metric):
    def __init__(self):
        super().__init__()
        self.add_state("rows", torch.tensor(0.0), "sum")
    def update(self, y_hat, y):
        self.rows += len(y)
    def compute(self):
        return self.rows

class Huber(LinearRegression):
    def __init__(self, num_features=3, **training):
        super().__init__(num_features, **training)
        self.metrics.add_metrics({"counted": Counted()})
    def loss(self, y_hat, y):
        return nn.functional.huber_loss(y_hat, y)

def linear(**more):
    return LinearRegression(3, lr=0.05, momentum=0.9, **more)

TWO_A_STEP = {"accumulate_grad_batches": 2}
CASES = {
    "one_row": lambda: (linear(), SyntheticData(40, batch_size=1), {}),
    "odd_rows": lambda: (linear(), SyntheticData(1_000, batch_size=101), {"gradient_clip_val": 0.1}),
    "all_rows": lambda: (linear(), SyntheticData(999, batch_size=10_000), {}),
    "by_itself": lambda: (LinearRegression(3), SyntheticData(3_000), {"max_epochs": None}),
    "adam": lambda: (MLP(lr=0.05, optimizer="Adam"), SyntheticData(999, batch_size=256), TWO_A_STEP),
    "bfloat16": lambda: (MLP(lr=0.05), SyntheticData(500, batch_size=100), {"precision": "bf16-mixed"}),
    "own_loss": lambda: (Huber(lr=0.05), SyntheticData(501, batch_size=64), {}),
    "own_loss_of_few": lambda: (Huber(lr=0.05), SyntheticData(12, batch_size=4), {}),
    "workers": lambda: (Bare(), Rows(511, 102), {}),  # an odd number of each split, and a last batch of one row
    "no_row": lambda: (Bare(), Rows(60, 1), {}),
    "few_rows": lambda: (Bare(), Rows(10, 4), {}),
    "measured": lambda: (Measured(), Rows(511, 51), TWO_A_STEP),
    "measured_alone": lambda: (Measured(), Rows(60, 1), {}),
    "stream": lambda: (Bare(), Stream(500, 101), {}),
}
for name, case in CASES.items():
    torch.manual_seed(0)
    model, data, flags = case()
    flags = {"max_epochs": 3, "accelerator": "cpu", "enable_progress_bar": False} | flags
    run(model, data, name=sys.argv[1] + name, devices=int(sys.argv[2]), figures=False, **flags)
"""


def free_port() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


def torchrun(*flags: object, processes: int = 2) -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(processes), *map(str, flags)]


def slurm(rank: int, port: str) -> dict[str, str]:
    """What srun tells one of two processes, each on a machine of its own."""
    names = {"NTASKS": "2", "NNODES": "2", "NTASKS_PER_NODE": "1", "PROCID": str(rank), "LOCALID": "0"}
    names |= {"NODEID": str(rank), "JOB_ID": "1234", "NODELIST": "127.0.0.1", "JOB_NAME": "run"}
    return CLEAN | {f"SLURM_{name}": value for name, value in names.items()} | {"MASTER_PORT": port, "PYTHONPATH": "."}


@pytest.mark.slow
def test_the_flags_of_two(workplace: Path) -> None:
    for flags, said in (
        (("--num_nodes", 3), "srun has started 1 process(es) on 2 machine(s)"),
        (("--strategy", "fsdp"), "fsdp"),
        (("--strategy", "ddp_spawn"), "give ddp"),
        (("--chunk", 4), "--chunk cannot honour --devices"),
    ):
        port = free_port()
        with ExitStack() as stack:
            arguments = command(*QUICK, *flags)
            both = [stack.enter_context(started(arguments, env=slurm(rank, port))) for rank in (0, 1)]
            err = both[0].communicate(timeout=LONG)[1]
            assert both[0].returncode == 2
            assert said in err.splitlines()[-1]


@pytest.mark.slow
def test_one_process_of_a_strategy_for_several(workplace: Path) -> None:
    for name, flags in (("plain", ()), ("ddp", ("--strategy", "ddp"))):
        done = completed(command(*QUICK, "--accelerator", "cpu", "--devices", 1, "--name", name, *flags), env=CLEAN)
        assert (done.returncode, done.stderr) == (0, "")
    plain, ddp = (load(f"runs/{name}/version_0/checkpoints/last.ckpt")["state_dict"] for name in ("plain", "ddp"))
    assert_same(plain, ddp)


@pytest.mark.slow
def test_a_port_that_is_taken(workplace: Path) -> None:
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        port = str(other.getsockname()[1])
        done = completed(command(*QUICK, "--strategy", "ddp", "--devices", 1), env=CLEAN | {"MASTER_PORT": port})
    assert done.returncode == 2
    assert "a program listens at that port, MASTER_PORT" in done.stderr.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("port", ["abc", "0", "65536"])
def test_a_port_that_is_none(port: str, workplace: Path) -> None:
    agent = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    for flags, told in (((), agent | {"TORCHELASTIC_RUN_ID": "none"}), (("--devices", 2, "--accelerator", "cpu"), {})):
        done = completed(command(*QUICK, *flags), env=CLEAN | told | {"MASTER_PORT": port})
        assert done.returncode == 2
        assert done.stderr.startswith(f"error: MASTER_PORT={port}: a port from 1 to 65535 is expected")
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["agents", "slurm", "devices"])
def test_however_it_is_started_it_is_one_run(launcher: str, workplace: Path) -> None:
    port = free_port()
    assert completed(command(*QUICK, "--name", "one"), env=CLEAN).returncode == 0
    agent = ["--nnodes", 2, "--master_addr", "127.0.0.1", "--master_port", port, "--node_rank"]
    with ExitStack() as stack:
        if launcher == "agents":
            lines = [torchrun(*agent, rank, ROOT / "train.py", *QUICK, processes=1) for rank in (0, 1)]
            runs = [stack.enter_context(started(line, env=CLEAN)) for line in lines]
        elif launcher == "slurm":
            runs = [stack.enter_context(started(command(*QUICK), env=slurm(rank, port))) for rank in (0, 1)]
        else:
            line = command(*QUICK, "--devices", 2, "--accelerator", "cpu", "--strategy", "ddp")
            runs = [stack.enter_context(started(line, env=CLEAN))]
        said = [run.communicate(timeout=LONG) for run in runs]
    assert [run.returncode for run in runs] == [0] * len(runs), said
    assert "one process alone is faster than 2" in " ".join(said[0][0].split())
    assert "device  2 x cpu" in said[0][0] or "device  1 x cpu" in said[0][0]
    assert [out for out, _ in said[1:]] == [""] * (len(runs) - 1)  # the first one speaks
    assert [path.name for path in Path("runs/default").iterdir()] == ["version_0"]
    one, two = (read_metrics(f"runs/{name}/version_0") for name in ("one", "default"))
    assert two["test"] == pytest.approx(one["test"], rel=1e-5)


def numbers(metrics: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """What was measured on the rows of each split, by name."""
    found: dict[str, float] = {}
    for name, value in metrics.items():
        if isinstance(value, dict):
            found |= numbers(value, f"{prefix}{name} ")
        elif isinstance(value, float):
            found[prefix + name] = value
    return found


@pytest.mark.slow
def test_two_processes_are_one(workplace: Path) -> None:
    Path("cases.py").write_text(CASES)
    for line in (["one_", "1"], ["two_", "2"]):
        done = completed([sys.executable, "cases.py", *line], env=CLEAN | {"PYTHONPATH": str(ROOT)})
        assert done.returncode == 0, done.stderr
    for note in (
        "1 row of TensorDataset to measure: fewer than processes, so each measures all of them, and a sum is 2",
        "Rewound: each process reads, and counts, all of it, unless it asks torch.distributed for its rank",
        "passed, a metric, is by steps that of the first process's rows; over an epoch, of all",
    ):
        assert note in done.stdout
    names = [path.name.removeprefix("one_") for path in Path("runs").glob("one_*")]
    assert len(names) == CASES.count("lambda")
    for name in names:
        one, two = Path("runs", f"one_{name}", "version_0"), Path("runs", f"two_{name}", "version_0")
        weights = [load(run / "checkpoints/last.ckpt")["state_dict"] for run in (one, two)]
        curves, metrics = [scalars(run) for run in (one, two)], [numbers(read_metrics(run)) for run in (one, two)]
        most = 1e-2 if name == "bfloat16" else 1e-6
        for key, value in weights[0].items():
            torch.testing.assert_close(weights[1][key], value, rtol=0, atol=most, msg=lambda m, n=name: f"{n}: {m}")
        rel = 5e-2 if name == "bfloat16" else 1e-5
        assert metrics[1] == pytest.approx(metrics[0], rel=rel, abs=rel / 10), name
        assert curves[0].keys() == curves[1].keys()
        for tag in curves[0]:
            if tag.split("/")[0] in ("loss", "mse", "rmse", "mae", "r2", "lr"):
                steps = [[step for step, _ in each[tag]] for each in curves]
                values = [[value for _, value in each[tag]] for each in curves]
                assert steps[1] == steps[0], (name, tag)
                assert values[1] == pytest.approx(values[0], rel=rel, abs=rel / 10, nan_ok=True), (name, tag)


UNEVEN = (
    CASES[: CASES.index("def linear")]
    + """
import os
class Dealt(Rewound):
    def __iter__(self):
        return iter(list(self.rows)[int(os.environ.get("LOCAL_RANK", "0"))::2])
class Uneven(Rows):
    def loader(self, split, size, shuffle=False, **more):
        return DataLoader(Dealt(super().loader(split, size).dataset), size)
flags = {"max_epochs": 2, "accelerator": "cpu", "enable_progress_bar": False, "figures": False}
run(Bare(), Uneven(int(sys.argv[1]), 1), devices=2, **flags)
"""
)


@pytest.mark.slow
def test_a_stream_may_end_sooner_in_one_process(workplace: Path) -> None:
    Path("uneven.py").write_text(UNEVEN)
    done = completed([sys.executable, "uneven.py", "61"], env=CLEAN | {"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    assert "Dealt: an epoch ends with the last batch that every process has" in done.stdout
    assert read_metrics("runs/default/version_0")["run"]["steps"] == 2 * 24  # of 49 rows
    done = completed([sys.executable, "uneven.py", "10"], env=CLEAN | {"PYTHONPATH": str(ROOT)})
    assert "Dealt: each process needs a batch of it, and one has none" in done.stderr  # of the one row to validate


@pytest.mark.slow
@pytest.mark.parametrize("devices", ["1, 2", "2, 1"])
def test_the_runs_of_a_script_have_as_many_processes(devices: str, workplace: Path) -> None:
    runs = f"""[run(LinearRegression(3), SyntheticData(), "two", max_epochs=1, devices=devices, **quick)
    for devices in ({devices})]"""
    Path("two.py").write_text(
        "from linreg import LinearRegression, SyntheticData, run\nfrom linreg.command.main import script\n"
        f'def main() -> None:\n    quick = {{"figures": False, "accelerator": "cpu"}}\n    {runs}\nscript(main)\n'
    )
    done = completed([sys.executable, "two.py"], env=CLEAN | {"PYTHONPATH": str(ROOT)})
    assert done.returncode == 2, done.stderr
    assert "--devices 1 in a script that 2 processes run from its beginning" in done.stderr
    assert "vanished" not in done.stderr
    assert "Traceback" not in done.stderr


def test_rows_that_a_sampler_repeats_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    rows = TensorDataset(torch.zeros(11))
    sampler = DistributedSampler(rows, num_replicas=2, rank=0)
    for loader in (
        DataLoader(rows, 3, sampler=sampler),
        DataLoader(rows, batch_sampler=BatchSampler(sampler, 3, False)),  # each process has its own
    ):
        assert share(loader, training=False) is loader
        assert "DistributedSampler: 1 row of TensorDataset counted twice; leave" in capsys.readouterr().out


class ByKeys(dict[str, torch.Tensor]):
    """Rows that go by texts, and not by their numbers."""


def test_rows_of_any_kind_can_be_compared() -> None:
    row = {"mask": torch.tensor([True, False]), "n": 2**70, "is": True, "z": torch.tensor(1j), "text": "a", "x": None}
    assert numbers_of([row]) == ["1", "1.18059e+21", "1", "1"] * 3
    assert numbers_of([(torch.tensor([1.0, 2.0]),)]) != numbers_of([(torch.tensor([2.0, 1.0]),)])
    assert numbers_of([]) == numbers_of(ByKeys(a=torch.zeros(1))) == []


@pytest.mark.slow
@pytest.mark.parametrize(("began", "after"), [("torchrun", 3), ("devices", 1)])
def test_a_run_goes_on_with_another_number_of_processes(began: str, after: int, workplace: Path) -> None:
    def line(processes: int, *flags: object) -> list[str]:
        return torchrun("--master_port", free_port(), ROOT / "train.py", *QUICK, *flags, processes=processes)

    first = line(2) if began == "torchrun" else command(*QUICK, "--devices", 2, "--accelerator", "cpu")
    assert completed(first, env=CLEAN).returncode == 0
    done = completed(line(after, "--max_epochs", 4, "--ckpt_path", f"{CKPT}/last.ckpt"), env=CLEAN)
    assert done.returncode == 0, done.stderr
    assert f"device  {after} x cpu" in done.stdout
    assert completed(command(*QUICK, "--max_epochs", 4, "--name", "whole"), env=CLEAN).returncode == 0
    states = [load(path)["state_dict"] for path in (f"{CKPT}/last.ckpt", "runs/whole/version_0/checkpoints/last.ckpt")]
    for key, value in states[1].items():
        torch.testing.assert_close(states[0][key], value, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_a_run_goes_on_with_another_setting_under_a_launcher(workplace: Path) -> None:
    assert completed(command(*QUICK, "--max_epochs", 2), env=CLEAN).returncode == 0
    line, port = command("--ckpt_path", f"{CKPT}/last.ckpt", "--max_epochs", 3, "--data.drop_last", "true"), free_port()
    with ExitStack() as stack:
        runs = [stack.enter_context(started(line, env=slurm(rank, port))) for rank in range(2)]
        said = [run.communicate(timeout=LONG) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], said
    assert "drop_last: False -> True" in said[0][0], said[0][0]


@pytest.mark.slow
def test_a_planned_rate_goes_on_as_it_was(workplace: Path) -> None:
    """Statistics that are summed up in parts differ in their last digits, and so does the rate that follows."""
    flags = ["--data.num_rows", 200, "--data.batch_size", 101]
    first = command(*flags, "--max_epochs", 2, "--devices", 2, "--accelerator", "cpu")
    assert completed(first, env=CLEAN).returncode == 0
    done = completed(command("--max_epochs", 4, "--devices", 1, "--ckpt_path", f"{CKPT}/last.ckpt"), env=CLEAN)
    told = done.stdout.split("as before but for:\n")[1].split("train ")[0].split("\n")
    assert [line.strip() for line in told] == ["trainer.devices: 2 -> 1", "trainer.max_epochs: 2 -> 4", ""]


ONE_FAILS = """
from linreg import InputError, LinearRegression, SyntheticData

class Odd(LinearRegression):
    def training_step(self, batch, i):
        if self.global_rank == 1 and self.trainer.current_epoch == 1:
            raise InputError("a mistake of one")
        return super().training_step(batch, i)

class Other(SyntheticData):
    def load(self):
        import os
        if os.environ["SLURM_PROCID"] == "1":
            self.num_rows -= 1
        return super().load()

class Skips(LinearRegression):
    def training_step(self, batch, i):
        return None
"""


def both(stack: ExitStack, *flags: object, second: tuple[object, ...] = ()) -> list[subprocess.Popen[str]]:
    """Two processes that nobody looks after, the second one with flags of its own."""
    port, lines = free_port(), [command(*ENDLESS, *flags), command(*ENDLESS, *flags, *second)]
    return [stack.enter_context(started(line, env=slurm(rank, port))) for rank, line in enumerate(lines)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "second", "said"),
    [
        (("--model", "mine.Odd"), (), "process 1: a mistake of one"),
        ((), ("--data", "linreg.CSVData", "--data.path", "none.csv", "--data.target", "y"), "none.csv: no such file"),
        (("--data", "mine.Other"), (), "process 1 has"),
        (("--model", "mine.Skips"), (), "give a loss of 0 times the output instead"),
    ],
)
def test_what_one_finds_ends_all(flags: Any, second: Any, said: str, workplace: Path) -> None:
    Path("mine.py").write_text(ONE_FAILS)
    with ExitStack() as stack:
        runs = both(stack, *flags, second=second)
        err = [run.communicate(timeout=LONG)[1] for run in runs]
    assert runs[1].returncode == 2
    assert runs[0].returncode in (1, 2)
    assert said in err[1]
    assert "Traceback" not in "".join(err)
    lines = [line for each in err for line in each.splitlines() if "waits for the others" not in line]  # under load
    assert len(lines) == 2, err


@pytest.mark.slow
def test_what_a_child_finds_is_the_exit_code(workplace: Path) -> None:
    Path("mine.py").write_text(ONE_FAILS)
    line = command(*ENDLESS, "--model", "mine.Odd", "--devices", 2, "--accelerator", "cpu")
    done = completed(line, env=CLEAN | {"PYTHONPATH": "."})
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if "waits for the others" not in line]  # under load
    assert lines == ["error: process 1: a mistake of one"]


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_process_ends_all(killed: int, workplace: Path) -> None:
    with ExitStack() as stack:
        runs = both(stack)
        until(lambda: Path(CKPT, "last.ckpt").exists())
        runs[killed].kill()
        err = runs[1 - killed].communicate(timeout=LONG)[1]
    assert runs[1 - killed].returncode == 1
    assert "error: another process of the run was lost; " in err
    assert "resume it with: python train.py" in err


@pytest.mark.slow
def test_a_signal_while_waiting_for_others(workplace: Path) -> None:
    """In a rendezvous, and in a collective with a process that does not move: no handler of Python's runs there."""
    with started(command(*QUICK), env=slurm(0, free_port())) as alone:
        assert alone.stderr is not None
        assert "waits for the others at 127.0.0.1" in alone.stderr.readline()
        alone.send_signal(signal.SIGTERM)
        alone.communicate(timeout=LONG)
    assert alone.returncode == 143
    with ExitStack() as stack:
        first, second = both(stack)
        until(lambda: Path(CKPT, "last.ckpt").exists())
        second.send_signal(signal.SIGSTOP)
        time.sleep(1)
        first.send_signal(signal.SIGTERM)
        err = first.communicate(timeout=LONG)[1]
        second.send_signal(signal.SIGCONT)
    assert first.returncode == 143
    assert "stopped; " in err, err
    assert "resume it with: python train.py" in err


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
@pytest.mark.parametrize("intercept", [True, False])
def test_statistics_in_parts_are_those_of_all_rows(parts: int, intercept: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    x = 1e6 + torch.randn(20, 5, generator=generator, dtype=torch.float64)
    y = x[:, :2] + torch.randn(20, 2, generator=generator, dtype=torch.float64)
    whole, found = LeastSquares(5, 2, intercept).update(x, y), LeastSquares(5, 2, intercept)
    for rows in [torch.tensor([], dtype=torch.long), *torch.arange(20).tensor_split(parts)]:
        part = LeastSquares(5, 2, intercept)
        part = part.update(x[rows], y[rows]) if len(rows) else part
        sent = pickle.dumps(part)
        assert len(sent) < 8 * (part.r.shape[1] ** 2 + 3 * part.r.shape[1]) + 4_000  # the square, and not the rows
        assert found.merge(pickle.loads(sent)) is found
    assert found.num_rows == 20
    torch.testing.assert_close(found.solve().coef, whole.solve().coef, rtol=1e-6, atol=0)
    assert torch.equal(found.min, whole.min)
    assert not found.r.tril(-1).any()


@pytest.mark.slow
def test_a_share_is_a_part(workplace: Path) -> None:
    script = (
        "import torch\n"
        "import torch.distributed as dist\n"
        "from linreg import SyntheticData\n"
        "from linreg.system.ranks import summed\n"
        "dist.init_process_group('gloo')\n"
        "data = SyntheticData(101, val_fraction=0, test_fraction=0)\n"
        "x = [x for x, _ in data.evaluation_batches('train', apart=True)]\n"
        "num_rows, total = sum(map(len, x)), summed(sum(part.sum(0) for part in x))\n"
        "assert num_rows in (50, 51) and summed(torch.tensor(num_rows)) == 101, num_rows\n"
        "assert (total - data.splits['train'][0].sum(0)).abs().max() < 1e-12\n"
        "dist.destroy_process_group()\n"  # a thread of gloo's that is alive at exit ends in SIGABRT
    )
    Path("share.py").write_text(script)
    done = completed(torchrun("--master_port", free_port(), "share.py"), env=CLEAN | {"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
