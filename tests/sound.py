"""Sound models and data of many kinds, small and whole, on which the doctor has nothing to say."""

import copy
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchmetrics import MaxMetric
from torchmetrics.classification import MulticlassAccuracy

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


def counts(g: torch.Generator) -> tuple[Tensor, Tensor]:
    x, y = table(g)
    return x, torch.poisson((0.3 * y + 3).exp(), generator=g)


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


class Local(Characters):
    """Each letter sees the four before it, by a mask of its own, which stays float32."""

    def build(self) -> nn.Module:
        net, self.attention = super().build(), nn.Linear(32, 96)
        return net

    def forward(self, x: Tensor) -> Tensor:
        h = self.letters(x) + self.places(torch.arange(x.shape[1], device=x.device))
        mask = torch.full((x.shape[1],) * 2, -torch.inf, device=x.device)
        q, k, v = self.attention(self.norms[0](h)).unflatten(-1, (6, 16)).transpose(1, 2).chunk(3, 1)
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=mask.triu(1) + mask.tril(-5))
        h = h + seen.transpose(1, 2).flatten(2)
        return self.net(self.norms[2](h + self.mlp(self.norms[1](h))))


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
            self.take_step(optimizer, is_critic)
            self.untoggle_optimizer(optimizer)

    def take_step(self, optimizer: Any, is_critic: bool) -> None:
        optimizer.step()

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


class ByHand(Averaged):
    """Counts, of which no row tells the level apart, and a moving average, all in a step by hand."""

    automatic_optimization = False

    def loss(self, y_hat: Tensor, y: Tensor) -> Tensor:
        return F.poisson_nll_loss(y_hat, y)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(self.loss(self(batch[0]), batch[1]))
        optimizer.step()


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


class Step(Net):
    """A loss of a whole batch, in training as in validation."""

    def step(self, batch: Any) -> Tensor:
        raise NotImplementedError

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.step(batch)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("loss/val", self.step(batch))


class Siamese(Step):
    """Which of two is the larger: its last bias has no gradient, by right."""

    def step(self, batch: Any) -> Tensor:
        one, other, is_larger = batch
        return F.binary_cross_entropy_with_logits(self.net(one) - self.net(other), is_larger)


class Triplet(Step):
    def build(self) -> nn.Module:
        return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4))

    def step(self, batch: Any) -> Tensor:
        return F.triplet_margin_loss(*map(self.net, batch))


class Contrastive(Step):
    """Two views of a row are closer than those of two rows: a loss of rows against their neighbours."""

    def build(self) -> nn.Module:
        self.other = nn.Linear(8, 6)
        return nn.Linear(8, 6)

    def step(self, batch: Any) -> Tensor:
        a, b = F.normalize(self.net(batch[0]), dim=1), F.normalize(self.other(batch[1]), dim=1)
        scores, y = 3 * a @ b.T, torch.arange(len(a), device=a.device)
        return (F.cross_entropy(scores, y) + F.cross_entropy(scores.T, y)) / 2


class Conditional(Step):
    """A variational autoencoder that is told of which class its row is."""

    def build(self) -> nn.Module:
        self.decoder = nn.Linear(3, 8)
        return nn.Linear(9, 4)

    def step(self, batch: Any) -> Tensor:
        x, y = batch
        mean, log_std = self.net(torch.cat([x, y], 1)).chunk(2, 1)
        z = mean + torch.randn_like(mean) * log_std.exp()
        kl = (mean.square() + (2 * log_std).exp() - 1 - 2 * log_std).mean() / 2
        return F.mse_loss(self.decoder(torch.cat([z, y], 1)), x) + 0.01 * kl


class LowRank(Net):
    """What is trained beside frozen layers begins at zero (Hu et al. 2021)."""

    def build(self) -> nn.Module:
        self.a, self.b = nn.Parameter(torch.randn(8, 2) / 3), nn.Parameter(torch.zeros(2, 32))
        self.c, self.d = nn.Parameter(torch.randn(32, 2) / 5), nn.Parameter(torch.zeros(2, 1))
        return super().build().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.net[1](self.net[0](x) + x @ self.a @ self.b)
        return self.net[2](h) + h @ self.c @ self.d


