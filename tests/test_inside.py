"""A run that is stopped inside an epoch, and goes on there, is the run that was not stopped: to the bit."""

from pathlib import Path
from typing import Any

import pytest
import torch

from linreg.stack.guard import DivergenceGuard
from tests.conftest import Process, Train, read_metrics
from tests.test_draws import MINE
from tests.tools import assert_same, load, scalars

pytestmark = [
    pytest.mark.filterwarnings("ignore:The '.*dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork"),
]
MORE = """
from torchmetrics import Accuracy, R2Score
from linreg import Regressor, SyntheticData

class Logging(Net):
    def __init__(self, lr: float = 0.01):
        super().__init__(lr)
        self.accuracy, self.r2 = Accuracy("multiclass", num_classes=3), R2Score()
    def training_step(self, batch, batch_idx):
        z = self.net(batch[0])
        loss = cross_entropy(z, batch[1])
        self.accuracy(z, batch[1])
        self.r2.update(z[:, :1], batch[1][:, None].float())  # whose sums begin as numbers, and become vectors
        self.log("r2/train", self.r2, on_step=False, on_epoch=True)
        self.log("accuracy/train", self.accuracy, on_step=False, on_epoch=True)
        self.log("loss/train", loss, on_step=True, on_epoch=True)
        self.log("worst", loss, on_step=False, on_epoch=True, reduce_fx="max")
        return loss

class Dropout(Regressor):
    def __init__(self, num_features: int, num_targets: int = 1, **training):
        net = nn.Sequential(nn.Linear(num_features, 8), nn.Dropout(0.5), nn.Linear(8, num_targets))
        super().__init__(net, num_features, num_targets, **training)

class Loader(SyntheticData):
    def __init__(self, num_workers: int = 0, **data):
        super().__init__(num_rows=500, batch_size=40)
        self.num_workers = num_workers
    def train_dataloader(self):
        rows = torch.utils.data.TensorDataset(*self.splits["train"])
        return DataLoader(rows, 40, shuffle=True, num_workers=self.num_workers)
"""
LAST = "runs/{}/version_0/checkpoints/last.ckpt"
LINEAR = ["--data.num_rows", 500, "--data.batch_size", 40, "--data.noise_std", 1, "--model.lr", 0.05]  # 10 steps
IMAGES = ["--model", "mine.Net", "--data", "mine.Images"]  # 6 steps
DROPOUT = ["--model", "mine.Dropout", "--model.lr", 0.05, "--data", "mine.Loader"]  # 10 steps
CASES: dict[str, list[Any]] = {
    "linear": LINEAR,
    "chunks": [*LINEAR, "--chunk", 3],
    "accumulation": [*LINEAR, "--accumulate_grad_batches", 3],
    "validation inside": [*LINEAR, "--val_check_interval", 0.2],
    "cosine": [*LINEAR, "--model.lr_scheduler", "WarmupCosine", "--max_epochs", 3],
    "limited": [*LINEAR, "--limit_train_batches", 7],
    "average": [*LINEAR, "--callbacks", "{class_path: EMAWeightAveraging, init_args: {decay: 0.9}}"],
    "dropout, loader": DROPOUT,
    "dropout, workers": [*DROPOUT, "--data.num_workers", 2],
    "augmentation": IMAGES,
    "augmentation, workers": [*IMAGES, "--data.num_workers", 2],
    "stream, workers": [*IMAGES, "--data.num_workers", 2, "--data.stream", "true"],
    "stream": [*IMAGES[:1], "mine.Still", *IMAGES[2:], "--data.stream", "true"],
    "a place in a stream": [*IMAGES[:1], "mine.Still", "--data", "mine.Kept"],
    "a loader's place": [*IMAGES[:1], "mine.Still", "--data", "mine.Kept", "--data.loader", "true"],
    "two optimizers": ["--model", "mine.Pair", *IMAGES[2:]],
    "logging": ["--model", "mine.Logging", *IMAGES[2:], "--accumulate_grad_batches", 2],
}
STILL = """
class Still(Net):
    def __init__(self, lr: float = 0.01):
        super().__init__(lr)
        self.net[3].p = 0.0
"""


@pytest.fixture
def mine(train: Train, workplace: Path) -> Train:
    Path("mine.py").write_text(MINE + MORE + STILL)
    return train


