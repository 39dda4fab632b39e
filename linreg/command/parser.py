"""The command line's grammar: bare Trainer flags, a help that begins with what most people need, one-line errors."""

import argparse
import importlib
import inspect
import re
import sys
from typing import Any, NoReturn

from lightning.pytorch.cli import LightningArgumentParser

from linreg.command.signatures import parameters_of
from linreg.processes.ends import blame
from linreg.safety.allowed import OURS, remedy
from linreg.system.errors import did_you_mean
from linreg.system.messages import DENIED_IMPORT, NO_ATTRIBUTE, NO_CLASS, TRIED_TYPES, UNKNOWN_NAME

MODULES = re.compile(r",\s+known subclasses:\s+torch\.nn\.Module,[^)]*\)")  # none of which a config may name
DEFAULTS = {  # what the command is for, as long as no other class is named
    "model": "linreg.LinearRegression",
    "data": "linreg.SyntheticData",
    "csv": "linreg.CSVData",
    "predict": "linreg.PredictionData",
}
SECTIONS = {"model": "model", "csv": "data", "data": "data"}  # of a config, by those classes
WIDTHS: set[str | int] = {"num_features", "num_targets"}  # which a model is told by a table

MEANT = {  # by words that other programs have for it
    **dict.fromkeys(("epoch", "epochs", "num_epochs", "n_epochs"), "--max_epochs N"),
    **dict.fromkeys(("step", "steps", "num_steps"), "--max_steps N"),
    **dict.fromkeys(("learning_rate", "rate"), "--lr RATE"),
    **dict.fromkeys(("batch", "batchsize", "bs"), "--batch_size N"),
    **dict.fromkeys(("gpu", "gpus", "cuda"), "--accelerator gpu --devices N"),
    **dict.fromkeys(("seed", "random_seed", "random_state"), "--seed_everything N"),
    **dict.fromkeys(("ckpt", "checkpoint", "resume", "resume_from_checkpoint"), "--ckpt_path FILE, or last"),
    **dict.fromkeys(("csv", "file", "data_path", "dataset", "input"), "--data.path FILE"),
    **dict.fromkeys(("train", "training", "run"), "fit"),
    **dict.fromkeys(("eval", "evaluate", "val"), "validate"),
    **dict.fromkeys(("infer", "inference", "prediction"), "predict"),
    "output": "python train.py predict --output FILE",
}

SEPARATOR = "; a comma, a tab or a semicolon is found in the header line by itself; put any other right in the file"

FIRST_SCREEN = """\
python train.py                                               fit a synthetic problem
python train.py --data.path FILE.csv --data.target COLUMN     fit a CSV file
python train.py --config configs/stochastic.yaml              fit as a config says; what is typed beats it
python train.py --ckpt_path runs/NAME/version_0/checkpoints/last.ckpt     resume a run (last: the newest of --name)
python train.py --model mine.Net --data mine.Images           any LightningModule, any LightningDataModule
python train.py validate | test --ckpt_path CKPT              measure a checkpoint, on its own data by default
python train.py predict --ckpt_path CKPT --data.path NEW.csv --output OUT.csv
python train.py doctor [the flags of fit]                     is this training right? a line for each check
python train.py [options] --print_config                       the resolved config, as YAML
python train.py lecture                                       batch, mini-batch, stochastic: one picture
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

    def add_class_arguments(self, *args: Any, **kwargs: Any) -> list[str]:
        """Takes no value of a flag for the name of a file to read: it could be a pipe, or an address."""
        return super().add_class_arguments(*args, **kwargs | {"sub_configs": False})

    def add_bare_flags(self) -> None:
        """Lets each flag ``--trainer.X`` be typed as ``--X`` too."""
        for action in self._actions:
            for long in [s for s in action.option_strings if s.startswith("--trainer.")]:
                bare = long.replace("trainer.", "", 1)
                if bare not in self._option_string_actions:
                    action.option_strings = [bare, *action.option_strings]
                    self._option_string_actions[bare] = action

    def format_help(self) -> str:
        if not self.prog.endswith(" fit"):
            return MODULES.sub("; given by a class of your own)", super().format_help())
        return "\n".join([FIRST_SCREEN, *_describe_classes(), super().format_help()])

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        flags = [flag.lstrip("-") for flag in self._option_string_actions]
        flags += [name for default in DEFAULTS for name in parameters_of(load_default(default))]
        for word in UNKNOWN_NAME.findall(message):
            typed = word[0] or word[1]
            section = next((s for n, s in SECTIONS.items() if typed in parameters_of(load_default(n))), None)
            if section and "Option " in message:  # of a config
                message = f"{message.strip()} there; write {section}: {{{typed}: ...}}"
                break
            hint = SEPARATOR if typed in ("sep", "separator", "delimiter") else ""
            hint = hint or (f"; did you mean {MEANT[typed]}?" if typed in MEANT else did_you_mean(typed, flags))
            if typed not in flags and hint:
                message = message.strip() + hint
                break
        text = _one_line(message)
        if refused := NO_CLASS.search(message) or DENIED_IMPORT.search(message):
            hint = did_you_mean(refused[1], [*OURS, *(f"linreg.{each}" for each in OURS)])
            text = f"{refused[1]!r} is no class that may be named{hint or f'; {remedy(refused[1])}'}"
        if absent := NO_ATTRIBUTE.search(message):
            text = f"there is no {absent[2]!r} in {absent[1]}{did_you_mean(absent[2], dir(sys.modules.get(absent[1])))}"
        program = self.prog if " -m " in self.prog else "python train.py"
        blame(f"{text} ({program} --help lists the flags)")
        sys.exit(2)


def _one_line(message: str) -> str:
    """jsonargparse's list of the types that it has tried, as a sentence."""
    lines = [line.strip().removeprefix("- ") for line in message.strip().splitlines()]
    text = "; ".join(line[:300] for line in lines if line and not line.startswith(TRIED_TYPES)).replace(":;", ":")
    text = re.sub(r"<class '([\w.]+)'>", r"\1", text).replace("NoneType", "null").replace("Parser key ", "")
    text = text.replace("required: data.", "required: --data.")
    return re.sub(r"Expected an? (\w+); Expected an? (\w+)", r"\1 or \2 is expected", text)


def _describe_classes() -> list[str]:
    """The flags of the default classes, which a parser that takes any class does not list by itself."""
    shared = set(inspect.signature(load_default("csv").__mro__[1]).parameters)
    texts = []
    for name, key, skipped in (("model", "model", WIDTHS), ("csv", "data", set()), ("data", "data", shared)):
        parser = LightningArgumentParser(usage=argparse.SUPPRESS, add_help=False, description="")
        parser.add_class_arguments(load_default(name), key, skip=skipped)
        texts.append(re.sub(r"^  --\w+ CONFIG .*\n", "", parser.format_help().strip(), flags=re.M) + "\n")
    return texts
