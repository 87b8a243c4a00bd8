"""Training: one loop from the stream to the checkpoints, the same over one process or many, resumed to the bit."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import msgspec
import torch

from manifests import load_recipe
from manifests.errors import UserError
from salmonn.interrupt import stop_signals
from salmonn.model import Salmonn
from salmonn.training.learner import BatchStream, Learner
from salmonn.training.optimizer import load_optimizer_tensors, make_optimizer, optimizer_tensors
from salmonn.training.parallel import Ranks, shard_frozen, share_of
from salmonn.training.run import Log, StepLog, fill_model, model_digest, open_run, pick_device
from salmonn.training.saves import (
    RNG,
    Saver,
    newest_checkpoint,
    random_state,
    remove_unfinished,
    seed_rank,
    set_random_state,
)
from salmonn.training.settings import TrainConfig, resolve
from salmonn.training.start import init_from, learning
from shards import Dataset, Stream

LOG = logging.getLogger("salmonn")


class RunResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a call of `train` did; the same on all ranks but for the clock."""

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
    skipped: tuple[str, ...] = ()
    """The damaged samples that the whole run has left out so far, each once."""


def train(
    config: TrainConfig,
    *,
    stop_after: int | None = None,
    on_step: Callable[[StepLog], None] | None = None,
    reseed: bool = False,
) -> RunResult:
    """Train, or go on training, the run that `config` describes; return what was done.

    Started by torchrun or Ray Train, this process does its rank's share, and `on_step` is called on rank 0 only.
    A run folder that has checkpoints is resumed, and its losses equal those of a run never stopped, to the bit.
    `stop_after` ends this call after so many steps, with a checkpoint. With `reseed` the run goes on, but its examples
    are dealt from the beginning: of another dataset, recipe or seed, if they changed. SIGINT and SIGTERM to any rank
    end the call after the step. UserError if the folder belongs to other settings, or the settings name what is not
    there.
    """
    config = resolve(config)
    with Ranks.from_environment(pick_device(config)) as ranks:
        stream = ranks.together(lambda: open_stream(config, ranks))
        return run_training(config, stream, ranks=ranks, stop_after=stop_after, on_step=on_step, reseed=reseed)


def open_stream(config: TrainConfig, ranks: Ranks) -> Stream:
    """Return this rank's share of the run's stream; `batch.micro_batches` is of all ranks together."""
    batch = config.batch
    share_of(batch.micro_batches, ranks)
    return Stream(
        Dataset(config.dataset),
        load_recipe(config.recipe),
        stage=config.stage,
        seed=config.seed,
        rank=ranks.rank,
        world_size=ranks.world_size,
        micro_batches=batch.micro_batches,
        max_seconds=batch.max_seconds,
        max_examples=batch.max_examples,
        epochs=None,
        threads=batch.readers,
        skips=config.skips,
    )


def run_training(
    config: TrainConfig,
    stream: BatchStream,
    *,
    ranks: Ranks | None = None,
    stop_after: int | None = None,
    on_step: Callable[[StepLog], None] | None = None,
    reseed: bool = False,
) -> RunResult:
    """Do what `train` does, on any stream; `config` is resolved, and without `ranks` this process is alone."""
    if stop_after is not None and stop_after < 1:
        raise UserError(f"stop_after is {stop_after}; it must be at least 1")
    ranks = ranks or Ranks(device=pick_device(config))
    ranks.together(lambda: open_run(config, reseed=reseed) if ranks.first else None)
    if config.threads:
        torch.set_num_threads(config.threads)
    model = ranks.together(lambda: Salmonn.from_config(config.sizes, ranks.device, place=False))
    trainer = Trainer(config, model, stream, ranks)
    trainer.resume(reseed=reseed)
    return trainer.run(stop_after=stop_after, on_step=on_step)


