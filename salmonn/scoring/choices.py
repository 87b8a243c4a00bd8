"""Accuracy of answers that are one of a few words: an emotion, a gender, yes or no."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Sequence

from salmonn.scoring.answer import Answer
from salmonn.scoring.bootstrap import mean_interval
from salmonn.scoring.score import Score

EDGES = string.punctuation + "\u2018\u2019\u201c\u201d\u2026\u3002\uff0c"


def score(answers: Sequence[Answer]) -> Score:
    """Return the share of answers whose first word is that of a reference; anything else is wrong."""
    said = [first_word(one.answer) for one in answers]
    right = [{first_word(reference) for reference in one.references} - {""} for one in answers]
    hits = [word in words for word, words in zip(said, right, strict=True)]
    labels: set[str] = set().union(*right)
    # What saying the commonest answer every time would score: an accuracy means nothing without it.
    commonest = max(Counter(word for words in right for word in words).values(), default=0)
    low, high = mean_interval(hits)
    return Score(
        name="accuracy",
        value=sum(hits) / len(answers),
        low=low,
        high=high,
        count=len(answers),
        details={
            "correct": sum(hits),
            "commonest answer alone": f"{commonest / len(answers):.1%}",
            "answers that are none of the labels": sum(word not in labels for word in said),
            "normalizer": "first word, case-folded, no punctuation",
        },
    )


def first_word(text: str) -> str:
    """Return the first word, case-folded and without punctuation around it; empty if there is none.

    ``Yes.``, ``yes`` and ``Yes, it is`` begin with the same word, and so do ``Yes,it`` and ``**Yes**``.
    """
    words = text.replace(",", " ").replace(".", " ").split()
    return words[0].strip(EDGES).casefold() if words else ""
