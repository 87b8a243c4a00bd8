"""LibriSpeech (https://www.openslr.org/12): read English, 1,000 hours, from LibriVox.

The published tree; every archive carries the same SPEAKERS.TXT::

    LibriSpeech/SPEAKERS.TXT
    LibriSpeech/dev-clean/1272/128104/1272-128104-0000.flac          16 kHz, mono, 16 bits
    LibriSpeech/dev-clean/1272/128104/1272-128104.trans.txt

One line of a trans.txt: the id, a space, the text in upper case::

    1272-128104-0000 MISTER QUILTER IS THE APOSTLE OF THE MIDDLE CLASSES AND WE ARE GLAD TO WELCOME HIS GOSPEL

One line of SPEAKERS.TXT: id, sex, subset, minutes, name::

    14   | F | train-clean-360  | 25.03 | Kristin LeMoine
"""

from __future__ import annotations

from collections.abc import Iterator

from manifests import files
from manifests.clips import AudioRef, Clip, Refuse
from manifests.errors import UserError
from manifests.sheets import read_lines

GENDERS = {"F": "female", "M": "male"}


def clips(root: str, split: str, refuse: Refuse) -> Iterator[Clip]:
    """Yield every utterance of `split`, chapter by chapter; `root` holds the folder LibriSpeech, or is it."""
    inside = "LibriSpeech/" if files.is_folder(files.join(root, "LibriSpeech")) else ""
    top = files.join(root, inside) if inside else root
    if not files.is_folder(files.join(top, split)):
        raise UserError(
            f"librispeech: there is no folder {files.join(top, split)!r}; "
            f"unpack {split}.tar.gz of openslr.org/12 into {root!r}"
        )
    genders = read_genders(files.join(top, "SPEAKERS.TXT"))
    for transcript in files.walk(files.join(top, split), ".trans.txt"):
        chapter = transcript.rsplit("/", 1)[0]
        for number, line in enumerate(read_lines(files.join(top, split, transcript)), start=1):
            if not line.strip():
                continue
            name, _, text = line.strip().partition(" ")
            if not text or name.count("-") != 2:
                refuse("malformed_row", f"librispeech/{split}/{transcript}:{number}", f"{line[:60]!r} is not ID TEXT")
                continue
            reader = name.split("-")[0]
            yield Clip(
                id=f"librispeech/{name}",
                audio=(AudioRef(path=f"{inside}{split}/{chapter}/{name}.flac"),),
                language="en",
                speaker=f"librispeech/{reader}",
                gender=genders.get(reader, ""),
                text=text,
                license="CC-BY-4.0",
            )


def read_genders(path: str) -> dict[str, str]:
    """Map reader id to gender from SPEAKERS.TXT.

    Split at most four times: the name of reader 60 is ``|CBW|Simon``.
    """
    if not files.exists(path):
        raise UserError(f"librispeech: there is no file {path!r}; every archive of openslr.org/12 holds it")
    genders = {}
    for number, line in enumerate(read_lines(path), start=1):
        if line.startswith(";") or not line.strip():
            continue
        fields = [field.strip() for field in line.split("|", 4)]
        if len(fields) != 5:
            raise UserError(f"{path}, line {number}: {line[:60]!r} is not ID | SEX | SUBSET | MINUTES | NAME")
        genders[fields[0]] = GENDERS.get(fields[1], "")
    return genders
