"""The cache of shards: fetched once for many processes, whole or not at all, and the least recently used evicted."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import itertools
import json
import os
import pickle
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests import Failed, UserError, files
from shards.cache import BLOCK, Cache, Stats, Wrong
from shards.index import File
from test_object_store import bucket  # noqa: F401  the fixture

NUMBERS = itertools.count()
USES = ("hold", "hold", "open", "forget", "cut")


def proof(path: str, content: bytes) -> File:
    return File(path=path, bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def content_of(number: int, size: int = 1000) -> bytes:
    return random.Random(number).randbytes(size)


def put(url: str, *contents: bytes) -> list[File]:
    """Write a dataset of shards."""
    made = [proof(f"shards/corpus/split-{number:06d}.tar", content) for number, content in enumerate(contents)]
    for shard, content in zip(made, contents, strict=True):
        files.write_whole(files.join(url, shard.path), content)
    return made


def in_memory(*contents: bytes) -> tuple[str, list[File]]:
    url = f"memory://cache/{next(NUMBERS)}"
    return url, put(url, *contents)


def there(folder: Path) -> list[str]:
    """What is in the folder of a cache but its lock."""
    return sorted(path.name for path in folder.iterdir() if path.name != "lock")


def names(*shards: File) -> list[str]:
    return sorted(f"{shard.sha256}.tar" for shard in shards)


def settle(cache: Cache) -> None:
    """Wait until all that was told to `ahead` is done."""
    end = time.monotonic() + 20
    while cache.queued:
        assert time.monotonic() < end
        time.sleep(0.005)


class Store(http.server.ThreadingHTTPServer):
    """A web server on loopback with ranges, that counts, and that can be told to be slow, to lie and to stop midway."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/data"
        self.world: dict[str, bytes] = {}
        self.lock = threading.Lock()
        self.sent: Counter[str] = Counter()
        """Bytes sent of each path."""
        self.begun: Counter[str] = Counter()
        """How often the first byte was asked for."""
        self.flawed: Counter[str] = Counter()
        """How often the first bytes will be wrong."""
        self.delay = 0.0
        self.status = 200
        self.ranges = True
        self.half: dict[str, threading.Event] = {}
        """Paths whose first answer stops midway until the event."""

    def add(self, *contents: bytes) -> list[File]:
        made = [proof(f"shards/c/s-{len(self.world) + at:06d}.tar", each) for at, each in enumerate(contents)]
        self.world |= {shard.path: content for shard, content in zip(made, contents, strict=True)}
        return made

    def handle_error(self, *_: object) -> None:
        """A client that was killed is no news here."""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Store

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        store, path = self.server, self.path.partition("?")[0].removeprefix("/data/")
        content = store.world.get(path)
        if content is None or store.status != 200:
            self.send_response(404 if content is None else store.status)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        asked = asked if store.ranges else None
        begin, end = (int(asked[1]), min(int(asked[2]) + 1, len(content))) if asked else (0, len(content))
        piece = content[begin:end]
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(piece)))
        self.send_header("Accept-Ranges", "bytes")
        if asked:
            self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{len(content)}")
        self.end_headers()
        if not body:
            return
        with store.lock:
            store.begun[path] += begin == 0
            store.sent[path] += len(piece)
            if begin == 0 and store.flawed[path] > 0:
                store.flawed[path] -= 1
                piece = bytes(64) + piece[64:]
            gate = store.half.pop(path, None)
        time.sleep(store.delay)
        if gate is not None:
            self.wfile.write(piece[: len(piece) // 2])
            self.wfile.flush()
            gate.wait(30)
            piece = piece[len(piece) // 2 :]
        self.wfile.write(piece)


@pytest.fixture
def store() -> Iterator[Store]:
    with Store() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield server
        server.shutdown()


PROGRAM = """
import hashlib, json, os, random, sys, msgspec
from shards.cache import Cache
from shards.index import File

url, folder, size, rounds, count, told = sys.argv[1:]
shards = msgspec.json.decode(told, type=list[File])
begin, go = os.pipe()

def use(seed):
    cache, order = Cache(folder, int(size)), random.Random(seed)
    os.read(begin, 1)
    for _ in range(int(rounds)):
        for shard in order.sample(shards, len(shards)):
            with cache.open(url, shard) as file:
                assert hashlib.sha256(file.readall()).hexdigest() == shard.sha256, shard
    os.write(1, msgspec.json.encode(cache.stats) + b"\\n")

# Forked, so that there is one wait for imports; nothing has a thread yet.
pids = []
for seed in range(int(count)):
    pids.append(os.fork())
    if not pids[-1]:
        os.close(go)
        use(seed)
        os._exit(0)
print(json.dumps(pids), flush=True)
os.close(go)
sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0 for pid in pids))
"""
ROOT = Path(__file__).parent.parent


@contextlib.contextmanager
def processes(
    count: int, url: str, folder: Path, size: int, rounds: int, shards: list[File]
) -> Iterator[tuple[list[int], subprocess.Popen[str]]]:
    """So many processes that hold all shards, each in orders of its own, from the same moment on, and their parent."""
    told = json.dumps([{"path": shard.path, "bytes": shard.bytes, "sha256": shard.sha256} for shard in shards])
    command = [sys.executable, "-c", PROGRAM, url, str(folder), str(size), str(rounds), str(count), told]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as parent:
        pids = json.loads(parent.stdout.readline())
        try:
            yield pids, parent
        except BaseException:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            raise


def ended(parent: subprocess.Popen[str]) -> list[Stats]:
    """Wait for the processes; what each counted."""
    out, _ = parent.communicate(timeout=60)
    assert parent.returncode == 0
    return [Stats(**json.loads(line)) for line in out.splitlines()]


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_shard_is_fetched_whole_and_once(tmp_path: Path, store: Store) -> None:
    content = content_of(1, 5 * BLOCK + 12345)
    (shard,) = store.add(content)
    cache = Cache(str(tmp_path / "new" / "cache"))
    path = cache.hold(store.url, shard)
    assert Path(path).read_bytes() == content
    assert cache.hold(store.url, shard) == path
    assert cache.stats == Stats(fetched=1, fetched_bytes=len(content), hits=1)
    assert store.sent[shard.path] == len(content), "not a byte twice"
    assert there(tmp_path / "new" / "cache") == names(shard)


def test_four_processes_fetch_each_shard_once(tmp_path: Path, store: Store) -> None:
    contents = [content_of(number, 300_000) for number in range(6)]
    shards, store.delay = store.add(*contents), 0.03
    with processes(4, store.url, tmp_path, 2**30, 1, shards) as (_, parent):
        stats = ended(parent)
    assert {path: store.sent[path] for path in store.world} == {shard.path: shard.bytes for shard in shards}
    assert sum(one.fetched for one in stats) == 6 and sum(one.hits for one in stats) == 18
    assert max(one.fetched for one in stats) < 6, "they worked side by side"
    assert there(tmp_path) == names(*shards)


def test_processes_that_want_more_than_fits_stay_within_the_bound(tmp_path: Path) -> None:
    folder, size = tmp_path / "cache", 2_500_000
    shards = put(str(tmp_path / "slow disk"), *(content_of(number, 500_000 + number) for number in range(12)))
    most = 0
    with processes(3, str(tmp_path / "slow disk"), folder, size, 8, shards) as (_, parent):
        while parent.poll() is None:
            total = 0
            # The folder itself comes only with the first of the processes.
            for entry in os.scandir(folder) if folder.exists() else ():
                with contextlib.suppress(FileNotFoundError):
                    total += entry.stat().st_size
            most = max(most, total)
            time.sleep(0.002)
        stats = ended(parent)
    assert sum(one.evicted for one in stats) > 12
    # What is evicted between hold and open is held once more.
    assert 3 * 8 * 12 <= sum(one.fetched + one.hits for one in stats) < 4 * 8 * 12
    # A look at a folder that changes may see a shard both before and after its turn.
    assert 1_500_000 < most < size + 500_012
    assert sum(path.stat().st_size for path in folder.iterdir()) <= size
    assert all(name.endswith(".tar") for name in there(folder))


def test_threads_of_one_process_fetch_once(tmp_path: Path, store: Store) -> None:
    (shard,) = store.add(content_of(1))
    store.delay, cache = 0.05, Cache(str(tmp_path))
    with ThreadPoolExecutor(8) as threads:
        paths = set(threads.map(lambda _: cache.hold(store.url, shard), range(8)))
    assert len(paths) == 1
    assert cache.stats == Stats(fetched=1, fetched_bytes=1000, hits=7)
    assert store.sent[shard.path] == 1000


def test_what_another_brings_between_look_and_lock_is_not_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, (shard,) = in_memory(content_of(1))
    Cache(str(tmp_path)).hold(url, shard)
    cache, looks = Cache(str(tmp_path)), itertools.count()
    touch = cache.shelf.touch
    monkeypatch.setattr(cache.shelf, "touch", lambda shard: next(looks) > 0 and touch(shard))
    assert Path(cache.hold(url, shard)).read_bytes() == content_of(1)
    assert cache.stats == Stats(hits=1) and there(tmp_path) == names(shard)


def test_the_death_of_who_fetches_leaves_nothing_wrong(tmp_path: Path, store: Store) -> None:
    stuck, other = store.add(content_of(1, 400_000), content_of(2, 1000))
    never = threading.Event()
    store.half[stuck.path] = never
    cache, part = Cache(str(tmp_path), 401_000), tmp_path / f"{stuck.sha256}.part"
    with processes(1, store.url, tmp_path, 401_000, 1, [stuck]) as ((pid,), _), ThreadPoolExecutor(1) as waiting:
        until(lambda: store.sent[stuck.path])
        until(lambda: part.exists() and part.stat().st_size == stuck.bytes)
        waiter = waiting.submit(cache.hold, store.url, stuck)
        cache.hold(store.url, other)  # does not touch what another has in hand
        assert there(tmp_path) == sorted([part.name, *names(other)])
        time.sleep(0.1)
        assert not waiter.done()
        os.kill(pid, signal.SIGKILL)
        path = waiter.result(timeout=20)
    never.set()
    assert Path(path).read_bytes() == store.world[stuck.path]
    assert there(tmp_path) == names(stuck, other)
    assert store.begun[stuck.path] == 2 and cache.stats.fetched == 2


def test_what_killed_processes_left_is_removed_by_the_next_fetch(tmp_path: Path) -> None:
    url, (one, two) = in_memory(content_of(1), content_of(2))
    left = tmp_path / f"{one.sha256}.part"
    left.write_bytes(bytes(5_000_000))
    (tmp_path / f"{'0' * 64}.part").write_bytes(bytes(1000))
    (tmp_path / "notes.part").write_text("not ours")
    cache = Cache(str(tmp_path), 2000)
    assert Path(cache.hold(url, one)).read_bytes() == content_of(1)
    cache.hold(url, two)
    assert there(tmp_path) == sorted([*names(one, two), "notes.part"])
    assert cache.stats.evicted == 0


def test_shards_of_one_name_in_two_datasets_do_not_mix(tmp_path: Path) -> None:
    (first, (one,)), (second, (two,)) = in_memory(content_of(1)), in_memory(content_of(2))
    assert one.path == two.path
    cache = Cache(str(tmp_path))
    for _ in range(2):
        assert Path(cache.hold(first, one)).read_bytes() == content_of(1)
        assert Path(cache.hold(second, two)).read_bytes() == content_of(2)
    assert cache.stats.fetched == 2


def test_one_content_in_two_datasets_is_kept_once(tmp_path: Path) -> None:
    (first, (one,)), (second, (two,)) = in_memory(content_of(1)), in_memory(content_of(1))
    cache = Cache(str(tmp_path))
    assert cache.hold(first, one) == cache.hold(second, two)
    assert cache.stats.fetched == 1


def test_the_least_recently_used_are_evicted_first(tmp_path: Path) -> None:
    url, shards = in_memory(*map(content_of, range(5)))
    cache = Cache(str(tmp_path), 3000)
    for number in (0, 1, 2, 0):
        cache.hold(url, shards[number])
    cache.hold(url, shards[3])
    assert there(tmp_path) == names(shards[0], shards[2], shards[3])
    cache.hold(url, shards[4])
    assert there(tmp_path) == names(shards[0], shards[3], shards[4])
    assert cache.stats == Stats(fetched=5, fetched_bytes=5000, hits=1, evicted=2)


def test_what_is_read_goes_last_and_stays_readable(tmp_path: Path) -> None:
    url, shards = in_memory(*map(content_of, range(4)))
    cache = Cache(str(tmp_path), 2000)
    with cache.open(url, shards[0]) as first:
        for number in (1, 2):
            cache.hold(url, shards[number])
        assert there(tmp_path) == names(shards[0], shards[2])
        with cache.open(url, shards[2]):
            cache.hold(url, shards[3])  # nothing else can go
        assert there(tmp_path) == names(shards[2], shards[3])
        assert first.readall() == content_of(0)


@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=7),
    room=st.integers(9, 24),
    steps=st.lists(
        st.tuples(st.sampled_from(["hold", "hold", "open", "forget", "cut"]), st.integers(0, 6)), max_size=40
    ),
)
def test_any_sequence_of_uses_agrees_with_a_simple_model(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], room: int, steps: list[tuple[str, int]]
) -> None:
    contents = [bytes([number]) * size for number, size in enumerate(sizes)]
    url, shards = in_memory(*contents)
    folder = tmp_path_factory.mktemp("model")
    cache, model, counts = Cache(str(folder), room), dict[int, int](), Counter[str]()
    for what, number in steps:
        number %= len(shards)
        path = folder / f"{shards[number].sha256}.tar"
        if what == "forget":
            cache.forget(shards[number])
            model.pop(number, None)
        elif what == "cut":
            if path.exists():
                path.write_bytes(contents[number] + b"more")
                path.write_bytes(b"")
            if number in model:  # an empty file, used last; it is found out when it is held again
                model.pop(number)
        else:
            if number in model:
                model[number] = model.pop(number)
                counts["hits"] += 1
            else:
                while sum(model.values()) + sizes[number] > room:
                    model.pop(next(iter(model)))
                model[number] = sizes[number]
                counts["fetched"] += 1
            if what == "hold":
                assert Path(cache.hold(url, shards[number])).read_bytes() == contents[number]
            else:
                with cache.open(url, shards[number]) as file:
                    assert file.readall() == contents[number]
        whole = {entry.name for entry in folder.iterdir() if entry.name != "lock" and entry.stat().st_size}
        assert whole == set(names(*(shards[one] for one in model)))
    assert (cache.stats.fetched, cache.stats.hits) == (counts["fetched"], counts["hits"])


