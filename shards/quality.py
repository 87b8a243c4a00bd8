"""Quality: what can be measured of a clip's samples while they are in hand, so that an audit need not read audio again.

Samples are summed exactly (shards/sums.py), so that neither the order of a sum nor the machine can change it. Loudness
and bandwidth weigh with fractions, in float64: another processor changes the 13th digit. All is rounded far above that.
Memory is that of one block and of two numbers a frame, whatever the length.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np

from shards import spectra
from shards.flac import RATE
from shards.spectra import WINDOW
from shards.sums import BLOCK, FRAME, HOP, PCM, Floats, Sums, sums_of

FULL = 32768
"""Full scale, of which shares and decibels are told."""

QUIET = 1e-4
"""A frame 40 dB below the loud frames of its clip is silent."""
LOUD = 100
"""One frame of so many is louder than the level that is called loud: more than a click, less than a word."""
MUTE = FRAME * FULL**2 * 1e-7
"""Energy of a frame at -70 dB of full scale, below which it is silent in any company."""
NOISY = 10
"""One frame of so many is quieter than the level that is taken for noise."""

GATE = 10 ** ((-70 + 0.691) / 10) * 4 * HOP * FULL**2
"""Weighted energy of 400 ms at -70 LUFS, the absolute gate of ITU-R BS.1770."""

BAND = 4
"""Bins of a band: 125 Hz. A spectrum is of 32 ms, a bin 31.25 Hz; the last, at 8 kHz, belongs to no band."""
EDGES = np.arange(0, WINDOW // 2 + 1, BAND)
TURN = 2 * np.pi * np.arange(WINDOW) / WINDOW
TAPER = 0.35875 - 0.48829 * np.cos(TURN) + 0.14128 * np.cos(2 * TURN) - 0.01168 * np.cos(3 * TURN)
"""Blackman-Harris: a loud tone leaks 92 dB less into other bands."""
HEARD = 10 / 12 * float((TAPER**2).sum())
"""Power of a bin 10 dB above the noise of rounding to 16 bits, which is 1/12."""
CLIFF = 100.0
"""A low-pass leaves 20 dB less above its edge than there is below. The bundled clips that have none fall by at most 15
dB; through a telephone, a lower rate or a small MP3 by at least 22. Opus at 8 kbit/s slopes more gently, to nothing."""
FIRST = 2000 // 125
"""The band from which cliffs are looked for: a vowel has one below its second formant."""

NAN = math.nan


class Quality(msgspec.Struct, frozen=True, kw_only=True):
    """Measures of a clip's samples at 16 kHz, rounded; NaN where one cannot be told."""

    peak: float = NAN
    """Of full scale, 0 to 1."""
    clipped: float = NAN
    """Share of the samples in runs of at least two within one step of the same end of the scale."""
    dc: float = NAN
    """Mean, of full scale. All that follows but rms_dbfs is measured without it."""
    rms_dbfs: float = NAN
    """dB of a square wave at full scale; NaN if all samples are zero."""
    lufs: float = NAN
    """Integrated loudness by ITU-R BS.1770; NaN if shorter than 0.4 s or nowhere above -70 LUFS."""
    silence: float = NAN
    """Share of the whole 20 ms frames that are 40 dB below the level that 1 % of them exceed, or below -70 dBFS."""
    leading_silence: float = NAN
    """Seconds of silent frames at the start; all of them if no frame sounds."""
    trailing_silence: float = NAN
    """Seconds of silent frames at the end."""
    snr_db: float = NAN
    """A proxy, -20 to 100 dB: noise is the level that 90 % of the frames exceed, signal what their mean has beyond it.
    Frames below one step of the scale are left out. Sound without pauses has its own floor taken for noise. NaN if
    there are fewer than ten frames."""
    bandwidth_hz: float = NAN
    """The edge of a low-pass, if there is one above 2 kHz: the band of 125 Hz after which all is 20 dB below the 375 Hz
    before. Otherwise the highest band 10 dB above the noise of 16-bit samples. NaN if no band is."""
    all_zero: bool = False


UNKNOWN = Quality()
"""Of samples that nobody saw, or that there are none of."""


