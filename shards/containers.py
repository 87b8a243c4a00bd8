"""Containers: audio that libsndfile cannot open (m4a, webm, aac), or reads badly, decoded by ffmpeg (PyAV).

ffmpeg knows hundreds of formats, some of which name other files to be opened: it is told which one to expect, and may
open nothing. A file is decoded from its start, whatever span is asked for: its times are rounded, its samples are not.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from shards.refusals import MAX_SECONDS, Refused, hold

DEMUXERS = {"mp4": "mov", "matroska": "matroska", "aac": "aac", "mp3": "mp3", "ogg": "ogg"}
"""What ffmpeg is to take a container of shards/endings.py for."""
BLOCK = 1 << 16
"""Frames handed on at a time, or a few more."""
BUFFER = 1 << 18
"""Bytes read at a time."""
SLACK = 0.25
"""Seconds by which the length that an MP4 file gives a track may be rounded up."""
FULL = {"u1": 2.0**7, "i2": 2.0**15, "i4": 2.0**31}
"""Full scale of samples that are integers."""


@functools.cache
def pyav() -> Any:
    """Return the library, None if it is not installed. It takes 0.1 s to import, and few files need it."""
    try:
        import av
    except ImportError:  # pragma: no cover
        return None
    return av


class Container:
    """The first audio track of a file: `rate` in Hz, `channels`, and `length` in frames, None if that is not known."""

    def __init__(self, file: IO[bytes], name: str, container: str, length: int | None = None) -> None:
        av = pyav()
        if av is None:
            raise Refused("not_audio", f"{name}: to read {container} files, install PyAV (pip install av)")
        self.name, self.error = name, av.FFmpegError
        file.seek(0)
        options = {"format": DEMUXERS[container], "buffer_size": BUFFER, "io_open": no_other_file}
        try:
            # Tags may be in any encoding; nobody reads them.
            self.media: Any = av.open(file, metadata_errors="replace", **options)
        except (self.error, ValueError) as error:
            raise Refused("not_audio", f"{name}: {told(error)}") from None
        try:
            if not self.media.streams.audio:
                raise Refused("not_audio", f"{name}: no audio track")
            self.track = self.media.streams.audio[0]
            self.frames = self.decoded()
            # Headers may tell half the rate: only the first frame knows.
            self.first = next(self.frames, None)
            if self.first is None:
                raise Refused("no_samples", name)
            self.rate, self.channels = shape(self.first)
            self.declared, self.length = self.lengths(container, length)
            hold(name, self.rate, self.channels, self.length)
        except BaseException:
            self.close()
            raise

    def lengths(self, container: str, length: int | None) -> tuple[float | None, int | None]:
        """Return the seconds that the track must have, and the frames that it has as far as is known."""
        if container == "mp4" and self.track.duration is not None:
            seconds = float(self.track.duration * self.track.time_base)
            return seconds, round(seconds * self.rate)
        if container == "matroska" and self.media.duration:
            return None, round(self.media.duration / 1e6 * self.rate)
        return None, length

    def close(self) -> None:
        """Close the decoder; the file stays open."""
        self.media.close()

    def decoded(self) -> Iterator[Any]:
        """Yield the track frame by frame, as ffmpeg decodes it."""
        try:
            for packet in self.media.demux(self.track):
                yield from packet.decode()
        except (self.error, ValueError) as error:
            raise Refused("corrupt", f"{self.name}: {told(error)}") from None

    def arrays(self) -> Iterator[NDArray[np.float32]]:
        """Yield the whole track as arrays [frames, channels]; once."""
        seen, frame = 0, self.first
        while frame is not None:
            if shape(frame) != (self.rate, self.channels):
                raise Refused("corrupt", f"{self.name}: changes its rate or its channels after {seen} frames")
            seen += frame.samples
            if seen > MAX_SECONDS * self.rate:
                raise Refused("too_long", f"{self.name}: more than {MAX_SECONDS} s")
            yield wave_of(frame, self.channels)
            frame = next(self.frames, None)
        if self.declared is not None and self.declared > seen / self.rate + SLACK:
            raise Refused("truncated", f"{self.name}: {seen / self.rate:.3f} of {self.declared:.3f} s")

    def blocks(self, first: int, frames: int | None) -> Iterator[NDArray[np.float32]]:
        """Yield arrays [frames, channels] from frame `first` on, `frames` in all, or to the end; once."""
        skip, left = first, frames
        held: list[NDArray[np.float32]] = []
        for array in self.arrays():
            piece = array[skip : None if left is None else skip + left]
            skip = max(0, skip - len(array))
            held.append(piece)
            if left is not None:
                left -= len(piece)
                if left == 0:
                    break
            if sum(map(len, held)) >= BLOCK:
                yield np.concatenate(held)
                held = []
        if held:
            yield np.concatenate(held)


def shape(frame: Any) -> tuple[int, int]:
    """Return the rate of a frame in Hz, and its channels."""
    return int(frame.sample_rate), len(frame.layout.channels)


def wave_of(frame: Any, channels: int) -> NDArray[np.float32]:
    """Return a frame as [samples, channels] in [-1, 1]."""
    samples = frame.to_ndarray()
    wave: NDArray[np.float32] = samples.astype(np.float32)
    if (full := FULL.get(samples.dtype.str[1:])) is not None:
        wave = (wave - np.float32(full if samples.dtype.kind == "u" else 0)) / np.float32(full)
    return wave.T if frame.format.is_planar else wave.reshape(-1, channels)


def no_other_file(url: str, flags: int, options: dict[str, str]) -> IO[bytes]:
    """Refuse to open what a file names."""
    raise PermissionError(f"a sound file may not open another ({url[:100]!r})")


def told(error: Exception) -> str:
    """Return the words of an error of ffmpeg, without its number and without the name of the file."""
    return str(getattr(error, "strerror", None) or error)[:200]


def version() -> str:
    """Return the version of PyAV, empty if it is not installed."""
    return "" if pyav() is None else str(pyav().__version__)
