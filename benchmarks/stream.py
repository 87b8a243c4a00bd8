"""How the stream compares with webdataset on the same shards, in one process and one run.

Both decode every clip of the shards to float32 and pad batches of 8: ours with its index, its batches of similar length
and its threads, webdataset with its reader and batches as they come. Prints hours of audio per cpu-second and padding.
Usage: python benchmarks/stream.py [COPIES]
"""

from __future__ import annotations

import io
import itertools
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import soundfile
import webdataset

from build import RECIPE, SHARD_BYTES
from manifests import load_recipe
from pipelines.build import build
from pipelines.executor import Executor
from shards import Dataset, Stream
from speech import write_corpus

EXAMPLES = 8


def padded(waves: Iterable[np.ndarray]) -> tuple[float, float]:
    """Make one float32 batch of waves; return its seconds with and without padding."""
    waves = list(waves)
    batch = np.zeros((len(waves), max(map(len, waves))), np.float32)
    for row, wave in zip(batch, waves, strict=True):
        row[: len(wave)] = wave
    return batch.size / 16_000, sum(map(len, waves)) / 16_000


def ours(dataset: str, recipe: str, threads: int) -> tuple[float, float]:
    """Deal one cycle; return padded and real seconds."""
    stream = Stream(Dataset(dataset), load_recipe(recipe), epochs=1, max_examples=EXAMPLES, threads=threads)
    sizes = [padded(example.audio for example in batch.examples) for batch in stream]
    return sum(size for size, _ in sizes), sum(real for _, real in sizes)


def theirs(shards: list[str]) -> tuple[float, float]:
    """Read every sample once with webdataset; return padded and real seconds."""

    def decoded() -> Iterable[np.ndarray]:
        for sample in webdataset.WebDataset(shards, shardshuffle=False):
            yield soundfile.read(io.BytesIO(sample["flac"]), dtype="float32")[0]

    waves, sizes = iter(decoded()), []
    while batch := list(itertools.islice(waves, EXAMPLES)):
        sizes.append(padded(batch))
    return sum(size for size, _ in sizes), sum(real for _, real in sizes)


def main() -> None:
    copies = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    with tempfile.TemporaryDirectory(dir=Path(__file__).parent) as folder:
        place = Path(folder)
        write_corpus(place, copies)
        recipe, dataset = place / "bench.toml", place / "built"
        recipe.write_text(RECIPE)
        with Executor() as executor:
            build(load_recipe(recipe), str(place), str(dataset), executor=executor, shard_bytes=SHARD_BYTES)
        shards = [str(path) for path in sorted(dataset.rglob("*.tar"))]
        runs = {
            "webdataset": lambda: theirs(shards),
            "stream, 1 thread": lambda: ours(str(dataset), str(recipe), 1),
            "stream, 2 threads": lambda: ours(str(dataset), str(recipe), 2),
        }
        best: dict[str, tuple[float, float, float]] = {}
        for _ in range(3):
            for name, run in runs.items():
                wall, cpu = time.perf_counter(), time.process_time()
                full, real = run()
                cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
                made = (real / 3600 / cpu, real / 3600 / wall, 1 - real / full)
                best[name] = max(best.get(name, made), made)
    peer = best["webdataset"][0]
    for name, (per_cpu, per_wall, waste) in best.items():
        told = f"{per_cpu:.2f} h per cpu-second ({per_cpu / peer:.2f} of webdataset), {per_wall:.2f} h per second"
        print(f"{name:<18} {told}, padding {waste:.1%}")


if __name__ == "__main__":
    main()
