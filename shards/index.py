"""The index: one row a sample, one Parquet file a split; and the dataset that dataset.json and the index describe."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from manifests import files
from manifests.errors import UserError, nearest
from manifests.tables import read_groups, read_table
from shards.quality import Quality
from shards.traits import TRAITS, traits

FORMAT = "salmonn-dataset-5"

TEXT = pa.string()
TEXTS = pa.list_(pa.field("item", TEXT, nullable=False))


def field(name: str, kind: pa.DataType) -> pa.Field:
    """Return a column without nulls."""
    return pa.field(name, kind, nullable=False)


QUALITY = {"float": pa.float32(), "bool": pa.bool_()}
SCHEMA = pa.schema(
    [
        field("key", TEXT),
        field("id", TEXT),
        field("corpus", TEXT),
        field("split", TEXT),
        field("shard", TEXT),  # relative to the dataset
        field("flac_offset", pa.int64()),  # bytes from the start of the shard to the content of <key>.flac
        field("flac_bytes", pa.int64()),
        field("json_offset", pa.int64()),
        field("json_bytes", pa.int64()),
        field("samples", pa.int64()),  # at 16 kHz
        field("seconds", pa.float64()),
        field("language", TEXT),
        field("speaker", TEXT),
        field("gender", TEXT),
        field("text", TEXT),  # as published
        field("license", TEXT),
        field("provenance", TEXT),
        field("tasks", TEXTS),  # one entry an instruction, like prompts and answers
        field("prompts", TEXTS),
        field("answers", pa.list_(pa.field("item", TEXTS, nullable=False))),
        *(field(name, kind) for name, kind in TRAITS.items()),  # of each prompt and answer (shards/traits.py)
        field("sources", TEXTS),  # files of the corpus, relative to its root
        field("source_bytes", pa.int64()),
        field("source_rate", pa.int32()),  # Hz, of the first
        field("action", TEXT),  # copy, transcode or render
        # Of the audio as stored, measured when it was packed; NaN where it cannot be said (shards/quality.py).
        *(field(name, QUALITY[kind]) for name, kind in Quality.__annotations__.items()),
        field("fingerprint", pa.binary()),  # shards/fingerprint.py; empty where there is none, or nobody listened
        field("pcm_md5", TEXT),
        field("flac_crc32", pa.uint32()),
        field("json_crc32", pa.uint32()),
    ],
    metadata={"format": FORMAT},
)
FOR_MACHINES = ("fingerprint", *TRAITS)
"""Columns that tell a person nothing."""
QUARANTINE = pa.schema(
    [
        field("id", TEXT),
        field("verdict", TEXT),  # quarantined: the audio is bad; excluded: there is nothing to pack
        field("reason", TEXT),
        field("detail", TEXT),
        field("source", TEXT),
        field("bytes", pa.int64()),
    ],
    metadata={"format": FORMAT},
)


def with_traits(rows: pa.Table) -> pa.Table:
    """Return rows of an index under SCHEMA, with what is told of the texts they hold."""
    told = traits(*(rows[name].combine_chunks() for name in ("prompts", "answers")))
    columns = [told[name] if name in told else rows[name] for name in SCHEMA.names]
    return pa.table(columns, schema=SCHEMA)


def untrue(rows: pa.Table) -> list[str]:
    """Return the keys of rows that tell something else of their texts than these do."""
    true = with_traits(rows)
    wrong = [
        row["key"]
        for name in TRAITS
        if not rows[name].equals(true[name])
        for row, other in zip(rows.select(["key", name]).to_pylist(), true[name].to_pylist(), strict=True)
        if row[name] != other
    ]
    return list(dict.fromkeys(wrong))


class File(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a dataset and what proves it."""

    path: str
    bytes: int
    sha256: str


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """One split of one corpus in a dataset. found = packed + quarantined + excluded, always."""

    corpus: str
    split: str
    tasks: tuple[str, ...]
    found: int
    packed: int
    quarantined: int
    excluded: int
    reasons: dict[str, int]
    """How many clips were refused, for each reason."""
    skipped: dict[str, dict[str, int]]
    """How many packed clips a task could ask nothing of: task, reason, clips."""
    phones: dict[str, int] = {}
    """Where the pronunciations of its words come from; ``unknown`` is out of vocabulary."""
    seconds: float
    license: str
    published_clips: int
    """How many clips the corpus says this split has."""
    index: File
    quarantine: File
    shards: tuple[File, ...]


