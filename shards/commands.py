"""The commands peek, stream and audit: what they print."""

from __future__ import annotations

import itertools
import time
from collections import Counter, defaultdict
from pathlib import Path

from manifests import UserError, files, load_recipe
from manifests.console import console, hours, size, table
from shards.index import Dataset
from shards.stream import Stream


def peek(url: str, key: str, audio: Path | None) -> None:
    """Print a sample, or the first of each split; write its FLAC to `audio` if that is given."""
    dataset = Dataset(url)
    if not key:
        if audio:
            raise UserError("--audio needs the KEY of a sample; salmonn peek without one shows some")
        for source in dataset.manifest.sources:
            first = dataset.table(source.corpus, source.split).slice(0, 1).to_pylist()
            for row in first:
                show_row(row)
        return
    row = dataset.row(key)
    show_row(row)
    if audio:
        place = files.join(dataset.url, row["shard"])
        files.write_whole(str(audio), files.read_range(place, row["flac_offset"], row["flac_bytes"]))
        console.print(f"wrote {audio}")


def show_row(row: dict[str, object]) -> None:
    """Print one row of the index."""
    said = {name: row[name] for name in ("language", "speaker", "gender", "license") if row[name]}
    sources = row["sources"]
    assert isinstance(sources, list)
    console.print(f"[bold]{row['key']}[/]  {row['id']}", soft_wrap=True)
    console.print(
        f"  audio      {row['seconds']:.3f} s, {row['action']} of {', '.join(sources)} ({row['source_rate']} Hz)"
    )
    console.print(f"  stored     {row['shard']} at byte {row['flac_offset']}, {size(float(str(row['flac_bytes'])))}")
    console.print(f"  facts      {', '.join(f'{name} {value}' for name, value in said.items())}", markup=False)
    if row["text"]:
        console.print(f"  text       {row['text']}", markup=False)
    for task, prompt, answers in zip(row["tasks"], row["prompts"], row["answers"], strict=True):  # type: ignore[call-overload]
        console.print(f"  {task}\n    prompt   {prompt}", markup=False)
        for answer in answers:
            console.print(f"    answer   {answer}", markup=False)


def stream(
    url: str, recipe: str, stage: str, steps: int, seed: int, max_seconds: float, max_examples: int, threads: int
) -> None:
    """Deal batches and print shares, padding and throughput."""
    made = Stream(
        Dataset(url),
        load_recipe(recipe),
        stage=stage,
        seed=seed,
        max_seconds=max_seconds,
        max_examples=max_examples,
        threads=threads,
    )
    show_stream(made, steps)


def show_stream(made: Stream, steps: int) -> None:
    """Deal `steps` batches of a stream and print what was in them."""
    examples, seconds = Counter[str](), defaultdict[str, float](float)
    padded = cut = 0.0
    begin, cpu = time.perf_counter(), time.process_time()
    for batch in itertools.islice(made, steps):
        for example in batch.examples:
            name = f"{example.task} of {example.corpus}"
            examples[name] += 1
            seconds[name] += example.seconds
            cut += example.cut
        padded += batch.seconds / (1 - batch.padding) if batch.examples else 0.0
    took, used = time.perf_counter() - begin, time.process_time() - cpu
    total, audio = examples.total(), sum(seconds.values())
    shown = table(
        f"{made.stage} of {made.recipe.name}, {steps} batches",
        *("row", "intended", "of examples", "of audio", "examples", "epochs"),
        right=("intended", "of examples", "of audio", "examples", "epochs"),
    )
    for queue, share in zip(made.order.queues, made.order.shares.tolist(), strict=True):
        name = queue.row.name
        shown.add_row(
            name,
            f"{share:.1%}",
            f"{examples[name] / total:.1%}",
            f"{seconds[name] / audio:.1%}",
            f"{examples[name]:,}",
            f"{examples[name] / len(queue.sample):.2f}",
        )
    console.print(shown)
    console.print(
        f"{hours(audio)} of audio in {took:.1f} s: {audio / took:,.0f} times real time, "
        f"{audio / 3600 / max(used, 1e-9):.2f} h per cpu-second; padding {1 - audio / padded:.1%}"
        + (f"; {hours(cut)} cut from clips above {made.order.budget.longest:g} s" if cut else "")
    )


def audit(url: str, recipe: str, html: Path, seed: int) -> None:
    """Write the audit page and its numbers, and print its gates."""
    from shards.audit import audit as make_report
    from shards.audit import write

    begin = time.perf_counter()
    report = make_report(Dataset(url), load_recipe(recipe), seed=seed)
    numbers = html.with_suffix(".json")
    write(report, html, numbers)
    colours = {"PASS": "green", "WARN": "yellow", "FAIL": "red"}
    for gate in report.gates:
        console.print(f"  [{colours[gate.verdict]}]{gate.verdict}[/]  {gate.name}: ", end="")
        console.print(gate.sentence, markup=False)
    console.print(f"{html} and {numbers} written ({time.perf_counter() - begin:.1f} s)")


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
