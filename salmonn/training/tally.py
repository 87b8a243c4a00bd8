"""The counts of one training step, over all its batches, by task, and over all ranks.

Sums stay on the device until the step is over: reading one of them makes the device wait.
"""

from __future__ import annotations

import resource
import sys
from typing import Any

import torch

from manifests import TASKS
from salmonn.model import AnswerTokens
from salmonn.training.parallel import Ranks
from salmonn.training.run import StepLog, TaskLog

NAMES = tuple(sorted(TASKS))
"""Every rank counts the same tasks in the same order, whichever it is dealt."""
NUMBER = {name: number for number, name in enumerate(NAMES)}


class Tally:
    """Sums over the batches of a step, then over the ranks; `line` turns them into means."""

    def __init__(self, ranks: Ranks) -> None:
        """Begin with nothing."""
        self.ranks = ranks
        self.answers_K3 = torch.zeros(len(NAMES), 3, dtype=torch.float64, device=ranks.device)
        """By task: negative log likelihood, hits, answer tokens."""
        self.examples = [0] * len(NAMES)
        self.truncated = self.cut = 0
        self.audio_seconds = self.padded_seconds = 0.0
        self.numbers: list[float] = []

    def add(self, batch: Any, tokens: AnswerTokens) -> None:
        """Count one batch of the stream and what the model made of it."""
        numbers = [NUMBER[example.task] for example in batch.examples]
        nll_N = tokens.nll_N.detach().double()
        counted_N3 = torch.stack((nll_N, tokens.correct_N.double(), torch.ones_like(nll_N)), dim=1)
        task_B = torch.tensor(numbers, device=nll_N.device)
        self.answers_K3.index_add_(0, task_B[tokens.row_N], counted_N3)
        for number in numbers:
            self.examples[number] += 1
        self.truncated += tokens.truncated
        self.cut += sum(example.cut > 0 for example in batch.examples)
        self.audio_seconds += batch.seconds
        self.padded_seconds += batch.seconds / (1 - batch.padding)

    def sum(self, *, wait_seconds: float, flags: list[float]) -> torch.Tensor:
        """Sum over the ranks; return the number of answer tokens [] of the whole step, on the device.

        `flags` are numbers of the caller, which `read` gives back summed.
        """
        waits, memory = ([0.0] * self.ranks.world_size for _ in range(2))
        waits[self.ranks.rank], memory[self.ranks.rank] = wait_seconds, float(peak_memory(self.ranks.device))
        plain = [*self.examples, self.truncated, self.cut, self.audio_seconds, self.padded_seconds]
        numbers = torch.tensor([*plain, *waits, *memory, *flags], dtype=torch.float64, device=self.ranks.device)
        self.summed = self.ranks.sum(torch.cat((self.answers_K3.reshape(-1), numbers)))
        return self.summed[: 3 * len(NAMES)].view(-1, 3)[:, 2].sum()

    def read(self, norm: torch.Tensor, flags: int) -> tuple[float, list[float]]:
        """Wait for the device; return the gradient's norm and the summed flags, of which there are so many."""
        *self.numbers, grad_norm = torch.cat((self.summed, norm.double().reshape(1))).tolist()
        found, self.numbers = self.numbers[len(self.numbers) - flags :], self.numbers[: len(self.numbers) - flags]
        return grad_norm, found

    @property
    def nll(self) -> float:
        """Of all answer tokens together."""
        return sum(self.numbers[: 3 * len(NAMES) : 3])

    @property
    def tokens(self) -> int:
        """Answer tokens."""
        return round(sum(self.numbers[2 : 3 * len(NAMES) : 3]))

    @property
    def loss(self) -> float:
        """Mean over all answer tokens; 0 if there is none, as when all audio of a step was damaged."""
        return self.nll / self.tokens if self.tokens else 0.0

    def line(self, *, step: int, lr: float, grad_norm: float, seconds: float, skipped: tuple[str, ...]) -> StepLog:
        """Return the log's line of the step; `read` has been called."""
        tasks = len(NAMES)
        counts, rest = [round(count) for count in self.numbers[3 * tasks : 4 * tasks]], self.numbers[4 * tasks :]
        truncated, cut, audio_seconds, padded_seconds, *more = rest
        mixture = {name: count for name, count in zip(NAMES, counts, strict=True) if count}
        told = {}
        for name, number in NUMBER.items():
            nll, hits, tokens = self.numbers[3 * number : 3 * number + 3]
            if tokens:
                told[name] = TaskLog(
                    loss=nll / tokens, accuracy=hits / tokens, tokens=round(tokens), examples=mixture.get(name, 0)
                )
        return StepLog(
            step=step,
            loss=self.loss,
            tasks=told,
            tokens=self.tokens,
            lr=lr,
            grad_norm=grad_norm,
            examples=sum(counts),
            audio_seconds=audio_seconds,
            padding=1 - audio_seconds / padded_seconds if padded_seconds else 0.0,
            cut=round(cut),
            truncated=round(truncated),
            wait_seconds=max(more[: self.ranks.world_size]),
            seconds=seconds,
            clips_per_second=sum(counts) / seconds,
            tokens_per_second=self.tokens / seconds,
            mixture=mixture,
            memory=round(max(more[self.ranks.world_size :])),
            skipped=skipped,
        )


def peak_memory(device: torch.device) -> int:
    """Return the most bytes held so far: by torch on a GPU, or else by this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # Kilobytes on Linux, bytes on macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
