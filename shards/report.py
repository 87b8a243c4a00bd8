"""The report on a stream: what it deals, planned or dealt for real, and at which cost."""

from __future__ import annotations

import itertools
import time

import msgspec

from manifests import UserError
from shards.drift import Deviation, Drift, Randomness, Scatter
from shards.flac import RATE
from shards.realised import Share, Spread, Tally, answer_tokens, count, planned
from shards.stream import Stream

NAMED = 20
"""How many damaged samples a report names."""


class Dealing(msgspec.Struct, frozen=True, kw_only=True):
    """What dealing cost."""

    wall_seconds: float
    cpu_seconds: float
    """Of all threads of this process."""
    hours_per_second: float
    """Audio by wall time."""
    hours_per_cpu_second: float
    cpu_seconds_per_hour: float
    bytes_read: int
    bytes_used: int
    read_over_used: float
    waited_seconds: float
    """How long batches were waited for, in all."""
    skipped: int
    """Damaged samples that were left out."""
    skipped_samples: tuple[str, ...]
    """The first of them, and what is wrong with each."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What `salmonn stream --json` prints."""

    dataset: str
    """Its digest."""
    recipe: str
    stage: str
    seed: int
    unit: str
    """What shares count: examples, seconds or tokens."""
    world_size: int
    rank: int
    """Whose batches were counted: of `world_size` 1, those of all ranks."""
    micro_batches: int
    """Batches of a step, of all ranks together."""
    steps: int
    """Steps counted; the last may be cut short by the end of an epoch."""
    batches: int
    examples: int
    hours: float
    cut_seconds: float
    """Audio behind the cut, that is not dealt."""
    padding: float
    """Share of the padded audio that is padding."""
    batch_examples: Spread
    batch_seconds: Spread
    tasks: tuple[Share, ...]
    rows: tuple[Share, ...]
    deviation: Deviation
    examples_per_epoch: int
    batches_per_epoch: float
    steps_per_epoch: float
    randomness: Randomness
    start_seconds: float
    """Reading the index, up to the first batch's plan."""
    plan_seconds: float
    """Planning and counting."""
    dealing: Dealing | None = None
    """None if no audio was read."""


def plan_report(made: Stream, *, steps: int | None = None, epochs: int = 1, start: float = 0.0) -> Report:
    """Return what a stream deals in its first `steps`, or in so many epochs, counted without reading audio."""
    check(steps, epochs)
    return report(made, steps, epochs, start=start)


def deal_report(made: Stream, steps: int, *, start: float = 0.0) -> Report:
    """Deal the first `steps` of a new stream, audio and all; return what was dealt, and what that cost."""
    check(steps, made.epochs)
    seen: dict[int, list[tuple[str, float]]] = {}
    cost = deal(made, steps, seen)
    return report(made, steps, 1, start=start, cost=cost, seen=seen)


def check(steps: int | None, epochs: int | None) -> None:
    """Refuse to count nothing."""
    for name, value in (("steps", steps), ("epochs", epochs)):
        if value is not None and value < 1:
            raise UserError(f"--{name} is {value}; it must be at least 1")


def deal(made: Stream, steps: int, seen: dict[int, list[tuple[str, float]]]) -> Dealing:
    """Deal `steps`; fill `seen` with what was in batches from which damaged examples may be missing."""
    samples, waited = 0, 0.0
    made.prepare()
    begin, cpu = time.perf_counter(), time.process_time()
    for batch in itertools.islice(made, steps * (made.micro_batches // made.world_size)):
        samples += int(batch.lengths.sum())
        waited += made.waited
        if made.skipped:
            number = batch.step * made.micro_batches + batch.micro
            seen[number] = [(example.task, example.seconds) for example in batch.examples]
    wall, used = time.perf_counter() - begin, time.process_time() - cpu
    hours = samples / RATE / 3600
    return Dealing(
        wall_seconds=wall,
        cpu_seconds=used,
        hours_per_second=hours / wall,
        hours_per_cpu_second=hours / used if used else 0.0,
        cpu_seconds_per_hour=used / hours if hours else 0.0,
        bytes_read=made.bytes_read,
        bytes_used=made.bytes_used,
        read_over_used=made.bytes_read / made.bytes_used if made.bytes_used else 1.0,
        waited_seconds=waited,
        skipped=len(made.skipped),
        skipped_samples=tuple(made.skipped[:NAMED]),
    )


def report(
    made: Stream,
    steps: int | None,
    epochs: int,
    *,
    start: float,
    cost: Dealing | None = None,
    seen: dict[int, list[tuple[str, float]]] | None = None,
) -> Report:
    """Count the first `steps`, or so many epochs, and at least one epoch for what only a whole one can tell."""
    begin = time.perf_counter()
    order, tokens = made.order, answer_tokens(made.dataset, made.order)
    tally = Tally(order, tokens, made.rank, made.world_size)
    drift, scatter = Drift(order, tokens, made.micro_batches), Scatter(order)
    tally.seen = seen or {}
    if steps is None:
        count(planned(order, epochs=epochs), tally, drift, scatter)
    else:
        count(planned(order, batches=steps * made.micro_batches, epochs=made.epochs), tally, drift)
        count(planned(order, epochs=1), scatter)
        epochs = 1
    batches = sum(map(len, tally.examples))
    return Report(
        dataset=made.dataset.digest,
        recipe=made.recipe.name,
        stage=made.stage,
        seed=made.seed,
        unit=order.unit,
        world_size=made.world_size,
        rank=made.rank,
        micro_batches=made.micro_batches,
        steps=-(-tally.end // made.micro_batches),
        batches=batches,
        examples=int(tally.by_row[0].sum()),
        hours=float(tally.by_row[1].sum()) / 3600,
        cut_seconds=tally.cut,
        padding=tally.padding,
        batch_examples=tally.batch_examples,
        batch_seconds=tally.batch_seconds,
        tasks=tally.tasks,
        rows=tally.rows,
        deviation=drift.deviation,
        examples_per_epoch=order.examples,
        batches_per_epoch=scatter.batches / epochs,
        steps_per_epoch=scatter.batches / epochs / made.micro_batches,
        randomness=scatter.randomness,
        start_seconds=start,
        plan_seconds=time.perf_counter() - begin,
        dealing=cost,
    )
