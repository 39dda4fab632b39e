"""SIGKILL at random moments, again and again: what is left at the end is what an undisturbed run leaves, to the bit.

``KILLS=200 python -m pytest tests/test_kill.py -s`` is the long form.
"""

import os
import random
import runpy
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import LONG, ROOT, posix, read_metrics, started, until_next_second
from tests.tools import assert_same, leaves, load, scalars

if os.name == "posix":
    from multiprocessing.context import ForkProcess

KILLS = int(os.environ.get("KILLS", "20"))
EPOCHS = 90
MOST = 20  # epochs that a run saves before it is killed
SCHEDULERS = {
    "step": "{class_path: torch.optim.lr_scheduler.StepLR, init_args: {step_size: 70, gamma: 0.9}, interval: step}",
    "epoch": "{class_path: torch.optim.lr_scheduler.CosineAnnealingLR, init_args: {T_max: 90}}",
    "plateau": "{class_path: torch.optim.lr_scheduler.ReduceLROnPlateau, init_args: {patience: 1, threshold: 0.1}}",
}
SETTINGS = ["--data.batch_size", "16", "--data.noise_std", "1", "--model.lr", "0.01", "--model.momentum", "0.9"]
SETTINGS += ["--max_epochs", str(EPOCHS)]


def start(arguments: list[str]) -> "ForkProcess":
    """``python train.py ARGUMENTS`` in a process of its own, without the 3 s of importing torch."""

    def run() -> None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.argv = [str(ROOT / "train.py"), *arguments]
        runpy.run_path(sys.argv[0], run_name="__main__")

    process = ForkProcess(target=run)
    process.start()
    return process


def checkpoints(name: str = "default") -> list[Path]:
    """The last.ckpt of each run that has one, the newest run last."""
    found = Path("runs", name).glob("version_*/checkpoints/last.ckpt")
    return sorted(found, key=lambda path: int(path.parts[-3].removeprefix("version_")))


def saved(name: str = "default") -> Any:
    """What is another thing after each epoch that a run has saved."""
    return [(path, path.stat().st_ino, path.stat().st_mtime_ns) for path in checkpoints(name)[-1:]]


def watch(run: "ForkProcess", epochs: int, delay: float | None = 0.0, name: str = "default") -> None:
    """Waits until a run has saved that many epochs (-1: all), and a little longer, or has ended.

    A delay of None lasts until it writes the next checkpoint.
    """
    before, end = saved(name), time.monotonic() + (LONG if epochs or delay is None else delay)
    while run.is_alive() and time.monotonic() < end:
        if epochs and saved(name) != before:
            before, epochs = saved(name), epochs - 1
            end = time.monotonic() + (LONG if epochs or delay is None else delay)
        if not epochs and delay is None and any(Path("runs", name).glob(f"version_*/checkpoints/.*.{run.pid}-*.tmp")):
            return
        time.sleep(0.0005)
    assert not epochs or not run.is_alive(), f"no epoch was saved in {LONG} s"


def drive(kills: int, scheduler: str) -> None:
    """Runs undisturbed, then kills runs at random moments until there were enough, and lets the last one finish.

    A moment is counted in epochs that the run has saved, since a busy machine takes any time for one. Every fourth kill
    comes before there is one, every fourth amid a save, and a run that saves its last epoch is killed while it ends.
    """
    os.chdir(scheduler)
    moments = random.Random(scheduler)
    settings = [*SETTINGS, "--check_val_every_n_epoch", "3" if scheduler == "epoch" else "1"]
    settings += ["--model.lr_scheduler", SCHEDULERS[scheduler]]
    settings += ["--save_every_n_steps", "11"] if scheduler == "step" else []
    done, finished, left, epochs, began = 0, 0, EPOCHS, set(), time.monotonic()
    run = start([*settings, "--name", "whole"])
    try:
        watch(run, 1, name="whole")
        first = time.monotonic() - began
        watch(run, -1, name="whole")
        assert run.exitcode == 0, f"exit code {run.exitcode}"
        pace = (time.monotonic() - began) / EPOCHS
        while done < kills or not finished or len(checkpoints()) > finished:
            if going_on := len(checkpoints()) > finished:
                until_next_second(checkpoints()[-1].parents[1])
            run = start(["--ckpt_path", str(checkpoints()[-1])] if going_on else settings)
            number = min(moments.randint(1, MOST), left) if done % 4 else 0
            delay = None if done % 4 == 2 else moments.uniform(0, 2 * pace if number else first)
            watch(run, number if left and done < kills else -1, delay)
            run.kill()
            run.join()
            if run.exitcode == 0:
                finished, left = finished + 1, EPOCHS
                continue
            assert run.exitcode == -signal.SIGKILL, f"exit code {run.exitcode}"
            done += 1
            if len(checkpoints()) > finished:
                epoch = load(checkpoints()[-1])["epoch"]
                epochs.add(epoch)
                left = EPOCHS - 1 - epoch
    finally:
        run.kill()
        run.join()
    print(f"{scheduler}: {done} kills, in {len(epochs)} different epochs; {finished} run(s) finished", flush=True)
    assert len(epochs) >= min(kills // 3, 30), epochs


def check(whole: Path, other: Path) -> None:
    """The two runs left the same checkpoints and the same curves."""
    for name in ("last", "best"):
        a, b = (leaves(load(run / f"checkpoints/{name}.ckpt")) for run in (whole, other))
        a, b = (
            {
                k.replace(str(Path.cwd()), ""): v
                for k, v in c
                if not isinstance(v, str) and "scheduler_progress" not in k
            }
            for c in (a, b)
        )
        a = {k.replace("whole/version_0", f"{other.parent.name}/{other.name}"): v for k, v in a.items()}
        assert a.keys() == b.keys(), a.keys() ^ b.keys()
        assert any("momentum_buffer" in key for key in a)
        assert any("best_model_score" in key for key in a)
        assert_same(a, b)
    one, two = scalars(whole), scalars(other)
    assert one.keys() == two.keys()
    assert len(one) > 10
    for tag, curve in one.items():
        assert curve == two[tag] or tag == "reported/seconds", tag
    assert scalars(whole / "by_epoch") == scalars(other / "by_epoch")
    assert read_metrics(whole) == read_metrics(other)


@pytest.mark.slow
@posix
def test_killed_again_and_again(workplace: Path) -> None:
    command = [sys.executable, "-m", "tests.test_kill", str(-(-KILLS // len(SCHEDULERS)))]
    with started(command, env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}) as process:
        out, err = process.communicate()
    print(out)
    assert process.returncode == 0, err
    for scheduler in SCHEDULERS:
        runs = [path.parents[1] for path in Path(scheduler, "runs/default").glob("version_*/checkpoints/last.ckpt")]
        assert runs
        for run in runs:
            check(Path(scheduler, "runs/whole/version_0"), run)


def main(kills: int) -> int:
    """All schedulers side by side, each in a folder of its own; 0 if all went well."""
    import linreg.command.main  # noqa: F401

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that whoever is ended ends what it has started
    drivers = []
    try:
        for scheduler in SCHEDULERS:
            Path(scheduler).mkdir()
            drivers.append(ForkProcess(target=drive, args=(kills, scheduler)))
            drivers[-1].start()
        while any(driver.is_alive() for driver in drivers) and not any(driver.exitcode for driver in drivers):
            time.sleep(0.05)
    finally:
        for driver in drivers:
            driver.terminate()
            driver.join()
    return sum(driver.exitcode != 0 for driver in drivers)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])) > 0)
