"""Stories: how many distinct words they use, how many are stories at all, and how many go round in circles."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from salmonn.scoring.answer import Answer
from salmonn.scoring.bootstrap import mean_interval
from salmonn.scoring.score import Score

SIGN = re.compile(r"[^\w\s]")
LONG = 50
"""Words from which an answer is a story (SALMONN, ICLR 2024)."""
GRAM = 4
"""Words of what is repeated."""
TIMES = 3
"""How often it may stand."""


def score(answers: Sequence[Answer]) -> Score:
    """Return the mean number of distinct words; beside it the following rate and the repeat rate."""
    told = [words(one.answer) for one in answers]
    form = "lower case, punctuation stripped"
    followed = rate("following rate", [len(one) >= LONG for one in told], f"share of at least {LONG} words", form)
    how = f"share with {GRAM} words in a row more than {TIMES} times (our definition: the paper gives none)"
    repeats = rate("repeat rate", [repeating(one) for one in told], how, form, lower_is_better=True)
    distinct = [len(set(one)) for one in told]
    low, high = mean_interval(distinct)
    return Score(
        name="diversity",
        value=sum(distinct) / len(distinct),
        low=low,
        high=high,
        count=len(distinct),
        details={"how": "mean number of distinct words of a story", "normalizer": form},
        also=(followed, repeats),
    )


def words(text: str) -> list[str]:
    """Return the words of a story in lower case without punctuation."""
    return SIGN.sub("", text.lower()).split()


def repeating(told: list[str]) -> bool:
    """Whether some four words stand in a row more than three times."""
    grams = Counter(zip(*(told[start:] for start in range(GRAM)), strict=False))
    return max(grams.values(), default=0) > TIMES


def rate(name: str, flags: list[bool], how: str, form: str, *, lower_is_better: bool = False) -> Score:
    """Return a share of all stories."""
    low, high = mean_interval(flags)
    return Score(
        name=name,
        value=sum(flags) / len(flags),
        low=low,
        high=high,
        count=len(flags),
        lower_is_better=lower_is_better,
        details={"how": how, "normalizer": form},
    )
