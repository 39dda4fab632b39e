"""Slips of the command line: what was obviously meant is done, and said; for the others there is a hint."""

import inspect
import json
import re
from contextlib import suppress
from typing import Any

import yaml
from lightning.pytorch import Trainer

from linreg.command.parser import DEFAULTS, MEANT, WIDTHS, load_default
from linreg.command.signatures import parameters_of
from linreg.command.typed import AS_FIT, SUBCOMMANDS, Arguments, Flag
from linreg.experiment import run
from linreg.safety.allowed import find_class, own_modules
from linreg.safety.safe_yaml import read_value
from linreg.system.errors import InputError, did_you_mean

TABLE = re.compile(r"\.(csv|tsv|parquet)(\.gz)?$", re.IGNORECASE)
SEVERAL = re.compile(r"(typing\.)?(Optional\[)?([Ll]ist|Sequence)\[str\](\]| \| None)?")  # a type, as text
NAMES = ("--data.features", "--data.target", "--data.exclude", "--data.categories")
CLASSES = {"model": ["model"], "data": ["data", "csv"], "predict": ["predict"]}  # of no name, by section or command


def flags_of(command: str, typed: Arguments, recorded: dict[str, Any]) -> dict[str, str]:
    """The flags of a command and the type of each as text, of the classes that were typed or ``recorded``, if known."""
    own = parameters_of(run) if command == "fit" else {"ckpt_path": "str"}
    kinds = {f"--{name}": kind for name, kind in own.items()}
    kinds |= {"--output": "str"} if command == "predict" else {}
    kinds |= dict.fromkeys(("--config", "--seed_everything", "--model", "--data"), "")
    for name, kind in parameters_of(Trainer).items():
        kinds |= {f"--{name}": kind, f"--trainer.{name}": kind}
    for section in ("model", "data") if command == "fit" else ("data",):
        for cls in classes_of(section, command, typed.class_path(section) or recorded.get(section)):
            told = WIDTHS if section == "model" else set()
            kinds |= {f"--{section}.{name}": kind for name, kind in parameters_of(cls).items() if name not in told}
    return kinds


def classes_of(section: str, command: str, named: Any) -> list[Any]:
    """The class that is named for a section, or those that may stand for it by default; none for one not found."""
    path = named.get("class_path") if isinstance(named, dict) else named
    if path is None or TABLE.search(str(path)) or command == "predict":
        return [load_default(name) for name in CLASSES.get(command, CLASSES[section])]
    cls = find_class(path)
    if cls is None and path in own_modules():
        raise InputError(f"--{section} {path}: a module, where a class of it is expected: --{section} {path}.CLASS")
    if not (cls is None or inspect.isclass(cls) or inspect.isroutine(cls)):
        found = "a module that is imported there" if inspect.ismodule(cls) else f"an object, {type(cls).__name__}(...)"
        raise InputError(f"--{section} {path}: {found}, where a class is expected")
    return [] if cls is None else [cls]


def check_source(arguments: Arguments, recorded: dict[str, Any]) -> None:
    """InputError for a flag of a file's rows without a file, or one of synthetic rows beside a file."""
    is_named = recorded.get("data") or arguments.class_path("data") or arguments.value("--data")
    has_file = arguments.value("--data.path") is not None
    taken, other = (parameters_of(load_default(name)) for name in (("csv", "data") if has_file else ("data", "csv")))
    why = "--data.path FILE is missing; only a file has that"
    why = "the synthetic data have that, and not those of --data.path; leave out one of the two" if has_file else why
    for flag, value in arguments.flags:
        if flag.removeprefix("--data.") in other.keys() - taken.keys() and not is_named:
            raise InputError(f"{flag} {value}: {why}")


