"""Training batches are in standardized units: a step or a hook of one's own that mixes units up is refused at once."""

from typing import Any

from lightning.pytorch import Callback
from torch import Tensor, nn

from linreg.regression.standardizer import Standardized
from linreg.system.errors import InputError


class SameUnits(Callback):
    """Watches the first step of a training: no rows that are standardized already may be standardized again."""

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if getattr(trainer.train_dataloader, "kind", tuple) is not tuple and type(batch) in (tuple, list):
            raise InputError(
                f"a hook of {type(pl_module).__name__} or its data, such as on_after_batch_transfer, makes a plain "
                "pair of a standardized batch, which would be standardized again; return type(batch)((x, y))"
            )

        def check(standardizer: nn.Module, inputs: tuple[Tensor]) -> None:
            if type(batch) is not Standardized:  # what a hook of one's own has made of it, for a step of one's own
                return
            rows = min(len(inputs[0]), len(batch[0]))
            given, ready = inputs[0][:rows].double(), batch[0][:rows].double()
            raw = pl_module.x_standardizer.inverse(ready)
            if (given - ready).norm() < (given - raw).norm() / 4:
                name, found = type(pl_module).__name__, "its batches are standardized"
                remedy = "self(x) is for x in the data's own units; write self.loss(self.hypothesis(x), y)"
                raise InputError(f"{name}.training_step: {found}, and {remedy}")

        self.watch = pl_module.x_standardizer.register_forward_pre_hook(check)

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        self.watch.remove()
        vars(self).update(on_train_batch_start=None, on_train_batch_end=None)  # which costs later steps nothing
