"""Sound models and data of many kinds, small and whole, on which the doctor has nothing to say."""

from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from linreg import LinearRegression, Module, RegressionData, Regressor, SyntheticData, Table
from linreg.metrics import RegressionMetrics


class Rows(pl.LightningDataModule):
    """Rows that a function makes from a generator, in loaders of torch."""

    def __init__(
        self, make: Callable[[torch.Generator], tuple[Tensor, ...]], seed: int = 0, batch_size: int = 32
    ) -> None:
        super().__init__()
        self.make, self.seed, self.batch_size = make, seed, batch_size

    def setup(self, stage: str) -> None:
        rows = TensorDataset(*self.make(torch.Generator().manual_seed(self.seed)))
        self.train, self.val = torch.utils.data.random_split(rows, [0.8, 0.2], torch.Generator().manual_seed(self.seed))

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.train, self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.val, self.batch_size)


class Net(pl.LightningModule):
    """A net and a loss, as anybody would write them."""

    optimizer: Any = torch.optim.Adam

    def __init__(self, lr: float = 3e-3) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = self.build()

    def build(self) -> nn.Module:
        return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def loss(self, y_hat: Tensor, y: Tensor) -> Tensor:
        return F.mse_loss(y_hat, y)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = self.loss(self(batch[0]), batch[-1])
        self.log("loss/train", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("loss/val", self.loss(self(batch[0]), batch[-1]))

    def configure_optimizers(self) -> Any:
        return self.optimizer(self.parameters(), lr=self.hparams.lr)


def table(g: torch.Generator) -> tuple[Tensor, Tensor]:
    x = torch.randn(500, 8, generator=g)
    return x, torch.sin(x[:, :1]) + x[:, 1:2] * x[:, 2:3] + 0.3 * x[:, 3:4] + 0.1 * torch.randn(500, 1, generator=g)


def classes(g: torch.Generator) -> tuple[Tensor, Tensor]:
    x = torch.randn(500, 8, generator=g)
    return x, (x[:, :3] + 0.3 * torch.randn(500, 3, generator=g)).argmax(1)


def pictures(g: torch.Generator) -> tuple[Tensor, Tensor]:
    y = torch.randint(0, 4, (400,), generator=g)
    x = 0.5 * torch.randn(400, 1, 8, 8, generator=g)
    for i, quarter in enumerate(y.tolist()):
        x[i, 0, 4 * (quarter // 2) :, 4 * (quarter % 2) :][:4, :4] += 1
    return x, y


def series(g: torch.Generator) -> tuple[Tensor, Tensor]:
    x = torch.randn(400, 12, 2, generator=g)
    return x, x[:, :, :1].cumsum(1)[:, -1] / 3 + x[:, 0, 1:] * 0.3


def text(g: torch.Generator) -> tuple[Tensor, Tensor]:
    letters = torch.tensor([ord(c) - 97 for c in "thequickbrownfoxjumpsoverthelazydog"])
    starts = torch.randint(0, len(letters), (400,), generator=g)
    rows = letters[(starts[:, None] + torch.arange(17)) % len(letters)]
    noise = torch.randint(0, 26, rows.shape, generator=g)
    rows = torch.where(torch.rand(rows.shape, generator=g) < 0.3, noise, rows)
    return rows[:, :-1], rows[:, 1:]


class DropoutAndBatchNorm(Net):
    def build(self) -> nn.Module:
        layers = [nn.Linear(8, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.3), nn.Linear(64, 3)]
        return nn.Sequential(*layers)

    def loss(self, y_hat: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(y_hat, y)


class Convolution(DropoutAndBatchNorm):
    def build(self) -> nn.Module:
        layers = [nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
        return nn.Sequential(*layers, nn.Linear(128, 4))


class Sequence(Net):
    def build(self) -> nn.Module:
        self.head = nn.Linear(24, 1)
        return nn.GRU(2, 24, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.net(x)[0][:, -1])


class Characters(Net):
    """A transformer of one block over letters, which sees none that comes later."""

    def build(self) -> nn.Module:
        self.letters, self.places = nn.Embedding(26, 32), nn.Embedding(16, 32)
        self.norms = nn.ModuleList([nn.LayerNorm(32) for _ in range(3)])
        self.attention = nn.MultiheadAttention(32, 2, dropout=0.1, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32), nn.Dropout(0.1))
        return nn.Linear(32, 26, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.letters(x) + self.places(torch.arange(x.shape[1], device=x.device))
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1], device=x.device, dtype=h.dtype)
        n = self.norms[0](h)
        h = h + self.attention(n, n, n, attn_mask=mask, need_weights=False)[0]
        return self.net(self.norms[2](h + self.mlp(self.norms[1](h))))

    def loss(self, y_hat: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(y_hat.flatten(0, 1), y.flatten())


class Autoencoder(Net):
    def build(self) -> nn.Module:
        layers = [nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 6), nn.Linear(6, 32), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(32, 64), nn.Unflatten(1, (1, 8, 8)))


class Variational(Net):
    """A variational autoencoder: its loss has two terms, and its validation draws."""

    def build(self) -> nn.Module:
        self.decoder = nn.Linear(3, 8)
        return nn.Linear(8, 6)

    def step(self, x: Tensor) -> Tensor:
        mean, log_var = self.net(x).chunk(2, 1)
        z = mean + torch.randn_like(mean) * (0.5 * log_var).exp()
        kl = -0.5 * (1 + log_var - mean.square() - log_var.exp()).sum(1).mean()
        return F.mse_loss(self.decoder(z), x) + 0.01 * kl

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.step(batch[0])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("loss/val", self.step(batch[0]))


class Adversarial(pl.LightningModule):
    """Two optimizers, by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.generator = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 8))
        self.critic = nn.Sequential(nn.Linear(8, 16), nn.LeakyReLU(), nn.Linear(16, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.critic(x)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        x = batch[0]
        for optimizer, is_critic in zip(self.optimizers(), (False, True), strict=True):
            made = self.generator(torch.randn(len(x), 4, device=x.device))
            ones, zeros = torch.ones(len(x), 1, device=x.device), torch.zeros(len(x), 1, device=x.device)
            score = F.binary_cross_entropy_with_logits
            fake = self.critic(made.detach() if is_critic else made)
            loss = score(fake, zeros) + score(self.critic(x), ones) if is_critic else score(fake, ones)
            self.toggle_optimizer(optimizer)
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
            self.untoggle_optimizer(optimizer)

    def configure_optimizers(self) -> Any:
        return [torch.optim.Adam(part.parameters(), 1e-3) for part in (self.generator, self.critic)]


class Averaged(Net):
    """A moving average of the weights beside them, which is what is validated."""

    def build(self) -> nn.Module:
        net = super().build()
        self.average = torch.optim.swa_utils.AveragedModel(
            net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn()
        )
        return net

    def on_train_batch_end(self, *args: Any) -> None:
        self.average.update_parameters(self.net)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("loss/val", self.loss(self.average(batch[0]), batch[-1]))

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.net.parameters(), self.hparams.lr)


class Decayed(Net):
    """Weight decay, and a rate that warms up and falls."""

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), 1e-2, weight_decay=0.1)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, self.trainer.estimated_stepping_batches)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Wide(Regressor):
    def __init__(self, num_features: int, num_targets: int = 1, **training: Any) -> None:
        layers = nn.Linear(num_features, 64), nn.ReLU(), nn.Linear(64, num_targets)
        super().__init__(nn.Sequential(*layers), num_features, num_targets, **training)


class Targets(RegressionData):
    """Several targets, in units that are far apart."""

    def __init__(self, seed: int = 0, **split: Any) -> None:
        super().__init__(**split)
        self.seed = seed

    def load(self) -> Table:
        g = torch.Generator().manual_seed(self.seed)
        x = torch.randn(600, 5, generator=g) * torch.tensor([1, 1000, 0.01, 1, 1]) + torch.tensor([2000.0, 0, 0, 1, 5])
        z = (x - x.mean(0)) / x.std(0)
        y = z @ torch.randn(5, 3, generator=g) + 0.3 * torch.randn(600, 3, generator=g)
        return Table(x, y * torch.tensor([1, 1e4, 1e-3]))


class Plain(Module):
    """A module of this template that is no Regressor."""

    def __init__(self, **training: Any) -> None:
        super().__init__(nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 1)), RegressionMetrics(), **training)

    def loss(self, y_hat: Tensor, y: Tensor) -> Tensor:
        return F.huber_loss(y_hat, y)


SOUND: dict[str, Callable[[int], tuple[Any, Any, dict[str, Any]]]] = {
    "linear": lambda s: (LinearRegression(3), SyntheticData(data_seed=s), {}),
    "linear, stochastic": lambda s: (LinearRegression(3, lr=0.02), SyntheticData(250, batch_size=1, data_seed=s), {}),
    "linear, many columns": lambda s: (LinearRegression(50), SyntheticData(2000, 50, data_seed=s), {}),
    "several targets": lambda s: (LinearRegression(5, 3), Targets(s, batch_size=64), {}),
    "regressor": lambda s: (Wide(5, 3, lr=0.05, momentum=0.9), Targets(s), {"max_epochs": 200}),
    "template": lambda s: (Plain(lr=0.05, momentum=0.9), Rows(table, s), {"max_epochs": 30}),
    "mlp": lambda s: (Net(), Rows(table, s), {"max_epochs": 20}),
    "dropout and batch norm": lambda s: (DropoutAndBatchNorm(), Rows(classes, s), {"max_epochs": 20}),
    "convolution": lambda s: (Convolution(), Rows(pictures, s), {"max_epochs": 20}),
    "sequence": lambda s: (Sequence(), Rows(series, s), {"max_epochs": 20}),
    "characters": lambda s: (Characters(), Rows(text, s), {"max_epochs": 20}),
    "autoencoder": lambda s: (Autoencoder(), Rows(lambda g: pictures(g)[:1], s), {"max_epochs": 20}),
    "variational": lambda s: (Variational(), Rows(lambda g: table(g)[:1], s), {"max_epochs": 20}),
    "two optimizers": lambda s: (Adversarial(), Rows(lambda g: table(g)[:1], s), {"max_epochs": 20}),
    "moving average": lambda s: (Averaged(), Rows(table, s), {"max_epochs": 20}),
    "weight decay": lambda s: (Decayed(), Rows(table, s), {"max_epochs": 20}),
}
