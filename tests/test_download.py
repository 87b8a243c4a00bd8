"""One file over HTTP from a server that fails: the right bytes under the final name, or none."""

from __future__ import annotations

import concurrent.futures
import gzip
import hashlib
import itertools
import multiprocessing
import os
import random
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fault_server import MODES, FaultServer, Handler
from manifests import files
from pipelines.fetching import hosts
from pipelines.fetching.download import Breaker, download
from pipelines.fetching.hosts import Forbidden, check, judge, open_url
from pipelines.fetching.line import Line
from pipelines.fetching.part import BLOCK, Busy, Origin, open_part
from pipelines.fetching.sniff import suspect
from pipelines.fetching.wanted import Got, Limits, Unfetched, Wanted

NAME = "corpus.tar.gz"
CONTENT = gzip.compress(random.Random(1).randbytes(200_000), 1)
LIMITS = Limits(allow_private=True, deadline=6.0, connect=0.5, stall=0.15, tries=3, backoff=0.01, cap=4 << 20)
STUBBORN = msgspec.structs.replace(LIMITS, deadline=20.0, stall=0.4, tries=6)
"""For many at once: on two busy cores a good server may be too slow now and then, besides the faults it was told."""
PATIENT = msgspec.structs.replace(LIMITS, deadline=60.0, connect=20.0, stall=20.0)
"""For those that are killed: on a busy machine they must not give up by themselves."""
UNSEEN = {"flipped"}
"""Faults that nothing but a digest shows."""
CANARY = "canary-7f3a9"


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    with FaultServer({NAME: CONTENT}) as made:
        yield made


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def wanted(server: FaultServer, folder: Path, mode: str, times: object = "always", *, sure: bool = True) -> Wanted:
    folder.mkdir(parents=True, exist_ok=True)
    facts = {"sha256": digest(CONTENT), "bytes": len(CONTENT)} if sure else {}
    return Wanted(path=str(folder / NAME), urls=(f"{server.url}/{mode}/{times}/{folder.name}/{NAME}",), **facts)


def try_one(
    server: FaultServer, folder: Path, mode: str, times: object, sure: bool, limits: Limits = LIMITS
) -> Got | Unfetched:
    """Fetch once, and hold what is under the final name against the truth."""
    want = wanted(server, folder, mode, times, sure=sure)
    try:
        result: Got | Unfetched = download(want, limits)
    except Unfetched as error:
        result = error
    final = folder / NAME
    assert final.exists() == isinstance(result, Got), f"{mode} {times} {sure}: {result!r}"
    if final.exists():
        assert digest(final.read_bytes()) == digest(CONTENT), f"{mode} {times} {sure}"
        assert not list(folder.glob("*.part*"))
    return result


def variants(mode: str) -> list[tuple[object, bool]]:
    """How often it fails, and whether a digest is known."""
    return [(times, sure) for times in ("always", 1, 2) for sure in (True, False) if sure or mode not in UNSEEN]


def test_seventeen_modes_and_more() -> None:
    assert len(MODES) >= 17


def test_a_good_server_is_asked_once(server: FaultServer, tmp_path: Path) -> None:
    for sure in (True, False):
        got = try_one(server, tmp_path / str(sure), "good", 0, sure)
        assert isinstance(got, Got)
        assert (got.bytes, got.received, got.tries, got.sha256) == (len(CONTENT), len(CONTENT), 1, digest(CONTENT))


