"""How a run ends early: stopped, without a file to write to, or without its other processes; one line for each."""

import os
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from linreg.errors import RunError
from linreg.messages import LOST_PROCESS
from linreg.screen import complain

PROCESS = os.getpid()
received: list[int] = []  # signals, the first of which decides the exit code
between_batches = False  # whether a callback is about to look at them
leaving = False


def stop(number: int, frame: FrameType | None) -> None:
    """A signal handler: ends a training at its next batch, or at once if asked twice; all else at once.

    An exception that is raised between any two instructions can be lost in a library, with a traceback on screen.
    """
    if os.getpid() != PROCESS:
        return  # a worker of a DataLoader, which its parent ends
    received.append(number)
    sys.unraisablehook = lambda _: None  # whatever else breaks now is no news
    if not between_batches or len(received) > 1:
        leave()


def follow(number: int, frame: FrameType | None) -> None:
    """The signal handler of the other processes of ``--devices N``: they end with the first."""


def leave() -> None:
    """Raises SystemExit, once, with the exit code that a shell expects of a stopped program."""
    global leaving
    if not leaving:
        leaving = True
        raise SystemExit(128 + received[0])


class StopBetweenBatches(Callback):
    """Ends a run that a signal has asked to stop."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        ours = signal.getsignal(signal.SIGINT)
        if ours in (stop, follow):  # Lightning's own talks to the other processes from within the handler, and may hang
            signal.signal(signal.SIGTERM, ours)
        self._look(True)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if received:
            leave()

    def on_validation_batch_start(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        if received:
            leave()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._look(False)

    def _look(self, on: bool) -> None:
        global between_batches
        between_batches = on
        if received:
            leave()


@contextmanager
def explain_interruption(trainer: Trainer) -> Iterator[None]:
    """Says how to resume when a signal stops the run, and makes a RunError of what the machine denies it."""
    global between_batches
    try:
        yield
    except BaseException as error:
        between_batches = False
        if received or isinstance(error, SystemExit):
            if trainer.is_global_zero:
                complain(f"stopped; {how_to_resume(trainer)}")
                end_other_processes(trainer)
            raise SystemExit(128 + received[0] if received else getattr(error, "code", 1)) from None
        what = _denied(error)
        if what is None:
            raise
        if not trainer.is_global_zero:
            os._exit(1)  # the first process has ended, and has said why
        end_other_processes(trainer)
        raise RunError(f"{what}; {how_to_resume(trainer)}") from None


def _denied(error: BaseException) -> str | None:
    """What the machine has denied a run: a file, or one of its processes; None for any other error."""
    if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
        what = os.fsdecode(error.filename) if error.filename else "a file of the run"
        return f"{what} could not be written: {error.strerror or error}"
    lost = isinstance(error, RuntimeError) and any(sign in str(error) for sign in LOST_PROCESS)
    return "another process of the run was lost" if lost else None


def how_to_resume(trainer: Trainer) -> str:
    """The command that goes on from where a stopped run was last saved."""
    saved = [getattr(callback, "best_model_path", "") for callback in trainer.checkpoint_callbacks]
    last = [path for path in saved if path.endswith("last.ckpt") and os.path.exists(path)]
    if not last:
        return "no epoch was saved, so there is nothing to resume"
    flags = next((each.resume_flags for each in getattr(trainer, "callbacks", []) if hasattr(each, "resume_flags")), "")
    return f"resume it with: python train.py --ckpt_path {shlex.quote(os.path.relpath(last[0]))}{flags}"


def end_other_processes(trainer: Trainer) -> None:
    """Ends what ``--devices N`` has started, which would wait for this process for ever."""
    for process in getattr(trainer.strategy.launcher, "procs", []):
        process.kill()
