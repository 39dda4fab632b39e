"""Regression: a hypothesis between two standardizers, the mean squared error, and gradient descent on it.

Shapes: x (N, D) and y (N, T) are rows in the data's own units, float64; "standardized" they are float32.
"""

from typing import Any

import torch
from lightning.pytorch import Callback
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torchmetrics import MetricCollection

from linreg.metrics import RegressionMetrics, about
from linreg.module import Batch, Losses, Module
from linreg.optimizers import find_class
from linreg.regression.exact.baseline import ExactBaseline
from linreg.regression.exact.least_squares import MAX_COLUMNS, LeastSquares
from linreg.regression.exact.merged import merged, moments, summary
from linreg.regression.standardizer import Standardized, Standardizer
from linreg.regression.units import SameUnits
from linreg.report.findings import Findings
from linreg.system.errors import InputError
from linreg.tables.columns import (
    check_same_columns,
    columns_of,
    note_other_units,
    read_columns,
    same_units,
    training_rows,
    units_of,
)


class Regressor(Module):
    """Any ``nn.Module`` as a hypothesis, trained by gradient descent on the mean squared error of standardized data.

    ``model(x)`` takes x (N, D) and returns predictions (N, T), both in the data's own units; the hypothesis sees
    standardized units only, and the standardizers travel in the checkpoint with it.

    Args:
        hypothesis: maps standardized features (N, D) to standardized targets (N, T).
        num_features: D.
        num_targets: T.
        **training: see Module.
    """

    hypothesis: nn.Module
    x_standardizer: Standardizer
    y_standardizer: Standardizer
    is_linear = False  # whether the exact least-squares solution is the model's own optimum, and not its baseline
    has_intercept = True
    headlines = ("excess_mse", "rmse/val", "rmse/test", "r2/test")  # of the HParams tab, which shows the first one only
    loss_limit = 1e4  # in standardized units, where predicting the mean costs 1: what is above it diverges

    def __init__(self, hypothesis: nn.Module, num_features: int, num_targets: int = 1, **training: Any) -> None:
        super().__init__(hypothesis, RegressionMetrics(), **training)
        self.x_standardizer = Standardizer(num_features)
        self.y_standardizer = Standardizer(num_targets)
        self.feature_names = [f"x{i + 1}" for i in range(num_features)]
        self.target_names = [f"y{i + 1}" for i in range(num_targets)] if num_targets > 1 else ["y"]
        self.levels: dict[str, list[str]] = {}  # of the columns of text among them; the first has no feature
        # What does not change, and is the same in all processes, DDP would send at every step.
        sides = ("x_standardizer", "y_standardizer")
        self._ddp_params_and_buffers_to_ignore = [f"{side}.{name}" for side in sides for name in ("mean", "std")]
        self.exact: LeastSquares | None = None  # the solution of the training rows, known during fit
        self.baseline = ExactBaseline()

    def forward(self, x: Tensor) -> Tensor:
        return self.y_standardizer.inverse(self.hypothesis(self.x_standardizer(x).to(self.dtype)).double())

    def loss(self, y_hat: Tensor, y: Tensor) -> Tensor:
        """The mean squared error of standardized predictions and targets, both (N, T); override it for another loss."""
        if y.shape != y_hat.shape:
            raise InputError(
                f"the target has shape {tuple(y.shape)} and the prediction {tuple(y_hat.shape)}; unequal shapes would "
                "broadcast and learn the mean only. Give the target as (N, T): y.unsqueeze(1) if there is one"
            )
        return mse_loss(y_hat, y.to(y_hat.dtype))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        x, y = self.standardize(batch)
        return self.loss(self.hypothesis(x), y)

    def step(self, batch: Any) -> Losses:
        """The loss of a batch in the data's units; the predictions, in the same units, are measured."""
        x, y = batch
        y_hat = self(x)
        self.measure(y_hat, y)
        return self.loss(*(self.y_standardizer(side).to(self.dtype) for side in (y_hat, y)))

    def fresh_metrics(self, postfix: str = "") -> MetricCollection:
        return about(self.y_standardizer.mean, super().fresh_metrics(postfix))

    def standardize(self, batch: Batch) -> Standardized:
        """A batch in standardized units, as it is where the data module has done that for the whole table."""
        if isinstance(batch, Standardized):
            return batch
        x, y = batch
        return Standardized(self.x_standardizer(x).to(self.dtype), self.y_standardizer(y).to(self.dtype))

    def setup(self, stage: str) -> None:
        self.stage_metrics.clear()  # which may be those of other rows
        data = getattr(self.trainer, "datamodule", None)
        if stage == "fit":
            if type(self).standardize is not Regressor.standardize:
                remedy = "transform rows in the data's load(), and choose other units in fit_standardizers"
                raise InputError(f"{type(self).__name__}.standardize may be called twice for a batch; {remedy}")
            if self.has_own_step and type(self).training_step is Regressor.training_step:
                raise InputError(
                    f"{type(self).__name__}.step: of a Regressor it is the evaluation only; define loss(y_hat, y), or "
                    "training_step(batch, batch_idx) as well, on standardized x and y; or make it a Module"
                )
            self.levels = {}  # unless the data have some
            self.feature_names, self.target_names, self.levels = columns_of(data, self)
            before = units_of(self)
            self.fit_standardizers(training_rows(self))
            note_other_units(before, units_of(self))
            if self.exact is not None:  # an outlier alone is no divergence
                ends = torch.stack([self.exact.min, self.exact.max])[:, len(self.feature_names) :]
                self.loss_limit = max(Regressor.loss_limit, 10 * float(self.y_standardizer(ends).abs().max()) ** 2)
            self.chosen = self.choose_settings()
        else:
            check_same_columns(columns_of(self, self), columns_of(data, self), "name them")

    def fit_standardizers(self, rows: Any) -> None:
        """Takes the units from batches (x, y) in one pass, which gives the exact solution as well."""
        d, t = len(self.feature_names), len(self.target_names)
        if d <= MAX_COLUMNS:
            self.exact = merged(summary(rows, d, t, self.has_intercept))
            mean, std = self.exact.mean, self.exact.std
        else:
            self.exact, (mean, std) = None, moments(rows, self.has_intercept)
        self.x_standardizer.fit(mean[:d], std[:d])
        self.y_standardizer.fit(mean[d:], std[d:])

    def choose_settings(self) -> dict[str, Any]:
        """Settings for what was left open; none but a LinearRegression can find them in the data."""
        if self.is_sgd and self.lr is None:
            chosen = "only a LinearRegression on the mean squared error has its rate chosen from the data"
            raise InputError(f"lr=None: {chosen}; give --model.lr")
        return {}

    @property
    def is_sgd(self) -> bool:
        """Whether it is trained by the SGD that its settings speak of."""
        if type(self).configure_optimizers is not Module.configure_optimizers:
            return False
        cls, args = find_class(self.optimizer, torch.optim, torch.optim.Optimizer)
        return cls is torch.optim.SGD and not (args.get("dampening") or args.get("maximize"))

    @property
    def knows_optimum(self) -> bool:
        """Whether the exact least-squares solution is what its training should come to."""
        groups = [g for optimizer in getattr(self._trainer, "optimizers", []) for g in optimizer.param_groups]
        decays = self.weight_decay or any(group.get("weight_decay") for group in groups)
        return self.is_linear and self.has_plain_loss and (self.is_sgd or not decays)

    @property
    def penalty(self) -> float:
        """The weight decay of the exact solution: that of the model where it is its optimum, none of a baseline."""
        return self.weight_decay if self.knows_optimum else 0.0

    @property
    def has_plain_loss(self) -> bool:
        """Whether it is trained on the mean squared error, and not on what a subclass has put in its place."""
        names = ("forward", "loss", "training_step", "fit_standardizers")
        own = [getattr(vars(self).get(n, getattr(self, n)), "__func__", None) for n in names]  # DDP puts them there
        return own == [getattr(Regressor, n) for n in names]

    @property
    def has_own_loss(self) -> bool:
        """Whether a subclass has put another loss in the place of the mean squared error."""
        return type(self).loss is not Regressor.loss or "loss" in vars(self) or self.has_own_step

    @property
    def has_own_step(self) -> bool:
        """Whether a subclass says itself what an evaluation measures."""
        return type(self).step is not Regressor.step

    def checks(self) -> list[Any]:
        """What the doctor checks of it besides what it checks of any model."""
        from linreg.regression.checks import units_are_those_of_training_rows

        return [units_are_those_of_training_rows]

    def configure_callbacks(self) -> list[Callback]:
        return [self.baseline, SameUnits()]  # the same baseline whenever Lightning asks: it tells what it has seen

    def report(self, data: Any, confidence: float | None = None) -> Findings:
        """What the trained model amounts to beside the exact solution; see ``exact.report``."""
        from linreg.regression.exact.report import report  # here, since only the end of a run needs it
        from linreg.regression.pictures.fitted import draw

        found = report(self, data, confidence)
        found.pictures = lambda: draw(self, data)
        return found

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        names = {"features": self.feature_names, "targets": self.target_names}
        checkpoint["columns"] = names | ({"levels": self.levels} if self.levels else {})

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        columns = read_columns(checkpoint)
        if self.exact is not None or (self._trainer is not None and self.trainer.training):
            same_units(self, checkpoint, columns)
        self.feature_names, self.target_names, self.levels = columns
