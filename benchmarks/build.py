"""How fast shards are built, beside what peers take for the same files: cpu-seconds per hour of audio, and wall time.

Real speech in FLAC, 16 kHz mono, is tiled to HOURS (30 by default). Every contender runs in a process of its own with
two jobs; all its descendants count, also Ray's. `ours` is what the command does: so little work is over before Ray
would start; `ours, on Ray` has it from the first shard on, and `ray` is what its start costs without work. Usage::

    python benchmarks/build.py [HOURS] [CONTENDER ...]
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import io
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import psutil

RECIPE = """
title = "benchmark"
[[instruct]]
task = "asr"
corpus = "librispeech"
splits = ["train-clean-100"]
"""
SHARD_BYTES = 64 * 2**20
JOBS = 2
A_SHARD = 1000
"""Clips of a shard of the peers: about as many as ours holds."""


def clips(root: Path) -> list[Path]:
    """Every sound file, in the order of their names."""
    return sorted((root / "raw").rglob("*.flac"))


def in_shards(root: Path) -> list[list[Path]]:
    """The sound files, in lists as long as a shard."""
    found = clips(root)
    return [found[first : first + A_SHARD] for first in range(0, len(found), A_SHARD)]


def ours(root: Path, out: Path, workers: int = JOBS, trusted: bool = False, ray: bool = False) -> None:
    """Our build: scan, plan, pack, read back, index."""
    from manifests import load_recipe
    from pipelines.build import build
    from pipelines.executor import HEAD_START, Executor

    recipe = load_recipe(root / "bench.toml")
    with Executor(workers, head_start=0.0 if ray else HEAD_START) as executor:
        build(recipe, str(root), str(out), executor=executor, shard_bytes=SHARD_BYTES, trusted=trusted)


class Pool:
    """Does what Executor does without Ray: what Ray adds to the work is what ours takes beyond this."""

    def __init__(self) -> None:
        self.processes = multiprocessing.get_context("spawn").Pool(JOBS)

    def run(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        """Yield (item, function(item))."""
        every = list(items)
        yield from zip(every, self.processes.imap(function, every), strict=True)


def without_ray(root: Path, out: Path) -> None:
    """Our build in a pool of processes: what Ray's workers do beyond the pool's is what Ray adds."""
    from manifests import load_recipe
    from pipelines.build import build

    os.environ["OMP_NUM_THREADS"] = "1"  # as Ray sets it for its workers
    recipe = load_recipe(root / "bench.toml")
    build(recipe, str(root), str(out), executor=Pool(), shard_bytes=SHARD_BYTES)  # type: ignore[arg-type]


def again(root: Path, out: Path) -> None:
    """Our build where there is nothing left to do, by the command."""
    command = [sys.executable, "-m", "salmonn.cli", "build", str(root / "bench.toml"), "--root", str(root)]
    shard = ["--shard-mb", str(SHARD_BYTES >> 20)]
    subprocess.run([*command, "--out", str(out.parent / "ours"), *shard], check=True, stdout=subprocess.DEVNULL)


def idle(number: int) -> int:
    """Import what a worker of the build imports, and do nothing."""
    import pipelines.pack

    time.sleep(0.5)
    return len(pipelines.pack.__name__) + number


def ray_alone(root: Path, out: Path) -> None:
    """Start Ray and its workers, and stop them."""
    from pipelines.executor import Executor

    with Executor(JOBS) as executor:
        list(executor.run(idle, range(2 * JOBS)))


def transcode(paths: list[Path], target: Path) -> None:
    """Decode, encode and tar some clips: what most scripts do."""
    import soundfile

    from shards.sample import member, tar_end

    length = 0
    with target.open("wb") as tar:
        for path in paths:
            pcm, rate = soundfile.read(path, dtype="int16")
            sink = io.BytesIO()
            soundfile.write(sink, pcm, rate, format="FLAC", subtype="PCM_16")
            for name, content in ((f"{path.stem}.flac", sink.getvalue()), (f"{path.stem}.json", b'{"text": "x"}')):
                length += tar.write(member(name, content))
        tar.write(tar_end(length))


def check_and_copy(paths: list[Path], target: Path) -> None:
    """Decode by libsndfile, check the MD5, copy the bytes, and nothing else."""
    import soundfile

    with target.open("wb") as tar:
        for path in paths:
            data = path.read_bytes()
            pcm, _ = soundfile.read(io.BytesIO(data), dtype="int16")
            assert hashlib.md5(pcm.data).digest() == data[26:42]
            tar.write(data)


def pool(root: Path, out: Path, work: str) -> None:
    """A pool of processes, a shard an item."""
    out.mkdir(parents=True)
    items = [(paths, out / f"{number:06d}.tar") for number, paths in enumerate(in_shards(root))]
    with multiprocessing.get_context("spawn").Pool(JOBS) as processes:
        processes.starmap(globals()[work], items)


def ray_tasks(root: Path, out: Path, work: str) -> None:
    """Plain Ray tasks, a shard an item."""
    import ray

    out.mkdir(parents=True)
    ray.init("local", num_cpus=JOBS, include_dashboard=False, log_to_driver=False, object_store_memory=80 * 2**20)
    task = ray.remote(globals()[work])
    ray.get([task.remote(paths, out / f"{number:06d}.tar") for number, paths in enumerate(in_shards(root))])


def shard_writer(root: Path, out: Path) -> None:
    """webdataset.ShardWriter in one process, as its documentation has it."""
    import soundfile
    import webdataset

    out.mkdir(parents=True)
    with webdataset.ShardWriter(str(out / "%06d.tar"), maxsize=SHARD_BYTES, verbose=0) as sink:
        for path in clips(root):
            pcm, rate = soundfile.read(path, dtype="int16")
            held = io.BytesIO()
            soundfile.write(held, pcm, rate, format="FLAC", subtype="PCM_16")
            sink.write({"__key__": path.stem, "flac": held.getvalue(), "json": {"text": "x"}})


def lhotse_shar(root: Path, out: Path) -> None:
    """Lhotse's to_shar with two jobs."""
    from lhotse import CutSet, Recording

    recordings = [Recording.from_file(path, recording_id=path.stem) for path in clips(root)]
    cuts = CutSet.from_cuts(recording.to_cut() for recording in recordings).to_eager()
    cuts.to_shar(str(out), fields={"recording": "flac"}, shard_size=A_SHARD, num_jobs=JOBS, verbose=False)