class Residual(nn.Module):
    """A block that begins as the identity: the scale of its last norm is zero."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.second, self.last = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.GroupNorm(2, width)
        nn.init.zeros_(self.last.weight)

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.last(self.second(self.norm(self.first(x)).relu()))).relu()


class Residuals(DropoutAndBatchNorm):
    def build(self) -> nn.Module:
        stem, pool = nn.Conv2d(1, 8, 3, padding=1), nn.AdaptiveAvgPool2d(2)
        return nn.Sequential(stem, Residual(8), Residual(8), pool, nn.Flatten(), nn.Linear(32, 4))


class FrozenBackbone(Convolution):
    def build(self) -> nn.Module:
        net = super().build()
        net[:5].requires_grad_(False).eval()
        return net


class Distilled(Net):
    """Follows a teacher, which is frozen, and draws nothing."""

    def build(self) -> nn.Module:
        self.teacher = nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.5), nn.Linear(16, 1))
        self.teacher.requires_grad_(False).eval()
        return super().build()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        y_hat = self(batch[0])
        return self.loss(y_hat, batch[1]) + 0.1 * self.loss(y_hat, self.teacher(batch[0]))


class Momentum(Step):
    """Predicts what a slow copy of itself makes of the same row, whose norms are in training mode (BYOL, 2020)."""

    def build(self) -> nn.Module:
        net = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 8))
        self.slow = copy.deepcopy(net).requires_grad_(False)
        return net

    def step(self, batch: Any) -> Tensor:
        return F.mse_loss(self.net(batch[0]), self.slow(batch[0])) + F.mse_loss(self.net(batch[0]), batch[0])

    def on_train_batch_end(self, *args: Any) -> None:
        for slow, p in zip(self.slow.parameters(), self.net.parameters(), strict=True):
            slow.data.lerp_(p.data, 0.01)


class Adapted(LowRank):
    """And drops in training, as is usual."""

    def build(self) -> nn.Module:
        self.drop = nn.Dropout(0.1)
        return super().build()

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.drop(x))


class Standardized(Net):
    """Its inputs' statistics are gathered by a batch norm, which has nothing else to learn."""

    def build(self) -> nn.Module:
        return nn.Sequential(nn.BatchNorm1d(8).requires_grad_(False), *super().build())


class BestSoFar(DropoutAndBatchNorm):
    """It says the best accuracy so far, and which epoch it is."""

    def __init__(self) -> None:
        super().__init__()
        self.accuracy, self.best = MulticlassAccuracy(3), MaxMetric()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        super().validation_step(batch, batch_idx)
        self.accuracy(self(batch[0]), batch[1])
        self.log("accuracy/val", self.accuracy, on_epoch=True)

    def on_validation_epoch_end(self) -> None:
        self.best(self.accuracy.compute())
        self.log("best/val", self.best.compute())
        self.log("beta", float(self.current_epoch))


