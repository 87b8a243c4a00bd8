"""The stream as a torch dataset: whichever loader, however many workers and ranks, together they see the stream."""

from __future__ import annotations

import itertools
import json
import pickle
import random
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

from manifests import Recipe, UserError
from salmonn.torch_data import Dealing, SalmonnIterable, stream_state
from shards import Dataset, Stream

DICE = random.Random("torch data")
WORLD = {
    ("speech", "one"): [(DICE.randrange(320, 4800), ("asr", "gender_recognition")) for _ in range(17)],
    ("sound", "one"): [(DICE.randrange(320, 4800), ("audio_caption",)) for _ in range(13)],
}
SMALL = {"max_seconds": 0.7, "max_examples": 3, "longest": 0.3, "threads": 1}


@pytest.fixture(scope="module")
def dataset(make_dataset: Callable[..., Dataset]) -> Dataset:
    return make_dataset(WORLD, shards=2)


@pytest.fixture(scope="module")
def recipe(make_recipe: Callable[..., Recipe]) -> Recipe:
    return make_recipe(
        ("asr", "speech", ("one",), 1.0),
        ("gender_recognition", "speech", ("one",), 0.5),
        ("audio_caption", "sound", ("one",), 1.2),
    )


Told = tuple[Any, ...]


def told(batch: dict[str, Any]) -> Told:
    """What is to be equal of two batches that are the same."""
    texts = (tuple(batch[name]) for name in ("keys", "tasks", "prompts", "answers"))
    return (batch["step"], batch["micro"], *texts, tuple(batch["lengths"].tolist()), batch["audio"].numpy().tobytes())


def dealt(batches: Iterable[dict[str, Any]], many: int | None = None) -> list[Told]:
    return [told(batch) for batch in itertools.islice(batches, many)]


def expected(dataset: Dataset, recipe: Recipe, many: int | None = None, **options: Any) -> list[Told]:
    """The batches of the stream itself."""
    return [
        (
            batch.step,
            batch.micro,
            tuple(example.key for example in batch.examples),
            tuple(example.task for example in batch.examples),
            tuple(example.prompt for example in batch.examples),
            tuple(example.answer for example in batch.examples),
            tuple(batch.lengths.tolist()),
            batch.audio.tobytes(),
        )
        for batch in itertools.islice(Stream(dataset, recipe, **(SMALL | options)), many)
    ]


def made(dataset: Dataset, recipe: Recipe, **options: Any) -> SalmonnIterable:
    return SalmonnIterable(dataset, recipe, **(SMALL | options))


def in_turn(of: SalmonnIterable, workers: int) -> Iterator[dict[str, Any]]:
    """What a DataLoader yields of workers: in turn, passing over those that have ended."""
    active = [Dealing(of, worker, workers) for worker in range(workers)]
    while active:
        for one in list(active):
            batch = next(one, None)
            if batch is None:
                active.remove(one)
            else:
                yield batch


# -- any number of ranks and workers


@settings(max_examples=10)
@given(
    world_size=st.integers(1, 3),
    times=st.integers(1, 3),
    workers=st.integers(1, 4),
    epochs=st.sampled_from([None, 1, 2]),
    seed=st.integers(0, 2**40),
    steps=st.sampled_from([0, 0, 1, 2, 5]),
)
def test_all_workers_of_a_rank_together_are_the_rank_in_its_order_from_any_step(
    dataset: Dataset,
    recipe: Recipe,
    world_size: int,
    times: int,
    workers: int,
    epochs: int | None,
    seed: int,
    steps: int,
) -> None:
    options = {"epochs": epochs, "seed": seed, "micro_batches": world_size * times}
    before = Stream(dataset, recipe, **(SMALL | options))
    for _ in itertools.islice(before, steps * world_size * times):
        pass
    state = before.state_dict()
    assert state["step"] <= steps
    for rank in range(world_size):
        part = options | {"rank": rank, "world_size": world_size}
        whole = expected(dataset, recipe, None if epochs else 30, **part)
        rest = whole[state["step"] * times :]
        many = None if epochs else len(rest)
        assert dealt(in_turn(made(dataset, recipe, state=state, **part), workers), many) == rest


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("loader", [DataLoader, StatefulDataLoader])
def test_a_loader_yields_the_stream(dataset: Dataset, recipe: Recipe, loader: Any, workers: int) -> None:
    of = made(dataset, recipe, epochs=2)
    whole = expected(dataset, recipe, epochs=2)
    found = loader(of, batch_size=None, num_workers=workers)
    assert dealt(found) == whole
    assert dealt(found) == whole, "an iteration begins where the one before began"


