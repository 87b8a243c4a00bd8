"""Members: the files in tars that are not unpacked: where they are, by path, and their bytes.

Beside ``X.tar`` lies its index ``X.tar.parquet``, which pipelines/unpacking/stream_archive.py writes last.
"""

from __future__ import annotations

import errno
import io
import os
import weakref
from bisect import bisect_left
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests.errors import UserError
from manifests.tables import read_table

FORMAT = "salmonn-mounted-1"
SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("crc32", pa.int64(), nullable=False),
    ],
    metadata={"format": FORMAT},
)
"""A row a file: its path below the folder of the corpus, and its first byte in the tar. Empty folders end with /.

The metadata hold the bytes of the tar and its time of change in nanoseconds.
"""
INDEX = ".tar.parquet"
"""How the names of indexes end."""
AGAIN = "remove the tar and its index, and fetch the archive anew"


class Tar:
    """A tar, open for as long as this lives."""

    def __init__(self, path: str, size: int, changed: int) -> None:
        """Open the tar at `path`, indexed when it had `size` bytes and was changed last; UserError if it has others."""
        self.path = path
        try:
            self.handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise UserError(f"{path} is gone, but not its index beside it; {AGAIN}") from None
        weakref.finalize(self, os.close, self.handle)
        about = os.fstat(self.handle)
        if about.st_size != size:
            raise UserError(f"{path} has {about.st_size:,} bytes and not {size:,}; {AGAIN}")
        # A tar that was written to since may hold what nobody has checked: its members are others then.
        self.changed = "" if about.st_mtime_ns == changed else f" {about.st_mtime_ns}"

    def read(self, start: int, length: int) -> bytes:
        """Return `length` bytes from byte `start` on; UserError if the tar ends before."""
        data = os.pread(self.handle, length, start)
        while len(data) < length:
            more = os.pread(self.handle, length - len(data), start + len(data))
            if not more:
                raise UserError(f"{self.path} ends before what its index says; {AGAIN}")
            data += more
        return data


def open_tar(index: str) -> tuple[Tar, pa.Table]:
    """Return the tar of an index and the rows of it; UserError if one of them is not what the other was made for."""
    rows = read_table(index, FORMAT, SCHEMA.names)
    told = rows.schema.metadata or {}
    try:
        rows = rows.cast(SCHEMA).combine_chunks()
        size, changed = int(told[b"tar_bytes"]), int(told[b"tar_mtime_ns"])
    except (pa.ArrowException, KeyError, ValueError):
        raise UserError(f"{index} is damaged; {AGAIN}") from None
    tar = Tar(index.removesuffix(".parquet"), size, changed)
    offsets, lengths = (rows[name].to_numpy() for name in ("offset", "bytes"))
    if ((offsets < 0) | (lengths < 0) | (lengths > size) | (offsets > size - lengths)).any():
        raise UserError(f"{index} names bytes that {tar.path} does not have; {AGAIN}")
    return tar, rows


class Window(io.RawIOBase):
    """A large member, as a file."""

    def __init__(self, tar: Tar, offset: int, size: int) -> None:
        """Show the `size` bytes of `tar` from `offset` on."""
        self.tar, self.offset, self.size, self.at = tar, offset, size, 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a place."""
        place = offset + (0, self.at, self.size)[whence]
        if place < 0:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self.at = place
        return place

    def tell(self) -> int:
        """Return the place."""
        return self.at

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer and return how many bytes; 0 at the end."""
        data = self.tar.read(self.offset + self.at, max(0, min(len(buffer), self.size - self.at)))
        buffer[: len(data)] = data
        self.at += len(data)
        return len(data)


