"""The plan of a build, frozen before any work: which clips go into which shard. One plan, one set of bytes.

A clip's place is the hash of its id: shards hold equal slices of the hashes, in their order. So reading shards one
after the other is already mixed, and a clip that comes or goes changes its own shard, not those behind it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from manifests import TASKS, Recipe, UserError, files, load_corpus
from manifests.phones import source as phone_source
from manifests.tables import FORMAT as MANIFEST_FORMAT
from manifests.tables import SEEN, read_metadata, read_table
from manifests.tasks import digest_of_task
from pipelines.scan import manifest_path, seen_path
from shards.audio import LEVEL, versions
from shards.index import FORMAT

SHARD_BYTES = 256 * 2**20
BYTES_PER_SECOND = 17_500
"""What a second of 16 kHz FLAC takes on average: 62 MB an hour. Only the sizes of shards depend on it."""
PACKER = "2"
"""Raised whenever the same clip would be stored or instructed otherwise: what is packed is then packed anew."""


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
    shards: int
    """Into how many slices its clips are dealt; a slice without a clip makes no shard."""

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
    trusted: bool
    """Whether FLAC of verified archives is copied without decoding it: then its quality is not measured."""
    tools: dict[str, str]
    asks: dict[str, str]
    """Task to the digest of its prompts and of the rule of its answers."""
    sources: tuple[SourcePlan, ...]

    @property
    def digest(self) -> str:
        """sha256 of the plan."""
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()


class Frozen(msgspec.Struct, frozen=True, kw_only=True):
    """A plan and the state of the files it was made from: a build keeps to it, and later ones are held against it."""

    plan: Plan
    seen: dict[str, str]
    """Split to the digest of what its scan saw of the files on this machine."""

    @property
    def digest(self) -> str:
        """What commits are valid for."""
        return hashlib.sha256(msgspec.json.encode((self.plan.digest, self.seen), order="sorted")).hexdigest()


class Lot(msgspec.Struct, frozen=True, kw_only=True):
    """One shard: the row group of the split's laid-out rows that it takes."""

    number: int
    group: int
    clips: int
    print: str
    """Digest of its rows and of all else that determines its bytes, the state of its files included."""


class ShardTask(msgspec.Struct, frozen=True, kw_only=True):
    """One shard for a worker: where everything is, and which rows to take."""

    root: str
    dataset: str
    frozen: str
    """What the commit is valid for: the digest of the plan and of what the scans saw."""
    corpus: str
    split: str
    tasks: tuple[str, ...]
    evaluated: tuple[str, ...]
    trusted: bool
    shards: int
    lot: Lot
    old: str = ""
    """Folder of an earlier build whose audio may be taken over where it is the same; empty if there is none."""

    @property
    def path(self) -> str:
        """The shard's path in the dataset."""
        return shard_path(self.corpus, self.split, self.lot.number)

    @property
    def commit(self) -> str:
        """The path of its commit record in the dataset."""
        return commit_path(self.frozen, self.corpus, self.split, self.lot.number)


def shard_path(corpus: str, split: str, number: int) -> str:
    """Return the path of a shard in its dataset."""
    return f"shards/{corpus}/{split}-{number:06d}.tar"


def commit_path(frozen: str, corpus: str, split: str, number: int) -> str:
    """Return the path of a commit record in its dataset.

    Each frozen plan has a folder of its own: a worker of a plan that was given up commits where nobody looks.
    """
    return f"build/commits/{frozen[:12]}/{corpus}/{split}-{number:06d}.parquet"


def rows_path(corpus: str, split: str) -> str:
    """Return the path, in a dataset that is being built, of a split's clips in the order of its shards."""
    return f"build/rows/{corpus}/{split}.parquet"


