"""Writing one shard: samples in, a tar and its index rows out; whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from typing import IO, Any

import msgspec
import pyarrow as pa
from isal import isal_zlib

from manifests import files
from manifests.errors import Failed
from shards.index import SCHEMA, File, with_traits
from shards.render import Stored
from shards.sample import BLOCK, Sample, member_header, padding, tar_end

READ = 2**18
"""Bytes read back at a time, into memory that the processor has at hand."""


class ShardWriter:
    """Appends samples to a tar and keeps their index rows. Made by `open_shard`."""

    def __init__(self, file: IO[bytes], path: str) -> None:
        """Write to `file`; `path` is the shard's, relative to the dataset."""
        self.file = file
        self.path = path
        self.bytes = 0
        self.sha256 = hashlib.sha256()
        self.rows: list[dict[str, Any]] = []

    def add(self, sample: Sample, stored: Stored, sources: list[str], source_bytes: int) -> None:
        """Append one sample; `sources` are its files in the corpus."""
        text = sample.encode()
        flac, length = stored.flac, len(stored.flac)
        flac_offset = self.bytes + BLOCK
        json_offset = flac_offset + length + len(padding(length)) + BLOCK
        # The audio by itself: joined to the rest, it would be in memory twice, and may have hundreds of megabytes.
        self.put(member_header(f"{sample.key}.flac", length))
        self.put(flac)
        tail = (padding(length), member_header(f"{sample.key}.json", len(text)), text, padding(len(text)))
        self.put(b"".join(tail))
        same = (
            "key",
            "id",
            "corpus",
            "split",
            "samples",
            "seconds",
            "language",
            "speaker",
            "gender",
            "text",
            "license",
            "provenance",
        )
        self.rows.append(
            {name: getattr(sample, name) for name in same}
            | {
                "shard": self.path,
                "flac_offset": flac_offset,
                "flac_bytes": length,
                "json_offset": json_offset,
                "json_bytes": len(text),
                "tasks": [instruction.task for instruction in sample.instructions],
                "prompts": [instruction.prompt for instruction in sample.instructions],
                "answers": [list(instruction.answers) for instruction in sample.instructions],
                "sources": sources,
                "source_bytes": source_bytes,
                "source_rate": stored.source_rate,
                "action": stored.action,
                **msgspec.structs.asdict(stored.quality),
                "fingerprint": stored.fingerprint,
                "pcm_md5": stored.pcm_md5,
                "flac_crc32": isal_zlib.crc32(flac),
                "json_crc32": isal_zlib.crc32(text),
            }
        )

    def put(self, content: bytes) -> None:
        """Write bytes and count them."""
        self.file.write(content)
        self.sha256.update(content)
        self.bytes += len(content)

    def table(self) -> pa.Table:
        """Return the index rows."""
        return with_traits(pa.Table.from_pylist(self.rows, schema=SCHEMA))

    def read_back(self, url: str) -> None:
        """Read the shard at `url`, once it is closed, and compare every byte with what was written.

        Failed, and the shard removed, where they differ.
        """
        end, held = 0, memoryview(bytearray(READ))
        with files.open_read(url) as file:
            for row in self.rows:
                for kind in ("flac", "json"):
                    length = row[f"{kind}_bytes"]
                    before = file.read(BLOCK) == member_header(f"{row['key']}.{kind}", length)
                    same = before and checksum(file, length, held) == row[f"{kind}_crc32"]
                    if not same or file.read(-length % BLOCK) != padding(length):
                        self.disown(url, f"{row['key']}.{kind} at byte {end}")
                    end += BLOCK + length + len(padding(length))
            if file.read(self.bytes) != tar_end(end):
                self.disown(url, f"the end at byte {end}")

    def disown(self, url: str, what: str) -> None:
        """Remove the shard at `url`; Failed."""
        files.remove(url)
        raise Failed(
            f"{files.redact(url)}: {what} is not what was written; it is removed: "
            "check the disk and the memory of this machine, then run the command again"
        )

    def proof(self) -> File:
        """Return the shard's size and digest, once it is closed."""
        return File(path=self.path, bytes=self.bytes, sha256=self.sha256.hexdigest())


def checksum(file: IO[bytes], length: int, held: memoryview) -> int:
    """Return the CRC-32 of the next `length` bytes of a file, of fewer where it ends before; `held` holds them."""
    crc = 0
    while length and (read := file.readinto(held[:length])):  # type: ignore[attr-defined]
        crc = isal_zlib.crc32(held[:read], crc)
        length -= read
    return crc


@contextlib.contextmanager
def open_shard(dataset: str, path: str) -> Iterator[ShardWriter]:
    """Open the shard at `path` of the dataset folder; it appears when the block ends without error."""
    with files.open_whole(files.join(dataset, path)) as file:
        writer = ShardWriter(file, path)
        yield writer
        writer.put(tar_end(writer.bytes))
