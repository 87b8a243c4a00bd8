"""What a clip costs beside its audio: planning, laying out, committing and gathering, from 1,000 clips to 1,000,000.

The manifests are synthetic, the commits are written as workers would; nothing is decoded. Prints microseconds of cpu
a clip and the memory of the driver. Usage: python benchmarks/plan.py [CLIPS ...]
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa

from manifests import AudioRef, Clip, files, load_recipe
from manifests.tables import SEEN, Scanned, write_manifest, write_table
from pipelines.finish import gather
from pipelines.layout import (
    BYTES_PER_SECOND,
    Frozen,
    Lot,
    commit_path,
    lay_out,
    make_plan,
    rows_path,
    seen_digests,
    shard_path,
)
from pipelines.pack import Commit, write_commit
from pipelines.renew import remember
from pipelines.scan import manifest_path, seen_path
from shards.index import SCHEMA, File
from shards.traits import TRAITS, traits
from speech import peak_memory

RECIPE = """
title = "benchmark"
[[instruct]]
task = "asr"
corpus = "librispeech"
splits = ["train-clean-100"]
"""
SECONDS = 12.3
A_SHARD = 1200
TEXT = "THE QUICK BROWN FOX JUMPS OVER THE LAZY DOG AND RESTS " * 3


def write_manifests(root: Path, clips: int) -> None:
    """Write the manifest that a scan of so many clips would."""
    rows = (
        Scanned(
            clip=Clip(
                id=f"librispeech/{number // 9000}-{number // 40}-{number % 40:04d}",
                audio=(AudioRef(path=f"LibriSpeech/train-clean-100/{number // 40}/{number}.flac"),),
                language="en",
                speaker=f"librispeech/{number // 9000}",
                gender="female",
                text=TEXT,
                license="CC-BY-4.0",
            ),
            bytes=215_000,
            seconds=SECONDS,
        )
        for number in range(clips)
    )
    write_manifest(manifest_path(str(root), "librispeech", "train-clean-100"), rows)
    seen = pa.table([pa.repeat(pa.scalar(1, pa.int64()), clips), pa.repeat(pa.scalar(False), clips)], schema=SEEN)
    write_table(seen_path(str(root), "librispeech", "train-clean-100"), seen)


def filled(name: str, kind: pa.DataType, count: int) -> pa.Array:
    """A column of `count` plausible values."""
    if name in ("key", "id"):
        return pa.array([f"librispeech-{number:09d}" for number in range(count)])
    if name == "text":
        return pa.repeat(TEXT, count)
    if name in TRAITS:
        told = traits(
            filled("prompts", SCHEMA.field("prompts").type, 1), filled("answers", SCHEMA.field("answers").type, 1)
        )
        return pa.repeat(told[name][0], count)
    if pa.types.is_list(kind):
        value: list = [["The quick brown fox."]] if pa.types.is_list(kind.value_type) else ["What is said?"]
        return pa.repeat(pa.scalar(value, kind), count)
    if pa.types.is_string(kind):
        return pa.repeat(pa.scalar("0123456789abcdef" * 2), count)
    if pa.types.is_binary(kind):
        return pa.repeat(pa.scalar(bytes(range(80))), count)
    return pa.repeat(pa.scalar(1).cast(kind), count)


def rows_of(lot: Lot) -> pa.Table:
    """The index rows of one shard."""
    return pa.Table.from_arrays([filled(f.name, f.type, lot.clips) for f in SCHEMA], schema=SCHEMA)


def work(clips: int, report: multiprocessing.Queue) -> None:
    """Do all but the audio for so many clips, in a fresh process."""
    with tempfile.TemporaryDirectory(dir=Path(__file__).parent, prefix=".plan-") as folder:
        root, out = Path(folder), f"{folder}/out"
        write_manifests(root, clips)
        (root / "bench.toml").write_text(RECIPE)
        recipe = load_recipe(root / "bench.toml")
        begin = time.process_time()
        plan = make_plan(recipe, folder, round(A_SHARD * SECONDS * BYTES_PER_SECOND))
        frozen = Frozen(plan=plan, seen=seen_digests(plan, folder))
        (lots,) = lay_out(plan, frozen.digest, folder, out).values()
        planned = time.process_time() - begin
        commits: dict[str, Commit] = {}
        tasks = []
        wait = 0.0
        for lot in lots:
            path = shard_path("librispeech", "train-clean-100", lot.number)
            made = time.process_time()
            rows = rows_of(lot)
            wait += time.process_time() - made
            commits[path] = Commit(
                frozen=frozen.digest,
                found=lot.clips,
                packed=lot.clips,
                seconds=lot.clips * SECONDS,
                shard=File(path=path, bytes=1, sha256=""),
                refusals=(),
                skipped={},
                phones={},
            )
            place = commit_path(frozen.digest, "librispeech", "train-clean-100", lot.number)
            write_commit(files.join(out, place), commits[path], rows)
            tasks.append(Placed(path, place))
        committed = time.process_time() - begin - planned - wait
        gather(plan.sources[0], out, tasks, commits)  # type: ignore[arg-type]
        remember(out, folder)
        gathered = time.process_time() - begin - planned - committed - wait
        report.put((planned, committed, gathered, peak_memory()))
        assert rows_path("librispeech", "train-clean-100")


class Placed:
    """Where a shard and its commit are: what gathering asks of a task."""

    def __init__(self, path: str, commit: str) -> None:
        self.path, self.commit = path, commit


def main() -> None:
    spawn = multiprocessing.get_context("spawn")
    for clips in [int(text) for text in sys.argv[1:]] or [1_000, 10_000, 100_000, 1_000_000]:
        report = spawn.Queue()
        process = spawn.Process(target=work, args=(clips, report))
        process.start()
        planned, committed, gathered, memory = report.get()
        process.join()
        micro = 1e6 / clips
        total = planned + committed + gathered
        print(
            f"{clips:9,} clips: plan {planned * micro:6.1f}, commit {committed * micro:6.1f}, gather "
            f"{gathered * micro:6.1f}, in all {total * micro:6.1f} us of cpu a clip; {memory:6.0f} MiB",
            flush=True,
        )


if __name__ == "__main__":
    main()
