"""Reading samples at random: where each lies, one read for its two members, and a check of every byte.

The index says where a sample's audio and JSON lie in their shard, behind one another, and what their checksums are. So
what is read is what is used; nothing is searched for, and damage is found before it is decoded.
"""

from __future__ import annotations

import bisect
import os
import threading
import weakref
from collections import OrderedDict
from typing import Any

import msgspec
import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from manifests import Failed, files
from manifests.tables import read_table
from shards.cache import Cache, Wrong
from shards.index import FORMAT, Dataset, File
from shards.sample import Sample

COLUMNS = (
    "flac_offset",
    "flac_bytes",
    "json_offset",
    "json_bytes",
    "samples",
    "flac_crc32",
    "json_crc32",
)
OPEN = 64
"""Local shards kept open."""
LEAST = 2**20
"""Bytes a thread holds to read into: half a minute of speech; more once it met a longer clip."""


class Damaged(Failed):
    """A sample whose bytes are not those of the index."""


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """One sample as read: checked, not decoded."""

    flac: memoryview
    """Of memory that the next read of the same thread may use again."""
    sample: Sample
    samples: int
    crc32: int
    where: str
    """Shard and key, for a person."""


class Reader:
    """Reads samples by their row in the concatenated index of some sources. Safe for threads."""

    def __init__(
        self,
        dataset: Dataset,
        sources: list[tuple[str, str]],
        cache: Cache | None = None,
    ) -> None:
        """Read where samples lie; from copies of the shards in `cache`, if there is one."""
        self.dataset, self.cache, self.sources = dataset, cache, sources
        self.firsts: list[int] = []
        self.shards: list[File] = []
        columns: dict[str, list[NDArray[Any]]] = {name: [] for name in ("shard", *COLUMNS)}
        for corpus, split in sources:
            source = dataset.source(corpus, split)
            url = files.join(dataset.url, source.index.path)
            table = read_table(url, FORMAT, ["shard", *COLUMNS], ["shard"])
            shard = table["shard"].unify_dictionaries().combine_chunks()
            names = shard.chunk(0) if hasattr(shard, "chunk") else shard
            self.firsts.append(sum(map(len, columns["shard"])))
            known = {file.path: file for file in source.shards}
            paths = names.dictionary.to_pylist()
            columns["shard"].append(names.indices.to_numpy().astype(np.int32) + len(self.shards))
            self.shards += [known.get(path, File(path=path, bytes=0, sha256="")) for path in paths]
            for name in COLUMNS:
                values = table[name].to_numpy()
                columns[name].append(values if values.dtype == np.uint32 else narrow(values))
        self.columns = {name: np.concatenate(parts) for name, parts in columns.items()}
        self.direct: set[File] = set()
        """Shards that are read from the store in spite of the cache."""
        self.bytes_read = 0
        self.bytes_used = 0
        self.lock = threading.Lock()
        self.open: OrderedDict[int, Handle] = OrderedDict()
        self.scratch = threading.local()

    def read(self, row: int) -> Held:
        """Return one sample; Damaged if its bytes are not those of the index."""
        of = {name: int(column[row]) for name, column in self.columns.items()}
        begin, end = of["flac_offset"], of["json_offset"] + of["json_bytes"]
        path = self.shards[of["shard"]].path
        try:
            content = self.range(of["shard"], begin, end - begin)
        except FileNotFoundError:
            raise Damaged(f"{path} is missing from {files.redact(self.dataset.url)}") from None
        flac, text = content[: of["flac_bytes"]], content[of["json_offset"] - begin :]
        with self.lock:
            self.bytes_read += len(content)
            self.bytes_used += len(flac) + len(text)
        if isal_zlib.crc32(text) != of["json_crc32"] or isal_zlib.crc32(flac) != of["flac_crc32"]:
            if self.cache is not None and self.shards[of["shard"]] not in self.direct:
                # It may be the copy that is damaged: the store has the last word.
                self.cache.forget(self.shards[of["shard"]])
                self.direct.add(self.shards[of["shard"]])
                return self.read(row)
            raise Damaged(self.told(row, path))
        try:
            sample = msgspec.json.decode(text, type=Sample)
        except msgspec.MsgspecError as error:
            raise Damaged(f"{self.told(row, path)} ({error})") from None
        where = f"{path}: sample {sample.key!r}"
        return Held(flac=flac, sample=sample, samples=of["samples"], crc32=of["flac_crc32"], where=where)

    def told(self, row: int, path: str) -> str:
        """Return a sentence on a damaged sample. Its key is looked up only now: millions of keys take memory."""
        place = bisect.bisect_right(self.firsts, row) - 1
        keys = self.dataset.table(*self.sources[place], ["key"])["key"]
        advice = f"salmonn verify {files.redact(self.dataset.url)} --data finds all that are"
        return f"{path}: sample {keys[row - self.firsts[place]].as_py()!r} is damaged; {advice}"

    def range(self, shard: int, start: int, length: int) -> memoryview:
        """Return a range of a shard, from the cache if there is one."""
        place = files.join(self.dataset.url, self.shards[shard].path)
        if self.cache is not None and self.shards[shard] not in self.direct:
            try:
                return memoryview(
                    files.read_range(self.cache.hold(self.dataset.url, self.shards[shard]), start, length)
                )
            except Wrong:
                # One damaged sample makes the whole shard wrong: then the others of it are read where they lie.
                self.direct.add(self.shards[shard])
        if not files.is_local(place):
            return memoryview(files.read_range(place, start, length))
        held = self.memory(length)
        handle = self.handle(shard, place)
        try:
            return held[: os.preadv(handle.number, [held], start)]
        finally:
            handle.release()

    def memory(self, length: int) -> memoryview:
        """Return `length` bytes of this thread's memory: used again, they are still in a cache of the processor."""
        held: memoryview | None = getattr(self.scratch, "held", None)
        if held is None or len(held) < length:
            held = self.scratch.held = memoryview(bytearray(max(length, LEAST)))
        return held[:length]

    def handle(self, shard: int, place: str) -> Handle:
        """Return an open shard, held; the one used longest ago makes room for it."""
        with self.lock:
            found = self.open.get(shard)
            if found is not None:
                self.open.move_to_end(shard)
                return found.hold()
        opened = Handle(os.open(files.local(place), os.O_RDONLY | os.O_CLOEXEC))
        with self.lock:
            # Another thread may have opened it, too: then that one stays, and this one goes after its use.
            if shard not in self.open:
                self.open[shard] = opened.hold()
                while len(self.open) > OPEN:
                    self.open.popitem(last=False)[1].release()
            return opened

    def close(self) -> None:
        """Close the shards."""
        with self.lock:
            while self.open:
                self.open.popitem()[1].release()


class Handle:
    """An open file that is closed when its last holder lets go."""

    def __init__(self, number: int) -> None:
        """Hold it once."""
        self.number = number
        # A reader that is forgotten rather than closed must not keep its shards open.
        self.close = weakref.finalize(self, os.close, number)
        self.holders = 1
        self.lock = threading.Lock()

    def hold(self) -> Handle:
        """Hold it once more."""
        with self.lock:
            self.holders += 1
        return self

    def release(self) -> None:
        """Let go."""
        with self.lock:
            self.holders -= 1
            last = self.holders == 0
        if last:
            self.close()


def narrow(values: NDArray[np.int64]) -> NDArray[Any]:
    """Return numbers in the smallest type that holds them: there are millions."""
    return values.astype(np.int32) if len(values) == 0 or values.max() < 2**31 else values
