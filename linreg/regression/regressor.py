"""The model: a hypothesis between two standardizers, the mean squared error, and gradient descent on it."""

import inspect
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from linreg.errors import InputError
from linreg.metrics import RegressionMetrics
from linreg.optimizers import check_settings, make_optimizer, make_scheduler, step_plateaus
from linreg.regression.exact.learning_rate import Plan
from linreg.regression.exact.least_squares import LeastSquares
from linreg.regression.exact.preparation import prepare
from linreg.regression.standardizer import Standardizer
from linreg.runs.resume import check_same_rows, keep_what_was_typed

PART = 8_192  # rows of a large batch that are standardized at a time: fresh memory for all of them is dear


class Regressor(LightningModule):
    """Any ``nn.Module`` as a hypothesis, trained by gradient descent on the mean squared error of standardized data.

    ``model(x)`` takes x (N, D) and returns predictions (N, T), both in the data's own units; the hypothesis sees
    standardized units only, and the standardizers travel in the checkpoint with it.

    Args:
        hypothesis: maps standardized features (N, D) to standardized targets (N, T).
        num_features: D.
        num_targets: T.
        lr: learning rate, above 0; None chooses it from the data, for SGD on a linear hypothesis.
        momentum: of SGD, from 0 to below 1; None chooses it together with ``lr``, and is 0 beside a given ``lr``.
        nesterov: whether SGD's momentum is Nesterov's.
        weight_decay: the optimizer's L2 penalty, at least 0; biases are exempt.
        optimizer: a class of torch.optim by name, or ``{class_path: torch.optim.Adam, init_args:
            {betas: [0.9, 0.99]}}``.
        lr_scheduler: a class of torch.optim.lr_scheduler by name, or ``{class_path:
            torch.optim.lr_scheduler.StepLR, init_args: {step_size: 5}, interval: epoch, frequency: 1, monitor:
            loss/val}``; None keeps a given rate constant, and lets one chosen from the data fall as its noise requires.
    """

    is_linear = False  # whether the exact least-squares solution is the model's own optimum, and not its baseline
    has_intercept = True

    def __init__(
        self,
        hypothesis: nn.Module,
        num_features: int,
        num_targets: int = 1,
        lr: float | None = None,
        momentum: float | None = None,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        optimizer: str | dict[str, Any] = "SGD",
        lr_scheduler: str | dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        check_settings(lr, momentum, weight_decay)
        self.save_hyperparameters(ignore=["hypothesis"], logger=False)
        self.hypothesis = hypothesis
        self.x_standardizer = Standardizer(num_features)
        self.y_standardizer = Standardizer(num_targets)
        self.lr, self.momentum, self.nesterov, self.weight_decay = lr, momentum, nesterov, weight_decay
        self.optimizer, self.lr_scheduler = optimizer, lr_scheduler
        self.val_metrics, self.test_metrics = RegressionMetrics("/val"), RegressionMetrics("/test")
        self.feature_names = [f"x{i + 1}" for i in range(num_features)]
        self.target_names = [f"y{i + 1}" for i in range(num_targets)]
        self.summary: LeastSquares | None = None  # of the training rows, known during fit
        self.rows: Tensor | None = None  # their fingerprint
        self.plan: Plan | None = None  # how to train on them, if that is left to the data
        self.remembered: tuple[Tensor, tuple[Tensor, Tensor]] | None = None
        chosen = 0.9 if nesterov and lr is None and momentum is None else momentum
        trial = self._make_optimizer(lr or 1.0, chosen)  # a wrong setting is refused now, not when a run has begun
        if lr_scheduler is not None:
            make_scheduler(lr_scheduler, trial)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_current_fx_name":  # Lightning sets it 44 times a step; nn.Module's care for it takes 80 us of them
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def forward(self, x: Tensor) -> Tensor:
        return self.y_standardizer.inverse(self.hypothesis(self.x_standardizer(x).to(self.dtype)).double())

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """The mean squared error of a batch in standardized units, in which predicting the mean costs 1."""
        return self.standardized_loss(*self.standardize(batch))

    def standardize(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """A batch in standardized units; that of batch gradient descent, which does not change, is remembered."""
        x, y = batch
        if self.remembered and self.remembered[0] is x:
            return self.remembered[1]
        if self.training and self.summary is not None and len(x) == self.summary.num_rows > PART:
            z_x, z_y = (torch.empty_like(part, dtype=self.dtype) for part in batch)
            for part in (slice(i, i + PART) for i in range(0, len(x), PART)):
                z_x[part], z_y[part] = self.standardize((x[part], y[part]))
            self.remembered = x, (z_x, z_y)
            return z_x, z_y
        return self.x_standardizer(x).to(self.dtype), self.y_standardizer(y).to(self.dtype)

    def standardized_loss(self, x: Tensor, y: Tensor) -> Tensor:
        """The same for x (N, D) and y (N, T) that are standardized already."""
        y_hat = self.hypothesis(x)
        if y.shape != y_hat.shape:
            raise InputError(
                f"the target has shape {tuple(y.shape)} and the prediction {tuple(y_hat.shape)}; unequal shapes would "
                "broadcast and learn the mean only. Give the target as (N, T): y.unsqueeze(1) if there is one"
            )
        return mse_loss(y_hat, y.to(y_hat.dtype))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        loss = self.loss(batch)
        self.epoch_loss.add_(loss.detach(), alpha=len(batch[0]))
        self.epoch_rows += len(batch[0])
        return loss

    # Lightning looks at the signature in every step, which takes 30 us of about 600 unless it is at hand.
    training_step.__signature__ = inspect.signature(training_step)

    def on_train_epoch_start(self) -> None:
        self.epoch_loss, self.epoch_rows = torch.zeros((), device=self.device), 0

    def on_train_epoch_end(self) -> None:
        # One self.log an epoch: one a step would cost as much as the step itself.
        self.log("loss/train", self.epoch_loss / self.epoch_rows, sync_dist=True)
        step_plateaus(self.trainer)

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        if not isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):  # those have had their step
            super().lr_scheduler_step(scheduler, metric)

    def on_fit_end(self) -> None:
        self.remembered = None

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._evaluate(batch, "val")

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._evaluate(batch, "test")

    def predict_step(self, batch: tuple[Tensor, Any], batch_idx: int) -> Tensor:
        return self(batch[0])

    def _evaluate(self, batch: tuple[Tensor, Tensor], stage: str) -> None:
        x, y = batch
        self.log(f"loss/{stage}", self.loss(batch), batch_size=len(x), sync_dist=True)
        mean = self.y_standardizer.mean  # no metric minds the shift, and R2 keeps its digits on targets far from 0
        getattr(self, f"{stage}_metrics").update(self(x) - mean, y - mean)

    def _log_metrics(self, stage: str) -> None:
        # Logged as numbers, once: handing the metric objects to self.log at each step costs four times as much.
        metrics: RegressionMetrics = getattr(self, f"{stage}_metrics")
        self.log_dict(metrics.compute(), sync_dist=True)
        metrics.reset()

    def on_validation_epoch_end(self) -> None:
        self._log_metrics("val")

    def on_test_epoch_end(self) -> None:
        self._log_metrics("test")

    def setup(self, stage: str) -> None:
        if stage == "fit" and self.trainer.datamodule is not None:
            prepare(self, self.trainer.datamodule)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = self.fresh_optimizer()
        if self.lr_scheduler is not None:
            return {"optimizer": optimizer, "lr_scheduler": make_scheduler(self.lr_scheduler, optimizer)}
        if self.plan is not None and self.plan.decay:
            scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self.plan.factor)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
        return optimizer

    def fresh_optimizer(self) -> torch.optim.Optimizer:
        chosen = self if self.plan is None else self.plan
        return self._make_optimizer(chosen.lr, chosen.momentum)

    def _make_optimizer(self, lr: float | None, momentum: float | None) -> torch.optim.Optimizer:
        settings = {"momentum": momentum, "nesterov": self.nesterov or None, "weight_decay": self.weight_decay}
        return make_optimizer(self.optimizer, self.hypothesis.named_parameters(), lr=lr, **settings)

    def excess_mse(self) -> float | None:
        """The training MSE above the exact optimum as a share of it; None where no exact optimum is known."""
        return None

    def weight_error(self) -> float | None:
        """The distance of the weight from the exact one as a share of it; None where that is not the model's own."""
        return None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["columns"] = {"features": self.feature_names, "targets": self.target_names}
        checkpoint |= {"rows": self.rows, "class_path": f"{type(self).__module__}.{type(self).__qualname__}"}

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, map_location: Any = "cpu", **kwargs: Any) -> Any:
        """As in Lightning, but on the CPU, and without running code from the file whatever the environment says."""
        return super().load_from_checkpoint(checkpoint_path, map_location, **kwargs | {"weights_only": True})

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.summary is not None:  # a resumed run, not a model that is loaded to predict
            check_same_rows(self, checkpoint)
            keep_what_was_typed(checkpoint, dict(self.hparams), self.fresh_optimizer())
        self.feature_names = checkpoint["columns"]["features"]
        self.target_names = checkpoint["columns"]["targets"]
