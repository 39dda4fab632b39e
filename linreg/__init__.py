"""Regression with PyTorch Lightning, every run held against the exact solution; any other model in the same stack.

A student reads ``module``, ``metrics``, ``optimizers`` and ``schedules``, then the room ``regression``; a researcher
``datamodule`` (with ``rows`` and ``split``), then ``examples``; a user of the stack ``experiment``, a run from its
beginning to its end, ``evaluation`` and ``ending``; ``lecture`` is three runs in one. ``verdict`` is what a check of
the doctor says, ``__main__`` the program. All use the room ``system``. The names below are loaded on first use.
"""

import importlib
from typing import Any

_PUBLIC = {
    "CSVData": "tables.csv_data",
    "DataModule": "datamodule",
    "InputError": "system.errors",
    "LeastSquares": "regression.exact.least_squares",
    "LinearRegression": "regression.linear_regression",
    "Module": "module",
    "PredictionData": "tables.prediction",
    "RegressionData": "tables.data",
    "Regressor": "regression.regressor",
    "RunError": "system.errors",
    "Standardizer": "regression.standardizer",
    "SyntheticData": "tables.synthetic",
    "Table": "tables.table",
    "WarmupConstant": "schedules",
    "WarmupCosine": "schedules",
    "WarmupLinear": "schedules",
    "Windows": "rows",
    "read_csv": "tables.table",
    "doctor": "checks.doctor",
    "run": "experiment",
    "script": "command.main",
}
__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted(_PUBLIC)
