"""The teller of stories: a run's newest checkpoint, asked about one clip at a time at a reduced LoRA scale."""

from __future__ import annotations

import torch
import transformers

from manifests.errors import UserError
from salmonn.model import Salmonn
from salmonn.parts import seeded
from salmonn.story_plan import Telling, Writer
from salmonn.training.run import load_run, read_run_config
from salmonn.training.saves import MODEL, newest_checkpoint
from shards.audio import Wave


class RunTeller:
    """Tells stories with the model of a run; the model is made when the first is told."""

    def __init__(self, run: str, telling: Telling) -> None:
        """Stand before the newest checkpoint of the folder `run`; UserError if it has none."""
        self.telling = telling
        self.config = read_run_config(run)
        checkpoint = newest_checkpoint(self.config.folder / "checkpoints")
        if checkpoint is None:
            raise UserError(f"the run {run!r} has no checkpoint yet; train it first")
        state = checkpoint.state
        self.writer = Writer(
            run=self.config.folder.resolve().name,
            step=state.step,
            weights=state.files[MODEL],
            model=state.config,
            frozen=state.frozen,
            tools={"torch": str(torch.__version__), "transformers": transformers.__version__},
        )
        self.model: Salmonn | None = None

    def __call__(self, wave: Wave, prompt: str, seed: int) -> tuple[str, bool]:
        """Return what the model says of a clip, and whether it ended that itself; `seed` is of the tokens it draws.

        One clip at a time: a story does not depend on which others are told, nor on where a killed run goes on.
        """
        model, telling = self.loaded(), self.telling
        with seeded(seed % 2**63):
            [ids] = model.generate_ids(
                [wave],
                [model.config.prompt.wrap(prompt)],
                telling.beams,
                telling.max_new_tokens,
                telling.lora_scale,
                telling.temperature,
            )
        return model.decode(ids), ids[-1:] == [model.tokenizer.eos_token_id]

    def loaded(self) -> Salmonn:
        """Return the model."""
        if self.model is None:
            if self.config.threads:
                torch.set_num_threads(self.config.threads)
            _, self.model, step = load_run(self.config.run)
            if step != self.writer.step:
                raise UserError(
                    f"the run {self.config.run!r} went from step {self.writer.step} to {step} just now; "
                    "wait until its training has ended, and tell the stories then"
                )
        return self.model