def test_two_fetches_that_do_not_fit_together_take_turns(tmp_path: Path, store: Store) -> None:
    shards, store.delay = store.add(*map(content_of, range(4))), 0.05
    cache = Cache(str(tmp_path), 1500)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda shard: cache.hold(store.url, shard), shards))
    assert len(there(tmp_path)) == 1
    assert cache.stats.fetched == 4 and cache.stats.evicted == 3


def test_wrong_bytes_are_asked_for_once_more(tmp_path: Path, store: Store) -> None:
    (shard,) = store.add(content_of(1))
    store.flawed[shard.path] = 1
    cache = Cache(str(tmp_path))
    assert Path(cache.hold(store.url, shard)).read_bytes() == content_of(1)
    assert store.begun[shard.path] == 2 and cache.stats.fetched == 1


@pytest.mark.parametrize(("change", "ranges"), [(-1, True), (0, True), (0, False), (1, True), (BLOCK, False)])
def test_what_is_wrong_twice_is_an_error_that_names_the_shard(
    tmp_path: Path, store: Store, change: int, ranges: bool
) -> None:
    """The store has as many bytes more or fewer."""
    content = content_of(1, 2000)
    (shard,), store.ranges = store.add(content), ranges
    store.world[shard.path] = (bytes(64) + content[64:] + bytes(max(0, change)))[: 2000 + change]
    cache = Cache(str(tmp_path))
    for _ in range(2):
        with pytest.raises(Wrong, match=f"{shard.path} of {store.url} is damaged"):
            cache.hold(store.url, shard)
    assert store.begun[shard.path] == 2, "what is known to be wrong is not fetched again"
    assert there(tmp_path) == []
    cache.ahead(store.url, [shard])
    assert not cache.queued