def ray_data(root: Path, out: Path) -> None:
    """Ray Data: read files, decode and encode in map_batches, write_webdataset."""
    import ray
    import soundfile

    def encode(row: dict) -> dict:
        pcm, rate = soundfile.read(io.BytesIO(row["bytes"]), dtype="int16")
        held = io.BytesIO()
        soundfile.write(held, pcm, rate, format="FLAC", subtype="PCM_16")
        return {"__key__": Path(row["path"]).stem, "flac": held.getvalue(), "json": {"text": "x"}}

    ray.init("local", num_cpus=JOBS, include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    files = [str(path) for path in clips(root)]
    ray.data.read_binary_files(files, include_paths=True).map(encode).write_webdataset(str(out))


CONTENDERS = {
    "ray": ray_alone,
    "ours": ours,
    "ours, again": again,
    "ours, no Ray": without_ray,
    "ours, 1 worker": functools.partial(ours, workers=1),
    "ours, trusted": functools.partial(ours, trusted=True),
    "ours, on Ray": functools.partial(ours, ray=True),
    "ours, on Ray, 1 worker": functools.partial(ours, ray=True, workers=1),
    "ours, on Ray, trusted": functools.partial(ours, ray=True, trusted=True),
    "pool, check and copy": functools.partial(pool, work="check_and_copy"),
    "pool, transcode": functools.partial(pool, work="transcode"),
    "ray tasks, transcode": functools.partial(ray_tasks, work="transcode"),
    "lhotse to_shar": lhotse_shar,
    "webdataset ShardWriter": shard_writer,
    "ray data": ray_data,
}

WITH_RAY = {name for name in CONTENDERS if name.startswith("ours, on Ray")} | {"ray tasks, transcode", "ray data"}


def measure(name: str, root: Path, out: Path) -> tuple[float, float]:
    """Run a contender in a process of its own; return cpu-seconds of it and all its descendants, and wall seconds.

    What each process had used is looked at twenty times a second: Ray's servers do not hand on what their workers took.
    """
    begin = time.perf_counter()
    environment = os.environ | {
        "RAY_USAGE_STATS_ENABLED": "0",
        "PYTHONPATH": f"{Path(__file__).parents[1]}",
        "HF_HUB_OFFLINE": "1",
    }
    command = [sys.executable, __file__, "--run", name, str(root), str(out)]
    used: dict[tuple[int, float], float] = {}
    with tempfile.TemporaryFile("w+") as told:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=told)
        while process.poll() is None:
            look(used)
            time.sleep(0.05)
        wall = time.perf_counter() - begin
        if process.returncode:
            told.seek(0)
            raise SystemExit(f"{name}: {told.read()[-2000:]}")
    # Ray leaves servers behind that end a moment later; they are ours (see main).
    while look(used):
        with contextlib.suppress(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)
        time.sleep(0.05)
    return sum(used.values()), wall


def look(used: dict[tuple[int, float], float]) -> int:
    """Note what every descendant has used so far; return how many there are."""
    there = psutil.Process().children(recursive=True)
    alive = 0
    for one in there:
        with contextlib.suppress(psutil.Error):
            times = one.cpu_times()
            used[one.pid, one.create_time()] = times.user + times.system
            alive += one.status() != psutil.STATUS_ZOMBIE
    return alive


def main() -> None:
    if sys.argv[1:2] == ["--run"]:
        CONTENDERS[sys.argv[2]](Path(sys.argv[3]), Path(sys.argv[4]))
        return
    from speech import trust_corpus, write_corpus

    hours = float(sys.argv[1]) if len(sys.argv) > 1 else 30.0
    wanted = sys.argv[2:] or list(CONTENDERS)
    subreaper = 36
    assert ctypes.CDLL(None).prctl(subreaper, 1, 0, 0, 0) == 0
    found: dict[str, tuple[float, float]] = {}
    with tempfile.TemporaryDirectory(dir=Path(__file__).parent, prefix=".build-") as folder:
        root = Path(folder)
        hours = write_corpus(root, hours)
        trust_corpus(root)
        (root / "bench.toml").write_text(RECIPE)
        print(f"{hours:.1f} h of speech in {len(clips(root)):,} files", flush=True)
        for name in wanted:
            out = root / "out" / name.replace(", ", "-").replace(" ", "-")
            if name != "ours, again":  # each scans for itself
                shutil.rmtree(root / "manifests", ignore_errors=True)
            cpu, wall = found[name] = measure(name, root, out)
            beyond = cpu - found["ray"][0] if "ray" in found and name in WITH_RAY else cpu
            print(
                f"{name:24} {wall:7.1f} s wall {hours / wall:6.2f} h/s {cpu:7.1f} cpu-s "
                f"{cpu / hours:5.2f} cpu-s/h {beyond / hours:5.2f} beyond Ray's start",
                flush=True,
            )
            if name != "ours":
                shutil.rmtree(out, ignore_errors=True)
    print(json.dumps({name: [round(value, 2) for value in pair] for name, pair in found.items()}))


if __name__ == "__main__":
    main()
