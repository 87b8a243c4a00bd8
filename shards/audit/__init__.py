"""The audit of a dataset: one page that says, before GPU hours are spent, what is in it and how it will be mixed."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

from manifests import Recipe, UserError, files
from shards.audit.database import Database
from shards.audit.digits import shown
from shards.audit.known import sides, tables
from shards.audit.page import render
from shards.audit.pairs import write_pairs
from shards.audit.report import FORMAT, Report
from shards.audit.sections import QUERIES, ROOMS, difference
from shards.audit.tables import TABLES
from shards.audit.verdicts import worst
from shards.audit.view import Settings, View
from shards.index import Dataset

__all__ = ["Report", "audit", "write", "write_folder"]

TOGETHER = 5_000_000
"""Of more samples, sections are made one after the other: what two of them hold at a time would be too much."""
ARITHMETIC = ("mixture", "duplicates", "leakage")
"""Sections that reckon more than they ask."""
LONGEST = 30.0
"""Seconds of a clip that are dealt at most: what Whisper takes."""


def audit(
    dataset: Dataset,
    recipe: Recipe,
    *,
    stages: Iterable[str] | None = None,
    seed: int = 0,
    max_seconds: float = 120.0,
    max_examples: int = 8,
    world_size: int = 1,
    against: Iterable[str] = (),
    other: Dataset | None = None,
    lists: str | Path | None = None,
) -> Report:
    """Return what `dataset` holds and what `stages` of `recipe` (all, if None) make of it.

    `seed`, `max_seconds` and `max_examples` are those of the Stream that will deal it, `world_size` the GPUs that steps
    are counted for, `against` further evaluation sets (CORPUS:SPLIT), `other` a build to compare with, `lists` a folder
    for duplicates.csv and leaks.csv, which have every pair. The same dataset and recipe give the same report, wherever
    the dataset lies.
    """
    named = recipe.stages if stages is None else tuple(dict.fromkeys(stages))
    if not named:
        raise UserError(f"there is no stage to audit; recipe {recipe.name!r} has {', '.join(recipe.stages)}")
    for stage in named:
        recipe.stage(stage)
    if max_seconds < LONGEST or max_examples < 1:
        raise UserError(
            f"max_seconds is {max_seconds:g} and max_examples {max_examples}; a batch must hold a clip of {LONGEST:g} s"
        )
    if world_size < 1:
        raise UserError(f"world_size is {world_size}; steps are counted for one GPU or more")
    database = Database(dataset, recipe, named, QUERIES)
    if other is not None:
        database.attach(other)
    against = tuple(dict.fromkeys(against))
    database.define(tables(sides(dataset, recipe, named, against)))
    settings = Settings(
        stages=named,
        seed=seed,
        max_seconds=max_seconds,
        max_examples=max_examples,
        longest=LONGEST,
        world_size=world_size,
        against=against,
    )
    view = View(dataset=dataset, recipe=recipe, stages=named, settings=settings, database=database, other=other)
    found = look(view)
    judged = tuple(gate for name, room in ROOMS.items() if hasattr(room, "gates") for gate in room.gates(found[name]))
    if lists is not None:
        write_pairs(database, lists)
    queries = {name: sql for name, sql in QUERIES.items() if other is not None or name not in difference.QUERIES}
    return Report(
        format=FORMAT,
        title=shown(dataset.manifest.title),
        recipe=recipe.name,
        recipe_title=recipe.title,
        built_from=shown(dataset.manifest.recipe),
        digest=dataset.digest,
        plan=dataset.manifest.plan,
        verdict=worst(judged),
        gates=judged,
        settings=settings,
        sql={**queries, "views": database.views},
        **found,
    )


def look(view: View) -> dict[str, Any]:
    """Return what every section finds."""
    if sum(source.packed for source in view.dataset.manifest.sources) > TOGETHER or not files.is_local(
        view.dataset.url
    ):
        return look_at(view, ROOMS)
    # First, so that they always stand in the same order among the views.
    for table in TABLES.values():
        view.database.define(table)
    # The dry run of the mixture and the search for pairs are arithmetic on one core each, and DuckDB works beside them.
    with ThreadPoolExecutor(2) as pool:
        queries = [name for name in ROOMS if name not in ARITHMETIC]
        lanes = [pool.submit(look_at, view, names) for names in (["mixture"], queries)]
        found = look_at(view, [name for name in ARITHMETIC if name != "mixture"])
        return found | {name: part for lane in lanes for name, part in lane.result().items()}


def look_at(view: View, names: Iterable[str]) -> dict[str, Any]:
    """Return what some sections find, one after the other."""
    return {name: ROOMS[name].look(view) for name in names}


def write(report: Report, html_path: str | Path, json_path: str | Path) -> None:
    """Write the page and the numbers it is made of."""
    page = render(report)
    files.write_whole(html_path, page.encode())
    files.write_whole(json_path, msgspec.json.format(msgspec.json.encode(report, order="sorted"), indent=2) + b"\n")


def write_folder(report: Report, folder: str | Path) -> list[Path]:
    """Write audit.html and report.json into `folder`, and return what is there, the lists of pairs as well."""
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    write(report, place / "audit.html", place / "report.json")
    names = ("audit.html", "report.json", "duplicates.csv", "leaks.csv")
    return [place / name for name in names if (place / name).exists()]
