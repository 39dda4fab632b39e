"""A checkpoint is a stranger's file, and a path is not a fact; and what is mistyped is one line."""

import json
import os
import shutil
import stat
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from linreg import LinearRegression
from linreg.safety.checkpoint_file import CheckpointFile
from tests.conftest import LONG, ROOT, Train, command, completed, posix, read_metrics, started, until
from tests.tools import CKPT, load

RUN = ["--data.batch_size", 100, "--model.lr", 0.01, "--data.noise_std", 1]


def tree(folder: str | Path) -> dict[str, bytes]:
    """All files below a folder, with their contents."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def metrics(folder: str | Path) -> dict[str, Any]:
    return read_metrics(folder)


def with_state(content: dict[str, Any], kind: str, **state: Any) -> dict[str, Any]:
    """A checkpoint in which a callback's state says something else."""
    (key,) = (key for key in content["callbacks"] if key.startswith(kind))
    return content | {"callbacks": content["callbacks"] | {key: content["callbacks"][key] | state}}


@pytest.mark.slow
@pytest.mark.parametrize("form", ["{precious}", "local://{precious}", "{dirpath}/../../../../precious", "best_k"])
def test_a_checkpoint_names_nothing_that_is_removed(form: str, train: Train, workplace: Path) -> None:
    assert train(*RUN, "--max_epochs", 2)[0] == 0
    Path("precious/deep").mkdir(parents=True)
    Path("precious/deep/kept.ckpt").write_text("thesis")
    Path(CKPT, "mine.ckpt").write_bytes(Path(CKPT, "best.ckpt").read_bytes())  # a copy that the user has made
    before = tree("precious")
    path = form.format(precious=workplace / "precious", dirpath=CKPT) if form != "best_k" else f"{CKPT}/mine.ckpt"
    score = torch.tensor(100.0)
    said = {"best_model_path": path, "kth_best_model_path": path, "best_k_models": {path: score}}
    content = with_state(load(f"{CKPT}/last.ckpt"), "BestCheckpoint", **said, best_model_score=score)
    content = with_state(content, "LastCheckpoint", best_model_path=path)
    for place in (f"{CKPT}/evil.ckpt", "evil.ckpt"):
        torch.save(content, place)
        code, out = train("--ckpt_path", place, "--max_epochs", 5)
        assert code == 0, out
        assert tree("precious") == before
        assert Path(CKPT, "mine.ckpt").is_file()


@pytest.mark.slow
def test_a_checkpoint_beside_another_run_is_not_of_it(train: Train) -> None:
    assert train(*RUN, "--max_epochs", 30)[0] == 0
    assert train(*RUN, "--max_epochs", 2, "--data.data_seed", 5, "--name", "other")[0] == 0
    shutil.copy("runs/other/version_0/checkpoints/last.ckpt", f"{CKPT}/downloaded.ckpt")
    before = tree("runs/default/version_0")
    code, out = train("--ckpt_path", f"{CKPT}/downloaded.ckpt", "--max_epochs", 3)
    assert code == 0, out
    assert "in a new folder" in out
    assert tree("runs/default/version_0") == before
    model = LinearRegression.load_from_checkpoint("runs/other/version_1/checkpoints/best.ckpt")
    reported = Path("runs/other/version_1/coefficients.csv").read_text().splitlines()[1].split(",")
    assert float(reported[1]) == pytest.approx(float(model.coef[0, 0]))
    assert float(reported[4]) == pytest.approx(metrics_true("runs/other/version_0"))


def metrics_true(folder: str) -> float:
    return float(Path(folder, "coefficients.csv").read_text().splitlines()[1].split(",")[4])


