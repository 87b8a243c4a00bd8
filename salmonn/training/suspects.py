"""What to name when a step came to no number: the examples it learnt from, those of no finite loss first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import msgspec
import torch

from manifests.errors import UserError
from salmonn.model import AnswerTokens
from salmonn.training.parallel import Ranks
from salmonn.training.run import replace_file
from salmonn.training.settings import TrainConfig

STOPPED = "stopped.json"
"""In the run's folder: the step, its loss, and the keys of all its examples."""
NAMED = 16
"""Keys that the message names."""


class Suspects:
    """The examples of one step on one rank."""

    def __init__(self) -> None:
        """Begin with none."""
        self.batches: list[tuple[list[str], torch.Tensor, torch.Tensor]] = []

    def add(self, examples: Sequence[Any], tokens: AnswerTokens) -> None:
        """Note a batch; nothing is read from the device."""
        self.batches.append(([e.key for e in examples], tokens.nll_N.detach(), tokens.row_N))

    def keys(self) -> tuple[list[str], list[str]]:
        """Return the keys of the examples whose own loss is no finite number, and those of all."""
        bad, every = [], []
        for keys, nll_N, row_N in self.batches:
            every += keys
            bad += [keys[row] for row in sorted(set(row_N[~nll_N.isfinite()].tolist()))]
        return bad, every

    def refuse(self, config: TrainConfig, ranks: Ranks, *, step: int, loss: float, norm: float) -> NoReturn:
        """Write stopped.json, and stop on all ranks with the keys of the step's examples, which all ranks tell."""
        told = ranks.gather(self.keys())
        bad, every = ([key for of_rank in told for key in of_rank[which]] for which in (0, 1))
        if ranks.first:
            report = {"step": step, "loss": str(loss), "grad_norm": str(norm), "without_loss": bad, "keys": every}
            replace_file(config.folder / STOPPED, msgspec.json.format(msgspec.json.encode(report)) + b"\n")
        first = list(dict.fromkeys([*bad, *every]))
        more = f" and {len(first) - NAMED} more, all in {config.folder / STOPPED}" if len(first) > NAMED else ""
        which = f"; {len(bad)} of its examples, named first, have no finite loss" if bad else ""
        raise UserError(
            f"step {step}: the loss is {loss} and the norm of the gradient {norm}{which}; the weights were left alone. "
            f"The step's examples: {', '.join(first[:NAMED])}{more}. Look at them (salmonn peek), lower "
            f"optimizer.peak_lr ({config.adam.peak_lr}) or set optimizer.clip_norm, and train in a new folder"
        )
