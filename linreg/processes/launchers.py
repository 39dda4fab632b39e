"""What has started this process: a launcher such as torchrun, the first process of ``--devices N``, or a user."""

import os
from functools import cache

from lightning.pytorch.plugins.environments import ClusterEnvironment, SLURMEnvironment, TorchElasticEnvironment
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from linreg.system.errors import InputError

FIRST_PROCESS = "LINREG_FIRST_PROCESS"  # an environment variable: its id, by which those that it has started know that


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


def check_port() -> None:
    """InputError for a MASTER_PORT, where the processes meet, that is none."""
    port = os.environ.get("MASTER_PORT", "1")
    if not (port.isdecimal() and 0 < int(port) < 65_536):
        raise InputError(f"MASTER_PORT={port}: a port from 1 to 65535 is expected; put it right, or unset it")


def rank_at_start() -> int:
    """The number of this process as its environment says, before it has met the others."""
    return getattr(rank_zero_only, "rank", None) or 0


@cache  # since one whose first process has gone is still its child
def is_child() -> bool:
    """Whether this is one of the processes that ``--devices N`` has started."""
    return rank_at_start() != 0 and launcher() is None and is_first_known()


def is_first_known() -> bool:
    """Whether this process was started by the first one of a run, or is one that has had a run itself."""
    ids = [str(os.getpid()), str(os.getppid())]
    is_known = os.environ.get(FIRST_PROCESS) in ids
    if rank_at_start() == 0 and (is_known or os.environ.get("WORLD_SIZE", "1") == "1"):
        os.environ[FIRST_PROCESS] = ids[0]
    return is_known
