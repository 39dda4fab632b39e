"""Does it see what it should not? Other rows, its target, the future, validation rows."""

import contextlib
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map
from torch.utils.data import DataLoader, IterableDataset

from linreg.checks.batch import change, flat, num_rows, pair, predict, tensors
from linreg.checks.context import Context
from linreg.checks.fits import alone
from linreg.verdict import CannotTell, Verdict, judge

SAME = 1e-3  # of a prediction's size: more is no rounding


def difference(a: Tensor, b: Tensor) -> float:
    if a.shape != b.shape:
        raise CannotTell(f"what it predicts has different shapes: {tuple(a.shape)}, {tuple(b.shape)}")
    return float((a - b).detach().abs().max() / max(float(b.detach().abs().mean()), 1e-12))


def drawn(context: Context, split: str, which: Sequence[int], seed: int) -> Any:
    """A batch of some rows of a split's own dataset, as a step gets them where a seed is given."""

    def batch(loader: Any) -> Any:
        rows = getattr(loader, "dataset", None)
        if not isinstance(loader, DataLoader) or isinstance(rows, IterableDataset):
            return next(iter(loader))
        return loader.collate_fn([rows[i] for i in which if i < len(rows)])  # type: ignore[index, arg-type]

    source, trainer = getattr(context.loaders, f"{split}_dataloader")(), context.trainer
    trainer.training = split == "train"
    with alone(seed):
        found = context.hand_over(tree_map(batch, getattr(source, "iterables", source)))
    trainer.training = False
    return found


def padded_and_alone(context: Context) -> tuple[Any, Any]:
    """A row that a collate_fn pads, as it is in a batch, its first, and alone; CannotTell if there is none."""
    for i in range(8):
        one, again = (drawn(context, "train", [i], seed) for seed in (0, 1))
        whole = drawn(context, "train", [i, *(j for j in range(32) if j != i)], 0)  # augmented by the same draws
        (alone, *_), (beside, *_) = tensors(one), tensors(whole)
        if num_rows(one) != 1 or num_rows(whole) <= i:
            break
        ends = (slice(alone.shape[-1]), slice(-alone.shape[-1], None)) if alone.ndim == 2 else ()
        is_drawn = not all(map(torch.equal, tensors(one), tensors(again)))
        if is_drawn and not any(torch.equal(alone, beside[:1, end]) for end in ends):
            break
        if alone.shape[1:] != beside.shape[1:]:
            return change(whole, lambda each: each[:1]), one
    raise CannotTell("no row is padded")


def neighbours(context: Context) -> Verdict:
    """No row depends on those beside it: in evaluation, and in a training step but for its layers' statistics."""
    batch, size = context.val[0], getattr(context.trainer.train_dataloader, "batch_size", None)
    if num_rows(batch) < 2 or (isinstance(size, int) and num_rows(context.train[0]) > size):
        raise CannotTell("a batch has one row, or rows that do not lie along its first dimension")
    remedy = "look for statistics or attention over the batch, or a batch_first that is not set"
    predicted, step = partial(predict, context.copy(training=False)), partial(context.step, training=False)
    ways: list[Any] = [("its prediction", predicted, batch, change(batch, lambda each: each[-1:]))]
    few = change(batch, lambda each: each[-(len(each) // 2) :])
    ways += [("its input to the loss", lambda each, **how: step(each, **how).calls[0].prediction, batch, few)]
    with contextlib.suppress(Exception):  # there are datasets that only their sampler can ask for rows
        rows = padded_and_alone(context)
        ways += [("without padding, its prediction", predicted, *rows)]
        ways += [("without padding, its loss", lambda each, **how: step(each, **how).loss.reshape(1, 1), *rows)]
    found = {}
    for what, see, whole, part in ways:
        with contextlib.suppress(CannotTell, IndexError, RuntimeError, ValueError):  # no loss function that is known
            together = see(whole)
            if not difference(see(whole, seed=1), together) <= SAME:
                continue  # it is drawn, or no number
            try:
                fewer = see(part)
            except CannotTell as error:  # though it could predict all of them together
                return judge(False, f"a row alone: {error}", "its prediction", remedy)
            if (len(together), len(fewer)) == (num_rows(whole), num_rows(part)):
                found[what] = difference(fewer, together[-len(fewer) :])
    if not found:
        raise CannotTell("predictions are drawn, or not known")
    worst = max(found, key=lambda what: found[what])
    remedy = "mask what is padded, in pooling, attention and the loss" if "padding" in worst else remedy
    return judge(found[worst] < SAME, f"alone, {worst} differs by {found[worst]:.1g}", "rounding", remedy)


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
    if failed := [verdict for verdict in found if verdict.status == "FAIL"]:
        return failed[0]
    for split in [split for split in ("val", "test") if context.read(split)]:
        with contextlib.suppress(Exception):  # as above
            if (share := share_drawn_again(context, split)) > 0.1:  # by chance it is one row of a hundred
                text = f"{share:.0%} of {split} rows are training's in the same places, but for how these are augmented"
                return judge(False, text, "none", "split before rows are augmented")
    return found[0]


def share_drawn_again(context: Context, split: str) -> float:
    """The share of the first rows of a split that seem to be training's, but for how these are augmented."""
    parts = [tensors(drawn(context, each, range(100), i)) for i, each in enumerate(("train", "train", split))]
    count = min(len(part[0]) for part in parts)
    one, again, other = (flat(part[0][:count]) for part in parts)
    if count < 50 or not one.shape == again.shape == other.shape:
        return 0.0
    between, itself = torch.cdist(other, one), (again - one).norm(dim=1)
    is_own = (between.argmin(1) == torch.arange(count, device=one.device)) & (itself > 0)
    y, others = (flat(part[-1][:count]) for part in parts[::2])
    if len(parts[0]) > 1 and y.shape == others.shape:
        is_own &= (y == others).all(1)
    return float((is_own & (between.diagonal() <= itself)).double().mean())


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
        for split in keys if min(len(early), len(late)) > 0.9 * len(train) else ():  # else many are 0, say
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
