"""How several processes of one run begin and end; ``--devices N``, ``torchrun`` and ``srun`` are ways to start them.

Those of ``torchrun`` and ``srun`` meet first of all, so that whatever fails later ends them all: whoever waits for a
process that has gone is told so by its connection. Those of ``--devices N`` are children of the first one.
"""

import atexit
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch.plugins.environments import ClusterEnvironment, SLURMEnvironment, TorchElasticEnvironment
from lightning.pytorch.strategies.launchers import subprocess_script
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from linreg.runs.folder import is_first_known
from linreg.system.errors import InputError, RunError, one_line
from linreg.system.messages import LOST_PROCESS
from linreg.system.ranks import rank
from linreg.system.screen import complain

LOOK = 0.5  # seconds between two looks at the other processes
GRACE = 5.0  # seconds for a process to end by itself; its main thread may be waiting where no signal is heard
SAME = 2.0  # seconds for the first process to say, and to end all with, what another has found as well
children: list["subprocess.Popen[Any]"] = []  # what ``--devices N`` has started
watching: list[socket.socket] = []  # where signals are heard, once that has begun
last_words: list[Callable[[], str]] = []  # how to go on, while there is a run that could


def launcher() -> ClusterEnvironment | None:
    """What has started this process together with others: torchrun, or else srun; None if nothing has."""
    if TorchElasticEnvironment.detect():
        return TorchElasticEnvironment()
    if not SLURMEnvironment.detect():
        return None
    nodes = int(os.environ.get("SLURM_NNODES", "1"))
    os.environ.setdefault("SLURM_NNODES", str(nodes))
    os.environ.setdefault("SLURM_NTASKS_PER_NODE", str(int(os.environ["SLURM_NTASKS"]) // nodes))
    missing = [name for name in ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID") if name not in os.environ]
    if missing:
        raise InputError(f"SLURM_NTASKS is set, and {missing[0]} is not: start with srun, or unset SLURM_NTASKS")
    return SLURMEnvironment(auto_requeue=False)  # which would save in mid-step, and outside of the run's folder


def launched(settings: dict[str, Any]) -> dict[str, Any]:
    """The Trainer's flags with the devices and machines of the launcher, where these are not typed.

    Raises:
        InputError: for others than the launcher has started, or than this command can start.
    """
    strategy = str(getattr(settings["strategy"], "_start_method", settings["strategy"]))
    if any(way in strategy for way in ("spawn", "fork", "notebook")):
        raise InputError(f"--strategy {strategy}: what its processes have learned would be lost with them; give ddp")
    meet()  # unless the command has; this may be a program of the user's own
    found, nodes = launcher(), settings["num_nodes"]
    if found is None:
        is_known = is_first_known()  # from now on, to those that this one is going to start
        if not is_known and (os.environ.get("WORLD_SIZE", "1") != "1" or rank_at_start() != 0):
            raise InputError("a rank and a WORLD_SIZE, but no launcher: start with --devices N, torchrun or srun")
        if nodes != 1:
            raise InputError(f"--num_nodes {nodes}: start each machine's processes with torchrun or srun")
        return settings
    world, local = found.world_size(), os.environ.get("LOCAL_WORLD_SIZE", os.environ.get("SLURM_NTASKS_PER_NODE"))
    started = {"devices": int(local or world), "num_nodes": world // int(local or world)}
    if settings["devices"] not in ("auto", started["devices"], str(started["devices"])) or nodes not in (
        1,
        started["num_nodes"],
    ):
        who = "srun" if isinstance(found, SLURMEnvironment) else "torchrun"
        raise InputError(
            f"--devices {settings['devices']} --num_nodes {nodes}: {who} "
            f"has started {started['devices']} process(es) on {started['num_nodes']} machine(s); leave them out"
        )
    return settings | started | {"plugins": [*settings["plugins"], found]}


def rank_at_start() -> int:
    """The number of this process as its environment says, before it has met the others."""
    return getattr(rank_zero_only, "rank", None) or 0


def is_child() -> bool:
    """Whether this is one of the processes that ``--devices N`` has started."""
    return rank_at_start() != 0 and launcher() is None and is_first_known()


def meet() -> None:
    """Waits for the other processes of a launcher; nothing for one that is alone, or is going to start the others."""
    if dist.is_initialized() or watching:
        return
    found = launcher()
    if is_child():
        watch()
    if found is None or found.world_size() == 1:
        return
    watch()
    world, number, where = found.world_size(), found.global_rank(), f"{found.main_address}:{found.main_port}"
    os.environ.update(MASTER_ADDR=found.main_address, MASTER_PORT=str(found.main_port))
    patience = threading.Timer(GRACE, complain, [f"process {number} of {world} waits for the others at {where}"])
    patience.daemon = True
    patience.start()
    try:
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, rank=number, world_size=world)
    except RuntimeError as error:
        raise RunError(f"the {world} processes have not met at {where}: {one_line(error)}") from None
    finally:
        patience.cancel()
    atexit.register(lambda: dist.destroy_process_group() if dist.is_initialized() else None)


def watch(child_processes: "list[subprocess.Popen[Any]] | None" = None) -> None:
    """Begins to look after signals and the other processes, in a thread: the main one may be waiting in C.

    Args:
        child_processes: what was started, each to be ended with this process, and this one with each.
    """
    children[:] = child_processes or []
    if watching:
        return
    with suppress(ValueError):  # not in the main thread
        hears, tells = socket.socketpair()
        tells.setblocking(False)
        signal.set_wakeup_fd(tells.fileno(), warn_on_full_buffer=False)
        watching.extend((hears, tells))  # closed with the process
        threading.Thread(target=_look_after, args=(hears, os.getppid()), daemon=True).start()


# Lightning's own observer kills the first process, without a word, when another one has ended.
subprocess_script._launch_process_observer = watch


def _look_after(hears: socket.socket, parent: int) -> None:
    follows = is_child()
    while True:
        ready, _, _ = select.select([hears], [], [], LOOK)
        for number in hears.recv(64) if ready else b"":
            if getattr(signal.getsignal(number), "__module__", None) == "linreg.stack.stopping":
                time.sleep(GRACE)
                _end(
                    128 + number, "" if rank_at_start() else "; ".join(["stopped", *(words() for words in last_words)])
                )
        if follows and os.getppid() != parent:
            _end(1)
        if any(process.poll() for process in children):
            time.sleep(GRACE)
            code, text = code_of_lost()
            _end(code, text and f"error: {text}")


def code_of_lost() -> tuple[int, str]:
    """The exit code that a lost process leaves to this one, and what is to be said: nothing if it has said it."""
    end = time.monotonic() + GRACE  # a connection breaks before a process has said why, and is gone
    while children and not any(process.poll() for process in children) and time.monotonic() < end:
        time.sleep(0.05)
    codes = [process.poll() or 0 for process in children]
    said = next((code for code in codes if code > 0), None)
    text = "; ".join(["another process of the run was lost", *(words() for words in last_words)])
    return (1, text) if said is None else (said, "")


def after_loss() -> BaseException:
    """What to raise once another process has gone: the first one says so, unless that one has said why."""
    code, text = code_of_lost()
    return SystemExit(code) if rank_at_start() or not text else RunError(text)


def is_lost(error: BaseException) -> bool:
    """Whether an error says that another process has gone."""
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in LOST_PROCESS)


def _end(code: int, text: str = "") -> None:
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
