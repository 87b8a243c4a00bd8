"""Clotho v2.1 (https://zenodo.org/records/4783391): sounds of 15 to 30 s from Freesound, five captions each.

The published files, the archives unpacked beside the tables; the layout of aac-datasets, with CLOTHO_v2.1/ around
clotho_csv_files/ and clotho_audio_files/, is read as well::

    clotho_captions_development.csv                   UTF-8; CRLF, but evaluation LF
    clotho_metadata_development.csv                   ISO-8859-1
    development/ Ambience Birds.wav                   44.1 kHz, mono, 16 bits

One row of each table, made up here in the published form, since captions and keywords are not ours to copy::

    file_name,caption_1,caption_2,caption_3,caption_4,caption_5
     dog barks.wav,A dog barks ,A dog is barking,Barking of a dog,A dog barks loudly,Several barks of a dog

    file_name,keywords,sound_id,sound_link,start_end_samples,manufacturer,license
     dog barks.wav,dog;bark,100032,https://freesound.org/people/nfrae/sounds/100032,"[0, 662000]",nfrae,http://...

File names may begin with spaces and hold brackets and dots, captions may end in spaces. Every sound has its own
licence. A few names stand in two splits, so an id holds the split: ``clotho/development/ dog barks.wav``. Some sounds
stand in two splits under different names; their sound_id, kept as the label ``freesound``, tells.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from manifests import files
from manifests.clips import AudioRef, Clip, Refuse
from manifests.errors import UserError
from manifests.sheets import read_rows

CAPTIONS = ["file_name", "caption_1", "caption_2", "caption_3", "caption_4", "caption_5"]
METADATA = ["file_name", "keywords", "sound_id", "sound_link", "start_end_samples", "manufacturer", "license"]
LICENSE = "CC by clip, Tampere University captions"
CREATIVE_COMMONS = re.compile(r"https?://creativecommons\.org/(?:licenses|publicdomain)/([a-z-]+)/([0-9.]+)/?")


def clips(root: str, split: str, refuse: Refuse) -> Iterator[Clip]:
    """Yield every sound of `split` in the order of its captions; without audio where its file is not there."""
    captions, metadata = f"clotho_captions_{split}.csv", f"clotho_metadata_{split}.csv"
    top = "CLOTHO_v2.1" if files.is_folder(files.join(root, "CLOTHO_v2.1")) else ""
    tables = first_of(root, top, ("", "clotho_csv_files"), captions)
    if tables is None:
        raise UserError(
            f"clotho: there is no file {files.join(root, captions)!r}; it is one of zenodo.org/records/4783391"
        )
    if not files.exists(files.join(root, tables, metadata)):
        raise UserError(
            f"clotho: there is no file {files.join(root, tables, metadata)!r}; "
            "it is one of zenodo.org/records/4783391 and holds the licence of each sound"
        )
    folder = first_of(root, top, ("", "clotho_audio_files"), split)
    audio = place(folder, split) if folder is not None else ""
    found = set(files.names(files.join(root, audio))) if audio else set()
    known = {
        row["file_name"]: row
        for _, row in read_rows(
            files.join(root, tables, metadata), f"clotho/{metadata}", METADATA, refuse, encoding="iso-8859-1"
        )
    }
    for where, row in read_rows(files.join(root, tables, captions), f"clotho/{captions}", CAPTIONS, refuse):
        name = row["file_name"]
        if not name.strip():
            refuse("malformed_row", where, "the file name is empty")
            continue
        facts = known.get(name, {})
        sound = facts.get("sound_id", "").strip()
        yield Clip(
            id=f"clotho/{split}/{name}",
            audio=(AudioRef(path=f"{audio}/{name}"),) if name in found else (),
            captions=tuple(row[column] for column in CAPTIONS[1:]),
            labels={"freesound": sound} if sound.isdecimal() else {},
            license=spdx(facts.get("license", "").strip()) or LICENSE,
        )


def place(*parts: str) -> str:
    """Join the parts that are not empty to a path below the root."""
    return "/".join(part for part in parts if part)


def first_of(root: str, top: str, folders: tuple[str, ...], name: str) -> str | None:
    """Return the first of `folders` below `top` that holds `name`, as a path below the root; None if none does."""
    candidates = [place(top, folder) for folder in folders]
    return next((path for path in candidates if files.exists(files.join(root, place(path, name)))), None)


def spdx(link: str) -> str:
    """Return the SPDX identifier of a Creative Commons `link`; anything else as it stands."""
    match = CREATIVE_COMMONS.fullmatch(link)
    if not match:
        return link
    kind, version = match.groups()
    return f"CC0-{version}" if kind == "zero" else f"CC-{kind.upper()}-{version}"
