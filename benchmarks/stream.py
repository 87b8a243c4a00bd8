"""How fast the stream deals batches, beside the bare loop of its decoder and beside other loaders on the same audio.

Real speech as LibriSpeech has it is built into shards once; every contender deals all of it in padded batches of the
same budget, in a process of its own, in turns, round after round. One batch is dealt to try, so that all is imported;
then the clock runs from the making of the loader to its last batch. Cpu-seconds are of the process and all its
descendants. `bare` decodes clips whose place is known into buffers used again, whole batches a thread, and does nothing
else: the limit. Memory is what the process tree holds at its peak, with pages that processes share counted once.
benchmarks/stream_contenders.py says who takes part, stream_peers.py how the peers are set. Usage::

    python benchmarks/stream.py [--hours 12] [--shard-mb 64] [--rounds 3] [--epochs 3] [--place DIR]
        [--only NAME ...] [--without NAME ...] [--check] [--json FILE]

`--place` keeps what is built for the next run. `--check` decodes all audio of every contender once, untimed, and fails
if they do not all deal the same clips. `--without litdata grain` leaves out what is not installed (extra `bench`).
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import importlib.metadata
import importlib.util
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from build import RECIPE
from stream_contenders import CONTENDERS, OURS, PEERS, write_members
from stream_peers import MAX_EXAMPLES, MAX_SECONDS, RATE, WRITERS, Run, load_members
from stream_report import gates, slope, table

MIB = 2**20
LIBRARIES = {"webdataset", "lhotse", "litdata", "grain"}


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
        if family in WRITERS and not (place / f"{family}.done").exists():
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
    totals, lock = [0] * 5, threading.Lock()  # batches, examples, samples, those padded, digest
    points: list[tuple[int, float]] = []
    process = psutil.Process()

    def see(batch: Any, lengths: Any) -> None:
        rows, width = batch.shape
        if rows > MAX_EXAMPLES or rows * width > MAX_SECONDS * RATE:
            raise SystemExit(f"{name}: a batch of {rows} clips of {width / RATE:.2f} s is beyond the budget")
        new = (1, rows, int(lengths.sum()), rows * width, digest(batch, lengths) if mode == "check" else 0)
        with lock:
            totals[:] = map(sum, zip(totals, new, strict=True))
            if mode == "memory" and totals[0] % 10 == 0:
                points.append((totals[1], process.memory_info().rss / MIB))

    warm(run)
    before, begin = cpu(), time.perf_counter()
    run(see)
    wall = time.perf_counter() - begin
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    batches, examples, real, padded, audio = totals
    made = {"batches": batches, "examples": examples, "hours": real / RATE / 3600, "padding": 1 - real / padded}
    took = {"wall": wall, "before": before, "peak": int(peak.split()[1]) / 1024, "torch": "torch" in sys.modules}
    out.write_text(json.dumps(made | took | {"audio": audio, "points": points}))
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
        write_members(place) if family == "members" else WRITERS[family](place, place / family)
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=12.0)
    parser.add_argument("--shard-mb", type=int, default=64, help="of ours; two workers need two shards")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--epochs", type=int, default=3, help="of ours, whose memory is watched; 30 for certainty, 0 for none"
    )
    parser.add_argument("--place", type=Path)
    parser.add_argument("--only", nargs="+", default=[""], metavar="NAME", help="beginnings of contenders' names")
    parser.add_argument("--without", nargs="+", default=[], metavar="NAME", help="beginnings of contenders' names")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0  # PR_SET_CHILD_SUBREAPER
    with tempfile.TemporaryDirectory(dir=Path(__file__).parent) as folder:
        compare(asked, asked.place or Path(folder))


def compare(asked: argparse.Namespace, place: Path) -> None:
    """Run what is asked for, and say what came of it."""
    first, left = tuple(asked.only), tuple(asked.without)
    names = [name for name in CONTENDERS if name.startswith(first) and not name.startswith(left)]
    families = dict.fromkeys(name.split(",")[0].split()[0] for name in names)
    for family in LIBRARIES & families.keys():
        if importlib.util.find_spec(family) is None:
            raise SystemExit(
                f"{family} is not installed: pip install -e '.[bench]', or leave it out, --without {family}"
            )
    place.mkdir(parents=True, exist_ok=True)
    place = place.resolve()
    build(place, asked.hours, asked.shard_mb, families)
    members = load_members(place)[1]
    total = {"examples": len(members), "hours": int(members[:, 3].sum()) / RATE / 3600}
    print(f"{total['hours']:.1f} h of speech in {len(members):,} clips; load {os.getloadavg()[0]:.1f}", flush=True)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    audio: int | None = None
    for number in range(asked.rounds + asked.check):
        checks = asked.check and not number
        for name in names:
            result = measure(name, place, "check" if checks else "time")
            if any(abs(result[what] - total[what]) > 1e-6 for what in total):
                raise SystemExit(f"{name} dealt {result['examples']} clips of {result['hours']:.3f} h, not all")
            if not checks:
                found[name].append(result)
            elif (audio := result["audio"] if audio is None else audio) != result["audio"]:
                raise SystemExit(f"{name} dealt other audio than {names[0]}")
        said = "all dealt the same audio" if checks else f"round {number + (not asked.check)} of {asked.rounds}"
        print(f"{said}; load {os.getloadavg()[0]:.1f}", flush=True)
    if not asked.rounds:
        return
    figures = table(found)
    growth, points, watched = None, [], "ours, 2 threads"
    if asked.epochs > 1 and watched in names:
        points = measure(watched, place, "memory", asked.epochs)["points"]
        growth = slope(points)
    asks = gates(figures, list(OURS), list(PEERS), growth)
    if asked.json:
        pins = {name: importlib.metadata.version(name) for name in ("numpy", "miniaudio", "soundfile")}
        for family in LIBRARIES & families.keys():
            pins[family] = importlib.metadata.version(family)
        asked.json.write_text(
            json.dumps({"pins": pins, "total": total, "asks": asks, "memory": points, "runs": found}, indent=1)
        )


if __name__ == "__main__":
    main()
