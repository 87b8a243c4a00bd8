"""The mixture: a dry run of the plan the trainer uses, one cycle of each stage, without reading audio."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from manifests import TASKS, Recipe, UserError
from shards.audit.digits import neat, share
from shards.audit.words import mean_words
from shards.index import Dataset
from shards.plan import Budget, Dealt, Order

GPUS = (1, 8, 64)
"""For how many GPUs the steps of a cycle are counted."""
BIN = 1.0
"""Seconds of a bar of the histogram of lengths."""

Numbers = NDArray[np.float64]


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """One row of a stage as the first cycle deals it."""

    task: str
    corpus: str
    splits: tuple[str, ...]
    weight: float | None
    intended: float
    by_examples: float
    by_seconds: float
    by_words: float
    examples: int
    draws: int
    epochs: float
    """Draws for each example."""


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


class Mixture(msgspec.Struct, frozen=True, kw_only=True):
    """The first cycle of a stage."""

    draws: int
    examples: int
    hours: float
    words: float
    """Of answers; an example with several right answers counts their mean."""
    shares: tuple[Share, ...]
    batching: Batching
    durations: Histogram


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """One stage of the recipe."""

    name: str
    digest: str
    problem: str
    """Why it cannot be dealt from this dataset; empty if it can."""
    mixture: Mixture | None


def dry_run(dataset: Dataset, recipe: Recipe, stage: str, seed: int, budget: Budget) -> Stage:
    """Deal the first cycle of a stage; a stage that the dataset does not hold has a problem and no mixture."""
    digest = recipe.digest(stage)
    held = {(source.corpus, source.split) for source in dataset.manifest.sources}
    for row in recipe.stage(stage):
        if missing := [f"{row.corpus}:{split}" for split in row.splits if (row.corpus, split) not in held]:
            problem = f"the dataset has no {', '.join(missing)}, which {row.name} asks for; build it, or drop the row"
            return Stage(name=stage, digest=digest, problem=problem, mixture=None)
    try:
        order = Order(dataset, recipe, stage, seed, budget)
    except UserError as error:
        return Stage(name=stage, digest=digest, problem=str(error), mixture=None)
    dealt = order.cycle(0)
    seconds = at(dealt, [queue.seconds for queue in order.queues])
    words = at(dealt, answer_words(dataset, order))
    kept = np.minimum(seconds, budget.longest)
    mixture = Mixture(
        draws=len(dealt.item),
        examples=order.examples,
        hours=neat(kept.sum() / 3600),
        words=neat(words.sum()),
        shares=shares(order, dealt, kept, words),
        batching=batching(dealt, seconds, budget.longest),
        durations=histogram(order, dealt, seconds, budget.longest),
    )
    return Stage(name=stage, digest=digest, problem="", mixture=mixture)


def at(dealt: Dealt, of_queues: list[Numbers]) -> Numbers:
    """Return what `of_queues` holds of each draw: arrays like those of the queues."""
    firsts = np.cumsum([0, *(len(array) for array in of_queues[:-1])])
    drawn: Numbers = np.concatenate(of_queues)[firsts[dealt.queue] + dealt.item]
    return drawn


def answer_words(dataset: Dataset, order: Order) -> list[Numbers]:
    """Return the words of the answer of every example of every queue; of several answers, their mean."""
    counted: dict[tuple[str, str], tuple[pa.Array, Numbers]] = {}
    of_queues = []
    for queue in order.queues:
        parts = []
        for split in queue.row.splits:
            source = (queue.row.corpus, split)
            if source not in counted:
                counted[source] = instruction_words(dataset, *source)
            tasks, words = counted[source]
            parts.append(words[pc.equal(tasks, queue.row.task).to_numpy(zero_copy_only=False)])
        of_queues.append(np.concatenate(parts))
        assert len(of_queues[-1]) == len(queue.sample), queue.row.name
    return of_queues


def instruction_words(dataset: Dataset, corpus: str, split: str) -> tuple[pa.Array, Numbers]:
    """Return the task of each instruction of a split, and the mean words of its answers."""
    table = dataset.table(corpus, split, ["tasks", "answers"])
    return table["tasks"].combine_chunks().flatten(), mean_words(table["answers"])


def shares(order: Order, dealt: Dealt, seconds: Numbers, words: Numbers) -> tuple[Share, ...]:
    """Return what each row of the stage is of the cycle: of its examples, its audio and its answers."""
    rows = len(order.queues)
    draws = np.bincount(dealt.queue, minlength=rows).tolist()
    audio = np.bincount(dealt.queue, weights=seconds, minlength=rows).tolist()
    said = np.bincount(dealt.queue, weights=words, minlength=rows).tolist()
    return tuple(
        Share(
            task=queue.row.task,
            corpus=queue.row.corpus,
            splits=queue.row.splits,
            weight=queue.row.weight,
            intended=neat(order.shares[place]),
            by_examples=share(draws[place], sum(draws)),
            by_seconds=share(audio[place], sum(audio)),
            by_words=share(said[place], sum(said)),
            examples=len(queue.sample),
            draws=draws[place],
            epochs=neat(draws[place] / len(queue.sample)),
        )
        for place, queue in enumerate(order.queues)
    )


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


def ordered(tasks: Iterable[str]) -> list[str]:
    """Return tasks in the order in which they are always shown; those that are not known here come last."""
    known = list(TASKS)
    return sorted(tasks, key=lambda task: (known.index(task) if task in known else len(known), task))
