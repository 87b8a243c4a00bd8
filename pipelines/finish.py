"""Finish: gather the commits of a build into indexes, write README.md and then dataset.json."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import msgspec
import pyarrow as pa

from manifests import files, load_corpus
from manifests.tables import write_table, write_tables
from pipelines.layout import Plan, ShardTask, SourcePlan
from pipelines.pack import Commit, read_commit
from shards.finishing import publish
from shards.index import FORMAT, QUARANTINE, SCHEMA, Manifest, Source, digest_of, proof


def finish(plan: Plan, out: str, tasks: list[ShardTask], commits: dict[str, Commit]) -> Manifest:
    """Gather the commits into indexes, write README.md and dataset.json."""
    sources = []
    for source in plan.sources:
        mine = sorted((t for t in tasks if (t.corpus, t.split) == (source.corpus, source.split)), key=lambda t: t.path)
        sources.append(gather(source, out, mine, commits))
    manifest = Manifest(
        format=FORMAT,
        recipe=plan.recipe,
        title=plan.title,
        plan=plan.digest,
        digest=digest_of([source.index for source in sources]),
        sources=tuple(sources),
        tools=plan.tools,
    )
    return publish(out, manifest)


def rows_of(out: str, tasks: list[ShardTask]) -> Iterator[pa.Table]:
    """Yield the index rows of shard after shard: of a large split they would not all fit into memory."""
    for task in tasks:
        yield read_commit(files.join(out, task.commit))[1]


def gather(source: SourcePlan, out: str, tasks: list[ShardTask], commits: dict[str, Commit]) -> Source:
    """Write the index and the quarantine of one split from its commits."""
    mine = [commits[task.path] for task in tasks]
    index = f"index/{source.corpus}/{source.split}.parquet"
    quarantine = f"quarantine/{source.corpus}/{source.split}.parquet"
    refusals = [refusal for commit in mine for refusal in commit.refusals]
    write_tables(files.join(out, index), rows_of(out, tasks), SCHEMA)
    rows = [msgspec.structs.asdict(refusal) for refusal in refusals]
    write_table(files.join(out, quarantine), pa.Table.from_pylist(rows, schema=QUARANTINE))
    corpus = load_corpus(source.corpus)
    reasons: dict[str, int] = {}
    for refusal in refusals:
        reasons[refusal.reason] = reasons.get(refusal.reason, 0) + 1
    skipped: dict[str, dict[str, int]] = {}
    for commit in mine:
        for task, counts in commit.skipped.items():
            for reason, count in counts.items():
                skipped.setdefault(task, {})[reason] = skipped.get(task, {}).get(reason, 0) + count
    made = Source(
        corpus=source.corpus,
        split=source.split,
        tasks=source.tasks,
        found=sum(commit.found for commit in mine),
        packed=sum(commit.packed for commit in mine),
        quarantined=sum(commit.quarantined for commit in mine),
        excluded=sum(len(commit.refusals) - commit.quarantined for commit in mine),
        reasons=reasons,
        skipped=skipped,
        phones=dict(sorted(sum((Counter(commit.phones) for commit in mine), Counter[str]()).items())),
        seconds=sum(commit.seconds for commit in mine),
        license=corpus.facts.license,
        published_clips=corpus.split(source.split).clips,
        index=proof(out, index),
        quarantine=proof(out, quarantine),
        shards=tuple(commit.shard for commit in mine if commit.shard),
    )
    if made.found != source.clips or made.found != made.packed + made.quarantined + made.excluded:
        raise RuntimeError(f"{source.name}: {source.clips} clips were planned, {made} came out")
    return made
