"""BLEU of a whole set by sacrebleu, and its interval from the n-grams of each answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from salmonn.scoring.answer import Answer
from salmonn.scoring.bootstrap import Floats, interval
from salmonn.scoring.libraries import library, version
from salmonn.scoring.score import Score

ORDER = 4
"""Longest n-gram."""
LONGEST = 10_000
"""Signs of an answer that are looked at: MeCab takes seconds for a text of a hundred thousand, and then gives up."""


def score(answers: Sequence[Answer], tokenizer: str, name: str = "BLEU4") -> Score:
    """Return the BLEU of a set, case and all, against all references; an empty answer stays empty."""
    metric: Any = library("sacrebleu.metrics").BLEU(tokenize=tokenizer, force=True)
    said, streams = lines(answers)
    found = metric.corpus_score(said, streams)
    low, high = interval(grams(answers, tokenizer), bleu_of)
    made: dict[str, float | str] = {"brevity penalty": round(float(found.bp), 4)}
    if long := sum(len(one.answer) > LONGEST for one in answers):
        made[f"answers read up to {LONGEST} signs"] = long
    return Score(
        name=name,
        value=float(found.score),
        low=low,
        high=high,
        count=len(answers),
        digits=1,
        details=made
        | {
            "tokenizer": tokenizer,
            "signature": str(metric.get_signature()),
            "library": f"sacrebleu {version('sacrebleu')}",
        },
    )


def lines(answers: Sequence[Answer]) -> tuple[list[str], list[list[str | None]]]:
    """Return the answers, and as many streams of references as the answer with the most has."""
    said = [line(one.answer) for one in answers]
    most = max(len(one.references) for one in answers)
    streams: list[list[str | None]] = [
        [line(one.references[at]) if at < len(one.references) else None for one in answers] for at in range(most)
    ]
    return said, streams


def line(text: str) -> str:
    """Return `text` as the single line that a tokenizer expects."""
    return " ".join(text[:LONGEST].splitlines())


def grams(answers: Sequence[Answer], tokenizer: str) -> Floats:
    """Return [N, 10] of each answer: its length, its reference's, and of 1 to 4 words those right and those there."""
    metric: Any = library("sacrebleu.metrics").BLEU(tokenize=tokenizer, effective_order=True, force=True)
    found = [
        metric.sentence_score(line(one.answer), [line(reference) for reference in one.references]) for one in answers
    ]
    return np.array([[each.sys_len, each.ref_len, *each.counts, *each.totals] for each in found], dtype=np.float64)


def bleu_of(sums_R10: Floats) -> Floats:
    """Return the BLEU [R] of summed n-grams, smoothed as sacrebleu does: an order without a hit halves, and halves."""
    said_R, right_R = sums_R10[:, 0], sums_R10[:, 1]
    hits_RO, there_RO = sums_R10[:, 2 : 2 + ORDER], sums_R10[:, 2 + ORDER :]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        brevity_R = np.where(said_R < right_R, np.exp(1 - right_R / said_R), 1.0)
        halves_RO = 2.0 ** np.cumsum((hits_RO == 0) & (there_RO > 0), axis=1)
        precision_RO = np.where(hits_RO > 0, hits_RO / there_RO, 1 / (halves_RO * there_RO))
        score_R = 100 * brevity_R * np.exp(np.log(precision_RO).mean(axis=1))
    possible_R = (said_R > 0) & (there_RO > 0).all(axis=1) & (hits_RO > 0).any(axis=1)
    return np.where(possible_R, score_R, 0.0)
