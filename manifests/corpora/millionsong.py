"""Million Song Dataset (http://millionsongdataset.com): facts on songs, one HDF5 file each. It holds no audio.

The published trees, with or without the folder data between; and audio that the user brings, since the previews that
once belonged to the set are gone. The folders are characters 3 to 5 of the track id::

    MillionSongSubset/data/A/A/A/TRAAAAW128F429D538.h5          the subset: 10,000 songs
    MillionSong/data/A/A/A/TRAAAAW128F429D538.h5                all songs
    audio/TRAAAAW128F429D538.ogg                                any container; or audio/A/A/A/TRAAAAW128F429D538.*

One song, of our own making, for the files come without a grant to pass them on::

    metadata/songs        compound [1]   title b"Lanterns", artist_name b"The Paper Owls", ... (S1024)
    metadata/artist_terms S256 [n]       b"indie folk", b"acoustic"; artist_terms_weight f8 [n] 1.0, 0.71
    musicbrainz/songs     compound [1]   year 2004; 0 where it is unknown
    analysis/songs        compound [1]   track_id b"TRAAAQZ12903CAB001" (S32), duration 214.2, tempo, key, ...

A song without the user's audio is a clip without audio, which the scan counts. The questions are what the files state
and is not a guess of a machine, as tempo and key are: the year, and the style, which is the artist's term of most
weight. Questions from annotation files are joined elsewhere, by track id.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator
from typing import Any

from manifests import files
from manifests.clips import AudioRef, Clip, Refuse
from manifests.errors import UserError

TOPS = {"subset": "MillionSongSubset", "full": "MillionSong"}
MAX_BYTES = 2**24
"""What is read at once; a row of the widest table has 6 kB, and an artist at most some hundred terms of 256 bytes."""


class Malformed(Exception):
    """A file that is not a song of the set, and why."""


def clips(root: str, split: str, refuse: Refuse) -> Iterator[Clip]:
    """Yield every song of `split` in the order of the track ids; `root` holds the folder of the split, or is it."""
    try:
        hdf5 = importlib.import_module("h5py")
    except ImportError:
        raise UserError("millionsong: its HDF5 files need h5py, which is not installed: pip install h5py") from None
    top = files.join(root, TOPS[split]) if files.is_folder(files.join(root, TOPS[split])) else root
    top = files.join(top, "data") if files.is_folder(files.join(top, "data")) else top
    if not any(len(name) == 1 and name.isupper() for name in files.names(top)):
        raise UserError(
            f"millionsong: there are no folders A, B, C in {top!r}; unpack the set so that {root!r} holds "
            f"{TOPS[split]}/data/A/A/A/<track_id>.h5"
        )
    paths: dict[str, str] = {}
    for path in files.walk(files.join(root, "audio")):
        paths.setdefault(path.rsplit("/", 1)[-1].rsplit(".", 1)[0], f"audio/{path}")
    for letter in (name for name in files.names(top) if len(name) == 1 and name.isupper()):
        for place in files.walk(files.join(top, letter), ".h5"):
            track = place.rsplit("/", 1)[-1].removesuffix(".h5")
            try:
                questions = ask(hdf5, files.join(top, letter, place), track)
            except Malformed as reason:
                refuse("malformed_row", f"millionsong/{letter}/{place}:1", str(reason))
                continue
            path = paths.get(track, "")
            yield Clip(
                id=f"millionsong/{track}",
                audio=(AudioRef(path=path),) if path else (),
                questions=questions,
                license="MSD research use",
            )


def ask(hdf5: Any, url: str, track: str) -> tuple[tuple[str, str], ...]:
    """Return what can be asked about the song in one file; Malformed if it is not the song of this track id."""
    try:
        with files.open_read(url) as content, hdf5.File(content, "r") as song:
            found = text(one_row(hdf5, song, "analysis/songs")["track_id"])
            if found != track:
                raise Malformed(f"holds the track {found[:40]!r}")
            year = int(one_row(hdf5, song, "musicbrainz/songs")["year"])
            terms, weights = (column(hdf5, song, f"metadata/artist_terms{end}") for end in ("", "_weight"))
            if len(terms) != len(weights):
                raise Malformed(f"has {len(terms)} terms and {len(weights)} weights")
            style = text(max(zip(weights[:].tolist(), terms[:].tolist(), strict=True))[1]) if len(terms) else ""
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
        # What h5py says of damage depends on where it lies.
        raise Malformed(f"{type(error).__name__}: {error}"[:200]) from None
    questions = (
        ("What style of music is this artist known for?", style),
        ("In which year was this song released?", str(year) if year > 0 else ""),
    )
    return tuple((question, answer) for question, answer in questions if answer)


def one_row(hdf5: Any, song: Any, name: str) -> Any:
    """Return the only row of a table; summary files of the set have one a song, and are none of its songs."""
    table = column(hdf5, song, name)
    if table.shape != (1,):
        raise Malformed(f"{name} has the shape {table.shape}, not (1,)")
    return table[0]


def column(hdf5: Any, song: Any, name: str) -> Any:
    """Return a dataset that lies in the file itself: links could name any other file of this machine."""
    place = song
    for key in name.split("/"):
        if not isinstance(place.get(key, getlink=True), hdf5.HardLink):
            raise Malformed(f"has no {name}")
        place = place[key]
    if place.external or place.is_virtual:
        raise Malformed(f"{name} lies in another file")
    if place.dtype.itemsize * max(place.size, math.prod(place.chunks or ())) > MAX_BYTES:
        raise Malformed(f"{name} claims {place.size} values of {place.dtype}")
    return place


def text(value: bytes) -> str:
    """Return the text of a string of fixed width."""
    return bytes(value).decode("utf-8")
