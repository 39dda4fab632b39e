"""Several processes of one run: which of them this one is, and what they tell each other."""

from contextlib import suppress
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from linreg.system.errors import InputError


def world() -> int:
    """How many processes have met; 1 for one that is alone, or has not met the others yet."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process among those that have met, from 0."""
    return dist.get_rank() if world() > 1 else 0


def wire() -> torch.device:
    """Where a tensor has to be for the processes to exchange it: NCCL takes none of the CPU."""
    is_nccl = world() > 1 and dist.get_backend() == "nccl"
    return torch.device("cuda", torch.cuda.current_device()) if is_nccl else torch.device("cpu")


def from_first(value: Any) -> Any:
    """The value of the first process, in all processes; each has to call this."""
    if world() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, 0, device=wire())
    return values[0]


def summed(values: Tensor) -> Tensor:
    """The sum of the values of all processes; each has to call this."""
    if world() == 1:
        return values
    total = values.to(wire(), copy=True)
    dist.all_reduce(total)
    return total.to(values.device)


def gathered(value: Any) -> list[Any]:
    """The values of all processes, in the order of their numbers; each has to call this."""
    found = [value] * world()
    if world() > 1:
        dist.all_gather_object(found, value)
    return found


def own_part(num_rows: int) -> slice:
    """The rows of this process among all of them, next to each other."""
    least, more = divmod(num_rows, world())
    start = rank() * least + min(rank(), more)
    return slice(start, start + least + (rank() < more))


def weight(num_rows: int) -> float:
    """What a mean over this process's rows counts in the mean over all processes, 0 if it has none of them."""
    part = own_part(num_rows)
    return (part.stop - part.start) * world() / num_rows


def check_agreement(what: str, value: Any) -> None:
    """InputError in all processes unless each of them has the same value, a plain one."""
    found = gathered(value)
    odd = next((i for i, other in enumerate(found) if other != found[0]), None)
    if odd is not None:
        told = f"process {odd} has {found[odd]}, process 0 has {found[0]}"
        raise InputError(f"{what}: {told}; give all of them the same files and seeds")


def numbers_of(rows: Any) -> list[str]:
    """What the first, the middle and the last row hold; nothing of rows that are not there by these numbers."""
    with suppress(Exception):  # they go by other keys, or one cannot be read, which whoever reads it will say
        return [found for i in (0, len(rows) // 2, len(rows) - 1) for found in numbers_in(rows[i])]
    return []


def numbers_in(row: Any) -> list[str]:
    """Of each tensor, or number, of a row a sum of six digits in which the order shows."""
    if isinstance(row, dict | list | tuple):
        return [found for part in (row.values() if isinstance(row, dict) else row) for found in numbers_in(part)]
    if not isinstance(row, Tensor):
        return [f"{row:.6g}"] if isinstance(row, float | int) else []
    values = row.detach().cpu().to(torch.complex128).flatten()  # of any type
    return [f"{abs(values @ torch.arange(1, len(values) + 1).to(values.dtype)):.6g}"]
