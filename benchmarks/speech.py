"""The data of the benchmarks: the bundled LibriSpeech clips under many names, in the published layout."""

from __future__ import annotations

import os
from pathlib import Path

MINIATURE = Path(__file__).parents[1] / "tests" / "corpora" / "librispeech" / "LibriSpeech"
BROKEN = {"6385-220959-0000", "7511-102419-0000"}


def write_corpus(root: Path, copies: int) -> None:
    """Write ROOT/raw/librispeech with every whole bundled clip `copies` times, as train-clean-100."""
    top = root / "raw" / "librispeech" / "LibriSpeech"
    split = top / "train-clean-100"
    clips = sorted(path for path in MINIATURE.rglob("*.flac") if path.stem not in BROKEN)
    texts = {}
    for transcript in MINIATURE.rglob("*.trans.txt"):
        texts |= dict(line.split(" ", 1) for line in transcript.read_text().splitlines())
    for copy in range(copies):
        for number, clip in enumerate(clips):
            reader, chapter = 10_000 + number, 100 + copy
            folder = split / str(reader) / str(chapter)
            folder.mkdir(parents=True, exist_ok=True)
            name = f"{reader}-{chapter}-0000"
            os.link(clip, folder / f"{name}.flac") if same_device(clip, folder) else copy_file(
                clip, folder / f"{name}.flac"
            )
            (folder / f"{reader}-{chapter}.trans.txt").write_text(f"{name} {texts[clip.stem]}\n")
    (top / "SPEAKERS.TXT").write_text(
        "".join(f"{10_000 + n} | F | train-clean-100 | 1.0 | x\n" for n in range(len(clips)))
    )


def same_device(one: Path, other: Path) -> bool:
    """Whether a hard link is possible."""
    return one.stat().st_dev == other.stat().st_dev


def copy_file(source: Path, target: Path) -> None:
    """Copy the bytes of a file."""
    target.write_bytes(source.read_bytes())
