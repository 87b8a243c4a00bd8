"""7z archives, read by py7zr in a process of its own: what breaks it, or makes it ask for all memory, breaks no more.

The process gets the path of the archive, with its memory capped, and writes frames to stdout: a letter, four bytes that
say how many follow, and those. ``L`` lists all members (JSON), so that names are judged before anything is unpacked;
then, for each file with content, ``M`` is its number in that list and ``D`` are pieces of its content; ``E`` is a
sentence that ends it, ``N`` one that says what is needed, ``Z`` the end of an archive whose checksums were right.
"""

from __future__ import annotations

import contextlib
import os
import resource
import struct
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import IO, Any

import msgspec

from manifests import files
from manifests.errors import UserError
from manifests.waiting import readable
from pipelines.unpacking.archives import EMPTY, Gate, Member

MAGIC = b"7z\xbc\xaf'\x1c"
MEMORY = 2 << 30
"""Bytes of address space: Clotho's archives need 300 MB, the highest preset of 7-Zip 700 MB."""
FRAME = 1 << 18
STALLED = 120.0
"""Seconds without a frame until the archive is given up."""
PROGRAM = ("-P", "-m", "pipelines.unpacking.sevenzip")


class Listed(msgspec.Struct, frozen=True, array_like=True):
    """What an archive says of a member."""

    name: str
    size: int
    kind: str
    """``file``, ``folder``, or what else it is."""
    mtime: int
    """Seconds since 1970."""
    crc32: int | None


def read_7z(archive: str, gate: Gate) -> Generator[Member, None, None]:
    """Yield the members of a 7z archive: folders and empty files, then the others in the order of their bytes."""
    if not files.is_local(archive):
        raise UserError(f"{gate.archive} is a 7z archive, which is read on this machine; copy it here first")
    child = Child(archive, gate)
    try:
        listed = msgspec.json.decode(child.frame(b"L"), type=list[Listed])
        gate.weigh(sum(entry.size for entry in listed), files.size(archive))
        admitted = []
        for entry in listed:
            gate.count()
            if entry.kind not in ("file", "folder"):
                raise gate.refuse(entry.name, f"is {entry.kind}; only files and folders are unpacked")
            admitted.append(gate.admit(entry.name, entry.size, entry.kind == "folder"))
        for path, entry in zip(admitted, listed, strict=True):
            if path is not None and (entry.kind == "folder" or not entry.size):
                yield Member(path, 0, child.pull, entry.mtime, folder=entry.kind == "folder")
        for number in sorted(range(len(listed)), key=lambda number: not listed[number].size):
            entry, path = listed[number], admitted[number]
            if not entry.size:
                break
            (told,) = struct.unpack(">I", child.frame(b"M"))
            if told != number:
                raise gate.broken(f"its members come in another order than it lists them ({told} for {number})")
            child.member = entry.name
            member = Member(path or "", entry.size, child.pull, entry.mtime, entry.crc32)
            if path is not None:
                yield member
            while member.take():
                pass
        child.member = ""
        child.frame(b"Z")
    finally:
        child.close()


class Child:
    """The process that reads one archive."""

    def __init__(self, archive: str, gate: Gate) -> None:
        """Start it."""
        self.gate, self.member, self.hand = gate, "", EMPTY
        command = [sys.executable, *PROGRAM, files.absolute(archive)]
        # It finds this package wherever it starts; py7zr looks for links below the current folder, hence the root.
        home = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
        where: Any = {"cwd": "/", "env": os.environ | {"PYTHONPATH": home}}
        pipes: Any = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "bufsize": 0}
        self.process = subprocess.Popen(command, **where, **pipes)
        assert self.process.stdout
        self.pipe = self.process.stdout.fileno()

    def exactly(self, length: int) -> bytes:
        """Return the next `length` bytes."""
        pieces = []
        while length:
            if not readable(self.pipe, STALLED):
                raise self.gate.broken(f"nothing came out of it for {STALLED:g} s", self.member)
            piece = os.read(self.pipe, length)
            if not piece:
                raise self.gate.broken("its reader broke down, for want of memory or by a damage", self.member)
            pieces.append(piece)
            length -= len(piece)
        return b"".join(pieces)

    def frame(self, wanted: bytes) -> bytes:
        """Return the content of the next frame, which must be of the kind `wanted`."""
        kind, length = struct.unpack(">cI", self.exactly(5))
        content = self.exactly(length)
        if kind == b"N":
            raise UserError(f"{self.gate.archive}: {content.decode('utf-8', 'replace')}")
        if kind == b"E":
            raise self.gate.broken(content.decode("utf-8", "replace"), self.member)
        if kind != wanted:
            raise self.gate.broken("it holds less or more than it lists", self.member)
        return content

    def pull(self, most: int) -> memoryview:
        """Return the next bytes of the member in hand."""
        if not self.hand:
            self.hand = memoryview(self.frame(b"D"))
        piece, self.hand = self.hand[:most], self.hand[most:]
        return piece

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
        assert self.process.stdout
        self.process.stdout.close()


