"""Are the data what one takes them for? Columns, targets, splits, and how fast they come."""

import math
import statistics
import time
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import WeightedRandomSampler

from linreg.checks.batch import flat, pair, tensors, together
from linreg.checks.context import Context
from linreg.checks.fits import alone
from linreg.files.doubts import FEW, far_cells, far_values
from linreg.verdict import ILL_CONDITIONED, REPEATED, CannotTell, Verdict, judge

FAR = 100.0  # times: between the spreads of columns, or of a mean's distance from 0 and a spread
MANY = 200  # rows, to judge a relation


def quantities(y: Tensor) -> Tensor:
    """Targets as columns (N, K) to be averaged: a column for each class, and quantities by their ranks."""
    if y.ndim > 1 + y.is_floating_point():
        raise CannotTell("the targets are no quantities or classes of a row")
    if y.is_floating_point():
        return torch.stack([column.unique(return_inverse=True)[1] for column in flat(y).T], 1).double()
    return (flat(y) == y.unique()[:1000]).double()


def no_collinear_column(context: Context) -> Verdict:
    """No column follows from the others and a constant; of two values, as levels of a category have, each may."""
    x = context.table()[0]
    values = torch.tensor([len(column.unique()) for column in x.T], device=x.device)
    if constant := (values == 1).nonzero().flatten().tolist():
        return judge(False, f"constant columns: {context.names(constant)}", "none", "leave them out")
    if len(x) < max(FEW, 2 * x.shape[1]):
        raise CannotTell(f"there are {len(x)} rows of {x.shape[1]} columns")
    gram = torch.corrcoef(x.T) + 1e-9 * torch.eye(x.shape[1], device=x.device)
    vif = torch.where(values == 2, 1, torch.linalg.inv(gram).diagonal())  # 1 / (1 - R^2) of each column on the others
    condition = float(torch.linalg.cond(gram)) ** 0.5
    bad = (vif > REPEATED).nonzero().flatten().tolist() if condition > ILL_CONDITIONED else []
    text = f"columns that follow from others: {context.names(bad)}; largest VIF: {float(vif.max()):.3g}"
    text += f", condition number {condition:.3g}"
    return judge(not bad, text, f"at most {ILL_CONDITIONED}", "leave one of them out")


def first_layer_gets_scaled_columns(context: Context) -> Verdict:
    """What the first layer gets has columns of about one size, near 0."""
    context.table()
    context.needs(nothing_is_missing)
    model, seen = context.copy(), list[tuple[nn.Module, Any]]()
    for layer in model.modules():
        if any(p.requires_grad for p in layer.parameters(recurse=False)):
            layer.register_forward_pre_hook(lambda layer, args: seen.extend((layer, x) for x in args[:1]))
    context.observe(model, together(context.train))
    parts = [x.detach().double() for layer, x in seen if layer is seen[0][0] and isinstance(x, Tensor)]
    x = torch.cat(parts) if parts else torch.zeros(0)
    if x.ndim != 2 or len(x) < FEW or not isinstance(seen[0][0], nn.Linear):
        raise CannotTell(f"the first layer is no linear one that gets {FEW} rows")
    x = x[:, x.std(0) > 0]
    size = torch.stack([column.unique().std() for column in x.T])  # however rarely a column is not 0
    found = max([1.0, *(size / size.min()).tolist(), *(x.mean(0).abs() / x.std(0)).tolist()])
    return judge(found < FAR, f"spreads, and distances from 0, by {found:.3g}", f"below {FAR:g}", "standardize them")


