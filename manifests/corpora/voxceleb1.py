"""VoxCeleb1 (https://www.robots.ox.ac.uk/~vgg/data/voxceleb/): celebrities in interviews on YouTube.

The published tree, both archives unpacked in one place, with the three lists of the homepage beside it::

    vox1_meta.csv   iden_split.txt   veri_test.txt
    wav/id10001/1zcIwhmdeo4/00001.wav                         16 kHz, mono, 16 bits

One line of each list. Against its name vox1_meta.csv is parted by tabs; look-alikes with commas are refused::

    id10001	A.J._Buckley	m	Ireland	dev
    1 id10001/1zcIwhmdeo4/00001.wav
    1 id10270/x6uYqmx31kE/00001.wav id10270/8jEAjG6SegY/00008.wav

``dev`` and ``test`` are the utterances of the 1,211 and 40 speakers that vox1_meta.csv sets so, whatever the number in
iden_split.txt: that number parts utterances, not speakers. ``verification-test`` is the published list of trials, and
``verification-train`` pairs that we draw from the dev speakers alone. A pair is two spans that fit, with the 0.1 s of
silence between them, into the 30 s that the model hears; it has two speakers, so the fields for one stay empty.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from manifests import draw, files
from manifests.clips import AudioRef, Clip, Refuse
from manifests.errors import UserError
from manifests.sheets import read_lines

COLUMNS = ["VoxCeleb1 ID", "VGGFace1 ID", "Gender", "Nationality", "Set"]
GENDERS = {"m": "male", "f": "female"}
LICENSE = "CC-BY-4.0 lists, YouTube audio"
UTTERANCE = re.compile(r"(id\d{5}/[\w-]+/\d+)\.wav", re.ASCII)
SIDE = 14.9
"""Seconds of each side of a pair at most; a shorter file gives what it has."""
PAIRS = 4
"""Training pairs that each utterance leads: half of them with its own speaker, half with another.

