"""Hostile audio: damaged, cut and crafted files of every kind end as audio or with a code; none crashes or hangs.

Run as a program, `python tests/test_hostile_audio.py COUNT SEED`, it is the child process that takes the files in.
"""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import json
import random
import resource
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from manifests import AudioRef
from shards.refusals import REASONS, Refused
from shards.render import store
from sounds import RATE, by_libsndfile, every_kind, speech

DEADLINE = 20.0
"""Seconds a file of two seconds of audio may take, on a busy machine."""
MEMORY = 2**30
UNSEEN = {"mp3-uncounted", "aac", "m4a-fragments"}
"""Kinds that count nothing over all: a cut between two of their frames cannot be seen in them."""


# -- the child


def damaged(kinds: dict[str, bytes], chance: random.Random) -> tuple[str, str, bytes]:
    """Return a kind, what was done to it, and the bytes."""
    kind = chance.choice(sorted(kinds))
    data = bytearray(kinds[kind])
    ways: dict[str, Callable[[bytearray, random.Random], bytes]] = {
        "cut": lambda data, chance: bytes(data[: chance.randrange(1, len(data))]),
        "cut short": lambda data, chance: bytes(data[: chance.randrange(1, 200)]),
        "flip": flip,
        "flip early": lambda data, chance: flip(data, chance, 200),
        "noise": noise,
        "zeros": lambda data, chance: noise(data, chance, zeros=True),
        "number": number,
        "drop": drop,
        "double": double,
        "junk before": lambda data, chance: chance.randbytes(chance.randrange(1, 3000)) + data,
        "junk behind": lambda data, chance: bytes(data) + chance.randbytes(chance.randrange(1, 3000)),
        "another's head": lambda data, chance: head(data, chance, kinds),
    }
    way = chance.choice(sorted(ways) + ["cut"] * 4)
    return kind, way, ways[way](data, chance)


def flip(data: bytearray, chance: random.Random, within: int | None = None) -> bytes:
    for _ in range(chance.choice([1, 1, 2, 5, 50])):
        data[chance.randrange(min(within or len(data), len(data)))] ^= 1 << chance.randrange(8)
    return bytes(data)


def noise(data: bytearray, chance: random.Random, zeros: bool = False) -> bytes:
    begin, length = chance.randrange(len(data)), chance.choice([4, 64, 512, 4096])
    length = min(length, len(data) - begin)
    data[begin : begin + length] = bytes(length) if zeros else chance.randbytes(length)
    return bytes(data)


