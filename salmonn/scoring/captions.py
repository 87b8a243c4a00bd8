"""Captions of sound: METEOR, CIDEr-D, SPICE and SPIDEr, each against all references of a clip.

The idf of CIDEr-D is that of the set that is scored: score a test set whole, never in parts. METEOR and SPICE are
programs in Java; without it their place in the table says so, and CIDEr-D is counted over another tokenizer, named.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from salmonn.scoring import java
from salmonn.scoring.answer import Answer
from salmonn.scoring.bootstrap import Floats, interval, mean_interval
from salmonn.scoring.libraries import library, version
from salmonn.scoring.score import Score

LONGEST = 1000
"""Words of an answer that are looked at: METEOR's search for an alignment has no other end."""


def score(answers: Sequence[Answer]) -> Score:
    """Return METEOR, and beside it CIDEr-D, SPICE and SPIDEr; what cannot be counted here says why."""
    references = [[short(text) for text in one.references if text.strip()] or [""] for one in answers]
    said = [short(one.answer) for one in answers]
    tokenizer, without = "PTB (Stanford CoreNLP 3.4.1), lower case, no punctuation", ""
    try:
        right_tokens, said_tokens = parted(references, said)
    except java.JavaMissing as missing:
        right_tokens, said_tokens, tokenizer = *treebank(references, said), ""
        tokenizer = f"nltk's Treebank {version('nltk')} in place of PTB, which {missing}: near it, not equal"
        without = str(missing)
    basis: dict[str, float | str] = {"references": sum(map(len, references)), "tokenizer": tokenizer}
    if any(len(one.answer.split()) > LONGEST for one in answers):
        basis["answers read up to a thousand words"] = sum(len(one.answer.split()) > LONGEST for one in answers)
    made = meteor(right_tokens, said_tokens, without)
    cider_N = cider_d(right_tokens, said_tokens)
    cider = mean("CIDEr-D", cider_N, {"idf over clips": len(answers), "library": source()})
    try:
        spice_N, absent = java.spice(references, said), ""
    except java.JavaMissing as missing:
        spice_N, absent = None, str(missing)
    spice = mean("SPICE", spice_N, {"library": source()}, len(answers), absent)
    both_N = None if spice_N is None else (cider_N + spice_N) / 2
    spider = mean("SPIDEr", both_N, {"how": "mean of CIDEr-D and SPICE"}, len(answers), absent and f"SPICE {absent}")
    also = tuple(msgspec.structs.replace(one, details=basis | one.details) for one in (cider, spice, spider))
    return msgspec.structs.replace(made, details=basis | made.details, also=also)


def source() -> str:
    """Name the library."""
    return f"pycocoevalcap {version('pycocoevalcap')}"


def short(text: str) -> str:
    """Return the first thousand words of `text`."""
    return " ".join(text.split()[:LONGEST])


def parted(references: list[list[str]], said: list[str]) -> tuple[list[list[str]], list[str]]:
    """Return references and answers in tokens, by the Penn Treebank's program."""
    tokens = java.ptb([text for right in references for text in right] + said)
    groups, at = [], 0
    for right in references:
        groups.append(tokens[at : at + len(right)])
        at += len(right)
    return groups, tokens[at:]


def treebank(references: list[list[str]], said: list[str]) -> tuple[list[list[str]], list[str]]:
    """Return references and answers in tokens, by nltk's rules of the Penn Treebank."""
    tokenizer: Any = library("nltk.tokenize").TreebankWordTokenizer()
    punctuation = set(library("pycocoevalcap.tokenizer.ptbtokenizer").PUNCTUATIONS) | set("()[]{}")

    def tokens(text: str) -> str:
        return " ".join(token for token in tokenizer.tokenize(text.lower()) if token not in punctuation)

    return [[tokens(text) for text in right] for right in references], [tokens(text) for text in said]


def meteor(references: list[list[str]], said: list[str], without: str) -> Score:
    """Return METEOR 1.5 of the set: of its summed counts, not a mean over clips, as the COCO captions have it."""
    sums_N23: Floats | None = None
    try:
        if not without:
            sums_N23 = java.meteor_sums(references, said)
    except java.JavaMissing as missing:
        without = str(missing)
    low, high = (None, None) if sums_N23 is None else interval(sums_N23, java.meteor_of)
    return Score(
        name="METEOR",
        value=None if sums_N23 is None else float(java.meteor_of(sums_N23.sum(axis=0, keepdims=True))[0]),
        low=low,
        high=high,
        count=len(said),
        scale=100,
        digits=1,
        details={"library": f"METEOR 1.5 (Java) of {source()}"},
        note=without,
    )


def cider_d(references: list[list[str]], said: list[str]) -> Floats:
    """Return the CIDEr-D [N] of each answer, by pycocoevalcap."""
    scorer: Any = library("pycocoevalcap.cider.cider_scorer").CiderScorer()
    for right, answer in zip(references, said, strict=True):
        scorer += (answer, right)
    scorer.compute_doc_freq()
    return np.array(scorer.compute_cider(), dtype=np.float64)


def mean(name: str, values_N: Floats | None, details: dict[str, float | str], count: int = 0, note: str = "") -> Score:
    """Return the mean of a score over clips, or why there is none."""
    low, high = (None, None) if values_N is None else mean_interval(values_N)
    return Score(
        name=name,
        value=None if values_N is None else float(values_N.mean()),
        low=low,
        high=high,
        count=count if values_N is None else len(values_N),
        scale=100,
        digits=1,
        details=details,
        note=note,
    )
