"""Build: scan what is new, plan, pack, read back, and write dataset.json last. Running it again resumes or renews."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import msgspec

from manifests import Recipe, UserError, files
from manifests.trees import link
from pipelines.budget import BUDGET, Allowance
from pipelines.executor import Executor, Watch
from pipelines.finish import finish
from pipelines.layout import SHARD_BYTES, Frozen, Lot, ShardTask, lay_out, make_plan, seen_digests
from pipelines.pack import Commit, pack, read_commit, read_record, write_commit
from pipelines.place import finished, locked, prepare, refuse_foreign
from pipelines.renew import OLD, commit_in, compatible, kept_shards, read_frozen, remember
from pipelines.rescan import scan_missing
from shards.index import Source


class Built(msgspec.Struct, frozen=True, kw_only=True):
    """What a build did."""

    dataset: str
    digest: str
    resumed: bool
    """Whether some or all of the work had been done by an earlier run."""
    packed_shards: int
    """How many shards this run wrote; 0 if there was nothing to do."""
    kept_shards: int = 0
    """How many shards of an earlier dataset in this place are still right."""
    kept_clips: int = 0
    """Of the clips in the shards written, how many took their audio from an earlier dataset."""
    actions: dict[str, int] = {}
    """What was done to the other clips: copy, transcode or render, to samples of audio."""
    written: int = 0
    """Bytes of the shards written."""
    sources: tuple[Source, ...]


def build(
    recipe: Recipe,
    root: str,
    out: str,
    *,
    executor: Executor,
    shard_bytes: int = SHARD_BYTES,
    budget: float = BUDGET,
    trusted: bool = False,
    retry: bool = False,
    watch: Watch = lambda step, done, total: None,
    tell: Callable[[str], None] = lambda line: None,
) -> Built:
    """Build the dataset of `recipe` in the folder `out` from the corpora below `root`.

    What a killed run began is finished; a dataset whose inputs changed is renewed, and `tell` is told what changed.
    With `trusted`, FLAC of archives that fetch verified is copied without decoding it; with `retry`, clips that were
    refused are tried again. UserError if a corpus is not there or `out` holds something else; TooManyRefusals beyond
    `budget`, a share of the clips.
    """
    files.require_writable(out)
    if not files.is_folder(root):
        raise UserError(f"there is no folder {root!r}; it should hold raw/<corpus>/ as published")
    refuse_foreign(out, recipe)
    scan_missing(list(recipe.sources()), root, executor, watch)
    plan = make_plan(recipe, root, shard_bytes, trusted)
    frozen = Frozen(plan=plan, seen=seen_digests(plan, root))
    if (done := finished(out, frozen, root, retry)) is not None:
        return Built(dataset=out, digest=done.digest, resumed=True, packed_shards=0, sources=done.manifest.sources)
    with locked(out):
        files.remove_attempts(out)
        prepare(out, root, frozen, tell)
        tasks = make_tasks(frozen, root, out)
        kept = keep(out, frozen, tasks, retry)
        commits = {task.path: commit for task in tasks if (commit := committed(task, retry)) is not None}
        begun = len(commits)
        allow = Allowance(plan, budget, commits.values())
        todo = [task for task in tasks if task.path not in commits]
        if kept:
            tell(f"{len(kept):,} of {len(tasks):,} shards are still right, {len(todo):,} are to be written")
        watch("pack", len(commits), len(tasks))
        mine = []
        for task, commit in executor.run(pack, todo):
            commits[task.path] = commit
            mine.append(commit)
            watch("pack", len(commits), len(tasks))
            allow.spend(commit)
        manifest = finish(plan, out, tasks, commits)
        remember(out, root)
    files.remove_attempts(out)
    return Built(
        dataset=out,
        digest=manifest.digest,
        resumed=begun > len(kept),
        packed_shards=len(todo),
        kept_shards=len(kept),
        kept_clips=sum(commit.kept for commit in mine),
        actions=dict(sum((Counter(commit.actions) for commit in mine), Counter[str]())),
        written=sum(commit.shard.bytes for commit in mine if commit.shard),
        sources=manifest.sources,
    )


def make_tasks(frozen: Frozen, root: str, out: str) -> list[ShardTask]:
    """Lay out the clips and list the shards, the largest split first: the last worker must not begin a whole shard."""
    plan, lots = frozen.plan, lay_out(frozen.plan, frozen.digest, root, out)
    before = read_frozen(files.join(out, OLD))
    old = files.absolute(files.join(out, OLD)) if before and compatible(before.plan, plan) else ""
    return [
        ShardTask(
            root=files.absolute(root),
            dataset=files.absolute(out),
            frozen=frozen.digest,
            corpus=source.corpus,
            split=source.split,
            tasks=source.tasks,
            evaluated=source.evaluated,
            trusted=plan.trusted,
            shards=source.shards,
            lot=lot,
            old=old,
        )
        for source in sorted(plan.sources, key=lambda source: -source.clips)
        for lot in lots[source.corpus, source.split]
    ]


def keep(out: str, frozen: Frozen, tasks: list[ShardTask], retry: bool) -> set[str]:
    """Put the shards of an old dataset that are still right into their places, committed; return their paths."""
    old = files.join(out, OLD)
    before = read_frozen(old)
    kept: set[str] = set()
    if before is None:
        return kept
    lots: dict[tuple[str, str], list[Lot]] = {}
    for task in tasks:
        lots.setdefault((task.corpus, task.split), []).append(task.lot)
    mine = {(task.corpus, task.split, task.lot.number): task for task in tasks}
    for corpus, split, lot in kept_shards(old, frozen, lots):
        task = mine[corpus, split, lot.number]
        place = files.join(old, commit_in(before, corpus, split, lot.number))
        record = read_record(place)
        done = files.exists(files.join(out, task.commit))
        if done or record is None or (retry and record.quarantined):
            continue
        if record.shard is not None:
            source = files.join(old if files.is_local(out) else out, record.shard.path)
            if files.size(source) != record.shard.bytes:
                continue
            if files.is_local(out):
                link(source, files.join(out, record.shard.path))
        _, rows = read_commit(place)
        write_commit(files.join(out, task.commit), msgspec.structs.replace(record, frozen=frozen.digest), rows)
        kept.add(task.path)
    return kept


def committed(task: ShardTask, retry: bool) -> Commit | None:
    """Return the commit of a shard if its tar is there whole; with `retry`, only if no clip of it was refused."""
    place = files.join(task.dataset, task.commit)
    commit = read_record(place)
    if commit is None:
        return None
    if commit.shard and files.size(files.join(task.dataset, commit.shard.path)) != commit.shard.bytes:
        files.remove(place)
        return None
    if retry and commit.quarantined:
        files.remove(place)
        return None
    return commit
