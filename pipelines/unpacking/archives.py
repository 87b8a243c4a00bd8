"""What an archive may hold: its members, the law of their names, and the caps that stop a bomb.

The same law holds for every format. Refused, and with it the whole archive: absolute paths, drive letters, backslashes,
``..``, NUL and other control characters, names that are not Unicode, that are too long or too deep; links, devices and
whatever else is neither a plain file nor a folder; encrypted and sparse members; a name that comes twice, or again in
other case or Unicode normalisation, so that on some disk one would overwrite the other. Passed over, and counted: what
macOS adds (``__MACOSX/``, ``._name``, ``.DS_Store``), and a path that begins with ``-`` and would be an option wherever
it is given to a command.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Callable, Generator
from typing import Any, Protocol

import msgspec

from manifests import files
from manifests.errors import UserError

CHUNK = 1 << 20
"""Bytes read or unpacked at a time."""
SLACK = 64 << 20
"""Bytes that any archive may hold, whatever its ratio: a table of zeros is no bomb yet."""
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
DRIVE = re.compile(r"[A-Za-z]:")
EMPTY = memoryview(b"")


class Caps(msgspec.Struct, frozen=True, kw_only=True):
    """What an archive may come to; beyond it, it is refused."""

    bytes: int = 1 << 41
    """Of all that is in it, unpacked: the largest corpus of ours, WavCaps' FreeSound, has a third of it."""
    ratio: float = 200.0
    """Unpacked bytes for one of the archive. Audio has 1 to 4, text 5 to 20; bombs have 1,000 and more."""
    members: int = 2_000_000
    """Files, folders and headers."""
    depth: int = 32
    """Names in a path."""
    name: int = 255
    """Bytes of one name: what file systems take."""
    path: int = 1024
    """Bytes of a path."""


CAPS = Caps()


class Member:
    """One file or folder of an archive; its content can be read until the next one is asked for."""

    __slots__ = ("crc32", "folder", "left", "mtime", "name", "pull", "size")

    def __init__(
        self,
        name: str,
        size: int,
        pull: Callable[[int], memoryview],
        mtime: int = 0,
        crc32: int | None = None,
        folder: bool = False,
    ) -> None:
        """`pull` returns the next bytes of the content, at least one and at most as many as asked for, or raises."""
        self.name = name
        """Its path, checked: plain names with ``/`` between them. Empty for the top folder."""
        self.size = size
        """Bytes of its content."""
        self.mtime = min(max(mtime, 0), 1 << 33)
        """Seconds since 1970, by the archive, within what disks can keep; 0 if it tells none."""
        self.crc32 = crc32
        """Of its content, by the archive, where that tells it and leaves it to us to compare."""
        self.folder = folder
        self.left, self.pull = size, pull

    def take(self, most: int = CHUNK) -> memoryview:
        """Return the next bytes, at most `most`; empty at the end. UserError if the archive is cut off or damaged."""
        if not self.left:
            return EMPTY
        piece = self.pull(min(most, self.left))
        self.left -= len(piece)
        return piece

    def read(self, size: int = -1) -> bytes:
        """Return the next `size` bytes, fewer at the end, all that is left if negative."""
        wanted = self.left if size < 0 else min(size, self.left)
        pieces = []
        while wanted:
            pieces.append(self.take(wanted))
            wanted -= len(pieces[-1])
        return b"".join(pieces)