def test_a_batch_is_tensors_and_texts(dataset: Dataset, recipe: Recipe) -> None:
    whole = list(Stream(dataset, recipe, epochs=1, **SMALL))
    for kind in (torch.float32, torch.int16):
        loader = DataLoader(made(dataset, recipe, epochs=1, audio=kind), batch_size=None, num_workers=1)
        # All are held at once: memory of one must not be used for the next.
        for batch, stream in zip(list(loader), whole, strict=True):
            assert batch["audio"].dtype == kind and batch["lengths"].dtype == torch.int64
            assert batch["audio"].shape == (len(stream.examples), max(batch["lengths"]))
            assert (batch["audio"].numpy() == (stream.audio if kind == torch.float32 else stream.pcm)).all()
            assert len(batch["keys"]) == len(batch["tasks"]) == len(batch["prompts"]) == len(batch["answers"])


def test_a_dataset_travels_to_another_process(dataset: Dataset, recipe: Recipe) -> None:
    again = pickle.loads(pickle.dumps(made(dataset, recipe, epochs=1)))  # noqa: S301 - our own
    assert dealt(again) == expected(dataset, recipe, epochs=1)


# -- resuming


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_stateful_loader_resumes_exactly_any_number_of_times_in_a_row(
    dataset: Dataset, recipe: Recipe, workers: int
) -> None:
    whole = expected(dataset, recipe, epochs=2)
    cuts = [0, 1, 2, 5, 4, 9][: 6 if workers == 0 else 5]
    state, found = None, []
    for many in [*cuts, None]:
        loader = StatefulDataLoader(made(dataset, recipe, epochs=2), batch_size=None, num_workers=workers)
        if state is not None:
            loader.load_state_dict(state)
        found += dealt(loader, many)
        state = json.loads(json.dumps(loader.state_dict()))
    assert found == whole
    # That of a loader at its end is, by torchdata's rule, the beginning of its next pass.
    loader = StatefulDataLoader(made(dataset, recipe, epochs=2), batch_size=None, num_workers=workers)
    loader.load_state_dict(state)
    assert dealt(loader) == whole


@settings(max_examples=10)
@given(
    cuts=st.lists(st.integers(0, 9), min_size=1, max_size=4),
    workers=st.integers(1, 3),
    world_size=st.integers(1, 2),
    times=st.integers(1, 2),
    seed=st.integers(0, 2**40),
)
def test_each_worker_resumes_from_any_batch(
    dataset: Dataset, recipe: Recipe, cuts: list[int], workers: int, world_size: int, times: int, seed: int
) -> None:
    part = {"seed": seed, "rank": world_size - 1, "world_size": world_size, "micro_batches": world_size * times}
    of = made(dataset, recipe, **part)
    for worker in range(workers):
        undisturbed = dealt(Dealing(of, worker, workers), sum(cuts) + 3)
        found: list[Told] = []
        state = None
        for many in [*cuts, 3]:
            one = Dealing(of, worker, workers)
            if state is not None:
                one.load_state_dict(state)
            found += dealt(one, many)
            state = json.loads(json.dumps(one.state_dict()))
        assert found == undisturbed


@settings(max_examples=6)
@given(
    dealt_before=st.integers(0, 14),
    workers=st.sampled_from([0, 0, 2]),
    every=st.sampled_from([1, 3]),
    seed=st.integers(0, 2**40),
)
def test_the_state_of_a_loader_goes_on_with_other_ranks_and_workers(
    dataset: Dataset, recipe: Recipe, dealt_before: int, workers: int, every: int, seed: int
) -> None:
    options = {"seed": seed, "epochs": 3, "micro_batches": 4}
    loader = StatefulDataLoader(
        made(dataset, recipe, rank=0, world_size=2, **options),
        batch_size=None,
        num_workers=workers,
        snapshot_every_n_steps=every,
    )
    iterator = iter(loader)
    for _ in range(dealt_before):
        next(iterator)
    state = json.loads(json.dumps(stream_state(loader.state_dict())))
    assert state["step"] == dealt_before // 2, "rank 0 of 2 is dealt two of the four batches of a step"
    rest = expected(dataset, recipe, **options)[4 * state["step"] :]
    stream = Stream(dataset, recipe, **(SMALL | options))
    stream.load_state_dict(state)
    assert [tuple(example.key for example in batch.examples) for batch in stream] == [batch[2] for batch in rest]
    of_ranks = [
        dealt(in_turn(made(dataset, recipe, state=state, rank=rank, world_size=4, **options), 3)) for rank in range(4)
    ]
    assert [batch for step in zip(*of_ranks, strict=True) for batch in step] == rest


def test_a_state_of_another_set_up_is_refused_by_name(dataset: Dataset, recipe: Recipe) -> None:
    of = made(dataset, recipe)
    one = Dealing(of, 0, 2)
    next(one)
    state = one.state_dict()
    for other, workers, words in (
        (of, 3, "num_workers was 2, now it is 3"),
        (made(dataset, recipe, seed=1), 2, "seed was 0, now it is 1"),
        (made(dataset, recipe, rank=0, world_size=2), 2, "world_size was 1, now it is 2"),
        (made(dataset, recipe, micro_batches=3), 2, "micro_batches was 1, now it is 3"),
        (made(dataset, recipe, max_examples=2), 2, "budget was"),
    ):
        with pytest.raises(UserError, match=words):
            Dealing(other, 0, workers).load_state_dict(state)
    with pytest.raises(UserError, match="not the state of a SalmonnIterable"):
        one.load_state_dict({"step": 1})
    with pytest.raises(UserError, match="no state of a SalmonnIterable"):
        stream_state({"step": 1})
    with pytest.raises(UserError, match="micro_batches was 1, now it is 2"):
        next(iter(made(dataset, recipe, micro_batches=2, state=Stream(dataset, recipe, **SMALL).state_dict())))


