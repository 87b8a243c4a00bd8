"""Batching: how the draws of a cycle fall into batches, what padding costs, and how long the clips are."""

from __future__ import annotations

import msgspec
import numpy as np
from markupsafe import Markup

from shards.audit import plots
from shards.audit.digits import neat, share
from shards.audit.dry_run import BIN, RANDOM, Counted
from shards.audit.verdicts import Gate, good, warn

GPUS = (1, 8, 64)
"""For how many GPUs the steps of a cycle are counted, beside those asked for."""
PADDING = 0.1
"""A larger share of padding is a warning. Batches of one length have 1 to 2 %, those by chance 50 and more."""
ENOUGH = 100
"""Of fewer batches the share of padding says little: they cannot be of one length."""


class Steps(msgspec.Struct, frozen=True, kw_only=True):
    """How many steps a cycle takes if each GPU gets one batch a step."""

    gpus: int
    steps: int


class Filled(msgspec.Struct, frozen=True, kw_only=True):
    """How many examples batches have: the least, the most, and what a twentieth, half and all but a twentieth reach."""

    least: int
    low: int
    median: int
    high: int
    most: int


class ByChance(msgspec.Struct, frozen=True, kw_only=True):
    """Batches of the same draws as they come, each filled up to its longest."""

    examples: int
    padding: float


class Batching(msgspec.Struct, frozen=True, kw_only=True):
    """How the draws of a cycle fall into batches."""

    batches: int
    steps: tuple[Steps, ...]
    mean_examples: float
    """In a batch."""
    mean_seconds: float
    """Audio in a batch, without padding."""
    examples: Filled
    padding: float
    """Share of the padded audio that is padding."""
    padding_longest: float
    """The same if every clip were padded to the longest."""
    by_chance: tuple[ByChance, ...]
    hours_padded: float
    """What an encoder hears in a cycle."""
    hours_longest: float
    """The same if every clip were padded to the longest."""
    times_longest: float
    """How many times as much that is."""
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


def batching(counted: Counted, longest: float, world_size: int) -> Batching:
    """Return how the draws of a cycle fall into batches, and what padding costs."""
    draws, audio = int(counted.draws.sum()), float(counted.seconds.sum())
    batches = int(counted.sizes.sum())
    return Batching(
        batches=batches,
        steps=tuple(Steps(gpus=gpus, steps=-(-batches // gpus)) for gpus in sorted({*GPUS, world_size})),
        mean_examples=neat(draws / batches),
        mean_seconds=neat(audio / batches),
        examples=filled(counted),
        padding=share(counted.padded - audio, counted.padded),
        padding_longest=share(draws * longest - audio, draws * longest),
        by_chance=tuple(
            ByChance(examples=size, padding=share(padded - audio, padded))
            for size, padded in zip(RANDOM, counted.at_random, strict=True)
        ),
        hours_padded=neat(counted.padded / 3600),
        hours_longest=neat(draws * longest / 3600),
        times_longest=neat(draws * longest / counted.padded) if counted.padded else 0.0,
        cut_draws=counted.cut_draws,
        cut_hours=neat(counted.cut_seconds / 3600),
    )


def filled(counted: Counted) -> Filled:
    """Return how many examples batches have."""
    ends, present = np.cumsum(counted.sizes), np.flatnonzero(counted.sizes)
    low, median, high = (int(np.searchsorted(ends, part * ends[-1])) for part in (0.05, 0.5, 0.95))
    return Filled(least=int(present[0]), low=low, median=median, high=high, most=int(present[-1]))


def histogram(counted: Counted, longest: float) -> Histogram:
    """Return how many draws of each task have which length; what is longer than dealt is in the last bin."""
    edges = np.arange(0.0, longest + BIN / 2, BIN)
    return Histogram(
        edges=tuple(edges.tolist()),
        series=tuple(
            Series(task=task, counts=tuple(counts.tolist()))
            for task, counts in zip(counted.tasks, counted.lengths, strict=True)
        ),
    )


def padding(stages: list[tuple[str, Batching]]) -> Gate:
    """Few of the seconds that the encoders hear are filling."""
    judged = [(found.padding, name, found) for name, found in stages if found.batches >= ENOUGH]
    if not judged:
        return good("padding", f"No stage has {ENOUGH} batches: too few for their padding to cost anything.")
    most, name, found = max(judged, key=lambda entry: entry[0])
    said = f"{most:.1%} of the audio in batches of {name} is padding"
    said += f"; if every clip were as long as the longest, encoders would hear {found.times_longest:.1f} times as much"
    if most > PADDING:
        return warn("padding", f"{said}. More than {PADDING:.0%}: allow more examples or seconds in a batch.")
    return good("padding", f"{said}.")


def lengths(found: Histogram, stage: str) -> Markup:
    """Return the histogram of the lengths that a stage deals."""
    series = [(line.task, line.counts) for line in found.series]
    return Markup(plots.histogram(found.edges, series, f"{stage}: draws by length of the clip in seconds"))


DRAWN = {"lengths": lengths, "by_chance": RANDOM}
