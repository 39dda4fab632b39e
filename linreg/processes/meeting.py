"""How several processes of one run meet, and by which connection; ``--devices N``, ``torchrun``, ``srun`` start them.

Those of ``torchrun`` and ``srun`` meet first of all, so that whatever fails later ends them all. Those of ``--devices
N`` are children of the first one, and meet where Lightning's training begins.
"""

import atexit
import os
import threading
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.strategies import ParallelStrategy
from torch import Tensor

from linreg.processes.ends import GRACE, leave_group, watch, watching
from linreg.processes.launchers import check_port, is_child, is_first_known, launcher, rank_at_start
from linreg.system.errors import InputError, RunError, one_line
from linreg.system.ranks import world
from linreg.system.screen import complain


def launched(settings: dict[str, Any]) -> dict[str, Any]:
    """The Trainer's flags with the launcher's devices and machines; InputError for others that are typed."""
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
    total = found.world_size()
    local = int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("SLURM_NTASKS_PER_NODE") or total)
    started, gpus = {"devices": local, "num_nodes": total // local}, torch.cuda.device_count()
    if settings["accelerator"] in ("auto", "gpu", "cuda") and 0 < gpus < local:
        remedy = "start one for each, or give --accelerator cpu"
        raise InputError(f"{local} processes were started where there are {gpus} GPU(s); {remedy}")
    if typed not in ("auto", local, str(local)) or nodes not in (1, total // local):
        who = "srun" if isinstance(found, SLURMEnvironment) else "torchrun"
        by = f"{who} has started {local} process(es) on {total // local} machine(s)"
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
    total, number, where = found.world_size(), found.global_rank(), f"{found.main_address}:{found.main_port}"
    os.environ.update(MASTER_ADDR=found.main_address, MASTER_PORT=str(found.main_port))
    patience = threading.Timer(GRACE, complain, [f"process {number} of {total} waits for the others at {where}"])
    patience.daemon = True
    patience.start()
    try:
        dist.init_process_group(backend(), rank=number, world_size=total)
    except RuntimeError as error:
        raise RunError(f"the {total} processes have not met at {where}: {one_line(error)}") from None
    finally:
        patience.cancel()


def backend() -> str:
    """What carries tensors between processes; on GPUs also those of the CPU, of which NCCL, Lightning's, takes none."""
    return "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"


def tell_everything(strategy: Any) -> None:
    """Lets the processes of a strategy tell each other any values: what lies on the CPU, and means of counts."""
    if not isinstance(strategy, ParallelStrategy):
        return
    check_port()
    reduce, own = strategy.reduce, vars(strategy)

    def reduce_any(value: Any, group: Any = None, reduce_op: Any = "mean") -> Any:
        if not isinstance(value, Tensor):
            return value
        exact = value.to(strategy.root_device, torch.float64)  # another process may have it as another type
        is_mean = str(reduce_op).lower() in ("mean", "avg")  # of counts, by which Lightning divides, it rounds down
        found = reduce(exact, group, "sum") / world() if is_mean else reduce(exact, group, reduce_op)
        return found.to(value.dtype) if value.is_floating_point() else found

    own["reduce"], own["_process_group_backend"] = reduce_any, own.get("_process_group_backend") or backend()
    atexit.register(leave_group)
