"""Files that can be opened: configs and checkpoints that run no code, checkpoints that are refused with the reason."""

import io
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import LightningModule, Trainer

from linreg.runs.folder import new_run_folder
from tests.conftest import LONG, Train, command, started
from tests.tools import CKPT, assert_same, load


@pytest.mark.parametrize(
    "config",
    [
        "model: {class_path: subprocess.Popen, init_args: {args: [touch, PWNED]}}",
        "model: {class_path: evil_module.Model}",
        "model: !!python/object/apply:os.system ['touch PWNED']",
        "trainer: {callbacks: [{class_path: LambdaCallback, init_args: {on_fit_start: os.system}}]}",
        "trainer: {callbacks: [{class_path: lightning.pytorch.callbacks.lambda_function.LambdaCallback}]}",
        "trainer: {callbacks: [{class_path: BackboneFinetuning, init_args: {lambda_func: evil_module.f}}]}",
        "trainer: {callbacks: [{class_path: linreg.command.cli.os.system}]}",
        "trainer: {plugins: [{class_path: evil_module.Plugin}]}",
        "model: {class_path: Regressor, init_args: {hypothesis: linreg.safety.checkpoint_file.load_model}}",
        "model: {class_path: Regressor, init_args: {hypothesis: {class_path: linreg.read_csv}}}",
        "trainer: {strategy: {class_path: evil_module.Strategy}}",
        "trainer: {logger: {class_path: subprocess.Popen, init_args: {args: [touch, PWNED]}}}",
        "trainer: {profiler: {class_path: evil_module.Profiler}}",
        "model: {init_args: {optimizer: {class_path: evil_module.Optimizer}}}",
        "model: {init_args: {optimizer: evil_module.Optimizer}}",
        "model: {init_args: {lr: 0.1, lr_scheduler: {class_path: os.system, init_args: {command: touch PWNED}}}}",
        "data: {class_path: evil_module.Data}",
    ],
)
def test_a_config_cannot_run_code(config: str, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/evil_module.py").write_text("open('PWNED', 'w')")  # can be imported, but lies somewhere else
    monkeypatch.syspath_prepend(tmp_path / "lib")
    Path("evil.yaml").write_text(config)
    code, out = train("--config", "evil.yaml", "--max_epochs", 1)
    assert code == 2, out
    assert "Traceback" not in out
    assert not Path("PWNED").exists()
    assert not Path("runs").exists()


def test_a_module_beside_the_program_may_be_named(train: Train, workplace: Path) -> None:
    Path("mine.py").write_text("from linreg import LinearRegression\nclass Mine(LinearRegression):\n    pass\n")
    code, out = train("--model", "mine.Mine", "--max_epochs", 1)
    assert code == 0, out
    assert train("test", "--ckpt_path", f"{CKPT}/last.ckpt")[0] == 0
    content = load(f"{CKPT}/last.ckpt")
    torch.save(content | {"class_path": "subprocess.Popen"}, "evil.ckpt")
    code, out = train("test", "--ckpt_path", "evil.ckpt")
    assert code == 2
    assert "'subprocess.Popen'" in out
    config = yaml.safe_load(content["config"]) | {
        "model": {"class_path": "subprocess.Popen", "init_args": {"args": "ls"}}
    }
    torch.save(content | {"config": yaml.safe_dump(config)}, "evil.ckpt")
    code, out = train("--ckpt_path", "evil.ckpt")
    assert code == 2
    assert "'subprocess.Popen'" in out


@pytest.mark.parametrize(
    ("config", "parts"),
    [
        ("model: {init_args: {lr: 0.1, lr: 0.2}}", ["line 1", "'lr' is given twice"]),
        ("- model\n- data", ["not a list"]),
        ("# nothing", ["empty"]),
        ("model: {init_args: {lr: 0.1}", ["wrong.yaml: line"]),
        ("model: {init_args: {lr: .nan}}", ["lr=nan", "finite"]),
        ("model: {init_args: {lr: fast}}", ['"lr"', "float", "fast"]),
        ("model: {init_args: {nesterov: maybe}}", ["nesterov", "bool", "maybe"]),
        ("model: {init_args: {penalty: 0.1}}", ["penalty"]),
        ("model: {class_path: LinearRegression, init_args: [{lr: 0.02}]}", ["model", "lr"]),
        ("model: {class_path: linreg.Nope}", ["linreg.Nope"]),
        ("modell: {lr: 1}", ["modell"]),
        ("trainer: {max_epochs: 1.5}", ["max_epochs", "1.5"]),
        ("trainer: null", ["trainer: null"]),
        ("seed_everything: -3", ["--seed_everything", "-3"]),
        ("trainer: {max_epochs: -5}", ["max_epochs", "-5"]),
    ],
)
def test_a_config_that_is_wrong(config: str, parts: list[str], train: Train) -> None:
    Path("wrong.yaml").write_text(config)
    code, out = train("--config", "wrong.yaml")
    assert code == 2, out
    assert len(out.splitlines()) == 1, out
    assert all(part in out for part in parts), out
    assert not Path("runs").exists()


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch PWNED",)


def plain_lightning(path: str) -> None:
    trainer = Trainer(max_epochs=0, logger=False, enable_progress_bar=False, enable_model_summary=False)
    trainer.strategy.connect(LightningModule())
    trainer.save_checkpoint(path)


def test_what_cannot_be_resumed_or_measured(train: Train) -> None:
    config = "trainer: {callbacks: [{class_path: ModelCheckpoint, init_args: "
    config += "{every_n_train_steps: 4, save_top_k: -1, filename: '{step}'}}]}"
    Path("steps.yaml").write_text(config)
    flags = ["--data.batch_size", 100, "--model.lr", 0.1, "--max_epochs", 2, "--name", "default"]
    assert train("--config", "steps.yaml", *flags)[0] == 0
    good = Path(CKPT, "last.ckpt").read_bytes()
    content = load(f"{CKPT}/last.ckpt")
    Path("empty.ckpt").touch()
    Path("short.ckpt").write_bytes(good[: len(good) // 2])
    Path("folder.ckpt").mkdir()
    Path("random.ckpt").write_bytes(pickle.dumps(Bomb()))
    buffer = io.BytesIO()
    torch.save({"columns": Bomb()}, buffer)
    Path("bomb.ckpt").write_bytes(buffer.getvalue())
    plain_lightning("plain.ckpt")
    torch.save(content | {"format": 99}, "newer.ckpt")
    torch.save(content | {"pytorch-lightning_version": "9.1.0"}, "lightning.ckpt")
    torch.save({k: v for k, v in content.items() if k != "optimizer_states"}, "weights.ckpt")
    torch.save(content | {"class_path": "linreg.regression.regressor.Regressor"}, "other.ckpt")
    for name, extra, part in (
        ("none.ckpt", [], "no such checkpoint"),
        ("empty.ckpt", [], "no whole checkpoint"),
        ("short.ckpt", [], "no whole checkpoint"),
        ("folder.ckpt", [], "a folder or the like, and no checkpoint file"),
        ("random.ckpt", [], "no whole checkpoint"),
        ("bomb.ckpt", [], "not safe to load"),
        ("plain.ckpt", [], "no checkpoint of this template"),
        ("newer.ckpt", [], "newer version of this template"),
        ("lightning.ckpt", [], "Lightning 9.1.0"),
        ("weights.ckpt", [], "weights only"),
        ("other.ckpt", [], "linreg.Regressor"),
        (f"{CKPT}/last.ckpt", ["--data.num_features", "5", "--max_epochs", "4"], "columns"),
        (f"{CKPT}/step=4.ckpt", [], "inside an epoch, at step 4"),
        (f"{CKPT}/step=8.ckpt", [], "inside an epoch, at step 8"),
    ):
        code, out = train("test", "--ckpt_path", name) if "step" in name else train("--ckpt_path=" + name, *extra)
        if "step" in name:
            assert code == 0, out
            code, out = train("--ckpt_path=" + name)
        assert code == 2, f"{name}: {out}"
        assert out.count("error:") == 1, f"{name}: {out}"
        assert part in out.splitlines()[-1], f"{name}: {out}"
    assert not Path("PWNED").exists()


UNSAFE = """
import random
import numpy as np
import torch
from linreg import LinearRegression, SyntheticData

class Data(SyntheticData):
    def state_dict(self):
        return {"rows": np.arange(3), "draws": np.random.default_rng().bit_generator.state}

class Model(LinearRegression):
    def on_save_checkpoint(self, checkpoint):
        checkpoint["mine"] = {"draws": random.Random()}

class Local(LinearRegression):
    def on_save_checkpoint(self, checkpoint):
        checkpoint["mine"] = lambda: 1

class Plain(LinearRegression):
    def on_save_checkpoint(self, checkpoint):
        checkpoint["mine"] = {"draws": random.Random(1).getstate(), "rows": [0, 1], "types": {torch.int8}}

class Cosine(LinearRegression):
    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=np.float64(0.1))
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.5 + 0.5 * np.cos(epoch / 4))
        return [optimizer], [schedule]
"""


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        (["--data", "mine.Data"], "the checkpoint would hold numpy.dtype, numpy.ndarray in its 'Data', and could not"),
        (
            ["--model", "mine.Model"],
            "the checkpoint would hold random.Random in its 'mine', and could not be",
        ),
        (["--model", "mine.Local"], "the checkpoint: AttributeError: Can't pickle local object"),
        (["--model", "mine.Plain"], ""),
        (["--model", "mine.Cosine"], ""),
    ],
)
def test_a_checkpoint_that_could_not_be_read_is_not_written(flags: list[str], found: str, train: Train) -> None:
    """It would be told of at the end of the run, or when it is needed."""
    Path("mine.py").write_text(UNSAFE)
    code, out = train(*flags, "--max_epochs", 2)
    assert (code, out.count("error: ")) == (2 * bool(found), bool(found)), out
    assert found in out, out
    assert Path(CKPT, "last.ckpt").exists() == (not found)
    if "mine.Cosine" in flags:  # whose rates are numbers of numpy's
        assert train("--ckpt_path", "last", "--max_epochs", 4)[0] == 0
        assert train(*flags, "--max_epochs", 4, "--name", "whole")[0] == 0
        whole, parts = load("runs/whole/version_0/checkpoints/last.ckpt"), load(f"{CKPT}/last.ckpt")
        for part in ("state_dict", "optimizer_states", "lr_schedulers"):
            assert_same(whole[part], parts[part])


@pytest.mark.slow
def test_two_runs_at_once_get_two_folders(workplace: Path) -> None:
    with started(command("--max_epochs", 1)) as one, started(command("--max_epochs", 1)) as other:
        for run in (one, other):
            _, err = run.communicate(timeout=LONG)
            assert run.returncode == 0, err
    for number in (0, 1):
        assert Path(f"runs/default/version_{number}/metrics.json").exists()


def test_a_folder_that_another_run_has_made_meanwhile(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As above, at the moment that two processes seldom meet at."""

    def look(folder: Path, pattern: str) -> list[Path]:
        (folder / "version_0").mkdir(parents=True)
        return []

    monkeypatch.setattr(Path, "glob", look)
    assert new_run_folder("default") == Path("runs/default/version_1")


def test_a_column_name_is_no_formula(train: Train) -> None:
    names = ["=a", "+b", "-c", "@d"]
    rows = [[(i * k) % 11 for k in (1, 3, 5, 7)] for i in range(40)]
    lines = [",".join(map(str, [*row, sum(row)])) for row in rows]
    Path("t.csv").write_text("\n".join([",".join([*names, "y"]), *lines]))
    assert train("--data.path", "t.csv", "--data.target", "y", "--max_epochs", 1)[0] == 0
    assert train("predict", "--ckpt_path", f"{CKPT}/last.ckpt", "--data.path", "t.csv")[0] == 0
    header = Path("predictions.csv").read_text().splitlines()[0].split(",")
    first = [row.split(",")[0] for row in Path("runs/default/version_0/coefficients.csv").read_text().splitlines()]
    assert header == [*(f"'{name}" for name in names), "y", "prediction"]
    assert first == ["name", *(f"'{name}" for name in names), "(intercept)"]


@pytest.mark.slow
@pytest.mark.parametrize("place", ["dirpath: /tmp/else", "dirpath: ../..", "filename: ../../x", "filename: /tmp/x"])
def test_a_checkpoint_of_ones_own_stays_in_the_run(place: str, train: Train) -> None:
    Path("own.yaml").write_text(f"trainer: {{callbacks: [{{class_path: ModelCheckpoint, init_args: {{{place}}}}}]}}")
    code, text = train("--config", "own.yaml")
    assert code == 2
    assert "checkpoints lie in the run's own folder" in text
    assert not Path("runs").exists()
    Path("own.yaml").write_text("trainer: {callbacks: [{class_path: ModelCheckpoint, init_args: {filename: mine}}]}")
    assert train("--config", "own.yaml", "--max_epochs", 1)[0] == 0
    assert Path("runs/own/version_0/checkpoints/mine.ckpt").is_file()
