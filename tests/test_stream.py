"""The stream: its steps depend on index, recipe and seed alone, whoever reads them, however often it stops."""

from __future__ import annotations

import collections
import gc
import io
import itertools
import json
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests import TASKS, Recipe, UserError, files
from shards import Batch, Dataset, Example, Stream
from shards.stream import Damaged

ASR, GENDER, CAPTION = ("asr",), ("asr", "gender_recognition"), ("audio_caption",)


def lengths(count: int, seed: int) -> list[int]:
    """Samples of audio, 0.02 to 0.3 s."""
    return [random.Random(f"{seed} {number}").randrange(320, 4800) for number in range(count)]


WORLD = {
    ("speech", "one"): [(samples, GENDER if number % 3 else ASR) for number, samples in enumerate(lengths(14, 0))],
    ("speech", "two"): [(samples, ("phone_recognition", "asr")) for samples in lengths(7, 1)],
    ("sound", "one"): [(samples, CAPTION) for samples in lengths(9, 2)],
}
PLAIN = (
    ("asr", "speech", ("one", "two"), None),
    ("gender_recognition", "speech", ("one",), None),
    ("audio_caption", "sound", ("one",), None),
)
WEIGHTED = (
    ("asr", "speech", ("one", "two"), 1.0),
    ("gender_recognition", "speech", ("one",), 0.3),
    ("audio_caption", "sound", ("one",), 2.0),
)
EXAMPLES = 21 + 9 + 9


@pytest.fixture(scope="module")
def dataset(make_dataset: Callable[..., Dataset]) -> Dataset:
    return make_dataset(WORLD, shards=2)


@pytest.fixture(scope="module")
def recipes(make_recipe: Callable[..., Recipe]) -> dict[bool, Recipe]:
    """By whether it has weights."""
    return {False: make_recipe(*PLAIN), True: make_recipe(*WEIGHTED)}


@pytest.fixture
def own(make_dataset: Callable[..., Dataset]) -> Dataset:
    """A dataset of one's own, to damage."""
    return make_dataset({("speech", "one"): [(samples, ASR) for samples in lengths(5, 3)]})


def stream_of(dataset: Dataset, recipe: Recipe, **options: Any) -> Stream:
    return Stream(dataset, recipe, **({"max_seconds": 0.6, "max_examples": 4, "longest": 0.3, "threads": 1} | options))


def told(example: Example) -> tuple[Any, ...]:
    """What is to be equal of two examples that are the same."""
    return (
        example.key,
        example.task,
        example.prompt,
        example.answer,
        example.answers,
        example.seconds,
        example.cut,
        example.audio.tobytes(),
    )


def content(batch: Batch) -> tuple[Any, ...]:
    return (batch.step, batch.micro, *map(told, batch.examples))


def deal(stream: Stream, batches: int | None = None) -> list[tuple[Any, ...]]:
    """The next batches of a stream, or all that are left."""
    return [content(batch) for batch in itertools.islice(stream, batches)]


def examples(stream: Stream) -> Iterator[Example]:
    for batch in stream:
        yield from batch.examples


options = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**40),
        "max_seconds": st.sampled_from([0.3, 0.5, 1.0, 60.0]),
        "max_examples": st.integers(1, 6),
        "longest": st.sampled_from([0.05, 0.15, 0.3]),
        "prompts": st.sampled_from(["drawn", "stored"]),
    }
)


# -- what is dealt


@settings(max_examples=15)
@given(options=options, epochs=st.integers(1, 3), threads=st.integers(1, 4))
def test_without_weights_every_epoch_deals_every_example_exactly_once(
    dataset: Dataset, recipes: dict[bool, Recipe], options: dict[str, Any], epochs: int, threads: int
) -> None:
    dealt = [
        (one.key, one.task)
        for one in examples(stream_of(dataset, recipes[False], epochs=epochs, threads=threads, **options))
    ]
    expected = [
        (row["key"], task)
        for source in dataset.manifest.sources
        for row in dataset.table(source.corpus, source.split, ["key", "tasks"]).to_pylist()
        for task in row["tasks"]
        if task != "phone_recognition"
    ]
    assert len(expected) == EXAMPLES
    for epoch in range(epochs):
        assert sorted(dealt[epoch * EXAMPLES : (epoch + 1) * EXAMPLES]) == sorted(expected)


