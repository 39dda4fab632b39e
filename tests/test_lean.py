"""What is taken out of a step of Lightning's changes nothing, is put back, and steps aside where it has to."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule
from lightning.pytorch.profilers import PassThroughProfiler, SimpleProfiler

from linreg import LinearRegression, SyntheticData, run
from linreg.stack import lean
from tests.conftest import Process
from tests.tools import assert_same


def weights(monkeypatch: pytest.MonkeyPatch, model: LightningModule, name: str, **flags: Any) -> dict[str, Any]:
    found = run(model, SyntheticData(batch_size=64), name=name, max_epochs=3, **flags)
    return dict(found.model.state_dict())


def test_a_lean_training_is_the_same(workplace: object, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usual(LinearRegression):
        """Its own class, since attributes are set quickly for a whole class."""

    light = weights(monkeypatch, LinearRegression(3, lr=0.05), "light")
    monkeypatch.setattr(lean.Lean, "on_train_start", Callback.on_train_start)
    monkeypatch.setattr(lean.Lean, "on_train_end", Callback.on_train_end)
    assert_same(light, weights(monkeypatch, Usual(3, lr=0.05), "usual"))


def test_all_hooks_are_there_again_after_a_training(workplace: object, monkeypatch: pytest.MonkeyPatch) -> None:
    model, watcher = LinearRegression(3, lr=0.05), Callback()
    weights(monkeypatch, model, "hooks", callbacks=[watcher])
    assert all(callable(getattr(each, name)) for each in (model, watcher) for name in lean.STEP_HOOKS)


def test_a_hook_that_somebody_has_filled_is_called(workplace: object, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    class Watcher(Callback):
        def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
            seen.append(pl_module.hypothesis.weight.grad.clone())

    class Net(LinearRegression):
        def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
            seen.append("own")

    weights(monkeypatch, Net(3, lr=0.05), "filled", callbacks=[Watcher()])
    assert len(seen) == 2 * 3 * 13


def test_a_class_that_sets_attributes_its_own_way_keeps_it(workplace: object, monkeypatch: pytest.MonkeyPatch) -> None:
    class Net(LinearRegression):
        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, value)

    own = Net.__setattr__
    weights(monkeypatch, Net(3, lr=0.05), "own")
    assert Net.__setattr__ is own


@pytest.mark.filterwarnings("ignore:You have overridden `on_after_batch_transfer`")
@pytest.mark.parametrize("owner", ["model", "data"])
def test_a_batch_that_somebody_changes_on_its_way_is_changed(workplace: object, owner: str) -> None:
    def without_targets(self: Any, batch: Any, dataloader_idx: int) -> Any:
        return type(batch)((batch[0], 0 * batch[1]))

    classes = {"model": LinearRegression, "data": SyntheticData}
    classes[owner] = type("Own", (classes[owner],), {"on_after_batch_transfer": without_targets})
    found = run(classes["model"](3, lr=0.05), classes["data"](batch_size=64), max_epochs=2)  # type: ignore[call-arg]
    assert not found.model.hypothesis.weight.any()  # type: ignore[union-attr]


def test_a_profiler_that_keeps_a_book_keeps_it(workplace: object) -> None:
    profiler = SimpleProfiler()
    run(LinearRegression(3, lr=0.05), SyntheticData(batch_size=400), max_epochs=3, profiler=profiler)
    assert len(profiler.recorded_durations["run_training_batch"]) == 6


def test_what_lean_builds_on_is_still_so() -> None:
    """Else it saves nothing any more, and can go."""
    model = LinearRegression(3)
    assert hasattr(model, lean.HOOK_NAME)
    assert all(hasattr(LightningModule, name) and hasattr(Callback, name) for name in lean.STEP_HOOKS)
    assert all(hasattr(LightningDataModule, name) for name in lean.DATA_HOOKS)
    assert hasattr(model, "_apply_batch_transfer_handler")
    assert hasattr(model, "_on_before_batch_transfer")
    with PassThroughProfiler().profile("a step"):  # a context, as what stands in its place is
        pass


def test_what_is_imported_is_no_garbage_and_what_comes_after_may_be(process: Process) -> None:
    Path("mine.py").write_text(
        "import gc\nfrom lightning.pytorch import Callback\n\n\nclass Look(Callback):\n"
        "    def on_train_start(self, *_):\n        print(gc.isenabled(), gc.get_freeze_count() > 100_000)\n"
    )
    assert "True True" in process("--max_epochs", 1, "--callbacks", "mine.Look").stdout.splitlines()
