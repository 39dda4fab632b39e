"""A table larger than memory: converted once, in random order, to a file that is mapped instead of read."""

import hashlib
import json
import os
import re
import time
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout

from linreg.system.atomic import leftovers, temporaries
from linreg.system.errors import InputError, RunError
from linreg.system.messages import READ_ONLY_ARRAY
from linreg.system.screen import say
from linreg.tables.conversion import PART, convert
from linreg.tables.reader import TableReader
from linreg.tables.table import Table

VERSION = 3  # of the format; a file of another version is made anew


def mapped_table(reader: TableReader, seed: int, folder: str) -> Table:
    """The table of a reader that was not read as a memory-mapped file in a folder; made unless it is there.

    The seed shuffles the rows, so that any stretch of them is a random sample.
    """
    place, start = Path(folder).expanduser() / _key(reader, seed), time.perf_counter()
    if table := _open(place, reader):
        table.notes.append(f"mapped from {place}")
        return table
    try:
        with alone(place):
            table = _open(place, reader)  # another process may have made it meanwhile
            if table is None:
                _make(reader, seed, place)
                table = _open(place, reader)
    except OSError as error:
        found = f"the table of {reader.path} does not fit memory for 16 million cells, and could not be converted in"
        why = f"{error.strerror or error}; set --data.cache to a folder with room"
        raise RunError(f"{found} {place.parent}: {why}") from None
    if table is None:
        raise RunError(f"{place} changed while it was made; set --data.cache to a folder that nothing else writes to")
    table.notes.append(f"converted in {time.perf_counter() - start:.0f} s to {place}, where the next run finds it")
    return table


@contextmanager
def alone(place: Path) -> Iterator[None]:
    """Lets one process at a time make a file, of those of a run as of others; the rest say what they wait for."""
    place.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(place.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"        waiting for another process, which converts the table to {place}")
        lock.acquire()
    try:
        yield
    finally:
        with suppress(OSError):  # a system that keeps open files
            os.unlink(lock.lock_file)
        lock.release()


def _key(reader: TableReader, seed: int) -> str:
    """A name that stands for all that the file depends on."""
    key: dict[str, Any] = {"version": VERSION, "seed": seed, "targets": reader.num_targets, "missing": reader.missing}
    key |= {"columns": [(each.name, each.required) for each in reader.columns], "categories": reader.categories}
    spelling = reader.files[0].spelling
    key["spelling"] = (spelling.decimal, spelling.missing, spelling.missing_numbers)
    found = [(file.path.absolute(), file.path.stat()) for file in reader.files]
    key["files"] = [(str(path), state.st_size, state.st_mtime_ns, state.st_ctime_ns) for path, state in found]
    return hashlib.sha256(json.dumps(key).encode()).hexdigest()[:20]


def _make(reader: TableReader, seed: int, place: Path) -> None:
    for leftover in leftovers(place.parent, "[0-9a-f]{20}"):
        with suppress(OSError):  # another run sweeps too
            _remove(leftover)
    with suppress(FileNotFoundError):
        _remove(place)  # which is broken
    for temporary in temporaries(place):
        with suppress(FileExistsError):
            temporary.mkdir(0o700)
            break
    try:
        if not convert(reader, seed, temporary, np.float32):
            reader = reader.again()
            convert(reader, seed, temporary, np.float64)
        if _key(reader, seed) != place.name:
            raise InputError(f"{reader.path} changed while it was read; try again when nothing writes to it")
        if _open(place, reader):  # another run has made it meanwhile
            _remove(temporary)
        else:
            os.replace(temporary, place)
    except BaseException:
        with suppress(OSError):
            _remove(temporary)
        raise


def _remove(folder: Path) -> None:
    """Removes a folder if a conversion has written all that is in it, and OSError otherwise."""
    files = [] if folder.is_symlink() else list(folder.iterdir())
    if all(re.fullmatch(r"[0-9]{1,3}|rows|table\.json", file.name) and _is_plain(file) for file in files):
        for file in files:
            file.unlink()
    folder.rmdir()


def _is_plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()  # a FIFO would wait, a link leads elsewhere


def _open(place: Path, reader: TableReader) -> Table | None:
    """The table that was converted before; None if there is none, or if it is not whole."""
    try:
        if not (_is_plain(place / "table.json") and _is_plain(place / "rows")):
            return None
        with open(place / "table.json") as file:
            record = json.loads(file.read(1 << 26))  # which is longer is none
        stated, width = record.pop("checksum"), _width(record, reader)
        mapped: Any = np.memmap(place / "rows", record["dtype"], "r")  # writable, Linux would want memory for it
        if len(mapped) != record["rows"] * width:
            return None
        checksum = 0
        for start in range(0, len(mapped), PART):
            checksum = zlib.crc32(mapped[start : start + PART], checksum)
        if zlib.crc32(json.dumps(record).encode(), checksum) != stated:
            return None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", READ_ONLY_ARRAY)  # nobody writes
        values = torch.from_numpy(mapped).view(-1, width)
    reader.kept = record["kept"]
    for column in reader.columns:
        if column.name in record["levels"]:
            column.fix(record["levels"][column.name])
    table = Table.of_reader(reader, values)
    table.num_read, table.notes, table.mapped = record["read"], record["notes"], True
    return table


def _width(record: dict[str, Any], reader: TableReader) -> int:
    """How many columns a record has, all of which could be of these files; ValueError if they could not."""
    kept, counts, levels = record["kept"], (record["rows"], record["read"]), record["levels"]
    is_category = [column.may_be_text or column.levels is not None for column in reader.columns]
    needed = [i for i, column in enumerate(reader.columns) if column.required and not is_category[i]]
    sound = all(type(number) is int for number in (*kept, *counts)) and 0 < counts[0] <= counts[1] < 1 << 53
    sound = sound and kept == sorted(set(kept) & set(range(len(reader.columns)))) and set(needed) <= set(kept)
    sound = sound and len(kept) > reader.num_targets and all(isinstance(note, str) for note in record["notes"])
    sound = sound and {*levels} <= {reader.columns[i].name for i in kept if is_category[i]}
    sound = sound and all(len({*map(str, texts)}) == len(texts) > 1 for texts in levels.values())
    if not (sound and isinstance(record["notes"], list) and record["dtype"] in ("float32", "float64")):
        raise ValueError(record)
    return len(kept) + sum(len(texts) - 2 for texts in levels.values())
