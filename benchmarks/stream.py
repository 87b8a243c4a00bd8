"""How fast the stream deals batches, beside the bare loop of its decoder and beside other loaders on the same audio.

Real speech as LibriSpeech has it is built into shards once; every contender deals all of it in padded batches of the
same budget, in a process of its own, in turns, round after round. One batch is dealt to try, so that all is imported;
then the clock runs from the making of the loader to its last batch. Cpu-seconds are of the process and all its
descendants. `bare` decodes clips whose place is known into buffers used again, whole batches a thread, and does nothing
else: the limit. Memory is what the process tree holds at its peak, with pages that processes share counted once.
benchmarks/stream_peers.py says how the peers are set. Usage::

    python benchmarks/stream.py [--hours 12] [--shard-mb 64] [--rounds 3] [--epochs 3] [--place DIR]
        [--only A,B] [--without A,B] [--check] [--json FILE]

`--place` keeps what is built for the next run. `--check` decodes all audio of every contender once, untimed, and fails
if they do not all deal the same clips. `--without litdata,grain` leaves out what is not installed (extra `bench`).
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import functools
import gc
import importlib.metadata
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import psutil

import stream_peers as peers
from build import RECIPE
from stream_peers import MAX_EXAMPLES, MAX_SECONDS, RATE, Run, See, load_members
from stream_report import gates, slope, table

MIB = 2**20


def dr_flac() -> Callable[[bytes, np.ndarray], None]:
    """Return what decodes a FLAC file into a row."""
    import miniaudio

    lib, ffi = miniaudio.lib, miniaudio.ffi

    def decode(data: bytes, row: np.ndarray) -> None:
        flac = lib.ma_dr_flac_open_memory(data, len(data), ffi.NULL)
        lib.ma_dr_flac_read_pcm_frames_s16(flac, len(row), ffi.cast("ma_dr_flac_int16 *", row.ctypes.data))
        lib.ma_dr_flac_close(flac)

    return decode


def libsndfile() -> Callable[[bytes, np.ndarray], None]:
    """Return what decodes a FLAC file into a row."""
    import soundfile

    return lambda data, row: soundfile.read(io.BytesIO(data), dtype="int16", out=row)


def bare(place: Path, decoder: Callable[[], Callable[[bytes, np.ndarray], None]], threads: int) -> Run:
    """Decode clips by known byte ranges into reused padded batches, and nothing else."""
    paths, members = load_members(place)
    batches = list(peers.in_budget(members[members[:, 3].argsort()].tolist(), lambda member: member[3]))
    order = np.random.default_rng(0).permutation(len(batches)).tolist()
    files = [os.open(path, os.O_RDONLY) for path in paths]
    decode = decoder()

    def run(see: See) -> None:
        todo = iter([batches[number] for number in order])

        def work() -> None:
            held = np.zeros(MAX_SECONDS * RATE, np.int16)
            for batch in todo:  # a list's iterator can be shared: each item is taken once
                width = batch[-1][3]
                pcm = held[: len(batch) * width].reshape(len(batch), width)
                for row, (file, offset, size, samples) in zip(pcm, batch, strict=True):
                    decode(os.pread(files[file], size, offset), row[:samples])
                    row[samples:] = 0
                see(pcm, np.array([member[3] for member in batch]))

        pool = [threading.Thread(target=work) for _ in range(threads)]
        for thread in pool:
            thread.start()
        for thread in pool:
            thread.join()

    return run


def ours(place: Path, threads: int, floats: bool = False, epochs: int = 1) -> Run:
    """Our stream: int16 batches, or float32."""
    from manifests import load_recipe
    from shards import Dataset, Stream

    def run(see: See) -> None:
        stream = Stream(
            Dataset(place / "dataset"), load_recipe(place / "bench.toml"), stage="instruct", seed=0,
            max_seconds=MAX_SECONDS, max_examples=MAX_EXAMPLES, epochs=epochs, threads=threads,
        )  # fmt: skip
        for batch in stream:
            see(batch.audio if floats else batch.pcm, batch.lengths)

    return run


part = functools.partial
OURS = {"ours, 1 thread": part(ours, threads=1), "ours, 2 threads": part(ours, threads=2)}
PEERS = {
    "webdataset": peers.webdataset,
    "webdataset, 2 workers": part(peers.webdataset, workers=2),
    "webdataset by length": part(peers.webdataset, by_length=True),
    "webdataset by length, 2 workers": part(peers.webdataset, by_length=True, workers=2),
    "lhotse": peers.lhotse,
    "lhotse, 2 threads": part(peers.lhotse, threads=2),
    "lhotse, 2 workers": part(peers.lhotse, workers=2),
    "litdata": peers.litdata,
    "litdata, 2 workers": part(peers.litdata, workers=2),
    "grain": peers.grain,
    "grain, 2 threads": part(peers.grain, threads=2),
    "grain, 4 threads": part(peers.grain, threads=4),
    "grain, 2 workers": part(peers.grain, workers=2),
}
CONTENDERS: dict[str, Callable[..., Run]] = {
    "bare dr_flac, 1 thread": part(bare, decoder=dr_flac, threads=1),
    "bare dr_flac, 2 threads": part(bare, decoder=dr_flac, threads=2),
    "bare libsndfile, 1 thread": part(bare, decoder=libsndfile, threads=1),
    "bare libsndfile, 2 threads": part(bare, decoder=libsndfile, threads=2),
    **OURS,
    "ours, 2 threads, float32": part(ours, threads=2, floats=True),
    **PEERS,
    # Not as anybody ships them, so no peers of ours: what is left of our lead if they are given our decoder.
    "(webdataset, dr_flac)": part(peers.webdataset, decode=peers.decode_fast),
    "(webdataset, dr_flac, 2 workers)": part(peers.webdataset, decode=peers.decode_fast, workers=2),
}


def write_members(place: Path) -> None:
    """Write where our shards hold each clip, for who reads them without us."""
    from shards import Dataset

    dataset = Dataset(place / "dataset")
    source = dataset.manifest.sources[0]
    table = dataset.table(source.corpus, source.split, ["shard", "flac_offset", "flac_bytes", "samples"])
    shards = sorted(set(table["shard"].to_pylist()))
    numbers = [shards.index(shard) for shard in table["shard"].to_pylist()]
    np.save(place / "members.npy", np.array([numbers, *(table[name].to_pylist() for name in table.column_names[1:])]).T)
    (place / "shards.json").write_text(json.dumps([str(place / "dataset" / shard) for shard in shards]))


def build(place: Path, hours: float, shard_mb: int, families: Iterable[str]) -> None:
    """Build our shards and what the peers make of them, as far as it is not there, and bring all into memory."""
    this = [sys.executable, __file__, "--write"]
    if not (place / "members.npy").exists():
        from speech import write_corpus

        write_corpus(place, hours)
        (place / "bench.toml").write_text(RECIPE)
        command = [sys.executable, "-m", "salmonn.cli", "build", str(place / "bench.toml"), "--root", str(place)]
        shard = ["--shard-mb", str(shard_mb)]
        subprocess.run([*command, "--out", str(place / "dataset"), *shard], check=True, stdout=subprocess.DEVNULL)
        subprocess.run([*this, "members", str(place)], check=True)
    for family in families:
        if family in peers.WRITERS and not (place / f"{family}.done").exists():
            subprocess.run([*this, family, str(place)], check=True, stdout=subprocess.DEVNULL)
            (place / f"{family}.done").touch()
    for path in place.rglob("*"):
        if path.is_file() and "raw" not in path.parts and "pool" not in path.parts:
            with path.open("rb") as file:
                while file.read(MIB):
                    pass


class Enough(Exception):
    """The first batch is there."""


def warm(run: Run) -> None:
    """Deal one batch, so that what is imported and compiled at the first use is not timed."""

    def see(batch: Any, lengths: Any) -> None:
        raise Enough

    threading.excepthook = lambda args: None
    with contextlib.suppress(Enough):
        run(see)
    threading.excepthook = threading.__excepthook__
    gc.collect()
    time.sleep(1)  # for its workers to end


def cpu() -> float:
    """Seconds of processor that this process and its ended children have used."""
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(used.ru_utime + used.ru_stime for used in both)


def contend(name: str, place: Path, mode: str, epochs: int, out: Path) -> None:
    """Be a contender; write what it dealt and took. `mode` is time, check (the audio, too) or memory."""
    run = CONTENDERS[name](place, **({"epochs": epochs} if mode == "memory" else {}))
    seen: list[tuple[int, int, int, int]] = []
    points: list[tuple[int, float]] = []
    process = psutil.Process()

    def see(batch: Any, lengths: Any) -> None:
        rows, width = batch.shape
        if rows > MAX_EXAMPLES or rows * width > MAX_SECONDS * RATE:
            raise SystemExit(f"{name}: a batch of {rows} clips of {width / RATE:.2f} s is beyond the budget")
        seen.append((rows, rows * width, int(lengths.sum()), digest(batch, lengths) if mode == "check" else 0))
        if mode == "memory" and len(seen) % 10 == 0:
            points.append((sum(one[0] for one in seen[-10:]), process.memory_info().rss / MIB))

    warm(run)
    before, begin = cpu(), time.perf_counter()
    run(see)
    wall = time.perf_counter() - begin
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    examples, padded, real, audio = (sum(column) for column in zip(*seen, strict=True))
    made = {"examples": examples, "hours": real / RATE / 3600, "padding": 1 - real / padded, "audio": audio}
    took = {"wall": wall, "before": before, "peak": int(peak.split()[1]) / 1024, "torch": "torch" in sys.modules}
    out.write_text(json.dumps(made | took | {"batches": len(seen), "points": points}))
    gc.collect()
    os._exit(0)  # how long an interpreter takes to end is not the loader's


def digest(batch: Any, lengths: Any) -> int:
    """Return a number of the clips in a batch that does not depend on their order."""
    pcm = np.asarray(batch)
    if pcm.dtype != np.int16:
        pcm = np.rint(pcm * 32768).astype(np.int16)
    clips = zip(pcm, np.asarray(lengths).tolist(), strict=True)
    if any(row[length:].any() for row, length in zip(pcm, np.asarray(lengths).tolist(), strict=True)):
        raise SystemExit("a batch is not zero behind the end of a clip")
    return sum(zlib.crc32(np.ascontiguousarray(row[:length])) for row, length in clips)


def held(process: psutil.Process) -> float:
    """Return the MiB of a process and its descendants; 0 when it is gone."""
    try:
        tree = [process, *process.children(recursive=True)]
        if len(tree) == 1:
            return float(process.memory_info().rss) / MIB
        return sum(float(one.memory_full_info().pss) for one in tree) / MIB
    except psutil.Error:
        return 0.0


def measure(name: str, place: Path, mode: str = "time", epochs: int = 1) -> dict[str, Any]:
    """Run a contender in a process of its own; return what it dealt, and what it and all its descendants took."""
    begun = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "HF_HUB_OFFLINE": "1"}
    environment["PYTHONWARNINGS"] = "ignore"
    out, said = place / "result.json", place / "said.txt"
    command = [sys.executable, __file__, "--run", name, str(place), mode, str(epochs), str(out)]
    out.unlink(missing_ok=True)
    peak = 0.0
    with said.open("w") as log, subprocess.Popen(command, env=environment, stdout=log, stderr=log) as child:
        process = psutil.Process(child.pid)
        while child.poll() is None:
            peak = max(peak, held(process))
            time.sleep(0.2)
    while True:  # what a contender left behind is ours to wait for (see main)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            break
    if child.returncode or not out.exists():
        raise SystemExit(f"{name} failed:\n{said.read_text()[-2000:]}")
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    result: dict[str, Any] = json.loads(out.read_text())
    result["cpu"] = ended.ru_utime + ended.ru_stime - begun.ru_utime - begun.ru_stime - result["before"]
    result["peak"] = max(peak, result["peak"])
    return result


def main() -> None:
    if sys.argv[1:2] == ["--run"]:
        name, place, mode, epochs, out = sys.argv[2:]
        contend(name, Path(place), mode, int(epochs), Path(out))
        return
    if sys.argv[1:2] == ["--write"]:
        family, place = sys.argv[2], Path(sys.argv[3])
        write_members(place) if family == "members" else peers.WRITERS[family](place, place / family)
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=12.0)
    parser.add_argument("--shard-mb", type=int, default=64, help="of ours; two workers need two shards")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3, help="of ours, whose memory is watched; 0 for none")
    parser.add_argument("--place", type=Path)
    parser.add_argument("--only", default="", help="beginnings of contenders' names, with commas")
    parser.add_argument("--without", default="", help="beginnings of contenders' names, with commas")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0  # PR_SET_CHILD_SUBREAPER
    with tempfile.TemporaryDirectory(dir=Path(__file__).parent, prefix=".stream-") as folder:
        compare(asked, asked.place or Path(folder))


def compare(asked: argparse.Namespace, place: Path) -> None:
    """Run what is asked for, and say what came of it."""
    first = tuple(asked.only.split(",")) if asked.only else ("",)
    left = tuple(asked.without.split(",")) if asked.without else ()
    names = [name for name in CONTENDERS if name.startswith(first) and not name.startswith(left)]
    place.mkdir(parents=True, exist_ok=True)
    place = place.resolve()
    build(place, asked.hours, asked.shard_mb, dict.fromkeys(name.split(",")[0].split()[0] for name in names))
    members = load_members(place)[1]
    total = {"examples": len(members), "hours": int(members[:, 3].sum()) / RATE / 3600}
    print(f"{total['hours']:.1f} h of speech in {len(members):,} clips; load {os.getloadavg()[0]:.1f}", flush=True)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for number in range(asked.rounds + asked.check):
        checks = asked.check and not number
        for name in names:
            result = measure(name, place, "check" if checks else "time")
            if any(abs(result[what] - total[what]) > 1e-6 for what in total):
                raise SystemExit(f"{name} dealt {result['examples']} clips of {result['hours']:.3f} h, not all")
            if checks and total.setdefault("audio", result["audio"]) != result["audio"]:
                raise SystemExit(f"{name} dealt other audio than {names[0]}")
            if not checks:
                found[name].append(result)
                total.pop("audio", None)
        said = "all dealt the same audio" if checks else f"round {number + (not asked.check)} of {asked.rounds}"
        print(f"{said}; load {os.getloadavg()[0]:.1f}", flush=True)
    if not asked.rounds:
        return
    figures = table(found)
    growth, watched = None, "ours, 2 threads"
    if asked.epochs > 1 and watched in names:
        growth = slope(measure(watched, place, "memory", asked.epochs)["points"], asked.epochs)
    asks = gates(figures, list(OURS), list(PEERS), growth)
    if asked.json:
        pins = {name: importlib.metadata.version(name) for name in ("numpy", "miniaudio", "soundfile")}
        for family in {"webdataset", "lhotse", "litdata", "grain"} & {name.split(",")[0] for name in names}:
            pins[family] = importlib.metadata.version(family)
        asked.json.write_text(json.dumps({"pins": pins, "total": total, "asks": asks, "runs": found}, indent=1))


if __name__ == "__main__":
    main()
