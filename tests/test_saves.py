"""Checkpoints: whole or not at all, checked, deterministic, and no pickle."""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import random
import re
import threading
import time
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from manifests.errors import Failed, UserError
from salmonn.training import saves as room
from salmonn.training.buffers import safetensors_pieces
from salmonn.training.run import Log
from salmonn.training.saves import Saver, checkpoint_paths, newest_checkpoint, write_checkpoint
from salmonn.training.trainer import run_training
from tiny_model import ToneStream, config, run_ranks, start_ranks, train_tones

torch.set_num_threads(1)


def write(folder: Path, step: int, *, keep: int = 3) -> Path:
    return write_checkpoint(
        folder,
        step=step,
        horizon=10,
        model={"w": torch.full((2, 2), float(step)), "a": torch.arange(3)},
        optimizer={"w/exp_avg": torch.ones(2, 2) * step, "random/cpu": torch.get_rng_state()},
        stream={"dealt": step},
        config="c" * 64,
        frozen="f" * 64,
        keep=keep,
    )


def steps(folder: Path) -> list[str]:
    return [path.name for path in checkpoint_paths(folder)]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path / "none") is None
    write(tmp_path, 5)
    found = newest_checkpoint(tmp_path)
    assert found is not None
    assert found.state.step == 5
    assert found.state.stream == {"dealt": 5}
    assert found.model["w"].equal(torch.full((2, 2), 5.0))
    assert found.optimizer["random/cpu"].equal(torch.get_rng_state())


def test_the_newest_few_are_kept_in_order_of_steps(tmp_path: Path) -> None:
    for step in (8, 9, 999_999, 1_000_000):
        write(tmp_path, step, keep=2)
    assert steps(tmp_path) == ["step-999999", "step-1000000"]


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("harm", ["missing", "cut", "flipped"])
def test_a_torn_newest_falls_back_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, file: str, harm: str
) -> None:
    write(tmp_path, 1)
    torn = write(tmp_path, 2) / file
    content = torn.read_bytes()
    if harm == "missing":
        torn.unlink()
    elif harm == "cut":
        torn.write_bytes(content[: len(content) // 2])
    else:
        torn.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    with caplog.at_level(logging.WARNING):
        found = newest_checkpoint(tmp_path)
    assert found is not None
    assert found.state.step == 1
    assert "step-000002 is torn" in caplog.text
    # the step is reached again, and the torn one replaced
    write(tmp_path, 2)
    again = newest_checkpoint(tmp_path)
    assert again is not None
    assert again.state.step == 2


def test_if_none_is_whole_the_user_decides(tmp_path: Path) -> None:
    (write(tmp_path, 1) / "state.json").unlink()
    with pytest.raises(UserError, match="none of 1 checkpoint"):
        newest_checkpoint(tmp_path)


@pytest.mark.parametrize("after", range(6))
def test_killed_at_any_point_it_is_there_or_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """A kill before the first file, between the files, before and after the rename."""
    write(tmp_path, 1)
    count = 0

    class Kill(BaseException):
        pass

    def doomed(function: Any) -> Any:
        def call(*args: Any) -> Any:
            nonlocal count
            if count == after:
                raise Kill
            count += 1
            return function(*args)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(room, "write_synced", doomed(room.write_synced))
        patch.setattr(room, "sync_folder", doomed(room.sync_folder))
        with contextlib.suppress(Kill):
            write(tmp_path, 2)
    found = newest_checkpoint(tmp_path)
    assert found is not None
    assert found.state.step == (2 if after >= 4 else 1)
    assert steps(tmp_path) == ["step-000001", "step-000002"][: found.state.step]
    write(tmp_path, 3)
    assert not list(tmp_path.glob(".*")), "the next writer clears up"


DTYPES = (
    *(torch.uint8, torch.int16, torch.int32, torch.int64),
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
)


@given(
    tensors=st.dictionaries(
        st.text(min_size=1, max_size=9),
        st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 4), max_size=3), st.booleans()),
        max_size=8,
    )
)
def test_the_pieces_of_a_file_are_those_of_the_library(tensors: dict[str, tuple[torch.dtype, list[int], bool]]) -> None:
    """Whatever the names, types, shapes (none, empty) and order; a view has the bytes of what it shows."""
    made = {}
    for name, (dtype, shape, turned) in tensors.items():
        tensor = (torch.arange(math.prod(shape)) % 100).reshape(shape).to(dtype)
        made[name] = tensor.mT if turned and tensor.ndim > 1 else tensor
    found = b"".join(safetensors_pieces(made))
    assert found == safetensors.torch.save({name: x.contiguous().clone() for name, x in made.items()})
    backwards = dict(reversed(made.items()))
    assert b"".join(safetensors_pieces(backwards)) == found
    read = safetensors.torch.load(found)
    assert read.keys() == made.keys()
    assert all(read[name].equal(made[name]) for name in made)


