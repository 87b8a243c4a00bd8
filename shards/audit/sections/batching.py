"""Batching: how the draws of a cycle fall into batches, what padding costs, and how long the clips are."""

from __future__ import annotations

import msgspec
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from shards.audit import plots
from shards.audit.digits import neat, share
from shards.audit.view import ordered
from shards.plan import Dealt, Order

GPUS = (1, 8, 64)
"""For how many GPUs the steps of a cycle are counted."""
BIN = 1.0
"""Seconds of a bar of the histogram of lengths."""

Numbers = NDArray[np.float64]


class Steps(msgspec.Struct, frozen=True, kw_only=True):
    """How many steps a cycle takes if each GPU gets one batch a step."""

    gpus: int
    steps: int


class Batching(msgspec.Struct, frozen=True, kw_only=True):
    """How the draws of a cycle fall into batches."""

    batches: int
    steps: tuple[Steps, ...]
    mean_examples: float
    """In a batch."""
    mean_seconds: float
    """Audio in a batch, without padding."""
    padding: float
    """Share of the padded audio that is padding."""
    padding_longest: float
    """The same if every clip were padded to the longest."""
    cut_draws: int
    cut_hours: float


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """The bars of one task."""

    task: str
    counts: tuple[int, ...]


class Histogram(msgspec.Struct, frozen=True, kw_only=True):
    """Draws by length. Bin k holds lengths from edge k up to edge k + 1; the last bin has no upper edge."""

    edges: tuple[float, ...]
    """Seconds; one for each bin."""
    series: tuple[Series, ...]


def batching(dealt: Dealt, seconds: Numbers, longest: float) -> Batching:
    """Return how the draws of a cycle fall into batches, and what padding costs."""
    kept = np.minimum(seconds, longest)
    firsts, sizes = dealt.starts[:-1], np.diff(dealt.starts)
    padded = float((np.maximum.reduceat(kept, firsts) * sizes).sum())
    audio, batches, over = float(kept.sum()), len(sizes), seconds > longest
    return Batching(
        batches=batches,
        steps=tuple(Steps(gpus=gpus, steps=-(-batches // gpus)) for gpus in GPUS),
        mean_examples=neat(len(seconds) / batches),
        mean_seconds=neat(audio / batches),
        padding=share(padded - audio, padded),
        padding_longest=share(len(kept) * longest - audio, len(kept) * longest),
        cut_draws=int(over.sum()),
        cut_hours=neat((seconds - kept).sum() / 3600),
    )


def histogram(order: Order, dealt: Dealt, seconds: Numbers, longest: float) -> Histogram:
    """Return how many draws of each task have which length; what is longer than dealt is in the last bin."""
    edges = np.arange(0.0, longest + BIN / 2, BIN)
    bins = np.searchsorted(edges, seconds, side="right") - 1
    # A clip of exactly the longest length is dealt whole: it belongs below the edge.
    bins[seconds == edges[-1]] -= 1
    tasks = np.array([queue.row.task for queue in order.queues])[dealt.queue]
    series = (
        Series(task=task, counts=tuple(np.bincount(bins[tasks == task], minlength=len(edges)).tolist()))
        for task in ordered({queue.row.task for queue in order.queues})
    )
    return Histogram(edges=tuple(edges.tolist()), series=tuple(series))


def lengths(found: Histogram, stage: str) -> Markup:
    """Return the histogram of the lengths that a stage deals."""
    series = [(line.task, line.counts) for line in found.series]
    return Markup(plots.histogram(found.edges, series, f"{stage}: draws by length of the clip in seconds"))


DRAWN = {"lengths": lengths}
