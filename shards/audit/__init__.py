"""The audit of a dataset: one page that says, before GPU hours are spent, what is in it and how it will be mixed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from manifests import Recipe, UserError, files
from shards.audit import contents, gates, listen
from shards.audit.database import QUERIES, Database
from shards.audit.digits import shown
from shards.audit.mixture import dry_run
from shards.audit.page import render
from shards.audit.report import FORMAT, Report, Settings
from shards.index import Dataset
from shards.plan import Budget

__all__ = ["Report", "audit", "write"]

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
) -> Report:
    """Return what `dataset` holds and what `stages` of `recipe` (all, if None) make of it.

    `seed`, `max_seconds` and `max_examples` are those of the Stream that will deal it. The same dataset and recipe give
    the same report, wherever the dataset lies.
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
    budget = Budget(seconds=max_seconds, examples=max_examples, longest=LONGEST)
    database = Database(dataset, recipe, named)
    targets, funnel = contents.targets(recipe, named, database), contents.funnel(dataset, database)
    answers, duplicates = contents.answers(database), contents.duplicates(database)
    dealt = tuple(dry_run(dataset, recipe, stage, seed, budget) for stage in named)
    clips = listen.draw_clips(dataset, recipe, named, seed, LONGEST)
    judged = (
        gates.counts(funnel),
        gates.rows(targets),
        gates.coverage(targets, funnel),
        gates.refusals(funnel),
        gates.empty_answers(answers),
        gates.duplicates(duplicates),
        gates.epochs(dealt),
        gates.sound(clips),
    )
    return Report(
        format=FORMAT,
        title=shown(dataset.manifest.title),
        recipe=recipe.name,
        recipe_title=recipe.title,
        built_from=shown(dataset.manifest.recipe),
        digest=dataset.digest,
        plan=dataset.manifest.plan,
        verdict=gates.worst(judged),
        gates=judged,
        totals=contents.totals(dataset, database),
        settings=Settings(stages=named, seed=seed, max_seconds=max_seconds, max_examples=max_examples, longest=LONGEST),
        targets=targets,
        funnel=funnel,
        stages=dealt,
        prompts=contents.prompts(database),
        answers=answers,
        duplicates=duplicates,
        reasons=contents.reasons(database),
        refusals=contents.refusals(database),
        licences=contents.licences(database),
        clips=clips,
        origins=contents.origins(dataset),
        tools={shown(tool): shown(version) for tool, version in sorted(dataset.manifest.tools.items())},
        sql={**QUERIES, "views": database.views},
    )


def write(report: Report, html_path: str | Path, json_path: str | Path) -> None:
    """Write the page and the numbers it is made of."""
    page = render(report)
    files.write_whole(html_path, page.encode())
    files.write_whole(json_path, msgspec.json.format(msgspec.json.encode(report, order="sorted"), indent=2) + b"\n")
