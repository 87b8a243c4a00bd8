"""Provenance: where each split comes from, what proves it, what it was made with, and what machines wrote of it."""

from __future__ import annotations

import msgspec

from manifests import UserError, load_corpus
from manifests.corpus import Archive
from shards.audit.digits import neat, share, shown
from shards.audit.verdicts import Gate
from shards.audit.view import View

GATES: tuple[str, ...] = ()
QUERIES: dict[str, str] = {
    "made": """\
select corpus, split, count(*) as samples, sum(samples) / 16000 / 3600 as hours, min(provenance) as example
from samples where provenance <> '' group by corpus, split order by corpus, split""",
}
WRITTEN = {
    "speech_qa": "questions and answers by a language model from the transcript, as in SALMONN",
    "audio_qa": "questions and answers by a language model from the caption, as in SALMONN",
    "music_qa": "questions and answers by a language model from tags or notes, as in SALMONN",
    "audio_story": "stories by a language model, or by the trained one, as in SALMONN",
}
"""Tasks whose answers no person wrote, whatever the corpus."""
REWRITTEN = {("wavcaps", "audio_caption"): "captions by a language model from the web's descriptions, as WavCaps says"}


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """What proves one split."""

    corpus: str
    split: str
    terms: str
    """The licence as the corpus states it for all its clips."""
    homepage: str
    """Where the corpus is published; empty for one that is not known here."""
    files: int
    """To be fetched for it, of which `proved` have a published digest. None are known of videos and the like."""
    proved: int
    example: str
    """The first of them."""
    digest: str
    """Its digest: how, and which."""
    shards: int
    bytes: int
    index_sha256: str


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """Samples of a split whose audio was made here: synthesized, or mixed of other clips."""

    corpus: str
    split: str
    samples: int
    hours: float
    example: str
    """How one of them was made."""


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """Examples of a task of one corpus whose answers a machine wrote."""

    corpus: str
    task: str
    examples: int
    how: str


class Provenance(msgspec.Struct, frozen=True, kw_only=True):
    """Where a dataset comes from."""

    origins: tuple[Origin, ...]
    made: tuple[Made, ...]
    written: tuple[Written, ...]
    written_share: float
    """Of all examples."""
    told: dict[str, str]
    """What the build says of a model that wrote the answers."""
    tools: dict[str, str]


def look(view: View) -> Provenance:
    """Return where the dataset comes from."""
    manifest = view.dataset.manifest
    examples: dict[tuple[str, str], int] = {}
    for corpus, _, task, count in view.database.ask("examples"):
        examples[corpus, task] = examples.get((corpus, task), 0) + count
    written = tuple(
        Written(corpus=shown(corpus), task=shown(task), examples=count, how=how)
        for (corpus, task), count in sorted(examples.items())
        if (how := WRITTEN.get(task) or REWRITTEN.get((corpus, task), ""))
    )
    return Provenance(
        origins=origins(view),
        made=tuple(
            Made(corpus=shown(corpus), split=shown(split), samples=samples, hours=neat(hours), example=shown(example))
            for corpus, split, samples, hours, example in view.database.ask("made")
        ),
        written=written,
        written_share=share(sum(row.examples for row in written), sum(examples.values())),
        told={shown(name): shown(value) for name, value in sorted(manifest.provenance.items())},
        tools={shown(tool): shown(version) for tool, version in sorted(manifest.tools.items())},
    )


def origins(view: View) -> tuple[Origin, ...]:
    """Return what proves each split."""
    made = []
    for source in view.dataset.manifest.sources:
        homepage, archives = published(source.corpus, source.split)
        first = archives[0] if archives else None
        made.append(
            Origin(
                corpus=source.corpus,
                split=source.split,
                terms=shown(source.license),
                homepage=shown(homepage),
                files=len(archives),
                proved=sum(bool(archive.md5 or archive.sha256) for archive in archives),
                example=shown(first.url) if first else "",
                digest=digest(first) if first else "",
                shards=len(source.shards),
                bytes=sum(file.bytes for file in source.shards),
                index_sha256=source.index.sha256,
            )
        )
    return tuple(made)


def published(corpus: str, split: str) -> tuple[str, tuple[Archive, ...]]:
    """Return the homepage of a corpus and the files that one of its splits is fetched from, if known."""
    try:
        facts = load_corpus(corpus).facts
    except UserError:  # of another version, or somebody's own
        return "", ()
    own = facts.splits[split].archives if split in facts.splits else ()
    return facts.homepage, (*own, *facts.archives)


def digest(archive: Archive) -> str:
    """Return the published digest of a file: how, and which; empty if there is none."""
    return f"sha256 {archive.sha256}" if archive.sha256 else f"md5 {archive.md5}" if archive.md5 else ""


def gates(found: Provenance) -> tuple[Gate, ...]:
    """Judge nothing."""
    return ()
