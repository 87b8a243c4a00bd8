"""The commands stream, export and recipe: what they print."""

from __future__ import annotations

import time

import msgspec

from manifests import load_recipe
from manifests.console import console, hours, size, table
from shards.cache import Cache
from shards.index import Dataset
from shards.plan import WINDOW
from shards.report import Dealing, Report, deal_report, plan_report
from shards.stream import Stream


def stream(
    url: str,
    recipe: str,
    stage: str,
    *,
    steps: int | None = None,
    epochs: int | None = None,
    world_size: int = 1,
    rank: int | None = None,
    threads: int = 2,
    seed: int = 0,
    max_seconds: float = 120.0,
    max_examples: int = 8,
    max_tokens: int = 0,
    unit: str = "examples",
    window: int = WINDOW,
    cache: str = "",
    as_json: bool = False,
    plan_only: bool = False,
) -> None:
    """Deal steps, or only plan them, and print shares, padding and throughput, or a JSON object with all of it.

    Without `rank` the batches of all ranks are dealt, by one process.
    """
    begin = time.perf_counter()
    made = Stream(
        Dataset(url),
        load_recipe(recipe),
        stage=stage,
        seed=seed,
        rank=0 if rank is None else rank,
        world_size=1 if rank is None else world_size,
        micro_batches=world_size,
        max_seconds=max_seconds,
        max_examples=max_examples,
        max_tokens=max_tokens,
        unit=unit,
        epochs=epochs,
        threads=threads,
        cache=Cache(cache) if cache else None,
        window=window,
    )
    start = time.perf_counter() - begin
    if plan_only:
        found = plan_report(made, steps=steps, epochs=1 if epochs is None else epochs, start=start)
    else:
        found = deal_report(made, 100 if steps is None else steps, start=start)
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(found)).decode())
    else:
        show_report(found)


def show_stream(made: Stream, steps: int) -> None:
    """Deal `steps` of a new stream and print what was in them."""
    show_report(deal_report(made, steps))


def show_report(found: Report) -> None:
    """Print a report on a stream."""
    numbers = ("intended", "of examples", "of audio", "of answers", "examples", "epochs")
    whose = f"rank {found.rank} of {found.world_size}, " if found.world_size > 1 else ""
    title = f"{found.stage} of {found.recipe}, {whose}{found.steps:,} steps, {found.batches:,} batches"
    shown = table(title, "row", *numbers, right=numbers)
    for row in found.rows:
        shown.add_row(
            row.name,
            f"{row.intended:.1%}",
            f"{row.of_examples:.1%}",
            f"{row.of_seconds:.1%}",
            f"{row.of_tokens:.1%}",
            f"{row.examples:,}",
            f"{row.epochs:.2f}",
        )
    console.print(shown)
    off, filled, long = found.deviation, found.batch_examples, found.batch_seconds
    at_ends = "" if off.tasks_at_pool_ends is None else f", {off.tasks_at_pool_ends:.2f} where a pool ends"
    console.print(
        f"tasks off by at most {off.tasks_at_steps:.2f} {off.unit}{at_ends}; padding {found.padding:.1%}; a batch has "
        f"{filled.mean:.1f} examples ({filled.min:.0f} to {filled.max:.0f}) and {long.mean:.1f} s "
        f"({long.min:.1f} to {long.max:.1f})"
        + (f"; {hours(found.cut_seconds)} cut from clips that are too long" if found.cut_seconds else "")
    )
    near, lengths = found.randomness.neighbours, found.randomness.lengths
    console.print(
        f"an epoch is {found.steps_per_epoch:,.1f} steps, {found.examples_per_epoch:,} examples; neighbours in the "
        f"index are dealt {'-' if near is None else f'{near:.2f}'} times as far apart as in a full shuffle; lengths of "
        f"neighbouring batches correlate by {'-' if lengths is None else f'{lengths:+.2f}'}"
    )
    if found.dealing is not None:
        show_dealing(found.dealing, found.hours)


def show_dealing(cost: Dealing, dealt: float) -> None:
    """Print what it cost to deal so many hours."""
    console.print(
        f"{hours(dealt * 3600)} of audio in {cost.wall_seconds:.1f} s: {dealt * 3600 / cost.wall_seconds:,.0f} times "
        f"real time, {cost.hours_per_cpu_second:.2f} h per cpu-second; waited {cost.waited_seconds:.1f} s; "
        f"read {size(cost.bytes_read)}, {cost.read_over_used:.2f} times what was used"
    )
    for why in cost.skipped_samples:
        console.print(f"  left out: {why}", markup=False)


def actual_sizes(url: str, recipe: str) -> dict[tuple[str, int], tuple[float, int]]:
    """Return the seconds and samples of every row of a recipe's stages in a dataset: what `salmonn recipe` shows."""
    dataset, plan = Dataset(url), load_recipe(recipe)
    held = {(source.corpus, source.split) for source in dataset.manifest.sources}
    sizes = {}
    for stage in plan.stages:
        for number, row in enumerate(plan.stage(stage)):
            seconds, samples = 0.0, 0
            for split in row.splits:
                if (row.corpus, split) in held:
                    table = dataset.table(row.corpus, split, ["tasks", "seconds"])
                    mask = [row.task in tasks for tasks in table["tasks"].to_pylist()]
                    kept = [length for length, has in zip(table["seconds"].to_pylist(), mask, strict=True) if has]
                    seconds, samples = seconds + sum(kept), samples + len(kept)
            sizes[stage, number] = (seconds, samples)
    return sizes


def export(url: str, out: str, audio: str) -> None:
    """Write a dataset in the format of the released annotations, and print what was written."""
    from shards.export import export as run_export

    made = run_export(Dataset(url), out, audio)
    heard = f", {made.files:,} FLAC files below {audio}" if audio else ""
    console.print(f"{out}: {made.rows:,} annotations of {made.samples:,} samples{heard}")
