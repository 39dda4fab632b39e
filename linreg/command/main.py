"""From a command line to an exit code: quiet libraries, and one line for each thing that can go wrong."""

import inspect
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, NoReturn

import torch
from jsonargparse import auto_cli
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from linreg import evaluation, experiment
from linreg.checks.doctor import consult
from linreg.command.cli import CommandLine
from linreg.command.parser import Parser
from linreg.lecture import lecture
from linreg.processes.ends import blame, end_children, is_lost, leave_after_loss
from linreg.processes.launchers import rank_at_start
from linreg.processes.meeting import meet
from linreg.report.card import differences
from linreg.runs.recorded import SPLIT, check_held_out
from linreg.stack.draws import SEED
from linreg.system.errors import InputError, RunError, find_own, is_in_own_code, one_line, raised_in
from linreg.system.messages import NO_COMPILER
from linreg.system.screen import hide_notes, open_streams, say, wrapped

PARTS = [f"lightning/pytorch/{part}/" for part in ("callbacks", "loggers", "profilers", "strategies", "tuner")]
PARTS += ["torch/optim/"]  # what a config names, and what may then find itself misused


def find_mistake(error: BaseException) -> str | None:
    """What the user can put right about an error, as a message; None for any other error."""
    told = error if isinstance(error, MisconfigurationException) else find_own(error)
    if isinstance(told, InputError | MisconfigurationException):
        return str(told)
    if NO_COMPILER in str(error):
        return "compile() needs a C++ compiler such as g++, and there is none; install one, or leave it out"
    files = [file.replace(os.sep, "/") for file in raised_in(error)]
    if is_in_own_code(error) or not files:
        return None
    if any(file.endswith("connectors/checkpoint_connector.py") for file in files):
        return f"the run cannot go on from this checkpoint ({one_line(error)}); take another one"
    known = [file for file in files if any(part in file for part in ("lightning/", "linreg/", "torch/optim/"))]
    last = known[-1] if known else ""
    if any(part in last for part in PARTS) or ("lightning/" in last and isinstance(error, ValueError)):
        return f"{os.path.basename(last).removesuffix('.py')}: {one_line(error)}"
    return None


def quiet(thread: threading.ExceptHookArgs) -> None:
    """Prints the traceback of what ended a thread, unless a file could not be written."""
    if not issubclass(thread.exc_type, OSError):
        threading.__excepthook__(thread)


def run_command(line: CommandLine) -> None:
    """Runs the command that was typed on the model and the data that were built for it."""
    if line.arguments.task == "doctor":
        consult(line.model, line.datamodule, line.arguments.value("--name"), line.settings)
    elif line.arguments.task == "lecture":
        lecture(line.model, line.datamodule, line.settings["name"], line.settings)
    elif line.command == "fit":
        again = [text for config in line.arguments.configs if (text := differences(config, line.datamodule))]
        say(wrapped(f"        not as on the card of that run: {'; '.join(again)}"), bool(again) and not rank_at_start())
        experiment.run(line.model, line.datamodule, **line.settings)
    elif line.command == "predict":
        evaluation.predict(line.model, line.datamodule, **line.settings)
    else:
        check_held_out(line.checkpoint, line.datamodule, line.arguments.keep_the_data(SPLIT))
        is_typed = line.arguments.value("--seed_everything") is not None
        seed = str(os.environ.get(SEED) if is_typed else line.checkpoint.get("seed"))
        seed_of_run = int(seed) if seed.isdecimal() else None
        evaluation.measure(line.command, line.model, line.datamodule, seed_of_run, **line.settings)


def main(typed: list[str]) -> int:
    """Runs a command line and returns its exit code: 0 done, 1 the run failed, 2 wrong input, 128 + N signal N."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)  # small models gain nothing from more, and a busy neighbour makes them 20 times slower
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # else torch's profiler says when it starts, and when it stops
    return explained(lambda: run_command(CommandLine(typed)))


def script(function: Callable[..., None]) -> NoReturn:
    """Calls a module's main function with what was typed for its arguments, and ends as a command does."""
    module = inspect.getmodule(function)
    prog = f"python -m {module.__spec__.name}" if module and module.__spec__ else sys.argv[0]
    told: dict[str, Any] = {"prog": prog, "description": inspect.getdoc(module)}
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # which it is for a process in a shell's background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        sys.exit(explained(lambda: auto_cli(function, parser_class=Parser, **told)))
    except KeyboardInterrupt:  # a run has said how to go on
        sys.exit(130)


def explained(work: Callable[[], Any]) -> int:
    """Does some work quietly; its exit code, once a line has said what went wrong."""
    hide_notes()
    threading.excepthook = quiet  # TensorBoard's writer passes its error on to the run, which says it in a line
    open_streams()
    try:
        meet()
        work()
    except BrokenPipeError:  # `| head` has seen enough
        sys.stdout = None
        return 141
    except Exception as error:
        return explain(error)
    finally:
        end_children()
    return 0


def explain(error: Exception) -> int:
    """Says what has ended the command, and returns the exit code for it; raises what only a traceback explains."""
    if is_lost(error):
        leave_after_loss()
    if isinstance(error, OSError):
        error = RunError(f"{os.fsdecode(error.filename or 'a file')}: {error.strerror or error}")
    if isinstance(error, RunError):
        blame(str(error))
        return 1
    mistake = find_mistake(error)
    if mistake is None:
        if rank_at_start():
            blame("a traceback follows")
        raise error
    blame(mistake)
    return 2
