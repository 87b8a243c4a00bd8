"""Scan: read a split as its corpus publishes it and write its manifest, one row a clip."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import itertools
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
import pyarrow as pa

from manifests import AudioRef, Clip, files, load_corpus, mounts
from manifests.corpus import FOLDER
from manifests.join import Report, annotated
from manifests.listing import listing
from manifests.tables import FORMAT, SEEN, Scanned, read_metadata, write_manifest, write_table
from pipelines.head_start import stop_if_told
from pipelines.trust import Trusted, trusted_files
from shards.audio import probe
from shards.flac import HEAD

SHOWN = 5
"""How many clips without audio a scan names."""
SPOKEN = 15.0
"""Characters that a synthesized voice speaks in a second, about."""
Measure = tuple[int, float, int]
"""Of a file: its bytes, its seconds by its header, 0 where that cannot be read, and its stamp."""


class ScanTask(msgspec.Struct, frozen=True, kw_only=True):
    """One split to scan."""

    root: str
    corpus: str
    split: str
    listing: str = ""
    """Digest of what lay there before the scan, to know later whether it still does."""


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


def disk_folder(root: str, corpus: str) -> str:
    """Return the folder of a corpus itself: where files are written."""
    return files.join(root, "raw", corpus)


def raw_folder(root: str, corpus: str) -> str:
    """Return where a corpus is read as published: its folder below `root`, or the address that also mounts archives."""
    folder = disk_folder(root, corpus)
    there = files.is_local(folder) and mounts.mountable(files.absolute(folder))
    return f"{mounts.SCHEME}{files.absolute(folder)}" if there else folder


def manifest_path(root: str, corpus: str, split: str) -> str:
    """Return where the manifest of a split is."""
    return files.join(root, "manifests", corpus, f"{split}.parquet")


def seen_path(root: str, corpus: str, split: str) -> str:
    """Return where it is kept what the scan of a split saw of the files on this machine."""
    return files.join(root, "manifests", corpus, f"{split}.seen.parquet")


def current(root: str, corpus: str) -> str:
    """Return the digest of all that the manifests of a corpus are made from: its files, and who reads them."""
    found = listing([files.join(root, "raw", corpus), files.join(root, "annotations", corpus)])
    if not found:
        return ""
    reader = b"".join((Path(FOLDER) / f"{corpus}.{kind}").read_bytes() for kind in ("py", "toml"))
    return hashlib.blake2b(f"{FORMAT} {found} ".encode() + reader, digest_size=16).hexdigest()


def stale(root: str, corpus: str, split: str, now: str) -> bool:
    """Whether a split must be scanned: it has no manifest, or the files changed since; `now` is `current`'s digest."""
    if not files.exists(manifest_path(root, corpus, split)):
        return True
    told = read_metadata(seen_path(root, corpus, split))
    return bool(now) and told.get(b"listing", b"").decode() != now


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
        trusted = trusted_files(task.root, task.corpus)
        looked = (look(raw, clip, seen, trusted) for clip in breakable(clips))
        # The chain comes to `refused` when the reader is done and has told all of them.
        rows = tally.count(itertools.chain(looked, refused))
        write_manifest(manifest_path(task.root, task.corpus, task.split), rows)
    # The manifest first: killed between the two, the next build finds the older listing and scans again.
    write_table(seen_path(task.root, task.corpus, task.split), tally.table(task.listing))
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
        self.stamps = array("q")
        self.verified = bytearray()

    def table(self, listed: str) -> pa.Table:
        """Return what was seen of the files, row by row."""
        stamps = pa.array(self.stamps, pa.int64())
        columns = [stamps, pa.array(list(map(bool, self.verified)), pa.bool_())]
        return pa.table(columns, schema=SEEN.with_metadata({**(SEEN.metadata or {}), b"listing": listed.encode()}))

    def count(self, rows: Iterable[Scanned]) -> Iterator[Scanned]:
        """Yield the rows counted, but of several with one id only the first as it is: the others as refused."""
        # Local names: this runs for every clip of a corpus, and is a tenth of its scan otherwise.
        seen: set[str] = set()
        add, stamp, verify = seen.add, self.stamps.append, self.verified.append
        fine, seconds, size = 0, 0.0, 0
        for row in rows:
            name = row.clip.id
            if name in seen:
                row = msgspec.structs.replace(row, state="duplicate_id", detail="the corpus lists this id twice")
            add(name)
            if row.state == "ok":
                fine += 1
            else:
                self.states[row.state] += 1
                if row.state == "audio_missing" and len(self.absent) < SHOWN:
                    self.absent.append(name)
            seconds += row.seconds
            size += row.bytes
            stamp(row.stamp)
            verify(row.verified)
            yield row
        if fine:
            self.states["ok"] += fine
        self.seconds, self.bytes = seconds, size


