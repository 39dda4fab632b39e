"""The command line's grammar: bare Trainer flags, config files first, one-line errors with the did_you_mean name."""

import argparse
import importlib
import inspect
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn

from lightning.pytorch.cli import LightningArgumentParser

from linreg.errors import InputError, did_you_mean
from linreg.messages import DENIED_IMPORT, TRIED_TYPES, UNKNOWN_NAME
from linreg.runs.folder import newest_checkpoint
from linreg.safety.allowed import remedy
from linreg.safety.safe_yaml import MAX_BYTES, read_config
from linreg.screen import complain
from linreg.stack.trainer import DEFAULT_CONFIG

SUBCOMMANDS = ("fit", "validate", "test", "predict")
DEFAULTS = {  # what the command is for, as long as no other class is named
    "model": "linreg.LinearRegression",
    "data": "linreg.SyntheticData",
    "csv": "linreg.CSVData",
    "predict": "linreg.PredictionData",
}

FIT_FLAGS = (
    ("--check", float | None, None, "exit with 1 if the final excess_mse is above this, such as 0.01"),
    ("--confidence", float | None, None, "add confidence intervals to coefficients.csv, such as 0.95"),
    ("--chunk", int | None, None, "mini-batches in one step of Lightning's loop, such as 16: faster"),
    ("--formula", bool, False, "with --chunk: the lecture's gradient in place of autograd"),
    ("--name", str, "default", "the run's name: runs/NAME/version_N"),
    ("--monitor", str | None, None, "the metric by which best.ckpt is the best; without it, the validation loss"),
    ("--mode", Literal["min", "max"], "min", "which of its values is the best"),
)

FIRST_SCREEN = """\
python train.py                                               fit a synthetic problem
python train.py --data.path FILE.csv --data.target COLUMN     fit a CSV file
python train.py --config configs/stochastic.yaml              fit as a config says; what is typed beats it
python train.py --ckpt_path runs/NAME/version_0/checkpoints/last.ckpt     resume a run (last: the newest of --name)
python train.py --model mine.Net --data mine.Images           any LightningModule, any LightningDataModule
python train.py validate | test --ckpt_path CKPT              measure a checkpoint, on its own data by default
python train.py predict --ckpt_path CKPT --data.path NEW.csv --output OUT.csv
python train.py [options] --print_config                       the resolved config, as YAML
tensorboard --logdir runs                                     the curves

Every Trainer flag works bare (the whole list is at the end); the most used:
  --max_epochs N   (default: until the optimum is reached)    --accelerator cpu|gpu    --devices N
  --precision 32-true|16-mixed|bf16-mixed|64-true    --seed_everything N    --name NAME of the run
"""


def load_default(name: str) -> type:
    """The class that stands for a section by default."""
    module, _, cls = DEFAULTS[name].rpartition(".")
    return getattr(importlib.import_module(module), cls)


class Parser(LightningArgumentParser):
    """A LightningArgumentParser whose errors fit on a screen."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs, allow_abbrev=False)

    def add_bare_flags(self, prefix: str = "--trainer.") -> None:
        """Lets each flag ``--trainer.X`` be typed as ``--X`` too."""
        for action in self._actions:
            for long in [s for s in action.option_strings if s.startswith(prefix)]:
                bare = "--" + long.removeprefix(prefix)
                if bare not in self._option_string_actions:
                    action.option_strings = [bare, *action.option_strings]
                    self._option_string_actions[bare] = action

    def format_help(self) -> str:
        if not self.prog.endswith(" fit"):
            return super().format_help()
        return "\n".join([FIRST_SCREEN, *_describe_classes(), super().format_help()])

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        parser = getattr(ex, "subcommand_parser", None) or self
        flags = [flag.lstrip("-") for flag in parser._option_string_actions]
        flags += [name for default in DEFAULTS for name in inspect.signature(load_default(default)).parameters]
        for word in UNKNOWN_NAME.findall(message):
            typed = (word[0] or word[1]).removeprefix("fit.")
            if typed not in flags and (hint := did_you_mean(typed, flags)):
                message = message.strip() + hint
                break
        denied = DENIED_IMPORT.search(message)
        text = f"{denied[1]!r} may not be named; {remedy()}" if denied else _one_line(message)
        complain(f"error: {text} (python train.py --help lists the flags)")
        sys.exit(2)


def _one_line(message: str) -> str:
    """jsonargparse's list of the types that it has tried, as a sentence."""
    lines = [line.strip(" -") for line in message.strip().splitlines()]
    text = "; ".join(line[:300] for line in lines if line and not line.startswith(TRIED_TYPES)).replace(":;", ":")
    text = re.sub(r"<class '([\w.]+)'>", r"\1", text).replace("NoneType", "null").replace("Parser key ", "")
    return re.sub(r"Expected an? (\w+); Expected an? (\w+)", r"\1 or \2 is expected", text)


