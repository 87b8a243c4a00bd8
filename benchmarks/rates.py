"""What an hour of audio costs to store, by the format it is published in: the constants of pipelines/estimate.py.

Bundled speech, joined to clips of 12 s, is written in each format and stored as the build stores it. Prints cpu-seconds
per hour of audio, the least of three rounds, with their parts where they can be told apart.
Usage: python benchmarks/rates.py [MINUTES]
"""

from __future__ import annotations

import io
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
import soxr

from manifests import AudioRef
from shards.audio import decode, encode, to_pcm
from shards.render import store
from speech import BROKEN, MINIATURE

SECONDS = 12
TEXT = "The quick brown fox jumps over the lazy dog, and then it sits down to think about what it has done. "


def speech_at(rate: int, channels: int, number: int, all_speech: np.ndarray) -> np.ndarray:
    """A clip of 12 s: each begins elsewhere in the speech."""
    begin = number * SECONDS * 16_000 % (len(all_speech) - SECONDS * 16_000)
    wave = soxr.resample(all_speech[begin : begin + SECONDS * 16_000].astype(np.float32), 16_000, rate)
    return np.stack([wave * (1 - 0.1 * channel) for channel in range(channels)], axis=1)


FORMATS: dict[str, tuple[str, int, int, dict[str, str]]] = {
    "flac16": ("flac", 16_000, 1, {"format": "FLAC", "subtype": "PCM_16"}),
    "wav16": ("wav", 16_000, 1, {"format": "WAV", "subtype": "PCM_16"}),
    "flac32": ("flac", 32_000, 1, {"format": "FLAC", "subtype": "PCM_16"}),
    "wav44": ("wav", 44_100, 2, {"format": "WAV", "subtype": "PCM_16"}),
    "mp3": ("mp3", 48_000, 1, {"format": "MP3", "subtype": "MPEG_LAYER_III"}),
    "opus": ("opus", 48_000, 2, {"format": "OGG", "subtype": "OPUS"}),
}


def least(work: Callable[[], None], hours: float) -> float:
    """Return cpu-seconds per hour of the quickest of three rounds."""
    rounds = []
    for _ in range(3):
        begin = time.process_time()
        work()
        rounds.append((time.process_time() - begin) / hours)
    return min(rounds)


def main() -> None:
    count = round((float(sys.argv[1]) if len(sys.argv) > 1 else 6) * 60 / SECONDS)
    clips = sorted(path for path in MINIATURE.rglob("*.flac") if path.stem not in BROKEN)
    all_speech = np.concatenate([soundfile.read(path)[0] for path in clips])
    hours = count * SECONDS / 3600
    with tempfile.TemporaryDirectory(dir=Path(__file__).parent) as folder:
        place = Path(folder)
        for name in FORMATS:
            print(f"{name:8} {of_format(name, place, count, all_speech)}")
        flacs = [AudioRef(path=f"flac16-{number}.flac") for number in range(count)]
        trusted = least(lambda: [store(str(place), (ref,), trusted=True) for ref in flacs] and None, hours)
        print(f"{'trusted':8} {trusted:6.2f}")
        mixed = least(
            lambda: [store(str(place), (a, b), "mix") for a, b in zip(flacs, reversed(flacs), strict=True)] and None,
            hours,
        )
        print(f"{'mix':8} {mixed:6.2f} (two FLACs)")
        pcm = to_pcm(all_speech.astype(np.float32))
        alone = least(lambda: encode(pcm) and None, len(pcm) / 16_000 / 3600)
        print(f"{'':8} {alone:6.2f} encode alone")
        spoken = [AudioRef(speech=TEXT * 2 + str(number), voice="en-us") for number in range(10)]
        length = sum(store(str(place), (ref,)).samples for ref in spoken) / 16_000 / 3600
        print(f"{'speech':8} {least(lambda: [store(str(place), (ref,)) for ref in spoken] and None, length):6.2f}")


def of_format(name: str, place: Path, count: int, all_speech: np.ndarray) -> str:
    """Write `count` clips in a format and tell what an hour of them costs."""
    suffix, rate, channels, how = FORMATS[name]
    paths = [f"{name}-{number}.{suffix}" for number in range(count)]
    for number, path in enumerate(paths):
        soundfile.write(place / path, speech_at(rate, channels, number, all_speech), rate, **how)
    pairs = [((place / path).read_bytes(), AudioRef(path=path)) for path in paths]
    hours = count * SECONDS / 3600
    whole = least(lambda: [store(str(place), (ref,)) for _, ref in pairs] and None, hours)
    bare = least(lambda: [soundfile.read(io.BytesIO(data), dtype="float32") for data, _ in pairs] and None, hours)
    brought = least(lambda: [decode(data, ref) for data, ref in pairs] and None, hours)
    return f"{whole:6.2f} cpu-s an hour (decode {bare:.2f}, to 16 kHz mono {brought:.2f})"


if __name__ == "__main__":
    main()
