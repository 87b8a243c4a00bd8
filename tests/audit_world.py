"""Small datasets whose index says what a test wants, and single sections of the audit that look at them."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import duckdb
import pyarrow as pa

from manifests import Recipe
from manifests.recipe import Row
from manifests.tables import write_table
from shards.audit.database import Database
from shards.audit.tables import TABLES
from shards.audit.view import Settings, View
from shards.index import SCHEMA, Dataset, with_traits
from shards.traits import traits
from test_audit import Made, World, build

SQL = duckdb.connect()
TRAIN, TEST = ("librispeech", "train-clean-100"), ("librispeech", "dev-clean")


def dataset_of(folder: Path, splits: dict[tuple[str, str], list[dict[str, Any]]], terms: str = "CC-BY-4.0") -> Dataset:
    """A dataset with one clip a row; each row gives what the index is to say: `asked`, and any of its columns."""
    clips = {
        source: [
            Made(name=f"c{n}", seconds=row.get("length", 0.1), asked=row.get("asked", [])) for n, row in enumerate(rows)
        ]
        for source, rows in splits.items()
    }
    dataset = build(folder, World(clips=clips, terms=terms))
    for (corpus, split), rows in splits.items():
        table = dataset.table(corpus, split)
        held = table.to_pylist()
        for row, said in zip(held, rows, strict=True):
            row.update({name: value for name, value in said.items() if name in SCHEMA.names})
        path = folder / dataset.source(corpus, split).index.path
        write_table(str(path), with_traits(pa.Table.from_pylist(held, schema=SCHEMA)))
    return Dataset(folder)


def answered(sql: str, tables: tuple[str, ...], prompts: list[str], answers: list[list[str]], task: str = "t") -> Any:
    """What a query says of one sample that asks a task so, with the tables it needs made before."""
    told = traits(pa.array([prompts], SCHEMA.field("prompts").type), pa.array([answers], SCHEMA.field("answers").type))
    texts = {"tasks": [[task] * len(prompts)], "prompts": [prompts], **told}
    samples = pa.table({"key": ["k"], "corpus": ["c"], "split": ["s"], "language": ["en"], **texts})
    SQL.register("samples", samples)
    for name in tables:
        SQL.execute(f"drop table if exists {name}; {TABLES[name]}")
    return SQL.execute(sql).fetchall()


def rows_of(dataset: Dataset) -> list[dict[str, Any]]:
    """All rows of the index, by plain Python."""
    return [row for s in dataset.manifest.sources for row in dataset.table(s.corpus, s.split).to_pylist()]


def recipe_of(dataset: Dataset) -> Recipe:
    """A recipe that trains on all splits but dev and test ones, which it evaluates on."""
    rows: dict[str, list[Row]] = {"instruct": [], "evaluate": []}
    for source in dataset.manifest.sources:
        stage = "evaluate" if source.split.startswith(("dev", "test")) else "instruct"
        tasks = source.tasks or ("asr",)
        rows[stage] += [Row(task=task, corpus=source.corpus, splits=(source.split,)) for task in tasks]
    return Recipe(title="t", name="t", instruct=tuple(rows["instruct"]), evaluate=tuple(rows["evaluate"]))


def look(room: ModuleType, dataset: Dataset, *more: ModuleType) -> Any:
    """What one section finds; `more` are rooms whose queries it asks, too."""
    recipe = recipe_of(dataset)
    stages = tuple(recipe.stages)
    queries = {name: sql for one in (room, *more) for name, sql in one.QUERIES.items()}
    settings = Settings(stages=stages, seed=0, max_seconds=120.0, max_examples=8, longest=30.0)
    database = Database(dataset, recipe, stages, queries)
    return room.look(View(dataset=dataset, recipe=recipe, stages=stages, settings=settings, database=database))


def gate(room: ModuleType, dataset: Dataset, *more: ModuleType) -> tuple[str, str]:
    """The verdict and the sentence of a section of one gate."""
    [judged] = room.gates(look(room, dataset, *more))
    return judged.verdict, judged.sentence
