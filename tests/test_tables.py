"""Manifests on disk: what goes in comes out, the same rows are the same bytes, and a torn file is told as one."""

from __future__ import annotations

import itertools
import math
import random
from pathlib import Path

import duckdb
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests import AudioRef, Clip, UserError, files
from manifests.tables import (
    FORMAT,
    SCHEMA,
    Scanned,
    read_group,
    read_manifest,
    read_table,
    write_manifest,
    write_table,
    write_tables,
)

texts = st.text(max_size=12) | st.sampled_from(
    ["", "\n", "a\r\nb", "\u00e9", "e\u0301", "\u4f60\u597d", "\U0001f3b5", "None"]
)
texts = texts.filter(lambda text: not any("\ud800" <= sign <= "\udfff" for sign in text))
amounts = st.floats(0, 1e6)
refs = st.builds(
    AudioRef,
    path=texts,
    start=amounts,
    seconds=st.none() | amounts,
    channel=st.none() | st.integers(0, 15),
    gain=st.floats(-4, 4),
)
clips = st.builds(
    Clip,
    id=texts,
    audio=st.lists(refs, max_size=3).map(tuple),
    join=st.sampled_from(["single", "concat", "mix"]),
    language=texts,
    speaker=texts,
    gender=st.sampled_from(["", "female", "male"]),
    text=texts,
    translations=st.dictionaries(texts, texts, max_size=2),
    captions=st.lists(texts, max_size=3).map(tuple),
    labels=st.dictionaries(texts, texts, max_size=2),
    questions=st.lists(st.tuples(texts, texts), max_size=2).map(tuple),
    license=texts,
)
rows = st.builds(
    Scanned, clip=clips, state=st.sampled_from(["ok", "audio_missing"]), bytes=st.integers(0, 2**62), seconds=amounts
)

URL = "memory://tables/a.parquet"


@given(st.lists(rows, max_size=4))
def test_a_manifest_is_read_back_as_it_was_written(scanned: list[Scanned]) -> None:
    write_manifest(URL, scanned)
    assert read_manifest(URL) == scanned


@given(st.lists(rows, min_size=1, max_size=6), st.integers(1, 6))
def test_a_row_group_is_read_alone(scanned: list[Scanned], size: int) -> None:
    write_manifest(URL, scanned)
    pq.write_table(read_table(URL, FORMAT), sink := pa.BufferOutputStream(), row_group_size=size)
    files.write_whole(URL, sink.getvalue().to_pybytes())
    groups = [scanned[first : first + size] for first in range(0, len(scanned), size)]
    assert [read_group(URL, group) for group in range(len(groups))] == groups


@given(st.lists(st.integers(0, 40_000), max_size=6))
def test_tables_behind_one_another_give_the_bytes_of_one(lengths: list[int]) -> None:
    schema = pa.schema([pa.field("a", pa.int64(), nullable=False)], metadata={"format": "x"})
    whole = pa.table([pa.array(range(sum(lengths)), pa.int64())], schema=schema)
    bounds = [sum(lengths[:place]) for place in range(len(lengths) + 1)]
    write_tables(URL, (whole.slice(first, end - first) for first, end in itertools.pairwise(bounds)), schema)
    parts = files.read_bytes(URL)
    write_tables(URL, [whole], schema)
    assert files.read_bytes(URL) == parts
    assert read_table(URL, "x") == whole


@settings(max_examples=30)
@given(st.lists(rows, max_size=4))
def test_the_same_rows_are_the_same_bytes(scanned: list[Scanned]) -> None:
    write_manifest(URL, scanned)
    once = files.read_bytes(URL)
    # the order in which a dict was filled is no fact about the clip
    turned = [
        msgspec.structs.replace(
            row,
            clip=msgspec.structs.replace(
                row.clip,
                translations=dict(reversed(row.clip.translations.items())),
                labels=dict(reversed(row.clip.labels.items())),
            ),
        )
        for row in scanned
    ]
    write_manifest(URL, iter(turned))
    assert files.read_bytes(URL) == once


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """A manifest of 200 clips."""
    place = tmp_path / "dev-clean.parquet"
    spans = [AudioRef(path=f"{number}.flac") for number in range(200)]
    write_manifest(
        place.as_posix(), [Scanned(clip=Clip(id=f"a/{ref.path}", audio=(ref,), text=f"T {ref}")) for ref in spans]
    )
    return place


