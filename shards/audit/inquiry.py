"""Inquiry: a question of one's own to the tables of an audit, and all of them as one file to open elsewhere."""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import msgspec

from manifests import Recipe, UserError
from shards.audit.database import Database, quoted
from shards.index import FOR_MACHINES, Dataset

FLAT = f"""\
select samples.* exclude (tasks, prompts, answers, {", ".join(FOR_MACHINES)}),
       coalesce(roles.trained, false) as trained, coalesce(roles.evaluated, false) as evaluated,
       unnest(tasks) as task, unnest(prompts) as prompt, unnest(answers) as answers
from samples left join roles using (corpus, split)"""
"""One row an instruction, with all that is known of its sample."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a query answers."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


def opened(dataset: Dataset, recipe: Recipe | None, stages: Sequence[str]) -> Database:
    """Return the tables of `dataset`; its splits have the roles of `stages` of `recipe`, of all if none is named."""
    named = tuple(stages or recipe.stages) if recipe else ()
    made = Database(dataset, recipe or Recipe(title="", name=""), named, {})
    # A query must not reach for the network by itself.
    made.connection.execute("set autoinstall_known_extensions = false; set autoload_known_extensions = false")
    made.connection.execute(f"create view instructions as {FLAT}")
    return made


def ask(dataset: Dataset, recipe: Recipe | None, sql: str, stages: Sequence[str] = ()) -> Answer:
    """Return the rows of `sql`, which may ask the tables samples, instructions, refusals and roles.

    UserError with what DuckDB says if it is not a query, or asks for what is not there.
    """
    database = opened(dataset, recipe, stages)
    connection = database.connection
    try:
        database.prepare(sql)
        result = connection.execute(sql)
        if result.description is None:
            return Answer(columns=(), rows=())
        columns = tuple(column[0] for column in result.description)
        return Answer(columns=columns, rows=tuple(result.fetchall()))
    except duckdb.Error as error:
        said = " ".join(str(error).split())
        raise UserError(f"DuckDB cannot answer the query: {said}") from None


def notebook(dataset: Dataset, recipe: Recipe | None, path: str | Path, stages: Sequence[str] = ()) -> int:
    """Write every instruction with the facts of its sample to the Parquet file `path`; return how many there are."""
    place = Path(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    connection = opened(dataset, recipe, stages).connection
    attempt = place.with_name(f".{place.name}.{uuid.uuid4().hex}.tmp")
    try:
        connection.execute(f"copy (from instructions) to {quoted(str(attempt))} (format parquet, compression zstd)")
        os.replace(attempt, place)
    finally:
        attempt.unlink(missing_ok=True)
    [(rows,)] = connection.execute(f"select count(*) from read_parquet({quoted(str(place))})").fetchall()
    return int(rows)
