"""Optimizers and schedulers of torch.optim by the names that a config or a command line can hold."""

import inspect
import math
from collections.abc import Callable, Iterable
from numbers import Real
from types import ModuleType
from typing import Any, cast

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from linreg.safety.allowed import import_allowed
from linreg.schedules import WarmupConstant, WarmupCosine, WarmupLinear
from linreg.system.errors import InputError, did_you_mean, given
from linreg.system.screen import counted, wrapped

OURS = {cls.__name__: cls for cls in (WarmupConstant, WarmupLinear, WarmupCosine)}  # beside those of torch
TRIAL_STEPS = 100  # of a schedule that is only tried

Spec = str | dict[str, Any]  # a class name, or {class_path: name, init_args: {...}}


def gather_settings(spec: Spec, beside: dict[str, Any]) -> tuple[Spec, dict[str, Any]]:
    """An optimizer without those of its arguments that are the model's settings too, and these; given twice, alike."""
    args = spec.get("init_args") if isinstance(spec, dict) else None
    if not isinstance(args, dict):
        return spec, beside
    for name in beside.keys() & args.keys():
        if beside[name] and beside[name] != args[name]:
            raise InputError(f"{name}={beside[name]} and, inside of optimizer, {args[name]}; leave out one of them")
    others = {name: value for name, value in args.items() if name not in beside}
    return cast(dict[str, Any], spec) | {"init_args": others}, {k: args.get(k, v) for k, v in beside.items()}


def find_class(spec: Spec, module: ModuleType, parent: type) -> tuple[type, dict[str, Any]]:
    """The class that a spec names, and its arguments: one of ``module``, or one of the user's own."""
    path, args = (spec, {}) if isinstance(spec, str) else (spec.get("class_path"), spec.get("init_args") or {})
    known = {n: cls for n, cls in (vars(module) | OURS).items() if inspect.isclass(cls) and issubclass(cls, parent)}
    name = str(path).removeprefix(f"{module.__name__}.").removeprefix("linreg.")
    if name not in known and "." in name and not name.startswith("torch."):
        with given(f"{path!r}"):
            known[name] = import_allowed(str(path), parent.__name__)
            if not (inspect.isclass(known[name]) and issubclass(known[name], parent)):
                raise InputError(f"{path!r} is no {parent.__name__}")
    if name not in known:
        raise InputError(f"{path!r} is no class of {module.__name__}{did_you_mean(name, [*known])}")
    return known[name], dict(args)


def make_optimizer(
    spec: Spec, parameters: Iterable[tuple[str, nn.Parameter]], weight_decay: float = 0.0, **settings: Any
) -> torch.optim.Optimizer:
    """Builds an optimizer over named parameters, of which those called "bias" are exempt from weight decay.

    A setting (lr, momentum and the like) of None is left to the class; any other it has to accept, or InputError.
    """
    cls, args = find_class(spec, torch.optim, torch.optim.Optimizer)
    args = {name: value for name, value in settings.items() if value is not None} | args
    named = list(parameters)
    groups: Any = [parameter for _, parameter in named]
    if weight_decay:
        args["weight_decay"] = weight_decay
        biases = [parameter for name, parameter in named if name.split(".")[-1] == "bias"]
        others = [parameter for name, parameter in named if name.split(".")[-1] != "bias"]
        groups = [{"params": others}, {"params": biases, "weight_decay": 0.0}]
    known = [name for name in inspect.signature(cls).parameters if name != "params"]
    if unknown := [name for name in args if name not in known]:
        raise InputError(f"optimizer {cls.__name__} has no {unknown[0]!r}{did_you_mean(unknown[0], known)}")
    try:
        optimizer = cls(groups, **args)
    except (TypeError, ValueError) as error:
        raise InputError(f"optimizer {cls.__name__}: {error}") from None
    try_step(cls, args)
    return optimizer


def try_step(cls: type[torch.optim.Optimizer], args: dict[str, Any]) -> None:
    """InputError for an optimizer that cannot take a step with its settings, tried on a weight of its own."""
    weight = nn.Parameter(torch.zeros(1, 1, device="cpu"))
    weight.grad = torch.ones_like(weight)
    try:
        cls([weight], **args).step(lambda: 0.0)
    except (RuntimeError, TypeError, ValueError, OverflowError) as error:
        settings = ", ".join(f"{name}={value}" for name, value in args.items())
        raise InputError(f"optimizer {cls.__name__} cannot take a step with {settings}: {error}") from None


