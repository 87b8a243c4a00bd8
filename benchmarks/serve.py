"""What `salmonn serve` costs for millions of samples: its start, its memory, and each filter beside its limit.

The index is synthetic: rows as the paper's table has them (benchmarks/order.py), texts of about a hundred letters whose
words fall off as words do, prompts of the tasks, qualities, a few copies.
Usage: python benchmarks/serve.py [SAMPLES]
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import sys
import tempfile
import time
import urllib.parse
from pathlib import Path

import duckdb
import msgspec
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc

from manifests import TASKS, files
from manifests.phones import lexicons
from manifests.tables import write_table
from order import A_SHARD, ROWS
from shards import Dataset
from shards.browsing.address import read_query
from shards.browsing.queries import Asker
from shards.browsing.table import Table
from shards.index import FORMAT, QUARANTINE, SCHEMA, File, Manifest, Source, digest_of
from speech import peak_memory

LIMIT = 300
"""Milliseconds for an answer to any filter."""
FEWEST, MOST = 3, 20
"""Words of a text: about a hundred letters on average."""
LANGUAGES = ("en", "en", "en", "zh", "")
QUALITIES = {
    "peak": (0.6, 0.2), "clipped": (0.0005, 0.001), "dc": (0.0, 0.001), "rms_dbfs": (-26.0, 6.0), "lufs": (-24.0, 6.0),
    "silence": (0.15, 0.1), "leading_silence": (0.3, 0.2), "trailing_silence": (0.3, 0.2), "snr_db": (30.0, 12.0),
    "bandwidth_hz": (6500.0, 1200.0),
}  # fmt: skip


def texts(dice: np.random.Generator, words: pa.Array, count: int) -> pa.Array:
    """So many texts of words drawn by Zipf's law."""
    ends = np.concatenate([[0], np.cumsum(dice.integers(FEWEST, MOST + 1, count))]).astype(np.int32)
    drawn = np.minimum(dice.zipf(1.2, ends[-1]), len(words)) - 1
    return pc.binary_join(pa.ListArray.from_arrays(pa.array(ends), words.take(pa.array(drawn))), " ")


