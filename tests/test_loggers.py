"""A run's records are there whatever its loggers are, and the loggers write beside them unless told otherwise."""

import contextlib
import importlib.util
import json
import threading
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch.loggers import CSVLogger

from linreg import InputError, LinearRegression, RunError, SyntheticData, run
from tests.conftest import Train, read_metrics, read_rows
from tests.tools import assert_same, load, scalars

FOLDER = Path("runs/default/version_0")
RECORDS = {"config.yaml", "metrics.json", "coefficients.csv", "card.md"}
RECORDS |= {"checkpoints/best.ckpt", "checkpoints/last.ckpt"}
PICTURE = "predicted_vs_actual_test.png"
OWN = """
from pathlib import Path
from lightning.pytorch.loggers import Logger

class Lines(Logger):
    name, version, experiment = "lines", 0, None
    def __init__(self, save_dir: str, ending: str = "txt"):
        super().__init__()
        self.path = Path(save_dir, "lines." + ending)
    def log_hyperparams(self, params, *args, **kwargs):
        with self.path.open("a") as file:
            file.write(f"{params['optimizer']} {params['lr']}\\n")
    def log_metrics(self, metrics, step):
        with self.path.open("a") as file:
            file.write(f"{step} {sorted(metrics)}\\n")
"""


def left(folder: Path) -> set[str]:
    """The files of a run, of its pictures one only, by their names without what changes from run to run."""
    found = {path.relative_to(folder).as_posix().partition(".tfevents")[0] for path in folder.rglob("*.*")}
    own = {name for name in found if not name.startswith(("exact/", "by_epoch/"))}  # curves beside those of the run
    return {name for name in own if not name.endswith(".png") or name == PICTURE}


@pytest.mark.slow
def test_a_sweep_in_one_process_leaves_one_file_a_run_and_no_thread(workplace: Path) -> None:
    before, data = threading.active_count(), SyntheticData(num_rows=50)
    for end in (100, 1e6):  # the second diverges
        with contextlib.suppress(RunError):
            run(LinearRegression(3, lr=0.01 * end), data, max_epochs=2)
    found = run(LinearRegression(3), data, max_epochs=2)
    assert threading.active_count() == before
    assert [len([*path.glob("events.out.*")]) for path in sorted(Path("runs/default").iterdir())] == [1, 1, 1]
    found.trainer.logger.log_metrics({"later": 1.0}, 9)
    found.trainer.logger.save()
    assert scalars(FOLDER.with_name("version_2"))["later"] == [(9, 1.0)]


@pytest.mark.parametrize(
    ("logger", "files"),
    [
        ("CSVLogger", {"metrics.csv", PICTURE}),
        ("[TensorBoardLogger, CSVLogger]", {"metrics.csv", "events.out"}),
        ("TensorBoardLogger", {"events.out"}),
        ("false", {PICTURE}),
        ("[]", {PICTURE}),
        ("mine.Lines", {"lines.txt", PICTURE}),
        ("{class_path: mine.Lines, init_args: {ending: log}}", {"lines.log", PICTURE}),
    ],
)
def test_the_records_are_there_with_any_logger(logger: str, files: set[str], train: Train, workplace: Path) -> None:
    Path("mine.py").write_text(OWN)
    code, out = train("--logger", logger, "--max_epochs", 2, "--name", "mine")
    assert code == 0, out
    folder = Path("runs/mine/version_0")
    assert left(folder) == RECORDS | files
    assert sorted(path.name for path in Path("runs").iterdir()) == ["mine"]
    if "lines.txt" in files:
        assert (folder / "lines.txt").read_text().startswith("SGD 0.")
    if PICTURE in files:
        assert (folder / PICTURE).read_bytes().startswith(b"\x89PNG")
    code, out = train("--config", folder / "config.yaml", "--name", "again")  # to the new run's folder
    assert code == 0, out
    assert left(Path("runs/again/version_0")) == left(folder)
    assert read_metrics("runs/again/version_0") == read_metrics(folder)


def test_the_table_has_what_tensorboard_has(train: Train, workplace: Path) -> None:
    assert train("--logger", "[TensorBoardLogger, CSVLogger]", "--max_epochs", 3)[0] == 0
    rows, curves = read_rows(FOLDER / "metrics.csv"), scalars(FOLDER)
    table = {tag: [(int(row["step"]), float(row[tag])) for row in rows if row[tag]] for tag in rows[0]}
    table = {tag: points for tag, points in table.items() if tag not in ("epoch", "step", "reported/seconds")}
    assert {tag: [step for step, _ in points] for tag, points in table.items()} == {
        tag: [step for step, _ in points] for tag, points in curves.items()
    }
    for tag, points in table.items():
        assert [value for _, value in points] == pytest.approx([value for _, value in curves[tag]], rel=1e-6)


