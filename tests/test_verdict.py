"""What is said of a regression's own loss, step or units is true, or the run is refused with the remedy."""

from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, WeightAveraging
from torch import Tensor, nn
from torch.distributed.utils import _to_kwargs
from torch.nn import functional

from linreg import LinearRegression, RegressionData, Regressor, SyntheticData, Table, run
from linreg.regression.exact.comparison import verdict
from linreg.regression.standardizer import Standardized
from linreg.system.errors import InputError
from tests.conftest import Train, read_metrics, read_rows
from tests.tools import scalars

FLAGS = {"max_epochs": 20, "figures": False, "logger": False, "enable_checkpointing": False}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)  # of the first weights


class Linear(Regressor):
    def __init__(self, num_features: int, num_targets: int = 1, outputs: int = 1, **training: object) -> None:
        super().__init__(nn.Linear(num_features, outputs), num_features, num_targets, **training)


class Counts(RegressionData):
    """Few, rare and skewed: a Poisson loss on their standardized values is a number, and says nothing."""

    def load(self) -> Table:
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(600, 3, generator=generator)
        rate = (x @ torch.tensor([[0.5], [0.3], [-0.2]]) + 0.5).exp()
        return Table(x, torch.poisson(rate, generator=generator))


class Far(RegressionData):
    """Columns that are far from standardized."""

    def load(self) -> Table:
        generator = torch.Generator().manual_seed(0)
        x = 5 * torch.randn(600, 3, generator=generator) + 20
        return Table(x, x.sum(1, keepdim=True) + torch.randn(600, 1, generator=generator))


class Poisson(Linear):
    def loss(self, y_hat: Tensor, y: Tensor) -> Tensor:
        return functional.poisson_nll_loss(y_hat, y)


class Penalized(Linear):
    def loss(self, y_hat: Tensor, y: Tensor) -> Tensor:
        return functional.mse_loss(y_hat, y) + 0.1 * self.hypothesis.weight.abs().sum()


class MeanOnly(Linear):
    def loss(self, y_hat: Tensor, y: Tensor) -> Tensor:
        return (y_hat - y).mean() ** 2


class Weighed(Linear):
    """Its loss weighs each row by what the forward of that row kept."""

    def __init__(self, num_features: int, num_targets: int = 1, **training: object) -> None:
        super().__init__(num_features, num_targets, **training)
        self.hypothesis.register_forward_hook(lambda layer, args, y_hat: setattr(self, "kept", args[0][:, :1]))

    def loss(self, y_hat: Tensor, y: Tensor) -> Tensor:
        return ((y_hat - y) ** 2 * self.kept.sigmoid()).mean()


class Spread(Linear):
    """Learns the mean and the logarithm of the variance of each row."""

    def __init__(self, num_features: int, num_targets: int = 1, **training: object) -> None:
        super().__init__(num_features, num_targets, 2, **training)

    def forward(self, x: Tensor) -> Tensor:
        scores = self.hypothesis(self.x_standardizer(x).to(self.dtype))
        return self.y_standardizer.inverse(scores[:, :1].double())

    def training_step(self, batch: Standardized, batch_idx: int) -> Tensor:
        mean, log_variance = self.hypothesis(batch.x).chunk(2, 1)
        return functional.gaussian_nll_loss(mean, batch.y, log_variance.exp())

    def step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        self.measure(self(batch[0]), batch[1])
        return self.training_step(self.standardize(batch), 0)


def trained(model: Regressor, data: RegressionData, capsys: pytest.CaptureFixture[str]) -> tuple[str, dict]:
    metrics = run(model, data, **FLAGS).metrics
    return " ".join(capsys.readouterr().out.split("\nr2 ")[1].split()), metrics


def test_a_loss_of_something_else_than_predictions_is_not_compared(
    capsys: pytest.CaptureFixture, workplace: Path
) -> None:
    said, metrics = trained(Poisson(3, lr=0.05), Counts(), capsys)
    assert metrics["val"]["r2"] < 0
    assert "its loss is not 0 for predictions that are the targets" in said
    assert f"worse than predicting the mean of the target: r2 of val {metrics['val']['r2']:.2g}" in said
    assert "mse is " in said
    assert " below " not in said
    assert "loss" not in metrics["exact"]["val"]


