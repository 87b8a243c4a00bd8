"""The commands scan, build and verify: what they print."""

from __future__ import annotations

import time

from manifests import Failed, UserError, load_recipe
from manifests.console import Bars, console, hours, size, table
from manifests.corpus import load_corpus, parse_source
from manifests.join import merge
from pipelines.build import Built
from pipelines.build import build as run_build
from pipelines.collect import collect
from pipelines.estimate import estimate
from pipelines.estimate import table as estimate_table
from pipelines.executor import HEAD_START, Executor
from pipelines.rescan import scan_all
from pipelines.scan import raw_folder
from pipelines.verify import verify as run_verify
from shards.flac import RATE
from shards.index import Dataset, Source


def scan(
    sources: list[str],
    root: str,
    workers: int | None = None,
    address: str = "local",
    min_coverage: float = 0.0,
    head_start: float = HEAD_START,
) -> None:
    """Scan splits and print what was found beside what is published; Failed below `min_coverage` of a split."""
    if not 0 <= min_coverage <= 1:
        raise UserError(f"--min-coverage is {min_coverage}; it is a share of the published clips, from 0 to 1")
    named = list(
        dict.fromkeys((corpus.name, split) for corpus, splits in map(parse_source, sources) for split in splits)
    )
    # A corpus named without a split means those of its splits that are there; a split named is demanded.
    whole = {source for source in sources if ":" not in source}
    wanted = [(c, s) for c, s in named if c not in whole or readable(root, c, s)]
    for corpus in whole - {c for c, _ in wanted}:
        first_clip(root, corpus, load_corpus(corpus).splits[0])
    begin = time.perf_counter()
    with Executor(workers, address, head_start) as executor, Bars() as bars:
        results = scan_all(wanted, root, executor, bars)
    numbers = ("clips", "published", "coverage", "without audio", "passed over", "length", "bytes")
    made = table(f"Scanned in {time.perf_counter() - begin:.1f} s", "split", *numbers, "why", right=numbers)
    for (corpus, split), result in results.items():
        made.add_row(
            f"{corpus}:{split}",
            f"{result.clips:,}",
            f"{result.published:,}",
            f"{result.coverage:.1%}",
            f"{result.missing:,}",
            f"{sum(result.refused.values()):,}",
            hours(result.seconds),
            size(result.bytes),
            ", ".join(f"{reason} {count:,}" for reason, count in result.refused.items()),
        )
    console.print(made)
    for (corpus, split), result in results.items():
        if result.absent:
            more = f" and {result.missing - len(result.absent):,} more" if result.missing > len(result.absent) else ""
            console.print(f"[dim]{corpus}:{split} lacks the audio of {', '.join(result.absent)}{more}[/]")
    for corpus in sorted({c for c, _ in results}):
        for line in merge([result.annotations for (c, _), result in results.items() if c == corpus]).told(corpus):
            console.print(line, markup=False)
    short = [f"{c}:{s} {result.coverage:.1%}" for (c, s), result in results.items() if result.coverage < min_coverage]
    if short:
        raise Failed(f"below --min-coverage {min_coverage:.1%}: {', '.join(short)}; fetch what is missing, or lower it")


def first_clip(root: str, corpus: str, split: str) -> None:
    """Read the first clip of a split: UserError if its files are not as published."""
    next(load_corpus(corpus).clips(raw_folder(root, corpus), split, lambda *_: None), None)


def readable(root: str, corpus: str, split: str) -> bool:
    """Whether the published files of a split are there."""
    try:
        first_clip(root, corpus, split)
    except UserError:
        return False
    return True


def build(
    recipe: str,
    root: str,
    out: str,
    workers: int | None = None,
    address: str = "local",
    shard_mb: float = 256,
    budget: float = 0.05,
    trusted: bool = False,
    retry: bool = False,
    head_start: float = HEAD_START,
) -> None:
    """Build a dataset and print what became of every clip."""
    begin = time.perf_counter()
    with Executor(workers, address, head_start) as executor, Bars() as bars:
        built = run_build(
            load_recipe(recipe),
            root,
            out,
            executor=executor,
            shard_bytes=round(shard_mb * 2**20),
            budget=budget,
            trusted=trusted,
            retry=retry,
            watch=bars,
            tell=lambda line: console.print(line, markup=False),
        )
    show_work(built, time.perf_counter() - begin)
    show_sources(built.sources)
    for source in built.sources:
        if words := sum(source.phones.values()):
            told = ", ".join(f"{name} {count:,}" for name, count in source.phones.items())
            unknown = source.phones.get("unknown", 0) / words
            console.print(f"[dim]phones of {source.corpus}:{source.split}: {told}; {unknown:.2%} out of vocabulary[/]")
    console.print(f"[dim]digest {built.digest}[/]")


