"""The other faces of a stream: webdataset and datasets hand on the same examples, in the same order."""

from __future__ import annotations

import copy
import itertools
import json
import pickle
import random
import subprocess
import sys
from collections.abc import Callable, Iterable
from typing import Any

import datasets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from manifests import Recipe, UserError
from shards import Dataset, Stream
from shards.faces import as_datasets, as_webdataset

DICE = random.Random("faces")
WORLD = {
    ("speech", "one"): [(DICE.randrange(320, 4800), ("asr", "gender_recognition")) for _ in range(17)],
    ("sound", "one"): [(DICE.randrange(320, 4800), ("audio_caption",)) for _ in range(13)],
}
FACTS = ("key", "id", "corpus", "split", "task", "prompt", "answer", "seconds", "cut")


@pytest.fixture(scope="module")
def make_stream(make_dataset: Callable[..., Dataset], make_recipe: Callable[..., Recipe]) -> Callable[..., Stream]:
    dataset = make_dataset(WORLD, shards=2)
    recipe = make_recipe(
        ("asr", "speech", ("one",), 1.0),
        ("gender_recognition", "speech", ("one",), 0.5),
        ("audio_caption", "sound", ("one",), 1.2),
    )
    small = {"max_seconds": 0.7, "max_examples": 3, "longest": 0.25, "threads": 2}
    return lambda **options: Stream(dataset, recipe, **(small | options))


Told = tuple[Any, ...]


def expected(stream: Stream, many: int | None = None) -> list[Told]:
    """The examples of a stream."""
    examples = (example for batch in stream for example in batch.examples)
    return [
        (*(getattr(one, name) for name in FACTS), one.answers, one.pcm.tobytes())
        for one in itertools.islice(examples, many)
    ]


def of_webdataset(samples: Iterable[dict[str, Any]], many: int | None = None) -> list[Told]:
    """The same of the samples of a webdataset pipeline."""
    found = []
    for sample in itertools.islice(samples, many):
        assert set(sample) == {"__key__", "wav", "json"}
        facts = sample["json"]
        assert sample["__key__"] == facts["key"] and facts["sample_rate"] == 16000
        assert set(facts) == {*FACTS, "answers", "sample_rate"} and json.loads(json.dumps(facts)) == facts
        assert sample["wav"].dtype == np.float32 and np.abs(sample["wav"]).max() <= 1
        pcm = (sample["wav"] * 32768).astype(np.int16)
        found.append((*(facts[name] for name in FACTS), tuple(facts["answers"]), pcm.tobytes()))
    return found


def of_datasets(rows: Iterable[dict[str, Any]], many: int | None = None) -> list[Told]:
    """The same of the rows of a datasets.IterableDataset."""
    return [(*(row[name] for name in FACTS), tuple(row["answers"]), row["pcm"]) for row in itertools.islice(rows, many)]


# -- webdataset


def test_a_pipeline_deals_the_stream(make_stream: Callable[..., Stream]) -> None:
    whole = expected(make_stream(epochs=2))
    pipeline = as_webdataset(make_stream(epochs=2))
    assert of_webdataset(pipeline) == whole
    assert of_webdataset(pipeline) == [], "it goes on where it stopped, as the stream does"


@settings(max_examples=8)
@given(stops=st.lists(st.integers(0, 9), max_size=4), seed=st.integers(0, 2**40))
def test_a_pipeline_goes_on_to_the_example(make_stream: Callable[..., Stream], stops: list[int], seed: int) -> None:
    pipeline = as_webdataset(make_stream(seed=seed, epochs=1))
    found = [sample for many in [*stops, None] for sample in of_webdataset(pipeline, many)]
    assert found == expected(make_stream(seed=seed, epochs=1))


def test_the_stages_of_webdataset_follow_it(make_stream: Callable[..., Stream]) -> None:
    whole = expected(make_stream(), 24)
    pipeline = as_webdataset(make_stream()).map(lambda sample: sample["json"]).with_epoch(8)
    passes = [[facts["key"] for facts in pipeline] for _ in range(3)]
    assert [key for one in passes for key in one] == [told[0] for told in whole]
    five = next(iter(as_webdataset(make_stream()).to_tuple("wav", "json").batched(5, collation_fn=None)))
    assert [facts["key"] for _, facts in five] == [told[0] for told in whole[:5]]
    keys = [sample["__key__"] for sample in as_webdataset(make_stream(epochs=1)).shuffle(10)]
    assert sorted(keys) == sorted(told[0] for told in expected(make_stream(epochs=1)))