class Manifest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What dataset.json holds."""

    format: str
    recipe: str
    title: str
    plan: str
    """Digest of everything that determined the bytes."""
    digest: str
    """Digest of the indexes, and so of every byte of every sample."""
    sources: tuple[Source, ...]
    tools: dict[str, str]
    provenance: dict[str, str] = {}
    """Where a model wrote the answers: which one, and how. Empty, and not in the file, where corpora did."""


class Dataset:
    """A built dataset. Opening it reads dataset.json; the index is read when asked for, the shards never."""

    def __init__(self, url: str | Path) -> None:
        """Open the dataset in the folder at `url`; UserError if there is none."""
        self.url = str(url).rstrip("/")
        place = files.join(self.url, "dataset.json")
        if not files.exists(place):
            unfinished = files.exists(files.join(self.url, "build", "plan.json"))
            hint = "its build has not finished, run it again" if unfinished else "salmonn build makes one"
            raise UserError(f"there is no dataset in {files.redact(self.url)!r}; {hint}")
        try:
            self.manifest = msgspec.json.decode(files.read_bytes(place), type=Manifest)
        except (msgspec.ValidationError, msgspec.DecodeError) as error:
            raise UserError(f"{files.redact(place)} is not a dataset of this version: {error}") from None
        if self.manifest.format != FORMAT:
            raise UserError(
                f"{files.redact(place)} has the format {self.manifest.format!r}, this version reads {FORMAT!r}"
            )

    @property
    def digest(self) -> str:
        """What identifies the content: two datasets with one digest hold the same samples."""
        return self.manifest.digest

    def source(self, corpus: str, split: str) -> Source:
        """Return what dataset.json says of one split; UserError if it is not in the dataset."""
        names = {f"{source.corpus}:{source.split}": source for source in self.manifest.sources}
        name = f"{corpus}:{split}"
        if name not in names:
            raise UserError(f"the dataset {files.redact(self.url)!r} has no {name}; {nearest(name, names)}")
        return names[name]

    def table(
        self, corpus: str, split: str, columns: list[str] | None = None, dictionaries: list[str] | None = None
    ) -> pa.Table:
        """Return the index of one split, all columns or some; of some, few texts as dictionaries."""
        return read_table(files.join(self.url, self.source(corpus, split).index.path), FORMAT, columns, dictionaries)

    def groups(
        self, corpus: str, split: str, columns: list[str], dictionaries: list[str] | None = None
    ) -> Iterator[pa.Table]:
        """Yield some columns of the index of one split, a row group in memory at a time."""
        return read_groups(files.join(self.url, self.source(corpus, split).index.path), FORMAT, columns, dictionaries)

    @functools.cached_property
    def keys(self) -> dict[str, tuple[str, str]]:
        """Map every key to its corpus and split."""
        return {
            key: (source.corpus, source.split)
            for source in self.manifest.sources
            for key in self.table(source.corpus, source.split, ["key"])["key"].to_pylist()
        }

    def row(self, key: str) -> dict[str, Any]:
        """Return the index row of one sample; UserError names the nearest key if there is none."""
        if key not in self.keys:
            raise UserError(f"the dataset has no sample {key!r}; {nearest_key(key, self.keys)}")
        table = self.table(*self.keys[key])
        row: dict[str, Any] = table.slice(table["key"].to_pylist().index(key), 1).to_pylist()[0]
        return row


def nearest_key(key: str, keys: dict[str, tuple[str, str]]) -> str:
    """Say which key was probably meant: there are too many to list."""
    said = nearest(key, keys)
    return said if said.startswith("did") else f"its first is {next(iter(keys), '')!r}"


def digest_of(indexes: list[File]) -> str:
    """Return the digest of a dataset from its indexes; they hold the digest of every member of every shard."""
    text = "\n".join(f"{file.path} {file.sha256}" for file in sorted(indexes, key=lambda file: file.path))
    return hashlib.sha256(text.encode()).hexdigest()


def proof(url: str, path: str) -> File:
    """Return the size and the digest of the file at `path` of the dataset folder `url`."""
    content = files.read_bytes(files.join(url, path))
    return File(path=path, bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