def test_a_server_without_ranges_will_do(tmp_path: Path, store: Store) -> None:
    content = content_of(1, 2 * BLOCK + 12345)
    (shard,), store.ranges = store.add(content), False
    assert Path(Cache(str(tmp_path)).hold(store.url, shard)).read_bytes() == content
    assert store.sent[shard.path] == len(content)


def test_a_missing_shard_and_a_store_in_trouble_are_clear_errors(tmp_path: Path, store: Store) -> None:
    (shard,) = store.add(content_of(1))
    cache = Cache(str(tmp_path))
    with pytest.raises(Failed, match=r"shards/none\.tar of .*/data is missing"):
        cache.hold(store.url, proof("shards/none.tar", b"none"))
    store.status = 500
    with pytest.raises(Failed, match=r"shards/c/s-000000\.tar of .* cannot be read: ClientResponseError") as caught:
        cache.hold(store.url.replace("http://", "http://name:canary@"), shard)
    assert "canary" not in str(caught.value)
    store.status = 200
    cache.hold(store.url, shard)
    assert there(tmp_path) == names(shard)


def test_files_of_another_size_or_kind_are_not_trusted(tmp_path: Path) -> None:
    url, (one, two) = in_memory(content_of(1), content_of(2))
    (tmp_path / names(one)[0]).write_bytes(b"cut")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(bytes(1000))
    # A link is as long as its text: this one is of the right size.
    (tmp_path / names(two)[0]).symlink_to(str(elsewhere).rjust(two.bytes, "/"))
    (tmp_path / f"{two.sha256}.part").symlink_to(elsewhere)
    cache = Cache(str(tmp_path))
    assert Path(cache.hold(url, one)).read_bytes() == content_of(1)
    with pytest.raises(OSError, match="symbolic"):
        cache.hold(url, two)
    (tmp_path / f"{two.sha256}.part").unlink()
    assert Path(cache.hold(url, two)).read_bytes() == content_of(2)
    assert elsewhere.read_bytes() == bytes(1000)


