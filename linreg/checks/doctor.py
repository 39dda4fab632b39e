"""Is my training right? A verdict for each check, of any model and any data."""

import inspect
import json
from dataclasses import asdict
from typing import Any

from lightning.pytorch import Trainer

from linreg.checks import gradients, leaks, learning, reproducing, rows, running
from linreg.checks.context import Context
from linreg.runs.folder import check_name, new_run_folder
from linreg.stack.trainer import all_flags
from linreg.system.atomic import atomic_write
from linreg.system.errors import InputError, RunError, with_remedies
from linreg.system.screen import say, wrapped
from linreg.verdict import Check, Verdict

CHECKS: list[Check] = [running.a_short_run_ends, running.evaluation_is_evaluation, running.frozen_parts_are_still]
CHECKS += [learning.loss_at_start, learning.two_rows_by_heart, learning.loss_does_not_broadcast]
CHECKS += [learning.loss_is_a_mean_over_rows, learning.training_and_validation_agree, learning.validation_follows]
CHECKS += [gradients.gradients_arrive, gradients.gradients_are_of_one_step, gradients.what_is_trained_is_a_parameter]
CHECKS += [gradients.finite_differences, leaks.neighbours, leaks.target_unseen, leaks.splits_apart]
CHECKS += [leaks.no_column_is_the_target, reproducing.same_seed_same_bits, reproducing.one_and_one_epochs_are_two]
CHECKS += [reproducing.loads_in_a_new_process, reproducing.validation_moves_nothing, reproducing.two_processes_are_one]
CHECKS += [running.ten_steps_lower_the_loss, running.rate_is_neither_small_nor_large, running.bfloat16]
CHECKS += [rows.no_collinear_column, rows.first_layer_gets_scaled_columns, rows.nothing_is_missing, rows.target_varies]
CHECKS += [rows.splits_are_alike, rows.classes_are_balanced, rows.target_follows_from_inputs, rows.loader_keeps_up]
FITS, PROCESSES = 50, 12.0  # about as many all of them take; the seconds of the processes that they start
UNFIT = ("check", "confidence", "ckpt_path")  # flags of fit that are of a whole run; others of its own move no weight


def doctor(model: Any, data: Any, name: str | None = None, **flags: Any) -> dict[str, Verdict]:
    """Checks whether a training is right, by a few steps at most; model and data are left as they are.

    Args:
        model: a LightningModule before its training; its method ``checks()``, if there is one, adds some of its own.
        data: a LightningDataModule, what it is to be trained on.
        name: of a run, to write the verdicts to runs/NAME/version_N/doctor.json; None writes nothing.
        **flags: the Trainer's.

    Returns:
        A verdict for each check, by its name.
    """
    if name:
        check_name(name)
    with with_remedies():
        context = Context(model, data, all_flags(flags))
    checks = [*CHECKS, *getattr(model, "checks", list)()]
    say(f"doctor  {len(checks)} checks, about {FITS * context.seconds + PROCESSES:.0f} s")
    for line in [*data.describe()][1:] if hasattr(data, "describe") else ():  # what a fit says of them, too
        say(wrapped(f"data    {line}"))
    table: dict[str, Verdict] = {}
    for check in checks:
        title = check.__name__.replace("_", " ")
        table[title] = context.verdict(check)
        say(f"{table[title].status:5} {title:34} {table[title].text}")
    counts = [sum(verdict.status == status for verdict in table.values()) for status in ("ok", "FAIL", "skip")]
    say("doctor  {} ok, {} FAIL, {} skip".format(*counts))
    if name:
        folder, content = new_run_folder(name), {title: asdict(verdict) for title, verdict in table.items()}
        atomic_write(folder / "doctor.json", json.dumps(content, indent=2).encode())
        say(f"run     {folder}")
    return table


def consult(model: Any, data: Any, name: str | None, settings: dict[str, Any]) -> None:
    """The command, with the settings of fit; RunError if a check fails, InputError for what is of a whole run."""
    if unfit := [flag for flag in UNFIT if settings[flag] is not None]:
        raise InputError(f"doctor: --{unfit[0]} is of a whole run; leave it out")
    others = {key: settings[key] for key in inspect.signature(Trainer).parameters if key in settings}
    table = doctor(model, data, name, **others)
    if failed := [title for title, verdict in table.items() if verdict.status == "FAIL"]:
        raise RunError(f"{len(failed)} of {len(table)} checks failed: {', '.join(failed)}")
