"""A real S3 API on loopback: a dataset is built on it, killed, resumed, verified, renewed and streamed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from conftest import TWO
from manifests import files, load_recipe
from manifests.trees import copy_tree
from pipelines.build import build
from pipelines.collect import collect
from pipelines.executor import Executor
from pipelines.verify import verify
from shards import Dataset, Stream

SHARD_BYTES = 2**20


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """The address of an empty bucket; the environment says where its store is and how to log in."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    told = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "canary-key",
        "AWS_SECRET_ACCESS_KEY": "canary-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    before = {name: os.environ.get(name) for name in told}
    os.environ.update(told)
    fs, _ = files.filesystem("s3://house")
    fs.mkdir("house")
    yield "s3://house"
    server.stop()
    for name, value in before.items():
        os.environ.pop(name)
        if value is not None:
            os.environ[name] = value


def test_of_many_writers_of_one_new_object_one_succeeds(bucket: str) -> None:
    url = f"{bucket}/new/object"
    with ThreadPoolExecutor(8) as threads:
        won = list(threads.map(lambda number: files.write_new(url, b"%d" % number), range(8)))
    assert sum(won) == 1
    assert files.read_bytes(url) == b"%d" % won.index(True)


def test_what_is_written_is_seen_at_once_and_is_gone_at_once(bucket: str) -> None:
    url = f"{bucket}/folder/a.txt"
    assert not files.exists(url) and files.names(f"{bucket}/folder") == []
    files.write_whole(url, b"first")
    assert files.names(f"{bucket}/folder") == ["a.txt"] and files.size(url) == 5
    files.write_whole(url, b"second one")
    assert files.read_range(url, 0, 6) == b"second" and files.size(url) == 10
    head = files.read_head(url, 3)
    files.write_whole(url, b"sec")
    assert head is not None and head[:2] == (b"sec", 10) and files.read_head(url, 3) != head
    files.remove(url)
    assert not files.exists(url) and files.names(f"{bucket}/folder") == []


def start(root: str, out: str) -> subprocess.Popen[str]:
    """Start a build by the command."""
    command = [sys.executable, "-m", "salmonn.cli", "build", str(TWO), "--root", root, "--out", out]
    return subprocess.Popen(
        [*command, "--shard-mb", "1", "--workers", "2"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.mark.slow
def test_a_dataset_on_an_object_store(bucket: str, root: Path, built: Path) -> None:
    out = f"{bucket}/dataset"
    for wanted in (1, 4):  # killed with so many commits made
        process = start(str(root), out)
        while process.poll() is None and len(files.walk(f"{out}/build/commits")) < wanted:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not files.exists(f"{out}/dataset.json")
    final = start(str(root), out)
    said, _ = final.communicate()
    assert final.returncode == 0, said
    assert "the rest by an earlier run" in said.replace("\n", " ")
    assert "canary" not in said
    local, remote = Dataset(built), Dataset(out)
    assert local.digest == remote.digest
    for name in files.walk(str(built)):
        assert files.read_bytes(f"{out}/{name}") == (built / name).read_bytes(), name
    assert files.walk(out) == files.walk(str(built))
    with Executor(2) as executor:
        verdict = verify(out, share=1.0, executor=executor)
    assert verdict.problems == () and verdict.samples > 40
    recipe = load_recipe(TWO)
    mine, theirs = (Stream(dataset, recipe, stage="instruct", seed=3) for dataset in (local, remote))
    for (_, one), (_, two) in zip(zip(range(3), mine, strict=False), zip(range(3), theirs, strict=False), strict=True):
        assert [example.key for example in one.examples] == [example.key for example in two.examples]
        assert all((a.audio == b.audio).all() for a, b in zip(one.examples, two.examples, strict=True))


@pytest.mark.slow
def test_corpora_and_dataset_both_on_an_object_store_and_renewed(bucket: str, corpora: Path, tmp_path: Path) -> None:
    root, out = f"{bucket}/root", f"{bucket}/renewed"
    for name in ("librispeech", "audiocaps"):
        shutil.copytree(corpora / name, tmp_path / "raw" / name)
    copy_tree(str(tmp_path / "raw"), f"{root}/raw")
    recipe = load_recipe(TWO)
    with Executor(2) as executor:
        first = build(recipe, root, out, executor=executor, shard_bytes=SHARD_BYTES)
        local = build(recipe, str(tmp_path), str(tmp_path / "out"), executor=executor, shard_bytes=SHARD_BYTES)
        assert first.digest == local.digest
        assert build(recipe, root, out, executor=executor, shard_bytes=SHARD_BYTES).packed_shards == 0
        # Other sizes of shards: every sample is read from the old shards, as long as they are not replaced.
        again = build(recipe, root, out, executor=executor, shard_bytes=SHARD_BYTES // 2)
        fresh = build(recipe, str(tmp_path), str(tmp_path / "new"), executor=executor, shard_bytes=SHARD_BYTES // 2)
        assert again.digest == fresh.digest
        collect(out)
        assert verify(out, share=1.0, executor=executor).problems == ()
    assert files.walk(out) == files.walk(str(tmp_path / "new"))