class Trainer:
    """A model, its optimizer and its share of the stream, at one step of a run."""

    def __init__(self, config: TrainConfig, model: Salmonn, stream: BatchStream, ranks: Ranks | None = None) -> None:
        """Stand before the first step; `config` is resolved."""
        self.config, self.stream = config, stream
        self.ranks = ranks or Ranks(device=pick_device(config))
        self.frozen = model.frozen_digest()
        self.ranks.demand_equal("the sha256 of the frozen weights", self.frozen)
        if config.shard_frozen:  # before any of it is on the device, which may not hold the whole
            shard_frozen(model.llm, self.ranks)
        self.model = model.to(self.ranks.device).train()
        self.trained = {name: weight for name, weight in self.model.named_parameters() if weight.requires_grad}
        """All that a checkpoint holds."""
        self.weights = self.ranks.together(lambda: learning(self.model, config.parts, self.trained))
        """Those that this run changes."""
        if config.compile or config.gradient_checkpointing:
            self.model.speed_up(compile=config.compile, gradient_checkpointing=config.gradient_checkpointing)
        self.optimizer = make_optimizer(self.weights, config.adam)
        self.folder = config.folder / "checkpoints"
        self.saver = Saver(self.folder, config.keep)
        self.log = Log(config.folder)
        self.step = self.saved = 0
        self.asked = False
        """Whether a signal asked some rank to stop, as of the last step."""
        self.skipped: set[str] = set()
        """The damaged samples that were told."""
        seed_rank(self.ranks, config.seed)

    def resume(self, *, reseed: bool = False) -> None:
        """Go to the newest whole checkpoint, if there is one: weights, optimizer, random numbers, stream and log.

        With `reseed` the stream stays at its beginning. A run without a checkpoint starts from `init_from`, if given.
        """
        self.ranks.together(lambda: remove_unfinished(self.folder) if self.ranks.first else None)
        self.step = self.saved = self.ranks.together(lambda: self.load(reseed=reseed))
        self.ranks.demand_equal("the newest checkpoint's step", self.step)
        if self.ranks.first:
            self.log.cut_back(self.step)
            self.skipped = {name for line in self.log.lines() for name in line.skipped}

    def load(self, *, reseed: bool) -> int:
        """Fill in what the newest whole checkpoint holds, or else the weights of `init_from`; return its step."""
        checkpoint = newest_checkpoint(self.folder)
        if checkpoint is None:
            if self.config.init_from:
                init_from(self.model, self.config.init_from, self.frozen)
            return 0
        state = checkpoint.state
        if state.horizon != self.config.steps and self.ranks.first:
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
        set_random_state(checkpoint.optimizer, self.ranks, self.config.seed, state.step)
        return state.step

    def run(self, *, stop_after: int | None, on_step: Callable[[StepLog], None] | None) -> RunResult:
        """Take steps until the run is done, `stop_after` steps are taken, or a signal asks to stop; then save."""
        began, first, tokens = time.perf_counter(), self.step, 0
        goal = self.config.steps if stop_after is None else min(self.config.steps, first + stop_after)
        with contextlib.ExitStack() as stack:
            asked = stack.enter_context(stop_signals())
            stack.enter_context(self.saver)
            stack.enter_context(self.only_learning())
            write = self.listeners(stack, on_step)
            of = (self.config, self.model, self.weights, self.optimizer, self.stream, self.ranks)
            learner = stack.enter_context(contextlib.closing(Learner(*of)))
            while self.step < goal and not self.stops(asked):
                line, self.asked = learner.learn(
                    self.step + 1, check=self.saver.check, asked=asked, skipped=self.skipped
                )
                self.step += 1
                tokens += line.tokens
                if self.step == first + 1 and self.ranks.first:
                    self.saver.reserve(model=self.trained, optimizer=optimizer_tensors(self.weights, self.optimizer))
                if self.ranks.first:
                    self.log.append(line)
                if self.step % self.config.checkpoint_every == 0:
                    self.save()
                if self.ranks.first:
                    write(line)
            if self.saved < self.step:
                self.save()
        # What rank 0 wrote is told to all, whether or not they can read it.
        lines = self.log.lines() if self.ranks.first else []
        ends = (lines[0].loss, lines[-1].loss) if lines else (0.0, 0.0)
        ends, skipped = self.ranks.gather((ends, tuple(sorted(self.skipped))))[0]
        if skipped and self.ranks.first:
            LOG.warning("%d damaged samples were left out of this run: %s", len(skipped), "; ".join(skipped))
        return RunResult(
            run=self.config.folder,
            steps=self.step,
            resumed_from=first,
            first_loss=ends[0],
            last_loss=ends[1],
            seconds=time.perf_counter() - began,
            tokens=tokens,
            ended="done" if self.step == self.config.steps else "signal" if self.stops(asked) else "stop_after",
            skipped=skipped,
        )

    def listeners(
        self, stack: contextlib.ExitStack, on_step: Callable[[StepLog], None] | None
    ) -> Callable[[StepLog], None]:
        """Return what tells a step to those who asked; the loggers are open as long as `stack`."""
        listeners = [] if on_step is None else [on_step]
        if self.config.loggers and self.ranks.first:
            from salmonn.training.loggers import Loggers

            settings = msgspec.to_builtins(self.config)
            loggers = stack.enter_context(
                contextlib.closing(Loggers(self.config.loggers, self.config.folder, settings))
            )
            listeners.append(loggers.write)

        def tell(line: StepLog) -> None:
            for listener in listeners:
                listener(line)

        return tell

    def stops(self, asked: list[int]) -> bool:
        """Whether to stop before the next step: many ranks agree on it within a step."""
        return self.asked or (self.ranks.world_size == 1 and bool(asked))

    @contextlib.contextmanager
    def only_learning(self) -> Iterator[None]:
        """Freeze the trained weights that do not learn in this run, inside."""
        for name, weight in self.trained.items():
            weight.requires_grad_(name in self.weights)
        try:
            yield
        finally:
            for weight in self.trained.values():
                weight.requires_grad_(True)

    def save(self) -> None:
        """Begin to write a checkpoint of this step."""
        random = random_state(self.ranks)
        self.saved = self.step
        if self.ranks.first:
            self.saver.begin(
                step=self.step,
                horizon=self.config.steps,
                model=self.trained,
                optimizer=optimizer_tensors(self.weights, self.optimizer) | random,
                stream=self.stream.state_dict(),
                config=model_digest(self.model.config),
                frozen=self.frozen,
            )