def test_the_same_tensors_give_the_same_bytes(tmp_path: Path) -> None:
    one, two = write(tmp_path / "one", 1), write(tmp_path / "two", 1)
    for path in sorted(one.iterdir()):
        assert path.read_bytes() == (two / path.name).read_bytes()


def test_a_save_is_of_the_moment_it_began_and_has_the_same_bytes(tmp_path: Path) -> None:
    expected = write(tmp_path / "plain", 4)
    tensors = {"w": torch.full((2, 2), 4.0), "a": torch.arange(3)}
    memory = {"w/exp_avg": torch.ones(2, 2) * 4, "random/cpu": torch.get_rng_state()}
    with Saver(tmp_path / "thread", keep=3) as saver:
        saver.begin(**begun(4, tensors, memory))
        for tensor in (*tensors.values(), *memory.values()):
            tensor.zero_()  # the training goes on
    for path in expected.iterdir():
        assert path.read_bytes() == (tmp_path / "thread" / "step-000004" / path.name).read_bytes()


def begun(step: int, model: dict[str, torch.Tensor], optimizer: dict[str, torch.Tensor]) -> dict[str, Any]:
    rest = {"stream": {"dealt": step}, "config": "c" * 64, "frozen": "f" * 64}
    return {"step": step, "horizon": 10, "model": model, "optimizer": optimizer, **rest}


def test_a_step_does_not_wait_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the second time either, unless the first is not over: then one at a time, and the last is waited for."""
    gates, seen = {"000001": threading.Event(), "000002": threading.Event()}, []

    def slow(path: Path, *pieces: bytes) -> None:
        step = path.parent.name.split("-")[2]
        seen.append(step)
        assert gates[step].wait(20)
        path.write_bytes(b"".join(pieces))

    monkeypatch.setattr(room, "write_synced", slow)
    with Saver(tmp_path, keep=3) as saver:
        saver.begin(**begun(1, {"w": torch.ones(2)}, {}))
        saver.check()
        assert checkpoint_paths(tmp_path) == []
        threading.Timer(0.2, gates["000001"].set).start()
        saver.begin(**begun(2, {"w": torch.ones(2)}, {}))
        assert steps(tmp_path) == ["step-000001"]
        gates["000002"].set()
    assert steps(tmp_path) == ["step-000001", "step-000002"]
    assert seen == ["000001"] * 3 + ["000002"] * 3


def test_a_save_that_fails_is_told_at_the_next_step_or_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, *pieces: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(room, "write_synced", full)
    with pytest.raises(Failed, match=r"cannot write a checkpoint into .*No space left"), Saver(tmp_path, 3) as saver:
        saver.begin(**begun(1, {"w": torch.ones(2)}, {}))
    saver = Saver(tmp_path, 3)
    saver.begin(**begun(1, {"w": torch.ones(2)}, {}))
    assert saver.writing is not None
    wait([saver.writing])
    with pytest.raises(Failed, match="No space left"):
        saver.check()
    saver.check()

    # What went wrong first is what is told.
    def fail_twice() -> None:
        with Saver(tmp_path, 3) as saver:
            saver.begin(**begun(1, {"w": torch.ones(2)}, {}))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_twice()


@pytest.mark.slow
def test_what_was_trained_of_the_13b_preset_is_saved_within_a_second_of_the_step(tmp_path: Path) -> None:
    """33,332,992 weights and twice as much of Adam's: 400 MB."""
    whole = {f"layer.{i}": torch.randn(4_166_624) for i in range(8)}
    memory = {f"{name}/{slot}": torch.rand_like(x) for name, x in whole.items() for slot in ("exp_avg", "exp_avg_sq")}
    with Saver(tmp_path, keep=1) as saver:
        saver.begin(**begun(1, whole, memory))
        saver.wait()
        began = time.perf_counter()
        saver.begin(**begun(2, whole, memory))
        assert time.perf_counter() - began < 1.0
        before, count = time.perf_counter(), 0
        longest = 0.0
        while saver.writing is not None:  # the loop of a trainer, which goes on
            torch.mm(whole["layer.0"][:4096].view(64, 64), whole["layer.1"][:4096].view(64, 64))
            saver.check()
            now = time.perf_counter()
            longest, before, count = max(longest, now - before), now, count + 1
        assert count > 100
        assert longest < 1.0
    assert (tmp_path / "step-000002" / "model.safetensors").stat().st_size == pytest.approx(133_331_968, rel=1e-4)