@pytest.mark.slow
def test_a_run_that_was_renamed_goes_on_where_it_lies(
    train: Train, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train(*RUN, "--max_epochs", 6, "--name", "whole")[0] == 0
    assert train(*RUN, "--max_epochs", 3)[0] == 0
    os.rename("runs/default/version_0", "runs/default/thesis")
    assert train(*RUN, "--max_epochs", 2, "--data.data_seed", 5)[0] == 0  # takes its place
    other = tree("runs/default/version_0")
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    code, out = train("--ckpt_path", workplace / "runs/default/thesis/checkpoints/last.ckpt", "--max_epochs", 6)
    assert code == 0, out
    assert not os.listdir(".")
    monkeypatch.chdir(workplace)
    assert tree("runs/default/version_0") == other
    assert metrics("runs/default/thesis") == metrics("runs/whole/version_0")
    assert score("runs/default/thesis") == score("runs/whole/version_0")


def score(folder: str) -> float:
    (state,) = (s for k, s in load(f"{folder}/checkpoints/last.ckpt")["callbacks"].items() if k.startswith("Best"))
    return float(state["best_model_score"])


@pytest.mark.slow
@pytest.mark.parametrize("rows", [[], ["--data.val_fraction", 0]])
def test_a_moved_run_remembers_its_best(rows: list[object], train: Train, workplace: Path) -> None:
    assert train(*RUN, *rows, "--model.lr", 0.05, "--max_epochs", 40)[0] == 0
    best = load(f"{CKPT}/best.ckpt")
    shutil.move("runs", "old")
    typed = ["--max_epochs", 42, "--model.lr", 0.9]  # too large a rate: both epochs are worse
    code, out = train("--ckpt_path", workplace / f"old{CKPT[4:]}/last.ckpt", *typed)
    assert code == 0, out
    assert "forgotten" not in out
    assert load(f"old{CKPT[4:]}/best.ckpt")["epoch"] == best["epoch"]


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["a copy", "no best"])
def test_a_checkpoint_alone_ends_in_a_report(lost: str, train: Train) -> None:
    assert train(*RUN, "--max_epochs", 2)[0] == 0
    path = f"{CKPT}/last.ckpt"
    if lost == "a copy":
        path = shutil.copy(path, "copy.ckpt")
        shutil.rmtree("runs")
    else:
        os.remove(f"{CKPT}/best.ckpt")
    for epochs in (2, 4):  # with no epoch left, and with some
        code, out = train("--ckpt_path", path, "--max_epochs", epochs)
        assert code == 0, out
        assert "forgotten" in out
        assert ("what follows is of its last epoch" in out) == (epochs == 2)
    assert metrics(sorted(Path("runs/default").iterdir())[-1])["rows"]["train"] == 800


