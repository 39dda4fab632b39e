"""Rows as a file has them, cell for cell, to be written again with something beside them."""

import io
from pathlib import Path
from typing import Any

from linreg.system.errors import InputError


class TextRows:
    """Rows of a CSV file: their texts, without line ends, and the lines that they begin in."""

    def __init__(self, path: Path, block: bytes = b"", first: int = 1) -> None:
        texts = block.decode().replace("\r\n", "\n").split("\n")
        self.path, self.texts = path, [text for text in texts if text]  # blank lines are no rows
        self.lines = [line for line, text in enumerate(texts, first) if text]

    def add(self, line: int, parts: list[str]) -> None:
        """One more row, from the file's lines that it is made of."""
        self.texts.append("".join(parts).removesuffix("\n").removesuffix("\r"))
        self.lines.append(line)

    def place(self, i: int) -> str:
        return f"{self.path}, line {self.lines[i]}"

    def beside(self, cells: list[list[str]], delimiter: str) -> str:
        """The rows as text, with a cell of each of these columns at their ends."""
        return "\n".join(map(delimiter.join, zip(self.texts, *cells, strict=True))) + "\n"


class ArrowRows:
    """Rows of a Parquet file: a batch of pyarrow, and the number of its first row."""

    def __init__(self, path: Path, batch: Any, first: int) -> None:
        self.path, self.batch, self.first = path, batch, first

    def place(self, i: int) -> str:
        return f"{self.path}, row {self.first + i}"

    def beside(self, cells: list[list[str]], delimiter: str) -> str:
        """The rows as CSV text, with a cell of each of these columns at their ends."""
        from pyarrow import ArrowException, array, csv, table

        columns, text = [*self.batch.columns, *map(array, cells)], io.BytesIO()
        options = csv.WriteOptions(include_header=False, delimiter=delimiter)
        try:
            csv.write_csv(table(columns, names=[str(i) for i in range(len(columns))]), text, options)
        except ArrowException as error:
            raise InputError(f"{self.path} cannot be written as CSV: {error}; leave that column out of it") from None
        return text.getvalue().decode()


Rows = TextRows | ArrowRows
