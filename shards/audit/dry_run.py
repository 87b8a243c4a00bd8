"""The dry run: one cycle of a stage in the very order in which it will be trained on, counted without reading audio."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np
from numpy.typing import NDArray

from shards.audit.view import ordered
from shards.plan import POOL, Order

AT_ONCE = 64 * POOL
"""Draws counted together: enough that numpy is quick, few enough that they take no memory."""
RANDOM = (8, 32)
"""Examples of the random batches that are priced beside those of the plan."""
BIN = 1.0
"""Seconds of a bar of the histogram of lengths."""

Floats = NDArray[np.float64]
Numbers = NDArray[np.int64]


class Draws(msgspec.Struct, frozen=True, kw_only=True):
    """Some draws in the order they are dealt."""

    queue: Numbers
    place: Numbers
    """In the arrays of all queues behind one another."""
    sizes: Numbers
    """Examples of each batch."""


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """What one cycle deals."""

    draws: Numbers
    """Of each row."""
    seconds: Floats
    """Of each row: audio as it is dealt, cut at the longest."""
    tokens: Floats
    """Of each row: of the longest answer of each draw."""
    off: float
    """How many examples any task was from its share, at worst, wherever that was looked at."""
    sizes: Numbers
    """Of batches: how many have so many examples."""
    padded: float
    """Seconds of all batches, each example as long as the longest of its batch."""
    at_random: tuple[float, ...]
    """The same if batches of so many examples (RANDOM) were filled as they come."""
    cut_draws: int
    cut_seconds: float
    lengths: Numbers
    """[tasks, bins] draws by length in bins of BIN seconds, the last without an end; tasks in the order of `tasks`."""
    tasks: tuple[str, ...]


def draws_of(order: Order) -> Iterator[Draws]:
    """Yield the draws of one cycle, many pools together."""
    mark = order.start
    while mark.deal < order.examples:
        queue, item, _, after = order.draws(mark, AT_ONCE)
        place = order.offsets[queue] + item
        arranged, starts = order.arranged(place, mark.deal)
        yield Draws(queue=queue[arranged], place=place[arranged], sizes=np.diff(starts))
        mark = after


def dry_run(order: Order) -> Counted:
    """Deal one cycle of `order`, which counts the tokens of answers, and count what it deals."""
    assert order.answers is not None
    rows, longest = len(order.queues), order.budget.longest
    tasks = tuple(ordered({queue.row.task for queue in order.queues}))
    task_of = np.array([tasks.index(queue.row.task) for queue in order.queues])
    of_task = np.bincount(task_of, order.shares)
    bins = int(longest / BIN) + 1
    draws, seconds, tokens = np.zeros(rows, np.int64), np.zeros(rows), np.zeros(rows)
    sizes, lengths = np.zeros(order.budget.examples + 1, np.int64), np.zeros(len(tasks) * bins, np.int64)
    padded, cut_seconds, cut_draws, off, random = 0.0, 0.0, 0, 0.0, np.zeros(len(RANDOM))
    for some in draws_of(order):
        whole = order.seconds[some.place]
        kept = np.minimum(whole, longest)
        draws += np.bincount(some.queue, minlength=rows)
        seconds += np.bincount(some.queue, kept, rows)
        tokens += np.bincount(some.queue, order.answers[some.place], rows)
        served = np.bincount(task_of, draws)
        off = max(off, float(np.abs(served - of_task * served.sum()).max()))
        sizes += np.bincount(some.sizes, minlength=len(sizes))
        padded += float((np.maximum.reduceat(kept, np.cumsum(some.sizes) - some.sizes) * some.sizes).sum())
        random += [padded_at_random(kept, size) for size in RANDOM]
        over = whole > longest
        cut_draws += int(over.sum())
        cut_seconds += float((whole - kept).sum())
        # A clip of exactly the longest length is dealt whole: it belongs below the edge.
        place = np.where(over, bins - 1, np.minimum(kept / BIN, bins - 2).astype(np.int64))
        lengths += np.bincount(task_of[some.queue] * bins + place, minlength=len(lengths))
    return Counted(
        draws=draws,
        seconds=seconds,
        tokens=tokens,
        off=off,
        sizes=sizes,
        padded=padded,
        at_random=tuple(random.tolist()),
        cut_draws=cut_draws,
        cut_seconds=cut_seconds,
        lengths=lengths.reshape(len(tasks), bins),
        tasks=tasks,
    )


def padded_at_random(seconds: Floats, size: int) -> float:
    """Return the seconds of batches of `size`, each example as long as the longest, from draws that lie far apart.

    Batches of the plan hold clips of one length, but come in no order of lengths: draws far from each other are as
    good as drawn by lot.
    """
    columns = len(seconds) // size
    rest = seconds[columns * size :]
    body = seconds[: columns * size].reshape(size, columns).max(0).sum() * size if columns else 0.0
    return float(body + rest.max(initial=0.0) * len(rest))
