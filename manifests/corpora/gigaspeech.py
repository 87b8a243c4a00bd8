"""GigaSpeech v1.0.0 (https://github.com/SpeechColab/GigaSpeech): 10,000 hours of English from the web.

It is published in three layouts; where several are on disk, the first of these is read. What the Hub packs, chunks of
tar and audio inside Parquet, is unpacked where it lies by ``salmonn unpack FILE...``::

    GigaSpeech.json                                                      raw release: 3.9 GB, read as a stream
    audio/podcast/P0001/POD0000000025.opus                               16 kHz, mono; whole recordings

    data/m_n_archives_additional.txt                                     Hub: how many chunks there are
    data/metadata/m_metadata_additional/m_chunks_0000_metadata.csv       sid,speaker,text_tn,begin_time,...
    data/audio/m_files_additional/m_chunks_0000/POD0000000025_S0000103.wav   of m_chunks_0000.tar.gz

    m/train-00000-of-00069.parquet                                       Hub: segment_id, speaker, text, audio, ...
    m/train-00000-of-00069/POD0000000025_S0000103.wav                    of the audio column of that file
    m/train/0000.parquet, m/train/0000/POD0000000025_S0000103.wav        the same in the Hub's own conversion

One segment of GigaSpeech.json (all of it is ``{"audios": [{"path": ..., "segments": [...]}]}``)::

    {"sid": "POD0000000025_S0000103", "speaker": "N/A", "begin_time": 780.31, "end_time": 783.13,
     "text_tn": "FOUR O'CLOCK TOMORROW AFTERNOON <COMMA> SAID WILLIAMS <PERIOD>", "subsets": ["{XL}", "{L}"]}

Subsets stand in braces and nest: xs in s in m in l in xl. They count by the segment: a recording of {M} has segments
that are not. On the Hub a chunk of s has what is not in xs ("additional"), so m is the chunks of xs, s and m. The text
keeps its tags of punctuation; a text of garbage tags is a sound without words, and is refused.
"""

from __future__ import annotations

import csv
import io
import math
import shlex
from collections.abc import Iterator
from typing import Any

import msgspec
import pyarrow as pa

from manifests import files
from manifests.clips import AudioRef, Clip, Refuse
from manifests.errors import UserError
from manifests.json_list import stream_list
from manifests.tables import open_parquet

SUBSETS = ("xs", "s", "m", "l", "xl")
GARBAGE = frozenset({"<SIL>", "<MUSIC>", "<NOISE>", "<OTHER>"})
LICENSE = "GigaSpeech terms of access (non-commercial research and education)"
TABLE = "GigaSpeech.json"
CSV = ("sid", "speaker", "text_tn")
PARQUET = ("segment_id", "speaker", "text")


class Recording(msgspec.Struct, frozen=True):
    """What is read of one of the audios of GigaSpeech.json."""

    path: str
    segments: list[Any]


class Segment(msgspec.Struct, frozen=True):
    """What is read of one segment; times are seconds from the beginning of the recording."""

    sid: str
    begin_time: float
    end_time: float
    text_tn: str
    subsets: list[str]
    speaker: str = "N/A"


def clips(root: str, split: str, refuse: Refuse) -> Iterator[Clip]:
    """Return the segments of `split` in the order of the corpus, from the layout that `root` holds."""
    for top in ("", "GigaSpeech/", "gigaspeech/"):
        if files.exists(files.join(root, top, TABLE)):
            return read_release(root, top, split, refuse)
        for data in (f"{top}data/", f"{top}corpora/", top):
            if files.is_folder(files.join(root, data, "metadata")):
                return read_chunks(root, find_chunks(root, data, split), refuse)
        for data in (top, f"{top}data/"):
            if tables := find_parquet(root, data, split):
                return read_parquet(root, tables, refuse)
    raise UserError(
        f"gigaspeech: {root!r} holds neither {TABLE} nor data/metadata/ nor {split}/*.parquet for {split!r}; "
        "put the raw release or the Hub's files there"
    )


