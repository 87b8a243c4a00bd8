"""Following rate: the share of answers that did what was asked, instead of writing down what was said.

An answer within 30 % word error rate of the transcript is a transcript, and has not followed (SALMONN, ICLR 2024);
nor has an answer of no word. One that is a right answer word for word has, even where that is all that was said.
"""

from __future__ import annotations

from collections.abc import Sequence

from salmonn.scoring.answer import Answer
from salmonn.scoring.bootstrap import mean_interval
from salmonn.scoring.normalizer import normalize, normalizer
from salmonn.scoring.score import Score
from salmonn.scoring.words import edits

LIMIT = 0.3
NAME = "following rate"


def score(answers: Sequence[Answer], judged: Sequence[bool | None] | None = None) -> Score:
    """Return the following rate over the answers whose transcript is known, or which a judge decided."""
    told = judged or [None] * len(answers)
    ruled = iter(follows([one for one, said in zip(answers, told, strict=True) if said is None]))
    flags = [next(ruled) if said is None else said for said in told]
    known = [flag for flag in flags if flag is not None]
    low, high = mean_interval(known)
    rule = f"an answer within {LIMIT:.0%} WER of what is said has not followed"
    return Score(
        name=NAME,
        value=sum(known) / len(known) if known else None,
        low=low,
        high=high,
        count=len(known),
        details={"how": "the judge's word" if None not in told else rule, "normalizer": normalizer()},
        note="" if known else "needs what is said in the clips, which these answers do not hold",
    )


def follows(answers: Sequence[Answer]) -> list[bool | None]:
    """Return for each answer whether it followed; None where it is not known what is said in the clip."""
    spoken = [normalize(one.transcript) for one in answers]
    said = [normalize(one.answer) for one in answers]
    counts_N4 = edits(list(zip(spoken, said, strict=True)))
    flags: list[bool | None] = []
    for one, speech, words, count_4 in zip(answers, spoken, said, counts_N4, strict=True):
        if not speech:
            flags.append(None)
        elif not one.answer.strip():
            flags.append(False)
        else:
            equal = one.answer.strip() in one.references or (bool(words) and words in map(normalize, one.references))
            flags.append(equal or bool(words and count_4[:3].sum() >= LIMIT * count_4[3]))
    return flags
