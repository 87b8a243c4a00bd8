"""Streaming: a packed tar becomes a plain one with an index, which manifests/mounts.py reads without unpacking it.

One pass from front to back, under the law and the caps of archives.py. FLAC does not compress, so the plain
tar is about as large as the packed one, and any part of it can be read at once.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
import re
from array import array
from collections.abc import Iterator, Sequence
from typing import IO, Any

import pyarrow as pa
from isal import isal_zlib

from manifests import files
from manifests.errors import Failed, UserError
from manifests.members import INDEX, SCHEMA
from manifests.mounts import ARCHIVES
from manifests.tables import write_table
from pipelines.unpacking import unpack
from pipelines.unpacking.archives import CAPS, Caps, Gate
from pipelines.unpacking.tars import Flow, members
from pipelines.unpacking.unpack import TARS, Unpacked

PACKED = re.compile(r"(\.tar)?\.(gz|bz2|xz)$|\.(tgz|tbz2?|txz|tar)$")
"""What is not in the name of the plain tar."""


class Copying(Flow):
    """The bytes of an archive, which go to a file as they are unpacked."""

    def __init__(self, file: IO[bytes], gate: Gate, sink: IO[bytes] | None) -> None:
        """Copy what is unpacked from `file` to `sink`, if there is one."""
        super().__init__(file, gate)
        self.sink = sink

    def more(self) -> memoryview:
        """Unpack the next bytes; empty at the end."""
        content = super().more()
        if self.sink:
            self.sink.write(content)
        return content

    @property
    def place(self) -> int:
        """How many bytes were taken so far."""
        return self.bytes - len(self.hand)


class Rows:
    """The files of an archive as they come."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.offsets, self.lengths, self.sums = array("q"), array("q"), array("q")
        self.folders: set[str] = set()

    def fill(self, flow: Copying, gate: Gate) -> None:
        """Read all members."""
        above = ""
        with contextlib.closing(members(flow, gate)) as found:
            for member in found:
                if member.name.partition("/")[0] == ARCHIVES:
                    raise gate.refuse(member.name, "would lie among the archives")
                if member.folder:
                    self.add_folder(member.name)
                    continue
                if (folder := member.name.rpartition("/")[0]) != above:
                    self.add_folder(above := folder)
                offset, crc32 = flow.place, 0
                while piece := member.take():
                    crc32 = isal_zlib.crc32(piece, crc32)
                self.paths.append(member.name)
                for column, value in ((self.offsets, offset), (self.lengths, member.size), (self.sums, crc32)):
                    column.append(value)
        if not self.paths:
            told = ", ".join(f"{count:,} {reason}" for reason, count in gate.skipped.items())
            raise UserError(f"{gate.archive} holds no file{told and f' (passed over: {told})'}")
        if both := self.folders.intersection(self.paths):
            raise gate.refuse(min(both), "is a file in one place and a folder in another")

    def add_folder(self, path: str) -> None:
        """Note a folder and those above it."""
        while path and path not in self.folders:
            self.folders.add(path)
            path = path.rpartition("/")[0]

    def index(self, inner: str) -> pa.Table:
        """Return the index, by path; `inner` is the folder of the corpus that the members would be unpacked into."""
        used = {path.rpartition("/")[0] for path in itertools.chain(self.paths, self.folders)}
        empty = [f"{folder}/" for folder in self.folders if folder not in used]
        start = f"{inner}/" if inner else ""
        numbers = ([*column, *([0] * len(empty))] for column in (self.offsets, self.lengths, self.sums))
        return table([[f"{start}{path}" for path in (*self.paths, *empty)], *numbers], SCHEMA)

    def record(self) -> pa.Table:
        """Return what unpacking writes down of the files: for a time of change, what a mount has in place of one."""
        return table([self.paths, self.lengths, self.sums, self.sums], unpack.SCHEMA)


def table(columns: Sequence[Sequence[Any]], schema: pa.Schema) -> pa.Table:
    """Return columns as a table under `schema`, sorted by path."""
    return pa.Table.from_arrays(list(map(pa.array, columns, schema.types)), schema=schema).sort_by("path")


def tar_path(archive: str) -> str:
    """Return where the plain tar of an archive goes: beside it."""
    folder, name = os.path.split(archive)
    return os.path.join(folder, f"{PACKED.sub('', name)}.tar")


def index_path(archive: str) -> str:
    """Return where the index of an archive's plain tar goes."""
    return tar_path(archive).removesuffix(".tar") + INDEX


