"""Questions of one's own to an audit: queries, CSV that no spreadsheet runs, a file to open elsewhere, an exit code."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import salmonn_here
from manifests import Failed, UserError
from shards.audit.cells import FORMULA, as_csv
from shards.audit.commands import gates_of, show
from shards.audit.inquiry import ask, notebook
from shards.index import Dataset
from test_audit import build, clean, recipe_of, rows_of

RECIPE = """\
title = "Small"
[[instruct]]
task = "asr"
corpus = "librispeech"
splits = ["train-clean-100"]
[[evaluate]]
task = "asr"
corpus = "librispeech"
splits = ["dev-clean"]
"""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("inquiry")
    (folder / "small.toml").write_text(RECIPE)
    return build(folder / "dataset", clean())


def salmonn(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "salmonn.cli", "audit", *words], capture_output=True, text=True, timeout=100, check=False
    )


def test_a_query_is_answered_from_the_tables_of_the_page(dataset: Dataset) -> None:
    found = ask(
        dataset,
        recipe_of(),
        "select split, count(*) as n from samples join roles using (corpus, split) group by all order by n",
    )
    counts: dict[str, int] = {}
    for row in rows_of(dataset):
        counts[row["split"]] = counts.get(row["split"], 0) + 1
    assert found.columns == ("split", "n")
    assert dict(found.rows) == counts
    assert ask(dataset, None, "select count(*) from roles").rows == ((0,),)
    answers = sum(len(answers) for row in rows_of(dataset) for answers in row["answers"])
    assert ask(dataset, None, "select sum(answers) from told").rows == ((answers,),)


def test_the_instructions_are_one_a_row(dataset: Dataset, tmp_path: Path) -> None:
    rows = notebook(dataset, recipe_of(), tmp_path / "deep" / "all.parquet")
    table = pq.read_table(tmp_path / "deep" / "all.parquet").to_pylist()
    wanted = {
        (row["key"], task, prompt, tuple(answers))
        for row in rows_of(dataset)
        for task, prompt, answers in zip(row["tasks"], row["prompts"], row["answers"], strict=True)
    }
    assert rows == len(table) == len(wanted)
    assert {(row["key"], row["task"], row["prompt"], tuple(row["answers"])) for row in table} == wanted
    assert {row["trained"] for row in table if row["split"] == "dev-clean"} == {False}
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["all.parquet"]


@pytest.mark.parametrize("sql", ["select nothing from samples", "selec 1", "select * from nowhere", "load spatial"])
def test_what_is_no_query_is_told_in_a_sentence(dataset: Dataset, sql: str) -> None:
    with pytest.raises(UserError, match="DuckDB cannot answer") as caught:
        ask(dataset, None, sql)
    assert "\n" not in str(caught.value)


@given(st.lists(st.lists(st.text() | st.integers() | st.floats(allow_nan=False), min_size=2, max_size=2)))
def test_no_cell_of_a_csv_is_a_formula(rows: list[list[str | int | float]]) -> None:
    text = as_csv(["=one", "two"], rows)
    read = list(csv.reader(io.StringIO(text, newline="")))
    assert read[0] == ["'=one", "two"]
    for cells, row in zip(read[1:], rows, strict=True):
        for cell, value in zip(cells, row, strict=True):
            if isinstance(value, str):
                assert not cell.lstrip(" ").startswith(FORMULA)
                assert cell in {value, f"'{value}"}
            else:
                assert float(cell) == float(value)


def test_the_command_prints_tables_and_csv(dataset: Dataset, tmp_path: Path) -> None:
    query = "select key, -seconds as less, '=1+1' as trap from samples order by key limit 2"
    shown = salmonn(dataset.url, "--sql", query)
    assert shown.returncode == 0, shown.stderr
    keys = sorted(row["key"] for row in rows_of(dataset))[:2]
    assert all(key in shown.stdout for key in keys)
    listed = salmonn(dataset.url, "--sql", query, "--csv", "--notebook", str(tmp_path / "n.parquet"))
    head, first, *_ = csv.reader(io.StringIO(listed.stdout))
    assert head == ["key", "less", "trap"]
    assert first[0] == keys[0] and float(first[1]) < 0 and first[2] == "'=1+1"
    [(rows,)] = duckdb.sql(f"select count(*) from '{tmp_path / 'n.parquet'}'").fetchall()
    assert rows == sum(len(row["tasks"]) for row in rows_of(dataset))
    for words, says in (
        ((dataset.url,), "needs --recipe"),
        ((dataset.url, "--csv"), "give the query"),
        ((dataset.url, "--recipe", "mini", "--world-size", "0"), "one GPU or more"),
        ((dataset.url, "--recipe", "mini", "--out", f"{tmp_path}/n.parquet/x"), "n.parquet"),
        ((dataset.url, "--notebook", f"{tmp_path}/n.parquet/x/n.parquet"), "n.parquet"),
        ((dataset.url, "--recipe", "mini", "--fail-on", "answrs"), "did you mean 'answers'?"),
    ):
        refused = salmonn_here("audit", *words)
        assert refused.returncode == 2
        assert says in refused.stderr and "Traceback" not in refused.stderr


def test_gates_give_an_exit_code(dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = str(Path(dataset.url).parent / "small.toml")
    show(dataset.url, recipe, tmp_path / "good", fail_on="answers, counts")
    assert "answers" in capsys.readouterr().out
    world = clean()
    world.clips["librispeech", "train-clean-100"][3].asked[0][2][0] = ""
    bad = build(tmp_path / "bad", world)
    with pytest.raises(Failed, match="1 of the gates in --fail-on failed: answers"):
        show(bad.url, recipe, tmp_path / "page", fail_on="answers,counts")
    # The page is written all the same, and a gate that nobody named does not stop anything.
    assert (tmp_path / "page" / "audit.html").stat().st_size > 10_000
    show(bad.url, recipe, tmp_path / "page", fail_on="counts")
    assert "FAIL  answers" in capsys.readouterr().out
    assert gates_of("all") > {"answers", "drift"}