class Gate:
    """What one archive has brought so far, held against the law and the caps; every refusal is a UserError."""

    def __init__(self, archive: str, caps: Caps) -> None:
        """`archive` is what errors call it."""
        self.archive, self.caps = files.redact(archive), caps
        self.members = self.bytes = 0
        self.skipped: Counter[str] = Counter()
        """Members passed over, by reason: ``macos`` and ``option``, and ``no_audio`` and ``no_name`` of a table."""
        self.seen: set[str] = set()

    def refuse(self, name: str, why: str) -> UserError:
        """Return the error for a member that must not be unpacked; nothing of its archive is."""
        shown = name if len(name) <= 80 else f"{name[:80]}..."
        return UserError(f"{self.archive}: member {shown!r} {why}; nothing of it is unpacked")

    def broken(self, why: str, name: str = "") -> UserError:
        """Return the error for an archive that is not whole."""
        place = f", at member {name[:80]!r}" if name else ""
        return UserError(f"{self.archive} is not whole: {why}{place}; fetch it anew")

    def count(self) -> None:
        """Count a header of any kind."""
        self.members += 1
        if self.members > self.caps.members:
            raise UserError(
                f"{self.archive} has more than {self.caps.members:,} members, the most allowed; it is not unpacked"
            )

    def weigh(self, size: int, packed: int | None = None) -> None:
        """Hold the bytes unpacked so far, or declared, against the cap, and against the bytes they were packed in."""
        if size > self.caps.bytes:
            raise UserError(
                f"{self.archive} unpacks to more than {self.caps.bytes:,} bytes, the most allowed; it is not unpacked"
            )
        if packed is not None and size > SLACK + self.caps.ratio * packed:
            raise UserError(
                f"{self.archive} unpacks to more than {self.caps.ratio:g} times its size, the most allowed; "
                "such archives are made to fill disks, and it is not unpacked"
            )

    def admit(self, name: str, size: int, folder: bool) -> str | None:
        """Return the path of a member as it may be written, None if it is passed over, "" for the top folder itself."""
        parts = self.check(name)
        if not parts:
            if folder:
                return ""
            raise self.refuse(name, "has no name")
        if "__MACOSX" in parts or parts[-1].startswith("._") or parts[-1] == ".DS_Store":
            self.skipped["macos"] += 1
            return None
        if parts[0].startswith("-"):
            self.skipped["option"] += 1
            return None
        path = "/".join(parts)
        if not folder:
            self.bytes += size
            self.weigh(self.bytes)
            self.once(path)
        return path

    def check(self, name: str) -> list[str]:
        """Return the names that a path is made of, without empty ones and dots."""
        if CONTROL.search(name):
            raise self.refuse(name, "has a control character in its name")
        if "\\" in name:
            raise self.refuse(name, "has a backslash in its name, which is a path on some systems")
        if name.startswith("/") or DRIVE.match(name):
            raise self.refuse(name, "is an absolute path")
        try:
            path = name.encode()
        except UnicodeEncodeError:
            raise self.refuse(name, "has a name that is not Unicode") from None
        if len(path) > self.caps.path:
            raise self.refuse(name, f"has a path of {len(path):,} bytes; {self.caps.path:,} are allowed")
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise self.refuse(name, "leads out of the folder")
        if parts and parts[0] == ".archives":
            raise self.refuse(name, "would lie among the archives themselves")
        if len(parts) > self.caps.depth:
            raise self.refuse(name, f"is {len(parts)} folders deep; {self.caps.depth} are allowed")
        if any(len(part.encode()) > self.caps.name for part in parts):
            raise self.refuse(name, f"has a name of more than {self.caps.name} bytes")
        return parts

    def once(self, path: str) -> None:
        """Remember a file; refuse it if it was there before, or would be on a disk that folds names."""
        twin = path.lower() if path.isascii() else unicodedata.normalize("NFC", path).casefold()
        twin = twin if twin.isascii() else unicodedata.normalize("NFC", twin)
        if twin in self.seen:
            raise self.refuse(path, "comes twice, or differs from another only in case or Unicode normalisation")
        self.seen.add(twin)


class Decompressor(Protocol):
    """What bz2, lzma and Inflate have in common."""

    @property
    def eof(self) -> bool:
        """Whether the stream has ended."""

    @property
    def unused_data(self) -> bytes:
        """What stood behind its end."""

    @property
    def needs_input(self) -> bool:
        """Whether more must be read."""

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        """Return up to `max_length` unpacked bytes."""


class Inflate:
    """Zlib's decoder, in the manner of bz2 and lzma."""

    def __init__(self, wbits: int) -> None:
        """Begin a stream of gzip (31; its CRC is checked) or bare deflate (-15)."""
        self.stream: Any = zlib.decompressobj(wbits=wbits)
        self.tail = b""

    @property
    def eof(self) -> bool:
        """Whether the stream has ended."""
        return bool(self.stream.eof)

    @property
    def unused_data(self) -> bytes:
        """What stood behind its end."""
        return bytes(self.stream.unused_data)

    @property
    def needs_input(self) -> bool:
        """Whether more must be read."""
        return not self.tail

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        """Return up to `max_length` unpacked bytes."""
        content = self.stream.decompress(self.tail + data if self.tail else data, max_length)
        self.tail = self.stream.unconsumed_tail
        return bytes(content)


Reader = Callable[[str, Gate], Generator[Member, None, None]]
"""Reads an archive of one format, given its path, member by member."""
