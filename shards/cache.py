"""The cache: shards of datasets on object stores or slow disks, fetched whole, once for all ranks of a node."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import os
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from manifests import files
from manifests.errors import Failed, UserError
from shards.index import File
from shards.shelf import Shelf

BLOCK = 8 << 20
"""Bytes asked of the store at a time, and held in memory for each fetch."""
THREADS = 2
"""Shards that `Cache.ahead` fetches at once."""
PAUSE = 0.05
"""Seconds between two looks for room, while what others fetch takes it."""


class Wrong(Failed):
    """A shard that the store gave twice, and each time not as the dataset says it is."""


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """What one Cache object did; other processes count for themselves."""

    fetched: int = 0
    """Shards."""
    fetched_bytes: int = 0
    hits: int = 0
    """Holds of a shard that was there, or that another thread or process brought while we waited."""
    evicted: int = 0
    """Shards."""


class Cache:
    """Whole shards in a local folder that the processes of a machine share; the least recently used are evicted."""

    def __init__(self, folder: str, max_bytes: int = 200 * 2**30) -> None:
        """Keep at most `max_bytes` of shards in the local `folder`; UserError if that cannot be written or locked."""
        self.shelf = Shelf(folder, max_bytes)
        self.stats = Stats()
        self.counting = threading.Lock()
        self.wrong: dict[str, str] = {}
        """What was said of each shard that the store has wrong, by its digest: it is not fetched again."""
        self.jobs: queue.SimpleQueue[tuple[str, File, int] | None] = queue.SimpleQueue()
        self.queued: set[str] = set()
        """Digests of the shards in `jobs`."""
        self.threads: list[threading.Thread] = []
        self.closed = threading.Event()

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process gets a Cache of its own on the same folder."""
        return Cache, (self.shelf.folder, self.shelf.max_bytes)

    def hold(self, url: str, shard: File) -> str:
        """Return the local path of `shard` of the dataset at `url`, fetched first if it is not there.

        Waits while another thread or process fetches it. Open the path at once: a shard may be evicted at any time,
        which on Linux harms nobody who has it open; `open` does both. UserError if the cache or its disk is too small,
        Wrong if the store has other bytes than the dataset says, Failed if it cannot be read.
        """
        if shard.bytes > self.shelf.max_bytes:
            raise UserError(
                f"the shard {shard.path} has {shard.bytes} bytes, the cache in {self.shelf.folder!r} may hold "
                f"{self.shelf.max_bytes} in all; raise its max_bytes"
            )
        if not self.obtain(url, shard, patient=True):
            self.count(hits=1)
        return self.shelf.place(shard)

    def open(self, url: str, shard: File) -> io.FileIO:
        """Hold `shard` and open it, unbuffered; until the file is closed, others are evicted before it."""
        while True:
            try:
                file = io.FileIO(self.hold(url, shard))
            except FileNotFoundError:  # evicted in between
                continue
            fcntl.flock(file, fcntl.LOCK_SH)
            return file

    def forget(self, shard: File) -> None:
        """Remove `shard`, whose bytes proved damaged on this disk, so that the next hold fetches it anew."""
        self.shelf.remove(shard)

    def ahead(self, url: str, shards: Sequence[File]) -> None:
        """Tell what will be needed soon, first things first: threads fetch what is not there. Never raises.

        To make room, shards are evicted that were last used before this call, and so none of `shards`. What then does
        not fit, or fails, is left to `hold`.
        """
        since = time.time_ns()
        for shard in shards:
            with contextlib.suppress(UserError, OSError):
                if not self.shelf.touch(shard) and shard.sha256 not in self.queued and shard.sha256 not in self.wrong:
                    self.queued.add(shard.sha256)
                    self.jobs.put((url, shard, since))
        self.threads = [thread for thread in self.threads if thread.is_alive()]  # a forked process has none of them
        # Daemons: a trainer that fails must not wait at its end for shards that nobody will read.
        while self.queued and len(self.threads) < THREADS and not self.closed.is_set():
            self.threads.append(threading.Thread(target=self.work, name="cache", daemon=True))
            self.threads[-1].start()

    def work(self) -> None:
        """Do the jobs of `ahead`, one after another."""
        while (job := self.jobs.get()) is not None and not self.closed.is_set():
            url, shard, since = job
            # Who needs the shard tries again, and is told.
            with contextlib.suppress(UserError, Failed, OSError, ImportError):
                self.obtain(url, shard, patient=False, since=since)
            self.queued.discard(shard.sha256)

    def close(self) -> None:
        """End the fetches of `ahead`; what is whole stays. `hold` still works."""
        self.closed.set()
        for _ in self.threads:
            self.jobs.put(None)
        for thread in self.threads:
            thread.join(timeout=10.0)  # longer only where a store does not answer

    def count(self, **more: int) -> None:
        """Add to the statistics."""
        with self.counting:
            new = {name: getattr(self.stats, name) + value for name, value in more.items()}
            self.stats = msgspec.structs.replace(self.stats, **new)

    def obtain(self, url: str, shard: File, *, patient: bool, since: int | None = None) -> bool:
        """Make `shard` be there; return whether it was us who fetched it. The impatient leave it if another does."""
        while not self.shelf.touch(shard):
            if shard.sha256 in self.wrong:
                raise Wrong(self.wrong[shard.sha256])
            with self.shelf.claim(shard, wait=patient) as part:
                if part is None and not patient:
                    return False
                # Another may have brought it between our look and our lock.
                if part is not None and not self.shelf.touch(shard):
                    self.fetch(part, url, shard, patient, since)
                    return True
        return False

    def fetch(self, part: int, url: str, shard: File, patient: bool, since: int | None) -> None:
        """Bring `shard` from the store, at the second try if need be."""
        self.shelf.remove(shard)  # of another size: damaged, or not ours
        for last in (False, True):
            self.reserve(part, shard, patient, since)
            try:
                self.copy(part, url, shard, patient)
                break
            except (Failed, UserError) as error:
                if last and isinstance(error, Wrong):
                    self.wrong[shard.sha256] = str(error)
                if last or (self.closed.is_set() and not patient):
                    raise
                os.ftruncate(part, 0)
        self.shelf.put(part, shard)
        self.count(fetched=1, fetched_bytes=shard.bytes)

    def reserve(self, part: int, shard: File, patient: bool, since: int | None) -> None:
        """Take room for `shard`; UserError if there is none, and waiting for the fetches of others brings none."""
        while (room := self.shelf.make_room(part, shard, since)).lacking:
            if not patient or not room.others:
                raise UserError(
                    f"there is no room for the shard {shard.path} ({shard.bytes} bytes) in the cache "
                    f"{self.shelf.folder!r}: {room.lacking} bytes are lacking; free them on its disk, or choose "
                    "another folder"
                )
            time.sleep(PAUSE)
        self.count(evicted=room.evicted)

    def copy(self, part: int, url: str, shard: File, patient: bool) -> None:
        """Read `shard` from the store into its `part`; Wrong if it is not what the dataset says."""
        digest, size = hashlib.sha256(), 0
        for block in blocks(url, shard):
            if self.closed.is_set() and not patient:
                raise Failed("the cache was closed")
            digest.update(block)
            if size + len(block) <= shard.bytes:
                self.write(part, block, size)
            size += len(block)
            if size > shard.bytes:
                break
        if size != shard.bytes or digest.hexdigest() != shard.sha256:
            what = "its sha256 is not the one" if size == shard.bytes else f"it does not have the {shard.bytes} bytes"
            raise Wrong(f"the shard {shard.path} of {files.redact(url)} is damaged: {what} that dataset.json says")

    def write(self, part: int, block: bytes, offset: int) -> None:
        """Write all of `block`; UserError if the disk does not take it."""
        rest = memoryview(block)
        try:
            while rest:
                written = os.pwrite(part, rest, offset)
                rest, offset = rest[written:], offset + written
        except OSError as error:
            raise UserError(
                f"cannot write to the cache {self.shelf.folder!r}: {error.strerror}; free room there, lower its "
                "max_bytes, or choose another folder"
            ) from None


