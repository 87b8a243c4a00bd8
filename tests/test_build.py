"""The build: the same bytes however it is run, killed or repeated; every clip accounted for."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from conftest import TWO, digests
from manifests import TooManyRefusals, UserError, load_corpus, load_recipe
from pipelines.build import build
from pipelines.executor import Executor
from pipelines.layout import make_plan
from pipelines.verify import verify_index
from shards import Dataset
from shards.audio import read_flac
from shards.fingerprint import fingerprint
from shards.flac import flac_info

RECIPE = load_recipe(TWO)
SHARD_BYTES = 2**20


@pytest.mark.slow
def test_one_worker_and_two_give_the_same_bytes(root: Path, built: Path, tmp_path: Path) -> None:
    with Executor(1) as one:
        build(RECIPE, str(root), str(tmp_path / "first"), executor=one, shard_bytes=SHARD_BYTES)
    expected = digests(built)
    assert len(expected) == 18
    assert digests(tmp_path / "first") == expected


@pytest.mark.slow
def test_a_second_build_gives_the_same_bytes_as_the_first(
    root: Path, built: Path, cluster: str, tmp_path: Path
) -> None:
    with Executor(1) as one:
        for name in ("first", "second"):
            build(RECIPE, str(root), str(tmp_path / name), executor=one, shard_bytes=SHARD_BYTES)
    with Executor(2, cluster) as two:
        build(RECIPE, str(root), str(tmp_path / "third"), executor=two, shard_bytes=SHARD_BYTES)
    for name in ("first", "second", "third"):
        assert digests(tmp_path / name) == digests(built)


def test_every_clip_found_is_packed_quarantined_or_excluded(root: Path, built: Path) -> None:
    dataset = Dataset(built)
    for source in dataset.manifest.sources:
        clips = list(load_corpus(source.corpus).clips(root / "raw" / source.corpus, source.split))
        packed = dataset.table(source.corpus, source.split)["id"].to_pylist()
        refused = pq.read_table(built / source.quarantine.path).to_pylist()
        assert sorted(clip.id for clip in clips) == sorted(packed + [row["id"] for row in refused])
        assert source.found == len(clips) == source.packed + source.quarantined + source.excluded
        assert source.packed == len(packed)
        assert source.quarantined == sum(row["verdict"] == "quarantined" for row in refused)


def test_each_broken_file_is_refused_for_what_is_wrong_with_it(built: Path) -> None:
    refused = [
        row for path in sorted((built / "quarantine").rglob("*.parquet")) for row in pq.read_table(path).to_pylist()
    ]
    assert {(row["id"], row["verdict"], row["reason"]) for row in refused} == {
        ("librispeech/6385-220959-0000", "quarantined", "truncated"),
        ("librispeech/7511-102419-0000", "quarantined", "zero_length"),
        ("librispeech/1688-142285-0005", "excluded", "audio_missing"),
        ("audiocaps/0-errorpage_30", "quarantined", "not_audio"),
        ("audiocaps/0-vanished__0", "excluded", "audio_missing"),
    }


def test_a_conforming_clip_is_stored_byte_for_byte(root: Path, built: Path) -> None:
    rows = Dataset(built).table("librispeech", "train-clean-100").to_pylist()
    for row in rows:
        stored = (built / row["shard"]).read_bytes()[row["flac_offset"] :][: row["flac_bytes"]]
        assert stored == (root / "raw" / "librispeech" / row["sources"][0]).read_bytes()
        info = flac_info(stored)
        assert row["action"] == "copy" and info is not None and info.md5 == row["pcm_md5"]


def test_a_fingerprint_in_the_index_is_that_of_the_samples(built: Path) -> None:
    dataset, actions = Dataset(built), set()
    for source in dataset.manifest.sources:
        for row in dataset.table(source.corpus, source.split).to_pylist():
            stored = (built / row["shard"]).read_bytes()[row["flac_offset"] :][: row["flac_bytes"]]
            assert row["fingerprint"] == fingerprint(read_flac(stored, row["key"]))
            actions.add(row["action"] if row["fingerprint"] else "")
    assert {"copy", "transcode"} <= actions


def test_a_second_build_has_nothing_to_do_and_does_not_start_ray(root: Path, built: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in built.rglob("*")}
    with Executor(2) as executor:
        again = build(RECIPE, str(root), str(built), executor=executor, shard_bytes=SHARD_BYTES)
        assert executor.ray is None
    assert again.resumed and again.packed_shards == 0
    assert {path: path.stat().st_mtime_ns for path in built.rglob("*")} == before


@pytest.mark.slow
def test_killing_the_build_at_random_moments_changes_no_byte(
    root: Path, built: Path, cluster: str, tmp_path: Path
) -> None:
    expected, out = digests(built), tmp_path / "out"
    dice = random.Random(os.getpid())
    landed, attempts = 0, 0
    while landed < 10:
        attempts += 1
        assert attempts < 40, f"only {landed} kills met a running build"
        process = start_build(root, out, cluster)
        # A few files on from where it stands: planning, packing, committing or gathering.
        wait_for_files(process, out, dice.randrange(1, 12))
        time.sleep(dice.uniform(0, 0.05))
        landed += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        if (out / "dataset.json").exists():
            assert verify_index(Dataset(out)) == []
            out = tmp_path / f"out{attempts}"
    final = start_build(root, out, cluster)
    assert final.wait() == 0, final.stderr.read() if final.stderr else ""
    assert digests(out) == expected


def start_build(root: Path, out: Path, cluster: str) -> subprocess.Popen[str]:
    """Start a build as a user would, by the command."""
    command = [sys.executable, "-m", "salmonn.cli", "build", str(TWO), "--root", str(root), "--out", str(out)]
    return subprocess.Popen(
        [*command, "--shard-mb", "1", "--address", cluster],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_files(process: subprocess.Popen[str], out: Path, count: int) -> None:
    """Wait until a build has made `count` files and folders more than there were, or has ended."""
    before = sum(1 for _ in out.rglob("*"))
    while process.poll() is None and sum(1 for _ in out.rglob("*")) < before + count:
        time.sleep(0.01)


def test_a_rotten_corpus_stops_the_build_and_keeps_what_was_packed(cluster: str, tmp_path: Path) -> None:
    raw = tmp_path / "root" / "raw" / "librispeech" / "LibriSpeech"
    chapter = raw / "dev-clean" / "1" / "2"
    chapter.mkdir(parents=True)
    (raw / "SPEAKERS.TXT").write_text("1 | F | dev-clean | 1.0 | Somebody\n")
    names = [f"1-2-{number:04d}" for number in range(40)]
    (chapter / "1-2.trans.txt").write_text("".join(f"{name} HELLO THERE\n" for name in names))
    for name in names:
        (chapter / f"{name}.flac").write_text("<html>not found</html>")
    recipe = tmp_path / "rotten.toml"
    recipe.write_text('title = "x"\n[[instruct]]\ntask = "asr"\ncorpus = "librispeech"\nsplits = ["dev-clean"]\n')
    with Executor(2, cluster) as executor, pytest.raises(TooManyRefusals, match=r"40 of 40 clips .*not_audio 40"):
        build(load_recipe(recipe), str(tmp_path / "root"), str(tmp_path / "out"), executor=executor)
    assert not (tmp_path / "out" / "dataset.json").exists()
    assert list((tmp_path / "out" / "build" / "commits").rglob("*.parquet"))


def test_an_output_of_another_recipe_is_refused_and_left_alone(root: Path, built: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text('title = "x"\n[[instruct]]\ntask = "asr"\ncorpus = "librispeech"\nsplits = ["dev-clean"]\n')
    before = digests(built)
    with Executor(2) as executor, pytest.raises(UserError, match="made by the recipe 'two', not 'other'"):
        build(load_recipe(other), str(root), str(built), executor=executor)
    assert digests(built) == before
    assert not (root / "manifests" / "librispeech" / "dev-clean.parquet").exists()


def test_a_folder_that_holds_something_else_is_refused(root: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with Executor(2) as executor, pytest.raises(UserError, match=r"not empty and holds no dataset \(thesis.txt"):
        build(RECIPE, str(root), str(tmp_path), executor=executor)


def test_the_plan_does_not_depend_on_where_the_corpora_lie(root: Path, tmp_path: Path, built: Path) -> None:
    import shutil

    shutil.copytree(root / "manifests", tmp_path / "manifests")
    assert make_plan(RECIPE, str(tmp_path), SHARD_BYTES).digest == Dataset(built).manifest.plan
