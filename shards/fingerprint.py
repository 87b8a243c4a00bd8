"""Fingerprints: what of a clip's sound survives another codec, level, sample rate, or cut, in about six bytes a second.

A word of 64 bits is taken at each moment that is the loudest within half a second to either side, eight in ten seconds.
A bit says whether the step of energy from a band to its neighbour grows or falls from one instant to the next (Haitsma
and Kalker, ISMIR 2002). The moment is found by the sound itself, so a clip may be cut anywhere. Another speed, or noise
as loud as a third of the sound, is too much for it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from shards.flac import RATE
from shards.spectra import PCM, TURN, WINDOW, Floats, Places, bands, steady
from shards.sums import BLOCK, sums_of
from shards.sums import TEN as FRAME

Words = NDArray[np.uint64]

SMOOTH = np.array([1, 2, 3, 4, 5, 6, 5, 4, 3, 2, 1], np.float64)
"""Weights that smooth the energies of frames of 10 ms; whole numbers, so that sums stay exact."""
REACH = 50
"""Frames to either side that a moment must exceed."""
FAINT = 1e-3
"""A moment 30 dB below the loudest says nothing."""

HALF = RATE // 2
"""Hz of what the spectra are made of: neighbouring samples are added up, since a telephone leaves no more."""
STEP = 384
"""Samples at 8 kHz from one spectrum, of 64 ms, to the next."""
TIMES, BANDS = 5, 17
SPAN = 2 * (STEP * (TIMES - 1) + WINDOW)
"""Samples that a word is made of: 0.256 s."""
HANN = steady(0.5 - 0.5 * np.cos(TURN))
EDGES = np.rint(np.geomspace(300, 3400, BANDS + 1) * WINDOW / HALF).astype(np.int64)
"""Bins where bands begin."""

LIMIT = 10
"""Words of one sound seldom differ in more bits; those of two sounds do in all but some ten of a million pairs."""


def fingerprint(pcm: PCM, tens: Floats | None = None) -> bytes:
    """Return the words of a clip at 16 kHz in their order in time, 8 bytes each; empty if there is none.

    None has a clip shorter than 0.26 s, or one that is loudest at its very ends. `tens` are the energies of its frames,
    if they are known. A mean that is not zero is left in them: it moves all alike.
    """
    if len(pcm) < SPAN:
        return b""
    centres = find_moments(sums_of(pcm, BLOCK).tens if tens is None else tens)
    starts = centres[(centres >= SPAN // 2) & (centres <= len(pcm) - SPAN // 2)] - SPAN // 2
    return words_at(pcm, starts) if len(starts) else b""


def words_of(fingerprint: bytes) -> Words:
    """Return the words of a fingerprint as numbers."""
    return np.frombuffer(fingerprint, "<u8")


def find_moments(tens: Floats) -> Places:
    """Return the samples at which the smoothed energy is higher than for half a second around, between the frames."""
    found = np.empty(len(tens), np.int64)
    return found[: moments(tens, np.empty(len(tens)), found)]


def moments_in_numpy(tens: Floats, level: Floats, found: Places) -> int:
    """Fill in the smoothed energy and the moments, and return how many: what shards/_spectra.c does."""
    level[:] = np.convolve(tens, SMOOTH)[len(SMOOTH) // 2 : -(len(SMOOTH) // 2)]
    padded = np.full(len(level) + 2 * REACH, -1.0)
    padded[REACH:-REACH] = level
    # The greatest of 2, 4, ... 64 neighbours, then of two such stretches that cover 101.
    size = 1
    while 2 * size <= 2 * REACH + 1:
        padded = np.maximum(padded[:-size], padded[size:])
        size *= 2
    rest = 2 * REACH + 1 - size
    greatest = np.maximum(padded[: len(padded) - rest], padded[rest:])
    at = np.flatnonzero((level == greatest) & (level > level.max() * FAINT))
    at = at[(at > 0) & (at < len(level) - 1)]
    before, here, after = level[at - 1], level[at], level[at + 1]
    # The top of the parabola through three frames: to a millisecond, wherever the frames happen to begin.
    bend = np.maximum(2 * here - before - after, 1.0)
    found[: len(at)] = np.rint((at + 0.5 + (after - before) / (2 * bend)) * FRAME)
    return len(at)


try:
    from shards._spectra import moments  # type: ignore[import-not-found]
except ImportError:
    moments = moments_in_numpy


def words_at(pcm: PCM, starts: Places) -> bytes:
    """Return the words of the spans that begin at `starts`."""
    windows = (starts[:, None] + 2 * STEP * np.arange(TIMES)).ravel()
    power = bands(pcm, windows, HANN, EDGES, fold=2).reshape(len(starts), TIMES, BANDS) + 1.0
    # Whether log(up) - log(down) grows from one instant to the next, by products, which every machine rounds alike.
    down, up = power[:, :, :-1], power[:, :, 1:]
    grows = up[:, 1:] * down[:, :-1] > up[:, :-1] * down[:, 1:]
    return np.packbits(grows.reshape(len(starts), -1), bitorder="little").tobytes()


def alike(these: Words, those: Words, limit: int = LIMIT) -> NDArray[np.int64]:
    """Return the pairs [pairs, 2] of positions of words that differ in at most `limit` bits.

    All are tried, some hundred million pairs a second. Among a few thousand clips one pair makes two clips a candidate,
    among millions two do, or one of at most 4 bits. A candidate, not a proof: listen to it.
    """
    found = []
    for place, word in enumerate(these):
        others = np.flatnonzero(np.bitwise_count(those ^ word) <= limit)
        found.append(np.stack([np.full(len(others), place), others], axis=1))
    return np.concatenate(found) if found else np.zeros((0, 2), np.int64)
