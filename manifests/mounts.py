"""Mounts: archives read as the folder that they would be unpacked into, which they never have to be.

ROOT/raw/<corpus>/.archives/X.tar              a plain tar
ROOT/raw/<corpus>/.archives/X.tar.parquet      where its members are

Where such a pair lies, ``archive://ROOT/raw/<corpus>`` is a tree of the files below that folder, without .archives,
and of the members of all its tars. Of one path a file on disk comes before a member, and the first tar by name before
the others: LibriSpeech's all bring the same SPEAKERS.TXT. manifests/files.py reads it as it does any storage.
"""

from __future__ import annotations

import errno
import io
import os
import stat
import threading
from typing import IO, Any, NoReturn

import pyarrow as pa

from manifests.errors import UserError
from manifests.members import INDEX, Members, Tar, Window, open_tar

SCHEME = "archive://"
ARCHIVES = ".archives"
WHOLE = 1 << 20
"""Bytes of a member up to which it is read when it is opened, in one go; larger ones are read as they are asked for."""
Info = dict[str, Any]


class Mount:
    """A tree of files on disk and members of tars, read-only; its methods are those that files.py calls of fsspec's.

    Safe in several threads. What is put directly into the folder later, or into its .archives, needs a new mount.
    """

    def __init__(self, folder: str) -> None:
        """Mount the archives of the absolute `folder`; UserError if one is not whole."""
        self.folder, self.prefix = folder, f"{folder}/"
        self.top = frozenset(os.listdir(folder)) - {ARCHIVES}
        """What is on disk: of other paths the disk need not be asked."""
        archives = os.path.join(folder, ARCHIVES)
        opened = [open_tar(f"{archives}/{name}") for name in sorted(os.listdir(archives)) if name.endswith(INDEX)]
        self.tars = [tar for tar, _ in opened]
        self.members = Members([rows for _, rows in opened])
        # Five times as much as is kept was taken to sort it, and Arrow would hold on to that.
        del opened
        pa.default_memory_pool().release_unused()
        self.last = ("", -1)
        """Path and number of the member asked about last: who asks for its size asks for its bytes next."""

    def inner(self, path: str) -> str:
        """Return a path relative to the folder, "" for the folder itself; FileNotFoundError if it leads elsewhere."""
        if "/." in path or "//" in path or path.endswith("/"):
            path = os.path.normpath(path)
            inside = path == self.folder or path.startswith(self.prefix)
            if not inside or path[len(self.prefix) :].partition("/")[0] == ARCHIVES:
                raise absent(path)
        return path[len(self.prefix) :]

    def on_disk(self, inner: str) -> os.stat_result | None:
        """Return what the disk has at a path, None if nothing; FileNotFoundError if it has a file above."""
        if inner and (not self.top or inner.partition("/")[0] not in self.top):
            return None
        try:
            return os.stat(self.prefix + inner)
        except FileNotFoundError:
            return None
        except NotADirectoryError:
            raise absent(self.prefix + inner) from None

    def info(self, path: str) -> Info:
        """Return what is at `path`: type (file, directory, other), size in bytes, and what changes with its content.

        That is the time of change in nanoseconds of a file on disk, and the CRC-32 of a member; if its tar was written
        to after it was indexed, also that time. FileNotFoundError if there is nothing.
        """
        inner, told, row = self.locate(path)
        if told is not None:
            kind = "directory" if stat.S_ISDIR(told.st_mode) else "file" if stat.S_ISREG(told.st_mode) else "other"
            return {"name": path, "size": told.st_size, "type": kind, "mtime": told.st_mtime_ns}
        members = self.members
        if row >= 0:
            tag = f"{members.crc32[row]}{self.tars[members.tar[row]].changed}"
            return {"name": path, "size": members.bytes[row], "type": "file", "ETag": tag}
        if inner in members.folders:
            return {"name": path, "size": 0, "type": "directory"}
        raise absent(path)

    def locate(self, path: str) -> tuple[str, os.stat_result | None, int]:
        """Return `path` relative to the folder, what the disk has there, and if nothing the member's number or -1."""
        known, row = self.last
        if known == path:
            return "", None, row
        inner = self.inner(path)
        told = self.on_disk(inner)
        row = -1 if told is not None else self.members.find(inner)
        if row >= 0:
            self.last = (path, row)
        return inner, told, row

    def exists(self, path: str) -> bool:
        """Whether there is a file or a folder at `path`."""
        try:
            self.info(path)
        except FileNotFoundError:
            return False
        return True

    def isdir(self, path: str) -> bool:
        """Whether there is a folder at `path`."""
        try:
            return bool(self.info(path)["type"] == "directory")
        except FileNotFoundError:
            return False

    def ls(self, path: str, detail: bool = False) -> list[str]:
        """Return the paths directly in the folder at `path`, in no order."""
        assert not detail
        inner = self.inner(path)
        found = set(self.members.files(inner))
        start = len(inner) + bool(inner)
        found |= {folder[start:].partition("/")[0] for folder in self.members.below(inner)}
        if self.on_disk(inner):
            found |= set(os.listdir(self.prefix + inner)) - (set() if inner else {ARCHIVES})
        return [f"{path.rstrip('/')}/{name}" for name in found]

    def find(self, path: str) -> list[str]:
        """Return the paths of all files below the folder at `path`, in no order; none if there is no such folder."""
        if not self.isdir(path):
            return []
        inner, base = self.inner(path), path.rstrip("/")
        above = f"{inner}/" if inner else ""
        folders, found = self.walk_disk(above)
        members = self.members
        hidden: set[str] = set()
        for folder in (inner, *members.below(inner)):
            # A file on disk hides the folders of its path, and those below it, which come later.
            if folder != inner and (folder in found or folder.rpartition("/")[0] in hidden):
                hidden.add(folder)
                continue
            start = f"{folder}/" if folder else ""
            found.update(full for name in members.files(folder) if (full := start + name) not in folders)
        return [f"{base}/{full[len(above) :]}" for full in found]

    def walk_disk(self, above: str) -> tuple[set[str], set[str]]:
        """Return the folders and files on disk whose paths begin with `above`, which is empty or ends with /."""
        folders: set[str] = set()
        found: set[str] = set()
        if above and above.partition("/")[0] not in self.top:
            return folders, found
        for here, subfolders, names in os.walk(self.prefix + above, followlinks=True):
            start = os.path.join(here, "")[len(self.prefix) :]
            if not start and ARCHIVES in subfolders:
                subfolders.remove(ARCHIVES)
            folders.update(start + name for name in subfolders)
            found.update(start + name for name in names)
        return folders, found

    def open(self, path: str, mode: str = "rb") -> IO[bytes]:
        """Open the file at `path` for reading; it can seek. FileNotFoundError or IsADirectoryError if there is none."""
        if mode != "rb":
            self.refuse()
        tar, offset, size = self.place(path)
        if isinstance(tar, str):
            return open(tar, "rb")
        if size <= WHOLE:
            return io.BytesIO(tar.read(offset, size))
        return io.BufferedReader(Window(tar, offset, size), 1 << 17)

    def cat_file(self, path: str, start: int = 0, end: int | None = None) -> bytes:
        """Return the bytes of the file at `path` from `start` to before `end`; fewer if it ends before."""
        tar, offset, size = self.place(path)
        length = max(0, min(size, size if end is None else end) - start)
        if isinstance(tar, str):
            with open(tar, "rb", buffering=0) as file:
                return os.pread(file.fileno(), length, start)
        return tar.read(offset + start, length)

    def place(self, path: str) -> tuple[Tar | str, int, int]:
        """Return where a file is: its tar, or its path on disk, its first byte there and how many it has.

        FileNotFoundError or IsADirectoryError if there is none.
        """
        inner, told, row = self.locate(path)
        if row >= 0:
            return self.tars[self.members.tar[row]], self.members.offset[row], self.members.bytes[row]
        if told is not None and stat.S_ISREG(told.st_mode):
            return self.prefix + inner, 0, told.st_size
        if self.isdir(path):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        raise absent(path)

    def refuse(self, *_: Any, **__: Any) -> NoReturn:
        """Raise UserError: nothing is written to archives."""
        raise UserError(f"cannot write to {SCHEME}{self.folder}: it is read from archives; write to {self.folder}")

    async_impl = False
    pipe_file = rm_file = rm = refuse
    transaction = property(refuse)


