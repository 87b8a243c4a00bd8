"""Fingerprints: what they survive on real clips, what they take for the same by mistake, and a slow twin of theirs."""

from __future__ import annotations

import contextlib
import io
import itertools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.fingerprint import LIMIT, SPAN, alike, fingerprint, words_of
from shards.flac import RATE


def whole(wave: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(wave), -32768, 32767).astype(np.int16)


def decoded(source: Path | io.BytesIO) -> np.ndarray:
    """Samples at 16 kHz of the first channel of a file."""
    wave, rate = soundfile.read(source, always_2d=True)
    return whole(32768 * (wave[:, 0] if rate == RATE else soxr.resample(wave[:, 0], rate, RATE)))


@pytest.fixture(scope="module")
def speech(corpora: Path) -> dict[str, np.ndarray]:
    """The bundled clips of LibriSpeech of at least two seconds, by id."""
    clips = {}
    for path in sorted((corpora / "librispeech").glob("**/*.flac")):
        with contextlib.suppress(soundfile.LibsndfileError):
            clips[path.stem] = decoded(path)
    clips = {name: pcm for name, pcm in clips.items() if len(pcm) >= 2 * RATE}
    assert len(clips) > 60
    return clips


def coded(pcm: np.ndarray, container: str, codec: str) -> np.ndarray:
    sink = io.BytesIO()
    soundfile.write(sink, pcm, RATE, format=container, subtype=codec, compression_level=0.9)
    return decoded(io.BytesIO(sink.getvalue()))


def noisy(pcm: np.ndarray, snr: float) -> np.ndarray:
    noise = np.random.default_rng(len(pcm)).standard_normal(len(pcm))
    return whole(pcm + noise * pcm.astype(float).std() * 10 ** (-snr / 20))


