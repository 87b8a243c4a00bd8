"""The plan: each clip in one shard, shards of about equal weight, and nothing but its own shard moved by a clip."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests import AudioRef, Clip, UserError, load_recipe
from manifests.tables import SEEN, Scanned, read_group, write_manifest, write_table
from pipelines.layout import (
    BYTES_PER_SECOND,
    Frozen,
    hashes,
    lay_out,
    make_plan,
    rows_path,
    seen_digests,
    slice_of,
)
from pipelines.scan import manifest_path, seen_path

RECIPE = """
title = "x"
[[instruct]]
task = "asr"
corpus = "librispeech"
splits = ["dev-clean", "test-clean"]
"""
CLIPS = 3000
SECONDS = 8.0
SHARD = int(300 * SECONDS * BYTES_PER_SECOND)


def clip(split: str, number: int, text: str = "WORDS") -> Scanned:
    audio = (AudioRef(path=f"{split}/{number}.flac"),)
    made = Clip(id=f"librispeech/{split}-{number}", audio=audio, text=text)
    return Scanned(clip=made, bytes=1000, seconds=SECONDS)


def write(root: Path, split: str, clips: list[Scanned], stamps: list[int] | None = None) -> None:
    write_manifest(manifest_path(str(root), "librispeech", split), clips)
    columns = [pa.array(stamps or [1] * len(clips), pa.int64()), pa.array([False] * len(clips))]
    write_table(seen_path(str(root), "librispeech", split), pa.table(columns, schema=SEEN))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "two.toml").write_text(RECIPE)
    write(tmp_path, "dev-clean", [clip("dev-clean", number) for number in range(CLIPS)])
    write(tmp_path, "test-clean", [clip("test-clean", number) for number in range(40)])
    return tmp_path


def laid(root: Path, out: str) -> tuple[Frozen, dict]:
    plan = make_plan(load_recipe(root / "two.toml"), str(root), SHARD)
    frozen = Frozen(plan=plan, seen=seen_digests(plan, str(root)))
    return frozen, lay_out(plan, frozen.digest, str(root), str(root / out))


def test_every_clip_is_in_one_shard_and_shards_weigh_about_the_same(root: Path) -> None:
    frozen, lots = laid(root, "out")
    source = next(source for source in frozen.plan.sources if source.split == "dev-clean")
    mine = lots["librispeech", "dev-clean"]
    assert source.shards == CLIPS * SECONDS * BYTES_PER_SECOND // SHARD == len(mine)
    url = str(root / "out" / rows_path("librispeech", "dev-clean"))
    ids = [scanned.clip.id for lot in mine for scanned in read_group(url, lot.group)]
    assert sorted(ids) == sorted(f"librispeech/dev-clean-{number}" for number in range(CLIPS))
    sizes = [lot.clips for lot in mine]
    assert sum(sizes) == CLIPS and 0.8 * 300 < min(sizes) <= max(sizes) < 1.2 * 300


def test_neighbours_of_the_corpus_are_not_neighbours_in_a_shard(root: Path) -> None:
    _, lots = laid(root, "out")
    url = str(root / "out" / rows_path("librispeech", "dev-clean"))
    order = [
        int(scanned.clip.id.rsplit("-", 1)[1])
        for lot in lots["librispeech", "dev-clean"]
        for scanned in read_group(url, lot.group)
    ]
    correlation = np.corrcoef(order, np.arange(len(order)))[0, 1]
    assert abs(correlation) < 0.08
    assert np.mean(np.abs(np.diff(order)) < 10) < 0.02


def test_a_clip_more_a_clip_less_and_a_clip_changed_touch_their_own_shards_alone(root: Path) -> None:
    before, lots = laid(root, "out")
    clips = [clip("dev-clean", number) for number in range(CLIPS)]
    clips[17] = clip("dev-clean", 17, "OTHER WORDS")
    stamps = [1] * CLIPS
    stamps[400] = 2
    del clips[901], stamps[901]
    write(root, "dev-clean", [*clips, clip("dev-clean", CLIPS)], [*stamps, 1])
    after, now = laid(root, "again")
    assert before.plan.digest != after.plan.digest
    old, new = lots["librispeech", "dev-clean"], now["librispeech", "dev-clean"]
    changed = {lot.number for lot, other in zip(old, new, strict=True) if lot.print != other.print}
    touched = hashes(f"librispeech/dev-clean-{number}" for number in (17, 400, 901, CLIPS))
    assert changed == set(slice_of(touched, len(old)).tolist())
    assert lots["librispeech", "test-clean"] == now["librispeech", "test-clean"]


def test_times_alone_change_what_is_frozen_and_not_the_plan(root: Path) -> None:
    before, _ = laid(root, "out")
    write(root, "test-clean", [clip("test-clean", number) for number in range(40)], [2] * 40)
    after, _ = laid(root, "again")
    assert before.plan.digest == after.plan.digest
    assert before.digest != after.digest


def test_a_clip_of_two_splits_is_refused_before_anything_is_written(root: Path) -> None:
    write(root, "test-clean", [clip("dev-clean", 5)])
    with pytest.raises(UserError, match=r"'librispeech/dev-clean-5' is in librispeech:dev-clean and in librispeech:te"):
        laid(root, "out")
    assert not (root / "out").exists()


def test_rows_lie_a_row_group_a_shard_in_the_order_of_the_shards(root: Path) -> None:
    _, lots = laid(root, "out")
    file = pq.ParquetFile(root / "out" / rows_path("librispeech", "dev-clean"))
    mine = lots["librispeech", "dev-clean"]
    assert [file.metadata.row_group(lot.group).num_rows for lot in mine] == [lot.clips for lot in mine]
    assert [lot.number for lot in mine] == sorted({lot.number for lot in mine})


@given(st.lists(st.text(max_size=20), max_size=50), st.integers(1, 3000))
def test_a_slice_is_the_share_of_the_hash_in_exact_arithmetic(ids: list[str], shards: int) -> None:
    places = hashes(ids)
    exact = [((int(place) >> 32) * shards) >> 32 for place in places]
    assert slice_of(places, shards).tolist() == exact
    assert all(0 <= number < shards for number in exact)
