"""How several processes of one run meet; ``--devices N``, ``torchrun`` and ``srun`` are ways to start them.

Those of ``torchrun`` and ``srun`` meet first of all, so that whatever fails later ends them all. Those of ``--devices
N`` are children of the first one, and meet where Lightning's training begins.
"""

import os
import threading
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch.plugins.environments import SLURMEnvironment

from linreg.processes.ends import GRACE, watch, watching
from linreg.processes.launchers import check_port, is_child, is_first_known, launcher, rank_at_start
from linreg.processes.wire import backend
from linreg.system.errors import InputError, RunError, one_line
from linreg.system.screen import complain


def launched(settings: dict[str, Any]) -> dict[str, Any]:
    """The Trainer's flags with the devices and machines of the launcher, where these are not typed.

    Raises:
        InputError: for others than the launcher has started, or than this command can start.
    """
    strategy = str(getattr(settings["strategy"], "_start_method", settings["strategy"]))
    if any(way in strategy for way in ("spawn", "fork", "notebook")):
        raise InputError(f"--strategy {strategy}: what its processes have learned would be lost with them; give ddp")
    meet()  # unless the command has; this may be a program of the user's own
    found, typed, nodes = launcher(), settings["devices"], settings["num_nodes"]
    if found is None:
        is_known = is_first_known()  # from now on, to those that this one is going to start
        if not is_known and (os.environ.get("WORLD_SIZE", "1") != "1" or rank_at_start() != 0):
            raise InputError("a rank and a WORLD_SIZE, but no launcher: start with --devices N, torchrun or srun")
        if nodes != 1:
            raise InputError(f"--num_nodes {nodes}: start each machine's processes with torchrun or srun")
        return settings
    world = found.world_size()
    local = int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("SLURM_NTASKS_PER_NODE") or world)
    started, gpus = {"devices": local, "num_nodes": world // local}, torch.cuda.device_count()
    if settings["accelerator"] in ("auto", "gpu", "cuda") and 0 < gpus < local:
        remedy = "start one for each, or give --accelerator cpu"
        raise InputError(f"{local} processes were started where there are {gpus} GPU(s); {remedy}")
    if typed not in ("auto", local, str(local)) or nodes not in (1, world // local):
        who = "srun" if isinstance(found, SLURMEnvironment) else "torchrun"
        by = f"{who} has started {local} process(es) on {world // local} machine(s)"
        raise InputError(f"--devices {typed} --num_nodes {nodes}: {by}; leave them out")
    return settings | started | {"plugins": [*settings["plugins"], found]}


def meet() -> None:
    """Waits for the other processes of a launcher; nothing for one that is alone, or is going to start the others."""
    if dist.is_initialized() or watching:
        return
    found = launcher()
    if is_child() or (found and found.world_size() > 1):
        watch()
    if found is None or found.world_size() == 1:
        return
    check_port()
    world, number, where = found.world_size(), found.global_rank(), f"{found.main_address}:{found.main_port}"
    os.environ.update(MASTER_ADDR=found.main_address, MASTER_PORT=str(found.main_port))
    patience = threading.Timer(GRACE, complain, [f"process {number} of {world} waits for the others at {where}"])
    patience.daemon = True
    patience.start()
    try:
        dist.init_process_group(backend(), rank=number, world_size=world)
    except RuntimeError as error:
        raise RunError(f"the {world} processes have not met at {where}: {one_line(error)}") from None
    finally:
        patience.cancel()
