"""Manifests on disk: one Parquet file a split, one row a clip, under a declared schema."""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from msgspec.structs import astuple

from manifests import files
from manifests.clips import Clip
from manifests.errors import UserError

FORMAT = "salmonn-manifest-1"
GROUP = 16384
"""Rows that a reader can take at a time."""

SPAN = pa.struct(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("start", pa.float64(), nullable=False),
        pa.field("seconds", pa.float64()),
        pa.field("channel", pa.int32()),
        pa.field("gain", pa.float64(), nullable=False),
        pa.field("speech", pa.string(), nullable=False),
        pa.field("voice", pa.string(), nullable=False),
    ]
)
PAIR = pa.struct([pa.field("question", pa.string()), pa.field("answer", pa.string())])
SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("state", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("seconds", pa.float64(), nullable=False),
        pa.field("audio", pa.list_(SPAN), nullable=False),
        pa.field("join", pa.string(), nullable=False),
        pa.field("language", pa.string(), nullable=False),
        pa.field("speaker", pa.string(), nullable=False),
        pa.field("gender", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("translations", pa.map_(pa.string(), pa.string()), nullable=False),
        pa.field("captions", pa.list_(pa.string()), nullable=False),
        pa.field("labels", pa.map_(pa.string(), pa.string()), nullable=False),
        pa.field("questions", pa.list_(PAIR), nullable=False),
        pa.field("license", pa.string(), nullable=False),
    ],
    metadata={"format": FORMAT},
)
SEEN = pa.schema(
    [pa.field("stamp", pa.int64(), nullable=False), pa.field("verified", pa.bool_(), nullable=False)],
    metadata={"format": "salmonn-seen-1"},
)
"""What a scan saw of the files on this machine, row by row of the manifest. No dataset holds it."""


class Scanned(msgspec.Struct, frozen=True, kw_only=True):
    """A clip and what the scan saw of its audio."""

    clip: Clip
    state: str = "ok"
    """``ok``, or why the clip is excluded: ``audio_missing``, ``duplicate_id``, or what its reader says."""
    detail: str = ""
    """More on that, for a person."""
    bytes: int = 0
    """Size of all its audio files."""
    seconds: float = 0.0
    """Length by the headers of its files, 0 where they cannot be read: an estimate, the build measures."""
    stamp: int = 0
    """Changes with the content of its files (their times of change). Not a fact of the corpus, so kept in SEEN."""
    verified: bool = False
    """Whether all its files came from archives whose digests were checked. Kept in SEEN, too."""


def from_row(row: dict[str, Any]) -> Scanned:
    """Return the clip of one row."""
    facts = {name: row[name] for name in ("id", "audio", "join", "language", "speaker", "gender", "text", "license")}
    facts["translations"], facts["labels"] = dict(row["translations"]), dict(row["labels"])
    facts["captions"] = row["captions"]
    facts["questions"] = [(pair["question"], pair["answer"]) for pair in row["questions"]]
    scanned = {name: row[name] for name in ("state", "detail", "bytes", "seconds", "stamp", "verified") if name in row}
    return Scanned(clip=msgspec.convert(facts, Clip), **scanned)


def write_manifest(url: str, rows: Iterable[Scanned]) -> None:
    """Write a manifest whole, and no more than GROUP of its rows in memory; the same rows give the same bytes."""
    left = iter(rows)
    # Before the file is opened: rows that fail at once, for want of a corpus, leave not even a folder behind.
    group = list(itertools.islice(left, GROUP))
    if not group:
        write_table(url, SCHEMA.empty_table())
        return
    with (
        files.open_whole(url) as sink,
        pq.ParquetWriter(sink, SCHEMA, compression="zstd", store_schema=True) as writer,
    ):
        while group:
            writer.write_batch(to_batch(group), row_group_size=GROUP)
            group = list(itertools.islice(left, GROUP))


def to_batch(rows: Sequence[Scanned]) -> pa.RecordBatch:
    """Return rows as columns under SCHEMA, many times faster than by a dict a row."""
    facts = columns_of(rows)
    facts |= columns_of(facts["clip"])
    return pa.RecordBatch.from_arrays([to_array(facts[field.name], field.type) for field in SCHEMA], schema=SCHEMA)


def columns_of(values: Sequence[msgspec.Struct]) -> dict[str, Sequence[Any]]:
    """Return the fields of one kind of values, each with what it is in all of them."""
    return dict(zip(values[0].__struct_fields__, zip(*map(astuple, values), strict=True), strict=True))


