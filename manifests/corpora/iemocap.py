"""IEMOCAP (https://sail.usc.edu/iemocap): dialogs of two actors in five sessions, an emotion for every turn.

The published tree; the licence allows to pass on nothing of it, so the records below are ours, in its form::

    IEMOCAP_full_release/Session1/dialog/EmoEvaluation/Ses01F_impro01.txt
    IEMOCAP_full_release/Session1/dialog/transcriptions/Ses01F_impro01.txt
    IEMOCAP_full_release/Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav    16 kHz, mono, 16 bits

One turn of an EmoEvaluation file, behind it the votes of the annotators (``C-E2:``, ``A-E3:``), which are not read::

    [1.2000 - 3.4500]	Ses01F_impro01_F000	neu	[3.0000, 2.5000, 2.0000]

One line of a transcription; some have no times, and some name no turn (``M: [LAUGHTER]``)::

    Ses01F_impro01_F000 [001.2000-003.4500]: The boat is late again.

The task has four classes, excited being happy; turns of the other labels are refused, and counted. ``Ses01F`` in the
name of a dialog says who wore the motion sensors, not who speaks: that is the letter of the turn's last token. The
release carries a Finder file ``._NAME`` beside many files, binary and none of the corpus.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from manifests import files
from manifests.clips import AudioRef, Clip, Refuse
from manifests.errors import UserError
from manifests.sheets import read_lines

TOPS = ("IEMOCAP_full_release/", "IEMOCAP/", "")
EMOTIONS = {"neu": "neutral", "hap": "happy", "exc": "happy", "sad": "sad", "ang": "angry"}
OTHERS = ("fru", "fea", "sur", "dis", "oth", "xxx")
GENDERS = {"F": "female", "M": "male"}
TURN = re.compile(r"(Ses0[1-5])[FM]_\w+_([FM])\w+", re.ASCII)
SPOKEN = re.compile(r"(\S+?)\s*(?:\[[^\]]*\])?\s*: ?(.*)")


def clips(root: str, split: str, refuse: Refuse) -> Iterator[Clip]:
    """Yield the turns of one session that carry one of the four emotions, dialog by dialog.

    `root` holds the folder IEMOCAP_full_release, or is it.
    """
    session = split.replace("session", "Session")
    top = next((top for top in TOPS if files.is_folder(files.join(root, f"{top}{session}"))), None)
    if top is None:
        raise UserError(f"iemocap: there is no folder {files.join(root, TOPS[0], session)!r}; unpack the release there")
    dialogs = f"{top}{session}/dialog"
    for part in ("EmoEvaluation", "transcriptions"):
        if not files.is_folder(files.join(root, dialogs, part)):
            raise UserError(f"iemocap: there is no folder {files.join(root, dialogs, part)!r}; the release has it")
    for name in files.names(files.join(root, dialogs, "EmoEvaluation"), ".txt"):
        if not name.startswith("."):
            yield from read_dialog(root, f"{top}{session}", name.removesuffix(".txt"), refuse)


def read_dialog(root: str, session: str, dialog: str, refuse: Refuse) -> Iterator[Clip]:
    """Yield the turns of one dialog; `session` is the folder of its session below `root`."""
    texts = read_texts(root, f"{session}/dialog/transcriptions/{dialog}.txt", refuse)
    evaluation = f"{session}/dialog/EmoEvaluation/{dialog}.txt"
    for number, line in enumerate(read_lines(files.join(root, evaluation)), start=1):
        # Of the lines that are no turns (votes, the header) none holds a turn's name behind a tab.
        if not line.startswith("[") and f"\t{dialog}_" not in line:
            continue
        times, turn, emotion = (*line.split("\t"), "", "")[:3]
        named = TURN.fullmatch(turn)
        if not (times.startswith("[") and named and turn.startswith(f"{dialog}_") and emotion in (*EMOTIONS, *OTHERS)):
            refuse("malformed_row", f"iemocap/{evaluation}:{number}", f"{line[:60]!r} is not [TIMES], TURN, EMOTION")
            continue
        if emotion not in EMOTIONS:
            refuse("emotion_not_in_four_classes", f"iemocap/{turn}", f"its label is {emotion}")
            continue
        yield Clip(
            id=f"iemocap/{turn}",
            audio=(AudioRef(path=f"{session}/sentences/wav/{dialog}/{turn}.wav"),),
            language="en",
            speaker=f"iemocap/{named[1]}{named[2]}",
            gender=GENDERS[named[2]],
            text=texts.get(turn, ""),
            labels={"emotion": EMOTIONS[emotion]},
            license="IEMOCAP release form",
        )


def read_texts(root: str, path: str, refuse: Refuse) -> dict[str, str]:
    """Map the names that a transcription gives to what they say; empty if there is no such file."""
    texts: dict[str, str] = {}
    if not files.exists(files.join(root, path)):
        return texts
    for number, line in enumerate(read_lines(files.join(root, path)), start=1):
        spoken = SPOKEN.fullmatch(line)
        if spoken:
            texts[spoken[1]] = spoken[2]
        elif line.strip():
            refuse("malformed_row", f"iemocap/{path}:{number}", f"{line[:60]!r} is not TURN [TIMES]: TEXT")
    return texts