def tools(corpora: Iterable[str]) -> dict[str, str]:
    """Name the libraries and settings that shape the bytes of a dataset of these corpora."""
    made = versions() | {"flac_level": f"{LEVEL * 8:.0f}", "packer": PACKER, "phones": phone_source()}
    if any(load_corpus(name).facts.spoken for name in corpora):
        from shards.speech import engine_versions

        made |= engine_versions()
    return made


def make_plan(recipe: Recipe, root: str, shard_bytes: int = SHARD_BYTES, trusted: bool = False) -> Plan:
    """Plan the build of `recipe` from the manifests below `root`."""
    if shard_bytes < 2**16:
        raise UserError(f"a shard of {shard_bytes} bytes is too small; give at least 65536")
    return Plan(
        format=FORMAT,
        recipe=recipe.name,
        title=recipe.title,
        shard_bytes=shard_bytes,
        trusted=trusted,
        tools=tools({corpus for corpus, _ in recipe.sources()}),
        asks={task: digest_of_task(TASKS[task]) for tasks in recipe.sources().values() for task in sorted(tasks)},
        sources=tuple(plan_source(recipe, root, source, shard_bytes) for source in recipe.sources()),
    )


def plan_source(recipe: Recipe, root: str, source: tuple[str, str], shard_bytes: int) -> SourcePlan:
    """Plan one split: how many shards hold about `shard_bytes` each."""
    place = manifest_path(root, *source)
    table = read_table(place, MANIFEST_FORMAT, ["seconds", "bytes"])
    seconds, sizes = table["seconds"].to_numpy(), table["bytes"].to_numpy()
    weight = float(np.where(seconds == 0, sizes, seconds * BYTES_PER_SECOND).sum())
    return SourcePlan(
        corpus=source[0],
        split=source[1],
        tasks=recipe.sources()[source],
        evaluated=recipe.evaluated(*source),
        manifest=hashlib.sha256(files.read_bytes(place)).hexdigest(),
        clips=table.num_rows,
        shards=max(1, round(weight / shard_bytes)) if table.num_rows else 0,
    )


def seen_digests(plan: Plan, root: str) -> dict[str, str]:
    """Return, for each split, the digest of what its scan saw of the files on this machine; empty if nothing is kept.

    The listing does not count: a file beside those of the split changes it, not the split.
    """
    found = {}
    for source in plan.sources:
        place = seen_path(root, source.corpus, source.split)
        if read_metadata(place):
            seen = read_table(place, (SEEN.metadata or {})[b"format"].decode())
            verified = seen["verified"].to_numpy().tobytes()
            found[source.name] = hashlib.sha256(seen["stamp"].to_numpy().tobytes() + verified).hexdigest()
    return found


def hashes(ids: Iterable[str]) -> NDArray[np.uint64]:
    """Return the place of each id among all hashes, [clips] in [0, 2**64)."""
    joined = b"".join(hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest() for name in ids)
    return np.frombuffer(joined, "<u8")


def slice_of(places: NDArray[np.uint64], shards: int) -> NDArray[np.uint64]:
    """Return the shard that each place falls into, of `shards` equal slices."""
    return ((places >> np.uint64(32)) * np.uint64(shards)) >> np.uint64(32)


def lay_out(plan: Plan, frozen: str, root: str, out: str) -> dict[tuple[str, str], list[Lot]]:
    """Write every split's clips in the order of its shards below `out`, a row group a shard; return the shards.

    UserError, before anything is written, if a clip stands in two splits. What an earlier run laid out for the same
    `frozen` digest is taken as it is.
    """
    named = {(source.corpus, source.split): source for source in plan.sources}
    ids = {key: read_table(manifest_path(root, *key), MANIFEST_FORMAT, ["id", "state"]) for key in named}
    places = {key: hashes(table["id"].to_pylist()) for key, table in ids.items()}
    refuse_twins(ids, places)
    return {key: lay_source(plan, frozen, source, places[key], root, out) for key, source in named.items()}


