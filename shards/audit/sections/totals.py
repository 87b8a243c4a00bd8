"""Totals: a dataset in a line."""

from __future__ import annotations

import msgspec

from shards.audit.digits import neat
from shards.audit.view import View, ordered

QUERIES = {
    "totals": """\
select coalesce(sum(samples), 0)::bigint as samples, sum(length) / 16000 / 3600 as hours,
       sum(samples * len(tasks)) as examples
from parts""",
}


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """The dataset in a line."""

    hours: float
    samples: int
    examples: int
    corpora: tuple[str, ...]
    splits: int
    tasks: tuple[str, ...]
    found: int
    refused: int
    shards: int
    bytes: int


def look(view: View) -> Totals:
    """Return the dataset in a line."""
    sources = view.dataset.manifest.sources
    [(samples, hours, examples)] = view.database.ask("totals")
    return Totals(
        hours=neat(hours or 0),
        samples=samples,
        examples=int(examples or 0),
        corpora=tuple(sorted({source.corpus for source in sources})),
        splits=len(sources),
        tasks=tuple(ordered({task for source in sources for task in source.tasks})),
        found=sum(source.found for source in sources),
        refused=sum(source.quarantined + source.excluded for source in sources),
        shards=sum(len(source.shards) for source in sources),
        bytes=sum(file.bytes for source in sources for file in source.shards),
    )
