"""Ray Train on this machine: the same run as in one process, its refusals as they are, its processes started again."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from manifests.errors import Failed, UserError
from salmonn.training import ray_train
from salmonn.training.ray_train import train_on_ray
from salmonn.training.run import Log, StepLog
from salmonn.training.settings import BatchConfig, TrainConfig
from salmonn.training.trainer import train
from shards import Dataset
from tiny_model import LIBRI, RECIPE, STEADY, config


def settings(folder: Path, dataset: Dataset, name: str, **changes: object) -> TrainConfig:
    recipe = folder / "recipe.toml"
    recipe.write_text(RECIPE)
    batch = BatchConfig(max_examples=2, max_seconds=60.0, micro_batches=2)
    told = {"dataset": str(dataset.url), "recipe": str(recipe), "model": STEADY, "batch": batch, "steps": 4}
    return config(folder / name, **told | changes)


def test_what_cannot_be_is_refused_before_ray_starts(
    make_dataset: Callable[..., Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_train, "cluster", None)
    run = settings(tmp_path, make_dataset(LIBRI), "run")
    with pytest.raises(UserError, match="which 3 processes cannot share"):
        train_on_ray(run, workers=3)
    with pytest.raises(UserError, match="--workers is 0"):
        train_on_ray(run, workers=0)


def test_a_rank_returns_its_result_or_its_mistake(make_dataset: Callable[..., Dataset], tmp_path: Path) -> None:
    """As values: Ray would start a process again that raises, though a mistake stays one."""
    run = settings(tmp_path, make_dataset(LIBRI), "run")
    told = {"config": msgspec.json.encode(run), "reseed": False, "stop_after": 1, "folder": os.getcwd(), "gpu": True}
    result = ray_train.opened(ray_train.work(told))
    assert (result.run, result.steps, result.ended) == (run.folder, 1, "stop_after")
    other = msgspec.json.encode(msgspec.structs.replace(run, seed=1))
    with pytest.raises(UserError, match=r"other settings: seed was 0, is 1\. Give"):
        ray_train.opened(ray_train.work(told | {"config": other}))
    with pytest.raises(Failed, match="rotten"):
        ray_train.opened({"error": "rotten", "mistake": False})


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_two_processes_of_ray_go_on_with_the_run_of_one(make_dataset: Callable[..., Dataset], tmp_path: Path) -> None:
    dataset = make_dataset(LIBRI)
    alone, there = (settings(tmp_path, dataset, name) for name in ("alone", "there"))
    steps: list[StepLog] = []
    train(alone)
    train(there, stop_after=1)
    result = train_on_ray(there, workers=2, on_step=steps.append)
    assert (result.run, result.steps, result.resumed_from, result.ended) == (there.folder, 4, 1, "done")
    told = Log(alone.folder).lines()
    assert [line.step for line in steps] == [2, 3, 4]
    assert [line.loss for line in Log(there.folder).lines()] == pytest.approx([line.loss for line in told], abs=1e-5)
    assert result.last_loss == steps[-1].loss
    assert not (there.folder / "ray").exists()


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_mistake_that_only_the_processes_see_comes_back_as_it_is(
    make_dataset: Callable[..., Dataset], tmp_path: Path
) -> None:
    run = settings(tmp_path, make_dataset(LIBRI), "run", init_from=str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="init_from: there is nothing at"):
        train_on_ray(run, workers=2)


@pytest.mark.slow
def test_a_cluster_that_is_not_there_is_told(make_dataset: Callable[..., Dataset], tmp_path: Path) -> None:
    run = settings(tmp_path, make_dataset(LIBRI), "run")
    with pytest.raises(UserError, match=r"cannot reach a Ray cluster at '127\.0\.0\.1:9'"):
        train_on_ray(run, address="127.0.0.1:9")
    assert "RANK" not in os.environ
