"""Each example runs, resumes exactly and predicts, by its own config; each row of their table is code that works."""

import ast
import math
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from linreg.examples.poisson import Visits
from tests.conftest import ROOT, Train, read_metrics, read_rows
from tests.tools import assert_same, load, scalars

pytestmark = pytest.mark.filterwarnings("ignore:The '.*dataloader' does not have many workers")
EXAMPLES = ROOT / "linreg/examples"
ALL = sorted(path.stem for path in EXAMPLES.glob("[!_]*.py"))
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.yaml"))  # the others are scripts, see test_recipes
TABLES = {"quantile": "configs/penguins.csv", "transformer": "configs/penguins.csv", "poisson": "visits.csv"}
SMALL = {"gpt": ["--data.batch_size", 128, "--model.depth", 1, "--model.width", 16], "cnn": ["--data.num_rows", 500]}


@pytest.mark.parametrize("name", ALL)
def test_an_example_is_short_and_knows_what_a_user_knows(name: str) -> None:
    source = (EXAMPLES / f"{name}.py").read_text()
    assert len(source.splitlines()) <= 50
    ours = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom) and "linreg" in str(node.module)
    ]
    assert [node.module for node in ours] == ["linreg"]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_an_example_resumes_exactly_and_predicts(name: str, train: Train) -> None:
    typed = ["--config", EXAMPLES / f"{name}.yaml", *SMALL.get(name, [])]
    assert (found := train(*typed, "--max_epochs", 2, "--name", "two"))[0] == 0, found[1]
    assert train(*typed, "--max_epochs", 1, "--name", "one")[0] == 0
    last = "runs/one/version_0/checkpoints/last.ckpt"
    code, out = train("--ckpt_path", last, "--max_epochs", 2)
    assert code == 0, out
    one, two = (load(f"runs/{run}/version_0/checkpoints/last.ckpt") for run in ("one", "two"))
    for part in ("state_dict", "optimizer_states", "logged", "global_step"):
        assert_same(one[part], two[part])
    assert read_metrics("runs/one/version_0") == read_metrics("runs/two/version_0")
    Path("visits.csv").write_text("price,distance\n" + "9.5,10\n" * 344)
    code, out = train("predict", "--ckpt_path", last, *(["--data.path", TABLES[name]] if name in TABLES else []))
    assert code == 0, out
    if name in TABLES:
        assert len(read_rows("predictions.csv")) == 344
    else:
        assert len(load("predictions.pt")) == read_predicted(one)


def read_predicted(checkpoint: dict) -> int:
    """The rows of the test, by the number that the checkpoint's fingerprint holds."""
    return int(checkpoint["rows"][2, 0])


LEARNT = {  # a metric of the test rows, and what it has to be better than after all epochs
    "classifier": ("accuracy", 0.9),
    "cnn": ("accuracy", 0.9),
    "sequence": ("mae", 0.15),
    "autoencoder": ("reconstruction", 0.12),
    "gan": ("distance", 0.5),
    "quantile": ("loss", 0.13),
    "poisson": ("mse", 3.3),  # that of the exact linear fit is 4.7
    "transformer": ("rmse", 330),  # that of the exact linear fit is 318
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARNT)
def test_an_example_learns(name: str, train: Train) -> None:
    code, out = train("--config", EXAMPLES / f"{name}.yaml")
    assert code == 0, out
    metric, goal = LEARNT[name]
    value = read_metrics(f"runs/{name}/version_0")["test"][metric]
    assert value > goal if metric == "accuracy" else value < goal


@pytest.mark.slow
def test_what_is_measured_by_draws_is_the_same_when_it_is_asked_again(train: Train) -> None:
    """Of a variational autoencoder: where a run that has finished is resumed, and by its checkpoint alone."""
    fit = ("--config", EXAMPLES / "autoencoder.yaml", "--max_epochs", 2, "--seed_everything", 5)
    assert train(*fit)[0] == 0
    first = read_metrics("runs/autoencoder/version_0")["test"]
    assert train(*fit, "--ckpt_path", "last")[0] == 0
    assert read_metrics("runs/autoencoder/version_0")["test"] == first
    best = "runs/autoencoder/version_0/checkpoints/best.ckpt"
    said = [train("test", "--ckpt_path", best, *seed)[1] for seed in ([], ["--seed_everything", 6])]
    found = [re.search(r"^loss/test +(\S+)$", out, re.MULTILINE)[1] for out in said]  # type: ignore[index]
    assert float(found[0]) == pytest.approx(first["loss"], rel=1e-6)
    assert found[1] != found[0]  # which was drawn by another seed


