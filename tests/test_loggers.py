"""Loggers: every number of a step under a stable name, read back by each service's own reader; a resume appends."""

from __future__ import annotations

import importlib.util
import logging
import sqlite3
import struct
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from manifests.errors import UserError
from salmonn.training import loggers
from salmonn.training.loggers import Loggers, demand_installed, numbers, redacted, wandb_mode
from salmonn.training.run import StepLog, TaskLog

SETTINGS = {"steps": 6, "model": {"llm": {"width": 24}}, "dataset": "s3://KEY:SECRET@bucket/data"}


def line(step: int) -> StepLog:
    return StepLog(
        step=step,
        loss=3.0 / step,
        tasks={
            "asr": TaskLog(loss=2.0 / step, accuracy=0.4, tokens=30, examples=3),
            "audio_caption": TaskLog(loss=4.0 / step, accuracy=0.2, tokens=10, examples=1),
        },
        tokens=40,
        lr=1e-5 * step,
        grad_norm=0.5,
        examples=4,
        audio_seconds=20.0,
        padding=0.1,
        cut=1,
        truncated=0,
        wait_seconds=0.01,
        seconds=0.5,
        clips_per_second=8.0,
        mixture={"asr": 3, "audio_caption": 1},
        memory=1_000_000,
        skipped=("librispeech_1: bad",),
    )


def tell(names: list[str], folder: Path, first: int, last: int, *, killed: bool = False) -> None:
    """Tell the steps from `first` to `last`, as one call of train does."""
    told = Loggers(names, folder, SETTINGS)
    for step in range(first, last + 1):
        told.write(line(step))
    assert told.names == names, "none was dropped"
    if killed:  # what a kill leaves: nothing is closed, and some of it has reached the disk
        for logger in told.open.values():
            getattr(getattr(logger, "writer", None), "flush", lambda: None)()
    else:
        told.close()


def test_every_number_of_a_step_has_a_stable_name() -> None:
    told = numbers(line(2))
    assert told["loss"] == 1.5 and told["lr"] == 2e-5 and told["grad_norm"] == 0.5
    assert told["loss/asr"] == 1.0 and told["accuracy/asr"] == 0.4 and told["tokens/audio_caption"] == 10
    assert told["mixture/asr"] == 3 and told["memory"] == 1e6 and told["skipped"] == 1
    assert told["clips_per_second"] == 8.0 and told["wait_seconds"] == 0.01 and told["padding"] == 0.1
    # Nothing that the log holds is left out, whatever is added to it.
    assert {name.partition("/")[0] for name in told} >= set(StepLog.__struct_fields__) - {"step", "tasks"}
    assert "step" not in told and all(isinstance(number, float) for number in told.values())


