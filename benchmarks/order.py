"""What the order costs: a cold start, an epoch planned, and going on from deep within it, for millions of examples.

The index is synthetic: rows as the paper's table has them, lengths of speech.
Usage: python benchmarks/order.py [EXAMPLES]
"""

from __future__ import annotations

import hashlib
import multiprocessing
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa

from manifests import Recipe, files
from manifests.recipe import Row
from manifests.tables import write_table
from shards import Dataset, Stream
from shards.index import FORMAT, QUARANTINE, SCHEMA, File, Manifest, Source, digest_of
from shards.report import plan_report
from speech import peak_memory

# Task, corpus, share of the examples, mean and spread of seconds: SALMONN's table 1, and facts about each corpus.
ROWS = (
    ("asr", "librispeech", 0.122, 12.3, 3.5),
    ("asr", "gigaspeech", 0.295, 4.0, 2.5),
    ("translation_en_zh", "covost2", 0.126, 5.3, 1.6),
    ("audio_caption", "wavcaps", 0.161, 12.0, 8.0),
    ("audio_caption", "audiocaps", 0.022, 10.0, 0.2),
    ("phone_recognition", "librispeech", 0.122, 12.3, 3.5),
    ("emotion_recognition", "iemocap", 0.002, 4.5, 3.0),
    ("music_caption", "musiccaps", 0.001, 10.0, 0.1),
    ("overlapped_speech_recognition", "librimix", 0.028, 15.0, 3.0),
    ("speaker_verification", "voxceleb1", 0.05, 16.0, 4.0),
    ("gender_recognition", "librispeech", 0.04, 12.3, 3.5),
    ("speech_qa", "librispeech", 0.02, 12.3, 3.5),
    ("audio_qa", "clotho", 0.01, 22.0, 4.0),
)
A_SHARD = 1200


def write_dataset(folder: str, examples: int) -> tuple[Dataset, Recipe]:
    """Write the index of so many examples: one split a row, so that each is as long as asked."""
    names = ("tasks", "seconds", "shard", "key", "flac_offset", "flac_bytes", "json_offset", "json_bytes", "samples")
    names += ("flac_crc32", "json_crc32", "language", "id", "corpus", "split", "answers")
    schema = pa.schema([SCHEMA.field(name) for name in names], metadata=SCHEMA.metadata)
    dice = np.random.default_rng(0)
    sources, rows = [], []
    for number, (task, corpus, share, mean, spread) in enumerate(ROWS):
        count, split = max(1, round(examples * share)), f"train-{number}"
        seconds = np.clip(dice.normal(mean, spread, count), 1.0, 29.5)
        sizes = (seconds * 17_500).astype(np.int64)
        ends = np.cumsum(sizes + 2048)
        shard = np.arange(count) // A_SHARD
        first = np.concatenate([[0], ends[:-1]])
        offsets = first - first[shard * A_SHARD]
        numbers = pa.array(offsets)
        columns = {
            "tasks": pa.ListArray.from_arrays(pa.array(np.arange(count + 1, dtype=np.int32)), pa.repeat(task, count)),
            "seconds": pa.array(seconds),
            "shard": pa.array([f"shards/{corpus}/{split}-{one:06d}.tar" for one in shard.tolist()]),
            "key": pa.array([f"{corpus}_{split}-{one:07d}" for one in range(count)]),
            "flac_offset": numbers,
            "flac_bytes": pa.array(sizes),
            "json_offset": pa.array(offsets + sizes + 512),
            "json_bytes": pa.repeat(pa.scalar(700, pa.int64()), count),
            "samples": pa.array((seconds * 16_000).astype(np.int64)),
            "flac_crc32": pa.array(dice.integers(0, 2**32, count, np.uint32)),
            "json_crc32": pa.array(dice.integers(0, 2**32, count, np.uint32)),
            "language": pa.repeat("en", count),
            "id": pa.array([f"{corpus}/{split}-{one:07d}" for one in range(count)]),
            "corpus": pa.repeat(corpus, count),
            "split": pa.repeat(split, count),
        }
        each = pa.array(np.arange(count + 1, dtype=np.int32))
        answers = pa.ListArray.from_arrays(each, pa.repeat("the quick brown fox jumps over the lazy dog", count))
        columns["answers"] = pa.ListArray.from_arrays(each, answers)
        table = pa.table([columns[name].cast(schema.field(name).type) for name in names], schema=schema)
        proofs = []
        for path, content in (
            (f"index/{corpus}/{split}.parquet", table),
            (f"quarantine/{corpus}/{split}.parquet", QUARANTINE.empty_table()),
        ):
            write_table(files.join(folder, path), content)
            data = files.read_bytes(files.join(folder, path))
            proofs.append(File(path=path, bytes=len(data), sha256=hashlib.sha256(data).hexdigest()))
        sources.append(
            Source(
                corpus=corpus, split=split, tasks=(task,), found=count, packed=count, quarantined=0, excluded=0,
                reasons={}, skipped={}, seconds=float(seconds.sum()), license="", published_clips=count,
                index=proofs[0],
                quarantine=proofs[1], shards=(),
            )
        )  # fmt: skip
        rows.append(Row(task=task, corpus=corpus, splits=(split,)))
    manifest = Manifest(
        format=FORMAT,
        recipe="bench",
        title="",
        plan="",
        digest=digest_of([source.index for source in sources]),
        sources=tuple(sources),
        tools={},
    )
    files.write_whole(f"{folder}/dataset.json", msgspec.json.encode(manifest))
    return Dataset(folder), Recipe(title="bench", name="bench", instruct=tuple(rows))


