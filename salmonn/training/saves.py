"""Checkpoints of a run: whole or not at all, checked when read, and never a pickle.

RUN/checkpoints/step-000100/
model.safetensors        the trained tensors
optimizer.safetensors    the optimizer's memory, and the state of each rank's random numbers
state.json               the step, the stream's state, and the digests of all this rests on
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
import safetensors.torch
import torch
from safetensors import SafetensorError

from manifests.draw import number
from manifests.errors import Failed, UserError
from salmonn.training.buffers import safetensors_pieces
from salmonn.training.parallel import Ranks

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
    """Write ``folder/step-NNNNNN``, then remove all but the newest `keep`; return its path. Tensors are on the CPU.

    Everything goes into a folder of another name, reaches the disk, and is renamed: killed at any point, the
    checkpoint is there or it is not.
    """
    path = folder / f"step-{step:06d}"
    temporary = folder / f"{TEMPORARY}{path.name}-{os.getpid()}"
    remove_unfinished(folder)
    temporary.mkdir(parents=True)
    contents = {MODEL: safetensors_pieces(model), OPTIMIZER: safetensors_pieces(optimizer)}
    state = State(
        step=step,
        horizon=horizon,
        stream=stream,
        config=config,
        frozen=frozen,
        files={name: digest(content) for name, content in contents.items()},
    )
    for name, content in contents.items():
        write_synced(temporary / name, *content)
    write_synced(temporary / STATE, msgspec.json.format(msgspec.json.encode(state, order="sorted")) + b"\n")
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


def digest(pieces: Iterable[bytes | memoryview]) -> str:
    """Return the sha256 of pieces one after another."""
    made = hashlib.sha256()
    for piece in pieces:
        made.update(piece)
    return made.hexdigest()


def write_synced(path: Path, *pieces: bytes | memoryview) -> None:
    """Write a file of these pieces and wait until it is on the disk."""
    with path.open("wb") as file:
        file.writelines(pieces)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until the names in `folder` are on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Saver:
    """Writes the checkpoints of a run in a thread, one at a time; a step waits for no more than a copy in memory."""

    def __init__(self, folder: Path, keep: int) -> None:
        """Write into `folder`, and keep the newest `keep`."""
        self.folder, self.keep = folder, keep
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="saves")
        self.writing: Future[Path] | None = None
        self.copies: dict[str, torch.Tensor] = {}
        """Host memory of the last save, used again for the next: fresh memory costs more than the copy."""
        self.reserved: dict[str, Future[torch.Tensor]] = {}
        """Host memory of the first."""

    def __enter__(self) -> Saver:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for the last one; Failed if it could not be written, unless something else went wrong before."""
        with contextlib.suppress(Exception) if kind is not None else contextlib.nullcontext():
            self.wait()

    def reserve(self, **tensors: Mapping[str, torch.Tensor]) -> None:
        """Take the host memory of a save in the thread, so that the first step that is saved need not wait for it."""
        for prefix, some in tensors.items():
            for name, tensor in some.items():
                self.reserved[f"{prefix}/{name}"] = self.pool.submit(blank, tensor.shape, tensor.dtype, tensor.is_cuda)

    def begin(self, *, model: Mapping[str, torch.Tensor], optimizer: Mapping[str, torch.Tensor], **rest: Any) -> None:
        """Copy the tensors to the host and begin to write them; the arguments are those of `write_checkpoint`.

        Waits for the one before. Failed if that could not be written.
        """
        self.wait()
        copies = [self.copied(prefix, tensors) for prefix, tensors in (("model", model), ("optimizer", optimizer))]
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        write = functools.partial(write_checkpoint, self.folder, keep=self.keep, **rest)
        self.writing = self.pool.submit(write, model=copies[0], optimizer=copies[1])

    def copied(self, prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return copies on the host; from a GPU they are whole once it has been waited for."""
        copies = {}
        for name, tensor in tensors.items():
            place = f"{prefix}/{name}"
            held = self.copies.get(place)
            if held is None and place in self.reserved:
                held = self.reserved.pop(place).result()
            if held is None or held.shape != tensor.shape or held.dtype != tensor.dtype:
                held = blank(tensor.shape, tensor.dtype, tensor.is_cuda)
            copies[name] = self.copies[place] = held.copy_(tensor.detach(), non_blocking=True)
        return copies

    def check(self) -> None:
        """Raise Failed if the last one is over and could not be written."""
        if self.writing is not None and self.writing.done():
            writing, self.writing = self.writing, None
            try:
                writing.result()
            except OSError as error:
                raise Failed(f"cannot write a checkpoint into {str(self.folder)!r}: {error}") from None

    def wait(self) -> None:
        """Wait until the last one is on the disk; Failed if it could not be written."""
        if self.writing is not None:
            wait([self.writing])
            self.check()


def blank(shape: torch.Size, dtype: torch.dtype, pinned: bool) -> torch.Tensor:
    """Return zeros on the host, in memory that is really there, not only promised."""
    return torch.zeros(shape, dtype=dtype, pin_memory=pinned).add_(0)


def random_state(ranks: Ranks) -> dict[str, torch.Tensor]:
    """Return torch's random states of all ranks as tensors, ``random/RANK/cpu``; all ranks call this together."""
    mine = {"cpu": torch.get_rng_state().numpy().tobytes()}
    if ranks.device.type == "cuda":
        mine["cuda"] = torch.cuda.get_rng_state(ranks.device).numpy().tobytes()
    return {
        f"{RNG}{rank}/{kind}": torch.frombuffer(bytearray(state), dtype=torch.uint8)
        for rank, states in enumerate(ranks.gather(mine))
        for kind, state in states.items()
    }


def set_random_state(tensors: Mapping[str, torch.Tensor], ranks: Ranks, *names: str | int) -> None:
    """Set this rank's random states from what `random_state` returned.

    If that was of another number of ranks, they begin anew, from `names`: the same names, the same numbers.
    """
    if {name.split("/")[1] for name in tensors if name.startswith(RNG)} != set(map(str, range(ranks.world_size))):
        seed_rank(ranks, *names)
        return
    torch.set_rng_state(tensors[f"{RNG}{ranks.rank}/cpu"])
    if ranks.device.type == "cuda" and (state := tensors.get(f"{RNG}{ranks.rank}/cuda")) is not None:
        torch.cuda.set_rng_state(state, ranks.device)


def seed_rank(ranks: Ranks, *names: str | int) -> None:
    """Seed torch's random numbers from `names`, on each rank with others."""
    torch.manual_seed(number("ranks", ranks.world_size, ranks.rank, *names) % 2**63)
