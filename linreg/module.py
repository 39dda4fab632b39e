"""The module that all models here are: a step, its losses and metrics, an optimizer and a schedule by name.

Shapes: a batch is ``(x, y)``, inputs (N, ...) and targets (N, ...), unless a model defines its own ``step``; a loss is
a scalar, the mean over a batch's rows.
"""

from collections.abc import Callable
from itertools import chain
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from linreg.metrics import LOADER, apart
from linreg.optimizers import gather_settings, make_optimizer, make_scheduler, try_settings
from linreg.rows import inputs_of, lengths_of
from linreg.safety.checkpoint_file import in_saved_precision
from linreg.schedules import count_all
from linreg.system.errors import InputError
from linreg.system.ranks import gathered, summed
from linreg.system.screen import say

Batch = tuple[Tensor, Tensor]
Losses = Tensor | dict[str, Tensor]  # the loss, or several by name, of which "loss" is the one to descend


class Module(LightningModule):
    """A model and its training by gradient descent: give a hypothesis and define ``loss``, or define ``step``.

    Args:
        hypothesis: maps inputs (N, ...) to predictions (N, ...); None where ``step`` does without it.
        metrics: torchmetrics by name, taken of every evaluation, over all of its rows; ``self.metrics.add_metrics``
            adds more.
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
    loss_weight = 1.0  # of several processes' batches: what the rows of this one count, 0 if it has none
    is_ambiguous = False  # whether it was said that a batch has tensors of several lengths
    left_still: list[str] | None = None  # the parts of a loaded model that its constructor left in evaluation mode
    chosen_schedule: Callable[[int], float] | None = None  # the share of lr at a step, where that is left to the data

    def __init__(
        self,
        hypothesis: nn.Module | None = None,
        metrics: dict[str, Metric] | MetricCollection | None = None,
        lr: float | None = None,
        momentum: float | None = None,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        optimizer: str | dict[str, Any] = "SGD",
        lr_scheduler: str | dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["hypothesis", "metrics"], logger=False)
        self.hypothesis = hypothesis
        collection = metrics if isinstance(metrics, MetricCollection) else MetricCollection(dict(metrics or {}))
        vars(self)["metrics"] = collection  # no submodule: what a profiler has a hook in cannot be copied
        self.stage_metrics = nn.ModuleDict()  # those of an evaluation that is going on
        self.tables: dict[str, Any] = {}  # of the last evaluation: metrics that are no single number, as lists by tag
        self.epoch_losses: dict[str, Tensor] = {}  # sums over the rows of the epoch so far
        self.epoch_counts: dict[str, int] = {}  # of these rows; a loss that is returned at times has fewer
        beside = {"lr": lr, "momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay}
        self.optimizer, settings = gather_settings(optimizer, beside)
        self.lr, self.momentum, self.nesterov, self.weight_decay = settings.values()
        self.lr_scheduler = lr_scheduler
        self.chosen: dict[str, Any] = {}  # settings that were left to the data
        try_settings(self.optimizer, settings, hypothesis, lr_scheduler)

    def forward(self, x: Tensor) -> Tensor:
        if self.hypothesis is None:
            name = type(self).__name__
            raise InputError(f"{name} has no forward(x); define it, or give super().__init__ a hypothesis")
        return self.hypothesis(x)

    def loss(self, y_hat: Tensor, y: Tensor) -> Tensor:
        """The loss of a batch, a mean over its rows: the one method to override for another one."""
        raise InputError(f"{type(self).__name__} has no loss(y_hat, y); define it, or step(batch)")

    def step(self, batch: Any) -> Losses:
        """The loss of a batch, or several by name, of which "loss" is the one to descend; each is logged.

        Override it for batches that are no ``(x, y)``, or for several losses.
        """
        if not (isinstance(batch, tuple | list) and len(batch) == 2):
            name = type(self).__name__
            raise InputError(f"{name}: a batch is a {type(batch).__name__}, no pair (x, y); define {name}.step(batch)")
        x, y = batch
        y_hat = self(x)
        self.measure(y_hat, y)
        return self.loss(y_hat, y)

    def training_step(self, batch: Any, batch_idx: int) -> Losses:
        return self.step(batch)

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        for name, loss in by_name(self.step(batch)).items():
            if loss is not None:
                self.log(f"{name}/{self.stage}", loss, batch_size=self.count_rows(batch), sync_dist=True)

    test_step = validation_step

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        return self(inputs_of(batch))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = self.make_optimizer(**self.chosen)
        schedule = self.lr_scheduler or self.chosen_schedule
        if schedule is None:
            return optimizer
        counted = make_scheduler(schedule, optimizer, lambda interval: count_all(self.trainer, interval))
        return {"optimizer": optimizer, "lr_scheduler": counted}

    def make_optimizer(self, part: nn.Module | None = None, **chosen: Any) -> torch.optim.Optimizer:
        """The optimizer of all weights, or of a part's, with its settings and those that were chosen for it."""
        settings = {"lr": self.lr, "momentum": self.momentum, "nesterov": self.nesterov or None} | chosen
        parameters = (self if part is None else part).named_parameters()
        return make_optimizer(self.optimizer, parameters, weight_decay=self.weight_decay, **settings)

    # What follows is the keeping of books: one self.log an epoch, since one a step costs as much as the step.

    @property
    def stage(self) -> str | None:
        """What is being done: "train", "val", "test" or "predict"; None without a trainer."""
        stage = self._trainer.state.stage if self._trainer is not None else None
        return stage.dataloader_prefix if stage is not None else None

    def measure(self, y_hat: Any, y: Any) -> None:
        """Adds rows to the metrics of the evaluation that is going on; in training there is none."""
        if self.stage in ("val", "test") and len(self.metrics):
            loader = getattr(self.trainer._results, "dataloader_idx", None)  # None where there is only one
            which = self.stage if loader is None else f"{self.stage}{LOADER}{loader}"
            if which not in self.stage_metrics:
                self.stage_metrics[which] = self.fresh_metrics(f"/{which}")
            cast(MetricCollection, self.stage_metrics[which]).update(y_hat, y)

    def fresh_metrics(self, postfix: str = "") -> MetricCollection:
        """The metrics of one evaluation, with no row in them yet."""
        return self.metrics.clone(postfix=postfix).to(self.device)

    def count_rows(self, batch: Any) -> int:
        """How many rows of a batch its means count for: as long as its tensors are; override it where these differ."""
        lengths = lengths_of(batch) or [1]
        if len(lengths) > 1 and not self.is_ambiguous:
            self.is_ambiguous = True
            many = f"a batch has tensors of {' and '.join(map(str, lengths))} rows, and counts as {lengths[0]}"
            say(f"        {many}; count_rows(batch) can tell otherwise", self.global_rank == 0)
        return lengths[0]

    def on_train_epoch_start(self) -> None:
        self.epoch_losses, self.epoch_counts = {}, {}

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        num_rows = self.count_rows(batch) if self.loss_weight else 0
        for name, loss in by_name(outputs).items():
            if isinstance(loss, Tensor) and loss.numel() == 1:
                if name not in self.epoch_losses:
                    self.epoch_losses[name], self.epoch_counts[name] = torch.zeros((), device=self.device), 0
                share = self.trainer.accumulate_grad_batches if name == "loss" else 1  # Lightning divides by it
                self.epoch_losses[name].add_(loss.detach(), alpha=num_rows * share)
                self.epoch_counts[name] += num_rows

    def on_train_epoch_end(self) -> None:
        for name in dict.fromkeys(chain(*gathered([*self.epoch_losses]))):  # of all processes
            total = summed(self.epoch_losses.get(name, torch.zeros((), device=self.device)))
            if num_rows := int(summed(torch.tensor(self.epoch_counts.get(name, 0)))):
                self.log(f"{name}/train", total / num_rows)
        self.on_train_epoch_start()

    def on_validation_epoch_end(self) -> None:
        # As numbers, once: handing the metric objects to self.log at each step costs four times as much.
        for which, metrics in cast(dict[str, MetricCollection], self.stage_metrics).items():
            if which.startswith(str(self.stage)) and any(m.update_called for m in metrics.values(copy_state=False)):
                numbers, tables = apart(metrics.compute())
                self.log_dict(numbers, sync_dist=True, add_dataloader_idx=False)  # their tags have it
                self.tables |= tables
                metrics.reset()

    on_test_epoch_end = on_validation_epoch_end

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, map_location: Any = "cpu", **kwargs: Any) -> Any:
        """As in Lightning, but on the CPU, ready to predict, and without running code from the file."""
        model: Any = super().load_from_checkpoint(checkpoint_path, map_location, **kwargs | {"weights_only": True})
        model.left_still = [name for name, part in model.named_modules() if not part.training]
        return in_saved_precision(model, checkpoint_path).eval()

    def on_fit_start(self) -> None:
        if self.left_still is not None and not self.training:  # as it was loaded: what was still by itself stays so
            self.train()
            for name in self.left_still:
                self.get_submodule(name).training = False


def by_name(losses: Any) -> dict[str, Any]:
    """What a step has returned, by name."""
    return losses if isinstance(losses, dict) else {"loss": losses}