def test_a_forgotten_shard_is_fetched_anew(tmp_path: Path) -> None:
    url, (shard,) = in_memory(content_of(1))
    cache = Cache(str(tmp_path))
    Path(cache.hold(url, shard)).write_bytes(bytes(1000))  # the disk rots: the size is right
    cache.forget(shard)
    assert Path(cache.hold(url, shard)).read_bytes() == content_of(1)


def test_settings_that_cannot_be_are_refused(tmp_path: Path) -> None:
    url, (shard,) = in_memory(content_of(1))
    with pytest.raises(UserError, match=r"1000 bytes.*999 in all; raise its max_bytes"):
        Cache(str(tmp_path), 999).hold(url, shard)
    with pytest.raises(UserError, match="max_bytes of the cache is 0"):
        Cache(str(tmp_path), 0)
    with pytest.raises(UserError, match="not on this machine"):
        Cache("s3://bucket/cache")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is not a folder"):
        Cache(str(tmp_path / "file"))
    for sha256 in ("", "../" * 21 + "a", "A" * 64, "0" * 65):
        with pytest.raises(UserError, match="no sha256"):
            Cache(str(tmp_path)).hold(url, File(path="shards/a.tar", bytes=1, sha256=sha256))


def test_shards_are_fetched_ahead(tmp_path: Path, store: Store) -> None:
    shards = store.add(*map(content_of, range(5)))
    cache = Cache(str(tmp_path))
    cache.hold(store.url, shards[0])
    for _ in range(3):
        cache.ahead(store.url, shards)
    settle(cache)
    assert there(tmp_path) == names(*shards)
    for shard in shards:
        cache.hold(store.url, shard)
    assert cache.stats == Stats(fetched=5, fetched_bytes=5000, hits=5)
    assert {shard.path for shard in shards} == set(store.sent) and set(store.sent.values()) == {1000}