def clip_of(sid: str, speaker: str, text: str, audio: AudioRef, refuse: Refuse) -> Clip | None:
    """Return the clip of one segment; None where it is refused as garbage."""
    if "<" in text and (tags := GARBAGE.intersection(text.split())):
        refuse("garbage_utterance", f"gigaspeech/{sid}", f"{' '.join(sorted(tags))} is no speech")
        return None
    return Clip(
        id=f"gigaspeech/{sid}",
        audio=(audio,),
        language="en",
        speaker="" if speaker in ("N/A", "") else f"gigaspeech/{speaker}",
        text=text,
        license=LICENSE,
    )


def read_release(root: str, top: str, split: str, refuse: Refuse) -> Iterator[Clip]:
    """Yield the segments of GigaSpeech.json that are in `split`, recording by recording."""
    mark = "{" + split.upper() + "}"
    for place, entry in enumerate(stream_recordings(files.join(root, top, TABLE))):
        where = f"gigaspeech/{TABLE}:audios[{place}]"
        try:
            recording = msgspec.convert(entry, Recording)
        except msgspec.ValidationError as error:
            refuse("malformed_row", where, str(error))
            continue
        if recording.path.startswith("/") or ".." in recording.path.split("/"):
            refuse("malformed_row", where, f"the path {recording.path[:80]!r} leads out of the corpus")
            continue
        for number, item in enumerate(recording.segments):
            try:
                segment = msgspec.convert(item, Segment)
            except msgspec.ValidationError as error:
                refuse("malformed_row", f"{where}.segments[{number}]", str(error))
                continue
            if mark not in segment.subsets:
                continue
            if not is_name(segment.sid) or not 0 <= segment.begin_time < segment.end_time < math.inf:
                detail = f"{segment.sid[:60]!r} from {segment.begin_time} to {segment.end_time} s is no segment"
                refuse("malformed_row", f"{where}.segments[{number}]", detail)
                continue
            audio = AudioRef(
                path=top + recording.path,
                start=segment.begin_time,
                # Times have hundredths; the difference of two floats has more.
                seconds=round(segment.end_time - segment.begin_time, 8),
            )
            if clip := clip_of(segment.sid, segment.speaker, segment.text_tn, audio, refuse):
                yield clip


def stream_recordings(path: str) -> Iterator[Any]:
    """Yield one after the other what the list `audios` of GigaSpeech.json holds; the file is larger than memory."""
    found = False
    for entry in stream_list(path, "audios"):
        found = True
        yield entry
    if not found:
        raise UserError(f"{path} has no list 'audios' with recordings in it; it is not the {TABLE} of the release")


def is_name(sid: str) -> bool:
    """Whether an id can name a file."""
    return bool(sid) and "/" not in sid and "\0" not in sid


def find_chunks(root: str, data: str, split: str) -> list[tuple[str, str]]:
    """Return the metadata csv and the audio folder of every chunk of `split`, relative to `root`."""
    chunks = []
    for part in SUBSETS[: SUBSETS.index(split) + 1] if split in SUBSETS else (split,):
        more = "_additional" if part in SUBSETS[1:] else ""
        tables, count = f"{data}metadata/{part}_metadata{more}", f"{data}{part}_n_archives{more}.txt"
        names = files.names(files.join(root, tables), "_metadata.csv")
        if files.exists(files.join(root, count)):
            number = files.read_text(files.join(root, count)).strip()
            if not number.isdecimal():
                raise UserError(
                    f"gigaspeech: {files.join(root, count)!r} holds {number[:40]!r}, not a number of chunks"
                )
            names = [f"{part}_chunks_{chunk:04}_metadata.csv" for chunk in range(int(number))]
        lost = [name for name in names if not files.exists(files.join(root, tables, name))]
        if lost or not names:
            name = lost[0] if lost else f"{part}_chunks_0000_metadata.csv"
            raise UserError(
                f"gigaspeech: there is no file {files.join(root, tables, name)!r}; "
                f"{split!r} needs all of {tables}/ of the Hub, though not all of its audio"
            )
        for name in names:
            chunk = f"{data}audio/{part}_files{more}/{name.removesuffix('_metadata.csv')}"
            archive = files.join(root, f"{chunk}.tar.gz")
            if not files.is_folder(files.join(root, chunk)) and files.exists(archive):
                raise UserError(f"gigaspeech: {archive!r} is not unpacked; run: salmonn unpack {shlex.quote(archive)}")
            chunks.append((f"{tables}/{name}", chunk))
    return chunks


