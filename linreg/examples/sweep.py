"""A sweep with optuna, all of it in one process: ``python -m linreg.examples.sweep --trials 20``, again to go on.

Each trial is a run folder, which TensorBoard's HParams compares, one that diverges too; the study is kept in sweep.db.
"""

import math
from typing import Any

import optuna

from linreg import CSVData, InputError, LinearRegression, RunError, run, script


def objective(trial: optuna.Trial, data: CSVData) -> float:
    """The validation MSE of a trial; infinite where the training diverges."""
    rates = {"lr": trial.suggest_float("lr", 1e-3, 100, log=True), "momentum": trial.suggest_float("momentum", 0, 0.95)}
    try:
        found = run(LinearRegression(data.num_features, **rates), data, name=trial.study.study_name, max_epochs=20)
    except RunError:
        return math.inf
    trial.set_user_attr("folder", str(found.folder))
    return found.metrics["val"]["mse"]


def main(
    trials: int = 20, storage: str = "sqlite:///sweep.db", name: str = "sweep",
    path: str = "configs/penguins.csv", target: str = "body_mass_g", categories: Any = "all", **table: Any,
) -> None:  # fmt: skip
    """Searches for the rate and the momentum, until the study has that many trials; see CSVData for the data."""

    def read() -> CSVData:
        return CSVData(path, target, categories=categories, **table)

    told = str((read().fingerprints, target, categories, table))  # reads the files, so that a mistake is said here
    study = optuna.create_study(storage=storage, study_name=name, load_if_exists=True)
    if study.user_attrs.get("data", told) != told:
        raise InputError(f"the study {name} in {storage} is of other data, or of other flags; give another --name")
    study.set_user_attr("data", told)
    done = sum(trial.state == optuna.trial.TrialState.COMPLETE for trial in study.trials)
    study.sampler = optuna.samplers.TPESampler(seed=len(study.trials))  # not the same proposals again
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # else it would print where Ctrl-C has come
    study.optimize(lambda trial: objective(trial, read()), trials - done)
    print(f"{name}: best validation MSE {study.best_value:.7g} with {study.best_params}")
    print(f"the run of it: {study.best_trial.user_attrs.get('folder')}")


if __name__ == "__main__":
    script(main)