def test_fetching_ahead_does_not_evict_what_it_fetched_ahead(tmp_path: Path) -> None:
    url, shards = in_memory(*map(content_of, range(9)))
    cache = Cache(str(tmp_path), 4500)
    cache.ahead(url, shards[:3])
    settle(cache)
    cache.ahead(url, shards[2:9])  # room for four: the third stays, three more come, the rest is left
    settle(cache)
    assert shards[2].sha256 + ".tar" in there(tmp_path)
    assert len(there(tmp_path)) == 4 and not set(there(tmp_path)) & set(names(*shards[:2]))
    assert cache.stats.fetched == 6 and cache.stats.evicted == 2
    cache.hold(url, shards[8])
    assert cache.stats.fetched == 7 and cache.stats.evicted == 3


def test_fetching_ahead_never_raises(tmp_path: Path, store: Store) -> None:
    (good,) = store.add(content_of(1))
    cache = Cache(str(tmp_path), 1500)
    nonsense = File(path="shards/x.tar", bytes=-1, sha256="nonsense")
    cache.ahead(store.url, [nonsense, proof("shards/none.tar", b"none"), proof(good.path, b"other"), good])
    cache.ahead("s4://nowhere", [proof("shards/big.tar", bytes(2000)), proof("shards/small.tar", b"small")])
    settle(cache)
    assert there(tmp_path) == names(good)
    cache.close()
    cache.ahead(store.url, [proof("shards/late.tar", b"late")])
    assert cache.hold(store.url, good)


