"""The order: every example once, none again before all were dealt, shares at every prefix, batches within budget."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests import Recipe, UserError
from shards import Dataset
from shards.plan import POOL, WINDOW, Budget, Order, cut_batches

TASKS = ("asr", "gender_recognition", "phone_recognition")
SOURCES = (("a", "x"), ("a", "y"), ("b", "x"))
BUDGET = Budget(seconds=60, examples=8, longest=30)

Make = Callable[..., Dataset]


@dataclass(frozen=True)
class World:
    """Clips by source, and the rows of a stage: task, corpus, splits, weight."""

    clips: dict[tuple[str, str], list[tuple[int, tuple[str, ...]]]]
    rows: tuple[tuple[str, str, tuple[str, ...], float | None], ...]

    def examples(self, row: tuple[str, str, tuple[str, ...], float | None]) -> list[tuple[str, str, int, int]]:
        """Corpus, split, clip and instruction of every example of a row, by plain loops."""
        task, corpus, splits, _ = row
        return [
            (corpus, split, place, number)
            for split in splits
            for place, (_samples, tasks) in enumerate(self.clips[corpus, split])
            for number, name in enumerate(tasks)
            if name == task
        ]


@st.composite
def worlds(draw: st.DrawFn, weighted: bool | None = None, empty: bool = True) -> World:
    """Up to three splits of up to eight clips with up to three instructions each, and a stage of up to four rows."""
    clip = st.tuples(st.integers(1, 40 * 16000), st.lists(st.sampled_from(TASKS), min_size=1, max_size=3).map(tuple))
    clips = {source: draw(st.lists(clip, min_size=0 if empty else 1, max_size=8)) for source in SOURCES}
    candidates = [
        (task, "a", splits)
        for task in TASKS
        for splits in draw(st.sampled_from([(("x",), ("y",)), (("x", "y"),), (("y", "x"),)]))
    ]
    candidates += [(task, "b", ("x",)) for task in TASKS]
    filled = [row for row in candidates if World(clips, ()).examples((*row, None))]
    if not filled:
        clips["b", "x"] = [(16000, ("asr",))]
        filled = [("asr", "b", ("x",))]
    chosen = draw(st.lists(st.sampled_from(filled), min_size=1, max_size=4, unique=True))
    is_weighted = draw(st.booleans()) if weighted is None else weighted
    weights = st.floats(0.01, 100) | st.sampled_from([1.0, 0.5, 1e-3, 1 / 3])
    return World(clips, tuple((*row, draw(weights) if is_weighted else None) for row in chosen))


def order_of(
    world: World, make_index: Make, make_recipe: Callable[..., Recipe], seed: int = 0, budget: Budget = BUDGET
) -> Order:
    return Order(make_index(world.clips), make_recipe(*world.rows), "instruct", seed, budget)


def woven(order: Order, cycles: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Queue, item and epoch of the draws of the first cycles, in the order they are due."""
    parts, mark = [], order.start
    while mark.deal < cycles * order.examples:
        parts.append(order.draws(mark))
        mark = parts[-1][3]
    return tuple(np.concatenate([part[k] for part in parts]) for k in range(3))  # type: ignore[return-value]