def nothing_is_missing(context: Context) -> Verdict:
    """No number is NaN or infinite, and no wide gap parts few cells, or one value, from all others."""
    parts = [each for each in tensors(context.rows()) if each.is_floating_point()]
    if bad := sum(int((~each.isfinite()).sum()) for each in parts):
        return judge(False, f"{bad:,} numbers are NaN or infinite", "none", "leave these rows out, or fill them in")
    table: Any = getattr(context.data, "table", None)
    lines = table.outliers() if hasattr(table, "outliers") else []
    for each in (flat(part) for part in (parts[0], parts[-1]) if part.ndim <= 2) if parts and not lines else ():
        lines += [f"{each[row, i]:g} in column {i + 1}" for row, i in far_cells(each)]
        lines += [f"in column {i + 1} {said}" for i, said in far_values(each)]
    if lines:
        return judge(False, f"far from the others: {'; '.join(lines[:3])}", "none", "correct, or leave out, the row")
    return Verdict("ok", "all numbers are finite, and no wide gap parts few cells, or one value, from all others")


def target_varies(context: Context) -> Verdict:
    """Each target has several values, and more than three if it is a quantity."""
    y = pair(context.rows())[1]
    if y.ndim > 2 or len(y) < FEW:
        raise CannotTell(f"the targets are no columns of {FEW} or more rows")
    fewest = min(len(column.unique()) for column in flat(y).T)
    calls = context.step(context.train[0]).calls
    is_quantity = bool(calls) and calls[0].kind == "squared" and len(calls[0].target.unique()) < 4
    least = 4 if is_quantity and len(y) >= MANY else 2
    remedy = "take another target" if fewest < 2 else "these are classes: a cross-entropy would fit them"
    return judge(fewest >= least, f"{fewest:,} different values", f"{least} or more", remedy)


