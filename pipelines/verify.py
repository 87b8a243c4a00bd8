"""Verify: hold a dataset against its own index, by size alone, for a share of its samples, or for every byte."""

from __future__ import annotations

import hashlib

import msgspec
import pyarrow.compute as pc

from manifests import draw, files
from manifests.errors import UserError
from manifests.tables import read_table
from pipelines.executor import Executor
from shards.audio import Refused, pcm_md5, read_flac
from shards.index import FORMAT, Dataset, File, Source, digest_of
from shards.sample import Sample, members


class VerifyTask(msgspec.Struct, frozen=True, kw_only=True):
    """One shard to read back."""

    dataset: str
    index: str
    shard: File
    decode: bool


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a verification read, and everything that was wrong."""

    samples: int
    shards: int
    bytes: int
    problems: tuple[str, ...]


def verify_index(dataset: Dataset) -> list[str]:
    """Check that every file is there with the size dataset.json gives, and that indexes and counts agree with it."""
    problems = []
    for source in dataset.manifest.sources:
        name = f"{source.corpus}:{source.split}"
        if source.found != source.packed + source.quarantined + source.excluded:
            problems.append(
                f"{name}: {source.found} clips found, but packed, quarantined and excluded make another sum"
            )
        problems += [problem for file in source.shards if (problem := size_problem(dataset.url, file))]
        problems += index_problems(dataset, source)
    indexes = [source.index for source in dataset.manifest.sources]
    if digest_of(indexes) != dataset.digest:
        problems.append("dataset.json: its digest is not that of its indexes")
    return problems


def size_problem(url: str, file: File) -> str | None:
    """Say what is wrong with the size of one file, if anything."""
    size = files.size(files.join(url, file.path))
    if size is None:
        return f"{file.path}: missing"
    return None if size == file.bytes else f"{file.path}: {size} bytes, dataset.json says {file.bytes}"


def index_problems(dataset: Dataset, source: Source) -> list[str]:
    """Check one index file against dataset.json."""
    for file in (source.index, source.quarantine):
        problem = size_problem(dataset.url, file)
        if (
            problem is None
            and hashlib.sha256(files.read_bytes(files.join(dataset.url, file.path))).hexdigest() != file.sha256
        ):
            problem = f"{file.path}: its sha256 is not the one in dataset.json"
        if problem:
            return [problem]
    table = dataset.table(source.corpus, source.split, ["key", "shard"])
    problems = []
    if table.num_rows != source.packed:
        problems.append(f"{source.index.path}: {table.num_rows} rows, dataset.json says {source.packed}")
    if len(pc.unique(table["key"])) != table.num_rows:
        problems.append(f"{source.index.path}: a key stands in it twice")
    if set(pc.unique(table["shard"]).to_pylist()) != {file.path for file in source.shards}:
        problems.append(f"{source.index.path}: it names other shards than dataset.json")
    return problems


def verify_shard(task: VerifyTask) -> Verdict:
    """Read one shard whole and compare every byte with the index; with `decode`, the audio's samples too."""
    index = read_table(files.join(task.dataset, task.index), FORMAT)
    rows = index.filter(pc.equal(index["shard"], task.shard.path)).to_pylist()
    try:
        tar = files.read_bytes(files.join(task.dataset, task.shard.path))
    except FileNotFoundError:
        return Verdict(samples=0, shards=1, bytes=0, problems=(f"{task.shard.path}: missing",))
    problems = []
    if len(tar) != task.shard.bytes or hashlib.sha256(tar).hexdigest() != task.shard.sha256:
        problems.append(f"{task.shard.path}: its {len(tar)} bytes are not those that were written")
    try:
        found = [(placed.name, placed.offset, placed.length) for placed, _ in members(tar, task.shard.path)]
    except UserError as error:
        found = []
        problems.append(str(error))
    expected = [
        (f"{row['key']}.{kind}", row[f"{kind}_offset"], row[f"{kind}_bytes"])
        for row in rows
        for kind in ("flac", "json")
    ]
    if found and found != expected:
        problems.append(f"{task.shard.path}: its members are not those of the index, in that order")
    for row in rows:
        problems += sample_problems(tar, row, task)
    return Verdict(samples=len(rows), shards=1, bytes=len(tar), problems=tuple(problems))


def sample_problems(tar: bytes, row: dict[str, object], task: VerifyTask) -> list[str]:
    """Compare one sample with its index row."""
    where = f"{task.shard.path}: sample {row['key']!r}"

    def content(kind: str) -> bytes:
        start, length = row[f"{kind}_offset"], row[f"{kind}_bytes"]
        assert isinstance(start, int) and isinstance(length, int)
        return tar[start : start + length]

    problems = [
        f"{where}: its {kind} is not what was written"
        for kind in ("flac", "json")
        if hashlib.sha256(content(kind)).hexdigest() != row[f"{kind}_sha256"]
    ]
    if problems:
        return problems
    sample = msgspec.json.decode(content("json"), type=Sample)
    for name in ("key", "id", "corpus", "split", "samples", "seconds", "text"):
        if getattr(sample, name) != row[name]:
            problems.append(f"{where}: {name} is {getattr(sample, name)!r} in the shard, {row[name]!r} in the index")
    if task.decode:
        try:
            pcm = read_flac(content("flac"), str(row["key"]))
            if len(pcm) != row["samples"] or pcm_md5(pcm) != row["pcm_md5"]:
                problems.append(f"{where}: it decodes to other samples than were stored")
        except Refused as refused:
            problems.append(f"{where}: {refused}")
    return problems


def shard_tasks(dataset: str, sources: tuple[Source, ...], *, decode: bool, share: float = 1.0) -> list[VerifyTask]:
    """List the shards to read back; with a `share` below 1, a fixed choice of them, at least one."""
    tasks = [
        VerifyTask(dataset=files.absolute(dataset), index=source.index.path, shard=shard, decode=decode)
        for source in sources
        for shard in source.shards
    ]
    chosen = sorted(tasks, key=lambda task: draw.number("verify", task.shard.path))[: max(1, round(share * len(tasks)))]
    return sorted(chosen, key=lambda task: task.shard.path)


def verify(url: str, *, share: float = 0.0, executor: Executor | None = None) -> Verdict:
    """Verify a dataset: indexes and sizes, and a `share` of its shards byte by byte, decoded, on Ray."""
    if not 0 <= share <= 1:
        raise UserError(f"cannot verify a share of {share:.0%} of the data; give one between 0% and 100%")
    dataset = Dataset(url)
    problems = verify_index(dataset)
    verdicts: list[Verdict] = []
    if share > 0:
        tasks = shard_tasks(dataset.url, dataset.manifest.sources, decode=True, share=share)
        with executor or Executor() as cluster:
            verdicts = [verdict for _, verdict in cluster.run(verify_shard, tasks)]
    return Verdict(
        samples=sum(verdict.samples for verdict in verdicts),
        shards=len(verdicts),
        bytes=sum(verdict.bytes for verdict in verdicts),
        problems=(*problems, *sorted(problem for verdict in verdicts for problem in verdict.problems)),
    )
