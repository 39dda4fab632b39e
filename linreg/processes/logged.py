"""What several processes log and measure: the numbers of one process, whoever has how many rows of a batch.

A row that a process was given because it has none counts for nothing; a value that only some log is the mean of theirs.
"""

import math
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import chain
from typing import Any, cast

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.connectors.logger_connector.result import _Metadata, _ResultMetric, _Sync
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from linreg.processes.shares import note
from linreg.system.errors import InputError
from linreg.system.ranks import gathered, world

NOTHING = {"sum": 0.0, "max": -math.inf, "min": math.inf}  # what a row adds that counts for nothing; 0 to a mean
EPOCH_ENDS = ("on_train_epoch_end", "on_validation_epoch_end", "on_test_epoch_end")


class Logged(Callback):
    """Lets what a module logs be of all processes' rows, each of which counts as it does in one process."""

    weight = 1.0  # what a mean over this process's rows counts, in a training batch

    def __init__(self, strategy: Any) -> None:
        self.strategy, self.reduce = strategy, strategy.reduce
        vars(strategy)["reduce"] = self.reduce_rows  # Lightning takes a value with another one for another value
        self.name: str | None = None  # of what is being logged
        self.parted: dict[str, Any] = {}  # by name, whether another process logged something else there
        self.batch = ExitStack()  # what is to be undone behind a training batch
        self.told: set[str] = set()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        log, connector = pl_module.log, cast(Any, trainer._logger_connector)

        def log_own_rows(name: str, value: Any, *args: Any, batch_size: int | None = None, **kwargs: Any) -> None:
            if not self.weight and not isinstance(value, Metric):
                reduce_fx = [*args[4:5], kwargs.get("reduce_fx", "mean")][0]
                nothing = NOTHING.get(str(getattr(reduce_fx, "__name__", reduce_fx)).lower(), 0.0)
                is_float = isinstance(value, Tensor) and value.is_floating_point()
                value, batch_size = torch.full_like(value, nothing) if is_float else nothing, 0
            self.name = name
            log(name, value, *args, **{"sync_dist": True, "batch_size": batch_size} | kwargs)
            self.name = None
            if isinstance(value, Metric) and name not in self.told and trainer.training:
                self.told.add(name)
                if cast(Any, trainer._results)[f"{pl_module._current_fx_name}.{name}"].meta.on_step:
                    note(f"{name}, a metric, is by steps that of the first process's rows; over an epoch, of all")

        def end_batch(end: Callable[[], None]) -> None:
            self.batch.close()
            end()
            if connector.should_update_logs:  # when a GPU is waited for anyway
                self.check_names()

        def end_epoch(end: Callable[[], None]) -> None:
            self.batch.close()
            end()
            self.take_part(trainer, pl_module)

        ends = {name: partial(end_epoch, getattr(pl_module, name)) for name in EPOCH_ENDS}
        vars(pl_module).update(ends, log=log_own_rows, log_dict=partial(pl_module.log_dict, sync_dist=True))
        vars(connector)["on_batch_end"] = partial(end_batch, connector.on_batch_end)
        vars(connector)["epoch_end_reached"] = partial(end_epoch, connector.epoch_end_reached)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.weight = float(getattr(pl_module, "loss_weight", 1))
        self.batch.callback(vars(self).pop, "weight", None)
        if not self.weight:
            self.batch.enter_context(left_out(pl_module))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for owner in (pl_module, trainer._logger_connector):
            for name in (*EPOCH_ENDS, "log", "log_dict", "on_batch_end", "epoch_end_reached"):
                vars(owner).pop(name, None)

    def reduce_rows(self, value: Any, group: Any = None, reduce_op: Any = "mean") -> Any:
        """A value of all processes; what a step logs counts by rows, and comes with a sum of its name's letters."""
        if self.name is None or group is not None:
            return self.reduce(value, group, reduce_op)
        own = torch.zeros(2, dtype=torch.float64, device=self.strategy.root_device)
        own[0] = value * (self.weight if reduce_op == "mean" else 1)
        own[1] = zlib.crc32(self.name.encode())
        found = [torch.empty_like(own) for _ in range(world())]
        dist.all_gather(found, own)
        values, names = torch.stack(found).T
        is_parted = (names != own[1]).any()  # a look at it here would make a GPU wait
        self.parted[self.name] = self.parted.get(self.name, False) | is_parted
        return getattr(torch, reduce_op)(values).to(value)

    def check_names(self) -> None:
        """InputError if processes have logged different things in a step, and each has taken one for the other."""
        for name, is_parted in self.parted.items():
            if is_parted:
                found = f"self.log({name!r}) in a step where another process has logged something else"
                raise InputError(f"{found}; log it in all of them, or give on_step=False, on_epoch=True")

    def take_part(self, trainer: Trainer, model: LightningModule) -> None:
        """Lets all processes reduce the same values of an epoch, in one order, whichever of them have logged what."""
        self.check_names()
        results: Any = trainer._results
        own = {key: (each.is_tensor, metadata(each.meta)) for key, each in results.items() if is_of_all(each)}
        told = gathered(own)
        if all([*each] == [*own] for each in told):
            return
        for key in sorted({*chain(*told)}):
            known = [i for i, each in enumerate(told) if key in each]
            is_tensor, meta = told[known[0]][key]
            if len(known) < world() and not is_tensor:
                found = f"the metric {meta['name']!r} was logged by process {', '.join(map(str, known))} only"
                raise InputError(f"{found}; log it in all of them")
            if key not in own:
                made = _Metadata(**meta)
                made.sync = _Sync(fn=self.strategy.reduce, _should=True)
                results.setdefault(key, _ResultMetric(made, True).to(model.device))
                vars(results[key]).update(has_reset=False, _update_count=1, _computed=None)
            results[key] = results.pop(key)


