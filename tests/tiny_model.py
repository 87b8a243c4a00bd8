"""A model of toy sizes and a stream of tones in memory, for the tests of the model and the trainer."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from manifests.errors import UserError
from salmonn.config import LLMConfig, LoraConfig, OptimizerConfig, QFormerConfig, SalmonnConfig, WhisperConfig
from salmonn.training.parallel import Ranks
from salmonn.training.settings import BatchConfig, TrainConfig
from salmonn.training.trainer import run_training

MODEL = SalmonnConfig(
    whisper=WhisperConfig(width=16, layers=1, heads=2, ffn=16, seed=1, init_std=0.1),
    llm=LLMConfig(width=24, layers=2, heads=2, ffn=32, seed=2),
    qformer=QFormerConfig(width=16, layers=1, heads=2, ffn=16, dropout=0.1, seed=3),
    lora=LoraConfig(r=4, alpha=8.0, dropout=0.1, trained_modules=("embed_tokens", "lm_head"), seed=4),
    max_answer_tokens=12,
)
STEADY = msgspec.structs.replace(
    MODEL,
    qformer=msgspec.structs.replace(MODEL.qformer, dropout=0.0),
    lora=msgspec.structs.replace(MODEL.lora, dropout=0.0),
)
"""Without dropout: each rank draws its own, so only then are two ranks as good as one."""
LIBRI = {("librispeech", "dev-clean"): [(800 + 400 * clip, ("asr", "gender_recognition")) for clip in range(12)]}
"""A small world for `make_dataset`, whose names a recipe may hold."""
RECIPE = """title = "small"
[[instruct]]
task = "asr"
corpus = "librispeech"
splits = ["dev-clean"]
weight = 1.0
"""
WORDS = ("low", "middle", "high", "very high indeed")


def tone(hertz: float, seconds: float) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(round(16_000 * seconds)) / 16_000)).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Example:
    key: str
    task: str
    prompt: str
    answer: str
    answers: tuple[str, ...]
    audio: np.ndarray
    seconds: float
    cut: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Batch:
    step: int
    micro: int
    examples: tuple[Example, ...]
    seconds: float
    padding: float


def example(number: int) -> Example:
    which = number % len(WORDS)
    audio = tone(200.0 * (which + 1), 0.5 + 0.25 * (number % 3))
    return Example(
        key=f"tone-{number}",
        task="asr" if number % 2 else "gender_recognition",
        prompt="How high is the tone?",
        answer=WORDS[which],
        answers=(WORDS[which],),
        audio=audio,
        seconds=len(audio) / 16_000,
    )


class ToneStream:
    """Deals batches as shards.Stream does: a pure function of the number of the batch; of `world_size` ranks, each is
    dealt every one whose number is its own modulo their number. The batch numbered `empty` holds nothing.
    """

    def __init__(
        self, examples: int = 3, micro_batches: int = 1, *, rank: int = 0, world_size: int = 1, empty: int = -1
    ) -> None:
        self.examples, self.micro_batches, self.dealt = examples, micro_batches, 0
        self.rank, self.world_size, self.empty = rank, world_size, empty

    def __iter__(self) -> Iterator[Batch]:
        while True:
            number = self.dealt + self.rank
            many = 0 if number == self.empty else self.examples + number % 2
            examples = tuple(example(7 * number + i) for i in range(many))
            seconds = sum(e.seconds for e in examples)
            self.dealt += self.world_size
            yield Batch(
                step=number // self.micro_batches,
                micro=number % self.micro_batches,
                examples=examples,
                seconds=seconds,
                padding=1 - seconds / (len(examples) * max(e.seconds for e in examples)) if examples else 0.0,
            )

    def state_dict(self) -> dict[str, Any]:
        return {"dealt": self.dealt}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.dealt = state["dealt"]


def config(run: Path, **changes: Any) -> TrainConfig:
    settings: dict[str, Any] = {
        "run": str(run),
        "dataset": "tones",
        "recipe": "tones",
        "model": MODEL,
        "steps": 6,
        "optimizer": OptimizerConfig(start_lr=1e-3, peak_lr=1e-2, final_lr=1e-3, warmup_steps=2, clip_norm=1.0),
        "batch": BatchConfig(max_examples=4),
        "checkpoint_every": 100,
        "threads": 1,
        "device": "cpu",
    }
    return TrainConfig(**settings | changes)


def train_tones(settings: TrainConfig, stop_after: int | None = None, empty: int = -1) -> None:
    """Train on tones as the rank that the environment tells of; what a test starts in a process of its own."""
    ranks = Ranks.from_environment()
    stream = ToneStream(
        micro_batches=settings.batch.micro_batches, rank=ranks.rank, world_size=ranks.world_size, empty=empty
    )
    with ranks:
        run_training(settings, stream, ranks=ranks, stop_after=stop_after)


def as_rank(rank: int, world_size: int, port: int, act: Callable[..., None], *args: Any) -> None:
    """Do `act` as one of several ranks; exit with 2 after a UserError, whose text goes to standard error."""
    told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in told.items()})
    torch.set_num_threads(1)
    try:
        act(*args)
    except UserError as error:
        print(error, file=sys.stderr, flush=True)
        os._exit(2)


SPAWN = multiprocessing.get_context("forkserver")
# A child begins where the imports are done; nothing has computed there yet, so no thread is lost in the fork.
SPAWN.set_forkserver_preload(["salmonn.training.trainer"])


def start_ranks(world_size: int, act: Callable[..., None], *args: Any) -> list[Any]:
    """Start `act` in as many processes; return them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = [
        SPAWN.Process(target=as_rank, args=(rank, world_size, port, act, *args), daemon=True)
        for rank in range(world_size)
    ]
    for process in ranks:
        process.start()
    return ranks


def run_ranks(world_size: int, act: Callable[..., None], *args: Any, timeout: float = 120) -> list[int]:
    """Run `act` in as many processes to its end; return their exit codes."""
    ranks = start_ranks(world_size, act, *args)
    try:
        deadline = time.monotonic() + timeout
        for process in ranks:
            process.join(max(0.0, deadline - time.monotonic()))
        return [process.exitcode for process in ranks]
    finally:
        for process in ranks:
            process.kill()
