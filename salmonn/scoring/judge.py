"""Judges: who says whether a free answer is right. The default compares strings and needs nobody."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Protocol

import msgspec

from salmonn.scoring.normalizer import normalize

UNSAID = "the judge gave no valid verdict"
"""The reason of an answer that counts as wrong because nothing valid was said of it."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a judge says of one answer."""

    correct: bool
    reason: str
    followed: bool | None = None
    """Whether the answer does what was asked, right or wrong; None if the judge does not say."""


class Judge(Protocol):
    """Whoever can say whether an answer is right."""

    @property
    def name(self) -> str:
        """What the table calls the judge."""
        ...

    def prepare(self, questions: Iterable[tuple[str, Sequence[str], str]]) -> None:
        """Hear of all questions, references and answers that `judge` will be asked about, to decide them at once."""
        ...

    def judge(self, question: str, references: Sequence[str], answer: str) -> Verdict:
        """Return the verdict on an answer to `question`, to which any of `references` is right."""
        ...


class StringMatch:
    """The same verdict each time, without a model: right is what says a reference word for word.

    Both sides go through Whisper's English normaliser. To a yes or a no only the first word counts: "No, the dog does
    not bark, yes?" is no. An answer that says the same in other words is wrong by it, so that it is a lower bound.
    """

    name = "string match"

    def prepare(self, questions: Iterable[tuple[str, Sequence[str], str]]) -> None:
        """Nothing is needed in advance."""

    def judge(self, question: str, references: Sequence[str], answer: str) -> Verdict:
        """Return the verdict; the question does not matter."""
        said = words_of(answer)
        if not said:
            return Verdict(correct=False, reason="no answer")
        for reference in references:
            right = words_of(reference)
            if right and (said[:1] == right if right in (["yes"], ["no"]) else within(right, said)):
                return Verdict(correct=True, reason=f"says {reference!r}")
        return Verdict(correct=False, reason="says none of the references")


def words_of(text: str) -> list[str]:
    """Return the normalised words of `text`; of what the normaliser takes for noise, the words as they stand."""
    return normalize(text).split() or re.findall(r"\w+", text.casefold()) or text.casefold().split()


def within(part: list[str], whole: list[str]) -> bool:
    """Whether the words `part` stand in `whole` one after the other."""
    return f" {' '.join(part)} " in f" {' '.join(whole)} "
