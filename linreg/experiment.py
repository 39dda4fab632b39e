"""A run from beginning to end: data, model, trainer, fit, best checkpoint, test, report, check."""

import os
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from linreg.ending import board_of, failure_recorded, how_trained, plain, tell
from linreg.evaluation import announce, check_objects, has_rows, has_step, tables_of
from linreg.metrics import LOADER
from linreg.report.findings import Findings, classes_of, logged
from linreg.runs.checkpoints import BestCheckpoint
from linreg.runs.folder import check_name, folder_of, newest_checkpoint, open_run
from linreg.runs.loggers import make_loggers
from linreg.runs.record import logged_by_steps, values_of_epoch
from linreg.runs.resume import describe_resume
from linreg.safety.allowed import describe_objects, plain_only
from linreg.safety.checkpoint_file import read_checkpoint
from linreg.split import SEEDS
from linreg.stack.draws import SEED, Draws, seed_draws
from linreg.stack.lean import put_back
from linreg.stack.stopping import explain_interruption
from linreg.stack.trainer import all_flags, make_fitter, no_false_alarms
from linreg.system.errors import InputError, given, with_remedies
from linreg.system.ranks import world
from linreg.system.screen import say


@dataclass
class Run:
    """What a run has left: its folder (None without one), what metrics.json and coefficients.csv hold, its objects."""

    folder: Path | None
    metrics: dict[str, Any]
    coefficients: list[dict[str, Any]]
    model: LightningModule = field(repr=False)
    trainer: Trainer = field(repr=False)


def run(
    model: LightningModule,
    data: LightningDataModule,
    name: str = "default",
    ckpt_path: str | None = None,
    check: float | None = None,
    confidence: float | None = None,
    chunk: int | None = None,
    formula: bool = False,
    monitor: str | None = None,
    mode: Literal["min", "max"] = "min",
    figures: bool = True,
    save_every_n_steps: int | None = None,
    config: str | None = None,
    **flags: Any,
) -> Run:
    """Trains a model, goes back to its best checkpoint, tests it and reports.

    Args:
        model: to train.
        data: what to train it on.
        name: of the run, for runs/NAME/version_N.
        ckpt_path: a checkpoint to go on from; "last" is the newest of that name, if there is one.
        check: the largest excess_mse that is accepted, above 0, such as 0.01; above it the exit code is 1.
        confidence: of the intervals to add to coefficients.csv, between 0 and 1, such as 0.95.
        chunk: mini-batches in one step of Lightning's loop, such as 16, which is faster.
        formula: the lecture's gradient in place of autograd, in chunks of 1 if none is given.
        monitor: the metric by which best.ckpt is the best; None stands for the validation loss.
        mode: which of its values is the best, "min" or "max".
        figures: whether pictures of what was found are drawn for TensorBoard.
        save_every_n_steps: optimizer steps between two saves of last.ckpt inside an epoch; None saves at its end only.
        config: what to write down as config.yaml; None writes down the hyperparameters.
        **flags: the Trainer's.

    Raises:
        InputError: for what is wrong with any of these.
        RunError: if the training diverges, misses its check, or cannot write.
    """
    own = {**locals(), "ckpt_path": None}
    with given("run"):
        check_given(own)
        ckpt_path = newest_checkpoint(name) if ckpt_path == "last" else ckpt_path
        checkpoint = read_checkpoint(ckpt_path) if ckpt_path else None
        settings = all_flags(flags)
        config = describe_run(own, settings, checkpoint) if config is None else config
        best = BestCheckpoint(monitor, mode)
        trainer = make_fitter(settings, model, config, chunk, formula, best, save_every_n_steps)
        announce(data, trainer, None if checkpoint or own["config"] else model)
    if checkpoint:
        say(describe_resume(checkpoint, config, trainer), trainer.is_global_zero)
    opening, start = opened(trainer, settings, name, ckpt_path, checkpoint), time.perf_counter()
    with with_remedies(), explain_interruption(trainer), opening, put_back(trainer, model, data), no_false_alarms():
        path = ckpt_path and os.path.realpath(ckpt_path)  # "last" or "best" alone would be words of Lightning's
        with failure_recorded(trainer, start):
            trainer.fit(model, datamodule=data, ckpt_path=path, weights_only=True)
        before = checkpoint["epoch"] + 1 if checkpoint else 0  # perhaps all there are
        trained = how_trained(trainer, max(before, trainer.current_epoch), time.perf_counter() - start)
        reported, values = go_back_to_best(trainer, model, trained["epochs"], checkpoint)
        found = test(trainer, model, data, values, confidence)
        tell(found, trainer, reported | trained, figures)
        found.check(check, trainer.is_global_zero)
    return Run(getattr(folder_of(trainer), "path", None), found.metrics, found.rows, model, trainer)


def test(trainer: Trainer, model: Any, data: Any, values: dict[str, Any], confidence: float | None) -> Findings:
    """Measures the weights on the test rows; what they amount to, as far as that is known, or else what was logged."""
    if has_rows(data, "test") and has_step(model, "test"):
        seed = next(each.seed for each in trainer.callbacks if isinstance(each, Draws))  # type: ignore[attr-defined]
        seed_draws(seed, 0, trainer.global_rank)  # else a finished run that is asked again would draw otherwise
        trainer.test(model, datamodule=data, verbose=False)
        values = values | plain(trainer.callback_metrics) | tables_of(model, "test")
    if not (hasattr(model, "report") and hasattr(data, "splits")):
        return logged(values, classes_of(model, data), logged_by_steps(trainer))
    found, beside = model.report(data, confidence), logged({tag: v for tag, v in values.items() if LOADER in tag})
    for stage, of_loaders in beside.metrics.items():  # the report is of the rows of the splits
        found.metrics.setdefault(stage, {}).update(of_loaders)
    found.text += f"\n\n{beside.text}" * bool(beside.metrics)
    return found


