"""Cutting: how the draws of a pool are sorted by length, cut into batches, and in which order these are dealt."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from manifests import draw
from shards.growing import ranked_rows

Numbers = NDArray[np.int64]


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """What fits into one batch."""

    seconds: float
    """Audio of a batch with its padding: its longest clip times its clips."""
    examples: int
    longest: float
    """Seconds of a clip that are dealt at most; the rest is cut, and counted."""
    tokens: int = 0
    """Tokens of a batch with its padding: audio, longest prompt of the task and longest answer; 0 for no limit."""


def arrange(
    seconds: NDArray[np.float64], tokens: Numbers | None, budget: Budget, seed: int, deal: int, pool: int
) -> tuple[Numbers, Numbers]:
    """Return the order in which draws are dealt, and where in it each batch begins, with the end of the last.

    The draws, of which `seconds` and `tokens` tell the length, follow `deal` others and begin a pool, of `pool` draws
    each but for the last.
    """
    in_order = ranked_rows(seconds, pool)
    orders, all_sizes = [], [np.zeros(1, np.int64)]
    for first in range(0, len(seconds), pool):
        inside = in_order[first : first + pool]
        cuts = np.array(cut_batches(seconds[inside], budget, None if tokens is None else tokens[inside]))
        words = np.random.PCG64(draw.number("batches", seed, deal + first)).random_raw(len(cuts) - 1)
        shuffled = np.argsort(words, kind="stable")
        sizes = np.diff(cuts)[shuffled]
        # Where each batch lies among the sorted draws, then draw by draw.
        places = np.repeat(cuts[shuffled] - (np.cumsum(sizes) - sizes), sizes) + np.arange(len(inside))
        orders.append(inside[places])
        all_sizes.append(sizes)
    return np.concatenate(orders), np.cumsum(np.concatenate(all_sizes))


def cut_batches(seconds: NDArray[np.float64], budget: Budget, tokens: Numbers | None = None) -> list[int]:
    """Cut clips, sorted by length, into batches within `budget`; return where each begins, and the end of the last."""
    cuts, end, text = [0], len(seconds), None if tokens is None else tokens.tolist()
    length = seconds.tolist()
    while cuts[-1] < end:
        first = cuts[-1]
        clips = min(budget.examples, end - first)
        # The longest clip of as many as might fit says how many do fit; a few rounds settle it.
        while clips > 1 and clips * length[first + clips - 1] > budget.seconds:
            clips = max(1, min(clips - 1, int(budget.seconds / length[first + clips - 1])))
        while clips < min(budget.examples, end - first) and (clips + 1) * length[first + clips] <= budget.seconds:
            clips += 1
        while text is not None and clips > 1 and clips * max(text[first : first + clips]) > budget.tokens:
            clips -= 1
        # Clips get longer: as long as as many fit, the batches behind are as large.
        full = (
            1 if text is not None else np.count_nonzero(seconds[first + clips - 1 :: clips] * clips <= budget.seconds)
        )
        cuts.extend(range(first + clips, first + clips * max(1, int(full)) + 1, clips))
    return cuts
