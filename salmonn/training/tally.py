"""The counts of one training step, over all its batches and by task."""

from __future__ import annotations

from typing import Any

from salmonn.model import AnswerTokens
from salmonn.training.run import StepLog, TaskLog


class Tally:
    """Sums over the batches of a step; `line` turns them into means."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.tasks: dict[str, tuple[float, int, int]] = {}
        self.nll = 0.0
        self.tokens = self.examples = self.truncated = self.cut = 0
        self.audio_seconds = self.padded_seconds = 0.0

    @property
    def loss(self) -> float:
        """Mean over all answer tokens so far."""
        return self.nll / self.tokens

    def add(self, batch: Any, tokens: AnswerTokens) -> None:
        """Count one batch of the stream and what the model made of it."""
        nlls, hits, rows = tokens.nll_N.detach().tolist(), tokens.correct_N.tolist(), tokens.row_N.tolist()
        for nll, hit, row in zip(nlls, hits, rows, strict=True):
            task = batch.examples[row].task
            before = self.tasks.get(task, (0.0, 0, 0))
            self.tasks[task] = (before[0] + nll, before[1] + hit, before[2] + 1)
        self.nll += float(tokens.nll_N.detach().double().sum())
        self.tokens += len(nlls)
        self.examples += len(batch.examples)
        self.truncated += tokens.truncated
        self.cut += sum(example.cut > 0 for example in batch.examples)
        self.audio_seconds += batch.seconds
        self.padded_seconds += batch.seconds / (1 - batch.padding)

    def line(self, *, step: int, lr: float, grad_norm: float, wait_seconds: float, seconds: float) -> StepLog:
        """Return the log's line of the step."""
        return StepLog(
            step=step,
            loss=self.loss,
            tasks={
                task: TaskLog(loss=nll / count, accuracy=hits / count, tokens=count)
                for task, (nll, hits, count) in sorted(self.tasks.items())
            },
            tokens=self.tokens,
            lr=lr,
            grad_norm=grad_norm,
            examples=self.examples,
            audio_seconds=self.audio_seconds,
            padding=1 - self.audio_seconds / self.padded_seconds,
            cut=self.cut,
            truncated=self.truncated,
            wait_seconds=wait_seconds,
            seconds=seconds,
        )