def breakable(clips: Iterable[Clip]) -> Iterator[Clip]:
    """Yield the clips, and break off between two of them where a head start is over."""
    for number, clip in enumerate(clips):
        if not number % 64:
            stop_if_told()
        yield clip


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


def look(raw: str, clip: Clip, seen: dict[str, Measure | None], trusted: Trusted) -> Scanned:
    """Return what can be seen of a clip's audio without decoding it; `seen` keeps what was seen of its files.

    A recording has many segments, and an utterance is in many pairs. `trusted` are the files of verified archives.
    """
    audio = clip.audio
    if len(audio) == 1:
        ref = audio[0]
        if ref.seconds is None and not ref.start and not ref.speech:
            # A whole file is one clip's alone: to remember it would cost a fifth of the time, and memory.
            found = files.read_head(url := f"{raw}/{ref.path}", HEAD)
            if found is None:
                return absent(clip)
            head, size, stamp = found
            seconds = round(probe(url, size, head), 6)
            verified = bool(trusted) and trusted.get(ref.path) == (size, stamp)
            return Scanned(clip=clip, bytes=size, seconds=seconds, stamp=stamp, verified=verified)
    paths = list(dict.fromkeys(ref.path for ref in clip.audio if not ref.speech))
    for path in paths:
        if path not in seen:
            seen[path] = measure(f"{raw}/{path}")
    known = {path: measured for path in paths if (measured := seen[path]) is not None}
    if not clip.audio or len(known) < len(paths):
        return absent(clip)
    lengths = {path: seconds for path, (_, seconds, _) in known.items()}
    spans = [span(ref, lengths) for ref in clip.audio]
    seconds = max(spans) if clip.join == "mix" else sum(spans)
    size = sum(size for size, _, _ in known.values())
    # Of several files the stamps are mixed so that a change of any shows; a constant factor keeps their order in it.
    stamp = 0
    for _, _, each in known.values():
        stamp = (stamp * 1_000_003 + each) % 2**63
    verified = bool(known) and all(trusted.get(path) == (each[0], each[2]) for path, each in known.items())
    return Scanned(clip=clip, bytes=size, seconds=round(seconds, 6), stamp=stamp, verified=verified)


def absent(clip: Clip) -> Scanned:
    """Return the row of a clip without audio."""
    return Scanned(clip=clip, state="audio_missing", detail="listed by the corpus, not among its files")


def measure(url: str) -> Measure | None:
    """Return what can be seen of a sound file, None if there is none."""
    found = files.read_head(url, HEAD)
    if found is None:
        return None
    head, size, stamp = found
    return size, probe(url, size, head), stamp


def span(ref: AudioRef, lengths: dict[str, float]) -> float:
    """Return how many seconds a reference is long, by the header of its file or the length of its text."""
    if ref.speech:
        return len(ref.speech) / SPOKEN
    rest = max(0.0, lengths[ref.path] - ref.start)
    return rest if ref.seconds is None else min(ref.seconds, rest)
