"""Endings: whether the bytes of a lossy file reach as far as its container says. Decoders read what is there.

Ogg marks its last page, MP3 may count frames and bytes in its first frame, MP4 and Matroska give the size of each part,
ADTS and MP3 of each frame. A file that counts nothing and was cut where two frames meet looks whole.
"""

from __future__ import annotations

import math
import re
import zlib
from typing import IO

import msgspec

from shards.mpeg import adts_bytes, begun, behind_tags, chain, counts, first_frame

OGG_PAGE = 27 + 255 + 255 * 255
"""Bytes of the longest page of an Ogg file."""
BOXES = 1 << 20
"""More boxes than any MP4 file has."""
TAGS = (b"TAG", b"APE", b"LYR", b"ID3", bytes(3))
"""What may follow the last frame of an MP3."""


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """What the container of a file says of its end."""

    container: str = ""
    """``ogg``, ``mp3``, ``mp4``, ``matroska`` or ``aac``, as ffmpeg names them; empty for all others."""
    missing: str = ""
    """What is missing at the end; empty if nothing is, or if that cannot be told."""
    guessed: bool = False
    """An MP3 that does not count its frames, so that decoders guess its length."""
    frames: int | None = None
    """Of such a one: the samples of its frames, counted one by one; None if they do not follow each other."""


def ending(file: IO[bytes], size: int) -> Ending:
    """Look at a file of `size` bytes. It is left standing anywhere."""
    file.seek(0)
    head = file.read(12)
    if head[:4] == b"OggS":
        return Ending(container="ogg", missing=ogg(file, size))
    if head[4:8] in (b"ftyp", b"styp", b"moov"):
        return Ending(container="mp4", missing=mp4(file, size))
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return Ending(container="matroska", missing=matroska(file, size))
    if head[:8] == b"NIST_1A\n":
        return Ending(missing=nist(file, size))
    start = behind_tags(file)
    file.seek(start)
    if adts_bytes(file.read(7)):
        _, end = chain(file, start, adts_bytes)
        return Ending(container="aac", missing=beyond(end, size) or begun(file, end))
    return mp3(file, start, size)


def beyond(end: int, size: int) -> str:
    """Say how many bytes are missing of a file that should have had `end`."""
    return f"{end - size} bytes" if end > size else ""


def ogg(file: IO[bytes], size: int) -> str:
    """Return what an Ogg file lacks: its last page must be whole and be marked as the last."""
    file.seek(max(0, size - OGG_PAGE))
    tail = file.read()
    place = tail.rfind(b"OggS")
    page = tail[place:] if place >= 0 else b""
    laces = page[27 : 27 + page[26]] if len(page) >= 27 else b""
    if len(page) < 27 or len(laces) < page[26] or len(page) < 27 + len(laces) + sum(laces):
        return "its last page is not whole"
    return "" if page[5] & 4 else "its last page is not marked as the last"


REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def ogg_checksum(page: bytes) -> int:
    """Return the checksum of a page (RFC 3533): zlib's, but of the bits the other way round."""
    blank = page[:22] + bytes(4) + page[26:]
    turned = zlib.crc32(blank.translate(REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{turned:032b}"[::-1], 2)


def ogg_damage(file: IO[bytes]) -> str:
    """Return what is wrong with the pages of an Ogg file: decoders pass over damaged ones without a word."""
    file.seek(0)
    place, last = 0, False
    while head := file.read(27):
        if len(head) < 27 or head[:4] != b"OggS":
            return "" if last else f"no page at byte {place}"
        laces = file.read(head[26])
        page = head + laces + file.read(sum(laces))
        if ogg_checksum(page) != int.from_bytes(head[22:26], "little"):
            return f"a damaged page at byte {place}"
        place += len(page)
        last = bool(head[5] & 4)
    return ""


def mp4(file: IO[bytes], size: int) -> str:
    """Return what an MP4 file lacks: its boxes must end within it, and one of them must be the index."""
    place, index = 0, False
    for _ in range(BOXES):
        if place + 8 > size:
            break
        file.seek(place)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        elif length == 0:
            length = size - place
        if length < 8:
            break
        index |= head[4:8] == b"moov"
        place += length
    return beyond(place, size) or ("" if index else "its index")


def matroska(file: IO[bytes], size: int) -> str:
    """Return what a Matroska file lacks: its segment must end within it, unless its size was left open."""
    file.seek(4)
    header, width = number(file.read(8))
    place = 4 + width + header
    if place > size:
        return "its segment"
    file.seek(place)
    segment = file.read(12)
    length, width = number(segment[4:])
    opened = length == (1 << 7 * width) - 1
    return "" if segment[:4] != b"\x18\x53\x80\x67" or opened else beyond(place + 4 + width + length, size)


def nist(file: IO[bytes], size: int) -> str:
    """Return what a NIST SPHERE file lacks: its text header says how many samples of how many bytes follow it."""
    file.seek(8)
    header = file.read(4096)
    told = dict(re.findall(rb"(\w+) -i (\d{1,18})\n", header))
    facts = [int(told.get(name, b"0")) for name in (b"sample_count", b"channel_count", b"sample_n_bytes")]
    length = header[:8].strip()
    return beyond(int(length) + math.prod(facts), size) if length.isdigit() else ""


def number(data: bytes) -> tuple[int, int]:
    """Return a number of Matroska, which says by its leading zeros how many bytes it takes, and those bytes."""
    width = 9 - data[0].bit_length() if data and data[0] else 8
    return int.from_bytes(data[:width], "big") & ((1 << 7 * width) - 1), width


def mp3(file: IO[bytes], start: int, size: int) -> Ending:
    """Return what an MP3 file says of its end, nothing if it is none; `start` is behind its tags."""
    found = first_frame(file, start)
    if found is None:
        return Ending()
    place, stream = found
    file.seek(place)
    frames, length = counts(file.read(64 + 120))
    if frames:
        return Ending(container="mp3", missing=beyond(place + length, size))
    number_of, end = chain(file, place, stream.bytes)
    file.seek(end)
    follows = end >= size or file.read(3) in TAGS
    return Ending(
        container="mp3",
        missing=beyond(end, size) or begun(file, end),
        guessed=True,
        frames=number_of * stream.samples if follows else None,
    )
