"""How a training goes on: from which checkpoints, with which settings of its optimizers and schedules."""

import copy
import math
from typing import Any

import yaml
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.types import LRSchedulerConfig
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR

from linreg.runs.recorded import differences
from linreg.runs.resumable import check_resumable
from linreg.system.errors import InputError
from linreg.system.screen import counted

PROGRESS = {"base_lrs", "_last_lr", "lr_lambdas", "_schedulers", "last_epoch", "_step_count"}  # of a schedule
LENGTH = {"total_steps", "_schedule_phases"}  # of a schedule, which goes on if only that is another
SCHEDULED = {"lr", "momentum", "betas"}  # of a group, which schedules change
Beginnings = dict[str, list[dict[str, Any]]]  # the optimizers and the schedules of a run: class and settings of each


def check_unfinished(before: str, config: str, trainer: Trainer) -> None:
    """InputError for settings that would only rewrite the record of a training to which a fit has added nothing.

    ``before`` is the config of that training, as YAML like that of now; empty where it is not known.
    """
    progress = {"max_epochs": trainer.current_epoch, "max_steps": trainer.global_step}
    for flag, done in progress.items():
        if -1 < (most := getattr(trainer, flag) or -1) < done:
            raise InputError(f"--{flag} {most}: the run has had {done:,} already; give that many or more")
    lines = differences(yaml.safe_load(before), config) if before else []
    typed = {flag for flag in progress if any(line.startswith(f"trainer.{flag}:") for line in lines)}
    reached = {flag for flag, done in progress.items() if getattr(trainer, flag) == done}
    if typed and reached and not typed & reached:
        flag = min(reached)
        raise InputError(f"--{flag} {progress[flag]} of the run is reached; give more of that too, or --{flag} -1")
    if changed := [line for line in lines if line.startswith(("data.", "model."))]:
        found = f"the run is over, after {counted(trainer.current_epoch, 'epoch')}"
        remedy = "give more --max_epochs, or train a new run without --ckpt_path"
        raise InputError(f"nothing is left to train with {'; '.join(changed)}: {found}; {remedy}")


def beginnings(trainer: Trainer) -> Beginnings:
    """How the optimizers and schedules of a run begin, before anything is restored into them."""
    optimizers = [
        {"class": type(each).__name__, "groups": [_settings(group) for group in each.param_groups]}
        for each in trainer.optimizers
    ]
    schedules = [
        {"class": type(config.scheduler).__name__, "when": config.interval} | _settings(config.scheduler.state_dict())
        for config in trainer.lr_scheduler_configs
    ]
    return {"optimizers": optimizers, "schedules": schedules}


def _settings(state: dict[str, Any]) -> dict[str, Any]:
    """The plain values of a group or schedule that say how it was set, and not how far it has come."""
    kinds = (bool, int, float, str, tuple, list, dict)
    plain = {k: v for k, v in state.items() if isinstance(v, kinds) and k not in PROGRESS and k != "params"}
    if "initial_lr" in plain:  # a schedule has changed the other already
        plain["lr"] = plain.pop("initial_lr")
    return plain


def keep_what_was_typed(
    checkpoint: dict[str, Any], hparams: dict[str, Any], now: Beginnings, optimizers: list[Optimizer]
) -> list[str]:
    """Lets settings that differ from those of the first run beat the state that is about to be restored.

    It changes the checkpoint in place, and returns what differs besides the hyperparameters, a line each. InputError
    for another optimizer, or other groups of weights.
    """
    then = checkpoint.get("began") or _older_beginnings(checkpoint["hyper_parameters"], hparams, now)
    if [each["class"] for each in then["optimizers"]] != [each["class"] for each in now["optimizers"]]:
        raise InputError("another optimizer cannot go on from this one's state; start a new run without --ckpt_path")
    lines = _keep_schedules(checkpoint, then["schedules"], now["schedules"])
    anew = then["schedules"] != now["schedules"] and not checkpoint["lr_schedulers"]
    parts = (checkpoint["optimizer_states"], then["optimizers"], now["optimizers"], optimizers)
    for state, before, after, optimizer in zip(*parts, strict=True):
        groups = state["param_groups"]
        if len(groups) != len(after["groups"]):
            found = "weight_decay was 0 or is now, which regroups the weights"
            raise InputError(f"{found}; start a new run without --ckpt_path")
        if not all(0 <= group.get("lr", 0) < math.inf for group in before["groups"]):
            raise InputError("the checkpoint's 'began' has no rate that a run can begin with; resume from another one")
        begun = before["groups"] + after["groups"][len(before["groups"]) :]  # a callback may have added some since
        for group, old, new, fresh in zip(groups, begun, after["groups"], optimizer.param_groups, strict=True):
            changed = {name: value for name, value in new.items() if name in group and differs(value, old.get(name))}
            share = group["lr"] / old["lr"] if "lr" in changed and old["lr"] else 1.0  # that a schedule has left of it
            group.update(changed)
            if "lr" in changed:
                group |= {"initial_lr": new["lr"], "lr": new["lr"] * share}
            if anew:  # a chained schedule multiplies the rate that it has begun with
                group.update({name: fresh[name] for name in fresh if name in SCHEDULED or name not in group})
            typed = [name for name in changed if checkpoint["hyper_parameters"].get(name) != hparams.get(name)]
            lines += [f"{name}: {old[name]} -> {changed[name]}" for name in changed if name not in typed]
    return lines


