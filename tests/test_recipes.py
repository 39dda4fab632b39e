"""The scripts among the examples, as their reader runs them; and a prediction from coefficients.csv alone."""

import csv
import signal
import sqlite3
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from linreg import LinearRegression, read_csv
from linreg.examples.folds import Fold
from tests.conftest import LONG, ROOT, Train, completed, posix, read_metrics, read_rows, started, until
from tests.tools import CKPT, ols, scalars

PENGUINS = ["--data.path", "configs/penguins.csv", "--data.target", "body_mass_g", "--data.categories", "all"]
RECIPE = [sys.executable, "-m"]


@pytest.fixture(autouse=True)
def _path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def finished() -> list[str]:
    """The states of the trials of the study that have come to their end; none while there is no study yet."""
    if not Path("sweep.db").exists():
        return []
    with sqlite3.connect("sweep.db") as database:
        try:
            rows = database.execute("SELECT state FROM trials WHERE state = 'COMPLETE'").fetchall()
        except sqlite3.OperationalError:
            return []
    database.close()
    return [state for (state,) in rows]


@posix
@pytest.mark.slow
def test_a_sweep_is_interrupted_and_goes_on(workplace: Path) -> None:
    sweep = [*RECIPE, "linreg.examples.sweep", "--trials"]
    with started([*sweep, "1000"]) as run:
        until(lambda: len(finished()) >= 2 or run.poll() is not None)
        until(lambda: len([*Path("runs/sweep").glob("*/config.yaml")]) >= 3 or run.poll() is not None)  # amid a trial
        assert run.poll() is None
        run.send_signal(signal.SIGINT)
        err = run.communicate(timeout=LONG)[1]
    assert (run.returncode, "Traceback" in err) == (130, False)
    before = len(finished())
    assert 2 <= before < 1_000
    with sqlite3.connect("sweep.db") as database:  # the trial that was interrupted is not thought to go on
        states = dict(database.execute("SELECT state, count(*) FROM trials GROUP BY state").fetchall())
    database.close()
    assert states == {"COMPLETE": before, "FAIL": 1}
    done = completed([*sweep, str(before + 8)])
    assert done.returncode == 0, done.stderr
    assert len(finished()) == before + 8
    with sqlite3.connect("sweep.db") as database:
        values = dict(database.execute("SELECT value_type, count(*) FROM trial_values GROUP BY value_type").fetchall())
        proposals = [value for (value,) in database.execute("SELECT param_value FROM trial_params")]
    database.close()
    assert values["INF_POS"] >= 1  # of rates up to 100 some diverge, which ends no sweep
    assert len(set(proposals)) == len(proposals)
    runs = sorted(Path("runs/sweep").iterdir())
    assert len(runs) >= before + 8  # diverged ones too
    assert all(list(run.glob("events.out.tfevents.*")) for run in runs if (run / "metrics.json").exists())
    best = done.stdout.splitlines()[-1].rpartition(" ")[2]
    assert read_metrics(best)["val"]["mse"] == pytest.approx(float(done.stdout.splitlines()[-2].split()[4]), rel=1e-6)
    assert scalars(best)
    other = completed([*sweep, "1", "--target", "flipper_length_mm"])  # whose best would be that of this table
    assert (other.returncode, other.stdout) == (2, "")
    assert "sqlite:///sweep.db is of other data, or of other flags; give another --name" in other.stderr


@pytest.mark.slow
def test_folds(workplace: Path) -> None:
    done = completed([*RECIPE, "linreg.examples.folds", "configs/penguins.csv", "body_mass_g"])
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    rmse = next(i for i, line in enumerate(lines) if line.startswith("rmse: "))
    mean, spread = map(float, lines[rmse].removeprefix("rmse: ").split(" +- "))
    table = read_csv("configs/penguins.csv", "body_mass_g", categories="all")
    order, found, seen = torch.randperm(len(table.x), generator=torch.Generator().manual_seed(0)), [], []
    for k in range(5):
        in_test = torch.arange(len(order)) * 5 // len(order) == k
        w = ols(table.x[order[~in_test]], table.y[order[~in_test]])
        residual = table.y[order[in_test]].numpy() - table.x[order[in_test]].numpy() @ w[:-1] - w[-1]
        exact = np.sqrt(np.square(residual).mean())
        learned = read_metrics(f"runs/folds/version_{k}")["test"]["rmse"]
        assert lines[rmse + 1 + k] == f"  fold {k}: {learned:.7g}, exact {exact:.7g}"
        assert learned == pytest.approx(exact, rel=0.01)
        found.append(learned)
        seen.append(int(in_test.sum()))
    assert sum(seen) == len(table.x)
    assert mean == pytest.approx(np.mean(found), rel=1e-6)
    assert spread == pytest.approx(np.std(found, ddof=1), rel=0.05)


