"""A staged folder: files written out of sight, which then move into place, so that no reader meets half of them.

The stage is a hidden folder beside the one to fill, on the same disk. One process at a time has it; what a killed one
left is cleared by the next. Whole folders move by one rename each where they are new; else they are merged name by
name, never through a link.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import os
import shutil
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path

from manifests.errors import Failed, UserError
from manifests.files import sync_folder
from pipelines.unpacking.archives import Member

NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
A_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
Row = tuple[str, int, int, int]
"""Of a file written: path, bytes, mtime in nanoseconds as it is on disk, CRC-32."""


class Stage:
    """A folder being filled out of sight."""

    def __init__(self, folder: Path, handle: int) -> None:
        """Fill `folder`, open as `handle`."""
        self.folder, self.handle = folder, handle
        self.top = os.fspath(folder)
        self.made = {""}

    def make_folder(self, path: str) -> None:
        """Make a folder and those above it."""
        if path not in self.made:
            os.makedirs(f"{self.top}/{path}", exist_ok=True)
            self.made.add(path)

    def write(self, member: Member) -> Row:
        """Write a file whole, with the time that its archive tells and the rights of any new file; return its facts.

        FileExistsError, NotADirectoryError or IsADirectoryError if the disk has another of its name.
        """
        self.make_folder(member.name.rpartition("/")[0])
        crc32 = 0
        handle = os.open(f"{self.top}/{member.name}", NEW_FILE, 0o666)
        try:
            while piece := member.take():
                crc32 = zlib.crc32(piece, crc32)
                while piece:
                    piece = piece[os.write(handle, piece) :]
            os.utime(handle, (member.mtime, member.mtime))
            return member.name, member.size, os.fstat(handle).st_mtime_ns, crc32
        finally:
            os.close(handle)

    def move_into(self, place: Path) -> None:
        """Move all there is to `place`, which must hold nothing that stands in the way; UserError otherwise."""
        place.mkdir(exist_ok=True)
        sync_disk(self.handle)
        into = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for moves in (False, True):  # nothing is moved unless all can be
                merge(self.handle, into, str(place), moves)
            sync_disk(into)
        finally:
            os.close(into)
        sync_folder(place.parent)


def merge(source: int, target: int, name: str, moves: bool) -> None:
    """Move what is in the folder `source` to the folder `target`, called `name`; only look at it unless `moves`."""
    for entry in sorted(os.listdir(source)):
        folder = stat.S_ISDIR(os.stat(entry, dir_fd=source, follow_symlinks=False).st_mode)
        try:
            there = os.stat(entry, dir_fd=target, follow_symlinks=False).st_mode
        except FileNotFoundError:
            there = 0
        if there and folder != stat.S_ISDIR(there):
            what = "a link" if stat.S_ISLNK(there) else "a file" if folder else "a folder"
            raise UserError(
                f"{name}/{entry} is {what}, where the archive has {'a folder' if folder else 'a file'}; "
                "move it away, or unpack into another folder"
            )
        if not (there and folder):
            try:
                if moves:
                    os.rename(entry, entry, src_dir_fd=source, dst_dir_fd=target)
                continue
            except OSError as error:
                # Another archive made the folder meanwhile: LibriSpeech's all have LibriSpeech/.
                if not folder or error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
        with open_folder(entry, source) as below, open_folder(entry, target) as into:
            merge(below, into, f"{name}/{entry}", moves)


@contextlib.contextmanager
def open_folder(name: str, above: int) -> Iterator[int]:
    """Open a folder that is no link."""
    handle = os.open(name, A_FOLDER, dir_fd=above)
    try:
        yield handle
    finally:
        os.close(handle)


@contextlib.contextmanager
def open_stage(place: Path, archive: str) -> Iterator[Stage]:
    """Make an empty stage for what `archive` holds, to be moved to `place`, and clear it away at the end.

    Failed if another process has it.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    name = os.path.basename(archive)
    digest = hashlib.sha256(f"{place}\0{name}".encode("utf-8", "surrogateescape")).hexdigest()[:8]
    # Another disk may be mounted at the place, and a rename goes no further than a disk.
    inside = place.is_dir() and os.stat(place).st_dev != os.stat(place.parent).st_dev
    folder = (place if inside else place.parent) / f".unpacking-{name[:60]}-{digest}"
    handle = take_folder(folder)
    try:
        yield Stage(folder, handle)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def take_folder(folder: Path) -> int:
    """Make an empty folder that is this process's alone for as long as the handle that is returned is open."""
    while True:
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        try:
            handle = os.open(folder, A_FOLDER)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise Failed(f"{folder} is being filled by another process; wait for it, or end it") from None
        except OSError:
            pass  # a disk without locks
        with contextlib.suppress(FileNotFoundError):
            # The one who had it may have cleared it away between our opening and locking it.
            if os.path.samestat(os.fstat(handle), os.stat(folder, follow_symlinks=False)):
                break
        os.close(handle)
    for entry in os.scandir(handle):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.name, dir_fd=handle)
        else:
            os.unlink(entry.name, dir_fd=handle)
    return handle


def sync_disk(handle: int) -> None:
    """Make all that was written to the disk of `handle` survive a power cut: one call for any number of files."""
    syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if syncfs is None or syncfs(handle):
        os.sync()