class Turned(DropoutAndBatchNorm):
    """Each step has its rows in an order of its own."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        order = torch.randperm(len(batch[0]))
        return self.loss(self(batch[0][order]), batch[1][order])


class MixedInTheStep(DropoutAndBatchNorm):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        (x, y), order, share = batch, torch.randperm(len(batch[0])), torch.rand(())
        y_hat = self(share * x + (1 - share) * x[order])
        return share * self.loss(y_hat, y) + (1 - share) * self.loss(y_hat, y[order])


class Words(Net):
    """The mean of words, most of them rare, among them that of the padding, whose row gets no gradient."""

    def build(self) -> nn.Module:
        self.words = nn.Embedding(1000, 16, padding_idx=0)
        return nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.words(x).mean(1))

    def loss(self, y_hat: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(y_hat, y, label_smoothing=0.1)


class Uncertain(Net):
    """A normal distribution for each row, whose loss may be negative; its rate falls where validation stands still."""

    def build(self) -> nn.Module:
        return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 2))

    def loss(self, y_hat: Tensor, y: Tensor) -> Tensor:
        mean, log_std = y_hat.chunk(2, 1)
        return (log_std + ((y - mean) / log_std.exp()).square() / 2).mean()

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), 3e-3)
        schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "monitor": "loss/val"}}


class Tasks(Step):
    """Two heads, whose losses have learned weights, and batches that are dicts."""

    def build(self) -> nn.Module:
        self.score, self.label = nn.Linear(32, 1), nn.Linear(32, 2)
        self.shares = nn.Parameter(torch.zeros(2))
        return nn.Sequential(nn.Linear(8, 32), nn.ReLU())

    def step(self, batch: Any) -> Tensor:
        h = self.net(batch["x"])
        losses = F.mse_loss(self.score(h), batch["score"]), F.cross_entropy(self.label(h), batch["label"])
        return (torch.stack(losses) * (-self.shares).exp() + self.shares).sum()


class Masked(Net):
    """Attention that leaves padding out, and batches that are dicts."""

    def build(self) -> nn.Module:
        self.words = nn.Embedding(1000, 16, padding_idx=0)
        self.block = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        return nn.Linear(16, 2)

    def forward(self, batch: Any) -> Tensor:
        is_word = batch["mask"]
        h = self.block(self.words(batch["tokens"]), src_key_padding_mask=~is_word) * is_word[..., None]
        return self.net(h.sum(1) / is_word.sum(1, keepdim=True))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self(batch), batch["label"])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", F.cross_entropy(self(batch), batch["label"]))


class Translator(Step):
    """Its decoder is given the letters before the one that it is to say."""

    def build(self) -> nn.Module:
        self.letters = nn.Embedding(27, 16)
        self.encoder, self.decoder = nn.GRU(16, 32, batch_first=True), nn.GRU(16, 32, batch_first=True)
        return nn.Linear(32, 26)

    def given(self, y: Tensor) -> Tensor:
        return F.pad(y, (1, 0), value=26)[:, :-1]

    def step(self, batch: Any) -> Tensor:
        x, y = batch
        state = self.encoder(self.letters(x))[1]
        y_hat = self.net(self.decoder(self.letters(self.given(y)), state)[0])
        return F.cross_entropy(y_hat.flatten(0, 1), y.flatten())


class Wasserstein(Adversarial):
    """The critic takes five steps for one of the generator."""

    def training_step(self, batch: Any, batch_idx: int) -> None:
        x, (step, critic_step) = batch[0], self.optimizers()
        made = self.generator(torch.randn(len(x), 4, device=x.device))
        critic_step.zero_grad()
        self.manual_backward(self.critic(made.detach()).mean() - self.critic(x).mean())
        critic_step.step()
        if batch_idx % 5 == 4:
            step.zero_grad()
            self.manual_backward(-self.critic(made).mean())
            step.step()


class Queue(Step):
    """Tells the other view of a row from rows before it, which are kept in a queue (MoCo, He et al. 2020)."""

    def build(self) -> nn.Module:
        net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 8))
        self.slow = copy.deepcopy(net).requires_grad_(False)
        self.register_buffer("queue", F.normalize(torch.randn(128, 8), dim=1))
        return net

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        for slow, p in zip(self.slow.parameters(), self.net.parameters(), strict=True):
            slow.data.lerp_(p.data, 0.01)
        loss = self.step(batch)
        rows = F.normalize(self.slow(batch[1]), dim=1)
        self.queue = torch.cat([rows, self.queue])[:128]
        return loss

    def step(self, batch: Any) -> Tensor:
        a, b = F.normalize(self.net(batch[0]), dim=1), F.normalize(self.slow(batch[1]), dim=1)
        scores = torch.cat([(a * b).sum(1, keepdim=True), a @ self.queue.T], 1)
        return F.cross_entropy(scores / 0.2, torch.zeros(len(a), dtype=torch.long, device=a.device))


class SlowBuffers(Queue):
    """The slow copy's weights are buffers."""

    def build(self) -> nn.Module:
        net = super().build()
        for name, p in [*self.slow.named_parameters()]:
            module = self.slow.get_submodule(name.rpartition(".")[0])
            delattr(module, name.rpartition(".")[2])
            module.register_buffer(name.rpartition(".")[2], p.data)
        self.slow.parameters = self.slow.buffers  # type: ignore[method-assign]
        return net


