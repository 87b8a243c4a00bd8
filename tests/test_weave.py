"""Shares hold at every prefix: within one example for every task, and all but always for every queue."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests import load_recipe
from shards import weave
from shards.weave import Loom

weights = st.one_of(st.floats(1e-6, 1), st.integers(1, 1000).map(float), st.sampled_from([1.0, 0.1, 1 / 3]))
mixtures = st.lists(st.tuples(weights, st.integers(0, 4)), min_size=1, max_size=10)
TURNS = 700
WHY = "needs the compiled loop, which set-up builds where there is a compiler"


def loom_of(mixture: list[tuple[float, int]]) -> Loom:
    names = sorted({task for _, task in mixture})
    whole = sum(weight for weight, _ in mixture)
    return Loom([weight / whole for weight, _ in mixture], [names.index(task) for _, task in mixture])


def worst(shares: np.ndarray, drawn: np.ndarray, sizes: np.ndarray | None = None) -> float:
    """The largest distance, at any prefix, between what one had and its share."""
    had = np.zeros((len(drawn), len(shares)))
    had[np.arange(len(drawn)), drawn] = 1 if sizes is None else sizes
    had = had.cumsum(axis=0)
    return float(np.abs(had - had.sum(axis=1, keepdims=True) * shares).max(initial=0))


@settings(max_examples=400)
@given(mixtures)
def test_no_task_is_ever_ahead_or_behind_by_an_item_and_no_queue_by_two(mixture: list[tuple[float, int]]) -> None:
    loom = loom_of(mixture)
    drawn = loom.draw(TURNS)
    assert worst(loom.task_shares, loom.tasks[drawn]) < 1
    assert worst(loom.shares, drawn) < 2


@settings(max_examples=200)
@given(st.lists(weights, min_size=1, max_size=14))
def test_queues_of_one_task_or_of_one_each_are_never_ahead_or_behind_by_an_item(given_weights: list[float]) -> None:
    for tasks in ([0] * len(given_weights), range(len(given_weights))):
        loom = loom_of(list(zip(given_weights, tasks, strict=True)))
        assert worst(loom.shares, loom.draw(TURNS)) < 1


@pytest.mark.parametrize("seed", range(5))
def test_queues_are_within_an_item_in_all_but_one_of_some_hundred_random_mixtures(seed: int) -> None:
    dice = np.random.default_rng(seed)
    beyond = 0
    for _ in range(400):
        queues = int(dice.integers(1, 16))
        numbers = dice.integers(1, dice.choice([3, 10, 100, 5000]) + 1, queues)
        loom = loom_of(list(zip(numbers.astype(float).tolist(), dice.integers(0, 6, queues).tolist(), strict=True)))
        drawn = loom.draw(500)
        assert worst(loom.task_shares, loom.tasks[drawn]) < 1
        beyond += worst(loom.shares, drawn) >= 1
    assert beyond <= 3


@pytest.mark.parametrize("power", [1.0, 0.7, 0.5, 0.0])
@pytest.mark.parametrize("stage", ["pretrain", "instruct", "activate"])
def test_every_row_of_the_paper_s_table_is_within_an_example_of_its_share(stage: str, power: float) -> None:
    rows = load_recipe("salmonn").stage(stage)
    names = list(dict.fromkeys(row.task for row in rows))
    sizes = [float(row.samples or 200_000) for row in rows]
    loom = loom_of([(size**power, names.index(row.task)) for size, row in zip(sizes, rows, strict=True)])
    drawn = loom.draw(60_000)
    assert worst(loom.shares, drawn) < 1
    assert worst(loom.task_shares, loom.tasks[drawn]) < 1


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(1, 60), st.integers(0, 3)), min_size=1, max_size=12))
def test_whole_numbers_of_items_come_out_exactly_at_the_end_of_their_round(counts: list[tuple[int, int]]) -> None:
    whole = sum(count for count, _ in counts)
    loom = loom_of([(float(count), task) for count, task in counts])
    drawn = loom.draw(2 * whole)
    for part in (drawn[:whole], drawn[whole:]):
        of_tasks = np.bincount(loom.tasks[part]).tolist()
        assert of_tasks == np.bincount(loom.tasks, [count for count, _ in counts]).tolist()
        assert np.bincount(part, minlength=len(counts)).tolist() == [count for count, _ in counts]


@settings(max_examples=100)
@given(mixtures, st.lists(st.integers(0, 90), max_size=8))
def test_it_does_not_matter_how_turns_are_cut(mixture: list[tuple[float, int]], cuts: list[int]) -> None:
    parts, marked = loom_of(mixture), loom_of(mixture)
    drawn = []
    for cut in cuts:
        marked.served[:] = parts.served
        mine = parts.draw(cut).tolist()
        assert marked.draw(cut).tolist() == mine
        drawn += mine
    assert drawn == loom_of(mixture).draw(sum(cuts)).tolist()


@settings(max_examples=100)
@given(mixtures, st.integers(0, 2**32))
def test_shares_of_seconds_hold_within_the_longest_example(mixture: list[tuple[float, int]], seed: int) -> None:
    lengths = np.random.default_rng(seed).uniform(0.5, 30, (len(mixture), TURNS))
    loom = loom_of(mixture)
    drawn = loom.draw(TURNS, lengths)
    at = np.array([np.count_nonzero(drawn[:place] == queue) for place, queue in enumerate(drawn)])
    sizes = lengths[drawn, at]
    assert worst(loom.task_shares, loom.tasks[drawn], sizes) <= 30
    for task in set(loom.tasks.tolist()):
        mine, turns = np.flatnonzero(loom.tasks == task), np.flatnonzero(loom.tasks[drawn] == task)
        part = np.searchsorted(mine, drawn[turns])
        assert worst(loom.shares[mine] / loom.task_shares[task], part, sizes[turns]) <= 30
    assert np.allclose(loom.served, np.bincount(drawn, sizes, len(mixture)))


def test_it_stops_where_the_sizes_of_a_queue_end() -> None:
    loom = loom_of([(0.75, 0), (0.25, 1)])
    drawn = loom.draw(100, np.ones((2, 6)))
    assert np.bincount(drawn).tolist() in ([6, 1], [6, 2])


# Without a compiler there is no second loop: the one in Python draws, and all other tests here hold it.
@pytest.mark.skipif(weave.compiled is None, reason=WHY)
@settings(max_examples=200)
@given(mixtures, st.booleans(), st.integers(0, 2**32))
def test_the_compiled_loop_draws_what_the_one_in_python_draws(
    mixture: list[tuple[float, int]], sized: bool, seed: int
) -> None:
    sizes = np.random.default_rng(seed).uniform(0.5, 30, (len(mixture), 80)) if sized else None
    quick, slow = (loom_of(mixture) for _ in range(2))
    assert quick.draw(200, sizes).tolist() == slow.draw(200, sizes, slowly=True).tolist()
    assert quick.served.tolist() == slow.served.tolist()


# Without a compiler there is no second loop: the one in Python draws, and all other tests here hold it.
@pytest.mark.skipif(weave.compiled is None, reason=WHY)
def test_the_compiled_loop_refuses_arrays_that_do_not_fit() -> None:
    loom = loom_of([(1.0, 0), (1.0, 1)])
    nothing, taken, drawn = np.zeros((2, 0)), np.zeros(2, np.int32), np.zeros(5, np.int32)
    good = [loom.shares, loom.tasks, loom.task_shares, loom.served, np.zeros(2), nothing, 0, taken, drawn]
    for place, wrong in ((1, np.array([0, 2], np.int32)), (3, np.zeros(3)), (4, np.zeros(1)), (6, 3), (7, taken[:1])):
        with pytest.raises(ValueError, match="do not fit together"):
            weave.compiled(*good[:place], wrong, *good[place + 1 :])
    assert weave.compiled(*good) == 5
