"""The commonest slips at the command line: done and said where the meaning is obvious, else one line and exit 2."""

import os
from pathlib import Path

import pytest
import yaml

from tests.conftest import Train, posix
from tests.tools import CKPT

CSV = "a,b,text,y\n" + "".join(f"{i},{i * i % 7},x,{3 * i + i % 5}\n" for i in range(40))
FILE = ["--data.path", "t.csv", "--data.target", "y"]
MINE = """
from linreg import LinearRegression, SyntheticData

class Net(LinearRegression):
    def __init__(self, num_features: int, num_targets: int = 1, depth: int = 1, names: list[str] | None = None, **more):
        super().__init__(num_features, num_targets, **more)

class Rows(SyntheticData):
    def __init__(self, depth: int = 1, lr: float = 1.0, precision: int = 1, others: "list[str] | None" = None, **more):
        super().__init__(**more)
"""


@pytest.fixture
def slip(train: Train, workplace: Path) -> Train:
    Path("mine.py").write_text(MINE)
    Path("t.csv").write_text(CSV)
    return train


MEANT = [
    (["--lr", 0.1], ["--model.lr", 0.1], "--lr is taken as --model.lr 0.1"),
    (["--lr=0.1"], ["--model.lr", 0.1], "--lr is taken as --model.lr 0.1"),
    (["--batch_size", 3], ["--data.batch_size", 3], "--batch_size is taken as --data.batch_size 3"),
    (["--num_features", 2], ["--data.num_features", 2], "--data.num_features 2"),
    (["--optimizer", "Adam", "--lr", 1], ["--model.optimizer", "Adam", "--model.lr", 1], "--model.optimizer Adam"),
    (["t.csv", "--target", "y"], FILE, "t.csv is taken as --data.path t.csv"),
    (["fit", "t.csv", "--data.target", "y"], FILE, "t.csv is taken as --data.path t.csv"),
    (["--data", "t.csv", "--target", "y"], FILE, "--data is taken as --data.path t.csv"),
    (["--path", "t.csv", "--target", "y"], FILE, "--path is taken as --data.path t.csv"),
    ([*FILE, "--data.features", "a"], [*FILE, "--data.features", "[a]"], 'as --data.features ["a"]'),
    ([*FILE, "--features=a"], [*FILE, "--data.features", "[a]"], 'as --data.features ["a"]'),
    ([*FILE, "--data.features", "2020"], [*FILE, "--data.features", "['2020']"], 'as --data.features ["2020"]'),
    (["--model", "mine.Net", "--names", "a"], ["--model", "mine.Net", "--model.names", "[a]"], '["a"]'),
    (["--data", "mine.Rows", "--others", "a"], ["--data", "mine.Rows", "--data.others", "[a]"], '["a"]'),
    (["--fast_dev_run"], ["--fast_dev_run", "true"], "--fast_dev_run is taken as --fast_dev_run true"),
    (["--nesterov", "--lr", 1], ["--model.nesterov", "true", "--model.lr", 1], "--model.nesterov true"),
]
AS_BEFORE = [  # what is no slip
    ["--model.lr", "-1"],
    [*FILE, "--data.features", "[a, b]"],
    [*FILE, "--data.features", "null"],
    ["--data.path", "t.csv", "--data.target", "[y]"],
    ["--data", "mine.Rows", "--precision", "64-true"],
    ["--trainer.callbacks+=LearningRateMonitor", "--trainer.callbacks.logging_interval=step"],
]


@pytest.mark.parametrize(("typed", "meant", "said"), MEANT)
def test_what_was_obviously_meant_is_done_and_said(typed: list, meant: list, said: str, slip: Train) -> None:
    code, out = slip(*typed, "--print_config")
    assert code == 0, out
    notes = [line for line in out.splitlines() if line.startswith("note: ")]
    assert any(said in note for note in notes)
    config = yaml.safe_load(slip(*meant, "--print_config")[1])
    assert yaml.safe_load("".join(f"{line}\n" for line in out.splitlines() if line not in notes)) == config


@pytest.mark.parametrize("typed", AS_BEFORE)
def test_what_is_no_slip_stays_as_it_is(typed: list, slip: Train) -> None:
    code, out = slip(*typed, "--print_config")
    assert code == 0, out
    assert "note:" not in out
    config = yaml.safe_load(out)
    for flag, value in zip(typed[::2], typed[1::2], strict=False):
        section, _, name = flag.removeprefix("--").partition(".")
        if flag.startswith("--data.") or flag.startswith("--model."):
            assert config[section]["init_args"][name] == yaml.safe_load(value)


