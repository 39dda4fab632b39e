"""Where rows come from: a CSV or Parquet file, or all such files of a folder or of a pattern, in their names' order."""

import glob
import os
from pathlib import Path
from typing import Any

from linreg.files.blocks import CSVBlocks
from linreg.files.cells import Spelling
from linreg.files.columns import Column
from linreg.files.csv_text import SAMPLE_OF_MANY, CSVFile
from linreg.files.parquet import ArrowSource, open_frame, open_parquet
from linreg.system.errors import InputError

SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")


class CSVSource(CSVFile):
    """A CSV file as a source of rows."""

    @property
    def num_cells(self) -> int:
        """About how many cells it holds, at 8 bytes each, or 3 where it is packed."""
        return self.num_bytes // (3 if self.zipped else 8)

    def blocks(self, columns: list[Column], refuse_missing: bool, keep: bool = False) -> CSVBlocks:
        """See there."""
        return CSVBlocks(self, columns, refuse_missing, keep)


Source = CSVSource | ArrowSource


def find_sources(path: Any, spelling: Spelling) -> list[Source]:
    """The files behind a path, a folder or a pattern such as ``data/2024-*.csv``, all with the same columns."""
    if hasattr(path, "columns"):
        return [open_frame(path, spelling)]
    text = path if isinstance(path, str) else str(path) if isinstance(path, os.PathLike) else ""
    if os.path.isdir(text):
        found = glob.glob(os.path.join(glob.escape(text), "*"))
        if not (paths := sorted(path for path in found if path.endswith(SUFFIXES))):
            raise InputError(f"{text}: a CSV file is expected, this is a folder without any {', '.join(SUFFIXES)}")
    elif os.path.lexists(text) or not glob.has_magic(text):
        paths = [text or path]
    else:
        if sum(map(glob.has_magic, Path(text).parts)) > 3:
            raise InputError(f"{text}: a pattern in at most 3 parts of a path is expected; more may match for hours")
        if not (paths := sorted(glob.glob(text))):
            raise InputError(f"{text}: no file has such a name")
    sources: list[Source] = [
        open_parquet(path, spelling) if str(path).endswith(".parquet") else CSVSource(path, spelling) for path in paths
    ]
    for source in sources[1:]:
        if isinstance(source, CSVSource):
            source.sample = SAMPLE_OF_MANY
        if different := sorted(set(source.names) ^ set(sources[0].names)):
            names = ", ".join(map(repr, different[:10]))
            raise InputError(f"{source.path}: other columns than in {sources[0].path}: {names}")
    return sources
