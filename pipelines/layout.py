"""The plan of a build, frozen before any work: which clips go into which shard. One plan, one set of bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec
import pyarrow.compute as pc

from manifests import Recipe, UserError, files, load_corpus
from manifests.phones import source as phone_source
from manifests.tables import FORMAT as MANIFEST_FORMAT
from manifests.tables import read_table
from pipelines.scan import manifest_path
from shards.audio import LEVEL, versions
from shards.index import FORMAT

SHARD_BYTES = 256 * 2**20
BYTES_PER_SECOND = 17_500
"""What a second of 16 kHz FLAC takes on average: 62 MB an hour. Only the sizes of shards depend on it."""


class ShardPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One shard: which rows of its split's manifest it takes."""

    number: int
    first: int
    count: int


class SourcePlan(msgspec.Struct, frozen=True, kw_only=True):
    """One split of one corpus."""

    corpus: str
    split: str
    tasks: tuple[str, ...]
    evaluated: tuple[str, ...]
    """Those of the tasks that no stage of training asks."""
    manifest: str
    """sha256 of the manifest file."""
    clips: int
    shards: tuple[ShardPlan, ...]

    @property
    def name(self) -> str:
        """``corpus:split``."""
        return f"{self.corpus}:{self.split}"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that determines the bytes of a dataset."""

    format: str
    recipe: str
    title: str
    shard_bytes: int
    tools: dict[str, str]
    sources: tuple[SourcePlan, ...]

    @property
    def digest(self) -> str:
        """sha256 of the plan."""
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()


class ShardTask(msgspec.Struct, frozen=True, kw_only=True):
    """One shard for a worker: where everything is, and which rows to take."""

    root: str
    dataset: str
    plan: str
    corpus: str
    split: str
    tasks: tuple[str, ...]
    evaluated: tuple[str, ...]
    shard: ShardPlan

    @property
    def path(self) -> str:
        """The shard's path in the dataset."""
        return f"shards/{self.corpus}/{self.split}-{self.shard.number:06d}.tar"

    @property
    def commit(self) -> str:
        """The path of its commit record in the dataset."""
        return f"build/commits/{self.corpus}/{self.split}-{self.shard.number:06d}.parquet"


def tools(corpora: Iterable[str]) -> dict[str, str]:
    """Name the libraries and settings that shape the bytes of a dataset of these corpora."""
    made = versions() | {"flac_level": f"{LEVEL * 8:.0f}", "phones": phone_source()}
    if any(load_corpus(name).facts.spoken for name in corpora):
        from shards.speech import engine_versions

        made |= engine_versions()
    return made


def make_plan(recipe: Recipe, root: str, shard_bytes: int = SHARD_BYTES) -> Plan:
    """Plan the build of `recipe` from the manifests below `root`."""
    if shard_bytes < 2**16:
        raise UserError(f"a shard of {shard_bytes} bytes is too small; give at least 65536")
    refuse_twins(recipe, root)
    return Plan(
        format=FORMAT,
        recipe=recipe.name,
        title=recipe.title,
        shard_bytes=shard_bytes,
        tools=tools({corpus for corpus, _ in recipe.sources()}),
        sources=tuple(plan_source(recipe, root, source, shard_bytes) for source in recipe.sources()),
    )


def refuse_twins(recipe: Recipe, root: str) -> None:
    """Raise UserError if a clip stands in two splits, as in xs and m of GigaSpeech: its key must be unique."""
    first: dict[str, str] = {}
    for corpus, split in recipe.sources():
        table = read_table(manifest_path(root, corpus, split), MANIFEST_FORMAT, ["id", "state"])
        name = f"{corpus}:{split}"
        for clip in table.filter(pc.equal(table["state"], "ok"))["id"].to_pylist():
            if (other := first.setdefault(clip, name)) != name:
                raise UserError(f"the clip {clip!r} is in {other} and in {name}; a recipe can hold only one of them")


def plan_source(recipe: Recipe, root: str, source: tuple[str, str], shard_bytes: int) -> SourcePlan:
    """Cut one split into shards of about equal bytes."""
    place = manifest_path(root, *source)
    table = read_table(place, MANIFEST_FORMAT, ["seconds", "bytes"])
    seconds, sizes = table["seconds"].to_pylist(), table["bytes"].to_pylist()
    weights = [size if length == 0 else length * BYTES_PER_SECOND for length, size in zip(seconds, sizes, strict=True)]
    return SourcePlan(
        corpus=source[0],
        split=source[1],
        tasks=recipe.sources()[source],
        evaluated=recipe.evaluated(*source),
        manifest=hashlib.sha256(files.read_bytes(place)).hexdigest(),
        clips=len(weights),
        shards=tuple(cut(weights, shard_bytes)),
    )


def cut(weights: list[float], target: float) -> Iterable[ShardPlan]:
    """Cut rows into consecutive shards of about equal weight, none much above `target`; every row is in one."""
    if not weights:
        return
    number = max(1, round(sum(weights) / target))
    share = sum(weights) / number
    first, filled, made = 0, 0.0, 0
    for row, weight in enumerate(weights):
        # A row belongs to the shard in which its middle falls.
        if row > first and filled + weight / 2 >= share * (made + 1):
            yield ShardPlan(number=made, first=first, count=row - first)
            first, made = row, made + 1
        filled += weight
    yield ShardPlan(number=made, first=first, count=len(weights) - first)


def tasks_of(plan: Plan, root: str, dataset: str) -> list[ShardTask]:
    """List the shards of a plan, the largest split first, so that the last worker does not start on a whole shard."""
    return [
        ShardTask(
            root=files.absolute(root),
            dataset=files.absolute(dataset),
            plan=plan.digest,
            corpus=source.corpus,
            split=source.split,
            tasks=source.tasks,
            evaluated=source.evaluated,
            shard=shard,
        )
        for source in sorted(plan.sources, key=lambda source: -source.clips)
        for shard in source.shards
    ]