def index(
    dice: np.random.Generator, words: pa.Array, task: str, corpus: str, split: str, seconds: np.ndarray
) -> pa.Table:
    """The index of one split, every column of it."""
    count = len(seconds)
    each = pa.array(np.arange(count + 1, dtype=np.int32))
    names = [f"{corpus}/{split}-{one:07d}" for one in range(count)]
    text = texts(dice, words, count)
    answer = pc.utf8_lower(text) if task == "asr" else texts(dice, words, count)
    prompts = pa.array(TASKS[task].prompts)
    digests = dice.integers(0, 256, (count, 16), np.uint8)
    digests[: count // 1000] = digests[count - count // 1000 :]
    shard = np.arange(count) // A_SHARD
    sizes = (seconds * 17_500).astype(np.int64)
    first = np.concatenate([[0], np.cumsum(sizes + 2048)[:-1]])
    offsets = first - first[shard * A_SHARD]
    speakers = pa.array([f"{one:04d}" for one in range(2500)])
    columns = {
        "key": pa.array([name.replace("/", "_", 1) for name in names]),
        "id": pa.array(names),
        "corpus": pa.repeat(corpus, count),
        "split": pa.repeat(split, count),
        "shard": pa.array([f"shards/{corpus}/{split}-{one:06d}.tar" for one in shard.tolist()]),
        "flac_offset": pa.array(offsets),
        "flac_bytes": pa.array(sizes),
        "json_offset": pa.array(offsets + sizes + 512),
        "json_bytes": pa.repeat(pa.scalar(700, pa.int64()), count),
        "samples": pa.array((seconds * 16_000).astype(np.int64)),
        "seconds": pa.array(seconds),
        "language": pa.array(LANGUAGES).take(pa.array(dice.integers(0, len(LANGUAGES), count))),
        "speaker": speakers.take(pa.array(dice.integers(0, 2500, count))),
        "gender": pa.array(("female", "male", "")).take(pa.array(dice.integers(0, 3, count))),
        "text": text,
        "license": pa.repeat("CC-BY-4.0" if corpus == "librispeech" else "CC0-1.0", count),
        "tasks": pa.ListArray.from_arrays(each, pa.repeat(task, count)),
        "prompts": pa.ListArray.from_arrays(each, prompts.take(pa.array(dice.integers(0, len(prompts), count)))),
        "answers": pa.ListArray.from_arrays(each, pa.ListArray.from_arrays(each, answer)),
        "action": pa.array(("copy", "transcode", "render")).take(pa.array(dice.integers(0, 3, count))),
        "pcm_md5": pa.array([row.tobytes().hex() for row in digests]),
        **{name: pa.array(dice.normal(*how, count)) for name, how in QUALITIES.items()},
    }
    return pa.table(
        [columns.get(field.name, nothing(field, count)).cast(field.type) for field in SCHEMA], schema=SCHEMA
    )


def nothing(field: pa.Field, count: int) -> pa.Array:
    """A column that says nothing."""
    if pa.types.is_list(field.type):
        return pa.ListArray.from_arrays(pa.array(np.zeros(count + 1, np.int32)), pa.array([], field.type.value_type))
    empty = {"string": "", "binary": b"", "bool": False}.get(str(field.type), 0)
    return pa.repeat(pa.scalar(empty, field.type), count)


def write_dataset(folder: str, samples: int) -> tuple[str, str]:
    """Write the index of so many samples, one split a row of the paper's table, and a quarantine of 2 % of them.

    Returns a word of nearly all texts and one of few.
    """
    dice = np.random.default_rng(0)
    words = pa.array(list(lexicons()["cmudict"]))
    words = words.take(pa.array(dice.permutation(len(words))))
    sources = []
    for number, (task, corpus, share, mean, spread) in enumerate(ROWS):
        count, split = max(1, round(samples * share)), f"train-{number}"
        seconds = np.clip(dice.normal(mean, spread, count), 1.0, 29.5)
        bad = count // 50
        refused = {
            "id": [f"{corpus}/{split}-bad-{one:07d}" for one in range(bad)],
            "verdict": ["quarantined", "excluded"] * (bad // 2) + ["excluded"] * (bad % 2),
            "reason": ["corrupt", "audio_missing"] * (bad // 2) + ["audio_missing"] * (bad % 2),
            "detail": ["frame 12 does not decode"] * bad,
            "source": [f"{split}/{one:07d}.flac" for one in range(bad)],
            "bytes": [1000] * bad,
        }
        proofs = []
        for path, content in (
            (f"index/{corpus}/{split}.parquet", index(dice, words, task, corpus, split, seconds)),
            (f"quarantine/{corpus}/{split}.parquet", pa.table(refused, schema=QUARANTINE)),
        ):
            write_table(files.join(folder, path), content)
            data = files.read_bytes(files.join(folder, path))
            proofs.append(File(path=path, bytes=len(data), sha256=hashlib.sha256(data).hexdigest()))
        sources.append(
            Source(
                corpus=corpus, split=split, tasks=(task,), found=count + bad, packed=count, quarantined=bad // 2,
                excluded=bad - bad // 2, reasons={}, skipped={}, seconds=float(seconds.sum()), license="",
                published_clips=count, index=proofs[0], quarantine=proofs[1], shards=(),
            )
        )  # fmt: skip
    manifest = Manifest(
        format=FORMAT,
        recipe="bench",
        title="Synthetic",
        plan="",
        digest=digest_of([source.index for source in sources]),
        sources=tuple(sources),
        tools={},
    )
    files.write_whole(f"{folder}/dataset.json", msgspec.json.encode(manifest))
    return words[0].as_py(), next(word for word in words[3_000:].to_pylist() if len(word) > 7)


QUERIES = (
    ("all of them", ""),
    ("one task", "task=asr"),
    ("three corpora, two languages", "corpus=librispeech&corpus=covost2&corpus=clotho&language=en&language=zh"),
    ("seconds", "seconds_from=3&seconds_to=10"),
    ("five thresholds", "seconds_from=2&snr_db_from=20&silence_to=0.3&clipped_to=0.001&bandwidth_hz_from=5000"),
    ("one speaker", "speaker=0123"),
    ("copies", "copies=1"),
    ("longest first", "sort=-seconds"),
    ("lowest signal first, page 23,000", "sort=snr_db&page=23000"),
    ("search: a word of nearly all texts", "q={common}"),
    ("search: a rare word", "q={rare}"),
    ("search: two words", "q={common}+{rare}"),
    ("search: nowhere", "q=no+such+words+anywhere"),
    ("search: an id", "q=train-3-0012345"),
    ("search: a key", "q=gigaspeech_train-1-00123"),
    ("search: of a prompt", "q=write+down"),
    ("search, a task and thresholds, sorted", "q={rare}&task=asr&snr_db_from=25&silence_to=0.2&sort=-seconds"),
    ("search, a task and thresholds, sorted", "q={common}&task=asr&snr_db_from=25&silence_to=0.2&sort=-seconds"),
    ("page 20,000 of a search", "q={common}&page=20000"),
)
"""What a person asks; each as if for the first time, and a search as well when its hits are known."""
ROUNDS = 5


def work(folder: str, common: str, rare: str) -> None:
    """Start, and ask each query; print the quickest of some rounds."""
    empty = psutil.Process().memory_info().rss
    begin, spent = time.perf_counter(), time.process_time()
    table = Table(Dataset(folder))
    asker = Asker(table)
    started, cpu = time.perf_counter() - begin, time.process_time() - spent
    held = (psutil.Process().memory_info().rss - empty) / 2**20
    print(
        f"{table.count:,} samples in {len(table.kinds):,} kinds: started in {started:.1f} s ({cpu:.1f} s of cpu), "
        f"{held:,.0f} MiB held, {peak_memory():,.0f} MiB at the most"
    )
    cores, busy = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    print(f"{cores} cores, for which {busy:.1f} processes waited: wall time is of use where that is near none")
    print(f"{'':42} {'limit':>6} {'ms':>6} {'cpu':>6} {'again':>6} {'samples':>10}")
    slowest = 0.0
    for name, address in QUERIES:
        query = read_query(urllib.parse.parse_qsl(address.format(common=common, rare=rare)))
        first, again = [], []
        for _ in range(ROUNDS):
            for kept in asker.hits.values():
                table.connection.execute(f"drop table {kept}")
            asker.hits.clear()
            for times in (first, again):
                begin, spent = time.perf_counter(), time.process_time()
                found = asker.find(query)
                times.append((1000 * (time.perf_counter() - begin), 1000 * (time.process_time() - spent)))
        best, cpu = min(first)[0], min(one[1] for one in first)
        slowest = max(slowest, best)
        print(f"{name:42} {LIMIT:6} {best:6.0f} {cpu:6.0f} {min(again)[0]:6.0f} {found.total:10,}", flush=True)
    print(f"the slowest took {slowest:.0f} ms of {LIMIT}; {peak_memory():,.0f} MiB at the most")
    check(folder, asker, common, rare)


def check(folder: str, asker: Asker, common: str, rare: str) -> None:
    """Hold three answers against what DuckDB says of the index itself."""
    connection = duckdb.connect()
    connection.execute("set enable_progress_bar = false")
    index = f"read_parquet('{folder}/index/*/*.parquet')"
    text = "concat_ws(chr(10), id, key, speaker, text, flatten(answers)::varchar, prompts::varchar)"
    for address, condition in (
        (f"q={rare}&task=asr", f"contains(lower({text}), '{rare}') and list_contains(tasks, 'asr')"),
        (f"q={common}&seconds_from=20", f"contains(lower({text}), '{common}') and seconds::float >= 20"),
        ("q=write+down&gender=male", f"contains(lower({text}), 'write down') and gender = 'male'"),
    ):
        found = asker.find(read_query(urllib.parse.parse_qsl(address)))
        query = f"select count(*), coalesce(sum(seconds), 0) from {index} where {condition}"
        ((meant, seconds),) = connection.execute(query).fetchall()
        assert found.total == meant, (address, found.total, meant)
        assert abs(found.hours * 3600 - seconds) <= 1e-4 * seconds, (address, found.hours, seconds / 3600)


def main() -> None:
    samples = int(sys.argv[1]) if len(sys.argv) > 1 else 2_300_000
    with tempfile.TemporaryDirectory(dir=Path(__file__).parent, prefix=".serve-") as folder:
        common, rare = write_dataset(folder, samples)
        process = multiprocessing.get_context("spawn").Process(target=work, args=(folder, common, rare))
        process.start()
        process.join()
        sys.exit(process.exitcode)


if __name__ == "__main__":
    main()
