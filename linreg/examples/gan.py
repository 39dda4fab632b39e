"""A generative adversarial network: two optimizers, stepped by hand; it learns points on a ring."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from linreg import DataModule, Module


class Ring(DataModule):
    """Points (2,) near the circle of radius 1, each row a lone tensor."""

    def load(self) -> Any:
        generator = torch.Generator().manual_seed(0)
        angle, noise = 6.2832 * torch.rand(4_000, generator=generator), torch.randn(4_000, 2, generator=generator)
        return torch.stack([angle.cos(), angle.sin()], dim=1) + 0.05 * noise


def layers(first: int, width: int, last: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(first, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, last))


class GAN(Module):
    automatic_optimization = False  # Lightning leaves the steps to training_step

    def __init__(self, num_features: int, width: int = 64, **training: Any) -> None:
        super().__init__(**training)
        self.generator, self.critic = layers(num_features, width, num_features), layers(num_features, width, 1)

    def configure_optimizers(self) -> Any:
        return [self.make_optimizer(self.generator), self.make_optimizer(self.critic)]

    def forward(self, x: Tensor) -> Tensor:
        return self.generator(torch.randn_like(x))  # as many points as there are in x, made up

    def step(self, batch: Tensor) -> dict[str, Tensor]:
        made = self(batch)
        critic = softplus(-self.critic(batch)).mean() + softplus(self.critic(made.detach())).mean()
        distance = (made.mean(0) - batch.mean(0)).norm() + (made.std(0) - batch.std(0)).norm()
        return {"generator": softplus(-self.critic(made)).mean(), "critic": critic, "distance": distance}

    def training_step(self, batch: Tensor, batch_idx: int) -> dict[str, Tensor]:
        losses = self.step(batch)
        for name, optimizer in zip(("generator", "critic"), self.optimizers(), strict=True):
            optimizer.zero_grad()
            self.manual_backward(losses[name])
            optimizer.step()
        return losses