def test_closing_ends_what_is_fetched_ahead(tmp_path: Path, store: Store) -> None:
    shards, gate = store.add(*(content_of(number, 3 * BLOCK) for number in range(2)), content_of(2)), threading.Event()
    store.half = {shard.path: gate for shard in shards[:2]}
    cache = Cache(str(tmp_path))
    cache.ahead(store.url, shards)
    until(lambda: len(store.sent) == 2)
    threading.Timer(0.1, gate.set).start()
    cache.close()
    assert there(tmp_path) == []
    assert not any(thread.is_alive() for thread in cache.threads)


def test_a_program_that_ends_does_not_wait_for_what_it_fetches_ahead(tmp_path: Path, store: Store) -> None:
    (shard,) = store.add(content_of(1))
    store.half[shard.path] = threading.Event()
    code = (
        "import sys; from shards.cache import Cache; from shards.index import File\n"
        "shard = File(path=sys.argv[3], bytes=1000, sha256=sys.argv[4])\n"
        "cache = Cache(sys.argv[2]); cache.ahead(sys.argv[1], [shard]); sys.stdin.readline()"
    )
    command = [sys.executable, "-c", code, store.url, str(tmp_path), shard.path, shard.sha256]
    with subprocess.Popen(command, stdin=subprocess.PIPE, cwd=ROOT) as process:
        try:
            until(lambda: store.begun[shard.path])
            process.stdin.close()
            assert process.wait(timeout=10) == 0
        finally:
            process.kill()
    assert there(tmp_path) == [f"{shard.sha256}.part"]
    assert Path(Cache(str(tmp_path)).hold(store.url, shard)).read_bytes() == content_of(1)


def test_another_process_gets_a_cache_of_its_own_on_the_same_folder(tmp_path: Path) -> None:
    url, (shard,) = in_memory(content_of(1))
    cache = Cache(str(tmp_path), 5000)
    path = cache.hold(url, shard)
    other = pickle.loads(pickle.dumps(cache))  # noqa: S301  our own
    assert other.hold(url, shard) == path and other.shelf.max_bytes == 5000
    assert other.stats == Stats(hits=1)


