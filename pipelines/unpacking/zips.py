"""Zip archives, whole or in parts (X.z01, X.z02, ..., X.zip), read by their directory in the order of their bytes.

Python's zipfile reads no parts, and takes members that lie over one another, which is how a file of 10 MB unpacks to
281 TB. Here every member has bytes of its own, and its own header must say the same as the directory.
"""

from __future__ import annotations

import bz2
import calendar
import contextlib
import stat
import struct
import zlib
from collections.abc import Generator
from typing import IO

import msgspec

from manifests import files
from pipelines.unpacking.archives import CHUNK, Decompressor, Gate, Inflate, Member

END, END64, FIND64, ENTRY, LOCAL = b"PK\5\6", b"PK\6\6", b"PK\6\7", b"PK\1\2", b"PK\3\4"
SPLIT = b"PK\7\x08"
MAGIC = (LOCAL, END, SPLIT)
DIRECTORY = 256 << 20
"""Bytes of the longest directory: FreeSound of WavCaps, with 262,300 files, has a tenth of it."""
PARTS = 999
STORED, DEFLATED, BZIP2 = 0, 8, 12
ENCRYPTED = 0x1 | 0x40 | 0x2000
UTF8 = 0x800


class Entry(msgspec.Struct, frozen=True):
    """What the directory says of a member; places and sizes are bytes from the beginning of all parts."""

    place: int
    name: bytes
    flags: int
    method: int
    crc32: int
    packed: int
    size: int
    mode: int
    mtime: int

    @property
    def text(self) -> str:
        """Its name."""
        return self.name.decode("utf-8" if self.flags & UTF8 else "cp437", "surrogateescape")


class Parts:
    """The files of an archive behind one another, as one."""

    def __init__(self, stack: contextlib.ExitStack, paths: list[str]) -> None:
        """Open all of them until `stack` is closed."""
        self.files: list[IO[bytes]] = [stack.enter_context(files.open_read(path)) for path in paths]
        self.begins = [0]
        for file in self.files:
            self.begins.append(self.begins[-1] + file.seek(0, 2))

    @property
    def size(self) -> int:
        """Bytes of all of them."""
        return self.begins[-1]

    def read(self, place: int, length: int) -> bytes:
        """Return `length` bytes from byte `place` on; fewer at the end."""
        content = b""
        for file, begin, end in zip(self.files, self.begins, self.begins[1:], strict=False):
            if begin <= place < end and length > 0:
                file.seek(place - begin)
                piece = file.read(min(length, end - place))
                content = content + piece if content else piece
                place, length = place + len(piece), length - len(piece)
        return content


class End(msgspec.Struct, frozen=True):
    """What the end of an archive says of it."""

    place: int
    """Where it begins, from the beginning of the last part."""
    disk: int
    """Number of the last part, from 0."""
    directory_disk: int
    count: int
    length: int
    offset: int
    """Of the directory, in its part."""


def find_end(file: IO[bytes]) -> End | None:
    """Return the end of the archive, or of the last part of one, in `file`; None if it is no zip."""
    total = file.seek(0, 2)
    begin = file.seek(max(0, total - 22 - 0xFFFF - 20))
    tail = file.read()
    at = len(tail)
    while (at := tail.rfind(END, 0, at)) >= 0:
        if len(tail) - at >= 22 and len(tail) - at - 22 == int.from_bytes(tail[at + 20 : at + 22], "little"):
            disk, first, _, count, length, offset = struct.unpack_from("<4H2L", tail, at + 4)
            return End(begin + at, disk, first, count, length, offset)
    return None


def read_zip(archive: str, gate: Gate) -> Generator[Member, None, None]:
    """Yield the members of a zip archive in the order in which they lie in it."""
    with contextlib.ExitStack() as stack:
        with files.open_read(archive) as last:
            end = find_end(last)
        if end is None:
            raise gate.broken("a zip ends with a directory, and this does not")
        parts = Parts(stack, find_parts(archive, end.disk, gate))
        entries = read_directory(parts, *find_directory(parts, end, gate), gate)
        gate.weigh(sum(entry.size for entry in entries), parts.size)
        for entry, following in zip(entries, [*(other.place for other in entries[1:]), parts.size], strict=True):
            if following < entry.place + 30 + len(entry.name) + entry.packed:
                raise gate.refuse(entry.text, "lies over the next one; such archives are made to fill disks")
            yield from open_member(parts, entry, following, gate)


