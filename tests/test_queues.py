"""Queues read by row groups are those of the whole index; their orders are those of one sort of all."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests import draw
from manifests.recipe import Row
from shards import growing
from shards.index import Dataset
from shards.queues import Queue, longest_answers, make_queues
from test_audit import Made, World, build

ROW = Row(task="asr", corpus="librispeech", splits=("dev-clean",))


def sorted_at_once(shard: np.ndarray, seed: int, epoch: int, window: int) -> np.ndarray:
    """The order of a queue by one sort: the rank of the shard's window first, then the word of the example."""
    words = np.random.PCG64(draw.number("order", seed, "asr", "librispeech", "dev-clean", epoch)).random_raw(len(shard))
    if shard.max() + 1 > window:
        of_shard = np.random.PCG64(draw.number("shards", seed, epoch)).random_raw(int(shard.max()) + 1)
        by_word = sorted(set(shard.tolist()), key=lambda one: (int(of_shard[one]), one))
        rank = {one: place // window for place, one in enumerate(by_word)}
        words = np.array([(rank[int(s)] << 44) | (int(w) >> 20) for s, w in zip(shard, words, strict=True)], np.uint64)
    return np.argsort(words, kind="stable")


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 30)), min_size=1, max_size=60),
    st.integers(1, 50),
    st.integers(0, 3),
)
def test_an_order_is_that_of_one_sort_of_all(runs: list[tuple[int, int]], window: int, epoch: int) -> None:
    shards, sizes = (np.array(column, np.int32) for column in zip(*runs, strict=True))
    count = int(sizes.sum())
    nothing = np.zeros(count, np.int32)
    queue = Queue(
        row=ROW, sample=np.arange(count, dtype=np.int32), instruction=nothing, seconds=np.ones(count),
        shards=shards, runs=sizes, prompt=nothing, answer=nothing,
    )  # fmt: skip
    assert np.array_equal(queue.shard, np.repeat(shards, sizes))
    assert np.array_equal(queue.order(7, epoch, window), sorted_at_once(queue.shard, 7, epoch, window))


NUMBERS = st.integers(0, 40) | st.integers(0, 2**64 - 1) | st.integers(0, 40).map(lambda n: (n << 58) + 2**57 - n)
LENGTHS = (
    st.sampled_from([0.0, 1e-300, 2.5, 30.0]) | st.floats(0, 200) | st.integers(1, 480_000).map(lambda n: n / 16_000)
)


@given(st.lists(NUMBERS, max_size=200))
def test_numbers_are_ranked_as_by_a_stable_sort(numbers: list[int]) -> None:
    words = np.array(numbers, np.uint64)
    assert growing.sort is not None, "shards/_alike.c was not built: run 'make setup'"
    assert growing.ranked(words).tolist() == np.argsort(words, kind="stable").tolist()


@given(st.lists(LENGTHS | LENGTHS.map(lambda n: n + 1e-13), max_size=200), st.integers(1, 60), st.booleans())
def test_rows_are_ranked_each_by_itself(lengths: list[float], width: int, negative: bool) -> None:
    values = np.array(lengths) - negative
    rows = [values[first : first + width] for first in range(0, len(values), width)]
    places = [
        place + width * row for row, part in enumerate(rows) for place in np.argsort(part, kind="stable").tolist()
    ]
    assert growing.ranked_rows(values, width).tolist() == places
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(growing, "sort", None)
        assert growing.ranked_rows(values, width).tolist() == places


def regrouped(dataset: Dataset, rows: int) -> Dataset:
    """The dataset with its index in groups of so many rows."""
    for source in dataset.manifest.sources:
        path = Path(dataset.url) / source.index.path
        pq.write_table(pq.read_table(path, partitioning=None), path, row_group_size=rows)
    return Dataset(dataset.url)


@pytest.mark.parametrize("rows", [1, 3, 7])
def test_queues_do_not_depend_on_row_groups(tmp_path: Path, rows: int) -> None:
    clips = {
        ("librispeech", split): [
            Made(
                name=f"{split}{n}",
                seconds=0.1 * (1 + n % 4),
                asked=[("asr", "Write it.", ["a word" * (n % 5)] * (n % 3)), ("gender_recognition", "Who?", ["Male"])]
                * (1 + n % 2),
            )
            for n in range(11)
        ]
        for split in ("dev-clean", "test-clean", "train-clean-100")
    }
    dataset = build(tmp_path, World(clips=clips))
    splits = ("train-clean-100", "dev-clean")
    recipe = (
        Row(task="asr", corpus="librispeech", splits=splits, max_seconds=0.35),
        Row(task="gender_recognition", corpus="librispeech", splits=("test-clean", "dev-clean"), language="en"),
    )
    for tokens, answers in ((False, False), (True, False), (False, True)):
        whole = make_queues(dataset, recipe, count=None, tokens=tokens, answers=answers)
        parts = make_queues(regrouped(dataset, rows), recipe, count=None, tokens=tokens, answers=answers)
        assert whole[:2] == parts[:2]
        for one, other in zip(whole[2], parts[2], strict=True):
            for name in ("sample", "instruction", "seconds", "shard", "prompt", "answer"):
                assert np.array_equal(getattr(one, name), getattr(other, name)), name
        # Against the rows themselves.
        first = whole[1][whole[0].index(("librispeech", "train-clean-100"))]
        table = dataset.table("librispeech", "train-clean-100").to_pylist()
        expected = [
            (first + row, place, line["seconds"], max((-(-len(a) // 3) for a in line["answers"][place]), default=0))
            for row, line in enumerate(table)
            for place, task in enumerate(line["tasks"])
            if task == "asr" and line["seconds"] <= 0.35
        ]
        queue = whole[2][0]
        found = [queue.sample, queue.instruction, queue.seconds, queue.answer]
        columns = list(zip(*expected, strict=True))
        for place, column in enumerate(found[: 4 if tokens or answers else 3]):
            assert column[: len(expected)].tolist() == list(columns[place])
    assert msgspec.structs.asdict(queue)["row"] == recipe[0]


@given(st.lists(st.lists(st.lists(st.text("abc\u4e2d", max_size=7), max_size=3), max_size=3), max_size=5))
def test_the_longest_answer_counts_and_none_counts_nothing(samples: list[list[list[str]]]) -> None:
    column = pa.array(samples, pa.list_(pa.list_(pa.string())))
    lengths = [
        max((-(-len(answer.encode()) // 3) for answer in answers), default=0) for asked in samples for answers in asked
    ]
    assert longest_answers(column, None).tolist() == lengths
    assert longest_answers(column.slice(1), None).tolist() == lengths[len(samples[0]) if samples else 0 :]
