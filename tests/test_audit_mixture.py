"""The mixture and the batches that an audit tells are those that the recipe intends and the stream deals."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests import Recipe, files
from manifests.recipe import Row
from manifests.tables import write_table
from shards.audit import audit
from shards.audit.database import Database
from shards.audit.dry_run import RANDOM, padded_at_random
from shards.audit.sections import QUERIES, batching, mixture
from shards.audit.view import Settings, View
from shards.index import FORMAT, QUARANTINE, SCHEMA, Dataset, Manifest, Source, digest_of, proof, with_traits
from shards.report import plan_report
from shards.stream import Stream
from test_audit import Made, World, build

SIZES = {
    "asr": (90_000, 9.0),
    "audio_caption": (50_000, 12.0),
    "gender_recognition": (30_000, 4.0),
    "audio_qa": (20_000, 15.0),
    "emotion_recognition": (8_000, 5.0),
    "music_caption": (2_000, 10.0),
}
"""Examples of each task, 200,000 in all, and their mean seconds."""


def write_large(folder: Path) -> Dataset:
    """An index of 200,000 samples, one task each, whose other columns say one thing all the way down."""
    dice, sources = np.random.default_rng(0), []
    for task, (count, mean) in SIZES.items():
        seconds = np.clip(dice.gamma(6.0, mean / 6, count), 0.5, 40.0)
        each = pa.array(np.arange(count + 1, dtype=np.int32))
        words = pa.array([" ".join(["word"] * (1 + k)) for k in range(9)]).take(pa.array(dice.integers(0, 9, count)))
        columns = {
            "key": pa.array([f"{task}-{k}" for k in range(count)]),
            "corpus": pa.repeat(task, count),
            "split": pa.repeat("train", count),
            "shard": pa.array([f"shards/{task}/train-{k:06d}.tar" for k in (np.arange(count) // 300).tolist()]),
            "seconds": pa.array(seconds),
            "samples": pa.array((seconds * 16_000).astype(np.int64)),
            "tasks": pa.ListArray.from_arrays(each, pa.repeat(task, count)),
            "prompts": pa.ListArray.from_arrays(each, pa.repeat("Listen.", count)),
            "answers": pa.ListArray.from_arrays(each, pa.ListArray.from_arrays(each, words)),
        }
        for field in SCHEMA:
            if field.name not in columns:
                empty = {pa.string(): "", pa.binary(): b"", pa.bool_(): False}.get(field.type, 0)
                empty = [] if pa.types.is_list(field.type) else empty
                columns[field.name] = pa.repeat(pa.scalar(empty, field.type), count)
        table = pa.table([columns[field.name].cast(field.type) for field in SCHEMA], schema=SCHEMA)
        write_table(f"{folder}/index/{task}/train.parquet", with_traits(table))
        write_table(f"{folder}/quarantine/{task}/train.parquet", QUARANTINE.empty_table())
        sources.append(
            Source(
                corpus=task, split="train", tasks=(task,), found=count, packed=count, quarantined=0, excluded=0,
                reasons={}, skipped={}, seconds=float(seconds.sum()), license="", published_clips=count,
                index=proof(str(folder), f"index/{task}/train.parquet"),
                quarantine=proof(str(folder), f"quarantine/{task}/train.parquet"), shards=(),
            )
        )  # fmt: skip
    manifest = Manifest(
        format=FORMAT, recipe="large", title="", plan="", digest=digest_of([source.index for source in sources]),
        sources=tuple(sources), tools={},
    )  # fmt: skip
    files.write_whole(folder / "dataset.json", msgspec.json.encode(manifest))
    return Dataset(folder)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_large(tmp_path_factory.mktemp("large"))


def recipe_of(weights: dict[str, float] | None, temperature: float | None = None) -> Recipe:
    rows = tuple(
        Row(task=task, corpus=task, splits=("train",), weight=weights[task] if weights else None) for task in SIZES
    )
    powers = {} if temperature is None else {"instruct": temperature}
    return Recipe(title="Large", name="large", instruct=rows, temperature=powers)


def look(dataset: Dataset, recipe: Recipe, **changes: Any) -> tuple[mixture.Stage, ...]:
    """What the section of the mixture says, as an audit asks it."""
    settings = Settings(stages=recipe.stages, seed=5, max_seconds=240.0, max_examples=32, longest=30.0)
    settings = msgspec.structs.replace(settings, **changes)
    database = Database(dataset, recipe, recipe.stages, QUERIES)
    return mixture.look(
        View(dataset=dataset, recipe=recipe, stages=recipe.stages, settings=settings, database=database)
    )


WEIGHTS = dict(zip(SIZES, (5.0, 1.0, 0.7, 3.0, 0.2, 0.1), strict=True))


@pytest.mark.parametrize(("weights", "power"), [(WEIGHTS, None), (None, 0.3), (None, None)])
def test_of_200000_draws_each_task_has_its_share_within_three_sigma(
    large: Dataset, weights: dict[str, float] | None, power: float | None
) -> None:
    stages = look(large, recipe_of(weights, power))
    made = stages[0].mixture
    assert made is not None
    # What is intended, from the recipe and the sizes alone.
    of = {task: weights[task] if weights else size ** (power or 1.0) for task, (size, _) in SIZES.items()}
    intended = {task: amount / sum(of.values()) for task, amount in of.items()}
    assert made.draws == sum(row.draws for row in made.tasks) == 200_000
    assert {row.task for row in made.tasks} == set(SIZES)
    for row in made.tasks:
        expected = 200_000 * intended[row.task]
        sigma = math.sqrt(expected * (1 - intended[row.task]))
        assert row.expected == pytest.approx(expected, abs=1e-3)
        assert row.sigma == pytest.approx(sigma, abs=1e-3)
        assert row.realised == pytest.approx(row.draws / 200_000, abs=1e-9)
        assert abs(row.draws - expected) <= 3 * sigma
        # The plan promises more than chance would: an example at the ends of pools, the last of which ends the cycle.
        assert abs(row.draws - expected) <= 1 + 1e-6
    assert made.furthest <= 1 + 1e-6
    assert made.chi_square == pytest.approx(
        sum((row.draws - 200_000 * intended[row.task]) ** 2 / (200_000 * intended[row.task]) for row in made.tasks),
        abs=1e-6,
    )
    assert made.chi_square < made.freedom == len(SIZES) - 1 < made.chi_limit
    gates = {gate.name: gate for gate in mixture.gates(stages)}
    assert gates["realised"].verdict == "PASS"
    assert "within" in gates["realised"].sentence


def test_the_dry_run_says_what_the_stream_plans(large: Dataset) -> None:
    recipe = recipe_of(WEIGHTS)
    made = look(large, recipe)[0].mixture
    assert made is not None
    stream = Stream(large, recipe, stage="instruct", seed=5, max_seconds=240.0, max_examples=32)
    planned = plan_report(stream)
    assert made.draws == planned.examples
    assert made.hours == pytest.approx(planned.hours, abs=1e-6)
    assert made.batching.padding == pytest.approx(planned.padding, abs=1e-8)
    assert made.batching.batches == planned.batches
    assert (made.batching.examples.least, made.batching.examples.most) == (
        planned.batch_examples.min,
        planned.batch_examples.max,
    )
    assert made.batching.cut_hours == pytest.approx(planned.cut_seconds / 3600, abs=1e-6)
    assert made.tokens == sum(row.tokens for row in planned.rows)
    for share, row in zip(made.shares, planned.rows, strict=True):
        assert (share.tokens, share.draws) == (row.tokens, row.examples)
        assert share.hours == pytest.approx(row.seconds / 3600, abs=1e-6)
        assert share.by_tokens == pytest.approx(row.of_tokens, abs=1e-8)
        assert share.epochs == pytest.approx(row.epochs, abs=1e-8)
        assert share.never == pytest.approx(max(0.0, 1 - share.draws / share.examples), abs=1e-8)
    assert any(share.never for share in made.shares)
    steps = {line.gpus: line.steps for line in look(large, recipe, world_size=48)[0].mixture.batching.steps}  # type: ignore[union-attr]
    assert steps[48] == -(-planned.batches // 48)
    # Batches of like lengths cost less than those by chance, and these less than all at 30 s.
    eight, many = (line.padding for line in made.batching.by_chance)
    assert made.batching.padding < 0.05 < eight < many < made.batching.padding_longest
    assert made.batching.times_longest == pytest.approx(made.batching.hours_longest / made.batching.hours_padded)


def test_a_share_that_is_off_fails_and_one_by_chance_does_not(large: Dataset) -> None:
    [stage] = look(large, recipe_of(WEIGHTS))
    assert stage.mixture is not None
    row = stage.mixture.tasks[0]
    for sigmas, verdict in ((2.9, "PASS"), (3.1, "FAIL"), (-3.1, "FAIL")):
        moved = msgspec.structs.replace(row, draws=round(row.expected + sigmas * row.sigma))
        tasks = (moved, *stage.mixture.tasks[1:])
        changed = msgspec.structs.replace(stage, mixture=msgspec.structs.replace(stage.mixture, tasks=tasks))
        gate = next(gate for gate in mixture.gates((changed,)) if gate.name == "realised")
        assert gate.verdict == verdict
        assert row.task in gate.sentence


def test_much_padding_is_a_warning(large: Dataset) -> None:
    [stage] = look(large, recipe_of(None))
    assert stage.mixture is not None
    found = stage.mixture.batching
    assert batching.padding([("instruct", found)]).verdict == "PASS"
    much = msgspec.structs.replace(found, padding=0.11)
    gate = batching.padding([("instruct", much)])
    assert gate.verdict == "WARN"
    assert "11.0% of the audio in batches of instruct is padding" in gate.sentence
    few = msgspec.structs.replace(much, batches=99)
    assert batching.padding([("instruct", few)]).verdict == "PASS"


@given(st.lists(st.floats(0.1, 30), min_size=1, max_size=80), st.sampled_from(RANDOM))
def test_batches_by_chance_are_filled_to_their_longest(seconds: list[float], size: int) -> None:
    columns = len(seconds) // size
    batches = [seconds[column : columns * size : columns] for column in range(columns)]
    batches.append(seconds[columns * size :])
    assert all(len(batch) == size for batch in batches[:-1])
    assert sorted(one for batch in batches for one in batch) == sorted(seconds)
    expected = sum(max(batch, default=0.0) * len(batch) for batch in batches)
    assert padded_at_random(np.array(seconds), size) == pytest.approx(expected)


@pytest.mark.parametrize(("freedom", "limit"), [(1, 10.828), (5, 20.515), (10, 29.588), (16, 39.252)])
def test_chi_square_exceeds_its_limit_once_in_a_thousand(freedom: int, limit: float) -> None:
    # Critical values at 0.001 as tables of statistics have them; the approximation is worst at one degree of freedom.
    assert mixture.chi_limit(freedom) == pytest.approx(limit, rel=0.035)
    assert mixture.chi_limit(0) == 0


def test_rows_that_leave_out_lengths_or_languages_are_dealt_as_the_stream_does(tmp_path: Path) -> None:
    clips = [
        Made(
            name=f"c{n}", seconds=0.1 * (1 + n % 5), asked=[("asr", "Write.", ["one two three"[: 3 + n]])] * (1 + n % 2)
        )
        for n in range(20)
    ]
    dataset = build(tmp_path, World(clips={("librispeech", "dev-clean"): clips}))
    row = Row(task="asr", corpus="librispeech", splits=("dev-clean",), min_seconds=0.15, max_seconds=0.4, language="en")
    recipe = Recipe(title="t", name="t", instruct=(row,))
    [stage] = audit(dataset, recipe, max_examples=4).mixture
    assert stage.mixture is not None
    dealt = [
        example
        for batch in Stream(dataset, recipe, stage="instruct", max_seconds=120.0, max_examples=4, epochs=1)
        for example in batch.examples
    ]
    assert stage.mixture.draws == len(dealt) == sum(1 + n % 2 for n in range(20) if 1 <= n % 5 <= 3)
    assert stage.mixture.tokens == sum(-(-len(example.answer.encode()) // 3) for example in dealt)
    assert stage.mixture.hours == pytest.approx(sum(example.seconds for example in dealt) / 3600, abs=1e-8)


def test_batches_are_as_full_as_the_stream_fills_them(tmp_path: Path) -> None:
    clips = [Made(name=f"c{n}", seconds=0.05 + 0.4 * (n % 9), asked=[("asr", "Write.", ["word"])]) for n in range(50)]
    dataset = build(tmp_path, World(clips={("librispeech", "dev-clean"): clips}))
    recipe = Recipe(title="t", name="t", instruct=(Row(task="asr", corpus="librispeech", splits=("dev-clean",)),))
    made = look(dataset, recipe, seed=0, max_seconds=30.0)[0].mixture
    assert made is not None
    stream = Stream(dataset, recipe, stage="instruct", max_seconds=30.0, max_examples=32, epochs=1)
    sizes = sorted(len(batch.examples) for batch in stream)
    found = made.batching.examples
    assert (found.least, found.most) == (sizes[0], sizes[-1])
    assert found.median == statistics.median_low(sizes)
    assert found.low == sizes[math.ceil(0.05 * len(sizes)) - 1]
    assert found.high == sizes[math.ceil(0.95 * len(sizes)) - 1]
    assert made.batching.batches == len(sizes)
    assert Counter(sizes).total() * made.batching.mean_examples == pytest.approx(50)
