"""What a checkpoint's config may decide about the run that goes on from it, and what that run does otherwise."""

import copy
import math
import os
from collections.abc import Callable
from typing import Any

import yaml
from lightning.pytorch import Trainer

from linreg.errors import InputError

HARMLESS = (  # callbacks of Lightning's that write nowhere but in the run's folder, which a ModelCheckpoint has to
    *("BatchSizeFinder", "DeviceStatsMonitor", "EMAWeightAveraging", "EarlyStopping", "GradientAccumulationScheduler"),
    *("LearningRateFinder", "LearningRateMonitor", "ModelCheckpoint", "ModelSummary", "RichModelSummary"),
    *("RichProgressBar", "StochasticWeightAveraging", "TQDMProgressBar", "ThroughputMonitor", "Timer"),
)
PROGRESS = {"base_lrs", "_last_lr", "lr_lambdas", "_schedulers", "last_epoch", "_step_count"}  # of a schedule
Beginnings = dict[str, list[dict[str, Any]]]  # the optimizers and the schedules of a run: class and settings of each
STATE = {"callbacks": dict, "loops": dict, "optimizer_states": list, "lr_schedulers": list, "epoch": int}
STATE |= {"global_step": int}


def typed_only(config: dict[str, Any]) -> list[str]:
    """The parts of a config's trainer that may write or remove files anywhere, as flags of the command line."""
    trainer, found = config.get("trainer") or {}, []
    for name, value in trainer.items():
        entries = value if isinstance(value, list) else [value]
        if name == "default_root_dir":
            continue  # never taken
        if name == "callbacks":
            entries = [e for e in entries if not isinstance(e, dict) or _class_name(e) not in HARMLESS]
        is_file = any(
            isinstance(entry, str) and os.path.lexists(entry) and not os.path.isdir(entry) for entry in entries
        )  # which would be read
        if (
            is_file
            or any(isinstance(entry, dict) and "class_path" in entry for entry in entries)
            or (name == "callbacks" and any(entries))
        ):
            found.append(f"--{name}")
    return found


def check_recorded(config: dict[str, Any], where: str, subcommand: str, is_typed: Callable[[str], bool]) -> None:
    """InputError for the config of a checkpoint that lacks a section, or has parts that would have to be typed."""
    for section in ("data", *(["model", "trainer"] if subcommand == "fit" else [])):
        part = config.get(section)
        if not isinstance(part, dict) or not isinstance(part.get("init_args") or {}, dict):
            raise InputError(f"{where}: there is no section {section!r}; take another checkpoint")
    unsafe = [flag for flag in typed_only(config) if not is_typed(flag)] if subcommand == "fit" else []
    if unsafe:
        raise InputError(
            f"{where} has {', '.join(unsafe)} that may write anywhere: not taken from there; if the run is your own, "
            "type its config too: --config RUN/config.yaml"
        )


def _class_name(entry: dict[str, Any]) -> str:
    return str(entry.get("class_path")).removeprefix("lightning.pytorch.callbacks.").rpartition(".")[2]


def recorded_config(config: dict[str, Any], checkpoint: dict[str, Any], subcommand: str, other_file: bool) -> str:
    """What a checkpoint was trained with, as YAML, as far as fit, validate or test has a use for it.

    Args:
        config: the checkpoint's.
        checkpoint: with its columns.
        subcommand: fit goes on with all of it; the others take the data, since the device is a matter of this machine.
        other_file: whether another file is to be measured, of whose rows none were trained on.
    """
    config = copy.deepcopy(config)
    init_args = config["data"]["init_args"] = config["data"].get("init_args") or {}
    init_args.pop("cache", None)  # a folder to write to is for this machine's user to name
    if subcommand == "fit":
        unsafe = {flag.removeprefix("--") for flag in typed_only(config)} | {"default_root_dir"}
        config["trainer"] = {name: value for name, value in config["trainer"].items() if name not in unsafe}
        return yaml.safe_dump(config, sort_keys=False)
    if "features" in init_args and isinstance(columns := checkpoint.get("columns"), dict):
        init_args["features"] = columns.get("features")
    if other_file:
        stage = "val" if subcommand == "validate" else "test"
        init_args |= {"val_fraction": 0.0, "test_fraction": 0.0, f"{stage}_fraction": 1.0}
    return yaml.safe_dump({"data": config["data"]}, sort_keys=False)


