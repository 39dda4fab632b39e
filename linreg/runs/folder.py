"""A run's folder, ``runs/NAME/version_N``: its number, its mark, and its lock."""

import itertools
import os
import re
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from linreg.safety.checkpoint_file import read_checkpoint
from linreg.safety.safe_yaml import MAX_BYTES, read_config
from linreg.system.errors import InputError, RunError, did_you_mean
from linreg.system.ranks import from_first, world
from linreg.system.screen import say, wrapped

ROOT = Path("runs")
RUN_FOLDER = "LINREG_RUN_FOLDER"  # an environment variable
RUN_MARK = r"# run ([0-9a-f]{32})\n"  # the first line of config.yaml: which run the folder is of


def versions(name: str) -> dict[int, Path]:
    """The folders of the runs of a name, by their numbers."""
    return {int(path.name[8:]): path for path in (ROOT / name).glob("version_*") if path.name[8:].isdecimal()}


def check_name(name: str) -> None:
    """InputError for what cannot be the name of a folder everywhere."""
    if not isinstance(name, str) or not re.fullmatch(r"\w[\w. -]{0,99}", name):
        expected = "at most 100 letters, digits, '.', '_', '-' and spaces are expected, a letter or digit first"
        raise InputError(f"--name {str(name)[:120]!r}: {expected}")


def new_run_folder(name: str) -> Path:
    """Makes ``runs/NAME/version_N`` with the first N that is free; two runs started at once get two folders."""
    check_name(name)
    try:
        for number in itertools.count(max(versions(name), default=-1) + 1):
            folder = ROOT / name / f"version_{number}"
            with suppress(FileExistsError):  # of another run, which was started at the same time
                folder.mkdir(parents=True)
                break
    except OSError as error:
        raise RunError(f"{ROOT / name}: a folder for the run cannot be made there: {error.strerror}") from None
    return folder


def newest_checkpoint(name: str, is_needed: bool = False) -> str | None:
    """Where the newest run of a name stands; None, and a line that says so, if none has saved anything."""
    for _, folder in sorted(versions(name).items(), reverse=True):
        if (path := folder / "checkpoints/last.ckpt").exists():
            return str(path)
    hint = did_you_mean(name, [path.name for path in ROOT.glob("*") if path.name != name])
    found = f"no run of the name {name!r} has saved anything"
    if is_needed:
        raise InputError(f"--ckpt_path last: {found}; see --name{hint}")
    say(f"        {found}: this is a new one{hint}", getattr(rank_zero_only, "rank", 0) == 0)
    return None


@dataclass
class RunFolder:
    """A run's folder, whatever its loggers are: where its records, checkpoints and pictures lie."""

    path: Path
    run: str = ""  # what tells the run from all others, wherever its folder is moved
    purge_step: int | None = None  # on resume, the step from which on older points of the curves are void
    lock: FileLock | None = None  # held until ``close``

    @property
    def logdir(self) -> Path:
        """Where TensorBoard finds this run among the others, or alone where it lies at the root of a disk."""
        return self.path.parents[1] if len(self.path.parents) > 2 else self.path

    def close(self) -> None:
        """Lets other processes into the folder; one in which nothing was written is taken away."""
        if self.lock is None:
            return
        with suppress(OSError):  # a system that keeps open files, a folder that has vanished
            if mark_of(self.path) in (self.run, None):  # not the lock of a run that has taken its place
                os.unlink(self.lock.lock_file)
        self.lock.release()
        with suppress(OSError):  # there is something in it
            for path in (self.path, *self.path.parents[:2]):
                path.rmdir()


def folder_of(trainer: Trainer) -> RunFolder | None:
    """The folder of the run that a trainer is at work on; None if it has none."""
    return getattr(trainer, "run_folder", None)


def steps_of(trainer: Trainer) -> int:
    """Where on its curves a run stands: a batch counts once there, however many optimizers have stepped."""
    return trainer.fit_loop.epoch_loop._batches_that_stepped


def steps_in(checkpoint: dict[str, Any]) -> int:
    """The same of a run that goes on from a checkpoint."""
    loops = checkpoint["loops"]["fit_loop"]
    by_hand = loops["epoch_loop.manual_optimization.optim_step_progress"]["total"]["completed"]
    return loops["epoch_loop.batch_progress"]["total"]["ready"] if by_hand else checkpoint["global_step"]