class Learner(Step):
    """Learns what a few steps on rows of a task make of it: gradients of gradients (MAML, Finn et al. 2017)."""

    def build(self) -> nn.Module:
        return nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 1))

    def step(self, batch: Any) -> Tensor:
        return torch.stack([self.of_task(*task) for task in zip(*batch, strict=True)]).mean()

    def of_task(self, x: Tensor, y: Tensor, others: Tensor, answers: Tensor) -> Tensor:
        weights = dict(self.net.named_parameters())
        with torch.enable_grad():
            loss = F.mse_loss(torch.func.functional_call(self.net, weights, x), y)
            slopes = torch.autograd.grad(loss, [*weights.values()], create_graph=True)
        weights = {name: p - 0.01 * slope for (name, p), slope in zip(weights.items(), slopes, strict=True)}
        return F.mse_loss(torch.func.functional_call(self.net, weights, others), answers)


class FirstOrder(Learner):
    """The same without them: a copy takes the steps, by an optimizer of its own, and its gradient is taken over."""

    automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        self.optimizers().zero_grad()
        for task in zip(*batch, strict=True):
            for p, slope in zip(self.net.parameters(), self.slopes(*task), strict=True):
                p.grad = slope / len(batch[0]) + (0 if p.grad is None else p.grad)
        self.optimizers().step()

    def slopes(self, x: Tensor, y: Tensor, others: Tensor, answers: Tensor) -> list[Tensor]:
        learner = copy.deepcopy(self.net)
        optimizer = torch.optim.SGD(learner.parameters(), 0.01)
        for inputs, targets in ((x, y), (x, y), (others, answers)):
            optimizer.zero_grad()
            F.mse_loss(learner(inputs), targets).backward()
            if inputs is x:
                optimizer.step()
        return [p.grad for p in learner.parameters()]


class Growing(Net):
    """Has one more layer after a few steps, which begins as the identity."""

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        if self.global_step == 5 and len(self.net) == 3:
            self.grow()
            self.optimizers().add_param_group({"params": self.net[2].parameters()})

    def grow(self) -> None:
        layer = nn.Linear(32, 32)
        nn.init.eye_(layer.weight)
        nn.init.zeros_(layer.bias)
        self.net = nn.Sequential(*self.net[:2], layer, *self.net[2:])

    def on_load_checkpoint(self, checkpoint: Any) -> None:
        if "net.3.weight" in checkpoint["state_dict"]:
            self.grow()


