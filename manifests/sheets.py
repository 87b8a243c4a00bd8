"""Text as corpora publish it: lines, and CSV with known columns row by row; what is no row is refused by its line."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

from manifests import files
from manifests.clips import Refuse
from manifests.errors import UserError


def read_lines(path: str) -> list[str]:
    """Return the lines of a text file of a corpus; UserError if it is not text."""
    try:
        return files.read_text(path).splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); unpack it anew") from None


def read_rows(
    path: str, label: str, columns: Sequence[str], refuse: Refuse, encoding: str = "utf-8"
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield ``label:line`` and the values by column of every row of the CSV file at `path`.

    The line is the last of the row: between quotes there may be line ends. A row with too few or too many values is
    refused; an empty line is none. UserError if the file is not text or has other columns.
    """
    try:
        reader = csv.reader(io.StringIO(files.read_text(path, encoding), newline=""))
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not text ({error.reason} at byte {error.start}); fetch it anew") from None
    header = next(tell(reader, label, refuse), [])
    if header != list(columns):
        raise UserError(f"{path}: the columns are {header}, but the published are {list(columns)}")
    width = len(columns)
    for row in tell(reader, label, refuse):
        if len(row) == width:
            yield f"{label}:{reader.line_num}", dict(zip(columns, row))  # noqa: B905
        elif row:
            refuse("malformed_row", f"{label}:{reader.line_num}", f"{','.join(row)[:80]!r} is not {','.join(columns)}")


def tell(reader: Any, label: str, refuse: Refuse) -> Iterator[list[str]]:
    """Yield the rows of `reader`; what it cannot read is refused, and the next line is tried."""
    while True:
        try:
            yield from reader
            return
        except csv.Error as error:  # a quote that never ends runs into the limit on one value
            refuse("malformed_row", f"{label}:{reader.line_num}", str(error))