def is_streamed(archive: str) -> bool:
    """Whether an archive was turned into a plain tar and an index, and both are still there."""
    return os.path.isfile(tar_path(archive)) and os.path.isfile(index_path(archive))


def can_stream(archive: str) -> bool:
    """Whether an archive is a tar, packed or not, and lies where it can be mounted; UserError if it is no archive."""
    kind, _ = unpack.format_of(archive)
    # One that is called X.tar and packed would have to become what it is called.
    apart = kind == "tar" or tar_path(archive) != archive
    return kind in TARS and apart and os.path.basename(os.path.dirname(archive)) == ARCHIVES


def stream_archive(archive: str, *, inner: str = "", caps: Caps = CAPS, record: str = "") -> Unpacked:
    """Turn the tar at FOLDER/.archives into a plain one with an index, remove the packed one, return what it holds.

    Its files can then be read below ``archive://FOLDER/inner``, as if they had been unpacked to FOLDER/inner. All or
    nothing: the index comes after the tar, then the record, and the packed one goes last; stopped before, the same call
    begins anew. `record` is as of unpack.py. UserError if the archive is damaged, hostile, beyond `caps`, no
    tar, or if the disk is full; Failed if another process has it in hand.
    """
    if not can_stream(archive):
        raise UserError(f"{archive} is no tar in a folder {ARCHIVES!r}, which could be read as it is; unpack it")
    archive = files.local(archive)
    gate, rows, tar = Gate(archive, caps), Rows(), tar_path(archive)
    try:
        with open(archive, "rb") as file:
            claim(file, archive)
            for path in (index_path(archive), record):
                if path:
                    files.remove(path)
            clear(tar)
            with contextlib.nullcontext() if tar == archive else files.open_whole(tar) as sink:
                flow = Copying(file, gate, sink)
                rows.fill(flow, gate)
        about = os.stat(tar)
        told = {b"tar_bytes": b"%d" % about.st_size, b"tar_mtime_ns": b"%d" % about.st_mtime_ns}
        index = rows.index(inner)
        write_table(index_path(archive), index.replace_schema_metadata({**(SCHEMA.metadata or {}), **told}))
        if record:
            write_table(record, rows.record())
        if tar != archive:
            files.remove(archive)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(f"the disk of {archive} is full, {gate.bytes:,} bytes into it; make room") from None
        raise UserError(f"cannot stream {archive}: {error.strerror or error}") from None
    kind = f"tar.{flow.packer}" if flow.packer else "tar"
    held = sum(rows.lengths)
    return Unpacked(files=len(rows.paths), bytes=held, format=kind, skipped=dict(sorted(gate.skipped.items())))


def share_streamed(corpus: str, place: str, source: str, raw: str) -> int:
    """Let a corpus read the streamed archives of another, by links; return how many. Both have their folders in `raw`.

    `source` is the other corpus and the folder in it that is to appear at `place`. Nothing, unless that is at the same
    place in both: an index says where its files are.
    """
    other, _, inner = source.partition("/")
    theirs, ours = os.path.join(raw, other, ARCHIVES), os.path.join(raw, corpus, ARCHIVES)
    if inner != place or not os.path.isdir(theirs):
        return 0
    indexes = [name for name in os.listdir(theirs) if name.endswith(INDEX)]
    for index in indexes:
        os.makedirs(ours, exist_ok=True)
        for name in (index.removesuffix(".parquet"), index):
            with contextlib.suppress(FileExistsError):
                # Folders on the way may be links themselves, to other disks.
                to = os.path.join(os.path.realpath(theirs), name)
                os.symlink(os.path.relpath(to, os.path.realpath(ours)), os.path.join(ours, f"{other}-{name}"))
    return len(indexes)


def claim(file: IO[bytes], archive: str) -> None:
    """Take an archive for this process until `file` is closed; Failed if another has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Failed(f"{archive} is being read by another process; wait for it, or end it") from None
    except OSError:
        pass  # a disk without locks
    if not os.path.exists(archive):
        raise Failed(f"{archive} was turned into {tar_path(archive)} by another process meanwhile")


def clear(tar: str) -> None:
    """Remove what killed ones left of their attempts at a tar."""
    folder, name = os.path.split(tar)
    for attempt in leftovers(folder, name):
        files.remove(os.path.join(folder, attempt))


def leftovers(folder: str, name: str) -> Iterator[str]:
    """Yield the names of attempts at a file."""
    pattern = re.compile(rf"\.{re.escape(name)}\.[0-9]+-[0-9a-f]{{8}}\.tmp")
    yield from (entry for entry in os.listdir(folder) if pattern.fullmatch(entry))