def magnitudes(x: Tensor) -> Tensor:
    """The median magnitude of what is not 0 in each of some columns; NaN in one of few such, or of 0 and 1 alone."""
    x = flat(x[:2000].flatten(1)[:, :: x[0].numel() // 1000 + 1] if x.ndim > 1 else x).abs()
    found = x.where(x > 0, math.nan).nanmedian(0).values
    return found.where((x.count_nonzero(0) >= FEW) & (x.amax(0) > found), math.nan)


def splits_are_alike(context: Context) -> Verdict:
    """The targets of training, validation and test, and of its halves, differ by chance; the inputs have one scale."""
    is_weighed = isinstance(getattr(context.trainer.train_dataloader, "sampler", None), WeightedRandomSampler)
    is_ordered = getattr(context.data, "split", "") == "order"  # as weighed: training has other rows on purpose
    splits = [split for split in ("val", "test") if not is_ordered and context.read(split)]
    for split in splits:
        x, other = (tensors(context.rows(each))[0] for each in ("train", split))
        if x.is_floating_point() and other.is_floating_point() and x.shape[1:] == other.shape[1:]:
            off = (magnitudes(other) / magnitudes(x)).log().abs()
            times = float(off.nanquantile(0.5, interpolation="higher").exp())  # of half the columns
            if times > 10:
                said = f"inputs of {split} are {times:.3g} times as large, or as small, as those of training"
                return judge(False, said, "one scale", "transform both alike, as by ToTensor or a scaler")
    y = pair(context.rows())[1]
    pairs = {"the first half": y.chunk(2)[::-1]} if len(context.train) > 3 else {}
    pairs |= {split: (y, pair(context.rows(split))[1]) for split in splits if not is_weighed}
    if not pairs or any(one.shape[1:] != other.shape[1:] for one, other in pairs.values()):
        raise CannotTell("there is no other split, or its targets are of another kind")
    found = (0.0, 0.0, 0.0, "none")
    for name, (one, other) in pairs.items():
        a, b = quantities(torch.cat([one, other])).split([len(one), len(other)])
        shift = float(((a.mean(0) - b.mean(0)).abs() / a.std(0).clamp(min=1e-12)).max())
        times = shift / (1 / len(a) + 1 / len(b)) ** 0.5
        found = max(found, (min(shift / 0.5, times / 6), shift, times, name))
    text = f"the mean of {found[3]} is {found[1]:.2g} spreads off, {found[2]:.2g} times what chance does"
    return judge(found[0] < 1, text, "chance", "shuffle rows, also before the split unless it is one by time")


def classes_are_balanced(context: Context) -> Verdict:
    """No class is nearly all rows, so that one could always name it; the loss ignores none, and training has all."""
    y, known = pair(context.rows())[1], context.step(context.train[0]).known
    if known is None or known.kind not in ("classes", "binary") or y.numel() != len(y):
        raise CannotTell("the target is no class of a row, or the loss is not known")
    if known.settings.get("ignore_index", -1) in y:
        return judge(False, f"the loss ignores class {known.settings['ignore_index']}", "none", "see ignore_index")
    for split in [split for split in ("val", "test") if context.read(split)]:
        other = pair(context.rows(split))[1]
        for label in {*other.flatten().tolist()} - {*y.flatten().tolist()}:
            if len(y) * float((other == label).double().mean()) > FEW:  # of training rows, if splits were alike
                return judge(False, f"class {label:g} of {split} is in no training row", "it is", "shuffle, then split")
    share = float(y.flatten().unique(return_counts=True)[1].max() / len(y))
    is_weighed = any(known.settings.get(name) is not None for name in ("weight", "pos_weight"))
    return judge(share < 0.9 or is_weighed, f"the largest has {share:.0%} of the rows", "below 90 %", "weigh the loss")


def target_follows_from_inputs(context: Context) -> Verdict:
    """Something of the target follows from the inputs, along a line or from the nearest rows."""
    x, y = pair(context.rows())
    what = "target's ranks" if y.is_floating_point() else "classes"
    y = quantities(y)
    if len(x) < MANY or not (x.is_floating_point() and x.isfinite().all() and (y != y[:1]).any(0).all()):
        raise CannotTell(f"there are fewer than {MANY} rows, inputs that are no numbers, or one target only")
    x, y = ((side - side.mean(0)) / side.std(0).clamp(min=1e-12) for side in (flat(x[:2000]), y[:2000]))
    near = torch.cdist(x, x).fill_diagonal_(math.inf).topk(5, largest=False).indices
    plane = torch.linalg.qr(x)[0] if 4 * x.shape[1] < len(x) else x[:, :0]

    def explained(y: Tensor) -> Tensor:
        return torch.stack([(plane.T @ y).square().sum() / y.square().sum(), (y * y[near].mean(1)).mean()])

    with alone():
        chance = torch.stack([explained(y[torch.randperm(len(y))]) for _ in range(99)])
    (line, near_rows), usual, spread = explained(y), chance.mean(0), chance.std(0).clamp(min=1e-12)
    above = float(((torch.stack([line, near_rows]) - usual) / spread).amax())
    text = f"a line explains {line:.1%} of the {what} ({usual[0]:.1%} of shuffled ones), near rows {near_rows:.1%}"
    text += f" ({usual[1]:.1%})"
    return judge(above > 4, text, "clearly more", "are inputs and targets in one order? are these the right ones?")


def loader_keeps_up(context: Context) -> Verdict:
    """A batch is there when the step needs it."""
    workers = getattr(context.trainer.train_dataloader, "num_workers", 0)
    with alone():
        moments = [time.perf_counter() for _ in zip(context.load("train"), range(6), strict=False)]
        if len(moments) < 4:
            raise CannotTell("there are fewer than four batches")
        model, start = context.copy(), time.perf_counter()
        for batch in context.train[:4]:
            context.observe(model, batch).loss.backward()
    step = (time.perf_counter() - start) / 4
    loading = statistics.median(after - before for before, after in pairwise(moments))  # other work may hold up some
    text = f"a batch takes {1e3 * loading:.2g} ms, a step {1e3 * step:.2g} ms"
    remedy = f"num_workers={min(math.ceil(loading / step) * max(workers, 1), 64)} would keep up"
    return judge(loading < max(2 * step, 0.02), text, "no longer than a step", remedy)
