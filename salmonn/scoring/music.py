"""Captions of music: BLEU of four words by sacrebleu, and ROUGE-L as rouge-score counts it, with stemming."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from salmonn.scoring import bleu
from salmonn.scoring.answer import Answer
from salmonn.scoring.bootstrap import mean_interval
from salmonn.scoring.libraries import library, version
from salmonn.scoring.score import Score


def score(answers: Sequence[Answer]) -> Score:
    """Return BLEU4, and beside it the mean F of ROUGE-L against the nearest reference."""
    return msgspec.structs.replace(bleu.score(answers, "13a"), also=(rouge_l(answers),))


def rouge_l(answers: Sequence[Answer]) -> Score:
    """Return the mean F of ROUGE-L."""
    tokenizer: Any = library("rouge_score.tokenizers").DefaultTokenizer(use_stemmer=True)
    values = []
    for one in answers:
        said = tokenizer.tokenize(one.answer)
        values.append(max(f_of(tokenizer.tokenize(reference), said) for reference in one.references))
    low, high = mean_interval(values)
    return Score(
        name="ROUGE-L",
        value=sum(values) / len(values),
        low=low,
        high=high,
        count=len(values),
        scale=100,
        digits=1,
        details={"tokenizer": "rouge-score's, with stemming", "library": f"rouge-score {version('rouge-score')}"},
    )


def f_of(right: list[str], said: list[str]) -> float:
    """Return the F of the longest common subsequence: rapidfuzz finds it in a thousandth of rouge-score's time."""
    if not right or not said:
        return 0.0
    common = int(library("rapidfuzz.distance").LCSseq.similarity(right, said))
    return 2 * common / (len(right) + len(said))
