"""Pairs: duplicates.csv and leaks.csv, which list every pair that the page counts."""

from __future__ import annotations

import csv
import os
import uuid
from collections.abc import Mapping
from pathlib import Path

from shards.audit.cells import defused
from shards.audit.database import Database
from shards.audit.sections import duplicates, leakage

AT_ONCE = 10_000
"""Rows held at a time."""


def write_pairs(database: Database, folder: str | Path) -> list[Path]:
    """Write the lists into `folder` once both sections have been looked at, and return where they are."""
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    named = {"duplicates.csv": duplicates.LISTED, "leaks.csv": leakage.LISTED}
    for name, queries in named.items():
        write_list(database, queries, place / name)
    return [place / name for name in named]


def write_list(database: Database, queries: Mapping[str, str], path: Path) -> None:
    """Write the rows of all `queries`, which have the same columns, into one file, whole or not at all."""
    attempt = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with attempt.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            for number, sql in enumerate(queries.values()):
                result = database.connection.execute(sql)
                if number == 0:
                    writer.writerow([column[0] for column in result.description or ()])
                while rows := result.fetchmany(AT_ONCE):
                    writer.writerows([defused(cell) for cell in row] for row in rows)
        os.replace(attempt, path)
    finally:
        attempt.unlink(missing_ok=True)
