"""Writing one shard: samples in, a tar and its index rows out; whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import zlib
from collections.abc import Iterator
from typing import IO, Any

import msgspec
import pyarrow as pa

from manifests import files
from shards.index import SCHEMA, File
from shards.render import Stored
from shards.sample import BLOCK, Sample, member_header, padding, tar_end


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
        flac_offset = self.append(f"{sample.key}.flac", stored.flac)
        json_offset = self.append(f"{sample.key}.json", text)
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
                "flac_bytes": len(stored.flac),
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
                "pcm_md5": stored.pcm_md5,
                "flac_sha256": hashlib.sha256(stored.flac).hexdigest(),
                "flac_crc32": zlib.crc32(stored.flac),
                "json_crc32": zlib.crc32(text),
                "json_sha256": hashlib.sha256(text).hexdigest(),
            }
        )

    def append(self, name: str, content: bytes) -> int:
        """Write one member and return where its content begins."""
        begins = self.bytes + BLOCK
        # Piece by piece: joined, they would be in memory twice more, and a clip may have hundreds of megabytes.
        for piece in (member_header(name, len(content)), content, padding(len(content))):
            self.put(piece)
        return begins

    def put(self, content: bytes) -> None:
        """Write bytes and count them."""
        self.file.write(content)
        self.sha256.update(content)
        self.bytes += len(content)

    def table(self) -> pa.Table:
        """Return the index rows."""
        return pa.Table.from_pylist(self.rows, schema=SCHEMA)

    def proof(self) -> File:
        """Return the shard's size and digest, once it is closed."""
        return File(path=self.path, bytes=self.bytes, sha256=self.sha256.hexdigest())


@contextlib.contextmanager
def open_shard(dataset: str, path: str) -> Iterator[ShardWriter]:
    """Open the shard at `path` of the dataset folder; it appears when the block ends without error."""
    with files.open_whole(files.join(dataset, path)) as file:
        writer = ShardWriter(file, path)
        yield writer
        writer.put(tar_end(writer.bytes))
