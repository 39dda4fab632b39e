"""The command line: exit codes, one-line errors, resuming, stopping, measuring, predicting."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from linreg import LeastSquares, LinearRegression, SyntheticData
from linreg.regression.exact.learning_rate import stability_limit
from tests.conftest import Process, Train, read_rows
from tests.tools import CKPT, assert_same, load, scalars


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--model.lrr", "1"], ["lrr", "did you mean 'lr'"]),
        (["--max_epoch", "3"], ["--max_epoch", "did you mean 'max_epochs'"]),
        (["--max_epochs", "1.5"], ["max_epochs", "1.5"]),
        (["--config", "configs/cvs.yaml"], ["configs/cvs.yaml", "csv.yaml"]),
        (["--data.path", "nope.csv", "--data.target", "y"], ["nope.csv", "no such file"]),
        (["--data.path", "configs/penguins.csv", "--data.target", "body_mass"], ["'body_mass_g'"]),
        (["--model.lr", "-1"], ["lr=-1", "above 0"]),
        (["--model.optimizer", "Adem"], ["did you mean 'Adam'"]),
        (["--data.val_fraction", "2"], ["val_fraction=2", "0 to 1"]),
        (["--name", "../x"], ["--name", "../x"]),
        (["doctor", "--name", "a/b"], ["--name 'a/b': at most 100 letters"]),
        (["--accelerator", "abacus"], ["abacus", "cpu"]),
        (["--config", "configs/empty.yaml"], ["configs/empty.yaml", "empty"]),
        (["--config", "configs/binary.yaml"], ["configs/binary.yaml", "YAML"]),
        (["--model.lr_scheduler", "Nope"], ["'Nope'"]),
        (["--ckpt_path", "nope.ckpt"], ["nope.ckpt", "no such checkpoint"]),
        (["--ckpt_path", "configs"], ["configs: a folder or the like, and no checkpoint file"]),
        (["--config", "configs"], ["--config configs: a folder or the like", "a YAML file is expected"]),
        (["--ckpt_path", "configs/csv.yaml"], ["configs/csv.yaml", "no whole checkpoint"]),
        (["--ckpt_path", "http://x/y.ckpt"], ["local file"]),
        (["--data.path", "absent.csv", "--default_root_dir", "x"], ["--default_root_dir: "]),  # before it is read
        (["--model", "__main__.Net"], ["'__main__.Net' is no class", "in a script or notebook"]),
        (["test"], ["--ckpt_path"]),
        (["predict", "--data.path", "configs/penguins.csv"], ["--ckpt_path"]),
    ],
)
def test_a_mistake_is_one_message_and_exit_2(arguments: list[str], parts: list[str], train: Train) -> None:
    Path("configs/empty.yaml").write_text("")
    Path("configs/binary.yaml").write_bytes(bytes(range(256)))
    code, out = train(*arguments)
    assert code == 2, out
    assert "Traceback" not in out
    assert all(part in out for part in parts), out
    assert "--name" not in arguments or out.count("\n") == 1  # before anything is read
    assert not Path("runs").exists()


@pytest.mark.slow
def test_no_gpu_is_one_line(process: Process) -> None:
    done = process("--accelerator", "gpu")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "gpu" in done.stderr


@pytest.mark.slow
def test_help_begins_with_what_most_people_need(process: Process) -> None:
    done = process("--help")
    assert done.returncode == 0
    screen = "\n".join(done.stdout.splitlines()[:14])
    assert all(word in screen for word in ("--data.path", "predict", "--max_epochs", "--accelerator"))
    for flag in ("--model.lr", "--model.momentum", "--data.target", "--data.num_rows", "--trainer.max_epochs"):
        assert flag in done.stdout


def test_divergence_is_exit_1_and_leaves_good_checkpoints(train: Train) -> None:
    code, out = train("--model.lr", 1.5, "--max_epochs", 100)
    assert code == 1
    assert "diverge above 0.9" in out
    assert "Traceback" not in out
    state = load(f"{CKPT}/last.ckpt")["state_dict"]
    assert state["hypothesis.weight"].abs().max() < 1_000


@pytest.mark.parametrize(
    "settings",
    [
        ["--data.batch_size", "64"],
        ["--data.batch_size", "64", "--model.lr", "0.1", "--model.momentum", "0.9"]
        + ["--model.lr_scheduler", "{class_path: torch.optim.lr_scheduler.StepLR, init_args: {step_size: 2}}"],
    ],
)
def test_two_epochs_and_two_more_are_four(settings: list[str], train: Train) -> None:
    assert train(*settings, "--max_epochs", 4, "--name", "four")[0] == 0
    assert train(*settings, "--max_epochs", 2)[0] == 0
    code, out = train("--ckpt_path", f"{CKPT}/last.ckpt", "--max_epochs", 4)
    assert code == 0
    assert "max_epochs: 2 -> 4" in out
    one, two = (load(f"runs/{name}/version_0/checkpoints/last.ckpt") for name in ("four", "default"))
    for part in ("global_step", "state_dict", "optimizer_states"):
        assert_same(one[part], two[part])
    assert fitted(scalars("runs/four/version_0")) == fitted(scalars("runs/default/version_0"))


@pytest.mark.parametrize("more", [[], ["--save_every_n_steps", 5, "--max_steps", 150]])
def test_the_best_so_far_is_the_best_of_a_run_that_goes_on(more: list[object], train: Train) -> None:
    typed = ["--batch_size", 17, "--lr", 0.002, "--val_check_interval", 0.4]
    assert train(*typed, "--max_epochs", 4, "--name", "whole")[0] == 0
    assert train(*typed, "--max_epochs", 4 if more else 3, *more)[0] == 0
    code, out = train("--ckpt_path", f"{CKPT}/last.ckpt", "--max_epochs", 4, "--max_steps", -1)
    assert code == 0, out
    for name in ("best", "last"):
        one, two = (load(f"runs/{run}/version_0/checkpoints/{name}.ckpt") for run in ("whole", "default"))
        assert one["global_step"] == two["global_step"]
        ranks = [
            {n: state.get(n) for n in ("rank", "near", "best_model_score")}
            for each in (one, two)
            for key, state in each["callbacks"].items()
            if key.startswith("BestCheckpoint")
        ]
        assert ranks[0] == ranks[1]


def fitted(curves: dict[str, Any]) -> dict[str, Any]:
    """Without what each run is measured by at its end, which one that was resumed has twice."""
    return {tag: points for tag, points in curves.items() if "/test" not in tag}


@pytest.mark.slow
def test_going_back_to_an_earlier_checkpoint_leaves_each_step_once(train: Train) -> None:
    assert train("--max_epochs", 2)[0] == 0
    shutil.copy(f"{CKPT}/last.ckpt", f"{CKPT}/two.ckpt")
    for epochs in (6, 4):
        assert train("--ckpt_path", f"{CKPT}/two.ckpt", "--max_epochs", epochs)[0] == 0
    assert [step for step, _ in scalars("runs/default/version_0")["loss/train"]] == [0, 1, 2, 3]


@pytest.mark.slow
@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
def test_a_rate_just_below_the_limit_converges_and_just_above_is_caught(
    momentum: float, nesterov: bool, train: Train
) -> None:
    summary = LeastSquares(3).update(*SyntheticData(noise_std=1.0).splits["train"])
    top = stability_limit(2 * float(summary.eigenvalues[0]), momentum, nesterov)
    flags = ["--model.momentum", momentum, "--model.nesterov", str(nesterov).lower(), "--max_epochs", 320]
    flags += ["--data.noise_std", 1.0, "--check_val_every_n_epoch", 320, "--enable_checkpointing", "false"]
    code, out = train("--model.lr", 0.99 * top, *flags, "--check", 0.01)
    assert code == 0, out
    code, out = train("--model.lr", 1.01 * top, *flags)
    assert code == 1
    assert "warning: this lr diverges" in out
    assert "the training diverged" in out
    assert f"diverge above {top:.3g}" in out


def test_check_is_exit_1_when_it_is_missed(train: Train) -> None:
    assert train("--check", 0.01)[0] == 0
    code, out = train("--check", 0.01, "--max_epochs", 1)
    assert code == 1
    assert "missed --check 0.01" in out
    assert Path("runs/default/version_1/metrics.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags",
    [
        ["--model.weight_decay", 0.1],
        ["--model.nesterov", "true", "--data.batch_size", 100],
        ["--model.bias", "false", "--data.batch_size", 100],
        ["--data.noise_std", 0],
    ],
)
def test_whatever_is_typed_the_rest_is_chosen_so_that_it_arrives(flags: list[object], train: Train) -> None:
    code, out = train(*flags, "--check", 0.01)
    assert code == 0, out


def test_confidence_intervals(train: Train) -> None:
    assert train("--confidence", 0.95, "--data.num_rows", 20, "--max_epochs", 2)[0] == 0
    for row in read_rows("runs/default/version_0/coefficients.csv"):
        half = (float(row["ci_high"]) - float(row["ci_low"])) / 2
        assert half / float(row["std_error"]) == pytest.approx(2.178812829663, rel=1e-6)  # t, 12 degrees of freedom


def test_no_interval_is_given_around_coefficients_that_weight_decay_has_drawn_to_0(train: Train) -> None:
    code, out = train("--confidence", 0.95, "--model.weight_decay", 2, "--max_epochs", 2)
    assert (code, out.count("\n")) == (2, 1)
    assert "--confidence 0.95: --model.weight_decay 2 draws" in out
    assert not Path("runs").exists()


def test_collinear_and_constant_columns_are_named_and_share_the_minimum_norm(train: Train) -> None:
    rows = [f"{i},{2 * i + 1},7,{(i * 37 % 60) / 10},{3 * i + i * i % 7}" for i in range(60)]
    Path("t.csv").write_text("\n".join(["a,twice,seven,d,y", *rows]))
    code, out = train("--data.path", "t.csv", "--data.target", "y", "--check", 0.01)
    assert code == 0, out
    assert "constant or collinear, without coefficients of their own: a, twice, seven" in " ".join(out.split())
    for row in read_rows("runs/default/version_0/coefficients.csv")[:3]:
        assert float(row["learned"]) == pytest.approx(float(row["exact"]), rel=1e-2)
        assert row["std_error"] == ""


def test_of_many_constant_columns_it_is_said_how_many_are_not_named(train: Train) -> None:
    names = ",".join(f"c{i}" for i in range(23))
    Path("t.csv").write_text("\n".join([f"{names},d,y", *("7," * 23 + f"{i},{i * 37 % 60}" for i in range(60))]))
    code, out = train("--data.path", "t.csv", "--data.target", "y")
    assert code == 0, out
    assert "c18, c19 and 3 more" in " ".join(out.split())


def test_too_many_columns_for_the_exact_solution(train: Train) -> None:
    code, out = train("--data.num_features", 2_001, "--data.num_rows", 50, "--max_epochs", 2)
    assert code == 0, out
    assert "more than 2,000 features: no exact solution" in out


@pytest.mark.slow
def test_a_typed_rate_beats_the_checkpoint(train: Train) -> None:
    assert train("--model.lr", 0.1, "--max_epochs", 2)[0] == 0
    code, out = train("--ckpt_path", f"{CKPT}/last.ckpt", "--max_epochs", 3, "--model.lr", 0.2)
    assert code == 0
    assert "lr: 0.1 -> 0.2" in out
    groups = load(f"{CKPT}/last.ckpt")["optimizer_states"][0]["param_groups"]
    assert [group["lr"] for group in groups] == [0.2]


@pytest.mark.slow
def test_other_rows_are_refused_on_resume(train: Train) -> None:
    assert train("--max_epochs", 2)[0] == 0
    for flag, value in (("--data.split_seed", 1), ("--data.num_rows", 900), ("--data.num_features", 2)):
        code, out = train("--ckpt_path", f"{CKPT}/last.ckpt", "--max_epochs", 3, flag, value)
        assert code == 2
        assert "start a new run" in out


@pytest.mark.slow
def test_measuring_a_checkpoint(train: Train) -> None:
    assert train("--config", "configs/csv.yaml", "--name", "default")[0] == 0
    metrics = json.loads(Path("runs/default/version_0/metrics.json").read_text())
    before = sorted(Path("runs").rglob("*"))
    for subcommand, stage in (("validate", "val"), ("test", "test")):
        code, out = train(subcommand, "--ckpt_path", f"{CKPT}/best.ckpt")
        assert code == 0, out
        found = {line.split()[0]: float(line.split()[1]) for line in out.splitlines() if f"/{stage}" in line}
        for name, value in metrics[stage].items():
            assert found[f"{name}/{stage}"] == pytest.approx(value, rel=1e-5)
    code, out = train("test", "--ckpt_path", f"{CKPT}/best.ckpt", "--data.path", "configs/penguins.csv")
    assert "0 train, 0 val, 342 test" in out
    assert sorted(Path("runs").rglob("*")) == before


def test_predicting_row_for_row(train: Train) -> None:
    assert train("--config", "configs/csv.yaml", "--name", "default")[0] == 0
    model = LinearRegression.load_from_checkpoint(f"{CKPT}/best.ckpt")
    rows = read_rows("configs/penguins.csv")
    with open("new.csv", "w", newline="") as file:  # no target, columns in another order
        writer = csv.DictWriter(file, ["year", "sex", *model.feature_names[:3]], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    code, out = train("predict", "--ckpt_path", f"{CKPT}/best.ckpt", "--data.path", "new.csv", "--output", "out.csv")
    assert code == 0, out
    assert "344 predictions, 2 of them empty" in out
    found = read_rows("out.csv")
    assert [row["sex"] for row in found] == [row["sex"] for row in rows]
    coefficients = {row["name"]: float(row["learned"]) for row in read_rows("runs/default/version_0/coefficients.csv")}
    intercept = coefficients.pop("(intercept)")
    for row, predicted in zip(rows, found, strict=True):
        if row["body_mass_g"] == "NA":
            assert predicted["prediction"] == ""
            continue
        x = [float(row[name]) for name in model.feature_names]
        by_model = model(torch.tensor([x], dtype=torch.float64)).item()
        by_equation = intercept + np.dot(list(coefficients.values()), x)
        assert float(predicted["prediction"]) == pytest.approx(by_model, rel=1e-6)
        assert float(predicted["prediction"]) == pytest.approx(by_equation, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("bill_length_mm,year\n1,2\n", ["'bill_depth_mm'"]),
        (
            "bill_length_mm,bill_depth_mm,flipper_length_mm,year\n1,2,3,4\n1,2,x,4\n",
            ["line 3", "flipper_length_mm", "'x'"],
        ),
        ("bill_length_mm,bill_depth_mm,flipper_length_mm,year\n1,2,3,4\n1,2,3\n", ["line 3", "3 cells"]),
        ("bill_length_mm,bill_depth_mm,flipper_length_mm,year,prediction\n1,2,3,4,5\n", ["'prediction' already"]),
    ],
)
def test_a_file_that_cannot_be_predicted_leaves_no_output(content: str, parts: list[str], train: Train) -> None:
    assert train("--config", "configs/csv.yaml", "--name", "default", "--max_epochs", 2)[0] == 0
    Path("new.csv").write_text(content)
    before = sorted(Path().iterdir())
    code, out = train("predict", "--ckpt_path", f"{CKPT}/best.ckpt", "--data.path", "new.csv")
    assert code == 2, out
    assert all(part in out for part in parts), out
    assert sorted(Path().iterdir()) == before


def test_a_damaged_checkpoint_is_refused(train: Train) -> None:
    assert train("--max_epochs", 2)[0] == 0
    content = bytearray(Path(CKPT, "last.ckpt").read_bytes())
    content[len(content) // 2] ^= 1
    Path("flipped.ckpt").write_bytes(content)
    Path("short.ckpt").write_bytes(content[:-100])
    for path in ("flipped.ckpt", "short.ckpt"):
        code, out = train("test", "--ckpt_path", path)
        assert code == 2
        assert path in out
