"""What `salmonn audit` prints, and the exit code that gates give."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from manifests import Failed, UserError, files, load_recipe
from manifests.console import console, table
from manifests.errors import nearest
from shards.audit import audit, write_folder
from shards.audit.cells import as_csv
from shards.audit.inquiry import ask, notebook
from shards.audit.sections import GATES
from shards.index import Dataset

COLOURS = {"PASS": "green", "WARN": "yellow", "FAIL": "red"}
MOST_ROWS = 100
"""Rows of an answer that a terminal shows; as CSV all are printed."""


def show(
    url: str,
    recipe: str,
    out: Path,
    *,
    stages: Sequence[str] = (),
    seed: int = 0,
    max_seconds: float = 120.0,
    max_examples: int = 8,
    world_size: int = 1,
    against: Sequence[str] = (),
    other: str = "",
    fail_on: str = "",
) -> None:
    """Write the page, its numbers and its lists into `out`, print the gates; Failed if one of `fail_on` fails."""
    named = gates_of(fail_on)
    files.require_writable(str(out))
    begin = time.perf_counter()
    report = audit(
        Dataset(url),
        load_recipe(recipe),
        stages=stages or None,
        seed=seed,
        max_seconds=max_seconds,
        max_examples=max_examples,
        world_size=world_size,
        against=against,
        other=Dataset(other) if other else None,
        lists=out,
    )
    written = write_folder(report, out)
    for gate in report.gates:
        console.print(f"  [{COLOURS[gate.verdict]}]{gate.verdict}[/]  {gate.name}: ", end="")
        console.print(gate.sentence, markup=False)
    console.print(f"{', '.join(map(str, written))} written ({time.perf_counter() - begin:.1f} s)", markup=False)
    if broken := [gate.name for gate in report.gates if gate.verdict == "FAIL" and gate.name in named]:
        raise Failed(
            f"{len(broken)} of the gates in --fail-on failed: {', '.join(broken)}; {out / 'audit.html'} says why"
        )


def gates_of(fail_on: str) -> set[str]:
    """Return the gates that are named in a list with commas; all for ``all``. UserError names the nearest."""
    named = {name.strip() for name in fail_on.split(",") if name.strip()}
    for name in sorted(named - {"all", *GATES}):
        raise UserError(f"--fail-on: there is no gate {name!r}; {nearest(name, ['all', *GATES])}")
    return set(GATES) if "all" in named else named


def tell(url: str, recipe: str, sql: str, stages: Sequence[str], csv: bool) -> None:
    """Print the answer to a query of the user's own, as a table or as CSV."""
    found = ask(Dataset(url), load_recipe(recipe) if recipe else None, sql, stages)
    if csv:
        sys.stdout.write(as_csv(found.columns, found.rows))
        return
    numbers = tuple(
        name
        for place, name in enumerate(found.columns)
        if found.rows and all(isinstance(row[place], int | float) or row[place] is None for row in found.rows)
    )
    shown = table("", *found.columns, right=numbers)
    for row in found.rows[:MOST_ROWS]:
        shown.add_row(*(plain(cell) for cell in row))
    console.print(shown)
    if len(found.rows) > MOST_ROWS:
        console.print(f"... {len(found.rows) - MOST_ROWS:,} more rows; --csv prints them all")


def plain(cell: object) -> str:
    """Return a cell as a terminal may show it: no markup, no control characters."""
    text = "" if cell is None else f"{cell:.6g}" if isinstance(cell, float) else str(cell)
    printable = "".join(letter if letter.isprintable() else "?" for letter in text)
    return printable.replace("[", r"\[")


def keep(url: str, recipe: str, path: Path, stages: Sequence[str]) -> None:
    """Write all instructions as one Parquet file, and say so."""
    files.require_writable(str(path.parent))
    rows = notebook(Dataset(url), load_recipe(recipe) if recipe else None, path, stages)
    console.print(f"{path}: {rows:,} instructions, one a row, with all that is known of their samples", markup=False)
