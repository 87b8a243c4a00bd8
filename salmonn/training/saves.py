"""Checkpoints of a run: whole or not at all, checked when read, and never a pickle.

RUN/checkpoints/step-000100/
model.safetensors        the trained tensors
optimizer.safetensors    the optimizer's memory, and the state of torch's random numbers
state.json               the step, the stream's state, and the digests of all this rests on
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import safetensors.torch
import torch
from safetensors import SafetensorError

from manifests.errors import UserError

LOG = logging.getLogger("salmonn")
NAME = re.compile(r"step-(\d{6,})")
MODEL, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"
TEMPORARY = ".writing-"
RNG = "random/"
"""Prefix of the random states among the optimizer's tensors."""


class State(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What state.json holds."""

    step: int
    """Steps done."""
    horizon: int
    """Steps the learning rate's cosine was laid over."""
    stream: dict[str, Any]
    """The stream's own state."""
    config: str
    """sha256 of the model's configuration."""
    frozen: str
    """sha256 of the frozen weights."""
    files: dict[str, str]
    """File name to sha256."""


class Torn(Exception):
    """A checkpoint that is not whole; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A checkpoint that was read and found whole."""

    path: Path
    state: State
    model: dict[str, torch.Tensor]
    optimizer: dict[str, torch.Tensor]


def save_safetensors(tensors: Mapping[str, torch.Tensor]) -> bytes:
    """Return the file's bytes, the same for the same tensors whatever their order or device."""
    return safetensors.torch.save({name: tensors[name].detach().cpu().contiguous().clone() for name in sorted(tensors)})


def write_checkpoint(
    folder: Path,
    *,
    step: int,
    horizon: int,
    model: Mapping[str, torch.Tensor],
    optimizer: Mapping[str, torch.Tensor],
    stream: dict[str, Any],
    config: str,
    frozen: str,
    keep: int,
) -> Path:
    """Write ``folder/step-NNNNNN``, then remove all but the newest `keep`; return its path.

    Everything goes into a folder of another name, reaches the disk, and is renamed: killed at any point, the
    checkpoint is there or it is not.
    """
    path = folder / f"step-{step:06d}"
    temporary = folder / f"{TEMPORARY}{path.name}-{os.getpid()}"
    remove_unfinished(folder)
    temporary.mkdir(parents=True)
    contents = {MODEL: save_safetensors(model), OPTIMIZER: save_safetensors(optimizer)}
    state = State(
        step=step,
        horizon=horizon,
        stream=stream,
        config=config,
        frozen=frozen,
        files={name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
    )
    contents[STATE] = msgspec.json.format(msgspec.json.encode(state, order="sorted")) + b"\n"
    for name, content in contents.items():
        write_synced(temporary / name, content)
    sync_folder(temporary)
    if path.exists():  # a torn one, or the same step reached again after falling back behind it
        shutil.rmtree(path)
    temporary.rename(path)
    sync_folder(folder)
    for old in checkpoint_paths(folder)[:-keep]:
        shutil.rmtree(old)
    return path


def checkpoint_paths(folder: Path) -> list[Path]:
    """Return the checkpoints in `folder` by step, oldest first; unfinished ones are not among them."""
    found = [path for path in folder.iterdir() if NAME.fullmatch(path.name)] if folder.is_dir() else []
    return sorted(found, key=lambda path: int(path.name.partition("-")[2]))


def remove_unfinished(folder: Path) -> None:
    """Delete what a killed writer left."""
    for path in folder.glob(f"{TEMPORARY}*"):
        shutil.rmtree(path)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read one checkpoint and verify its digests; raise Torn if anything is missing or altered."""
    try:
        state = msgspec.json.decode((path / STATE).read_bytes(), type=State)
        contents = {name: (path / name).read_bytes() for name in (MODEL, OPTIMIZER)}
        for name, content in contents.items():
            if hashlib.sha256(content).hexdigest() != state.files.get(name):
                raise Torn(f"{name} differs from its digest in {STATE}")
        tensors = {name: safetensors.torch.load(content) for name, content in contents.items()}
    except (OSError, msgspec.MsgspecError, SafetensorError) as error:
        raise Torn(str(error)) from None
    return Checkpoint(path=path, state=state, model=tensors[MODEL], optimizer=tensors[OPTIMIZER])


def newest_checkpoint(folder: Path) -> Checkpoint | None:
    """Return the newest whole checkpoint, or None if there is none at all; each torn one passed over is told.

    UserError if there are checkpoints but none is whole: to begin again is the user's decision.
    """
    paths = checkpoint_paths(folder)
    for path in reversed(paths):
        try:
            return read_checkpoint(path)
        except Torn as reason:
            LOG.warning("checkpoint %s is torn (%s); going back to the one before it", path, reason)
    if paths:
        raise UserError(f"{folder}: none of {len(paths)} checkpoint(s) is whole; remove the folder to begin again")
    return None


def write_synced(path: Path, content: bytes) -> None:
    """Write a file and wait until it is on the disk."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until the names in `folder` are on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def random_state() -> dict[str, torch.Tensor]:
    """Return torch's random states as tensors."""
    states = {f"{RNG}cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states[f"{RNG}cuda"] = torch.cuda.get_rng_state()
    return states


def set_random_state(tensors: dict[str, torch.Tensor]) -> None:
    """Set torch's random states from what `random_state` returned."""
    torch.set_rng_state(tensors[f"{RNG}cpu"])
    if torch.cuda.is_available() and f"{RNG}cuda" in tensors:
        torch.cuda.set_rng_state(tensors[f"{RNG}cuda"])
