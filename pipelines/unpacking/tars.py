"""Tar archives, plain or packed by gzip, bzip2 or xz, read front to back, once, by a parser that trusts no header.

Python's tarfile would read them too; but it takes an archive that is cut off between two members, or damaged after the
first, for a whole one, reads headers of any size into memory, keeps every header, and before 3.11.14 can be led out of
its folder and into an endless loop (CVE-2025-4517, CVE-2025-8194). Here a header is right or the archive is refused.
"""

from __future__ import annotations

import bz2
import lzma
import re
import zlib
from collections.abc import Generator
from typing import IO

from manifests import files
from pipelines.unpacking.archives import CHUNK, EMPTY, Decompressor, Gate, Inflate, Member

BLOCK = 512
ZEROS = bytes(BLOCK)
FEED = 1 << 17
"""Packed bytes given to a decompressor at a time."""
META = 1 << 20
"""Bytes of the longest header that describes another."""
XZ_MEMORY = 512 << 20
"""Bytes that xz may take; its highest preset needs 65 MiB."""
PACKERS = {b"\x1f\x8b\x08": "gz", b"BZh": "bz2", b"\xfd7zXZ\x00": "xz"}
"""The magic of what a tar may be packed with."""
FILES, FOLDER = (b"0", b"\0", b"7"), b"5"
REFUSED = {
    **{b"1": "is a hard link", b"2": "is a symbolic link", b"3": "is a device", b"4": "is a device", b"6": "is a pipe"},
    **{b"S": "is a sparse file", b"M": "goes on from another volume", b"D": "is an incremental backup"},
}
RECORD = re.compile(rb"([1-9][0-9]{0,6}) ([^=]+)=")


class Flow:
    """The bytes of a file, unpacked as they are taken."""

    def __init__(self, file: IO[bytes], gate: Gate) -> None:
        """Find out from the first bytes of `file` how it is packed."""
        self.file, self.gate = file, gate
        self.head = file.read(FEED)
        self.packer = next((name for magic, name in PACKERS.items() if self.head.startswith(magic)), "")
        self.unpacked: Decompressor | None = self.begin() if self.packer else None
        self.packed_bytes, self.bytes = len(self.head), 0
        self.hand = EMPTY
        self.member = ""
        """The member being read, for errors."""

    def begin(self) -> Decompressor:
        """Begin a packed stream."""
        if self.packer == "gz":
            return Inflate(wbits=31)
        return bz2.BZ2Decompressor() if self.packer == "bz2" else lzma.LZMADecompressor(memlimit=XZ_MEMORY)

    def feed(self) -> bytes:
        """Return the next bytes of the file."""
        head, self.head = self.head, b""
        if head:
            return head
        data = self.file.read(FEED)
        self.packed_bytes += len(data)
        return data

    def more(self) -> memoryview:
        """Unpack the next bytes; empty at the end."""
        if self.unpacked is None:
            content = self.feed()
        else:
            content = b""
            while not content and not (self.unpacked.eof and not self.follow()):
                hungry = self.unpacked.needs_input
                data = self.feed() if hungry else b""
                try:
                    content = self.unpacked.decompress(data, CHUNK)
                except (zlib.error, lzma.LZMAError, OSError, EOFError) as error:
                    raise self.gate.broken(f"its {self.packer} stream is damaged ({error})", self.member) from None
                if hungry and not data and not content and not self.unpacked.eof:
                    raise self.gate.broken(f"its {self.packer} stream is cut off", self.member)
        self.bytes += len(content)
        self.gate.weigh(self.bytes, self.packed_bytes)
        return memoryview(content)

    def follow(self) -> bool:
        """Begin the stream behind the one that has ended, if there is one; padding of zeros is none."""
        assert self.unpacked
        rest = self.unpacked.unused_data
        while not (rest := rest.lstrip(b"\0")):
            rest = self.feed()
            if not rest:
                return False
        rest += self.feed() if len(rest) < 8 else b""
        if not any(rest.startswith(magic) for magic, name in PACKERS.items() if name == self.packer):
            raise self.gate.broken(f"something else stands behind its {self.packer} stream", self.member)
        self.head, self.unpacked = rest + self.head, self.begin()
        return True

    def take(self, most: int) -> memoryview:
        """Return the next bytes, at most `most`; UserError at the end of the file."""
        if not self.hand:
            self.hand = self.more()
            if not self.hand:
                raise self.gate.broken("it is cut off", self.member)
        piece, self.hand = self.hand[:most], self.hand[most:]
        return piece

    def exactly(self, length: int) -> bytes:
        """Return the next `length` bytes."""
        piece = self.take(length)
        if len(piece) == length:
            return bytes(piece)
        pieces = [piece]
        while (length := length - len(pieces[-1])) > 0:
            pieces.append(self.take(length))
        return b"".join(pieces)

    def skip(self, length: int) -> None:
        """Pass over the next `length` bytes."""
        while length:
            length -= len(self.take(length))

    def finish(self) -> None:
        """Read to the end of the file, where there may be only zeros, so that its checksum is checked."""
        rest = self.hand
        while rest or (rest := self.more()):
            if bytes(rest).strip(b"\0"):
                raise self.gate.broken("there is more behind its end mark", self.member)
            rest = EMPTY