def main(archive: str) -> None:
    """Read `archive` and write frames: the process of its own."""
    out = os.fdopen(os.dup(1), "wb", buffering=FRAME)
    os.dup2(2, 1)
    try:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        send_archive(archive, out)
    except MemoryError:
        send(out, b"E", b"it asks for more memory than is allowed")
    except ImportError as error:
        send(out, b"N", f"a 7z archive needs py7zr; pip install py7zr ({error})".encode())
    except BrokenPipeError:
        os._exit(1)  # nobody listens any more
    except Exception as error:  # whatever a hostile archive makes the library raise
        told = " ".join(str(error).split())[:200]
        send(out, b"E", f"{type(error).__name__}: {told}".encode("utf-8", "replace"))
    with contextlib.suppress(BrokenPipeError):
        out.flush()
    os._exit(0)


def send(out: IO[bytes], kind: bytes, content: bytes | bytearray | memoryview) -> None:
    """Write a frame."""
    out.write(struct.pack(">cI", kind, len(content)))
    out.write(content)


def send_archive(archive: str, out: IO[bytes]) -> None:
    """Write the frames of an archive."""
    import py7zr

    with open(archive, "rb") as file, py7zr.SevenZipFile(file, "r", blocksize=FRAME) as opened:
        entries = list(opened.files)
        send(out, b"L", msgspec.json.encode([listed(entry) for entry in entries]))
        out.flush()
        numbers = {os.path.normpath(entry.filename): n for n, entry in enumerate(entries) if entry.uncompressed}
        # py7zr numbers the files of a folder of streams as if no file without a stream stood between them, and gives
        # them each other's names where one does (1.1.4); these have their right numbers.
        streams: dict[int, list[Any]] = {}
        for entry in entries:
            if entry.folder is not None:
                entry.folder.files = streams.setdefault(id(entry.folder), [])
                entry.folder.files.append(entry)
        opened.extract(factory=writers(out, numbers))
    send(out, b"Z", b"")


def listed(entry: Any) -> Listed:
    """Return what is told of a member."""
    kind = "folder" if entry.is_directory or entry.filename.endswith("/") else "file"
    if entry.is_symlink or entry.is_junction:
        kind = "a link"
    elif not entry.is_file and kind == "file":
        kind = "a device, a pipe or a socket"
    name = entry.filename.encode("utf-8", "replace").decode()
    mtime = int(entry.lastwritetime.totimestamp()) if entry.lastwritetime is not None else 0
    return Listed(name, entry.uncompressed, kind, mtime, entry.crc32)


def writers(out: IO[bytes], numbers: dict[str, int]) -> Any:
    """Return what py7zr asks for a file to write to: one that sends what it gets."""
    from py7zr.io import Py7zIO, WriterFactory

    class Sender(Py7zIO):
        def __init__(self) -> None:
            self.bytes = 0

        def write(self, content: bytes | bytearray) -> int:
            for at in range(0, len(content), FRAME):
                send(out, b"D", memoryview(content)[at : at + FRAME])
            self.bytes += len(content)
            return len(content)

        def read(self, size: int | None = None) -> bytes:
            return b""

        def seek(self, offset: int, whence: int = 0) -> int:
            return 0

        def flush(self) -> None:
            pass

        def size(self) -> int:
            return self.bytes

    class Senders(WriterFactory):
        def create(self, filename: str) -> Py7zIO:
            if (number := numbers.get(os.path.normpath(filename))) is not None:  # it asks for empty files as well
                send(out, b"M", struct.pack(">I", number))
            return Sender()

    return Senders()


if __name__ == "__main__":
    main(sys.argv[1])