def steps_of(kills: int) -> int:
    """Steps of a run that is killed so often: enough that it is never done before the last kill."""
    return 8 * kills


def killed_and_resumed(folder: Path, kills: int, dice: random.Random) -> tuple[int, list[int]]:
    """Kill a training that saves all the time, every other time in the midst of a save, else at random; let it end.

    Return how many kills left an unfinished checkpoint, and the steps that were logged when a kill came.
    """
    settings = config(folder, steps=steps_of(kills), checkpoint_every=1, keep=2)
    log, torn, seen = Log(folder), 0, []

    def unfinished() -> list[Path]:
        return list((folder / "checkpoints").glob(".writing-*"))

    for kill in range(kills):
        before = len(log.lines())
        (process,) = start_ranks(1, train_tones, settings)
        deadline = time.monotonic() + 60
        # Within the step after the next: while it saves, computes, or writes its log.
        while len(log.lines()) <= before and process.is_alive() and time.monotonic() < deadline:
            time.sleep(0.005)
        if kill % 2:
            while not unfinished() and process.is_alive() and time.monotonic() < deadline:
                time.sleep(0.0005)
        else:
            time.sleep(dice.random() * 0.2)
        process.kill()
        process.join()
        torn += bool(unfinished())
        seen.append(len(log.lines()))
    assert run_ranks(1, train_tones, settings) == [0]
    return torn, seen


def demand_undisturbed(killed: Path, kills: int, tmp_path: Path) -> None:
    run_training(config(tmp_path / "whole", steps=steps_of(kills), keep=2), ToneStream())
    runs = [Log(run).lines() for run in (tmp_path / "whole", killed)]
    told = [[(line.step, line.loss, line.grad_norm, line.tasks) for line in run] for run in runs]
    assert told[0] == told[1]
    for name in ("model.safetensors", "optimizer.safetensors", "state.json"):
        paths = [run / "checkpoints" / f"step-{steps_of(kills):06d}" / name for run in (tmp_path / "whole", killed)]
        assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_as_if_undisturbed(tmp_path: Path) -> None:
    _, seen = killed_and_resumed(tmp_path / "killed", 3, random.Random(1))
    assert all(0 < steps < steps_of(3) for steps in seen), f"not all kills came while it trained: {seen}"
    demand_undisturbed(tmp_path / "killed", 3, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_at_twenty_random_moments_it_ends_as_if_undisturbed(tmp_path: Path) -> None:
    torn, seen = killed_and_resumed(tmp_path / "killed", 20, random.Random(2))
    assert all(0 < steps < steps_of(20) for steps in seen), f"not all kills came while it trained: {seen}"
    assert torn, f"no kill came during a save; steps logged when they came: {seen}"
    demand_undisturbed(tmp_path / "killed", 20, tmp_path)


def test_nothing_is_pickled(tmp_path: Path) -> None:
    assert {path.suffix for path in write(tmp_path, 1).iterdir()} == {".safetensors", ".json"}
    for path in Path(room.__file__).parent.glob("*.py"):
        assert not re.search(r"import pickle|(?<!safetensors\.)torch\.(load|save)\(", path.read_text()), path