@pytest.mark.parametrize(
    ("typed", "parts"),
    [
        (["--epochs", 3], ["--epochs", "--max_epochs N"]),
        (["--max_epoch", 3], ["'max_epochs'"]),
        (["--learning_rate", 1], ["--lr RATE"]),
        (["--model.learning_rate", 1], ["'learning_rate'", "--lr RATE"]),
        (["--seed", 3], ["--seed_everything N"]),
        (["--gpus", 1], ["--accelerator gpu --devices N"]),
        (["--device", 1], ["'devices'"]),
        (["--resume", "last"], ["--ckpt_path FILE, or last"]),
        (["--output", "x.csv"], ["python train.py predict --output FILE"]),
        (["--momentun", 0.9], ["'momentum'"]),
        (["--data", "mine.Rows", "--depth", 3, "--model", "mine.Net"], ["--model.depth or --data.depth"]),
        (["--lr"], ["--model.lr: a value is expected"]),
        (["--lr", "0,1"], ["--model.lr 0,1: a number has a point; did you mean 0.1?"]),
        ([*FILE, "--val_fraction=0,2"], ["--data.val_fraction 0,2", "did you mean 0.2?"]),
        (["--data.path", "--data.target", "y"], ["--data.path: a value is expected"]),
        (["--config"], ["--config", "YAML file"]),
        (["train"], ["'train'", "did you mean 'fit'?"]),
        (["fti"], ["did you mean 'fit'?"]),
        (["tets", "--max_epochs", 1], ["did you mean 'test'?"]),
        (["trian"], ["did you mean 'fit'?"]),
        (["fit", "test"], ["one command at a time"]),
        (["--config", "mlp_.yaml"], ["did you mean 'mlp.yaml'?"]),
        (["--config", "top.yaml"], ["write model: {lr: ...}"]),
        ([*FILE, "--data.features", "a,b"], ["several names are '[a, b]'"]),
        ([*FILE, "--data.exclude", "[a"], ["the bracket is not closed"]),
        (["k.csv", "--target", "y"], ["""--data.missing_values '["k.A."]'; if it is text"""]),
        (["evaluate"], ["did you mean 'validate'?"]),
        (["configs/csv.yaml"], ["did you mean --config configs/csv.yaml?"]),
        (["runs/x/last.ckpt"], ["did you mean --ckpt_path runs/x/last.ckpt?"]),
        (["model.lr=0.1"], ["did you mean --model.lr=0.1?"]),
        ([*FILE, "--data.features", "a", "b"], ["'b'", "several names are [a, b]"]),
        (["t.csv", "u.csv"], ["u.csv: a second file", "pattern"]),
        (["t.csv"], ["t.csv", "--data.target", "a, b, text, y"]),
        (["--data.path", "t.csv"], ["t.csv", "--data.target", "a, b, text, y"]),
        (["--config", "path.yaml"], ["t.csv", "--data.target", "a, b, text, y"]),
        (["--data.target", "y"], ["error: --data.target y: --data.path FILE is missing"]),
        (["--exclude", "[a]", "--data.batch_size", 8], ["--data.exclude [a]: --data.path FILE is missing"]),
        (
            ["--data.num_rows", 10, *FILE],
            ["--data.num_rows 10: the synthetic data have that, and not those of --data.path"],
        ),
        (["--model", "LinearRegresion"], ["did you mean 'LinearRegression'?"]),
        (["--model", "linreg.LinearRegresion"], ["did you mean 'linreg.LinearRegression'?"]),
        (["--data", "CSVdata", *FILE], ["did you mean 'CSVData'?"]),
        (["--model", "nets.CN"], ["there is no 'CN' in nets; did you mean 'CNN'? (python"]),
        (["--model", "nets.random"], ["--model nets.random: a module that is imported there", "class is expected"]),
        (["--model", "nets.CNN", "--data", "nets.random"], ["--data nets.random: a module"]),
        (["--model", "mine"], ["--model mine: a module, where a class of it is expected: --model mine.CLASS"]),
        (["--data", "mine"], ["--data mine: a module, where a class of it is expected: --data mine.CLASS"]),
        (["--model", "nets.net"], ["--model nets.net: an object, Net(...), where a class is expected"]),
        (["--max-epochs", 3], ["--max-epochs: a flag has underscores; did you mean --max_epochs?"]),
        (["--num-rows", 3], ["did you mean --data.num_rows?"]),
        (["--model.weight-decay=1"], ["did you mean --model.weight_decay?"]),
        (["--learning-rate", 3], ["did you mean --lr RATE?"]),
        (["--name", ".x"], ["--name '.x': ", "a letter or digit first"]),
        (["--model", "Netz"], ["'Netz' is no class that may be named", "a .py file beside train.py"]),
    ],
)
def test_what_could_mean_several_things_is_one_line(typed: list, parts: list[str], slip: Train) -> None:
    Path("path.yaml").write_text("data: {class_path: CSVData, init_args: {path: t.csv}}")
    Path("mlp.yaml").touch()
    Path("top.yaml").write_text("lr: 0.1")
    Path("k.csv").write_text(CSV + "k.A.,1,x,3\n")
    Path("nets.py").write_text("import random, mine\nclass CNN: ...\nnet = mine.Net(3)")
    code, out = slip(*typed)
    assert code == 2, out
    lines = [line for line in out.splitlines() if not line.startswith("note: ")]
    assert len(lines) == 1
    assert all(part in lines[0] for part in parts), out
    assert not Path("runs").exists()


