"""LibriMix (https://github.com/JorisCos/LibriMix): two or three readers of LibriSpeech at once, without noise.

The published mixtures are made on one's own machine; where they are not, we render the same sums from the tables::

    LibriSpeech/train-clean-100/...                                     LibriSpeech, or a link to it: always needed
    Libri2Mix/wav16k/max/train-100/mix_clean/<mixture_ID>.wav           as made by the published scripts, or instead
    metadata/Libri2Mix/libri2mix_train-clean-100.csv                    metadata/ of the published repository

One row of such a table, and one of its twin ``..._info.csv``, where numbers of speakers are floats::

    4077-13754-0001_5142-33396-0065,test-clean/4077/13754/4077-13754-0001.flac,0.7875413348848695,test-clean/5142/...
    4077-13754-0001_5142-33396-0065,4077.0,M,5142.0,F

The published mixer multiplies each source with its gain, adds them, and writes 16 bits: what is too loud is clipped,
not rescaled; so do we. All sources start at 0, so their transcripts stand in the order of the speakers' numbers.

In the mode ``max`` the shorter source is followed by silence. In ``min`` the longer is cut, and its transcript says
more than is heard: if nothing but a ``min`` tree is there, only mixtures whose sources have one length, by
metadata/LibriSpeech/<subset>.csv, are read; the others are refused.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator

from manifests import files
from manifests.clips import AudioRef, Clip, Refuse
from manifests.errors import UserError
from manifests.sheets import read_lines

SUBSETS = {"train-100": "train-clean-100", "train-360": "train-clean-360", "dev": "dev-clean", "test": "test-clean"}
UTTERANCE = re.compile(r"(\d{1,9})-(\d{1,9})-\d{1,9}", re.ASCII)
SUBSET = re.compile(r"[a-z0-9-]+")

Rows = Iterator[tuple[int, dict[str, str]]]


def clips(root: str, split: str, refuse: Refuse) -> Iterator[Clip]:
    """Yield the mixtures of `split` from the tree that was made, in the order of its table, or by our rendering."""
    family, part = split.split("-", 1)
    sources = int(family.removeprefix("libri")[0])
    subset, folder = SUBSETS[part], f"Libri{sources}Mix"
    if not files.is_folder(files.join(root, "LibriSpeech")):
        raise UserError(
            f"librimix: there is no folder {files.join(root, 'LibriSpeech')!r}; the transcripts come from LibriSpeech: "
            "link it there"
        )
    table = f"metadata/{folder}/{family}_{subset}.csv"
    made = {mode: f"{folder}/wav16k/{mode}/{part}/mix_clean" for mode in ("max", "min")}
    info = read_info(root, table.replace(".csv", "_info.csv"), sources, refuse)
    texts = Texts(files.join(root, "LibriSpeech"))
    if files.is_folder(files.join(root, made["max"])):
        for name in read_made(root, made["max"], sources, info, refuse):
            yield mixture(name, (AudioRef(path=f"{made['max']}/{name}.wav"),), [subset] * sources, texts)
    elif files.exists(files.join(root, table)):
        for name, audio in read_table(root, table, sources, info, refuse):
            yield mixture(name, audio, [ref.path.split("/")[1] for ref in audio], texts)
    elif files.is_folder(files.join(root, made["min"])):
        lengths = read_lengths(root, f"metadata/LibriSpeech/{subset}.csv", refuse)
        for name in read_made(root, made["min"], sources, info, refuse):
            found = {lengths.get(utterance, f"unknown of {utterance}") for utterance in name.split("_")}
            if len(found) == 1:
                yield mixture(name, (AudioRef(path=f"{made['min']}/{name}.wav"),), [subset] * sources, texts)
            else:
                refuse("min_mode_cuts_transcript", f"librimix/{name}", f"lengths of its sources: {sorted(found)}")
    else:
        raise UserError(
            f"librimix: there is neither the folder {files.join(root, made['max'])!r} nor the file "
            f"{files.join(root, table)!r}; make the mixtures, or copy metadata/ of github.com/JorisCos/LibriMix"
        )


def mixture(name: str, audio: tuple[AudioRef, ...], subsets: list[str], texts: Texts) -> Clip:
    """Return one mixture with its transcripts by speaker, one a line; no text if one of them is missing."""
    spoken = sorted(zip(name.split("_"), subsets, strict=True), key=lambda pair: (speaker_of(pair[0]), pair[0]))
    said = [texts.find(subset, utterance) for utterance, subset in spoken]
    return Clip(
        id=f"librimix/{name}",
        audio=audio,
        join="single" if len(audio) == 1 else "mix",
        language="en",
        text="\n".join(said) if all(said) else "",
        license="CC-BY-4.0",
    )


class Texts:
    """The transcripts of LibriSpeech; a chapter is read when the first of its utterances is asked for."""

    def __init__(self, top: str) -> None:
        self.top = top
        self.chapters: dict[str, dict[str, str]] = {}

    def find(self, subset: str, utterance: str) -> str:
        """Return the transcript of `utterance`, empty if LibriSpeech has none here."""
        reader, chapter, _ = utterance.split("-")
        path = f"{subset}/{reader}/{chapter}/{reader}-{chapter}.trans.txt"
        if path not in self.chapters:
            place = files.join(self.top, path)
            lines = read_lines(place) if files.exists(place) else []
            self.chapters[path] = {line.partition(" ")[0]: line.partition(" ")[2] for line in lines}
        return self.chapters[path].get(utterance, "")


def speaker_of(utterance: str) -> int:
    """Return the number of the reader, with which the id of an utterance begins."""
    return int(utterance.partition("-")[0])


def well_formed(name: str, sources: int, info: dict[str, list[int]]) -> bool:
    """Whether the id of a mixture is well formed and names the speakers that the info table has."""
    parts = name.split("_")
    if len(parts) != sources or not all(map(UTTERANCE.fullmatch, parts)):
        return False
    named = [speaker_of(part) for part in parts]
    return info.get(name, named) == named


def read_made(root: str, folder: str, sources: int, info: dict[str, list[int]], refuse: Refuse) -> Iterator[str]:
    """Yield the ids of the mixtures that were made: by the table the scripts write, else by the files there."""
    mode, part, kind = folder.split("/")[2:5]
    table = f"{folder.partition('/')[0]}/wav16k/{mode}/metadata/mixture_{part}_{kind}.csv"
    if not files.exists(files.join(root, table)):
        wavs = files.names(files.join(root, folder), ".wav")
        names = [(f"{folder}/{wav}", wav.removesuffix(".wav")) for wav in wavs if not wav.startswith(".")]
    else:
        # Its paths are those of the machine that made them, so only the ids are taken.
        columns = ["mixture_ID", "mixture_path", *(f"source_{place}_path" for place in range(1, sources + 1))]
        rows = read_csv(root, table, columns, refuse)
        names = [(f"{table}:{number}", row["mixture_ID"]) for number, row in rows]
    for where, name in names:
        if well_formed(name, sources, info):
            yield name
        else:
            refuse("malformed_row", f"librimix/{where}", f"{name[:80]!r} does not name its {sources} speakers")


def read_table(
    root: str, path: str, sources: int, info: dict[str, list[int]], refuse: Refuse
) -> Iterator[tuple[str, tuple[AudioRef, ...]]]:
    """Yield the mixtures of a published table, each with its sources in the order in which they are added."""
    places = range(1, sources + 1)
    columns = ["mixture_ID", *(f"source_{place}_{fact}" for place in places for fact in ("path", "gain"))]
    for number, row in read_csv(root, path, columns, refuse):
        name = row["mixture_ID"]
        refs = [reference(row[f"source_{place}_path"], row[f"source_{place}_gain"]) for place in places]
        audio = tuple(ref for ref in refs if ref is not None)
        stems = [ref.path.rsplit("/", 1)[1].removesuffix(".flac") for ref in audio]
        if well_formed(name, sources, info) and stems == name.split("_"):
            yield name, audio
        else:
            detail = f"{','.join(row.values())[:80]!r}: id, sources, gains and speakers do not fit"
            refuse("malformed_row", f"librimix/{path}:{number}", detail)


def reference(path: str, gain: str) -> AudioRef | None:
    """Return one source of a mixture; None if it is no path of LibriSpeech or its gain no number."""
    subset, _, rest = path.partition("/")
    utterance = UTTERANCE.match(rest.rpartition("/")[2].removesuffix(".flac"))
    if not utterance or not SUBSET.fullmatch(subset) or rest != f"{utterance[1]}/{utterance[2]}/{utterance[0]}.flac":
        return None
    try:
        factor = float(gain)
    except ValueError:
        return None
    return AudioRef(path=f"LibriSpeech/{path}", gain=factor) if math.isfinite(factor) else None


def read_info(root: str, path: str, sources: int, refuse: Refuse) -> dict[str, list[int]]:
    """Map mixtures to the numbers of their speakers, which the table writes as ``4077.0``; empty without the table."""
    info: dict[str, list[int]] = {}
    columns = [f"speaker_{place}_ID" for place in range(1, sources + 1)]
    for number, row in read_csv(root, path, ["mixture_ID", *columns], refuse) if exists(root, path) else ():
        try:
            info[row["mixture_ID"]] = [int(float(row[column])) for column in columns]
        except (ValueError, OverflowError):
            refuse("malformed_row", f"librimix/{path}:{number}", f"{','.join(row.values())[:80]!r}: no speakers")
    return info


def read_lengths(root: str, path: str, refuse: Refuse) -> dict[str, str]:
    """Map utterances to their lengths in samples, as written; empty without the table."""
    rows = read_csv(root, path, ["length", "origin_path"], refuse) if exists(root, path) else ()
    return {row["origin_path"].rsplit("/", 1)[-1].removesuffix(".flac"): row["length"] for _, row in rows}


def exists(root: str, path: str) -> bool:
    """Whether a table is there."""
    return files.exists(files.join(root, path))


def read_csv(root: str, path: str, columns: list[str], refuse: Refuse) -> Rows:
    """Yield (line, row) of a table that has at least `columns`; UserError if it has not."""
    header, *lines = read_lines(files.join(root, path)) or [""]
    known = header.split(",")
    if not set(columns) <= set(known):
        raise UserError(f"{files.join(root, path)}: the columns are {known}, but LibriMix has {columns}")
    for number, line in enumerate(lines, start=2):
        try:
            fields = next(csv.reader([line]), [])
        except csv.Error:
            fields = []
        if len(fields) == len(known):
            yield number, dict(zip(known, fields, strict=True))
        elif line.strip():
            refuse("malformed_row", f"librimix/{path}:{number}", f"{line[:80]!r} has not {len(known)} columns")