def test_a_small_disk_bounds_the_cache_before_its_setting_does(small_disk: Path) -> None:
    url, shards = in_memory(*(content_of(number, 900_000) for number in range(4)))
    cache = Cache(str(small_disk))
    for shard in shards:
        assert Path(cache.hold(url, shard)).read_bytes() == files.read_bytes(files.join(url, shard.path))
    assert there(small_disk) == names(*shards[2:])
    (small_disk / "other.bin").write_bytes(bytes(100_000))
    cache.hold(url, shards[0])
    cache.forget(shards[0])
    cache.forget(shards[3])
    (small_disk / "more.bin").write_bytes(bytes(1_500_000))
    with pytest.raises(UserError, match=r"no room for the shard shards/corpus/split-000001\.tar \(900000 bytes\)"):
        cache.hold(url, shards[1])
    assert there(small_disk) == ["more.bin", "other.bin"]


def test_room_on_the_disk_is_taken_before_the_bytes_come(small_disk: Path, store: Store) -> None:
    slow, second, third = store.add(*(content_of(number, 900_000) for number in range(3)))
    store.half[slow.path] = gate = threading.Event()
    cache = Cache(str(small_disk))
    with ThreadPoolExecutor(1) as threads:
        held = threads.submit(cache.hold, store.url, slow)
        until(lambda: store.begun[slow.path])
        cache.hold(store.url, second)
        cache.hold(store.url, third)
        assert names(third)[0] in there(small_disk) and cache.stats.evicted == 1
        gate.set()
        assert Path(held.result(timeout=20)).read_bytes() == store.world[slow.path]
    assert store.begun[slow.path] == 1


def test_who_waits_for_room_is_not_waited_for(small_disk: Path) -> None:
    url, (one, two) = in_memory(*(content_of(number, 900_000) for number in range(2)))
    (small_disk / "other.bin").write_bytes(bytes(1_500_000))
    cache = Cache(str(small_disk))
    with cache.shelf.claim(one, wait=True) as part:
        assert part is not None
        with ThreadPoolExecutor(1) as threads:
            held = threads.submit(cache.hold, url, two)
            with pytest.raises(UserError, match="no room"):
                held.result(timeout=10)


def test_a_disk_that_fills_up_while_a_shard_arrives(small_disk: Path, store: Store) -> None:
    old, new = store.add(*(content_of(number, 600_000) for number in range(2)))
    gate, cache = threading.Event(), Cache(str(small_disk))
    cache.hold(store.url, old)
    store.half[new.path] = gate
    with ThreadPoolExecutor(1) as threads:
        held = threads.submit(cache.hold, store.url, new)
        until(lambda: store.sent[new.path])
        other = small_disk / "other.bin"
        other.write_bytes(bytes(1_200_000))  # by another program
        gate.set()
        assert Path(held.result(timeout=20)).read_bytes() == store.world[new.path], "the old shard gave way"
        assert cache.stats.evicted == 1 and store.begun[new.path] == 2
        cache.forget(new)
        store.half[new.path] = gate = threading.Event()
        held = threads.submit(cache.hold, store.url, new)
        until(lambda: store.begun[new.path] == 3)
        other.write_bytes(bytes(2**21))
        gate.set()
        with pytest.raises(UserError, match=r"no room|No space left on device"):
            held.result(timeout=20)
    assert there(small_disk) == ["other.bin"]


@pytest.mark.slow
def test_shards_of_an_object_store(bucket: str, tmp_path: Path) -> None:  # noqa: F811
    contents = [content_of(number, 2 * BLOCK + number) for number in range(3)]
    shards = put(f"{bucket}/cached", *contents)
    cache = Cache(str(tmp_path))
    cache.ahead(f"{bucket}/cached", shards[1:])
    for shard, content in zip(shards, contents, strict=True):
        assert Path(cache.hold(f"{bucket}/cached", shard)).read_bytes() == content
    assert cache.stats.fetched == 3
    with pytest.raises(Failed, match=r"shards/none\.tar of s3://house/cached is missing"):
        cache.hold(f"{bucket}/cached", proof("shards/none.tar", b"none"))
