"""How a run ends early: stopped, without a file to write to, or without its other processes; one line for each."""

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from lightning.pytorch import Trainer

from linreg.errors import RunError


@contextmanager
def one_line_endings(trainer: Trainer) -> Iterator[None]:
    """Says how to resume when a signal stops the run, and makes a RunError of what the machine denies it."""
    try:
        yield
    except SystemExit:
        if trainer.is_global_zero:
            print(f"stopped; {how_to_resume(trainer)}", file=sys.stderr)
            end_other_processes(trainer)
        raise
    except BrokenPipeError:  # nobody reads what is printed
        raise
    except OSError as error:
        what = os.fsdecode(error.filename) if error.filename else "a file of the run"
        raise RunError(f"{what} could not be written: {error.strerror or error}; {how_to_resume(trainer)}") from None
    except RuntimeError as error:
        if "Connection closed by peer" not in str(error) and "Connection reset by peer" not in str(error):
            raise
        if not trainer.is_global_zero:
            os._exit(1)  # the first process has ended, and has said why
        end_other_processes(trainer)
        raise RunError(f"another process of the run was lost; {how_to_resume(trainer)}") from None


def how_to_resume(trainer: Trainer) -> str:
    """The command that goes on from where a stopped run was last saved."""
    saved = [callback.best_model_path for callback in trainer.checkpoint_callbacks]
    last = [path for path in saved if path.endswith("last.ckpt") and os.path.exists(path)]
    if not last:
        return "no epoch was saved, so there is nothing to resume"
    return f"resume it with: python train.py --ckpt_path {shlex.quote(os.path.relpath(last[0]))}"


def end_other_processes(trainer: Trainer) -> None:
    """Ends what ``--devices N`` has started, which would wait for this process for ever."""
    for process in getattr(trainer.strategy.launcher, "procs", []):
        process.kill()
