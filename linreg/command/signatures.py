"""What a class takes, and what of that its data are asked for.

Of a class that has no constructor of its own jsonargparse 4.53 miscounts the arguments: it takes that of the parent for
a second one above itself, and so strikes out twice what is handed to ``super().__init__`` by position: of
``class B(A): pass``, where A calls ``super().__init__(net, metrics, **training)``, it loses two of ``training``.
"""

import inspect
import logging
import traceback
from collections.abc import Callable
from inspect import Parameter
from typing import Any

from jsonargparse import _parameter_resolvers as resolvers
from jsonargparse._parameter_resolvers import get_signature_parameters as get_signature_parameters
from lightning.pytorch import LightningDataModule

from linreg.system.errors import InputError, RunError, is_in_own_code, one_line

_get_mro_parameters = resolvers.get_mro_parameters


def get_mro_parameters(method_name: str, get_parameters: Callable[..., Any], logger: logging.Logger) -> Any:
    """jsonargparse's own, begun at the class that has the method, and not at one that inherits it."""
    classes, here = resolvers.current_mro.get()
    while here + 1 < len(classes) and method_name not in vars(classes[here]):
        here += 1
    resolvers.current_mro.set((classes, here))
    return _get_mro_parameters(method_name, get_parameters, logger)


def parameters_of(made: Callable[..., Any]) -> dict[str, str]:
    """The arguments of a class or function, those that it hands on among them, and their types as text."""
    return {p.name: inspect.formatannotation(p.annotation) for p in get_signature_parameters(made)}


resolvers.get_mro_parameters = get_mro_parameters


def ask(name: str, default: Any, data: LightningDataModule) -> Any:
    """What a model needs to know of its data; InputError if these do not say it, and there is no default."""
    kind = type(data).__name__
    try:
        return getattr(data, name)
    except (InputError, RunError):
        raise
    except Exception as error:
        if is_in_own_code(error) or not isinstance(error, AttributeError):  # jsonargparse would hide where
            place = traceback.extract_tb(error.__traceback__)[-1]
            raise InputError(f"{kind}.{name}: {one_line(error)} ({place.filename}, line {place.lineno})") from error
        if default is not Parameter.empty:
            return default
        remedy = f"give --model.{name}, or the data a property {name}"
        raise InputError(f"the model needs {name!r}, and {kind} has no such attribute: {remedy}") from None
