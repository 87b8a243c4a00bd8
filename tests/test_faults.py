"""What a cluster does to a build: drivers, workers and nodes that die, disks that fill, machines that differ."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from conftest import TWO, digests
from manifests import load_recipe
from pipelines.build import build
from pipelines.executor import Executor
from pipelines.layout import Frozen, lay_out, make_plan, seen_digests
from pipelines.pack import Commit, pack
from shards import Dataset

SHARD_BYTES = 2**20
SMALL = 2**16
"""The smallest shards there are: a clip or two in each."""


def command(root: Path, out: Path, *more: str) -> list[str]:
    told = [sys.executable, "-m", "salmonn.cli", "build", str(TWO), "--root", str(root), "--out", str(out)]
    return [*told, "--shard-mb", str(SHARD_BYTES / 2**20), *more]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_fifty_drivers_killed(root: Path, built: Path, cluster: str, tmp_path: Path) -> None:
    expected, out = digests(built), tmp_path / "out"
    dice = random.Random(50)
    landed = attempts = 0
    while landed < 50:
        attempts += 1
        assert attempts < 150, f"only {landed} kills met a running build"
        run = subprocess.Popen(
            command(root, out, "--address", cluster), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        before = count(out)
        wanted = before + dice.randrange(1, 14)
        while run.poll() is None and count(out) < wanted:
            time.sleep(0.005)
        time.sleep(dice.uniform(0, 0.05))
        landed += run.poll() is None
        run.send_signal(signal.SIGKILL)
        run.wait()
        if (out / "dataset.json").exists():
            assert {name: digest for name, digest in digests(out).items() if not name.startswith("build/")} == expected
            out = tmp_path / f"out{attempts}"
    assert subprocess.run(command(root, out, "--address", cluster), stdout=subprocess.DEVNULL).returncode == 0
    assert digests(out) == expected


def count(folder: Path) -> int:
    """How many files and folders there are, in a folder that others change."""
    return sum(len(folders) + len(names) for _, folders, names in os.walk(folder))


def pack_or_die(item: tuple[object, str]) -> Commit:
    """Pack a shard; three times in ten, die first, in the middle or last: each by what the file `item[1]` counts."""
    task, dice_file = item
    with open(dice_file, "ab") as file:
        file.write(b"x")
        tries = file.tell()
    dice = random.Random(f"{task.path}-{tries}")  # type: ignore[attr-defined]
    if dice.random() < 0.3:
        if dice.random() < 0.5:
            pack(task)  # type: ignore[arg-type]
        os.kill(os.getpid(), signal.SIGKILL)
    return pack(task)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_workers_that_die_three_times_in_ten_commit_each_shard_once(root: Path, tmp_path: Path) -> None:
    recipe = load_recipe(TWO)
    done = 0
    rounds = 0
    with Executor(2) as executor:
        executor.start()
        # Workers do not know this file: what it defines is sent to them whole.
        executor.ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        while done < 1000:
            rounds += 1
            out = tmp_path / f"out{rounds}"
            build(recipe, str(root), str(tmp_path / "whole"), executor=executor, shard_bytes=SMALL)
            plan = make_plan(recipe, str(root), SMALL)
            frozen = Frozen(plan=plan, seen=seen_digests(plan, str(root)))
            lay_out(plan, frozen.digest, str(root), str(out))
            from pipelines.build import make_tasks

            tasks = make_tasks(frozen, str(root), str(out))
            items = [(task, str(tmp_path / f"{rounds}-{number}")) for number, task in enumerate(tasks)]
            commits = {}
            left = items
            while left:  # an item that died more often than it is tried again is tried by the next run
                try:
                    for item, commit in executor.run(pack_or_die, left):
                        commits[item[0].path] = commit
                except executor.ray.exceptions.WorkerCrashedError:
                    pass
                left = [item for item in items if item[0].path not in commits]
            done += len(tasks)
            keys = Counter(row["key"] for task in tasks for row in rows_of(out, task.commit))
            whole = Dataset(tmp_path / "whole")
            expected = [
                key for s in whole.manifest.sources for key in whole.table(s.corpus, s.split)["key"].to_pylist()
            ]
            assert keys == Counter(expected)
            shards = {name: digest for name, digest in digests(out).items() if name.startswith("shards/")}
            assert shards == {name: d for name, d in digests(tmp_path / "whole").items() if name.startswith("shards/")}
            shutil.rmtree(out)


def rows_of(out: Path, commit: str) -> list[dict]:
    from pipelines.pack import read_commit

    return read_commit(str(out / commit))[1].to_pylist()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_node_that_dies_costs_only_its_open_shards(root: Path, built: Path, tmp_path: Path) -> None:
    """Two raylets of one cluster on this machine; one is killed while both pack."""
    script = """
