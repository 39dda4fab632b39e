"""Whether a checkpoint holds what a training can go on from exactly: by kind, shape and size of its parts."""

import math
from typing import Any

import torch
from torch import Tensor

from linreg.system.errors import InputError

LARGEST = 2**53
STATE = {"callbacks": dict, "loops": dict, "optimizer_states": list, "lr_schedulers": list, "epoch": int}
STATE |= {"global_step": int}
LOOPS: dict[str, Any] = {  # of the loops, a value of each kind in its place; see ``check_kind``
    "fit_loop": {
        "state_dict": {},
        "epoch_progress": {"current": {"started": 0, "processed": 0}},
        "epoch_loop.batch_progress": {"total": {"ready": 0}, "current": {"ready": 0}, "is_last_batch": True},
        "epoch_loop.manual_optimization.optim_step_progress": {"total": {"completed": 0}},
    }
}
INSIDE: dict[str, Any] = {name: {} for name in ("draws", "sums", "logged", "metrics", "gradients")}  # likewise
INSIDE |= {"batches": 0, "of": None, "batch_size": None}


def check_resumable(checkpoint: dict[str, Any]) -> None:
    """InputError for a checkpoint that a run cannot go on from exactly."""
    wrong = [name for name, kind in STATE.items() if type(checkpoint.get(name)) is not kind]
    if not {"loops", "optimizer_states"} <= checkpoint.keys() or not (wrong or checkpoint["optimizer_states"]):
        raise InputError("the checkpoint holds weights only, no state of a training; resume from last.ckpt")
    if wrong:
        raise InputError(f"the checkpoint's {wrong[0]!r} is missing or of another kind; resume from last.ckpt")
    check_kind(checkpoint["loops"], LOOPS, "loops")
    epochs = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]
    batches = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    is_inside = epochs["processed"] != epochs["started"] or not batches["is_last_batch"]
    epoch = epochs["processed"] - 1
    if "inside" in checkpoint:
        check_inside(checkpoint["inside"], batches["current"]["ready"] if is_inside else 0)
        is_inside, epoch = False, epoch + 1
    if is_inside:
        raise InputError(
            f"the checkpoint was made inside an epoch, at step {checkpoint['global_step']}, and the rest of that epoch "
            "cannot be repeated exactly; resume from last.ckpt, or from one that was made at an epoch's end: with "
            "--save_every_n_steps or every_n_epochs in place of every_n_train_steps"
        )
    if epoch != checkpoint["epoch"]:
        raise InputError(f"the checkpoint says both epoch {checkpoint['epoch']} and {epoch}; resume from another one")


def check_inside(processes: Any, batches: int) -> None:
    """InputError unless it could be how far each process of a run had come in an epoch, after so many batches."""
    check_kind(processes, [], "inside")
    for each in processes:
        check_kind(each, INSIDE, "inside")
    if not processes or batches < 1 or any(each["batches"] != batches for each in processes):
        raise InputError("the checkpoint's 'inside' is of another kind; resume from another one")


def check_kind(value: Any, fresh: Any, where: str, may_grow: bool = False) -> None:
    """InputError unless a saved value could have come from what is there now, by type, shape and keys.

    Args:
        value: the saved one.
        fresh: one of the same place in a state that was just made; None stands for anything, {} for any dict, [] for
            any list.
        where: that place.
        may_grow: whether a number may have become one for each output, as that of a metric does.
    """
    if fresh is None:
        is_fine = True
    elif isinstance(fresh, Tensor):
        is_fine = isinstance(value, Tensor) and (value.shape == fresh.shape or (may_grow and not fresh.dim()))
    elif isinstance(fresh, dict):
        is_fine = isinstance(value, dict) and fresh.keys() <= value.keys()
    elif isinstance(fresh, list | tuple):
        is_fine = isinstance(value, list | tuple) and (not fresh or len(value) == len(fresh))
    elif isinstance(fresh, int | float) and not isinstance(fresh, bool):
        is_infinite = isinstance(fresh, float) and value in (math.inf, -math.inf)
        is_fine = type(value) in (int, float) and (abs(value) < LARGEST or is_infinite)
    else:
        is_fine = type(value) is type(fresh)
    if not is_fine:
        raise InputError(f"the checkpoint's {where} is missing or of another kind; resume from another one")
    parts = fresh if isinstance(fresh, dict) else dict(enumerate(fresh)) if isinstance(fresh, list | tuple) else {}
    for key, part in parts.items():
        check_kind(value[key], part, f"{where}, {key}", may_grow)


def check_optimizer_state(saved: dict[str, Any], optimizer: torch.optim.Optimizer) -> None:
    """InputError unless the state that is saved of each parameter fits it."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    order = [[group["params"] for group in each["param_groups"]] for each in (saved, optimizer.state_dict())]
    states = saved["state"]
    fits = order[0] == order[1] and states.keys() <= {*range(len(parameters))}
    fits &= all(isinstance(state, dict) for state in states.values())
    if fits and type(optimizer).__module__.startswith("torch."):  # one of a user's own may keep what it likes
        kinds = {(parameters[i].dim(), frozenset(state)) for i, state in states.items()}  # Adafactor's go by dimensions
        fits = len(kinds) == len({dim for dim, _ in kinds})
        shapes = [(i, v.shape) for i, state in states.items() for v in state.values() if isinstance(v, Tensor)]
        whole = sum(parameter.numel() for parameter in parameters)  # of LBFGS, all weights in a row
        fits &= all(shape == (whole,) or _broadcasts(shape, parameters[i].shape) for i, shape in shapes)
    if not fits:
        raise InputError("the checkpoint's optimizer state does not fit the weights; resume from another one")


def _broadcasts(shape: torch.Size, to: torch.Size) -> bool:
    """Whether a state has one value for each weight, or for each row, column, or all of them."""
    sizes = zip(reversed(shape), reversed(to), strict=False)
    return len(shape) <= len(to) and all(size in (1, whole) for size, whole in sizes)
