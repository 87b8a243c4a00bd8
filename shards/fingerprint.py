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

PCM = NDArray[np.int16]
Words = NDArray[np.uint64]
Floats = NDArray[np.float64]

FRAME = 160
"""Samples of a frame of the envelope: 10 ms."""
SMOOTH = np.array([1, 2, 3, 4, 5, 6, 5, 4, 3, 2, 1], np.float64)
"""Weights that smooth the envelope; whole numbers, so that sums stay exact."""
REACH = 50
"""Frames to either side that a moment must exceed."""
FAINT = 1e-3
"""A moment 30 dB below the loudest says nothing."""

HALF = RATE // 2
"""Hz of what the spectra are made of: neighbouring samples are added up, since a telephone leaves no more."""
WINDOW, STEP = 512, 384
"""Samples at 8 kHz of a spectrum, 64 ms, and from one to the next."""
TIMES, BANDS = 5, 17
SPAN = 2 * (STEP * (TIMES - 1) + WINDOW)
"""Samples that a word is made of: 0.256 s."""
HANN = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
EDGES = np.rint(np.geomspace(300, 3400, BANDS + 1) * WINDOW / HALF).astype(int)
"""Bins where bands begin."""
BATCH = 32
"""Words made at a time, in 4 MB."""
BLOCK = 1600 * FRAME
"""Samples held as float64 at a time, 2 MB."""

LIMIT = 10
"""Words of one sound seldom differ in more bits; those of two sounds do in all but some ten of a million pairs."""


def fingerprint(pcm: PCM) -> bytes:
    """Return the words of a clip at 16 kHz in their order in time, 8 bytes each; empty if there is none.

    None has a clip shorter than 0.26 s, or one that is loudest at its very ends.
    """
    centres = moments(envelope(pcm))
    starts = centres[(centres >= SPAN // 2) & (centres <= len(pcm) - SPAN // 2)] - SPAN // 2
    return b"".join(words_at(pcm, starts[first : first + BATCH]) for first in range(0, len(starts), BATCH))


def words_of(fingerprint: bytes) -> Words:
    """Return the words of a fingerprint as numbers."""
    return np.frombuffer(fingerprint, "<u8")


def envelope(pcm: PCM) -> Floats:
    """Return the energy of each whole frame, smoothed. A mean that is not zero is left in: it moves all alike."""
    energies = []
    for start in range(0, len(pcm) // FRAME * FRAME, BLOCK):
        block = pcm[start : start + BLOCK]
        wave = block[: len(block) // FRAME * FRAME].astype(np.float64)
        energies.append(np.matmul(wave.reshape(-1, 1, FRAME), wave.reshape(-1, FRAME, 1)).ravel())
    if sum(map(len, energies)) < 3:
        return np.zeros(0)
    smooth: Floats = np.convolve(np.concatenate(energies), SMOOTH)[len(SMOOTH) // 2 : -(len(SMOOTH) // 2)]
    return smooth


def moments(level: Floats) -> NDArray[np.int64]:
    """Return the samples at which the envelope is higher than for half a second around, between the frames."""
    if not level.any():
        return np.zeros(0, np.int64)
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
    found: NDArray[np.int64] = np.rint((at + 0.5 + (after - before) / (2 * bend)) * FRAME).astype(np.int64)
    return found


def words_at(pcm: PCM, starts: NDArray[np.int64]) -> bytes:
    """Return the words of the spans that begin at `starts`."""
    spans = np.stack([pcm[first : first + SPAN] for first in starts.tolist()]).astype(np.float64)
    wave = spans[:, ::2] + spans[:, 1::2]
    windows = np.stack([wave[:, STEP * time : STEP * time + WINDOW] for time in range(TIMES)], axis=1)
    windows *= HANN
    spectra = np.fft.rfft(windows)[:, :, EDGES[0] : EDGES[-1]]
    power = spectra.real**2 + spectra.imag**2
    bands = np.log(np.add.reduceat(power, EDGES[:-1] - EDGES[0], axis=2) + 1.0)
    steps = bands[:, :, 1:] - bands[:, :, :-1]
    return np.packbits((steps[:, 1:] > steps[:, :-1]).ravel(), bitorder="little").tobytes()


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
