"""The lecture's gradient, written out, and gradient descent with it in the place of autograd.

Shapes: x (m, D) and y (m, T) are a batch in standardized units, W (T, D) and b (T,) the model's parameters.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

Step = Callable[[Tensor, Tensor], Tensor]  # from a batch to its loss before the step


def mse_gradient(x: Tensor, y: Tensor, weight: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """The mean squared error of ``H(x) = W x + b``, and its gradient ``2/m sum (W x + b - y) x``.

    Returns:
        The loss, its derivative by W (T, D), and that by b (T,), the same sum without the x. With T targets the mean is
        over all m T residuals.
    """
    residual = (x @ weight.T if bias is None else torch.addmm(bias, x, weight.T)).sub_(y)
    loss = residual.square().mean()
    residual.mul_(2 / y.numel())
    return loss, residual.T @ x, residual.sum(0)


def formula_step(hypothesis: nn.Linear, optimizer: torch.optim.Optimizer) -> Step:
    """A step down ``mse_gradient``, with the settings and the momentum buffers of a torch.optim.SGD."""
    groups = {parameter: group for group in optimizer.param_groups for parameter in group["params"]}
    weight, bias = hypothesis.weight.detach(), None if hypothesis.bias is None else hypothesis.bias.detach()
    updates = []  # of what is trained, in the order of the gradients
    for i, parameter in enumerate((hypothesis.weight, hypothesis.bias)):
        if parameter in groups and parameter.requires_grad:
            group, velocity = groups[parameter], optimizer.state.get(parameter, {}).get("momentum_buffer")
            if group["momentum"] and velocity is None:
                velocity = optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
            updates.append((i, parameter.detach(), velocity, group))

    def step(x: Tensor, y: Tensor) -> Tensor:
        loss, *gradients = mse_gradient(x, y, weight, bias)
        for i, parameter, velocity, group in updates:
            gradient = gradients[i]
            if group["weight_decay"]:
                gradient.add_(parameter, alpha=group["weight_decay"])
            if velocity is not None:
                velocity.mul_(group["momentum"]).add_(gradient)
                gradient = gradient.add_(velocity, alpha=group["momentum"]) if group["nesterov"] else velocity
            parameter.sub_(gradient, alpha=group["lr"])
        return loss

    return step
