"""How near the build comes to its limit: decoding every FLAC once to check its MD5, and copying the bytes.

In one run and on the same speech: (1) the limit, a bare loop in one process that reads, decodes, checks and appends;
(2) `pack`, shard by shard in one process; (3) the whole build on Ray, twice the cores as workers allow. Prints hours of
audio per cpu-second for 1 and 2, their ratio, and wall seconds of 3. Usage: python benchmarks/build.py [COPIES]
"""

from __future__ import annotations

import hashlib
import io
import sys
import tempfile
import time
from pathlib import Path

import soundfile

from manifests import load_recipe
from pipelines.build import build
from pipelines.executor import Executor
from pipelines.layout import make_plan, tasks_of
from pipelines.pack import pack
from pipelines.scan import ScanTask, scan
from shards import Dataset
from speech import write_corpus

RECIPE = """
title = "benchmark"
[[instruct]]
task = "asr"
corpus = "librispeech"
splits = ["train-clean-100"]
"""
SHARD_BYTES = 16 * 2**20


def limit(root: Path, out: Path) -> float:
    """Read, decode, check and append every clip; return its seconds of audio."""
    seconds = 0.0
    with out.open("wb") as tar:
        for path in sorted(root.rglob("*.flac")):
            data = path.read_bytes()
            pcm, rate = soundfile.read(io.BytesIO(data), dtype="int16")
            assert hashlib.md5(pcm.tobytes()).digest() == data[26:42]
            tar.write(data)
            seconds += len(pcm) / rate
    return seconds


def main() -> None:
    copies = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    with tempfile.TemporaryDirectory(dir=Path(__file__).parent) as folder:
        place = Path(folder)
        write_corpus(place, copies)
        (place / "bench.toml").write_text(RECIPE)
        recipe = load_recipe(place / "bench.toml")
        scan(ScanTask(root=str(place), corpus="librispeech", split="train-clean-100"))
        tasks = tasks_of(make_plan(recipe, str(place), SHARD_BYTES), str(place), str(place / "packed"))
        rates: dict[str, list[float]] = {"limit": [], "pack": []}
        for _ in range(3):
            begin = time.process_time()
            hours = limit(place / "raw", place / "limit.bin") / 3600
            rates["limit"].append(hours / (time.process_time() - begin))
            begin = time.process_time()
            packed = sum(pack(task).seconds for task in tasks) / 3600
            rates["pack"].append(packed / (time.process_time() - begin))
            assert abs(packed - hours) < 1e-9
        begin = time.perf_counter()
        with Executor() as executor:
            build(recipe, str(place), str(place / "built"), executor=executor, shard_bytes=SHARD_BYTES)
        wall = time.perf_counter() - begin
        assert sum(s.seconds for s in Dataset(place / "built").manifest.sources) / 3600 == packed
    best = {name: max(values) for name, values in rates.items()}
    print(f"{packed:.2f} h of speech in {len(tasks)} shards")
    print(
        f"limit {best['limit']:.2f} h per cpu-second, pack {best['pack']:.2f}: ratio {best['pack'] / best['limit']:.2f}"
    )
    print(f"build on Ray, start to end: {wall:.1f} s, {packed * 3600 / wall:.0f} times real time")


if __name__ == "__main__":
    main()
