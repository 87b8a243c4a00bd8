"""What the page shows of a dataset and of a sample, as records, and the files that the page is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from manifests import TASKS, files
from shards.audit.plots import colour
from shards.browsing.facts import Facts, facts_of, instructions_of, quality_of
from shards.browsing.queries import values_of
from shards.browsing.table import FACETS, Table
from shards.sample import KEY

FOLDER = Path(__file__).parent
FILES = {
    "page.html": "text/html",
    "page.css": "text/css",
    "page.js": "text/javascript",
    "sample.js": "text/javascript",
    "parts.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""What a browser may load for the page: its own files, and sounds."""
COPIES = 20
"""Samples with the same sound that are named."""


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """A task as the page shows it."""

    name: str
    colour: str
    about: str


class About(msgspec.Struct, frozen=True, kw_only=True):
    """What the page is told of the dataset when it is opened."""

    title: str
    recipe: str
    place: str
    digest: str
    samples: int
    hours: float
    refused: int
    copies: int
    """Samples that sound the same, to the bit, as another."""
    tasks: tuple[Task, ...]
    varied: tuple[str, ...]
    """Facets of which there is more than one value."""


class Instructed(msgspec.Struct, frozen=True, kw_only=True):
    """One instruction of a sample."""

    task: str
    prompt: str
    answers: tuple[str, ...]


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """A sample on its own."""

    key: str
    id: str
    corpus: str
    split: str
    speaker: str
    seconds: float
    text: str
    facts: Facts
    quality: Facts
    instructions: tuple[Instructed, ...]
    before: str
    """Key of the sample before it in the index, and so in its shard; empty where there is none."""
    after: str
    copies: tuple[str, ...]
    """Keys of others with the very same samples."""


def about(table: Table) -> About:
    """Return what there is to say of the whole dataset."""
    manifest = table.dataset.manifest
    ((samples, seconds),) = table.ask("select count(*), coalesce(sum(seconds), 0) from samples")
    ((refused,),) = table.ask("select count(*) from refusals")
    ((copies,),) = table.ask("select count(*) from samples where print in (select print from twins)")
    held = {task for kind in table.kinds for task in kind.tasks}
    ordered = [*(task for task in TASKS if task in held), *sorted(held - set(TASKS))]
    return About(
        title=manifest.title,
        recipe=manifest.recipe,
        place=files.redact(table.dataset.url),
        digest=manifest.digest,
        samples=samples,
        hours=seconds / 3600,
        refused=refused,
        copies=copies,
        varied=tuple(
            name for name in FACETS if len({value for kind in table.kinds for value in values_of(kind, name)}) > 1
        ),
        tasks=tuple(
            Task(name=name, colour=colour(name), about=TASKS[name].about if name in TASKS else "") for name in ordered
        ),
    )


def row_of(table: Table, key: str) -> tuple[int, dict[str, Any]] | None:
    """Return the place and the row of a sample in the index; None if there is no such key."""
    place = table.place_of(key) if KEY.fullmatch(key) else None
    if place is None:
        return None
    return place, table.whole_row(place)


def show(table: Table, key: str) -> Shown | None:
    """Return a sample; None if there is none of that key."""
    found = row_of(table, key)
    if found is None:
        return None
    place, row = found
    beside = table.keys_at([place - 1, place + 1])
    return Shown(
        key=key,
        id=row["id"],
        corpus=row["corpus"],
        split=row["split"],
        speaker=row["speaker"],
        seconds=row["seconds"],
        text=row["text"],
        facts=facts_of(row),
        quality=quality_of(row),
        instructions=tuple(
            Instructed(task=task, prompt=prompt, answers=tuple(answers))
            for task, prompt, answers in instructions_of(row)
        ),
        before=beside.get(place - 1, ""),
        after=beside.get(place + 1, ""),
        copies=copies_of(table, place, row["pcm_md5"]),
    )


def copies_of(table: Table, place: int, md5: str) -> tuple[str, ...]:
    """Return the keys of other samples with the digest `md5`, the first COPIES."""
    if not md5:
        return ()
    near = [
        row[0]
        for row in table.ask(
            "select rowid from samples where print = hash(?) and rowid <> ? limit ?", [md5, place, COPIES]
        )
    ]
    rows = table.rows(near, ("key", "pcm_md5"))
    return tuple(rows[other]["key"] for other in near if rows[other]["pcm_md5"] == md5)