LOADED = """
import sys, json, torch, builtins
x = torch.load("x.pt")
for name in ("linreg", "lightning"):
    sys.modules[name] = None  # which an import would find, and refuse
torch.save([torch.export.load("model.pt2").module()(rows) for rows in (x, x[:1], x[:7])], "y.pt")
print(json.load(open("columns.json"))["features"])
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_an_exported_model_is_the_checkpoint(train: Train, workplace: Path) -> None:
    assert train(*PENGUINS, "--max_epochs", 20)[0] == 0
    done = completed([*RECIPE, "linreg.examples.export", f"{CKPT}/best.ckpt"])
    assert done.returncode == 0, done.stderr
    model = LinearRegression.load_from_checkpoint(f"{CKPT}/best.ckpt")
    x = read_csv("configs/penguins.csv", "body_mass_g", categories="all").x
    torch.save(x, "x.pt")
    loaded = completed([sys.executable, "-c", LOADED])
    assert loaded.returncode == 0, loaded.stderr
    assert loaded.stdout.strip() == str(model.feature_names)
    for y, rows in zip(torch.load("y.pt"), (x, x[:1], x[:7]), strict=True):
        torch.testing.assert_close(y, model(rows).detach(), rtol=1e-6, atol=0)


@pytest.mark.slow
def test_onnx(train: Train, workplace: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    assert train(*PENGUINS, "--max_epochs", 20)[0] == 0
    done = completed([*RECIPE, "linreg.examples.export", f"{CKPT}/best.ckpt"])
    assert done.returncode == 0, done.stderr
    model = LinearRegression.load_from_checkpoint(f"{CKPT}/best.ckpt")
    x = read_csv("configs/penguins.csv", "body_mass_g", categories="all").x
    session = onnxruntime.InferenceSession("model.onnx")
    for rows in (x, x[:1], x[:7]):
        (y,) = session.run(None, {session.get_inputs()[0].name: rows.numpy()})
        np.testing.assert_allclose(y, model(rows).detach(), rtol=1e-6)


def test_a_spreadsheet_predicts_from_the_coefficients(train: Train, workplace: Path) -> None:
    """Each coefficient times its column, where the one of a level counts in that level's rows; no library but csv."""
    assert train(*PENGUINS)[0] == 0
    assert train("predict", "--ckpt_path", f"{CKPT}/best.ckpt", "--data.path", "configs/penguins.csv")[0] == 0
    with open("runs/default/version_0/coefficients.csv", newline="") as file:
        coefficients = {row["name"]: float(row["learned"]) for row in csv.DictReader(file)}
    for row in read_rows("predictions.csv"):
        if row["prediction"]:
            value = coefficients["(intercept)"]
            for name, coefficient in coefficients.items():
                column, _, level = name.partition("=")
                if name != "(intercept)":
                    value += coefficient * (row[column] == level if level else float(row[column]))
            assert value == pytest.approx(float(row["prediction"]), rel=1e-6)


TYPED = [  # of which recipe, what was typed, what is said of it
    ("folds", ["medical.csv", "sbp"], "'?' is not a number"),
    ("folds", [], "required: path, target (python -m linreg.examples.folds --help"),
    ("folds", ["medical.csv", "sbp", "--missing_value", "?"], "did you mean 'missing_values'?"),
    ("sweep", ["--path", "medical.csv", "--target", "sbp"], "'?' is not a number"),
    ("export", [], "required: path"),
]


@pytest.mark.parametrize(("recipe", "typed", "said"), TYPED)
def test_a_mistake_in_a_recipe_is_one_line(recipe: str, typed: list[str], said: str, workplace: Path) -> None:
    Path("medical.csv").write_text(
        "age,sbp\n" + "".join(f"{i if i % 9 != 5 else '?'},{2 * i + i % 5}\n" for i in range(60))
    )
    done = completed([*RECIPE, f"linreg.examples.{recipe}", *typed])
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert said in line


def test_folds_of_rows_in_order_are_next_to_each_other() -> None:
    rows = [Fold(k, path=ROOT / "configs/penguins.csv", target="body_mass_g", split="order").splits for k in range(5)]
    table = read_csv(ROOT / "configs/penguins.csv", "body_mass_g")
    assert torch.equal(torch.cat([each["test"][0] for each in rows]), table.x)
    assert torch.equal(torch.cat([rows[0]["test"][1], rows[0]["train"][1]]), table.y)
    with pytest.raises(TypeError, match="test_fraction"):  # each row is tested once, whatever is typed
        Fold(0, path="t.csv", target="y", test_fraction=0.5)


@pytest.mark.slow
def test_recipes_take_the_flags_of_the_data(workplace: Path) -> None:
    lines = [f"{i if i % 9 != 5 else '?'};{i},5;{2 * i + i % 5}" for i in range(60)]
    Path("medical.csv").write_text("age;weight;sbp\n" + "\n".join(lines))
    Path("mine.yaml").write_text("decimal: ','\nmissing_values: ['?']\nexclude: [weight]\n")
    done = completed([*RECIPE, "linreg.examples.folds", "medical.csv", "sbp", "--config", "mine.yaml"])
    assert done.returncode == 0, done.stderr
    assert "\nrmse: " in done.stdout
    table = ["--path", "medical.csv", "--target", "sbp", "--decimal", ",", "--missing_values", "?"]
    done = completed([*RECIPE, "linreg.examples.sweep", "--trials", "2", *table])
    assert done.returncode == 0, done.stderr
    assert "sweep: best validation MSE " in done.stdout
