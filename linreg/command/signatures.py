"""The arguments of a class that has no constructor of its own, which jsonargparse 4.53 miscounts.

It takes the constructor of the parent for a second one above itself, and so strikes out twice what that one hands to
``super().__init__`` by position: of ``class B(A): pass``, where A calls ``super().__init__(net, metrics, **training)``,
it loses the first two of ``training``.
"""

import inspect
import logging
from collections.abc import Callable
from typing import Any

from jsonargparse import _parameter_resolvers as resolvers

_get_mro_parameters = resolvers.get_mro_parameters


def get_mro_parameters(method_name: str, get_parameters: Callable[..., Any], logger: logging.Logger) -> Any:
    """jsonargparse's own, begun at the class that has the method, and not at one that inherits it."""
    classes, here = resolvers.current_mro.get()
    while here + 1 < len(classes) and method_name not in vars(classes[here]):
        here += 1
    resolvers.current_mro.set((classes, here))
    return _get_mro_parameters(method_name, get_parameters, logger)


def parameters_of(cls: type) -> dict[str, str]:
    """The arguments of a class, those that it hands on to its parents among them, and their types as text."""
    return {p.name: inspect.formatannotation(p.annotation) for p in resolvers.get_signature_parameters(cls, None)}


resolvers.get_mro_parameters = get_mro_parameters