def settle_schedules(trainer: Trainer, epochs: int, is_other: bool) -> None:
    """Lets restored schedules go on, after so many epochs, by the rates and the steps of now if these are others."""
    for config in trainer.lr_scheduler_configs:
        schedule: Any = config.scheduler
        stands, place = getattr(schedule, "last_epoch", 0), _place(trainer, config, epochs)
        if not stands or not (is_other or place < stands):
            continue
        if hasattr(schedule, "base_lrs"):
            schedule.base_lrs = [each.get("initial_lr", each["lr"]) for each in schedule.optimizer.param_groups]
        if isinstance(schedule, LambdaLR | OneCycleLR):  # whose rate follows from the step alone
            schedule.last_epoch = place - 1
            schedule.step()


def _place(trainer: Trainer, config: LRSchedulerConfig, epochs: int) -> int:
    """The step of a schedule: with larger batches than before, one over all steps stands at the share of the epochs."""
    stands, total = (getattr(config.scheduler, name, 0) for name in ("last_epoch", "total_steps"))
    an_epoch = -(-trainer.num_training_batches // trainer.accumulate_grad_batches)
    is_counted = trainer.lightning_module.automatic_optimization and config.interval == "step" and config.frequency == 1
    if is_counted and epochs and total not in (0, trainer.max_steps) and total == an_epoch * (trainer.max_epochs or 0):
        return int(min(stands, an_epoch * epochs))  # it may have begun later than the run
    return int(stands)


def differs(value: Any, old: Any) -> bool:
    """Whether a setting that there was is another now, by more than rounding: several processes sum up in parts."""
    is_near = isinstance(value, float) and isinstance(old, float) and math.isclose(value, old, rel_tol=1e-9)
    return old is not None and value != old and not is_near


def _keep_schedules(checkpoint: dict[str, Any], then: list[dict[str, Any]], now: list[dict[str, Any]]) -> list[str]:
    """Lets schedules that are set otherwise than they were begin anew; those of another length only go on in that."""
    if then == now:
        return []
    but_for_length = [[{name: each[name] for name in each.keys() - LENGTH} for each in part] for part in (then, now)]
    if but_for_length[0] != but_for_length[1]:
        checkpoint["lr_schedulers"] = []
        return ["the schedule of the rate is another, and begins anew"]
    for schedule, new in zip(checkpoint["lr_schedulers"], now, strict=True):
        schedule.update({name: new[name] for name in LENGTH & new.keys()})
    pairs = [(new, old) for new, old in zip(now, then, strict=True) if new != old]
    spans = [(new["total_steps"], f"{new['when']}s", old["total_steps"]) for new, old in pairs]
    return [f"the schedule of the rate spans {new:,} {of}, no longer {old:,}" for new, of, old in spans]


def _older_beginnings(before: dict[str, Any], hparams: dict[str, Any], now: Beginnings) -> Beginnings:
    """How a run of an older version began, which has not written it down: as this one, but for its hyperparameters."""
    then = copy.deepcopy(now)
    changed = {name: before[name] for name in before.keys() & hparams.keys() if before[name] != hparams[name]}
    for optimizer in then["optimizers"]:
        optimizer["class"] = str(changed.get("optimizer", optimizer["class"]))
        for group in optimizer["groups"]:
            group.update({name: value for name, value in changed.items() if name in group})
    return then | {"schedules": []} if "lr_scheduler" in changed else then


def describe_resume(checkpoint: dict[str, Any], config: str, trainer: Trainer) -> str:
    """From where a run goes on, and what its config, as YAML, says otherwise; InputError if it cannot go on."""
    check_resumable(checkpoint)
    if getattr(trainer, "fast_dev_run", False):
        raise InputError("--fast_dev_run: it tries a run from its beginning; leave out --ckpt_path")
    processes = trainer.num_devices * trainer.num_nodes
    if (then := len(checkpoint.get("inside", []))) not in (0, processes):
        found = f"the checkpoint was made inside an epoch, by {then} process(es), and not {processes}"
        raise InputError(f"{found}; give as many --devices, or go on from a best.ckpt")
    before = checkpoint.get("config")
    changed = differences(yaml.safe_load(before), config) if before else []
    where = f"after epoch {checkpoint['epoch'] + 1:,}"
    if "inside" in checkpoint:
        where = f"inside epoch {checkpoint['epoch'] + 1:,}, after {checkpoint['inside'][0]['batches']:,} batches"
    first = f"resume  {where}, as before" + (" but for:" if changed else "")
    return "\n".join([first, *(f"        {line}" for line in changed)])
