"""Fetch: what corpora publish comes below ROOT, is checked and unpacked; a rerun does only what is left to do."""

from __future__ import annotations

import concurrent.futures
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import digests
from fault_server import FaultServer
from manifests import Clip, Failed, UserError, corpus_names, files, load_corpus
from manifests.corpus import Corpus
from pipelines.fetching import commands as fetch_commands
from pipelines.fetching.board import Board, Speed
from pipelines.fetching.fetch import Lane, Settings, fetch_lane, lanes, left_to_do, link, require_room
from pipelines.fetching.lock import Changed, learn, lock_path, read_lock
from pipelines.fetching.status import status, status_of
from pipelines.fetching.wanted import Limits
from pipelines.items import Item, Outcome, items_of, mirrored, read_outcome, safe
from pipelines.scan import raw_folder
from pipelines.trust import trusted_files

CANARY = "canary-51d0e"
LIMITS = Limits(allow_private=True, deadline=2.0, connect=0.5, stall=0.4, tries=2, backoff=0.01)
TOML = """
title = "Small"
homepage = "http://small.example"
license = "CC0-1.0"
access = "open"
steps = "nothing"
language = "en"
tasks = ["asr"]
"""


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def tar(**held: bytes) -> bytes:
    """A tar.gz of files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in held.items():
            member = tarfile.TarInfo(f"Small/{name}.txt")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


A, B, TABLE = tar(a=b"aaa" * 1000, both=b"x"), tar(b=b"bbb" * 1000, both=b"x"), b"path,text\n1,one\n"


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer({"a.tar.gz": A, "b.tar.gz": B, "table.csv": TABLE}) as made:
        yield made


Make = Callable[..., Corpus]


def unreadable(root: str, split: str, refuse: object) -> Iterator[Clip]:
    """A reader that never finds anything."""
    raise UserError("small: its files are not as published")
    yield


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """A function that writes a corpus of two splits into a registry of its own: each an archive, and a shared table."""
    folder = tmp_path / "registry"
    folder.mkdir()
    monkeypatch.setattr("manifests.corpus.FOLDER", folder)
    monkeypatch.setitem(sys.modules, "manifests.corpora.small", SimpleNamespace(clips=unreadable))

    def make(base: str, sure: bool = True, modes: tuple[str, str] = ("good/0", "good/0")) -> Corpus:
        text = TOML + f'[[archives]]\nurl = "{base}/good/0/k/table.csv"\ninto = "tables"\n'
        for split, mode, content in (("a", modes[0], A), ("b", modes[1], B)):
            text += f"[splits.{split}]\nclips = 1\nhours = 1.0\n[[splits.{split}.archives]]\n"
            text += f'url = "{base}/{mode}/k/{split}.tar.gz"\n'
            if sure:
                text += f'sha256 = "{hashlib.sha256(content).hexdigest()}"\nbytes = {len(content)}\n'
        (folder / "small.toml").write_text(text)
        load_corpus.cache_clear()
        return load_corpus("small")

    yield make
    load_corpus.cache_clear()


def settings(root: Path, **more: object) -> Settings:
    return Settings(**({"root": str(root), "limits": LIMITS} | more))


def run(corpus: Corpus, made: Settings, splits: tuple[str, ...] = ("a", "b"), mirror: str = "") -> dict[str, Outcome]:
    """Fetch in this process, two lanes at a time, what is left to do; what became of all."""
    items = items_of(corpus, splits, mirror)
    todo = left_to_do(items, made)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(fetch_lane, lanes(todo, made)))
    found = {item.name: read_outcome(made.root, item) for item in items}
    return {name: outcome for name, outcome in found.items() if outcome}


def tree(root: Path) -> list[str]:
    """What is below the corpus's folder."""
    top = root / "raw" / "small"
    return sorted(str(path.relative_to(top)) for path in top.rglob("*") if path.is_file())


WHOLE = [".archives/a.tar.gz", ".archives/b.tar.gz", "Small/a.txt", "Small/b.txt", "Small/both.txt", "tables/table.csv"]