def mend(arguments: Arguments, kinds: dict[str, str]) -> tuple[list[Flag], list[str]]:
    """Flags with what was meant in the place of what was typed, and what was done to them, a line each.

    InputError for what could mean several things, or is none of the command's flags (``kinds``: their types as text).
    """
    mended: list[Flag] = []
    notes = []
    for typed, given_value in arguments.flags:
        flag, value = (typed, given_value) if typed.startswith("-") else by_its_look(typed, mended)
        flag = "--data.path" if flag == "--data" and TABLE.search(value or "") else in_full(flag, kinds)
        kind = kinds.get(flag, "")
        if value is None and (section := flag.removesuffix(".help")) in ("--model", "--data"):
            value = arguments.class_path(section[2:]) or DEFAULTS[section[2:]]
        elif value is None and "bool" in kind:
            value = "true"
        elif value is None and kind:
            raise InputError(f"{flag}: a value is expected")
        elif flag in NAMES and str(value).lstrip().startswith("[") and "]" not in str(value):
            raise InputError(f"{flag} {value}: the bracket is not closed; several names are '[a, b]'")
        elif SEVERAL.fullmatch(kind) and value not in ("null", "None") and not str(value).lstrip().startswith("["):
            if "," in str(value):
                raise InputError(f"{flag} {value}: several names are '[{str(value).replace(',', ', ')}]', in brackets")
            value = json.dumps([value])
        elif kind.startswith("float") and re.fullmatch(r"[-+]?\d+,\d+", str(value)):
            raise InputError(f"{flag} {value}: a number has a point; did you mean {str(value).replace(',', '.')}?")
        elif flag == "--data.missing_values" and value not in (None, "null", "None"):
            value = as_marks(str(value))
        mended.append((flag, value))
        if (flag, value) != (typed, given_value):
            notes.append(f"note: {typed} is taken as {flag if value is None else f'{flag} {value}'}")
    return mended, notes


def as_marks(typed: str) -> str:
    """What stands for a missing cell, as JSON: in YAML a ? or a - alone is none of them."""
    with suppress(yaml.YAMLError):
        found = read_value(typed)
        if isinstance(found, list) and all(isinstance(mark, str | int | float) for mark in found):
            return typed
    inside = typed.strip()[1:-1].split(",") if typed.strip().startswith("[") else [typed]
    return json.dumps([mark.strip().strip("'\"") for mark in inside])


def by_its_look(word: str, before: list[Flag]) -> Flag:
    """The flag and its value that a word alone stands for; InputError if that is not clear."""
    name = word.lower()
    if TABLE.search(word):
        if any(flag == "--data.path" for flag, _ in before):
            raise InputError(f"{word}: a second file; several are a pattern in quotes, --data.path 'sales/*.csv'")
        return "--data.path", word
    if name == "help":
        return "--help", None
    for ending, flag in ((".yaml", "--config"), (".yml", "--config"), (".ckpt", "--ckpt_path")):
        if name.endswith(ending):
            raise InputError(f"{word!r}: a flag is expected before it; did you mean {flag} {word}?")
    if "=" in word:
        raise InputError(f"{word!r}: a flag begins with two dashes; did you mean --{word}?")
    if name in (*SUBCOMMANDS, *AS_FIT):
        raise InputError(f"{word!r}: one command at a time is expected, and it comes first")
    meant = MEANT.get(name, "")
    near = [*SUBCOMMANDS, *(word for word, command in MEANT.items() if command in SUBCOMMANDS)]
    hint = f"; did you mean {meant!r}?" if meant in SUBCOMMANDS else did_you_mean(word, near)
    hint = re.sub(r"'(\w+)'", lambda found: repr(MEANT.get(found[1], found[1])), hint)
    known = ", ".join((*SUBCOMMANDS, *AS_FIT))
    raise InputError(f"{word!r}: one of {known}, or a flag, is expected{hint or '; several names are [a, b]'}")


def in_full(flag: str, kinds: dict[str, str]) -> str:
    """A flag with the section that it belongs to; InputError if there are two, or if it is known by another name."""
    name = flag.lstrip("-")
    if flag in kinds or ("." in name and "-" not in name):
        return flag
    found = [each for each in (f"--model.{name}", f"--data.{name}") if each in kinds]
    if len(found) > 1:
        raise InputError(f"{flag}: both the model and the data have it; did you mean {' or '.join(found)}?")
    if not found and name in MEANT:
        raise InputError(f"{flag}: no such flag; did you mean {MEANT[name]}?")
    if "-" in name and (full := in_full(f"--{name.replace('-', '_')}", kinds)) in kinds:
        raise InputError(f"{flag}: a flag has underscores; did you mean {full}?")
    return found[0] if found else flag
