"""MusicNet (https://zenodo.org/records/5120004): 330 recordings of classical music with every note written down.

The published archive and, beside it or within, the table of its recordings::

    musicnet_metadata.csv                             UTF-8, lines end in CR LF
    musicnet/train_data/1727.wav                      44.1 kHz, mono, 32-bit float
    musicnet/train_labels/1727.csv
    musicnet/test_data/, musicnet/test_labels/        ten recordings

One row of the table::

    id,composer,composition,movement,ensemble,source,transcriber,catalog_name,seconds
    1727,Schubert,Piano Quintet in A major,2. Andante,Piano Quintet,European Archive,http://tirolmusic.blogspot.com/,OP114,447

The labels of a recording, a note a row (this one is made up; the columns are the published ones)::

    start_time,end_time,instrument,note,start_beat,end_beat,note_value
    9182,90078,43,53,4.0,1.5,Dotted Quarter

Times are sample indices at 44,100 Hz; the instrument is a General MIDI program, counted from 1; end_beat is a duration.

A recording lasts minutes; a clip is 30 s of it, one a recording, as in SALMONN's table (0.3K samples, 3 hours). It
begins at a whole second drawn from the recording's id, or at 0 where the recording is no longer than 30 s. The
questions are those that table and labels answer: who composed it, who plays, and which instruments sound within these
30 s. Where the labels are missing, or a row of them cannot be read, nobody can say which instruments sound, and that
is not asked.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from manifests import draw, files
from manifests.clips import AudioRef, Clip, Refuse
from manifests.errors import UserError

COLUMNS = ["id", "composer", "composition", "movement", "ensemble", "source", "transcriber", "catalog_name", "seconds"]
NOTES = ["start_time", "end_time", "instrument", "note", "start_beat", "end_beat", "note_value"]
# The table does not say which ten are the test set; their files lie in test_data/.
TEST = {"1759", "1819", "2106", "2191", "2298", "2303", "2382", "2416", "2556", "2628"}
RATE = 44_100
"""Hz, of the recordings and of the sample indices in their labels."""
WINDOW = 30
"""Seconds of a clip."""
INSTRUMENTS = {
    "1": "piano",
    "7": "harpsichord",
    "41": "violin",
    "42": "viola",
    "43": "cello",
    "44": "double bass",
    "61": "horn",
    "69": "oboe",
    "71": "bassoon",
    "72": "clarinet",
    "74": "flute",
}
"""General MIDI programs, counted from 1: the eleven of MusicNet, in the order of an answer."""


def clips(root: str, split: str, refuse: Refuse) -> Iterator[Clip]:
    """Yield one clip per recording of `split` in the order of the table; `root` holds the folder musicnet, or is it."""
    inside = "musicnet/" if files.is_folder(files.join(root, "musicnet")) else ""
    tables = [files.join(root, place, "musicnet_metadata.csv") for place in ("", inside)]
    table = next((place for place in tables if files.exists(place)), "")
    if not table:
        raise UserError(f"musicnet: there is no file {tables[0]!r}; it is published beside musicnet.tar.gz on Zenodo")
    if not files.is_folder(files.join(root, f"{inside}{split}_data")):
        place = files.join(root, f"{inside}{split}_data")
        raise UserError(f"musicnet: there is no folder {place!r}; unpack musicnet.tar.gz into {root!r}")
    for row in read_recordings(table, refuse):
        name = row["id"]
        if (name in TEST) != (split == "test"):
            continue
        seconds = int(row["seconds"])
        start = draw.number("musicnet", name) % (seconds - WINDOW + 1) if seconds > WINDOW else 0
        questions = [
            ("Who composed this music?", row["composer"]),
            ("What kind of ensemble plays this music?", row["ensemble"]),
        ]
        heard = read_instruments(files.join(root, f"{inside}{split}_labels", f"{name}.csv"), start, refuse)
        if heard:
            questions.append(("Which instruments are heard?", spell(heard)))
        yield Clip(
            id=f"musicnet/{name}",
            audio=(
                AudioRef(
                    path=f"{inside}{split}_data/{name}.wav", start=float(start), seconds=float(min(WINDOW, seconds))
                ),
            ),
            questions=tuple(questions),
            license="CC-BY-4.0",
        )


def read_recordings(path: str, refuse: Refuse) -> Iterator[dict[str, str]]:
    """Yield the rows of the table of recordings."""
    try:
        rows = list(read_rows(path, COLUMNS))
    except ValueError as error:
        raise UserError(f"{path} is not MusicNet's table of recordings: {error}") from None
    for line, fields in rows:
        row = dict(zip(COLUMNS, fields, strict=False))
        whole = len(fields) == len(COLUMNS) and row["id"].isdecimal() and row["seconds"].isdecimal()
        if whole and row["composer"] and row["ensemble"] and int(row["seconds"][:9]) > 0:
            yield row
        else:
            told = ",".join(fields)[:80]
            refuse("malformed_row", f"musicnet/musicnet_metadata.csv:{line}", f"{told!r} is no recording")


def read_instruments(path: str, start: int, refuse: Refuse) -> set[str]:
    """Return the programs that sound within the clip that begins at second `start`; none if that cannot be told."""
    if not files.exists(path):
        return set()
    begin, end = start * RATE, (start + WINDOW) * RATE
    heard = set()
    sound = True
    name = "musicnet/" + "/".join(path.split("/")[-2:])
    try:
        for line, fields in read_rows(path, NOTES):
            if len(fields) != len(NOTES) or fields[2] not in INSTRUMENTS or not (fields[0] + fields[1]).isdecimal():
                refuse("malformed_row", f"{name}:{line}", f"{','.join(fields)[:80]!r} is no note of MusicNet")
                sound = False
            elif int(fields[0]) < end and int(fields[1]) > begin:
                heard.add(fields[2])
    except ValueError as error:
        refuse("malformed_row", f"{name}:1", f"not a table of notes: {error}")
        sound = False
    return heard if sound else set()


def read_rows(path: str, columns: list[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield the line and the fields of each row of a table with these columns; ValueError if it is no such table."""
    rows = csv.reader(io.StringIO(files.read_text(path), newline=""))
    try:
        found = next(rows, [])
        if found != columns:
            raise ValueError(f"the columns are {found}, but MusicNet has {columns}")
        for fields in rows:
            if fields:
                yield rows.line_num, fields
    except csv.Error as error:
        raise ValueError(f"line {rows.line_num}: {error}") from None


def spell(programs: set[str]) -> str:
    """Return the names of instruments as one says them: ``violin, viola and cello``."""
    *names, last = (name for program, name in INSTRUMENTS.items() if program in programs)
    return f"{', '.join(names)} and {last}" if names else last
