"""Quality columns: against plain formulas and other libraries on real clips, planted faults, and any samples at all."""

from __future__ import annotations

import contextlib
import io
import math
import tracemalloc
from pathlib import Path

import msgspec
import numpy as np
import pyloudnorm
import pytest
import scipy.signal
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.flac import RATE
from shards.quality import HOP, UNKNOWN, Quality, measure

TELLING = 35.0
"""dB: speech this clean can have noise added and the sum still be known."""


def decoded(source: Path | io.BytesIO) -> np.ndarray:
    """Samples at 16 kHz of the first channel of a file."""
    wave, rate = soundfile.read(source, always_2d=True)
    return whole(32768 * (wave[:, 0] if rate == RATE else soxr.resample(wave[:, 0], rate, RATE)))


def sounds(corpora: Path, pattern: str) -> list[np.ndarray]:
    """The samples of the bundled clips that match; what is no sound, or broken on purpose, is left out."""
    found = []
    for path in sorted(corpora.glob(pattern)):
        with contextlib.suppress(soundfile.LibsndfileError):
            found.append(decoded(path))
    return found


@pytest.fixture(scope="module")
def speech(corpora: Path) -> list[np.ndarray]:
    clips = [pcm for pcm in sounds(corpora, "librispeech/**/*.flac") if len(pcm) >= RATE]
    assert len(clips) > 60
    return clips


@pytest.fixture(scope="module")
def others(corpora: Path) -> list[np.ndarray]:
    clips = [
        pcm
        for corpus in ("wavcaps", "musiccaps", "clotho")
        for pcm in sounds(corpora, f"{corpus}/**/*.[fwo][lag][agv]*")
    ]
    assert len(clips) > 15
    return clips


def white(samples: int, level: float, seed: int = 0) -> np.ndarray:
    """Noise at an rms of `level` steps, float64."""
    return np.random.default_rng(seed).standard_normal(samples) * level


def sine(hertz: float, level: float, seconds: float = 4.0) -> np.ndarray:
    """A tone with an amplitude of `level` of full scale."""
    return whole(32768 * level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE))


def whole(wave: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(wave), -32768, 32767).astype(np.int16)


def values(quality: Quality) -> list[str]:
    """All fields, to the last digit; NaN equals NaN."""
    return [repr(value) for value in msgspec.structs.astuple(quality)]


