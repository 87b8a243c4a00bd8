"""Build: scan what is not scanned, plan, pack, verify, and write dataset.json last. Running it again resumes."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterable, Iterator

import msgspec

from manifests import Recipe, TooManyRefusals, UserError, files, load_corpus
from pipelines.executor import Executor, Watch
from pipelines.finish import finish
from pipelines.layout import SHARD_BYTES, Plan, ShardTask, make_plan, tasks_of
from pipelines.pack import Commit, pack, read_commit
from pipelines.scan import ScanResult, ScanTask, manifest_path, raw_folder, scan
from shards.index import Dataset, Source

BUDGET = 0.05
GRACE = 10
"""So many clips may be refused before the budget counts: a share of a handful says nothing."""


class Built(msgspec.Struct, frozen=True, kw_only=True):
    """What a build did."""

    dataset: str
    digest: str
    resumed: bool
    """Whether some or all of the work had been done by an earlier run."""
    packed_shards: int
    """How many shards this run wrote; 0 if there was nothing to do."""
    sources: tuple[Source, ...]


def scan_missing(
    sources: list[tuple[str, str]], root: str, executor: Executor, watch: Watch
) -> dict[tuple[str, str], ScanResult]:
    """Scan the splits that have no manifest yet, after checking that all their files are there."""
    todo = [source for source in sources if not files.exists(manifest_path(root, *source))]
    return scan_all(todo, root, executor, watch)


def scan_all(
    sources: list[tuple[str, str]], root: str, executor: Executor, watch: Watch
) -> dict[tuple[str, str], ScanResult]:
    """Scan splits on Ray; UserError before any work if the published files of one are not there."""
    for corpus, split in sources:
        # Readers raise before their first clip if the tree is not as published.
        next(load_corpus(corpus).clips(raw_folder(root, corpus), split, lambda *_: None), None)
    if sources:
        files.require_writable(files.join(root, "manifests"))
    results = {}
    tasks = [ScanTask(root=files.absolute(root), corpus=corpus, split=split) for corpus, split in sources]
    for task, result in executor.run(scan, tasks):
        results[task.corpus, task.split] = result
        watch("scan", len(results), len(tasks))
    return {source: results[source] for source in sources}


def build(
    recipe: Recipe,
    root: str,
    out: str,
    *,
    executor: Executor,
    shard_bytes: int = SHARD_BYTES,
    budget: float = BUDGET,
    watch: Watch = lambda step, done, total: None,
) -> Built:
    """Build the dataset of `recipe` in the folder `out` from the corpora below `root`; finish what a killed run began.

    UserError if a corpus is not there or `out` holds something else; TooManyRefusals beyond `budget`, a share of
    the clips.
    """
    files.require_writable(out)
    if not files.is_folder(root):
        raise UserError(f"there is no folder {root!r}; it should hold raw/<corpus>/ as published")
    refuse_foreign(out, recipe)
    scan_missing(list(recipe.sources()), root, executor, watch)
    plan = make_plan(recipe, root, shard_bytes)
    done = finished(out, plan)
    if done is not None:
        files.remove_tree(files.join(out, "build"))
        return Built(dataset=out, digest=done.digest, resumed=True, packed_shards=0, sources=done.manifest.sources)
    with locked(out):
        files.remove_attempts(out)
        freeze(out, plan)
        tasks = tasks_of(plan, root, out)
        commits = {task.path: commit for task in tasks if (commit := committed(task)) is not None}
        resumed = len(commits)
        allow = Allowance(plan, budget, commits.values())
        todo = [task for task in tasks if task.path not in commits]
        watch("pack", len(commits), len(tasks))
        for task, commit in executor.run(pack, todo):
            commits[task.path] = commit
            watch("pack", len(commits), len(tasks))
            allow.spend(commit)
        manifest = finish(plan, out, tasks, commits, executor, watch)
    files.remove_tree(files.join(out, "build"))
    files.remove_attempts(out)
    return Built(
        dataset=out, digest=manifest.digest, resumed=resumed > 0, packed_shards=len(todo), sources=manifest.sources
    )


class Allowance:
    """The budget of refusals: how many clips may have bad audio before the build stops."""

    def __init__(self, plan: Plan, budget: float, commits: Iterable[Commit] = ()) -> None:
        """Allow a share `budget` of all clips of `plan`, less what `commits` have used."""
        if not 0 <= budget <= 1:
            raise UserError(f"--budget is {budget}; it is a share of the clips, from 0 to 1")
        self.clips = sum(source.clips for source in plan.sources)
        self.most = max(GRACE, int(budget * self.clips))
        self.used = 0
        self.reasons: dict[str, int] = {}
        for commit in commits:
            self.spend(commit)

    def spend(self, commit: Commit) -> None:
        """Count the refusals of one shard; TooManyRefusals beyond the budget."""
        for refusal in commit.refusals:
            if refusal.verdict == "quarantined":
                self.used += 1
                self.reasons[refusal.reason] = self.reasons.get(refusal.reason, 0) + 1
        if self.used > self.most:
            reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(self.reasons.items()))
            raise TooManyRefusals(
                f"{self.used} of {self.clips} clips have bad audio ({reasons}), the budget is {self.most}; "
                "look into the input, or raise --budget and run again: what is packed stays"
            )


def refuse_foreign(out: str, recipe: Recipe) -> None:
    """Raise UserError if the folder `out` holds what no run of `recipe` would write."""
    if not files.exists(out):
        return
    if not files.is_folder(out):
        raise UserError(f"{out!r} is a file; give the folder of a dataset, or a new one")
    names = [name for name in files.names(out) if not name.endswith(".tmp")]
    if names and "dataset.json" not in names and "build" not in names:
        raise UserError(f"the folder {out!r} is not empty and holds no dataset ({names[0]} ...); give a new one")
    made_by = recipe_of(out)
    if made_by and made_by != recipe.name:
        raise UserError(f"{out!r} was made by the recipe {made_by!r}, not {recipe.name!r}; give another --out")


def recipe_of(out: str) -> str:
    """Return the name of the recipe that made, or began to make, the dataset in `out`; empty if there is none."""
    if files.exists(files.join(out, "dataset.json")):
        return Dataset(out).manifest.recipe
    frozen = frozen_plan(out)
    return frozen.recipe if frozen else ""


def frozen_plan(out: str) -> Plan | None:
    """Return the plan of an unfinished build."""
    place = files.join(out, "build", "plan.json")
    return msgspec.json.decode(files.read_bytes(place), type=Plan) if files.exists(place) else None


def finished(out: str, plan: Plan) -> Dataset | None:
    """Return the dataset in `out` if it is what `plan` makes, None if there is none; UserError if it is another."""
    if not files.exists(files.join(out, "dataset.json")):
        return None
    dataset = Dataset(out)
    if dataset.manifest.plan != plan.digest:
        made = dataset.manifest
        changed = "its corpora were scanned anew and differ"
        if made.tools != plan.tools:
            changed = f"it was made with {told(made.tools, plan.tools)}"
        elif [(s.corpus, s.split, s.tasks) for s in made.sources] != [
            (s.corpus, s.split, s.tasks) for s in plan.sources
        ]:
            changed = "the recipe names other corpora, splits or tasks"
        elif [s.found for s in made.sources] == [s.clips for s in plan.sources]:
            changed = "its corpora were scanned anew and differ, or --shard-mb is another"
        raise UserError(f"{out!r} holds a dataset of another plan: {changed}; give another --out")
    return dataset


def told(old: dict[str, str], new: dict[str, str]) -> str:
    """Name the tools that differ: ``soxr 1.0 (now 1.1)``."""
    names = sorted(old.keys() | new.keys())
    return ", ".join(f"{n} {old.get(n, 'none')} (now {new.get(n, 'none')})" for n in names if old.get(n) != new.get(n))


def freeze(out: str, plan: Plan) -> None:
    """Write the plan before any work; UserError if an unfinished build in `out` has another."""
    frozen = frozen_plan(out)
    if frozen is None:
        files.write_whole(files.join(out, "build", "plan.json"), msgspec.json.encode(plan, order="sorted"))
    elif frozen.digest != plan.digest:
        names = ("tools", "shard_bytes", "sources", "title", "format")
        changed = [name for name in names if getattr(frozen, name) != getattr(plan, name)]
        raise UserError(
            f"an unfinished build in {out!r} has another plan ({', '.join(changed)} changed since); "
            "give another --out, or remove the folder"
        )


@contextlib.contextmanager
def locked(out: str) -> Iterator[None]:
    """Hold a local dataset folder for this process, until it ends or dies; UserError if another build holds it."""
    if not files.is_local(out):
        yield
        return
    folder = os.path.join(files.local(out), "build")
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "lock"), "wb") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"another build is writing to {out!r}; wait for it, or give another --out") from None
        yield


def committed(task: ShardTask) -> Commit | None:
    """Return the commit of a shard if it was committed under this plan and its tar is there whole."""
    place = files.join(task.dataset, task.commit)
    if not files.exists(place):
        return None
    commit, _ = read_commit(place)
    if commit.plan != task.plan:
        return None
    if commit.shard and files.size(files.join(task.dataset, commit.shard.path)) != commit.shard.bytes:
        return None
    return commit
