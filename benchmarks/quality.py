"""What the quality columns and the fingerprint cost, as a share of decoding the same audio.

In one run and one thread, on the bundled speech: libsndfile and dr_flac decode every FLAC, and `hear` takes
the samples; then again on clips of ten seconds cut from the same speech, which is what clips last on average, part by
part. Prints processor seconds per hour of audio and the ratio to libsndfile. The aim is 0.20 s per hour for all that is
heard, 0.06 of it for the fingerprint. The machine is best left alone meanwhile.
Usage: OPENBLAS_NUM_THREADS=1 python benchmarks/quality.py [ROUNDS]
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Iterable

import numpy as np
import soundfile

from shards import dr_flac, quality, sums
from shards.audio import pcm_md5
from shards.fingerprint import fingerprint
from shards.flac import flac_info
from shards.quality import BLOCK, PCM
from shards.render import hear
from speech import BROKEN, MINIATURE

TEN = 160_000
HOUR = 3600 * 16_000


def parts(pcm: PCM) -> dict[str, Callable[[], object]]:
    """What `hear` does, one by one, on samples ready to be measured; and what does not belong to it."""
    summed = sums.sums_of(pcm, BLOCK)

    def by_numpy() -> None:
        compiled, sums.add_up = sums.add_up, sums.sums_in_numpy
        sums.sums_of(pcm, BLOCK)
        sums.add_up = compiled

    return {
        "peak": lambda: (pcm.min(), pcm.max()),
        "clipped": lambda: quality.clipped(pcm, int(pcm.min()), int(pcm.max())),
        "sums, all": lambda: sums.sums_of(pcm, BLOCK),
        "sums, by numpy": by_numpy,
        "loudness gates": lambda: quality.loudness(summed.hops),
        "silence": lambda: quality.silences(summed.frames),
        "noise": lambda: quality.signal_to_noise(summed.frames),
        "bandwidth": lambda: quality.bandwidth(pcm, 0),
        "fingerprint": lambda: fingerprint(pcm, summed.tens),
        "(MD5)": lambda: pcm_md5(pcm),
    }


def decode(files: Iterable[bytes]) -> list[PCM]:
    """Decode, as libsndfile does it by itself."""
    return [soundfile.read(io.BytesIO(data), dtype="int16")[0] for data in files]


def decode_fast(files: Iterable[bytes]) -> list[PCM | None]:
    """Decode, as it is done where there is a checksum."""
    return [dr_flac.decode(data, info.samples) for data in files if (info := flac_info(data))]


def seconds(work: Callable[[], object]) -> float:
    """Processor seconds that `work` takes."""
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    files = [path.read_bytes() for path in sorted(MINIATURE.rglob("*.flac")) if path.stem not in BROKEN]
    clips = decode(files)
    speech = np.concatenate(clips)
    tens = [speech[start : start + TEN] for start in range(0, len(speech) - TEN + 1, TEN)]
    hours, ten_hours = len(speech) / HOUR, len(tens) * TEN / HOUR
    taken: dict[str, list[float]] = {}
    # By turns, so that a busy machine is busy for all; the best of each counts.
    for _ in range(rounds):
        taken.setdefault("decode", []).append(seconds(lambda: decode(files)) / hours)
        taken.setdefault("decode, fast", []).append(seconds(lambda: decode_fast(files)) / hours)
        taken.setdefault("hear", []).append(seconds(lambda: [hear(pcm) for pcm in clips]) / hours)
        taken.setdefault("hear, 10 s", []).append(seconds(lambda: [hear(pcm) for pcm in tens]) / ten_hours)
        each = [parts(pcm) for pcm in tens]
        for name in each[0]:
            work = [part[name] for part in each]
            taken.setdefault(f"  {name}", []).append(seconds(lambda work=work: [one() for one in work]) / ten_hours)
    unit = min(taken["decode"])
    mean = len(speech) / len(clips) / 16_000
    print(f"{len(clips)} clips, {hours * 60:.1f} minutes, {mean:.1f} s on average; best of {rounds} rounds")
    print(f"{'':24}cpu-s per hour   of decoding")
    for name, times in taken.items():
        print(f"{name:24}{min(times):14.3f}{min(times) / unit:14.3f}")


if __name__ == "__main__":
    main()
