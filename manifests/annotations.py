"""Annotations in the format released with SALMONN: read and written. `manifests.join` joins them to clips.

A file is one object; `task` is "asr" and `Q` empty where they are left out, `expand_wav` names further files::

    {"annotation": [{"path": "/LibriSpeech/dev-clean/84/121123/84-121123-0001.flac", "text": "Grief", "task": "QA",
                     "Q": "What troubled her?"}]}

What is joined are questions with their answers (QA and its kin) and stories (audio_story_telling); what a corpus
publishes itself, such as transcripts, is taken from the corpus. Files that we write also name the clip.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec

from manifests import files
from manifests.clips import Refuse
from manifests.corpus import refuse_none
from manifests.json_list import stream_list

STORIES = ("audio_story_telling", "audio_story")
EXTENSIONS = (".wav", ".flac", ".mp3", ".m4a", ".aac", ".opus", ".ogg", ".webm", ".mp4", ".mkv", ".sph", ".wma")


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One annotation as it stands in a file."""

    path: str
    text: str
    task: str = "asr"
    question: str = msgspec.field(default="", name="Q")
    expand_wav: tuple[str, ...] = ()
    clip: str = ""
    """The id of its clip: ours alone, other readers pass over it."""


class Note(msgspec.Struct, frozen=True, gc=False):
    """A question with its answer, or a story where the question is empty, and where it stands."""

    place: str
    """The path of its audio without the extension."""
    clip: str
    question: str
    text: str
    file: int
    row: int


class Annotations:
    """The questions and stories of several files, in their order."""

    def __init__(self, notes: list[Note], passed: dict[str, int], names: list[str], lengths: list[int]) -> None:
        """Hold what `read` found; `lengths` are the rows of each file."""
        self.notes, self.passed, self.names, self.lengths = notes, passed, names, lengths

    @classmethod
    def read(cls, urls: Iterable[str], refuse: Refuse = refuse_none) -> Annotations:
        """Read annotation files; a row that is none is refused with file and row number.

        UserError if a file is not JSON or not in the released format.
        """
        made = cls([], {}, [], [])
        passed: Counter[str] = Counter()
        for number, url in enumerate(urls):
            name = "/".join(files.redact(url).split("/")[-2:])
            row = 0
            for row, value in enumerate(stream_list(url, "annotation"), start=1):
                try:
                    note = read_row(value, number, row)
                except (ValueError, msgspec.ValidationError) as error:
                    refuse("malformed_row", f"{name}:{row}", str(error)[:200])
                    continue
                if isinstance(note, Note):
                    made.notes.append(note)
                else:
                    passed[note] += 1
            made.names.append(name)
            made.lengths.append(row)
        made.passed = dict(sorted(passed.items()))
        return made


def read_row(value: Any, file: int, number: int) -> Note | str:
    """Return what is joined of one row, or else the name of its task; ValueError if it is no annotation."""
    row = msgspec.convert(value, Row)
    task = row.task.casefold()
    story = task in STORIES
    if not story and task != "qa" and not task.endswith("_qa"):
        return row.task[:40].encode("utf-8", "replace").decode()
    for field, content in (("path", row.path), ("text", row.text), ("Q", row.question or "-" * story)):
        if not content.strip():
            raise ValueError(f"a row of the task {row.task[:40]!r} without {field}")
        # JSON can escape halves of characters, which no file of text can hold.
        if not content.isascii() and any("\ud800" <= sign <= "\udfff" for sign in content):
            raise ValueError(f"{field} holds half a character")
    question = "" if story else row.question.strip()
    return Note(place_of(row.path), row.clip, question, row.text.strip(), file, number)


def place_of(path: str) -> str:
    """Return a path with forward slashes and without the extension of a sound file; WavCaps has two on some."""
    place = path.replace("\\", "/").strip("/")
    while (dot := place.rfind(".")) > place.rfind("/") + 1 and place[dot:].lower() in EXTENSIONS:
        place = place[:dot]
    return place


def write(url: str, rows: Iterable[Row]) -> int:
    """Write rows in the released format, whole, a line each; return how many."""
    count = 0
    with files.open_whole(url) as file:
        file.write(b'{"annotation":[')
        for row in rows:
            values: dict[str, Any] = {"path": row.path, "text": row.text, "task": row.task, "Q": row.question}
            values |= {"expand_wav": row.expand_wav} if row.expand_wav else {}
            values |= {"clip": row.clip} if row.clip else {}
            file.write((b",\n" if count else b"\n") + msgspec.json.encode(values))
            count += 1
        file.write(b"\n]}\n")
    return count