class SharpnessAware(torch.optim.Optimizer):
    """Steps along the gradient a little way uphill, by an optimizer within (SAM, Foret et al. 2021)."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, {"lr": lr})
        self.inner = torch.optim.SGD(self.param_groups, lr, momentum=0.9)
        self.param_groups = self.inner.param_groups

    @torch.no_grad()
    def climb(self) -> None:
        parts = [p for group in self.param_groups for p in group["params"]]
        norm = torch.stack([p.grad.norm() for p in parts]).norm() + 1e-12
        self.moved = [(p, 0.05 * p.grad / norm) for p in parts]
        for p, way in self.moved:
            p.add_(way)
        self.zero_grad()

    @torch.no_grad()
    def descend(self) -> None:
        for p, way in self.moved:
            p.sub_(way)
        self.inner.step()

    def step(self, closure: Any) -> Any:
        loss = closure()
        self.climb()
        closure()
        self.descend()
        return loss

    def state_dict(self) -> Any:
        return self.inner.state_dict()

    def load_state_dict(self, state_dict: Any) -> None:
        self.inner.load_state_dict(state_dict)
        self.param_groups = self.inner.param_groups


class Flat(Net):
    optimizer = SharpnessAware


class FlatByHand(Flat):
    automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        for move in (self.optimizers().climb, self.optimizers().descend):
            self.optimizers().zero_grad()
            self.manual_backward(self.loss(self(batch[0]), batch[1]))
            move()


class Lines(pl.LightningDataModule):
    """Rows of unequal length, that are padded with 0 where a batch is made of them, with labels, or one for each."""

    def __init__(self, seed: int = 0, is_tagged: bool = False) -> None:
        super().__init__()
        self.seed, self.is_tagged = seed, is_tagged

    def rows(self, count: int, seed: int) -> list[tuple[Tensor, Tensor]]:
        g, found = torch.Generator().manual_seed(seed), []
        for length in torch.randint(3, 13, (count,), generator=g).tolist():
            x = torch.randint(3, 100, (length,), generator=g)
            x[0] = torch.randint(1, 3, (), generator=g)
            found.append((x, x % 2 + 1 if self.is_tagged else x[0] - 1))
        return found

    def collate(self, rows: Any) -> Any:
        x, y = zip(*rows, strict=True)
        x = nn.utils.rnn.pad_sequence(x, batch_first=True)
        return x, nn.utils.rnn.pad_sequence(y, batch_first=True) if self.is_tagged else torch.stack(y)

    def train_dataloader(self) -> DataLoader:
        rows: Any = self.rows(400, 2 * self.seed)
        return DataLoader(rows, 32, shuffle=True, collate_fn=self.collate)

    def val_dataloader(self) -> DataLoader:
        rows: Any = self.rows(100, 2 * self.seed + 1)
        return DataLoader(rows, 32, collate_fn=self.collate)


class Guessing(Lines):
    """Words that are to be guessed are drawn for each batch anew."""

    def collate(self, rows: Any) -> Any:
        x, _ = super().collate(rows)
        is_hidden = (torch.rand(x.shape) < 0.3) & (x > 0)
        is_hidden[:, 0] = True
        return x.where(~is_hidden, 2), x.where(is_hidden, -100)


class MeanWord(Net):
    """The mean of the words, and of no padding."""

    def build(self) -> nn.Module:
        self.words = nn.Embedding(100, 16, padding_idx=0)
        return nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.words(x).sum(1) / (x > 0).sum(1, keepdim=True))

    def loss(self, y_hat: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(y_hat, y)


class Tagger(MeanWord):
    """Says something of each word, and is not asked of padding."""

    def build(self) -> nn.Module:
        super().build()
        self.reader = nn.GRU(16, 16, batch_first=True)
        return nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.reader(self.words(x))[0])

    def loss(self, y_hat: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(y_hat.transpose(1, 2), y, ignore_index=0)


class Reader(Tagger):
    def build(self) -> nn.Module:
        super().build()
        return nn.Linear(16, 100)

    def loss(self, y_hat: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(y_hat.transpose(1, 2), y)


class Logs(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.log() / 2.5)


class Moved(Rows):
    """Training rows are moved, each time by other draws."""

    def __init__(self, make: Any, how: Callable[[Tensor], Tensor], seed: int = 0) -> None:
        super().__init__(make, seed)
        self.how = how

    def setup(self, stage: str) -> None:
        super().setup(stage)
        self.train = Changed(self.train, self.how)


class Changed(Dataset):
    """Rows whose inputs are changed on their way."""

    def __init__(self, rows: Any, how: Callable[[Tensor], Tensor]) -> None:
        self.rows, self.how = rows, how

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> Any:
        x, *others = self.rows[i]
        return self.how(x), *others


class Dicts(Rows):
    """Batches that are dicts."""

    def __init__(self, make: Any, names: str, seed: int = 0) -> None:
        super().__init__(make, seed)
        self.names = names.split()

    def setup(self, stage: str) -> None:
        columns = self.make(torch.Generator().manual_seed(self.seed))
        rows: Any = [dict(zip(self.names, row, strict=True)) for row in zip(*columns, strict=True)]
        self.train, self.val = rows[:400], rows[400:]


class Mixup(Rows):
    """Training rows are mixed by twos, and so are their classes (Zhang et al. 2017)."""

    def train_dataloader(self) -> DataLoader:
        def collate(rows: Any) -> Any:
            x, y = torch.utils.data.default_collate(rows)
            y, order, share = F.one_hot(y, 4).float(), torch.randperm(len(x)), torch.rand(())
            return share * x + (1 - share) * x[order], share * y + (1 - share) * y[order]

        return DataLoader(self.train, self.batch_size, shuffle=True, collate_fn=collate)


def pairs(g: torch.Generator) -> tuple[Tensor, ...]:
    one, other = torch.randn(500, 8, generator=g), torch.randn(500, 8, generator=g)
    return one, other, (one[:, :1] > other[:, :1]).float()


def triplets(g: torch.Generator) -> tuple[Tensor, ...]:
    x = torch.randn(500, 8, generator=g)
    return x, x + 0.3 * torch.randn(500, 8, generator=g), torch.randn(500, 8, generator=g)


def sentences(g: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    x = torch.randint(3, 1000, (500, 12), generator=g)
    x[:, 0] = torch.randint(1, 3, (500,), generator=g)
    x[torch.arange(12) >= torch.randint(4, 13, (500, 1), generator=g)] = 0
    return x, x > 0, x[:, 0] - 1


def levels(g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Columns of which one holds in each row, and others."""
    x = torch.randn(500, 8, generator=g)
    x[:, :5] = F.one_hot(torch.randint(0, 5, (500,), generator=g), 5)
    return x, x @ torch.randn(8, 1, generator=g)