def test_a_mistake_is_told_where_it_is_made(dataset: Dataset, recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no dataset"):
        SalmonnIterable(tmp_path, recipe)
    with pytest.raises(UserError, match=r"audio cannot be torch\.float64"):
        made(dataset, recipe, audio=torch.float64)
    with pytest.raises(UserError, match="give both, or neither"):
        made(dataset, recipe, rank=1)
    with pytest.raises(UserError, match="rank 2 of 2"):
        made(dataset, recipe, rank=2, world_size=2)
    with pytest.raises(TypeError, match="max_second"):
        made(dataset, recipe, max_second=1.0)


# -- processes of torch.distributed

RANK = """
import pickle, sys
import torch
from torch.utils.data import DataLoader
from salmonn.torch_data import SalmonnIterable
rank, meeting, given = int(sys.argv[1]), sys.argv[2], sys.argv[3]
torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
dataset, recipe, options = pickle.load(open(given, "rb"))
of = SalmonnIterable(dataset, recipe, **options)
for batch in DataLoader(of, batch_size=None, num_workers=rank):  # one rank with a worker, one without
    # As DDP does, each step waits for the other rank: one batch too few would hang here.
    total = torch.tensor([len(batch["keys"])])
    torch.distributed.all_reduce(total)
    print(batch["step"], batch["micro"], total.item(), *batch["keys"])
torch.distributed.destroy_process_group()
"""


def test_two_ranks_see_the_stream_together_and_none_waits_for_the_other_at_the_end(
    dataset: Dataset, recipe: Recipe, tmp_path: Path
) -> None:
    # As many epochs as leave one rank nothing in the last step.
    ends = {epochs: expected(dataset, recipe, epochs=epochs, micro_batches=2) for epochs in (1, 2, 3, 4, 5)}
    epochs, whole = next((epochs, whole) for epochs, whole in ends.items() if not whole[-1][2])
    given = tmp_path / "given"
    given.write_bytes(pickle.dumps((dataset, recipe, SMALL | {"epochs": epochs})))
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(rank), str(tmp_path / "meeting"), str(given)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=90) for process in ranks]
    finally:
        for process in ranks:
            process.kill()
    assert [process.returncode for process in ranks] == [0, 0], outputs
    lines = [[line.split() for line in out.splitlines()] for out, _ in outputs]
    assert len(lines[0]) == len(lines[1])
    for first, second in zip(*lines, strict=True):
        assert int(first[2]) == int(second[2]) == len(first[3:]) + len(second[3:])
    together = sorted((int(line[0]), int(line[1]), tuple(line[3:])) for of_rank in lines for line in of_rank)
    assert together == [(batch[0], batch[1], batch[2]) for batch in whole]


def train_loop(config: dict[str, Any]) -> None:
    """What each worker of Ray Train runs: deal its rank's batches, and say which they were."""
    import ray.train

    rows = SalmonnIterable(config["dataset"], config["recipe"], **config["options"])
    loader = DataLoader(rows, batch_size=None)
    seen = [[batch["step"], batch["micro"], *batch["keys"]] for batch in loader]
    rank = ray.train.get_context().get_world_rank()
    Path(config["out"], f"{rank}.json").write_text(json.dumps({"rank": rows.rank, "of": rows.world_size, "seen": seen}))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_ranks_of_ray_train_share_the_stream(dataset: Dataset, recipe: Recipe, tmp_path: Path) -> None:
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    from pipelines.executor import Executor

    told = {"dataset": str(dataset.url), "recipe": recipe, "options": SMALL | {"epochs": 1}, "out": str(tmp_path)}
    with Executor(3) as executor:
        executor.start()
        # Workers do not know this file: what it defines is sent to them whole.
        executor.ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        TorchTrainer(
            train_loop,
            train_loop_config=told,
            scaling_config=ScalingConfig(num_workers=2),
            run_config=RunConfig(storage_path=str(tmp_path / "ray")),
        ).fit()
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert [(one["rank"], one["of"]) for one in ranks] == [(0, 2), (1, 2)]
    whole = Stream(dataset, recipe, epochs=1, micro_batches=2, **SMALL)
    every = [[batch.step, batch.micro, *(example.key for example in batch.examples)] for batch in whole]
    assert sorted(ranks[0]["seen"] + ranks[1]["seen"]) == sorted(every)
    assert len(ranks[0]["seen"]) == len(ranks[1]["seen"])
