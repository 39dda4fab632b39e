"""What several processes tell each other: by which connection, and which values it takes."""

import atexit
from typing import Any

import torch
from lightning.pytorch.strategies import ParallelStrategy
from torch import Tensor

from linreg.processes.ends import leave_group
from linreg.processes.launchers import check_port
from linreg.system.ranks import world


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
