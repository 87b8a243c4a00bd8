"""A sample: one clip's audio with all its instructions, as two adjacent tar members, <key>.flac and <key>.json.

The layout is WebDataset's. Its own writer is not used here: importing webdataset imports torch, and a cluster builds
shards without torch; the tests hold our tars against its reader. The one room that knows the tar format.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections.abc import Iterator
from typing import IO

import msgspec

from manifests import Instruction
from manifests.errors import UserError

KEY = re.compile(r"[a-z0-9_-]{1,128}")
LONGEST = 90
"""Longest key we make: with its extension it fits the 100 bytes of a plain tar header."""
CLEAN = re.compile(r"[a-z0-9]+/[a-z0-9_-]+")
BLOCK = 512
END = bytes(2 * BLOCK)
LARGEST = 2**30
"""Bytes of the largest member that is read: three hours of FLAC are a third of it."""


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """What <key>.json holds: every field for every task, none null, since readers fix their schema on a few rows."""

    key: str
    id: str
    """The clip's id as its corpus has it."""
    corpus: str
    split: str
    samples: int
    """Length of the audio, at 16 kHz."""
    seconds: float
    language: str
    speaker: str
    gender: str
    text: str
    """The transcript as published; the answers hold it as it is trained on."""
    license: str
    provenance: str = ""
    """How made audio was made: engine, version and voice of synthesized speech, the recipe of a mixture."""
    instructions: tuple[Instruction, ...]
    """At least one."""

    def encode(self) -> bytes:
        """Return the JSON, with sorted names."""
        return msgspec.json.encode(self, order="sorted")


class Placed(msgspec.Struct, frozen=True):
    """Where the content of a tar member lies, in bytes from the start of the tar."""

    name: str
    offset: int
    length: int


def key_of(clip_id: str) -> str:
    """Return the key of a clip: its id with ``_`` for the slash, or, where that breaks the law, a slug and a digest.

    Different ids give different keys; the builder checks it all the same.
    """
    if len(clip_id) <= LONGEST and CLEAN.fullmatch(clip_id):
        return clip_id.replace("/", "_", 1)
    slug = re.sub(r"[^a-z0-9]+", "-", clip_id.lower()).strip("-")[: LONGEST - 33]
    return f"{slug}-x{hashlib.sha256(clip_id.encode('utf-8', 'surrogatepass')).hexdigest()[:31]}"


def member(name: str, content: bytes) -> bytes:
    """Return one tar member: header, content, padding."""
    return member_header(name, len(content)) + content + padding(len(content))


def plain_header() -> bytes:
    """Return the header of an empty tar member without a name; in nothing does it say when or where it was made."""
    info = tarfile.TarInfo("")
    info.size, info.mtime, info.mode = 0, 0, 0o644
    return info.tobuf(format=tarfile.USTAR_FORMAT)


PLAIN = plain_header()
NAME, SIZE, CHECKSUM = slice(0, 100), slice(124, 136), slice(148, 156)
"""Where they are in a header (POSIX.1-1988, ustar). The checksum is the sum of all bytes, itself taken for spaces."""
REST = sum(PLAIN) - sum(PLAIN[SIZE]) - sum(PLAIN[CHECKSUM]) + 8 * ord(" ")


def member_header(name: str, length: int) -> bytes:
    """Return the header of a tar member of `length` bytes, as tarfile makes it, which takes ten times as long."""
    called, size = name.encode("ascii"), b"%011o\0" % length
    assert 0 < len(called) <= NAME.stop and len(size) == SIZE.stop - SIZE.start, (name, length)
    total = b"%06o\0 " % (REST + sum(called) + sum(size))
    middle = PLAIN[NAME.stop : SIZE.start]
    return b"".join(
        (called.ljust(NAME.stop, b"\0"), middle, size, PLAIN[SIZE.stop : CHECKSUM.start], total, PLAIN[CHECKSUM.stop :])
    )


def padding(length: int) -> bytes:
    """Return what follows a member of `length` bytes, up to a whole block."""
    return bytes(-length % BLOCK)


def tar_end(length: int) -> bytes:
    """Return what ends a tar of `length` bytes: two empty blocks, and zeros up to a whole record."""
    return END + bytes(-(length + len(END)) % tarfile.RECORDSIZE)


class Tape:
    """Reads a file from its beginning to its end, digesting and counting what passes."""

    def __init__(self, file: IO[bytes]) -> None:
        """Read `file`."""
        self.file = file
        self.length = 0
        self.digest = hashlib.sha256()

    def read(self, length: int) -> bytes:
        """Return the next `length` bytes, fewer at the end."""
        content = self.file.read(length)
        self.length += len(content)
        self.digest.update(content)
        return content

    def rest(self) -> None:
        """Read to the end."""
        while self.read(4 * 2**20):
            pass


def members(tape: Tape, name: str) -> Iterator[tuple[Placed, bytes]]:
    """Yield every member of a tar and its content; UserError if something is not a plain file with a plain header."""
    while (header := tape.read(BLOCK)) not in (bytes(BLOCK), b""):
        offset = tape.length - len(header)
        try:
            info = tarfile.TarInfo.frombuf(header, "utf-8", "strict")
        except (tarfile.HeaderError, UnicodeDecodeError) as error:
            raise UserError(f"{name}: no tar header at byte {offset} ({error})") from None
        if info.type != tarfile.REGTYPE or not 0 <= info.size <= LARGEST:
            raise UserError(f"{name}: member {info.name!r} at byte {offset} is not a plain file")
        content = tape.read(info.size)
        if len(content) < info.size:
            raise UserError(f"{name}: member {info.name!r} at byte {offset} is not whole")
        yield Placed(info.name, offset + BLOCK, info.size), content
        tape.read(-info.size % BLOCK)
