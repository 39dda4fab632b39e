"""How a run ends early: stopped, without a file to write to, or without its other processes; one line for each."""

import os
import shlex
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, Timer

from linreg.processes import ends
from linreg.processes.ends import end, end_children, is_lost, last_words, leave, leave_after_loss, received, stop
from linreg.system.errors import RunError
from linreg.system.screen import complain, say


class StopBetweenBatches(Callback):
    """Ends a run that a signal has asked to stop."""

    has_begun = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.has_begun = True
        if signal.getsignal(signal.SIGINT) is stop:  # Lightning's own talks to the others from within it, and may hang
            signal.signal(signal.SIGTERM, stop)
        self._look(True)

    def on_train_batch_start(self, *args: Any, **kwargs: Any) -> None:
        if received:
            leave()

    on_validation_batch_start = on_train_batch_start

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._look(False)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for why in reasons(trainer):
            say(f"stop    after step {trainer.global_step:,}: {why}", trainer.is_global_zero)

    def _look(self, on: bool) -> None:
        ends.between_batches = on
        if received:
            leave()


def reasons(trainer: Trainer) -> list[str]:
    """Why a callback of Lightning's has ended a training."""
    found = []
    for callback in trainer.callbacks if trainer.should_stop else []:  # type: ignore[attr-defined]
        if isinstance(callback, EarlyStopping) and callback.stopping_reason_message:
            found.append(callback.stopping_reason_message.removesuffix(" Signaling Trainer to stop."))
        if isinstance(callback, Timer) and (callback.time_remaining() or 0.0) < 0:
            found.append("--max_time has passed")
    return found


@contextmanager
def explain_interruption(trainer: Trainer) -> Iterator[None]:
    """Says how to resume when a signal stops the run, and makes a RunError of what the machine denies it.

    In Python without signal handlers of ours, Ctrl-C stays a KeyboardInterrupt, which Lightning makes a SystemExit.
    """
    on_interrupt = signal.getsignal(signal.SIGINT)
    last_words[:] = [lambda: how_to_resume(trainer)]
    try:
        yield
    except BaseException as error:
        ends.leaving = True  # a signal does not interrupt this
        if is_lost(error) and not received:
            if not trainer.is_global_zero:
                leave_after_loss()
            time.sleep(0.5)  # what has ended the other one may be on its way to this one
        ends.between_batches, ends.leaving = False, bool(received)
        if isinstance(error, SystemExit) and isinstance(error.__context__, KeyboardInterrupt):
            signal.signal(signal.SIGINT, on_interrupt)  # Lightning leaves it ignored
            complain(f"stopped; {how_to_resume(trainer, 'run(model, data, ckpt_path={!r})')}")
            raise KeyboardInterrupt from None
        if received or isinstance(error, SystemExit):
            code = 128 + received[0] if received else getattr(error, "code", 1)
            if not trainer.is_global_zero:
                end(code)  # at once: the first one waits for it to say how to go on
            complain(f"stopped; {how_to_resume(trainer)}")
            end_children()
            raise SystemExit(code) from None
        what = _denied(error)
        if what is None:
            if is_lost(error):
                leave_after_loss()
            raise
        raise RunError(f"{what}; {how_to_resume(trainer)}") from None


def _denied(error: BaseException) -> str | None:
    """What the machine has denied a run; None for any other error."""
    if isinstance(error, RunError) and isinstance(error.__cause__, OSError):
        return str(error)
    if isinstance(error.__cause__, OSError):  # TensorBoard's, of whatever Lightning was about to log
        error = error.__cause__
    if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
        what = os.fsdecode(error.filename) if error.filename else "a file of the run"
        return f"{what} could not be written: {error.strerror or error}"
    return None


def how_to_resume(trainer: Trainer, call: str | None = None) -> str:
    """The command, or the call in Python, that goes on from where a stopped run was last saved."""
    saved = [getattr(callback, "best_model_path", "") for callback in trainer.checkpoint_callbacks]
    last = [path for path in saved if path.endswith("last.ckpt") and os.path.exists(path)]
    callbacks = getattr(trainer, "callbacks", [])
    if not last:
        has_begun = any(getattr(each, "has_begun", False) for each in callbacks)
        return "no epoch was saved, so there is nothing to resume" if has_begun else "no step was taken"
    lost = next((trainer.global_step - each.newest for each in callbacks if hasattr(each, "newest")), 0)
    before = f"{lost:,} step(s) since the last save are lost; " if lost > 0 else ""
    if call:
        return f"{before}resume it with: {call.format(os.path.relpath(last[0]))}"
    flags = next((each.resume_flags for each in callbacks if hasattr(each, "resume_flags")), "")
    return f"{before}resume it with: python train.py --ckpt_path {shlex.quote(os.path.relpath(last[0]))}{flags}"
