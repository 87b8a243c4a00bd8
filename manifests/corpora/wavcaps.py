"""WavCaps (https://huggingface.co/datasets/cvssp/WavCaps): 400,000 sounds of four sources, captioned by ChatGPT.

The published tree, with the joined zips unpacked in place or, as aac-datasets leaves them, below Audio/; the zips hold
folders of their own, so files are found by name at any depth::

    json_files/AudioSet_SL/as_final.json              BBC_Sound_Effects/bbc_final.json, FreeSound/fsd_final.json,
                                                      SoundBible/sb_final.json
    json_files/blacklist/blacklist_exclude_test_ac.json
    Zip_files/SoundBible/SoundBible_flac/2219.flac    32 kHz, mono
    Audio/SoundBible/2219.flac

One record, made up here, since those of WavCaps are for academic use alone::

    {"title": "Rain", "caption": "Rain falls.", "id": "9001", "duration": 3.0, "audio": "wav_path", ...}

In AudioSet_SL the id is ``Y<youtube_id>.wav`` and the file ``Y<youtube_id>.flac``. A blacklist maps "AudioSet" and
"FreeSound" to ids that the test sets of AudioCaps, Clotho, ESC-50, UrbanSound8K and VGGSound contain. All that lie in
the folder apply: a clip on any is refused as ``blacklisted``. To apply fewer, move files out of the folder.

Published lengths reach 2,438 s and more. Of a clip that is longer than 30 s by its record, 30 s are taken, from a
whole second that the id alone draws, each with the same chance.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TypeVar

import msgspec

from manifests import draw, files
from manifests.clips import AudioRef, Clip, Refuse
from manifests.errors import UserError

Kind = TypeVar("Kind")

SOURCES = {
    "audioset-sl": ("AudioSet_SL", "as_final.json"),
    "bbc": ("BBC_Sound_Effects", "bbc_final.json"),
    "freesound": ("FreeSound", "fsd_final.json"),
    "soundbible": ("SoundBible", "sb_final.json"),
}
BLACKLISTED = {"AudioSet": "audioset-sl", "FreeSound": "freesound"}
"""The key of a source in a blacklist, and its split here."""
LICENSE = "academic use only (WavCaps)"
LONGEST = 30.0
"""Seconds of a clip that are kept: the model hears no more (SALMONN cuts there as well)."""


class Table(msgspec.Struct, frozen=True):
    """A file of json_files/. Its records stay bytes until their turn: there are 262,300 in one."""

    data: list[msgspec.Raw]


class Record(msgspec.Struct, frozen=True):
    """What is read of one record."""

    id: str | int
    caption: str
    duration: float | str
    """Seconds."""


def clips(root: str, split: str, refuse: Refuse) -> Iterator[Clip]:
    """Yield the sounds of one source in the order of its file; without audio where the file is not there."""
    inside = "WavCaps/" if files.is_folder(files.join(root, "WavCaps/json_files")) else ""
    source, name = SOURCES[split]
    path = files.join(root, f"{inside}json_files", source, name)
    records = read_json(path, Table).data
    excluded = read_blacklists(files.join(root, f"{inside}json_files/blacklist"), split)
    found = find_audio(root, inside, source)
    decode = msgspec.json.Decoder(Record).decode
    for number, raw in enumerate(records, start=1):
        try:
            record = decode(raw)
            seconds = float(record.duration)
        except ValueError as error:  # msgspec's errors are ValueErrors as well
            refuse("malformed_row", f"wavcaps/{name}:{number}", f"record {number}: {error}")
            continue
        official = str(record.id)
        if not official or not 0 <= seconds < math.inf:
            told = f"record {number} has the id {official[:60]!r} and the duration {record.duration!r}"
            refuse("malformed_row", f"wavcaps/{name}:{number}", told)
            continue
        clip_id, stem = f"wavcaps/{split}/{official}", official.removesuffix(".wav")
        if stem in excluded:
            refuse("blacklisted", clip_id, f"listed in {excluded[stem]}")
            continue
        yield Clip(
            id=clip_id,
            audio=(crop(found[stem], seconds, clip_id),) if stem in found else (),
            captions=(record.caption,),
            license=LICENSE,
        )


def crop(path: str, seconds: float, clip_id: str) -> AudioRef:
    """Refer to all of a file of `seconds`, or to 30 s of a longer one, from a whole second that the id draws."""
    if seconds <= LONGEST:
        return AudioRef(path=path)
    starts = int(seconds - LONGEST) + 1
    return AudioRef(path=path, start=float(draw.number("crop", clip_id) % starts), seconds=LONGEST)


def find_audio(root: str, inside: str, source: str) -> dict[str, str]:
    """Map the stem of every FLAC file of `source` to its path below the root; Audio/ goes before Zip_files/."""
    found = {}
    for folder in (f"{inside}Zip_files/{source}", f"{inside}Audio/{source}"):
        for path in files.walk(files.join(root, folder), ".flac"):
            found[path.rsplit("/", 1)[-1].removesuffix(".flac")] = f"{folder}/{path}"
    return found


def read_blacklists(folder: str, split: str) -> dict[str, str]:
    """Map every id of `split` that a blacklist in `folder` excludes to the first file that does, without its .wav."""
    if not files.is_folder(folder):
        raise UserError(
            f"wavcaps: there is no folder {folder!r}; it is json_files/blacklist of huggingface.co/datasets/"
            "cvssp/WavCaps and keeps test sets out of training (an empty folder excludes nothing)"
        )
    excluded: dict[str, str] = {}
    for name in files.names(folder, ".json"):
        for key, ids in read_json(files.join(folder, name), dict[str, list[str | int]]).items():
            if BLACKLISTED.get(key) == split:
                for entry in ids:
                    excluded.setdefault(str(entry).removesuffix(".wav"), name)
    return excluded


def read_json(path: str, kind: type[Kind]) -> Kind:
    """Read a JSON file of WavCaps; UserError if it is not there or holds something else."""
    if not files.exists(path):
        raise UserError(
            f"wavcaps: there is no file {path!r}; it is in json_files/ of huggingface.co/datasets/cvssp/WavCaps"
        )
    try:
        return msgspec.json.decode(files.read_bytes(path), type=kind)
    except msgspec.MsgspecError as error:
        begin = files.open_read(path).read(24)
        hint = "a pointer of git-lfs, not the file" if begin.startswith(b"version https://git-lfs") else str(error)
        raise UserError(f"{path} is not as published: {hint}; fetch it anew") from None