def test_archives_are_fetched_verified_and_unpacked(server: FaultServer, small: Make, tmp_path: Path) -> None:
    root = tmp_path / "root"
    outcomes = run(small(server.url), settings(root))
    assert tree(root) == WHOLE
    assert {name: (one.state, one.reason, one.verified) for name, one in outcomes.items()} == {
        "tables/table.csv": ("ok", "fetched", ""),
        "a.tar.gz": ("ok", "fetched", "published"),
        "b.tar.gz": ("ok", "fetched", "published"),
    }
    assert outcomes["a.tar.gz"].files == 2
    lock = read_lock(str(root))
    assert lock["small/a.tar.gz"].sha256 == hashlib.sha256(A).hexdigest()
    assert lock["small/tables/table.csv"].sha256 == hashlib.sha256(TABLE).hexdigest()
    assert {path.name for path in root.iterdir()} == {"raw", "fetch", "fetch.lock", ".fetch.lock.guard"}


def test_a_rerun_asks_nobody_and_takes_milliseconds(server: FaultServer, small: Make, tmp_path: Path) -> None:
    corpus, made = small(server.url), settings(tmp_path / "root")
    run(corpus, made)
    asked = len(server.requests)
    begin = time.perf_counter()
    assert left_to_do(items_of(corpus, ("a", "b")), made) == []
    assert time.perf_counter() - begin < 0.05
    assert len(server.requests) == asked == 3


def test_only_what_a_split_needs_is_fetched(server: FaultServer, small: Make, tmp_path: Path) -> None:
    outcomes = run(small(server.url), settings(tmp_path / "root"), splits=("b",))
    assert set(outcomes) == {"tables/table.csv", "b.tar.gz"}


def test_two_lanes_fetch_every_item_once(server: FaultServer, small: Make, tmp_path: Path) -> None:
    made = settings(tmp_path / "root", per_host=3)
    items = items_of(small(server.url), ("a", "b"))
    assert [len(lane.items) for lane in lanes(items, made)] == [3, 3, 3]
    run(small(server.url), made)
    assert len(server.requests) == 3


def test_an_archive_can_go_after_it_was_unpacked(server: FaultServer, small: Make, tmp_path: Path) -> None:
    corpus, made = small(server.url), settings(tmp_path / "root", remove_archives=True)
    run(corpus, made)
    assert tree(tmp_path / "root") == [name for name in WHOLE if ".archives" not in name]
    assert left_to_do(items_of(corpus, ("a", "b")), made) == []


def test_archives_alone(server: FaultServer, small: Make, tmp_path: Path) -> None:
    corpus, made = small(server.url), settings(tmp_path / "root", unpack=False)
    run(corpus, made)
    assert tree(tmp_path / "root") == [name for name in WHOLE if not name.startswith("Small")]
    assert left_to_do(items_of(corpus, ("a", "b")), made) == []
    run(corpus, settings(tmp_path / "root"))
    assert tree(tmp_path / "root") == WHOLE and len(server.requests) == 3


def test_verify_finds_a_flipped_bit_and_mends_it(server: FaultServer, small: Make, tmp_path: Path) -> None:
    corpus, root = small(server.url), tmp_path / "root"
    run(corpus, settings(root))
    bad = root / "raw/small/.archives/a.tar.gz"
    content = bytearray(bad.read_bytes())
    content[20] ^= 1
    bad.write_bytes(content)
    assert left_to_do(items_of(corpus, ("a", "b")), settings(root)) == []
    run(corpus, settings(root, verify=True))
    assert bad.read_bytes() == A and len(server.requests) == 4


def test_what_is_there_already_is_hashed_and_kept(server: FaultServer, small: Make, tmp_path: Path) -> None:
    root = tmp_path / "root"
    for name, content in (("a.tar.gz", A), ("b.tar.gz", B[:-1] + b"!")):
        (root / "raw/small/.archives").mkdir(parents=True, exist_ok=True)
        (root / "raw/small/.archives" / name).write_bytes(content)
    outcomes = run(small(server.url), settings(root))
    assert (outcomes["a.tar.gz"].reason, outcomes["b.tar.gz"].reason) == ("found", "fetched")
    assert tree(root) == WHOLE


