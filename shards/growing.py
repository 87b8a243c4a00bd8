"""Growing: arrays that parts are added to, and the places of numbers in their order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

try:
    from shards._alike import sort  # type: ignore[import-not-found]
except ImportError:  # pragma: no cover
    sort = None

WORD, ROWS, WHOLE = 64, 6, 7
"""Bits of a word, and of it those for the number of a row and for what is before the point."""


class Growing:
    """Arrays that examples are added to; memory that is set aside for more is not taken before it is used."""

    def __init__(self) -> None:
        """Begin with none."""
        self.size = 0
        self.arrays: list[NDArray[Any]] = []

    def add(self, parts: Sequence[NDArray[Any]]) -> None:
        """Add a part to each array; parts are of one length."""
        end = self.size + len(parts[0])
        if not self.arrays:
            self.arrays = [np.empty(0, part.dtype) for part in parts]
        for place, part in enumerate(parts):
            held = self.arrays[place]
            kind = np.promote_types(held.dtype, part.dtype)
            if end > len(held) or kind != held.dtype:
                self.arrays[place] = np.empty(max(end + end // 4, 1 << 16), kind)
                self.arrays[place][: self.size] = held[: self.size]
            self.arrays[place][self.size : end] = part
        self.size = end

    def take(self) -> list[NDArray[Any]]:
        """Return what was added, and keep none."""
        taken, self.arrays = [array[: self.size] for array in self.arrays], []
        return taken


def behind(nothing: list[NDArray[Any]], parts: list[Growing]) -> list[NDArray[Any]]:
    """Return arrays behind one another, without a copy if they are those of one part; `nothing` if there is none."""
    taken = [part.take() for part in parts if part.size]
    if len(taken) == 1:
        return taken[0]
    return [np.concatenate(arrays) for arrays in zip(nothing, *taken, strict=True)]


def ranked(words: NDArray[np.uint64]) -> NDArray[np.int32]:
    """Return the places of numbers in order, of equal ones the first first: a stable argsort, several times as fast."""
    room = np.uint64(max(1, len(words).bit_length()))
    if sort is not None and room < 32:
        # By all but the last bits, which make room for the place; only if others are equal must these be looked at.
        order = words >> room << room | np.arange(len(words), dtype=np.uint64)
        sort(order, int(room))
        upper = order >> room
        if not np.any(upper[1:] == upper[:-1]):
            return (order & ((np.uint64(1) << room) - np.uint64(1))).astype(np.int32)
    return np.argsort(words, kind="stable").astype(np.int32)


def ranked_rows(values: NDArray[np.float64], width: int) -> NDArray[np.int64]:
    """Return the places of numbers in order, row by row of `width`; the last may be shorter. As stable as ranked()."""
    count = len(values)
    room = count.bit_length()
    left = WORD - ROWS - room - WHOLE
    fits = count <= width << ROWS and left > WHOLE and 0 <= values.min(initial=0) <= values.max(initial=0) < 1 << WHOLE
    if sort is not None and fits:
        # Row, number and place in one word; fractions that this cuts off are looked at when all are in order.
        order = (np.arange(count) // width).astype(np.uint64) << np.uint64(WORD - ROWS)
        order |= (values * float(1 << left)).astype(np.uint64) << np.uint64(room)
        order |= np.arange(count, dtype=np.uint64)
        sort(order, room)
        places = (order & np.uint64((1 << room) - 1)).astype(np.int64)
        falls = np.diff(values[places]) < 0
        falls[width - 1 :: width] = False
        if not falls.any():
            return places
    whole = count // width * width
    rows = np.argsort(values[:whole].reshape(-1, width), axis=1, kind="stable") + np.arange(0, whole, width)[:, None]
    return np.concatenate([rows.reshape(-1), np.argsort(values[whole:], kind="stable") + whole])
