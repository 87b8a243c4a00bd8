"""A model of toy sizes and a stream of tones in memory, for the tests of the model and the trainer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from salmonn.config import LLMConfig, LoraConfig, OptimizerConfig, QFormerConfig, SalmonnConfig, WhisperConfig
from salmonn.training.settings import BatchConfig, TrainConfig

MODEL = SalmonnConfig(
    whisper=WhisperConfig(width=16, layers=1, heads=2, ffn=16, seed=1, init_std=0.1),
    llm=LLMConfig(width=24, layers=2, heads=2, ffn=32, seed=2),
    qformer=QFormerConfig(width=16, layers=1, heads=2, ffn=16, dropout=0.1, seed=3),
    lora=LoraConfig(r=4, alpha=8.0, dropout=0.1, trained_modules=("embed_tokens", "lm_head"), seed=4),
    max_answer_tokens=12,
)
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
    """Deals batches as shards.Stream does: a pure function of the number of the batch."""

    def __init__(self, examples: int = 3, micro_batches: int = 1) -> None:
        self.examples, self.micro_batches, self.dealt = examples, micro_batches, 0

    def __iter__(self) -> Iterator[Batch]:
        while True:
            number = self.dealt
            examples = tuple(example(7 * number + i) for i in range(self.examples + number % 2))
            seconds = sum(e.seconds for e in examples)
            self.dealt += 1
            yield Batch(
                step=number // self.micro_batches,
                micro=number % self.micro_batches,
                examples=examples,
                seconds=seconds,
                padding=1 - seconds / (len(examples) * max(e.seconds for e in examples)),
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
        "threads": 2,
        "device": "cpu",
    }
    return TrainConfig(**settings | changes)