def _describe_classes() -> list[str]:
    """The flags of the default classes, which a parser that takes any class does not list by itself."""
    shared = set(inspect.signature(load_default("csv").__mro__[1]).parameters)
    texts = []
    for name, key, skipped in (
        ("model", "model", {"num_features", "num_targets"}),
        ("csv", "data", set()),
        ("data", "data", shared),
    ):
        parser = LightningArgumentParser(usage=argparse.SUPPRESS, add_help=False, description="")
        parser.add_class_arguments(load_default(name), key, skip=skipped)
        texts.append(re.sub(r"^  --\w+ CONFIG .*\n", "", parser.format_help().strip(), flags=re.M) + "\n")
    return texts


def check_config(path: str) -> dict[str, Any]:
    """The content of a config; InputError for a file that holds none, or is not there."""
    if not Path(path).is_file():
        hint = did_you_mean(Path(path).name, [known.name for known in DEFAULT_CONFIG.parent.glob("*.yaml")])
        raise InputError(f"--config {path}: no such file{hint}")
    try:
        with Path(path).open(encoding="utf-8") as file:
            text = file.read(MAX_BYTES + 1)
    except (UnicodeDecodeError, OSError) as error:
        raise InputError(f"--config {path}: a YAML file is expected, this cannot be read: {error}") from None
    content = read_config(text, f"--config {path}")
    for name, kinds in (("trainer", dict), ("model", str | dict), ("data", str | dict)):
        if not isinstance(content.get(name, {}), kinds):
            found = f"{name}: {json.dumps(content[name], default=str)}"
            raise InputError(f"--config {path}: {found}: a section of settings is expected; leave it out for defaults")
    return content


class Arguments:
    """What was typed, taken apart: the subcommand, the config files, and the flags.

    Args:
        typed: the arguments of the command line, without the program's name.
    """

    def __init__(self, typed: Sequence[str]) -> None:
        typed = list(typed)
        self.subcommand = typed.pop(0) if typed and typed[0] in SUBCOMMANDS else "fit"
        self.configs: list[str] = []
        self.flags: list[str] = []
        while typed:
            flag, *inline = typed.pop(0).split("=", 1)
            if flag in ("--config", "-c"):
                if not inline and not typed:
                    raise InputError("--config: the path of a YAML file is expected")
                self.configs.append(inline[0] if inline else typed.pop(0))
            else:
                self.flags.append("=".join([flag, *inline]))
        self.contents = [check_config(config) for config in self.configs]
        if self.value("--ckpt_path") == "last":
            self._take_newest()

    def _take_newest(self) -> None:
        """Puts the newest checkpoint of the run's name in the place of "last"; without one, fit begins afresh."""
        names = [self.value("--name"), *(content.get("name") for content in reversed(self.contents)), self._stem()]
        name = str(next((name for name in names if name), "default"))
        path = newest_checkpoint(name)
        if path is None and self.subcommand != "fit":
            raise InputError(f"--ckpt_path last: no run of the name {name!r} has saved anything; see --name")
        pairs = zip(["", *self.flags], self.flags, strict=False)
        kept = [flag for before, flag in pairs if not {before, flag.partition("=")[0]} & {"--ckpt_path"}]
        self.flags = kept if path is None else [*kept, f"--ckpt_path={path}"]

    def _stem(self) -> str:
        """The name of a run after its last config file."""
        return re.sub(r"[^\w. -]", "_", Path(self.configs[-1]).stem).lstrip(". -") if self.configs else ""

    def value(self, flag: str) -> str | None:
        """The last value typed for a flag, None if it was not typed."""
        value = None
        for here, after in zip(self.flags, [*self.flags[1:], ""], strict=False):
            name, *inline = here.split("=", 1)
            if name == flag:
                value = inline[0] if inline else after
        return value

    def class_path(self, section: str) -> str | None:
        """The class that is named last for a section: on the command line, or else in a config; None if none is."""
        typed = self.value(f"--{section}.class_path") or self.value(f"--{section}")
        if (typed and typed.isidentifier()) or re.fullmatch(r"[\w.]+", typed or ""):
            return typed
        for content in reversed(self.contents):
            part = content.get(section)
            named = part.get("class_path") if isinstance(part, dict) else part
            if isinstance(named, str):
                return named
        return None

    def arrange(self, *first: str) -> list[str]:
        """All arguments in the order of precedence: configs (those in ``first`` before all others), then flags."""
        configs = [part for config in (*first, *self.configs) for part in ("--config", config)]
        name = [f"--name={self._stem() or 'default'}"] if self.configs and self.subcommand == "fit" else []
        return [self.subcommand, *name, *configs, *self.flags]
