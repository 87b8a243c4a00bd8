"""Sound files as libsndfile reads them: WAV, FLAC, Ogg, MP3 and others, by seeking, block by block."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import IO, Any

import soundfile
from numpy.typing import NDArray

from shards.endings import Ending
from shards.refusals import Refused, hold

BLOCK = 1 << 16
"""Frames decoded at a time: they stay in a processor's second cache."""
UNKNOWN = 2**63 - 1
"""What libsndfile says of a length it does not know."""
STREAMED = 0xFFFFFF00
"""Sizes of a WAV's samples from here on are placeholders of a writer that could not go back."""
SHORT = (
    re.compile(r"^\s*(?:data|SSND|Data Size|riff)\s*: (?P<told>\d+) \(should be (?P<here>\d+)\)", re.MULTILINE),
    re.compile(r"frame count (?P<here>\d+) does not match value from 'ds64' chunk of (?P<told>\d+)"),
)
"""What libsndfile notes of a WAV, AIFF, AU, W64 or RF64 file that ends early, and then reads without a word."""
MPEG_FRAME = 1152
PREROLL = 10 * MPEG_FRAME
"""Frames decoded before a span of an MP3, whose frames lean on those before them."""


class Watched:
    """A file that libsndfile reads through callbacks, in which an exception of Python would be lost: it is kept."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.error: Exception | None = None

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer and return how many bytes; 0 after an error."""
        try:
            data = b"" if self.error else self.file.read(len(buffer))
        except Exception as error:
            self.error, data = error, b""
        buffer[: len(data)] = data
        return len(data)

    def read(self, size: int) -> bytes:
        """Read bytes: soundfile wants to see this beside `readinto`."""
        return self.file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a place."""
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        """Return the place."""
        return self.file.tell()


class Sound:
    """A sound file as libsndfile reads it: `rate`, `channels`, and `length` in frames, None if that is not known."""

    def __init__(self, file: IO[bytes], name: str, size: int, end: Ending) -> None:
        self.name, self.size, self.end = name, size, end
        self.source: int | Watched
        try:
            # By its number libsndfile reads a file without callbacks, which hold the GIL.
            self.source = file.fileno()
            os.lseek(self.source, 0, os.SEEK_SET)
        except (AttributeError, OSError):
            file.seek(0)
            self.source = Watched(file)
        try:
            self.sound: Any = soundfile.SoundFile(self.source, closefd=False)
        except soundfile.LibsndfileError as error:
            self.check_source()
            raise Refused("not_audio", f"{name}: {error.error_string.strip()}") from None
        # soundfile seeks to where it is after every read of what can seek. That costs time, and MP3 frames that lean
        # on those before them come out wrong behind it.
        self.sound._info.seekable = 0
        self.rate, self.channels = int(self.sound.samplerate), int(self.sound.channels)
        self.length = None if self.sound.frames == UNKNOWN else int(self.sound.frames)
        try:
            # The length of an MP3 that does not count its frames is a guess.
            hold(name, self.rate, self.channels, None if end.guessed else self.length)
            log = self.sound.extra_info
            for short in filter(None, (pattern.search(log) for pattern in SHORT)):
                if int(short["here"]) < int(short["told"]) < STREAMED:
                    raise Refused("truncated", f"{name}: {short['here']} of {short['told']} bytes or frames")
        except Refused:
            self.close()
            raise

    def close(self) -> None:
        """Close the decoder; the file stays open."""
        self.sound.close()

    def check_source(self) -> None:
        """Raise what went wrong while the bytes were read: that is no fault of theirs."""
        if isinstance(self.source, Watched) and self.source.error:
            raise self.source.error

    def read(self, frames: int, dtype: str) -> NDArray[Any]:
        """Return the next frames as [frames, channels], fewer at the end."""
        try:
            block: NDArray[Any] = self.sound.read(frames, dtype=dtype, always_2d=True)
        except soundfile.LibsndfileError as error:
            self.check_source()
            place = self.source.tell() if isinstance(self.source, Watched) else os.lseek(self.source, 0, os.SEEK_CUR)
            # libsndfile reports a FLAC that ends early as lost synchronization, like any damage; only that it has
            # used up the bytes tells them apart.
            reason = "truncated" if place >= self.size else "corrupt"
            raise Refused(reason, f"{self.name}: {error.error_string.strip()}") from None
        self.check_source()
        return block

    def seek(self, frame: int) -> None:
        """Go to a frame."""
        try:
            reached = self.sound.seek(frame)
        except soundfile.LibsndfileError as error:
            self.check_source()
            raise Refused("corrupt", f"{self.name}: {error.error_string.strip()}") from None
        if reached != frame:
            raise Refused("corrupt", f"{self.name}: no way to frame {frame}")

    def blocks(self, first: int, frames: int | None) -> Iterator[NDArray[Any]]:
        """Yield arrays [frames, channels] from frame `first` on, `frames` in all, or to the end; once.

        They are int16 if that is what the file holds, else float32. A file that ends before its header says is refused;
        one that ends before the span does is not.
        """
        dtype = "int16" if self.sound.subtype == "PCM_16" else "float32"
        skip = 0
        if first:
            skip = min(first, PREROLL) if self.end.container == "mp3" else 0 if self.length is not None else first
            if skip < first:
                self.seek(first - skip)
        ends = None if self.length is None else self.length - first
        wanted = ends if frames is None else frames if ends is None else min(frames, ends)
        left = UNKNOWN if wanted is None else wanted + skip
        while left > 0:
            block = self.read(min(BLOCK, left), dtype)
            if not len(block):
                break
            left -= len(block)
            yield block[skip:]
            skip = max(0, skip - len(block))
        # Some encoders of MP3 count the frame that holds the count.
        slack = MPEG_FRAME if self.end.container == "mp3" else 0
        if ends is not None and left > slack and not self.end.guessed:
            raise Refused("truncated", f"{self.name}: {left} of {wanted} frames are missing")
