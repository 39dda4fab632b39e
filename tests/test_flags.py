"""A flag of the Trainer that is accepted does what it says; any other is refused by name. For both kinds of model."""

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch.nn.functional import cross_entropy, mse_loss

from linreg import LinearRegression, SyntheticData
from linreg.tables.batches import TensorBatches
from tests.conftest import Process, Train, read_metrics
from tests.test_draws import MINE as SHIFTED
from tests.test_open import MINE
from tests.tools import assert_same, load, scalars

pytestmark = pytest.mark.filterwarnings("ignore:The '.*dataloader' does not have many workers")
KINDS = {
    "linear": ["--data.num_rows", 500, "--data.batch_size", 40, "--data.noise_std", 1, "--model.lr", 0.05],  # 10 steps
    "bare": ["--model", "mine.Net", "--data", "mine.Digits"],  # 6 steps
}
STEPS = {"linear": 10, "bare": 6}  # an epoch
FOLDER = Path("runs/default/version_0")
Run = Callable[..., str]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def run(kind: str, train: Train, workplace: Path) -> Run:
    """Trains either kind of model for three epochs, with more flags; gives what was printed."""
    Path("mine.py").write_text(MINE)

    def run_it(*flags: object, code: int = 0) -> str:
        found, out = train(*KINDS[kind], "--max_epochs", 3, *flags)
        assert found == code, out
        return out

    return run_it


def last(name: str = "default") -> dict[str, Any]:
    return load(f"runs/{name}/version_0/checkpoints/last.ckpt")


def weights(content: dict[str, Any]) -> list[torch.Tensor]:
    return [value for name, value in content["state_dict"].items() if name.endswith(("weight", "bias"))]


def batches_of(kind: str, epoch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The batches of an epoch in the order in which a run has them."""
    if kind == "bare":
        yield from sys.modules["mine"].Digits().train_dataloader()
        return
    rows = SyntheticData(num_rows=500, noise_std=1).splits["train"]
    loader = TensorBatches(*rows, 40, seed=0)
    loader.set_epoch(epoch)
    model = LinearRegression.load_from_checkpoint(FOLDER / "checkpoints/last.ckpt")
    yield from map(model.standardize, loader)


def descend(
    kind: str, epochs: int = 3, every: int = 1, clip: Callable[[Any], Any] | None = None, overfit: int | None = None
) -> list[torch.Tensor]:
    """The weights after a plain loop of torch."""
    pl.seed_everything(0)
    net = LinearRegression(3).hypothesis if kind == "linear" else sys.modules["mine"].Net(3).net
    kinds = {"linear": (torch.optim.SGD, 0.05, mse_loss), "bare": (torch.optim.Adam, 0.01, cross_entropy)}
    cls, lr, loss = kinds[kind]
    optimizer = cls(net.parameters(), lr=lr)
    for epoch in range(epochs):
        batches = list(batches_of(kind, epoch))[:overfit]
        for i, (x, y) in enumerate(batches):
            (loss(net(x), y) / every).backward()
            if (i + 1) % every == 0 or i + 1 == len(batches):
                if clip:
                    clip(net.parameters())
                optimizer.step()
                optimizer.zero_grad()
    return [parameter.detach() for parameter in net.parameters()]


def test_the_plain_loop_is_that_of_a_run(kind: str, run: Run) -> None:
    run()
    torch.testing.assert_close(weights(last()), descend(kind))


@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_gradient_clip(algorithm: str, kind: str, run: Run) -> None:
    run("--gradient_clip_val", 0.01, "--gradient_clip_algorithm", algorithm)
    clips = {"norm": torch.nn.utils.clip_grad_norm_, "value": torch.nn.utils.clip_grad_value_}
    torch.testing.assert_close(weights(last()), descend(kind, clip=lambda p: clips[algorithm](p, 0.01)))


def test_accumulate_grad_batches_and_clip(kind: str, run: Run) -> None:
    run("--accumulate_grad_batches", 4, "--gradient_clip_val", 0.01)
    clip = torch.nn.utils.clip_grad_norm_
    torch.testing.assert_close(weights(last()), descend(kind, every=4, clip=lambda p: clip(p, 0.01)))
    assert last()["global_step"] == 3 * -(-STEPS[kind] // 4)


def test_accumulation_by_a_schedule(kind: str, run: Run) -> None:
    run("--callbacks", "{class_path: GradientAccumulationScheduler, init_args: {scheduling: {1: 2}}}")
    assert last()["global_step"] == STEPS[kind] * 2


def test_limits(kind: str, run: Run) -> None:
    run("--limit_train_batches", 2, "--limit_val_batches", 0)
    assert last()["global_step"] == 6
    assert "loss/val" not in scalars(FOLDER)
    torch.testing.assert_close(weights(last()), descend(kind, overfit=2))


@pytest.mark.parametrize("loader", ["shuffled", "own"])
def test_overfit_batches_are_the_same_in_each_epoch(loader: str, kind: str, run: Run) -> None:
    text = MINE.replace(
        "TensorDataset(x, y), self.batch_size)", "TensorDataset(x, y), self.batch_size, shuffle=n == 90)"
    )
    if loader == "shuffled":
        Path("mine.py").write_text(text)
    Path("seen.py").write_text(SEEN)
    run("--overfit_batches", 2, "--callbacks", "seen.Seen")
    lines = Path("seen").read_text().splitlines()
    assert len(lines) == 6
    assert lines[0:2] == lines[2:4] == lines[4:6]
    assert lines[0] != lines[1]


@pytest.mark.filterwarnings("ignore:Your `IterableDataset` has `__len__` defined")
def test_overfit_batches_of_a_stream(train: Train, workplace: Path) -> None:
    Path("mine.py").write_text(SHIFTED)
    Path("seen.py").write_text(SEEN)
    typed = ["--model", "mine.Net", "--data", "mine.Images", "--data.stream", "true", "--max_epochs", 3]
    code, out = train(*typed, "--overfit_batches", 2, "--callbacks", "seen.Seen")
    assert code == 0, out
    lines = Path("seen").read_text().splitlines()
    assert lines[0:2] == lines[2:4] == lines[4:6]
    assert lines[0] != lines[1]


COMPILED = """
import torch
from torch import nn
from linreg import Regressor

class Block(nn.Module):
    def __init__(self, num_features):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(num_features, 8), nn.ReLU(), nn.Linear(8, 1))
    def forward(self, x):
        return self.net(x)

