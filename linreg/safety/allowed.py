"""What a config may name. Nothing else is imported, so that no stranger's config or checkpoint can run code."""

import importlib
import importlib.util
import inspect
import os
import sys
from contextlib import suppress
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jsonargparse import set_parsing_settings
from jsonargparse._parameter_resolvers import get_signature_parameters
from lightning.pytorch.core.mixins import HyperparametersMixin
from lightning.pytorch.utilities.parsing import collect_init_args
from torch.utils._pytree import tree_map

from linreg.system.errors import InputError

OURS = {  # the classes that a config may name, as linreg.NAME, and where they are
    "LinearRegression": "linreg.regression.linear_regression",
    "Regressor": "linreg.regression.regressor",
    "PredictionData": "linreg.tables.prediction",
    "CSVData": "linreg.tables.csv_data",
    "DataModule": "linreg.datamodule",
    "Module": "linreg.module",
    "RegressionData": "linreg.tables.data",
    "SyntheticData": "linreg.tables.synthetic",
    **dict.fromkeys(("WarmupConstant", "WarmupCosine", "WarmupLinear"), "linreg.schedules"),
}
ALLOWED = [  # add a package of your own here; a .py file beside train.py needs no entry
    *(f"linreg.{name}" for name in OURS),
    *(f"{module}.{name}" for name, module in OURS.items()),
    "linreg.examples",
    "torch.optim",
    *(f"lightning.pytorch.{part}" for part in ("accelerators", "callbacks", "loggers", "plugins", "profilers")),
    "lightning.pytorch.strategies",
    "lightning.fabric.plugins",  # where Lightning's precision and cluster plugins are defined
]
MOST_VALUES = 1_000  # of an argument that is worth writing down
REFUSED = ["*", "lightning.pytorch.callbacks.LambdaCallback", "lightning.pytorch.callbacks.lambda_function"]


def public_path(class_path: str) -> str:
    """The path of a class of ours whatever file it lies, or lay in an older version, in; others as they are."""
    name = class_path.rpartition(".")[2]
    return f"linreg.{name}" if class_path.startswith("linreg.") and name in OURS else class_path


def class_path_of(thing: object) -> str:
    """The path by which a config names the class of an object."""
    return public_path(f"{type(thing).__module__}.{type(thing).__qualname__}")


def own_modules() -> list[str]:
    """The modules that lie beside the program or in the current folder: the user has put them there."""
    folders = {Path.cwd(), Path(sys.argv[0]).resolve().parent}
    names = {path.stem for folder in folders for path in folder.glob("*.py")}
    names |= {path.parent.name for folder in folders for path in folder.glob("*/__init__.py")}
    return sorted(name for name in names if name.isidentifier() and name != "__main__" and _lies_in(name, folders))


def _lies_in(name: str, folders: set[Path]) -> bool:
    """Whether importing a module would take it from one of the folders; it could be one of Python's own instead."""
    try:
        spec = importlib.util.find_spec(name)  # imports nothing for a name without a dot
    except ValueError:  # a module that was not imported from a file
        return False
    if spec is None or not spec.origin:
        return False
    path = Path(spec.origin)
    return (path.parent.parent if path.name == "__init__.py" else path.parent) in folders


def restrict_imports() -> None:
    """Lets jsonargparse import what is allowed, and refuse all else before it is imported."""
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # where train.py lies somewhere else
    set_parsing_settings(import_path_denylist=REFUSED, import_path_allowlist=ALLOWED + own_modules())


def import_allowed(class_path: str, where: str) -> Any:
    """A class by its path; InputError for one that may not be imported, Python's error for one that is not there."""
    class_path = public_path(class_path)
    if not any(f"{class_path}.".startswith(f"{name}.") for name in ALLOWED + own_modules()):
        raise InputError(f"{where} names {class_path!r}; {remedy(class_path)}")
    module, _, name = class_path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def find_class(path: str) -> Any:
    """A class by its path, or its name in linreg; None for one that cannot be had, of which the parser tells."""
    try:
        return import_allowed(path if "." in path else f"linreg.{path}", path)
    except (InputError, ImportError, AttributeError):
        return None


def remedy(class_path: str) -> str:
    """What may be named, and how to allow more."""
    if class_path.startswith("__main__."):
        return "it was defined in a script or notebook, where nothing finds it again; move it to a .py file beside it"
    return (
        "a config or checkpoint may only name classes of linreg, torch.optim, Lightning's callbacks, loggers and the "
        "like (not LambdaCallback), or of a .py file beside train.py, or in a folder there that has an __init__.py; "
        "others have to be added to ALLOWED in linreg/safety/allowed.py"
    )


def describe_objects(model: Any, data: Any) -> dict[str, Any]:
    """The sections of a config that make a model and its data again: their classes and hyperparameters."""
    sections = {}
    for section, each in (("model", model), ("data", data)):
        plain = {k: python_numbers(v) for k, v in each.hparams.items() if not k.startswith("_")}
        for name, value in plain.items():
            check_plain(name, value, each)
        taken = {p.name for p in get_signature_parameters(type(each))}  # and not handed on to its parents as a constant
        init_args = {name: value for name, value in plain.items() if name in taken}
        sections[section] = {"class_path": class_path_of(each), "init_args": init_args}
    return sections


def own_arguments() -> dict[str, Any]:
    """What a config can hold of the arguments of the constructor that calls this, and of those of its subclasses."""
    found: dict[str, Any] = {}
    frame: Any = inspect.currentframe()
    for given in collect_init_args(frame.f_back, [], classes=(HyperparametersMixin,)):  # the subclass comes last
        found |= plain_only(given)
    return found


def plain_only(values: dict[str, Any]) -> dict[str, Any]:
    """Those of some values that a config can hold, as it holds them: a path as a text, a tuple as a list."""
    found = {}
    for name, value in values.items():
        with suppress(TypeError):
            found[name] = _as_plain(value)
    return found


def _as_plain(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, list | tuple | dict) and len(value) > MOST_VALUES:
        raise TypeError(f"{len(value):,} values are data, and no argument")
    if isinstance(value, list | tuple):
        return [_as_plain(each) for each in value]
    if isinstance(value, dict):
        return {_as_plain(key): _as_plain(each) for key, each in value.items()}
    if value is not None and type(value) not in (bool, int, float, str):
        return os.fspath(value)  # TypeError for what is no path
    return value


def python_numbers(content: Any) -> Any:
    """What a config or a checkpoint is to hold, with Python's numbers in the place of numpy's."""
    kinds = (np.number, np.bool_, np.str_)  # a moment of numpy's would be one of Python's, which no checkpoint may hold
    return tree_map(lambda each: each.item() if isinstance(each, kinds) else each, content)


class PlainDumper(yaml.SafeDumper):
    """YAML of what a checkpoint may hold too, of which a date is none."""


PlainDumper.add_representer(date, yaml.SafeDumper.represent_undefined)
PlainDumper.add_representer(datetime, yaml.SafeDumper.represent_undefined)


def check_plain(name: str, value: Any, owner: object) -> None:
    """InputError for an argument that no config and no checkpoint can hold without running code."""
    try:
        yaml.dump(python_numbers(value), Dumper=PlainDumper)
    except yaml.YAMLError as error:
        found = f"{type(owner).__name__}: its argument {name!r} is or holds a {type(error.args[1]).__name__}"
        remedy = "take numbers, texts and lists, and make the object of them in __init__"
        raise InputError(f"{found}, which no config or checkpoint can hold safely; {remedy}") from None
