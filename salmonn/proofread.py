"""Proofreading: what a model wrote is a story to learn from, or it is refused with a reason."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

from shards.refusals import STORIES

SQUEEZED = 2.4
"""A text that zlib makes so many times shorter repeats itself: the bound of Whisper (Radford et al., 2022, 4.5)."""
LOOP = 30
"""Words, or characters, of the longest phrase that is looked for again and again."""
SENTENCE = re.compile(r"[.!?\u2026]+[\"')\]\u2019\u201d]*(?=\s|$)|[\u3002\uff01\uff1f]+[\u2019\u201d\u300d]*")
"""The end of a sentence: a stop, with what closes a quotation, before a space; a full-width stop needs none."""


class NoStory(Exception):
    """What a model wrote is no story; `reason` is a code of STORIES, `detail` is for the reader."""

    def __init__(self, reason: str, detail: str) -> None:
        assert reason in STORIES, reason
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def proofread(text: str, *, finished: bool) -> str:
    """Return the story that a model wrote; NoStory says why it is none.

    A story that was cut off for its length ends with its last whole sentence: it will be learnt with an end behind it.
    """
    story = text.strip()
    if not finished:
        ends = [match.end() for match in SENTENCE.finditer(story)]
        if not ends and any(map(str.isalnum, story)):
            raise NoStory("unfinished_story", head(story))
        story = story[: ends[-1]] if ends else ""
    if not any(map(str.isalnum, story)):
        raise NoStory("empty_story", head(text.strip()))
    if "\ufffd" in story:
        raise NoStory("garbled_story", head(story))
    if repeats(story):
        raise NoStory("repeated_story", head(story))
    return story


def repeats(text: str) -> bool:
    """Whether a text is caught in a loop: it shrinks too well, or one phrase said over and over is half of it."""
    content = text.encode()
    if len(content) > SQUEEZED * len(zlib.compress(content)):
        return True
    words = re.findall(r"\w+", text.casefold())
    return looped(words) >= max(6, len(words) / 2) or looped(list(text.casefold())) >= max(12, len(text) / 2)


def looped(items: Sequence[str]) -> int:
    """Return how many items belong to the longest stretch that says one phrase three times or more in a row."""
    longest = 0
    for width in range(1, min(LOOP, len(items) // 3) + 1):
        run = 0
        for place in range(width, len(items)):
            run = run + 1 if items[place] == items[place - width] else 0
            if run >= 2 * width:
                longest = max(longest, run + width)
    return longest


def head(text: str) -> str:
    """Return the beginning of a text, for a table of refusals."""
    return text if len(text) <= 120 else text[:117] + "..."