def test_a_penalty_in_the_loss_is_none_of_a_linear_fit(capsys: pytest.CaptureFixture, workplace: Path) -> None:
    said, metrics = trained(Penalized(3, lr=0.05), Far(), capsys)
    assert "its loss is not 0 for predictions that are the targets" in said
    share = metrics["val"]["mse"] / metrics["exact"]["val"]["mse"]
    assert f"mse is {share:.2g} times that of the exact linear fit on the val rows" in said


def test_a_loss_of_what_a_forward_kept_is_of_no_other_predictions(
    capsys: pytest.CaptureFixture, workplace: Path
) -> None:
    _, metrics = trained(Weighed(3, lr=0.05), Far(), capsys)
    assert metrics["val"]["loss"] > 0
    assert "loss" not in metrics["exact"]["val"]


def test_what_a_good_loss_hides_is_said() -> None:
    val, exact = {"loss": 0.5, "mse": 5.0, "r2": -0.5}, {"loss": 1.0, "mse": 2.0, "r2": 0.4}
    said = verdict({"excess_mse": 1.0, "val": val, "exact": {"val": exact}}, MeanOnly(3, lr=0.05), [])
    first, second, third = said.splitlines()
    assert first == "loss is 50 % below that of the exact linear fit on the val rows"
    assert second == "mse is 2.5 times that of the exact linear fit on the val rows"
    assert third == "worse than predicting the mean of the target: r2 of val -0.5"


def test_a_step_of_its_own_has_a_loss_of_its_own(capsys: pytest.CaptureFixture, workplace: Path) -> None:
    model = Spread(3, lr=0.05)
    said, metrics = trained(model, Far(), capsys)
    x, y = Far().splits["test"]
    with torch.no_grad():
        mean, log_variance = model.hypothesis(model.x_standardizer(x).float()).double().chunk(2, 1)
    square = (mean - model.y_standardizer(y)) ** 2
    assert metrics["test"]["loss"] == pytest.approx(
        float(((square / log_variance.exp()) + log_variance).mean() / 2), rel=1e-4
    )
    assert "its loss is that of its own step, so that a linear fit has none to compare" in said


class Twice(Linear):
    def training_step(self, batch: Standardized, batch_idx: int) -> Tensor:
        return super().training_step(self.standardize((batch[0], batch[1])), batch_idx)


class Through(Linear):
    """The same as a training in standardized units, on the way through the data's own."""

    def training_step(self, batch: Standardized, batch_idx: int) -> Tensor:
        y_hat = self(self.x_standardizer.inverse(batch.x))
        return self.loss(self.y_standardizer(y_hat).float(), batch.y)


def test_units_that_are_mixed_up_are_refused_in_the_first_step(train: Train, workplace: Path) -> None:
    lines = ["from linreg import LinearRegression", "class Mixed(LinearRegression):"]
    lines += [
        "    def training_step(self, batch, batch_idx):",
        "        x, y = batch",
        "        return self.loss(self(x), y)",
    ]
    Path("mine.py").write_text("\n".join(lines))
    data = ["--data.path", "configs/penguins.csv", "--data.target", "body_mass_g"]
    code, out = train("--model", "mine.Mixed", *data, "--model.lr", 0.05, "--max_epochs", 1)
    assert code == 2, out
    assert "Mixed.training_step" in out
    assert "self.loss(self.hypothesis(x), y)" in out
    with pytest.raises(InputError, match=r"Twice.training_step"):
        run(Twice(3, lr=0.05), Far(), **FLAGS)


def test_an_own_training_step_in_the_right_units_is_the_same(workplace: Path) -> None:
    plain, through = Linear(3, lr=0.05), Through(3, lr=0.05)
    through.load_state_dict(plain.state_dict())
    for model in (plain, through):
        run(model, Far(), **FLAGS)
    torch.testing.assert_close(plain.hypothesis.weight, through.hypothesis.weight, rtol=1e-4, atol=1e-5)
    for each in (through.x_standardizer, through):
        assert not each._forward_pre_hooks  # which would cost time in each step


OTHER, UNKNOWN = (
    "returns another loss than is validated",
    "calls neither Own.step nor Own.loss, by which it is validated",
)
STEPS = {  # a class whose training_step is its own, and what is said of its loss beside the validation's
    "a penalty": ("return super().training_step(batch, i) + 0.1 * self.hypothesis.weight.abs().sum()", OTHER),
    "another loss": ("return (self.hypothesis(batch[0]) - batch[1]).abs().mean()", UNKNOWN),
    "the same, and logged": ("loss = super().training_step(batch, i); self.log('own', loss); return loss", ""),
    "the same by hand": ("return self.loss(self.hypothesis(batch[0]), batch[1])", ""),
}