def test_a_torn_manifest_is_told_as_one(manifest: Path) -> None:
    whole = manifest.read_bytes()
    for length in [0, 1, 4, 8, 12, len(whole) - 1, *random.Random(0).sample(range(len(whole)), 60)]:
        manifest.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"dev-clean\.parquet.* is not a whole Parquet file"):
            read_manifest(str(manifest))


def test_a_manifest_with_damage_inside_is_never_a_traceback(manifest: Path) -> None:
    whole, chance, told = manifest.read_bytes(), random.Random(0), []
    for _ in range(100):
        begin, length = chance.randrange(len(whole)), chance.choice([1, 1, 40, 400])
        hurt = bytearray(whole)
        hurt[begin : begin + length] = chance.randbytes(len(hurt[begin : begin + length]))
        manifest.write_bytes(hurt)
        try:
            read_manifest(str(manifest))
        except UserError as error:
            told.append(str(error))
    # Damage to a value alone may pass here: the digest in the plan finds it. Damage to the structure is told.
    assert len(told) > 10
    assert all("dev-clean.parquet" in sentence for sentence in told)


@pytest.mark.parametrize(
    "content", [b"<html>404</html>", b"PAR1PAR1", b"PAR1\0\0\0\0PAR1", b"PAR1" + bytes(100) + b"PAR1"]
)
def test_what_is_no_manifest_is_told_as_such(manifest: Path, content: bytes) -> None:
    manifest.write_bytes(content)
    with pytest.raises(UserError, match=r"dev-clean\.parquet"):
        read_manifest(str(manifest))


def test_a_table_of_another_kind_is_told_by_its_format(manifest: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), manifest)
    with pytest.raises(UserError, match=rf"has the format '', not '{FORMAT}'"):
        read_manifest(str(manifest))
    write_table(str(manifest), pa.table({"a": [1]}).replace_schema_metadata({"format": "salmonn-manifest-0"}))
    with pytest.raises(UserError, match=rf"'salmonn-manifest-0', not '{FORMAT}': make it anew"):
        read_manifest(str(manifest))


def test_a_manifest_that_is_not_there_is_told_by_its_path(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no file .*nowhere\.parquet"):
        read_manifest(str(tmp_path / "nowhere.parquet"))


def test_any_parquet_reader_reads_a_manifest(manifest: Path) -> None:
    table = pq.read_table(manifest)
    assert table.schema.equals(SCHEMA)
    assert table["id"].to_pylist()[:2] == ["a/0.flac", "a/1.flac"]
    import duckdb

    found = duckdb.sql(f"select count(*), min(audio[1].path) from '{manifest}' where state = 'ok'").fetchall()
    assert found == [(200, "0.flac")]


def test_columns_can_be_read_alone(manifest: Path) -> None:
    table = read_table(str(manifest), FORMAT, ["seconds", "bytes"])
    assert table.column_names == ["seconds", "bytes"]
    assert table.num_rows == 200


def test_what_is_not_a_number_is_found_by_duckdb(tmp_path: Path) -> None:
    values = [0.5, math.nan, 0.9, math.nan]
    for place, kind in enumerate((pa.float32(), pa.float64())):
        table = pa.table({"name": ["a", "b", "c", "d"], "value": pa.array(values, kind)})
        url = str(tmp_path / f"{place}.parquet")
        write_table(url, table)
        asked = "select count(*) filter (isnan(value)), count(*) filter (not isnan(value) and value > 0.8)"
        assert duckdb.sql(f"{asked} from '{url}'").fetchall() == [(2, 1)]
        assert duckdb.sql(f"select name from '{url}' where isnan(value) order by name").fetchall() == [("b",), ("d",)]
        told = pq.read_metadata(url).row_group(0)
        assert [told.column(column).is_stats_set for column in (0, 1)] == [True, False]
