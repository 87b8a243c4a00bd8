"""The command `stream`: what it says of a stream is what a plain recount of the stream finds."""

from __future__ import annotations

import collections
import contextlib
import io
import itertools
import json
import random
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests import Failed, Recipe, UserError, load_recipe
from shards import Dataset, Stream, plan
from shards.drift import Scatter
from shards.realised import answer_tokens, count, planned
from shards.report import Report, deal_report, plan_report

DICE = random.Random("stream command")
BOTH, ONE, SOUND = ("asr", "gender_recognition"), ("asr",), ("audio_caption",)
WORLD = {
    ("speech", "one"): [(DICE.randrange(320, 4800), BOTH if number % 3 else ONE) for number in range(19)],
    ("speech", "two"): [(DICE.randrange(320, 4800), ONE) for _ in range(8)],
    ("sound", "one"): [(DICE.randrange(320, 4800), SOUND) for _ in range(11)],
}
ROWS = (
    ("asr", "speech", ("one",), 1.0),
    ("asr", "speech", ("two",), 0.7),
    ("gender_recognition", "speech", ("one",), 0.3),
    ("audio_caption", "sound", ("one",), 2.0),
)
LONGEST = 0.25


@pytest.fixture(scope="module")
def dataset(make_dataset: Callable[..., Dataset]) -> Dataset:
    return make_dataset(WORLD, shards=3)


@pytest.fixture(scope="module")
def recipes(make_recipe: Callable[..., Recipe]) -> dict[bool, Recipe]:
    """By whether they have weights."""
    return {True: make_recipe(*ROWS), False: make_recipe(*((*row[:3], None) for row in ROWS))}


def stream_of(dataset: Dataset, recipe: Recipe, **options: Any) -> Stream:
    return Stream(dataset, recipe, **({"max_seconds": 0.7, "max_examples": 3, "longest": LONGEST} | options))


def tokens(answers: tuple[str, ...]) -> int:
    """The longest, a third of its bytes, rounded up."""
    return max(-(-len(answer.encode()) // 3) for answer in answers)


options = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**40),
        "unit": st.sampled_from(["examples", "seconds", "tokens"]),
        "micro_batches": st.sampled_from([1, 2, 4]),
        "max_tokens": st.sampled_from([0, 60]),
        "window": st.sampled_from([1, 64]),
    }
)


# -- what was dealt


