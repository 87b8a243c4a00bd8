"""The folder of a run: its resolved settings, its log, its checkpoints, and the model they make.

RUN/config.json              the settings, presets resolved
RUN/log.jsonl                one line a step
RUN/checkpoints/step-NNNNNN  see salmonn/training/saves.py
RUN/evaluation/              see salmonn/evaluation/evaluate.py
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import msgspec
import torch

from manifests.errors import UserError
from salmonn.config import SalmonnConfig
from salmonn.model import Salmonn
from salmonn.training.saves import Checkpoint, newest_checkpoint, sync_folder, write_synced
from salmonn.training.settings import TrainConfig, demand_same


class TaskLog(msgspec.Struct, frozen=True, kw_only=True):
    """One task's part of a step."""

    loss: float
    """Mean over its answer tokens."""
    accuracy: float
    """Share of its answer tokens that are the likeliest (teacher-forced)."""
    tokens: int
    examples: int = 0


class StepLog(msgspec.Struct, frozen=True, kw_only=True):
    """One line of log.jsonl."""

    step: int
    """Steps done, this one included."""
    loss: float
    """Mean over all answer tokens of the step."""
    tasks: dict[str, TaskLog]
    tokens: int
    """Answer tokens, each EOS included."""
    lr: float
    grad_norm: float
    """Before clipping."""
    examples: int
    audio_seconds: float
    padding: float
    """Share of padding in the audio, 0 to 1."""
    cut: int
    """Clips above 30 s that lost their end."""
    truncated: int
    """Answers above the model's max_answer_tokens that lost their end."""
    wait_seconds: float
    """Spent waiting for data, by the rank that waited longest."""
    seconds: float
    """Spent in all."""
    clips_per_second: float = 0.0
    tokens_per_second: float = 0.0
    """Answer tokens."""
    mixture: dict[str, int] = msgspec.field(default_factory=dict)
    """Task to its examples in the step: the mixture as it was dealt."""
    memory: int = 0
    """Peak bytes so far on the fullest rank: of the GPU, or without one of the process."""
    skipped: tuple[str, ...] = ()
    """Damaged samples that were found since the step before, and left out; readers are some batches ahead."""


class Log:
    """log.jsonl: each step once, in order, also after a resume."""

    def __init__(self, folder: Path) -> None:
        """It is the log of the run in `folder`, which exists."""
        self.path = folder / "log.jsonl"

    def lines(self) -> list[StepLog]:
        """Return the lines written so far; a last line that a kill left incomplete is not one."""
        if not self.path.exists():
            return []
        whole = self.path.read_bytes().rpartition(b"\n")[0]
        return [msgspec.json.decode(line, type=StepLog) for line in whole.splitlines() if line]

    def cut_back(self, step: int) -> None:
        """Forget the steps after `step`, which are about to be done again."""
        kept = [line for line in self.lines() if line.step <= step]
        replace_file(self.path, b"".join(msgspec.json.encode(line) + b"\n" for line in kept))

    def append(self, line: StepLog) -> None:
        """Write one line."""
        with self.path.open("ab") as file:
            file.write(msgspec.json.encode(line) + b"\n")


def replace_file(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    write_synced(temporary, content)
    temporary.replace(path)
    sync_folder(path.parent)


def open_run(config: TrainConfig, *, reseed: bool = False) -> None:
    """Make the run's folder, or check that it was made with these resolved settings; write config.json.

    With `reseed`, its examples may come from elsewhere, or in another order.
    """
    if (config.folder / "config.json").exists():
        demand_same(read_run_config(config.folder), config, reseed=reseed)
    config.folder.mkdir(parents=True, exist_ok=True)
    replace_file(config.folder / "config.json", msgspec.json.format(msgspec.json.encode(config)) + b"\n")


def read_run_config(folder: str | Path) -> TrainConfig:
    """Return the resolved settings of the run in `folder`, wherever it lies now; UserError if there is none."""
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise UserError(
            f"{str(folder)!r} is not the folder of a run: 'salmonn train' would have left config.json in it"
        )
    try:
        config = msgspec.json.decode(path.read_bytes(), type=TrainConfig)
    except msgspec.MsgspecError as error:
        raise UserError(f"{path}: not the settings of a run: {error}") from None
    return msgspec.structs.replace(config, run=str(folder))


def model_digest(config: SalmonnConfig) -> str:
    """Return the sha256 of a model's settings."""
    return hashlib.sha256(msgspec.json.encode(config, order="sorted")).hexdigest()


def fill_model(model: Salmonn, checkpoint: Checkpoint, frozen: str) -> None:
    """Load a checkpoint's trained weights; UserError if it was trained on other settings or other frozen weights."""
    state = checkpoint.state
    for what, then, now in (
        ("model settings", state.config, model_digest(model.config)),
        ("frozen weights", state.frozen, frozen),
    ):
        if then != now:
            raise UserError(
                f"{checkpoint.path} was trained with other {what} (sha256 {then[:12]}, here {now[:12]}); "
                "trained weights mean nothing on another base model"
            )
    model.load_trainable(checkpoint.model)


def load_run(run: str | Path) -> tuple[TrainConfig, Salmonn, int]:
    """Return a run's settings, its model from the newest whole checkpoint, in eval mode, and that checkpoint's step."""
    config = read_run_config(run)
    checkpoint = newest_checkpoint(config.folder / "checkpoints")
    if checkpoint is None:
        raise UserError(f"the run {str(run)!r} has no checkpoint yet; train it first")
    model = Salmonn.from_config(config.sizes, pick_device(config))
    fill_model(model, checkpoint, model.frozen_digest())
    return config, model.to(pick_device(config)).eval(), checkpoint.state.step


def pick_device(config: TrainConfig) -> torch.device:
    """Return the device to compute on; ``auto`` is the GPU where there is one. Of several, a rank has its own."""
    if config.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if config.device == "cuda" and not torch.cuda.is_available():
        raise UserError("device is 'cuda' but torch finds no GPU here; take 'cpu' or 'auto'")
    return torch.device(config.device)
