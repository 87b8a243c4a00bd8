"""A dataset renewed after a change is, to the byte, the one a fresh build makes, and only what changed is made."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import TWO, digests
from manifests import Recipe, UserError, files, load_recipe
from pipelines import renew
from pipelines.build import Built, build
from pipelines.executor import Executor
from pipelines.head_start import HeadStart
from shards import Dataset

SHARD_BYTES = 2**19


class World:
    """Two corpora that may be changed, and a dataset of them."""

    def __init__(self, folder: Path, corpora: Path) -> None:
        self.folder = folder
        self.root = folder / "root"
        for name in ("librispeech", "audiocaps"):
            shutil.copytree(corpora / name, self.root / "raw" / name, copy_function=shutil.copy)
        self.told: list[str] = []

    def build(self, name: str, recipe: Recipe | None = None, **options: object) -> Built:
        self.told = []
        with Executor(2, head_start=600.0) as executor:
            return build(
                recipe or load_recipe(TWO),
                str(self.root),
                str(self.folder / name),
                executor=executor,
                tell=self.told.append,
                **{"shard_bytes": SHARD_BYTES, **options},  # type: ignore[arg-type]
            )

    def digests(self, name: str) -> dict[str, str]:
        return digests(self.folder / name)

    def speech(self) -> list[Path]:
        return sorted((self.root / "raw/librispeech").rglob("train-clean-100/*/*/*.flac"))


@pytest.fixture
def world(tmp_path: Path, corpora: Path) -> World:
    world = World(tmp_path, corpora)
    world.build("mine")
    return world


def same_as_fresh(world: World, **options: object) -> None:
    world.build("fresh", **options)
    assert world.digests("mine") == world.digests("fresh")
    shutil.rmtree(world.folder / "fresh")


def test_a_clip_changed_added_and_removed(world: World) -> None:
    all_shards = sum(len(source.shards) for source in Dataset(world.folder / "mine").manifest.sources)
    one, two, three, *_ = world.speech()
    shutil.copy(two, one)
    transcript = next(three.parent.glob("*.trans.txt"))
    lines = transcript.read_text().splitlines(keepends=True)
    gone = three.stem
    transcript.write_text("".join(line for line in lines if not line.startswith(gone)))
    three.unlink()
    built = world.build("mine")
    assert 1 <= built.packed_shards <= 3 and built.kept_shards == all_shards - built.packed_shards
    assert built.kept_clips > 0 and set(built.actions) == {"copy"}
    assert "librispeech:train-clean-100: its files changed; 41 clips then, 40 now" in world.told
    same_as_fresh(world)


def test_nothing_changed_is_nothing_to_do_however_often_files_are_touched_elsewhere(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    (world.root / "raw/librispeech/notes.txt").write_text("not of the corpus")
    assert world.build("mine").packed_shards == 0 and world.told == []
    monkeypatch.setattr(HeadStart, "run", lambda self: pytest.fail("work was begun"))
    monkeypatch.setattr(Executor, "start", lambda self: pytest.fail("Ray was started"))
    assert world.build("mine").packed_shards == 0


def test_changed_prompts_rewrite_texts_and_take_all_audio_over(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from manifests import tasks

    before = Dataset(world.folder / "mine").table("audiocaps", "train").to_pylist()
    captions = (*tasks.read_prompts("audio_caption")[:5], "Say what sounds here.")
    real = tasks.read_prompts
    monkeypatch.setattr(tasks, "read_prompts", lambda task: captions if task == "audio_caption" else real(task))
    built = world.build("mine")
    assert any("audio_caption changed" in line for line in world.told)
    assert built.actions == {} and built.kept_clips == len(before)
    assert built.packed_shards == len(Dataset(world.folder / "mine").source("audiocaps", "train").shards)


def test_another_size_of_shards_copies_all_audio_over(world: World) -> None:
    packed = sum(source.packed for source in Dataset(world.folder / "mine").manifest.sources)
    built = world.build("mine", shard_bytes=2**20)
    assert built.kept_clips == packed and built.actions == {}
    assert any("shards are of 1 MB, they were of 0.5" in line for line in world.told)
    same_as_fresh(world, shard_bytes=2**20)


def test_a_corpus_less_and_a_task_more(world: World, tmp_path: Path) -> None:
    less = tmp_path / "two.toml"
    text = TWO.read_text()
    rows = text.split("\n[[")
    less.write_text("\n[[".join(row for row in rows if "audiocaps" not in row))
    recipe = load_recipe(less)
    built = world.build("mine", recipe)
    assert built.packed_shards == 0 and built.kept_shards > 0
    assert "audiocaps:train is no longer in the recipe" in world.told
    assert not (world.folder / "mine/shards/audiocaps").exists()
    world.build("fresh", recipe)
    assert world.digests("mine") == world.digests("fresh")


def test_refused_clips_are_tried_again_when_asked_and_taken_when_mended(world: World) -> None:
    refused = Dataset(world.folder / "mine").source("librispeech", "train-clean-100").quarantined
    assert refused
    built = world.build("mine", retry=True)
    assert built.packed_shards >= 1 and built.kept_shards >= 1
    same_as_fresh(world)


def test_audio_damaged_in_the_old_dataset_is_made_anew(world: World) -> None:
    dataset = Dataset(world.folder / "mine")
    row = dataset.table("librispeech", "train-clean-100").to_pylist()[0]
    tar = world.folder / "mine" / row["shard"]
    content = bytearray(tar.read_bytes())
    content[row["flac_offset"] + row["flac_bytes"] // 2] ^= 1
    tar.write_bytes(content)
    built = world.build("mine", shard_bytes=2**20)
    assert built.actions == {"copy": row["samples"]}
    same_as_fresh(world, shard_bytes=2**20)


def test_a_dataset_of_which_nothing_is_remembered_is_left_alone(world: World) -> None:
    shutil.rmtree(world.root / "builds")
    before = world.digests("mine")
    assert world.build("mine").packed_shards == 0
    with pytest.raises(UserError, match=r"of another plan, and nothing is remembered .* give another --out"):
        world.build("mine", shard_bytes=2**20)
    assert world.digests("mine") == before


@pytest.mark.slow
def test_killing_a_renewal_at_random_moments_loses_nothing(world: World) -> None:
    dice = random.Random(os.getpid())
    speech = world.speech()
    for _ in range(3):
        one, two = dice.sample(speech, 2)
        shutil.copy(one, two)
        landed = 0
        for _ in range(4):
            command = [sys.executable, "-m", "salmonn.cli", "build", str(TWO), "--root", str(world.root)]
            more = ["--out", str(world.folder / "mine"), "--shard-mb", "0.5"]
            process = subprocess.Popen([*command, *more], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            deadline = time.monotonic() + 60
            while not (world.folder / "mine/build").exists() and process.poll() is None:
                assert time.monotonic() < deadline
                time.sleep(0.002)
            time.sleep(dice.uniform(0, 0.4))
            landed += process.poll() is None
            process.send_signal(signal.SIGKILL)
            process.wait()
        world.build("mine")
        same_as_fresh(world)


def test_a_take_down_stopped_before_any_of_its_steps_goes_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = renew.memory(str(world.root), str(world.folder / "mine"))
    whole = {name for name in digests(world.folder / "mine") if not name.startswith("build")}
    for step in range(1, 60):
        out = world.folder / f"copy{step}"
        shutil.copytree(world.folder / "mine", out)
        # What is remembered belongs to an address.
        shutil.copytree(mine, renew.memory(str(world.root), str(out)))
        left = [step]
        with monkeypatch.context() as patch:
            for name in ("write_whole", "remove_tree", "remove"):
                patch.setattr(files, name, stopping(getattr(files, name), left))
            patch.setattr(renew, "move", stopping(renew.move, left))
            try:
                renew.take_down(str(out), str(world.root))
            except KeyboardInterrupt:
                stopped = True
            else:
                stopped = False
        if (out / "dataset.json").exists():
            assert whole <= digests(out).keys(), f"step {step}: readers find a dataset that lacks files"
        if stopped:
            renew.take_down(str(out), str(world.root))
        assert {f"build/old/{name}" for name in whole} <= digests(out).keys()
        assert renew.read_frozen(str(out / "build/old")) == renew.read_frozen(mine)
        assert not (out / "build/taking-down").exists()
        shutil.rmtree(out)
        if not stopped:
            break
    assert 8 < step < 59


def stopping(function, left):  # type: ignore[no-untyped-def]
    """Let a function through until the count is used up; then stop before it does anything."""

    def guarded(*given, **named):  # type: ignore[no-untyped-def]
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        return function(*given, **named)

    return guarded
