"""Sums over a clip's samples, from which quality is told: of samples, of their energy, and of products with neighbours.

All are exact: samples and their products are integers, held in float64 and below 2^53, so that neither the order of a
sum, nor the size of a block, nor the machine can change them. shards/_sums.c has the loop; numpy does the same where
it was not compiled.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

PCM = NDArray[np.int16]
Numbers = NDArray[np.int32]
Floats = NDArray[np.float64]

TEN = 160
"""Samples of half a frame: 10 ms, the grain of fingerprints."""
FRAME = 320
"""Samples of a frame: 20 ms, the grain of silence and of noise."""
HOP = 1600
"""Samples from one block of loudness to the next: 100 ms."""
BLOCK = 160 * HOP
"""Samples held as float64 at a time, 2 MB: most clips are one block."""

SHELF = (2.1798, -0.6111, -0.4122, -0.2445, -0.0095)
"""K-weighting as a sum of cosines: weights of the products of samples 0 to 4 apart. See `weighted`."""
BOX, LOWS = 32, (-0.2074, -0.4172, -0.1843, -0.0884, -0.0435, -0.0196)
"""The same of sums of 32 samples, 0 to 5 sums apart: what K-weighting takes away below 250 Hz."""
LOWEST = (0.0326, 0.0265, -0.0017, 0.0007, -0.0002)
"""The same of sums of 320 samples, 0 to 4 apart: wind and rumble may hold a thousand times the energy of the rest."""
WEIGHTS = np.array(
    [
        *SHELF[1:],
        # What lies so far apart lies there to either side: half of the weight is for each.
        *(weight / BOX / (2 if lag else 1) for lag, weight in enumerate(LOWS)),
        *(weight / FRAME / (2 if lag else 1) for lag, weight in enumerate(LOWEST)),
    ]
)
"""Those of all products but of the energy itself."""
ONES = np.ones(BOX)


class Sums(msgspec.Struct, frozen=True, kw_only=True):
    """What is summed over the samples of a clip, exactly but for `hops`."""

    total: int
    energy: int
    frame_sums: Numbers
    """[frames], the sums of the whole frames."""
    tens: Floats
    """[tens], the energies of the whole halves of frames, 10 ms."""
    frames: Floats
    """[frames], the energies of the whole frames."""
    hops: Floats
    """[hops], the energies of the whole hops as K-weighted."""


def sums_of(pcm: PCM, block: int) -> Sums:
    """Read all samples once, a block at a time, with a hop before it and a hop behind."""
    # Outside of the clip goes on what is at its ends, or a clip with an offset would begin and end with a bang.
    first, last = (round(float(end.mean())) for end in (pcm[:HOP], pcm[-HOP:]))
    pcm = np.ascontiguousarray(pcm)
    sums, tens, hops = [], [], []
    for start in range(0, len(pcm), block):
        here = min(block, len(pcm) - start)
        boxes, wide = (np.empty((here // HOP + 2, HOP // width), np.int32) for width in (BOX, FRAME))
        tens.append(np.empty(here // TEN))
        lagged = np.empty((here // HOP, len(WEIGHTS)))
        add_up(pcm, start, here, first, last, boxes, wide, tens[-1], lagged)
        sums.append(wide.ravel()[HOP // FRAME :][: here // FRAME])
        hops.append(weighted(tens[-1], lagged))
    tail, end = (pcm[len(pcm) // width * width :].astype(np.float64) for width in (FRAME, TEN))
    energies = tens[0] if len(tens) == 1 else np.concatenate(tens)
    frames = energies[: 2 * (len(pcm) // FRAME)].reshape(-1, 2).sum(axis=1)
    return Sums(
        total=sum(int(some.sum(dtype=np.int64)) for some in sums) + int(tail.sum()),
        energy=sum(int(some.sum()) for some in tens) + int(end @ end),
        frame_sums=np.concatenate(sums),
        tens=energies,
        frames=frames,
        hops=np.concatenate(hops),
    )


def weighted(tens: Floats, lagged: Floats) -> Floats:
    """Return the K-weighted energy of each whole hop, from its energies and its products with itself.

    The energy of a filtered signal is the sum of its autocorrelation times that of the filter. K-weighting is a shelf,
    whose autocorrelation is short, and a high-pass at 38 Hz, whose is long but of low frequencies, so that sums of
    neighbours will do. The weights are the fit to the response of the filters of BS.1770 at 48 kHz that is nearest in
    dB: at most 0.22 from 40 Hz on, 0.1 from 20 Hz; below 12 Hz at most 0.0001 of the power passes that should not.
    """
    energy: Floats = SHELF[0] * tens[: len(lagged) * (HOP // TEN)].reshape(-1, HOP // TEN).sum(axis=1)
    energy += lagged @ WEIGHTS
    return energy


def sums_in_numpy(
    pcm: PCM,
    start: int,
    here: int,
    first: int,
    last: int,
    boxes: Numbers,
    wide: Numbers,
    tens: Floats,
    lagged: Floats,
) -> None:
    """Fill in the sums of `here` samples from `start` on: what shards/_sums.c does, in a fifth of the time.

    `boxes` and `wide` are sums of BOX and of FRAME samples, a hop a row, of the whole hops and of one to either side,
    where `first` and `last` stand outside of the clip. `tens` are the energies of whole halves of frames; `lagged` the
    products of each whole hop with itself, in the order of WEIGHTS.
    """
    wave = np.empty(-(-here // HOP) * HOP + 2 * HOP)
    ahead = pcm[start : start + here + HOP]
    wave[:HOP] = pcm[start - HOP : start] if start else first
    wave[HOP : HOP + len(ahead)] = ahead
    wave[HOP + len(ahead) :] = last
    size = here // HOP * HOP
    # By hops: in one piece the library would think it worth its threads.
    boxes[:] = wave[: size + 2 * HOP].reshape(-1, HOP // BOX, BOX) @ ONES
    wide[:] = boxes.reshape(-1, HOP // FRAME, FRAME // BOX) @ ONES[: FRAME // BOX]
    whole = wave[HOP : HOP + len(tens) * TEN]
    tens[:] = products(whole, whole, TEN)
    column = iter(lagged.T)
    for lag in range(1, len(SHELF)):
        # As far to the left as to the right: half a cycle of wind in a hop must not look like sound.
        left = HOP - lag // 2
        next(column)[:] = products(wave[left : left + size], wave[left + lag : left + lag + size], HOP)
    for sums, lags in ((boxes, len(LOWS)), (wide, len(LOWEST))):
        flat, width = sums.ravel().astype(np.float64), sums.shape[1]
        middle = flat[width:-width]
        for lag in range(lags):
            around = flat[width - lag : len(flat) - width - lag] + flat[width + lag : len(flat) - width + lag]
            next(column)[:] = products(middle, around if lag else middle, width)


try:
    from shards._sums import sums as add_up  # type: ignore[import-not-found]
except ImportError:
    add_up = sums_in_numpy


def products(these: Floats, those: Floats, width: int) -> Floats:
    """Return the inner products of two arrays [n x width], row by row."""
    inner: Floats = np.matmul(these.reshape(-1, 1, width), those.reshape(-1, width, 1)).ravel()
    return inner
