"""What a checkpoint's config may decide about the run that goes on from it, and how that run's config differs."""

import copy
from collections.abc import Callable
from typing import Any

import yaml
from torch import Tensor

from linreg.runs.folder import config_in, versions
from linreg.runs.loggers import HERE
from linreg.safety.safe_yaml import read_config
from linreg.system.errors import InputError, given

SPLIT = ("val_fraction", "test_fraction", "split_seed", "split", "batch_size", "drop_last", "cache")  # of the same data
HARMLESS = (  # callbacks of Lightning's that write nowhere but in the run's folder, which a ModelCheckpoint has to
    *("BatchSizeFinder", "DeviceStatsMonitor", "EMAWeightAveraging", "EarlyStopping", "GradientAccumulationScheduler"),
    *("LearningRateFinder", "LearningRateMonitor", "ModelCheckpoint", "ModelSummary", "RichModelSummary"),
    *("RichProgressBar", "StochasticWeightAveraging", "TQDMProgressBar", "ThroughputMonitor", "Timer"),
)
WHAT_RUNS = ("model.class_path", "data.class_path", "data.init_args.path")
PLAIN_LOGGERS = ("CSVLogger", "TensorBoardLogger")


def typed_only(config: dict[str, Any]) -> list[str]:
    """The parts of a config's trainer that may write or remove files anywhere, as flags of the command line."""
    trainer, found = config.get("trainer") or {}, []
    for name, value in trainer.items():
        entries = value if isinstance(value, list) else [value]
        if name == "default_root_dir":
            continue  # never taken
        entries = [each for each in entries if not (isinstance(each, dict) and _writes_here(name, each))]
        is_class = any(isinstance(entry, dict) and "class_path" in entry for entry in entries)
        if is_class or (name == "callbacks" and any(entries)):
            found.append(f"--{name}")
    return found


def check_recorded(config: dict[str, Any], where: str, subcommand: str, is_typed: Callable[[str], bool]) -> None:
    """InputError for the config of a checkpoint that lacks a section, or has parts that would have to be typed."""
    _check_keys(config, where)
    for section in ("data", *(["model", "trainer"] if subcommand == "fit" else [])):
        part = config.get(section)
        if not isinstance(part, dict) or not isinstance(part.get("init_args") or {}, dict):
            raise InputError(f"{where}: there is no section {section!r}; take another checkpoint")
    unsafe = [flag for flag in typed_only(config) if not is_typed(flag)] if subcommand == "fit" else []
    if unsafe:
        remedy = "if the run is your own, type its config too: --config RUN/config.yaml"
        raise InputError(f"{where} has {', '.join(unsafe)} that may write anywhere: not taken from there; {remedy}")


def _writes_here(flag: str, entry: dict[str, Any]) -> bool:
    """Whether it is a callback or a logger that writes to the run's own folder and nowhere else."""
    module, _, name = str(entry.get("class_path")).rpartition(".")
    if flag == "callbacks":
        return name in HARMLESS and f"{module}.".startswith((".", "lightning.pytorch.callbacks."))
    args = entry.get("init_args") or {}
    known = name in PLAIN_LOGGERS and f"{module}.".startswith("lightning.pytorch.loggers.")
    if flag != "logger" or not known or not isinstance(args, dict) or entry.keys() - {"class_path", "init_args"}:
        return False
    others = [value for key, value in args.items() if key not in ("save_dir", "prefix")]
    return args.get("save_dir") == HERE and all(not value or isinstance(value, int) for value in others)


def _check_keys(section: Any, where: str) -> None:
    """InputError for a key that jsonargparse would take apart, such as "trainer.logger", past all checks."""
    inner = section.items() if isinstance(section, dict) else enumerate(section) if isinstance(section, list) else ()
    for key, value in inner:
        if isinstance(key, str) and {*key} & {*".+"}:
            raise InputError(f"{where}: {key!r} is no plain name of a setting; take another checkpoint")
        _check_keys(value, where)


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
        read_as = {"features": columns.get("features"), "categories": columns.get("levels"), "exclude": None}
        init_args |= {name: value for name, value in read_as.items() if name in init_args}
    if other_file:
        stage = "val" if subcommand == "validate" else "test"
        init_args |= {"val_fraction": 0.0, "test_fraction": 0.0, f"{stage}_fraction": 1.0}
    return yaml.safe_dump({"data": config["data"]}, sort_keys=False)


def recorded_spelling(config: Any) -> str:
    """How the cells of the files were spelled that a config's model was trained on, as YAML, for others to predict."""
    settings, given = flatten(config), "data.init_args."
    known = {name: settings[given + name] for name in ("decimal", "missing_values") if given + name in settings}
    return yaml.safe_dump({"data": known})


def differences(before: dict[str, Any], now: str) -> list[str]:
    """The settings, of a config and of another as YAML, that are not the same: a line each."""
    old, new = flatten(before), flatten(yaml.safe_load(now))
    known = {_section(key) for key in old} - {"name"}  # of a new folder, which is said where it is made
    compared = [key for key in old | new if _section(key) in known]  # others may be newer than the run
    return [f"{key}: {old.get(key)} -> {new.get(key)}" for key in compared if old.get(key) != new.get(key)]


def check_begun(name: str, config: str) -> None:
    """InputError if the newest run of a name, which has saved nothing, was begun on something else than a config."""
    for _, folder in sorted(versions(name).items())[-1:]:
        begun = read_config(config_in(folder) or "", f"the config in {folder}")
        if lines := [line for line in differences(begun, config) if line.startswith(WHAT_RUNS)]:
            found = f"{folder} has saved nothing to go on from, and was begun otherwise ({'; '.join(lines)})"
            raise InputError(f"--ckpt_path last: {found}; type its flags again, or --config {folder / 'config.yaml'}")


def _section(key: str) -> str:
    """What an older version has written down as a whole, or not at all: the Trainer's flags, a class's arguments."""
    return ".".join(key.split(".")[: 1 + (".init_args." in key)])


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` as ``{"a.b": 1}``."""
    if not isinstance(config, dict):
        return {prefix: config}
    return {k: v for name, value in config.items() for k, v in flatten(value, f"{prefix}.{name}".strip(".")).items()}


def check_held_out(checkpoint: dict[str, Any], data: Any, is_own: bool) -> None:
    """Tells data if they are those of the training; InputError if they should be, and are split in another way."""
    rows = checkpoint.get("rows")
    if not (isinstance(rows, Tensor) and hasattr(data, "is_same")):
        return
    data.is_trained_on = data.is_same(rows)
    if is_own and not data.is_trained_on:
        found = "the rows or their split are not those of the training, which may have seen what is to be measured"
        remedy = "leave out --data.test_fraction and the like; of a file that has changed, --data.path takes all rows"
        raise InputError(f"{found}: {remedy}")
    if not is_own:
        with given("the checkpoint's 'rows'"):
            data.find_trained_on(rows, checkpoint.get("datamodule_hyper_parameters", {}))
