"""How a run ends that is asked to, and several processes of it: what ends one ends all, within seconds, with a line.

Whoever waits for a process that has gone is told so by its connection; a thread ends those that hear nothing.
"""

import atexit
import math
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any, NoReturn

import torch.distributed as dist
from lightning.pytorch.strategies.launchers import subprocess_script

from linreg.processes.launchers import is_child, rank_at_start
from linreg.system.errors import LIBRARIES
from linreg.system.messages import LOST_PROCESS
from linreg.system.ranks import rank
from linreg.system.screen import complain

LOOK = 0.5  # seconds between two looks at the other processes
GRACE = 4.0  # seconds for a process to end by itself; its main thread may be waiting where no signal is heard
SAME = 2.0  # seconds for the first process to say, and to end all with, what another has found as well
PATIENCE = 20.0  # seconds without a step from where a process waits for others, until it says so
QUIET = 0.01  # seconds before a process is forked
WAITS = re.compile(r"torch[\\/](distributed|nn[\\/]parallel|autograd[\\/]graph\.py)")  # files where that may be
HOOK = re.compile(r"on_\w+|log_metrics|configure_\w+|\w+_(step|dataloader)|backward|setup|log|load")
children: list["subprocess.Popen[Any]"] = []  # what ``--devices N`` has started
watching: list[socket.socket] = []  # where signals are heard, once that has begun
last_words: list[Callable[[], str]] = []  # how to go on, while there is a run that could
PROCESS = os.getpid()
received: list[int] = []  # signals that ask for an end, the first of which decides the exit code
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


def leave() -> None:
    """Raises SystemExit, once, with the exit code that a shell expects of a stopped program."""
    global leaving
    if not leaving:
        leaving = True
        raise SystemExit(128 + received[0])


def watch(child_processes: "list[subprocess.Popen[Any]] | None" = None) -> None:
    """Begins to look after signals and the processes it has started, in a thread: the main one may be waiting in C."""
    children[:] = child_processes or []
    if watching:
        return
    with suppress(ValueError):  # not in the main thread
        hears, tells = socket.socketpair()
        tells.setblocking(False)
        signal.set_wakeup_fd(tells.fileno(), warn_on_full_buffer=False)
        watching.extend((hears, tells))  # closed with the process
        threading.Thread(target=_look_after, args=(hears, os.getppid()), daemon=True).start()
        os.register_at_fork(before=let_threads_finish)
        atexit.register(leave_group)


def leave_group() -> None:
    """Says goodbye to the other processes; NCCL complains of one that has not."""
    if dist.is_initialized():
        dist.destroy_process_group()


def let_threads_finish() -> None:
    """Waits for gloo's threads, which let go of the tensors of a message behind it, and for that enter Python.

    A process that Python 3.11 forks at that moment, as of a DataLoader's worker, waits for a lock of theirs for ever.
    """
    if dist.is_initialized():
        time.sleep(QUIET)
        sys._current_frames()  # takes that lock, and gives it back


# Lightning's own observer kills the first process, without a word, when another one has ended.
subprocess_script._launch_process_observer = watch


def _look_after(hears: socket.socket, parent: int) -> None:
    follows, still = is_child(), Stillness()
    while True:
        still.look()
        ready, _, _ = select.select([hears], [], [], LOOK)
        for number in hears.recv(64) if ready else b"":
            if signal.getsignal(number) is stop:
                time.sleep(GRACE)
                end(128 + number, "" if rank_at_start() else _with_last_words("stopped"))
        if follows and os.getppid() != parent:
            lost = _with_last_words("error: the first process of the run was lost")
            end(1, lost if rank_at_start() == 1 else "")
        if any(process.poll() or (process.poll() == 0 and not dist.is_initialized()) for process in children):
            time.sleep(GRACE)
            end(*reason_of_loss())


class Stillness:
    """Says, once, where the main thread has been waiting for another process for long: nothing else would."""

    def __init__(self) -> None:
        self.place, self.since = [(0, 0)], math.inf

    def look(self) -> None:
        """Compares where the main thread is with where it was."""
        inner = sys._current_frames().get(threading.main_thread().ident or 0)
        frames = [frame for frame, _ in traceback.walk_stack(inner)] if inner else []  # from there outwards
        place = [(id(frame), frame.f_lasti) for frame in frames]
        if place != self.place:
            self.place, self.since = place, time.monotonic()
        elif frames and time.monotonic() - self.since > PATIENCE and WAITS.search(frames[0].f_code.co_filename):
            self.since = math.inf
            hooks = [each for each in frames if HOOK.fullmatch(each.f_code.co_name)]
            own = [each for each in hooks if not each.f_code.co_filename.startswith(LIBRARIES)]
            frame = [*own, *hooks, *frames][0]
            logs = [each.f_locals["name"] for each in frames if each.f_code.co_name == "log_own_rows"]
            where = f"{frame.f_code.co_name} ({frame.f_code.co_filename}, line {frame.f_lineno})"
            where = f"self.log({logs[0]!r}) of {where}" if logs else where
            why = "does one of them log, or leave out a weight, alone?"
            complain(f"process {rank()} waits for the others, for {PATIENCE:.0f} s so far, in {where}: {why}")


def reason_of_loss() -> tuple[int, str]:
    """The exit code that a lost process leaves to this one, and what is to be said: nothing if it has said it."""
    end = time.monotonic() + GRACE  # a connection breaks before a process has said why, and is gone
    while children and not any(process.poll() for process in children) and time.monotonic() < end:
        time.sleep(0.05)
    code = max((process.poll() or 0 for process in children), default=0)
    if code > 128:
        return code, _with_last_words("stopped")
    return (code, "") if code > 0 else (1, _with_last_words("error: another process of the run was lost"))


def _with_last_words(text: str) -> str:
    return "; ".join([text, *(words() for words in last_words)])


def leave_after_loss() -> NoReturn:
    """Ends this process once another one has gone; the first two say so, of which one is left."""
    if is_child():
        time.sleep(2 * GRACE)  # the first one ends it, or else the thread that looks after that one
    code, text = reason_of_loss()
    if text and rank_at_start() < 2:
        complain(text)
    raise SystemExit(code)


def is_lost(error: BaseException) -> bool:
    """Whether an error says that another process has gone."""
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in LOST_PROCESS)


def end(code: int, text: str = "") -> NoReturn:
    """Ends this process and its children at once, from any thread."""
    end_children()
    if text:
        complain(text)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def end_children() -> None:
    """Ends what this process has started, which would wait for it for ever."""
    for process in children:
        process.kill()


def blame(message: str) -> None:
    """Says an error, with the number of the process that has found it.

    The first one may be about to say the same, and to end all others, which wait for that a moment.
    """
    if number := rank() or rank_at_start():
        time.sleep(SAME)
    complain(f"error: process {number}: {message}" if number else f"error: {message}")
