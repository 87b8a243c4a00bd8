"""What is asked of whom, and how: the settings of an evaluation. Nothing here needs torch: mistakes show at once."""

from __future__ import annotations

import math

import msgspec

from manifests import UserError, load_recipe
from salmonn.evaluation.asking import Asking
from salmonn.generation import MOST_BEAMS
from shards import Dataset

MOST_TOKENS = 200
"""Longest answer of most tasks, in tokens (paper, section 5.1, and the released code)."""
MORE_TOKENS = {
    # 30 s of reading are up to 450 phones, of two tokens each and more in LLaMA's pieces: at 200 a fifth of
    # LibriSpeech's answers lose their end, and the error rate goes from 4 to 17 % for that alone.
    "phone_recognition": 1200,
    # Two speakers, each with as much to write down as a clip of one.
    "overlapped_speech_recognition": 400,
}


class Decoding(msgspec.Struct, frozen=True, kw_only=True):
    """How an answer is searched for."""

    beams: int
    """Width of the search; 1 is greedy."""
    max_new_tokens: int
    lora_scale: float = 1.0
    """Factor on LoRA's scaling: 1 as trained, 0 the language model without its adapter."""
    seed: int = 0
    """Of torch's random numbers; a search draws none."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of a run; UserError if it cannot be."""

    data: str = ""
    """The dataset, by default the run's own."""
    recipe: str = ""
    """By default the run's own."""
    stage: str = "evaluate"
    tasks: tuple[str, ...] = ()
    """By default all of the stage."""
    limit: int | None = None
    """At most so many examples of each task, drawn by `seed`."""
    seed: int = 0
    beams: int = 4
    """Width of the search; 1 is greedy."""
    max_new_tokens: int | None = None
    """Longest answer; None means MOST_TOKENS, or what MORE_TOKENS says of the task."""
    lora_scale: float = 1.0
    batch_seconds: float = 480.0
    """Audio in a batch, with its padding."""
    batch_examples: int = 16

    def __post_init__(self) -> None:
        if not 1 <= self.beams <= MOST_BEAMS:
            raise UserError(f"beams is {self.beams}; it must be from 1 (greedy) to {MOST_BEAMS}")
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            raise UserError(f"max_new_tokens is {self.max_new_tokens}; it must be at least 1")
        if not (math.isfinite(self.lora_scale) and self.lora_scale >= 0):
            raise UserError(f"lora_scale is {self.lora_scale}; it must be a number from 0 on, and 1 is as trained")

    def decoding(self, task: str) -> Decoding:
        """Return how the answers to a task are searched for."""
        most = self.max_new_tokens or MORE_TOKENS.get(task, MOST_TOKENS)
        return Decoding(beams=self.beams, max_new_tokens=most, lora_scale=self.lora_scale, seed=self.seed)

    def asking(self, data: str, recipe: str) -> Asking:
        """Return what it asks, of the named dataset and recipe unless it names its own."""
        return Asking(
            Dataset(self.data or data),
            load_recipe(self.recipe or recipe),
            self.stage,
            tasks=self.tasks,
            limit=self.limit,
            seed=self.seed,
            batch_seconds=self.batch_seconds,
            batch_examples=self.batch_examples,
        )


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """How many processes answer, and where."""

    workers: int = 0
    """On a Ray cluster; 0 answers here."""
    address: str = ""
    """Of the cluster; empty or ``local`` starts one on this machine."""

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise UserError(f"--workers is {self.workers}; it must be at least 1, or 0 to answer in this process")
