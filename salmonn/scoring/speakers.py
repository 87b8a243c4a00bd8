"""cpWER: the word error rate of speech that overlaps, sentences matched to speakers so that fewest errors remain.

It is the concatenated minimum-permutation word error rate (Watanabe et al., 2020, CHiME-6), as meeteval counts it. Each
sentence of an answer is one speaker's: a sentence that is missing is deletions, one too many is insertions, and no
answer is left out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from salmonn.scoring.answer import Answer
from salmonn.scoring.libraries import library, version
from salmonn.scoring.normalizer import normalize, normalizer
from salmonn.scoring.score import Score
from salmonn.scoring.words import Counts, edits, error_rate

END = re.compile(r"(?:(?<!\bmr)(?<!\bmrs)(?<!\bms)(?<!\bdr)(?<!\bst)\.|[!?])(?=\s|$)|\n", re.IGNORECASE)
"""Where a sentence ends: not behind a title."""


def score(answers: Sequence[Answer]) -> Score:
    """Return the cpWER; of several references each is a way to say it all, and the nearest counts."""
    counts_N4 = np.array([counts(one) for one in answers], dtype=np.int64).reshape(-1, 4)
    as_many = sum(len(sentences(one.answer)) == len(sentences(one.references[0])) for one in answers)
    details: dict[str, float | str] = {
        "answers with as many sentences as speakers": f"{as_many / max(1, len(answers)):.1%}",
        "normalizer": normalizer(),
        "speakers": f"best permutation (scipy {version('scipy')}), a missing sentence is deletions",
    }
    return error_rate("cpWER", counts_N4, details)


def sentences(text: str) -> list[str]:
    """Return the sentences of a text in the form compared, without those of no word."""
    return [words for part in END.split(text) if (words := normalize(part))]


def counts(one: Answer) -> Counts:
    """Return substitutions, deletions, insertions and words [4] of one answer under its best permutation."""
    said = sentences(one.answer)
    ways = [permuted(sentences(reference), said) for reference in one.references]
    return min(ways, key=lambda way: int(way[:3].sum()))


def permuted(right: list[str], said: list[str]) -> Counts:
    """Return the errors [4] of the sentences `said`, each matched to at most one of those that are right."""
    if not right or not said:
        return np.array(edits([(" ".join(right), " ".join(said))])[0])
    distance = library("rapidfuzz.distance").Levenshtein.distance
    parted = [sentence.split() for sentence in said]
    # A pair saves what a deletion of the one and an insertion of the other would cost, beyond its own errors.
    saved = np.array(
        [[len(words) + len(other) - distance(words, other) for other in parted] for words in map(str.split, right)]
    )
    rows, columns = library("scipy.optimize").linear_sum_assignment(saved, maximize=True)
    matched = dict(zip(rows.tolist(), columns.tolist(), strict=True))
    pairs = [(sentence, said[matched[row]] if row in matched else "") for row, sentence in enumerate(right)]
    pairs += [("", sentence) for column, sentence in enumerate(said) if column not in set(columns.tolist())]
    return np.array(edits(pairs).sum(axis=0))
