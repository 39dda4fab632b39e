"""A GPU gives what a CPU gives, but for rounding, and goes on to the bit; skipped where there is none."""

import sys
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import torch

from tests.conftest import GPUS, WITH_GPUS, command, completed, read_metrics, read_rows
from tests.test_inside import MINE, MORE
from tests.tools import assert_same, load

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not GPUS, reason="there is no GPU")]
ONE = ("--accelerator", "gpu", "--devices", 1)
FEW = ("--data.batch_size", 64)  # 13 steps an epoch
LAST = "runs/{}/version_0/checkpoints/last.ckpt"
SYNCS = """
import torch
from lightning.pytorch import Callback
from linreg import LinearRegression, SyntheticData, run

class Strict(Callback):
    def on_train_batch_start(self, trainer, model, batch, batch_idx):
        if batch_idx % 64 == 1:  # the guard looks at every 64th loss
            torch.cuda.set_sync_debug_mode("error")
    def on_train_batch_end(self, trainer, model, outputs, batch, batch_idx):
        if batch_idx % 64 == 62:
            torch.cuda.set_sync_debug_mode("default")
data = SyntheticData(num_rows=40_000, batch_size=100, val_fraction=0.1, test_fraction=0.1)
run(LinearRegression(3), data, max_epochs=1, accelerator="gpu", devices=1, callbacks=[Strict()])
"""


def gpu(*args: object, code: int = 0) -> CompletedProcess[str]:
    done = completed(command(*args, *ONE), env=WITH_GPUS)
    assert done.returncode == code, done.stderr
    return done


def weights(name: str) -> dict[str, torch.Tensor]:
    return {key: value.cpu() for key, value in load(LAST.format(name))["state_dict"].items()}


def test_a_report_is_that_of_a_cpu(workplace: Path) -> None:
    done = gpu("--check", 0.01, "--name", "gpu")
    assert "device  1 x cuda" in done.stdout
    assert not done.stderr
    assert not completed(command("--accelerator", "cpu", "--name", "cpu"), env=WITH_GPUS).stderr
    found, expected = (read_metrics(f"runs/{name}/version_0") for name in ("gpu", "cpu"))
    assert found["exact"] == expected["exact"]
    for split in ("train", "val", "test"):
        assert found[split] == pytest.approx(expected[split], rel=1e-6)
    rows = [read_rows(f"runs/{name}/version_0/coefficients.csv") for name in ("gpu", "cpu")]
    for one, other in zip(*rows, strict=True):
        assert float(one["learned"]) == pytest.approx(float(other["learned"]), rel=1e-6)


def test_a_run_goes_on_to_the_bit(workplace: Path) -> None:
    Path("mine.py").write_text(MINE + MORE)
    drawn = ["--model", "mine.Dropout", "--model.lr", 0.05, "--data", "mine.Loader", "--data.num_workers", 2]
    for name, flags in (("linear", FEW), ("drawn", drawn)):
        gpu(*flags, "--max_epochs", 4, "--name", f"{name}_whole")
        gpu(*flags, "--max_epochs", 2, "--name", name)
        assert "as before" in gpu("--max_epochs", 4, "--ckpt_path", "last", "--name", name).stdout
        assert_same(weights(name), weights(f"{name}_whole"))


def test_chunks_have_the_same_bits(workplace: Path) -> None:
    for name, flags in (("plain", ()), ("chunks", ("--chunk", 4))):
        gpu(*FEW, "--max_epochs", 2, "--name", name, *flags)
    assert_same(weights("plain"), weights("chunks"))


def test_a_checkpoint_goes_to_a_cpu_and_back(workplace: Path) -> None:
    cpu = {"env": WITH_GPUS}
    assert completed(command(*FEW, "--max_epochs", 6, "--name", "cpu", "--accelerator", "cpu"), **cpu).returncode == 0
    gpu(*FEW, "--max_epochs", 2, "--name", "both")
    line = command("--max_epochs", 4, "--name", "both", "--ckpt_path", "last", "--accelerator", "cpu")
    assert completed(line, **cpu).returncode == 0
    gpu("--max_epochs", 6, "--name", "both", "--ckpt_path", "last")
    assert_same(weights("both"), weights("cpu"), tolerance=1e-6)
    best = "runs/both/version_0/checkpoints/best.ckpt"
    for name, flags in (("gpu", ONE), ("cpu", ("--accelerator", "cpu"))):
        line = command("test", "--ckpt_path", best, *flags)
        tested = [float(text.split()[1]) for text in completed(line, **cpu).stdout.splitlines() if "rmse/test" in text]
        assert tested == [pytest.approx(read_metrics("runs/both/version_0")["test"]["rmse"], rel=1e-5)], name


def test_no_step_waits_for_the_gpu(workplace: Path) -> None:
    done = completed([sys.executable, "-c", SYNCS], env=WITH_GPUS | {"PYTHONPATH": str(Path(__file__).parents[1])})
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed", "64-true"])
def test_other_precisions_reach_the_optimum(precision: str, workplace: Path) -> None:
    gpu("--precision", precision, "--check", 0.01)


def test_distributed_training_carries_what_lies_on_the_cpu(workplace: Path) -> None:
    """Lightning's own group of processes, of NCCL alone, carries none of it."""
    assert not gpu("--strategy", "ddp", "--max_epochs", 3, "--name", "ddp").stderr
    gpu("--max_epochs", 3, "--name", "one")
    assert_same(weights("ddp"), weights("one"), tolerance=1e-6)


def test_a_strategy_that_parts_the_weights(workplace: Path) -> None:
    assert "give --strategy ddp" in gpu("--strategy", "fsdp", code=2).stderr


def test_more_processes_than_gpus(workplace: Path) -> None:
    line = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(GPUS + 1), *command()[1:]]
    done = completed(line, env=WITH_GPUS)
    assert done.returncode
    assert f"{GPUS + 1} processes were started where there are {GPUS} GPU(s)" in done.stderr
    assert "Traceback" not in done.stderr.split("torch/distributed/elastic")[0]