class Header:
    """What headers before a member's own say of it."""

    def __init__(self) -> None:
        """Say nothing."""
        self.name: str | None = None
        self.size: int | None = None
        self.mtime: int | None = None


def read_tar(archive: str, gate: Gate) -> Generator[Member, None, None]:
    """Yield the members of a tar archive, packed or not."""
    with files.open_read(archive) as file:
        yield from members(Flow(file, gate), gate)


def members(flow: Flow, gate: Gate) -> Generator[Member, None, None]:
    """Yield the members of the tar that flows by."""
    more = Header()
    while (block := flow.exactly(BLOCK)) != ZEROS:
        gate.count()
        if not is_header(block):
            raise gate.broken("a header is damaged" if gate.members > 1 else "there is no tar in it", flow.member)
        kind, told = block[156:157], own_name(block, gate)
        flow.member = told
        size = number(block[124:136], "size", told, gate)
        if kind in (b"x", b"g", b"X", b"L", b"K"):
            if size > META:
                raise gate.refuse(told, f"is a header of {size:,} bytes")
            describe(more if kind != b"g" else Header(), kind, flow.exactly(size), told, gate)
            flow.skip(-size % BLOCK)
            continue
        name = more.name if more.name is not None else told
        size = more.size if more.size is not None else size
        mtime = more.mtime if more.mtime is not None else number(block[136:148], "time", told, gate, negative=True)
        more, flow.member = Header(), name
        if kind in REFUSED:
            raise gate.refuse(name, f"{REFUSED[kind]}; only files and folders are unpacked")
        if kind == b"V" and not size:
            continue
        if kind not in FILES and kind != FOLDER:
            raise gate.refuse(name, f"is of the unknown kind {kind!r}")
        folder = kind == FOLDER or (kind == b"\0" and name.endswith("/"))
        if folder and size:
            raise gate.refuse(name, f"is a folder of {size:,} bytes")
        path = gate.admit(name, size, folder)
        left = size
        if path is not None:
            yield (member := Member(path, size, flow.take, mtime, folder=folder))
            left = member.left
        flow.skip(left + -size % BLOCK)
    if more.name is not None or more.size is not None:
        raise gate.broken("it ends behind a header that describes another")
    flow.member = ""
    flow.finish()


def is_header(block: bytes) -> bool:
    """Whether a block is a header of a tar: its checksum is right."""
    told = block[148:156].strip(b" \0")
    if not re.fullmatch(rb"[0-7]+", told):
        return False
    signs = sum(block) - sum(block[148:156]) + 8 * ord(" ") - int(told, 8)
    # Old archives sum signed characters.
    return not signs or signs == 256 * sum(byte > 127 for byte in block[:148] + block[156:])


def own_name(block: bytes, gate: Gate) -> str:
    """Return the name in a header."""
    name = block[:100].split(b"\0", 1)[0]
    prefix = block[345:500].split(b"\0", 1)[0] if block[257:263] == b"ustar\0" else b""
    return text(prefix + b"/" + name if prefix else name, gate)


def text(name: bytes, gate: Gate) -> str:
    """Return a name as text."""
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise gate.refuse(name.decode("ascii", "backslashreplace"), "has a name that is not UTF-8") from None


def number(field: bytes, what: str, name: str, gate: Gate, negative: bool = False) -> int:
    """Return the number in a field of a header: octal digits, or binary where the first bit is set."""
    if field[0] in (0x80, 0xFF):
        value = int.from_bytes(field[1:], "big") - (1 << 8 * (len(field) - 1) if field[0] == 0xFF else 0)
    else:
        digits = field.split(b"\0", 1)[0].strip(b" ")
        if digits and not re.fullmatch(rb"[0-7]+", digits):
            raise gate.refuse(name, f"has no {what}, but {field!r}")
        value = int(digits or b"0", 8)
    if value < 0 and not negative:
        raise gate.refuse(name, f"has the {what} {value}")
    return value


def describe(more: Header, kind: bytes, content: bytes, name: str, gate: Gate) -> None:
    """Note what a header says of the member behind it: GNU's long name, or the records of pax."""
    if kind == b"L":
        more.name = text(content.rstrip(b"\0"), gate)
    if kind in (b"L", b"K"):
        return
    at = 0
    while at < len(content) and content[at]:
        match = RECORD.match(content, at)
        end = at + int(match[1]) if match else 0
        if not match or not match.end() < end <= len(content) or content[end - 1] != ord("\n"):
            raise gate.refuse(name, "is a pax header that is not made of records")
        key, value = match[2], content[match.end() : end - 1]
        at = end
        if key.startswith(b"GNU.sparse."):
            raise gate.refuse(name, f"{REFUSED[b'S']}; only files and folders are unpacked")
        if key in (b"path", b"size") and kind == b"g":
            raise gate.refuse(name, f"gives one {key.decode()} to all members")
        if key == b"path":
            more.name = text(value, gate)
        elif key == b"size":
            if not re.fullmatch(rb"[0-9]{1,20}", value):
                raise gate.refuse(name, f"has the size {value[:30]!r}")
            more.size = int(value)
        elif key == b"mtime" and (seconds := re.match(rb"-?[0-9]{1,20}", value)):
            more.mtime = int(seconds[0])