def waves(g: torch.Generator) -> tuple[Tensor, ...]:
    """Tasks, each of ten rows and ten others."""
    x, shift = 4 * torch.rand(200, 20, 1, generator=g) - 2, 3 * torch.rand(200, 1, 1, generator=g)
    y = torch.sin(x + shift)
    return x[:, :10], y[:, :10], x[:, 10:], y[:, 10:]


def tails(g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Columns whose largest values are a thousand times their median."""
    x, y = table(g)
    return (2.5 * x).exp(), y


def sparse(g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Columns that are 0 in most rows."""
    x, noise = torch.randn(500, 8, generator=g), torch.randn(500, 1, generator=g)
    x *= torch.rand(500, 8, generator=g) < 0.15
    return x, x.sum(1, keepdim=True) + 0.3 * noise


def tasks(g: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    x, y = table(g)
    return x, y, (x[:, 0] > x[:, 1]).long()


def words(g: torch.Generator) -> tuple[Tensor, Tensor]:
    x = torch.randint(0, 26, (400, 8), generator=g)
    return x, x.flip(1)


class Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return -0.5 * gradient


class Domains(Net):
    """Features from which no domain can be told: the gradient of what tells it is turned round."""

    def build(self) -> nn.Module:
        self.tells = nn.Linear(32, 2)
        return super().build()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        features = self.net[:2](batch[0])
        domain = F.cross_entropy(self.tells(Reversed.apply(features)), (batch[0][:, 0] > 0).long())
        return self.loss(self.net[2](features), batch[1]) + domain


class Graphs(Rows):
    """Rows that are joined by edges (2, E), in a dict."""

    def collate(self, rows: Any) -> dict[str, Tensor]:
        x, y = torch.utils.data.default_collate(rows)
        ring = torch.arange(len(x))
        return {"x": x, "edges": torch.stack([ring, ring.roll(1)]), "y": y}

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.train, self.batch_size, shuffle=True, collate_fn=self.collate)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.val, self.batch_size, collate_fn=self.collate)


