"""Answers for the tests of scores: of any task, and worlds in which every answer is perfect."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from manifests.tasks import TASKS
from salmonn.scoring.answer import Answer

STORY = " ".join(f"word{number}" for number in range(60))
REFERENCES: dict[str, tuple[tuple[str, ...], ...]] = {
    "asr": (("Mister brown's colour isn't twenty",), ("The cat sat on the mat",), ("<COMMA> well <PERIOD>",)),
    "translation_en_zh": (
        ("\u6211\u559c\u6b22\u8fd9\u53ea\u732b\u3002",),
        ("\u4eca\u5929\u5929\u6c14\u5f88\u597d\u3002",),
    ),
    "translation_en_de": (("Ich mag diese Katze sehr.",), ("Das Wetter ist heute sch\u00f6n.",)),
    "translation_en_ja": (
        ("\u79c1\u306f\u3053\u306e\u732b\u304c\u597d\u304d\u3067\u3059\u3002",),
        ("\u4eca\u65e5\u306f\u3044\u3044\u5929\u6c17\u3067\u3059\u3002",),
    ),
    "audio_caption": (("a dog barks in the rain",) * 5, ("two men speak while music plays",) * 5),
    "music_caption": (("a slow song with a sad piano",), ("an upbeat track for a party with drums",)),
    "phone_recognition": (("DH AH K AE T",), ("HH AH L OW",)),
    "emotion_recognition": (("Sad",), ("Happy",), ("Neutral",), ("Angry",)),
    "speaker_verification": (("Yes",), ("No",)),
    "gender_recognition": (("Male",), ("Female",)),
    "overlapped_speech_recognition": (("The cat sat. A dog ran far away.",), ("One man spoke. Who was it then.",)),
    "keyword_extraction": (("speech recognition, neural net, audio, noise",), ("graph",)),
    "audio_story": ((STORY,), (STORY,)),
}
FREE = (("A dog",), ("at seven o'clock", "seven"), ("No",))


def answer(task: str, said: str, *references: str, key: str = "k", **more: object) -> Answer:
    """One answer to a task."""
    return msgspec.convert({"key": key, "task": task, "answer": said, "references": references, **more}, Answer)


def answers(task: str, pairs: Iterable[tuple[str, Sequence[str]]], **more: object) -> list[Answer]:
    """Answers with their references, each of a clip of its own."""
    return [answer(task, said, *right, key=f"k{at:04}", **more) for at, (said, right) in enumerate(pairs)]


def world(task: str, perfect: bool) -> list[Answer]:
    """Answers to a task that are all perfect, or all empty."""
    rows = REFERENCES.get(task, FREE)
    spoken = "please tell me what animal it is that we can hear"
    return answers(task, [(right[0] if perfect else "", right) for right in rows], transcript=spoken)


def every_task() -> list[str]:
    """The names of all tasks."""
    return list(TASKS)
