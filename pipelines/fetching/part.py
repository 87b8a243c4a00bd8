"""A part: a file that is being fetched, beside it what is known of its source, and nobody else's hands on either.

dev-clean.tar.gz.part             the bytes so far; a process that dies leaves them
dev-clean.tar.gz.part.json        the validators that a server gave with them
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from manifests import files
from manifests.trees import same

BLOCK = 1 << 20
"""Bytes read at a time."""


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Where the bytes of a part came from."""

    source: str = ""
    """The digest of the address; the address itself may hold a secret."""
    etag: str = ""
    last_modified: str = ""
    total: int = 0
    """Bytes of the whole file, 0 where the server did not say."""
    boot: str = ""
    """The run of the system that wrote them: after a power cut, a part may hold pages that were never written."""


def read_origin(part: str) -> Origin:
    """Return what is known of the bytes of `part`; nothing if the note is missing or torn."""
    with contextlib.suppress(OSError, msgspec.MsgspecError):
        return msgspec.json.decode(files.read_bytes(f"{part}.json"), type=Origin)
    return Origin()


class Busy(Exception):
    """Another process has its hands on the part."""


def boot() -> str:
    """Return what tells one run of this machine's system from another."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


class Part:
    """The part of one file, open for this process alone. Made by `open_part`."""

    def __init__(self, path: str, handle: int) -> None:
        """Hold the open file `handle` at `path`."""
        self.path, self.handle = path, handle
        self.size = os.fstat(handle).st_size
        self.sha256, self.md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
        self.hashed = 0

    @property
    def origin(self) -> Origin:
        """What is known of the bytes that are there."""
        return read_origin(self.path)

    def clear(self) -> None:
        """Forget the bytes."""
        os.ftruncate(self.handle, 0)
        self.size = self.hashed = 0
        self.sha256, self.md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
        files.remove(self.path + ".json")

    def note(self, origin: Origin) -> None:
        """Write down where the bytes come from."""
        files.write_whole(self.path + ".json", msgspec.json.encode(origin))

    def write(self, data: bytes) -> None:
        """Add `data`. It is with the system when this returns, so that it survives the death of this process."""
        self.catch_up()
        rest = memoryview(data)
        while rest:
            written = os.pwrite(self.handle, rest, self.size)
            self.count(rest[:written])
            self.size += written
            rest = rest[written:]

    def count(self, data: bytes | memoryview) -> None:
        """Take `data` into the digests."""
        self.sha256.update(data)
        self.md5.update(data)
        self.hashed += len(data)

    def catch_up(self) -> None:
        """Take into the digests what an earlier process wrote."""
        while self.hashed < self.size:
            data = os.pread(self.handle, min(BLOCK, self.size - self.hashed), self.hashed)
            if not data:
                raise OSError(f"{self.path} became shorter while it was fetched")
            self.count(data)

    def head(self, length: int) -> bytes:
        """Return the first `length` bytes."""
        return os.pread(self.handle, length, 0)

    def finish(self, path: str) -> None:
        """Give the file its final name, synced."""
        os.fsync(self.handle)
        os.replace(self.path, path)
        files.sync_folder(Path(path).parent)
        files.remove(self.path + ".json")


@contextlib.contextmanager
def open_part(path: str) -> Iterator[Part]:
    """Open the part of the file at `path`, for this process alone; Busy if another has it open."""
    place = path + ".part"
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    while True:
        handle = os.open(place, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise Busy(path) from None
            # Whoever had it may have renamed it between our opening and our locking: then we hold the finished file.
            if same(handle, place):
                yield Part(place, handle)
                return
        finally:
            os.close(handle)