@settings(max_examples=15)
@given(options=options, weighted=st.booleans())
def test_no_batch_exceeds_its_budget_and_none_is_empty(
    dataset: Dataset, recipes: dict[bool, Recipe], options: dict[str, Any], weighted: bool
) -> None:
    for batch in itertools.islice(stream_of(dataset, recipes[weighted], **options), 30):
        assert 1 <= len(batch.examples) <= options["max_examples"]
        longest = max(example.seconds for example in batch.examples)
        assert longest * len(batch.examples) <= options["max_seconds"] + 1e-9
        assert longest <= options["longest"]
        assert batch.seconds == pytest.approx(sum(len(example.audio) for example in batch.examples) / 16000)
        assert batch.padding == pytest.approx(1 - batch.seconds / (longest * len(batch.examples)))


def test_an_example_is_the_sample_of_the_index(dataset: Dataset, recipes: dict[bool, Recipe]) -> None:
    import soundfile

    for example in examples(stream_of(dataset, recipes[False], epochs=1)):
        row = dataset.row(example.key)
        assert (example.id, example.corpus, example.split) == (row["id"], row["corpus"], row["split"])
        shard = files.join(dataset.url, row["shard"])
        with open(shard, "rb") as file:
            file.seek(row["flac_offset"])
            pcm, _ = soundfile.read(io.BytesIO(file.read(row["flac_bytes"])), dtype="float32")
        assert example.audio.dtype == np.float32
        assert np.array_equal(example.audio, pcm)
        assert (example.seconds, example.cut) == (row["seconds"], 0)
        place = row["tasks"].index(example.task)
        assert list(example.answers) == row["answers"][place]
        assert example.answer in example.answers
        assert example.prompt in TASKS[example.task].prompts


def test_stored_prompts_are_those_of_the_shard(dataset: Dataset, recipes: dict[bool, Recipe]) -> None:
    for example in examples(stream_of(dataset, recipes[False], epochs=2, prompts="stored")):
        assert example.prompt == f"Stored prompt of {example.task}."


def test_prompts_and_answers_are_drawn_anew_each_epoch(dataset: Dataset, recipes: dict[bool, Recipe]) -> None:
    seen = collections.defaultdict(list)
    for example in examples(stream_of(dataset, recipes[False], epochs=6)):
        seen[example.key, example.task].append((example.prompt, example.answer))
    prompts = [{prompt for prompt, _ in pairs} for pairs in seen.values()]
    answers = [{answer for _, answer in pairs} for pairs in seen.values()]
    assert sum(map(len, prompts)) / len(prompts) > 4, "six draws of twelve give 4.9 different ones on average"
    assert sum(len(found) == 2 for found in answers) > 0.8 * len(answers)


def test_weights_set_the_shares_of_a_long_run(dataset: Dataset, recipes: dict[bool, Recipe]) -> None:
    counts = collections.Counter(example.task for example in examples(stream_of(dataset, recipes[True], epochs=5)))
    total = sum(counts.values())
    for task, weight in [("asr", 1.0), ("gender_recognition", 0.3), ("audio_caption", 2.0)]:
        assert abs(counts[task] - total * weight / 3.3) <= 1 + 3 / 2


def test_what_is_cut_off_is_counted(dataset: Dataset, recipes: dict[bool, Recipe]) -> None:
    for example in examples(stream_of(dataset, recipes[False], epochs=1, longest=0.1)):
        whole = dataset.row(example.key)["seconds"]
        assert example.seconds == min(whole, 0.1)
        assert len(example.audio) == round(example.seconds * 16000)
        assert example.cut == pytest.approx(max(0, whole - 0.1))


