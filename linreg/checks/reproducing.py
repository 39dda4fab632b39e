"""Does it come out the same again? From a seed, from a checkpoint, in another process."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from linreg.checks.batch import change, predict, tensors
from linreg.checks.context import Context
from linreg.checks.fits import distance, weights
from linreg.checks.gradients import gradients_are_of_one_step, gradients_arrive, trainable
from linreg.checks.leaks import SAME, difference, drawn, neighbours
from linreg.checks.learning import loss_does_not_broadcast, loss_is_a_mean_over_rows
from linreg.checks.rows import target_follows_from_inputs
from linreg.checks.running import a_short_run_ends, ten_steps_lower_the_loss
from linreg.system.errors import RunError, one_line
from linreg.verdict import CannotTell, Verdict, judge

ON_A_GPU = "on a GPU, give --deterministic true"
same = partial(torch.allclose, rtol=1e-5, equal_nan=True)
LOAD = """import operator, importlib, sys, torch
module, name, folder = sys.argv[1:]
cls = operator.attrgetter(name)(importlib.import_module(module))
model = cls.load_from_checkpoint(folder + "/last.ckpt", map_location="cpu", weights_only=True)
torch.save(model.state_dict(), folder + "/loaded.pt")"""


def same_seed_same_bits(context: Context) -> Verdict:
    """The same seed gives the same bits; another one other draws."""
    draws: list[float] = []

    def draw_at_the_end(model: Any, data: Any) -> None:
        vars(model)["on_train_end"] = lambda: draws.append(float(torch.rand(())))

    how: dict[str, Any] = {"steps": 4, "prepare": draw_at_the_end, "data": context.unread}
    one, again, _ = (weights(context.fit(seed=seed, **how)) for seed in (1, 1, 2))
    if draws[0] == draws[2]:
        return judge(False, "another seed draws the same", "other draws", "leave manual_seed to --seed_everything")
    found = distance(one, again)
    return judge(not found, f"weights differ by {found:.2g}", "0", f"draw from torch, numpy or random only; {ON_A_GPU}")


def one_and_one_epochs_are_two(context: Context) -> Verdict:
    """A run that was stopped after an epoch goes on to what it would have been, with its own loader and workers."""
    context.needs(ten_steps_lower_the_loss, same_seed_same_bits, gradients_are_of_one_step, validation_moves_nothing)
    context.needs(a_short_run_ends)
    with tempfile.TemporaryDirectory() as folder:
        context.saved(folder)
        try:
            resumed = context.short(epochs=2, ckpt_path=f"{folder}/last.ckpt")
        except RunError:
            raise  # it diverges, say
        except Exception as error:
            return judge(False, one_line(error), "to go on", "load_state_dict takes what state_dict gave")
    whole = context.short(epochs=2)
    found, metrics = (distance(of(whole), of(resumed)) for of in (weights, lambda trainer: trainer.callback_metrics))
    text = f"weights differ by {found:.2g}, metrics by {metrics:.2g}"
    what = "whatever training changes: register_buffer, on_save_checkpoint, a state_dict of the data or a sampler"
    return judge(not found and not metrics, text, "0", f"keep in the checkpoint {what}; {ON_A_GPU}")


def loads_in_a_new_process(context: Context) -> Verdict:
    """A checkpoint alone is the model: a new process makes it from that, and it predicts the same."""
    cls = type(context.model)
    if cls.__module__ == "__main__" or "<locals>" in cls.__qualname__:
        raise CannotTell(f"{cls.__qualname__} lies in no file that could be imported")
    context.needs(ten_steps_lower_the_loss)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path or "." for path in sys.path)}
    remedy = "call self.save_hyperparameters(), with plain values only"
    with tempfile.TemporaryDirectory() as folder:
        trained = context.saved(folder, limit_val_batches=0)
        command = [sys.executable, "-c", LOAD, cls.__module__, cls.__qualname__, folder]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=600)
        if done.returncode:
            return judge(False, done.stderr.strip().splitlines()[-1][:150], "a model", remedy)
        loaded = torch.load(Path(folder, "loaded.pt"), weights_only=True)
        again = cls.load_from_checkpoint(f"{folder}/last.ckpt", map_location="cpu", weights_only=True)
    if loaded.keys() != (kept := weights(trained)).keys() or distance(kept, loaded):
        return judge(False, "it has other weights", "the same", remedy)
    off, batch = 0.0, change(context.val[0], Tensor.cpu)
    with contextlib.suppress(CannotTell):
        off = difference(*(predict(model.cpu().eval(), batch) for model in (again, trained.lightning_module)))
    text = f"{len(loaded)} weights and buffers; predictions differ by {off:.1g}"
    return judge(off < SAME, text, "rounding", "register_buffer whatever a prediction needs")


class OthersFirst:
    """The batches of a loader; the first time each is one of its rows, repeated."""

    def __init__(self, loader: Any) -> None:
        self.loader, self.is_first = loader, True

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        is_first, self.is_first = self.is_first, False
        for batch in self.loader:
            yield change(batch, lambda each: each[:1].expand_as(each).clone()) if is_first else batch


def note_second_epoch(found: dict[str, Tensor], model: Any, data: Any) -> None:
    """Lets a fit of a model note the parameters with which its second epoch begins."""
    begin = model.on_train_batch_start

    def begin_and_note(*args: Any, **kwargs: Any) -> Any:
        result = begin(*args, **kwargs)
        if model.current_epoch == 1 and not found:
            found.update({name: p.detach().clone() for name, p in model.named_parameters()})
        return result

    vars(model)["on_train_batch_start"] = begin_and_note


def validation_moves_nothing(context: Context) -> Verdict:
    """Other validation rows leave the same weights and buffers behind, and move nothing that the next one reports."""

    def repeat(model: Any, data: Any) -> None:
        given = data.val_dataloader
        vars(data)["val_dataloader"] = lambda: tree_map(OthersFirst, given())

    if context.val is context.train:
        raise CannotTell("there are no validation rows")
    context.needs(same_seed_same_bits)
    kept, gone = dict[str, Tensor](), dict[str, Tensor]()  # behind a validation, and without one
    ways: list[dict[str, Any]] = [{"num_sanity_val_steps": 0, "prepare": partial(note_second_epoch, kept)}]
    ways.append({"num_sanity_val_steps": 0, "prepare": repeat})
    firsts = [context.short(1, **how) for how in ways]
    one, other = map(weights, firsts)
    if moved := [name for name, value in one.items() if value.ndim and not torch.equal(value, other[name])]:
        found = f"after other validation rows {moved[0]} is another"
        return judge(False, found, "the same", "look at the hooks of validation")
    only = context.short(2, **ways[0] | {"prepare": partial(note_second_epoch, gone)}, check_val_every_n_epoch=2)
    for first, how in zip(firsts, ways, strict=True):
        second = context.short(2, **how)
        if moved := [name for name, p in kept.items() if not torch.equal(p, gone[name])]:
            return judge(False, f"a validation moves {moved[0]}", "the same", "put back the weights that it exchanges")
        if distance(weights(only), weights(second)):  # a validation alone moves the training, by what it clears, say
            continue
        a, b, c = (trainer.callback_metrics for trainer in (first, second, only))
        for tag in [tag for tag in c if tag in b and not same(b[tag], c[tag])]:
            is_best = tag in a and same(a[tag], b[tag])  # so far
            if not is_best and same(b[tag], context.short(2, **how).callback_metrics[tag]):  # else a time, say
                found = f"{tag} of a second validation is {b[tag]:.4g}, without the first {c[tag]:.4g}"
                return judge(False, found, "the same", "reset() what it is summed in, or give self.log the metric")
    return Verdict("ok", f"{len(one)} weights and buffers, and what is reported, are the same")


class Forks(_MultiProcessingLauncher):
    """Processes that begin as this one, of which it takes the weights back."""

    def _recover_results_in_main_process(self, worker_output: Any, trainer: Any) -> None:
        path = Path(worker_output.weights_path)
        trainer.lightning_module.load_state_dict(torch.load(path, weights_only=True), strict=False)
        shutil.rmtree(path.parent)


def two_processes_are_one(context: Context) -> Verdict:
    """Two processes that share the batches between them come to the weights of one."""
    kinds = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
    reasons = [f"{type(m).__name__} is of each process" for m in context.model.modules() if isinstance(m, kinds)]
    reasons += ["a batch has one row"] * (len(tensors(context.train[0])[0]) < 2)
    reasons += ["it needs fork, and no GPU in use"] * (not hasattr(os, "fork") or torch.cuda.is_initialized())
    if reasons:
        raise CannotTell(reasons[0])
    context.needs(a_short_run_ends, gradients_arrive, loss_does_not_broadcast)
    context.needs(loss_is_a_mean_over_rows, target_follows_from_inputs, neighbours)
    model = context.copy()
    loss = context.observe(model, context.train[0]).loss
    gradients = torch.autograd.grad(loss, [*trainable(model).values()], allow_unused=True)
    unused = any(gradient is None for gradient in gradients)
    forked: Any = DDPStrategy(timeout=timedelta(minutes=2), find_unused_parameters=unused)  # and not half an hour
    forked._configure_launcher = lambda: setattr(forked, "_launcher", Forks(forked, "fork"))
    two = context.fit(epochs=1, limit_train_batches=4, devices=2, strategy=forked, accelerator="cpu")
    one, model = context.fit(epochs=1, limit_train_batches=4), context.copy(training=False)
    found, losses = distance(weights(one), weights(two)), list[float]()
    for trainer in (one, two):
        model.load_state_dict(trainer.lightning_module.state_dict())
        losses.append(context.observe(model, context.train[0]).size)
    # Where a gradient is 0 but for rounding, as of a bias that cancels out, Adam takes whole steps along that.
    off = abs(losses[0] - losses[1])
    is_same = found < 1e-4 or off < 0.01 * abs(losses[0] - context.step(context.train[0], training=False).size)
    is_mean = context.verdict(loss_is_a_mean_over_rows)
    if found >= 1e-4 and (is_mean.status == "skip" or "coupled" in is_mean.text):
        raise CannotTell("the loss couples rows, or is drawn: each process does so with its own half of a batch")
    twice = (tensors(drawn(context, "train", range(32), seed)) for seed in (0, 1))
    if found >= 1e-4 and not all(map(torch.equal, *twice)):
        raise CannotTell("rows are augmented: each process draws for its own half of a batch")
    text = f"weights differ by {found:.2g}, the loss by {off:.2g}"
    return judge(is_same, text, "rounding", "let each take its share of a batch")
