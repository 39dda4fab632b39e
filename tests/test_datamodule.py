"""Data of any kind: what comes in comes out in batches, once, in its split; and what cannot be served is one line."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from linreg import DataModule, InputError, SyntheticData, Windows
from linreg.tables.batches import TensorBatches
from tests.conftest import Train, read_metrics, read_rows
from tests.tools import CKPT, assert_same, load

pytestmark = [
    pytest.mark.filterwarnings("ignore:The '.*dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork"),
]


class Given(DataModule):
    """What a test gives."""

    def __init__(self, found: Any, **loading: Any) -> None:
        super().__init__(**loading)
        self.found = found

    def load(self) -> Any:
        return self.found


def served(loader: DataLoader) -> list[Any]:
    """All rows of a loader."""
    return [row for batch in loader for row in (batch if isinstance(batch, torch.Tensor) else zip(*batch, strict=True))]


X = np.arange(60.0).reshape(20, 3)


class Column:
    """As a column of a frame is seen by numpy."""

    def __init__(self, values: Any) -> None:
        self.values = values

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.asarray(self.values, dtype)


class Squares(Dataset):
    def __len__(self) -> int:
        return 20

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        return torch.tensor(X[i]).float(), i


@pytest.mark.parametrize(
    "found",
    [
        (X, range(20)),
        (X.tolist(), np.arange(20, dtype=np.int32)),
        (torch.tensor(X).float(), Column([*range(20)])),
        Squares(),
    ],
)
@pytest.mark.parametrize("num_workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_each_row_is_served_once_with_its_own_target(found: Any, num_workers: int) -> None:
    data = Given(found, batch_size=8, val_fraction=0.2, test_fraction=0.3, num_workers=num_workers)
    loaders = [data.train_dataloader(), data.val_dataloader(), data.test_dataloader()]
    rows = [served(loader) for loader in loaders]
    assert [len(part) for part in rows] == [10, 4, 6]
    assert sorted(int(y) for part in rows for _, y in part) == [*range(20)]
    for x, y in (row for part in rows for row in part):
        assert x.dtype == torch.float32
        assert x.tolist() == X[int(y)].tolist()
    assert (data.input_shape, data.num_features, data.num_targets) == ([3], 3, 1)
    assert isinstance(found, Squares) or data.num_classes == 20


def test_dicts_and_lone_arrays_are_served_as_they_are() -> None:
    pictures = np.zeros((20, 1, 4, 4), np.uint8)
    batch = next(iter(Given({"x": pictures, "kind": ["a", "b"] * 10}, batch_size=5).train_dataloader()))
    assert {name: (value.shape, value.dtype) for name, value in batch.items()} == {
        "x": ((5, 1, 4, 4), torch.uint8),
        "kind": ((5,), torch.int64),
    }
    batch = next(iter(Given(X, batch_size=5).train_dataloader()))
    assert batch.shape == (5, 3)


def test_targets_of_text_are_classes_in_each_split_alike() -> None:
    data = Given({"train": (X, ["b", "a"] * 10), "val": (X[:2], ["b", "b"])})
    assert (data.classes, data.num_classes) == (["a", "b"], 2)
    assert next(iter(data.val_dataloader()))[1].tolist() == [1, 1]
    with pytest.raises(InputError, match=r"'c' is no class.*a, b"):
        _ = Given({"train": (X, ["b", "a"] * 10), "test": (X[:2], ["b", "c"])}).datasets


def test_an_order_is_kept_and_its_gap_left_out() -> None:
    data = Given(np.arange(20), split="order", gap=2, val_fraction=0.2, test_fraction=0.2)
    found = [[int(i) for i in served(loader)] for loader in (data.val_dataloader(), data.test_dataloader())]
    assert sorted(map(int, served(data.train_dataloader()))) == [*range(8)]
    assert found == [[*range(10, 14)], [*range(16, 20)]]
    assert data.row_counts == {"train": 8, "val": 4, "test": 4, "predict": 4}


@pytest.mark.parametrize(("length", "horizon"), [(1, 1), (7, 3)])
def test_windows_share_no_value_between_splits(length: int, horizon: int) -> None:
    data = Given(Windows(torch.arange(200), length, horizon), split="order", val_fraction=0.2, test_fraction=0.2)
    loaders = data.train_dataloader(), data.val_dataloader(), data.test_dataloader()
    values = [{int(v) for pair in served(loader) for side in pair for v in side} for loader in loaders]
    assert not values[0] & values[1]
    assert not values[1] & values[2]
    assert max(values[0]) + 1 == min(values[1])  # and none is wasted
    x, y = Windows(torch.arange(200), length, horizon)[3]
    assert [*x.tolist(), *y.tolist()] == [*range(3, 3 + length + horizon)]
    with pytest.raises(InputError, match=r"leak.*--data.split order"):
        _ = Given(Windows(torch.arange(200), length, horizon)).datasets


@pytest.mark.parametrize("series", [np.arange(30.0), [*np.arange(30.0)], Column(np.arange(30.0))])
def test_windows_of_numbers_of_any_kind_are_float32(series: Any) -> None:
    x, y = Windows(series, 4)[3]
    assert (x.dtype, y.dtype, x.tolist(), y.tolist()) == (torch.float32, torch.float32, [3, 4, 5, 6], [7])


class Stream(IterableDataset):
    def __iter__(self) -> Any:
        return iter(torch.arange(9.0))


@pytest.mark.parametrize(
    ("found", "loading", "words"),
    [
        (Stream(), {}, r"Stream of unknown length cannot be split.*--data.val_fraction 0"),
        ((X, range(19)), {}, r"\[19, 20\] rows"),
        ((X, [None] * 20), {}, r"numbers or of text is expected, not of object"),
        (np.array(["2020-01-01"], "datetime64[D]"), {}, "numbers or of text"),
        ({"train": X, "valid": X}, {}, "'valid' is no split, as train, val, test, predict are"),
        ({"train": X, "val": [Stream(), Stream()]}, {}, "load: 2 datasets, where one is expected; join them"),
        (X[:2], {}, "2 rows: too few"),
        (X, {"split": "order", "gap": 9}, "too few.*9 left out"),
        (X, {"split": "time"}, "'random' or 'order'"),
        (X, {"batch_size": 0}, "batch_size=0: at least 1"),
        (X, {"val_fraction": 0.7, "test_fraction": 0.7}, "more than all rows"),
    ],
)
def test_what_cannot_be_served_is_told_so(found: Any, loading: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        _ = Given(found, **loading).datasets


def test_a_data_module_that_loads_nothing_is_told_so() -> None:
    with pytest.raises(InputError, match=r"DataModule has no load\(\)"):
        _ = DataModule().datasets


def test_a_stream_goes_without_a_length() -> None:
    data = Given(Stream(), val_fraction=0, test_fraction=0, batch_size=4)
    assert data.row_counts["train"] is None
    assert [len(batch) for batch in data.train_dataloader()] == [4, 4, 1]
    assert data.describe() == ["Given: a stream train; batches of 4"]


def test_batches_of_a_table_without_the_last_one() -> None:
    """Each has its whole size, and which rows are left out is another in each epoch."""
    y = torch.arange(70.0)[:, None]
    batches = TensorBatches(y, y, 32, seed=0, drop_last=True)
    seen = []
    for epoch in range(2):
        batches.set_epoch(epoch)
        sides = [x for x, _ in batches]
        assert [len(x) for x in sides] == [32, 32] == [32] * len(batches)
        seen.append({int(v) for x in sides for v in x})
        assert len(seen[-1]) == 64
    assert seen[0] != seen[1]
    assert [len(x) for x, _ in TensorBatches(y, y, 100, seed=0, drop_last=True)] == [70]  # batch gradient descent


@pytest.mark.filterwarnings("ignore:.*log_every_n_steps")
def test_a_chunk_leaves_out_what_its_batches_would(train: Train) -> None:
    typed = ["--data.num_rows", 500, "--data.batch_size", 32, "--data.drop_last", "true", "--max_epochs", 2]
    assert train(*typed, "--name", "one")[0] == 0
    assert train(*typed, "--name", "two", "--chunk", 4)[0] == 0
    one, two = (load(f"runs/{name}/version_0/checkpoints/last.ckpt") for name in ("one", "two"))
    assert one["global_step"] == 2 * (400 // 32)
    for part in ("state_dict", "optimizer_states", "global_step"):
        assert_same(one[part], two[part])


def test_a_table_in_its_order(train: Train) -> None:
    data = SyntheticData(num_rows=100, split="order", val_fraction=0.2, test_fraction=0.1)
    parts = data.splits
    assert torch.equal(torch.cat([parts[name][1] for name in ("train", "val", "test")]), data.table.y)
    assert torch.equal(next(iter(data.train_dataloader()))[1].sort(0)[0], data.table.y[:70].sort(0)[0])


MINE = '''
import torch
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss
from lightning.pytorch import LightningModule
from linreg import DataModule, Module

class Kinds(DataModule):
    vocabulary = ["a", "b"]
    def __init__(self, shift: float = 0.0, **loading):
        super().__init__(**loading)
        self.shift = shift
    def load(self):
        y = torch.arange(100) % 3
        x = torch.randn(100, 4, generator=torch.Generator().manual_seed(0)) + y[:, None] + self.shift
        return x, [["low", "mid", "top"][i] for i in y]

class Net(Module):
    def __init__(self, num_features: int, num_classes: int, vocabulary: list[str], classes: list[str], **training):
        super().__init__(nn.Linear(num_features, num_classes), **training)
        self.classes = classes
    def loss(self, y_hat, y):
        return cross_entropy(y_hat, y)

class Plain(LightningModule):
    """One that knows nothing of tables."""
    def __init__(self, outputs: int = 1):
        super().__init__()
        self.net = nn.Linear(3, outputs)
    def forward(self, x):
        assert x.isfinite().all(), "no row with a missing cell is shown to a model"
        return self.net(x.float())
    def training_step(self, batch, batch_idx):
        return (self(batch[0]) - batch[1]).square().mean()
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)
'''
KINDS = ["--model", "mine.Net", "--data", "mine.Kinds", "--model.lr", 0.1, "--max_epochs", 2]


@pytest.fixture
def mine(train: Train, workplace: Path) -> Train:
    Path("mine.py").write_text(MINE)
    return train


def test_what_a_model_asks_of_its_data_travels(mine: Train) -> None:
    code, out = mine(*KINDS)
    assert code == 0, out
    expected = {"num_features": 4, "num_classes": 3, "vocabulary": ["a", "b"], "classes": ["low", "mid", "top"]}
    asked = load(f"{CKPT}/last.ckpt")["hyper_parameters"]
    assert {name: asked[name] for name in expected} == expected
    for stage in ("validate", "test"):
        assert mine(stage, "--ckpt_path", f"{CKPT}/last.ckpt")[0] == 0


def test_other_rows_are_not_gone_on_with(mine: Train) -> None:
    assert mine(*KINDS)[0] == 0
    for changed in (["--data.shift", 0.5], ["--data.split_seed", 1], ["--data.val_fraction", 0.2]):
        code, out = mine("--ckpt_path", f"{CKPT}/last.ckpt", "--max_epochs", 3, *changed)
        assert code == 2, out
        assert "not those of the checkpoint" in out
    assert mine("--ckpt_path", f"{CKPT}/last.ckpt", "--max_epochs", 3)[0] == 0


def test_the_rows_of_the_test_are_predicted(mine: Train) -> None:
    assert mine(*KINDS)[0] == 0
    code, out = mine("predict", "--ckpt_path", f"{CKPT}/last.ckpt", "--output", "found.pt")
    assert code == 0, out
    state = load(f"{CKPT}/last.ckpt")["state_dict"]
    order = torch.randperm(100, generator=torch.Generator().manual_seed(0))
    x = torch.randn(100, 4, generator=torch.Generator().manual_seed(0)) + (torch.arange(100) % 3)[:, None]
    expected = x[order[90:]] @ state["hypothesis.weight"].T + state["hypothesis.bias"]
    torch.testing.assert_close(load("found.pt"), expected)


def test_too_few_rows_for_a_batch_are_told_so(mine: Train) -> None:
    code, out = mine(*KINDS, "--data.drop_last", "true", "--data.batch_size", 81)
    assert code == 2, out
    assert "80 training row(s) make no batch" in out


@pytest.mark.filterwarnings("ignore:You passed in a `val_dataloader` but have no `validation_step`")
def test_any_model_of_a_table_predicts_beside_the_rows(mine: Train) -> None:
    Path("rows.csv").write_text("a,b,c,y\n" + "".join(f"{i % 7},{i % 5},{i % 3},{i}\n" for i in range(50)))
    Path("new.csv").write_text("id,c,b,a\n7,1,2,3\n8,0,5,\n")
    code, out = mine("--model", "mine.Plain", "--data.path", "rows.csv", "--data.target", "y", "--max_epochs", 1)
    assert code == 0, out
    code, out = mine("predict", "--ckpt_path", f"{CKPT}/last.ckpt", "--data.path", "new.csv", "--output", "new_y.csv")
    assert code == 0, out
    state, rows = load(f"{CKPT}/last.ckpt")["state_dict"], read_rows("new_y.csv")
    expected = state["net.weight"][0] @ torch.tensor([3.0, 2.0, 1.0]) + state["net.bias"][0]
    assert float(rows[0]["prediction"]) == pytest.approx(float(expected), rel=1e-6)
    assert [row["id"] for row in rows] == ["7", "8"]
    assert rows[1]["prediction"] == ""


@pytest.mark.filterwarnings("ignore:You passed in a `val_dataloader` but have no `validation_step`")
@pytest.mark.filterwarnings("ignore:Using a target size")
def test_predictions_that_cannot_stand_beside_rows_are_told_so(mine: Train) -> None:
    Path("rows.csv").write_text("a,b,c,y\n" + "".join(f"{i % 7},{i % 5},{i % 3},{i}\n" for i in range(50)))
    typed = ["--model", "mine.Plain", "--model.outputs", 2, "--data.path", "rows.csv", "--data.target", "y"]
    assert mine(*typed, "--max_epochs", 1)[0] == 0
    code, out = mine("predict", "--ckpt_path", f"{CKPT}/last.ckpt", "--data.path", "rows.csv")
    assert code == 2, out
    assert "Tensor (50, 2) of 50 rows" in out
    assert "Plain.predict_step" in out
    assert not Path("predictions.csv").exists()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("return self.nothing", ["Wrong.num_features: AttributeError", "'nothing'", "mine.py, line "]),
        ("raise ValueError('broken')", ["Wrong.num_features: ValueError: broken", "mine.py, line "]),
        ("return open('nowhere.csv')", ["error: Wrong.num_features: FileNotFoundError: ", "mine.py, line "]),
        ("return torch.zeros(20)", ["'num_classes'", "Wrong has no such attribute", "--model.num_classes"]),
    ],
)
def test_what_goes_wrong_in_loading_has_its_place(line: str, words: list[str], mine: Train) -> None:
    with Path("mine.py").open("a") as file:
        file.write(f"\nclass Wrong(DataModule):\n    vocabulary = ['a']\n    def load(self):\n        {line}\n")
    code, out = mine("--model", "mine.Net", "--data", "mine.Wrong", "--max_epochs", 1)
    assert code == 2, out
    assert all(word in out for word in words), out


def test_a_regression_takes_arrays_too(mine: Train) -> None:
    """The default model, held against the exact solution of their rows."""
    with Path("mine.py").open("a") as file:
        file.write(
            "\nclass Arrays(DataModule):\n    def load(self):\n        x = torch.randn(200, 2).numpy()\n"
            "        return x, x @ [[1.0], [-2.0]] + 0.1 * torch.randn(200, 1).numpy()\n"
        )
    code, out = mine("--data", "mine.Arrays", "--max_epochs", 30)
    assert code == 0, out
    assert read_metrics("runs/default/version_0")["train"]["excess_mse"] < 0.01
