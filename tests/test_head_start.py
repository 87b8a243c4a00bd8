"""A head start: every item done once or left for Ray, no thread left at work, and the bytes of a build on Ray."""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import TWO, digests
from manifests import UserError, load_recipe
from pipelines.build import build
from pipelines.executor import HEAD_START, Executor
from pipelines.head_start import HeadStart, stop_if_told
from salmonn import cli_corpora, cli_datasets


def threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.endswith("(work)")}


def wait(seconds: float) -> float:
    """Work that can break off every millisecond."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        stop_if_told()
        time.sleep(0.001)
    return seconds


@given(items=st.lists(st.integers(0, 99), max_size=30), workers=st.integers(1, 5))
def test_every_item_is_done_once_by_at_most_so_many_at_a_time(items: list[int], workers: int) -> None:
    busy: list[int] = []
    most = 0

    def work(item: int) -> int:
        nonlocal most
        busy.append(item)
        most = max(most, len(busy))
        time.sleep(0.0001)
        busy.pop()
        return item + 1

    done = list(HeadStart(workers, 60.0, work, iter(items)).run())
    assert sorted(done) == sorted((item, item + 1) for item in items)
    assert most <= workers and not threads()


@pytest.mark.parametrize("workers", [1, 3])
def test_when_its_time_is_over_the_rest_is_left(workers: int) -> None:
    queue = iter(range(10_000))
    ahead = HeadStart(workers, 0.05, lambda item: wait(0.001), queue)
    done = [item for item, _ in ahead.run()]
    left = list(queue)
    assert ahead.unfinished == [] and done and left
    assert sorted(done) + left == list(range(10_000))


def test_an_item_that_takes_too_long_is_stopped_and_left() -> None:
    queue = iter([0.0, 60.0, 0.0, 60.0, 0.0])
    begin = time.monotonic()
    ahead = HeadStart(2, 0.2, wait, queue)
    done = [item for item, _ in ahead.run()]
    assert time.monotonic() - begin < 20
    assert sorted(done + ahead.unfinished + list(queue)) == [0.0, 0.0, 0.0, 60.0, 60.0]
    assert ahead.unfinished == [60.0, 60.0] and not threads()


def test_an_error_is_raised_as_it_was_and_ends_the_others() -> None:
    def work(item: int) -> float:
        if item == 3:
            raise UserError("no, not this one")
        return wait(60.0 if item > 3 else 0.0)

    with pytest.raises(UserError, match="not this one"):
        list(HeadStart(2, 100.0, work, iter(range(9))).run())
    assert not threads()


def test_who_stops_listening_ends_the_work() -> None:
    results: Iterator[tuple[float, float]] = HeadStart(2, 100.0, wait, iter([0.0, 60.0, 60.0])).run()
    assert next(results) == (0.0, 0.0)
    results.close()  # type: ignore[attr-defined]
    assert not threads()


def test_elsewhere_nobody_is_told_to_stop() -> None:
    ahead = HeadStart(1, 0.01, lambda item: wait(60.0), iter([1]))
    assert list(ahead.run()) == [] and ahead.unfinished == [1]
    assert wait(0.0) == 0.0


@pytest.mark.parametrize("seconds", [-1.0, float("nan")])
def test_a_length_that_is_none_is_refused(seconds: float) -> None:
    with pytest.raises(UserError, match="--head-start is"):
        Executor(1, head_start=seconds)


@pytest.mark.parametrize("command", [cli_corpora.scan, cli_datasets.build, cli_datasets.verify])
def test_the_commands_have_the_head_start_that_is_meant(command: Callable[..., None]) -> None:
    # Written out there: to read it from the executor each start of a command would import that.
    assert inspect.signature(command).parameters["head_start"].default == HEAD_START


def test_work_that_is_over_in_time_starts_no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Executor, "start", lambda self: pytest.fail("Ray was started"))
    with Executor(2, head_start=float("inf")) as endless:
        assert list(endless.run(str, [1])) == [(1, "1")]
    with Executor(2, head_start=60.0) as executor:
        assert dict(executor.run(str, [1, 2, 3])) == {1: "1", 2: "2", 3: "3"}
        assert dict(executor.run(str, [])) == {}
        assert 0 < executor.head_start < 60
    assert Executor(2, "auto", head_start=60.0).head_start == 0, "another machine's processors are asked for"


class Hasty(Executor):
    """Breaks off after a few milliseconds of each run, and does what is left in a second head start."""

    left = 0

    def run(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        """Yield (item, function(item))."""
        queue = iter(items)
        ahead = HeadStart(2, 0.005, function, queue)
        yield from ahead.run()
        rest = [*ahead.unfinished, *queue]
        self.left += len(rest)
        yield from HeadStart(1, 600.0, function, iter(rest)).run()


def test_a_build_broken_off_in_the_middle_goes_on_to_the_same_bytes(root: Path, built: Path, tmp_path: Path) -> None:
    with Hasty() as executor:
        build(load_recipe(TWO), str(root), str(tmp_path / "out"), executor=executor, shard_bytes=2**20)
    assert executor.left > 0
    assert digests(tmp_path / "out") == digests(built)
