"""Going on from a checkpoint: the same rows, what was typed beats what was saved, and what differs is said."""

import copy
import os
from collections.abc import Callable
from typing import Any

import torch
import yaml
from torch import Tensor

from linreg.errors import InputError
from linreg.runs.allowed import public_path

SETTINGS = ("lr", "momentum", "nesterov", "weight_decay")
HARMLESS = (  # callbacks of Lightning's that write nowhere but in the run's folder, which a ModelCheckpoint has to
    *("BatchSizeFinder", "DeviceStatsMonitor", "EMAWeightAveraging", "EarlyStopping", "GradientAccumulationScheduler"),
    *("LearningRateFinder", "LearningRateMonitor", "ModelCheckpoint", "ModelSummary", "RichModelSummary"),
    *("RichProgressBar", "StochasticWeightAveraging", "TQDMProgressBar", "ThroughputMonitor", "Timer"),
)
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
    if "features" in init_args:
        init_args["features"] = checkpoint["columns"]["features"]
    if other_file:
        stage = "val" if subcommand == "validate" else "test"
        init_args |= {"val_fraction": 0.0, "test_fraction": 0.0, f"{stage}_fraction": 1.0}
    return yaml.safe_dump({"data": config["data"]}, sort_keys=False)


def check_resumable(checkpoint: dict[str, Any]) -> None:
    """InputError for a checkpoint that a run cannot go on from exactly."""
    if not checkpoint.get("loops") or not checkpoint.get("optimizer_states"):
        raise InputError("the checkpoint holds weights only, no state of a training; resume from last.ckpt")
    wrong = [name for name, kind in STATE.items() if type(checkpoint.get(name)) is not kind]
    if wrong:
        raise InputError(f"the checkpoint's {wrong[0]!r} is missing or of another kind; resume from last.ckpt")
    try:
        progress = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]
        inside = progress["processed"] != progress["started"]
        epoch = progress["processed"] - 1
    except (KeyError, TypeError):
        raise InputError("the checkpoint's 'loops' lack the progress of the training; resume from last.ckpt") from None
    if not inside and epoch != checkpoint["epoch"]:
        raise InputError(f"the checkpoint says both epoch {checkpoint['epoch']} and {epoch}; resume from another one")
    if inside:
        raise InputError(
            f"the checkpoint was made inside an epoch, at step {checkpoint['global_step']}, and the rest of that epoch "
            "cannot be repeated exactly; resume from last.ckpt, or save with every_n_epochs in place of "
            "every_n_train_steps"
        )


def check_same_rows(model: Any, checkpoint: dict[str, Any]) -> None:
    """Refuses to go on with other columns or rows than before; their means, spreads and a sample tell them apart."""
    ours = public_path(f"{type(model).__module__}.{type(model).__qualname__}")
    before = public_path(checkpoint["class_path"])
    if before != ours:
        raise InputError(
            f"the checkpoint is one of {before}, not of {ours}; start a new run without it"
        )
    before = [*checkpoint["columns"]["features"], *checkpoint["columns"]["targets"]]
    now = [*model.feature_names, *model.target_names]
    if before != now:
        raise InputError(
            f"the checkpoint was trained on the columns {before}, not on {now}; start a new run without it"
        )
    shapes = ({name: value.shape for name, value in s.items()} for s in (checkpoint["state_dict"], model.state_dict()))
    if next(shapes) != next(shapes):
        raise InputError("the checkpoint's model has weights of another shape; start a new run without --ckpt_path")
    buffers = {name: value for name, value in model.state_dict().items() if "_standardizer." in name}
    saved = checkpoint["state_dict"]
    spread = {name: value.abs() + model.state_dict()[name.replace(".mean", ".std")] for name, value in buffers.items()}
    same = all(bool(((saved[name] - value).abs() <= 1e-9 * spread[name]).all()) for name, value in buffers.items())
    before, now = checkpoint.get("rows"), model.rows
    if isinstance(before, Tensor) and now is not None:
        sizes = [side.mean.abs() + side.std for side in (model.x_standardizer, model.y_standardizer)]
        rounding = 1e-14 * now[:, :1] * torch.cat([torch.zeros(1), *sizes])
        same = same and before.shape == now.shape and bool(((before - now).abs() <= rounding).all())
    if not same:
        raise InputError(
            "the training rows are not those of the checkpoint: the file or the split changed; give the same data "
            "as before, or start a new run without --ckpt_path"
        )


def check_same_columns(model: Any, data: Any) -> None:
    """InputError for data to measure a model on whose columns are not those that it was trained on, in their order."""
    for before, now in ((model.feature_names, data.feature_names), (model.target_names, data.target_names)):
        if list(before) != list(now):
            raise InputError(f"the model was trained on the columns {before}, not on {list(now)}; name them")


def keep_what_was_typed(checkpoint: dict[str, Any], hparams: dict[str, Any], fresh: torch.optim.Optimizer) -> None:
    """Lets settings that differ from the checkpoint's beat the state that Lightning is about to restore from it.

    Args:
        checkpoint: changed in place.
        hparams: the model's hyperparameters now.
        fresh: an optimizer made from them.
    """
    before = checkpoint["hyper_parameters"]
    changed = {name for name in ("optimizer", "lr_scheduler", *SETTINGS) if before.get(name) != hparams.get(name)}
    if "optimizer" in changed:
        raise InputError("another optimizer cannot go on from this one's state; start a new run without --ckpt_path")
    if "lr_scheduler" in changed:
        checkpoint["lr_schedulers"] = []
    groups, saved = fresh.param_groups, checkpoint["optimizer_states"][0]["param_groups"]
    if len(groups) != len(saved):
        raise InputError(
            "weight_decay was 0 or is now, which regroups the weights; start a new run without --ckpt_path"
        )
    for old, new in zip(saved, groups, strict=True):
        old.update({name: new[name] for name in changed & set(SETTINGS) if name in new})
        if "lr" in changed:
            old["initial_lr"] = new["lr"]
    for scheduler in checkpoint["lr_schedulers"] if "lr" in changed else []:
        scheduler["base_lrs"] = [group["lr"] for group in groups]


def differences(before: dict[str, Any], now: str) -> list[str]:
    """The settings, of a config and of another as YAML, that are not the same: a line each."""
    old, new = flatten(before), flatten(yaml.safe_load(now))
    return [f"{key}: {old.get(key)} -> {new.get(key)}" for key in old | new if old.get(key) != new.get(key)]


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` as ``{"a.b": 1}``."""
    if not isinstance(config, dict):
        return {prefix: config}
    return {k: v for name, value in config.items() for k, v in flatten(value, f"{prefix}.{name}".strip(".")).items()}