def is_of_all(logged: Any) -> bool:
    """Whether a value is yet to be reduced, at an epoch's end, by all processes."""
    sync = logged.meta.sync
    is_shared = (sync.should and not sync.rank_zero_only) or not logged.is_tensor
    return logged.meta.on_epoch and not logged.has_reset and is_shared


def metadata(meta: _Metadata) -> dict[str, Any]:
    """How a value is logged, as another process can be told."""
    return vars(meta) | {"reduce_fx": meta.reduce_fx.__name__, "_sync": None}


@contextmanager
def left_out(model: nn.Module) -> Iterator[None]:
    """Lets the metrics of a module forget, each time, what they are told: of a row that is another process's."""
    parts = [part for part in model.modules() if isinstance(part, Metric | MetricCollection)]
    own = [{name: call for name, call in vars(part).items() if name in ("forward", "update")} for part in parts]
    is_inside = False  # a forward calls update, and a collection its metrics

    def forgotten(part: nn.Module, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        nonlocal is_inside
        if is_inside:
            return call(*args, **kwargs)
        metrics = [each for each in part.modules() if isinstance(each, Metric)]
        before = [(each, each._copy_state_dict(), each._update_count) for each in metrics]
        is_inside = True
        found = call(*args, **kwargs)
        is_inside = False
        for metric, states, count in before:
            now = {name: as_before(getattr(metric, name), state) for name, state in states.items()}
            vars(metric).update(now, _update_count=count)
        return found

    for part in parts:
        vars(part).update({name: partial(forgotten, part, getattr(part, name)) for name in ("forward", "update")})
    yield
    for part, methods in zip(parts, own, strict=True):
        del part.forward, part.update
        vars(part).update(methods)


def as_before(state: Any, before: Any) -> Any:
    """What a state was, in the shape and type of what it is: torchmetrics gathers only what is alike in all."""
    if isinstance(state, list):
        return before + [torch.atleast_1d(each)[:0] for each in state[len(before) :] if isinstance(each, Tensor)]
    return torch.full_like(state, before.item()) if before.numel() == 1 else before