@settings(max_examples=15)
@given(
    options=options, weighted=st.booleans(), steps=st.integers(1, 12), ranks=st.sampled_from([(0, 1), (0, 2), (1, 2)])
)
def test_shares_padding_and_sizes_are_those_of_a_plain_recount(
    dataset: Dataset,
    recipes: dict[bool, Recipe],
    options: dict[str, Any],
    weighted: bool,
    steps: int,
    ranks: tuple[int, int],
) -> None:
    rank, world_size = ranks
    options = options | {"rank": rank, "world_size": world_size, "micro_batches": 2 * options["micro_batches"]}
    found = deal_report(stream_of(dataset, recipes[weighted], **options), steps)
    stream = stream_of(dataset, recipes[weighted], **options)
    batches = list(itertools.islice(stream, steps * stream.micro_batches // world_size))
    examples = [example for batch in batches for example in batch.examples]
    assert (found.steps, found.batches, found.examples) == (steps, len(batches), len(examples))
    audio = sum(example.seconds for example in examples)
    assert found.hours * 3600 == pytest.approx(audio)
    assert found.cut_seconds == pytest.approx(sum(example.cut for example in examples), rel=1e-4)
    padded = sum(batch.pcm.size for batch in batches) / 16000
    assert found.padding == pytest.approx(1 - audio / padded, abs=1e-4)
    for spread, values in (
        (found.batch_examples, [len(batch.examples) for batch in batches]),
        (found.batch_seconds, [batch.seconds for batch in batches]),
    ):
        assert (spread.min, spread.mean, spread.max) == pytest.approx(
            (min(values), statistics.mean(values), max(values))
        )
    by_row = collections.defaultdict(list)
    for example in examples:
        by_row[example.task, example.corpus, example.split].append(example)
    weights = [row[3] if weighted else len(queue.sample) for row, queue in zip(ROWS, stream.order.queues, strict=True)]
    for share, (task, corpus, splits, _), weight in zip(found.rows, ROWS, weights, strict=True):
        mine = by_row[task, corpus, splits[0]]
        assert (share.name, share.splits, share.examples) == (f"{task} of {corpus}", splits, len(mine))
        assert share.seconds == pytest.approx(sum(example.seconds for example in mine))
        assert share.tokens == sum(tokens(example.answers) for example in mine)
        assert share.intended == pytest.approx(weight / sum(weights))
        clips = WORLD[corpus, splits[0]]
        assert share.epochs == pytest.approx(len(mine) / sum(task in tasks for _, tasks in clips))
    for task in found.tasks:
        mine = [share for share in found.rows if share.name.startswith(f"{task.name} of")]
        for name in ("intended", "examples", "seconds", "tokens", "of_examples", "of_seconds", "of_tokens"):
            assert getattr(task, name) == pytest.approx(sum(getattr(share, name) for share in mine))
    assert sum(task.of_examples for task in found.tasks) == pytest.approx(1)


def shared(report: Report) -> dict[str, Any]:
    """What planning and dealing must agree on."""
    told = msgspec.to_builtins(report)
    return {name: value for name, value in told.items() if name not in ("dealing", "start_seconds", "plan_seconds")}


@settings(max_examples=8)
@given(options=options, weighted=st.booleans(), steps=st.integers(1, 30))
def test_the_plan_is_what_is_dealt(
    dataset: Dataset, recipes: dict[bool, Recipe], options: dict[str, Any], weighted: bool, steps: int
) -> None:
    dealt = deal_report(stream_of(dataset, recipes[weighted], epochs=2, **options), steps)
    planned = plan_report(stream_of(dataset, recipes[weighted], epochs=2, **options), steps=steps)
    assert shared(dealt) == shared(planned)
    assert planned.dealing is None
    cost = dealt.dealing
    assert cost.wall_seconds > 0 and cost.hours_per_second == pytest.approx(dealt.hours / cost.wall_seconds)
    assert cost.cpu_seconds_per_hour == pytest.approx(cost.cpu_seconds / dealt.hours)
    assert 0 <= cost.waited_seconds <= cost.wall_seconds
    assert cost.bytes_read >= cost.bytes_used > 0 and cost.read_over_used == cost.bytes_read / cost.bytes_used
    assert cost.skipped == 0


def test_damaged_samples_are_named_and_not_counted(
    make_dataset: Callable[..., Dataset], make_recipe: Callable[..., Recipe]
) -> None:
    own = make_dataset({source: WORLD[source] for source in WORLD if source[0] == "speech"})
    row = own.table("speech", "one").to_pylist()[7]
    place = Path(own.url) / row["shard"]
    content = bytearray(place.read_bytes())
    content[row["flac_offset"] + row["flac_bytes"] // 2] ^= 1
    place.write_bytes(content)
    recipe = make_recipe(*((*given[:3], None) for given in ROWS[:3]))
    found = deal_report(stream_of(own, recipe, epochs=1, skips=1.0), 99)
    whole = plan_report(stream_of(own, recipe))
    cost = found.dealing
    tasks = sum(row["key"] in named for named in cost.skipped_samples)
    assert cost.skipped == tasks == len(row["tasks"]) and whole.examples - found.examples == tasks
    missing = {share.name: share.examples - of.examples for share, of in zip(whole.tasks, found.tasks, strict=True)}
    assert missing == {task: int(task in row["tasks"]) for task in missing}
    assert found.hours * 3600 == pytest.approx(whole.hours * 3600 - tasks * min(row["seconds"], LONGEST))


# -- how far shares are off


@settings(max_examples=25)
@given(options=options, weighted=st.booleans(), epochs=st.integers(1, 4), pool=st.sampled_from([8, 16, 2048]))
def test_deviations_are_the_worst_of_all_prefixes_and_within_an_example_at_the_ends_of_pools(
    dataset: Dataset, recipes: dict[bool, Recipe], options: dict[str, Any], weighted: bool, epochs: int, pool: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "POOL", pool)
        stream = stream_of(dataset, recipes[weighted], **options)
        found = plan_report(stream, epochs=epochs).deviation
        order, sizes = stream.order, answer_tokens(dataset, stream.order)
        marks, dealt = [order.start], []
        while marks[-1].deal < epochs * order.examples:
            part = order.pool(marks[-1])
            for begin, end in itertools.pairwise(part.starts.tolist()):
                dealt.append([(q, i) for q, i in zip(part.queue[begin:end], part.item[begin:end], strict=True)])
            marks.append(part.next)
    ends = {mark.batch for mark in marks[1:]}
    served, worst, largest = np.zeros(len(order.queues)), collections.Counter(), 0.0
    share_of_task = collections.Counter()
    for task, share in zip(order.tasks, order.shares, strict=True):
        share_of_task[task] += share
    for number, batch in enumerate(dealt, 1):
        for queue, item in batch:
            of = order.queues[queue]
            amount = {
                "examples": 1.0,
                "seconds": min(of.seconds[item], LONGEST),
                "tokens": max(1, sizes[order.offsets[queue] + item]),
            }[options["unit"]]
            served[queue] += amount
            largest = max(largest, amount)
        for where in ["steps"] * (number % stream.micro_batches == 0) + ["pool_ends"] * (number in ends):
            for queue, task in enumerate(order.tasks):
                had = sum(served[other] for other, of in enumerate(order.tasks) if of == task)
                off = abs(had - served.sum() * share_of_task[task])
                worst[f"tasks_at_{where}"] = max(worst[f"tasks_at_{where}"], off)
                if number in ends:
                    turns = abs(served[queue] - had * order.shares[queue] / share_of_task[task])
                    worst["of_turns"] = max(worst["of_turns"], turns)
                off = abs(served[queue] - served.sum() * order.shares[queue])
                worst[f"rows_at_{where}"] = max(worst[f"rows_at_{where}"], off)
    told = msgspec.to_builtins(found)
    assert found.unit == options["unit"] and found.one_example == pytest.approx(largest)
    for name in ("tasks_at_steps", "rows_at_steps", "tasks_at_pool_ends", "rows_at_pool_ends"):
        assert told[name] == pytest.approx(worst[name], abs=1e-9)
    assert found.tasks_at_pool_ends <= largest + 1e-6
    # Of sizes a row's part of its task's turns is held; where examples count, its part of the whole.
    assert options["unit"] == "examples" or worst["of_turns"] <= largest + 1e-6
    assert found.rows_at_pool_ends <= (1 if options["unit"] == "examples" else 2) * largest + 1e-6


# -- how random the order is


def scatter_of(stream: Stream, epochs: int = 1) -> Scatter:
    scatter = Scatter(stream.order)
    count(planned(stream.order, epochs=epochs), scatter)
    return scatter


@settings(max_examples=10)
@given(options=options, weighted=st.booleans(), epochs=st.integers(1, 3))
def test_randomness_is_the_distance_of_neighbours_and_the_correlation_of_lengths(
    dataset: Dataset, recipes: dict[bool, Recipe], options: dict[str, Any], weighted: bool, epochs: int
) -> None:
    stream = stream_of(dataset, recipes[weighted], **options)
    found = scatter_of(stream, epochs).randomness
    order = stream.order
    places: dict[Any, dict[int, int]] = collections.defaultdict(dict)
    means = []
    for cycle in range(epochs):
        dealt = order.cycle(cycle)
        for queue, item, epoch in zip(dealt.queue.tolist(), dealt.item.tolist(), dealt.epoch.tolist(), strict=True):
            mine = places[queue, epoch]
            mine[item] = len(mine)
        for begin, end in itertools.pairwise(dealt.starts.tolist()):
            draws = zip(dealt.queue[begin:end], dealt.item[begin:end], strict=True)
            means.append(statistics.mean(min(order.queues[q].seconds[i], LONGEST) for q, i in draws))
    distances = [
        abs(mine[item + 1] - mine[item]) / ((len(mine) + 1) / 3)
        for (queue, _), mine in places.items()
        if len(mine) == len(order.queues[queue].sample)
        for item in range(len(mine) - 1)
    ]
    assert found.neighbours == (pytest.approx(statistics.mean(distances)) if distances else None)
    assert found.lengths == pytest.approx(statistics.correlation(means[:-1], means[1:]), abs=1e-9)


def test_a_wide_window_is_as_good_as_a_full_shuffle_and_a_narrow_one_is_not(
    make_index: Callable[..., Dataset], make_recipe: Callable[..., Recipe]
) -> None:
    dice = random.Random(0)
    index = make_index({("speech", "one"): [(dice.randrange(16000, 300_000), ONE) for _ in range(6000)]})
    recipe = make_recipe(("asr", "speech", ("one",), None))

    def randomness(window: int) -> Any:
        return scatter_of(Stream(index, recipe, window=window)).randomness

    # 2000 shards of three clips each.
    wide, narrow = randomness(2000), randomness(20)
    assert wide.neighbours == pytest.approx(1, abs=0.03)
    assert 0.3 < narrow.neighbours < 0.9, "two of three neighbours share a shard, and so a hundredth of the epoch"
    assert abs(wide.lengths) < 0.15 and abs(narrow.lengths) < 0.15


# -- the command


def salmonn(*arguments: object) -> str:
    """What the command prints, run within this process, which is quicker."""
    from salmonn.cli import app

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        app(list(map(str, arguments)), standalone_mode=False)
    return printed.getvalue()


RECIPE = """
title = "two rows"
[[instruct]]
task = "asr"
corpus = "librispeech"
splits = ["dev-clean"]
weight = 2.0
[[instruct]]
task = "gender_recognition"
corpus = "librispeech"
splits = ["dev-clean"]
weight = 1.0
"""


@pytest.fixture(scope="module")
def place(make_dataset: Callable[..., Dataset], tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A dataset and a recipe as a user has them."""
    recipe = tmp_path_factory.mktemp("recipe") / "small.toml"
    recipe.write_text(RECIPE)
    return make_dataset({("librispeech", "dev-clean"): WORLD["speech", "one"]}, 2).url, str(recipe)


def test_json_is_one_object_that_the_report_is_read_from_again(place: tuple[str, str], tmp_path: Path) -> None:
    dataset, recipe = place
    small = ("--max-seconds", 30, "--max-examples", 2, "--world-size", 2, "--seed", 3)
    command = ["stream", dataset, "--recipe", recipe, *small, "--steps", 5, "--threads", 1, "--json"]
    dealt = subprocess.run(
        [sys.executable, "-m", "salmonn.cli", *map(str, command)], capture_output=True, text=True, timeout=60
    )
    assert dealt.returncode == 0 and not dealt.stderr, dealt.stderr
    report = msgspec.json.decode(dealt.stdout, type=Report, strict=True)
    assert (report.steps, report.batches, report.examples, report.micro_batches) == (5, 10, 20, 2)
    assert report.dealing.bytes_used > 0
    assert [share.intended for share in report.rows] == pytest.approx([2 / 3, 1 / 3])
    cached = ("--rank", 1, "--cache", tmp_path / "cache", "--unit", "seconds", "--max-tokens", 500, "--window", 1)
    of_rank = salmonn("stream", dataset, "--recipe", recipe, *small, *cached, "--steps", 5, "--json")
    told = json.loads(of_rank)
    assert (told["rank"], told["world_size"], told["batches"], told["unit"]) == (1, 2, 5, "seconds")
    assert any((tmp_path / "cache").rglob("*"))


def test_a_plan_reads_no_audio(place: tuple[str, str], tmp_path: Path) -> None:
    import shutil

    dataset, recipe = place
    shutil.copytree(dataset, tmp_path / "bare", ignore=shutil.ignore_patterns("shards"))
    done = salmonn("stream", tmp_path / "bare", "--recipe", recipe, "--plan-only", "--epochs", 3, "--json")
    told = json.loads(done)
    assert told["examples"] == 3 * told["examples_per_epoch"] and told["dealing"] is None
    assert told["batches"] == pytest.approx(3 * told["batches_per_epoch"])
    with pytest.raises(Failed, match="is missing"):
        salmonn("stream", tmp_path / "bare", "--recipe", recipe, "--steps", 1)


def test_a_person_sees_the_same_numbers(place: tuple[str, str]) -> None:
    dataset, recipe = place
    done = salmonn("stream", dataset, "--recipe", recipe, "--steps", 9, "--max-examples", 2)
    found = plan_report(Stream(Dataset(dataset), load_recipe(recipe), max_examples=2), steps=9)
    for words in (
        "instruct of small, 9 steps, 9 batches",
        f"tasks off by at most {found.deviation.tasks_at_steps:.2f} examples; padding {found.padding:.1%}; "
        f"a batch has {found.batch_examples.mean:.1f} examples (1 to 2)",
        f"an epoch is {found.steps_per_epoch:.1f} steps, {found.examples_per_epoch} examples",
        "h per cpu-second",
        "times what was used",
    ):
        assert words in done, done
    for row in found.rows:
        shares = (row.intended, row.of_examples, row.of_seconds, row.of_tokens)
        line = [row.name, *(f"{share:.1%}" for share in shares), str(row.examples), f"{row.epochs:.2f}"]
        assert re.search(" +".join(map(re.escape, line)), done), done


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--steps", 0), "--steps is 0; it must be at least 1"),
        (("--plan-only", "--steps", -1), "--steps is -1"),
        (("--plan-only", "--epochs", 0), "--epochs is 0"),
        (("--epochs", 0), "--epochs is 0"),
        (("--rank", 2, "--world-size", 2), "rank 2 of 2"),
        (("--world-size", 0), "0 micro-batches"),
        (("--unit", "hours"), "shares cannot count 'hours'; they can count examples, seconds, tokens"),
        (("--window", 0), "the window is 0 shards"),
        (("--threads", 0), "threads 0"),
        (("--max-tokens", -5), "max_tokens is -5"),
        (("--stage", "pretrain"), "no stage 'pretrain'"),
    ],
)
def test_a_mistake_is_one_sentence(place: tuple[str, str], arguments: tuple[object, ...], words: str) -> None:
    from salmonn.cli import explain

    with pytest.raises(UserError) as raised:
        salmonn("stream", place[0], "--recipe", place[1], *arguments)
    code, sentence = explain(raised.value)
    assert code == 2 and words in sentence


@pytest.mark.slow
def test_planning_two_million_examples_takes_seconds(
    make_index: Callable[..., Dataset], make_recipe: Callable[..., Recipe]
) -> None:
    dice = np.random.default_rng(0)
    lengths = (np.clip(dice.normal(8, 4, 2_300_000), 1, 29) * 16000).astype(int).tolist()
    index = make_index({("speech", "one"): [(length, ONE) for length in lengths]})
    stream = Stream(index, make_recipe(("asr", "speech", ("one",), None)), max_seconds=240, max_examples=64)
    begin = time.process_time()
    report = plan_report(stream)
    assert report.examples == 2_300_000 and time.process_time() - begin < 20
