"""Keyword extraction: how many of three keywords are the authors' own, by the rule of the public reproduction.

The paper does not define its accuracy; the rule of https://github.com/jaeeewon/repr_salmonn gives its 0.32 on the
released model: an answer is parted at commas, "and" and full stops are stripped, a hyphen is a space; a keyword of
several words is right if it stands in a keyphrase, one of one word if it is one. At most three count, of the three (or
fewer) that could be given.
"""

from __future__ import annotations

from collections.abc import Sequence

from salmonn.scoring.answer import Answer
from salmonn.scoring.bootstrap import ratio_interval
from salmonn.scoring.score import Score

MOST = 3
"""Keywords that are asked for."""


def score(answers: Sequence[Answer]) -> Score:
    """Return the hits divided by the keywords that could be right, both over the whole set."""
    hits, possible = [], []
    for one in answers:
        gold = list(dict.fromkeys(phrase for reference in one.references for phrase in phrases(reference)))
        given = dict.fromkeys(phrases(one.answer))  # the same keyword three times is one keyword
        hits.append(min(MOST, sum(is_right(keyword, gold) for keyword in given)))
        possible.append(min(MOST, len(gold)))
    low, high = ratio_interval(hits, possible)
    return Score(
        name="accuracy",
        value=sum(hits) / max(1, sum(possible)),
        low=low,
        high=high,
        count=len(answers),
        details={
            "keywords right": sum(hits),
            "keywords possible": sum(possible),
            "normalizer": "lower case, parted at commas, hyphens as spaces; the rule of repr_salmonn, repeats once",
        },
    )


def phrases(text: str) -> list[str]:
    """Return the keywords of an answer."""
    found = []
    for part in text.lower().replace("-", " ").replace("\n", ",").split(","):
        words = part.replace(".", " ").split()
        while words and words[0] == "and":
            words = words[1:]
        if words:
            found.append(" ".join(words))
    return found


def is_right(keyword: str, gold: Sequence[str]) -> bool:
    """Whether a keyword is right: in a keyphrase if it has several words, else equal to one."""
    return any(keyword in phrase for phrase in gold) if " " in keyword else keyword in gold