class Members:
    """The members of tars by path: arrays of some forty bytes each and the name, and a dict of the folders alone."""

    def __init__(self, indexes: list[pa.Table]) -> None:
        """Put the rows of all indexes in order; UserError if a file of one is a folder in another."""
        numbered = [
            rows.append_column("tar", pa.array(np.full(len(rows), tar, np.int16))) for tar, rows in enumerate(indexes)
        ]
        table = pa.concat_tables(numbered).combine_chunks()
        empty = pc.ends_with(table["path"], "/")
        self.folders: dict[str, tuple[int, int]] = {"": (0, 0)}
        """Each to the first of its files and the one behind the last."""
        for path in table.filter(empty)["path"].to_pylist():
            self.add_folder(path.rstrip("/"))
        table = table.filter(pc.invert(empty))
        table = table.append_column("folder", pc.replace_substring_regex(table["path"], "/?[^/]*$", ""))
        table = table.append_column("name", pc.replace_substring_regex(table["path"], "^.*/", ""))
        table = table.sort_by([("folder", "ascending"), ("name", "ascending"), ("tar", "ascending")]).combine_chunks()
        if table.num_rows:
            below = pc.equal(table["folder"][1:], table["folder"][:-1]).to_numpy()
            again = below & pc.equal(table["name"][1:], table["name"][:-1]).to_numpy()
            table = table.filter(pa.array(np.concatenate([[True], ~again]))).combine_chunks()
            firsts = np.concatenate([[0], 1 + np.flatnonzero(~below[~again])])
            lasts = [*firsts[1:].tolist(), table.num_rows]
            for folder, first, last in zip(
                table["folder"].take(pa.array(firsts)).to_pylist(), firsts.tolist(), lasts, strict=True
            ):
                self.add_folder(folder, first, last)
        self.sorted = sorted(self.folders)
        self.next = 0
        """The member behind the one found last, which is most often the one looked for next."""
        both = pc.is_in(table["path"], pa.array(self.sorted, pa.string()))
        if pc.any(both).as_py():
            path = table["path"].filter(both)[0]
            raise UserError(f"{path} is a file in one of the mounted archives and a folder in another; unpack them")
        self.tar, self.offset, self.bytes, self.crc32 = (
            np.ascontiguousarray(table[name].to_numpy()).data for name in ("tar", "offset", "bytes", "crc32")
        )
        names = table["name"].cast(pa.binary())
        self.names = b"".join(names.to_pylist())
        self.ends = np.concatenate([[0], np.cumsum(pc.binary_length(names).to_numpy())]).astype(np.int64).data

    def add_folder(self, folder: str, first: int = 0, last: int = 0) -> None:
        """Note a folder and those above it."""
        self.folders[folder] = (first, last)
        while folder and (folder := folder.rpartition("/")[0]) not in self.folders:
            self.folders[folder] = (0, 0)

    def find(self, path: str) -> int:
        """Return the number of a member, -1 if there is none."""
        folder, _, name = path.rpartition("/")
        low, last = self.folders.get(folder, (0, 0))
        names, ends, high, wanted = self.names, self.ends, last, name.encode("utf-8", "surrogateescape")
        row = self.next
        if low <= row < last and names[ends[row] : ends[row + 1]] == wanted:
            self.next = row + 1
            return row
        while low < high:
            middle = (low + high) // 2
            if names[ends[middle] : ends[middle + 1]] < wanted:
                low = middle + 1
            else:
                high = middle
        self.next = low + 1
        return low if low < last and names[ends[low] : ends[low + 1]] == wanted else -1

    def files(self, folder: str) -> list[str]:
        """Return the names of the files directly in a folder."""
        first, last = self.folders.get(folder, (0, 0))
        return [self.names[self.ends[row] : self.ends[row + 1]].decode() for row in range(first, last)]

    def below(self, folder: str) -> list[str]:
        """Return all folders below a folder, itself not."""
        if not folder:
            return self.sorted[1:]
        # All that begin with "folder/" stand between it and "folder0": 0 is the sign behind /.
        return self.sorted[bisect_left(self.sorted, f"{folder}/") : bisect_left(self.sorted, f"{folder}0")]
