"""The shelf: one local folder of whole shards, which the processes of a machine fill together and none lets overflow.

FOLDER/
  <sha256>.tar      a shard, whole and proven; its time of change is when it was last used
  <sha256>.part     one on its way: locked by who fetches it, and from the start as long as it will be
  lock              held while room is made

A shard is known by its digest, never by its name: shards of two datasets do not mix. The locks are flocks, which end
with their process: SIGKILL leaves a part that nobody has locked, and who next makes room removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator

import msgspec

from manifests import files
from manifests.errors import Failed, UserError
from manifests.trees import same
from shards.index import File


class Kept(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """A whole shard on the shelf. The order is that of eviction."""

    read: bool
    """Whether somebody has it open and locked."""
    used: int
    """When it was last used, in nanoseconds since 1970."""
    path: str
    bytes: int


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """What came of making room."""

    lacking: int = 0
    """Bytes; 0: the room is taken."""
    others: int = 0
    """Fetches of others that take room now."""
    evicted: int = 0
    """Shards."""


class Shelf:
    """The folder and its law: at most `max_bytes` of shards, whole and on their way."""

    def __init__(self, folder: str, max_bytes: int) -> None:
        """Use the local `folder`, made if it is not there; UserError if it cannot be written or locked."""
        if not files.is_local(folder):
            raise UserError(f"the cache {files.redact(folder)!r} is not on this machine; name a folder on a local disk")
        if max_bytes < 1:
            raise UserError(f"max_bytes of the cache is {max_bytes}; it must be above 0")
        self.folder, self.max_bytes = files.absolute(folder), max_bytes
        files.require_writable(self.folder)
        try:
            with self.locked():
                pass
        except OSError as error:
            said = f"the cache folder {self.folder!r} cannot be locked ({error.strerror}); choose one on a local disk"
            raise UserError(said) from None

    def place(self, shard: File, suffix: str = "tar") -> str:
        """Return the path of `shard`, whole or in part."""
        # It comes from a file that others wrote, and becomes a name on this disk.
        if not re.fullmatch("[0-9a-f]{64}", shard.sha256) or shard.bytes < 0:
            raise UserError(f"the dataset says of {shard.path} no sha256 and size that can be; build it again")
        return os.path.join(self.folder, f"{shard.sha256}.{suffix}")

    def touch(self, shard: File) -> bool:
        """Whether `shard` is there with the right size; notes that it is in use now."""
        path, now = self.place(shard), time.time_ns()
        with contextlib.suppress(FileNotFoundError):
            about = os.lstat(path)
            if stat.S_ISREG(about.st_mode) and about.st_size == shard.bytes:
                # In our nanoseconds: the clock of the file system ticks too slowly to tell which of two came first.
                os.utime(path, ns=(now, now))
                return True
        return False

    def remove(self, shard: File) -> None:
        """Remove `shard`, if it is there."""
        files.remove(self.place(shard))

    @contextlib.contextmanager
    def claim(self, shard: File, wait: bool) -> Iterator[int | None]:
        """Open the empty part of `shard` for us alone; None if another has it, or had it until now.

        If it was not `put` when the block ends, it is removed.
        """
        path = self.place(shard, "part")
        with contextlib.ExitStack() as stack:
            # Who makes room tries the lock of every part, and must not be taken for its owner.
            with contextlib.nullcontext() if wait else self.locked():
                part = stack.enter_context(locked_file(path, os.O_RDWR | os.O_CREAT, wait))
            if part is None or not same(part, path):
                yield None
                return
            try:
                os.ftruncate(part, 0)  # what a killed process left in it
                yield part
            finally:
                if same(part, path):
                    files.remove(path)

    def put(self, part: int, shard: File) -> None:
        """Let the finished `part` appear as `shard`."""
        now = time.time_ns()
        os.utime(part, ns=(now, now))
        with self.locked():  # who makes room must see it once, not twice and not never
            try:
                os.rename(self.place(shard, "part"), self.place(shard))
            except FileNotFoundError:
                raise Failed(f"somebody removed {shard.path} from {self.folder!r} while it was fetched") from None

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep others from making room."""
        with locked_file(os.path.join(self.folder, "lock"), os.O_RDWR | os.O_CREAT, wait=True):
            yield

    def make_room(self, part: int, shard: File, since: int | None = None) -> Room:
        """Take room for `shard` with its `part`, if there is enough on the shelf and on its disk.

        The least recently used go, those that are read only where nothing else can. Evicting a file that somebody
        reads is safe on Linux: who has it open keeps its bytes. With `since` (nanoseconds since 1970), none go that
        were used after it or are read.
        """
        with self.locked():
            kept, coming, unwritten = self.survey(self.place(shard, "part"))
            taken = sum(one.bytes for one in kept) + sum(coming)
            free = shutil.disk_usage(self.folder).free - unwritten
            over = max(taken + shard.bytes - self.max_bytes, shard.bytes - free)
            old = sorted(one for one in kept if since is None or (one.used < since and not one.read))
            lacking = over - sum(one.bytes for one in old)
            if lacking > 0:
                return Room(lacking=lacking, others=len(coming))
            evicted = 0
            while over > 0:
                files.remove(old[evicted].path)
                over -= old[evicted].bytes
                evicted += 1
            # A part is as long as it will be from the start, so that all others see what room it takes.
            os.ftruncate(part, shard.bytes)
            return Room(evicted=evicted)

    def survey(self, ours: str) -> tuple[list[Kept], list[int], int]:
        """Return the shards, the bytes of each part on its way but `ours`, and how many of these take no disk yet.

        Parts that nobody fetches any more are removed. Files that are not named as ours are left alone.
        """
        kept, coming, unwritten = [], [], 0
        for name in sorted(os.listdir(self.folder)):
            path = os.path.join(self.folder, name)
            if not re.fullmatch(r"[0-9a-f]{64}\.(tar|part)", name) or path == ours:
                continue
            with contextlib.suppress(FileNotFoundError):
                about = os.lstat(path)
                if not stat.S_ISREG(about.st_mode):
                    continue
                with locked_file(path, os.O_RDONLY, wait=False) as alone:
                    if name.endswith(".tar"):
                        kept.append(Kept(read=alone is None, used=about.st_mtime_ns, path=path, bytes=about.st_size))
                    elif alone is not None:
                        if same(alone, path):
                            files.remove(path)
                    elif about.st_size:  # else its owner waits for room, as we do
                        coming.append(about.st_size)
                        unwritten += max(0, about.st_size - 512 * about.st_blocks)
        return kept, coming, unwritten


@contextlib.contextmanager
def locked_file(path: str, flags: int, wait: bool) -> Iterator[int | None]:
    """Open and lock the file at `path`, in a new folder if `flags` allow; None if another has it and we do not wait."""
    if flags & os.O_CREAT:
        os.makedirs(os.path.dirname(path), exist_ok=True)
    handle = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield None
            return
        try:
            yield handle
        finally:
            # Outright: a process forked meanwhile has the handle too, and closing ours would leave it locked.
            fcntl.flock(handle, fcntl.LOCK_UN)
    finally:
        os.close(handle)
