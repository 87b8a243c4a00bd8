"""Joining annotations to the clips of a corpus.

The files of a corpus lie in ``ROOT/annotations/<corpus>/*.json``; one file may lie there for several corpora.

A row belongs to the clip whose id or file has the same stem, whatever the folders before it; of several, to the one
with which it shares the most folders from the right. A row that names its clip belongs to that one or to none.
"""

from __future__ import annotations

import functools
import operator
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from manifests import files
from manifests.annotations import Annotations, Note, place_of
from manifests.clips import Clip, Refuse
from manifests.corpus import Corpus

QUESTIONS = ("speech_qa", "audio_qa", "music_qa")
STORY = "audio_story"
LISTED = 20
"""How many rows that join nothing a report lists."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the rows of annotation files."""

    rows: int = 0
    """Questions and stories."""
    joined: int = 0
    repeated: int = 0
    """Of the joined, those that say again what another says, or tell a second story of one clip."""
    passed: dict[str, int] = {}
    """Rows of tasks that are not joined, or that the corpus does not serve."""
    unjoined: int = 0
    listed: tuple[str, ...] = ()
    """The first of the rows that join no clip: ``file:row path``."""
    open: dict[str, bytes] = {}
    """File to a bit for every row that joins no clip, so that the reports of several splits can be put together."""

    def told(self, corpus: str) -> list[str]:
        """Return sentences for a person; none if there were no files."""
        if not self.rows and not self.passed:
            return []
        passed = ", ".join(f"{task} {count:,}" for task, count in sorted(self.passed.items()))
        again = f", {self.repeated:,} of them twice" if self.repeated else ""
        lines = [
            f"{corpus}: {self.joined:,} of {self.rows:,} annotations join a clip{again}"
            + (f"; passed over: {passed}" if passed else "")
        ]
        if self.unjoined:
            more = self.unjoined - len(self.listed)
            rest = f"; and {more:,} more" if more else ""
            lines.append(f"{corpus}: {self.unjoined:,} join no clip: {'; '.join(self.listed)}{rest}")
        return lines


def suffixes(place: str) -> Iterator[str]:
    """Yield a place and its ends: ``a/b/c``, ``b/c``, ``c``."""
    yield place
    while "/" in place:
        place = place.partition("/")[2]
        yield place


class Places:
    """Finds clips by place."""

    def __init__(self, clips: Sequence[Clip], wanted: set[str]) -> None:
        """Know the clips whose stems are `wanted`."""
        self.clips = clips
        self.known: dict[str, int] = {}
        """End of a place to the number of its clip, -1 where several clips share it."""
        named = [
            (number, place) for number, clip in enumerate(clips) for place in names_of(clip) if stem(place) in wanted
        ]
        for number, place in named:
            self.add(stem(place), number)
        # Whole paths are needed only where the stem does not tell.
        for number, place in named:
            if self.known[stem(place)] < 0 or stem(place).isdecimal():
                for end in suffixes(place):
                    self.add(end, number)

    def add(self, end: str, number: int) -> None:
        """Note that the place of a clip ends so."""
        if self.known.setdefault(end, number) != number:
            self.known[end] = -1

    def find(self, place: str) -> int:
        """Return the number of the clip that shares the longest end with `place`; -1 if none does, or several do."""
        for end in suffixes(place):
            number = self.known.get(end)
            if number is not None:
                return -1 if number < 0 or short(end, self.clips[number]) else number
        return -1


def names_of(clip: Clip) -> set[str]:
    """Return the places a clip is known by: that of its id, and that of its file if it has one only."""
    names = {place_of(clip.id.partition("/")[2])}
    if len(clip.audio) == 1 and clip.audio[0].path:
        names.add(place_of(clip.audio[0].path))
    return names


def stem(place: str) -> str:
    """Return the last part of a place."""
    return place[place.rfind("/") + 1 :]


def short(end: str, clip: Clip) -> bool:
    """Whether `end` says too little: VoxCeleb's 00001 is a number within a folder, and means that folder's alone."""
    return stem(end).isdecimal() and end.count("/") < clip.id.count("/") - 1