def make_scheduler(
    spec: Spec | Callable[[int], float],
    optimizer: torch.optim.Optimizer,
    total_steps: Callable[[str], float] = lambda interval: TRIAL_STEPS,
) -> Any:
    """Builds what Lightning expects of a scheduler: the object, its interval, its frequency and what it monitors.

    It is of a class of torch.optim.lr_scheduler, one of ``schedules``, or the share of the rate at each step. For one
    that has to know the run's length ``total_steps`` counts it by the interval. InputError for what that refuses.
    """
    module = torch.optim.lr_scheduler
    if callable(spec):
        return {"scheduler": module.LambdaLR(optimizer, spec), "interval": "step"}
    cls, args = find_class(spec, module, module.LRScheduler)
    if cls is module.SequentialLR:  # of objects, which no config holds
        raise InputError("lr_scheduler SequentialLR cannot be given by name; use WarmupLinear or WarmupCosine")
    in_steps = "total_steps" in inspect.signature(cls).parameters
    when = {"interval": "step" if in_steps else "epoch", "frequency": 1, "monitor": "loss/val"}
    given = {} if isinstance(spec, str) else {k: v for k, v in spec.items() if k not in ("class_path", "init_args")}
    for name in given:
        if name not in when:
            raise InputError(f"lr_scheduler has no {name!r}; it has: {', '.join(when)}")
    if not isinstance(frequency := given.get("frequency", 1), int) or frequency < 1:
        raise InputError(f"lr_scheduler frequency={frequency!r}: a whole number of at least 1 is expected")
    if given.get("interval", "epoch") not in ("epoch", "step"):
        raise InputError(f"lr_scheduler interval={given['interval']!r}: 'epoch' or 'step' is expected")
    if cls is module.ReduceLROnPlateau and given.get("interval", "epoch") != "epoch":
        raise InputError("lr_scheduler ReduceLROnPlateau: interval 'epoch' is expected; a step has no metric")
    if in_steps and not {"total_steps", "epochs"} & args.keys():
        args["total_steps"] = total_steps(given.get("interval", "step"))
    try:
        return {"scheduler": cls(optimizer, **args)} | when | given
    except (TypeError, ValueError) as error:
        raise error if isinstance(error, InputError) else InputError(f"lr_scheduler {cls.__name__}: {error}") from None


def try_settings(spec: Spec, settings: dict[str, Any], part: nn.Module | None, lr_scheduler: Spec | None) -> None:
    """InputError now, and not when a run has begun, for what no optimizer or schedule of a part's weights can use."""
    lr, momentum, nesterov, weight_decay = settings.values()
    if lr is not None and not (isinstance(lr, Real) and 0 < float(lr) < math.inf):
        raise InputError(f"lr={lr!r}: a finite number above 0 is expected, or null to have it chosen from the data")
    if momentum is not None and not (isinstance(momentum, Real) and 0 <= float(momentum) < 1):
        raise InputError(f"momentum={momentum!r}: a number from 0 to below 1 is expected")
    if not (isinstance(weight_decay, Real) and 0 <= float(weight_decay) < math.inf):
        raise InputError(f"weight_decay={weight_decay!r}: a finite number of at least 0 is expected")
    if nesterov and lr is momentum is None:
        settings = settings | {"momentum": 0.9}  # any will do: it is chosen later
    has_weights = part is not None and any(True for _ in part.parameters())
    named = (part if part is not None and has_weights else nn.Linear(1, 1)).named_parameters()
    trial = make_optimizer(spec, named, **settings | {"nesterov": nesterov or None})
    if lr_scheduler is not None:
        make_scheduler(lr_scheduler, trial)


def describe_training(model: nn.Module, how: Any, steps_per_epoch: float, max_epochs: int | None) -> str:
    """What is trained, how (by which optimizers, or in words), and how long at most."""
    weights = [each for each in model.parameters() if not is_lazy(each)]
    has_more = len(weights) < len([*model.parameters()])
    frozen = sum(parameter.numel() for parameter in weights if not parameter.requires_grad)
    size = counted(sum(parameter.numel() for parameter in weights), "parameter")
    size += f" ({frozen:,} frozen)" * bool(frozen) + " and those that the first batch will size" * has_more
    rates = [describe_rates(each) for each in how if not isinstance(how, str)]
    steps = counted(int(steps_per_epoch), "step") if math.isfinite(steps_per_epoch) else "unknown length"
    has_end = max_epochs is not None and max_epochs >= 0
    until = f"at most {counted(max_epochs or 0, 'epoch')} of {steps}" if has_end else "no last epoch"
    return wrapped(f"train   {', '.join([size, *(rates or [str(how)])])}; {until}")


def describe_rates(optimizer: torch.optim.Optimizer) -> str:
    """An optimizer's class, and the rates of its groups: those that were set, and where a schedule has them begin."""
    groups = optimizer.param_groups
    now, given = ([f"{group.get(key, group['lr']):.3g}" for group in groups] for key in ("lr", "initial_lr"))
    begins = f" (from {' and '.join(dict.fromkeys(now))})" if now != given else ""
    return f"{type(optimizer).__name__}, lr {' and '.join(dict.fromkeys(given))}{begins}"
