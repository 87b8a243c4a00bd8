"""Which videos a corpus wants: their ids and the spans of each, from the tables that the corpus publishes."""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

from manifests import UserError, files, load_corpus
from manifests.corpora import audiocaps, musiccaps, voxceleb1
from manifests.sheets import read_rows
from pipelines.scan import raw_folder

ID = re.compile(r"[A-Za-z0-9_-]{11}")
"""A video of YouTube. It may begin with a hyphen: it is never an argument of a program."""
SECONDS = 10.0
"""Of every clip of AudioCaps."""
FRAMES_PER_SECOND = 25.0
"""Of VoxCeleb's frame numbers, whatever the video has."""
SPAN = re.compile(r"[0-9]{1,6}(\.[0-9]{1,3})?")


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """A span of a video, and where its audio belongs."""

    start: float
    """Seconds."""
    end: float
    """Seconds; the first that is not part of it."""
    path: str
    """Relative to the folder of the corpus."""
    also: tuple[str, ...] = ()
    """Stems of other names under which the reader of the corpus finds it in the same folder."""


class Video(msgspec.Struct, frozen=True, kw_only=True):
    """One id and all that is wanted of it."""

    corpus: str
    id: str
    segments: tuple[Segment, ...]

    @property
    def valid(self) -> bool:
        """Whether it can be asked for: rows of tables hold what their makers typed."""
        return bool(ID.fullmatch(self.id)) and all(0 <= one.start < one.end for one in self.segments)


def list_videos(corpus: str, splits: tuple[str, ...], root: str) -> list[Video]:
    """Return the videos of `splits` in the order of the corpus, each id once with all its segments.

    UserError if the corpus publishes no ids, or a table of ids is not in ROOT/raw/<corpus>.
    """
    if corpus not in READERS:
        raise UserError(f"{corpus} is not a corpus of video ids; those are {', '.join(READERS)}")
    raw = raw_folder(root, corpus)
    wanted: dict[str, dict[str, Segment]] = {}
    for split in splits:
        load_corpus(corpus).split(split)
        for video, segment in READERS[corpus](raw, split):
            wanted.setdefault(video, {})[segment.path] = segment
    return [Video(corpus=corpus, id=video, segments=tuple(segments.values())) for video, segments in wanted.items()]


def pass_over(reason: str, place: str, detail: str) -> None:
    """Leave out a row that the reader of the corpus refuses: the scan counts it."""


def require(path: str, hint: str) -> str:
    """Return `path`; UserError if nothing is there."""
    if not files.exists(path):
        raise UserError(f"the ids of the videos are not here: there is no {path!r}; {hint}")
    return path


def audiocaps_videos(raw: str, split: str) -> Iterator[tuple[str, Segment]]:
    """Yield id and segment of every clip of AudioCaps."""
    part, _, version = split.partition("-")
    name = f"dataset{'2.0' if version else ''}/{part}.csv"
    table = require(files.join(raw, name), "fetch the tables of audiocaps first")
    for video, start in audiocaps.read_captions(table, f"audiocaps/{name}", pass_over):
        path = f"audio/{part}/{video}_{start}.flac"
        yield video, Segment(start=float(start), end=start + SECONDS, path=path, also=(f"Y{video}", video))


def musiccaps_videos(raw: str, split: str) -> Iterator[tuple[str, Segment]]:
    """Yield id and segment of every row of MusicCaps."""
    table = require(files.join(raw, musiccaps.TABLE), "fetch the table of musiccaps first")
    for _, row in read_rows(table, f"musiccaps/{musiccaps.TABLE}", musiccaps.COLUMNS, pass_over):
        if musiccaps.SPLITS.get(row["is_audioset_eval"]) == split:
            # A row whose times are no numbers becomes a span that is none, so that it is counted.
            start, end = (float(row[one]) if SPAN.fullmatch(row[one]) else -1.0 for one in ("start_s", "end_s"))
            path = f"audio/{row['ytid']}_{row['start_s']}.flac"
            yield row["ytid"], Segment(start=start, end=end, path=path, also=(row["ytid"],))


def voxceleb1_videos(raw: str, split: str) -> Iterator[tuple[str, Segment]]:
    """Yield id and segment of every utterance of VoxCeleb1, from the frame numbers in ``txt/SPEAKER/ID/NUMBER.txt``.

    A file has a head of lines such as ``Reference : 1zcIwhmdeo4`` and then a row a frame: ``FRAME X Y W H``.
    """
    top = "VoxCeleb1/" if files.is_folder(files.join(raw, "VoxCeleb1")) else ""
    hint = "unpack vox1_dev_txt.zip and vox1_test_txt.zip of VoxCeleb1's homepage (URLs and timestamps) there"
    folder = require(files.join(raw, f"{top}txt"), hint)
    meta = require(files.join(raw, f"{top}vox1_meta.csv"), "fetch the lists of voxceleb1 first")
    speakers = voxceleb1.read_speakers(meta, pass_over)
    part = "test" if split in ("test", "verification-test") else "dev"
    for speaker in files.names(folder):
        if speakers.get(speaker, ("", ""))[1] != part:
            continue
        for path in files.walk(files.join(folder, speaker), ".txt"):
            video, _, number = path.removesuffix(".txt").partition("/")
            if not re.fullmatch(r"[0-9]+", number):
                continue
            start, end = frame_span(files.read_text(files.join(folder, speaker, path)))
            yield video, Segment(start=start, end=end, path=f"{top}wav/{speaker}/{video}/{number}.wav")


def frame_span(text: str) -> tuple[float, float]:
    """Return the seconds of the first and the last frame of a file of VoxCeleb; twice -1 if it has none."""
    frames = [
        int(row[0]) for line in text.splitlines() if (row := line.split()) and row[0].isdecimal() and len(row) == 5
    ]
    return (min(frames) / FRAMES_PER_SECOND, max(frames) / FRAMES_PER_SECOND) if frames else (-1.0, -1.0)


READERS = {"audiocaps": audiocaps_videos, "musiccaps": musiccaps_videos, "voxceleb1": voxceleb1_videos}
VIDEO_CORPORA = tuple(READERS)
