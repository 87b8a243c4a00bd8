"""Scan: read a split as its corpus publishes it and write its manifest, one row a clip."""

from __future__ import annotations

import contextlib
import gc
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator

import msgspec

from manifests import AudioRef, Clip, files, load_corpus
from manifests.join import Report, annotated
from manifests.tables import Scanned, write_manifest
from shards.audio import probe
from shards.flac import HEAD

SHOWN = 5
"""How many clips without audio a scan names."""
SPOKEN = 15.0
"""Characters that a synthesized voice speaks in a second, about."""
Measure = tuple[int, float]
"""Of a file: its bytes, and its seconds by its header, 0 where that cannot be read."""


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

    seen: dict[str, Measure | None] = {}
    tally = Tally()
    with without_collector():
        clips, report = annotated(task.root, corpus, corpus.clips(raw, task.split, refuse), refuse)
        looked = (look(raw, clip, seen) for clip in clips)
        # The chain comes to `refused` when the reader is done and has told all of them.
        rows = tally.count(unique(itertools.chain(looked, refused)))
        write_manifest(manifest_path(task.root, task.corpus, task.split), rows)
    states = tally.states
    return ScanResult(
        clips=sum(states.values()),
        missing=states["audio_missing"],
        refused={state: states[state] for state in sorted(states) if state not in ("ok", "audio_missing")},
        absent=tuple(tally.absent),
        seconds=tally.seconds,
        bytes=tally.bytes,
        published=corpus.split(task.split).clips,
        annotations=report,
    )


class Tally:
    """What passed by on its way into a manifest."""

    def __init__(self) -> None:
        self.states: Counter[str] = Counter()
        self.absent: list[str] = []
        self.seconds = 0.0
        self.bytes = 0

    def count(self, rows: Iterable[Scanned]) -> Iterator[Scanned]:
        """Yield the rows as they are, counted."""
        for row in rows:
            self.states[row.state] += 1
            self.seconds += row.seconds
            self.bytes += row.bytes
            if row.state == "audio_missing" and len(self.absent) < SHOWN:
                self.absent.append(row.clip.id)
            yield row


@contextlib.contextmanager
def without_collector() -> Iterator[None]:
    """Hold the collector of reference cycles: it walks all clips again and again for cycles that no reader makes.

    That is a third of the time of a scan. What is in no cycle is freed as ever.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def unique(rows: Iterable[Scanned]) -> Iterator[Scanned]:
    """Keep the first of several rows with one id, and mark the others as refused."""
    seen: set[str] = set()
    for row in rows:
        if row.clip.id in seen:
            row = msgspec.structs.replace(row, state="duplicate_id", detail="the corpus lists this id twice")
        seen.add(row.clip.id)
        yield row


def look(raw: str, clip: Clip, seen: dict[str, Measure | None]) -> Scanned:
    """Return what can be seen of a clip's audio without decoding it; `seen` keeps what was seen of its files.

    A recording has many segments, and an utterance is in many pairs.
    """
    if len(clip.audio) == 1:
        (ref,) = clip.audio
        if ref.seconds is None and not ref.start and not ref.speech:
            # A whole file is one clip's alone: to remember it would cost a fifth of the time, and memory.
            found = measure(f"{raw}/{ref.path}")
            return absent(clip) if found is None else Scanned(clip=clip, bytes=found[0], seconds=round(found[1], 6))
    paths = list(dict.fromkeys(ref.path for ref in clip.audio if not ref.speech))
    for path in paths:
        if path not in seen:
            seen[path] = measure(f"{raw}/{path}")
    known = {path: measured for path in paths if (measured := seen[path]) is not None}
    if not clip.audio or len(known) < len(paths):
        return absent(clip)
    lengths = {path: seconds for path, (_, seconds) in known.items()}
    spans = [span(ref, lengths) for ref in clip.audio]
    seconds = max(spans) if clip.join == "mix" else sum(spans)
    return Scanned(clip=clip, bytes=sum(size for size, _ in known.values()), seconds=round(seconds, 6))


def absent(clip: Clip) -> Scanned:
    """Return the row of a clip without audio."""
    return Scanned(clip=clip, state="audio_missing", detail="listed by the corpus, not among its files")


def measure(url: str) -> Measure | None:
    """Return what can be seen of a sound file, None if there is none."""
    found = files.read_head(url, HEAD)
    if found is None:
        return None
    head, size = found
    return size, probe(url, size, head)


def span(ref: AudioRef, lengths: dict[str, float]) -> float:
    """Return how many seconds a reference is long, by the header of its file or the length of its text."""
    if ref.speech:
        return len(ref.speech) / SPOKEN
    rest = max(0.0, lengths[ref.path] - ref.start)
    return rest if ref.seconds is None else min(ref.seconds, rest)