@posix
def test_a_pipe_is_waited_for_by_no_flag(train: Train) -> None:
    os.mkfifo("pipe")
    code, out = train("--trainer", "pipe")
    assert (code, out.count("\n")) == (2, 1), out
    assert "--trainer pipe: type a flag, such as --max_epochs 5, or --config FILE" in out
    assert train("--trainer", "{fast_dev_run: true}")[0] == 0
    assert train("--model", "./pipe") == (
        2,
        "error: --model ./pipe: a class is expected, such as --model FILE.CLASS; a YAML file is --config FILE\n",
    )
    for typed in ["--data=./pipe"], ["--data=./table.csv"], ["--data", "--max_epochs=1"], ["--data="]:
        code, out = train(*typed)
        assert code == 2
        assert "a class is expected, such as --data FILE.CLASS; a CSV file is --data.path FILE" in out


def test_slips_with_a_checkpoint(slip: Train) -> None:
    assert slip("t.csv", "--target", "y", "--max_epochs", 2, "--model.lr", 0.1)[0] == 0
    code, out = slip("--ckpt_path", f"{CKPT}/last.ckpt", "--lr", 0.2, "--max_epochs", 3)
    assert code == 0, out
    assert "lr: 0.1 -> 0.2" in out
    code, out = slip("predict", "t.csv", "--ckpt_path", "last", "--output", "out.csv")
    assert code == 0, out
    assert len(Path("out.csv").read_text().splitlines()) == 41
    code, out = slip("--fast_dev_run", "true", "--ckpt_path", "last")
    assert (code, "leave out --ckpt_path" in out) == (2, True), out
    code, out = slip("test", "t.csv", "--ckpt_path", "last")
    assert "0 train, 0 val, 40 test" in out


def test_help_and_version(slip: Train) -> None:
    code, out = slip("--version")
    assert (code or 0) == 0
    assert out.startswith("linreg")
    assert "lightning 2." in out
    for typed in (["help"], ["-h"], ["--help"]):
        code, out = slip(*typed)
        assert code == 0
        assert "python train.py predict --ckpt_path CKPT" in out
    for section, flag in (("model", "--model.momentum"), ("data", "--data.num_rows")):
        code, out = slip(f"--{section}.help")
        assert code == 0
        assert flag in out
    code, out = slip("--model.help", "Regressor")
    assert "torch.nn." not in out
    assert "given by a class of your own" in out


@pytest.mark.parametrize("typed", ["?", "[?]", "[?, -]", '["?", "-"]', "'?'"])
def test_what_stands_for_a_missing_cell_may_be_no_yaml(typed: str, train: Train) -> None:
    Path("t.csv").write_text("a,y\n" + "".join(f"{i},{2 * i % 7}\n" for i in range(30)) + "?,4\n")
    code, out = train("t.csv", "--target", "y", "--max_epochs", 1, "--data.missing_values", typed)
    assert code == 0, out
    assert "31 rows, 1 feature -> y; 1 dropped" in out


@pytest.mark.parametrize("flag", ["--data.separator", "--data.delimiter", "--data.sep"])
def test_the_separator_is_found(flag: str, train: Train) -> None:
    code, out = train("--data.path", "t.csv", "--data.target", "y", flag, ";")
    assert (code, "a comma, a tab or a semicolon is found in the header line" in out) == (2, True), out


def test_what_is_lacking_is_named_as_it_is_typed(train: Train) -> None:
    Path("t.csv").write_text("a,y\n" + "".join(f"{i},{2 * i % 7}\n" for i in range(30)))
    assert train("t.csv", "--target", "y", "--max_epochs", 1)[0] == 0
    code, out = train("predict", "--ckpt_path", "last")
    assert (code, "required: --data.path" in out) == (2, True), out
    for flag in ("exclude", "categories"):
        code, out = train("t.csv", "--target", "y", f"--data.{flag}", "[b]")
        assert (code, f"no column 'b' for --data.{flag}" in out) == (2, True), out


@pytest.mark.parametrize("section", ["{path: t.csv, target: y}", "{init_args: {path: t.csv, target: y}}"])
def test_a_config_with_a_path_is_of_a_file(section: str, train: Train) -> None:
    Path("t.csv").write_text("a,y\n" + "".join(f"{i},{2 * i}\n" for i in range(20)))
    Path("mine.yaml").write_text(f"data: {section}\n")
    code, said = train("--config", "mine.yaml", "--max_epochs", "1")
    assert (code, "20 rows, 1 feature -> y" in said) == (0, True), said
    for wrong in ("3", "[path]"):
        Path("mine.yaml").write_text(f"data: {{init_args: {wrong}}}\n")
        assert train("--config", "mine.yaml")[0] == 2
