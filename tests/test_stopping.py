"""Runs that do not come to their end: stopped by a signal, without room on the disk, without their folder."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import LONG, ROOT, Train, command, completed, posix, started, until
from tests.tools import CKPT, load

RESUME = f"resume it with: python train.py --ckpt_path {CKPT}/last.ckpt"
WORKERS = """
from torch.utils.data import DataLoader, TensorDataset
from linreg import SyntheticData

class Workers(SyntheticData):
    def train_dataloader(self):
        return DataLoader(TensorDataset(*self.splits["train"]), 64, num_workers=1, persistent_workers=True)
"""


@contextmanager
def endless(*flags: object) -> Iterator[subprocess.Popen[str]]:
    """A run that would not end by itself, once it has saved an epoch."""
    arguments = command("--max_epochs", 1_000_000, "--data.batch_size", 64, *flags)
    with started(arguments, stdout=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": "."}) as run:
        until(lambda: Path(CKPT, "last.ckpt").exists() or run.poll() is not None)
        assert run.poll() is None, run.communicate()[1]
        yield run


@posix
@pytest.mark.parametrize(
    ("name", "code", "flags"),
    [
        ("SIGINT", 130, []),
        pytest.param("SIGTERM", 143, ["--data", "mine.Workers", "--model.lr", 0.05], marks=pytest.mark.slow),
        pytest.param("SIGHUP", 129, ["--devices", 2, "--accelerator", "cpu"], marks=pytest.mark.slow),
    ],
)
def test_a_stopped_run_says_how_to_go_on(
    name: str, code: int, flags: list[object], workplace: Path, train: Train
) -> None:
    Path("mine.py").write_text(WORKERS)
    with endless(*flags) as run:
        for _ in range(3):  # an impatient user, whose terminal sends it to all processes
            os.killpg(run.pid, getattr(signal, name))
            time.sleep(0.02)  # or they may become one; it ends in the same way after any pause
        _, err = run.communicate(timeout=LONG)  # to its end, so no other process of the run has it open any more
    assert run.returncode == code, err
    (line,) = err.splitlines()
    assert re.fullmatch(rf"stopped; (\d+ step\(s\) since the last save are lost; )?{re.escape(RESUME)}", line)
    saved = load(f"{CKPT}/last.ckpt")
    if not flags:
        resumed, out = train("--ckpt_path", f"{CKPT}/last.ckpt", "--max_epochs", saved["epoch"] + 2)
        assert resumed == 0, out


@pytest.mark.slow
@posix
@pytest.mark.skipif(not Path("/proc").exists(), reason="needs /proc")
@pytest.mark.parametrize(
    ("which", "number", "code", "said"),
    [
        ("child", signal.SIGKILL, 1, "error: another process of the run was lost"),
        ("child", signal.SIGTERM, 143, "stopped"),
        ("first", signal.SIGKILL, -9, "error: the first process of the run was lost"),
    ],
)
def test_a_process_that_is_lost(which: str, number: int, code: int, said: str, workplace: Path) -> None:
    with endless("--devices", 2, "--accelerator", "cpu") as run:
        children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
        os.kill(int(children[0]) if which == "child" else run.pid, number)
        _, err = run.communicate(timeout=LONG)  # to its end: whoever is left says how to go on
    assert run.returncode == code
    (line,) = err.splitlines()
    assert line.startswith(f"{said}; ")
    assert line.endswith(RESUME)


IMPORTED = """
import time
from pathlib import Path

try:
    Path("importing").touch()
    time.sleep({LONG})
except BaseException:  # as some modules do
    pass