@pytest.mark.parametrize("parent", ["LinearRegression", "Module"])
@pytest.mark.parametrize("step", STEPS)
def test_another_loss_than_is_validated_is_told(step: str, parent: str, train: Train) -> None:
    source, how = STEPS[step]
    lines = ["from torch import nn", f"from linreg import {parent}", f"class Own({parent}):"]
    if parent == "Module":
        lines += ["    def __init__(self, num_features: int, num_targets: int, **training):"]
        lines += ["        super().__init__(nn.Linear(num_features, num_targets).double(), **training)"]
        lines += ["    def loss(self, y_hat, y): return (y_hat - y).square().mean()"]
    lines += ["    def training_step(self, batch, i):", f"        {source}"]
    Path("mine.py").write_text("\n".join(lines))
    flags = ["--model", "mine.Own", "--model.lr", 0.05, "--max_epochs", 3, "--data.batch_size", 300]
    code, out = train(*flags, "--accumulate_grad_batches", 2)
    assert code == 0, out
    out = " ".join(out.split())
    assert out.count("Own.training_step") == bool(how), out
    assert not how or f"Own.training_step {how}: loss/train is the one" in out, out


class Plain(Linear):
    def training_step(self, batch: Standardized, batch_idx: int) -> Tensor:
        x, y = batch
        return self.loss(self.hypothesis(x), y)