def test_the_lock_learns_and_refuses_a_change_by_both_digests(server: FaultServer, small: Make, tmp_path: Path) -> None:
    corpus = small(server.url, sure=False)
    run(corpus, settings(tmp_path / "one"))
    server.world["a.tar.gz"] = other = tar(a=b"other", both=b"x")
    (tmp_path / "two").mkdir()
    (tmp_path / "two/fetch.lock").write_bytes((tmp_path / "one/fetch.lock").read_bytes())
    outcomes = run(corpus, settings(tmp_path / "two"))
    assert outcomes["a.tar.gz"].state == "permanent"
    for content in (A, other):
        assert hashlib.sha256(content).hexdigest() in outcomes["a.tar.gz"].why
    assert outcomes["b.tar.gz"].verified == "lock"
    assert not (tmp_path / "two/raw/small/.archives/a.tar.gz").exists()
    assert "small/a.tar.gz" in read_lock(str(tmp_path / "two"))


def test_what_failed_is_tried_again_and_nothing_else(server: FaultServer, small: Make, tmp_path: Path) -> None:
    """D4: a run in which a host is dead, then a healthy one."""
    root = tmp_path / "root"
    dead = small(server.url, modes=("error_503/always", "good/0"))
    outcomes = run(dead, settings(root))
    assert outcomes["a.tar.gz"].state == "transient" and "503" in outcomes["a.tar.gz"].why
    before = len(server.requests)
    outcomes = run(small(server.url), settings(root))
    assert {one.state for one in outcomes.values()} == {"ok"}
    assert [path for path, _ in server.requests[before:]] == ["/good/0/k/a.tar.gz"]


