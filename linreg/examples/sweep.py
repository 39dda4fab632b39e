"""A sweep with optuna, all of it in one process: ``python -m linreg.examples.sweep --trials 20``, again to go on.

Each trial is a run folder, which TensorBoard's HParams compares, one that diverges too; the study is kept in sweep.db.
"""

import argparse
import math

import optuna

from linreg import CSVData, LinearRegression, RunError, run


def objective(trial: optuna.Trial) -> float:
    """The validation MSE of a trial; infinite where the training diverges."""
    data = CSVData("configs/penguins.csv", "body_mass_g", categories="all")
    lr = trial.suggest_float("lr", 1e-3, 100, log=True)
    momentum = trial.suggest_float("momentum", 0, 0.95)
    model = LinearRegression(data.num_features, lr=lr, momentum=momentum)
    try:
        found = run(model, data, name=trial.study.study_name, max_epochs=20)
    except RunError as error:
        trial.set_user_attr("error", str(error))
        return math.inf
    trial.set_user_attr("folder", str(found.folder))
    return found.metrics["val"]["mse"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=20, help="of the whole study, with those that are done")
    parser.add_argument("--storage", default="sqlite:///sweep.db")
    parser.add_argument("--name", default="sweep")
    options = parser.parse_args()
    study = optuna.create_study(storage=options.storage, study_name=options.name, load_if_exists=True)
    done = sum(trial.state == optuna.trial.TrialState.COMPLETE for trial in study.trials)
    study.sampler = optuna.samplers.TPESampler(seed=len(study.trials))  # not the same proposals again
    study.optimize(objective, n_trials=max(options.trials - done, 0))
    print(f"{options.name}: {len(study.trials)} trials, best MSE {study.best_value:.7g} with {study.best_params}")
    print(f"the run of it: {study.best_trial.user_attrs.get('folder')}")


if __name__ == "__main__":
    main()