def check_resumable(checkpoint: dict[str, Any]) -> None:
    """InputError for a checkpoint that a run cannot go on from exactly."""
    wrong = [name for name, kind in STATE.items() if type(checkpoint.get(name)) is not kind]
    if not {"loops", "optimizer_states"} <= checkpoint.keys() or not (wrong or checkpoint["optimizer_states"]):
        raise InputError("the checkpoint holds weights only, no state of a training; resume from last.ckpt")
    if wrong:
        raise InputError(f"the checkpoint's {wrong[0]!r} is missing or of another kind; resume from last.ckpt")
    try:
        progress = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]
        inside = progress["processed"] != progress["started"]
        inside |= checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["is_last_batch"] is False
        epoch = progress["processed"] - 1
    except (KeyError, TypeError):
        raise InputError("the checkpoint's 'loops' lack the progress of the training; resume from last.ckpt") from None
    if not inside and epoch != checkpoint["epoch"]:
        raise InputError(f"the checkpoint says both epoch {checkpoint['epoch']} and {epoch}; resume from another one")
    if inside:
        raise InputError(
            f"the checkpoint was made inside an epoch, at step {checkpoint['global_step']}, and the rest of that epoch "
            "cannot be repeated exactly; resume from one that was made at an epoch's end: with --max_epochs in place "
            "of --max_steps, and every_n_epochs in place of every_n_train_steps"
        )


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


def keep_what_was_typed(checkpoint: dict[str, Any], hparams: dict[str, Any], now: Beginnings) -> list[str]:
    """Lets settings that differ from those of the first run beat the state that is about to be restored.

    Args:
        checkpoint: changed in place.
        hparams: the model's hyperparameters now.
        now: how its optimizers and schedules begin with them.

    Returns:
        What differs, besides the hyperparameters, a line each.

    Raises:
        InputError: for another optimizer, or other groups of weights.
    """
    then = checkpoint.get("began") or _older_beginnings(checkpoint["hyper_parameters"], hparams, now)
    if [each["class"] for each in then["optimizers"]] != [each["class"] for each in now["optimizers"]]:
        raise InputError("another optimizer cannot go on from this one's state; start a new run without --ckpt_path")
    anew, lines = then["schedules"] != now["schedules"], []
    if anew:
        checkpoint["lr_schedulers"] = []
        lines.append("the schedule of the rate is another, and begins anew")
    for state, before, after in zip(checkpoint["optimizer_states"], then["optimizers"], now["optimizers"], strict=True):
        groups = state["param_groups"]
        if len(groups) != len(after["groups"]):
            raise InputError(
                "weight_decay was 0 or is now, which regroups the weights; start a new run without --ckpt_path"
            )
        if not all(0 <= group.get("lr", 0) < math.inf for group in before["groups"]):
            raise InputError("the checkpoint's 'began' has no rate that a run can begin with; resume from another one")
        for group, old, new in zip(groups, before["groups"], after["groups"], strict=True):
            changed = {name: value for name, value in new.items() if name in group and value != old.get(name, value)}
            group.update(changed | ({"lr": new["lr"]} if anew else {}))
            typed = [name for name in changed if checkpoint["hyper_parameters"].get(name) != hparams.get(name)]
            lines += [f"{name}: {old[name]} -> {changed[name]}" for name in changed if name not in typed]
            if "lr" in changed:
                group["initial_lr"] = changed["lr"]
                for schedule in checkpoint["lr_schedulers"]:
                    schedule["base_lrs"] = [each.get("initial_lr", each["lr"]) for each in groups]
    return lines


def _older_beginnings(before: dict[str, Any], hparams: dict[str, Any], now: Beginnings) -> Beginnings:
    """How a run of an older version began, which has not written it down: as this one, but for its hyperparameters."""
    then = copy.deepcopy(now)
    changed = {name: before[name] for name in before.keys() & hparams.keys() if before[name] != hparams[name]}
    for optimizer in then["optimizers"]:
        optimizer["class"] = str(changed.get("optimizer", optimizer["class"]))
        for group in optimizer["groups"]:
            group.update({name: value for name, value in changed.items() if name in group})
    return then | {"schedules": []} if "lr_scheduler" in changed else then


def differences(before: dict[str, Any], now: str) -> list[str]:
    """The settings, of a config and of another as YAML, that are not the same: a line each."""
    old, new = flatten(before), flatten(yaml.safe_load(now))
    return [f"{key}: {old.get(key)} -> {new.get(key)}" for key in old | new if old.get(key) != new.get(key)]


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` as ``{"a.b": 1}``."""
    if not isinstance(config, dict):
        return {prefix: config}
    return {k: v for name, value in config.items() for k, v in flatten(value, f"{prefix}.{name}".strip(".")).items()}


def describe_resume(epoch: int, changed: list[str]) -> str:
    """From where a run goes on, and what it does otherwise than before."""
    lines = [f"resume  after epoch {epoch:,}, as before" + (" but for:" if changed else "")]
    return "\n".join(lines + [f"        {line}" for line in changed])
