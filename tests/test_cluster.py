"""The cluster under a build: joined by any address, or told in a sentence; small in memory; gone without a trace."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import soundfile

from conftest import TWO, digests
from manifests import UserError, load_recipe
from pipelines.build import build
from pipelines.executor import AHEAD, Executor
from test_submit import free_ports

MB = 1_000_000
LONG = round(2.9 * 3600)
"""Seconds of a recording a little below the longest that is taken."""
ONE = """title = "One split"
[[instruct]]
task = "{task}"
corpus = "{corpus}"
splits = ["{split}"]
"""


class Head:
    """A real head with a token and Ray Client's server, in a home of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        home.mkdir()
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        self.environment |= {"HOME": str(home), "RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}
        self.environment["PATH"] = f"{Path(sys.executable).parent}:{self.environment['PATH']}"
        command = ["ray", "get-auth-token", "--generate"]
        subprocess.run(command, env=self.environment, check=True, capture_output=True)
        dashboard, self.port, agent = free_ports(3)
        options = {
            "port": 0,
            "node-ip-address": "127.0.0.1",
            "dashboard-host": "127.0.0.1",
            "dashboard-port": dashboard,
            "ray-client-server-port": self.port,
            "dashboard-agent-listen-port": agent,
            "temp-dir": home / "ray",
            "num-cpus": 2,
            "object-store-memory": 80 * 2**20,
            "min-worker-port": 0,
            "max-worker-port": 0,
        }
        given = [f"--{name}={value}" for name, value in options.items()]
        with (home / "log").open("wb") as log:
            self.process = subprocess.Popen(
                ["ray", "start", "--head", "--block", *given], env=self.environment, stdout=log, stderr=log
            )

    def wait(self) -> None:
        end = time.monotonic() + 120
        while not (
            (self.home / "ray" / "ray_current_cluster").exists() and "--block" in (self.home / "log").read_text()
        ):
            assert self.process.poll() is None and time.monotonic() < end, (self.home / "log").read_text()
            time.sleep(0.5)

    def stop(self) -> None:
        family: list[psutil.Process] = []
        with contextlib.suppress(psutil.Error):
            family = psutil.Process(self.process.pid).children(recursive=True)
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(30)
        for process in family:
            with contextlib.suppress(psutil.Error):
                process.kill()
        self.process.kill()
        self.process.wait(30)
        shutil.rmtree(self.home, ignore_errors=True)


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    made = Head(Path("/tmp") / f"salmonn-client-{os.getpid()}")  # sockets below it: their paths may have 107 characters
    try:
        made.wait()
        yield made
    finally:
        made.stop()


def salmonn(root: Path, out: Path, *more: str, recipe: Path = TWO) -> list[str]:
    told = [sys.executable, "-m", "salmonn.cli", "build", str(recipe), "--root", str(root), "--out", str(out)]
    return [*told, "--shard-mb", "1", *more]


# Addresses


@pytest.mark.slow
@pytest.mark.parametrize("address", ["ray://127.0.0.1:{port}", "auto"])
def test_a_build_by_any_address_has_the_same_bytes(
    head: Head, root: Path, built: Path, tmp_path: Path, address: str
) -> None:
    # auto looks for what `ray start` noted in RAY_TMPDIR/ray; without it, it takes any cluster of this machine.
    environment = head.environment | {"RAY_TMPDIR": str(head.home)}
    command = salmonn(root, tmp_path / "out", "--address", address.format(port=head.port))
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert digests(tmp_path / "out") == digests(built)
    assert done.stderr == ""


@pytest.mark.slow
@pytest.mark.parametrize("token", ["", "0" * 64])
@pytest.mark.parametrize("way", ["ray", "direct"])
def test_a_cluster_that_does_not_know_us_is_told_in_a_sentence(
    head: Head, root: Path, tmp_path: Path, token: str, way: str
) -> None:
    (tmp_path / "home").mkdir()
    environment = {name: value for name, value in head.environment.items() if name != "RAY_AUTH_MODE"}
    environment |= {"HOME": str(tmp_path / "home")} | ({"RAY_AUTH_TOKEN": token} if token else {})
    direct = (head.home / "ray" / "ray_current_cluster").read_text().strip()
    address = f"ray://127.0.0.1:{head.port}" if way == "ray" else direct
    refuse(salmonn(root, tmp_path / "out", "--address", address), environment, "RAY_AUTH_TOKEN (or ~/.ray/auth_token)")
    assert not (tmp_path / "out" / "dataset.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("address", ["ray://127.0.0.1:{port}", "127.0.0.1:{port}", "ray://127.0.0.1:99999"])
def test_a_cluster_that_is_not_there_is_told_in_a_sentence(root: Path, tmp_path: Path, address: str) -> None:
    (port,) = free_ports(1)
    refuse(salmonn(root, tmp_path / "out", "--address", address.format(port=port)), dict(os.environ), "cannot reach")
    assert not (tmp_path / "out" / "dataset.json").exists()


@pytest.mark.slow
def test_a_cluster_that_is_gone_is_told_in_a_sentence(root: Path, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    environment = os.environ | {"RAY_ADDRESS": f"127.0.0.1:{port}"}  # as if Ray had found it
    refuse(salmonn(root, tmp_path / "out", "--address", "auto"), environment, "ray start --head")
    assert not (tmp_path / "out" / "dataset.json").exists()


def refuse(command: list[str], environment: dict[str, str], words: str) -> None:
    """Run a command that must end with exit code 2 and one line within a minute."""
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, done.stdout + done.stderr
    # What Ray's own code writes to the log before cannot be turned off without another line in its place.
    said = [line for line in done.stderr.splitlines() if not re.match(r"\[.*(gcs|rpc)_client\.(cc|h):", line)]
    assert len(said) == 1 and said[0].startswith("salmonn: cannot reach a Ray cluster at "), done.stderr
    assert words in said[0]


def fail(item: int) -> int:
    raise UserError(f"not {item}")


@pytest.mark.slow
def test_errors_cross_ray_client_as_they_were(head: Head) -> None:
    script = (
        "import sys; sys.path[:0] = ['tests', '.']\n"
        "from pipelines.executor import Executor\nimport test_cluster\n"
        "with Executor(2, sys.argv[1]) as executor:\n"
        "    executor.start(); executor.ray.cloudpickle.register_pickle_by_value(test_cluster)\n"
        "    list(executor.run(test_cluster.fail, [7]))\n"
    )
    told = [sys.executable, "-c", script, f"ray://127.0.0.1:{head.port}"]
    place = Path(__file__).parents[1]
    done = subprocess.run(told, env=head.environment, capture_output=True, text=True, timeout=120, cwd=place)
    assert done.stderr.strip().splitlines()[-1] == "manifests.errors.UserError: not 7", done.stderr


# What the object store holds


class Store:
    """Watches the object store of an executor from its first moment to its last, every 50 ms."""

    def __init__(self, executor: Executor) -> None:
        self.executor, self.peak, self.looks = executor, 0, 0
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)

    def held(self) -> int:
        """Bytes in the store of the one node now."""
        from importlib import import_module

        ask = import_module("ray._private.internal_api").node_stats  # nothing public tells it without the dashboard
        (node,) = self.executor.ray.nodes()
        stats = ask(node["NodeManagerAddress"], node["NodeManagerPort"], include_memory_info=False).store_stats
        return int(stats.object_store_bytes_used)

    def watch(self) -> None:
        while not self.over.wait(0.05):
            if self.executor.ray is not None and self.executor.ray.is_initialized():
                self.peak = max(self.peak, self.held())
                self.looks += 1

    def __enter__(self) -> Store:
        self.executor.start()
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()


def assert_it_would_have_seen(store: Store) -> None:
    """A store that is filled is seen to be."""
    kept = store.executor.ray.put(np.zeros(12 * MB, np.uint8))
    assert store.held() >= 12 * MB
    del kept


@pytest.mark.slow
def test_the_object_store_stays_small(root: Path, tmp_path: Path) -> None:
    with Executor(2) as executor:
        with Store(executor) as store:
            build(load_recipe(TWO), str(root), str(tmp_path / "out"), executor=executor, shard_bytes=2**20)
        print(f"the object store held {store.peak:,} bytes at most, in {store.looks} looks")
        assert store.looks > 10 and store.peak < 10 * MB, (store.looks, store.peak)
        assert_it_would_have_seen(store)


def write_speakers(root: Path, clips: int, audio: Callable[[Path, int], None]) -> Path:
    """Write ROOT/raw/librispeech with `clips` clips of train-clean-100, 40 a chapter; return a recipe for it."""
    top = root / "raw" / "librispeech" / "LibriSpeech"
    for chapter in range(-(-clips // 40)):
        reader = 1000 + chapter % 50
        folder = top / "train-clean-100" / str(reader) / str(chapter + 1)
        folder.mkdir(parents=True)
        names = [f"{reader}-{chapter + 1}-{number:04d}" for number in range(min(40, clips - chapter * 40))]
        for number, name in enumerate(names):
            audio(folder / f"{name}.flac", chapter * 40 + number)
        (folder / f"{reader}-{chapter + 1}.trans.txt").write_text("".join(f"{name} A WORD\n" for name in names))
    readers = [f"{1000 + number} | F | train-clean-100 | 1.0 | x\n" for number in range(50)]
    (top / "SPEAKERS.TXT").write_text("".join(readers))
    recipe = root / "one.toml"
    recipe.write_text(ONE.format(task="asr", corpus="librispeech", split="train-clean-100"))
    return recipe


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_object_store_stays_small_over_two_thousand_shards(tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    pool.mkdir()
    dice = np.random.default_rng(0)
    for number in range(40):  # noise, so that a second has about the bytes that a shard may have
        pcm = (dice.standard_normal(16_000) * 3000).astype(np.int16)
        soundfile.write(pool / f"{number}.flac", pcm, 16_000, subtype="PCM_16", format="FLAC")
    recipe = write_speakers(tmp_path / "root", 8500, lambda place, number: os.link(pool / f"{number % 40}.flac", place))
    with Executor(2) as executor:
        with Store(executor) as store:
            out = str(tmp_path / "out")
            made = build(load_recipe(recipe), str(tmp_path / "root"), out, executor=executor, shard_bytes=2**16)
        assert made.packed_shards >= 2000, made.packed_shards
        print(f"{made.packed_shards} shards: {store.peak:,} bytes at most, in {store.looks} looks")
        assert store.looks > 100 and store.peak < 10 * MB, (store.looks, store.peak)


# What a worker holds


def speech(rate: int) -> np.ndarray:
    """Ten seconds of vowels, int16: harmonics of a voice that rises and falls in syllables, and a little breath.

    The breath makes of them FLAC of 70 MB an hour, as LibriSpeech is (62): without, a worker would hold less.
    """
    at = np.arange(10 * rate) / rate
    phase = 2 * np.pi * np.cumsum(120 + 30 * np.sin(2 * np.pi * 0.3 * at)) / rate
    voice = sum(np.sin(number * phase) / number for number in range(1, 20))
    breath = np.random.default_rng(0).standard_normal(len(at)) * 60
    return (voice * (0.5 + 0.5 * np.sin(2 * np.pi * 4 * at)) * 8000 + breath).astype(np.int16)


def write_long(place: Path, rate: int, channels: int, kind: str) -> None:
    """Write `LONG` seconds, ten at a time."""
    place.parent.mkdir(parents=True, exist_ok=True)
    block = np.repeat(speech(rate)[:, None], channels, axis=1)
    with soundfile.SoundFile(place, "w", rate, channels, "PCM_16", format=kind) as file:
        for number in range(LONG // 10):
            file.write((block * (0.5 + number % 7 / 14)).astype(np.int16))


class Workers:
    """Reads of the workers of Ray, below this process, the most memory that each has held, in bytes."""

    def __init__(self) -> None:
        self.most: dict[int, int] = {}
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)

    def watch(self) -> None:
        while not self.over.wait(0.1):
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error, OSError):
                    if process.name().startswith("ray::"):
                        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
                        held = next(line for line in lines if line.startswith("VmHWM:")).split()[1]
                        self.most[process.pid] = int(held) * 1024

    def __enter__(self) -> Workers:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()


def long_flac(root: Path) -> Path:
    return write_speakers(root, 1, lambda place, number: write_long(place, 16_000, 1, "FLAC"))


def long_wav(root: Path) -> Path:
    folder = root / "raw" / "audiocaps"
    write_long(folder / "audio" / "train" / "aaaaaaaaaaa_20.wav", 44_100, 2, "WAV")
    (folder / "dataset").mkdir()
    (folder / "dataset" / "train.csv").write_text(
        "audiocap_id,youtube_id,start_time,caption\n1,aaaaaaaaaaa,20,A voice\n"
    )
    recipe = root / "one.toml"
    recipe.write_text(ONE.format(task="audio_caption", corpus="audiocaps", split="train"))
    return recipe


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("write", [long_flac, long_wav])
def test_a_worker_holds_less_than_600_mb(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    root = tmp_path / "root"
    recipe = load_recipe(write(root))
    with Executor(1) as executor, Workers() as workers:
        made = build(recipe, str(root), str(tmp_path / "out"), executor=executor)
    assert abs(sum(made.actions.values()) - LONG * 16_000) < 16_000, made
    most = max(workers.most.values())
    print(f"a worker held {most / MB:.0f} MB at most")
    assert 100 * MB < most < 600 * MB, workers.most
    shutil.rmtree(root)


def show(item: tuple[str, int]) -> int:
    """Leave a mark while at work; return how many are at work."""
    folder, number = item
    mark = Path(folder) / str(number)
    mark.touch()
    time.sleep(0.05)
    at_work = len(os.listdir(folder))
    mark.unlink()
    return at_work


@pytest.mark.slow
def test_four_workers_have_four_items_in_hand_and_few_ahead(tmp_path: Path) -> None:
    taken = 0

    def items() -> Iterator[tuple[str, int]]:
        nonlocal taken
        for number in range(200):
            taken += 1
            yield str(tmp_path), number

    given = []
    with Executor(4) as executor:
        executor.start()
        executor.ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        for done, (_, at_work) in enumerate(executor.run(show, items())):
            assert at_work <= 4
            assert taken - done <= AHEAD * 4
            given.append(at_work)
    assert len(given) == 200 and max(given) > 1


# What is left


class Started:
    """A build in a process group and a temporary folder of its own, as a terminal starts it."""

    def __init__(self, root: Path, out: Path, recipe: Path = TWO, head_start: int = 0) -> None:
        self.temporary = Path("/tmp") / f"salmonn-left-{os.getpid()}"
        shutil.rmtree(self.temporary, ignore_errors=True)
        self.temporary.mkdir()
        self.memory = set(os.listdir("/dev/shm"))
        environment = os.environ | {"RAY_TMPDIR": str(self.temporary), "TMPDIR": str(self.temporary)}
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(
            salmonn(root, out, "--head-start", str(head_start), recipe=recipe),
            env=environment,
            start_new_session=True,
            **pipes,
        )
        self.ray = not head_start
        self.family: dict[int, psutil.Process] = {}

    def wait_for(self, condition: Callable[[], object]) -> None:
        """Wait, noting which processes come to life."""
        end = time.monotonic() + 120
        while self.process.poll() is None and not condition():
            assert time.monotonic() < end
            self.note()
            time.sleep(0.02)
        self.note()

    def note(self) -> None:
        with contextlib.suppress(psutil.Error):
            self.family |= {child.pid: child for child in psutil.Process(self.process.pid).children(recursive=True)}

    def interrupt(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGINT)

    def assert_nothing_is_left(self) -> None:
        _, alive = psutil.wait_procs(list(self.family.values()), timeout=10)
        assert bool(self.family) == self.ray and not alive, alive
        assert not list(self.temporary.iterdir()), list(self.temporary.rglob("*"))[:20]
        assert set(os.listdir("/dev/shm")) <= self.memory
        self.temporary.rmdir()


@pytest.mark.slow
@pytest.mark.parametrize("head_start", [0, 60])
def test_a_build_leaves_nothing_behind(root: Path, tmp_path: Path, head_start: int) -> None:
    run = Started(root, tmp_path / "out", head_start=head_start)
    run.wait_for(lambda: False)
    assert run.process.returncode == 0
    run.assert_nothing_is_left()


@pytest.mark.slow
def test_a_build_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    recipe = write_speakers(tmp_path / "root", 80, lambda place, number: place.write_text("<html>not found</html>"))
    run = Started(tmp_path / "root", tmp_path / "out", recipe)
    run.wait_for(lambda: False)
    assert run.process.returncode == 3, run.process.communicate()
    run.assert_nothing_is_left()


@pytest.mark.slow
@pytest.mark.parametrize("when", ["Ray starts", "workers pack", "threads pack"])
@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_ends_in_seconds_and_the_build_goes_on(
    root: Path, built: Path, tmp_path: Path, when: str, presses: int
) -> None:
    out = tmp_path / "out"
    run = Started(root, out, head_start=60 if when == "threads pack" else 0)
    ready = (lambda: run.family) if when == "Ray starts" else (lambda: list(out.rglob("*.tar*")))
    run.wait_for(ready)
    assert run.process.poll() is None
    begin = time.monotonic()
    run.interrupt()
    if presses == 2:
        run.wait_for(lambda: time.monotonic() > begin + 0.3)
        run.interrupt()
    _, said = run.process.communicate(timeout=60)
    took = time.monotonic() - begin
    assert run.process.returncode == 130
    assert said == "salmonn: stopped; nothing is lost, run the same command again to go on\n"
    print(f"Ctrl-C while {when}: {took:.1f} s")
    assert took < 10
    run.assert_nothing_is_left()
    if when != "Ray starts":
        assert not list(out.rglob("*.tmp"))
        assert subprocess.run(salmonn(root, out), capture_output=True).returncode == 0
        assert digests(out) == digests(built)
