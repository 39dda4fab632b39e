"""Runs that do not come to their end: stopped by a signal, without room on the disk, without their folder."""

import os
import resource
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import Train, command

CKPT = "runs/default/version_0/checkpoints"
RESUME = f"resume it with: python train.py --ckpt_path {CKPT}/last.ckpt"
WORKERS = """
from torch.utils.data import DataLoader, TensorDataset
from linreg import SyntheticData

class Workers(SyntheticData):
    def train_dataloader(self):
        return DataLoader(TensorDataset(*self.splits["train"]), 64, num_workers=1, persistent_workers=True)
"""


def start(*flags: object, **settings: Any) -> subprocess.Popen:
    """A run that would not end by itself, once it has saved an epoch."""
    environment = os.environ | {"PYTHONPATH": "."}
    arguments = command("--max_epochs", 1_000_000, "--data.batch_size", 64, *flags)
    run = subprocess.Popen(
        arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment, text=True, start_new_session=True
    )
    for _ in range(1_200):
        if Path(CKPT, "last.ckpt").exists() or run.poll() is not None:
            break
        time.sleep(0.05)
    return run


def rest_of(group: int) -> bool:
    """Whether a process of a group is still there."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(
    ("number", "code", "flags"),
    [
        (signal.SIGINT, 130, []),
        (signal.SIGTERM, 143, ["--data", "mine.Workers", "--model.lr", 0.05]),
        (signal.SIGHUP, 129, ["--devices", 2, "--accelerator", "cpu"]),
    ],
)
def test_a_stopped_run_says_how_to_go_on(
    number: signal.Signals, code: int, flags: list[object], workplace: Path, train: Train
) -> None:
    Path("mine.py").write_text(WORKERS)
    run = start(*flags)
    try:
        for _ in range(3):  # an impatient user, whose terminal sends it to all processes
            os.killpg(run.pid, number)
            time.sleep(0.02)
        _, err = run.communicate(timeout=60)
        assert run.returncode == code, err
        assert err.splitlines() == [f"stopped; {RESUME}"]
        for _ in range(100):
            if not rest_of(run.pid):
                break
            time.sleep(0.05)
        assert not rest_of(run.pid)
    finally:
        if rest_of(run.pid):
            os.killpg(run.pid, signal.SIGKILL)
    saved = torch.load(f"{CKPT}/last.ckpt", weights_only=True)
    if not flags:
        resumed, out = train("--ckpt_path", f"{CKPT}/last.ckpt", "--max_epochs", saved["epoch"] + 2)
        assert resumed == 0, out


def test_a_process_that_is_lost(workplace: Path) -> None:
    run = start("--devices", 2, "--accelerator", "cpu")
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children")
    if not children.exists():
        run.kill()
        pytest.skip("needs /proc")
    os.kill(int(children.read_text().split()[0]), signal.SIGKILL)
    _, err = run.communicate(timeout=60)
    assert run.returncode == 1
    assert err.splitlines() == [f"error: another process of the run was lost; {RESUME}"]


def test_a_signal_while_importing(workplace: Path) -> None:
    run = subprocess.Popen(command(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    time.sleep(0.5)
    run.send_signal(signal.SIGINT)
    assert run.communicate(timeout=60) == (b"", b"")
    assert run.returncode == 130


def test_a_full_disk_leaves_the_last_good_checkpoint(workplace: Path, train: Train) -> None:
    def run(kilobytes: int, *flags: object) -> list[str]:
        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (kilobytes * 1024, kilobytes * 1024))

        done = subprocess.run(command(*flags), capture_output=True, text=True, preexec_fn=limit, check=False)
        assert done.returncode == 1, done.stderr
        assert not list(workplace.rglob("*.tmp"))
        return done.stderr.splitlines()

    # TensorBoard's file outgrows 12 kB, a checkpoint does not.
    (line,) = run(12, "--max_epochs", 1_000, "--data.batch_size", 100)
    assert "File too large" in line
    assert line.endswith(RESUME)
    before = torch.load(f"{CKPT}/last.ckpt", weights_only=True)["epoch"]
    (line,) = run(4, "--ckpt_path", f"{CKPT}/last.ckpt")  # config.yaml fits, a checkpoint does not
    assert "ckpt could not be written: File too large; what was there before is intact" in line
    assert torch.load(f"{CKPT}/last.ckpt", weights_only=True)["epoch"] == before
    assert train("test", "--ckpt_path", f"{CKPT}/last.ckpt")[0] == 0
    Path("new.csv").write_text("x1,x2,x3\n" + "1,2,3\n" * 2_000)
    (line,) = run(8, "predict", "--ckpt_path", f"{CKPT}/last.ckpt", "--data.path", "new.csv")
    assert "predictions.csv: cannot be written: File too large" in line
    assert not Path("predictions.csv").exists()


def test_a_run_whose_folder_vanishes(workplace: Path) -> None:
    run = start()
    shutil.rmtree("runs/default/version_0")
    _, err = run.communicate(timeout=60)
    assert run.returncode == 1
    assert len(err.splitlines()) == 1
    assert "version_0" in err
    assert not Path("runs/default/version_0").exists()


def test_a_folder_that_cannot_be_made(train: Train) -> None:
    Path("runs").touch()
    code, out = train("--max_epochs", 1)
    assert code == 1
    assert "runs/default: a folder for the run cannot be made there" in out.splitlines()[-1]
