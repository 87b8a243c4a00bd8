"""Spectrograms as small pictures: what a clip sounds like, to the eye; by librosa, where it is installed."""

from __future__ import annotations

import functools
import importlib.util
import struct
import zlib

import numpy as np
from numpy.typing import NDArray

from shards.flac import RATE
from shards.sums import PCM

BANDS, WIDTH = 64, 240
"""Mel bands, a pixel each, and how many pixels a picture is wide at most."""
WINDOW, HOP = 1024, 256
FLOOR = -80.0
"""dB below the loudest point at which a picture is dark."""
SHADES = 48
HELP = "pip install 'salmonn-data-engine[audit]'"
"""How one gets the pictures."""
RAMP = (
    (0.0, (10, 10, 28)),
    (0.35, (74, 32, 112)),
    (0.65, (206, 71, 84)),
    (0.85, (249, 160, 63)),
    (1.0, (252, 252, 191)),
)
"""From dark to bright: brightness alone tells the level, so that it can be read in print and without seeing colours."""


def installed() -> bool:
    """Whether there is a librosa to draw with."""
    return importlib.util.find_spec("librosa") is not None


def spectrogram(pcm: PCM) -> bytes:
    """Return the mel spectrogram of 16 kHz samples as a PNG: time to the right, 0 to 8 kHz upwards, 80 dB of range.

    Empty where there are no samples, or no librosa.
    """
    if not len(pcm) or not installed():
        return b""
    import librosa

    samples = pcm.astype(np.float32) / 32768
    samples = np.pad(samples, (0, max(0, WINDOW - len(samples))))
    mel = filters() @ np.abs(librosa.stft(samples, n_fft=WINDOW, hop_length=HOP)) ** 2
    firsts = np.unique(np.arange(WIDTH) * mel.shape[1] // WIDTH)
    mel = np.maximum.reduceat(mel, firsts, axis=1)
    # Of a clip of zeros, all is dark.
    top = max(float(mel.max()), 1e-10)
    levels = (
        np.maximum(10 * np.log10(np.maximum(mel, 1e-10) / top), FLOOR) if mel.max() > 0 else np.full_like(mel, FLOOR)
    )
    shades = np.rint((1 - levels / FLOOR) * (SHADES - 1)).astype(np.uint8)
    return png(shades[::-1])


@functools.cache
def filters() -> NDArray[np.float32]:
    """Return the mel bands, [BANDS x bins]: making them takes longer than a picture."""
    import librosa

    bands: NDArray[np.float32] = librosa.filters.mel(sr=RATE, n_fft=WINDOW, n_mels=BANDS, fmax=RATE / 2)
    return bands


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Return pixels, each a shade, as a PNG with a palette (PNG specification, sections 5 and 11)."""
    height, width = pixels.shape
    head = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    # Each line begins with its filter: 2, the difference to the line above, which packs a quarter smaller.
    above = np.vstack([np.zeros((1, width), np.uint8), pixels[:-1]])
    lines = np.hstack([np.full((height, 1), 2, np.uint8), pixels - above])
    parts = ((b"IHDR", head), (b"PLTE", palette()), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b""))
    chunks = (
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def palette() -> bytes:
    """Return the colours of the shades."""
    places = [place for place, _ in RAMP]
    steps = np.linspace(0, 1, SHADES)
    colours = [np.interp(steps, places, [colour[part] for _, colour in RAMP]) for part in range(3)]
    return np.rint(np.stack(colours, axis=1)).astype(np.uint8).tobytes()