def to_array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Return one column, and what is nested in it column by column."""
    if pa.types.is_map(kind):
        pairs = [pair for value in values if value for pair in sorted(value.items())]
        keys, items = (to_array([pair[at] for pair in pairs], pa.string()) for at in (0, 1))
        return pa.MapArray.from_arrays(bounds(values), keys, items)
    if pa.types.is_list(kind):
        content = to_array(list(itertools.chain.from_iterable(values)), kind.value_type)
        return pa.ListArray.from_arrays(bounds(values), content, type=kind)
    if pa.types.is_struct(kind):
        rows = values if kind == PAIR else map(astuple, values)
        columns = zip(*rows, strict=True) if values else [()] * kind.num_fields
        arrays = [to_array(column, field.type) for field, column in zip(kind, columns, strict=True)]
        return pa.StructArray.from_arrays(arrays, fields=list(kind))
    if values and values.count(values[0]) == len(values):  # most columns say one thing all the way down
        return pa.repeat(pa.scalar(values[0], kind), len(values))
    return pa.array(values, kind)


def bounds(values: Sequence[Sized]) -> pa.Array:
    """Return where each list begins in all of them behind one another, and where the last ends."""
    return pa.array(list(itertools.accumulate(map(len, values), initial=0)), pa.int32())


def write_table(url: str, table: pa.Table) -> None:
    """Write a Parquet file whole, zstd-compressed, in row groups that a reader can take one at a time."""
    files.write_whole(url, to_bytes(table))


def write_tables(url: str, tables: Iterable[pa.Table], schema: pa.Schema) -> None:
    """Write tables behind one another as one Parquet file, with as little of them in memory as a row group takes.

    The row groups, and so the bytes, do not depend on how the rows are cut into tables.
    """
    told = with_statistics(schema)
    with (
        files.open_whole(url) as sink,
        pq.ParquetWriter(sink, schema, compression="zstd", store_schema=True, write_statistics=told) as writer,
    ):
        held: list[pa.Table] = []
        for table in tables:
            held.append(table.cast(schema).replace_schema_metadata(schema.metadata))
            while sum(part.num_rows for part in held) >= GROUP:
                rows = pa.concat_tables(held)
                writer.write_table(rows.slice(0, GROUP).combine_chunks(), row_group_size=GROUP)
                held = [rows.slice(GROUP)]
        rows = pa.concat_tables([schema.empty_table(), *held]).combine_chunks()
        if rows.num_rows:
            writer.write_table(rows, row_group_size=GROUP)


def to_bytes(table: pa.Table) -> bytes:
    """Return a table as a Parquet file."""
    sink = io.BytesIO()
    told = with_statistics(table.schema)
    pq.write_table(table, sink, compression="zstd", row_group_size=GROUP, store_schema=True, write_statistics=told)
    return sink.getvalue()


@functools.cache
def with_statistics(schema: pa.Schema) -> list[str]:
    """Return the columns whose least and greatest values are told: all but fractions, which may be NaN.

    The statistics of Parquet leave NaN out, and DuckDB 2.0 concludes from them that there is none: ``isnan`` is then
    false for every row.
    """
    sink = io.BytesIO()
    pq.write_table(schema.empty_table(), sink)
    columns = pq.ParquetFile(sink).schema
    paths = [columns.column(place) for place in range(len(columns))]
    return [column.path for column in paths if column.physical_type not in ("FLOAT", "DOUBLE")]


@contextlib.contextmanager
def open_parquet(url: str, *, dictionaries: list[str] | None = None, buffer_size: int = 0) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file for reading, with `dictionaries` as in `read_table`; ArrowException if it is not one.

    No thread of Arrow may hold a file of Python's: when the interpreter ends just then, the process is aborted
    ("terminate called without an active exception", apache/arrow issue 34314). So a local file is Arrow's own, and
    who reads any other must say ``use_threads=False``.
    """
    with pa.OSFile(files.local(url)) if files.is_local(url) else files.open_read(url) as file:
        yield pq.ParquetFile(file, read_dictionary=dictionaries, pre_buffer=False, buffer_size=buffer_size)


def read_table(
    url: str, schema_format: str, columns: list[str] | None = None, dictionaries: list[str] | None = None
) -> pa.Table:
    """Read a Parquet file that `write_table` wrote; UserError if it is missing, not Parquet, or of another format.

    `dictionaries` are paths of columns whose few texts are kept once and referred to by number.
    """
    if not files.exists(url):
        raise UserError(f"there is no file {files.redact(url)!r}")
    try:
        with open_parquet(url, dictionaries=dictionaries) as parquet:
            check_format(parquet, url, schema_format)
            return parquet.read(columns=columns, use_threads=files.is_local(url))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{files.redact(url)} is not a whole Parquet file ({error}); make it anew") from None


def read_groups(
    url: str, schema_format: str, columns: list[str], dictionaries: list[str] | None = None
) -> Iterator[pa.Table]:
    """Yield the row groups of a Parquet file that `write_table` wrote, one in memory at a time; as `read_table`."""
    if not files.exists(url):
        raise UserError(f"there is no file {files.redact(url)!r}")
    try:
        with open_parquet(url, dictionaries=dictionaries) as parquet:
            check_format(parquet, url, schema_format)
            for group in range(parquet.num_row_groups):
                # A thread a column takes more time of all cores than one takes of its own, and is no sooner done.
                yield parquet.read_row_group(group, columns, use_threads=False)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{files.redact(url)} is not a whole Parquet file ({error}); make it anew") from None


def check_format(parquet: pq.ParquetFile, url: str, schema_format: str) -> None:
    """Raise UserError for a file of another format."""
    found = (parquet.schema_arrow.metadata or {}).get(b"format", b"").decode()
    if found != schema_format:
        raise UserError(f"{files.redact(url)} has the format {found!r}, not {schema_format!r}: make it anew")


def read_metadata(url: str) -> dict[bytes, bytes]:
    """Return what the head of a Parquet file says; empty if there is no such file, or it is not whole."""
    if not files.exists(url):
        return {}
    with files.open_read(url) as file:
        try:
            return dict(pq.read_metadata(file).metadata or {})
        except (pa.ArrowException, OSError):
            return {}


def read_manifest(url: str) -> list[Scanned]:
    """Return the rows of a manifest."""
    return [from_row(row) for row in read_table(url, FORMAT).to_pylist()]


def read_group(url: str, group: int) -> list[Scanned]:
    """Return the rows of one row group of a Parquet file with the columns of a manifest, and read no other."""
    with open_parquet(url) as parquet:
        return [from_row(row) for row in parquet.read_row_group(group, use_threads=False).to_pylist()]
