"""The decoder in C: every form that a mono 16-bit FLAC can have, against the samples that were encoded; and damage."""

from __future__ import annotations

import io
import random

import av
import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from shards import fast_flac
from shards.flac import RATE


def decoded(data: bytes, samples: int) -> np.ndarray:
    assert fast_flac.fill, "shards/_flac.c was not built: run 'make setup'"
    out = np.full(samples + 8, 77, np.int16)
    count = fast_flac.fill(data, out[:samples])
    assert (out[samples:] == 77).all()
    return out[:count]


def drawn(kind: str, seed: int, samples: int) -> np.ndarray:
    """A signal that makes an encoder use what it has."""
    draw = np.random.default_rng(seed)
    time = np.arange(samples)
    wave = {
        "silence": np.zeros(samples),
        "constant": np.full(samples, float(draw.integers(-32768, 32768))),
        "noise": draw.normal(0, 9000, samples),
        "extremes": draw.choice([-32768.0, 32767.0, 0.0], samples),
        "tones": 9000 * np.sin(time * draw.uniform(0.001, 3)) + 9000 * np.sin(time * draw.uniform(0.001, 3)),
        "square": np.where(time // draw.integers(1, 90) % 2, 32767.0, -32768.0),
        "bursts": draw.normal(0, 1, samples) * np.where(draw.random(samples) < 0.003, 30_000, 2),
        "wasted": 64 * draw.integers(-500, 500, samples),
        "walk": np.cumsum(draw.normal(0, 40, samples)),
    }[kind]
    return np.clip(np.rint(wave), -32768, 32767).astype(np.int16)


KINDS = ("silence", "constant", "noise", "extremes", "tones", "square", "bursts", "wasted", "walk")


@given(
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 2**32 - 1),
    samples=st.integers(1, 20_000),
    level=st.integers(0, 8),
)
def test_what_libflac_writes(kind: str, seed: int, samples: int, level: int) -> None:
    pcm, sink = drawn(kind, seed, samples), io.BytesIO()
    soundfile.write(sink, pcm, RATE, format="FLAC", subtype="PCM_16", compression_level=level / 8)
    assert np.array_equal(decoded(sink.getvalue(), samples), pcm)


def by_ffmpeg(pcm: np.ndarray, **options: str) -> bytes:
    sink = io.BytesIO()
    with av.open(sink, "w", "flac") as container:
        stream = container.add_stream("flac", rate=RATE, options=options)
        stream.layout, stream.format = "mono", "s16"
        frame = av.AudioFrame.from_ndarray(pcm[None], "s16", "mono")
        frame.sample_rate, frame.pts = RATE, 0
        for packet in [*stream.encode(frame), *stream.encode()]:
            container.mux(packet)
    return sink.getvalue()


@given(
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 2**32 - 1),
    samples=st.integers(1, 20_000),
    level=st.integers(0, 12),
    kinds=st.sampled_from(["none", "fixed", "levinson", "cholesky"]),
    order=st.integers(1, 32),
    precision=st.integers(5, 15),
    length=st.sampled_from([16, 192, 576, 1000, 4096, 4608, 16_384]),
)
def test_what_ffmpeg_writes(
    kind: str, seed: int, samples: int, level: int, kinds: str, order: int, precision: int, length: int
) -> None:
    """Predictions from up to 32 samples, weights of up to 15 bits, frames of any length."""
    pcm = drawn(kind, seed, samples)
    weighed = kinds in ("levinson", "cholesky")
    predicting = {
        "min_prediction_order": str(int(weighed)),
        "max_prediction_order": str(order if weighed else min(order, 4)),
    }
    data = by_ffmpeg(
        pcm, compression_level=str(level), lpc_type=kinds, lpc_coeff_precision=str(precision),
        frame_size=str(length), **predicting,
    )  # fmt: skip
    assert np.array_equal(decoded(data, samples), pcm)


