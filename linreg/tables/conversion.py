"""From the rows of a reader to a file of them in random order, in float32 where that can hold them."""

import json
import os
import zlib
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
from tqdm import tqdm

from linreg.tables.reader import TableReader

BUCKET = 1 << 26  # bytes that are shuffled at a time
MOST_BUCKETS = 128  # files that are open at a time
PART = 1 << 26  # bytes that are written or read at a time
SAMPLE = 128  # rows of each block that tell how finely its columns are divided
ENOUGH = 512  # rows that are judged together
LOST = 2e-7  # of a column's standard deviation: what rounding to float32 may cost (a z-score costs a tenth of it)
BLURRED = 1e-2  # of the distance of two neighbours in a sample: what it may cost 19 pairs of 20


def convert(reader: TableReader, seed: int, folder: Path, dtype: type) -> bool:
    """Deals the rows out to buckets at random, then shuffles one after the other; False if float32 would not do."""
    generator, create = np.random.default_rng(seed), partial(os.open, mode=0o600)
    num_buckets = sum(file.num_cells for file in reader.files) * np.dtype(dtype).itemsize // BUCKET + 1
    if num_buckets > MOST_BUCKETS or any(getattr(file, "zipped", False) for file in reader.files):
        num_buckets = MOST_BUCKETS  # of a packed file nobody knows how much comes out
    precision = Precision(reader.num_targets) if dtype is np.float32 else None
    with ExitStack() as stack, tqdm(desc="converting", unit=" rows", unit_scale=True, disable=None) as bar:
        buckets = [stack.enter_context(open(folder / str(i), "wb", opener=create)) for i in range(num_buckets)]
        for block in reader.blocks():
            values: Any = precision.rounded(block) if precision else block
            if values is None:
                return False
            bucket = generator.integers(num_buckets, size=len(block))
            order = np.argsort(bucket, kind="stable")
            ends = np.searchsorted(bucket[order], range(1, num_buckets))
            for file, part in zip(buckets, np.split(values[order], ends), strict=True):
                file.write(part.data)
            bar.update(len(block))
    if precision and precision.is_lost_at_last():
        return False
    reader.resolve_columns()
    with open(folder / "rows", "wb", opener=create) as rows:
        checksum = 0
        for i in range(num_buckets):
            values = np.fromfile(folder / str(i), dtype).reshape(-1, len(reader.columns))
            values = reader.drop_incomplete_rows(values)
            values = values[generator.permutation(len(values))]
            checksum = _write(reader, values, rows, checksum)
            (folder / str(i)).unlink()
        rows.flush()
        os.fsync(rows.fileno())
    reader.check_rows()
    record: dict[str, Any] = {"read": reader.num_read, "rows": reader.num_read - reader.num_dropped}
    record |= {"kept": reader.kept, "levels": reader.levels, "notes": reader.notes(), "dtype": np.dtype(dtype).name}
    record["checksum"] = zlib.crc32(json.dumps(record).encode(), checksum)
    with open(folder / "table.json", "w", opener=create) as text:
        json.dump(record, text, indent=1)
    return True


def _write(reader: TableReader, values: np.ndarray, rows: IO[bytes], checksum: int) -> int:
    """Writes rows, with a column for each level, of which there may be many, a part at a time; their checksum."""
    most = PART // (8 * reader.width) + 1
    for start in range(0, len(values), most):
        part: Any = reader.expand(values[start : start + most])
        checksum = zlib.crc32(part, checksum)
        rows.write(part.data)  # as part.tofile(rows) does, which does not say why it fails
    return checksum


class Precision:
    """Whether float32 holds the digits of a table: judged by a sample of the rows of each block."""

    def __init__(self, num_targets: int) -> None:
        self.num_targets = num_targets  # the first columns
        self.generator = np.random.default_rng(0)  # rows at regular distances may be all of one kind
        self.recent: list[np.ndarray] = []  # rows of the last blocks
        self.across: list[np.ndarray] = []  # some rows of the blocks before, for what differs from block to block only

    def rounded(self, block: np.ndarray) -> np.ndarray | None:
        """A block in float32; None if that loses what it says, or what those before it say."""
        try:
            with np.errstate(over="raise", under="raise"):  # the processor tells, at no cost
                values = block.astype(np.float32)
        except FloatingPointError:
            return None
        sample = block[self.generator.integers(len(block), size=SAMPLE)] if len(block) > SAMPLE else block
        if np.isnan(sample).any():
            missing = np.isnan(block)
            whole = np.flatnonzero(~(missing & ~missing.all(axis=0)).any(axis=1))  # the others will be dropped
            sample = block[self.generator.choice(whole, SAMPLE) if len(whole) > SAMPLE else whole]
        self.recent.append(sample)
        if sum(map(len, self.recent)) < ENOUGH:
            return values
        rows, self.recent = self.recent, []
        self.across.append(np.concatenate(rows)[::16])
        if len(self.across) == 64:
            del self.across[::2]
        return None if self._is_lost(rows) else values

    def is_lost_at_last(self) -> bool:
        return self._is_lost(self.recent) or self._is_lost(self.across + self.recent)

    def _is_lost(self, some: list[np.ndarray]) -> bool:
        if sum(map(len, some)) < (SAMPLE if self.across else 1):
            return False  # a spread of a few rows means nothing, unless they are all
        rows = np.concatenate(some)
        return _is_blurred(rows) or _is_bent(rows[:, self.num_targets :])


def _is_blurred(rows: np.ndarray) -> bool:
    """Whether rounding to float32 costs a column too much of its spread, or merges what lies in a narrow part of it."""
    x = np.sort(rows.T, axis=1)  # NaN, where a column is left out, comes last
    error = np.abs(x - x.astype(np.float32))
    spread = x - (np.nansum(x, axis=1) / np.maximum((~np.isnan(x)).sum(axis=1), 1))[:, None]
    coarse = np.nansum(error**2, axis=1) > LOST**2 * np.nansum(spread**2, axis=1)
    gaps = np.diff(x, axis=1)
    apart = gaps > 0
    merged = apart & (np.maximum(error[:, 1:], error[:, :-1]) > BLURRED * gaps)
    return bool((apart.any(axis=1) & (coarse | (20 * merged.sum(axis=1) > apart.sum(axis=1)))).any())


def _is_bent(rows: np.ndarray) -> bool:
    """Whether rounding to float32 changes the spread in any direction by a hundredth.

    Two columns of times may differ by less than what each loses: their difference, and its coefficient, would be noise.
    """
    x = rows[:, ~np.isnan(rows).any(axis=0)]
    x = x[:, x.std(axis=0) > 0]
    if not 0 < x.shape[1] < len(x):
        return False
    exact, lost = (x - x.mean(axis=0)) / x.std(axis=0), (x.astype(np.float32) - x) / x.std(axis=0)
    before = np.linalg.svd(exact, compute_uv=False)
    if np.linalg.norm(lost) < before[-1] / 100:  # by so much it may change one, at most (Weyl)
        return False
    after = np.linalg.svd(exact + lost - lost.mean(axis=0), compute_uv=False)
    return bool((np.abs(after - before) > before / 100 + 1e-9 * before[0]).any())