def find_parts(archive: str, disk: int, gate: Gate) -> list[str]:
    """Return the paths of all parts of the archive whose last part has the number `disk`."""
    if not disk:
        return [archive]
    if disk > PARTS or not archive.endswith(".zip"):
        raise gate.broken(f"it is the last of {disk + 1} parts; name the last .zip and the others .z01, .z02, ...")
    paths = [f"{archive.removesuffix('.zip')}.z{number:02}" for number in range(1, disk + 1)]
    if lost := next((path for path in paths if not files.exists(path)), None):
        raise gate.broken(f"it has {disk + 1} parts, and {files.redact(lost)!r} is not there")
    return [*paths, archive]


def find_directory(parts: Parts, end: End, gate: Gate) -> tuple[int, int, int]:
    """Return where the directory begins in all parts, its length and the number of its entries."""
    bottom = place = parts.begins[-2] + end.place
    disk, count, length, offset = end.directory_disk, end.count, end.length, end.offset
    find = parts.read(place - 20, 20) if place >= 20 else b""
    if find[:4] == FIND64:
        first, offset64, _ = struct.unpack("<LQL", find[4:])
        bottom = (parts.begins[first] if first < len(parts.files) else parts.size) + offset64
        record = parts.read(bottom, 56)
        if record[:4] != END64 or len(record) < 56:
            raise gate.broken("the record of a large zip is not where it says")
        disk, _, count, length, offset = struct.unpack("<LQQQQ", record[20:56])
    if disk >= len(parts.files) or parts.begins[disk] + offset + length != bottom:
        raise gate.broken("its directory is not where it says")
    if count > gate.caps.members or length > DIRECTORY:
        gate.members = gate.caps.members
        gate.count()
    return parts.begins[disk] + offset, length, count


def read_directory(parts: Parts, begin: int, length: int, count: int, gate: Gate) -> list[Entry]:
    """Return all entries, in the order of their bytes."""
    content, entries, at = parts.read(begin, length), [], 0
    for _ in range(count):
        if content[at : at + 4] != ENTRY or len(content) < at + 46:
            raise gate.broken("its directory is damaged")
        flags, method, clock, day, crc32, packed, size, name, extra, comment, disk, _, mode, place = struct.unpack(
            "<4H3L4HHLL", content[at + 8 : at + 46]
        )
        below = at + 46 + name
        at = below + extra + comment
        if at > len(content):
            raise gate.broken("its directory is damaged")
        called, more = content[below - name : below], content[below : below + extra]
        size, packed, place, disk, mtime = widen(more, size, packed, place, disk, dos_time(day, clock))
        if disk >= len(parts.files):
            raise gate.broken("its directory names a part that there is not", called.decode("cp437"))
        whole = parts.begins[disk] + place
        entries.append(Entry(whole, called, flags, method, crc32, packed, size, mode >> 16, mtime))
    if at != length:
        raise gate.broken("its directory is longer than it says")
    if entries and max(entry.place for entry in entries) >= begin:
        raise gate.broken("its directory points behind itself")
    return sorted(entries, key=lambda entry: entry.place)