class Bits:
    """A frame of FLAC written bit by bit, for what no encoder at hand writes."""

    def __init__(self) -> None:
        self.text = ""

    def put(self, value: int, count: int) -> None:
        self.text += format(value & (1 << count) - 1, f"0{count}b") if count else ""

    def rice(self, value: int, low: int) -> None:
        folded = 2 * value if value >= 0 else -2 * value - 1
        self.text += "0" * (folded >> low) + "1"
        self.put(folded, low)

    def bytes(self) -> bytes:
        text = self.text + "0" * (-len(self.text) % 8)
        return int(text, 2).to_bytes(len(text) // 8, "big")


def checksum(data: bytes, polynomial: int, width: int) -> int:
    crc = 0
    for byte in data:
        crc ^= byte << (width - 8)
        for _ in range(8):
            crc = (crc << 1 ^ (polynomial if crc >> (width - 1) else 0)) & ((1 << width) - 1)
    return crc


def by_hand(pcm: np.ndarray, method: int, parts: list[int], wasted: int) -> bytes:
    """A FLAC of one frame, predicted from one sample; a partition each a parameter, or minus one more than raw bits."""
    frame, size = Bits(), 5 if method else 4
    for value, count in ((0xFFF8, 16), (0x75, 8), (0, 4), (4, 3), (0, 1), (0, 8), (len(pcm) - 1, 16)):
        frame.put(value, count)
    head = frame.bytes()
    frame.put(checksum(head, 0x07, 8), 8)
    frame.put(0b00010010 | (wasted > 0), 8)
    frame.text += "0" * (wasted - 1) + "1" if wasted else ""
    wave = pcm.astype(int) >> wasted
    frame.put(int(wave[0]), 16 - wasted)
    frame.put(method, 2)
    frame.put(len(parts).bit_length() - 1, 4)
    steps = [0, *np.diff(wave).tolist()]
    for place, low in enumerate(parts):
        here = steps[place * len(pcm) // len(parts) : (place + 1) * len(pcm) // len(parts)][0 if place else 1 :]
        frame.put(low if low >= 0 else -1, size)
        if low < 0:
            frame.put(-low - 1, 5)
        for step in here:
            frame.rice(step, low) if low >= 0 else frame.put(step, -low - 1)
    body = frame.bytes()
    body += checksum(body, 0x8005, 16).to_bytes(2, "big")
    sizes = len(pcm).to_bytes(2, "big") * 2 + bytes(6)
    packed = RATE << 44 | 15 << 36 | len(pcm)
    return b"fLaC\x80\x00\x00\x22" + sizes + packed.to_bytes(8, "big") + bytes(16) + body


@given(
    seed=st.integers(0, 2**32 - 1),
    loud=st.sampled_from([1, 30, 1500]),
    wasted=st.sampled_from([0, 1, 4]),
    method=st.integers(0, 1),
    parts=st.lists(st.sampled_from([-14, -18, 0, 1, 7, 14, 20, 30]), min_size=4, max_size=4),
)
def test_what_no_encoder_at_hand_writes(seed: int, loud: int, wasted: int, method: int, parts: list[int]) -> None:
    """Raw residuals, wide parameters, and runs of zeros longer than any register."""
    pcm = (np.random.default_rng(seed).integers(-loud, loud + 1, 64) << wasted).astype(np.int16)
    parts = [low if method or low < 15 else 14 for low in parts]
    data = by_hand(pcm, method, parts, wasted)
    assert np.array_equal(soundfile.read(io.BytesIO(data), dtype="int16")[0], pcm)
    assert np.array_equal(decoded(data, 64), pcm)


def test_raw_residuals_of_no_bits_are_zeros() -> None:
    pcm = np.full(64, -3, np.int16)
    assert np.array_equal(decoded(by_hand(pcm, 0, [-1, -1], 0), 64), pcm)


def test_no_damage_is_taken_for_another_sound() -> None:
    """By the checksums of the frames: what comes is the start of what was there, and nothing is written behind it."""
    dice = random.Random(3)
    pcm = np.concatenate([drawn(kind, 1, 3000) for kind in KINDS])
    files = [(by_ffmpeg(pcm, frame_size="1000"), pcm), (by_hand(pcm[:64] >> 8, 1, [3, -13], 0), pcm[:64] >> 8)]
    fewer = 0
    for number in range(3000):
        whole, expected = files[number % 2]
        data = bytearray(whole)
        for _ in range(dice.choice([1, 3, 40])):
            data[dice.randrange(42, len(data))] = dice.choice([0, 255, dice.randrange(256)])
        cut = bytes(data[: dice.randrange(len(data))] if number % 3 == 0 else data)
        found = decoded(cut, len(expected))
        assert np.array_equal(found, expected[: len(found)])
        fewer += len(found) < len(expected)
    assert fewer > 2000


def test_nothing_damaged_is_read_or_written_out_of_bounds() -> None:
    """Behind a head that is whole; the checksum of a frame is looked at when all of it is decoded."""
    dice, seen = random.Random(4), set()
    files = [by_hand(drawn("walk", 2, 64), 1, [3, -13], 1), by_ffmpeg(drawn("noise", 2, 64), compression_level="12")]
    for number in range(4000):
        data = bytearray(files[number % 2])
        start = data.index(b"\xff\xf8") + 8
        for _ in range(dice.choice([1, 3, 40])):
            data[dice.randrange(start, len(data))] = dice.choice([0, 255, dice.randrange(256)])
        seen.add(len(decoded(data[: dice.randrange(start, len(data) + 1)], 64)))
    assert seen == {0, 64}


def test_every_bit_of_a_frame_counts() -> None:
    pcm = drawn("walk", 1, 64)
    data = by_hand(pcm, 1, [3, -13], 0)
    assert np.array_equal(decoded(data, 64), pcm)
    for bit in range(8 * 42, 8 * len(data)):
        hurt = bytearray(data)
        hurt[bit // 8] ^= 128 >> bit % 8
        assert len(decoded(hurt, 64)) == 0


@pytest.mark.parametrize("cut", [0, 4, 41, 42, 60, -20, -3, -2, -1])
def test_a_file_that_ends_early_is_not_decoded(cut: int) -> None:
    data = by_ffmpeg(drawn("noise", 0, 5000))
    assert fast_flac.decode(data, 5000) is not None
    assert fast_flac.decode(data[:cut], 5000) is None