def blocks(url: str, shard: File) -> Iterator[bytes]:
    """Yield the bytes of `shard` in the dataset at `url`, in order; Failed if they cannot be read."""
    where = f"the shard {shard.path} of {files.redact(url)}"
    place = files.join(url, shard.path)
    try:
        # A range a block is one request, and no memory beyond it. The open files of fsspec read ahead, on HTTP a third
        # of all bytes twice (its BytesCache drops what it needs next); but the Hub has no ranges without them.
        yield from in_turn(place) if place.startswith("hf://") else in_ranges(place, shard.bytes)
    except FileNotFoundError:
        raise Failed(f"{where} is missing") from None
    except (UserError, ImportError):
        raise
    except Exception as error:  # HTTP clients raise errors of their own, whose texts may hold an address with secrets
        said = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        raise Failed(f"{where} cannot be read: {said}") from None


def in_turn(place: str) -> Iterator[bytes]:
    """Yield the file at `place` as it is read from its beginning."""
    with files.open_read(place) as file:
        while block := file.read(BLOCK):
            yield block


def in_ranges(place: str, length: int) -> Iterator[bytes]:
    """Yield the first `length` bytes of the file at `place`, or all there are; more if its server knows no ranges."""
    for start in range(0, length, BLOCK):
        wanted = min(BLOCK, length - start)
        block = files.read_range(place, start, wanted)
        yield block
        if len(block) != wanted:
            return
