"""A GPU gives what a CPU gives, but for rounding, and goes on to the bit; skipped where there is none."""

import sys
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import torch

from tests.conftest import GPUS, ROOT, WITH_GPUS, command, completed, read_metrics, read_rows
from tests.test_inside import MINE, MORE
from tests.tools import assert_same

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
ORDER = """
import torch
from linreg.tables.batches import TensorBatches

x = torch.arange(50_000.0)[:, None]
for mapped in (True, False):
    sides = [TensorBatches(x.to(place), x.to(place), 100, seed=1, mapped=mapped) for place in ("cpu", "cuda")]
    assert all(torch.equal(one[0], other[0].cpu()) for one, other in zip(*sides, strict=True)), mapped
"""


def gpu(*args: object, code: int = 0) -> CompletedProcess[str]:
    done = completed(command(*args, *ONE), env=WITH_GPUS)
    assert done.returncode == code, done.stderr
    return done


def cpu(*args: object) -> CompletedProcess[str]:
    done = completed(command(*args, "--accelerator", "cpu"), env=WITH_GPUS)
    assert done.returncode == 0, done.stderr
    return done


def script(text: str) -> None:
    done = completed([sys.executable, "-c", text], env=WITH_GPUS | {"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr


def weights(name: str) -> dict[str, torch.Tensor]:
    return torch.load(LAST.format(name), map_location="cpu", weights_only=True)["state_dict"]


def test_a_report_is_that_of_a_cpu(workplace: Path) -> None:
    done = gpu("--check", 0.01, "--name", "gpu")
    assert "device  1 x cuda" in done.stdout
    assert not done.stderr
    assert not cpu("--name", "cpu").stderr
    found, expected = (read_metrics(f"runs/{name}/version_0") for name in ("gpu", "cpu"))
    for split in ("train", "val", "test"):
        assert found[split] == pytest.approx(expected[split], rel=1e-6)
        assert found["exact"][split] == pytest.approx(expected["exact"][split], rel=1e-12)
    rows = [read_rows(f"runs/{name}/version_0/coefficients.csv") for name in ("gpu", "cpu")]
    for one, other in zip(*rows, strict=True):
        assert float(one["learned"]) == pytest.approx(float(other["learned"]), rel=1e-6)


@pytest.mark.parametrize("name", ["linear", "drawn"])
def test_a_run_goes_on_to_the_bit(name: str, workplace: Path) -> None:
    Path("mine.py").write_text(MINE + MORE)
    drawn = ["--model", "mine.Dropout", "--model.lr", 0.05, "--data", "mine.Loader", "--data.num_workers", 2]
    flags = drawn if name == "drawn" else FEW
    gpu(*flags, "--max_epochs", 4, "--name", "whole")
    gpu(*flags, "--max_epochs", 2, "--name", "parts")
    assert "as before" in gpu("--max_epochs", 4, "--ckpt_path", "last", "--name", "parts").stdout
    assert_same(weights("parts"), weights("whole"))


def test_chunks_have_the_same_bits(workplace: Path) -> None:
    for name, flags in (("plain", ()), ("chunks", ("--chunk", 4))):
        gpu(*FEW, "--max_epochs", 2, "--name", name, *flags)
    assert_same(weights("plain"), weights("chunks"))


def test_a_run_goes_on_on_a_cpu_and_back(workplace: Path) -> None:
    gpu(*FEW, "--max_epochs", 2, "--name", "both")
    cpu("--max_epochs", 4, "--name", "both", "--ckpt_path", "last")
    gpu("--max_epochs", 6, "--name", "both", "--ckpt_path", "last")
    cpu(*FEW, "--max_epochs", 6, "--name", "cpu")
    assert_same(weights("both"), weights("cpu"), tolerance=1e-6)


def test_a_checkpoint_is_measured_on_either(workplace: Path) -> None:
    gpu(*FEW, "--max_epochs", 2)
    expected = read_metrics("runs/default/version_0")["test"]["rmse"]
    for measured in (gpu, cpu):
        said = measured("test", "--ckpt_path", "runs/default/version_0/checkpoints/best.ckpt").stdout.splitlines()
        assert [float(line.split()[1]) for line in said if "rmse/test" in line] == [pytest.approx(expected, rel=1e-5)]


def test_a_mapped_table_has_the_order_that_it_has_on_a_cpu() -> None:
    script(ORDER)


def test_no_step_waits_for_the_gpu(workplace: Path) -> None:
    script(SYNCS)


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
