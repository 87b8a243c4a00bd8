"""Verify: hold a dataset against its own index, by size alone, for a share of its samples, or for every byte."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import pyarrow.compute as pc
from isal import isal_zlib

from manifests import draw, files
from manifests.errors import UserError
from manifests.tables import read_table
from manifests.trees import is_link
from pipelines.executor import Executor
from pipelines.head_start import stop_if_told
from shards.audio import Refused, pcm_md5, read_flac
from shards.index import FORMAT, Dataset, File, Source, digest_of, untrue
from shards.sample import Sample, Tape, members


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
    problems += stray_problems(dataset)
    indexes = [source.index for source in dataset.manifest.sources]
    if digest_of(indexes) != dataset.digest:
        problems.append("dataset.json: its digest is not that of its indexes")
    return problems


def stray_problems(dataset: Dataset) -> list[str]:
    """Name shards that no index knows: a reader that takes all files of the folder would take them, too."""
    known = {shard.path for source in dataset.manifest.sources for shard in source.shards}
    folder = files.join(dataset.url, "shards")
    found = {f"shards/{name}" for name in files.walk(folder)}
    return [f"{path}: not in dataset.json; salmonn gc removes it" for path in sorted(found - known)]


def size_problem(url: str, file: File) -> str | None:
    """Say what is wrong with the size of one file, if anything."""
    if is_link(files.join(url, file.path)):
        return f"{file.path}: a link to another place; a dataset holds its own files"
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
    """Read one shard, member by member, and compare every byte with the index; with `decode`, the samples too."""
    path = task.shard.path
    index = read_table(files.join(task.dataset, task.index), FORMAT)
    mine = index.filter(pc.equal(index["shard"], path))
    rows = mine.to_pylist()
    expected = {
        (f"{row['key']}.{kind}", row[f"{kind}_offset"], row[f"{kind}_bytes"]): (row, kind)
        for row in rows
        for kind in ("flac", "json")
    }
    order = iter(expected)
    problems = [f"{path}: sample {key!r}: what its index row tells of its texts is not so" for key in untrue(mine)]
    found = 0
    strayed = False
    try:
        with files.open_read(files.join(task.dataset, path)) as file:
            tape = Tape(file)
            try:
                for placed, content in members(tape, path):
                    stop_if_told()
                    found += 1
                    here = (placed.name, placed.offset, placed.length)
                    strayed |= next(order, None) != here
                    if here in expected:
                        problems += content_problems(content, *expected[here], task)
            except UserError as error:
                problems.append(str(error))
            tape.rest()
    except FileNotFoundError:
        return Verdict(samples=0, shards=1, bytes=0, problems=(f"{path}: missing",))
    if strayed or found != len(expected):
        problems.append(f"{path}: its members are not those of the index, in that order")
    if tape.length != task.shard.bytes or tape.digest.hexdigest() != task.shard.sha256:
        problems.append(f"{path}: its {tape.length} bytes are not those that were written")
    return Verdict(samples=len(rows), shards=1, bytes=tape.length, problems=tuple(problems))


def content_problems(content: bytes, row: dict[str, Any], kind: str, task: VerifyTask) -> list[str]:
    """Compare one member with its index row."""
    where = f"{task.shard.path}: sample {row['key']!r}"
    if isal_zlib.crc32(content) != row[f"{kind}_crc32"]:
        return [f"{where}: its {kind} is not what was written"]
    if kind == "json":
        sample = msgspec.json.decode(content, type=Sample)
        names = ("key", "id", "corpus", "split", "samples", "seconds", "text")
        asked = [(one.task, one.prompt, list(one.answers)) for one in sample.instructions]
        same = asked == list(zip(row["tasks"], row["prompts"], row["answers"], strict=True))
        return [
            f"{where}: {name} is {getattr(sample, name)!r} in the shard, {row[name]!r} in the index"
            for name in names
            if getattr(sample, name) != row[name]
        ] + ([] if same else [f"{where}: its instructions are others in the shard than in the index"])
    if task.decode:
        try:
            pcm = read_flac(content, str(row["key"]))
        except Refused as refused:
            return [f"{where}: {refused}"]
        if len(pcm) != row["samples"] or pcm_md5(pcm) != row["pcm_md5"]:
            return [f"{where}: it decodes to other samples than were stored"]
    return []


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
