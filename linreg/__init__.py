"""Linear regression with PyTorch Lightning, every run held against the exact solution."""

from linreg.data import CSVData, RegressionData, SyntheticData
from linreg.errors import InputError, RunError
from linreg.least_squares import LeastSquares
from linreg.linear_regression import LinearRegression
from linreg.model import Regressor
from linreg.standardizer import Standardizer
from linreg.table import Table, read_csv

__all__ = [
    "CSVData",
    "InputError",
    "LeastSquares",
    "LinearRegression",
    "RegressionData",
    "Regressor",
    "RunError",
    "Standardizer",
    "SyntheticData",
    "Table",
    "read_csv",
]