def read_tensorboard(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """TensorBoard's own reader."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_reads_what_was_told(tmp_path: Path) -> None:
    tell(["tensorboard"], tmp_path, 1, 3)
    read = read_tensorboard(tmp_path)
    assert read.keys() == numbers(line(1)).keys()
    for name, points in read.items():
        assert [step for step, _ in points] == [1, 2, 3]
        assert [value for _, value in points] == pytest.approx([numbers(line(s))[name] for s in (1, 2, 3)], rel=1e-6)


def test_after_a_kill_and_a_resume_tensorboard_has_each_step_once_and_old_files_stay(tmp_path: Path) -> None:
    tell(["tensorboard"], tmp_path, 1, 5, killed=True)
    before = {path: path.read_bytes() for path in (tmp_path / "tensorboard").iterdir()}
    tell(["tensorboard"], tmp_path, 4, 6)  # the last checkpoint was that of step 3
    after = {path: path.read_bytes() for path in (tmp_path / "tensorboard").iterdir()}
    assert len(after) == len(before) + 1
    assert all(after[path] == content for path, content in before.items()), "a resume never rewrites"
    assert [step for step, _ in read_tensorboard(tmp_path)["loss/asr"]] == [1, 2, 3, 4, 5, 6]


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No key, no network, no home of a user."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_PROJECT", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")


# Set-up installs both (the extra `loggers`); who trains without them has the other tests of this file.
needs = {
    name: pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=f"{name} is not installed")
    for name in ("wandb", "trackio")
}


def wandb_records(path: Path) -> list[Any]:
    """The records of an offline run: a LevelDB log (blocks of 32 KiB, records with a head of 7 bytes) of protobuf."""
    from wandb.proto import wandb_internal_pb2

    content, place, parts, records = path.read_bytes(), 7, b"", []
    assert content[:4] == b":W&B"
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        length, kind = struct.unpack("<HB", content[place + 4 : place + 7])
        parts = (b"" if kind in (1, 2) else parts) + content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            records.append(wandb_internal_pb2.Record.FromString(parts))
    return records


@needs["wandb"]
@pytest.mark.slow
def test_weights_and_biases_goes_offline_without_a_key_and_holds_what_was_told(tmp_path: Path, alone: None) -> None:
    assert wandb_mode() == "offline"
    tell(["wandb"], tmp_path, 1, 3)
    first = {path: path.read_bytes() for path in tmp_path.rglob("*.wandb")}
    tell(["wandb"], tmp_path, 4, 5)
    files = sorted(tmp_path.rglob("*.wandb"))
    assert len(files) == 2 and all(path.read_bytes() == content for path, content in first.items())
    found: dict[str, dict[int, float]] = defaultdict(dict)
    ids = set()
    for path in files:
        for record in wandb_records(path):
            if record.HasField("run"):
                ids.add(record.run.run_id)
            if record.HasField("history"):
                for item in record.history.item:
                    name = item.key or "/".join(item.nested_key)
                    if not name.startswith("_"):
                        found[name][record.history.step.num] = float(item.value_json)
        assert b"SECRET" not in path.read_bytes()
    assert len(ids) == 1, "a resumed run is the same run"
    assert found.keys() == numbers(line(1)).keys()
    for name, points in found.items():
        assert points == {step: pytest.approx(numbers(line(step))[name]) for step in range(1, 6)}, name


def test_weights_and_biases_goes_online_with_a_key(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, alone: None
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    assert wandb_mode() == "online"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert wandb_mode() == "disabled"
    monkeypatch.delenv("WANDB_MODE"), monkeypatch.delenv("WANDB_API_KEY")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / ".netrc").write_text("machine api.wandb.ai login user password x\n")
    (tmp_path / "home" / ".netrc").chmod(0o600)
    assert wandb_mode() == "online"


@needs["trackio"]
def test_trackio_holds_each_step_once_also_after_a_kill(
    tmp_path: Path, alone: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import trackio.sqlite_storage as storage
    import trackio.utils

    monkeypatch.setattr(storage, "TRACKIO_DIR", tmp_path / "trackio", raising=False)
    monkeypatch.setattr(trackio.utils, "TRACKIO_DIR", tmp_path / "trackio")
    folder = tmp_path / "run"
    folder.mkdir()
    tell(["trackio"], folder, 1, 4)
    tell(["trackio"], folder, 3, 6)  # steps 3 and 4 are done again
    (base,) = (tmp_path / "trackio").rglob("*.db")
    with sqlite3.connect(base) as held:
        rows = held.execute("select run_name, step, metrics from metrics order by step").fetchall()
    assert [step for _, step, _ in rows] == [1, 2, 3, 4, 5, 6]
    assert len({name for name, _, _ in rows}) == 1
    for _, step, metrics in rows:
        read = storage.orjson.loads(metrics)
        assert {name: read[name] for name in numbers(line(step))} == pytest.approx(numbers(line(step)))


def test_a_logger_that_is_not_installed_is_told_before_a_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(loggers.PACKAGES, "wandb", "no_such_package_here")
    for ask in (demand_installed, lambda names: Loggers(names, tmp_path, {})):
        with pytest.raises(UserError, match=r"names 'wandb'.*not installed here: 'pip install no_such_package_here'"):
            ask(("tensorboard", "wandb"))
    assert not list(tmp_path.iterdir())


def test_a_logger_that_fails_is_dropped_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing:
        def __init__(self, folder: Path, settings: dict[str, Any], first: int) -> None:
            self.first = first

        def write(self, step: int, told: dict[str, float]) -> None:
            if step == 2:
                raise ConnectionError("no route to host")

        def close(self) -> None:
            raise TimeoutError("still none")

    monkeypatch.setitem(loggers.PACKAGES, "wandb", "json")
    monkeypatch.setitem(loggers.OPENERS, "wandb", Failing)
    told = Loggers(["wandb", "tensorboard"], tmp_path, SETTINGS)
    with caplog.at_level(logging.WARNING, logger="salmonn"):
        for step in (1, 2, 3):
            told.write(line(step))
        told.close()
    assert told.names == ["tensorboard"]
    assert "wandb is not told any more: ConnectionError: no route to host" in caplog.text
    assert "wandb did not end well: TimeoutError: still none" in caplog.text
    assert [step for step, _ in read_tensorboard(tmp_path)["loss"]] == [1, 2, 3]


def test_without_loggers_nothing_is_imported_or_written(tmp_path: Path) -> None:
    before = set(sys.modules)
    told = Loggers((), tmp_path, {})
    told.write(line(1))
    told.close()
    assert not list(tmp_path.iterdir())
    assert not {name.partition(".")[0] for name in set(sys.modules) - before} & {"wandb", "trackio", "tensorboard"}


def test_an_address_is_told_without_its_secret() -> None:
    told = redacted(SETTINGS)
    assert "SECRET" not in str(told) and told["steps"] == 6 and told["model"] == {"llm": {"width": 24}}
