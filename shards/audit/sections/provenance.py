"""Provenance: what proves each split, and what it was made with."""

from __future__ import annotations

import msgspec

from shards.audit.digits import shown
from shards.audit.verdicts import Gate
from shards.audit.view import View

GATES: tuple[str, ...] = ()
QUERIES: dict[str, str] = {}


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """What proves one split."""

    corpus: str
    split: str
    terms: str
    """The licence as the corpus states it for all its clips."""
    shards: int
    bytes: int
    index_sha256: str


class Provenance(msgspec.Struct, frozen=True, kw_only=True):
    """Where a dataset comes from."""

    origins: tuple[Origin, ...]
    tools: dict[str, str]


def look(view: View) -> Provenance:
    """Return where the dataset comes from."""
    tools = view.dataset.manifest.tools
    return Provenance(
        origins=origins(view), tools={shown(tool): shown(version) for tool, version in sorted(tools.items())}
    )


def origins(view: View) -> tuple[Origin, ...]:
    """Return what proves each split."""
    return tuple(
        Origin(
            corpus=source.corpus,
            split=source.split,
            terms=shown(source.license),
            shards=len(source.shards),
            bytes=sum(file.bytes for file in source.shards),
            index_sha256=source.index.sha256,
        )
        for source in view.dataset.manifest.sources
    )


def gates(found: Provenance) -> tuple[Gate, ...]:
    """Judge nothing."""
    return ()
