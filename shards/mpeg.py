"""MPEG: the frames of an MP3, and of AAC in ADTS, as their heads tell them: where they are, how long, how many."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import IO

import msgspec

SEARCH = 1 << 16
"""Bytes behind the tags of an MP3 in which its first frame is looked for."""
KILOBITS = {
    (1, 1): range(32, 449, 32),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""Bit rates of MPEG 1, and of 2 and 2.5, by layer; the first of each has index 1."""


def behind_tags(file: IO[bytes]) -> int:
    """Return where the ID3v2 tags at the start of a file end."""
    place = 0
    while True:
        file.seek(place)
        head = file.read(10)
        if len(head) < 10 or head[:3] != b"ID3":
            return place
        length = functools.reduce(lambda total, byte: total << 7 | byte & 0x7F, head[6:], 0)
        place += 10 + length + (10 if head[5] & 0x10 else 0)


def chain(file: IO[bytes], place: int, length: Callable[[bytes], int]) -> tuple[int, int]:
    """Follow frames from `place` on, whose `length` their heads tell; return how many there are and where they end."""
    frames = 0
    file.seek(place)
    while step := length(head := file.read(7)):
        place += step
        frames += 1
        file.seek(step - len(head), 1)
    return frames, place


def begun(file: IO[bytes], place: int) -> str:
    """Return what is missing of a frame of which the file has no more than a part of the head."""
    file.seek(place)
    head = file.read(7)
    return "its last frame" if 0 < len(head) < 7 and head[0] == 0xFF else ""


def adts_bytes(head: bytes) -> int:
    """Return the length of the ADTS frame that begins with the 7 bytes `head`, 0 if none does."""
    if len(head) < 7 or head[0] != 0xFF or head[1] & 0xF6 != 0xF0:
        return 0
    length = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    return length if length > 7 else 0


class Layout(msgspec.Struct, frozen=True):
    """What all frames of an MPEG audio stream share, and their lengths."""

    mark: int
    """The second byte, without the bit that tells of a checksum."""
    samples: int
    """In a frame."""
    lengths: tuple[int, ...]
    """Bytes of a frame by its third byte; 0 where that does not fit the stream."""

    def bytes(self, head: bytes) -> int:
        """Return the length of the frame that begins with `head`, 0 if none of this stream does."""
        if len(head) < 4 or head[0] != 0xFF or head[1] | 1 != self.mark:
            return 0
        return self.lengths[head[2]]


@functools.cache
def layout(mark: int, rate_index: int) -> Layout | None:
    """Return what a header with that second byte and index of a rate says (ISO 11172-3, 13818-3), None if nothing."""
    version, layer = (2.5, 0, 2, 1)[mark >> 3 & 3], 4 - (mark >> 1 & 3)
    if mark & 0xE0 != 0xE0 or version == 0 or layer == 4 or rate_index == 3:
        return None
    rate = (44100, 48000, 32000)[rate_index] // {1: 1, 2: 2, 2.5: 4}[version]
    samples = 384 if layer == 1 else 576 if layer == 3 and version != 1 else 1152
    slot = 4 if layer == 1 else 1
    lengths = [0] * 256
    for index, kilobits in enumerate(KILOBITS[min(int(version), 2), layer], 1):
        for padding in (0, 1):
            third = index << 4 | rate_index << 2 | padding << 1
            lengths[third] = lengths[third | 1] = (samples // 8 // slot * kilobits * 1000 // rate + padding) * slot
    return Layout(mark, samples, tuple(lengths))


def layout_of(head: bytes) -> Layout | None:
    """Return the stream that a frame beginning with `head` belongs to, None if it is no frame."""
    if len(head) < 4 or head[0] != 0xFF:
        return None
    stream = layout(head[1] | 1, head[2] >> 2 & 3)
    return stream if stream and stream.lengths[head[2]] else None


def first_frame(file: IO[bytes], start: int) -> tuple[int, Layout] | None:
    """Return where the first frame of an MP3 is, and its layout, None if there is none. Another must follow it."""
    file.seek(start)
    # Decoders look for frames behind tags alone.
    data = file.read(SEARCH if start else 4096)
    place = data.find(b"\xff", 0, None if start else 1)
    while place >= 0:
        stream = layout_of(data[place : place + 4])
        if stream is not None:
            after = place + stream.bytes(data[place : place + 4])
            if after >= len(data) - 4 or stream.bytes(data[after : after + 4]):
                return start + place, stream
        place = data.find(b"\xff", place + 1) if start else -1
    return None


def counts(frame: bytes) -> tuple[int, int]:
    """Return the frames and the bytes that the first frame of an MP3 counts, 0 where it does not."""
    frame = frame.ljust(64, b"\0")
    for place in (13, 15, 21, 23, 36, 38):
        if frame[place : place + 4] in (b"Xing", b"Info"):
            flags = frame[place + 7]
            first, second = frame[place + 8 : place + 12], frame[place + 12 : place + 16]
            return (
                int.from_bytes(first, "big") if flags & 1 else 0,
                int.from_bytes(second if flags & 1 else first, "big") if flags & 2 else 0,
            )
    if frame[36:40] == b"VBRI":
        return int.from_bytes(frame[50:54], "big"), int.from_bytes(frame[46:50], "big")
    return 0, 0