SALMONN has 520K pairs, 3.5 an utterance; 4 is the nearest number that gives every utterance as many yes as no.
"""

Speakers = dict[str, tuple[str, str]]
"""Speaker to gender and set."""


def clips(root: str, split: str, refuse: Refuse) -> Iterator[Clip]:
    """Yield the utterances or the pairs of `split` in the order of the lists; `root` holds wav/ and the lists."""
    top = "VoxCeleb1/" if files.is_folder(files.join(root, "VoxCeleb1")) else ""
    if not files.is_folder(files.join(root, f"{top}wav")):
        raise UserError(f"voxceleb1: there is no folder {files.join(root, f'{top}wav')!r}; unpack the archives there")
    speakers = read_speakers(files.join(root, f"{top}vox1_meta.csv"), refuse)
    if split == "verification-test":
        for same, first, second in read_trials(files.join(root, f"{top}veri_test.txt"), refuse):
            yield pair(top, same, first, second)
        return
    listed = read_utterances(files.join(root, f"{top}iden_split.txt"), speakers, split == "test", refuse)
    if split == "verification-train":
        for same, first, second in draw_pairs(listed, speakers, refuse):
            yield pair(top, same, first, second)
        return
    for name in listed:
        speaker = name.partition("/")[0]
        yield Clip(
            id=f"voxceleb1/{name}",
            audio=(AudioRef(path=f"{top}wav/{name}.wav"),),
            language="",
            speaker=f"voxceleb1/{speaker}",
            gender=speakers[speaker][0],
            license=LICENSE,
        )


def pair(top: str, same: bool, first: str, second: str) -> Clip:
    """Return two utterances, one after the other, and whether one speaker says both."""
    return Clip(
        id=f"voxceleb1/{first}+{second}",
        audio=tuple(AudioRef(path=f"{top}wav/{name}.wav", seconds=SIDE) for name in (first, second)),
        join="concat",
        labels={"same_speaker": "yes" if same else "no"},
        license=LICENSE,
    )


def draw_pairs(utterances: Iterator[str], speakers: Speakers, refuse: Refuse) -> Iterator[tuple[bool, str, str]]:
    """Yield pairs in which every utterance leads as often as any other, and is as often with its speaker as without.

    Partners of one speaker are the next in an order drawn for that speaker, so no pair comes twice and each utterance
    follows as often as it leads. Every second stranger has the speaker's gender: to tell women from men is not enough.
    """
    said: dict[str, list[str]] = {}
    for name in utterances:
        said.setdefault(name.partition("/")[0], []).append(name)
    for speaker in [speaker for speaker, names in said.items() if len(names) == 1]:
        refuse("lone_utterance", f"voxceleb1/{said.pop(speaker)[0]}", "its speaker says nothing else to pair it with")
    if len(said) < 2:
        raise UserError(f"voxceleb1: iden_split.txt has {len(said)} dev speakers with two utterances; pairs need two")
    genders: dict[str, list[str]] = {}
    for speaker in said:
        genders.setdefault(speakers[speaker][0], []).append(speaker)
    for speaker, names in said.items():
        gender = speakers[speaker][0]
        alike = [other for other in genders[gender] if other != speaker]
        unlike = [other for other in said if speakers[other][0] != gender]
        names.sort(key=lambda name: draw.number("voxceleb1 order", name))
        for place, first in enumerate(names):
            taken = {first}
            for turn in range(min(PAIRS // 2, len(names) - 1)):
                yield True, first, names[(place + turn + 1) % len(names)]
                strangers = (alike or unlike) if (place + turn) % 2 == 0 else (unlike or alike)
                second, attempt = first, 0
                while second in taken:
                    other = draw.choice(strangers, "voxceleb1 speaker", first, turn, attempt)
                    second = draw.choice(said[other], "voxceleb1 utterance", first, turn, attempt)
                    attempt += 1
                taken.add(second)
                yield False, first, second


def read_speakers(path: str, refuse: Refuse) -> Speakers:
    """Read vox1_meta.csv."""
    lines = read_list(path)
    header = lines[0] if lines else ""
    if header.split("\t") != COLUMNS:
        parted = "commas" if header.count(",") >= len(COLUMNS) - 1 else "something else"
        raise UserError(
            f"{path}: the first line {header[:80]!r} is parted by {parted}; vox1_meta.csv as published has the columns "
            f"{', '.join(COLUMNS)}, parted by tabs as delimiter"
        )
    speakers: Speakers = {}
    for number, line in enumerate(lines[1:], start=2):
        fields = line.split("\t")
        if len(fields) != len(COLUMNS) or fields[2] not in GENDERS or fields[4] not in ("dev", "test"):
            refuse("malformed_row", f"voxceleb1/vox1_meta.csv:{number}", f"{line[:80]!r} is not {', '.join(COLUMNS)}")
            continue
        speakers[fields[0]] = (GENDERS[fields[2]], fields[4])
    return speakers


def read_utterances(path: str, speakers: Speakers, test: bool, refuse: Refuse) -> Iterator[str]:
    """Yield the utterances of iden_split.txt whose speakers are set to test, or to dev."""
    for number, line in enumerate(read_list(path), start=1):
        part, _, file = line.partition(" ")
        named = UTTERANCE.fullmatch(file)
        if not named or part not in ("1", "2", "3"):
            refuse(
                "malformed_row",
                f"voxceleb1/iden_split.txt:{number}",
                f"{line[:80]!r} is not 1|2|3 SPEAKER/VIDEO/NUMBER.wav",
            )
            continue
        speaker = file.partition("/")[0]
        if speaker not in speakers:
            refuse("unknown_speaker", f"voxceleb1/{named[1]}", f"vox1_meta.csv has no row for {speaker}")
        elif (speakers[speaker][1] == "test") == test:
            yield named[1]


def read_trials(path: str, refuse: Refuse) -> Iterator[tuple[bool, str, str]]:
    """Yield the trials of veri_test.txt."""
    for number, line in enumerate(read_list(path), start=1):
        label, *sides = line.split(" ")
        named = [UTTERANCE.fullmatch(side) for side in sides]
        if len(named) != 2 or not named[0] or not named[1] or label not in ("0", "1"):
            refuse("malformed_row", f"voxceleb1/veri_test.txt:{number}", f"{line[:80]!r} is not 0|1 FILE FILE")
            continue
        first, second = named[0][1], named[1][1]
        if (label == "1") != (first.partition("/")[0] == second.partition("/")[0]):
            refuse("malformed_row", f"voxceleb1/veri_test.txt:{number}", f"{line[:80]!r}: the label and the ids differ")
            continue
        yield label == "1", first, second


def read_list(path: str) -> list[str]:
    """Return the lines of one of the lists; UserError if it is not there."""
    if not files.exists(path):
        raise UserError(f"voxceleb1: there is no file {path!r}; the homepage of VoxCeleb1 has it")
    return read_lines(path)
