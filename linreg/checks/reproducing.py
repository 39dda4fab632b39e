"""Does it come out the same again? From a seed, from a checkpoint, in another process, in evaluation."""

import contextlib
import os
import subprocess
import sys
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import nn

from linreg.checks.batch import flat, tensors, together
from linreg.checks.context import Context
from linreg.checks.fits import alone, weights
from linreg.checks.learning import gradients_arrive
from linreg.checks.observer import Observer
from linreg.verdict import CannotTell, Verdict, judge

FEW: dict[str, Any] = {"limit_train_batches": 4}
LOAD = """import operator, importlib, sys, torch
module, name, folder = sys.argv[1:]
cls = operator.attrgetter(name)(importlib.import_module(module))
model = cls.load_from_checkpoint(folder + "/last.ckpt", map_location="cpu", weights_only=True)
torch.save(model.state_dict(), folder + "/loaded.pt")"""


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """The largest difference of two sets of weights."""
    pairs = [(value.double(), other[name].double()) for name, value in one.items() if value.numel()]
    return max(0.0 if torch.equal(a, b) else float((a - b).abs().max()) for a, b in pairs)


def same_seed_same_bits(context: Context) -> Verdict:
    """The same seed gives the same bits; another one other draws."""
    draws: list[float] = []

    def draw_at_the_end(model: Any, data: Any) -> None:
        vars(model)["on_train_end"] = lambda: draws.append(float(torch.rand(())))

    one, again, _ = (weights(context.fit(steps=4, seed=seed, prepare=draw_at_the_end)) for seed in (1, 1, 2))
    if draws[0] == draws[2]:
        return judge(False, "another seed draws the same", "other draws", "leave manual_seed to --seed_everything")
    found = distance(one, again)
    return judge(not found, f"weights differ by {found:.2g}", "0", "draw from torch, numpy or random only")


def one_and_one_epochs_are_two(context: Context) -> Verdict:
    """A run that was stopped after an epoch goes on to what it would have been, with its own loader and workers."""
    if not context.repeats:
        raise CannotTell("not even the same seed gives the same bits")
    how = FEW | {"max_epochs": max(context.flags["max_epochs"] or 2, 2)}
    with tempfile.TemporaryDirectory() as folder:
        context.fit(epochs=1, folder=folder, **how)
        if not Path(folder, "last.ckpt").exists():
            raise CannotTell("no step was taken, so that there is no checkpoint")
        resumed = weights(context.fit(epochs=2, ckpt_path=f"{folder}/last.ckpt", **how))
    found = distance(weights(context.fit(epochs=2, **how)), resumed)
    remedy = "keep in the checkpoint whatever training changes: register_buffer, on_save_checkpoint"
    return judge(not found, f"weights differ by {found:.2g}", "0", remedy)


def loads_in_a_new_process(context: Context) -> Verdict:
    """A checkpoint alone is the model: a new process makes it from that, with the same weights."""
    cls = type(context.model)
    if cls.__module__ == "__main__" or "<locals>" in cls.__qualname__:
        raise CannotTell(f"{cls.__qualname__} lies in no file that could be imported")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path or "." for path in sys.path)}
    with tempfile.TemporaryDirectory() as folder:
        trained = weights(context.fit(epochs=1, limit_train_batches=1, folder=folder))
        command = [sys.executable, "-c", LOAD, cls.__module__, cls.__qualname__, folder]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=600)
        loaded = torch.load(Path(folder, "loaded.pt"), weights_only=True) if not done.returncode else {}
    said = (done.stderr.strip().splitlines() or ["it makes other weights"])[-1][:150]
    is_same = loaded.keys() == trained.keys() and not distance(trained, loaded)
    text = f"{len(loaded)} weights and buffers" if is_same else said
    return judge(is_same, text, "the same weights", "call self.save_hyperparameters(), with plain values only")


def evaluation_is_evaluation(context: Context) -> Verdict:
    """What is reported is measured in evaluation mode: nothing is dropped, no statistics are of the batch."""
    found: list[str] = []

    def watch(model: Any, data: Any) -> None:
        step, modules, begin = model.validation_step, model.named_modules, model.on_train_batch_start

        def begun(*args: Any) -> Any:
            result = begin(*args)
            found.extend(["the model is trained in evaluation mode"] * (not model.training))
            return result

        def watched(*args: Any, **kwargs: Any) -> Any:
            found.extend(f"{name or 'the model'} is in training mode" for name, m in modules() if m.training)
            with Observer() as observer:
                result = step(*args, **kwargs)
            found.extend(["the model is put in training mode"] * model.training)
            found.extend(["a dropout function drops"] * observer.drops)
            return result

        vars(model).update(validation_step=watched, on_train_batch_start=begun)

    if context.val is context.train:
        raise CannotTell("there are no validation rows")
    context.fit(epochs=1, limit_train_batches=1, limit_val_batches=1, prepare=watch)
    text = found[0] if found else "all of it is in evaluation mode"
    return judge(not found, text, "the right mode", "leave that to Lightning; F.dropout(x, p, self.training)")


def validation_rows_stay(context: Context) -> Verdict:
    """The validation rows are the same in each epoch, in whatever order."""
    if context.val is context.train:
        raise CannotTell("there are no validation rows")
    with alone(1), contextlib.closing(context.load("val")) as loader:
        again = together([batch for batch, _ in zip(loader, context.read("val"), strict=False)])
    pairs = zip(tensors(context.rows("val")), tensors(again), strict=True)
    sizes = [(flat(a).mean(0), flat(b).mean(0), flat(a).abs().mean().clamp(min=1e-12)) for a, b in pairs]
    off = max(float((a - b).abs().max() / size) for a, b, size in sizes)
    return judge(off < 1e-3, f"their means differ by {off:.1g}", "nothing", "leave augmentation to the training rows")


def two_processes_are_one(context: Context) -> Verdict:
    """Two processes that share the batches between them come to the weights of one."""
    kinds = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
    reasons = [f"{type(m).__name__} is of each process" for m in context.model.modules() if isinstance(m, kinds)]
    reasons += ["a batch has one row"] * (len(tensors(context.train[0])[0]) < 2)
    reasons += ["it needs fork, and no GPU in use"] * (not hasattr(os, "fork") or torch.cuda.is_initialized())
    reasons += ["not every parameter gets a gradient"] * (gradients_arrive(context).status != "ok")
    if isinstance(context.trainer.train_dataloader, torch.utils.data.DataLoader):
        reasons.append("a DataLoader's batch_size is that of each process, so that two take larger batches")
    if reasons:
        raise CannotTell(reasons[0])
    fork = DDPStrategy(start_method="fork", timeout=timedelta(minutes=2))  # and not half an hour
    two = context.fit(epochs=1, **FEW, devices=2, strategy=fork, accelerator="cpu")
    found = distance(weights(context.fit(epochs=1, **FEW)), weights(two))
    return judge(found < 1e-4, f"weights differ by {found:.2g}", "rounding", "let each take its share of a batch")


REPRODUCING = [same_seed_same_bits, one_and_one_epochs_are_two, loads_in_a_new_process, evaluation_is_evaluation]
REPRODUCING += [validation_rows_stay, two_processes_are_one]