def describe_run(own: dict[str, Any], settings: dict[str, Any], checkpoint: dict[str, Any] | None) -> str:
    """What was given in Python, to ``run`` and of the Trainer's flags, as a config that makes the same run."""
    plain_flags = plain_only(settings)
    left_out = ", ".join(name for name in settings if name not in plain_flags)
    seed = str(os.environ.get(SEED, (checkpoint or {}).get("seed", torch.initial_seed())))  # of each epoch, too
    sections: dict[str, Any] = {"seed_everything": int(seed)} if seed.isdecimal() and int(seed) <= SEEDS else {}
    sections |= {"trainer": all_flags({}) | plain_flags, **describe_objects(own["model"], own["data"])}
    sections |= {name: value for name, value in plain_only(own).items() if name not in ("config", "flags")}
    note = (
        "# from Python: first weights that are drawn are these if that seed was set right before the model was made\n"
    )
    note += f"# without the objects in {left_out}, which no config can hold\n" * bool(left_out)
    return note + yaml.safe_dump(sections, sort_keys=False)


def check_given(own: dict[str, Any]) -> None:
    """InputError for an argument of ``run`` that is of another kind, or a number that is no share of anything known."""
    check_objects(own["model"], own["data"])
    check_name(own["name"])
    check, confidence = own["check"], own["confidence"]
    kinds = {"check": Real, "confidence": Real, "chunk": Integral, "save_every_n_steps": Integral}
    for name, kind in kinds.items():
        if own[name] is not None and not isinstance(own[name], kind):
            raise InputError(f"--{name} {own[name]!r}: a {'whole ' * (kind is Integral)}number is expected")
    if confidence is not None and not 0 < confidence < 1:
        raise InputError(f"--confidence {confidence:g}: a share between 0 and 1 is expected, such as 0.95")
    if check is not None and not check > 0:
        raise InputError(f"--check {check:g}: a share above 0 is expected, such as 0.01")
    model = own["model"]
    if confidence is not None and getattr(model, "penalty", None):
        found = f"--model.weight_decay {model.penalty:g} draws coefficients towards 0, and away from the true ones"
        raise InputError(f"--confidence {confidence:g}: {found}; leave one of them out")
    if check is not None and (not hasattr(model, "report") or getattr(model, "has_own_loss", False)):
        found = f"{type(model).__name__} has no exact solution to be held against"
        raise InputError(f"--check {check:g}: {found}; leave it out")


def go_back_to_best(
    trainer: Trainer, model: LightningModule, epochs: int, before: dict[str, Any] | None
) -> tuple[dict[str, Any], dict[str, float]]:
    """Loads the best checkpoint into the model, but not one far from a known optimum; which one, and what was logged.

    That is of ``before`` the run if it trained nothing.
    """
    best = next((each for each in trainer.checkpoint_callbacks if isinstance(each, BestCheckpoint)), None)
    saved = {os.path.basename(getattr(each, "best_model_path", "")) for each in trainer.checkpoint_callbacks}
    values = plain(values_of_epoch(trainer)) | tables_of(model)
    if before and not values and trainer.global_step == before["global_step"]:  # there was nothing left to train
        values = plain(before.get("logged"))
    last = {"checkpoint": "last.ckpt" if "last.ckpt" in saved else None, "epoch": epochs}, values
    if best is None or best.rank == 0:  # no epoch came near to the optimum, and the last one is as good
        return last
    if not os.path.exists(best.best_model_path):
        say("        there is no best.ckpt of this run: what follows is of its last epoch", trainer.is_global_zero)
        return last
    with given(best.best_model_path):
        checkpoint = read_checkpoint(best.best_model_path)
        model.load_state_dict(checkpoint["state_dict"])
        return {"checkpoint": "best.ckpt", "epoch": checkpoint["epoch"] + 1}, plain(checkpoint.get("logged"))


@contextmanager
def opened(
    trainer: Trainer, settings: dict[str, Any], name: str, ckpt_path: str | None, checkpoint: dict[str, Any] | None
) -> Iterator[None]:
    """Gives a run its folder, and its loggers there; lets other processes into it at the end."""
    processes = int(os.environ.get("WORLD_SIZE", 1)) if getattr(rank_zero_only, "rank", 0) else world()
    if 1 < processes != (needed := trainer.num_devices * trainer.num_nodes):
        found = f"--devices {needed} in a script that {processes} processes run from its beginning for another run"
        raise InputError(f"{found}; put each run into a script of its own, or give all of them as many --devices")
    if settings["fast_dev_run"]:
        yield  # leaves nothing
        return
    own = None if settings["enable_checkpointing"] is False else ckpt_path  # else its files would disagree
    with closing(open_run(name, own, checkpoint)) as folder:
        vars(trainer)["run_folder"] = folder
        trainer.loggers = make_loggers(settings["logger"], folder)
        try:
            yield
        finally:
            if board := board_of(trainer):
                board.close()
