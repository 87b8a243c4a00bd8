"""Who answers: anything that hears sounds and is asked, and here the model of a run at one of its checkpoints."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np
import numpy.typing as npt
import torch

from manifests.errors import UserError
from salmonn.evaluation.request import Decoding
from salmonn.model import Salmonn
from salmonn.parts import seeded
from salmonn.training.run import fill_model, pick_device, read_run_config
from salmonn.training.saves import MODEL, Checkpoint, Torn, checkpoint_paths, newest_checkpoint, read_checkpoint

__all__ = ["Decoding", "Reply", "Respondent", "RunModel", "RunRespondent"]


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What was answered."""

    answer: str
    finished: bool
    """Whether the answer was ended, within the allowed number of tokens."""


class Respondent(Protocol):
    """Anything that can be asked about sounds."""

    @property
    def name(self) -> str:
        """What the rows of its answers call it: another name wherever it might answer otherwise."""
        ...

    def reply(
        self, waves: Sequence[npt.NDArray[np.float32]], prompts: Sequence[str], decoding: Decoding
    ) -> list[Reply]:
        """Return an answer for each sound (mono, 16 kHz, in [-1, 1]) and its bare prompt."""
        ...


class RunModel:
    """The model of a run, made once however many of its checkpoints answer."""

    def __init__(self, run: str | Path) -> None:
        """Stand before the run in the folder `run`; UserError if there is none."""
        self.config = read_run_config(run)
        self.folder = self.config.folder / "checkpoints"
        self.model: Salmonn | None = None
        self.frozen = ""
        self.filled: RunRespondent | None = None
        """Whose weights it has."""

    def steps(self) -> list[int]:
        """Return the steps at which it can be asked, in order: those kept, and 0 if it began with others' weights."""
        kept = [int(path.name.partition("-")[2]) for path in checkpoint_paths(self.folder)]
        begun = self.config.init_from and Path(self.config.init_from).exists()
        return [0, *kept] if begun else kept

    def at(self, step: int | None = None) -> RunRespondent:
        """Return the run at a step, by default the newest; UserError if it cannot be asked there."""
        if step is None:
            checkpoint = newest_checkpoint(self.folder)
            if checkpoint is None:
                raise UserError(f"the run {self.config.run!r} has no checkpoint yet; train it first")
            return self.of(checkpoint)
        if step not in self.steps():
            kept = ", ".join(map(str, self.steps())) or "none"
            raise UserError(
                f"the run {self.config.run!r} has no checkpoint at step {step}; kept are {kept} "
                "(keep and checkpoint_every in its settings say which)"
            )
        if step == 0:
            return self.start(self.config.init_from)
        try:
            return self.of(read_checkpoint(self.folder / f"step-{step:06d}"))
        except Torn as reason:
            raise UserError(f"the checkpoint at step {step} of {self.config.run!r} is torn ({reason})") from None

    def of(self, checkpoint: Checkpoint) -> RunRespondent:
        """Return the run as a checkpoint has it."""
        # The optimizer's memory is twice the weights, and no use here.
        checkpoint = dataclasses.replace(checkpoint, optimizer={})

        def load(model: Salmonn) -> None:
            fill_model(model, checkpoint, self.frozen)

        return RunRespondent(self, checkpoint.state.step, checkpoint.state.files[MODEL], load)

    def start(self, source: str) -> RunRespondent:
        """Return the run before its first step, with the weights that it began with."""
        from salmonn.training.start import find_checkpoint, init_from

        if Path(source).is_file():
            with open(source, "rb") as file:
                weights = hashlib.file_digest(file, "sha256").hexdigest()
        else:
            weights = find_checkpoint(Path(source)).state.files[MODEL]
        return RunRespondent(self, 0, weights, lambda model: init_from(model, source, self.frozen))

    def fill(self, respondent: RunRespondent) -> Salmonn:
        """Return the model with a respondent's weights, in eval mode, on a GPU if there is one."""
        if self.model is None:
            if self.config.threads:
                torch.set_num_threads(self.config.threads)
            self.model = Salmonn.from_config(self.config.sizes, pick_device(self.config)).eval()
            self.frozen = self.model.frozen_digest()
        if self.filled is not respondent:
            respondent.load(self.model)
            self.filled = respondent
        return self.model

    @property
    def scaling(self) -> float:
        """LoRA's scaling as trained: alpha / r, 4 in the paper."""
        return self.config.sizes.lora.alpha / self.config.sizes.lora.r


class RunRespondent:
    """The model of a run at one step."""

    def __init__(self, run: RunModel, step: int, weights: str, load: Callable[[Salmonn], None]) -> None:
        """Answer with the weights of sha256 `weights`, which `load` puts into a model when it is first asked."""
        self.run, self.step, self.weights, self.load = run, step, weights, load

    @property
    def name(self) -> str:
        """The run's folder, the step, and the first letters of the digest of its weights."""
        return f"{self.run.config.folder.resolve().name}@{self.step}-{self.weights[:12]}"

    def model(self) -> Salmonn:
        """Return the model."""
        return self.run.fill(self)

    def reply(
        self, waves: Sequence[npt.NDArray[np.float32]], prompts: Sequence[str], decoding: Decoding
    ) -> list[Reply]:
        """Return the answers, each as it would be alone."""
        model = self.model()
        wrapped = [model.config.prompt.wrap(prompt) for prompt in prompts]
        with seeded(decoding.seed):
            ids = model.generate_ids(waves, wrapped, decoding.beams, decoding.max_new_tokens, decoding.lora_scale)
        end = model.tokenizer.eos_token_id
        return [Reply(answer=model.decode(new), finished=new[-1:] == [end]) for new in ids]
