"""Shares hold at every prefix: within one example for tasks, and for the queues of a task within its turns."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.weave import Loom, Weave

weights = st.one_of(st.floats(1e-6, 1), st.integers(1, 1000).map(float), st.sampled_from([1.0, 0.1, 1 / 3]))
TURNS = 700


def shares_of(weights: list[float]) -> list[float]:
    return [weight / sum(weights) for weight in weights]


def worst(shares: list[float], drawn: list[int], sizes: np.ndarray | None = None) -> float:
    """The largest distance, at any prefix, between what a queue had and its share."""
    had = np.zeros((len(drawn), len(shares)))
    had[np.arange(len(drawn)), drawn] = 1 if sizes is None else sizes
    had = had.cumsum(axis=0)
    return float(np.abs(had - had.sum(axis=1, keepdims=True) * np.array(shares)).max())


@settings(max_examples=400)
@given(st.lists(weights, min_size=1, max_size=14))
def test_no_queue_is_ever_ahead_or_behind_by_an_item(given_weights: list[float]) -> None:
    shares = shares_of(given_weights)
    assert worst(shares, Weave(shares).draw(TURNS)) < 1


@settings(max_examples=100)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=12))
def test_whole_numbers_of_items_come_out_exactly_at_the_end_of_their_round(counts: list[int]) -> None:
    weave = Weave(shares_of([float(count) for count in counts]))
    drawn = weave.draw(2 * sum(counts))
    for first in (0, sum(counts)):
        part = drawn[first : first + sum(counts)]
        assert [part.count(queue) for queue in range(len(counts))] == counts


@settings(max_examples=100)
@given(st.lists(weights, min_size=1, max_size=8), st.lists(st.integers(0, 90), max_size=8))
def test_it_does_not_matter_how_turns_are_cut(given_weights: list[float], cuts: list[int]) -> None:
    shares = shares_of(given_weights)
    parts = Weave(shares)
    assert [queue for cut in cuts for queue in parts.draw(cut)] == Weave(shares).draw(sum(cuts))


@settings(max_examples=150)
@given(st.lists(st.tuples(weights, st.integers(0, 4)), min_size=1, max_size=10), st.integers(0, 200))
def test_tasks_are_within_one_and_their_queues_within_one_of_their_turns(
    queues: list[tuple[float, int]], before: int
) -> None:
    names = sorted({task for _, task in queues})
    tasks = [names.index(task) for _, task in queues]
    shares = shares_of([weight for weight, _ in queues])
    loom = Loom(shares, tasks)
    drawn = loom.draw(before).tolist()
    again = Loom(shares, tasks)
    again.state = loom.state
    drawn += again.draw(TURNS).tolist()
    of_task = [sum(share for share, t in zip(shares, tasks, strict=True) if t == task) for task in range(len(names))]
    assert worst(of_task, [tasks[queue] for queue in drawn]) < 1
    for task in range(len(names)):
        mine = [queue for queue in range(len(tasks)) if tasks[queue] == task]
        turns = [mine.index(queue) for queue in drawn if tasks[queue] == task]
        if turns:
            assert worst([shares[queue] / of_task[task] for queue in mine], turns) < 1


@settings(max_examples=60)
@given(st.lists(st.tuples(weights, st.integers(0, 3)), min_size=1, max_size=7), st.integers(0, 2**32))
def test_shares_of_seconds_hold_within_the_longest_example(queues: list[tuple[float, int]], seed: int) -> None:
    names = sorted({task for _, task in queues})
    tasks = [names.index(task) for _, task in queues]
    shares = shares_of([weight for weight, _ in queues])
    lengths = np.random.default_rng(seed).uniform(0.5, 30, (len(queues), TURNS))
    at = [0] * len(queues)
    sizes: list[float] = []

    def take(queue: int) -> None:
        sizes.append(lengths[queue, at[queue]])
        at[queue] += 1

    drawn = Loom(shares, tasks).draw_sized(300, lambda queue: float(lengths[queue, at[queue]]), take)
    of_task = [sum(share for share, t in zip(shares, tasks, strict=True) if t == task) for task in range(len(names))]
    assert worst(of_task, [tasks[queue] for queue in drawn], np.array(sizes)) <= 30