def test_no_fault_puts_a_wrong_file_under_the_final_name(server: FaultServer, tmp_path: Path) -> None:
    """Every mode three times at least: always failing, once, and twice; with a digest known, and without."""
    jobs = [(mode, times, sure) for mode in MODES for times, sure in variants(mode)]
    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        results = list(pool.map(lambda job: try_one(server, tmp_path / "-".join(map(str, job)), *job, STUBBORN), jobs))
    ended = {job: result for job, result in zip(jobs, results, strict=True)}
    permanent = {"to_file", "to_metadata", "in_circles", "endless"}
    for (mode, times, sure), result in ended.items():
        if times == "always" and mode != "no_range":
            assert isinstance(result, Unfetched), (mode, sure)
            assert result.permanent == (mode in permanent or result.reason in ("size", "unproven", "digest")), mode
        elif mode not in permanent and result.__class__ is Unfetched:
            # What a server's own words or wrong bytes twice rule out is not asked for a third time.
            assert result.permanent, (mode, times, sure, result.why)


def test_what_passes_is_had_in_the_end(server: FaultServer, tmp_path: Path) -> None:
    for mode in (
        "short",
        "cut_chunks",
        "web_page",
        "too_many_dated",
        "error_500",
        "reset",
        "garbage",
        "stall",
        "changed",
    ):
        assert isinstance(try_one(server, tmp_path / mode, mode, 1, True), Got), mode


@pytest.mark.parametrize("name", ["file", "metadata", "circles"])
def test_a_redirect_is_checked(server: FaultServer, tmp_path: Path, name: str) -> None:
    mode = {"file": "to_file", "metadata": "to_metadata", "circles": "in_circles"}[name]
    result = try_one(server, tmp_path / mode, mode, "always", True)
    said = {"file": "not http", "metadata": "link-local or metadata", "circles": "more than 10"}[name]
    assert isinstance(result, Unfetched) and result.permanent and said in result.why


@pytest.mark.parametrize("sure", [True, False])
def test_resume_sends_only_the_rest(server: FaultServer, tmp_path: Path, sure: bool) -> None:
    want = wanted(server, tmp_path / f"rest{sure}", "short", 1, sure=sure)
    got = download(want, LIMITS)
    assert (got.tries, got.received) == (2, len(CONTENT))
    ranges = [headers.get("Range") for path, headers in server.requests if f"/rest{sure}/" in path]
    assert ranges == [None, f"bytes={len(CONTENT) * 2 // 3}-"]


@pytest.mark.parametrize("mode", ["changed", "no_range", "wrong_range"])
@pytest.mark.parametrize("sure", [True, False])
def test_resume_of_another_file_or_without_ranges_starts_again(
    server: FaultServer, tmp_path: Path, mode: str, sure: bool
) -> None:
    got = try_one(server, tmp_path / f"{mode}{sure}", mode, 1 if mode == "changed" else 2, sure)
    assert isinstance(got, Got)
    assert got.received > len(CONTENT)


def test_a_part_that_is_whole_is_not_asked_for_again(server: FaultServer, tmp_path: Path) -> None:
    want = wanted(server, tmp_path / "whole", "good")
    Path(want.path + ".part").write_bytes(CONTENT)
    with open_part(want.path) as part:
        source = hashlib.sha256(want.urls[0].encode()).hexdigest()
        part.note(Origin(source=source, etag='"tag"', total=len(CONTENT)))
    got = download(want, LIMITS)
    assert (got.received, got.sha256) == (0, digest(CONTENT))


def test_a_part_of_unknown_origin_is_not_built_upon(server: FaultServer, tmp_path: Path) -> None:
    want = wanted(server, tmp_path / "unknown", "good")
    Path(want.path + ".part").write_bytes(b"x" * 1000)
    assert download(want, LIMITS).received == len(CONTENT)