def number(data: bytearray, chance: random.Random) -> bytes:
    """Put an extreme number where headers have theirs."""
    value = chance.choice([0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
    width = chance.choice([1, 2, 4, 8])
    value = min(value, 256**width - 1)
    begin = chance.randrange(min(len(data) - width, 600))
    data[begin : begin + width] = value.to_bytes(width, chance.choice(["little", "big"]))
    return bytes(data)


def drop(data: bytearray, chance: random.Random) -> bytes:
    begin = chance.randrange(len(data))
    del data[begin : begin + chance.choice([1, 7, 300, 5000])]
    return bytes(data)


def double(data: bytearray, chance: random.Random) -> bytes:
    begin, length = chance.randrange(len(data)), chance.choice([1, 7, 300, 5000])
    data[begin:begin] = data[begin : begin + length]
    return bytes(data)


def head(data: bytearray, chance: random.Random, kinds: dict[str, bytes]) -> bytes:
    length = chance.choice([4, 16, 48, 200, 2000])
    return kinds[chance.choice(sorted(kinds))][:length] + bytes(data[length:])


def take(folder: str, ref: AudioRef, **options: int) -> str:
    """Return what becomes of a file: ok, or the code of its refusal. Anything else is a crash."""
    faulthandler.dump_traceback_later(DEADLINE, exit=True)
    try:
        of = store(folder, (ref,), **options)  # type: ignore[arg-type]
        assert of.samples > 0
        return "ok"
    except Refused as refused:
        return refused.reason if ref.path in refused.detail else "nameless"
    finally:
        faulthandler.cancel_dump_traceback_later()


def run(count: int, seed: int) -> dict[str, object]:
    """Take in `count` files and count what became of them."""
    chance, kinds = random.Random(seed), every_kind()
    ends: Counter[str] = Counter()
    cuts: dict[str, list[int]] = {kind: [0, 0, 0] for kind in kinds}
    slowest = 0.0
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "a.bin"
        for index in range(count):
            kind, way, data = damaged(kinds, chance)
            place.write_bytes(data)
            print(index, kind, way, len(data), file=sys.stderr, flush=True)
            begin = time.perf_counter()
            end = take(folder, AudioRef(path="a.bin"))
            slowest = max(slowest, time.perf_counter() - begin)
            ends[end] += 1
            if way == "cut":
                cuts[kind][0] += 1
                cuts[kind][1] += end != "ok"
                cuts[kind][2] += take(folder, AudioRef(path="a.bin"), size=len(kinds[kind])) == "truncated"
            elif index % 4 == 0:
                take(folder, AudioRef(path="a.bin", start=chance.uniform(0, 2), seconds=0.5))
            elif index % 4 == 1:
                take(folder, AudioRef(path="a.bin"), trusted=True)
    # Not ru_maxrss: a process begins with that of its parent.
    (peak,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    memory = int(peak.split()[1]) * 1024
    return {"ends": dict(sorted(ends.items())), "cuts": cuts, "memory": memory, "slowest": slowest}


# -- the parent


def child(count: int, seed: int, limit: float) -> dict[str, object]:
    made = subprocess.run(
        [sys.executable, __file__, str(count), str(seed)],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=limit,
    )
    last = "\n".join(made.stderr.splitlines()[-30:])
    assert made.returncode == 0, f"the child ended with {made.returncode}; the last it said:\n{last}"
    return json.loads(made.stdout.splitlines()[-1])


def check(told: dict[str, object], count: int) -> None:
    ends, cuts = told["ends"], told["cuts"]
    print(json.dumps(told, indent=1))
    assert sum(ends.values()) == count
    assert set(ends) <= {"ok", *REASONS}
    assert ends["ok"] > count / 20
    assert told["memory"] < MEMORY
    assert told["slowest"] < DEADLINE
    # Where the size is known, every cut shows; where only the container tells, nearly every one.
    assert all(known == done for done, _, known in cuts.values())
    assert all(seen == done for kind, (done, seen, _) in cuts.items() if kind not in UNSEEN), cuts
    unseen = sum(done - seen for done, seen, _ in cuts.values())
    assert unseen <= 0.02 * sum(done for done, _, _ in cuts.values())


def test_three_hundred_damaged_files_end_with_a_code() -> None:
    check(child(300, 7, 120), 300)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_ten_thousand_damaged_files_end_with_a_code() -> None:
    check(child(10_000, 0, 1400), 10_000)


# -- crafted by hand


def wav(*, rate: int = RATE, channels: int = 1, bits: int = 16, tag: int = 1, align: int | None = None) -> bytes:
    data = np.full(4000, 1000, "<i2").tobytes()
    align = channels * bits // 8 if align is None else align
    form = struct.pack("<HHIIHH", tag, channels, rate, rate * align % 2**32, align, bits)
    sized = b"WAVEfmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(sized)) + sized


def flac_with(**values: int) -> bytes:
    """A FLAC of speech whose STREAMINFO lies in some places."""
    data = by_libsndfile(speech(), RATE, "FLAC")
    packed = int.from_bytes(data[18:26], "big")
    fields = {
        "rate": packed >> 44,
        "channels": packed >> 41 & 7,
        "bits": packed >> 36 & 31,
        "samples": packed & 2**36 - 1,
    }
    fields |= values
    packed = fields["rate"] << 44 | fields["channels"] << 41 | fields["bits"] << 36 | fields["samples"]
    return data[:18] + packed.to_bytes(8, "big") + data[26:]


def floats(value: float) -> bytes:
    wave = speech()
    wave[20_000] = value
    return by_libsndfile(wave, RATE, "WAV", "FLOAT")


def late(data: bytes, *, signed: bool) -> bytes:
    """An Ogg whose last page claims to be 2^62 samples in, with or without the checksum of the lie."""
    place = data.rindex(b"OggS")
    page = data[place : place + 6] + (2**62).to_bytes(8, "little") + data[place + 14 :]
    if signed:
        page = page[:22] + bytes(4) + page[26:]
        checksum = 0
        for byte in page:
            checksum ^= byte << 24
            for _ in range(8):
                checksum = (checksum << 1 ^ (0x04C11DB7 if checksum >> 31 else 0)) & 0xFFFFFFFF
        page = page[:22] + checksum.to_bytes(4, "little") + page[26:]
    return data[:place] + page


def box(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + name + content


HTML = b"<!DOCTYPE html><html><head><title>Sign in</title></head></html>"
CRAFTED: dict[str, tuple[Callable[[], bytes], set[str]]] = {
    "2^36-1 frames": (lambda: flac_with(samples=2**36 - 1), {"too_long"}),
    "3 h and a frame": (lambda: flac_with(samples=3 * 3600 * RATE + 1), {"too_long"}),
    "an hour in a kilobyte": (lambda: flac_with(samples=3600 * RATE)[:1000], {"truncated"}),
    "fewer frames than there are": (lambda: flac_with(samples=100), {"md5_mismatch"}),
    "unknown length": (lambda: flac_with(samples=0), {"ok"}),
    "FLAC at 1 Hz": (lambda: flac_with(rate=1), {"sample_rate"}),
    "FLAC at 655350 Hz": (lambda: flac_with(rate=655350), {"sample_rate", "not_audio"}),
    "FLAC that says 8 channels": (lambda: flac_with(channels=7), {"corrupt", "truncated", "not_audio"}),
    "FLAC that says 24 bits": (lambda: flac_with(bits=23), {"ok", "corrupt", "not_audio"}),
    "NaN": (lambda: floats(float("nan")), {"not_finite"}),
    "Inf": (lambda: floats(float("inf")), {"not_finite"}),
    "1e38": (lambda: floats(1e38), {"ok"}),
    "1024 channels": (lambda: wav(channels=1024), {"channels"}),
    "65535 channels": (lambda: wav(channels=65535, bits=8, align=65535), {"channels", "not_audio"}),
    "0 channels": (lambda: wav(channels=0), {"channels", "not_audio"}),
    "1 Hz": (lambda: wav(rate=1), {"sample_rate"}),
    "0 Hz": (lambda: wav(rate=0), {"sample_rate", "not_audio"}),
    "4 GHz": (lambda: wav(rate=2**32 - 1), {"sample_rate", "not_audio"}),
    "17 bits": (lambda: wav(bits=17), {"ok", "not_audio"}),
    "no bits": (lambda: wav(bits=0), {"not_audio", "ok"}),
    "an unknown codec": (lambda: wav(tag=0x1234), {"not_audio"}),
    "nothing": (lambda: b"", {"zero_length"}),
    "one byte": (lambda: b"f", {"not_audio"}),
    "a page of a web site": (lambda: HTML, {"not_audio"}),
    "a page behind a mark of MP4": (lambda: b"\0\0\0\x08ftyp" + HTML, {"not_audio", "truncated"}),
    "a page behind tags of MP3": (lambda: b"ID3\x04\0\0\0\0\0\0" + HTML, {"not_audio", "no_samples"}),
    "tags of 256 MB": (lambda: b"ID3\x04\0\0\x7f\x7f\x7f\x7f" + HTML, {"not_audio", "no_samples", "truncated"}),
    "a page behind a mark of Ogg": (lambda: b"OggS" + HTML, {"truncated", "not_audio"}),
    "a page behind a mark of Matroska": (lambda: b"\x1a\x45\xdf\xa3" + HTML, {"not_audio", "truncated"}),
    "zeros": (lambda: bytes(100_000), {"not_audio"}),
    "ones": (lambda: b"\xff" * 100_000, {"not_audio"}),
    "an Ogg of 2^62 samples": (lambda: late(every_kind(1)["vorbis"], signed=True), {"too_long"}),
    "an Ogg that lies and is not signed": (lambda: late(every_kind(1)["vorbis"], signed=False), {"corrupt"}),
    "an Opus of 2^62 samples": (lambda: late(every_kind(1)["opus16"], signed=True), {"too_long", "not_audio"}),
    "an MP4 of boxes in boxes": (
        lambda: box(b"ftyp", b"M4A ") + functools.reduce(lambda x, _: box(b"moov", x), range(2000), b""),
        {"not_audio"},
    ),
    "an MP4 whose index counts 2^32 samples": (
        lambda: every_kind(1)["m4a"].replace(b"stsz\0\0\0\0\0\0\0\0\0\0\0", b"stsz\0\0\0\0\0\0\0\0\xff\xff\xff"),
        {"not_audio", "truncated", "corrupt", "no_samples", "ok"},
    ),
    "a python pickle": (lambda: b"\x80\x04\x95" + b"cos\nsystem\n(S'touch pwned'\ntR.", {"not_audio"}),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", CRAFTED)
def test_what_was_crafted_ends_with_its_code(tmp_path: Path, name: str) -> None:
    make, ends = CRAFTED[name]
    (tmp_path / "a.bin").write_bytes(make())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        store(str(tmp_path), (AudioRef(path="a.bin"),))
        end = "ok"
    except Refused as refused:
        end = refused.reason
    assert end in ends
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < 300 * 2**20
    # A span of it, too, ends with a code or as audio.
    with contextlib.suppress(Refused):
        store(str(tmp_path), (AudioRef(path="a.bin", start=0.5, seconds=0.25),))


if __name__ == "__main__":
    print(json.dumps(run(int(sys.argv[1]), int(sys.argv[2]))))