def test_an_evaluation_is_every_example_once_with_all_its_answers(
    dataset: Dataset, make_recipe: Callable[..., Recipe]
) -> None:
    recipe = make_recipe(("asr", "speech", ("two",), None), stage="evaluate")
    dealt = list(examples(stream_of(dataset, recipe, stage="evaluate", epochs=1, prompts="stored")))
    assert sorted(example.key for example in dealt) == sorted(
        dataset.table("speech", "two", ["key"])["key"].to_pylist()
    )
    assert all(len(example.answers) == 2 for example in dealt)
    with pytest.raises(UserError, match="no stage 'instruct'; it has evaluate"):
        stream_of(dataset, recipe)


# -- who deals it


@settings(max_examples=12)
@given(
    options=options,
    weighted=st.booleans(),
    micro_batches=st.sampled_from([1, 2, 3, 4, 6]),
    epochs=st.sampled_from([None, 1, 2]),
)
def test_any_number_of_ranks_sees_together_exactly_the_steps_of_one(
    dataset: Dataset,
    recipes: dict[bool, Recipe],
    options: dict[str, Any],
    weighted: bool,
    micro_batches: int,
    epochs: int | None,
) -> None:
    def steps(world_size: int) -> list[tuple[Any, ...]]:
        batches: list[tuple[Any, ...]] = []
        per_rank = []
        for rank in range(world_size):
            of = stream_of(
                dataset,
                recipes[weighted],
                rank=rank,
                world_size=world_size,
                micro_batches=micro_batches,
                epochs=epochs,
                **options,
            )
            mine = deal(of, None if epochs else 5 * micro_batches // world_size)
            assert all(batch[1] % world_size == rank for batch in mine)
            per_rank.append(len(mine))
            batches += mine
        assert len(set(per_rank)) == 1, "every rank has as many batches, or training would hang"
        return sorted(batches, key=lambda batch: batch[:2])

    alone = steps(1)
    assert [batch[:2] for batch in alone] == [(n // micro_batches, n % micro_batches) for n in range(len(alone))]
    for world_size in (2, 3, 4):
        if micro_batches % world_size == 0:
            assert steps(world_size) == alone


@settings(max_examples=8)
@given(options=options, threads=st.integers(2, 7), weighted=st.booleans())
def test_threads_change_nothing(
    dataset: Dataset, recipes: dict[bool, Recipe], options: dict[str, Any], threads: int, weighted: bool
) -> None:
    one, many = (stream_of(dataset, recipes[weighted], threads=number, **options) for number in (1, threads))
    assert deal(one, 15) == deal(many, 15)


def test_the_number_of_shards_changes_nothing_but_where_samples_lie(
    make_dataset: Callable[..., Dataset], make_recipe: Callable[..., Recipe]
) -> None:
    clips = {("sound", "one"): WORLD["sound", "one"]}
    recipe = make_recipe(PLAIN[2])
    one, other = (
        {
            told(example)[0]: example.audio.tobytes()
            for example in examples(stream_of(make_dataset(clips, shards=n), recipe, epochs=1))
        }
        for n in (1, 3)
    )
    assert one == other


def test_more_ranks_than_examples_is_no_deadlock(
    make_dataset: Callable[..., Dataset], make_recipe: Callable[..., Recipe]
) -> None:
    dataset = make_dataset({("speech", "one"): [(900, ASR)]})
    recipe = make_recipe(("asr", "speech", ("one",), None))
    dealt = [deal(stream_of(dataset, recipe, rank=rank, world_size=4, epochs=1)) for rank in range(4)]
    assert [len(batches) for batches in dealt] == [1, 1, 1, 1]
    assert [len(batches[0]) - 2 for batches in dealt] == [1, 0, 0, 0]
    # without an end, the one example comes round to every rank
    endless = [deal(stream_of(dataset, recipe, rank=rank, world_size=4), 2) for rank in range(4)]
    assert all(len(batch) == 3 for batches in endless for batch in batches)


# -- stopping and going on


@settings(max_examples=12)
@given(
    options=options,
    weighted=st.booleans(),
    micro_batches=st.sampled_from([1, 2, 4]),
    stops=st.lists(st.tuples(st.integers(1, 9), st.sampled_from([1, 2, 4]), st.integers(1, 3)), min_size=1, max_size=5),
)
def test_stopped_any_number_of_times_on_any_number_of_ranks_it_deals_as_if_never_stopped(
    dataset: Dataset,
    recipes: dict[bool, Recipe],
    options: dict[str, Any],
    weighted: bool,
    micro_batches: int,
    stops: list[tuple[int, int, int]],
) -> None:
    def make(rank: int, world_size: int, threads: int) -> Stream:
        return stream_of(
            dataset,
            recipes[weighted],
            rank=rank,
            world_size=world_size,
            micro_batches=micro_batches,
            threads=threads,
            **options,
        )

    steps = sum(count for count, _, _ in stops)
    undisturbed = deal(make(0, 1, 1), steps * micro_batches)
    resumed: list[tuple[Any, ...]] = []
    state = ""
    for number, (count, world_size, threads) in enumerate(stops):
        world_size = world_size if micro_batches % world_size == 0 else 1
        states = []
        for rank in range(world_size):
            stream = make(rank, world_size, threads)
            if state:
                stream.load_state_dict(json.loads(state))
            resumed += deal(stream, count * micro_batches // world_size)
            states.append(json.dumps(stream.state_dict()))
        # the state of any rank serves every rank of the next run
        state = states[number % world_size]
    assert sorted(resumed, key=lambda batch: batch[:2]) == undisturbed


@settings(max_examples=8)
@given(options=options, stop=st.integers(1, 12))
def test_a_finite_run_that_stopped_ends_where_it_would_have_ended(
    dataset: Dataset, recipes: dict[bool, Recipe], options: dict[str, Any], stop: int
) -> None:
    undisturbed = deal(stream_of(dataset, recipes[False], epochs=2, **options))
    first = stream_of(dataset, recipes[False], epochs=2, **options)
    begun = deal(first, stop)
    second = stream_of(dataset, recipes[False], epochs=2, **options)
    second.load_state_dict(first.state_dict())
    assert begun + deal(second) == undisturbed
    assert deal(second) == []


@pytest.mark.parametrize("micro_batches", [1, 2, 3])
def test_iterating_again_goes_on_where_it_stopped_also_within_a_step(
    dataset: Dataset, recipes: dict[bool, Recipe], micro_batches: int
) -> None:
    undisturbed = deal(stream_of(dataset, recipes[False], micro_batches=micro_batches), 24)
    stream = stream_of(dataset, recipes[False], micro_batches=micro_batches)
    assert [batch for _ in range(24) for batch in deal(stream, 1)] == undisturbed


@pytest.mark.parametrize("micro_batches", [2, 3, 4, 5])
def test_a_state_taken_within_a_step_loses_no_example(
    dataset: Dataset, recipes: dict[bool, Recipe], micro_batches: int
) -> None:
    # Whether the broken step is dealt anew or gone on with: all its examples are dealt, in their order. Two cycles
    # meet within some of these steps.
    undisturbed = deal(stream_of(dataset, recipes[False], micro_batches=micro_batches), 48)
    first = stream_of(dataset, recipes[False], micro_batches=micro_batches)
    for stop, _batch in enumerate(itertools.islice(first, 40), start=1):
        second = stream_of(dataset, recipes[False], micro_batches=micro_batches)
        second.load_state_dict(first.state_dict())
        begun = stop // micro_batches * micro_batches
        assert deal(second, 6) in (undisturbed[stop : stop + 6], undisturbed[begun : begun + 6]), f"after batch {stop}"


def test_resuming_reads_nothing_of_what_was_dealt(dataset: Dataset, recipes: dict[bool, Recipe]) -> None:
    stream = stream_of(dataset, recipes[True])
    far = stream.state_dict() | {"step": 40}
    stream.load_state_dict(far)
    assert deal(stream, 3) == deal(stream_of(dataset, recipes[True]), 43)[40:]


def test_a_state_is_small_and_json(dataset: Dataset, recipes: dict[bool, Recipe]) -> None:
    stream = stream_of(dataset, recipes[True])
    deal(stream, 20)
    state = stream.state_dict()
    assert json.loads(json.dumps(state)) == state
    assert len(json.dumps(state)) < 800
    assert state["step"] == 20


def test_loading_a_state_that_was_just_taken_changes_nothing(dataset: Dataset, recipes: dict[bool, Recipe]) -> None:
    stream = stream_of(dataset, recipes[True])
    deal(stream, 7)
    before = stream.state_dict()
    stream.load_state_dict(before)
    assert stream.state_dict() == before


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("seed", {"seed": 1}),
        ("micro_batches", {"micro_batches": 2}),
        ("prompts", {"prompts": "stored"}),
        ("budget", {"max_seconds": 0.7}),
        ("budget", {"max_examples": 5}),
        ("budget", {"longest": 0.2}),
    ],
)
def test_another_setting_is_refused_by_its_name(
    dataset: Dataset, recipes: dict[bool, Recipe], name: str, options: dict[str, Any]
) -> None:
    state = stream_of(dataset, recipes[False]).state_dict()
    with pytest.raises(UserError, match=rf"cannot resume: {name} was .*, now it is .*; restore it, or start .* anew"):
        stream_of(dataset, recipes[False], **options).load_state_dict(state)


def test_another_recipe_stage_or_dataset_is_refused_by_its_name(
    dataset: Dataset,
    recipes: dict[bool, Recipe],
    make_dataset: Callable[..., Dataset],
    make_recipe: Callable[..., Recipe],
) -> None:
    state = stream_of(dataset, recipes[False]).state_dict()
    changed = WORLD | {("sound", "one"): [*WORLD["sound", "one"][:-1], (4801, CAPTION)]}
    others = {
        "recipe": stream_of(dataset, recipes[True]),
        "stage": stream_of(dataset, make_recipe(*PLAIN, stage="pretrain"), stage="pretrain"),
        "dataset": stream_of(make_dataset(changed), recipes[False]),
    }
    for name, other in others.items():
        with pytest.raises(UserError, match=rf"cannot resume: {name} was "):
            other.load_state_dict(state)


def test_the_same_content_in_another_folder_is_the_same_dataset(
    dataset: Dataset, recipes: dict[bool, Recipe], make_dataset: Callable[..., Dataset]
) -> None:
    stream = stream_of(dataset, recipes[False])
    undisturbed = deal(stream_of(dataset, recipes[False]), 8)
    deal(stream, 4)
    moved = stream_of(make_dataset(WORLD, shards=2), recipes[False])
    moved.load_state_dict(stream.state_dict())
    assert deal(moved, 4) == undisturbed[4:]


@pytest.mark.parametrize("change", [{"extra": 1}, {"step": None}])
def test_what_is_no_state_is_refused(dataset: Dataset, recipes: dict[bool, Recipe], change: dict[str, Any]) -> None:
    state = {
        key: value
        for key, value in (stream_of(dataset, recipes[False]).state_dict() | change).items()
        if value is not None
    }
    with pytest.raises(UserError, match=rf"not the state of a stream: {next(iter(change))}"):
        stream_of(dataset, recipes[False]).load_state_dict(state)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"rank": 2, "world_size": 2}, "rank 2 of 2"),
        ({"rank": -1}, "rank -1 of 1"),
        ({"world_size": 2, "micro_batches": 3}, "cannot share 3 micro-batches a step"),
        ({"micro_batches": 0}, "cannot share 0 micro-batches"),
        ({"max_seconds": 0.2}, r"max_seconds is 0\.2, but a clip may be 0\.3 s long"),
        ({"max_examples": 0}, "max_examples is 0"),
        ({"threads": 0}, "threads 0"),
        ({"longest": 0.0}, r"longest 0\.0"),
        ({"prompts": "none"}, "prompts is 'none'; it can be 'drawn' or 'stored'"),
        ({"stage": "instrukt"}, "no stage 'instrukt'; it has instruct"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_at_once(
    dataset: Dataset, recipes: dict[bool, Recipe], options: dict[str, Any], match: str
) -> None:
    with pytest.raises(UserError, match=match):
        stream_of(dataset, recipes[False], **options)


# -- damage


def damage(dataset: Dataset, place: str, byte: int) -> str:
    """Flip a bit in the content of a member of the third sample, and return its key."""
    row = dataset.table("speech", "one").to_pylist()[2]
    shard = Path(dataset.url, row["shard"])
    hurt = bytearray(shard.read_bytes())
    hurt[row[f"{place}_offset"] + byte % row[f"{place}_bytes"]] ^= 2
    shard.write_bytes(hurt)
    return str(row["key"])


def all_of(dataset: Dataset, make_recipe: Callable[..., Recipe]) -> list[tuple[Any, ...]]:
    return deal(stream_of(dataset, make_recipe(("asr", "speech", ("one",), None)), epochs=1, skips=0))


@pytest.mark.parametrize(
    ("place", "byte"), [("flac", 0), ("flac", 20), ("flac", 30), ("flac", 150), ("json", 0), ("json", -1)]
)
def test_a_damaged_sample_stops_the_stream_with_its_shard_and_key(
    own: Dataset, make_recipe: Callable[..., Recipe], place: str, byte: int
) -> None:
    key = damage(own, place, byte)
    with pytest.raises(Damaged, match=rf"shards/speech/one-000000\.tar: sample '{key}'"):
        all_of(own, make_recipe)


def test_no_changed_letter_of_an_answer_is_learnt(own: Dataset, make_recipe: Callable[..., Recipe]) -> None:
    row = own.table("speech", "one").to_pylist()[2]
    text = files.read_range(files.join(own.url, row["shard"]), row["json_offset"], row["json_bytes"])
    key = damage(own, "json", text.index(b" one") + 1)
    with pytest.raises(Damaged, match=rf"sample '{key}'"):
        all_of(own, make_recipe)


def test_a_shard_that_was_cut_is_told_by_its_name(own: Dataset, make_recipe: Callable[..., Recipe]) -> None:
    row = own.table("speech", "one").to_pylist()[-1]
    shard = Path(own.url, row["shard"])
    shard.write_bytes(shard.read_bytes()[: row["json_offset"] + 3])
    with pytest.raises(Damaged, match=rf"one-000000\.tar: sample '{row['key']}'"):
        all_of(own, make_recipe)


def test_a_shard_that_is_gone_is_told_by_its_name(own: Dataset, make_recipe: Callable[..., Recipe]) -> None:
    Path(own.url, "shards/speech/one-000000.tar").unlink()
    with pytest.raises((Damaged, UserError), match=r"one-000000\.tar"):
        all_of(own, make_recipe)


def test_a_stream_that_was_left_in_the_middle_leaves_no_thread(dataset: Dataset, recipes: dict[bool, Recipe]) -> None:
    before = threading.active_count()
    for _ in range(3):
        for _batch in stream_of(dataset, recipes[False], threads=4):
            break
    gc.collect()
    assert threading.active_count() == before


# -- the dataset itself


def test_what_is_no_dataset_is_told_with_what_makes_one(tmp_path: Path, own: Dataset) -> None:
    with pytest.raises(UserError, match=r"no dataset in .*; salmonn build makes one"):
        Dataset(tmp_path)
    files.write_whole(tmp_path / "build" / "plan.json", b"{}")
    with pytest.raises(UserError, match="its build has not finished, run it again"):
        Dataset(tmp_path)
    for content in (b"", b"{}", b"[1]", b"\xff", Path(own.url, "dataset.json").read_bytes()[:-20]):
        files.write_whole(tmp_path / "dataset.json", content)
        with pytest.raises(UserError, match=r"dataset\.json is not a dataset of this version"):
            Dataset(tmp_path)
    files.write_whole(
        tmp_path / "dataset.json", Path(own.url, "dataset.json").read_bytes().replace(b"dataset-5", b"dataset-9")
    )
    with pytest.raises(UserError, match=r"has the format 'salmonn-dataset-9', this version reads 'salmonn-dataset-5'"):
        Dataset(tmp_path)


def test_a_key_that_is_not_there_names_the_nearest(own: Dataset) -> None:
    assert own.row("speech_one-3")["id"] == "speech/one-3"
    with pytest.raises(UserError, match=r"no sample 'speech_one-33'; did you mean 'speech_one-3'\?"):
        own.row("speech_one-33")
    with pytest.raises(UserError, match=r"no sample 'xyz'; its first is 'speech_one-0'"):
        own.row("xyz")


def test_a_dataset_in_any_storage_streams_the_same(own: Dataset, make_recipe: Callable[..., Recipe]) -> None:
    url = "memory://streamed"
    for path in files.walk(own.url):
        files.write_whole(files.join(url, path), files.read_bytes(files.join(own.url, path)))
    assert (
        all_of(Dataset(url), make_recipe)
        == all_of(Dataset(f"file://{own.url}"), make_recipe)
        == all_of(own, make_recipe)
    )


# -- damage within a budget


def test_a_few_damaged_samples_are_left_out_counted_and_named(own: Dataset, make_recipe: Callable[..., Recipe]) -> None:
    recipe = make_recipe(("asr", "speech", ("one",), None))
    whole = [
        key for batch in deal(stream_of(own, recipe, epochs=1)) for key in str(batch).split("'") if "speech_" in key
    ]
    key = damage(own, "flac", 150)
    stream = stream_of(own, recipe, epochs=2, skips=0.001)
    dealt = [example.key for batch in stream for example in batch.examples]
    assert key not in dealt and set(dealt) == set(whole) - {key}
    state = stream.state_dict()["skipped"]
    assert state["count"] == 2 and all(key in named for named in state["named"])
    assert json.loads(json.dumps(state)) == state


def test_more_damage_than_the_budget_ends_the_stream(own: Dataset, make_recipe: Callable[..., Recipe]) -> None:
    damage(own, "flac", 150)
    stream = stream_of(own, make_recipe(("asr", "speech", ("one",), None)), epochs=50, skips=1e-6)
    with pytest.raises(Damaged, match=r"4 of [\d,]+ samples are damaged, the last: .*speech_one-2"):
        list(stream)


def test_memory_of_batches_is_used_again_and_never_under_a_batch_in_use(
    dataset: Dataset, recipes: dict[bool, Recipe]
) -> None:
    stream = stream_of(dataset, recipes[False], epochs=3, threads=3)
    kept = [(batch, batch.pcm.copy(), [example.pcm.copy() for example in batch.examples]) for batch in stream]
    for batch, pcm, examples in kept:
        assert np.array_equal(batch.pcm, pcm)
        assert all(np.array_equal(e.pcm, was) for e, was in zip(batch.examples, examples, strict=True))
        for row, (example, length) in enumerate(zip(batch.examples, batch.lengths.tolist(), strict=True)):
            assert len(example.pcm) == length
            assert np.array_equal(batch.pcm[row, :length], example.pcm) and not batch.pcm[row, length:].any()
            assert np.array_equal(example.audio, example.pcm.astype(np.float32) / 32768)
    del batch, pcm, examples, example, kept
    stream = stream_of(dataset, recipes[False], epochs=20)
    for _ in stream:
        pass
    gc.collect()
    assert len(stream.prepare().buffers.free) <= stream.ahead + 2


def test_a_cache_changes_nothing_and_fetches_each_shard_once(
    make_dataset: Callable[..., Dataset], recipes: dict[bool, Recipe], tmp_path: Path
) -> None:
    from shards.cache import Cache

    dataset = make_dataset(WORLD, shards=3)
    cache = Cache(str(tmp_path / "cache"), 2**30)
    expected = deal(stream_of(dataset, recipes[False], epochs=2))
    assert deal(stream_of(dataset, recipes[False], epochs=2, cache=cache)) == expected
    shards = {shard.sha256 for source in dataset.manifest.sources for shard in source.shards}
    assert cache.stats.fetched <= len(shards)
    # A copy that went bad is not believed, and the stream goes on from the store.
    for copy in (tmp_path / "cache").glob("*.tar"):
        hurt = bytearray(copy.read_bytes())
        hurt[len(hurt) // 3] ^= 1
        copy.write_bytes(hurt)
    assert deal(stream_of(dataset, recipes[False], epochs=2, cache=cache)) == expected
    cache.close()