"""


@posix
@pytest.mark.parametrize("module", ["torch", "torchmetrics"])  # the first one, and one amid hundreds
def test_a_signal_while_importing(module: str, workplace: Path) -> None:
    Path(f"{module}.py").write_text(IMPORTED.format(LONG=LONG))
    with started(command(), env=os.environ | {"PYTHONPATH": "."}) as run:
        until(lambda: Path("importing").exists() or run.poll() is not None)
        run.send_signal(signal.SIGINT)
        assert run.communicate(timeout=LONG) == ("", "")
    assert run.returncode == 130


@posix
@pytest.mark.parametrize("recipe", ["sweep", "folds"])
def test_a_signal_while_a_recipe_is_imported(recipe: str, workplace: Path) -> None:
    Path("torch.py").write_text(IMPORTED.format(LONG=LONG))
    Path("optuna.py").write_text(IMPORTED.format(LONG=LONG))
    typed = [sys.executable, "-m", f"linreg.examples.{recipe}"]
    with started(typed, env=os.environ | {"PYTHONPATH": f".:{ROOT}"}) as run:
        until(lambda: Path("importing").exists() or run.poll() is not None)
        run.send_signal(signal.SIGINT)
        assert run.communicate(timeout=LONG) == ("", "")
    assert run.returncode == 130


@pytest.mark.slow
@posix
def test_a_full_disk_leaves_the_last_good_checkpoint(workplace: Path, train: Train) -> None:
    def run(kilobytes: int, *flags: object) -> list[str]:
        def limit() -> None:
            import resource  # not on Windows

            resource.setrlimit(resource.RLIMIT_FSIZE, (kilobytes * 1024, kilobytes * 1024))

        done = completed(command(*flags), preexec_fn=limit)
        assert done.returncode == 1, done.stderr
        assert not list(workplace.rglob("*.tmp"))
        return done.stderr.splitlines()

    # TensorBoard's file outgrows 12 kB, a checkpoint does not.
    (line,) = run(12, "--max_epochs", 1_000, "--data.batch_size", 100)
    assert "File too large" in line
    assert line.endswith(RESUME)
    before = load(f"{CKPT}/last.ckpt")["epoch"]
    (line,) = run(4, "--ckpt_path", f"{CKPT}/last.ckpt")  # config.yaml fits, a checkpoint does not
    assert "ckpt could not be written: File too large; what was there before is intact" in line
    assert load(f"{CKPT}/last.ckpt")["epoch"] == before
    assert train("test", "--ckpt_path", f"{CKPT}/last.ckpt")[0] == 0
    Path("new.csv").write_text("x1,x2,x3\n" + "1,2,3\n" * 2_000)
    (line,) = run(8, "predict", "--ckpt_path", f"{CKPT}/last.ckpt", "--data.path", "new.csv")
    assert "predictions.csv: cannot be written: File too large" in line
    assert not Path("predictions.csv").exists()


@pytest.mark.slow
@posix
@pytest.mark.parametrize("kilobytes", [20, 32])  # at which TensorBoard fails while a loss is logged
def test_a_full_disk_is_the_disks_fault(workplace: Path, kilobytes: int) -> None:
    Path("runs").mkdir()
    inside = f"mount -t tmpfs -o size={kilobytes}k tmpfs runs && exec {shlex.join(command('--max_epochs', 3))}"
    done = completed(["unshare", "-rm", "sh", "-c", inside])
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip("no rights to mount anything")
    assert (done.returncode, "No space left on device" in done.stderr) == (1, True), done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
@posix
def test_a_run_whose_folder_vanishes(workplace: Path) -> None:
    with endless() as run:
        os.rename("runs/default/version_0", "elsewhere")  # all of it in one step: the run may be writing to it
        _, err = run.communicate(timeout=LONG)
    assert run.returncode == 1
    assert len(err.splitlines()) == 1
    assert "version_0" in err
    assert not Path("runs/default/version_0/config.yaml").exists()
    load("elsewhere/checkpoints/last.ckpt")


def test_a_folder_that_cannot_be_made(train: Train) -> None:
    Path("runs").touch()
    code, out = train("--max_epochs", 1)
    assert code == 1
    assert "runs/default: a folder for the run cannot be made there" in out.splitlines()[-1]