def open_run(name: str, ckpt_path: str | None, checkpoint: dict[str, Any] | None) -> RunFolder:
    """The folder of a new run, or that of a checkpoint's, if it lies there; InputError if it is in use."""
    if getattr(rank_zero_only, "rank", 0) != 0:
        told = from_first(None) if world() > 1 else os.environ[RUN_FOLDER]  # by the process that has started this one
        return RunFolder(Path(told))
    folder, purge_step, run = None, None, uuid.uuid4().hex
    if ckpt_path and checkpoint:
        path = Path(ckpt_path).resolve()  # through links
        lies_in = path.parents[1] if path.parent.name == "checkpoints" else path.parent
        if lies_in != path.parent and is_run_of(lies_in, checkpoint):
            folder, purge_step, run = as_typed(lies_in), steps_in(checkpoint), checkpoint.get("run", run)
            is_other = name not in ("default", folder.parent.name)
            say(f"        in its own folder {folder}, whatever --name {name} is", is_other)
            last = own_checkpoint(path.with_name("last.ckpt"), checkpoint) if path.name != "last.ckpt" else None
            with suppress(KeyError, TypeError):  # of a last.ckpt that no run could go on from
                if last and (far := steps_in(last)) > purge_step:
                    lost = f"last.ckpt of step {far:,}, and the curves behind step {purge_step:,}, are replaced"
                    say(wrapped(f"        {lost}; copy the folder elsewhere first to keep them"))
        else:
            say(f"        in a new folder: {ckpt_path} does not lie in that of its own run")
    folder = folder or new_run_folder(name)
    os.environ[RUN_FOLDER] = str(folder)
    lock = FileLock(folder / ".lock", timeout=0)
    for link in sorted(path for path in folder.iterdir() if path.is_symlink()):  # through which a run would write
        raise InputError(f"{link} is a link, and nothing that a run has made; remove it")
    try:
        lock.acquire()
    except Timeout:
        raise InputError(f"{folder}: another process is at work in this run; wait for its end, or stop it") from None
    return RunFolder(Path(from_first(str(folder))), run, purge_step, lock)


def own_checkpoint(path: Path, checkpoint: dict[str, Any]) -> dict[str, Any] | None:
    """The content of a file if the run of another checkpoint has written it, under this very name; None otherwise."""
    try:
        if path.suffix != ".ckpt" or path.is_symlink():
            return None
        other = read_checkpoint(path)
    except (InputError, OSError):  # the name may be too long for one
        return None
    if "run" in other:
        return other if other["run"] == checkpoint.get("run") and other.get("file") == path.name else None
    ours, theirs = (  # written by an older version: the same training rows tell that it is the same run
        {name: value for name, value in each["state_dict"].items() if "_standardizer." in name}
        for each in (checkpoint, other)
    )
    same = ours.keys() == theirs.keys() and all(torch.equal(value, theirs[name]) for name, value in ours.items())
    return other if same else None


def is_run_of(folder: Path, checkpoint: dict[str, Any]) -> bool:
    """Whether a folder is that of the run which has written a checkpoint, and not merely called like one."""
    if (text := config_in(folder)) is None:
        return False
    mark = mark_of(folder)
    if mark or "run" in checkpoint:
        return mark == checkpoint.get("run")
    before, now = (read_config(config, "config.yaml") for config in (checkpoint.get("config", ""), text))
    return before == now  # a run of an older version, which left no mark


def mark_of(folder: Path) -> str | None:
    """Which run a folder is of; None if it is none, or one of an older version."""
    found = re.match(RUN_MARK, config_in(folder) or "")
    return found[1] if found else None


def config_in(folder: Path) -> str | None:
    """The config.yaml of a folder; None if there is none, or what could be read for ever."""
    path = folder / "config.yaml"
    with suppress(OSError, UnicodeDecodeError):
        if path.is_file():
            with path.open(encoding="utf-8") as file:
                return file.read(MAX_BYTES)
    return None


def as_typed(folder: Path) -> Path:
    """A path as one would type it from the current folder, unless that is inside of it or elsewhere."""
    path = Path(os.path.relpath(folder))
    return path if len(path.parts) > 1 and path.parts[0] != ".." else folder
