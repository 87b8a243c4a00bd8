"""Where a run's weights come from before its first step, and which of them learn."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import msgspec
from torch import nn

from manifests.errors import UserError
from salmonn.config import SalmonnConfig
from salmonn.model import Salmonn
from salmonn.training.run import model_digest, read_run_config
from salmonn.training.saves import STATE, Checkpoint, Torn, newest_checkpoint, read_checkpoint
from salmonn.training.settings import flatten

LOG = logging.getLogger("salmonn")
FREE = (
    *("qformer.dropout", "qformer.seed", "lora.dropout", "lora.seed", "max_answer_tokens"),
    *("prompt.template", "prompt.speech"),
)
"""Settings of a model that one stage may change for the next: the trained weights mean the same without them."""
FROZEN = ("whisper", "llm", "beats")
"""Tables that say where frozen weights lie; what counts is that the weights themselves are the same."""


def init_from(model: Salmonn, source: str, frozen: str) -> None:
    """Fill in the trained weights of another run, of one checkpoint, or of a released ``.pth``.

    `frozen` is the model's `frozen_digest`. UserError if there is nothing at `source`, or if it was trained on other
    frozen weights, or with other sizes or settings that its weights depend on.
    """
    path = Path(source)
    if path.is_file():
        from salmonn.checkpoint import read_released

        ignored = read_released(model, path)
        LOG.info("%s: %d entries are not trained weights and were left out", path, len(ignored))
        return
    checkpoint = find_checkpoint(path)
    demand_fitting(checkpoint, model.config, frozen)
    try:
        model.load_trainable(checkpoint.model)
    except UserError as error:
        raise UserError(f"init_from: {checkpoint.path}: {error}") from None
    LOG.info("the weights begin as those of %s", checkpoint.path)


def find_checkpoint(path: Path) -> Checkpoint:
    """Return the checkpoint in `path`, or the newest one of the run in `path`."""
    if (path / STATE).is_file():
        try:
            return read_checkpoint(path)
        except Torn as reason:
            raise UserError(f"init_from: the checkpoint {path} is torn ({reason}); take another") from None
    if not path.is_dir():
        raise UserError(
            f"init_from: there is nothing at {str(path)!r}; it can be the folder of a run, of a checkpoint, or a "
            "released .pth file"
        )
    found = newest_checkpoint(path / "checkpoints")
    if found is None:
        raise UserError(f"init_from: {str(path)!r} has no checkpoint; it can be the folder of a run that has one")
    return found


def demand_fitting(checkpoint: Checkpoint, now: SalmonnConfig, frozen: str) -> None:
    """Raise UserError unless the trained weights of a checkpoint mean the same in the model `now`."""
    state, where = checkpoint.state, checkpoint.path
    if state.config != model_digest(now):
        # Only the run knows which settings these were; a checkpoint has their digest.
        changed = changed_settings(settings_of(checkpoint), now)
        if changed:
            raise UserError(f"init_from: {where} was trained as another model: {'; '.join(changed)}")
    if state.frozen != frozen:
        raise UserError(
            f"init_from: {where} was trained with other frozen weights (sha256 {state.frozen[:12]}, here "
            f"{frozen[:12]}); trained weights mean nothing on another base model"
        )


def settings_of(checkpoint: Checkpoint) -> SalmonnConfig:
    """Return the model's settings from the config.json of the run that a checkpoint lies in."""
    run = checkpoint.path.resolve().parent.parent
    try:
        sizes = read_run_config(run).sizes
    except UserError:
        sizes = None
    if sizes is None or model_digest(sizes) != checkpoint.state.config:
        raise UserError(
            f"init_from: {checkpoint.path} was trained with other model settings, and the config.json of its run is "
            "not beside it to say which; name the checkpoint within its run's folder"
        )
    return sizes


def changed_settings(then: SalmonnConfig, now: SalmonnConfig) -> list[str]:
    """Return what a model's trained weights depend on and differs, as ``lora.r was 8, is 4``."""
    old, new = (flatten(msgspec.to_builtins(config)) for config in (then, now))
    names = [name for name in sorted(old.keys() | new.keys()) if name not in FREE and name.split(".")[0] not in FROZEN]
    return [f"{name} was {old.get(name)!r}, is {new.get(name)!r}" for name in names if old.get(name) != new.get(name)]


def learning(model: Salmonn, parts: tuple[str, ...], trained: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    """Return those of the trained weights that learn in this run: of the parts named, or all if none is.

    UserError if a part is empty in this model, or holds a weight that is not trained.
    """
    if not parts:
        return dict(trained)
    of = model.parts()
    for part in parts:
        if not of.get(part):
            known = ", ".join(sorted(name for name, names in of.items() if names))
            raise UserError(f"parts: this model has nothing trained in {part!r}; it has {known}")
    named = {name for part in parts for name in of[part]}
    assert named <= trained.keys(), "a part names trained weights only"
    return {name: weight for name, weight in trained.items() if name in named}