# What is done to a clip, and the share of the clips of which at least one word is found again.
CHANGES: dict[str, tuple[Callable[[np.ndarray], np.ndarray], float]] = {
    "10 dB down": (lambda pcm: whole(pcm * 10**-0.5), 0.98),
    "an MP3 of low quality": (lambda pcm: coded(pcm, "MP3", "MPEG_LAYER_III"), 0.9),
    "a Vorbis of low quality": (lambda pcm: coded(pcm, "OGG", "VORBIS"), 0.9),
    "8 kHz and back": (
        lambda pcm: whole(soxr.resample(soxr.resample(pcm.astype(float), RATE, 8000), 8000, RATE)),
        0.95,
    ),
    "44.1 kHz and back": (
        lambda pcm: whole(soxr.resample(soxr.resample(pcm.astype(float), RATE, 44_100), 44_100, RATE)),
        0.98,
    ),
    "noise at 20 dB": (lambda pcm: noisy(pcm, 20), 0.85),
    "noise at 10 dB": (lambda pcm: noisy(pcm, 10), 0.5),
    "a start cut off the grid": (lambda pcm: pcm[5927:], 0.85),
    "the middle 2.5 s": (lambda pcm: pcm[len(pcm) // 2 - 20_000 :][:40_000] if len(pcm) > 48_000 else pcm, 0.9),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_clip_is_known_again(speech: dict[str, np.ndarray], change: str) -> None:
    alter, share = CHANGES[change]
    found = [
        len(alike(words_of(fingerprint(pcm)), words_of(fingerprint(alter(pcm))))) > 0
        for pcm in list(speech.values())[::2]
    ]
    assert np.mean(found) >= share


def test_clips_of_different_readers_are_not_taken_for_one(speech: dict[str, np.ndarray]) -> None:
    by_reader = {name.split("-")[0]: words_of(fingerprint(pcm)) for name, pcm in speech.items()}
    words = np.concatenate(list(by_reader.values()))
    readers = np.repeat(list(by_reader), list(map(len, by_reader.values())))
    assert len(by_reader) > 40
    assert len(words) ** 2 > 20_000
    pairs = alike(words, words)
    assert set(map(tuple, readers[pairs].tolist())) == {(reader, reader) for reader in readers}
    # The closest of all others is beyond the limit with some room.
    others = [int(word ^ other).bit_count() for i, word in enumerate(words) for other in words[:i]]
    assert min(others) > LIMIT


def test_what_one_corpus_took_from_another_is_found(corpora: Path, speech: dict[str, np.ndarray]) -> None:
    # As NOTICE.md says, the bundled clips of CoVoST 2 numbered 90000001 and so on are MP3s of bundled LibriSpeech.
    words = {name: words_of(fingerprint(pcm)) for name, pcm in speech.items()}
    copies = sorted((corpora / "covost2" / "clips").glob("common_voice_en_9*.mp3"))
    assert len(copies) >= 6
    taken = [words_of(fingerprint(decoded(path))) for path in copies]
    hits = [[name for name, own in words.items() if len(alike(copy, own))] for copy in taken]
    assert np.mean([len(found) == 1 for found in hits]) >= 0.75
    assert max(map(len, hits)) == 1


def slow(pcm: np.ndarray) -> list[int]:
    """The words of a clip, said in the plainest way."""
    count = len(pcm) // 160
    energy = [float((pcm[160 * n : 160 * n + 160].astype(float) ** 2).sum()) for n in range(count)]
    level = [sum((6 - abs(k)) * energy[n + k] for k in range(-5, 6) if 0 <= n + k < count) for n in range(count)]
    words = []
    for n in range(1, count - 1):
        if level[n] < max(level[max(n - 50, 0) : n + 51]) or level[n] <= max(level) / 1000:
            continue
        bend = 2 * level[n] - level[n - 1] - level[n + 1]
        start = round((n + 0.5 + (level[n + 1] - level[n - 1]) / (2 * max(bend, 1))) * 160) - 2048
        if not 0 <= start <= len(pcm) - 4096:
            continue
        half = pcm[start : start + 4096].astype(float).reshape(-1, 2).sum(axis=1)
        bands = []
        for time in range(5):
            window = half[384 * time : 384 * time + 512] * np.hanning(513)[:512]
            power = np.abs(np.fft.fft(window)[:256]) ** 2
            edges = [round(300 * (3400 / 300) ** (n / 17) * 512 / 8000) for n in range(18)]
            bands.append([math.log(power[low:high].sum() + 1) for low, high in itertools.pairwise(edges)])
        bits = [
            (bands[t + 1][b + 1] - bands[t + 1][b]) > (bands[t][b + 1] - bands[t][b])
            for t in range(4)
            for b in range(16)
        ]
        words.append(sum(bit << place for place, bit in enumerate(bits)))
    return words


def test_the_slow_twin_agrees(speech: dict[str, np.ndarray]) -> None:
    for pcm in list(speech.values())[::12]:
        assert words_of(fingerprint(pcm)).tolist() == slow(pcm)


def test_long_clips_are_read_in_pieces(speech: dict[str, np.ndarray]) -> None:
    pcm = np.concatenate(list(speech.values()))[: 120 * RATE]
    words = words_of(fingerprint(pcm)).tolist()
    assert 80 < len(words) < 130
    late = words_of(fingerprint(pcm[30 * RATE :])).tolist()
    assert words[-len(late) + 3 :] == late[3:]


def test_nothing_to_hear_has_no_words() -> None:
    for samples in (0, 1, 159, 479, 480, SPAN - 1, RATE):
        assert fingerprint(np.zeros(samples, np.int16)) == b""
    assert len(fingerprint(np.full(RATE, -32768, np.int16))) % 8 == 0


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    samples=st.integers(0, 40_000),
    level=st.sampled_from([0.2, 1, 100, 9000, 1e6]),
    offset=st.sampled_from([0, 1, -3000]),
)
def test_any_samples_have_a_fingerprint(seed: int, samples: int, level: float, offset: int) -> None:
    pcm = whole(np.random.default_rng(seed).standard_normal(samples) * level + offset)
    pcm.setflags(write=False)
    with np.errstate(all="raise"):
        made = fingerprint(pcm)
    assert made == fingerprint(pcm.copy())
    assert len(made) % 8 == 0
    assert len(made) <= 8 * (1 + samples // 8000)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 2**64 - 1), max_size=6), st.lists(st.integers(0, 7), max_size=12), st.integers(0, 64))
def test_alike_counts_bits(these: list[int], shifts: list[int], limit: int) -> None:
    those = [word ^ (2**shift - 1) for word in these for shift in shifts]
    expected = [
        [i, j] for i, one in enumerate(these) for j, other in enumerate(those) if (one ^ other).bit_count() <= limit
    ]
    found = alike(np.array(these, np.uint64), np.array(those, np.uint64), limit)
    assert found.tolist() == expected
    assert found.shape == (len(expected), 2)