def measure(pcm: PCM, block: int = BLOCK, sums: Sums | None = None) -> Quality:
    """Measure the samples of a clip at 16 kHz, any number of them. `block`, a multiple of HOP, changes nothing.

    `sums` are those of the clip, if they are known.
    """
    samples = len(pcm)
    if not samples:
        return UNKNOWN
    low, high = int(pcm.min()), int(pcm.max())
    sums = sums or sums_of(pcm, block)
    middle = sums.total / samples
    frames = sums.frames - (2 * middle) * sums.frame_sums + FRAME * middle**2
    silence, leading, trailing = silences(frames)
    return Quality(
        peak=rounded(max(high, -low) / FULL, 6),
        clipped=rounded(clipped(pcm, low, high) / samples, 7),
        dc=rounded(sums.total / samples / FULL, 6),
        rms_dbfs=decibels(sums.energy / samples / FULL**2),
        lufs=loudness(sums.hops),
        silence=silence,
        leading_silence=leading,
        trailing_silence=trailing,
        snr_db=signal_to_noise(frames[np.minimum(frames, sums.frames) >= FRAME]),
        bandwidth_hz=bandwidth(pcm, middle),
        all_zero=low == high == 0,
    )


def rounded(value: float, digits: int) -> float:
    """Round, and let no zero be negative."""
    return round(value, digits) + 0.0


def decibels(ratio: float) -> float:
    """Return a ratio of powers in dB, NaN of nothing."""
    return rounded(10 * math.log10(ratio), 2) if ratio > 0 else NAN


def clipped(pcm: PCM, low: int, high: int) -> int:
    """Count the samples at either end of the scale that have a neighbour there. An encoder may stop one step short."""
    count = 0
    for there in (pcm >= FULL - 2 if high >= FULL - 2 else None, pcm <= 1 - FULL if low <= 1 - FULL else None):
        if there is not None:
            pairs = there[1:] & there[:-1]
            # A run has one pair less than samples; a run begins where a pair has no pair before it.
            count += int(pairs.sum()) + int((pairs[1:] & ~pairs[:-1]).sum()) + bool(len(pairs) and pairs[0])
    return count


def loudness(hops: Floats) -> float:
    """Return the integrated loudness in LUFS of weighted energies 100 ms apart, by the two gates of BS.1770."""
    if len(hops) < 4:
        return NAN
    blocks = hops[:-3] + hops[1:-2] + hops[2:-1] + hops[3:]
    blocks = blocks[blocks > GATE]
    if not len(blocks):
        return NAN
    blocks = blocks[blocks > math.fsum(blocks.tolist()) / len(blocks) / 10]
    return rounded(10 * math.log10(math.fsum(blocks.tolist()) / len(blocks) / (4 * HOP * FULL**2)) - 0.691, 2)


def silences(frames: Floats) -> tuple[float, float, float]:
    """Return the share of silent frames, and the seconds of them at the start and at the end."""
    count = len(frames)
    if not count:
        return NAN, NAN, NAN
    loud = np.partition(frames, count - 1 - count // LOUD)[count - 1 - count // LOUD]
    sounds = np.flatnonzero(frames >= max(loud * QUIET, MUTE))
    first, last = (int(sounds[0]), int(sounds[-1])) if len(sounds) else (count, -1)
    seconds = FRAME / RATE
    return (
        rounded(1 - len(sounds) / count, 4),
        rounded(first * seconds, 2),
        rounded((count - 1 - last) * seconds, 2),
    )


def signal_to_noise(frames: Floats) -> float:
    """Return the proxy of the signal-to-noise ratio in dB, of the frames that are not digitally silent; see Quality."""
    count = len(frames)
    if count < NOISY:
        return NAN
    noise = float(np.partition(frames, count // NOISY)[count // NOISY])
    signal = float(frames.sum()) / count - noise
    return rounded(min(max(10 * math.log10(signal / noise), -20.0), 100.0), 2) if signal > 0 else -20.0


def bandwidth(pcm: PCM, middle: float) -> float:
    """Return the edge of a low-pass or of what sounds at all, in Hz, by 16 to 128 spectra from all over the clip."""
    if len(pcm) < WINDOW:
        return NAN
    count = min(max(len(pcm) // 8000, 16), 128)
    step = max((len(pcm) - WINDOW) // (count - 1), 1)
    count = min(count, (len(pcm) - WINDOW) // step + 1)
    power = spectra.bands(pcm, np.arange(count) * step, TAPER, EDGES, middle=middle)
    bands = power.sum(axis=0) / (BAND * count)
    heard = np.flatnonzero(bands > HEARD)
    if not len(heard):
        return NAN
    above = np.maximum.accumulate(bands[::-1])[::-1]
    # Over the noise of rounding, or it would make cliffs of its own.
    before = np.minimum(np.minimum(bands[:-4], bands[1:-3]), bands[2:-2])
    drops = before / np.maximum(above[4:], HEARD / 10)
    cliff = int(np.argmax(drops[FIRST - 3 :])) + FIRST - 3
    edge = cliff + 3 if drops[cliff] > CLIFF else int(heard[-1]) + 1
    return edge * BAND * RATE / WINDOW
