"""Scan: read a split as its corpus publishes it and write its manifest, one row a clip."""

from __future__ import annotations

from collections import Counter

import msgspec

from manifests import AudioRef, Clip, files, load_corpus
from manifests.join import Report, annotated
from manifests.tables import Scanned, write_manifest
from shards.audio import probe

SHOWN = 5
"""How many clips without audio a scan names."""
SPOKEN = 15.0
"""Characters that a synthesized voice speaks in a second, about."""


class ScanTask(msgspec.Struct, frozen=True, kw_only=True):
    """One split to scan."""

    root: str
    corpus: str
    split: str


class ScanResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a scan found."""

    clips: int
    missing: int
    """Clips that the corpus lists and whose audio is not there."""
    refused: dict[str, int]
    """Rows that the reader passed over: reason to count."""
    absent: tuple[str, ...]
    """The first few clips without audio."""
    seconds: float
    """By the headers of the files: an estimate."""
    bytes: int
    published: int
    """How many clips the corpus says the split has."""

    annotations: Report
    """What became of the question-answer pairs in ROOT/annotations/<corpus>/."""

    @property
    def coverage(self) -> float:
        """Share of the published clips whose audio is here."""
        usable = self.clips - self.missing - sum(self.refused.values())
        return usable / self.published if self.published else 1.0


def raw_folder(root: str, corpus: str) -> str:
    """Return the folder below `root` that holds a corpus as published."""
    return files.join(root, "raw", corpus)


def manifest_path(root: str, corpus: str, split: str) -> str:
    """Return where the manifest of a split is."""
    return files.join(root, "manifests", corpus, f"{split}.parquet")


def scan(task: ScanTask) -> ScanResult:
    """Write the manifest of one split; UserError if its published files are not there."""
    corpus = load_corpus(task.corpus)
    raw = raw_folder(task.root, task.corpus)
    refused: list[Scanned] = []

    def refuse(reason: str, clip_id: str, detail: str) -> None:
        refused.append(Scanned(clip=Clip(id=clip_id, audio=()), state=reason, detail=detail))

    seen: dict[str, tuple[int | None, float]] = {}
    clips, report = annotated(task.root, corpus, corpus.clips(raw, task.split, refuse), refuse)
    rows = unique([look(raw, clip, seen) for clip in clips] + refused)
    write_manifest(manifest_path(task.root, task.corpus, task.split), rows)
    return ScanResult(
        clips=len(rows),
        missing=sum(row.state == "audio_missing" for row in rows),
        refused=dict(sorted(Counter(row.state for row in rows if row.state not in ("ok", "audio_missing")).items())),
        absent=tuple(row.clip.id for row in rows if row.state == "audio_missing")[:SHOWN],
        seconds=sum(row.seconds for row in rows),
        bytes=sum(row.bytes for row in rows),
        published=corpus.split(task.split).clips,
        annotations=report,
    )


def unique(rows: list[Scanned]) -> list[Scanned]:
    """Keep the first of several rows with one id, and mark the others as refused."""
    seen: set[str] = set()
    kept = []
    for row in rows:
        if row.clip.id in seen:
            row = msgspec.structs.replace(row, state="duplicate_id", detail="the corpus lists this id twice")
        seen.add(row.clip.id)
        kept.append(row)
    return kept


def look(raw: str, clip: Clip, seen: dict[str, tuple[int | None, float]]) -> Scanned:
    """Return what can be seen of a clip's audio without decoding it; `seen` keeps what was seen of its files.

    A recording has many segments, and an utterance is in many pairs.
    """
    paths = list(dict.fromkeys(ref.path for ref in clip.audio if not ref.speech))
    for path in paths:
        if path not in seen:
            size = files.size(files.join(raw, path))
            seen[path] = (size, probe(files.join(raw, path), size) if size is not None else 0.0)
    sizes = [seen[path][0] for path in paths]
    if not clip.audio or None in sizes:
        return Scanned(clip=clip, state="audio_missing", detail="listed by the corpus, not among its files")
    lengths = {path: seen[path][1] for path in paths}
    spans = [span(ref, lengths) for ref in clip.audio]
    seconds = max(spans) if clip.join == "mix" else sum(spans)
    return Scanned(clip=clip, bytes=sum(size or 0 for size in sizes), seconds=round(seconds, 6))


def span(ref: AudioRef, lengths: dict[str, float]) -> float:
    """Return how many seconds a reference is long, by the header of its file or the length of its text."""
    if ref.speech:
        return len(ref.speech) / SPOKEN
    rest = max(0.0, lengths[ref.path] - ref.start)
    return rest if ref.seconds is None else min(ref.seconds, rest)
