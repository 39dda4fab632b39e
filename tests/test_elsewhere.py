"""Run folders, checkpoints and tables from elsewhere: odd names, links, packed files, columns that nearly repeat."""

import os
import re
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from linreg.runs.folder import is_run_of, mark_of
from linreg.safety.checkpoint_file import read_checkpoint
from linreg.system.errors import InputError
from linreg.tables.conversion import _is_bent
from tests.conftest import ROOT, Train, posix, read_metrics, read_rows

BASE = ("--data.num_rows", 200, "--data.batch_size", 50, "--model.lr", 0.05)
RUN = Path("runs/default/version_0")


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)


@pytest.mark.parametrize("name", ["version_007", "version_٣", "$HOME", "~"])
def test_a_run_goes_on_where_it_lies_whatever_the_folder_is_called(
    name: str, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train(*BASE, "--max_epochs", 2)[0] == 0
    monkeypatch.setenv("HOME", str(Path("home").absolute()))
    moved = Path("runs/default") / name
    if name.startswith("version"):
        others = [Path("runs/default/version_7"), Path("runs/default/version_3")]
    else:
        moved, others = Path(name) / "version_0", [Path("home/version_0")]
    for other in others:
        shutil.copytree(RUN, other)
    moved.parent.mkdir(exist_ok=True)
    events = list(RUN.glob("events.*"))
    RUN.rename(moved)
    before = [tree(other) for other in others]
    code, out = train("--ckpt_path", f"./{moved}/checkpoints/last.ckpt", "--max_epochs", 4)
    assert code == 0, out
    assert [tree(other) for other in others] == before
    assert read_metrics(moved)["run"]["epochs"] == 4
    assert len(list(moved.glob("events.*"))) == 2 * len(events)


@posix
def test_a_run_at_the_root_of_a_disk(train: Train) -> None:
    assert train(*BASE, "--max_epochs", 2)[0] == 0
    inside = f"mount --bind {RUN} /srv && exec python {ROOT}/train.py --ckpt_path /srv/checkpoints/last.ckpt"
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", f"{inside} --max_epochs 3"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip("no rights to mount anything")
    assert done.returncode == 0, done.stderr
    assert "tensorboard --logdir /srv" in done.stdout
    assert read_metrics(RUN)["run"]["epochs"] == 3


@posix
def test_no_link_in_a_runs_folder_leads_out_of_it(train: Train) -> None:
    assert train(*BASE, "--max_epochs", 2)[0] == 0
    Path("precious").mkdir()
    Path("precious/best.ckpt").write_text("thesis")
    (RUN / "checkpoints/sub").symlink_to(Path("precious").absolute())
    mine = "{class_path: lightning.pytorch.callbacks.ModelCheckpoint, init_args: {filename: sub/best, %s}}"

    def change(content: dict[str, Any]) -> None:
        callbacks = f"callbacks: [{mine % 'enable_version_counter: false'}]"
        content["config"] = re.sub(r"callbacks: (null|\[\])", callbacks, content["config"])

    edit(RUN / "checkpoints/last.ckpt", change)
    code, out = train("--ckpt_path", RUN / "checkpoints/last.ckpt", "--max_epochs", 4)
    assert Path("precious/best.ckpt").read_text() == "thesis"
    assert code == 2, out
    assert "sub is a link, which leads out of the run's folder; remove it" in out
    (RUN / "checkpoints/sub").unlink()
    (RUN / ".lock").symlink_to("../../../precious/best.ckpt")
    code, out = train("--ckpt_path", RUN / "checkpoints/last.ckpt", "--max_epochs", 4)
    assert (code, "is a link" in out, Path("precious/best.ckpt").read_text()) == (2, True, "thesis"), out


@posix
@pytest.mark.parametrize("name", ["by_epoch", "exact"])
def test_curves_beside_a_run_follow_no_link_out_of_it(name: str, train: Train) -> None:
    assert train(*BASE, "--max_epochs", 2)[0] == 0
    Path("precious").mkdir()
    shutil.rmtree(RUN / name, ignore_errors=True)
    (RUN / name).symlink_to("../../../precious")
    code, out = train("--ckpt_path", RUN / "checkpoints/last.ckpt", "--max_epochs", 4)
    assert (code, f"{name} is a link" in out, [*Path("precious").iterdir()]) == (2, True, []), out


def test_checkpoints_of_ones_own_may_lie_in_folders_of_the_run(train: Train) -> None:
    mine = "{class_path: ModelCheckpoint, init_args: {filename: '{epoch}/a/x', save_top_k: -1}}"
    code, out = train(*BASE, "--max_epochs", 3, "--trainer.callbacks", f"[{mine}]")
    assert code == 0, out
    assert len(list((RUN / "checkpoints").rglob("x.ckpt"))) == 3


def test_runs_of_an_older_version_are_told_apart_by_all_of_their_config(train: Train) -> None:
    assert train(*BASE, "--max_epochs", 2)[0] == 0
    text = (RUN / "config.yaml").read_text()
    old = {"config": text.partition("\n")[2]}
    (RUN / "config.yaml").write_text(old["config"])
    assert is_run_of(RUN, old)
    assert not is_run_of(RUN, {"config": old["config"].replace("seed_everything: 0", "seed_everything: 7")})


@posix
def test_a_config_that_could_be_read_for_ever_is_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.yaml")
    assert (mark_of(tmp_path), is_run_of(tmp_path, {"run": "a"})) == (None, False)
    (tmp_path / "config.yaml").unlink()
    (tmp_path / "config.yaml").symlink_to("/dev/zero")
    assert (mark_of(tmp_path), is_run_of(tmp_path, {"run": "a"})) == (None, False)


def packed(path: Path) -> None:
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("last/data/99", bytes(1 << 20))


def repeated(path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["state_dict"]["hypothesis.weight"] = torch.zeros(1, 1).expand(1, 3 * 10**9)

    edit(path, change)


def nested(path: Path) -> None:
    many: list[Any] = [1] * 10
    for _ in range(12):
        many = [many] * 10
    edit(path, lambda content: content["hyper_parameters"].update(optimizer=many))


def deep(path: Path) -> None:
    value: list[Any] = []
    for _ in range(100):
        value = [value]
    edit(path, lambda content: content["hyper_parameters"].update(optimizer=value))


def twice(path: Path) -> None:
    edit(path, lambda content: content["columns"].update(features=["x1", "x1", "x2"]))


def imaginary(path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["state_dict"]["hypothesis.weight"] = content["state_dict"]["hypothesis.weight"] * 1j

    edit(path, change)


@pytest.mark.parametrize("attack", [packed, repeated, nested, deep, twice, imaginary])
def test_a_checkpoint_that_would_take_all_memory_or_lose_half_is_refused(
    attack: Callable[[Path], None], train: Train
) -> None:
    assert train(*BASE, "--max_epochs", 1)[0] == 0
    path = RUN / "checkpoints/last.ckpt"
    attack(path)
    for arguments in (("test", "--ckpt_path", path), ("--ckpt_path", path, "--max_epochs", 3)):
        code, out = train(*arguments)
        assert code == 2, out
        assert out.splitlines()[-1].startswith("error: ")
        assert "Traceback" not in out


def drop(content: dict[str, Any]) -> None:
    del content["state_dict"]["hypothesis.bias"]


@pytest.mark.parametrize(
    "change",
    [
        drop,
        lambda content: content["state_dict"].update({"hypothesis.weight": torch.zeros(1, 7)}),
        lambda content: content.update(epoch="x"),
        lambda content: content.pop("epoch"),
    ],
)
def test_a_best_checkpoint_that_was_changed_is_one_line(change: Callable[..., Any], train: Train) -> None:
    assert train(*BASE[:4], "--max_epochs", 40)[0] == 0  # near the optimum, else the report is of last.ckpt
    best = RUN / "checkpoints/best.ckpt"
    edit(best, change)
    code, out = train("--ckpt_path", RUN / "checkpoints/last.ckpt", "--max_epochs", 40)
    assert code == 2, out
    assert "best.ckpt" in out.splitlines()[-1]
    assert "Traceback" not in out


def test_a_name_that_is_too_long_for_a_file_is_none_of_the_runs(train: Train) -> None:
    assert train(*BASE, "--max_epochs", 2)[0] == 0

    def change(content: dict[str, Any]) -> None:
        for state in content["callbacks"].values():
            if "best_model_path" in state:
                state["best_model_path"] = f"{state['dirpath']}/{'x' * 300}.ckpt"

    edit(RUN / "checkpoints/last.ckpt", change)
    code, out = train("--ckpt_path", RUN / "checkpoints/last.ckpt", "--max_epochs", 4)
    assert code == 0, out


def test_a_config_with_a_long_name(train: Train) -> None:
    path = Path("x" * 120 + ".yaml")
    path.write_text("trainer: {max_epochs: 1}")
    code, out = train("--config", path, *BASE)
    assert code == 0, out
    assert Path("runs", "x" * 100, "version_0").is_dir()


def test_columns_that_differ_by_less_than_float32_holds_are_kept_as_float64(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Start and end of something, as Unix times: what matters is how long it took."""
    monkeypatch.setattr("linreg.tables.csv_data.MAX_CELLS", 1_000)
    rng = np.random.default_rng(0)
    start = rng.integers(500_000_000, 1_750_000_000, 5_000)
    end = start + rng.exponential(100, 5_000).astype(int)
    rows = "\n".join(f"{a},{b},{b - a}" for a, b in zip(start, end, strict=True))
    Path("t.csv").write_text(f"start,end,y\n{rows}\n")
    code, out = train(
        *("--data.path", "t.csv", "--data.target", "y", "--data.cache", "cache"),
        *("--max_epochs", 1, "--model.lr", 0.05),
    )
    assert code == 0, out
    found = {row["name"]: float(row["exact"]) for row in read_rows(RUN / "coefficients.csv")}
    assert (found["start"], found["end"]) == (pytest.approx(-1, abs=1e-6), pytest.approx(1, abs=1e-6))


def test_float32_is_enough_for_columns_that_are_apart() -> None:
    rng = np.random.default_rng(0)
    plain = rng.normal(size=(1_000, 20)) + 5
    assert not _is_bent(plain)
    assert not _is_bent(np.column_stack([plain, plain[:, 0] + rng.normal(size=1_000) / 1_000]))
    whole = rng.integers(0, 100, (1_000, 3)).astype(float)
    assert not _is_bent(np.column_stack([whole, whole.sum(axis=1)]))  # which float32 holds exactly
    assert not _is_bent(np.column_stack([whole, np.ones(1_000), np.full(1_000, np.nan)]))
    assert _is_bent(np.column_stack([plain, plain[:, 0] + rng.normal(size=1_000) / 1e7]))


def test_what_is_read_is_whole(tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "a.ckpt")
    with pytest.raises(InputError, match="no checkpoint of this template"):
        read_checkpoint(tmp_path / "a.ckpt")


@pytest.mark.parametrize("flags", [["--data.test_fraction", 0.2], ["--data.split_seed", 3], []])
def test_rows_that_were_trained_on_are_not_tested(flags: list[object], train: Train) -> None:
    """In another split of the same file, or with its lines in another order."""
    rng = np.random.default_rng(0)
    lines = [f"{a},{b}" for a, b in rng.normal(size=(100, 2))]
    Path("t.csv").write_text("\n".join(["a,y", *lines]))
    fit = ("--data.path", "t.csv", "--data.target", "y", "--max_epochs", 2)
    assert train(*fit, "--data.test_fraction", 0.1)[0] == 0
    best = RUN / "checkpoints/best.ckpt"
    assert train("test", "--ckpt_path", best)[0] == 0
    if not flags:
        Path("t.csv").write_text("\n".join(["a,y", *reversed(lines)]))
    code, out = train("test", "--ckpt_path", best, *flags)
    assert (code, "the rows or their split are not those of the training" in out) == (2, True), out
    code, out = train("test", "--ckpt_path", best, "--data.path", "t.csv")  # which says that all rows are meant
    assert (code, "100 test" in out) == (0, True), out
    assert ("80 of these 100 rows were trained on" in out) == bool(flags), out  # in another order nobody knows


def test_a_copy_of_the_file_of_the_training_is_known(train: Train) -> None:
    rng = np.random.default_rng(0)
    lines = [f"{a},{b},{b}" for a, b in rng.normal(size=(100, 2))]
    Path("t.csv").write_text("\n".join(["a,y,z", *lines]))
    split = ("--data.split", "order", "--data.test_fraction", 0.3)
    assert train("--data.path", "t.csv", "--data.target", "y", "--data.exclude", "z", "--max_epochs", 2, *split)[0] == 0
    best, known = RUN / "checkpoints/best.ckpt", "60 of these 100 rows were trained on"
    for name, content in {"same": lines, "fewer": lines[:-1], "other": [*lines[:-1], "1,2,2"]}.items():
        Path("copy.csv").write_text("\n".join(["y,z,a", *(",".join(line.split(",")[::-1]) for line in content)]))
        code, out = train("test", "--ckpt_path", best, "--data.path", "copy.csv")
        assert (code, known in out) == (0, name == "same"), (name, out)
