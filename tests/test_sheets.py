"""Tables of corpora: every row is told once, as a row or as a refusal with its file and line."""

from __future__ import annotations

import csv
import io
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests import UserError
from manifests.sheets import read_rows

COLUMNS = ("id", "text", "more")


def read(path: Path, **options: str) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """The rows and the refusals of a table."""
    refused: list[tuple[str, ...]] = []
    rows = read_rows(str(path), "corpus/t.csv", COLUMNS, lambda *told: refused.append(told), **options)
    return [(place, *row.values()) for place, row in rows], refused


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "t.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_rows_have_the_line_they_end_at(tmp_path: Path) -> None:
    rows, refused = read(write(tmp_path, 'id,text,more\n1,"two\nlines",x\n\n2, spaces ,y\n'))
    assert rows == [("corpus/t.csv:3", "1", "two\nlines", "x"), ("corpus/t.csv:5", "2", " spaces ", "y")]
    assert not refused


def test_windows_line_ends_and_a_byte_order_mark_change_nothing(tmp_path: Path) -> None:
    plain = read(write(tmp_path, 'id,text,more\n1,"a ""b""",x\n'))
    assert read(write(tmp_path, b'\xef\xbb\xbfid,text,more\r\n1,"a ""b""",x\r\n')) == plain


@pytest.mark.parametrize("row", ["1", "1,2", "1,2,3,4"])
def test_a_row_of_another_width_is_refused_and_the_next_is_read(tmp_path: Path, row: str) -> None:
    rows, refused = read(write(tmp_path, f"id,text,more\n{row}\n7,8,9\n"))
    assert rows == [("corpus/t.csv:3", "7", "8", "9")]
    assert refused == [("malformed_row", "corpus/t.csv:2", f"{row!r} is not id,text,more")]


def test_a_quote_that_never_ends_is_refused_and_the_lines_it_swallowed_are_counted(tmp_path: Path) -> None:
    lines = "".join(f"{number},{'x' * 1000},z\n" for number in range(300))
    rows, refused = read(write(tmp_path, f'id,text,more\n1,"never,z\n{lines}'))
    assert rows or refused
    assert refused[0][:2] == ("malformed_row", "corpus/t.csv:133")
    assert rows[0][0] == "corpus/t.csv:134"


def test_another_encoding_is_read_as_told(tmp_path: Path) -> None:
    path = write(tmp_path, "id,text,more\n1,caf\u00e9,x\n".encode("iso-8859-1"))
    assert read(path, encoding="iso-8859-1")[0] == [("corpus/t.csv:2", "1", "caf\u00e9", "x")]
    with pytest.raises(UserError, match=r"t\.csv is not text .*fetch it anew"):
        read(path)


@pytest.mark.parametrize("header", ["", "id,text", "id,more,text", "<html>", 'id,"text,more'])
def test_other_columns_are_told_by_name(tmp_path: Path, header: str) -> None:
    with pytest.raises(UserError, match=r"t\.csv: the columns are .*published are \['id', 'text', 'more'\]"):
        read(write(tmp_path, f"{header}\n1,2,3\n"))


values = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), max_size=20)


@given(st.lists(st.tuples(values, values, values), max_size=5))
def test_any_table_that_the_csv_module_writes_is_read_back_exactly(table: list[tuple[str, str, str]]) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([COLUMNS, *table])
    with tempfile.TemporaryDirectory() as folder:
        rows, refused = read(write(Path(folder), text.getvalue()))
    assert [row[1:] for row in rows] == table
    assert not refused