def test_what_failed_for_good_waits_for_the_word_or_another_address(
    server: FaultServer, small: Make, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    corpus = small(server.url, modes=("good/0/none", "good/0"))
    outcomes = run(corpus, settings(root))
    assert outcomes["a.tar.gz"].state == "permanent" and "no such file" in outcomes["a.tar.gz"].why
    assert left_to_do(items_of(corpus, ("a", "b")), settings(root)) == []
    assert [item.name for item in left_to_do(items_of(corpus, ("a", "b")), settings(root, again=True))] == ["a.tar.gz"]
    assert [item.name for item in left_to_do(items_of(small(server.url), ("a", "b")), settings(root))] == ["a.tar.gz"]


def test_tarpits_end_by_the_deadline_and_hold_nobody_up(tmp_path: Path) -> None:
    """D5: one file in a hundred comes a byte at a time."""
    limits = Limits(allow_private=True, deadline=0.7, stall=10, slowest=0, tries=2, backoff=0.01)
    with FaultServer({"x.csv": TABLE * 1000}) as server:
        items = tuple(
            Item(
                corpus="pit",
                splits=("a",),
                name=f"{number}.csv",
                urls=(f"{server.url}/{'tarpit' if number == 50 else 'good'}/always/{number}/x.csv",),
                path=f"raw/pit/{number}.csv",
            )
            for number in range(100)
        )
        made = Settings(root=str(tmp_path), limits=limits)
        begin = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            list(pool.map(fetch_lane, lanes(items, made)))
        passed = time.monotonic() - begin
    outcomes = [read_outcome(str(tmp_path), item) for item in items]
    assert [one.reason for one in outcomes if one.state != "ok"] == ["deadline"]
    rest = sum(one.seconds for one in outcomes if one.state == "ok")
    assert passed <= 0.7 * 1.1 + rest


def test_an_archive_that_cannot_be_unpacked_is_not_learned(server: FaultServer, small: Make, tmp_path: Path) -> None:
    corpus, root = small(server.url, sure=False), tmp_path / "root"
    server.world["a.tar.gz"] = A[: len(A) // 2]
    outcomes = run(corpus, settings(root))
    assert (outcomes["a.tar.gz"].state, outcomes["a.tar.gz"].reason) == ("permanent", "archive")
    assert "small/a.tar.gz" not in read_lock(str(root))
    server.world["a.tar.gz"] = A
    assert run(corpus, settings(root, again=True))["a.tar.gz"].state == "ok"
    assert tree(root) == WHOLE


def test_no_secret_is_kept_or_told(
    server: FaultServer,
    small: Make,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_TOKEN", CANARY)
    root = tmp_path / "root"
    base = server.url.replace("//", f"//user:{CANARY}@")
    for modes in (("good/0", "error_500/always"), ("flipped/always", "good/0/none"), ("to_metadata/always", "short/1")):
        corpus = small("http://small.example", modes=modes)
        run(corpus, settings(root, again=True), mirror=f"{base}?token={CANARY}")
        status(["small"], str(root))
    assert any(CANARY in path for path, _ in server.requests)
    assert any("authorization" in {name.lower() for name in headers} for _, headers in server.requests)
    kept = [path for path in root.rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()]
    assert kept == [] and CANARY not in capsys.readouterr().out


def test_too_small_a_disk_is_told_before_anything(small: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items = items_of(small("http://127.0.0.1:9"), ("a", "b"))
    real = os.statvfs(tmp_path)

    class Full:
        f_bavail, f_frsize = 1, 512

    require_room(items, settings(tmp_path / "root"))
    monkeypatch.setattr("pipelines.fetching.fetch.os.statvfs", lambda _: Full)
    with pytest.raises(UserError, match="GB free and at least"):
        require_room(items, settings(tmp_path / "root"))
    assert real and not (tmp_path / "root").exists()


# The lock.


def test_a_lock_says_what_it_is_not(tmp_path: Path) -> None:
    (tmp_path / "fetch.lock").write_text("{")
    with pytest.raises(UserError, match=r"fetch\.lock is no lock"):
        read_lock(str(tmp_path))
    (tmp_path / "fetch.lock").write_text('{"format": 2, "items": {}}')
    with pytest.raises(UserError, match="has format 2"):
        read_lock(str(tmp_path))


def test_a_lock_keeps_the_first_and_names_the_second(tmp_path: Path) -> None:
    first = learn(str(tmp_path), "a/b", f"http://u:{CANARY}@host/b?k={CANARY}", 3, "1" * 64)
    assert learn(str(tmp_path), "a/b", "http://elsewhere/b", 3, "1" * 64) == first
    with pytest.raises(Changed, match=f"was {'1' * 64} .* is {'2' * 64}"):
        learn(str(tmp_path), "a/b", "http://host/b", 3, "2" * 64)
    assert CANARY not in Path(lock_path(str(tmp_path))).read_text()
    assert json.loads(Path(lock_path(str(tmp_path))).read_text())["items"]["a/b"]["url"] == "http://host/b"


LEARN = """
import sys
from pipelines.fetching.lock import learn
for number in range(20):
    learn(sys.argv[1], f"c/{sys.argv[2]}-{number}", "http://host/x", number, f"{number:064x}")
"""


def test_writers_of_a_lock_lose_nothing_of_each_other(tmp_path: Path) -> None:
    top = Path(__file__).parent.parent
    writers = [subprocess.Popen([sys.executable, "-c", LEARN, str(tmp_path), name], cwd=top) for name in "ab"]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    assert len(read_lock(str(tmp_path))) == 40


# Items.


def test_what_corpora_publish_goes_below_their_own_folders() -> None:
    for name in corpus_names():
        corpus = load_corpus(name)
        items = items_of(corpus, corpus.splits)
        assert len({item.path for item in items}) == len(items)
        for item in items:
            assert item.path.startswith(f"raw/{name}/") and (
                not item.into or f"{item.into}/".startswith(f"raw/{name}/")
            )
            assert all(url.startswith(("https://", "http://")) for url in item.urls)
            assert len(item.sha256) in (0, 64) and len(item.md5) in (0, 32)


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../b", "a//b", "-x", ".x", "a\\b", "a\nb", "a b", "a/./b"])
def test_a_place_outside_is_refused(path: str) -> None:
    with pytest.raises(UserError, match=r"small\.toml"):
        safe("small", "into", path)


def test_a_mirror_replaces_scheme_and_host() -> None:
    url = "https://www.openslr.org/resources/12/dev-clean.tar.gz"
    assert mirrored(url, "http://localhost:8000") == "http://localhost:8000/resources/12/dev-clean.tar.gz"
    assert mirrored(url, "http://m/base/") == "http://m/base/resources/12/dev-clean.tar.gz"
    assert mirrored(url + "?download=1", "http://m") == "http://m/resources/12/dev-clean.tar.gz?download=1"
    assert mirrored(url, "http://m?sig=x").endswith("dev-clean.tar.gz?sig=x")


@given(st.from_regex(r"/[a-z0-9/._-]{0,30}", fullmatch=True))
def test_a_mirror_keeps_the_path(path: str) -> None:
    assert mirrored(f"https://a.example{path}", "http://b.example:1/x") == f"http://b.example:1/x{path}"


def test_folders_of_other_corpora_are_linked(tmp_path: Path) -> None:
    corpus = load_corpus("librimix")
    assert link(corpus, str(tmp_path)) == ["librispeech"]
    (tmp_path / "raw/librispeech/LibriSpeech").mkdir(parents=True)
    for _ in range(2):
        assert link(corpus, str(tmp_path)) == []
    assert os.readlink(tmp_path / "raw/librimix/LibriSpeech") == "../librispeech/LibriSpeech"


# The command.


@pytest.fixture
def wikiqa(corpora: Path) -> bytes:
    """The miniature of a corpus as its publisher would pack it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted((corpora / "wikiqa").rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(corpora / "wikiqa"))
    return buffer.getvalue()


def test_the_command_from_a_mirror_to_the_reader(
    wikiqa: bytes, tmp_path: Path, cluster: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The real facts, a real server, real Ray; and a rerun that needs neither."""
    root, name = str(tmp_path / "root"), "WikiQACorpus.zip"
    published = load_corpus("wikiqa").facts.archives[0].url.split("/", 3)[3]
    with FaultServer({name: wikiqa}) as server:
        mirror = f"{server.url}/short/1/k"
        # The server looks at the last part of the path alone.
        server.world |= {published: wikiqa}
        fetch_commands.fetch(["wikiqa"], root, 1, cluster, mirror=mirror, allow_private=True)
        assert len(server.requests) == 2, "cut once, and resumed"
    said = capsys.readouterr().out
    assert "wikiqa/WikiQACorpus.zip" in said and "salmonn scan wikiqa" in said
    assert list(load_corpus("wikiqa").clips(f"{root}/raw/wikiqa", "test", lambda *_: None))
    begin = time.perf_counter()
    fetch_commands.fetch(["wikiqa"], root, 1, "no such cluster", mirror=mirror, allow_private=True)
    assert time.perf_counter() - begin < 0.5
    state = status_of(load_corpus("wikiqa"), "test", root)
    assert (state.fetched, state.files, state.unpacked, state.readable, state.scanned) == (1, 1, 1, True, False)
    assert state.step == "scan"
    assert (state.why, state.verified) == ("", 0)


def test_loopback_must_be_allowed(wikiqa: bytes, tmp_path: Path, cluster: str) -> None:
    with FaultServer({"x": wikiqa}) as server, pytest.raises(Failed, match="--allow-private"):
        fetch_commands.fetch(["wikiqa"], str(tmp_path), 1, cluster, mirror=server.url)
    assert server.requests == []
    state = status_of(load_corpus("wikiqa"), "test", str(tmp_path))
    assert "private address" in state.why and (state.step, state.word) == ("fetch", "failed")
    items = items_of(load_corpus("wikiqa"), ("test",), server.url)
    assert left_to_do(items, settings(tmp_path)) and not left_to_do(items, Settings(root=str(tmp_path)))


@pytest.mark.slow
def test_an_interrupted_fetch_keeps_what_came(wikiqa: bytes, tmp_path: Path, cluster: str) -> None:
    name = load_corpus("wikiqa").facts.archives[0].url.split("/", 3)[3]
    program = (
        "import sys; from pipelines.fetching.commands import fetch\n"
        "fetch(['wikiqa'], sys.argv[1], 1, sys.argv[2], mirror=sys.argv[3], allow_private=True)"
    )
    part = tmp_path / "raw/wikiqa/.archives/WikiQACorpus.zip.part"
    with FaultServer({name: wikiqa}) as server:
        arguments = [str(tmp_path), cluster, f"{server.url}/stall/1/k"]
        child = subprocess.Popen([sys.executable, "-c", program, *arguments])
        end = time.monotonic() + 60
        while time.monotonic() < end and not (part.exists() and part.stat().st_size):
            time.sleep(0.05)
        child.send_signal(signal.SIGINT)
        assert child.wait(30) != 0
        there = part.stat().st_size
        assert there >= len(wikiqa) // 2 - 512 and not part.with_suffix("").exists()
        time.sleep(2)  # for the worker to be gone
        subprocess.run([sys.executable, "-c", program, *arguments], check=True, timeout=120)
        assert server.requests[-1][1]["Range"] == f"bytes={there}-"
    assert part.with_suffix("").read_bytes() == wikiqa


def test_a_dry_run_says_all_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fetch_commands.fetch(["librispeech:dev-clean", "slurp:devel"], str(tmp_path / "root"), dry_run=True)
    said = capsys.readouterr().out
    assert "337,926,286" in said and "4.3 GB and 1 file of unknown size" in said and "nothing was written" in said
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize("name", ["iemocap", "inspec"])
def test_what_takes_a_person_is_a_page_of_steps(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], root: Path
) -> None:
    with pytest.raises(UserError, match="a person takes the steps"):
        fetch_commands.fetch([name], str(tmp_path / "root"))
    said = capsys.readouterr().out
    assert f"{tmp_path}/root/raw/{name}/" in said.replace("\n", "") and load_corpus(name).facts.homepage in said
    assert not (tmp_path / "root").exists()
    fetch_commands.fetch([f"{name}:{split}" for split in load_corpus(name).splits[-1:]], str(root))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"mirror": "ftp://x"}, "--mirror"),
        ({"mirror": f"file://u:{CANARY}@x/?{CANARY}"}, "--mirror"),
        ({"per_host": 0}, "--per-host"),
        ({"deadline": -1.0}, "--deadline"),
        ({"deadline": float("nan")}, "--deadline"),
    ],
)
def test_options_without_sense_are_told(tmp_path: Path, options: dict, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        fetch_commands.fetch(["wikiqa"], str(tmp_path), **options)
    assert CANARY not in str(caught.value)


def test_a_root_elsewhere_is_told() -> None:
    with pytest.raises(UserError, match="a folder of this machine"):
        fetch_commands.fetch(["wikiqa"], "s3://bucket/root")


def test_status_of_an_empty_root(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status([], str(tmp_path)) == []
    assert "nothing yet of audiocaps" in capsys.readouterr().out


def test_status_of_the_miniatures_says_what_is_next(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    states = {f"{state.corpus}:{state.split}": state for state in status([], str(root))}
    assert {key.split(":")[0] for key in states} == set(corpus_names())
    librispeech = states["librispeech:dev-clean"]
    assert librispeech.readable and "dev-clean.tar.gz: not fetched yet" in librispeech.why
    assert librispeech.step == "scan"
    said = capsys.readouterr().out
    # Other tests may have scanned some of the miniatures: then there is a step more.
    (scan,) = (line for line in said.splitlines() if line.startswith("next: salmonn scan"))
    assert scan.startswith("next: salmonn scan ") and "librispeech:dev-clean" in scan and " iemocap " in scan
    assert "not begun: " in said and "train-other-500" in said.split("not begun: ")[1]


# Archives that are not unpacked.


def test_archives_are_streamed_when_asked(server: FaultServer, small: Make, tmp_path: Path) -> None:
    root, corpus = tmp_path / "root", small(server.url)
    made = settings(root, stream=True)
    outcomes = run(corpus, made)
    held = [f".archives/{name}.tar{end}" for name in "ab" for end in ("", ".parquet")]
    assert tree(root) == [*held, "tables/table.csv"]
    assert [outcomes[f"{name}.tar.gz"].files for name in "ab"] == [2, 2]
    raw = raw_folder(str(root), "small")
    assert files.walk(raw) == ["Small/a.txt", "Small/b.txt", "Small/both.txt", "tables/table.csv"]
    assert files.read_bytes(files.join(raw, "Small/a.txt")) == b"aaa" * 1000
    assert files.read_bytes(files.join(raw, "tables/table.csv")) == TABLE
    trusted = trusted_files(str(root), "small")
    for path in ("Small/a.txt", "Small/b.txt", "Small/both.txt"):
        assert trusted[path] == (files.read_head(files.join(raw, path), 0) or ())[1:]
    items = items_of(corpus, ("a", "b"))
    assert left_to_do(items, made) == left_to_do(items, settings(root)) == []
    for end in ("", ".parquet"):
        (root / f"raw/small/.archives/a.tar{end}").unlink()
        assert [item.name for item in left_to_do(items, made)] == ["a.tar.gz"]
        run(corpus, made)
        assert tree(root) == [*held, "tables/table.csv"]


def test_what_was_unpacked_is_not_streamed_and_the_other_way_round(
    server: FaultServer, small: Make, tmp_path: Path
) -> None:
    root, corpus = tmp_path / "root", small(server.url)
    run(corpus, settings(root), ("a",))
    run(corpus, settings(root, stream=True))
    raw = raw_folder(str(root), "small")
    assert raw.startswith("archive://")
    assert files.walk(raw) == ["Small/a.txt", "Small/b.txt", "Small/both.txt", "tables/table.csv"]
    before = digests(root)
    for stream in (True, False):
        run(corpus, settings(root, stream=stream))
        assert digests(root) == before
    run(corpus, settings(root, stream=True, verify=True), ("a",))
    assert digests(root / "raw") == {path[4:]: digest for path, digest in before.items() if path.startswith("raw/")}


def test_to_stream_and_not_to_unpack_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--stream and --no-unpack"):
        fetch_commands.fetch(["librispeech"], str(tmp_path), stream=True, unpack=False)


# The board.


def test_speed_is_of_the_last_while() -> None:
    speed = Speed()
    assert speed.note(0, 0.0) == 0.0, "waiting for the first byte is not slowness"
    assert speed.note(100, 5.0) == 0.0
    assert speed.note(200, 6.0) == 100.0
    assert speed.note(200, 100.0) == 0.0


def test_the_board_tells_what_is_on_its_way(small: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "root"
    items = items_of(small("http://small.example"), ("a", "b"))
    board = Board(items, str(root))
    first, second = (root / f"{item.path}.part" for item in items[1:])
    first.parent.mkdir(parents=True)
    first.write_bytes(b"x" * 10)
    board.look()
    assert board.summary().startswith("0 of 3 items, 10 B")
    time.sleep(0.01)
    first.write_bytes(b"x" * 100)
    board.look()
    (row,) = board.now
    assert row == "small/a.tar.gz" and board.speed > 0 and "left" in board.summary()
    assert board.render().row_count == 1
    outcome = Outcome(key=items[2].key, state="transient", reason="http_503", why="host answers 503 for now")
    place = root / "fetch/small/b.tar.gz.json"
    place.parent.mkdir(parents=True)
    place.write_bytes(msgspec.json.encode(outcome))
    board.look()
    assert "small/b.tar.gz: not yet: host answers 503" in capsys.readouterr().out and not second.exists()


def test_a_lane_survives_being_sent(tmp_path: Path) -> None:
    import pickle

    lane = Lane(number=0, items=items_of(load_corpus("slurp"), ("devel",)), settings=settings(tmp_path))
    assert pickle.loads(pickle.dumps(lane)) == lane  # noqa: S301