def test_only_what_this_run_wrote_is_removed(tmp_path: Path) -> None:
    files, ours, theirs = CheckpointFile(), tmp_path / "ours.ckpt", tmp_path / "theirs.ckpt"
    files.save_checkpoint({}, ours)
    shutil.copy(ours, theirs)
    (tmp_path / "folder.ckpt").mkdir()
    for path in (ours, theirs, tmp_path / "folder.ckpt", tmp_path, "local://" + str(theirs)):
        files.remove_checkpoint(path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.ckpt", "theirs.ckpt"]


@pytest.mark.slow
def test_the_best_of_another_attempt_is_not_reported(train: Train) -> None:
    """Back to an older checkpoint, and on from there otherwise: best.ckpt is one of the first attempt."""
    assert train(*RUN, "--max_epochs", 3)[0] == 0
    older = shutil.copy(f"{CKPT}/last.ckpt", f"{CKPT}/older.ckpt")
    assert train("--ckpt_path", f"{CKPT}/last.ckpt", "--max_epochs", 30)[0] == 0
    code, out = train("--ckpt_path", older, "--max_epochs", 4)
    assert code == 0, out
    assert load(f"{CKPT}/best.ckpt")["epoch"] == 3
    assert "forgotten" in out


@pytest.mark.slow
@pytest.mark.parametrize("at", ["the top", "a folder like a run's"])
def test_a_folder_that_is_called_checkpoints_is_no_run(at: str, train: Train) -> None:
    assert train(*RUN, "--max_epochs", 2)[0] == 0
    other = Path("project" if at == "the top" else "project/version_3")
    (other / "checkpoints").mkdir(parents=True)
    (other / "config.yaml").write_text("mine: true\n")
    (other / "metrics.json").write_text("{}")
    shutil.copy(f"{CKPT}/last.ckpt", other / "checkpoints")
    before = tree("project")
    code, out = train("--ckpt_path", other / "checkpoints/last.ckpt", "--max_epochs", 3)
    assert code == 0, out
    assert tree("project") == before
    assert Path("runs/default/version_1/metrics.json").exists()


@posix
def test_a_link_leads_where_it_leads(train: Train) -> None:
    assert train(*RUN, "--max_epochs", 2, "--name", "a")[0] == 0
    assert train(*RUN, "--max_epochs", 2, "--name", "a", "--data.data_seed", 5)[0] == 0
    Path("other/group/deep").mkdir(parents=True)
    shutil.move("runs/a/version_0", "other/group/version_1")
    Path("runs/a/link").symlink_to("../../other/group/deep")
    Path("newest.ckpt").symlink_to("other/group/version_1/checkpoints/last.ckpt")
    before = tree("runs")
    for path in ("runs/a/link/../version_1/checkpoints/last.ckpt", "newest.ckpt"):
        code, out = train("--ckpt_path", path, "--max_epochs", 3)
        assert code == 0, out
        assert tree("runs") == before
    assert load("other/group/version_1/checkpoints/last.ckpt")["epoch"] == 2


@pytest.mark.slow
@posix
def test_a_run_whose_place_another_took_writes_nothing_there(train: Train) -> None:
    with started(command(*RUN, "--max_epochs", 1_000_000, "--name", "b")) as run:
        until(Path("runs/b/version_0/checkpoints/last.ckpt").exists)
        os.rename("runs/b/version_0", "runs/b/old")
        assert train(*RUN, "--max_epochs", 2, "--name", "b", "--data.data_seed", 9)[0] == 0
        assert run.wait(LONG) == 1
        assert len(run.stderr.read().splitlines()) == 1  # its folder, or its curves, cannot be written any more
    first = [json.loads(path.read_text()) for path in Path("runs/b/version_0").glob("metrics.json")]
    assert first
    for name in ("best", "last"):
        content = load(f"runs/b/version_0/checkpoints/{name}.ckpt")
        assert f"# run {content['run']}\n" in Path("runs/b/version_0/config.yaml").read_text()
        assert content["epoch"] < 2


def test_a_run_without_curves_has_its_folder(train: Train) -> None:
    for number in (0, 1):
        code, out = train(*RUN, "--max_epochs", 2, "--logger", "false")
        assert code == 0, out
        assert "tensorboard" not in out
        names = {path.name for path in Path(f"runs/default/version_{number}").rglob("*") if path.is_file()}
        records = {"config.yaml", "metrics.json", "coefficients.csv", "card.md", "best.ckpt", "last.ckpt"}
        assert {name for name in names if not name.endswith(".png")} == records
        assert "predicted_vs_actual_test.png" in names  # which nothing else would show
    code, out = train("--ckpt_path", f"{CKPT}/last.ckpt", "--max_epochs", 4)
    assert code == 0, out
    assert "in a new folder" not in out


@pytest.mark.slow
def test_a_model_in_the_current_folder(workplace: Path) -> None:
    Path("here.py").write_text("from linreg import LinearRegression\nclass Mine(LinearRegression):\n    pass\n")
    done = completed(command("--model", "here.Mine", "--max_epochs", 1))
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_from_inside_of_its_folder(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    assert train(*RUN, "--max_epochs", 2)[0] == 0
    for folder, path in ((".", "checkpoints/last.ckpt"), ("checkpoints", "last.ckpt")):
        monkeypatch.chdir(folder if folder == "checkpoints" else CKPT + "/..")
        code, out = train("--ckpt_path", path, "--max_epochs", 3)
        assert code == 0, out
        assert not Path("runs").exists()


@pytest.mark.slow
def test_one_process_at_a_time(train: Train) -> None:
    assert train(*RUN, "--max_epochs", 1)[0] == 0
    long = command("--ckpt_path", f"{CKPT}/last.ckpt", "--max_epochs", 1_000_000)
    with started(long) as run:
        assert any(line.startswith("train") for line in run.stdout)  # it has the folder now
        code, out = train("--ckpt_path", f"{CKPT}/last.ckpt", "--max_epochs", 3)
        assert code == 2
        assert "another process is at work in this run" in out.splitlines()[-1]
        assert train(*RUN, "--max_epochs", 1)[0] == 0  # a run of its own
    assert train("--ckpt_path", f"{CKPT}/last.ckpt", "--max_epochs", load(f"{CKPT}/last.ckpt")["epoch"] + 2)[0] == 0
    assert not list(Path("runs").rglob(".lock"))


@pytest.mark.slow
@posix
def test_predictions_replace_predictions_only(train: Train, workplace: Path) -> None:
    assert train("--config", "configs/csv.yaml", "--max_epochs", 1, "--name", "default")[0] == 0
    Path("link.csv").symlink_to("aim.csv")
    Path("aim.csv").write_text("precious")
    Path("notes.txt").write_text("precious")
    before = tree(".")
    predict = ["predict", "--ckpt_path", f"{CKPT}/best.ckpt", "--data.path", "configs/penguins.csv", "--output"]
    Path("dates.csv").write_text("id,prediction_date\n1,2020\n")
    Path("letter.txt").write_text("Dear all,prediction is hard\n")
    Path("blank.py").write_text("\nimport precious\n")
    before = tree(".")
    for output in (
        "dates.csv",
        "letter.txt",
        "blank.py",
        f"{CKPT}/best.ckpt",
        f"{CKPT}/last.ckpt",
        "configs/csv.yaml",
        "link.csv",
        "notes.txt",
        "runs",
    ):
        code, out = train(*predict, output)
        assert code == 2, out
        assert out.count("\n") == 1
        assert output in out
        assert tree(".") == before
    shutil.copy("configs/penguins.csv", "private.csv")
    os.chmod("private.csv", 0o600)
    predict[4] = "private.csv"
    for _ in range(2):
        assert train(*predict, "out.csv")[0] == 0
        assert stat.S_IMODE(os.stat("out.csv").st_mode) == 0o600
    assert tree(".").keys() - before.keys() == {"out.csv", "private.csv"}


WRITERS = [
    {"callbacks": [{"class_path": "OnExceptionCheckpoint", "init_args": {"dirpath": "precious"}}]},
    {"callbacks": [{"class_path": "lightning.pytorch.callbacks.OnExceptionCheckpoint", "init_args": {"dirpath": "p"}}]},
    {"logger": [{"class_path": "CSVLogger", "init_args": {"save_dir": "precious"}}]},
    {"logger": {"class_path": "TensorBoardLogger", "init_args": {"save_dir": "precious"}}},
    {"profiler": {"class_path": "SimpleProfiler", "init_args": {"dirpath": "precious", "filename": "x"}}},
    {"plugins": [{"class_path": "lightning.pytorch.plugins.io.TorchCheckpointIO"}]},
    {"default_root_dir": "precious"},
]


@pytest.mark.slow
@pytest.mark.parametrize("part", WRITERS, ids=str)
def test_a_checkpoints_config_writes_nowhere(part: dict[str, Any], train: Train) -> None:
    assert train(*RUN, "--max_epochs", 1)[0] == 0
    content = load(f"{CKPT}/last.ckpt")
    config = yaml.safe_load(content["config"])
    config["data"]["init_args"]["cache"] = "precious"
    config["trainer"] |= part
    torch.save(content | {"config": yaml.safe_dump(config)}, "evil.ckpt")
    code, out = train("--ckpt_path", "evil.ckpt", "--max_epochs", 2)
    assert not Path("precious").exists()
    assert "--config RUN/config.yaml" in out or code == 0 or "cache" in out


@pytest.mark.slow
def test_a_callback_of_ones_own_has_to_be_typed_again(train: Train, workplace: Path) -> None:
    Path("mine.py").write_text("from lightning.pytorch import Callback\nclass Watch(Callback):\n    pass\n")
    Path("own.yaml").write_text(
        "trainer: {callbacks: [{class_path: mine.Watch}, {class_path: EarlyStopping, init_args: {monitor: loss/val}}]}"
    )
    typed = [*RUN, "--config", "own.yaml", "--name", "default"]
    assert train(*typed, "--max_epochs", 2)[0] == 0
    code, out = train("--ckpt_path", f"{CKPT}/last.ckpt", "--max_epochs", 3)
    assert code == 2
    assert "--callbacks" in out
    code, out = train("--ckpt_path", f"{CKPT}/last.ckpt", "--config", f"{CKPT}/../config.yaml", "--max_epochs", 3)
    assert code == 0, out


@pytest.mark.slow
@pytest.mark.parametrize("init_args", ["{every_n_train_steps: 3}", "{monitor: loss/val, mode: max}"])
def test_the_best_is_the_runs_own(init_args: str, train: Train) -> None:
    Path("own.yaml").write_text(f"trainer: {{callbacks: [{{class_path: ModelCheckpoint, init_args: {init_args}}}]}}")
    assert train(*RUN, "--max_epochs", 9)[0] == 0
    assert train(*RUN, "--max_epochs", 9, "--config", "own.yaml")[0] == 0
    assert metrics("runs/own/version_0") == metrics("runs/default/version_0")


@pytest.mark.slow
@pytest.mark.parametrize("field", ["{step:c}", "{epoch:/<5}", "{epoch!r}", "{epoch:}>9}", "{{", "{0}"])
def test_a_filename_has_plain_fields(field: str, train: Train) -> None:
    """Lightning fills them in after the name was looked at; ``{step:c}`` is "/" at step 47."""
    Path("own.yaml").write_text(
        f"trainer: {{callbacks: [{{class_path: ModelCheckpoint, init_args: {{filename: '.{field}x'}}}}]}}"
    )
    code, out = train("--config", "own.yaml")
    assert code == 2, out
    assert not list(Path().glob("*.ckpt"))
    fields = "{epoch:03d}-{loss/val:.4f}-{step}"
    Path("own.yaml").write_text(
        f"trainer: {{callbacks: [{{class_path: ModelCheckpoint, init_args: {{filename: '{fields}'}}}}]}}"
    )
    assert train("--config", "own.yaml", "--max_epochs", 1, "--name", "fine")[0] == 0
    assert list(Path("runs/fine/version_0/checkpoints/epoch=000-loss").glob("val=*-step=1.ckpt"))


@pytest.mark.parametrize("init_args", ["{filename: last}", "{filename: best}", "{save_last: true}"])
def test_no_other_callback_writes_best_or_last(init_args: str, train: Train) -> None:
    Path("own.yaml").write_text(f"trainer: {{callbacks: [{{class_path: ModelCheckpoint, init_args: {init_args}}}]}}")
    code, out = train("--config", "own.yaml")
    assert code == 2
    assert "best.ckpt and last.ckpt" in out


def test_what_may_not_stand_in_a_config(train: Train) -> None:
    assert train(*RUN, "--max_epochs", 1)[0] == 0
    for line in (f"ckpt_path: {CKPT}/last.ckpt", "config: configs/csv.yaml", "config: [configs/csv.yaml]"):
        Path("odd.yaml").write_text(line)
        code, out = train("--config", "odd.yaml")
        assert code == 2
        assert "cannot stand in a config; type --" in out


@pytest.mark.slow
@pytest.mark.parametrize("change", ["other rows", "two targets swapped", "two targets of the test rows swapped"])
def test_rows_that_look_alike_are_told_apart(change: str, train: Train) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 1)) * 1e-10, rng.normal(size=(60, 1)) * 1e-10

    def write(x: np.ndarray, y: np.ndarray) -> None:
        lines = [f"{a},{b}" for a, b in np.c_[x, y].tolist()]
        Path("t.csv").write_text("\n".join(["a,y", *lines]))

    write(x, y)
    assert train("--data.path", "t.csv", "--data.target", "y", "--max_epochs", 2)[0] == 0
    if change == "other rows":
        write(rng.normal(size=(60, 1)) * 1e-10, y)
    else:  # the same mean and spread, the same correlations but for two training rows
        order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
        a, b = order[[7, 30] if change == "two targets swapped" else [-1, -2]].tolist()
        y[[a, b]] = y[[b, a]]
        write(x, y)
    code, out = train("--ckpt_path", f"{CKPT}/last.ckpt", "--max_epochs", 3)
    assert code == 2
    assert "the training rows are not those of the checkpoint" in out