@pytest.mark.slow
def test_counts_are_fit_as_by_iteratively_reweighted_least_squares(train: Train) -> None:
    assert train("--config", EXAMPLES / "poisson.yaml")[0] == 0
    x, y = (side.numpy() for side in Visits().splits["train"])
    columns, coef = np.c_[x, np.ones(len(x))], np.array([[0.0], [0.0], [np.log(y.mean())]])
    for _ in range(20):
        rate = np.exp(columns @ coef)
        coef += np.linalg.solve(columns.T @ (rate * columns), columns.T @ (y - rate))
    others = np.random.default_rng(0).normal(10, 3, (100, 2))
    Path("new.csv").write_text("\n".join(["distance,price", *(f"{a},{b}" for a, b in others.tolist())]))
    code, out = train(
        "predict", "--ckpt_path", "runs/poisson/version_0/checkpoints/last.ckpt", "--data.path", "new.csv"
    )
    assert code == 0, out
    predicted = [[float(row["prediction"])] for row in read_rows("predictions.csv")]
    np.testing.assert_allclose(np.log(predicted), others @ coef[:2] + coef[2], atol=1e-3)


@pytest.mark.slow
def test_the_transformer_goes_on_with_a_text(train: Train) -> None:
    """From the checkpoint alone, which holds its vocabulary; it makes words that it has seen."""
    text = "the lazy dog and the quick fox " * 40
    Path("text.txt").write_text(text)
    typed = ["--config", EXAMPLES / "gpt.yaml", *SMALL["gpt"], "--model.width", 32, "--data.path", "text.txt"]
    code, out = train(*typed, "--max_epochs", 12, "--model.lr", 0.01)
    assert code == 0, out
    assert read_metrics("runs/gpt/version_0")["test"]["loss"] < math.log(len({*text})) / 4  # of guessing, a quarter
    (block,) = re.findall(r"```python\n(.*?load_from_checkpoint.*?)```", (EXAMPLES / "README.md").read_text(), re.S)
    exec(block.replace('"class "', '"the "'), names := {})
    model = names["model"]
    torch.manual_seed(0)
    made = model.generate("the lazy", 60)
    assert made.startswith("the lazy")
    assert len(made) == 68
    words = made.split()[:-1]
    assert sum(word in text.split() for word in words) > 0.8 * len(words)


def test_a_config_states_only_what_differs() -> None:
    for name in NAMES:
        assert {*yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text())} <= {"model", "data", "trainer", "monitor"}


SECTIONS = re.findall(r"^### ([^\n]+)\n(.*?)(?=^### |\Z)", (EXAMPLES / "README.md").read_text(), re.S | re.M)
PRINTED = {  # or written, of each row of the table
    "The model": "that of the exact linear fit",
    "The loss": "loss is",
    "Several outputs": "its loss is that of its own step",
    "A metric": "\nmape ",
    "The data": "confusion/test",
    "The optimizer": "accuracy/test",
    "The schedule": "lr_scheduler: WarmupCosine",
    "A callback": "norm/train",
    "The logger": "excess_mse/train,",
}


@pytest.mark.slow
@pytest.mark.parametrize(("title", "text"), SECTIONS)
def test_each_row_of_the_table_is_code_that_works(title: str, text: str, train: Train, workplace: Path) -> None:
    code = "".join(re.findall(r"```python\n(.*?)```", text, re.S))
    Path("mine.py").write_text(code or "pass")
    (command,) = re.findall(r"```bash\n(.*?)\n```", text, re.S)
    typed = [word.replace("linreg/examples", str(EXAMPLES)) for word in shlex.split(command)[2:]]
    status, out = train(*typed)
    assert status == 0, out
    files = [path for path in Path("runs").rglob("*") if path.suffix in (".json", ".yaml", ".csv")]
    curves = [tag for folder in Path("runs").glob("*/*") for tag in scalars(folder)]
    assert PRINTED[title] in "\n".join([out, *(path.read_text() for path in files), *curves]), out


def test_the_table_of_examples_and_of_changes_is_whole() -> None:
    text = (EXAMPLES / "README.md").read_text()
    assert sorted(re.findall(r"^\| `(\w+)\.yaml`", text, re.M)) == NAMES
    linked = re.findall(r"^\| \[([\w ]+)\]\(#([\w-]+)\)", text, re.M)
    assert [title for title, _ in SECTIONS] == [title.capitalize() for title, _ in linked]
    assert all(anchor == title.replace(" ", "-") for title, anchor in linked)


def test_an_example_is_copied_by_its_name_alone(train: Train, workplace: Path) -> None:
    for ending in ("py", "yaml"):
        text = (EXAMPLES / f"classifier.{ending}").read_text()
        Path(f"classifier.{ending}").write_text(text.replace("linreg.examples.classifier", "classifier"))
    code, out = train("--config", "classifier.yaml", "--max_epochs", 1)
    assert code == 0, out
    assert load("runs/classifier/version_0/checkpoints/last.ckpt")["class_path"] == "classifier.Classifier"
