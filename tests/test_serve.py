"""`salmonn serve`: answers beside a search by hand, ranges beside the bytes of the shard, the page in a browser."""

from __future__ import annotations

import asyncio
import http.client
import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from aiohttp import ClientSession, web
from hypothesis import example, given, settings
from hypothesis import strategies as st

import browsed
import browser
from browsed import HOSTILE, REFUSED, rows_of
from manifests import UserError, files
from shards import Dataset
from shards.browsing import queries as queries_room
from shards.browsing import serve as run_server
from shards.browsing import server, sounds
from shards.browsing.address import SORTS, read_query
from shards.browsing.page import FILES, FOLDER, copies_of
from shards.browsing.queries import PAGE, Asker
from shards.browsing.table import FACETS, MEASURES, Table

TOP = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # What DuckDB would take for a pattern, and for the end of a string.
    place = tmp_path_factory.mktemp("browsed") / "a [set] of o'clock*"
    browsed.write(str(place))
    return place


@pytest.fixture(scope="module")
def rows(folder: Path) -> list[dict]:
    return rows_of(Dataset(folder))


@pytest.fixture(scope="module")
def asker(folder: Path) -> Iterator[Asker]:
    table = Table(Dataset(folder))
    yield Asker(table)
    table.close()


class Served:
    """A running `salmonn serve`."""

    def __init__(self, folder: Path, *options: str) -> None:
        command = [sys.executable, "-m", "salmonn.cli", "serve", str(folder), "--port", "0", *options]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, cwd=TOP, **pipes)
        line = self.process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)/ \(Ctrl-C ends it\)", line)
        assert found, line + self.process.stderr.read()
        self.port = int(found[1])
        self.url = f"http://127.0.0.1:{self.port}/"
        self.line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)

    def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and content of an answer."""
        self.line.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = self.line.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()

    def json(self, path: str) -> Any:
        status, headers, content = self.ask(path)
        assert (status, headers["content-type"]) == (200, "application/json; charset=utf-8"), content
        return json.loads(content)

    def end(self, number: int) -> tuple[int, str]:
        self.process.send_signal(number)
        _, told = self.process.communicate(timeout=30)
        return self.process.returncode, told


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[Served]:
    page = Served(folder)
    yield page
    page.line.close()
    assert page.end(signal.SIGTERM) == (0, "")


# The answers, beside a search by hand


def haystacks(row: dict) -> list[str]:
    """What a search looks through."""
    answers = [answer for group in row["answers"] for answer in group]
    return [row["text"], *answers, *row["prompts"], row["id"], row["key"], row["speaker"]]


def passes(row: dict, query: dict[str, list[str]], but: str = "") -> bool:
    """Whether a sample is meant; `but` is a facet that does not count."""
    q = " ".join(query.get("q", [""])[0].split("\n")).strip().lower()
    if q and not any(q in text.lower() for text in haystacks(row)):
        return False
    for name in set(FACETS) & set(query) - {but}:
        values = set(row["tasks"]) if name == "task" else {row[name]}
        if not values & set(query[name]):
            return False
    if query.get("speaker", [""])[0] not in ("", row["speaker"]):
        return False
    for name in MEASURES:
        low, high = (
            float(query.get(f"{name}_{end}", [default])[0]) for end, default in (("from", "-inf"), ("to", "inf"))
        )
        if {f"{name}_from", f"{name}_to"} & set(query):
            with np.errstate(over="ignore"):
                low, high = np.float32(low), np.float32(high)
            if not low <= row[name] <= high:  # NaN is not
                return False
    return True


def in_order(rows: list[dict], sort: str) -> list[str]:
    """Keys in the order that is asked for; those that cannot be told last."""
    name, sign = sort.removeprefix("-"), -1 if sort.startswith("-") else 1
    if name:
        rows = sorted(rows, key=lambda row: (math.isnan(row[name]), 0 if math.isnan(row[name]) else sign * row[name]))
    return [row["key"] for row in rows]


SOUGHT = (
    *(
        "the",
        "THE",
        "fox",
        "stra\u00dfe",
        "\u00e5ngstr\u00f6m",
        "\u6cb3",
        "please do",
        "asr now",
        "what of 7",
        "odd",
        "owned",
    ),
    *("ab_0", "ab_01", "librispeech/ab", "librispeech_ab", "_", "/", "spk/1", "male", "%", "'", "<", "[bold]", "e"),
    *("\n the\n", "no such thing", "-x-odd"),
)
searches = st.one_of(st.sampled_from(SOUGHT), st.sampled_from(HOSTILE), st.text(max_size=3))


@st.composite
def queries(draw: st.DrawFn, rows: list[dict]) -> dict[str, list[str]]:
    """An address with some filters, of values that there are, now and then of one that there is not."""
    made: dict[str, list[str]] = {}
    if draw(st.booleans()):
        made["q"] = [draw(searches)]
    for name in FACETS:
        if draw(st.integers(0, 4)) == 0:
            held = sorted({v for row in rows for v in (row["tasks"] if name == "task" else [row[name]])} | {"nothing"})
            made[name] = draw(st.lists(st.sampled_from(held), min_size=1, max_size=3, unique=True))
    for name in MEASURES:
        for end in ("from", "to"):
            if draw(st.integers(0, 7)) == 0:
                value = draw(
                    st.sampled_from([row[name] for row in rows]) | st.sampled_from([0.0, -1e300, 1e39, math.inf])
                )
                made[f"{name}_{end}"] = [repr(value)] if not math.isnan(value) else ["0"]
    if draw(st.integers(0, 5)) == 0:
        made["speaker"] = [draw(st.sampled_from([row["speaker"] for row in rows] + ["nobody"]))]
    if draw(st.booleans()):
        made["sort"] = [draw(st.sampled_from(SORTS))]
    if draw(st.integers(0, 2)) == 0:
        made["page"] = [str(draw(st.integers(1, 4)))]
    return made


def test_every_answer_is_that_of_a_search_by_hand(asker: Asker, rows: list[dict]) -> None:
    seen = {"some": 0, "none": 0}

    @settings(max_examples=60)
    @given(queries(rows))
    def check(query: dict[str, list[str]]) -> None:
        found = asker.find(read_query([(name, value) for name, values in query.items() for value in values]))
        meant = [row for row in rows if passes(row, query)]
        seen["some" if meant else "none"] += 1
        assert found.total == len(meant)
        assert found.hours * 3600 == pytest.approx(sum(row["seconds"] for row in meant), rel=1e-5, abs=1e-5)
        assert found.pages == max(1, math.ceil(len(meant) / PAGE))
        page = min(int(query.get("page", ["1"])[0]), found.pages)
        keys = in_order(meant, query.get("sort", [""])[0])[PAGE * (page - 1) : PAGE * page]
        assert found.page == page and [row.key for row in found.rows] == keys
        for name in FACETS:
            others = [row for row in rows if passes(row, query, but=name)]
            each = [set(row["tasks"]) if name == "task" else {row[name]} for row in others]
            assert {one.value: one.count for one in found.facets[name] if one.count} == {
                value: sum(value in values for values in each) for value in set().union(*each)
            }, name
        q = read_query([("q", query.get("q", [""])[0])]).q.lower()
        for row in found.rows:
            assert q in row.line.lower() or " ".join(q.split()) in row.found.lower(), (row, q)

    check()
    assert min(seen.values()) > 8


def test_copies_are_those_with_the_same_samples(asker: Asker, rows: list[dict]) -> None:
    digests = [row["pcm_md5"] for row in rows]
    twins = [row["key"] for row in rows if digests.count(row["pcm_md5"]) > 1]
    found = asker.find(read_query([("copies", "1")]))
    assert 5 < len(twins) < PAGE and [row.key for row in found.rows] == twins
    assert set(copies_of(asker.table, 0, rows[0]["pcm_md5"])) <= set(twins) - {rows[0]["key"]}
    assert rows[0]["key"] in copies_of(
        asker.table, rows.index(next(r for r in rows if r["key"] == twins[1])), rows[0]["pcm_md5"]
    )


def test_searches_that_are_kept_are_few_and_right(asker: Asker, rows: list[dict]) -> None:
    for _ in range(2):
        for q in ("fox", "the", "stone", "\u6cb3", "quick"):
            found = asker.find(read_query([("q", q), ("sort", "-seconds")]))
            assert found.total == sum(passes(row, {"q": [q]}) for row in rows) > 0
    tables = {name for (name,) in asker.table.ask("select table_name from duckdb_tables()")}
    assert sum(name.startswith("hits_") for name in tables) <= 3


def test_of_a_facet_with_many_values_the_most_frequent_are_told(
    asker: Asker, rows: list[dict], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries_room, "VALUES", 2)
    counts = Counter(row["license"] for row in rows)
    rare = min(counts, key=lambda value: (counts[value], value))
    found = asker.find(read_query([("license", rare)]))
    told = {one.value: one.count for one in found.facets["license"]}
    assert found.total == counts[rare]
    assert told == dict(counts.most_common(2)) | {rare: counts[rare]} and len(told) == 3


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ([("tsak", "asr")], "no filter is called 'tsak'; did you mean 'task'?"),
        ([("sort", "length")], "cannot sort by 'length'"),
        ([("page", "0")], "page is '0'; it must be a whole number from 1 on"),
        ([("page", "1e9")], "page is '1e9'"),
        ([("seconds_from", "long")], "seconds_from is 'long'; it must be a number"),
        ([("snr_db_to", "nan")], "snr_db_to is 'nan'"),
    ],
)
def test_an_address_that_cannot_be_understood_is_told(address: list[tuple[str, str]], words: str) -> None:
    with pytest.raises(UserError, match=re.escape(words)):
        read_query(address)


def test_an_index_that_is_elsewhere_or_leaves_columns_out_can_be_browsed(folder: Path, rows: list[dict]) -> None:
    dataset = browsed.write("memory://browsed-elsewhere")
    table = Table(dataset)
    try:
        found = Asker(table).find(read_query([("q", "fox")]))
        assert found.total == sum(passes(row, {"q": ["fox"]}) for row in rows)
        row = table.whole_row(3)
        assert row["key"] == rows[3]["key"]
        stored = sounds.stored(dataset.url, row)
        assert sounds.flac_of(stored).startswith(b"fLaC")
        copies = Path(table.copied.name)
    finally:
        table.close()
    assert not copies.exists()


def test_a_world_without_texts_can_be_browsed(make_index: Any) -> None:
    # Its index has nothing but lengths, tasks, prompts and answers.
    dataset = make_index({("librispeech", "dev-clean"): [(16000 * n, ("asr",)) for n in range(1, 80)]})
    table = Table(dataset)
    found = Asker(table).find(read_query([("seconds_from", "40"), ("task", "asr"), ("sort", "-seconds")]))
    assert (found.total, found.rows[0].seconds, found.rows[0].line[:14]) == (40, 79.0, "Answer of asr.")
    table.close()


# The server


def test_ranges_are_the_bytes_of_the_shard(served: Served, folder: Path, rows: list[dict]) -> None:
    row = max(rows, key=lambda row: row["flac_bytes"])
    size = row["flac_bytes"]
    whole = (folder / row["shard"]).read_bytes()[row["flac_offset"] :][:size]
    path = f"/audio/{row['key']}.flac"
    status, headers, content = served.ask(path)
    assert (status, content, headers["accept-ranges"]) == (200, whole, "bytes")
    assert headers["content-type"] == "audio/flac" and row["pcm_md5"] in headers["etag"]
    numbers = st.integers(0, size + 20) | st.sampled_from([0, 1, size - 1, size, size + 1, 10**18, 10**30])

    @given(numbers, numbers, st.sampled_from(["{0}-{1}", "{0}-", "-{0}"]), st.booleans())
    @example(0, 0, "{0}-{1}", True)
    @example(0, 0, "-{0}", False)
    def check(first: int, last: int, form: str, conditional: bool) -> None:
        header = "bytes=" + form.format(first, last)
        status, told, content = served.ask(path, Range=header, **({"If_Range": headers["etag"]} if conditional else {}))
        start, end = (max(0, size - first), size) if form == "-{0}" else (first, size)
        if form == "{0}-{1}":
            if last < first:
                assert (status, content) == (200, whole)
                return
            end = min(size, last + 1)
        if start >= size:
            assert (status, told["content-range"]) == (416, f"bytes */{size}")
            return
        assert (status, told["content-range"]) == (206, f"bytes {start}-{end - 1}/{size}")
        assert content == whole[start:end] and int(told["content-length"]) == end - start

    check()


@given(
    st.text(st.sampled_from("bytes=0123456789-, \tx"), max_size=24) | st.text(max_size=12),
    st.integers(0, 10**6),
)
@example("bytes=0-1,3-4", 10)
@example("bytes=" + "9" * 6000 + "-", 10)
@example("bytes=-" + "9" * 6000, 10)
def test_whatever_a_range_says_it_is_within_the_sound_or_not_heeded(header: str, length: int) -> None:
    try:
        span = sounds.ranged(header, None, '"tag"', length)
    except sounds.Unsatisfiable:
        assert header.strip().lower().startswith("bytes=")
        return
    assert span is None or 0 <= span.start < span.end <= length


def test_conditions_and_heads(served: Served, rows: list[dict]) -> None:
    path = f"/audio/{rows[0]['key']}.flac"
    size = rows[0]["flac_bytes"]
    _, headers, whole = served.ask(path)
    tag = headers["etag"]
    assert served.ask(path, "HEAD")[1]["content-length"] == str(size)
    # A range is defined for GET alone.
    status, told, content = served.ask(path, "HEAD", Range="bytes=0-9")
    assert (status, told["content-length"], content) == (200, str(size), b"")
    for condition in ('"other"', f"W/{tag}", "Mon, 23 Nov 2026 00:00:00 GMT"):
        status, _, content = served.ask(path, Range="bytes=0-9", If_Range=condition)
        assert (status, content) == (200, whole)
    for several in ("bytes=0-1,4-5", "lines=0-1", "bytes=5-1", "bytes=-", "0-1"):
        assert served.ask(path, Range=several)[0] == 200
    for condition in (tag, "*", f'"x", W/{tag}'):
        status, told, content = served.ask(path, If_None_Match=condition)
        assert (status, content, told["etag"]) == (304, b"", tag)
    assert served.ask(path, If_None_Match='"x"')[0] == 200


def test_no_name_leads_out_of_the_dataset(served: Served, folder: Path) -> None:
    paths = [
        *("/audio/nobody.flac", "/api/sample/nobody", "/api/peaks/nobody", "/nothing", "/page.py", "/server.py"),
        *("/../dataset.json", "/%2e%2e/dataset.json", "/audio/..%2f..%2fdataset.json.flac", "/audio/%2e%2e.flac"),
        *("/audio/' or 1=1 --.flac", "/api/sample/%00", "/shards/", "/dataset.json", "//etc/passwd", "/audio/.flac"),
    ]
    for path in paths:
        status, _, content = served.ask(urllib.parse.quote(path, safe="/%"))
        assert status == 404 and "error" in json.loads(content), path
    for name, kind in FILES.items():
        status, headers, content = served.ask(f"/{name}")
        assert (status, content) == (200, (FOLDER / name).read_bytes())
        assert headers["content-type"].startswith(kind)


def test_only_who_may_ask_is_answered(served: Served, rows: list[dict]) -> None:
    for host in (
        "evil.example",
        f"127.0.0.1.evil.example:{served.port}",
        "10.0.0.1",
        "",
        f"evil@127.0.0.1:{served.port}",
        "[::1]",
    ):
        for path in ("/", "/api/dataset", f"/audio/{rows[0]['key']}.flac", "/nothing"):
            status, headers, content = served.ask(path, Host=host)
            assert status == 421 and b"this machine" in content, (host, path)
    for host in ("localhost", f"localhost:{served.port}", "127.0.0.1:1", "LOCALHOST"):
        assert served.ask("/", Host=host)[0] == 200
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"):
        status, headers, _ = served.ask("/api/samples", method)
        assert (status, headers["allow"]) == (405, "GET, HEAD"), method
    found = psutil.Process(served.process.pid).net_connections()
    assert {one.laddr.ip for one in found if one.status == psutil.CONN_LISTEN} == {"127.0.0.1"}
    for path in ("/", "/api/dataset", "/nothing", f"/audio/{rows[0]['key']}.flac"):
        headers = served.ask(path)[1]
        assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
    page = (FOLDER / "page.html").read_text()
    assert not re.search(r"\son\w+=|javascript:|style=|<script(?! type=\"module\" src=\"/)|https?:", page)
    scripts = "".join((FOLDER / name).read_text() for name in FILES if name.endswith(".js"))
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|new Function|DOMParser", scripts)


def test_what_the_page_asks_is_what_the_index_holds(served: Served, rows: list[dict]) -> None:
    about = served.json("/api/dataset")
    assert (about["samples"], about["refused"]) == (len(rows), 3 * REFUSED)
    assert {one["name"] for one in about["tasks"]} == {task for row in rows for task in row["tasks"]}
    for place in (0, 1, 60, 61, len(rows) - 1):
        row, held = rows[place], served.json(f"/api/sample/{rows[place]['key']}")
        assert [(one["task"], one["prompt"], one["answers"]) for one in held["instructions"]] == list(
            zip(row["tasks"], row["prompts"], row["answers"], strict=True)
        )
        assert (held["key"], held["text"]) == (row["key"], row["text"])
        around = [rows[near]["key"] if 0 <= near < len(rows) else "" for near in (place - 1, place + 1)]
        assert [held["before"], held["after"]] == around
    status, _, content = served.ask("/api/samples?page=x")
    assert status == 400 and json.loads(content)["error"].startswith("page is 'x'")


def test_peaks_span_the_samples(served: Served, folder: Path, rows: list[dict]) -> None:
    loud = next(row for row in rows if row["peak"] > 0.99 and row["samples"] > 5000)
    pcm = sounds.pcm_of(str(folder), loud)
    found = served.json(f"/api/peaks/{loud['key']}")
    assert len(found) == sounds.PEAKS
    assert min(low for low, _ in found) == round(int(pcm.min()) * 1000 / 32768)
    assert max(high for _, high in found) == round(int(pcm.max()) * 1000 / 32768)
    assert all(low <= high for low, high in found)
    short = min(rows, key=lambda row: row["samples"])
    assert len(served.json(f"/api/peaks/{short['key']}")) == min(short["samples"], sounds.PEAKS)


def test_the_quarantine_is_answered_with_its_reasons(served: Served) -> None:
    whole = served.json("/api/refusals")
    assert whole["total"] == 3 * REFUSED == len(whole["rows"])
    told = {row["reason"]: row["why"] for row in whole["rows"]}
    assert told["corrupt"] == "the decoder met damaged data" and told["no_such_reason"] == ""
    some = served.json("/api/refusals?reason=corrupt&verdict=excluded&corpus=wavcaps")
    assert some["rows"] == [
        row
        for row in whole["rows"]
        if (row["reason"], row["verdict"], row["corpus"]) == ("corrupt", "excluded", "wavcaps")
    ]
    counts = {one["value"]: one["count"] for one in some["facets"]["verdict"]}
    meant = [row["verdict"] for row in whole["rows"] if (row["reason"], row["corpus"]) == ("corrupt", "wavcaps")]
    assert counts == {value: meant.count(value) for value in ("excluded", "quarantined")}
    assert served.json("/api/refusals?q=DROP%20table")["total"] == 3
    assert served.ask("/api/refusals?sort=x")[0] == 400


def test_a_dataset_that_lies_elsewhere_is_heard(rows: list[dict]) -> None:
    """Over HTTP, out of a store that is no folder of this machine."""
    table = Table(browsed.write("memory://browsed-heard"))
    row = rows[1]

    async def visit() -> tuple[bytes, bytes]:
        runner = web.AppRunner(server.make_app(table))
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        try:
            async with ClientSession(f"http://127.0.0.1:{port}") as asking:
                path = f"/audio/{row['key']}.flac"
                async with asking.get(path) as whole, asking.get(path, headers={"Range": "bytes=-100"}) as end:
                    assert (whole.status, end.status) == (200, 206)
                    return await whole.read(), await end.read()
        finally:
            await runner.cleanup()

    whole, end = asyncio.run(visit())
    place = files.join("memory://browsed-heard", row["shard"])
    assert whole == files.read_range(place, row["flac_offset"], row["flac_bytes"])
    assert whole.startswith(b"fLaC") and end == whole[-100:]
    table.close()


def test_a_shard_that_is_gone_or_cut_off_is_told(folder: Path, rows: list[dict], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    gone = next(row for row in rows if row["corpus"] == "wavcaps")
    (copy / gone["shard"]).unlink()
    cut = next(row for row in reversed(rows) if row["corpus"] == "covost2")
    os.truncate(copy / cut["shard"], cut["flac_offset"] + 10)
    page = Served(copy)
    try:
        for row, words in ((gone, "cannot be read"), (cut, "is cut off")):
            for kind in ("audio/{}.flac", "api/peaks/{}"):
                status, _, content = page.ask("/" + kind.format(row["key"]))
                assert status == 502 and words in json.loads(content)["error"]
        assert page.ask(f"/audio/{rows[0]['key']}.flac")[0] == 200
    finally:
        assert page.end(signal.SIGTERM)[0] == 0


def test_it_opens_a_browser_and_ctrl_c_ends_it_and_leaves_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kept").mkdir()
    opened = tmp_path / "opened"
    program = tmp_path / "browser"
    program.write_text(f"#!/bin/sh\nprintf %s \"$1\" > '{opened}.part' && mv '{opened}.part' '{opened}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "kept"))
    monkeypatch.setenv("BROWSER", f"{program} %s")
    page = Served(folder, "--open")
    assert page.ask("/")[0] == 200
    assert list((tmp_path / "kept").iterdir())
    while not opened.exists():
        assert page.process.poll() is None
        time.sleep(0.05)
    assert opened.read_text() == page.url
    code, told = page.end(signal.SIGINT)
    assert (code, told) == (0, "")
    assert list((tmp_path / "kept").iterdir()) == []


def test_what_keeps_the_page_from_opening_is_one_sentence(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "salmonn.cli", "serve", str(folder), "--port", str(port)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=TOP, timeout=60)
    assert done.returncode == 2 and done.stdout == ""
    assert re.fullmatch(rf"salmonn: cannot listen at port {port} of 127.0.0.1: .*--port 0.*\n", done.stderr)
    with pytest.raises(UserError, match="--port"):
        run_server(str(folder), 70_000)
    with pytest.raises(UserError, match="there is no dataset"):
        run_server(str(tmp_path), 0)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs aiohttp.*pip install -e '\.\[serve\]'"):
        run_server(str(folder), 0)


# The page


@pytest.mark.slow
def test_the_page_filters_plays_and_lets_nothing_run(served: Served, rows: list[dict], tmp_path: Path) -> None:
    if browser.find() is None:
        # A browser comes from no package index; the tests of the server need none.
        pytest.skip(f"no browser here: none of {', '.join(browser.NAMES)} is on the PATH")
    complaints, asked = asyncio.run(visit(served.url, rows, tmp_path / "profile"))
    assert complaints == []
    assert asked and [one for one in asked if not one.startswith(served.url)] == []


async def visit(url: str, rows: list[dict], profile: Path) -> tuple[list[str], list[str]]:
    """What a person does: filters by a task, opens a sample, hears it, reads the quarantine, follows a link.

    Returns what the browser complained of, and all that it asked the network for.
    """
    listed = "[...document.querySelectorAll('#list a[data-key]')].map(a => a.dataset.key)"
    captions = [row["key"] for row in rows if "audio_caption" in row["tasks"]]
    async with browser.open_page(url, profile) as page:
        await page.until(f"{listed}.length == {PAGE}")
        assert await page.js("document.title") == "A small world - salmonn serve"

        await page.click("input[data-name='task=audio_caption']")
        await page.until(f"document.querySelector('#count b').textContent == '{len(captions)}'")
        assert await page.js(listed) == captions[:PAGE]
        assert await page.js("location.search") == "?task=audio_caption"

        # A sample is opened by the keyboard, and played by it.
        for _ in range(2):
            await press(page, "j", "KeyJ")
        key = captions[1]
        await page.until(f"document.querySelector('#sample h2')?.textContent == '{key}'")
        assert await page.js("location.search") == f"?task=audio_caption&sample={key}"
        await page.until("!!document.querySelector('.wave svg path')")
        await press(page, " ", "Space")
        await page.until("document.querySelector('audio').currentTime > 0.05")
        await page.until("document.querySelector('.wave').getAttribute('aria-valuenow') > 0")
        # And again by the mouse, to its end.
        long = max((row for row in rows if row["peak"] > 0.02), key=lambda row: row["seconds"])
        await page.call("Page.navigate", url=f"{url}?sample={long['key']}")
        await page.click(".play")
        first = await page.until("document.querySelector('audio').currentTime")
        await page.until(f"document.querySelector('audio').currentTime > {first}")
        await page.until("document.querySelector('audio').ended")
        assert await page.js("document.querySelector('audio').duration") == pytest.approx(long["seconds"], abs=0.01)

        # Texts that would do something if they could: as text, speaker and licence, in prompts and answers.
        hostile = list({row["text"]: row for row in rows if row["text"] in HOSTILE}.values())
        hostile += [row for row in rows if "speech_qa" in row["tasks"] and "owned" in row["prompts"][0]][:3]
        for row in hostile:
            sought = urllib.parse.quote(row["text"][:9])
            await page.call("Page.navigate", url=f"{url}?sample={row['key']}&q={sought}")
            await page.until(f"document.querySelector('#sample h2')?.textContent == '{row['key']}'")
            texts = "[...document.querySelectorAll('.asked {}')].map(one => one.textContent)"
            assert await page.js(texts.format("p")) == row["prompts"]
            assert await page.js(texts.format("li")) == [text for answers in row["answers"] for text in answers]
            assert await page.js("document.querySelector('.said p').textContent") == row["text"]
            assert "owned" not in await page.js("document.title")
        run = "document.querySelectorAll('#main script, #main img, #main [onload], #main [onerror]').length"
        assert await page.js(run) == 0

        # The quarantine, by its link.
        await page.click("#to-refused")
        reasons = "[...document.querySelectorAll('#list li b')].map(one => one.textContent)"
        await page.until(f"{reasons}.length == {3 * REFUSED}")
        assert set(await page.js(reasons)) == {"corrupt", "audio_missing", "no_such_reason"}
        assert "the decoder met damaged data" in await page.js("document.querySelector('#list').innerText")
        assert HOSTILE[0] in await page.js("document.querySelector('#list').innerText")
        await page.click("input[data-name='reason=corrupt']")
        await page.until(f"{reasons}.length == {sum(n % 3 == 0 for n in range(REFUSED)) * 3}")
        assert await page.js("location.search") == "?view=refused&reason=corrupt"
        await page.js("history.back()")
        await page.until(f"{reasons}.length == {3 * REFUSED}")

        # Back from there by a link that was shared: filter, search, order, page and sample are in it.
        words = next(row for row in rows if "quick" in row["text"])
        deep = f"?q=quick&task={words['tasks'][0]}&sort=-seconds&sample={words['key']}"
        await page.call("Page.navigate", url=url + deep)
        await page.until(f"document.querySelector('#sample h2')?.textContent == '{words['key']}'")
        meant = [row for row in rows if passes(row, {"q": ["quick"], "task": [words["tasks"][0]]})]
        await page.until(f"{listed}.length == {min(PAGE, len(meant))}")
        assert await page.js(listed) == in_order(meant, "-seconds")[:PAGE]
        assert await page.js("document.querySelector('#q').value") == "quick"
        assert await page.js("document.querySelector('#sort').value") == "-seconds"
        assert await page.js("document.querySelector('#list a[aria-current]').dataset.key") == words["key"]
        assert "quick" in await page.js(
            "[...document.querySelectorAll('#sample mark')].map(m => m.textContent.toLowerCase())"
        )

        # On a phone nothing is wider than it, and the sample has the page to itself.
        await page.call("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=1, mobile=True)
        assert await page.js("document.documentElement.scrollWidth") == 360
        assert await page.js("getComputedStyle(document.querySelector('#found')).display") == "none"
        await press(page, "Escape", "Escape")
        await page.until("getComputedStyle(document.querySelector('#found')).display != 'none'")
        assert await page.js("document.documentElement.scrollWidth") == 360

        return page.complaints, page.asked


async def press(page: browser.Page, key: str, code: str) -> None:
    """Press a key, and let it go."""
    number = {"Space": 32, "Escape": 27}.get(code, ord(key[0].upper()))
    text = {"text": key} if len(key) == 1 else {}
    for kind in ("keyDown", "keyUp"):
        await page.call("Input.dispatchKeyEvent", type=kind, key=key, code=code, windowsVirtualKeyCode=number, **text)