BOMBS = {
    "aliases of aliases": "a0: &a0 [x, x]\n"
    + "\n".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)),
    "itself": "model: &m {a: *m}",
    "a list of itself": "&l [*l]",
    "brackets": "[" * 100_000,
    "brackets of a config's length": "[" * 15_000,
    "brackets in brackets": "[" * 60 + "]" * 60,
    "braces": "{a: " * 100_000,
    "dashes": "- " * 100_000,
    "nothing": "model: *nothing",
    "scalars of scalars": "a: &a x\nb: [" + "*a, " * 30_000 + "]",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BOMBS)
def test_yaml_is_bounded(name: str, train: Train) -> None:
    Path("bomb.yaml").write_text(BOMBS[name])
    code, out = train("--config", "bomb.yaml")
    assert code == 2, out
    assert len(out.splitlines()) == 1
    assert len(out) < 1_000
    says_so = "levels or" in out or "nesting depth" in out  # the second by PyYAML itself, from 6.0.4 on
    assert says_so == ("alias" in name or "scalars" in name or BOMBS[name].count(BOMBS[name][0]) > 50)
    if len(BOMBS[name]) < 100_000:
        Path("inner.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": BOMBS[name]}}))
        for typed in (["--model.optimizer", BOMBS[name]], [f"--callbacks={BOMBS[name]}"], ["--config", "inner.yaml"]):
            code, out = train(*typed)
            assert code == 2
            assert len(out.splitlines()) == 1
    assert train(*RUN, "--max_epochs", 1)[0] == 0
    torch.save(load(f"{CKPT}/last.ckpt") | {"config": BOMBS[name]}, "bomb.ckpt")
    code, out = train("--ckpt_path", "bomb.ckpt")
    assert code == 2
    assert out.count("error:") == 1


