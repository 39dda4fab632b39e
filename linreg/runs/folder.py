"""A run's folder, ``runs/NAME/version_N``: its number, its config, and its TensorBoard events."""

import os
import re
import uuid
from argparse import Namespace
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch.utils.tensorboard.summary import hparams

from linreg.errors import InputError, RunError
from linreg.safety.safe_yaml import read_config
from linreg.screen import say

ROOT = Path("runs")
RUN_FOLDER = "LINREG_RUN_FOLDER"  # an environment variable
FIRST_PROCESS = "LINREG_FIRST_PROCESS"  # another one: its id, by which those that it has started know that
RUN_MARK = r"# run ([0-9a-f]{32})\n"  # the first line of config.yaml: which run the folder is of


def new_run_folder(name: str) -> Path:
    """Makes ``runs/NAME/version_N`` with the first N that is free; two runs started at once get two folders."""
    if not re.fullmatch(r"\w[\w. -]{0,99}", name):
        raise InputError(
            f"--name {name[:120]!r}: at most 100 letters, digits, '.', '_', '-' and spaces are expected, a letter first"
        )
    try:
        (ROOT / name).mkdir(parents=True, exist_ok=True)
        taken = [int(path.name[8:]) for path in (ROOT / name).glob("version_*") if path.name[8:].isdecimal()]
        number = max(taken, default=-1) + 1
        while True:
            try:
                folder = ROOT / name / f"version_{number}"
                folder.mkdir()
                return folder
            except FileExistsError:
                number += 1
    except OSError as error:
        raise RunError(f"{ROOT / name}: a folder for the run cannot be made there: {error.strerror}") from None


def newest_checkpoint(name: str) -> Path | None:
    """Where the newest run of a name stands; None if none of them has saved anything."""
    found = (ROOT / name).glob("version_*/checkpoints/last.ckpt")
    numbered = [(int(path.parts[-3][8:]), path) for path in found if path.parts[-3][8:].isdecimal()]
    return max(numbered)[1] if numbered else None


class RunLogger(TensorBoardLogger):
    """Writes the curves to a run's folder, under the tags ``metric/stage`` and nothing else.

    Args:
        folder: the run's folder.
        purge_step: on resume, the step from which on older events are void.
        run: what tells the run from all others, wherever its folder is moved.
        lock: on the folder, held until ``close``.
        curves: whether there are any; without them the folder is kept all the same.
    """

    def __init__(
        self,
        folder: Path,
        purge_step: int | None = None,
        run: str = "",
        lock: FileLock | None = None,
        curves: bool = True,
    ) -> None:
        root, name, version = folder.parents[1], folder.parent.name, folder.name
        number = int(version[8:]) if re.fullmatch(r"version_\d+", version) else version
        super().__init__(root, name, number, default_hp_metric=False, purge_step=purge_step)
        self.run, self.lock, self.curves, self.is_open = run, lock, curves, False
        self.written: dict[str, int | None] = {}  # the newest step of each tag

    @property
    def experiment(self) -> Any:
        # Lightning asks for it before it is known that the run can go on; once opened, it voids older events.
        return super().experiment if self.is_open else None

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        new = {tag: value for tag, value in metrics.items() if tag != "epoch" and self.written.get(tag, -1) != step}
        self.written.update(dict.fromkeys(new, step))
        if self.is_open:
            super().log_metrics(new, step)

    @rank_zero_only
    def log_start(self, settings: dict[str, Any], metrics: Sequence[str]) -> None:
        """Declares the HParams table, whose metrics TensorBoard fills in by itself, and the chart of all losses."""
        self.is_open = self.curves
        if not self.curves:
            return
        writer = self.experiment
        for summary in hparams(settings, dict.fromkeys(metrics, 0)):
            writer.file_writer.add_summary(summary)
        chart = ["Multiline", ["loss/train", "loss/val", "loss/exact"]]
        writer.add_custom_scalars({"loss": {"training, validation, exact solution": chart}})

    def close(self) -> None:
        """Lets other processes into the folder."""
        if self.lock is not None:
            with suppress(OSError):  # a system that keeps open files, a folder that has vanished
                if mark_of(Path(self.log_dir)) in (self.run, None):  # not the lock of a run that has taken its place
                    os.unlink(self.lock.lock_file)
            self.lock.release()

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Lightning's own call; ``log_start`` has what is worth logging."""

    @rank_zero_only
    def save(self) -> None:
        if self.is_open:
            self.experiment.flush()  # and no hparams.yaml beside config.yaml


def is_first_known() -> bool:
    """Whether this process was started by the first one of a run, or is one that has had a run itself."""
    ids = [str(os.getpid()), str(os.getppid())]
    is_known = os.environ.get(FIRST_PROCESS) in ids
    if getattr(rank_zero_only, "rank", 0) == 0 and (is_known or os.environ.get("WORLD_SIZE", "1") == "1"):
        os.environ[FIRST_PROCESS] = ids[0]
    return is_known


def open_run(name: str, ckpt_path: str | None, checkpoint: dict[str, Any] | None, curves: bool = True) -> RunLogger:
    """The logger of a new run, or of the one that a checkpoint belongs to if it lies in its run's folder.

    Raises:
        InputError: if another process is at work in that folder.
    """
    if getattr(rank_zero_only, "rank", 0) != 0:  # one of the processes that Lightning has started for --devices
        return RunLogger(Path(os.environ[RUN_FOLDER]), curves=curves)
    folder, purge_step, run = None, None, uuid.uuid4().hex
    if ckpt_path and checkpoint:
        path = Path(ckpt_path).resolve()  # through links
        lies_in = path.parents[1] if path.parent.name == "checkpoints" else path.parent
        if lies_in != path.parent and is_run_of(lies_in, checkpoint):
            folder, purge_step, run = near(lies_in), checkpoint["global_step"], checkpoint.get("run", run)
        else:
            say(f"        in a new folder: {ckpt_path} does not lie in that of its own run")
    folder = folder or new_run_folder(name)
    os.environ[RUN_FOLDER] = str(folder)
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise InputError(f"{folder}: another process is at work in this run; wait for its end, or stop it") from None
    return RunLogger(folder, purge_step, run, lock, curves)


def is_run_of(folder: Path, checkpoint: dict[str, Any]) -> bool:
    """Whether a folder is that of the run which has written a checkpoint, and not merely called like one."""
    try:
        text = (folder / "config.yaml").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    mark = mark_of(folder)
    if mark or "run" in checkpoint:
        return mark == checkpoint.get("run")
    before, now = (read_config(config, "config.yaml") for config in (checkpoint.get("config", ""), text))
    return before is not None and all(before.get(part) == now.get(part) for part in ("data", "model"))  # an older run


def mark_of(folder: Path) -> str | None:
    """Which run a folder is of; None if it is none, or one of an older version."""
    with suppress(OSError, UnicodeDecodeError), (folder / "config.yaml").open(encoding="utf-8") as file:
        found = re.fullmatch(RUN_MARK, file.readline(100))
        return found[1] if found else None
    return None


def near(folder: Path) -> Path:
    """A path as one would type it from the current folder, unless that is inside of it or elsewhere."""
    path = Path(os.path.relpath(folder))
    return path if len(path.parts) > 1 and path.parts[0] != ".." else folder
