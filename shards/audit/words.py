"""Words of answers, counted for millions of them: a word is a run of characters without white space of ASCII."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

SPACE = np.isin(np.arange(256), [ord(letter) for letter in " \t\n\f\r"])
"""Which bytes of UTF-8 are white space, as the SQL of the audit has it."""
AT_ONCE = 1 << 16
"""Texts counted together: what bounds the memory."""


def count_words(texts: pa.Array) -> NDArray[np.int64]:
    """Return the number of words of each text."""
    parts = [count_some(texts.slice(first, AT_ONCE)) for first in range(0, len(texts), AT_ONCE)]
    return np.concatenate([np.zeros(0, np.int64), *parts])


def count_some(texts: pa.Array) -> NDArray[np.int64]:
    """Return the number of words of each of a few texts: how many letters follow white space or stand at the start."""
    _, offsets, letters = texts.buffers()
    ends = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    if ends[0] == ends[-1]:
        return np.zeros(len(texts), np.int64)
    space = SPACE[np.frombuffer(letters, np.uint8)[ends[0] : ends[-1]]]
    ends = ends - ends[0]
    after = np.concatenate([[True], space[:-1]])
    after[ends[:-1][ends[:-1] < len(space)]] = True
    begun = np.concatenate([[0], np.cumsum(~space & after)])
    counts: NDArray[np.int64] = begun[ends[1:]] - begun[ends[:-1]]
    return counts


def mean_words(answers: pa.ChunkedArray) -> NDArray[np.float64]:
    """Return the mean words of the answers of every instruction of a column of the index, sample after sample."""
    parts = [np.zeros(0)]
    for chunk in answers.chunks:
        of_instructions = chunk.flatten()
        words = count_words(of_instructions.flatten())
        parents = pc.list_parent_indices(of_instructions).to_numpy(zero_copy_only=False)
        total = np.bincount(parents, weights=words, minlength=len(of_instructions))
        parts.append(total / np.maximum(np.bincount(parents, minlength=len(of_instructions)), 1))
    return np.concatenate(parts)