def test_an_own_training_step_has_standardized_rows_of_a_file_too(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = Far().table.x, Far().table.y
    rows = "\n".join(",".join(map(str, row)) for row in torch.cat([x, y], 1).tolist())
    Path("far.csv").write_text(f"a,b,c,y\n{rows}\n")
    monkeypatch.setattr("linreg.tables.csv_data.MAX_CELLS", 500)
    from linreg import CSVData

    data = CSVData("far.csv", "y", cache="cache", batch_size=64)
    found = run(Plain(3, lr=0.05), data, **FLAGS)
    assert data.table.mapped
    assert found.metrics["train"]["r2"] > 0.9


def test_standardize_is_no_place_to_transform_in(workplace: Path) -> None:
    class Net(Linear):
        def standardize(self, batch: object) -> Standardized:
            x, y = super().standardize(batch)
            return Standardized(x, y.sinh())

    with pytest.raises(InputError, match=r"standardize may be called twice"):
        run(Net(3, lr=0.05), SyntheticData(num_rows=100), **FLAGS)


def test_other_units_than_the_exact_ones_have_no_known_optimum(capsys: pytest.CaptureFixture, workplace: Path) -> None:
    class Net(LinearRegression):
        def fit_standardizers(self, rows: object) -> None:
            super().fit_standardizers(rows)
            self.x_standardizer.fit(self.x_standardizer.mean, 2 * self.x_standardizer.std)

    said, _ = trained(Net(3, lr=0.3), Far(), capsys)
    assert "the optimum" not in said
    assert "that of the exact linear fit" in said


def test_a_batch_stays_standardized_on_its_way_to_another_device() -> None:
    batch = Standardized(torch.ones(2, 1), torch.ones(2, 1))
    moved = _to_kwargs((batch, 0), {}, torch.device("cpu"), False)[0][0][0]  # as DDP does where a process has a GPU
    assert type(moved) is Standardized


def last_lines(out: str) -> str:
    return " ".join(out.split("\nr2 ")[1].split())


def test_the_best_of_noisy_epochs_is_not_all_that_is_said(train: Train, workplace: Path) -> None:
    code, out = train("--config", "configs/stochastic.yaml", "--figures", "false")
    assert code == 0, out
    assert "the last epoch was " in last_lines(out)
    assert "batches of 1 rattle by about 3.2 %" in last_lines(out)


def test_where_every_row_is_fitted_nothing_is_compared(train: Train, workplace: Path) -> None:
    flags = ["--data.num_rows", 20, "--data.num_features", 20, "--figures", "false"]
    code, out = train(*flags)
    assert code == 0, out
    assert "as many columns as rows: the exact solution fits every row, nothing is left to compare" in last_lines(out)
    assert "the optimum" not in last_lines(out)
    assert {row["std_error"] for row in read_rows("runs/default/version_0/coefficients.csv")} == {""}


@pytest.mark.parametrize("lr", [1.05, 3])
def test_a_rate_above_the_limit_never_arrives(lr: float, train: Train, workplace: Path) -> None:
    flags = ["--data.num_rows", 100, "--data.num_features", 1, "--data.batch_size", 80, "--figures", "false"]
    said = " ".join(train(*flags, "--model.lr", lr, "--max_epochs", 2_000)[1].split())
    assert "expected to be within 1 % never" in said
    assert "more than this run has" not in said
    assert f"that is {lr:.3g} times the limit" in said


def write_narrow_valley(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(900, 2))
    x = np.c_[x, 2.54 * x[:, 0] + 0.05 * rng.normal(size=900)]
    rows = np.c_[x, x @ [1, 2, 3] + 10 * rng.normal(size=900)]
    np.savetxt("narrow.csv", rows, delimiter=",", header="a,b,c,y", comments="")


def test_a_run_within_its_tolerance_after_its_planned_steps_says_that_and_no_other_limit(
    train: Train, workplace: Path
) -> None:
    write_narrow_valley(seed=2)
    code, out = train("--data.path", "narrow.csv", "--data.target", "y", "--figures", "false")
    assert code == 0, out
    assert "0.087 % above the optimum" in out
    assert "a run ends within 0.01 %, after step 100 within 0.1 %: raise --max_epochs" in last_lines(out)
    assert "the most that a run takes" not in out


def test_a_run_that_came_to_the_most_epochs_says_so(train: Train, workplace: Path) -> None:
    write_narrow_valley(seed=0)
    code, out = train("--data.path", "narrow.csv", "--data.target", "y")
    assert code == 0, out
    assert "100 of 100 epochs, the most that a run takes by itself: raise --max_epochs" in out
    assert "by itself" not in train("--data.path", "narrow.csv", "--data.target", "y", "--max_epochs", 100)[1]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "100 epochs were too few at this rate: raise --max_epochs, or try another --model.lr"),
        (["--max_epochs", 7], "7 epochs were too few at this rate: raise --max_epochs, or try another --model.lr"),
        (["--model.lr", 0.03], "100 of 100 epochs, the most that a run takes by itself: raise --max_epochs"),
    ],
)
def test_another_optimizer_that_missed_the_optimum_says_why(
    flags: list[object], said: str, train: Train, workplace: Path
) -> None:
    code, out = train("--model.optimizer", "Adam", "--data.num_rows", 200, "--figures", "false", *flags)
    assert code == 0, out
    assert said in last_lines(out)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:You have overridden `on_")
@pytest.mark.parametrize("owner", ["model", "data"])
@pytest.mark.parametrize("hook", ["on_before_batch_transfer", "on_after_batch_transfer"])
def test_a_batch_on_its_way_stays_in_its_units(owner: str, hook: str, workplace: Path) -> None:
    classes = {"model": LinearRegression, "data": SyntheticData}
    trained = []
    for change in (lambda self, batch, i: batch, lambda self, batch, i: type(batch)((batch[0], batch[1]))):
        own = classes | {owner: type("Own", (classes[owner],), {hook: change})}
        found = run(own["model"](3, lr=0.05), own["data"](batch_size=64), **FLAGS)
        trained.append(found.model.hypothesis.weight)
    assert torch.equal(*trained)
    own = classes | {owner: type("Own", (classes[owner],), {hook: lambda self, batch, i: [*batch]})}
    with pytest.raises(InputError, match=r"would be standardized again; return type\(batch\)"):
        run(own["model"](3, lr=0.05), own["data"](batch_size=64), **FLAGS)


class OfDicts(LinearRegression):
    def on_after_batch_transfer(self, batch: object, dataloader_idx: int) -> object:
        x, y = batch
        return {"x": x, "y": y} if self.trainer.training else batch

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        raw = self.x_standardizer.inverse(batch["x"])
        return self.loss(self.hypothesis(self.x_standardizer(raw).float()), batch["y"])


@pytest.mark.filterwarnings("ignore:You have overridden `on_")
def test_what_a_hook_makes_of_a_batch_is_its_steps_own(workplace: Path) -> None:
    found = [run(cls(3, lr=0.05), SyntheticData(batch_size=64), **FLAGS).model for cls in (OfDicts, LinearRegression)]
    assert torch.allclose(found[0].hypothesis.weight, found[1].hypothesis.weight, atol=1e-5)


