"""A table larger than memory: converted once, in random order, to a file that is mapped instead of read."""

import hashlib
import json
import os
import shutil
import time
import warnings
import zlib
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from linreg.errors import RunError
from linreg.table import Source, Table

VERSION = 1  # of the format; a file of another version is made anew
BUCKET = 1 << 26  # bytes that are shuffled at a time
FAR = 8  # standard deviations from 0, beyond which float32 would keep less than 6 digits of a column's spread


def mapped_table(source: Source, seed: int, folder: str) -> Table:
    """The table of a source as a memory-mapped file, in an order that the seed decides; made unless it is there.

    Args:
        source: not read yet.
        seed: shuffles the rows, so that any stretch of them is a random sample.
        folder: where such files are kept.

    Raises:
        RunError: if the file cannot be written.
    """
    key = {"version": VERSION, "seed": seed, "targets": source.num_targets, "missing": source.missing}
    key["columns"] = [(column.name, column.required) for column in source.columns]
    key["files"] = [
        (str(file.path.absolute()), file.path.stat().st_size, file.path.stat().st_mtime_ns) for file in source.files
    ]
    name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:20]
    place = Path(folder).expanduser() / name
    table = _open(place)
    if table is None:
        temporary = place.with_name(f".{name}.{os.getpid()}.tmp")
        start = time.perf_counter()
        try:
            _sweep(place.parent)
            temporary.mkdir(parents=True)
            _convert(source, seed, temporary)
            if _open(place) is None:  # else another run has made it meanwhile
                shutil.rmtree(place, ignore_errors=True)  # of an older version, or broken
                os.replace(temporary, place)
        except OSError as error:
            raise RunError(
                f"the table of {source.path} does not fit memory for 16 million cells, and could not be converted in "
                f"{place.parent}: {error.strerror}; set --data.cache to a folder with room"
            ) from None
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        table = _open(place)
        table.notes.append(f"converted in {time.perf_counter() - start:.0f} s to {place}, where the next run finds it")
    else:
        table.notes.append(f"mapped from {place}")
    return table


def _sweep(folder: Path) -> None:
    """Removes what a process that was killed has left, once nothing was written to it for a day."""
    for old in folder.glob(".*.tmp"):
        with suppress(OSError):  # one that another run is working on changes under our eyes
            if time.time() - max(path.stat().st_mtime for path in (old, *old.iterdir())) > 86_400:
                shutil.rmtree(old)


def _convert(source: Source, seed: int, folder: Path) -> None:
    """Deals the rows out to buckets at random, then shuffles one bucket after the other."""
    generator = np.random.default_rng(seed)
    num_buckets = sum(file.num_cells for file in source.files) * 4 // BUCKET + 1
    dtype = None
    with ExitStack() as stack, tqdm(desc="converting", unit=" rows", unit_scale=True, disable=None) as bar:
        buckets = [stack.enter_context((folder / str(i)).open("wb")) for i in range(num_buckets)]
        for block in source.blocks():
            dtype = dtype or _dtype(block)
            bucket = generator.integers(num_buckets, size=len(block))
            order = np.argsort(bucket, kind="stable")
            ends = np.searchsorted(bucket[order], range(1, num_buckets))
            for file, part in zip(buckets, np.split(block[order].astype(dtype), ends), strict=True):
                file.write(part.tobytes())
            bar.update(len(block))
    kept, checksum = source.settle(), 0
    with (folder / "rows").open("wb") as rows:
        for i in range(num_buckets):
            values = np.fromfile(folder / str(i), dtype or "float32").reshape(-1, len(source.columns))
            values = source.whole_rows(values, kept)
            values = values[generator.permutation(len(values))]
            checksum = zlib.crc32(values, checksum)
            values.tofile(rows)
            (folder / str(i)).unlink()
        rows.flush()
        os.fsync(rows.fileno())
    table = source.table(torch.empty(source.num_read - source.num_dropped, len(kept), device="meta"), kept)
    record: dict[str, Any] = {"features": table.feature_names, "targets": table.target_names, "notes": table.notes}
    record |= {"read": table.num_read, "rows": len(table.x), "dtype": dtype, "checksum": checksum}
    (folder / "table.json").write_text(json.dumps(record, indent=1))


def _dtype(block: np.ndarray) -> str:
    """float32, unless a column is so far from 0 (years, Unix times) that its differences would be lost."""
    known = block[:, ~np.isnan(block).any(axis=0)]
    return "float64" if (np.abs(known.mean(axis=0)) > FAR * known.std(axis=0)).any() else "float32"


def _open(place: Path) -> Table | None:
    """The table that was converted before; None if there is none, or if it is not whole."""
    try:
        record = json.loads((place / "table.json").read_text())
        mapped = np.memmap(place / "rows", dtype=record["dtype"], mode="r")  # writable, Linux would want memory for it
        width = len(record["features"]) + len(record["targets"])
        checksum = 0
        for start in range(0, len(mapped), BUCKET):
            checksum = zlib.crc32(mapped[start : start + BUCKET], checksum)
        if checksum != record["checksum"] or len(mapped) != record["rows"] * width:
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nobody writes
        values, split = torch.from_numpy(mapped).view(-1, width), len(record["targets"])
    x, y = values[:, split:], values[:, :split]
    names = record["features"], record["targets"]
    return Table(x, y, *names, record["read"], record["notes"], mapped=True)