def test_several_workers_are_refused_and_one_or_none_deals_the_stream(
    make_stream: Callable[..., Stream], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = [told[0] for told in expected(make_stream(epochs=1))]
    for workers in (0, 1):
        loader = DataLoader(as_webdataset(make_stream(epochs=1)), batch_size=None, num_workers=workers)
        assert [sample["__key__"] for sample in loader] == whole
    # What webdataset asks in a worker; torch takes 10 seconds to clear away workers that failed.
    monkeypatch.setenv("WORKER", "0")
    monkeypatch.setenv("NUM_WORKERS", "2")
    with pytest.raises(UserError, match="each of 2 workers would deal the whole stream"):
        next(iter(as_webdataset(make_stream(epochs=1))))


# -- datasets


def test_a_dataset_deals_the_stream_from_the_same_place_each_time(make_stream: Callable[..., Stream]) -> None:
    stream = make_stream(epochs=1)
    whole = expected(make_stream(epochs=1))
    rows = as_datasets(stream)
    assert isinstance(rows, datasets.IterableDataset)
    assert of_datasets(rows) == whole
    assert of_datasets(rows) == whole
    assert expected(stream) == whole, "the stream itself was not moved"
    # Two passes at the same time.
    assert [(a["key"], b["key"]) for a, b in zip(rows, rows.skip(2), strict=False)] == [
        (a[0], b[0]) for a, b in zip(whole, whole[2:], strict=False)
    ]


def test_a_dataset_of_a_moved_stream_goes_on_from_there(make_stream: Callable[..., Stream]) -> None:
    stream = make_stream(epochs=1)
    dealing = iter(stream)
    begun = sum(len(next(dealing).examples) for _ in range(3))
    rows = as_datasets(stream)
    rest = expected(make_stream(epochs=1))[begun:]
    assert of_datasets(rows) == rest == of_datasets(rows)


def test_the_schema_is_fixed_and_audio_is_int16(make_stream: Callable[..., Stream]) -> None:
    rows = as_datasets(make_stream())
    assert {name: str(kind.dtype) for name, kind in rows.features.items() if name != "answers"} == {
        **dict.fromkeys(("key", "id", "corpus", "split", "task", "prompt", "answer"), "string"),
        **{"seconds": "float64", "cut": "float64", "sample_rate": "int32", "pcm": "binary"},
    }
    assert rows.features["answers"].feature.dtype == "string"
    example = next(iter(next(iter(make_stream())).examples))
    row = next(iter(rows))
    assert np.array_equal(np.frombuffer(row["pcm"], "<i2"), example.pcm) and row["sample_rate"] == 16000
    longer = rows.map(lambda row: {"twice": 2 * row["seconds"]})
    assert next(iter(longer))["twice"] == 2 * row["seconds"]


@settings(max_examples=6)
@given(stop=st.integers(0, 30), again=st.integers(0, 12))
def test_a_dataset_resumes_from_its_own_state(make_stream: Callable[..., Stream], stop: int, again: int) -> None:
    whole = expected(make_stream(epochs=1))
    found, state = [], None
    for many in (stop, again, None):
        rows = as_datasets(make_stream(epochs=1))
        if state is not None:
            rows.load_state_dict(state)
        found += of_datasets(rows, many)
        state = json.loads(json.dumps(rows.state_dict()))
    assert found == whole


def test_a_loader_with_workers_deals_each_row_once(make_stream: Callable[..., Stream]) -> None:
    rows = as_datasets(make_stream(epochs=1))
    loader = DataLoader(rows, batch_size=None, num_workers=2)
    assert of_datasets(loader) == expected(make_stream(epochs=1))


def test_what_cannot_travel_says_so(make_stream: Callable[..., Stream]) -> None:
    from shards.faces import Rows

    for travel in (lambda rows: pickle.loads(pickle.dumps(rows)), copy.deepcopy):  # noqa: S301 - our own
        with pytest.raises(UserError, match="cannot be sent to another process"):
            travel(Rows(make_stream()))


def test_rows_are_named_by_what_they_hold(make_stream: Callable[..., Stream]) -> None:
    from datasets.fingerprint import Hasher

    from shards.faces import Rows

    stream = make_stream()
    assert Hasher.hash(Rows(stream)) == Hasher.hash(Rows(make_stream()))
    assert Hasher.hash(Rows(stream)) != Hasher.hash(Rows(make_stream(seed=1)))
    before = Hasher.hash(Rows(stream))
    next(iter(stream))
    assert Hasher.hash(Rows(stream)) != before


def test_importing_the_faces_brings_in_no_heavy_library() -> None:
    code = "import sys, shards.faces; print({'torch', 'webdataset', 'datasets'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "set()", done.stderr