def test_a_run_that_ended_short_says_why_and_what_goes_on(train: Train, workplace: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20_000, 2))
    x = np.c_[x, x[:, 0] + 0.02 * rng.normal(size=20_000)]
    rows = np.c_[x, x @ [1, 2, 3] + rng.normal(size=20_000)]
    np.savetxt("narrow.csv", rows, fmt="%.6g", delimiter=",", header="a,b,c,y", comments="")
    flags = ["--data.path", "narrow.csv", "--data.target", "y", "--figures", "false"]
    code, out = train(*flags)
    said = last_lines(out)
    assert (code, "a run ends within 0.01 %, after step 100 within 0.1 %: last.ckpt comes to it with" in said) == (
        0,
        True,
    ), out
    further = said.split("last.ckpt comes to it with ")[1].split(" report ")[0].split()
    code, out = train(*flags, *further)
    assert (code, "a run ends" in out) == (0, False), out
    assert scalars("runs/default/version_1")["excess_mse/train"][-1][1] < 1e-4


def test_without_validation_rows_the_nearest_epoch_is_reported(train: Train) -> None:
    """A training loss is of the epoch as it went: that of the last one is lower after it than what was logged."""
    flags = ["--data.num_rows", 30, "--data.noise_std", 1, "--data.val_fraction", 0, "--data.test_fraction", 0]
    code, out = train(*flags, "--data.num_features", 6, "--momentum", 0.9, "--logger", "TensorBoardLogger")
    assert code == 0, out
    shares = [value for _, value in scalars("runs/default/version_0")["excess_mse/train"]]
    assert read_metrics("runs/default/version_0")["excess_mse"] == pytest.approx(min(shares), rel=1e-3), out


def test_a_check_names_what_it_has_checked(train: Train) -> None:
    code, out = train("--data.num_rows", 100, "--model.weight_decay", 0.1, "--check", 0.01)
    share = read_metrics("runs/default/version_0")["excess_loss"]
    assert (code, f"check   passed: excess_loss {share:.2g} is within 0.01" in out) == (0, True), out


def test_several_targets_are_judged_by_the_farthest(train: Train) -> None:
    """One of millions, and one of units that all but follows from two columns that nearly repeat each other."""
    rng = np.random.default_rng(0)
    a, b, far, near = rng.normal(size=(4, 2_000))
    x = np.column_stack([a, a + 0.1 * b])
    y = np.column_stack([1e6 * x @ [1, 1] + 1e6 * far, 2 * b + 0.1 * near])
    rows = np.column_stack([x, y])
    np.savetxt("t.csv", rows, "%.17g", ",", header="a,b,y1,y2", comments="")
    data = ("--data.path", "t.csv", "--data.target", "[y1, y2]", "--data.val_fraction", 0, "--data.test_fraction", 0)
    design = np.column_stack([x, np.ones(len(x))])
    best = np.linalg.lstsq(design, y, rcond=None)[0]
    for i, (flags, expected) in enumerate(((["--max_epochs", 30], 1), ([], 0))):
        code, out = train(*data, "--check", 0.01, *flags)
        folder = f"runs/default/version_{i}"
        learned = [float(row["learned"]) for row in read_rows(f"{folder}/coefficients.csv")]
        found, exact = (((design @ w - y) ** 2).mean(0) for w in (np.array(learned).reshape(2, 3).T, best))
        shares = found / exact - 1
        share = read_metrics(folder)["excess_loss"]
        assert (code, shares.argmax()) == (expected, 1), out
        assert share == pytest.approx(shares.max(), rel=0.01, abs=1e-6)
        assert "training loss of y2, the farthest target, is" in out
        assert "prediction =" not in Path(folder, "card.md").read_text()
    assert f"check   passed: excess_loss {share:.2g} is within 0.01" in out


class Mean(WeightAveraging):
    """One's own: the mean of the weights after each step."""


@pytest.mark.parametrize("average", [EMAWeightAveraging, Mean])
def test_weights_that_are_not_reported_end_no_run(average: type[WeightAveraging], workplace: Path) -> None:
    """An average of the weights is far from the optimum yet where these come to it."""
    ends = []
    for callbacks in ([], [average()]):
        found = run(LinearRegression(3, lr=0.1), SyntheticData(200), figures=False, callbacks=callbacks)
        ends.append(found.metrics["run"]["epochs"])
    alone, averaged = ends
    assert averaged > alone
