"""What the papers of a dataset tell (card, attribution, croissant): its manifest, counts and examples of its index."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from manifests import UserError, files, load_corpus
from manifests.corpus import Facts
from manifests.licences import Terms, clip_terms, joined, terms
from manifests.tables import open_parquet, read_table
from shards.index import FORMAT, Manifest, Source

COUNTED = ("license", "language", "provenance", "action")
"""Columns of the index whose values are few, and counted."""
TASKS = "tasks.list.element"
"""Where Parquet keeps the tasks' names."""
LOOKED_AT = 512
"""Samples at the head of a split among which examples of its tasks are looked for."""


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """One instruction of one sample, to show what a task is like."""

    task: str
    key: str
    prompt: str
    answers: tuple[str, ...]


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """What one split holds."""

    source: Source
    licences: dict[str, int]
    """How many samples state which licence."""
    languages: dict[str, int]
    provenance: dict[str, int]
    """How many samples say what of how their audio was made; those that say nothing are not in it."""
    actions: dict[str, int]
    """How many samples were copied, transcoded or rendered."""
    instructions: dict[str, int]
    """How many instructions there are of each task."""
    examples: tuple[Example, ...]
    """The first of each task, if it stands at the head of the split."""

    @property
    def terms(self) -> Terms:
        """What holds for all its samples together."""
        stated = self.licences or {self.source.license: 0}
        return joined(clip_terms(self.source.license, license) for license in stated)


class Papers(msgspec.Struct, frozen=True, kw_only=True):
    """What the papers of a dataset tell, all of it determined by the dataset."""

    manifest: Manifest
    parts: tuple[Part, ...]

    @property
    def corpora(self) -> tuple[str, ...]:
        """The names of its corpora, sorted."""
        return tuple(sorted({part.source.corpus for part in self.parts}))

    def of(self, corpus: str) -> tuple[Part, ...]:
        """Return the splits of one corpus."""
        return tuple(part for part in self.parts if part.source.corpus == corpus)

    @property
    def terms(self) -> Terms:
        """What holds for the dataset as a whole: the strictest terms win."""
        return joined(part.terms for part in self.parts)


def gather(url: str, manifest: Manifest) -> Papers:
    """Read what the papers of the dataset at `url` tell; its index must be there."""
    return Papers(manifest=manifest, parts=tuple(look(url, source) for source in manifest.sources))


def look(url: str, source: Source) -> Part:
    """Count one split, and find examples in it."""
    place = files.join(url, source.index.path)
    table = read_table(place, FORMAT, [*COUNTED, "tasks"], [*COUNTED, TASKS])
    counts = {name: count(table[name]) for name in COUNTED}
    return Part(
        source=source,
        licences=counts["license"],
        languages=counts["language"],
        provenance={told: number for told, number in counts["provenance"].items() if told},
        actions=counts["action"],
        instructions=count(pc.list_flatten(table["tasks"])),
        examples=tuple(examples(place)),
    )


def count(column: pa.ChunkedArray) -> dict[str, int]:
    """Return how often each value stands in a column, sorted by value."""
    return dict(sorted((one["values"], one["counts"]) for one in pc.value_counts(column).to_pylist()))


def examples(place: str) -> Iterable[Example]:
    """Return the first instruction of each task at the head of a split, sorted by task."""
    with open_parquet(place) as parquet:
        if not parquet.num_row_groups:
            return []
        columns = ["key", "tasks", "prompts", "answers"]
        rows = parquet.read_row_group(0, columns=columns, use_threads=False).slice(0, LOOKED_AT).to_pylist()
    found: dict[str, Example] = {}
    for row in rows:
        for task, prompt, answers in zip(row["tasks"], row["prompts"], row["answers"], strict=True):
            if task not in found:
                found[task] = Example(task=task, key=row["key"], prompt=prompt, answers=tuple(answers))
    return [found[task] for task in sorted(found)]


def facts_of(corpus: str) -> Facts | None:
    """Return what a corpus publishes about itself, None if this version does not know it."""
    try:
        return load_corpus(corpus).facts
    except UserError:
        return None


def total(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    """Return the sums of counts, sorted by what is counted."""
    return dict(sorted(sum(map(Counter, counts), Counter[str]()).items()))


def refusals(papers: Papers) -> dict[str, str]:
    """Return which corpora may not be published, and why: the licence of the corpus or of some of its clips."""
    found: dict[str, str] = {}
    for corpus in papers.corpora:
        stated = total(part.licences for part in papers.of(corpus))
        of_all = {part.source.license for part in papers.of(corpus)}
        for whole in sorted(of_all):
            own = terms(whole)
            if not own.may_push:
                found[corpus] = f"{own.name}: {own.why}"
                break
            bad = {clip: number for clip, number in stated.items() if not clip_terms(whole, clip).may_push}
            if bad:
                clip = clip_terms(whole, min(bad))
                found[corpus] = f"{sum(bad.values()):,} of its {sum(stated.values()):,} clips, {clip.name}: {clip.why}"
                break
    return found
