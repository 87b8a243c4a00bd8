"""Training: one loop from the stream to the checkpoints, resumed to the bit."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec
import torch

from manifests import load_recipe
from manifests.errors import UserError
from salmonn.interrupt import stop_signals
from salmonn.model import Salmonn
from salmonn.training.optimizer import learning_rate, load_optimizer_tensors, make_optimizer, optimizer_tensors
from salmonn.training.run import Log, StepLog, fill_model, model_digest, open_run, pick_device
from salmonn.training.saves import (
    RNG,
    newest_checkpoint,
    random_state,
    remove_unfinished,
    set_random_state,
    write_checkpoint,
)
from salmonn.training.settings import TrainConfig, resolve
from salmonn.training.tally import Tally
from shards import Dataset, Stream

LOG = logging.getLogger("salmonn")


class BatchStream(Protocol):
    """What the trainer needs of shards.Stream."""

    def __iter__(self) -> Iterator[Any]:
        """Deal batches, `micro_batches` a step, without end."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return how far the stream has been dealt."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        ...


class RunResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a call of `train` did."""

    run: Path
    steps: int
    """Steps done in the whole run so far."""
    resumed_from: int
    """The step this call went on from; 0 for a new run."""
    first_loss: float
    """Of the first step of the whole run."""
    last_loss: float
    seconds: float
    """Of this call, from the first batch on."""
    tokens: int
    """Answer tokens learnt from in this call."""
    ended: Literal["done", "stop_after", "signal"]
    """Why the call returned."""


def train(
    config: TrainConfig,
    *,
    stop_after: int | None = None,
    on_step: Callable[[StepLog], None] | None = None,
    reseed: bool = False,
) -> RunResult:
    """Train, or go on training, the run that `config` describes; return what was done.

    A run folder that has checkpoints is resumed, and its losses equal those of a run never stopped, to the bit.
    `stop_after` ends this call after so many steps, with a checkpoint. With `reseed` the run goes on, but its examples
    are dealt from the beginning: of another dataset, recipe or seed, if they changed. SIGINT and SIGTERM end the call
    after the step. UserError if the folder belongs to other settings, or the settings name what is not there.
    """
    config = resolve(config)
    batch = config.batch
    stream = Stream(
        Dataset(config.dataset),
        load_recipe(config.recipe),
        stage=config.stage,
        seed=config.seed,
        rank=0,
        world_size=1,
        micro_batches=batch.micro_batches,
        max_seconds=batch.max_seconds,
        max_examples=batch.max_examples,
        epochs=None,
        threads=batch.readers,
    )
    return run_training(config, stream, stop_after=stop_after, on_step=on_step, reseed=reseed)


def run_training(
    config: TrainConfig,
    stream: BatchStream,
    *,
    stop_after: int | None = None,
    on_step: Callable[[StepLog], None] | None = None,
    reseed: bool = False,
) -> RunResult:
    """Do what `train` does, on any stream; `config` is resolved."""
    if stop_after is not None and stop_after < 1:
        raise UserError(f"stop_after is {stop_after}; it must be at least 1")
    open_run(config, reseed=reseed)
    if config.threads:
        torch.set_num_threads(config.threads)
    trainer = Trainer(config, Salmonn.from_config(config.sizes), stream)
    trainer.resume(reseed=reseed)
    return trainer.run(stop_after=stop_after, on_step=on_step)


class Trainer:
    """A model, its optimizer and its stream, at one step of a run."""

    def __init__(self, config: TrainConfig, model: Salmonn, stream: BatchStream) -> None:
        """Stand before the first step; `config` is resolved."""
        self.config = config
        self.stream = stream
        self.model = model.to(pick_device(config)).train()
        self.weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        self.optimizer = make_optimizer(self.weights, config.adam)
        self.frozen = model.frozen_digest()
        self.folder = config.folder / "checkpoints"
        self.log = Log(config.folder)
        self.step = 0
        self.saved = 0
        torch.manual_seed(config.seed)

    def resume(self, *, reseed: bool = False) -> None:
        """Go to the newest whole checkpoint, if there is one: weights, optimizer, random numbers, stream and log.

        With `reseed` the stream stays at its beginning.
        """
        remove_unfinished(self.folder)
        checkpoint = newest_checkpoint(self.folder)
        if checkpoint is not None:
            state = checkpoint.state
            if state.horizon != self.config.steps:
                LOG.warning(
                    "this run goes on to %d steps instead of %d: from here its learning rate follows the longer cosine",
                    self.config.steps,
                    state.horizon,
                )
            fill_model(self.model, checkpoint, self.frozen)
            memory = {name: x for name, x in checkpoint.optimizer.items() if not name.startswith(RNG)}
            load_optimizer_tensors(self.weights, self.optimizer, memory)
            if not reseed:
                self.stream.load_state_dict(state.stream)
            set_random_state(checkpoint.optimizer)
            self.step = self.saved = state.step
        self.log.cut_back(self.step)

    def run(self, *, stop_after: int | None, on_step: Callable[[StepLog], None] | None) -> RunResult:
        """Take steps until the run is done, `stop_after` steps are taken, or a signal asks to stop; then save."""
        began, first, tokens = time.perf_counter(), self.step, 0
        goal = self.config.steps if stop_after is None else min(self.config.steps, first + stop_after)
        with stop_signals() as asked, contextlib.closing(Batches(self.stream)) as batches:
            while self.step < goal and not asked:
                line = self.learn(batches)
                tokens += line.tokens
                self.log.append(line)
                if self.step % self.config.checkpoint_every == 0:
                    self.save()
                if on_step is not None:
                    on_step(line)
            if self.saved < self.step:
                self.save()
        lines = self.log.lines()
        return RunResult(
            run=self.config.folder,
            steps=self.step,
            resumed_from=first,
            first_loss=lines[0].loss,
            last_loss=lines[-1].loss,
            seconds=time.perf_counter() - began,
            tokens=tokens,
            ended="done" if self.step == self.config.steps else "signal" if asked else "stop_after",
        )

    def learn(self, batches: Batches) -> StepLog:
        """Take one step: the loss is the sum over the answer tokens of all its batches, divided by their number."""
        began, adam = time.perf_counter(), self.config.adam
        tally = Tally()
        lr = learning_rate(adam, self.step, self.config.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        for _ in range(self.config.batch.micro_batches):
            batch = batches.take()
            examples = batch.examples
            prompts = [self.model.config.prompt.wrap(example.prompt) for example in examples]
            tokens = self.model.answer_tokens([e.audio for e in examples], prompts, [e.answer for e in examples])
            tokens.nll_N.sum().backward()  # type: ignore[no-untyped-call]
            tally.add(batch, tokens)
        # The number of tokens is known only now, and dividing the gradients is the same as dividing the loss.
        for weight in self.weights.values():
            if weight.grad is not None:
                weight.grad /= tally.tokens
        norm = float(torch.nn.utils.clip_grad_norm_(self.weights.values(), adam.clip_norm or math.inf))
        if not math.isfinite(norm):
            raise UserError(
                f"step {self.step + 1}: the gradient is {norm} (loss {tally.loss}); the weights were left alone. "
                f"Lower optimizer.peak_lr ({adam.peak_lr}) or set optimizer.clip_norm, and train in a new folder"
            )
        self.optimizer.step()
        self.step += 1
        return tally.line(
            step=self.step,
            lr=lr,
            grad_norm=norm,
            wait_seconds=batches.waited(),
            seconds=time.perf_counter() - began,
        )

    def save(self) -> None:
        """Write a checkpoint of this step."""
        write_checkpoint(
            self.folder,
            step=self.step,
            horizon=self.config.steps,
            model=self.model.trainable_state(),
            optimizer=optimizer_tensors(self.weights, self.optimizer) | random_state(),
            stream=self.stream.state_dict(),
            config=model_digest(self.model.config),
            frozen=self.frozen,
            keep=self.config.keep,
        )
        self.saved = self.step


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