def stop_after(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ends the next run as a signal would, behind a number of steps."""
    end_batch = DivergenceGuard.on_train_batch_end

    def end_batch_or_run(self: Any, trainer: Any, *args: Any) -> None:
        end_batch(self, trainer, *args)
        if trainer.global_step >= steps:
            monkeypatch.setattr(DivergenceGuard, "on_train_batch_end", end_batch)
            raise SystemExit(143)

    monkeypatch.setattr(DivergenceGuard, "on_train_batch_end", end_batch_or_run)


QUICK = ("linear", "validation inside", "average", "dropout, loader", "two optimizers", "logging")
STEPS = {"accumulation": (3, 7), "logging": (3, 5)}  # of which there are fewer


@pytest.mark.parametrize("later", [pytest.param(False, marks=pytest.mark.slow), True])
@pytest.mark.parametrize("case", [c if c in QUICK else pytest.param(c, marks=pytest.mark.slow) for c in CASES])
def test_a_run_goes_on_inside_an_epoch(case: str, later: bool, mine: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    typed = ["--max_epochs", 3, *CASES[case]]
    code, out = mine(*typed, "--name", "whole")
    assert code == 0, out
    stop_after(STEPS.get(case, (4, 16))[later], monkeypatch)
    code, out = mine(*typed, "--save_every_n_steps", 2, "--name", "part")
    assert code == 143, out
    lost = STEPS.get(case, (4, 16))[later] - load(LAST.format("part"))["global_step"]
    assert case == "chunks" or f"stopped; {lost} step(s) since the last save are lost; resume it with: " in out
    part = load(LAST.format("part"))
    assert part["global_step"] < load(LAST.format("whole"))["global_step"]
    code, out = mine("--ckpt_path", LAST.format("part"))
    assert code == 0, out
    assert f"resume  inside epoch {part['epoch'] + 1}, after {part['inside'][0]['batches']} batches" in out
    one, two = (load(LAST.format(name)) for name in ("whole", "part"))
    for each in ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "epoch", "logged"):
        assert_same(one[each], two[each])
    for progress in ("epoch_progress", "epoch_loop.state_dict", "epoch_loop.batch_progress"):
        assert_same(one["loops"]["fit_loop"][progress], two["loops"]["fit_loop"][progress])
    whole, resumed = (scalars(f"runs/{name}/version_0") for name in ("whole", "part"))
    assert whole.keys() == resumed.keys()
    assert {k: v for k, v in whole.items() if not k.endswith("seconds") and v != resumed[k]} == {}
    assert read_metrics("runs/whole/version_0") == read_metrics("runs/part/version_0")


def test_rows_that_were_seen_are_not_loaded(mine: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("mine.py").write_text(Path("mine.py").read_text() + LOADS)
    typed = ["--model", "mine.Net", "--data", "mine.Counted", "--max_epochs", 1]
    stop_after(5, monkeypatch)
    assert mine(*typed, "--save_every_n_steps", 2)[0] == 143
    Path("loads").unlink()
    code, out = mine("--ckpt_path", LAST.format("default"))
    assert code == 0, out
    assert "loaded again" not in out
    assert len(Path("loads").read_text()) == 90 - 4 * 16


LOADS = """
class Counting(Rows):
    def __getitem__(self, i):
        with open("loads", "a") as file:
            file.write(".")
        return super().__getitem__(i)

class Counted(Images):
    def train_dataloader(self):
        return DataLoader(Counting(90), 16, shuffle=True)
"""


@pytest.mark.parametrize("more", [["--max_epochs", 3], ["--max_steps", 27]])
def test_a_run_that_ends_inside_an_epoch_goes_on_exactly(more: list[object], train: Train) -> None:
    typed = [*LINEAR, "--max_epochs", 3]
    assert train(*typed, *more, "--name", "whole")[0] == 0
    assert train(*typed, "--max_steps", 13, "--name", "part")[0] == 0
    code, out = train("--ckpt_path", LAST.format("part"), "--max_steps", -1, *more)
    assert code == 0, out
    assert "inside epoch 2, after 3 batches" in out
    one, two = (load(LAST.format(name)) for name in ("whole", "part"))
    for each in ("state_dict", "optimizer_states", "global_step", "epoch"):
        assert_same(one[each], two[each])


def test_a_limit_that_still_holds_is_told(train: Train) -> None:
    assert train(*LINEAR, "--max_steps", 13)[0] == 0
    code, out = train("--ckpt_path", "last", "--max_epochs", 4)
    assert (code, "--max_steps 13 of the run is reached; give more of that too" in out) == (2, True), out
    assert train("--ckpt_path", "last", "--max_steps", 26)[0] == 0
    assert load(LAST.format("default"))["global_step"] == 26


def test_a_finished_run_is_reported_again_as_it_was(train: Train) -> None:
    said = [train(*flags)[1] for flags in ([*LINEAR, "--max_steps", 13], ["--ckpt_path", "last"])]
    assert ["epoch 2 of 2," in out for out in said] == [True, True], said


def test_what_is_replaced_by_a_run_that_goes_back_is_told(train: Train) -> None:
    assert train(*LINEAR, "--max_epochs", 3)[0] == 0
    code, out = train("--ckpt_path", "last", "--max_epochs", 4)
    assert (code, "replaced" in out, "its own folder" in out) == (0, False, False), out
    best = LAST.format("default").replace("last", "best")
    last = load(LAST.format("default"))
    torch.save(last | {"epoch": 9, "global_step": 100}, LAST.format("default"))  # as if it had come farther
    step = load(best)["global_step"]
    code, out = train("--ckpt_path", best, "--max_epochs", 9, "--name", "other")
    assert code == 0, out
    assert "in its own folder runs/default/version_0, whatever --name other is" in out
    assert f"last.ckpt of step 100, and the curves behind step {step}, are replaced" in " ".join(out.split())
    torch.save({name: each for name, each in last.items() if name != "loops"}, LAST.format("default"))
    code, out = train("--ckpt_path", best, "--max_epochs", 9)
    assert (code, "replaced" in out) == (0, False), out


@pytest.mark.parametrize("kept", [5, (1,), ({}, [], 5), ({}, [], [], [])])
def test_what_data_cannot_have_kept_is_one_line(kept: object, train: Train) -> None:
    assert train(*LINEAR, "--max_steps", 13)[0] == 0
    last = load(LAST.format("default"))
    for each in last["inside"]:
        each["kept"] = kept
    torch.save(last, "odd.ckpt")
    code, out = train("--ckpt_path", "odd.ckpt", "--max_steps", 26)
    assert (code, out.count("error: the checkpoint's state of the data")) == (2, 1), out


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--data.batch_size", 20], "an epoch of 10 batches of 40 rows, and this run has 20 of 20"),
        (["--chunk", 2], "this run has 5 of 80"),
        (["--limit_train_batches", 5], "this run has 5 of 40"),
    ],
)
def test_what_would_make_another_epoch_is_refused(flags: list[object], words: str, train: Train) -> None:
    assert train(*LINEAR, "--max_steps", 13)[0] == 0
    code, out = train("--ckpt_path", LAST.format("default"), "--max_steps", -1, "--max_epochs", 3, *flags)
    assert code == 2, out
    assert words in out


@pytest.mark.slow
def test_another_number_of_processes_is_refused_inside_an_epoch(train: Train, process: Process) -> None:
    assert train(*LINEAR, "--max_steps", 13)[0] == 0
    several = ("--devices", 2, "--accelerator", "cpu", "--max_steps", -1, "--max_epochs", 3)
    done = process("--ckpt_path", LAST.format("default"), *several)
    assert done.returncode == 2, done.stderr
    assert "by 1 process" in done.stderr


def test_a_number_of_steps_that_is_none(train: Train) -> None:
    code, out = train(*LINEAR, "--save_every_n_steps", 0)
    assert (code, "at least 1 step is expected" in out) == (2, True)
    code, out = train(*LINEAR, "--save_every_n_steps", 5, "--enable_checkpointing", "false")
    assert (code, "this run saves nothing" in out) == (2, True)


def test_a_part_of_another_kind_is_a_line(train: Train) -> None:
    assert train(*LINEAR, "--max_steps", 13)[0] == 0
    saved, last = load(LAST.format("default")), Path(LAST.format("default"))
    wrong: dict[str, Any] = {"batches": -1, "draws": {"torch": 1}, "logged": None, "of": "many"}
    wrong["sums"] = {"LinearRegression": {"epoch_loss": "x"}}
    for part, value in (wrong | {"metrics": {"weight": 1}, "gradients": {"weight": "x"}}).items():
        torch.save(saved | {"inside": [saved["inside"][0] | {part: value}]}, last)
        code, out = train("--ckpt_path", last, "--max_steps", -1, "--max_epochs", 3)
        assert code == 2, (part, out)
        assert out.splitlines()[-1].startswith("error: "), out
    torch.save(saved | {"inside": []}, last)
    assert train("--ckpt_path", last, "--max_steps", -1, "--max_epochs", 3)[0] == 2