def cycle_of(order: Order, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Queue, item and epoch of the draws of one cycle, in the order they are due."""
    span = slice(number * order.examples, (number + 1) * order.examples)
    return tuple(part[span] for part in woven(order, number + 1))  # type: ignore[return-value]


seeds = st.integers(0, 2**63)


@settings(max_examples=50)
@given(worlds())
def test_a_row_s_queue_is_every_instruction_of_its_task_in_its_splits(
    make_index: Make, make_recipe: Callable, world: World
) -> None:
    order = order_of(world, make_index, make_recipe)
    for queue, row in zip(order.queues, world.rows, strict=True):
        found = [
            (*order.locate(sample), number)
            for sample, number in zip(queue.sample.tolist(), queue.instruction.tolist(), strict=True)
        ]
        assert found == world.examples(row)
        seconds = [world.clips[corpus, split][place][0] / 16000 for corpus, split, place, _ in found]
        assert queue.seconds.tolist() == seconds


@settings(max_examples=50)
@given(worlds(weighted=False), seeds)
def test_without_weights_every_cycle_deals_every_example_exactly_once(
    make_index: Make, make_recipe: Callable, world: World, seed: int
) -> None:
    order = order_of(world, make_index, make_recipe, seed)
    everything = {(queue, item) for queue, row in enumerate(world.rows) for item in range(len(world.examples(row)))}
    for number in range(3):
        dealt = order.cycle(number)
        pairs = list(zip(dealt.queue.tolist(), dealt.item.tolist(), strict=True))
        assert len(pairs) == len(everything) == order.examples
        assert set(pairs) == everything
        assert set(dealt.epoch.tolist()) == {number}


@settings(max_examples=50)
@given(worlds(), seeds)
def test_no_queue_repeats_an_example_before_all_of_its_were_dealt(
    make_index: Make, make_recipe: Callable, world: World, seed: int
) -> None:
    queue, item, epoch = woven(order_of(world, make_index, make_recipe, seed), cycles=4)
    for place, row in enumerate(world.rows):
        size = len(world.examples(row))
        items, epochs = item[queue == place], epoch[queue == place]
        assert epochs.tolist() == [number // size for number in range(len(items))]
        for begin in range(0, len(items), size):
            once = items[begin : begin + size].tolist()
            assert len(set(once)) == len(once)


@settings(max_examples=50)
@given(worlds(weighted=True), seeds)
def test_shares_hold_at_every_prefix(make_index: Make, make_recipe: Callable, world: World, seed: int) -> None:
    queue, _, _ = woven(order_of(world, make_index, make_recipe, seed), cycles=6)
    weights = np.array([row[3] for row in world.rows])
    shares = weights / weights.sum()
    dealt = np.cumsum(queue[:, None] == np.arange(len(shares)), axis=0)
    intended = np.arange(1, len(queue) + 1)[:, None] * shares
    # A task may be ahead or behind by one, and a row by one within its task.
    assert np.abs(dealt - intended).max() < 2
    tasks = [row[0] for row in world.rows]
    member = np.array([[task == other for other in sorted(set(tasks))] for task in tasks], float)
    assert np.abs((dealt - intended) @ member).max() < 1


@settings(max_examples=50)
@given(worlds(), seeds)
def test_a_cycle_is_about_as_many_draws_as_there_are_examples(
    make_index: Make, make_recipe: Callable, world: World, seed: int
) -> None:
    order = order_of(world, make_index, make_recipe, seed)
    total = sum(len(world.examples(row)) for row in world.rows)
    lengths = [len(order.cycle(number).queue) for number in range(5)]
    assert all(abs(length - total) <= len(world.rows) for length in lengths)
    assert abs(sum(lengths) - 5 * total) <= len(world.rows)
    assert all(lengths)


budgets = st.builds(
    lambda seconds, examples, part: Budget(seconds=seconds, examples=examples, longest=seconds * part),
    st.floats(1, 200),
    st.integers(1, 9),
    st.floats(0.05, 1),
)


@settings(max_examples=50)
@given(worlds(), seeds, budgets)
def test_batches_part_the_cycle_and_none_exceeds_its_budget(
    make_index: Make, make_recipe: Callable, world: World, seed: int, budget: Budget
) -> None:
    order = order_of(world, make_index, make_recipe, seed, budget)
    for number in range(2):
        dealt, draws = order.cycle(number), cycle_of(order, number)
        assert dealt.starts[0] == 0
        assert dealt.starts[-1] == len(dealt.queue)
        assert (np.diff(dealt.starts) >= 1).all()
        # the same draws as were woven, in another order
        assert sorted(zip(*(part.tolist() for part in draws), strict=True)) == sorted(
            zip(dealt.queue.tolist(), dealt.item.tolist(), dealt.epoch.tolist(), strict=True)
        )
        for begin, end in zip(dealt.starts[:-1], dealt.starts[1:], strict=True):
            pairs = zip(dealt.queue[begin:end], dealt.item[begin:end], strict=True)
            seconds = [min(order.queues[queue].seconds[item], budget.longest) for queue, item in pairs]
            assert len(seconds) <= budget.examples
            assert len(seconds) * max(seconds) <= budget.seconds * (1 + 1e-9)


@given(st.lists(st.floats(0.01, 30), min_size=1, max_size=60), budgets)
def test_no_two_neighbouring_batches_would_have_fitted_into_one(seconds: list[float], budget: Budget) -> None:
    lengths = np.sort(np.minimum(seconds, budget.longest))
    cuts = cut_batches(lengths, budget)
    assert cuts[0] == 0
    assert cuts[-1] == len(lengths)
    for begin, middle in itertools.pairwise(cuts[:-1]):
        together = middle + 1 - begin
        assert together > budget.examples or together * lengths[middle] > budget.seconds


@settings(max_examples=50)
@given(worlds(), seeds, st.integers(0, 6))
def test_a_cycle_depends_on_its_number_alone(
    make_index: Make, make_recipe: Callable, world: World, seed: int, number: int
) -> None:
    index, recipe = make_index(world.clips), make_recipe(*world.rows)
    fresh, used = (Order(index, recipe, "instruct", seed, BUDGET) for _ in range(2))
    for other in (3, 0, 5):
        used.cycle(other)
    one, two = fresh.cycle(number), used.cycle(number)
    for name in ("queue", "item", "epoch", "starts"):
        assert np.array_equal(getattr(one, name), getattr(two, name))


@settings(max_examples=50)
@given(worlds(weighted=False, empty=False), st.permutations(SOURCES))
def test_what_a_stage_does_not_name_changes_nothing(
    make_index: Make, make_recipe: Callable, world: World, sources: list[tuple[str, str]]
) -> None:
    # The dataset of a bigger recipe, with its sources written in any order, deals this stage the same.
    bigger = {source: world.clips[source] for source in sources} | {("c", "z"): [(16000, ("asr",))]}
    plain, big = (order_of(World(clips, world.rows), make_index, make_recipe) for clips in (world.clips, bigger))
    one, two = plain.cycle(0), big.cycle(0)
    assert np.array_equal(one.item, two.item)
    assert np.array_equal(one.starts, two.starts)


BIG = {
    ("a", "x"): [(4000 + 7919 * number % 480_000, ("asr", "gender_recognition")) for number in range(3000)],
    ("b", "x"): [(160_000, ("audio_caption",)) for _ in range(700)],
}


@pytest.fixture(scope="module")
def big(make_index: Make) -> Dataset:
    """Enough examples for several pools."""
    return make_index(BIG)


def test_the_dealt_order_keeps_the_shares_from_pool_to_pool(big: Dataset, make_recipe: Callable) -> None:
    recipe = make_recipe(
        ("asr", "a", ("x",), 3.0), ("gender_recognition", "a", ("x",), 2.0), ("audio_caption", "b", ("x",), 5.0)
    )
    dealt = Order(big, recipe, "instruct", 7, BUDGET).cycle(0)
    shares = np.array([0.3, 0.2, 0.5])
    for end in (*range(POOL, len(dealt.queue), POOL), len(dealt.queue)):
        counts = np.bincount(dealt.queue[:end], minlength=3)
        assert np.abs(counts - end * shares).max() < 1


def test_batches_hold_clips_of_similar_length_and_follow_in_no_order_of_length(
    big: Dataset, make_recipe: Callable
) -> None:
    recipe = make_recipe(("asr", "a", ("x",), None), ("audio_caption", "b", ("x",), None))
    order = Order(big, recipe, "instruct", 0, BUDGET)
    dealt = order.cycle(0)
    seconds = np.array([order.queues[q].seconds[i] for q, i in zip(dealt.queue, dealt.item, strict=True)])
    batches = np.split(seconds, dealt.starts[1:-1])
    padded = sum(len(batch) * batch.max() for batch in batches)
    assert 1 - seconds.sum() / padded < 0.02
    longest = np.array([batch.max() for batch in batches])
    assert abs(np.corrcoef(longest[:-1], longest[1:])[0, 1]) < 0.2


def test_another_seed_is_another_order_and_so_is_another_epoch(big: Dataset, make_recipe: Callable) -> None:
    recipe = make_recipe(("asr", "a", ("x",), None))
    orders = [Order(big, recipe, "instruct", seed, BUDGET) for seed in (0, 1)]
    ranks = [orders[0].queues[0].order(seed, epoch, WINDOW) for seed, epoch in [(0, 0), (1, 0), (0, 1)]]
    places = [np.argsort(rank) for rank in ranks]
    for one, other in [(0, 1), (0, 2), (1, 2)]:
        assert abs(np.corrcoef(places[one], places[other])[0, 1]) < 0.08
    firsts = [order.cycle(0) for order in orders]
    assert not np.array_equal(firsts[0].item, firsts[1].item)


def test_two_rows_over_the_same_clips_have_orders_of_their_own(big: Dataset, make_recipe: Callable) -> None:
    recipe = make_recipe(("asr", "a", ("x",), None), ("gender_recognition", "a", ("x",), None))
    asr, gender = (queue.order(0, 0, 10**6) for queue in Order(big, recipe, "instruct", 0, BUDGET).queues)
    assert abs(np.corrcoef(np.argsort(asr), np.argsort(gender))[0, 1]) < 0.08


def test_the_order_is_the_same_on_every_machine_and_in_every_version(big: Dataset, make_recipe: Callable) -> None:
    # Written down once: other numbers here mean that no run can be resumed across this change.
    dealt = Order(big, make_recipe(("asr", "a", ("x",), None)), "instruct", 0, BUDGET).cycle(0)
    assert dealt.item[:8].tolist() == [2810, 143, 1719, 628, 1416, 2619, 740, 1528]
    assert dealt.starts[:5].tolist() == [0, 5, 13, 15, 23]


def test_a_row_without_examples_is_refused_by_name(make_index: Make, make_recipe: Callable) -> None:
    dataset = make_index({("a", "x"): [(16000, ("asr",))], ("a", "y"): []})
    for row in [("phone_recognition", "a", ("x",), None), ("asr", "a", ("y",), None)]:
        with pytest.raises(
            UserError, match=rf"no example for {row[0]} of a \({row[2][0]}\); build it, or drop the row"
        ):
            Order(dataset, make_recipe(row), "instruct", 0, BUDGET)


def test_a_source_that_was_not_built_is_refused_with_the_nearest(make_index: Make, make_recipe: Callable) -> None:
    dataset = make_index({("speech", "train"): [(16000, ("asr",))]})
    with pytest.raises(UserError, match=r"has no speech:trian; did you mean 'speech:train'\?"):
        Order(dataset, make_recipe(("asr", "speech", ("trian",), None)), "instruct", 0, BUDGET)


def test_a_small_row_of_great_weight_comes_round_as_often_as_asked(make_index: Make, make_recipe: Callable) -> None:
    dataset = make_index({("a", "x"): [(16000, ("asr",))] * 3, ("b", "x"): [(16000, ("asr",))] * 297})
    order = Order(dataset, make_recipe(("asr", "a", ("x",), 1.0), ("asr", "b", ("x",), 1.0)), "instruct", 0, BUDGET)
    queue, item, _ = cycle_of(order, 0)
    counts = collections.Counter(queue.tolist())
    assert counts[0] == counts[1] == 150
    assert set(collections.Counter(item[queue == 0].tolist()).values()) == {50}


def test_rows_deal_only_clips_of_their_lengths_and_language(make_dataset: Callable[..., Dataset]) -> None:
    from manifests import Recipe
    from manifests.recipe import Row

    world = {("librispeech", "dev-clean"): [(16_000 * second, ("asr",)) for second in (1, 2, 3, 4, 5)]}
    dataset = make_dataset(world)
    budget = Budget(seconds=60.0, examples=4, longest=30.0)

    def dealt(**limits: object) -> list[float]:
        row = Row(task="asr", corpus="librispeech", splits=("dev-clean",), **limits)  # type: ignore[arg-type]
        order = Order(dataset, Recipe(title="x", name="x", instruct=(row,)), "instruct", 0, budget)
        return sorted(order.queues[0].seconds.tolist())

    assert dealt(min_seconds=2.0, max_seconds=4.0) == [2.0, 3.0, 4.0]
    assert dealt(language="en") == [1.0, 2.0, 3.0, 4.0, 5.0]
    with pytest.raises(UserError, match="no example"):
        dealt(language="de")


def test_a_temperature_lifts_small_rows_as_it_says(make_dataset: Callable[..., Dataset]) -> None:
    from manifests import Recipe
    from manifests.recipe import Row

    world = {
        ("librispeech", "dev-clean"): [(1600, ("asr",))] * 16,
        ("librispeech", "dev-other"): [(1600, ("asr",))] * 4,
    }
    dataset = make_dataset(world)
    rows = tuple(Row(task="asr", corpus="librispeech", splits=(split,)) for split in ("dev-clean", "dev-other"))
    budget = Budget(seconds=60.0, examples=4, longest=30.0)
    for power, shares in ((1.0, [0.8, 0.2]), (0.5, [2 / 3, 1 / 3]), (0.0, [0.5, 0.5])):
        recipe = Recipe(title="x", name="x", instruct=rows, temperature={"instruct": power})
        order = Order(dataset, recipe, "instruct", 0, budget)
        assert order.shares.tolist() == pytest.approx(shares)


@settings(max_examples=40)
@given(worlds(weighted=True, empty=False), seeds, st.sampled_from(["seconds", "tokens"]))
def test_shares_of_seconds_and_of_tokens_hold_within_the_longest_example(
    make_index: Make, make_recipe: Callable, world: World, seed: int, unit: str
) -> None:
    order = Order(make_index(world.clips), make_recipe(*world.rows), "instruct", seed, BUDGET, unit=unit)
    queue, item, epoch = woven(order, cycles=4)
    if unit == "seconds":
        sizes = [np.minimum(one.seconds, BUDGET.longest) for one in order.queues]
    else:
        sizes = [np.maximum(one.answer, 1) for one in order.queues]
        assert all(one.answer.min() > 0 and one.prompt.min() > 0 for one in order.queues)
    size = np.array([sizes[q][i] for q, i in zip(queue, item, strict=True)])
    had = np.cumsum((queue[:, None] == np.arange(len(order.queues))) * size[:, None], axis=0)
    tasks = np.array(order.tasks)
    member = np.array([[task == other for other in range(tasks.max() + 1)] for task in tasks], float)
    intended = np.cumsum(size)[:, None] * order.shares
    assert np.abs((had - intended) @ member).max() <= max(one.max() for one in sizes) * (1 + 1e-9)
    for place, one in enumerate(order.queues):
        mine = epoch[queue == place]
        assert mine.tolist() == [number // len(one.sample) for number in range(len(mine))]


@settings(max_examples=40)
@given(worlds(), seeds, st.integers(300, 3000))
def test_no_batch_has_more_tokens_than_its_budget(
    make_index: Make, make_recipe: Callable, world: World, seed: int, tokens: int
) -> None:
    budget = Budget(seconds=200, examples=9, longest=30, tokens=tokens)
    order = order_of(world, make_index, make_recipe, seed, budget)
    dealt = order.cycle(0)
    for begin, end in itertools.pairwise(dealt.starts.tolist()):
        each = []
        for queue, item in zip(dealt.queue[begin:end], dealt.item[begin:end], strict=True):
            one = order.queues[queue]
            audio = np.ceil(min(one.seconds[item], 30) * 88 / 30)
            each.append(audio + one.prompt[item] + one.answer[item])
        assert len(each) == 1 or len(each) * max(each) <= tokens


@settings(max_examples=40)
@given(worlds(), seeds, st.integers(0, 12), st.booleans())
def test_a_pool_depends_on_its_mark_alone(
    make_index: Make, make_recipe: Callable, world: World, seed: int, pools: int, by_seconds: bool
) -> None:
    index, recipe = make_index(world.clips), make_recipe(*world.rows)
    unit = "seconds" if by_seconds else "examples"
    used = Order(index, recipe, "instruct", seed, BUDGET, unit=unit)
    mark = used.start
    for _ in range(pools):
        mark = used.pool(mark).next
    fresh = Order(index, recipe, "instruct", seed, BUDGET, unit=unit)
    one, two = used.pool(mark), fresh.pool(mark)
    assert one.next == two.next
    for name in ("queue", "item", "epoch", "starts"):
        assert np.array_equal(getattr(one, name), getattr(two, name))
    assert np.array_equal(used.pool(used.start).item, fresh.pool(fresh.start).item)


def test_within_a_window_no_other_shard_is_touched(make_index: Make, make_recipe: Callable) -> None:
    dataset = make_index({("a", "x"): [(16_000, ("asr", "gender_recognition"))] * 300})
    recipe = make_recipe(("asr", "a", ("x",), None), ("gender_recognition", "a", ("x",), None))
    for epoch in range(2):
        windows = []
        for queue in Order(dataset, recipe, "instruct", 5, BUDGET, window=10).queues:
            order = queue.order(5, epoch, 10)
            assert sorted(order.tolist()) == list(range(300))
            of_shard = queue.shard[order].reshape(10, 30)
            assert [len(set(window.tolist())) for window in of_shard] == [10] * 10
            windows.append([frozenset(window.tolist()) for window in of_shard])
        # Both rows go through the shards in one order, and through the examples in their own.
        assert windows[0] == windows[1]
    assert not np.array_equal(queue.order(5, 0, 10), queue.order(5, 1, 10))


def test_a_setting_of_the_order_that_cannot_be_is_refused(make_index: Make, make_recipe: Callable) -> None:
    dataset, recipe = make_index({("a", "x"): [(16000, ("asr",))]}), make_recipe(("asr", "a", ("x",), None))
    with pytest.raises(UserError, match="cannot count 'hours'; they can count examples, seconds, tokens"):
        Order(dataset, recipe, "instruct", 0, BUDGET, unit="hours")
    with pytest.raises(UserError, match="the window is 0 shards"):
        Order(dataset, recipe, "instruct", 0, BUDGET, window=0)
