"""Phone error rate: as the word error rate, over phones with spaces between and without silences."""

from __future__ import annotations

from collections.abc import Sequence

from salmonn.scoring.answer import Answer
from salmonn.scoring.bootstrap import mean_interval
from salmonn.scoring.score import Score
from salmonn.scoring.words import error_rate, nearest

SILENCES = frozenset({"SIL", "SP", "SPN", "<SIL>", "<EPS>"})
"""Marks of aligners for no phone; dropped on both sides."""


def score(answers: Sequence[Answer]) -> Score:
    """Return the rate over all answers, and what it is over those that were finished: a phone costs several tokens."""
    counts_N4 = nearest(answers, phones_only)
    details: dict[str, float | str] = {"normalizer": "upper case, silences dropped"}
    cut = [not one.finished for one in answers]
    finished_N4 = counts_N4[[not each for each in cut]]
    if 0 < len(finished_N4) < len(counts_N4):
        rate = finished_N4[:, :3].sum() / max(1, finished_N4[:, 3].sum())
        details["PER of finished answers alone"] = f"{rate:.1%}"
    low, high = mean_interval(cut)
    unfinished = Score(
        name="unfinished",
        value=sum(cut) / len(answers),
        low=low,
        high=high,
        count=len(answers),
        lower_is_better=True,
        details={"how": "share of answers cut off at the longest allowed"},
    )
    return error_rate("PER", counts_N4, details, also=(unfinished,))


def phones_only(text: str) -> str:
    """Return the phones in upper case without silences."""
    return " ".join(phone for phone in text.upper().split() if phone not in SILENCES)
