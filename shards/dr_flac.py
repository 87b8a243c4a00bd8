"""FLAC decoded by dr_flac (the miniaudio library), in 0.6 of libsndfile's time, for who can check what comes out.

It says nothing of damage: it returns fewer samples, or wrong ones. So a caller holds the samples against their MD5, or
the bytes against a checksum, and asks libsndfile where they differ. Without miniaudio nothing is decoded here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

try:
    import miniaudio
except ImportError:  # pragma: no cover
    miniaudio = None

MAX_SAMPLES = 20 * 60 * 16_000
"""Longer clips are not decoded here but block by block, by libsndfile."""


def decode(data: bytes | memoryview, samples: int, out: NDArray[np.int16] | None = None) -> NDArray[np.int16] | None:
    """Return the samples of a mono 16-bit FLAC file, None if there are not `samples` of them or it cannot tell.

    They are written to the start of `out` if it is given, else to an array of their own. The GIL is released.
    """
    if miniaudio is None or not 0 < samples <= MAX_SAMPLES:
        return None
    lib, ffi = miniaudio.lib, miniaudio.ffi
    pcm = np.empty(samples, np.int16) if out is None else out[:samples]
    # What is written is as many samples as are asked for, of each channel that dr_flac sees: it must see one.
    if len(pcm) != samples or not pcm.flags.c_contiguous or pcm.dtype != np.int16:
        raise ValueError(f"{samples} samples need a contiguous int16 buffer as long")
    # Nothing of `data` is copied: it must outlive the decoder, and does.
    held = ffi.from_buffer(data)
    flac = lib.ma_dr_flac_open_memory(held, len(data), ffi.NULL)
    if not flac:
        return None
    try:
        if flac.channels != 1 or flac.bitsPerSample != 16:
            return None
        place = ffi.cast("ma_dr_flac_int16 *", pcm.ctypes.data)
        read = lib.ma_dr_flac_read_pcm_frames_s16(flac, samples, place)
    finally:
        lib.ma_dr_flac_close(flac)
    return pcm if read == samples else None


def version() -> str:
    """Return the version of miniaudio, empty if it is not installed."""
    return "" if miniaudio is None else str(miniaudio.__version__)
