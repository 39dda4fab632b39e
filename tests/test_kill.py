"""SIGKILL at random moments, again and again: what is left at the end is what an undisturbed run leaves, to the bit.

``KILLS=200 python -m pytest tests/test_kill.py -s`` is the long form.
"""

import os
import random
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import ROOT
from tests.test_run import events

KILLS = int(os.environ.get("KILLS", "20"))
SECOND = 1.05  # TensorBoard orders event files by the second in their names; a process of its own takes 3 to start
SCHEDULERS = {
    "step": "{class_path: torch.optim.lr_scheduler.StepLR, init_args: {step_size: 70, gamma: 0.9}, interval: step}",
    "epoch": "{class_path: torch.optim.lr_scheduler.CosineAnnealingLR, init_args: {T_max: 90}}",
    "plateau": "{class_path: torch.optim.lr_scheduler.ReduceLROnPlateau, init_args: {patience: 1, threshold: 0.1}}",
}
SETTINGS = ["--data.batch_size", "16", "--data.noise_std", "1", "--model.lr", "0.01", "--model.momentum", "0.9"]
SETTINGS += ["--max_epochs", "90"]


def start(arguments: list[str]) -> int:
    """``python train.py ARGUMENTS`` in a process of its own, without the 3 s of importing torch; returns its id."""
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.argv = [str(ROOT / "train.py"), *arguments]
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as stop:
        code = stop.code
    finally:
        os._exit(code)


def newest_checkpoint() -> list[Path]:
    return sorted(Path("runs/default").glob("version_*/checkpoints/last.ckpt"), key=lambda path: path.stat().st_mtime)


def drive(kills: int, scheduler: str) -> None:
    """Runs undisturbed, then kills runs at random moments until there were enough; the last one may finish."""
    moments = random.Random(scheduler)
    settings = [*SETTINGS, "--check_val_every_n_epoch", "3" if scheduler == "epoch" else "1"]
    settings += ["--model.lr_scheduler", SCHEDULERS[scheduler]]
    assert os.waitpid(start([*settings, "--name", "whole"]), 0)[1] == 0
    done, finished, going_on, epochs = 0, 0, False, set()
    while done < kills or going_on:
        child = start(["--ckpt_path", str(newest_checkpoint()[-1])] if going_on else settings)
        began, patience = time.monotonic(), moments.uniform(0.5, 2.5) if done < kills else 60
        while not (ended := os.waitpid(child, os.WNOHANG))[0] and time.monotonic() < began + patience:
            time.sleep(0.005)
        if ended[0]:
            assert ended[1] == 0, f"exit status {ended[1]}"
            finished, going_on = finished + 1, False
        else:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            done += 1
            going_on = len(newest_checkpoint()) > finished
            epochs.add(torch.load(newest_checkpoint()[-1], weights_only=True)["epoch"] if going_on else -1)
        time.sleep(max(0.0, began + SECOND - time.monotonic()))
    print(f"{scheduler}: {done} kills, in {len(epochs)} different epochs; {finished} run(s) finished", flush=True)


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """All numbers, tensors and names of a checkpoint by their place in it, without the name of its folder."""
    if isinstance(value, dict | list | tuple):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {place: leaf for key, inner in items for place, leaf in flat(inner, f"{path}/{key}").items()}
    return {path.replace(str(Path.cwd()), ""): value}


def same(a: Any, b: Any) -> bool:
    return torch.equal(a, b) if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) else a is b or a == b


def check(whole: Path, other: Path) -> None:
    """The two runs left the same checkpoints and the same curves."""
    for name in ("last", "best"):
        a, b = (torch.load(run / f"checkpoints/{name}.ckpt", weights_only=True) for run in (whole, other))
        a, b = (
            {k: v for k, v in flat(c).items() if not isinstance(v, str) and "scheduler_progress" not in k}
            for c in (a, b)
        )
        a = {k.replace("whole/version_0", f"{other.parent.name}/{other.name}"): v for k, v in a.items()}
        assert a.keys() == b.keys(), a.keys() ^ b.keys()
        assert any("momentum_buffer" in key for key in a)
        assert any("best_model_score" in key for key in a)
        wrong = {key: (value, b[key]) for key, value in a.items() if not same(value, b[key])}
        assert not wrong, f"{other}: {name}.ckpt: {wrong}"
    found = [events(run) for run in (whole, other)]
    tags = set(found[0].Tags()["scalars"])
    assert tags == set(found[1].Tags()["scalars"])
    assert len(tags) > 10
    for tag in tags:
        a, b = ([(event.step, event.value) for event in each.Scalars(tag)] for each in found)
        assert a == b, tag
    assert (whole / "metrics.json").read_text() == (other / "metrics.json").read_text()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_again_and_again(workplace: Path) -> None:
    command = [sys.executable, "-m", "tests.test_kill", str(-(-KILLS // len(SCHEDULERS)))]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stderr
    for scheduler in SCHEDULERS:
        runs = [path.parents[1] for path in Path(scheduler, "runs/default").glob("version_*/checkpoints/last.ckpt")]
        assert runs
        for run in runs:
            check(Path(scheduler, "runs/whole/version_0"), run)


def main(kills: int) -> int:
    """All schedulers side by side, each in a folder of its own; 0 if all went well."""
    import linreg.main  # noqa: F401

    children = []
    for scheduler in SCHEDULERS:
        Path(scheduler).mkdir()
        children.append(os.fork())
        if not children[-1]:
            os.chdir(scheduler)
            try:
                drive(kills, scheduler)
            except BaseException as error:
                print(f"{scheduler}: {error}", file=sys.stderr, flush=True)
                os._exit(1)
            os._exit(0)
    return sum(os.waitpid(child, 0)[1] for child in children)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])) > 0)
