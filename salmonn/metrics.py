"""Scores of answers against references: word and phone error rates, and accuracy."""

from __future__ import annotations

import functools
import string
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import jiwer
import msgspec

from manifests.errors import UserError

SILENCES = frozenset({"SIL", "SP", "SPN", "<SIL>", "<EPS>"})
"""Marks of aligners for no phone; dropped on both sides."""


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """One number over a whole set."""

    name: str
    value: float
    """An error rate (0 is best, may exceed 1) or an accuracy (1 is best)."""
    count: int
    """Answers scored: all of them."""
    details: dict[str, float | str]
    """What the value is made of, and how texts were normalised."""


def score(metric: str, references: Sequence[Sequence[str]], answers: Sequence[str]) -> Score:
    """Score every answer against its references, any of which is right; UserError for a metric without a scorer."""
    if not answers or len(references) != len(answers):
        raise ValueError(f"{len(answers)} answers for {len(references)} references; there must be as many, at least 1")
    return find_scorer(metric)(references, answers)


def find_scorer(metric: str) -> Callable[[Sequence[Sequence[str]], Sequence[str]], Score]:
    """Return the function that scores `metric`; UserError if there is none yet."""
    if metric not in SCORERS:
        raise UserError(f"the metric {metric!r} has no scorer yet; there is {', '.join(sorted(SCORERS))}")
    return SCORERS[metric]


@functools.cache
def english_normalizer() -> Callable[[str], str]:
    """Return Whisper's normaliser of English text, with its spelling table."""
    from whisper_normalizer.english import EnglishTextNormalizer

    normalizer: Callable[[str], str] = EnglishTextNormalizer()
    return normalizer


def phones_only(text: str) -> str:
    """Return the phones in upper case without silences."""
    return " ".join(phone for phone in text.upper().split() if phone not in SILENCES)


def word_error_rate(references: Sequence[Sequence[str]], answers: Sequence[str]) -> Score:
    """Return the corpus-level rate: all errors divided by all words of the references, never a mean of rates."""
    return error_rate("wer", references, answers, english_normalizer(), "whisper_normalizer English")


def phone_error_rate(references: Sequence[Sequence[str]], answers: Sequence[str]) -> Score:
    """Return the corpus-level rate over phones with spaces between."""
    return error_rate("per", references, answers, phones_only, "upper case, silences dropped")


def error_rate(
    name: str,
    references: Sequence[Sequence[str]],
    answers: Sequence[str],
    normalize: Callable[[str], str],
    normalizer: str,
) -> Score:
    """Count substitutions, deletions and insertions with jiwer; an empty reference counts its insertions."""
    counts = {"substitutions": 0, "deletions": 0, "insertions": 0, "words": 0}
    for allowed, answer in zip(references, answers, strict=True):
        hypothesis = normalize(answer)
        measured = [measure(normalize(reference), hypothesis) for reference in allowed]
        best = min(measured, key=lambda m: m["substitutions"] + m["deletions"] + m["insertions"])
        for key, value in best.items():
            counts[key] += value
    errors = counts["substitutions"] + counts["deletions"] + counts["insertions"]
    # With no word in any reference there is nothing to divide by: each inserted word then counts as one.
    details: dict[str, float | str] = {**counts, "errors": errors, "normalizer": normalizer}
    return Score(name=name, value=errors / max(1, counts["words"]), count=len(answers), details=details)


def measure(reference: str, hypothesis: str) -> dict[str, int]:
    """Return the errors of one answer and the words of its reference."""
    found: Any = jiwer.process_words(reference, hypothesis)
    words = found.hits + found.substitutions + found.deletions
    return {
        "substitutions": found.substitutions,
        "deletions": found.deletions,
        "insertions": found.insertions,
        "words": words,
    }


def first_word(text: str) -> str:
    """Return the first word, case-folded and without punctuation around it; empty if there is none."""
    words = text.split()
    return words[0].strip(string.punctuation).casefold() if words else ""


def accuracy(references: Sequence[Sequence[str]], answers: Sequence[str]) -> Score:
    """Return the share of answers whose first word is that of a reference; an empty answer is wrong."""
    hits = 0
    for allowed, answer in zip(references, answers, strict=True):
        said = first_word(answer)
        hits += bool(said) and said in {first_word(reference) for reference in allowed}
    # What saying the commonest answer every time would score: an accuracy means nothing without it.
    commonest = max(Counter(first_word(allowed[0]) for allowed in references if allowed).values(), default=0)
    details: dict[str, float | str] = {
        "correct": hits,
        "commonest answer alone": f"{commonest / len(answers):.1%}",
        "normalizer": "first word, case-folded, no punctuation",
    }
    return Score(name="accuracy", value=hits / len(answers), count=len(answers), details=details)


SCORERS = {"wer": word_error_rate, "per": phone_error_rate, "accuracy": accuracy}
