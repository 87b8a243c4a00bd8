"""What several tests share: where the miniatures are, and small datasets of tones, built without Ray."""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, settings

from manifests import Instruction, Recipe, corpus_names, files
from manifests.recipe import Row
from manifests.tables import write_table
from shards.audio import encode, pcm_md5
from shards.flac import RATE
from shards.index import FORMAT, QUARANTINE, SCHEMA, Dataset, File, Manifest, Source, digest_of
from shards.render import Stored
from shards.sample import Sample, key_of
from shards.traits import traits
from shards.writer import open_shard

# The same examples in every run: a test that fails today failed for a change of today.
settings.register_profile("house", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")

Split = list[tuple[int, tuple[str, ...]]]
"""The clips of a split: samples of audio at 16 kHz, and the task of each instruction."""
World = dict[tuple[str, str], Split]
"""Corpus and split to clips."""


def salmonn_here(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command in this process, which need not import anew what a command imports."""
    from salmonn.cli import main

    told, said, code = io.StringIO(), io.StringIO(), 0
    command = ["salmonn", *map(str, arguments)]
    with (
        contextlib.chdir(cwd or "."),
        contextlib.redirect_stdout(told),
        contextlib.redirect_stderr(said),
        mock.patch.object(sys, "argv", command),
    ):
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(bool(end.code))
    return subprocess.CompletedProcess(command, code, told.getvalue(), said.getvalue())


def tone(samples: int, pitch: int) -> np.ndarray:
    """A sine of its own pitch for each clip, so that no two clips share a waveform."""
    return (np.sin(np.arange(samples) * (0.05 + pitch % 97 / 200)) * 9000).astype(np.int16)


def instruction(task: str, clip_id: str) -> Instruction:
    return Instruction(task=task, prompt=f"Stored prompt of {task}.", answers=(f"{clip_id} one", f"{clip_id} two"))


def build_world(folder: str, world: World, shards: int = 1) -> Dataset:
    """Write `world` as a dataset, each split in `shards` shards."""
    sources = []
    for (corpus, split), clips in sorted(world.items()):
        rows, proofs = [], []
        for number in range(shards):
            path = f"shards/{corpus}/{split}-{number:06d}.tar"
            with open_shard(folder, path) as writer:
                for place, (samples, tasks) in list(enumerate(clips))[number::shards]:
                    clip_id, pcm = f"{corpus}/{split}-{place}", tone(samples, place)
                    stored = Stored(
                        flac=encode(pcm), samples=samples, pcm_md5=pcm_md5(pcm), action="transcode", source_rate=RATE
                    )
                    sample = Sample(
                        key=key_of(clip_id),
                        id=clip_id,
                        corpus=corpus,
                        split=split,
                        samples=samples,
                        seconds=samples / RATE,
                        language="en",
                        speaker="",
                        gender="",
                        text="",
                        license="CC0-1.0",
                        provenance="",
                        instructions=tuple(instruction(task, clip_id) for task in tasks),
                    )
                    writer.add(sample, stored, [f"{place}.wav"], 2 * samples)
            proofs.append(writer.proof())
            rows.append(writer.table())
        sources.append(write_source(folder, corpus, split, rows, proofs))
    return write_dataset(folder, sources)


def build_index(folder: str, world: World) -> Dataset:
    """Write of `world` only what the order of a stream depends on: the lengths and tasks of the index."""
    columns = ("tasks", "seconds", "shard", "answers", "prompts", "answer_traits")
    schema = pa.schema([SCHEMA.field(name) for name in columns], metadata=SCHEMA.metadata)
    sources = []
    for (corpus, split), clips in sorted(world.items()):
        shards = [f"shards/{corpus}/{split}-{place // 3:06d}.tar" for place in range(len(clips))]
        texts = [[f"Answer of {task}." * (1 + place % 7) for task in tasks] for place, (_, tasks) in enumerate(clips)]
        said = [[[text] for text in row] for row in texts]
        told = traits(pa.array(texts, schema.field("prompts").type), pa.array(said, schema.field("answers").type))
        columns = [
            [tasks for _, tasks in clips],
            [samples / RATE for samples, _ in clips],
            shards,
            said,
            texts,
            told["answer_traits"],
        ]
        sources.append(
            write_source(
                folder,
                corpus,
                split,
                [pa.Table.from_arrays(list(map(pa.array, columns[:5], schema.types)) + columns[5:], schema=schema)],
                [],
            )
        )
    return write_dataset(folder, sources)


def write_source(folder: str, corpus: str, split: str, rows: list, proofs: list[File]) -> Source:
    table = pa.concat_tables(rows)
    index = write_index(folder, f"index/{corpus}/{split}.parquet", table)
    quarantine = write_index(folder, f"quarantine/{corpus}/{split}.parquet", QUARANTINE.empty_table())
    return Source(
        corpus=corpus,
        split=split,
        tasks=tuple(sorted({task for tasks in table["tasks"].to_pylist() for task in tasks})),
        found=table.num_rows,
        packed=table.num_rows,
        quarantined=0,
        excluded=0,
        reasons={},
        skipped={},
        seconds=sum(table["seconds"].to_pylist()),
        license="CC0-1.0",
        published_clips=table.num_rows,
        index=index,
        quarantine=quarantine,
        shards=tuple(proofs),
    )


def write_index(folder: str, path: str, table: pa.Table) -> File:
    write_table(files.join(folder, path), table)
    content = files.read_bytes(files.join(folder, path))
    return File(path=path, bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def write_dataset(folder: str, sources: list[Source]) -> Dataset:
    manifest = Manifest(
        format=FORMAT,
        recipe="small",
        title="A small world",
        plan="",
        digest=digest_of([source.index for source in sources]),
        sources=tuple(sources),
        tools={},
    )
    files.write_whole(files.join(folder, "dataset.json"), msgspec.json.encode(manifest, order="sorted"))
    return Dataset(folder)


def digests(folder: Path) -> dict[str, str]:
    """Map every file below `folder` to its sha256."""
    found = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


@pytest.fixture(scope="session")
def corpora() -> Path:
    """The folder of the miniatures."""
    return Path(__file__).parent / "corpora"


@pytest.fixture(scope="session")
def make_dataset(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Dataset]:
    """A function that writes a world as a dataset in a folder of its own."""
    top, numbers = tmp_path_factory.mktemp("worlds"), itertools.count()
    return lambda world, shards=1: build_world(str(top / str(next(numbers))), world, shards)


@pytest.fixture(scope="session")
def make_index() -> Callable[[World], Dataset]:
    """A function that writes the index of a world, without shards, in memory."""
    numbers = itertools.count()
    return lambda world: build_index(f"memory://indexes/{next(numbers)}", world)


@pytest.fixture(scope="session")
def make_recipe() -> Callable[..., Recipe]:
    """A function that makes a recipe of one stage from (task, corpus, splits, weight) rows."""

    def make(*rows: tuple[str, str, tuple[str, ...], float | None], stage: str = "instruct") -> Recipe:
        made = tuple(
            Row(task=task, corpus=corpus, splits=splits, weight=weight) for task, corpus, splits, weight in rows
        )
        return Recipe(title="small", name="small", **{stage: made})

    return make


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory, corpora: Path) -> Path:
    """A folder as fetch would leave it, with the miniatures as its corpora."""
    root = tmp_path_factory.mktemp("root")
    (root / "raw").mkdir()
    for corpus in corpus_names():
        (root / "raw" / corpus).symlink_to(corpora / corpus, target_is_directory=True)
    return root


LONG = ("test_demo.py", "test_renew.py", "test_docs.py", "test_build.py", "test_fetch_hub.py", "test_cli.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first: two processes then end at about the same time."""
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


TWO = Path(__file__).parent / "two.toml"
"""A recipe of two corpora and four tasks: quick to build."""

CLUSTER = """
import ray, sys
small = {"num_cpus": 2, "object_store_memory": 80 * 2**20, "include_dashboard": False}
ray.init(address="local", **small)
print("at", ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    """The address of a running Ray cluster with two processors, its own token and all: joining one is quick."""
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, "-c", CLUSTER], text=True, env=environment, **pipes) as process:
        line = next(line for line in process.stdout if line.startswith("at "))
        yield line.split()[1]
        process.stdin.close()


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    """The dataset of tests/two.toml, built before Ray would start; by Ray it is the same to the byte."""
    from manifests import load_recipe
    from pipelines.build import build
    from pipelines.executor import Executor

    out = tmp_path_factory.mktemp("built") / "dataset"
    with Executor(2, head_start=600.0) as executor:
        build(load_recipe(TWO), str(root), str(out), executor=executor, shard_bytes=2**20)
    return out


@pytest.fixture
def real_corpora() -> Path:
    """The folder of whole, real metadata. Its licences forbid to bundle it, so that only who has it can name it."""
    folder = os.environ.get("SALMONN_REAL_CORPORA", "")
    if not folder or not Path(folder).is_dir():
        # The miniatures hold the same readers to the same layouts; this only adds the counts of the whole.
        pytest.skip("SALMONN_REAL_CORPORA names no folder of real corpora")
    return Path(folder)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MB. Only root may mount one, and not in every container: elsewhere a full disk cannot be had."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        # To mount takes root, which no user has to be: without a small disk of its own no disk can be filled.
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)
