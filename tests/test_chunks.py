"""Mini-batches that share a step of Lightning's loop: the same run, to the bit."""

import re
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.callbacks import LambdaCallback

import linreg
from linreg import InputError, LinearRegression, SyntheticData
from tests.conftest import Train, read_metrics
from tests.tools import assert_same, load, scalars

STEP_LR = "{class_path: torch.optim.lr_scheduler.StepLR, init_args: {step_size: 9, gamma: 0.9}, interval: step}"
SGD = ["--model.lr", 0.05, "--model.momentum", 0.9, "--model.lr_scheduler", STEP_LR]
SETTINGS = {
    "left to the data": [],
    "sgd": SGD,
    "nesterov and weight decay": [*SGD, "--model.nesterov", "true", "--model.weight_decay", 0.1],
    "plain": ["--model.lr", 0.1],
    "no bias": [*SGD, "--model.bias", "false"],
    "adam": ["--model.optimizer", "Adam", "--model.lr", 0.1, "--model.lr_scheduler", "{class_path: "
             "torch.optim.lr_scheduler.ExponentialLR, init_args: {gamma: 0.9}}"],
}  # fmt: skip
RUN = ["--data.num_rows", 1_003, "--data.batch_size", 16, "--max_epochs", 3]


def run(train: Train, name: str, *args: object) -> dict[str, Any]:
    code, text = train(*RUN, "--name", name, *args)
    assert code == 0, text
    return last(name)


def folder(name: str) -> str:
    return f"runs/{name}/version_0"


def last(name: str) -> dict[str, Any]:
    return load(f"{folder(name)}/checkpoints/last.ckpt")


@pytest.mark.parametrize(
    "settings", [name if name == "sgd" else pytest.param(name, marks=pytest.mark.slow) for name in SETTINGS]
)
def test_a_run_in_chunks_is_the_run_without(train: Train, settings: str) -> None:
    before = run(train, "plain", *SETTINGS[settings])
    for size in (7, 100):
        after = run(train, f"chunk{size}", "--chunk", size, *SETTINGS[settings])
        for part in ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "epoch"):
            assert_same(before[part], after[part])
        assert scalars(folder(f"chunk{size}")) == scalars(folder("plain"))
        assert read_metrics(folder(f"chunk{size}"))["run"]["batch_size"] == 16
    if settings == "adam":
        assert "--formula" in train(*RUN, "--chunk", 7, "--formula", "true", *SETTINGS[settings])[1]
        return
    formula = run(train, "formula", "--chunk", 7, "--formula", "true", *SETTINGS[settings])
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "global_step"):
        assert_same(before[part], formula[part], 1e-6)


@pytest.mark.slow
def test_a_bigger_model_and_a_resumed_run(train: Train, workplace: Path) -> None:
    (workplace / "chunked_net.py").write_text(
        "from torch import nn\nfrom linreg import Regressor\n\n\nclass Net(Regressor):\n"
        "    def __init__(self, num_features: int, num_targets: int = 1, **training):\n"
        "        net = nn.Sequential(nn.Linear(num_features, 8), nn.ReLU(), nn.Linear(8, num_targets))\n"
        "        super().__init__(net, num_features, num_targets, **training)\n"
    )
    net = ["--model", "chunked_net.Net", *SGD]
    before = run(train, "plain", *net)
    run(train, "resumed", *net, "--chunk", 7, "--max_epochs", 2)
    assert train("--ckpt_path", "runs/resumed/version_0/checkpoints/last.ckpt", "--max_epochs", 3)[0] == 0
    assert_same(before["state_dict"], last("resumed")["state_dict"])
    assert_same(before["optimizer_states"], last("resumed")["optimizer_states"])
    assert scalars(folder("resumed")) == scalars(folder("plain"))


def test_divergence_is_caught_in_the_same_step(train: Train) -> None:
    diverging = [*RUN, "--model.lr", 3.0, "--data.batch_size", 50]  # 16 steps an epoch
    alone, chunk = (train(*diverging, *chunk)[1] for chunk in ([], ["--chunk", 7]))
    said = [re.search("error: the training diverged: .* step ([0-9]+)", text) for text in (alone, chunk)]
    assert said[0][0] == said[1][0]
    assert int(said[0][1]) % 16 not in (0, 7, 14)  # neither the end of an epoch nor that of a chunk


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--accumulate_grad_batches", 2),
        ("--gradient_clip_val", 1.0),
        ("--limit_train_batches", 3),
        ("--max_steps", 5),
        ("--overfit_batches", 2),
        ("--precision", "bf16-mixed"),
        ("--val_check_interval", 0.5),
        ("--val_check_interval", 1),  # a batch, where 1.0 is an epoch
        ("--devices", 2),
        ("--fast_dev_run", 2),
    ],
)
def test_a_flag_that_counts_batches_is_refused_by_name(train: Train, flag: str, value: object) -> None:
    code, text = train(*RUN, "--chunk", 4, flag, value)
    assert code == 2
    assert "--chunk cannot honour" in text
    assert flag in text
    assert flag == "--limit_train_batches" or "limit_train_batches" not in text
    if flag != "--devices":
        text = train(*RUN, "--formula", "true", flag, value)[1]
        assert f"--formula cannot honour {flag};" in text


def test_an_override_that_a_chunk_would_skip_is_refused(train: Train, workplace: Path) -> None:
    (workplace / "clipped_net.py").write_text(
        "from linreg import LinearRegression\n\n\nclass Net(LinearRegression):\n"
        "    def on_before_optimizer_step(self, optimizer):\n        pass\n"
    )
    code, text = train(*RUN, "--chunk", 4, "--model", "clipped_net.Net")
    assert code == 2
    assert "--chunk cannot honour Net.on_before_optimizer_step" in text
    assert "at least 1" in train(*RUN, "--chunk", 0)[1]


@pytest.mark.parametrize("hook", ["on_train_batch_start", "on_train_batch_end", "on_before_optimizer_step"])
def test_a_lambda_that_a_chunk_would_skip_is_refused(hook: str, workplace: Path) -> None:
    callback: Any = LambdaCallback(**{hook: lambda *_: None})
    with pytest.raises(InputError, match=f"--chunk cannot honour LambdaCallback.{hook};"):
        linreg.run(LinearRegression(3, lr=0.1), SyntheticData(), chunk=4, max_epochs=1, callbacks=[callback])
    linreg.run(LinearRegression(3, lr=0.1), SyntheticData(), max_epochs=1, callbacks=[callback], figures=False)


def test_a_formula_alone_is_one_of_each_mini_batch(train: Train) -> None:
    alone, chunked = (run(train, name, *more, "--formula", "true") for name, more in (("a", []), ("b", ["--chunk", 1])))
    assert_same(alone["state_dict"], chunked["state_dict"])
    assert "--formula" in train(*RUN, "--formula", "true", *SETTINGS["adam"])[1]