def widen(extra: bytes, size: int, packed: int, place: int, disk: int, mtime: int) -> tuple[int, int, int, int, int]:
    """Return the facts of an entry with those that its extra fields tell in more bits."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        field, at = extra[at + 4 : at + 4 + length], at + 4 + length
        if kind == 1:
            values = []
            for value, full, width in ((size, 0xFFFFFFFF, 8), (packed, 0xFFFFFFFF, 8), (place, 0xFFFFFFFF, 8)):
                wide = value == full and len(field) >= width
                values.append(int.from_bytes(field[:width], "little") if wide else value)
                field = field[width:] if wide else field
            size, packed, place = values
            disk = int.from_bytes(field[:4], "little") if disk == 0xFFFF and len(field) >= 4 else disk
        elif kind == 0x5455 and len(field) >= 5 and field[0] & 1:
            mtime = int.from_bytes(field[1:5], "little", signed=True)
    return size, packed, place, disk, mtime


def dos_time(day: int, clock: int) -> int:
    """Return seconds since 1970 of a time in the format of DOS, taken for UTC: the same on every machine."""
    moment = ((day >> 9) + 1980, day >> 5 & 15, day & 31, clock >> 11, clock >> 5 & 63, clock % 32 * 2)
    return calendar.timegm(moment) if 1 <= moment[1] <= 12 and moment[2] else 0


def open_member(parts: Parts, entry: Entry, following: int, gate: Gate) -> Generator[Member, None, None]:
    """Yield a member, if it is admitted, once its own header agrees with the directory."""
    name = entry.text
    gate.count()
    local = parts.read(entry.place, 30 + len(entry.name))
    if local[:4] != LOCAL or len(local) < 30:
        raise gate.broken("there is no header where its directory says", name)
    flags, method, extra = *struct.unpack_from("<2H", local, 6), int.from_bytes(local[28:30], "little")
    if local[30:] != entry.name or int.from_bytes(local[26:28], "little") != len(entry.name) or method != entry.method:
        raise gate.refuse(name, f"is called {local[30:][:80]!r} by its own header")
    if (flags | entry.flags) & ENCRYPTED:
        raise gate.refuse(name, "is encrypted")
    kind = stat.S_IFMT(entry.mode)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        told = "a symbolic link" if kind == stat.S_IFLNK else "a device, a pipe or a socket"
        raise gate.refuse(name, f"is {told}; only files and folders are unpacked")
    folder = name.endswith("/") or kind == stat.S_IFDIR
    if folder and entry.size:
        raise gate.refuse(name, f"is a folder of {entry.size:,} bytes")
    place = entry.place + 30 + len(entry.name) + extra
    if place + entry.packed > following:
        raise gate.refuse(name, "lies over the next one; such archives are made to fill disks")
    path = gate.admit(name, entry.size, folder)
    if path is not None:
        content = Content(parts, place, entry, gate)
        yield Member(path, entry.size, content.pull, entry.mtime, None if folder else entry.crc32, folder)


class Content:
    """The unpacked bytes of a member."""

    def __init__(self, parts: Parts, place: int, entry: Entry, gate: Gate) -> None:
        """Begin at byte `place`."""
        self.parts, self.place, self.end, self.gate, self.entry = parts, place, place + entry.packed, gate, entry
        self.left = entry.size
        self.stream = decoder(entry, gate)
        if self.stream is None and entry.packed != entry.size:
            raise gate.refuse(entry.text, f"is stored as {entry.packed:,} bytes of {entry.size:,}")

    def pull(self, most: int) -> memoryview:
        """Return the next bytes."""
        content = self.unpack(most)
        if not content:
            raise self.gate.broken("it is cut off", self.entry.text)
        self.left -= len(content)
        if not self.left and self.stream and self.unpack(1):
            raise self.gate.refuse(self.entry.text, f"unpacks to more than the {self.entry.size:,} bytes it says")
        return memoryview(content)

    def unpack(self, most: int) -> bytes:
        """Return the next bytes, at most `most`; none at the end."""
        if self.stream is None:
            return self.feed(most)
        content = b""
        while not content and not self.stream.eof:
            hungry = self.stream.needs_input
            data = self.feed(CHUNK) if hungry else b""
            try:
                content = self.stream.decompress(data, most)
            except (zlib.error, OSError, EOFError) as error:
                raise self.gate.broken(f"it is damaged ({error})", self.entry.text) from None
            if hungry and not data and not content and not self.stream.eof:
                raise self.gate.broken("it is cut off", self.entry.text)
        return content

    def feed(self, most: int) -> bytes:
        """Return the next packed bytes, none at the end."""
        data = self.parts.read(self.place, min(most, self.end - self.place))
        self.place += len(data)
        return data


def decoder(entry: Entry, gate: Gate) -> Decompressor | None:
    """Return what unpacks a member; None if it is not packed."""
    if entry.method == DEFLATED:
        return Inflate(wbits=-15)
    if entry.method == BZIP2:
        return bz2.BZ2Decompressor()
    if entry.method != STORED:
        raise gate.refuse(entry.text, f"is packed by method {entry.method}; known are stored, deflate and bzip2")
    return None