import os, sys, threading, time
from ray.cluster_utils import Cluster
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
head = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
cluster = Cluster(initialize_head=True, head_node_args=head)
second = cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20)
cluster.wait_for_nodes()
print("at", cluster.address, flush=True)
for line in sys.stdin:
    if line.strip() == "kill":
        cluster.remove_node(second, allow_graceful=False)
        print("killed", flush=True)
cluster.shutdown()
"""
    nodes = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert nodes.stdin and nodes.stdout
    try:
        address = next(line for line in nodes.stdout if line.startswith("at ")).split()[1]
        out = tmp_path / "out"
        run = subprocess.Popen(
            [*command(root, out, "--address", address)[:-4], "--shard-mb", str(SMALL / 2**20), "--address", address],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        while run.poll() is None and len(list(out.rglob("build/commits/*/*/*.parquet"))) < 5:
            time.sleep(0.02)
        assert run.poll() is None, run.communicate()[0]
        nodes.stdin.write("kill\n")
        nodes.stdin.flush()
        assert next(nodes.stdout).strip() == "killed"
        said, _ = run.communicate(timeout=300)
        assert run.returncode == 0, said
    finally:
        nodes.stdin.close()
        nodes.wait(60)
    again = tmp_path / "again"
    with Executor(2) as executor:
        build(load_recipe(TWO), str(root), str(again), executor=executor, shard_bytes=SMALL)
    assert digests(out) == digests(again)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_machines_that_differ_write_the_same_bytes(root: Path, corpora: Path, built: Path, tmp_path: Path) -> None:
    expected = digests(built)
    shuffled = tmp_path / "shuffled"
    for name in ("librispeech", "audiocaps"):
        sources = [path for path in sorted((corpora / name).rglob("*")) if path.is_file()]
        random.Random(1).shuffle(sources)
        for path in sources:
            target = shuffled / "raw" / name / path.relative_to(corpora / name)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    worlds = [
        (root, "1", {}),
        (root, "7", {}),
        (root, "2", {"TZ": "Asia/Kathmandu", "LC_ALL": "tr_TR.UTF-8", "PYTHONHASHSEED": "1"}),
        (shuffled, "2", {"TZ": "Pacific/Chatham", "LC_ALL": "C", "PYTHONHASHSEED": "4242"}),
    ]
    for number, (place, workers, environment) in enumerate(worlds):
        out = tmp_path / f"out{number}"
        told = command(place, out, "--workers", workers, "--head-start", "30" if number == 1 else "0")
        done = subprocess.run(told, env=os.environ | environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert digests(out) == expected, worlds[number]


@pytest.mark.slow
def test_a_full_disk_stops_with_a_sentence_and_the_build_goes_on_when_there_is_room(
    root: Path, built: Path, cluster: str, small_disk: Path
) -> None:
    out = small_disk / "out"
    full = subprocess.run(command(root, out, "--address", cluster), capture_output=True, text=True)
    assert full.returncode == 2, full.stdout + full.stderr
    assert "No space left on device" in full.stderr and "Traceback" not in full.stderr
    assert not (out / "dataset.json").exists()
    assert not list(out.rglob("*.tar.*.tmp")), "a half-written shard was left behind"
    subprocess.run(["mount", "-o", "remount,size=200m", str(small_disk)], check=True)
    assert subprocess.run(command(root, out, "--address", cluster), capture_output=True).returncode == 0
    assert digests(out) == digests(built)