def test_a_part_from_before_a_reboot_is_trusted_only_with_a_digest(
    server: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    received = {}
    for sure in (True, False):
        want = wanted(server, tmp_path / f"reboot{sure}", "short", 1, sure=sure)
        with pytest.raises(Unfetched):
            download(want, msgspec.structs.replace(LIMITS, tries=1))
        with monkeypatch.context() as patch:
            patch.setattr("pipelines.fetching.exchange.boot", lambda: "another run of the system")
            received[sure] = download(want, LIMITS).received
    assert received == {True: len(CONTENT) - len(CONTENT) * 2 // 3, False: len(CONTENT)}


def test_mirrors_are_tried_in_turn(server: FaultServer, tmp_path: Path) -> None:
    urls = tuple(f"{server.url}/{mode}/always/mirror/{NAME}" for mode in ("error_503", "web_page", "short", "good"))
    got = download(Wanted(path=str(tmp_path / NAME), urls=urls, sha256=digest(CONTENT), bytes=len(CONTENT)), LIMITS)
    assert got.url == urls[-1]
    # Two thirds came from the third, and the digest vouches for going on at the fourth.
    assert got.received < len(CONTENT) * 1.01 + 1000


@pytest.mark.parametrize(
    ("status", "said"), [(401, "credentials"), (403, "refuses"), (404, "no such file"), (410, "no more")]
)
def test_a_lasting_refusal_is_told_and_not_repeated(tmp_path: Path, status: int, said: str) -> None:
    MODES["lasting"] = lambda ask: ask.head(status, Content_Length=0)
    try:
        with FaultServer({NAME: CONTENT}) as server, pytest.raises(Unfetched, match=said) as caught:
            download(wanted(server, tmp_path / "x", "lasting"), LIMITS)
        assert caught.value.permanent and len(server.requests) == 1
    finally:
        del MODES["lasting"]


def test_retry_after_is_waited_for(server: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    clock = SimpleNamespace(monotonic=time.monotonic, monotonic_ns=time.monotonic_ns, sleep=waits.append)
    monkeypatch.setattr("pipelines.fetching.download.time", clock)
    assert isinstance(try_one(server, tmp_path / "wait", "too_many", 1, True), Got)
    assert len(waits) == 1 and waits[0] >= 1.0


def test_a_wait_beyond_the_deadline_is_not_begun(server: FaultServer, tmp_path: Path) -> None:
    begin = time.monotonic()
    with pytest.raises(Unfetched, match="after the time"):
        download(wanted(server, tmp_path / "late", "too_many"), Limits(allow_private=True, deadline=0.5))
    assert time.monotonic() - begin < 0.5


@pytest.mark.parametrize("mode", ["tarpit", "tarpit_head"])
def test_a_tarpit_ends_by_the_deadline(server: FaultServer, tmp_path: Path, mode: str) -> None:
    limits = Limits(allow_private=True, deadline=0.4, stall=30, slowest=0, tries=3, backoff=0.01)
    begin = time.monotonic()
    with pytest.raises(Unfetched) as caught:
        download(wanted(server, tmp_path / mode, mode), limits)
    assert time.monotonic() - begin < 0.44
    assert caught.value.reason == "deadline" and not caught.value.permanent


def test_a_trickle_is_given_up_before_the_deadline(server: FaultServer, tmp_path: Path) -> None:
    limits = Limits(allow_private=True, deadline=10, stall=0.3, slowest=1024, tries=1)
    begin = time.monotonic()
    with pytest.raises(Unfetched, match="fewer than 1,024 bytes a second"):
        download(wanted(server, tmp_path / "trickle", "tarpit"), limits)
    assert time.monotonic() - begin < 2


def test_a_host_that_is_down_is_left_alone(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    breaker = Breaker(limit=3, rest=0.2)
    want = Wanted(path=str(tmp_path / NAME), urls=(f"http://127.0.0.1:{port}/{NAME}",), sha256="0" * 64)
    with pytest.raises(Unfetched) as caught:
        download(want, LIMITS, breaker)
    assert caught.value.reason == "connect"
    with pytest.raises(Unfetched, match="left alone") as caught:
        breaker.check("127.0.0.1")
    assert not caught.value.permanent
    time.sleep(0.25)
    breaker.check("127.0.0.1")
    with pytest.raises(Unfetched, match="left alone"):
        breaker.check("127.0.0.1")
    breaker.note("127.0.0.1", True)
    breaker.check("127.0.0.1")


def test_a_disk_without_room_is_told_before_a_byte_is_written(
    server: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.statvfs(tmp_path)

    class Full:
        f_bavail, f_frsize = 10, real.f_frsize

    monkeypatch.setattr("pipelines.fetching.exchange.os.statvfs", lambda _: Full)
    with pytest.raises(Unfetched, match="bytes free where") as caught:
        download(wanted(server, tmp_path / "full", "good"), LIMITS)
    assert caught.value.reason == "disk_full" and not caught.value.permanent


def test_two_processes_do_not_write_one_part(tmp_path: Path) -> None:
    path = str(tmp_path / NAME)
    with open_part(path) as part:
        part.write(b"abc")
        with pytest.raises(Busy), open_part(path):
            pass
        part.finish(path)
        # The lock was on what is the finished file now: a new part is another file.
        with open_part(path) as other:
            assert other.size == 0
    assert Path(path).read_bytes() == b"abc"


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.0.0.1",
        "192.168.1.1",
        "172.16.0.1",
        "100.64.0.1",
        "0.0.0.0",
        "::1",
        "fc00::1",
        "fe80::1",
        "169.254.169.254",
        "100.100.100.200",
        "fd00:ec2::254",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::",
        "224.0.0.1",
        "fe80::1%eth0",
    ],
)
def test_addresses_of_no_public_machine_are_refused(address: str) -> None:
    assert judge(address, False)
    metadata = ("link-local" in judge(address, False)) or address in ("0.0.0.0", "224.0.0.1")
    assert bool(judge(address, True)) == metadata


def test_public_addresses_are_allowed() -> None:
    assert not any(judge(address, False) for address in ("8.8.8.8", "2606:4700::1111", "64:ff9b::808:808"))


HOSTILE = [
    "file:///etc/passwd",
    "ftp://example.org/x",
    "gopher://127.0.0.1/x",
    "pipe:touch x",
    "http://",
    "http:///x",
    "//127.0.0.1/x",
    "http://127.0.0.1/x",
    "http://127.1/x",
    "http://2130706433/x",
    "http://0x7f000001/x",
    "http://0177.0.0.1/x",
    "http://localhost/x",
    "http://localhost./x",
    "http://[::1]/x",
    "http://[::ffff:127.0.0.1]/x",
    "http://[fe80::1%25eth0]/x",
    "http://169.254.169.254/latest",
    "http://user:pw@127.0.0.1/x",
    "http://example.org@127.0.0.1/x",
    "http://127.0.0.1\\@example.org/x",
    "http://127.0.0.1#@example.org/x",
    "http://127.0.0.1:99999/x",
    "http://exa mple.org/x",
    "http://127.0.0.1\r\nX: y/x",
    "javascript:alert(1)",
    "data:text/plain,x",
    "-oProxyCommand=touch x",
    "",
    "http://[::1",
]


@pytest.mark.parametrize("url", HOSTILE)
@pytest.mark.parametrize("proxied", [False, True])
def test_hostile_addresses_are_refused(url: str, proxied: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if proxied:
        monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    with pytest.raises((Forbidden, hosts.Unreachable)):
        check(url)


def test_a_name_is_looked_up_once_and_that_address_is_used(
    server: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that is public when it is checked and private when it is used gets us nowhere private."""
    port = int(server.url.rsplit(":", 1)[1])
    answers = itertools.chain(["8.8.8.8"], itertools.repeat("127.0.0.1"))
    asked = []

    def rebind(host: str, *args: object, **more: object) -> list:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), port))]

    dialled = []

    def connect(peer: tuple[str, int], timeout: float = 0) -> socket.socket:
        dialled.append(peer)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "getaddrinfo", rebind)
    monkeypatch.setattr(socket, "create_connection", connect)
    url = f"http://rebind.example:{port}/good/0/rebind/{NAME}"
    with pytest.raises(hosts.Unreachable):
        open_url(url, {}, Line(), allow_private=False, connect=1, stall=1)
    assert asked == ["rebind.example"] and dialled == [("8.8.8.8", port)]
    with pytest.raises(Forbidden, match="private"):
        open_url(url, {}, Line(), allow_private=False, connect=1, stall=1)


def test_a_login_goes_to_its_own_host_alone(tmp_path: Path) -> None:
    with FaultServer({NAME: CONTENT}) as first, FaultServer({NAME: CONTENT}) as second:
        there = f"{second.url}/good/0/login/{NAME}?X-Amz-Signature={CANARY}"
        MODES["elsewhere"] = lambda ask: ask.head(302, Location=there, Content_Length=0)
        MODES["nearby"] = lambda ask: ask.head(307, Location=f"/elsewhere/always/k/{NAME}", Content_Length=0)
        try:
            url = first.url.replace("//", f"//user:{CANARY}@") + f"/nearby/always/k/{NAME}?token={CANARY}"
            got = download(Wanted(path=str(tmp_path / NAME), urls=(url,), sha256=digest(CONTENT)), LIMITS)
        finally:
            del MODES["elsewhere"], MODES["nearby"]
        assert all("Authorization" in headers or "authorization" in headers for _, headers in first.requests)
        assert len(first.requests) == 2 and len(second.requests) == 1
        assert not {"Authorization", "authorization"} & set(second.requests[0][1])
        assert CANARY not in repr(got)


@pytest.mark.parametrize("mode", sorted(MODES))
def test_no_secret_is_told_or_kept(server: FaultServer, tmp_path: Path, mode: str) -> None:
    want = wanted(server, tmp_path / f"secret-{mode}", mode)
    url = want.urls[0].replace("//", f"//user:{CANARY}@") + f"?token={CANARY}"
    quick = Limits(allow_private=True, deadline=0.3, connect=0.2, stall=0.05, tries=2, backoff=0.001, cap=1 << 20)
    try:
        told = repr(download(Wanted(path=want.path, urls=(url,), sha256=want.sha256, bytes=want.bytes), quick))
    except Unfetched as error:
        told = f"{error!r} {error.why} {error.__context__!r}" if error.__suppress_context__ else repr(error)
        told = f"{error!r} {error.why}"
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*.json"))
    assert CANARY not in told and CANARY.encode() not in kept
    assert any(CANARY in path for path, _ in server.requests), "the server did get it"


def test_a_proxy_of_the_environment_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy here is our server, which sees the whole address asked for; its password is told to it alone."""
    with FaultServer({NAME: CONTENT}) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.replace("//", f"//me:{CANARY}@"))
        url = f"http://corpora.example/good/0/k/{NAME}"
        got = download(Wanted(path=str(tmp_path / NAME), urls=(url,), sha256=digest(CONTENT)), LIMITS)
    path, headers = proxy.requests[0]
    assert path == url
    assert "proxy-authorization" in {name.lower() for name in headers}
    assert got.bytes == len(CONTENT)


@given(st.binary(max_size=64))
def test_first_bytes_that_no_archive_has_are_seen(head: bytes) -> None:
    assert bool(suspect("a.tar.gz", head)) == (not head.startswith(b"\x1f\x8b"))
    assert bool(suspect("a.zip", b"PK\x03\x04" + head)) is False
    assert suspect("table.csv", b"<!DOCTYPE html>" + head)


def fetch_for_a_while(url: str, path: str, sha256: str) -> None:
    """What the child process does that is killed."""
    for name in ("http_proxy", "HTTP_PROXY"):
        os.environ.pop(name, None)
    download(Wanted(path=path, urls=(url,), sha256=sha256), PATIENT)


class Killer:
    """Serves a file up to a byte, kills the client there, and serves the next request well."""

    def __init__(self, server: FaultServer) -> None:
        self.server, self.context = server, multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["pipelines.fetching.download"])
        self.reached = threading.Event()
        self.byte, self.part = 0, Path()
        MODES["hold"] = self.hold

    def hold(self, ask: Handler) -> None:
        ask.head(200, Content_Length=len(ask.body), ETag=ask.etag)
        ask.send(ask.body[: self.byte])
        ask.wfile.flush()
        # What the system holds back for a client that does not read yet is no loss of the client's.
        end = time.monotonic() + 5
        while time.monotonic() < end and (files.size(self.part) or 0) < self.byte - BLOCK // 2:
            time.sleep(0.001)
        self.reached.set()
        ask.server.closing.wait(5)

    def run(self, folder: Path, case: str, byte: int, sure: bool) -> int:
        """Kill a client at a byte, fetch again; return the bytes that were sent twice."""
        folder.mkdir()
        name, key, path = f"{folder.name}.tar.gz", folder.name, folder / NAME
        old = b"\x1f\x8b" + random.Random(folder.name).randbytes(3 * BLOCK + byte % 1000)
        new = old[:2] + bytes(reversed(old[2:])) if case == "changed" else old
        self.server.world[name] = old
        self.byte, self.part = byte % len(old), folder / f"{NAME}.part"
        self.reached.clear()
        sha256 = digest(new) if sure else ""
        url = f"{self.server.url}/hold/1/{key}/{name}"
        child = self.context.Process(target=fetch_for_a_while, args=(url, str(path), sha256))
        child.start()
        assert self.reached.wait(20)
        time.sleep(byte % 7 / 1000)
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        assert not path.exists()
        self.server.world[name] = new
        if case == "no ranges":
            MODES["hold"] = lambda ask: ask.serve(ranges=False)
            url = url.replace("/hold/1/", "/hold/9/")
        try:
            got = download(Wanted(path=str(path), urls=(url,), sha256=sha256), PATIENT)
        finally:
            MODES["hold"] = self.hold
        assert digest(path.read_bytes()) == digest(new) == got.sha256
        del self.server.world[name]
        path.unlink()
        return self.server.sent[key] - len(new)


CASES = ("same", "changed", "no ranges")


@pytest.mark.parametrize("case", CASES)
def test_a_killed_client_goes_on(tmp_path: Path, case: str) -> None:
    with FaultServer({}) as server:
        killer = Killer(server)
        # The slow suite takes two hundred bytes of each; here one early without a digest, and one late with it.
        bytes_ = {"same": (70_000, 2_500_001), "changed": (2_500_001,), "no ranges": (70_000,)}[case]
        twice = [killer.run(tmp_path / f"{case[:2]}{byte}", case, byte, bool(byte % 2)) for byte in bytes_]
    assert case != "same" or max(twice) <= BLOCK


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_six_hundred_kills(tmp_path: Path) -> None:
    drawn = random.Random(11)
    right, twice = Counter[str](), []
    with FaultServer({}) as server:
        killer = Killer(server)
        for number in range(200):
            for case in CASES:
                byte = drawn.randrange(3 * BLOCK)
                extra = killer.run(tmp_path / f"{case[:2]}{number}", case, byte, bool(number % 2))
                right[case] += 1
                twice += [extra] if case == "same" else []
    print(f"right digest {sum(right.values())} of 600 {dict(right)}; sent twice at most {max(twice):,} bytes")
    assert right.total() == 600 and max(twice) <= BLOCK


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_seventeen_hundred_fetches(server: FaultServer, tmp_path: Path) -> None:
    """A hundred fetches of each mode, of all variants in turn; `try_one` holds every file against the truth."""
    jobs = [
        (tmp_path / f"{mode}-{number}", mode, *variants(mode)[number % len(variants(mode))])
        for number in range(100)
        for mode in MODES
    ]
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        results = list(pool.map(lambda job: try_one(server, *job), jobs))
    files = sum(isinstance(result, Got) for result in results)
    print(f"{len(jobs):,} fetches in {len(MODES)} modes: {files:,} files, none wrong")
    assert len(jobs) >= 1700 and files > 300
