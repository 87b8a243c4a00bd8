"""One training step over all ranks: batches forward and backward, everything summed, the weights moved."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from salmonn.model import Salmonn
from salmonn.training.gradients import Gradients
from salmonn.training.optimizer import learning_rate
from salmonn.training.parallel import Ranks, share_of
from salmonn.training.run import StepLog
from salmonn.training.settings import TrainConfig
from salmonn.training.suspects import Suspects
from salmonn.training.tally import Tally


class BatchStream(Protocol):
    """What the trainer needs of shards.Stream; its `skipped`, if it has one, names what was damaged so far."""

    def __iter__(self) -> Iterator[Any]:
        """Deal this rank's share of the `micro_batches` of each step, without end."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return how far the stream has been dealt."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        ...


class Learner:
    """Takes steps with a model, its optimizer and this rank's share of the batches."""

    def __init__(
        self,
        config: TrainConfig,
        model: Salmonn,
        weights: Mapping[str, nn.Parameter],
        optimizer: torch.optim.Optimizer,
        stream: BatchStream,
        ranks: Ranks,
    ) -> None:
        """Learn `weights`, the only ones of the model that require a gradient."""
        self.config, self.model, self.optimizer, self.stream, self.ranks = config, model, optimizer, stream, ranks
        self.share = share_of(config.batch.micro_batches, ranks)
        self.batches = Batches(stream)
        self.gradients = Gradients(weights.values(), ranks)
        self.known = 0
        """How many of this rank's damaged samples have been told."""

    def close(self) -> None:
        """Let the stream end its threads."""
        self.batches.close()

    def learn(
        self, step: int, *, check: Callable[[], None], asked: list[int], skipped: set[str]
    ) -> tuple[StepLog, bool]:
        """Take step number `step`, from 1; return its line, and whether `asked` of any rank holds a wish to stop.

        The loss is the sum over the answer tokens of all batches of all ranks, divided by their number. `check` is
        called first; what it raises stops all ranks. Damaged samples are told if not in `skipped`, and added to it.
        """
        began, adam = time.perf_counter(), self.config.adam
        tally, suspects = Tally(self.ranks), Suspects()
        lr = learning_rate(adam, step - 1, self.config.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.gradients.clear()
        trouble: Exception | None = None
        try:
            check()
            for _ in range(self.share):
                self.add(self.batches.take(), tally, suspects)
        except Exception as error:
            # The others wait for this rank's sums: it gives them, and all stop. Within a model cut over the ranks
            # they wait elsewhere, and whoever started them ends them.
            if self.ranks.world_size == 1 or self.config.shard_frozen:
                raise
            trouble = error
        fresh = self.damaged()
        flags = [float(trouble is not None), float(bool(asked)), float(len(fresh))]
        # From here to `read` the device is not waited for.
        count = tally.sum(wait_seconds=self.batches.waited(), flags=flags)
        self.gradients.mean(count.clamp(min=1))
        norm, (failed, stop, skips) = tally.read(self.gradients.clip(adam.clip_norm), len(flags))
        if failed:
            self.ranks.raise_any(trouble)
        if not math.isfinite(norm) or not math.isfinite(tally.loss):
            suspects.refuse(self.config, self.ranks, step=step, loss=tally.loss, norm=norm)
        if tally.tokens:  # none if all audio of the step was damaged
            self.optimizer.step()
        told = {name for of_rank in self.ranks.gather(fresh) for name in of_rank} - skipped if skips else set()
        skipped |= told
        seconds = time.perf_counter() - began
        line = tally.line(step=step, lr=lr, grad_norm=norm, seconds=seconds, skipped=tuple(sorted(told)))
        return line, stop > 0

    def add(self, batch: Any, tally: Tally, suspects: Suspects) -> None:
        """Add one batch to the step: its gradients, and its counts."""
        examples = batch.examples
        waveforms, answers = [example.audio for example in examples], [example.answer for example in examples]
        prompts = [self.model.config.prompt.wrap(example.prompt) for example in examples]
        if not examples:
            if not self.config.shard_frozen:
                return
            # A model cut over the ranks is run by all or none: a second of silence, which counts for nothing.
            waveforms, answers = [np.zeros(16_000, np.float32)], ["."]
            prompts = [self.model.config.prompt.wrap("?")]
        with torch.autocast(self.ranks.device.type, torch.bfloat16, enabled=takes_bfloat16(self.config, self.ranks)):
            tokens = self.model.answer_tokens(waveforms, prompts, answers)
        (tokens.nll_N.sum() * bool(examples)).backward()  # type: ignore[no-untyped-call]
        if examples:
            tally.add(batch, tokens)
            suspects.add(examples, tokens)

    def damaged(self) -> list[str]:
        """Return what this rank's stream has left out since this was last asked."""
        fresh = list(getattr(self.stream, "skipped", ()))[self.known :]
        self.known += len(fresh)
        return fresh


def takes_bfloat16(config: TrainConfig, ranks: Ranks) -> bool:
    """Return whether products are taken in bfloat16; ``auto`` is on a GPU."""
    return config.precision == "bfloat16" or (config.precision == "auto" and ranks.device.type == "cuda")


class Batches:
    """The stream's batches, with a clock on the waiting."""

    def __init__(self, stream: BatchStream) -> None:
        """Begin where the stream stands."""
        self.iterator = iter(stream)
        self.seconds = 0.0

    def take(self) -> Any:
        """Return the next batch."""
        began = time.perf_counter()
        batch = next(self.iterator)
        self.seconds += time.perf_counter() - began
        return batch

    def waited(self) -> float:
        """Return the seconds spent waiting since this was last asked."""
        seconds, self.seconds = self.seconds, 0.0
        return seconds

    def close(self) -> None:
        """Let the stream end its threads."""
        if isinstance(self.iterator, Generator):
            self.iterator.close()