def join(clips: Iterable[Clip], annotations: Annotations, tasks: Sequence[str]) -> tuple[list[Clip], Report]:
    """Return the clips with their questions and stories, as far as `tasks` of the corpus ask for them, and a report.

    Questions come behind those that a clip already has, in the order of the files; a clip's first story counts.
    """
    made = list(clips)
    passed = Counter(annotations.passed)
    asked, told = any(task in QUESTIONS for task in tasks), STORY in tasks
    notes = [note for note in annotations.notes if (asked if note.question else told)]
    for note in annotations.notes:
        if not (asked if note.question else told):
            passed["questions of no task" if note.question else "stories of no task"] += 1
    places = Places(made, {stem(note.place) for note in notes})
    corpora = {clip.id.partition("/")[0] for clip in made}
    ids = {clip.id: number for number, clip in reversed(list(enumerate(made)))} if any(n.clip for n in notes) else {}
    joined: dict[int, list[Note]] = {}
    missed: list[Note] = []
    for note in notes:
        named = note.clip.partition("/")[0] in corpora
        number = ids.get(note.clip, -1) if named else places.find(note.place)
        if number < 0:
            missed.append(note)
        else:
            joined.setdefault(number, []).append(note)
    repeated = 0
    for number, own in joined.items():
        made[number], again = with_notes(made[number], own)
        repeated += again
    report = Report(
        rows=len(notes),
        joined=len(notes) - len(missed),
        repeated=repeated,
        passed=dict(sorted(passed.items())),
        unjoined=len(missed),
        listed=tuple(f"{annotations.names[note.file]}:{note.row} {note.place[-120:]!r}" for note in missed[:LISTED]),
        open=bits(missed, annotations),
    )
    return made, report


def with_notes(clip: Clip, notes: list[Note]) -> tuple[Clip, int]:
    """Return a clip with what is noted of it, and how many notes add nothing."""
    pairs, labels = list(clip.questions), dict(clip.labels)
    known = set(pairs)
    repeated = 0
    for note in notes:
        pair = (note.question, note.text)
        if note.question and pair not in known:
            known.add(pair)
            pairs.append(pair)
        elif not note.question and "story" not in labels:
            labels["story"] = note.text
        else:
            repeated += 1
    return msgspec.structs.replace(clip, questions=tuple(pairs), labels=labels), repeated


def bits(missed: list[Note], annotations: Annotations) -> dict[str, bytes]:
    """Return a bit for every row of every file, set where the row joined no clip."""
    marks = [bytearray(length // 8 + 1) for length in annotations.lengths]
    for note in missed:
        marks[note.file][note.row // 8] |= 1 << note.row % 8
    return {name: bytes(mark) for name, mark in zip(annotations.names, marks, strict=True)}


def merge(reports: Sequence[Report]) -> Report:
    """Return the report of several splits of one corpus: a row that joins a clip of any of them is joined."""
    if len(reports) < 2:
        return reports[0] if reports else Report()
    first = reports[0]
    left = {}
    for name, mark in first.open.items():
        common = functools.reduce(operator.and_, (int.from_bytes(report.open[name], "little") for report in reports))
        left[name] = common.to_bytes(len(mark), "little")
    missed = [
        f"{name}:{8 * at + bit}"
        for name, mark in left.items()
        for at, byte in enumerate(mark)
        if byte
        for bit in range(8)
        if byte >> bit & 1
    ]
    words = {line.partition(" ")[0]: line for report in reports for line in report.listed}
    return msgspec.structs.replace(
        first,
        joined=first.rows - len(missed),
        repeated=sum(report.repeated for report in reports),
        unjoined=len(missed),
        listed=tuple(words.get(row, row) for row in missed[:LISTED]),
        open=left,
    )


def annotation_files(root: str, corpus: str) -> list[str]:
    """Return the annotation files of a corpus below `root`."""
    folder = files.join(root, "annotations", corpus)
    return [files.join(folder, name) for name in files.names(folder, ".json")]


def annotated(root: str, corpus: Corpus, clips: Iterable[Clip], refuse: Refuse) -> tuple[Iterable[Clip], Report]:
    """Return the clips of a corpus with what ``ROOT/annotations/<corpus>/*.json`` says of them, and a report."""
    urls = annotation_files(root, corpus.name)
    if not urls:
        return clips, Report()
    return join(clips, Annotations.read(urls, refuse), corpus.facts.tasks)
