"""What was typed, taken apart: the subcommand, the configs and the flags, before any of it is parsed."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from linreg.runs.folder import newest_checkpoint
from linreg.safety.safe_yaml import MAX_BYTES, read_config, read_value
from linreg.stack.trainer import DEFAULT_CONFIG
from linreg.system.errors import InputError, did_you_mean

SUBCOMMANDS = ("fit", "validate", "test", "predict")
AS_FIT = ("doctor", "lecture")  # take the flags of fit, and do something else
SECTIONS = {  # the pattern of a value for all of one (any other the parser would open, be it a pipe), and a remedy
    "--trainer": (r"\{.*", "type a flag, such as --max_epochs 5, or --config FILE"),
    "--model": (r"\{.*|[\w.]+", "a class is expected, such as --model FILE.CLASS; a YAML file is --config FILE"),
    "--data": (r"\{.*|[\w.]+", "a class is expected, such as --data FILE.CLASS; a CSV file is --data.path FILE"),
}
Flag = tuple[str, str | None]  # as it was typed, and its value


def check_config(path: str) -> dict[str, Any]:
    """The content of a config; InputError for a file that holds none, or is not there."""
    if not Path(path).is_file():
        if Path(path).exists():
            raise InputError(f"--config {path}: a folder or the like, where a YAML file is expected")
        known = [each.name for place in (Path(path), DEFAULT_CONFIG) for each in place.parent.glob("*.yaml")]
        raise InputError(f"--config {path}: no such file{did_you_mean(Path(path).name, known)}")
    try:
        with Path(path).open(encoding="utf-8") as file:
            text = file.read(MAX_BYTES + 1)
    except (UnicodeDecodeError, OSError) as error:
        raise InputError(f"--config {path}: a YAML file is expected, this cannot be read: {error}") from None
    return read_config(text, f"--config {path}")


def flags_in(typed: Sequence[str]) -> Iterator[Flag]:
    """Each flag with its value, None if it has none; a word that is neither stands for a flag."""
    rest = list(typed)
    while rest:
        flag, *inline = rest.pop(0).split("=", 1)
        if not flag.startswith("-"):
            yield "=".join([flag, *inline]), None
        elif inline or flag == "--print_config" or not rest or rest[0].startswith("--"):
            yield flag, inline[0] if inline else None
        else:
            yield flag, rest.pop(0)


class Arguments:
    """What was typed behind the program's name, taken apart: the subcommand, the config files, and the flags."""

    def __init__(self, typed: Sequence[str]) -> None:
        is_named = typed[:1] and typed[0] in (*SUBCOMMANDS, *AS_FIT)
        self.task = typed[0] if is_named else "fit"
        self.subcommand = "fit" if self.task in AS_FIT else self.task
        self.configs: list[str] = []
        self.flags: list[Flag] = []
        for flag, value in flags_in(typed[1:] if is_named else typed):
            if flag in SECTIONS and not re.fullmatch(SECTIONS[flag][0], value or "", re.DOTALL):
                raise InputError(f"{flag} {value or '(nothing)'}: {SECTIONS[flag][1]}")
            if flag not in ("--config", "-c"):
                self.flags.append((flag, value))
            elif value is None:
                raise InputError("--config: the path of a YAML file is expected")
            else:
                self.configs.append(value)
        self.begins: str | None = None  # a run of that name, of which none has saved anything to go on from
        self.contents = [check_config(config) for config in self.configs]
        if self.value("--ckpt_path") == "last":
            self._take_newest()

    def _take_newest(self) -> None:
        """Puts the newest checkpoint of the run's name in the place of "last"; without one, fit begins afresh."""
        names = [self.value("--name"), *(content.get("name") for content in reversed(self.contents)), self._stem()]
        name = str(next((name for name in names if name), "default"))
        path = newest_checkpoint(name, is_needed=self.subcommand != "fit")
        found = ("--ckpt_path",) if self.subcommand == "fit" else ("--ckpt_path", "--name")  # a flag of fit only
        self.flags = self.without(*found) + ([("--ckpt_path", path)] if path else [])
        self.begins = None if path else name

    def _stem(self) -> str:
        """The name of a run after its last config file."""
        return re.sub(r"[^\w. -]", "_", Path(self.configs[-1]).stem).lstrip(". -")[:100] if self.configs else ""

    def value(self, *names: str) -> str | None:
        """The last value typed for a flag, by any of its names; None if it was not typed."""
        return next((value for flag, value in reversed(self.flags) if flag in names), None)

    def keep_the_data(self, split: Sequence[str]) -> bool:
        """Whether the data are those of the checkpoint, however they are split."""
        names = [flag for flag, _ in self.flags if flag.startswith("--data")]
        return not self.configs and all(name.removeprefix("--data.") in split for name in names)

    def without(self, *names: str) -> list[Flag]:
        """The flags but for those of some names."""
        return [(flag, value) for flag, value in self.flags if flag not in names]

    def trainer_setting(self, name: str) -> Any:
        """What was typed for a flag of the Trainer, or else what the last config says."""
        typed = self.value(f"--{name}", f"--trainer.{name}")
        sections = [content.get("trainer") or {} for content in reversed(self.contents)]
        try:
            return read_value(typed) if typed else next((each[name] for each in sections if name in each), None)
        except yaml.YAMLError:
            return typed  # the parser will say

    def class_path(self, section: str) -> str | None:
        """The class that is named last for a section: on the command line, or else in a config; None if none is."""
        typed = self.value(f"--{section}.class_path") or self.value(f"--{section}")
        if re.fullmatch(r"[\w.]+", typed or ""):
            return typed
        for content in reversed(self.contents):
            part = content.get(section)
            named = part.get("class_path") if isinstance(part, dict) else part
            if isinstance(named, str):
                return named
        return None

    def arrange(self, *first: str) -> list[str]:
        """All arguments in the order of precedence: configs (``first`` before all others), then flags."""
        configs = [part for config in (*first, *self.configs) for part in ("--config", config)]
        name = [f"--name={self._stem() or 'default'}"] if self.configs and self.subcommand == "fit" else []
        name = ["--name=lecture"] if self.task == "lecture" else name
        return [*name, *configs, *(flag if value is None else f"{flag}={value}" for flag, value in self.flags)]