@pytest.mark.parametrize("logger", ["CSVLogger", "[CSVLogger, TensorBoardLogger]", "false"])
def test_a_run_goes_on_in_its_folder_with_any_logger(logger: str, train: Train, workplace: Path) -> None:
    assert train("--logger", logger, "--max_epochs", 4, "--name", "four")[0] == 0
    assert train("--logger", logger, "--max_epochs", 2)[0] == 0
    code, out = train("--ckpt_path", FOLDER / "checkpoints/last.ckpt", "--max_epochs", 4)
    assert code == 0, out
    assert [path.name for path in Path("runs/default").iterdir()] == ["version_0"]
    four = Path("runs/four/version_0")
    assert_same(
        load(four / "checkpoints/last.ckpt")["state_dict"], load(FOLDER / "checkpoints/last.ckpt")["state_dict"]
    )
    assert left(FOLDER) == left(four)
    if logger != "false":
        tables = [read_rows(folder / "metrics.csv") for folder in (four, FOLDER)]
        one, two = ([{t: v for t, v in row.items() if t != "reported/seconds"} for row in table] for table in tables)
        assert one == two


def test_a_logger_that_is_told_where_writes_there(train: Train, workplace: Path) -> None:
    there = "{class_path: CSVLogger, init_args: {save_dir: there, name: a}}"
    code, out = train("--logger", there, "--max_epochs", 2)
    assert code == 0, out
    assert Path("there/a/version_0/metrics.csv").exists()
    assert left(FOLDER) == RECORDS | {PICTURE}
    code, out = train("--ckpt_path", FOLDER / "checkpoints/last.ckpt", "--max_epochs", 3)
    assert code == 2  # a stranger's checkpoint would write there
    assert "--config RUN/config.yaml" in out
    config = FOLDER / "config.yaml"
    code, out = train("--ckpt_path", FOLDER / "checkpoints/last.ckpt", "--max_epochs", 3, "--config", config)
    assert code == 0, out


@pytest.mark.parametrize(
    "change", [{"name": "../../evil"}, {"save_dir": "evil"}, {"sub_dir": "../evil"}, {"filename_suffix": "/../x"}]
)
def test_a_checkpoint_has_no_logger_that_writes_elsewhere(change: dict, train: Train, workplace: Path) -> None:
    assert train("--logger", "TensorBoardLogger", "--max_epochs", 2)[0] == 0
    last = FOLDER / "checkpoints/last.ckpt"
    content = load(last)
    config = yaml.safe_load(content["config"])
    config["trainer"]["logger"]["init_args"].update(change)
    torch.save(content | {"config": yaml.safe_dump(config)}, last)
    code, out = train("--ckpt_path", last, "--max_epochs", 3)
    assert code == 2, out
    assert "--logger that may write anywhere" in out


@pytest.mark.parametrize(("logger", "package"), [("WandbLogger", "wandb"), ("MLFlowLogger", "mlflow")])
def test_a_logger_that_is_not_installed_is_one_line(logger: str, package: str, train: Train, workplace: Path) -> None:
    if importlib.util.find_spec(package):
        pytest.skip("it is installed")
    for typed in (logger, f"{{class_path: {logger}, init_args: {{save_dir: there}}}}"):
        code, out = train("--logger", typed)
        assert code == 2, out
        assert f"error: {logger}: {package} is not installed; python -m pip install {package}\n" in out
        assert "Traceback" not in out
        assert not Path("runs").exists()


def test_loggers_from_python(workplace: Path) -> None:
    for logger, name in ((CSVLogger, "class"), ([CSVLogger], "list"), (CSVLogger("there"), "object"), (False, "none")):
        found = run(LinearRegression(3), SyntheticData(num_rows=200), name=name, logger=logger, max_epochs=2)
        assert found.folder == Path(f"runs/{name}/version_0")
        assert (found.folder / "metrics.csv").exists() == (name in ("class", "list"))
        assert json.loads((found.folder / "metrics.json").read_text()) == json.loads(json.dumps(found.metrics))
    assert Path("there/lightning_logs/version_0/metrics.csv").exists()
    with pytest.raises(InputError, match="CSVLogger"):
        run(LinearRegression(3), SyntheticData(), logger=partial(CSVLogger, flush=1), max_epochs=2)


@pytest.mark.parametrize("content", [b"a,b\n1,2\n", b"epoch,step\n0,\xff\n", b"step\nmany\n"])
def test_a_table_of_curves_that_is_none_is_a_line(content: bytes, train: Train, workplace: Path) -> None:
    assert train("--logger", "CSVLogger", "--max_epochs", 2)[0] == 0
    (FOLDER / "metrics.csv").write_bytes(content)
    code, out = train("--ckpt_path", FOLDER / "checkpoints/last.ckpt", "--max_epochs", 4)
    assert (code, "metrics.csv holds no curves" in out) == (2, True), out
    assert (FOLDER / "metrics.csv").read_bytes() == content
