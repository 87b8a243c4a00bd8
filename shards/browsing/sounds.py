"""The sound of a sample, out of its shard: ranges of its bytes as RFC 9110 has them, its samples, and its peaks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np

from manifests import Failed, files
from shards.audio import PCM, Refused, read_flac

RANGE = re.compile(r"bytes=[ \t,]*(?:(\d+)-(\d*)|-(\d+))[ \t,]*", re.ASCII | re.IGNORECASE)
"""One range; of several none is heeded, which section 14.2 leaves to the server."""
LONGEST = 18
"""Digits of a number that are looked at: it is beyond any file."""
BLOCK = 2**20
"""Bytes that are read at a time."""
PEAKS = 480
"""Strokes of a waveform."""


class Span(msgspec.Struct, frozen=True):
    """Bytes of a sound, from the first to before the last."""

    start: int
    end: int


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """Where the FLAC of a sample lies, and what tells it from any other."""

    url: str
    """Of the shard."""
    offset: int
    length: int
    tag: str
    """Entity tag: changes with the samples and with the bytes that hold them."""
    where: str
    """Shard and key, for a person."""


class Unsatisfiable(ValueError):
    """A range that begins behind the end of a sound."""


def stored(url: str, row: dict[str, Any]) -> Stored:
    """Return where the sound of a row of the index lies in the dataset at `url`."""
    return Stored(
        url=files.join(url, row["shard"]),
        offset=row["flac_offset"],
        length=row["flac_bytes"],
        tag=f'"{row["pcm_md5"]}-{row["flac_crc32"]:08x}"',
        where=f"{row['shard']}: sample {row['key']!r}",
    )


def ranged(header: str | None, condition: str | None, tag: str, length: int) -> Span | None:
    """Return which bytes of `length` a request asks for by Range and If-Range; None if it asks for all.

    Unsatisfiable if there are none. What is not one well-formed range of bytes is not heeded (RFC 9110, 14.2), nor is
    a range whose condition is not this very tag (13.1.5: a weak one or a date never is).
    """
    if header is None or (condition is not None and condition.strip() != tag):
        return None
    found = RANGE.fullmatch(header.strip())
    if found is None:
        return None
    first, last, suffix = (None if part in (None, "") else whole(part) for part in found.groups())
    if first is None:
        assert suffix is not None
        if suffix == 0 or length == 0:
            raise Unsatisfiable
        return Span(max(0, length - suffix), length)
    if last is not None and last < first:
        return None
    if first >= length:
        raise Unsatisfiable
    return Span(first, length if last is None else min(last + 1, length))


def whole(digits: str) -> int:
    """Return a whole number; one beyond any file where there are too many digits."""
    return int(digits.lstrip("0")[: LONGEST + 1] or "0")


def matches(header: str | None, tag: str) -> bool:
    """Whether If-None-Match names this tag, by the weak comparison it asks for (13.1.2)."""
    if header is None:
        return False
    return header.strip() == "*" or tag in {one.strip().removeprefix("W/") for one in header.split(",")}


def blocks(sound: Stored, span: Span) -> Iterator[bytes]:
    """Yield the bytes of a span; Failed if the shard does not hold them."""
    at = span.start
    while at < span.end:
        want = min(BLOCK, span.end - at)
        try:
            content = files.read_range(sound.url, sound.offset + at, want)
        except OSError as error:
            raise Failed(f"{sound.where} cannot be read: {error.strerror or type(error).__name__}") from None
        if len(content) < want:
            raise Failed(f"{sound.where} is cut off")
        yield content
        at += want


def flac_of(sound: Stored) -> bytes:
    """Return the FLAC of a sample; Failed if the shard does not hold it."""
    return b"".join(blocks(sound, Span(0, sound.length)))


def pcm_of(url: str, row: dict[str, Any]) -> PCM:
    """Return the samples of a row of the index; Failed if they are not those that were packed."""
    sound = stored(url, row)
    try:
        return read_flac(flac_of(sound), sound.where, crc32=row["flac_crc32"], frames=row["samples"])
    except Refused as refusal:
        raise Failed(f"{refusal}; salmonn verify --data finds all that are damaged") from None


def peaks(pcm: PCM, count: int = PEAKS) -> list[tuple[int, int]]:
    """Return the lowest and the highest sample of each of `count` stretches of a sound, in thousandths of the scale."""
    if not len(pcm):
        return []
    starts = np.unique(np.linspace(0, len(pcm), count, endpoint=False, dtype=np.int64))
    low, high = np.minimum.reduceat(pcm, starts), np.maximum.reduceat(pcm, starts)
    scaled = (np.rint(side.astype(np.float64) * 1000 / 32768).astype(int).tolist() for side in (low, high))
    return list(zip(*scaled, strict=True))
