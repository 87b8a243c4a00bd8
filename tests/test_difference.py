"""The difference of two builds: equal to plain loops over both indexes, and judged by how much has changed."""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import duckdb
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ks_2samp

from shards.audit import audit, write
from shards.audit.sections import difference
from shards.audit.sections.difference import Difference, distance, stability
from shards.index import Dataset
from test_audit import World, build, clean, recipe_of, rows_of, speech


def compared(folder: Path, change: Callable[[World], None]) -> tuple[Dataset, Dataset, Difference, str]:
    """Return a changed build, the one before, how they differ, and the verdict of the gate."""
    world = clean()
    # Each clip keeps its sound, whatever stands before it.
    for pitch, clip in enumerate(clip for clips in world.clips.values() for clip in clips):
        clip.pitch = 100 + pitch
    before = build(folder / "before", world)
    change(world)
    now = build(folder / "now", world)
    report = audit(now, recipe_of(), other=before)
    assert report.difference is not None
    [gate] = [gate for gate in report.gates if gate.name == "drift"]
    return now, before, report.difference, gate.verdict


def answer_anew(world: World) -> None:
    for clip in world.clips["librispeech", "train-clean-100"][:2]:
        clip.asked[0][2][0] = "other words"


def ask_anew(world: World) -> None:
    clip = world.clips["librispeech", "train-clean-100"][2]
    clip.asked[0] = (clip.asked[0][0], "Another prompt", clip.asked[0][2])


def drop_one(world: World) -> None:
    world.clips["librispeech", "train-clean-100"].pop()


def add_one(world: World) -> None:
    world.clips["librispeech", "train-clean-100"] += [
        msgspec.structs.replace(copy.deepcopy(speech(1, 4)[0]), name="new", pitch=7777)
    ]


def sound_anew(world: World) -> None:
    world.clips["librispeech", "train-clean-100"][0].pitch = 8888


def reverse(world: World) -> None:
    for clips in world.clips.values():
        clips.reverse()


def nothing(world: World) -> None:
    del world


@pytest.mark.parametrize(
    ("change", "says", "verdict"),
    [
        (nothing, "The same build", "PASS"),
        (reverse, "The same data in a new order", "PASS"),
        (ask_anew, "The same audio with other words: 1 with other prompts", "PASS"),
        (answer_anew, "The same audio with other words: 2 with other answers", "WARN"),
        (add_one, "Other data: 1 added", "WARN"),
        (sound_anew, "Other data: 1 with other audio", "WARN"),
        (drop_one, "Other data: 1 removed", "WARN"),
    ],
)
def test_a_change_is_told_for_what_it_is(
    tmp_path: Path, change: Callable[[World], None], says: str, verdict: str
) -> None:
    _, _, found, judged = compared(tmp_path, change)
    assert found.conclusion.startswith(says)
    assert judged == verdict


def everything(world: World) -> None:
    for change in (answer_anew, ask_anew, sound_anew, drop_one, add_one):
        change(world)


def test_counts_are_those_of_loops_over_both_indexes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, before, found, _ = compared(tmp_path, everything)
    here, there = ({row["key"]: row for row in rows_of(dataset)} for dataset in (now, before))
    both = here.keys() & there.keys()
    for split in found.splits:
        mine = {key for key, row in here.items() if (row["corpus"], row["split"]) == (split.corpus, split.split)}
        theirs = {key for key, row in there.items() if (row["corpus"], row["split"]) == (split.corpus, split.split)}
        assert (split.here, split.there) == (len(mine), len(theirs))
        assert (split.added, split.removed) == (len(mine - theirs), len(theirs - mine))
        for name, column in (("audio", "pcm_md5"), ("answers", "answers"), ("prompts", "prompts")):
            changed = {key for key in mine & both if here[key][column] != there[key][column]}
            assert getattr(split, name) == len(changed)
        moved = {k for k in mine & both if here[k]["flac_offset"] != there[k]["flac_offset"]}
        assert split.moved == len(moved)
    counts = [Counter(task for row in side.values() for task in row["tasks"]) for side in (here, there)]
    assert {row.task: (row.examples, row.there) for row in found.tasks} == {
        task: (counts[0][task], counts[1][task]) for task in counts[0] | counts[1]
    }
    assert {example.change for example in found.examples} == {"added", "removed", "audio", "answers", "prompts"}
    for example in found.examples:
        if example.change == "answers":
            assert example.now != example.before
    # Whoever pastes the queries of the page gets the same numbers.
    monkeypatch.chdir(now.url)
    sql = audit(now, recipe_of(), other=before).sql
    connection = duckdb.connect()
    connection.execute(sql["views"].replace("OTHER/", f"{before.url}/"))
    rows = connection.execute(sql["difference"]).fetchall()
    assert [row[:10] for row in rows] == [
        tuple(getattr(split, name) for name in difference.Changed.__struct_fields__[:10]) for split in found.splits
    ]


def test_without_another_build_nothing_is_said_of_it(tmp_path: Path) -> None:
    report = audit(build(tmp_path / "one", clean()), recipe_of())
    assert report.difference is None
    assert "drift" not in {gate.name for gate in report.gates}
    write(report, tmp_path / "a.html", tmp_path / "a.json")
    assert 'id="difference"' not in (tmp_path / "a.html").read_text()


def longer(world: World) -> None:
    for place, clip in enumerate(world.clips["librispeech", "train-clean-100"]):
        clip.seconds = 2.5 + place % 3


def test_a_distribution_that_moved_fails_and_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(difference, "FEW", 2)
    _, _, found, verdict = compared(tmp_path, longer)
    assert verdict == "FAIL"
    assert ("librispeech", "seconds") in {(shift.corpus, shift.measure) for shift in found.shifts[:3]}


def lose_many(world: World) -> None:
    clips = world.clips["librispeech", "train-clean-100"]
    del clips[: len(clips) // 2]


def test_a_split_that_lost_many_samples_fails(tmp_path: Path) -> None:
    assert compared(tmp_path, lose_many)[3] == "FAIL"


COUNTS = st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500)), min_size=1, max_size=20).filter(
    lambda pairs: all(sum(pair[side] for pair in pairs) for side in (0, 1))
)


@given(COUNTS)
def test_indices_are_those_of_the_field(pairs: list[tuple[int, int]]) -> None:
    here, there = [one for one, _ in pairs], [other for _, other in pairs]
    p, q = ((np.array(side) + 0.5) / (sum(side) + len(side) / 2) for side in (here, there))
    assert math.isclose(stability(here, there), float(((p - q) * np.log(p / q)).sum()), abs_tol=1e-6)
    assert stability(here, there) >= 0
    samples = [np.repeat(np.arange(len(side)), side) for side in (here, there)]
    assert math.isclose(distance(here, there), ks_2samp(*samples, method="asymp").statistic, abs_tol=1e-6)
