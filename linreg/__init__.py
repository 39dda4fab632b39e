"""Linear regression with PyTorch Lightning, every run held against the exact solution."""

from linreg.errors import InputError, RunError
from linreg.regression.exact.least_squares import LeastSquares
from linreg.regression.linear_regression import LinearRegression
from linreg.regression.prediction import PredictionData
from linreg.regression.regressor import Regressor
from linreg.regression.standardizer import Standardizer
from linreg.tables.data import CSVData, RegressionData, SyntheticData
from linreg.tables.table import Table, read_csv

__all__ = [
    "CSVData",
    "InputError",
    "LeastSquares",
    "LinearRegression",
    "PredictionData",
    "RegressionData",
    "Regressor",
    "RunError",
    "Standardizer",
    "SyntheticData",
    "Table",
    "read_csv",
]
