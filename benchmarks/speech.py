"""The data of the benchmarks: bundled LibriSpeech, joined to utterances of the lengths that LibriSpeech has."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import soundfile

from manifests.tables import write_table

MINIATURE = Path(__file__).parents[1] / "tests" / "corpora" / "librispeech" / "LibriSpeech"
BROKEN = {"6385-220959-0000", "7511-102419-0000"}
RATE = 16_000
DISTINCT = 240
"""Utterances that differ; more are the same under other names."""


def lengths(count: int, seed: int = 0) -> list[float]:
    """Seconds of utterances as in train-clean-100: from 1.5 to 17, most near 14, 12.3 on average."""
    dice = random.Random(seed)
    return [
        min(17.0, max(1.5, dice.gauss(14.6, 1.2) if dice.random() < 0.72 else dice.uniform(2, 13)))
        for _ in range(count)
    ]


def all_speech() -> np.ndarray:
    """Every whole bundled clip behind the other, int16 at 16 kHz."""
    clips = sorted(path for path in MINIATURE.rglob("*.flac") if path.stem not in BROKEN)
    return np.concatenate([soundfile.read(clip, dtype="int16")[0] for clip in clips])


def utterances(count: int) -> list[np.ndarray]:
    """Real speech cut to `count` utterances, each beginning elsewhere."""
    speech = all_speech()
    made, at = [], 0
    for seconds in lengths(count):
        size = round(seconds * RATE)
        made.append(np.take(speech, range(at, at + size), mode="wrap"))
        at = (at + size + 997) % len(speech)
    return made


def write_corpus(root: Path, hours: float) -> float:
    """Write ROOT/raw/librispeech with about `hours` of speech as train-clean-100; return how many they are.

    FLAC level 5, as LibriSpeech is; 40 utterances a chapter. What is written twice is linked, not copied.
    """
    top = root / "raw" / "librispeech" / "LibriSpeech"
    pool = root / "pool"
    pool.mkdir(parents=True)
    distinct = utterances(DISTINCT)
    for number, pcm in enumerate(distinct):
        soundfile.write(pool / f"{number}.flac", pcm, RATE, subtype="PCM_16", format="FLAC", compression_level=5 / 8)
    seconds, chapter = 0.0, 0
    while seconds < hours * 3600:
        reader = 10_000 + chapter % 251
        folder = top / "train-clean-100" / str(reader) / str(100 + chapter)
        folder.mkdir(parents=True)
        lines = []
        for number in range(40):
            which = (chapter * 40 + number) % DISTINCT
            name = f"{reader}-{100 + chapter}-{number:04d}"
            os.link(pool / f"{which}.flac", folder / f"{name}.flac")
            lines.append(f"{name} " + "THE QUICK BROWN FOX JUMPS OVER THE LAZY DOG AND RESTS " * 3 + "\n")
            seconds += len(distinct[which]) / RATE
        (folder / f"{reader}-{100 + chapter}.trans.txt").write_text("".join(lines))
        chapter += 1
    (top / "SPEAKERS.TXT").write_text(
        "".join(f"{10_000 + number} | F | train-clean-100 | 1.0 | x\n" for number in range(251))
    )
    return seconds / 3600


def trust_corpus(root: Path) -> None:
    """Leave behind what fetch does that has checked and unpacked the archive of the corpus."""
    from manifests import files, load_corpus
    from pipelines.items import Outcome, items_of, outcome_path, write_outcome
    from pipelines.unpacking.unpack import SCHEMA

    (item,) = items_of(load_corpus("librispeech"), ("train-clean-100",))
    base = root / "raw" / "librispeech"
    rows = []
    for name in files.walk(str(base)):
        about = (base / name).stat()
        rows.append({"path": name, "bytes": about.st_size, "mtime_ns": about.st_mtime_ns, "crc32": 0})
    record = outcome_path(str(root), item).removesuffix(".json") + ".unpacked.parquet"
    write_table(record, pa.Table.from_pylist(rows, schema=SCHEMA))
    outcome = Outcome(key=item.key, state="ok", verified="published", unpacked=True, files=len(rows))
    write_outcome(str(root), item, outcome)


def peak_memory() -> float:
    """Peak resident memory of this process, MiB. Not ru_maxrss: a process begins with that of its parent."""
    (peak,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(peak.split()[1]) / 1024