def test_plain_measures_are_those_of_plain_formulas(speech: list[np.ndarray], others: list[np.ndarray]) -> None:
    for pcm in speech + others:
        wave, quality = pcm.astype(float) / 32768, measure(pcm)
        assert quality.peak == pytest.approx(np.abs(wave).max(), abs=1e-6)
        assert quality.dc == pytest.approx(wave.mean(), abs=1e-6)
        assert quality.rms_dbfs == pytest.approx(20 * np.log10(np.sqrt(np.mean(wave**2))), abs=0.005001)
        frames = (wave - wave.mean())[: len(wave) // 320 * 320].reshape(-1, 320)
        levels = 20 * np.log10(np.sqrt((frames**2).mean(axis=1)) + 1e-12)
        loud = np.sort(levels)[-1 - len(levels) // 100]
        assert quality.silence == pytest.approx(np.mean(levels < max(loud - 40, -70)), abs=5.1e-5)
        assert not quality.all_zero


def test_loudness_is_that_of_pyloudnorm(speech: list[np.ndarray], others: list[np.ndarray]) -> None:
    meter = pyloudnorm.Meter(RATE)
    differences = [measure(pcm).lufs - meter.integrated_loudness(pcm / 32768) for pcm in speech + others]
    assert abs(np.median(differences)) < 0.06
    assert np.quantile(np.abs(differences), 0.95) < 0.3
    # A block of 400 ms near the relative gate falls in for one and out for the other: in short clips that is heard.
    assert np.abs(differences).max() < 0.8


# ITU-R BS.1770-4, tables 1 and 2, at 48 kHz.
SHELF = ([1.53512485958697, -2.69169618940638, 1.19839281085285], [1, -1.69065929318241, 0.73248077421585])
HIGHPASS = ([1.0, -2.0, 1.0], [1, -1.99004745483398, 0.99007225036621])


def k_weight(hertz: float) -> float:
    """The gain of the filters of BS.1770 at a frequency, in dB."""
    gains = [scipy.signal.freqz(*ba, worN=[hertz], fs=48_000)[1][0] for ba in (SHELF, HIGHPASS)]
    return float(20 * np.log10(np.abs(np.prod(gains))))


@pytest.mark.parametrize("hertz", [25, 40, 63, 100, 160, 250, 400, 630, 997, 1600, 2500, 4000, 6300, 7900])
def test_k_weighting_is_the_standard_s_at_every_frequency(hertz: int) -> None:
    expected = -0.691 + 20 * math.log10(0.5) - 3.0103 + k_weight(hertz)
    assert measure(sine(hertz, 0.5)).lufs == pytest.approx(expected, abs=0.24)


def test_the_calibration_of_the_standard_holds() -> None:
    # BS.1770: a sine of 997 Hz at 0 dBFS in one channel reads -3.01 LKFS.
    assert measure(sine(997, 32767 / 32768)).lufs == pytest.approx(-3.01, abs=0.2)


def test_wind_does_not_hide_loudness(speech: list[np.ndarray]) -> None:
    meter = pyloudnorm.Meter(RATE)
    for pcm in speech[::9]:
        pcm = pcm // 8
        for hertz in (1.3, 4, 9):
            wind = 32768 * 0.15 * np.sin(2 * np.pi * hertz * np.arange(len(pcm)) / RATE)
            windy = whole(pcm + wind)
            assert measure(windy).rms_dbfs > measure(pcm).rms_dbfs + 10
            assert measure(windy).lufs == pytest.approx(meter.integrated_loudness(windy / 32768), abs=0.7)


def test_an_offset_is_told_and_changes_nothing_else(speech: list[np.ndarray]) -> None:
    for pcm in speech[::5]:
        pcm = pcm // 8
        flat, lifted = measure(pcm), measure(pcm + np.int16(3277))
        assert lifted.dc == pytest.approx(flat.dc + 0.1, abs=1e-4)
        assert lifted.lufs == pytest.approx(flat.lufs, abs=0.3)
        assert lifted.silence == flat.silence
        assert lifted.leading_silence == flat.leading_silence
        assert lifted.snr_db == pytest.approx(flat.snr_db, abs=0.01)
        assert lifted.bandwidth_hz == flat.bandwidth_hz


def test_half_of_silence_is_found(speech: list[np.ndarray]) -> None:
    pcm = next(pcm for pcm in speech if measure(pcm).silence == 0)
    pcm = pcm[: len(pcm) // 320 * 320]
    between = np.concatenate([pcm, np.zeros(2 * len(pcm), np.int16), pcm])
    assert measure(between).silence == 0.5
    assert (measure(between).leading_silence, measure(between).trailing_silence) == (0, 0)
    hiss = whole(np.concatenate([pcm, white(len(pcm), 5)]))
    assert measure(hiss).silence == 0.5
    assert measure(hiss).trailing_silence == pytest.approx(len(pcm) / RATE, abs=0.02)


def test_digital_silence_at_the_start_is_told_in_seconds(speech: list[np.ndarray]) -> None:
    pcm = next(pcm for pcm in speech if measure(pcm).leading_silence == 0)
    late = np.concatenate([np.zeros(round(0.7 * RATE), np.int16), pcm])
    assert measure(late).leading_silence == pytest.approx(0.7, abs=0.02)
    assert measure(late[::-1]).trailing_silence == pytest.approx(0.7, abs=0.04)
    # The noise is that of the recording, not that of the zeros.
    assert measure(late).snr_db == pytest.approx(measure(pcm).snr_db, abs=1)


def test_a_clipped_tone_is_found_and_a_loud_one_is_not() -> None:
    loud = sine(440, 0.999)
    assert measure(loud).clipped == 0
    clipped = sine(440, 2.0)
    # Above half of its amplitude a sine is two thirds of the time.
    assert measure(clipped).clipped == pytest.approx(2 / 3, abs=0.01)
    assert measure(clipped).peak == pytest.approx(1, abs=1e-4)
    for level in (2.0, 1.05):
        flat = np.abs(sine(440, level).astype(int)) >= 32767
        runs = np.diff(np.flatnonzero(np.diff(np.concatenate([[0], flat, [0]]))))[::2]
        assert measure(sine(440, level)).clipped == round(runs[runs > 1].sum() / len(flat), 7) > 0


def test_one_sample_at_full_scale_is_no_clipping() -> None:
    pcm = sine(440, 0.5)
    pcm[[100, 900, 902]] = 32767
    assert measure(pcm).clipped == 0
    pcm[[901, 5000, 5001]] = 32767, -32768, -32768
    assert measure(pcm).clipped == round(5 / len(pcm), 7)
    assert measure(np.array([32767, 32767], np.int16)).clipped == 1


@pytest.mark.parametrize("snr", [0, 5, 10, 15, 20, 25])
def test_the_proxy_of_noise_is_near_the_noise_that_was_added(speech: list[np.ndarray], snr: int) -> None:
    clean = [pcm for pcm in speech if measure(pcm).snr_db > TELLING]
    assert len(clean) >= 5
    told = []
    for number, pcm in enumerate(clean):
        level = pcm.astype(float).std()
        pcm = pcm * min(1.0, 1500 / level)
        told.append(measure(whole(pcm + white(len(pcm), pcm.std() * 10 ** (-snr / 20), number))).snr_db)
    assert np.median(told) == pytest.approx(snr, abs=1)
    assert np.abs(np.array(told) - snr).max() < 3


def through(pcm: np.ndarray, rate: int, subtype: str = "PCM_16") -> np.ndarray:
    """Samples as they come back from another sample rate, and from what a file may do to them."""
    sink = io.BytesIO()
    soundfile.write(sink, soxr.resample(pcm / 32768, RATE, rate), rate, format="WAV", subtype=subtype)
    return decoded(io.BytesIO(sink.getvalue()))


def mp3(pcm: np.ndarray) -> np.ndarray:
    """Samples as they come back from the smallest MP3."""
    sink = io.BytesIO()
    soundfile.write(sink, pcm, RATE, format="MP3", subtype="MPEG_LAYER_III", compression_level=0.99)
    return decoded(io.BytesIO(sink.getvalue()))


def cutoff(pcm: np.ndarray) -> float:
    """Where the spectrum of what was white noise falls by 20 dB, by Welch's method."""
    frequencies, power = scipy.signal.welch(pcm, RATE, nperseg=1024)
    return float(frequencies[power > np.median(power[10:100]) / 100][-1])


LOW_PASSES = {
    "telephone": lambda pcm: through(pcm, 8000, "ULAW"),
    "8 kHz": lambda pcm: through(pcm, 8000),
    "11 kHz": lambda pcm: through(pcm, 11025),
    "12 kHz": lambda pcm: through(pcm, 12000),
    "MP3": mp3,
}


@pytest.mark.parametrize("name", LOW_PASSES)
def test_the_edge_of_a_low_pass_is_found(speech: list[np.ndarray], name: str) -> None:
    low_pass = LOW_PASSES[name]
    edge = cutoff(low_pass(whole(white(10 * RATE, 2000))))
    assert 2500 < edge < 7500
    told = [measure(low_pass(pcm)).bandwidth_hz for pcm in speech[::5]]
    assert np.abs(np.array(told) - edge).max() <= 400
    assert measure(low_pass(whole(white(10 * RATE, 2000)))).bandwidth_hz == pytest.approx(edge, abs=400)


def test_clips_without_a_low_pass_have_the_whole_band(speech: list[np.ndarray]) -> None:
    told = [measure(pcm).bandwidth_hz for pcm in speech]
    assert np.mean(np.array(told) == 8000) > 0.95
    assert measure(whole(white(RATE, 500))).bandwidth_hz == 8000
    assert measure(sine(440, 0.5)).bandwidth_hz == pytest.approx(440, abs=200)
    # What a resampler leaves of a wider band ends short of 8 kHz.
    assert measure(whole(soxr.resample(white(160_000, 2000), 48_000, RATE))).bandwidth_hz > 7400


def test_zeros_are_zeros_and_nothing_is_nothing() -> None:
    quality = measure(np.zeros(RATE, np.int16))
    assert quality.all_zero
    assert (quality.peak, quality.dc, quality.clipped, quality.silence) == (0, 0, 0, 1)
    assert (quality.leading_silence, quality.trailing_silence) == (1, 1)
    assert all(map(math.isnan, (quality.rms_dbfs, quality.lufs, quality.snr_db, quality.bandwidth_hz)))
    assert values(measure(np.zeros(0, np.int16))) == values(UNKNOWN)
    one = np.zeros(RATE, np.int16)
    one[77] = 1
    assert not measure(one).all_zero


def test_the_size_of_a_block_changes_nothing(speech: list[np.ndarray]) -> None:
    for pcm in (*speech[::10], np.concatenate(speech)[: 50 * RATE + 123]):
        assert len({tuple(values(measure(pcm, block))) for block in (HOP, 7 * HOP, 40 * HOP, 1000 * HOP)}) == 1


def test_memory_is_that_of_a_block() -> None:
    pcm = np.tile(whole(white(10 * RATE, 1000)), 180)
    tracemalloc.start()
    measure(pcm)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 2**20, "half an hour needs no more than ten seconds do"


def test_measuring_leaves_the_samples_alone() -> None:
    pcm = whole(white(RATE, 1000) + 500)
    before = pcm.copy()
    pcm.setflags(write=False)
    measure(pcm)
    assert (pcm == before).all()


SAMPLES = st.builds(
    lambda seed, size, level, offset, zeros: whole(
        np.where(np.arange(size) % 4000 < zeros, 0, white(size, level, seed) + offset)
    ),
    st.integers(0, 2**32),
    st.integers(0, 50_000),
    st.sampled_from([0, 0.3, 1, 30, 1000, 9000, 60_000]),
    st.sampled_from([0, 0, 1, -40, 3000, 40_000, -40_000]),
    st.integers(0, 4000),
)
RANGES = {
    "peak": (0, 1),
    "clipped": (0, 1),
    "dc": (-1, 1),
    "rms_dbfs": (-150, 0),
    "lufs": (-70, 4),
    "silence": (0, 1),
    "leading_silence": (0, 50_000 / RATE),
    "trailing_silence": (0, 50_000 / RATE),
    "snr_db": (-20, 100),
    "bandwidth_hz": (0, 8000),
    "all_zero": (0, 1),
}


@settings(max_examples=150, deadline=None)
@given(pcm=SAMPLES)
def test_any_samples_give_numbers_in_range_or_nan(pcm: np.ndarray) -> None:
    with np.errstate(all="raise"):
        quality = measure(pcm)
    assert RANGES.keys() == set(Quality.__struct_fields__)
    for name, (low, high) in RANGES.items():
        value = getattr(quality, name)
        assert math.isnan(value) or low <= value <= high, (name, value)
        assert not (value == 0 and math.copysign(1, value) < 0), name
    assert values(quality) == values(measure(pcm, HOP)) == values(measure(pcm.copy()[::-1][::-1], 3 * HOP))
    assert math.isnan(quality.silence) == (len(pcm) < 320)
    assert quality.all_zero == (len(pcm) > 0 and not pcm.any())


@settings(max_examples=60, deadline=None)
@given(raw=st.binary(max_size=8000))
def test_any_bytes_are_samples(raw: bytes) -> None:
    pcm = np.frombuffer(raw[: len(raw) // 2 * 2], "<i2")
    wave = pcm.astype(float)
    quality = measure(pcm)
    if len(pcm):
        assert quality.peak == pytest.approx(np.abs(wave).max() / 32768, abs=1e-6)
        assert quality.dc == pytest.approx(wave.mean() / 32768, abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), gain=st.sampled_from([2, 3, 4]))
def test_gain_moves_levels_and_nothing_else(seed: int, gain: int) -> None:
    # From 12 steps, where -70 dBFS is behind, to 1500, where four times as much still fits.
    levels = np.random.default_rng(seed).uniform(np.log(12), np.log(1500), 40)
    swell = np.exp(np.interp(np.arange(38_400), np.arange(0, 40_000, 1000), levels))
    pcm = whole(white(38_400, 1, seed) * swell + 12)
    one, other = measure(pcm), measure(pcm * np.int16(gain))
    assert other.silence == one.silence
    assert (other.leading_silence, other.trailing_silence) == (one.leading_silence, one.trailing_silence)
    assert other.snr_db == one.snr_db
    assert other.rms_dbfs == pytest.approx(one.rms_dbfs + 20 * math.log10(gain), abs=0.011)
    assert other.lufs == pytest.approx(one.lufs + 20 * math.log10(gain), abs=0.011)