def absent(path: str) -> FileNotFoundError:
    """Return the error for a path at which there is nothing."""
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)


MOUNTS: tuple[Mount, ...] = ()
"""What this process has mounted: an index is read once. Replaced as a whole, so that readers need no lock."""
KNOWN: dict[str, tuple[tuple[int, int], bool]] = {}
"""Of folders asked about: when it and its .archives changed last, and whether archives can be mounted there."""
LOCK = threading.Lock()


def mountable(folder: str) -> bool:
    """Whether indexed archives lie in the absolute `folder`; where it changed, they will be mounted anew."""
    global MOUNTS
    archives = f"{folder}/{ARCHIVES}"
    try:
        now = (os.stat(archives).st_mtime_ns, os.stat(folder).st_mtime_ns)
    except (FileNotFoundError, NotADirectoryError):
        now = (0, 0)
    known = KNOWN.get(folder)
    if known is None or known[0] != now:
        with LOCK:
            MOUNTS = tuple(mount for mount in MOUNTS if mount.folder != folder)
            there = bool(now[0]) and any(name.endswith(INDEX) for name in os.listdir(archives))
            known = KNOWN[folder] = (now, there)
    return known[1]


def mounted(path: str) -> Mount:
    """Return the mount that an absolute `path` lies in; UserError if no archives lie at it or above."""
    global MOUNTS
    for mount in MOUNTS:
        if path.startswith(mount.prefix) or path == mount.folder:
            return mount
    folder = os.path.normpath(path)
    while not mountable(folder):
        if folder in ("", "/", "."):
            raise UserError(
                f"no archives are mounted at {path!r} or above; salmonn fetch CORPUS --stream puts them there"
            )
        folder = os.path.dirname(folder)
    with LOCK:
        for mount in MOUNTS:
            if mount.folder == folder:
                return mount
        mount = Mount(folder)
        MOUNTS = (*MOUNTS, mount)
        return mount
