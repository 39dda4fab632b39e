"""Fixtures: the command line, in this process for speed and in one of its own where that matters."""

import csv
import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from linreg.command.main import main

GPUS = torch.cuda.device_count()
WITH_GPUS = dict(os.environ)  # for tests that see them; see _processor

ROOT = Path(__file__).parents[1]
LONG = int(os.environ.get("LINREG_LONG", 600))  # seconds; nothing takes that long under any load, so what does hangs
Train = Callable[..., tuple[int, str]]
KILL = getattr(signal, "SIGKILL", signal.SIGTERM)
posix = pytest.mark.skipif(os.name != "posix", reason="needs signals, modes, links or limits of POSIX")
Process = Callable[..., subprocess.CompletedProcess[str]]


WHOLE = {"train", "process", "started", "completed"}  # what runs a whole command, which takes a second
SLOW = {  # the groups that take seconds without one
    "test_cache": ["full_disk", "poisoned_record", "to_the_bit", "run_from_memory", "float64_where_float32_would"],
    "test_corpus": ["predicting_nasty_files", "changes_while_it_is_read"],
    "test_doctor": ["unsaved"],
    "test_lean": ["test_"],
    "test_loggers": ["from_python"],
    "test_python": ["test_"],
    "test_reader_properties": ["any_text_is_read", "what_others_write"],
}


def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    for item in items:
        is_whole = WHOLE & {*item.fixturenames, *item.function.__code__.co_names}
        if is_whole or any(part in item.name for part in SLOW.get(item.path.stem, [])):
            item.add_marker(pytest.mark.slow)
    gc.freeze()  # all is imported by now: looking through it for garbage took a seventh of the time


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder with the configs of a clone, as the current one."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name, module in list(sys.modules.items()):  # a test's own mine.py is not that of the next one
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def train(workplace: Path, capfd: pytest.CaptureFixture[str]) -> Train:
    """Runs a command line in this process; returns the exit code, and what was printed to either stream."""

    def run(*args: object) -> tuple[int, str]:
        capfd.readouterr()
        if args[:1] == ("--ckpt_path",):
            until_next_second(Path(args[1]).parent.parent)
        filters = warnings.filters[:]
        try:
            code = main([str(arg) for arg in args])
        except SystemExit as stop:
            code = stop.code
        warnings.filters[:] = filters
        return code, "".join(capfd.readouterr())

    return run


def until(condition: Callable[[], object]) -> None:
    """Waits for something to be so, as long as it takes under load; fails if nothing can take that long."""
    end = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < end, "it hangs"
        time.sleep(0.005)


def until_next_second(folder: Path) -> None:
    """Waits until an event file that is made now comes last in a run's folder.

    TensorBoard orders them by the second in their names; two runs of a user are further apart, by the start of Python.
    """
    seconds = [int(path.name.split(".")[3]) for path in folder.glob("events.out.tfevents.*")]
    until(lambda: int(time.time()) > max(seconds, default=0))


def command(*args: object) -> list[str]:
    return [sys.executable, str(ROOT / "train.py"), *map(str, args)]


@contextmanager
def started(arguments: list[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A process in a group of its own, all of which is ended with the block, however the block ends."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # else an ended pytest would leave it running
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in a shell's background, where the process would too
        signal.signal(signal.SIGINT, signal.default_int_handler)
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    run = subprocess.Popen(arguments, text=True, start_new_session=True, **options)
    try:
        yield run
    finally:
        end_group(run, KILL)
        run.communicate()  # up to the end of its pipes, which comes when the last one of the group has ended
        signal.signal(signal.SIGTERM, before)


def end_group(run: subprocess.Popen[str], number: int) -> None:
    """Sends a signal to a process and all that it has started."""
    if os.name == "posix":
        with suppress(ProcessLookupError):
            os.killpg(run.pid, number)
    else:
        run.kill()


def completed(arguments: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """What a process that ends by itself has said."""
    told = (options.pop("env", None) or os.environ) | {"PYTHONFAULTHANDLER": "1"}
    with started(arguments, env=told, **options) as run:
        try:
            out, err = run.communicate(timeout=LONG)
        except subprocess.TimeoutExpired:
            end_group(run, signal.SIGABRT)  # each process of it says where it is
            out, err = run.communicate()
            raise AssertionError(f"it hangs: {out[-1000:]}\n{err}") from None
    return subprocess.CompletedProcess(arguments, run.returncode, out, err)


def read_rows(path: str | Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def read_metrics(folder: str | Path) -> dict[str, Any]:
    """A run's metrics.json, without the seconds that it took."""
    content = json.loads(Path(folder, "metrics.json").read_text())
    content.get("run", {}).pop("seconds", None)
    return content


@pytest.fixture
def process(workplace: Path) -> Process:
    """Runs ``python train.py`` as a user does."""
    return lambda *args: completed(command(*args))


@pytest.fixture(autouse=True)
def _processor() -> None:
    """One thread of a CPU, whose bits the tests compare."""
    torch.set_num_threads(1)
    os.environ.update(OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="")  # CUDA looks at it where it is first used
