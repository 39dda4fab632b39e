"""Does it see what it should not? Other rows, its target, the future, validation rows."""

import contextlib
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from linreg.checks.batch import change, flat, num_rows, pair, predict, tensors
from linreg.checks.context import Context
from linreg.verdict import CannotTell, Verdict, judge

SAME = 1e-3  # of a prediction's size: more is no rounding


def difference(a: Tensor, b: Tensor) -> float:
    if a.shape != b.shape:
        raise CannotTell(f"what it predicts has different shapes: {tuple(a.shape)}, {tuple(b.shape)}")
    return float((a - b).detach().abs().max() / max(float(b.detach().abs().mean()), 1e-12))


def neighbours(context: Context) -> Verdict:
    """No row depends on those beside it: in evaluation, and in a training step but for its layers' statistics."""
    batch, size = context.val[0], getattr(context.trainer.train_dataloader, "batch_size", None)
    if num_rows(batch) < 2 or (isinstance(size, int) and num_rows(context.train[0]) > size):
        raise CannotTell("a batch has one row, or rows that do not lie along its first dimension")
    found, remedy = {}, "look for statistics or attention over the batch, or a batch_first that is not set"

    def handed(batch: Any, seed: int = 0) -> Tensor:
        return context.step(batch, training=False, seed=seed).calls[0].prediction.detach()

    ways: list[Any] = [("prediction", partial(predict, context.copy(training=False)), 1)]
    ways += [("input to the loss", handed, num_rows(batch) // 2)]
    for what, see, count in ways:
        with contextlib.suppress(CannotTell, IndexError):  # no loss function that is known
            together = see(batch)
            if difference(see(batch, seed=1), together) > SAME:
                continue  # it is drawn
            try:
                fewer = see(change(batch, lambda each, count=count: each[-count:]))  # type: ignore[misc]
            except CannotTell as error:  # though it could predict all of them together
                return judge(False, f"a row alone: {error}", "its prediction", remedy)
            found[what] = difference(fewer, together[-count:])
    if not found:
        raise CannotTell("predictions are drawn, or not known")
    worst = max(found, key=lambda what: found[what])
    return judge(found[worst] < SAME, f"alone, its {worst} differs by {found[worst]:.1g}", "rounding", remedy)


def another_target(batch: Any) -> Any:
    """A batch with other targets, of a sequence at one place; where that is an input one step on, also there."""
    *inputs, y = tensors(batch)
    other, where = y.clone(), y.shape[1] // 2 if y.ndim > 1 else 0
    at = (slice(None), where)[: y.ndim]
    other[at] = y.roll(1, 0)[at]
    changed = {id(y): other}
    for x in inputs:
        if x.shape == y.shape and where > 1 and torch.equal(x[:, 1:], y[:, :-1]):
            changed[id(x)] = torch.cat([x[:, :1], other[:, :-1]], 1)
    return tree_map(lambda leaf: changed.get(id(leaf), leaf), batch)


def target_unseen(context: Context) -> Verdict:
    """No prediction depends on the very target that it is compared with; of a text, not on what comes later."""
    batch = context.train[0]
    num_rows(batch)
    calls = (context.step(each, training=False).calls for each in (batch, another_target(batch)))
    *inputs, y = tensors(batch)
    found = []
    for one, other in zip(*calls, strict=False):
        a, b, shape = one.prediction.detach(), other.prediction.detach(), one.target.shape
        if a.ndim == len(shape) + 1:  # scores of classes
            a, b = a.movedim(1, -1), b.movedim(1, -1)
        texts = () if inputs else (y[:, 1:], y[:, :-1])  # of a lone tensor, else an autoencoder's inputs are targets
        is_given = bool(inputs) or any(torch.equal(one.target.flatten(), text.flatten()) for text in texts)
        if is_given and shape == other.target.shape == a.shape[: len(shape)] == b.shape[: len(shape)]:
            moved = one.target != other.target
            found += [float((a - b)[moved].abs().median() / a.abs().mean().clamp(min=1e-12))] if moved.any() else []
    if not found:
        raise CannotTell("targets are not given apart from inputs, are all the same, or the loss is not known")
    remedy = "keep the target out of forward; shift it by one step, and mask the future (is_causal)"
    return judge(max(found) < SAME, f"with another target it differs by {max(found):.1g}", "nothing", remedy)


def splits_apart(context: Context) -> Verdict:
    """No row of validation or test is a training row too, or overlaps with one but for a step."""
    whole = context.rows()
    is_one = len({len(each) for each in tensors(whole)}) == 1  # else of several loaders
    parts = [whole] if is_one else [*(whole.values() if isinstance(whole, dict) else whole)]
    found = [apart_from(context, part) for part in parts]
    return next((verdict for verdict in found if verdict.status == "FAIL"), found[0])


def apart_from(context: Context, train: Any) -> Verdict:
    """The same of the rows of one loader."""
    batches = {"train": train} | {split: context.rows(split) for split in ("val", "test") if context.read(split)}
    rows = {split: torch.cat([flat(each) for each in tensors(batch)], 1) for split, batch in batches.items()}
    keys = {split: as_bytes(each) for split, each in rows.items()}
    train, count = {*keys["train"]}, len(keys.pop("train"))
    if not keys:
        raise CannotTell("there are only training rows")
    shared = {split: sum(row in train for row in each) for split, each in keys.items()}
    is_told_apart = max(len(column.unique()) for column in rows["train"].T) > 0.9 * len(train)
    inputs = {split: tensors(batch)[0] for split, batch in batches.items()}
    if is_told_apart and inputs["train"].ndim > 1 and inputs["train"].shape[1] > 3:  # perhaps windows of a series
        early, late = ({*as_bytes(flat(inputs["train"][:, part]))} for part in (slice(1, None), slice(-1)))
        for split in keys:
            pairs = zip(*(as_bytes(flat(inputs[split][:, part])) for part in (slice(-1), slice(1, None))), strict=True)
            shared[split] = max(shared[split], sum(a in early or b in late for a, b in pairs))
    chance = 0.01 + 3 * (1 - len(train) / count) * (not is_told_apart)  # few different values have twins by themselves
    bad = [split for split, each in shared.items() if each > max(1, chance * len(keys[split]))]
    text = ", ".join(f"{each:,} of {len(keys[split]):,} {split} rows" for split, each in shared.items())
    remedy = "split before rows are repeated, augmented or cut into windows"
    if bad == ["test"]:
        remedy += '; split once, by a generator with a seed, or where stage is "fit": a test calls setup again'
    return judge(not bad, f"in training too: {text}", "none", remedy)


def as_bytes(rows: Tensor) -> list[bytes]:
    """Each row of (N, K) as what can be looked up."""
    return [row.tobytes() for row in rows.contiguous().cpu().numpy()]


def no_column_is_the_target(context: Context) -> Verdict:
    """No column gives the target away alone, by a line or by its order."""
    inputs, y = pair(context.rows())
    x, limit = flat(inputs), 0.9999 if inputs.ndim == 2 else 1 - 1e-9  # a series may nearly follow from its last value
    if not (inputs.is_floating_point() and 1 < x.shape[1] <= 200 and inputs.shape != y.shape and len(x) >= 20):
        raise CannotTell("there are fewer than twenty rows, or not two to 200 columns apart from the targets")
    most, where = 0.0, 0
    for sides in ((x, flat(y)), (x.argsort(0).argsort(0).double(), flat(y).argsort(0).argsort(0).double())):
        a, b = ((side - side.mean(0)) / (side - side.mean(0)).norm(dim=0).clamp(min=1e-300) for side in sides)
        most, where = max((most, where), *((float(v), i) for i, v in enumerate((a.T @ b).square().amax(1))))
    found = f"column {context.names([where])} alone explains {most:.4%}"
    return judge(most <= limit, found, "less than all", "leave it out if it is not known before the target is")


LEAKS = [neighbours, target_unseen, splits_apart, no_column_is_the_target]