def memory() -> float:
    """Peak resident memory of this process, MiB."""
    return peak_memory()


def stream_of(folder: str, recipe: Recipe) -> Stream:
    return Stream(Dataset(folder), recipe, stage="instruct", max_seconds=240, max_examples=64)


def work(folder: str, recipe: Recipe) -> None:
    """Start, plan an epoch, go on from deep within it; each in the time this process spends on it."""
    begin = time.process_time()
    stream = stream_of(folder, recipe)
    stream.pool(stream.order.start)
    stream.prepare()
    cold, peak = time.process_time() - begin, memory()
    begin = time.process_time()
    mark = stream.order.start
    steps = 0
    while mark.deal < stream.order.examples:
        pool = stream.order.pool(mark)
        if mark.deal < stream.order.examples // 2:
            middle = mark
        mark = pool.next
    planned, held = time.process_time() - begin, memory()
    steps = mark.batch
    queue = np.concatenate([np.minimum(q.seconds, 30) for q in stream.order.queues])
    dealt = stream.order.cycle(0)
    firsts = np.cumsum([0, *(len(q.sample) for q in stream.order.queues[:-1])])
    seconds = queue[firsts[dealt.queue] + dealt.item]
    padded = (np.maximum.reduceat(seconds, dealt.starts[:-1]) * np.diff(dealt.starts)).sum()
    state = stream.state_dict() | {"step": middle.batch}
    state["mark"] = msgspec.to_builtins(middle)
    begin = time.process_time()
    again = stream_of(folder, recipe)
    again.pool(again.order.start)
    again.prepare()
    start = time.process_time() - begin
    begin = time.process_time()
    again.load_state_dict(state)
    place = next(again.places())
    again.draws(place)
    resumed = time.process_time() - begin
    begin = time.process_time()
    told = plan_report(again, epochs=1)
    reported = time.process_time() - begin
    print(
        f"{stream.order.examples:,} examples: cold start {cold:.2f} s, {peak:.0f} MiB; "
        f"an epoch of {steps:,} batches planned in {planned:.2f} s, {held:.0f} MiB; "
        f"resumed at step {place.step:,} in {resumed:.2f} s beyond a start of {start:.2f} s; "
        f"padding {1 - seconds.sum() / padded:.1%}; {memory():.0f} MiB with a second stream and all draws at hand; "
        f"what `stream --plan-only` counts took {reported:.1f} s: tasks within {told.deviation.tasks_at_pool_ends:.2f} "
        f"of their shares at the ends of pools, rows within {told.deviation.rows_at_pool_ends:.2f}"
    )


def main() -> None:
    examples = int(sys.argv[1]) if len(sys.argv) > 1 else 2_300_000
    with tempfile.TemporaryDirectory(dir=Path(__file__).parent, prefix=".order-") as folder:
        _, recipe = write_dataset(folder, examples)
        process = multiprocessing.get_context("spawn").Process(target=work, args=(folder, recipe))
        process.start()
        process.join()


if __name__ == "__main__":
    main()
