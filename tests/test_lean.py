"""What is taken out of a step of Lightning's changes nothing, is put back, and steps aside where it has to."""

from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule

from linreg import LinearRegression, SyntheticData, run
from linreg.stack import lean
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


def test_what_lean_builds_on_is_still_so() -> None:
    """Else it saves nothing any more, and can go."""
    model = LinearRegression(3)
    assert hasattr(model, lean.HOOK_NAME)
    assert all(hasattr(LightningModule, name) and hasattr(Callback, name) for name in lean.STEP_HOOKS)
