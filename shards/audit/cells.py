"""Cells: rows as CSV that a spreadsheet opens as data, whatever texts are in them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""What makes a spreadsheet take a text for a formula (OWASP, CSV injection), if a cell begins with it."""


def defused(value: Any) -> Any:
    """Return `value`, a text that a spreadsheet would run with an apostrophe before it; numbers stay numbers."""
    if isinstance(value, bool | int | float) or value is None:
        return value
    text = value if isinstance(value, str) else str(value)
    # Spreadsheets skip spaces before they look.
    return f"'{text}" if text.lstrip(" ").startswith(FORMULA) else text


def as_csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return rows as CSV (RFC 4180, LF), the names of the columns first, no cell a formula."""
    out = io.StringIO()
    # Texts are quoted all: a lone carriage return in one would end the row for some readers.
    writer = csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow([defused(column) for column in columns])
    writer.writerows([defused(cell) for cell in row] for row in rows)
    return out.getvalue()
