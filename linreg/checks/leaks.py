"""Does it see what it should not? Other rows, its target, the future, validation rows."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map
from torch.utils.data import DataLoader

from linreg.checks.batch import change, flat, num_rows, pair, tensors
from linreg.checks.context import Context
from linreg.checks.fits import weights
from linreg.verdict import CannotTell, Verdict, judge

SAME = 1e-3  # of a prediction's size: more is no rounding


def difference(a: Tensor, b: Tensor) -> float:
    return float((a - b).detach().abs().max() / max(float(b.detach().abs().mean()), 1e-12))


def neighbours(context: Context) -> Verdict:
    """In evaluation, a prediction does not depend on the rows beside it."""
    batch, size = context.val[0], getattr(context.trainer.train_dataloader, "batch_size", None)
    if num_rows(batch) < 2 or (isinstance(size, int) and num_rows(context.train[0]) > size):
        raise CannotTell("a batch has one row, or rows that do not lie along its first dimension")
    beside = context.predict(batch)[:8]
    if difference(context.predict(batch, seed=1)[:8], beside) > SAME:
        raise CannotTell("predictions are drawn")
    try:
        parts = [change(batch, lambda each, i=i: each[[i]]) for i in range(len(beside))]  # type: ignore[misc]
        apart = torch.cat([context.predict(part) for part in parts])
    except CannotTell as error:  # though it could predict all of them together
        return judge(False, f"a row alone: {error}", "its prediction", "look for statistics of the batch")
    found = difference(apart, beside)
    remedy = "look for statistics or attention over the batch, or a batch_first that is not set"
    return judge(found < SAME, f"alone, predictions differ by {found:.1g}", "rounding", remedy)


def target_unseen(context: Context) -> Verdict:
    """Another target changes no prediction."""
    batch = context.val[0]
    y = pair(batch)[1]
    if y.ndim > 1 and not y.is_floating_point():
        raise CannotTell("a sequence may be given what stands before in its own target")
    others = tree_map(lambda leaf: y.roll(1, 0) if leaf is y else leaf, batch)
    one, other = (context.observe(context.copy(training=False), each).calls for each in (batch, others))
    if not one or len(one) != len(other) or torch.equal(y, y.roll(1, 0)):
        raise CannotTell("all targets of a batch are the same, or what goes into the loss is not known")
    found = max(difference(b.prediction, a.prediction) for a, b in zip(one, other, strict=True))
    return judge(found < SAME, f"predictions then differ by {found:.1g}", "nothing", "keep the target out of forward")


def future_unseen(context: Context) -> Verdict:
    """Where each target is the next of the inputs, a later one changes no prediction."""
    batch = context.train[0]
    x, *others = tensors(batch)
    is_next = all(x.shape == y.shape and torch.equal(x[:, 1:], y[:, :-1]) for y in others) and len(others) < 2
    if x.is_floating_point() or x.ndim != 2 or x.shape[1] < 4 or not is_next:
        raise CannotTell("the targets are not the inputs one step on")
    middle, later = x.shape[1] // 2, x.clone()
    later[:, middle] = x.flip(0)[:, middle]
    batches = (batch, tree_map(lambda leaf: later if leaf is x else leaf, batch))
    calls = [context.known_loss(context.copy(training=False), each).prediction for each in batches]
    # (N T, C) or (N, C, T), as a cross-entropy takes them
    parts = [p.reshape(len(x), -1, p.shape[1])[:, :middle] if p.ndim == 2 else p[..., :middle] for p in calls]
    found = difference(parts[1], parts[0])
    return judge(found < SAME, f"earlier predictions differ by {found:.1g}", "nothing", "mask the future (is_causal)")


def splits_apart(context: Context) -> Verdict:
    """No row of validation or test is a training row too."""
    splits = [split for split in ("train", "val", "test") if context.read(split)]
    rows = {split: torch.cat([flat(each) for each in tensors(context.rows(split))], 1) for split in splits}
    keys = {split: [row.tobytes() for row in each.cpu().numpy()] for split, each in rows.items()}
    train, count = {*keys["train"]}, len(keys.pop("train"))
    if not keys:
        raise CannotTell("there are only training rows")
    shared = {split: sum(row in train for row in each) for split, each in keys.items()}
    is_told_apart = max(len(column.unique()) for column in rows["train"].T) > 0.9 * len(train)
    chance = 0.01 + 3 * (1 - len(train) / count) * (not is_told_apart)  # few different values have twins by themselves
    bad = [split for split, each in shared.items() if each > max(1, chance * len(keys[split]))]
    text = ", ".join(f"{each:,} of {len(keys[split]):,} {split} rows" for split, each in shared.items())
    return judge(not bad, f"in training too: {text}", "none", "split before rows are repeated or augmented")


def units_are_of_training_rows(context: Context) -> Verdict:
    """Columns were not standardized together with the rows that are held out."""
    train = context.table()[0]
    parts, sizes = [train], {}
    for split in ("train", "val", "test"):
        parts += [pair(context.rows(split))[0].double()] if split != "train" and context.read(split) else []
        x = torch.cat(parts)
        sizes[split] = float((x.mean(0) / x.std(0).clamp(min=1e-300)).abs().nan_to_num().amax())
    text = "means of columns, in spreads: " + ", ".join(f"{size:.1g} with {split}" for split, size in sizes.items())
    is_leak = min(sizes.values()) < 1e-5 < 1e-3 < sizes["train"]
    return judge(not is_leak, text, "0 with train", "take mean and spread from the training rows")


def no_column_is_the_target(context: Context) -> Verdict:
    """No column gives the target away alone, by a line or by its order."""
    x, y = context.table()
    if x.shape[1] < 2 or y.ndim > 2 or len(x) < 20:
        raise CannotTell("there are fewer than two columns, or twenty rows")
    most, where = 0.0, 0
    for sides in ((x, flat(y)), (x.argsort(0).argsort(0).double(), flat(y).argsort(0).argsort(0).double())):
        a, b = ((side - side.mean(0)) / (side - side.mean(0)).norm(dim=0).clamp(min=1e-300) for side in sides)
        most, where = max((most, where), *((float(v), i) for i, v in enumerate((a.T @ b).square().amax(1))))
    found = f"column {context.names([where])} alone explains {most:.4%}"
    return judge(most <= 0.9999, found, "less than all", "leave it out if it is not known before the target is")


def validation_moves_nothing(context: Context) -> Verdict:
    """Other validation rows leave the same weights and buffers behind."""

    def repeat(model: Any, data: Any) -> None:
        rows: Any = [change(batch, lambda each: each[:1].expand_as(each).clone()) for batch in context.val[:2]]
        vars(data)["val_dataloader"] = lambda: DataLoader(rows, batch_size=None, collate_fn=lambda batch: batch)

    if context.val is context.train or not context.repeats:
        raise CannotTell("there are no validation rows, or a training is not the same twice")
    how: dict[str, Any] = {"epochs": 1, "limit_train_batches": 4, "limit_val_batches": 2}
    one, other = weights(context.fit(**how)), weights(context.fit(**how, prepare=repeat))
    moved = [name for name, value in one.items() if value.ndim and not torch.equal(value, other[name])]
    found = f"{moved[0]} is another" if moved else f"{len(one)} weights and buffers are the same"
    return judge(not moved, f"after other validation rows {found}", "the same", "look at the hooks of validation")


LEAKS = [neighbours, target_unseen, future_unseen, splits_apart, units_are_of_training_rows, no_column_is_the_target]
LEAKS += [validation_moves_nothing]
