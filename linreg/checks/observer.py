"""What a training step hands to the loss functions of torch, seen as it happens."""

import inspect
import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from linreg.verdict import CannotTell

LOSSES: dict[Any, str] = {F.mse_loss: "squared", F.l1_loss: "absolute", F.huber_loss: "huber"}
LOSSES |= {F.smooth_l1_loss: "huber", F.cross_entropy: "classes", F.nll_loss: "classes"}
LOSSES |= {F.binary_cross_entropy: "binary", F.binary_cross_entropy_with_logits: "binary"}
LOSSES |= {F.poisson_nll_loss: "other", F.gaussian_nll_loss: "other", F.kl_div: "other"}
PAIRWISE = ("sub", "subtract", "rsub", "mul", "multiply", "div", "true_divide", "divide")
DROPOUTS = (F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout)
NORMALIZED = ("softmax", "log_softmax", "logsumexp")
CUTS = ("detach", "detach_", "_set_grad_enabled")
DATA = Tensor.data.__get__  # type: ignore[attr-defined]


@dataclass
class LossCall:
    """One call of a loss function: its name and kind, what went in, and what came out."""

    name: str
    kind: str
    prediction: Tensor
    target: Tensor
    settings: dict[str, Any]
    value: Tensor

    @property
    def is_pairwise(self) -> bool:
        """Whether sides of unequal shapes are compared, which broadcast."""
        return self.kind not in ("classes", "binary") and self.prediction.shape != self.target.shape

    def knowing_nothing(self) -> float:
        """The loss of a prediction that is the same for every row, of classes that of equal chances; else nan."""
        y = self.target.detach()
        if any(self.settings.get(name) is not None for name in ("weight", "pos_weight")):
            return math.nan
        if self.kind == "classes" and not y.is_floating_point():
            return math.log(self.prediction.shape[1 if self.prediction.ndim > 1 else 0])
        if self.kind in ("squared", "absolute"):
            center = y.mean(0) if self.kind == "squared" else y.median(0).values
            return float((y - center).abs().pow(2 if self.kind == "squared" else 1).mean())
        return math.log(2) if self.kind == "binary" else math.nan


class Observer(TorchFunctionMode):
    """Notes, while it is active, losses, cuts of the graph, dropout, and what broadcasts to every pair of rows."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[LossCall] = []
        self.broadcasts: list[tuple[Tensor, Tensor]] = []
        self.parameters: set[nn.Parameter] = set()  # of which gradients are computed
        self.cuts = self.drops = False
        self.given: Tensor | None = None  # the loss, where the step says it
        self.over_rows: list[torch.Size] = []  # of what is normalized along its first dimension

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "").strip("_")
        if torch.is_grad_enabled():
            self.parameters |= {each for each in args if isinstance(each, nn.Parameter) and each.requires_grad}
        if func in LOSSES or func in DROPOUTS:
            given = inspect.signature(func).bind(*args, **(kwargs or {}))
            given.apply_defaults()
            settings = dict(given.arguments)
            self.drops |= bool(settings.get("training") and settings.get("p"))
            if func in LOSSES:
                a, b, *_ = settings.values()
                self.calls.append(LossCall(name, LOSSES[func], a, b, settings, result.detach()))
                self.broadcasts += [(a, b)] * self.calls[-1].is_pairwise
        elif name in PAIRWISE and all(isinstance(each, Tensor) and each.is_floating_point() for each in args[:2]):
            column, row = sorted(args[:2], key=lambda each: -each.ndim)
            is_pairwise = row.ndim == 1 < len(row) and column.shape == (len(row), 1)
            self.broadcasts += [(column, row)] * (is_pairwise and column.requires_grad != row.requires_grad)
        elif name in NORMALIZED and isinstance(args[0], Tensor) and args[0].ndim == 2:
            dim = (kwargs or {}).get("dim", args[1] if len(args) > 1 else None)
            self.over_rows += [args[0].shape] * (dim in (0, -2, (0,)))
        self.cuts |= getattr(func, "__name__", "") in CUTS or func == DATA
        return result

    @property
    def loss(self) -> Tensor:
        if self.given is None:
            raise CannotTell("with manual optimization a step has no one loss that is known")
        return self.given

    @property
    def size(self) -> float:
        """The loss as a number."""
        return float(self.loss.detach())

    def goal_by_heart(self, has_targets: bool) -> float | None:
        """Half of the best loss of two rows without regard to the input, or a tenth of it; None if it is not known."""
        known = self.known
        if has_targets and (not known or not known.knowing_nothing() > 0 or known.settings.get("label_smoothing")):
            return None
        if known and known.kind == "squared":
            return known.knowing_nothing() / 10
        if known and known.kind in ("classes", "binary") and not ((known.target != 0) & (known.target < 1)).any():
            one, other = known.target.reshape(2, -1)
            if (apart := float((one != other).double().mean())) > 0:  # else classes are no targets, but places, say
                return math.log(2) * apart / 2
        return self.size - 0.1 * abs(self.size)

    @property
    def known(self) -> LossCall | None:
        """The one call that the whole loss is; None where it is something else."""
        is_all = len(self.calls) == 1 and torch.allclose(self.calls[0].value.mean(), self.loss, rtol=1e-4)
        return self.calls[0] if is_all else None
