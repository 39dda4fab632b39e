"""The known answer: the exact least-squares solution of the rows seen, from one streamed pass in float64."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

MAX_COLUMNS = 2_000  # of features: the summary is a square matrix of this side: 32 MB, minutes of QR on a large table
GRAM_ROWS = 4_096  # at a time: more would leave the processor's cache, fewer are not worth a Gram matrix
GRAM_TRACE = 1e6


@dataclass
class Solution:
    """Coefficients in the data's units: ``coef`` (T, D), ``intercept`` (T,), and their standard errors.

    A standard error is NaN where rows are too few, columns collinear, or add up to a constant beside an intercept.
    """

    coef: Tensor
    intercept: Tensor
    coef_std_error: Tensor
    intercept_std_error: Tensor


class LeastSquares:
    """A mergeable summary of rows (x, y) that holds all that least squares can ask of them.

    What is kept is the triangular factor R of a QR decomposition of ``[1 x y]`` (``[x y]`` without an intercept), less
    the first row that was seen: memory O((D + T)^2) whatever the number of rows. Because the column of ones stands
    first, the first row of R holds the means, and the rest is the R factor of the centred columns; nothing is squared,
    so nothing is lost on ill-conditioned columns. (Golub & Van Loan, Matrix Computations, 5.3 and 6.5.)

    Args:
        num_features: D.
        num_targets: T.
        intercept: False fits a plane through the origin; then columns are scaled by their root mean square only.
    """

    def __init__(self, num_features: int, num_targets: int = 1, intercept: bool = True) -> None:
        self.num_features, self.num_targets, self.intercept = num_features, num_targets, intercept
        self.num_rows = 0
        columns = num_features + num_targets
        self.r = torch.zeros(0, columns + intercept, dtype=torch.float64)
        self.shift = torch.zeros(columns, dtype=torch.float64)  # keeps the digits of columns that are far from 0
        self.min = torch.full((columns,), torch.inf, dtype=torch.float64)
        self.max = -self.min

    def update(self, x: Tensor, y: Tensor) -> "LeastSquares":
        """Takes in a chunk of rows, x (n, D) and y (n, T), on any device and of any float type."""
        for part in zip(x.split(GRAM_ROWS), y.split(GRAM_ROWS), strict=True):
            self._take(*part)
        return self

    def _take(self, x: Tensor, y: Tensor) -> None:
        rows, first = torch.empty(len(x), self.r.shape[1], dtype=torch.float64), int(self.intercept)
        rows[:, :first] = 1
        values = rows[:, first:]
        values[:, : self.num_features], values[:, self.num_features :] = x.cpu(), y.cpu()
        if self.intercept and not self.num_rows:
            self.shift = values[0].clone()
        self.num_rows += len(rows)
        self.min, self.max = torch.minimum(self.min, values.amin(0)), torch.maximum(self.max, values.amax(0))
        values -= self.shift
        self._absorb(rows)

    def merge(self, other: "LeastSquares") -> "LeastSquares":
        """Takes in another summary of the same columns; the order of merging does not matter."""
        if not (self.num_rows and other.num_rows):  # a thread or a process may have had no row
            vars(self).update(vars(self if self.num_rows else other))
            return self
        self.num_rows += other.num_rows
        self.min, self.max = torch.minimum(self.min, other.min), torch.maximum(self.max, other.max)
        rows = other.r.clone()
        if self.intercept:
            rows[:, 1:] += rows[:, :1] * (other.shift - self.shift)
        self._absorb(rows)
        return self

    def _absorb(self, rows: Tensor) -> None:
        for name in ("centred", "svd"):
            self.__dict__.pop(name, None)
        if len(rows) >= GRAM_ROWS and len(self.r) == self.r.shape[1]:
            # In the coordinates of the R so far, new rows of the same kind are all but orthonormal, so that their Gram
            # matrix loses nothing, in half the time of another QR. (As in CholeskyQR2, Yamamoto et al. 2015.)
            q = torch.linalg.solve_triangular(self.r, rows, upper=True, left=False)
            gram = q.T @ q
            gram.diagonal().add_(1.0)
            if gram.trace() < GRAM_TRACE:  # bounds the condition number of gram; not so for nan
                self.r = torch.linalg.cholesky(gram, upper=True) @ self.r
                return
        self.r = torch.linalg.qr(torch.cat([self.r, rows]), mode="r").R

    @cached_property
    def centred(self) -> Tensor:
        """The R factor (D + T, D + T) of the centred columns; its columns' norms are std * sqrt(N)."""
        columns = self.num_features + self.num_targets
        r = self.r[int(self.intercept) :, int(self.intercept) :]
        return torch.cat([r, r.new_zeros(max(columns - len(r), 0), columns)])[:columns]

    @property
    def constant(self) -> Tensor:
        """Columns (D + T,) that cannot be scaled: of one value, or without an intercept those that are 0 throughout.

        A std of 0 would miss a column of 0.1.
        """
        return (self.min == self.max) & ((self.min == 0) | self.intercept)

    @property
    def mean(self) -> Tensor:
        """(D + T,); zeros without an intercept."""
        return self.shift + self.r[0, 1:] / self.r[0, 0] if self.intercept else torch.zeros_like(self.min)

    @property
    def std(self) -> Tensor:
        """(D + T,) population standard deviations (about 0 without an intercept); 1 for a constant column."""
        std = self.centred.norm(dim=0) / self.num_rows**0.5
        return torch.where(self.constant, 1.0, std)

    @property
    def _standardized(self) -> tuple[Tensor, Tensor]:
        """R factors of the standardized features (D + T, D) and targets (D + T, T), per row: columns of norm 1."""
        r = self.centred / (self.std * self.num_rows**0.5)
        r = r.masked_fill(self.constant, 0.0)
        return r[:, : self.num_features], r[:, self.num_features :]

    @cached_property
    def svd(self) -> tuple[Tensor, Tensor, Tensor]:
        """U, S, V of the standardized features, without the directions in which they do not vary."""
        u, s, vh = torch.linalg.svd(self._standardized[0], full_matrices=False)
        reach = torch.maximum(self.min.abs(), self.max.abs()) / self.std  # a column's own rounding, per spread
        reach = (vh * reach[: self.num_features]).norm(dim=1)  # of a direction: that of the columns which it is made of
        is_certain = s > 4 * torch.finfo(s.dtype).eps * reach.clamp(min=self.num_features * s.max())
        return u[:, is_certain], s[is_certain], vh[is_certain].T

    @property
    def rank(self) -> int:
        """The number of linearly independent features."""
        return len(self.svd[1])

    @property
    def degrees_of_freedom(self) -> int:
        """Of the residuals: rows less independent parameters, at least 0."""
        return max(self.num_rows - self.rank - int(self.intercept), 0)

    @property
    def not_identifiable(self) -> Tensor:
        """Which features (D,) have no coefficient of their own, being constant or collinear with others."""
        return self.svd[2].square().sum(1) < 1 - 1e-8

    @property
    def eigenvalues(self) -> Tensor:
        """The eigenvalues (rank,) of the features' correlation matrix, largest first."""
        return self.svd[1] ** 2

    @property
    def condition_number(self) -> float:
        """Largest over smallest singular value of the standardized features, at least 1."""
        s = self.svd[1]
        return float(s[0] / s[-1]) if len(s) else 1.0

    def weight(self, weight_decay: float = 0.0) -> Tensor:
        """The optimal weight (T, D) in standardized units: minimum norm where the features are collinear.

        With decay w it is that of ``mean((z_y - z_x W^T)^2) + w / 2 |W|^2``, as is that of SGD with ``weight_decay=w``.
        """
        u, _, v = self.svd
        return (v @ (self.inverse(weight_decay)[:, None] * (u.T @ self._standardized[1]))).T

    def inverse(self, weight_decay: float = 0.0) -> Tensor:
        """What stands for 1 / S (rank,) in the optimal weight V S^-1 U^T z_y and in its covariance V S^-2 V^T / N."""
        s = self.svd[1]
        return s / (s**2 + weight_decay * self.num_targets / 2)

    def mse(self, weight: Tensor, bias: Tensor | float = 0.0) -> Tensor:
        """The mean squared error (T,) of any linear model, a weight (T, D) and, with an intercept, a bias (T,).

        All are in standardized units; the rows are not looked at.
        """
        x, y = self._standardized
        residual = x @ weight.to(x).T - y
        return residual.square().sum(0) + torch.as_tensor(bias).to(x) ** 2

    def predict(self, x: Tensor, weight_decay: float = 0.0) -> Tensor:
        """The exact solution's predictions (N, T) for x (N, D), both in the data's units."""
        (mean_x, mean_y), (std_x, std_y) = self._per_side(self.mean), self._per_side(self.std)
        return ((x.double() - mean_x) / std_x) @ self.weight(weight_decay).T * std_y + mean_y

    def _per_side(self, columns: Tensor) -> tuple[Tensor, ...]:
        return columns.split([self.num_features, self.num_targets])

    def solve(self, weight_decay: float = 0.0) -> Solution:
        """The exact solution in the data's units, with the standard errors of just this solution."""
        n = self.num_rows
        (mean_x, mean_y), (std_x, std_y) = self._per_side(self.mean), self._per_side(self.std)
        coef = self.weight(weight_decay) * std_y[:, None] / std_x
        v = self.svd[2]
        variance = self.mse(self.weight()) * std_y**2 * n / (self.degrees_of_freedom or torch.nan)
        spread = v * self.inverse(weight_decay) / std_x[:, None]  # (X^T X)^-1 = spread spread^T / N without decay
        per_coef = torch.where(self.not_identifiable, torch.nan, spread.square().sum(1) / n)
        far = (mean_x / std_x).masked_fill(self.constant[: self.num_features], 0.0)
        is_known = self.intercept and (far - v @ (v.T @ far)).norm() < 1e-8 * (1 + far.norm())  # no columns add up to 1
        per_intercept = (1 + (mean_x @ spread).square().sum()) / n if is_known else torch.tensor(torch.nan)
        std_errors = (variance[:, None] * per_coef).sqrt(), (variance * per_intercept).sqrt()
        return Solution(coef, mean_y - coef @ mean_x, *std_errors)
