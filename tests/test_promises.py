"""Promises that were broken once: what a checkpoint writes, what a resumed run repeats, what a flag does."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch.callbacks import Callback, StochasticWeightAveraging

from linreg import LinearRegression, SyntheticData, run
from linreg.system.errors import InputError
from tests.conftest import Train, command, completed, posix, read_metrics
from tests.tools import CKPT, assert_same, load

QUICK = ["--data.num_rows", 200, "--max_epochs", 2, "--data.batch_size", 32, "--model.lr", 0.05]
LAST = f"{CKPT}/last.ckpt"
OUTSIDE = {name: value for name, value in os.environ.items() if name not in ("LINREG_FIRST_PROCESS", "WORLD_SIZE")}


def rewritten(**sections: Any) -> Path:
    """A checkpoint whose config has some keys more, at its top or in its trainer."""
    content = load(LAST)
    config = yaml.safe_load(content["config"])
    for key, value in sections.items():
        (config["trainer"] if key == "inside" else config).update(value)
    torch.save(content | {"config": yaml.safe_dump(config)}, "rewritten.ckpt")
    return Path("rewritten.ckpt")


CSV = {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": "evil"}}


@pytest.mark.parametrize(
    "sections",
    [
        {"top": {"trainer.logger": CSV}},
        {"top": {"trainer.profiler": {"class_path": "AdvancedProfiler", "init_args": {"dirpath": "evil"}}}},
        {"inside": {"logger.class_path": CSV["class_path"], "logger.init_args": CSV["init_args"]}},
        {"inside": {"callbacks": [{"class_path": "mine.EarlyStopping"}]}},
        {"top": {"data.init_args.cache": "evil"}},
    ],
)
def test_a_checkpoint_names_nothing_by_another_spelling(sections: dict, train: Train, workplace: Path) -> None:
    Path("mine.py").write_text("open('evil', 'w')")
    assert train(*QUICK)[0] == 0
    code, out = train("--ckpt_path", rewritten(**sections), "--max_epochs", 4)
    assert code == 2, out
    assert "Traceback" not in out
    assert not Path("evil").exists()


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_two_and_two_are_four_in_float64(optimizer: str, train: Train) -> None:
    typed = [*QUICK, "--precision", "64-true", "--model.optimizer", optimizer]
    assert train(*typed, "--max_epochs", 4, "--name", "four")[0] == 0
    assert train(*typed)[0] == 0
    assert train("--ckpt_path", LAST, "--max_epochs", 4)[0] == 0
    assert_same(load("runs/four/version_0/checkpoints/last.ckpt")["state_dict"], load(LAST)["state_dict"])
    assert read_metrics("runs/four/version_0") == read_metrics("runs/default/version_0")
    tested = train("test", "--ckpt_path", LAST, "--precision", "64-true")[1]
    assert tested.split("loss/test")[1].split()[0]


@pytest.mark.parametrize("callback", ["GradientAccumulationScheduler", "EMAWeightAveraging"])
def test_a_chunk_with_what_happens_between_two_batches_is_refused(callback: str, train: Train) -> None:
    args = {"scheduling": {0: 4}} if callback.startswith("Gradient") else {}
    Path("c.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": [{"class_path": callback, "init_args": args}]}}))
    code, out = train(*QUICK, "--config", "c.yaml", "--chunk", 4)
    assert code == 2
    assert callback in out


def test_a_chunk_with_an_own_callback_between_two_batches_is_refused(workplace: Path) -> None:
    class Watcher(Callback):
        def on_train_batch_end(self, *args: Any) -> None:
            """Which would see a chunk for a batch."""

    with pytest.raises(InputError, match=r"Watcher.on_train_batch_end"):
        run(LinearRegression(3), SyntheticData(), callbacks=[Watcher()], chunk=4, max_epochs=1)


@pytest.mark.filterwarnings("ignore:You requested to overfit")
def test_overfitting_sees_the_same_batches_in_each_epoch(train: Train, workplace: Path, monkeypatch: Any) -> None:
    Path("mine.py").write_text(
        "from linreg import LinearRegression\n"
        "class Net(LinearRegression):\n"
        "    def training_step(self, batch, batch_idx):\n"
        "        print('sum', float(batch[0].sum()), flush=True)\n"
        "        return super().training_step(batch, batch_idx)\n"
    )
    out = train("--model", "mine.Net", *QUICK, "--overfit_batches", 1, "--max_epochs", 3)[1]
    sums = {line for line in out.splitlines() if line.startswith("sum")}
    assert len(sums) == 1, out


def test_a_run_that_has_stopped_early_has_stopped(train: Train) -> None:
    stop = {"class_path": "EarlyStopping", "init_args": {"monitor": "loss/val", "patience": 1, "min_delta": 9.0}}
    Path("stop.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": [stop]}}))
    assert train(*QUICK, "--max_epochs", 9, "--config", "stop.yaml", "--name", "default")[0] == 0
    before, steps = read_metrics("runs/default/version_0"), load(LAST)["global_step"]
    for _ in range(2):
        code, out = train("--ckpt_path", LAST)
        assert code == 0, out
    assert (read_metrics("runs/default/version_0"), load(LAST)["global_step"]) == (before, steps)
    assert train("--ckpt_path", LAST, "--model.lr", 0.01)[0] == 2  # which would change the record only
    stop["init_args"]["patience"] = 3  # type: ignore[index]
    Path("stop.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": [stop]}}))
    code, out = train("--ckpt_path", LAST, "--config", "stop.yaml", "--name", "default")
    assert code == 0, out
    assert load(LAST)["global_step"] > steps


def test_a_run_that_has_reached_the_optimum_has_reached_it(train: Train) -> None:
    assert train("--data.num_rows", 200)[0] == 0
    before, steps = read_metrics("runs/default/version_0"), load(LAST)["global_step"]
    code, out = train("--ckpt_path", LAST)
    assert code == 0, out
    assert (read_metrics("runs/default/version_0"), load(LAST)["global_step"]) == (before, steps)


@pytest.mark.parametrize("flags", [["--max_epochs", 1], ["--max_steps", 3]])
def test_less_than_was_done_is_refused(flags: list, train: Train) -> None:
    assert train(*QUICK)[0] == 0
    before = Path("runs/default/version_0/config.yaml").read_bytes()
    code, out = train("--ckpt_path", LAST, *flags)
    assert code == 2, out
    assert str(flags[0]) in out
    assert Path("runs/default/version_0/config.yaml").read_bytes() == before


@pytest.mark.parametrize("name", ["best", "hpc"])
def test_a_checkpoint_may_be_called_anything(name: str, train: Train) -> None:
    assert train(*QUICK)[0] == 0
    Path(name).write_bytes(Path(LAST).read_bytes())
    code, out = train("--ckpt_path", name, "--max_epochs", 3)
    assert code == 0, out
    assert load("runs/default/version_1/checkpoints/last.ckpt")["global_step"] == 3 * 5


def test_what_slurm_has_left_is_not_taken_up(train: Train) -> None:
    assert train(*QUICK)[0] == 0
    Path("runs/hpc_ckpt_1.ckpt").write_bytes(Path(LAST).read_bytes())
    code, out = train(*QUICK, "--max_epochs", 1)
    assert code == 0, out
    assert load("runs/default/version_1/checkpoints/last.ckpt")["global_step"] == 5


@posix
@pytest.mark.parametrize(
    "variables",
    [{"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}, {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}],
)
def test_processes_without_a_launcher_are_told_so(variables: dict, workplace: Path) -> None:
    variables = variables | {"MASTER_ADDR": "localhost", "MASTER_PORT": "29411"}
    run = completed(command(*QUICK, "--devices", 2), env=OUTSIDE | variables)
    assert run.returncode == 2
    assert "--devices" in run.stderr
    assert run.stderr.count("error:") == 1


def test_another_rank_alone_says_why(workplace: Path) -> None:
    run = completed(command(*QUICK), env=OUTSIDE | {"LOCAL_RANK": "1"})
    assert run.returncode == 2
    assert "error:" in run.stderr


@pytest.mark.parametrize("value", ["", "x"])
def test_a_rank_that_is_no_number_is_one_line(value: str, workplace: Path) -> None:
    run = completed(command(*QUICK), env=OUTSIDE | {"LOCAL_RANK": value})
    assert run.returncode == 2
    assert run.stderr.count("\n") == 1, run.stderr


def test_a_path_in_a_checkpoint_stays_in_its_run(train: Train, tmp_path: Path) -> None:
    assert train(*QUICK)[0] == 0
    content = load(LAST)
    other = tmp_path / "elsewhere" / "best.ckpt"
    other.parent.mkdir()
    torch.save(
        content | {"file": "best.ckpt", "state_dict": {k: v * 100 for k, v in content["state_dict"].items()}}, other
    )
    state = next(value for key, value in content["callbacks"].items() if key.startswith("BestCheckpoint"))
    state.update(dirpath="", best_model_path=str(other), kth_best_model_path=str(other), rank=2)
    state["best_k_models"] = {str(other): state["best_model_score"]}
    torch.save(content, LAST)
    code, out = train("--ckpt_path", LAST, "--max_epochs", 3)
    assert code == 0, out
    assert read_metrics("runs/default/version_0")["train"]["r2"] > 0.5


def test_no_row_to_train_on(train: Train) -> None:
    code, out = train("--data.test_fraction", 1, "--data.val_fraction", 0)
    assert code == 2, out
    assert "no row is left to train on" in out


@pytest.mark.parametrize(("stage", "flag"), [("test", "--limit_test_batches"), ("validate", "--limit_val_batches")])
def test_nothing_to_measure(stage: str, flag: str, train: Train) -> None:
    assert train(*QUICK)[0] == 0
    code, out = train(stage, "--ckpt_path", LAST, flag, 0)
    assert code == 2, out
    assert flag in out


@pytest.mark.parametrize(
    "flags", [["--limit_predict_batches", 0], ["--limit_predict_batches", 1], ["--fast_dev_run", "true"]]
)
def test_all_rows_are_predicted(flags: list, train: Train) -> None:
    assert train(*QUICK)[0] == 0
    table = SyntheticData(num_rows=50).table
    lines = [",".join(table.feature_names), *(",".join(map(repr, row)) for row in table.x.tolist())]
    Path("new.csv").write_text("\n".join(lines))
    code, out = train("predict", "--ckpt_path", LAST, "--data.path", "new.csv", *flags)
    assert code == 2, out
    assert str(flags[0]) in out
    assert not Path("predictions.csv").exists()


@pytest.mark.parametrize("callback", ["LearningRateFinder", "BatchSizeFinder"])
def test_a_callback_that_cannot_be_honoured_is_refused_by_name(callback: str, train: Train) -> None:
    Path("c.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": [{"class_path": callback}]}}))
    code, out = train(*QUICK, "--config", "c.yaml")
    assert code == 2, out
    assert callback in out
    assert "checkpoint (" not in out


@posix
def test_a_data_path_that_waits_is_refused(train: Train) -> None:
    for path in ("/proc/kmsg", "/" + "*/" * 12):
        code, out = train("--data.path", path, "--data.target", "y")
        assert code == 2, out


def test_an_average_whose_weights_are_in_no_checkpoint_is_refused(workplace: Path) -> None:
    with pytest.raises(InputError, match="EMAWeightAveraging"):
        run(LinearRegression(3), SyntheticData(), callbacks=[StochasticWeightAveraging(0.1)], max_epochs=3)


@pytest.mark.filterwarnings("ignore:The PyTorch Profiler default schedule", "ignore:Warning. Profiler clears events")
def test_profilers_of_lightning(train: Train) -> None:
    for name in ("simple", "advanced", "pytorch"):
        code, out = train(*QUICK, "--profiler", name, "--max_epochs", 1)
        assert code == 0, out


@pytest.mark.parametrize("number", ["0", "0.0"])
def test_a_training_of_no_batch_is_refused(number: str, train: Train) -> None:
    code, out = train("--max_epochs", 2, "--limit_train_batches", number)
    assert (code, out.count("error: ")) == (2, 1)
    assert "a number above 0 is expected" in out
    assert not list(Path("runs").rglob("*.ckpt"))