def read_chunks(root: str, chunks: list[tuple[str, str]], refuse: Refuse) -> Iterator[Clip]:
    """Yield the segments of the metadata of every chunk: each is a WAV of its own."""
    for table, folder in chunks:
        path = files.join(root, table)
        try:
            rows = csv.reader(io.StringIO(files.read_text(path), newline=""))
        except UnicodeDecodeError as error:
            raise UserError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); fetch it anew") from None
        header = next(rows, [])
        if not set(CSV) <= set(header):
            raise UserError(f"{path}: the columns are {header[:12]}, but GigaSpeech has {', '.join(CSV)} among them")
        sid, speaker, text = map(header.index, CSV)
        for row in rows:
            if len(row) != len(header) or not is_name(row[sid]):
                told = ",".join(row)[:80]
                refuse("malformed_row", f"gigaspeech/{table}:{rows.line_num}", f"{told!r} is not {len(header)} columns")
                continue
            audio = AudioRef(path=f"{folder}/{row[sid]}.wav")
            if clip := clip_of(row[sid], row[speaker], row[text], audio, refuse):
                yield clip


def find_parquet(root: str, data: str, split: str) -> list[str]:
    """Return the parquet files of `split`, relative to `root`; the Hub keeps dev and test with every subset."""
    heads = {"dev": ("validation", "dev"), "test": ("test",)}.get(split, ("train", "partial-train"))
    for folder in (split,) if split in SUBSETS else (split, *SUBSETS):
        top = files.join(root, data, folder)
        found = [name for name in files.names(top, ".parquet") if name.startswith(tuple(f"{head}-" for head in heads))]
        found += [f"{head}/{name}" for head in heads for name in files.names(files.join(top, head), ".parquet")]
        if found:
            return [f"{data}{folder}/{name}" for name in found]
    return []


def read_parquet(root: str, tables: list[str], refuse: Refuse) -> Iterator[Clip]:
    """Yield the segments of the Hub's parquet files whose audio is unpacked beside them, and refuse the others."""
    for table in tables:
        folder = table.removesuffix(".parquet")
        unpacked = files.is_folder(files.join(root, folder))
        command = f"salmonn unpack {shlex.quote(files.join(root, table))}"
        for number, (sid, speaker, text) in enumerate(stream_rows(files.join(root, table))):
            if not sid or not is_name(sid) or text is None:
                refuse("malformed_row", f"gigaspeech/{table}:{number}", f"{sid!r} with text {text!r} is no segment")
            elif not unpacked:
                refuse("audio_in_parquet", f"gigaspeech/{sid}", f"no {folder}/{sid}.wav yet; run: {command}")
            elif clip := clip_of(sid, speaker or "", text, AudioRef(path=f"{folder}/{sid}.wav"), refuse):
                yield clip


def stream_rows(path: str) -> Iterator[tuple[str | None, ...]]:
    """Yield segment_id, speaker and text of every row; the audio, which is most of the file, is not read."""
    try:
        with open_parquet(path) as parquet:
            if lost := [name for name in PARQUET if name not in parquet.schema_arrow.names]:
                raise UserError(f"{path} has no column {lost[0]!r}; GigaSpeech has {', '.join(PARQUET)}")
            for batch in parquet.iter_batches(columns=list(PARQUET), use_threads=False):
                yield from zip(*(batch.column(name).to_pylist() for name in PARQUET), strict=True)
    except pa.ArrowException as error:
        raise UserError(f"{path} is not a whole Parquet file ({error}); fetch it anew") from None