def test_an_anchor_is_no_bomb(train: Train) -> None:
    Path("anchor.yaml").write_text("model: {init_args: {lr: &rate 0.01, weight_decay: *rate}}")
    code, out = train("--config", "anchor.yaml", "--print_config")
    assert code == 0
    assert yaml.safe_load(out)["model"]["init_args"]["weight_decay"] == 0.01


def number(value: int, *path: str) -> Any:
    """A change of a checkpoint that makes one of its numbers huge."""
    return lambda content: content | {path[0]: content[path[0]] | {path[1]: value}}


MALFORMED = {  # how a checkpoint is changed, and by which subcommands it is then refused
    "a huge model": (number(10**9, "hyper_parameters", "num_features"), "test"),
    "a huge model to train": (number(10**9, "columns", "features"), "fit test"),
    "a version without end": (lambda content: content | {"pytorch-lightning_version": "9" * 5_000}, "fit test"),
    "a config of numbers": (lambda content: content | {"config": "trainer: 5\ndata: {init_args: 5}"}, "fit test"),
    "no callbacks": (lambda content: content | {"callbacks": []}, "fit"),
    "other momentum": (lambda content: content | {"optimizer_states": [{"state": {0: 5}, "param_groups": []}]}, "fit"),
    "momentum of another shape": (
        lambda content: (
            content
            | {
                "optimizer_states": [
                    content["optimizer_states"][0] | {"state": {0: {"momentum_buffer": torch.ones(5, 7)}}}
                ]
            }
        ),
        "fit",
    ),
    "an optimizer of other weights": (
        lambda content: (
            content
            | {
                "optimizer_states": [
                    content["optimizer_states"][0] | {"state": {7: {"momentum_buffer": torch.ones(1, 3)}}}
                ]
            }
        ),
        "fit",
    ),
    "a unit of 0": (
        lambda content: (
            content
            | {"state_dict": content["state_dict"] | {"x_standardizer.std": torch.zeros(3, dtype=torch.float64)}}
        ),
        "fit test",
    ),
    "an index that leads anywhere": (
        lambda content: (
            content
            | {
                "state_dict": content["state_dict"]
                | {"x_standardizer.mean": torch.sparse_coo_tensor([[10**9]], [1.0], (3,), check_invariants=False)}
            }
        ),
        "fit test",
    ),
    "a sparse weight": (
        lambda content: (
            content
            | {
                "state_dict": content["state_dict"]
                | {"hypothesis.weight": content["state_dict"]["hypothesis.weight"].to_sparse()}
            }
        ),
        "fit test",
    ),
    "a sparse unit": (
        lambda content: (
            content
            | {
                "state_dict": content["state_dict"]
                | {"x_standardizer.std": content["state_dict"]["x_standardizer.std"].to_sparse()}
            }
        ),
        "fit test",
    ),
    "a unit of its own kind": (
        lambda content: content | {"state_dict": content["state_dict"] | {"x_standardizer._extra_state": 5}},
        "fit test",
    ),
    "a wrong epoch": (lambda content: content | {"epoch": 7}, "fit"),
    "a rate of text": (
        lambda content: (
            content
            | {
                "optimizer_states": [
                    {"state": {}, "param_groups": [content["optimizer_states"][0]["param_groups"][0] | {"lr": "fast"}]}
                ]
            }
        ),
        "fit",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_checkpoint_is_one_line(name: str, train: Train) -> None:
    assert train(*RUN, "--max_epochs", 1)[0] == 0
    before = tree("runs")
    change, commands = MALFORMED[name]
    torch.save(change(load(f"{CKPT}/last.ckpt")), f"{CKPT}/bad.ckpt")
    for subcommand in commands.split():
        code, out = train(
            "--ckpt_path" if subcommand == "fit" else subcommand,
            *(["--ckpt_path"] * (subcommand != "fit")),
            f"{CKPT}/bad.ckpt",
        )
        assert code == 2, out
        assert out.splitlines()[-1].startswith("error: ")
        assert out.count("error: ") == 1
        left = {name: content for name, content in tree("runs").items() if "bad.ckpt" not in name}
        assert left == before


def test_no_value_of_a_flag_is_a_file_to_read(train: Train) -> None:
    """It could be a pipe, which would be waited for, or an address."""
    Path("callbacks.yaml").write_text("[{class_path: LearningRateMonitor}]")
    Path("own.yaml").write_text("trainer: {callbacks: callbacks.yaml}")
    for typed in (["--callbacks", "callbacks.yaml"], ["--config", "own.yaml"]):
        code, out = train(*typed, "--max_epochs", 1)
        assert code == 2, out
        assert "'callbacks.yaml' is no class that may be named" in out


def test_weights_that_are_no_numbers_measure_and_predict_nothing(train: Train) -> None:
    assert train(*RUN, "--max_epochs", 1)[0] == 0
    content = load(f"{CKPT}/last.ckpt")
    content["state_dict"]["hypothesis.weight"][0, 1] = float("nan")
    torch.save(content, "nan.ckpt")
    Path("t.csv").write_text(",".join(content["columns"]["features"]) + "\n1,2,3\n")
    for typed in (["validate"], ["test"], ["predict", "--data.path", "t.csv"]):
        code, out = train(*typed, "--ckpt_path", "nan.ckpt")
        assert code == 1, out
        assert "hypothesis.weight is nan: its training had diverged" in out.splitlines()[-1]
    assert not Path("predictions.csv").exists()


FLAGS = [
    ["--model.lr", "1e39"],
    ["--model.weight_decay", "1e300"],
    ["--model.optimizer", "SparseAdam", "--model.lr", "0.1"],
    ["--devices", "-3"],
    ["--devices", "banana"],
    ["--devices", "[5]"],
    ["--devices", "70"],
    ["--accelerator", "tpu"],
    ["--accelerator", "gpu"],
    ["--check_val_every_n_epoch", "0"],
    ["--val_check_interval", "0"],
    ["--accumulate_grad_batches", "0"],
    ["--num_nodes", "2"],
    ["--seed_everything", str(2**70)],
    ["--ckpt_path", ""],
    ["--ckpt_path="],
    ["--callbacks", "[{class_path: EarlyStopping, init_args: {monitor: nothing}}]"],
    ["--callbacks", "[{class_path: RichProgressBar}]"],
    ["--callbacks", "[{class_path: ModelCheckpoint}, {class_path: ModelCheckpoint}]"],
    ["--strategy", "banana"],
    ["--strategy", "deepspeed"],
    ["--precision", "transformer-engine"],
    ["--plugins", "banana"],
    ["--max_time", "banana"],
    ["--callbacks", "[{class_path: Timer, init_args: {duration: banana}}]"],
    [
        "--model.lr",
        "0.1",
        "--model.lr_scheduler",
        "{class_path: torch.optim.lr_scheduler.OneCycleLR, init_args: {max_lr: 0.1, total_steps: 1}, interval: step}",
    ],
]


@pytest.mark.slow
@pytest.mark.parametrize("flags", FLAGS, ids=" ".join)
def test_a_flag_that_cannot_be_honoured_is_one_line(flags: list[str], train: Train) -> None:
    code, out = train("--max_epochs", 2, *flags)
    assert code == 2, out
    assert "Traceback" not in out
    assert out.splitlines()[-1].startswith("error: ")
    assert out.count("error: ") == 1
    assert "EarlyStopping" in str(flags) or "OneCycleLR" in str(flags) or not Path("runs").exists()


def test_one_callback_is_a_list_of_one(train: Train) -> None:
    assert train("--callbacks", "LearningRateMonitor", "--max_epochs", 1)[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "place",
    [
        "regression.regressor.mse_loss",
        "experiment.describe_resume",
        "regression.exact.report.verdict",
        "regression.exact.baseline.describe_descent",
    ],
)
def test_a_fault_of_ours_keeps_its_traceback(place: str, train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    assert train(*RUN, "--max_epochs", 1)[0] == 0
    monkeypatch.setattr(f"linreg.{place}", None)
    with pytest.raises(TypeError, match="'NoneType' object is not callable"):
        train("--ckpt_path", f"{CKPT}/last.ckpt", "--max_epochs", 2)


def test_slurm_without_srun_is_one_line(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SLURM_NTASKS": "2", "SLURM_JOB_NAME": "job", "SLURM_PROCID": "0", "SLURM_JOB_ID": "1"}.items():
        monkeypatch.setenv(name, value)
    code, out = train("--max_epochs", 1)
    assert code == 2
    assert len(out.splitlines()) == 1


@pytest.mark.slow
@posix
def test_any_terminal_or_none(workplace: Path) -> None:
    lines = [f"{i % 7},{i * i % 11},{i}" for i in range(40)]
    Path("t.csv").write_text("\n".join(["$\\foo$ \u00e9\u4e2d,\x1b[2J\x1b[31mred,y", *lines]), encoding="utf-8")
    plain = command("--data.path", "t.csv", "--data.target", "$\\foo$ \u00e9\u4e2d", "--max_epochs", 2)
    ascii_only = os.environ | {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    for arguments, environment in ((plain, os.environ), (plain, ascii_only)):
        done = completed(arguments, env=environment)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        assert "\x1b" not in done.stdout
        assert "x1b[2J" in done.stdout
    closed = completed(["sh", "-c", 'exec "$@" >&- 2>&- <&-', "sh", *plain])
    assert closed.returncode == 0
    assert len(list(Path("runs/default").glob("*/metrics.json"))) == 3


def test_the_name_of_a_run_comes_from_any_file(train: Train) -> None:
    shutil.copy("configs/batch.yaml", "run (1).yaml")
    code, out = train("--config", "run (1).yaml", "--max_epochs", 1)
    assert code == 0, out
    assert Path("runs/run _1_/version_0/metrics.json").exists()


@pytest.mark.slow
def test_two_thousand_features_have_an_exact_solution(train: Train) -> None:
    code, out = train("--data.num_features", 2_000, "--data.num_rows", 50, "--max_epochs", 1)
    assert code == 0, out
    assert "no exact solution" not in out


@pytest.mark.slow
def test_python_loads_no_code_either(train: Train) -> None:
    script = "import linreg, sys; linreg.LinearRegression.load_from_checkpoint('bomb.ckpt', weights_only=False)"
    Path("bomb.py").write_text(
        "import os, torch\nclass Bomb:\n    def __reduce__(self):\n        return os.mkdir, ('PWNED',)\n"
        "torch.save({'state_dict': Bomb()}, 'bomb.ckpt')\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}
    for arguments in (["bomb.py"], ["-c", script]):
        done = completed([sys.executable, *arguments], env=environment)
    assert done.returncode != 0
    assert not Path("PWNED").exists()
