"""Spectra of many short windows of a clip: what each holds in each band of frequencies.

The transform is written out, in the same order here and in shards/_spectra.c, which is many times faster: the same
additions and products of float64 give the same bits with or without a compiler, and on every processor.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

PCM = NDArray[np.int16]
Floats = NDArray[np.float64]
Places = NDArray[np.int64]

WINDOW = 512
"""Samples of a window."""
BATCH = 256
"""Windows that numpy works at a time, in 8 MB."""


def steady(values: Floats) -> Floats:
    """Round a table to multiples of 2^-30: the last digits of a cosine are not the same on every machine."""
    rounded: Floats = np.rint(values * 2.0**30) / 2.0**30
    return rounded


TURN = 2 * math.pi * np.arange(WINDOW) / WINDOW
TURNS = np.ascontiguousarray(np.stack([steady(np.cos(TURN)), -steady(np.sin(TURN))]))
"""[2, WINDOW], real and imaginary parts of exp(-2 pi i k / WINDOW)."""


def bands_in_numpy(
    pcm: PCM, starts: Places, fold: int, middle: float, taper: Floats, turns: Floats, edges: Places, out: Floats
) -> None:
    """Fill in `out`, see `bands`: what shards/_spectra.c does."""
    for first in range(0, len(starts), BATCH):
        at = starts[first : first + BATCH]
        samples = pcm[at[:, None] + np.arange(WINDOW * fold)].astype(np.float64)
        if fold == 2:
            samples = samples[:, ::2] + samples[:, 1::2]
        wave = (samples - middle) * taper
        # A real signal of 512 is transformed as a complex one of 256, with a radix of four (Stockham's order).
        real, imaginary = (np.ascontiguousarray(part.T) for part in (wave[:, ::2], wave[:, 1::2]))
        length = WINDOW // 2
        while length > 1:
            real, imaginary = quarter(real, imaginary, length, turns)
            length //= 4
        out[first : first + BATCH] = banded(
            real.reshape(WINDOW // 2, -1), imaginary.reshape(WINDOW // 2, -1), turns, edges
        )


def quarter(real: Floats, imaginary: Floats, length: int, turns: Floats) -> tuple[Floats, Floats]:
    """Do one stage of transforms of `length`: return transforms of a quarter of it."""
    a, b, c, d = real.reshape(4, length // 4, -1)
    p, q, r, s = imaginary.reshape(4, length // 4, -1)
    out, made = (np.empty((length // 4, 4, a.shape[1])) for _ in range(2))
    out[:, 0], made[:, 0] = (a + c) + (b + d), (p + r) + (q + s)
    parts = (
        ((a - c) + (q - s), (p - r) - (b - d)),
        ((a + c) - (b + d), (p + r) - (q + s)),
        ((a - c) - (q - s), (p - r) + (b - d)),
    )
    for place, (x, y) in enumerate(parts, 1):
        steps = np.arange(length // 4) * place * (WINDOW // length)
        u, v = turns[:, steps, None]
        out[:, place], made[:, place] = x * u - y * v, x * v + y * u
    return out, made


def banded(real: Floats, imaginary: Floats, turns: Floats, edges: Places) -> Floats:
    """Return the power [windows, bands] of the real signals whose halves were transformed, bin after bin."""
    half, first = WINDOW // 2, int(edges[0])
    here = np.arange(first, edges[-1])
    there, (u, v) = -here % half, turns[:, here, None]
    even = real[here] + real[there], imaginary[here] - imaginary[there]
    odd = imaginary[here] + imaginary[there], real[there] - real[here]
    x, y = even[0] + (u * odd[0] - v * odd[1]), even[1] + (u * odd[1] + v * odd[0])
    power, sizes = x * x + y * y, np.diff(edges)
    total = np.zeros((len(sizes), real.shape[1]))
    for place in range(sizes.max()):
        longer = np.flatnonzero(sizes > place)
        total[longer] += power[edges[longer] - first + place]
    told: Floats = 0.25 * total.T
    return told


try:
    from shards._spectra import bands as fill  # type: ignore[import-not-found]
except ImportError:
    fill = bands_in_numpy


def bands(pcm: PCM, starts: Places, taper: Floats, edges: Places, *, fold: int = 1, middle: float = 0.0) -> Floats:
    """Return the power [starts, bands] of the windows of a clip that begin at `starts`.

    `edges` are the bins where bands begin, and at last where the last ends: at most 256. `middle` is taken from every
    sample before it is weighed by `taper`. With a `fold` of 2 neighbours are added up, so that the window is twice as
    long and the bins half as wide.
    """
    out = np.empty((len(starts), len(edges) - 1))
    fill(np.ascontiguousarray(pcm), np.ascontiguousarray(starts), fold, middle, taper, TURNS, edges, out)
    return out
