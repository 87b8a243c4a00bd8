"""How near the scan comes to its limit: listing the same folders and reading the same bytes.

Two corpora are made in the published layout, a LibriSpeech tree and AudioCaps' table, with an audio file a clip (hard
links of one FLAC of a second). In one run, each in a process of its own, with all files in the page cache, which is
the hardest case for Python: (1) the limit, which walks the folders, reads tables and transcripts, and of each audio
file its size and its first 42 bytes, where a FLAC tells its length; (2) `scan`, to Parquet. Prints the processor and
wall seconds of both, their ratios, and the peak memory of the scan. The aim, at 280000 utterances and 400000 rows, is
a ratio of at most 2 in less than 1 GiB. Usage: python benchmarks/scan.py [UTTERANCES [ROWS]]
"""

from __future__ import annotations

import io
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import soundfile

from pipelines.scan import ScanTask, scan
from speech import MINIATURE

CHAPTER = 48
"""Utterances a chapter: LibriSpeech has 281,241 in 5,831."""
LINKS = 60_000
"""Names of one file, after which comes a copy: ext4 allows 65,000."""
ROUNDS = 5
SPLITS = {"librispeech": "train-other-500", "audiocaps": "train"}
TEXT = "MISTER QUILTER IS THE APOSTLE OF THE MIDDLE CLASSES AND WE ARE GLAD TO WELCOME HIS GOSPEL"


def flac() -> bytes:
    """Return one second of speech."""
    source = next(iter(sorted((MINIATURE / "dev-clean").rglob("*.flac"))))
    pcm, rate = soundfile.read(str(source), dtype="int16", frames=16_000)
    sink = io.BytesIO()
    soundfile.write(sink, pcm, rate, format="FLAC")
    return sink.getvalue()


def linker(place: Path, content: bytes) -> Callable[[Path], None]:
    """Return a function that makes `content` appear under a name, as cheaply as the file system can."""
    made = 0

    def link(path: Path) -> None:
        nonlocal made
        source = place / f"{made // LINKS}.flac"
        if made % LINKS == 0:
            source.write_bytes(content)
        os.link(source, path)
        made += 1

    return link


def write_librispeech(root: Path, clips: int, link: Callable[[Path], None]) -> None:
    """Write a tree of `clips` utterances, four chapters a reader."""
    top = root / "raw" / "librispeech" / "LibriSpeech"
    readers = []
    for first in range(0, clips, CHAPTER):
        chapter = first // CHAPTER
        reader = 10_000 + chapter // 4
        readers.append(reader)
        folder = top / SPLITS["librispeech"] / str(reader) / str(chapter)
        folder.mkdir(parents=True)
        names = [f"{reader}-{chapter}-{number:04d}" for number in range(min(CHAPTER, clips - first))]
        (folder / f"{reader}-{chapter}.trans.txt").write_text("".join(f"{name} {TEXT}\n" for name in names))
        for name in names:
            link(folder / f"{name}.flac")
    lines = [f"{reader:<5}| F | train-other-500  | 30.0 | Reader {reader}\n" for reader in dict.fromkeys(readers)]
    (top / "SPEAKERS.TXT").write_text("".join(lines))


def write_audiocaps(root: Path, clips: int, link: Callable[[Path], None]) -> None:
    """Write a table of `clips` rows, each with its own clip."""
    top = root / "raw" / "audiocaps"
    (top / "audio" / "train").mkdir(parents=True)
    (top / "dataset").mkdir()
    with open(top / "dataset" / "train.csv", "w") as table:
        table.write("audiocap_id,youtube_id,start_time,caption\n")
        for number in range(clips):
            table.write(f'{number},v{number:010d},{number % 300},"A dog barks, and a man speaks in the distance"\n')
            link(top / "audio" / "train" / f"v{number:010d}_{number % 300}.flac")


def limit(root: str, corpus: str) -> int:
    """List the folders of a corpus and read what a scan must; return how many audio files there are."""
    found = 0
    for here, _, names in os.walk(os.path.join(root, "raw", corpus)):
        for name in names:
            with open(os.path.join(here, name), "rb", buffering=0) as file:
                if name.endswith(".flac"):
                    os.fstat(file.fileno())
                    file.read(42)
                    found += 1
                else:
                    file.read()
    return found


def full(root: str, corpus: str) -> int:
    """Scan a corpus; return how many clips have audio."""
    result = scan(ScanTask(root=root, corpus=corpus, split=SPLITS[corpus]))
    return result.clips - result.missing


def measure(work: Callable[[str, str], int], root: str, corpus: str) -> tuple[int, float, float, int]:
    """Return what `work` returns, its processor and wall seconds, and the peak memory of this process in MiB."""
    cpu, wall = time.process_time(), time.perf_counter()
    found = work(root, corpus)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return found, cpu, wall, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main() -> None:
    sizes = [int(size) for size in sys.argv[1:3]]
    sizes += [20_000] * (2 - len(sizes))
    with tempfile.TemporaryDirectory(dir=Path(__file__).parent) as folder:
        root, content = Path(folder), flac()
        (root / "files").mkdir()
        link = linker(root / "files", content)
        write_librispeech(root, sizes[0], link)
        write_audiocaps(root, sizes[1], link)
        for corpus, clips in zip(SPLITS, sizes, strict=True):
            taken: dict[str, list[tuple[int, float, float, int]]] = {"limit": [], "scan": []}
            for _ in range(ROUNDS):
                for name, work in (("limit", limit), ("scan", full)):
                    # A new process each: what it holds at its peak is its own.
                    with multiprocessing.get_context("spawn").Pool(1) as pool:
                        taken[name].append(pool.apply(measure, (work, folder, corpus)))
            assert {one[0] for runs in taken.values() for one in runs} == {clips}
            cpu, wall = ({name: min(one[at] for one in runs) for name, runs in taken.items()} for at in (1, 2))
            print(
                f"{corpus}, {clips} clips: limit {cpu['limit']:.2f} s processor, {wall['limit']:.2f} s wall; "
                f"scan {cpu['scan']:.2f} s, {wall['scan']:.2f} s: ratios {cpu['scan'] / cpu['limit']:.2f} and "
                f"{wall['scan'] / wall['limit']:.2f}; {max(one[3] for one in taken['scan'])} MiB at the peak"
            )


if __name__ == "__main__":
    main()
