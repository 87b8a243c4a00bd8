"""Word error rate: all errors of a set divided by all words of its references, never a mean of rates."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from salmonn.scoring.answer import Answer
from salmonn.scoring.bootstrap import ratio_interval
from salmonn.scoring.libraries import library, version
from salmonn.scoring.normalizer import normalize, normalizer
from salmonn.scoring.score import Score

Counts = npt.NDArray[np.int64]
PUNCTUATION = re.compile(r"<(?:COMMA|PERIOD|QUESTIONMARK|EXCLAMATIONPOINT)>", re.IGNORECASE)
"""What GigaSpeech writes for punctuation."""
NOISE = re.compile(r"\s*(?:<(?:SIL|NOISE|MUSIC|OTHER)>\s*)+", re.IGNORECASE)
"""What GigaSpeech writes for a segment in which nobody speaks."""
AT_ONCE = 4096
"""Pairs that jiwer aligns in one call."""


def score(answers: Sequence[Answer]) -> Score:
    """Return the word error rate of transcripts, both sides normalised; segments of noise are dropped and counted."""
    kept = [one for one in answers if not all(map(NOISE.fullmatch, one.references))]
    details: dict[str, float | str] = {"normalizer": normalizer()}
    if len(kept) < len(answers):
        details["noise segments dropped"] = len(answers) - len(kept)
    counts_N4 = nearest(kept, lambda text: normalize(PUNCTUATION.sub(" ", text)))
    return error_rate("WER", counts_N4, details)


def nearest(answers: Sequence[Answer], form: Callable[[str], str]) -> Counts:
    """Return the errors [N, 4] of each answer against the reference that it is nearest to, in the form compared."""
    pairs = [(form(reference), form(one.answer)) for one in answers for reference in one.references]
    counts_P4 = edits(pairs)
    if len(pairs) == len(answers):
        return counts_P4
    nearest_N4, at = [], 0
    for one in answers:
        choices = counts_P4[at : at + len(one.references)]
        nearest_N4.append(choices[np.argmin(choices[:, :3].sum(axis=1))])
        at += len(one.references)
    return np.array(nearest_N4, dtype=np.int64).reshape(-1, 4)


def edits(pairs: Sequence[tuple[str, str]]) -> Counts:
    """Return substitutions, deletions, insertions and words [N, 4] of pairs of reference and answer, by jiwer."""
    process_words = library("jiwer").process_words
    counts_N4 = np.zeros((len(pairs), 4), dtype=np.int64)
    column = {"substitute": 0, "delete": 1, "insert": 2}
    for start in range(0, len(pairs), AT_ONCE):
        part = pairs[start : start + AT_ONCE]
        found = process_words([reference for reference, _ in part], [answer for _, answer in part])
        for row, (words, chunks) in enumerate(zip(found.references, found.alignments, strict=True), start=start):
            counts_N4[row, 3] = len(words)
            for chunk in chunks:
                if chunk.type in column:
                    long = max(chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx)
                    counts_N4[row, column[chunk.type]] += long
    return counts_N4


def error_rate(name: str, counts_N4: Counts, details: dict[str, float | str], also: tuple[Score, ...] = ()) -> Score:
    """Return a rate of errors; with no word in any reference each word too much counts as one."""
    substitutions, deletions, insertions, words = (int(total) for total in counts_N4.sum(axis=0))
    errors_N = counts_N4[:, :3].sum(axis=1)
    low, high = ratio_interval(errors_N.astype(np.float64), counts_N4[:, 3].astype(np.float64))
    made: dict[str, float | str] = {
        **{"substitutions": substitutions, "deletions": deletions, "insertions": insertions, "words": words},
        **{"errors": int(errors_N.sum()), "library": f"jiwer {version('jiwer')}", "average": "over the set"},
    }
    return Score(
        name=name,
        value=float(errors_N.sum()) / max(1, words) if len(counts_N4) else None,
        low=low,
        high=high,
        count=len(counts_N4),
        scale=100,
        digits=1,
        lower_is_better=True,
        details=made | details,
        note="" if len(counts_N4) else "nothing but noise in the references",
        also=also,
    )