class Net(Regressor):
    def __init__(self, num_features: int, num_targets: int = 1, backend: str | None = None, **training):
        super().__init__(Block(num_features), num_features, num_targets, **training)
        if backend:
            self.hypothesis.compile(backend=backend)

class Inner(Net):
    def configure_model(self):
        self.hypothesis.net.compile(backend="eager")
"""


def test_a_model_is_compiled_in_place(train: Train, workplace: Path) -> None:
    Path("compiled.py").write_text(COMPILED)
    typed = ["--model", "compiled.Net", "--model.lr", 0.05, "--max_epochs", 2, "--data.num_rows", 300]
    assert train(*typed, "--name", "plain")[0] == 0
    counted = torch._dynamo.utils.counters["frames"]
    counted.clear()
    code, out = train(*typed, "--model.backend", "eager")
    assert code == 0, out
    assert counted["ok"]
    assert "compiles nothing" not in out
    assert_same(last()["state_dict"], last("plain")["state_dict"])
    assert_same(last()["optimizer_states"], last("plain")["optimizer_states"])
    torch._dynamo.reset()
    counted.clear()
    code, out = train("--model", "compiled.Inner", *typed[2:], "--name", "inner")
    assert not counted, "torch compiles its own modules now: the line can go"
    assert "compile() of a Sequential compiles nothing; call that of a module of your own around it" in out


@pytest.mark.slow
def test_without_a_compiler_it_is_a_line(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("compiled.py").write_text(COMPILED)
    for name, value in (("CXX", "/nowhere"), ("PATH", "/nowhere"), ("TORCHINDUCTOR_CACHE_DIR", "cache")):
        monkeypatch.setenv(name, value)
    done = process("--model", "compiled.Net", "--model.lr", 0.05, "--max_epochs", 1, "--model.backend", "inductor")
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: compile() needs a C++ compiler")
    assert "Traceback" not in done.stderr


SEEN = """
from lightning.pytorch import Callback
class Seen(Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        with open("seen", "a") as file:
            print(batch[0].double().sum().item(), file=file)
"""


def test_early_stopping_says_why(kind: str, run: Run) -> None:
    stopping = "{{class_path: EarlyStopping, init_args: {{monitor: loss/val, min_delta: 10, patience: {}}}}}"
    out = run("--callbacks", stopping.format(1))
    steps = STEPS[kind] * 2
    assert f"stop    after step {steps}: Monitored metric loss/val did not improve in the last 1 records." in out
    assert last()["global_step"] == steps
    path = FOLDER / "checkpoints/last.ckpt"
    out = run("--ckpt_path", path, "--callbacks", stopping.format(1))
    assert last()["global_step"] == steps
    out = run("--ckpt_path", path, "--callbacks", stopping.format(9))
    assert "stop " not in out
    assert last()["global_step"] == STEPS[kind] * 3


def test_max_time_is_said_and_can_be_prolonged(kind: str, run: Run) -> None:
    run("--name", "whole")
    Path("slow.py").write_text(SLOW)
    out = run("--max_time", "00:00:00:01", "--callbacks", "slow.Slow")
    assert re.search(r"^stop    after step \d+: --max_time has passed$", out, re.M), out
    steps = last()["global_step"]
    assert steps < STEPS[kind] * 3
    out = run("--ckpt_path", FOLDER / "checkpoints/last.ckpt", "--callbacks", "[]", "--max_time", "00:01:00:00")
    assert_same(last("whole")["state_dict"], last()["state_dict"])
    assert_same(last("whole")["optimizer_states"], last()["optimizer_states"])


SLOW = """
import time
from lightning.pytorch import Callback
class Slow(Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == 3:
            time.sleep(1.1)
"""


@pytest.mark.slow
def test_what_a_library_tells_is_seen(kind: str, run: Run, process: Process) -> None:
    done = process(*KINDS[kind], "--max_epochs", 1, "--profiler", "simple", "--enable_model_summary", "true")
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    assert "FIT Profiler Report" in said
    assert "Trainable params" in said
    assert not re.search("litlogger|litmodels|TPU|stopped: ", said)


@pytest.mark.parametrize("flag", [[], ["--callbacks", "LearningRateMonitor"]])
def test_fast_dev_run_leaves_nothing(flag: list[str], run: Run) -> None:
    out = run("--fast_dev_run", "true", *flag)
    assert "epoch 1 of 1" in out
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("flags", "per_epoch"), [(["--val_check_interval", 0.5], 2), (["--val_check_interval", 2], None)]
)
def test_val_check_interval(flags: list[object], per_epoch: int | None, kind: str, run: Run) -> None:
    run(*flags)
    assert len(scalars(FOLDER)["loss/val"]) == 3 * (per_epoch or STEPS[kind] // 2)


def test_the_best_is_that_of_a_validation_inside_an_epoch(kind: str, run: Run) -> None:
    run("--val_check_interval", 4, "--check_val_every_n_epoch", "null", "--monitor", "loss/val")
    curve = scalars(FOLDER)["loss/val"]
    assert [step for step, _ in curve] == [4 * k - 1 for k in range(1, STEPS[kind] * 3 // 4 + 1)]
    best = load(FOLDER / "checkpoints/best.ckpt")
    step, value = min(curve, key=lambda point: point[1])
    assert best["global_step"] == step + 1
    assert best["logged"]["loss/val"] == pytest.approx(value, rel=1e-6)
    is_at_an_end = best["global_step"] % STEPS[kind] == 0
    assert any("train" in tag for tag in best["logged"]) == is_at_an_end  # else it would be of the epoch before
    measured = run_again("validate", FOLDER / "checkpoints/best.ckpt")
    assert measured["loss/val"] == pytest.approx(value, rel=1e-5)


def run_again(stage: str, path: Path) -> dict[str, float]:
    from linreg.command.cli import CommandLine
    from linreg.evaluation import measure

    line = CommandLine([stage, "--ckpt_path", str(path)])
    return measure(stage, line.model, line.datamodule, **line.settings)


def test_check_val_every_n_epoch(kind: str, run: Run) -> None:
    run("--check_val_every_n_epoch", 2)
    assert [step for step, _ in scalars(FOLDER)["loss/val"]] == [2 * STEPS[kind] - 1]
    assert load(FOLDER / "checkpoints/best.ckpt")["epoch"] == 1


def test_max_steps_and_min_epochs(kind: str, run: Run) -> None:
    out = run("--max_steps", 4)
    assert last()["global_step"] == 4
    assert "there is no best.ckpt of this run" in out
    torch.testing.assert_close(weights(last()), descend(kind, 1, overfit=4))
    stopping = "{class_path: EarlyStopping, init_args: {monitor: loss/val, min_delta: 10, patience: 1}}"
    run("--callbacks", stopping, "--min_epochs", 3, "--name", "three")
    assert last("three")["global_step"] == 3 * STEPS[kind]


PRECISIONS = {"32-true": torch.float32, "64-true": torch.float64, "bf16-true": torch.bfloat16}
PRECISIONS |= {"bf16-mixed": torch.float32, "16-mixed": torch.float32}


@pytest.mark.filterwarnings("ignore:You passed .Trainer.accelerator='cpu', precision='16-mixed'")
@pytest.mark.parametrize(
    "precision", [p if p == "bf16-mixed" else pytest.param(p, marks=pytest.mark.slow) for p in PRECISIONS]
)
def test_precision(precision: str, kind: str, run: Run) -> None:
    run("--name", "plain")
    run("--precision", precision)
    assert {value.dtype for value in weights(last())} == {PRECISIONS[precision]}
    if kind == "linear" and precision in ("32-true", "64-true"):
        loaded = LinearRegression.load_from_checkpoint(FOLDER / "checkpoints/last.ckpt").state_dict()
        assert_same(loaded, last()["state_dict"])
    exact = precision == "32-true"
    for one, two in zip(weights(last()), weights(last("plain")), strict=True):
        torch.testing.assert_close(one.float(), two.float(), rtol=0 if exact else 0.05, atol=0 if exact else 0.02)
    run("--ckpt_path", FOLDER / "checkpoints/last.ckpt", "--max_epochs", 4, "--precision", precision)
    assert last()["epoch"] == 3


SAME = [
    ["--detect_anomaly", "true"],
    ["--deterministic", "true"],
    ["--num_sanity_val_steps", 1],
    ["--inference_mode", "false"],
    ["--benchmark", "true"],
    ["--sync_batchnorm", "true"],
    ["--reload_dataloaders_every_n_epochs", 1],
    ["--use_distributed_sampler", "false"],
    ["--log_every_n_steps", 1],
    ["--callbacks", "{class_path: ModelCheckpoint, init_args: {filename: '{epoch}', save_top_k: -1}}"],
]


@pytest.mark.slow
@pytest.mark.parametrize("flags", SAME, ids=lambda flags: flags[0].removeprefix("--"))
def test_what_changes_no_number(flags: list[object], run: Run) -> None:
    run("--name", "plain")
    run(*flags)
    torch.use_deterministic_algorithms(False)
    torch.autograd.set_detect_anomaly(False)
    for part in ("state_dict", "optimizer_states", "global_step"):
        assert_same(last()[part], last("plain")[part])
    if "--callbacks" in flags:
        assert sorted(path.name for path in (FOLDER / "checkpoints").iterdir()) == [
            "best.ckpt",
            *(f"epoch={i}.ckpt" for i in range(3)),
            "last.ckpt",
        ]


def test_log_every_n_steps(kind: str, run: Run) -> None:
    if kind == "linear":
        pytest.skip("it logs once an epoch")
    Path("mine.py").write_text(MINE.replace("on_step=False", "on_step=stage == 'train'"))
    run("--log_every_n_steps", 2)
    assert len(scalars(FOLDER)["loss/train_step"]) == 9


def test_enable_checkpointing(run: Run) -> None:
    out = run("--enable_checkpointing", "false")
    assert "report  of the weights, epoch 3 of 3" in out
    assert not list(Path("runs").rglob("*.ckpt"))
    assert (FOLDER / "metrics.json").exists()


EMA = "{class_path: EMAWeightAveraging, init_args: {decay: 0.9}}"


@pytest.mark.parametrize("precision", [pytest.param("32-true", marks=pytest.mark.slow), "64-true"])
def test_averaged_weights_are_those_of_the_run(precision: str, kind: str, run: Run) -> None:
    Path("seen.py").write_text(AVERAGE)
    flags = ["--precision", precision, "--callbacks", f"[{EMA}]"]
    run(*flags[:2], "--callbacks", f"[{EMA}, seen.Average]")
    average = torch.load("average")
    torch.testing.assert_close(weights(last()), average, rtol=0, atol=1e-6 if precision == "32-true" else 1e-14)
    assert any(not torch.equal(one, two) for one, two in zip(weights(last()), moved(last()), strict=True))
    best = load(FOLDER / "checkpoints/best.ckpt")
    curve = [value for _, value in scalars(FOLDER)["loss/val"]]
    assert best["epoch"] == curve.index(min(curve))
    assert run_again("validate", FOLDER / "checkpoints/best.ckpt")["loss/val"] == pytest.approx(min(curve), rel=1e-5)
    metrics, tested = read_metrics(FOLDER), run_again("test", FOLDER / "checkpoints/best.ckpt")
    name = "mse" if kind == "linear" else "loss"
    assert metrics["run"]["checkpoint"] == "best.ckpt"
    assert metrics["test"][name] == pytest.approx(tested[f"{name}/test"], rel=1e-5)
    run(*flags, "--max_epochs", 2, "--name", "two")
    run("--ckpt_path", "runs/two/version_0/checkpoints/last.ckpt", *flags)
    for part in ("state_dict", "current_model_state", "averaging_state", "optimizer_states"):
        assert_same(last("two")[part], last()[part])


def moved(content: dict[str, Any]) -> list[torch.Tensor]:
    return weights({"state_dict": content["current_model_state"]})


AVERAGE = """
import torch
from lightning.pytorch import Callback
class Average(Callback):
    average = None
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        now = [p.detach().clone() for n, p in pl_module.named_parameters()]
        old = self.average
        self.average = now if old is None else [torch.lerp(a, b, 0.1) for a, b in zip(old, now)]
        torch.save(self.average, "average")
"""

REFUSED = {
    "barebones": (["--barebones", "true"], "lightning.Trainer(barebones=True)"),
    "more than the most": (["--min_epochs", 5], "--min_epochs 5 is more than --max_epochs 3"),
    "no clip": (["--gradient_clip_val", -1], "--gradient_clip_val -1"),
    "swa": (
        ["--callbacks", "{class_path: StochasticWeightAveraging, init_args: {swa_lrs: 0.1}}"],
        "EMAWeightAveraging",
    ),
    "rate finder": (["--callbacks", "LearningRateFinder"], "LearningRateFinder cannot be honoured"),
    "size finder": (["--callbacks", "BatchSizeFinder"], "BatchSizeFinder cannot be honoured"),
    "rich": (["--callbacks", "RichModelSummary"], "requires `rich`"),
    "xla": (["--profiler", "XLA"], "XLAProfiler cannot be honoured: it needs torch_xla"),
    "xla by its class": (["--profiler", "XLAProfiler"], "XLAProfiler cannot be honoured: it needs torch_xla"),
    "no rows": (["--overfit_batches", 0.01], "batches"),
    "chunk": (["--chunk", 2, "--overfit_batches", 2], "--chunk"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_honoured_is_refused_by_name(case: str, run: Run) -> None:
    flags, words = REFUSED[case]
    (line,) = [line for line in run(*flags, code=2).splitlines() if line.startswith("error: ")]
    assert words in line
    assert len(line) < 420
    assert not list(Path("runs").glob("*/*"))