def show_work(built: Built, took: float) -> None:
    """Print what a build did, and how fast."""
    if built.packed_shards == 0 and built.kept_shards == 0 and built.resumed:
        console.print(f"{built.dataset} is complete, nothing to do ({took:.1f} s)")
        return
    resumed = ", the rest by an earlier run" if built.resumed else ""
    kept = f", {built.kept_shards:,} kept" if built.kept_shards else ""
    console.print(
        f"{built.dataset}: {built.packed_shards:,} shards written{kept}{resumed}, read back and verified ({took:.1f} s)"
    )
    if not built.packed_shards:
        return
    words = {"copy": "copied", "transcode": "transcoded", "render": "rendered"}
    done = [f"{words[action]} {hours(samples / RATE)}" for action, samples in sorted(built.actions.items())]
    seconds = sum(built.actions.values()) / RATE
    done += [f"audio of {built.kept_clips:,} clips taken over"] if built.kept_clips else []
    speed = f"{size(built.written / took)}/s, {seconds / took:,.0f} times real time"
    console.print(f"[dim]{', '.join(done) or 'no audio'}; {size(built.written)} written, {speed}[/]")


def gc(dataset: str, dry_run: bool = False) -> None:
    """Remove what killed or changed builds left in the folder of a dataset, and print it."""
    found = collect(dataset, dry_run)
    for orphan in found[:50]:
        console.print(f"{orphan.path}  {size(orphan.bytes)}  [dim]{orphan.why}[/]")
    if len(found) > 50:
        console.print(f"... and {len(found) - 50} more")
    total = size(sum(orphan.bytes for orphan in found))
    verb = "would be removed" if dry_run else "removed"
    console.print(f"{dataset}: {len(found):,} files {verb}, {total}" if found else f"{dataset}: nothing to remove")


def show_sources(sources: tuple[Source, ...]) -> None:
    """Print the funnel of every split: found = packed + quarantined + excluded."""
    made = table(
        "",
        *("split", "found", "packed", "quarantined", "excluded", "length", "why"),
        right=("found", "packed", "quarantined", "excluded", "length"),
    )
    for source in sources:
        made.add_row(
            f"{source.corpus}:{source.split}",
            f"{source.found:,}",
            f"{source.packed:,}",
            f"{source.quarantined:,}",
            f"{source.excluded:,}",
            hours(source.seconds),
            ", ".join(f"{reason} {count}" for reason, count in sorted(source.reasons.items())),
        )
    console.print(made)


def price(recipe: str, root: str, shard_mb: float = 256, trusted: bool = False, per_hour: float = 0.0) -> None:
    """Print what a build would read, write and cost, from the manifests, or from what is published where none are."""
    made = estimate(load_recipe(recipe), root, trusted=trusted)
    console.print(estimate_table(made, per_hour, shard_mb))
    told = f"{made.hours:,.0f} h of audio, {made.cpu_hours:.1f} cpu-hours, {size(made.bytes_out)}"
    console.print(f"{told}; nothing was written")


def verify(
    dataset: str,
    subset: str = "",
    workers: int | None = None,
    address: str = "local",
    head_start: float = HEAD_START,
) -> None:
    """Verify a dataset and print what was wrong; Failed if anything was."""
    begin = time.perf_counter()
    verdict = run_verify(dataset, share=parse_share(subset), executor=Executor(workers, address, head_start))
    for problem in verdict.problems[:50]:
        console.print(problem, markup=False)
    if len(verdict.problems) > 50:
        console.print(f"... and {len(verdict.problems) - 50} more")
    manifest = Dataset(dataset).manifest
    read = (
        f"{verdict.samples:,} samples in {verdict.shards} shards read back and decoded"
        if verdict.shards
        else "no data read"
    )
    if verdict.problems:
        raise Failed(f"{dataset}: {len(verdict.problems)} things are wrong ({read}); build it anew from its corpora")
    packed = sum(source.packed for source in manifest.sources)
    console.print(f"{dataset} is whole: {packed:,} samples, {read} ({time.perf_counter() - begin:.1f} s)")


def parse_share(text: str) -> float:
    """Read ``5%`` or ``0.05`` as a share; UserError for anything else."""
    if not text:
        return 0.0
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        raise UserError(f"--data-subset is {text!r}; write a share such as 5%") from None
    if not 0 < share <= 1:
        raise UserError(f"--data-subset is {text!r}; it must be above 0% and at most 100%")
    return share