def refuse_twins(ids: dict[tuple[str, str], pa.Table], places: dict[tuple[str, str], NDArray[np.uint64]]) -> None:
    """Raise UserError if a clip stands in two splits, as in xs and m of GigaSpeech: its key must be unique."""
    usable = {key: pc.equal(table["state"], "ok").to_numpy(zero_copy_only=False) for key, table in ids.items()}
    every = np.concatenate([np.zeros(0, np.uint64), *(places[key][usable[key]] for key in places)])
    values, counts = np.unique(every, return_counts=True)
    if not (counts > 1).any():
        return
    first: dict[str, str] = {}
    for key, table in ids.items():
        twice = np.isin(places[key], values[counts > 1]) & usable[key]
        name = ":".join(key)
        for clip in table["id"].filter(pa.array(twice)).to_pylist():
            if (other := first.setdefault(clip, name)) != name:
                raise UserError(f"the clip {clip!r} is in {other} and in {name}; a recipe can hold only one of them")


def lay_source(
    plan: Plan, frozen: str, source: SourcePlan, places: NDArray[np.uint64], root: str, out: str
) -> list[Lot]:
    """Write one split's clips in the order of its shards, and return the shards."""
    url = files.join(out, rows_path(source.corpus, source.split))
    base = msgspec.json.encode(
        (plan.format, plan.trusted, plan.tools, source.tasks, source.evaluated, [plan.asks[t] for t in source.tasks]),
        order="sorted",
    )
    if lots := read_lots(url, frozen):
        return lots
    table = with_seen(read_table(manifest_path(root, source.corpus, source.split), MANIFEST_FORMAT), root, source)
    order = np.argsort(places, kind="stable")
    numbers, firsts = np.unique(slice_of(places[order], source.shards or 1), return_index=True)
    bounds = [*firsts.tolist(), len(order)]
    schema = table.schema.with_metadata({"format": MANIFEST_FORMAT})
    with files.open_whole(url) as sink, pq.ParquetWriter(sink, schema, compression="zstd", store_schema=True) as writer:
        for group, number in enumerate(numbers.tolist()):
            rows = table.take(pa.array(order[bounds[group] : bounds[group + 1]])).combine_chunks()
            writer.write_table(rows, row_group_size=rows.num_rows)
            lots.append(Lot(number=number, group=group, clips=rows.num_rows, print=fingerprint(rows, base)))
        writer.add_key_value_metadata({"frozen": frozen, "lots": msgspec.json.encode(lots).decode()})
    return lots


def with_seen(table: pa.Table, root: str, source: SourcePlan) -> pa.Table:
    """Return a manifest with what the scan saw of its files, zeros where that is not kept."""
    place = seen_path(root, source.corpus, source.split)
    table = table.combine_chunks()
    if read_metadata(place):
        seen = read_table(place, (SEEN.metadata or {})[b"format"].decode())
        if seen.num_rows == table.num_rows:
            return table.append_column(SEEN.field("stamp"), seen["stamp"]).append_column(
                SEEN.field("verified"), seen["verified"]
            )
    stamps, verified = pa.repeat(pa.scalar(0, pa.int64()), table.num_rows), pa.repeat(pa.scalar(False), table.num_rows)
    return table.append_column(SEEN.field("stamp"), stamps).append_column(SEEN.field("verified"), verified)


def fingerprint(rows: pa.Table, base: bytes) -> str:
    """Return the digest of the rows of a shard and of what else determines its bytes."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema.remove_metadata()) as writer:
        writer.write_table(rows.replace_schema_metadata(None).combine_chunks())
    return hashlib.sha256(base + sink.getvalue()).hexdigest()


def read_lots(url: str, frozen: str = "") -> list[Lot]:
    """Return the shards of laid-out rows; none if they are not there, or not those of the plan `frozen`."""
    told = read_metadata(url)
    if b"lots" not in told or (frozen and told.get(b"frozen", b"").decode() != frozen):
        return []
    return msgspec.json.decode(told[b"lots"], type=list[Lot])
