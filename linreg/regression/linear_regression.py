"""The lecture's model, ``H(x) = W x + b``, whose optimum is known.

Shapes: W (T, D) and b (T,), in standardized units where they are called weight and bias.
"""

from typing import Any

import torch
from torch import Tensor, nn

from linreg.regression.exact.learning_rate import DescentPlan, HessianSpectrum, plan_descent
from linreg.regression.gradient import Step, formula_step
from linreg.regression.regressor import Regressor
from linreg.system.errors import InputError


class LinearRegression(Regressor):
    """The lecture's hypothesis ``H(x) = W x + b``.

    Args:
        num_features: D.
        num_targets: T.
        bias: whether there is a b; without one the plane goes through the origin of the data's own units.
        **training: see Regressor.
    """

    is_linear = True
    hypothesis: nn.Linear
    plan: DescentPlan | None = None  # how fast it will be, once the rows are known

    def __init__(self, num_features: int, num_targets: int = 1, bias: bool = True, **training: Any) -> None:
        self.has_intercept = bias
        hypothesis = nn.Linear(num_features, num_targets, bias)
        for parameter in hypothesis.parameters():
            nn.init.zeros_(parameter)  # from zero, descent finds the minimum norm where several weights fit best
        super().__init__(hypothesis, num_features, num_targets, **training)

    @property
    def coef(self) -> Tensor:
        """W (T, D) in the data's units, in float64."""
        return self.hypothesis.weight.detach() * self.y_standardizer.std[:, None] / self.x_standardizer.std

    @property
    def intercept(self) -> Tensor:
        """b (T,) in the data's units, in float64; zeros without a bias."""
        if self.hypothesis.bias is None:
            return torch.zeros_like(self.y_standardizer.mean)
        return self.y_standardizer.inverse(self.hypothesis.bias.detach()) - self.coef @ self.x_standardizer.mean

    def choose_settings(self) -> dict[str, Any]:
        """Plans the descent from the spectrum of the data; what was not given comes from the plan."""
        if not (self.is_sgd and self.knows_optimum):
            return super().choose_settings()
        data = getattr(self.trainer, "datamodule", None) or self.trainer.fit_loop._data_source.instance
        self.plan = plan_descent(self, data)
        self.divergence_remedy = self.plan.divergence_remedy
        if self.lr is not None:
            return {}
        self.chosen_schedule = self.plan.lr_factor if self.plan.decay else None
        return {"lr": self.plan.lr, "momentum": self.plan.momentum}

    @property
    def curvature(self) -> float | None:
        """The largest eigenvalue of the loss's Hessian, where that is known."""
        if self.exact is None or not self.has_plain_loss:
            return None
        return HessianSpectrum(self.exact, 0.0).lmax

    def checks(self) -> list[Any]:
        from linreg.regression.checks import gradient_is_the_formula

        return [*super().checks(), *([gradient_is_the_formula] if self.has_plain_loss else [])]

    def lesson(self, data: Any) -> Any:
        """What ``python train.py lecture`` trains and draws; see ``pictures.lecture``."""
        from linreg.regression.pictures.lecture import Lesson  # here, since no other run draws it

        return Lesson(self, data)

    def formula_step(self, optimizer: torch.optim.Optimizer) -> Step:
        """A step of plain SGD by the lecture's formula in the place of autograd."""
        odd = any(group.get("dampening") or group.get("maximize") for group in optimizer.param_groups)
        if type(optimizer) is not torch.optim.SGD or odd or not self.has_plain_loss:
            raise InputError("--formula is the gradient of the mean squared error, for plain SGD; leave it out")
        return formula_step(self.hypothesis, optimizer)
