"""Checkpoints: whole or not at all, checked, deterministic, and no pickle."""

from __future__ import annotations

import contextlib
import logging
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from manifests.errors import UserError
from salmonn.training import saves as room
from salmonn.training.saves import checkpoint_paths, newest_checkpoint, save_safetensors, write_checkpoint


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


def test_the_same_tensors_give_the_same_bytes(tmp_path: Path) -> None:
    tensors = {name: torch.arange(6.0).reshape(2, 3) * i for i, name in enumerate("zebra")}
    backwards = dict(reversed(tensors.items()))
    assert save_safetensors(tensors) == save_safetensors(backwards)
    # a view has the bytes of its contents, not of its storage
    assert save_safetensors({"x": torch.arange(6.0).reshape(2, 3).T}) == save_safetensors(
        {"x": torch.tensor([[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]])}
    )
    one, two = write(tmp_path / "one", 1), write(tmp_path / "two", 1)
    for path in sorted(one.iterdir()):
        assert path.read_bytes() == (two / path.name).read_bytes()


def test_nothing_is_pickled(tmp_path: Path) -> None:
    assert {path.suffix for path in write(tmp_path, 1).iterdir()} == {".safetensors", ".json"}
    for path in Path(room.__file__).parent.glob("*.py"):
        assert not re.search(r"import pickle|(?<!safetensors\.)torch\.(load|save)\(", path.read_text()), path
