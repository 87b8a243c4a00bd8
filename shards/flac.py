"""The header of a FLAC file: what it says of itself, and whether it can be stored as it is."""

from __future__ import annotations

import os
import stat

import msgspec

RATE = 16_000
"""Hz, of all stored audio: what Whisper and BEATs were trained on."""

HEAD = 42
"""Bytes at the start of a file that hold all of it: the mark, a block header and STREAMINFO."""


class StreamInfo(msgspec.Struct, frozen=True):
    """What the header of a FLAC file says (RFC 9639, section 8.2)."""

    rate: int
    channels: int
    bits: int
    samples: int
    md5: str


def flac_length(data: bytes) -> tuple[int, int] | None:
    """Return the rate and the samples that `data` claims if it is the beginning of a FLAC file, else None."""
    if len(data) < HEAD or data[:4] != b"fLaC" or data[4] & 0x7F != 0:
        return None
    packed = int.from_bytes(data[18:26], "big")
    return packed >> 44, packed & (1 << 36) - 1


def flac_info(data: bytes) -> StreamInfo | None:
    """Return the header of `data` if it is a FLAC file, else None."""
    if (length := flac_length(data)) is None:
        return None
    packed = int.from_bytes(data[18:26], "big")
    return StreamInfo(
        rate=length[0],
        channels=(packed >> 41 & 7) + 1,
        bits=(packed >> 36 & 31) + 1,
        samples=length[1],
        md5=data[26:42].hex(),
    )


def conforms(info: StreamInfo | None) -> bool:
    """Whether a FLAC file can be stored as it is: our format, with a length and a signature."""
    if info is None or info.samples == 0 or set(info.md5) == {"0"}:
        return False
    return (info.rate, info.channels, info.bits) == (RATE, 1, 16)


def read_conforming(path: str) -> tuple[bytes, StreamInfo] | None:
    """Return the bytes and the header of a local file that conforms, None of any other, or if it is not there.

    One open and two reads: of a small file, a buffer and what is around it is half the work of a copy.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        about = os.fstat(handle)
        info = flac_info(os.pread(handle, HEAD, 0)) if stat.S_ISREG(about.st_mode) else None
        if info is None or not conforms(info):
            return None
        data = os.pread(handle, about.st_size, 0)
        return (data, info) if len(data) == about.st_size else None
    finally:
        os.close(handle)
