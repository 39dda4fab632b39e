"""The module that all models here are: a step, its loss and metrics, an optimizer and a schedule by name.

Shapes: a batch is ``(x, y)``, inputs (N, ...) and targets (N, ...); a loss is a scalar.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics import MetricCollection

from linreg.optimizers import check_settings, gather_settings, make_optimizer, make_scheduler

Batch = tuple[Tensor, Tensor]


class Module(LightningModule):
    """A hypothesis and its training by gradient descent; subclass it and define ``loss``.

    Args:
        hypothesis: maps inputs (N, ...) to predictions (N, ...).
        metrics: taken of every evaluation, over all of its rows; ``self.metrics.add_metrics`` adds more.
        lr: learning rate, above 0; None leaves it to the optimizer's class, or to the data where a model can do that.
        momentum: of SGD, from 0 to below 1; None leaves it to the optimizer's class, or to the data together with lr.
        nesterov: whether SGD's momentum is Nesterov's.
        weight_decay: the optimizer's L2 penalty, at least 0; biases are exempt.
        optimizer: a class of torch.optim by name, or ``{class_path: torch.optim.Adam, init_args:
            {betas: [0.9, 0.99]}}``.
        lr_scheduler: WarmupCosine, WarmupLinear or WarmupConstant, in shares of the run's steps, also as ``{class_path:
            linreg.WarmupCosine, init_args: {warmup: 0.1}}``; a class of torch.optim.lr_scheduler by name, or
            ``{class_path: torch.optim.lr_scheduler.StepLR, init_args: {step_size: 5}, interval: epoch, frequency: 1,
            monitor: loss/val}``; None keeps a given rate constant, and lets one chosen from the data fall as its noise
            requires.
    """

    metrics: MetricCollection
    stage_metrics: nn.ModuleDict
    chosen_schedule: Callable[[int], float] | None = None  # the share of lr at a step, where that is left to the data

    def __init__(
        self,
        hypothesis: nn.Module,
        metrics: MetricCollection,
        lr: float | None = None,
        momentum: float | None = None,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        optimizer: str | dict[str, Any] = "SGD",
        lr_scheduler: str | dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["hypothesis", "metrics"], logger=False)
        self.hypothesis, self.stage_metrics = hypothesis, nn.ModuleDict()
        vars(self)["metrics"] = metrics  # no submodule: what a profiler has a hook in cannot be copied
        beside = {"lr": lr, "momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay}
        self.optimizer, settings = gather_settings(optimizer, beside)
        check_settings(**settings)
        self.lr, self.momentum, self.nesterov, self.weight_decay = settings.values()
        self.lr_scheduler = lr_scheduler
        self.chosen: dict[str, Any] = {}  # settings that were left to the data
        is_open = self.nesterov and self.lr is self.momentum is None
        trial = self.make_optimizer(momentum=0.9) if is_open else self.make_optimizer()
        if lr_scheduler is not None:  # a wrong setting is refused now, not when a run has begun
            make_scheduler(lr_scheduler, trial)

    def forward(self, x: Tensor) -> Tensor:
        return self.hypothesis(x)

    def loss(self, y_hat: Tensor, y: Tensor) -> Tensor:
        """The loss of a batch, a mean over its rows: the one method to override for another one."""
        raise NotImplementedError(f"{type(self).__name__} has to define loss(y_hat, y)")

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        x, y = batch
        return self.loss(self(x), y)

    def on_train_epoch_start(self) -> None:
        self.epoch_loss, self.epoch_rows = torch.zeros((), device=self.device), 0

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if loss is not None:  # Lightning has divided it where several batches make a step
            num_rows = len(batch[1]) if isinstance(batch, tuple | list) else 1
            self.epoch_loss.add_(loss.detach(), alpha=num_rows * self.trainer.accumulate_grad_batches)
            self.epoch_rows += num_rows

    def on_train_epoch_end(self) -> None:
        if self.epoch_rows:  # one self.log an epoch: one a step would cost as much as the step itself
            self.log("loss/train", self.epoch_loss / self.epoch_rows, sync_dist=True)

    def evaluation_step(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """The loss of a batch; its predictions and targets, for the metrics."""
        x, y = batch
        y_hat = self(x)
        return self.loss(y_hat, y), y_hat, y

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate("test", batch)

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self(batch[0])

    def _evaluate(self, stage: str, batch: Batch) -> None:
        loss, y_hat, y = self.evaluation_step(batch)
        self.log(f"loss/{stage}", loss, batch_size=len(y), sync_dist=True)
        if stage not in self.stage_metrics:
            self.stage_metrics[stage] = self.fresh_metrics(f"/{stage}")
        cast(MetricCollection, self.stage_metrics[stage]).update(y_hat, y)

    def _log_metrics(self, stage: str) -> None:
        # As numbers, once: handing the metric objects to self.log at each step costs four times as much.
        if stage in self.stage_metrics:
            metrics = cast(MetricCollection, self.stage_metrics[stage])
            self.log_dict(metrics.compute(), sync_dist=True)
            metrics.reset()

    def fresh_metrics(self, postfix: str = "") -> MetricCollection:
        """The metrics of one evaluation, with no row in them yet."""
        return self.metrics.clone(postfix=postfix).to(self.device)

    def on_validation_epoch_end(self) -> None:
        self._log_metrics("val")

    def on_test_epoch_end(self) -> None:
        self._log_metrics("test")

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = self.make_optimizer(**self.chosen)
        schedule = self.lr_scheduler or self.chosen_schedule
        if schedule is None:
            return optimizer
        counted = make_scheduler(schedule, optimizer, lambda: self.trainer.estimated_stepping_batches)
        return {"optimizer": optimizer, "lr_scheduler": counted}

    def make_optimizer(self, **chosen: Any) -> torch.optim.Optimizer:
        """The optimizer of the hypothesis, with its settings and those that were chosen for it."""
        settings = {"lr": self.lr, "momentum": self.momentum, "nesterov": self.nesterov or None} | chosen
        parameters = self.hypothesis.named_parameters()
        return make_optimizer(self.optimizer, parameters, weight_decay=self.weight_decay, **settings)

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, map_location: Any = "cpu", **kwargs: Any) -> Any:
        """As in Lightning, but on the CPU, ready to predict, and without running code from the file."""
        return super().load_from_checkpoint(checkpoint_path, map_location, **kwargs | {"weights_only": True}).eval()
