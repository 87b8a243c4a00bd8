"""The values that a corpus is read into: a clip, the audio it refers to, and the instructions a task makes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

Join = Literal["single", "concat", "mix"]

Refuse = Callable[[str, str, str], None]
"""How a reader says that it passes over something the corpus lists: ``refuse(reason, id, detail)``.

`reason` is a code in lower case (``malformed_row``, ``garbage_utterance``), `id` the clip's id or, where a row is too
broken to have one, ``corpus/file:line``, and `detail` a few words for a person. Nothing listed is skipped without it.
"""


class AudioRef(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A span of one audio file, as a corpus publishes it; or speech to synthesize, where a corpus has only text."""

    path: str = ""
    """Relative to the root folder of the corpus, with forward slashes; empty for synthesized speech."""
    start: float = 0.0
    """Seconds from the beginning of the file."""
    seconds: float | None = None
    """Length of the span in seconds, or less where the file ends before; None means to the end of the file."""
    channel: int | None = None
    """Which channel, counted from 0; None means the mean of all channels."""
    gain: float = 1.0
    """Linear factor applied to the samples."""
    speech: str = ""
    """The text to speak."""
    voice: str = ""
    """Who speaks it: a voice of shards/speech.py."""


class Clip(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One annotated span of audio. Absent facts are empty, never None."""

    id: str
    """``corpus/name``, unique in the corpus, for example ``librispeech/1272-128104-0000``."""
    audio: tuple[AudioRef, ...]
    """Empty when the corpus lists the clip but its audio is not on disk."""
    join: Join = "single"
    """How several references make one signal: one after the other with 0.1 s of silence between, or summed."""
    language: str = ""
    """BCP 47, of what is spoken."""
    speaker: str = ""
    gender: str = ""
    """``female`` or ``male``."""
    text: str = ""
    """The transcript exactly as published."""
    translations: dict[str, str] = {}
    """Language (BCP 47) to text."""
    captions: tuple[str, ...] = ()
    """Descriptions of the sound, all of equal standing."""
    labels: dict[str, str] = {}
    """Named values of closed sets, for example emotion."""
    questions: tuple[tuple[str, str], ...] = ()
    """Pairs of question and answer about the clip."""
    license: str = ""
    """SPDX identifier, or the corpus's own name for its terms."""


class Instruction(msgspec.Struct, frozen=True, kw_only=True):
    """What one task asks of one clip, and every answer that is right."""

    task: str
    prompt: str
    answers: tuple[str, ...]
    slot: str = ""
    """What fills the place held open in the task's prompts: a question, or the name of a slot."""