class Ring(Net):
    """Each row sees a little of its neighbour."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, (to, of) = batch["x"], batch["edges"]
        return self.loss(self.net(x.index_add(0, to, 0.01 * x[of])), batch["y"])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("loss/val", self.training_step(batch, batch_idx), batch_size=len(batch["x"]))


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
    "by hand": lambda s: (ByHand(), Rows(counts, s), {"max_epochs": 20}),
    "weight decay": lambda s: (Decayed(), Rows(table, s), {"max_epochs": 20}),
    "siamese": lambda s: (Siamese(), Rows(pairs, s), {"max_epochs": 20}),
    "triplet": lambda s: (Triplet(), Rows(triplets, s), {"max_epochs": 20}),
    "contrastive": lambda s: (Contrastive(), Rows(lambda g: triplets(g)[:2], s), {"max_epochs": 20}),
    "conditional": lambda s: (Conditional(), Rows(table, s), {"max_epochs": 20}),
    "low rank": lambda s: (LowRank(1e-2), Rows(table, s), {"max_epochs": 20}),
    "residuals from zero": lambda s: (Residuals(), Rows(pictures, s), {"max_epochs": 20}),
    "frozen backbone": lambda s: (FrozenBackbone(), Rows(pictures, s), {"max_epochs": 20}),
    "teacher": lambda s: (Distilled(), Rows(table, s), {"max_epochs": 20}),
    "momentum encoder": lambda s: (Momentum(), Rows(lambda g: table(g)[:1], s), {"max_epochs": 20}),
    "adapted": lambda s: (Adapted(1e-2), Rows(table, s), {"max_epochs": 20}),
    "norm of inputs": lambda s: (Standardized(), Rows(table, s), {"max_epochs": 20}),
    "best so far": lambda s: (BestSoFar(), Rows(classes, s), {"max_epochs": 20}),
    "turned": lambda s: (Turned(), Rows(classes, s), {"max_epochs": 20}),
    "mixed in the step": lambda s: (MixedInTheStep(), Rows(classes, s), {"max_epochs": 20}),
    "padding": lambda s: (Words(1e-2), Rows(lambda g: sentences(g)[::2], s), {"max_epochs": 20}),
    "negative loss": lambda s: (Uncertain(), Rows(table, s), {"max_epochs": 20}),
    "tasks": lambda s: (Tasks(), Dicts(tasks, "x score label", s), {"max_epochs": 20}),
    "masked": lambda s: (Masked(), Dicts(sentences, "tokens mask label", s), {"max_epochs": 20}),
    "translator": lambda s: (Translator(), Rows(words, s), {"max_epochs": 20}),
    "critic": lambda s: (Wasserstein(), Rows(lambda g: table(g)[:1], s), {"max_epochs": 20}),
    "mixup": lambda s: (Convolution(), Mixup(pictures, s), {"max_epochs": 20}),
    "local attention": lambda s: (Local(), Rows(text, s), {"max_epochs": 20}),
    "autoencoder of labelled rows": lambda s: (Variational(), Rows(table, s), {"max_epochs": 20}),
    "one of several": lambda s: (Net(), Rows(levels, s), {"max_epochs": 20}),
    "queue": lambda s: (Queue(), Rows(lambda g: triplets(g)[:2], s), {"max_epochs": 20}),
    "slow buffers": lambda s: (SlowBuffers(), Rows(lambda g: triplets(g)[:2], s), {"max_epochs": 20}),
    "inner loop": lambda s: (Learner(), Rows(waves, s, 8), {"max_epochs": 20}),
    "inner copies": lambda s: (FirstOrder(), Rows(waves, s, 8), {"max_epochs": 20}),
    "growing": lambda s: (Growing(), Rows(table, s), {"max_epochs": 20}),
    "sharpness": lambda s: (Flat(2e-2), Rows(table, s), {"max_epochs": 20}),
    "sharpness by hand": lambda s: (FlatByHand(2e-2), Rows(table, s), {"max_epochs": 20}),
    "lines": lambda s: (MeanWord(1e-2), Lines(s), {"max_epochs": 20}),
    "tagged lines": lambda s: (Tagger(1e-2), Lines(s, is_tagged=True), {"max_epochs": 20}),
    "hidden words": lambda s: (Reader(1e-2), Guessing(s), {"max_epochs": 20}),
    "moved": lambda s: (Net(), Moved(table, lambda x: x + 0.1 * torch.randn_like(x), s), {"max_epochs": 20}),
    "moved far": lambda s: (Net(), Moved(table, lambda x: x + torch.randn_like(x), s), {"max_epochs": 20}),
    "heavy tails": lambda s: (Logs(), Rows(tails, s), {"max_epochs": 20}),
    "sparse": lambda s: (Net(), Rows(sparse, s), {"max_epochs": 20}),
    "domains": lambda s: (Domains(), Rows(table, s), {"max_epochs": 20}),
    "graphs": lambda s: (Ring(), Graphs(table, s), {"max_epochs": 20}),
}
