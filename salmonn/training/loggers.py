"""Where the steps of a run are told beside its log.jsonl: TensorBoard, Weights & Biases, trackio.

RUN/tensorboard/    event files, one a call of `salmonn train`
RUN/wandb/          what W&B keeps here; without a key nothing leaves the machine until `wandb sync`
RUN/logger.json     the name under which W&B and trackio know this run

All tell the same numbers under the same names (see `numbers`). A resumed run appends: what was told stays as it is, and
steps that are done again after a kill are hidden (TensorBoard) or left out, since they are the same to the bit.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import netrc
import os
import secrets
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from manifests import files
from manifests.errors import UserError

LOG = logging.getLogger("salmonn")
PROJECT = "salmonn"
"""What W&B and trackio file the runs under; WANDB_PROJECT says otherwise for the first."""
PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "trackio": "trackio"}


class Line(Protocol):
    """One step, as salmonn.training.run.StepLog holds it."""

    @property
    def step(self) -> int:
        """Steps done, this one included."""
        ...


class Logger(Protocol):
    """One place where steps are told."""

    def write(self, step: int, told: dict[str, float]) -> None:
        """Tell one step."""
        ...

    def close(self) -> None:
        """Tell what is still held back, and end."""
        ...


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Who this run is elsewhere: what logger.json holds."""

    name: str


def demand_installed(names: Sequence[str]) -> None:
    """Raise UserError for a logger whose package is not here; nothing heavy is imported for it."""
    for name in names:
        if importlib.util.find_spec(PACKAGES[name]) is None:
            raise UserError(
                f"loggers names {name!r}, but that package is not installed here: 'pip install {PACKAGES[name]}', or "
                "take it off the list; log.jsonl is written in any case"
            )


def numbers(line: Line) -> dict[str, float]:
    """Return all numbers of a step by stable names: ``loss``, ``lr``, ``loss/asr``, ``accuracy/asr``, ``mixture/asr``.

    A field with a number has its own name; of a task it stands in front of the task's, as do tables of numbers; a list
    gives its length.
    """
    told: dict[str, float] = {}
    for name, value in msgspec.structs.asdict(line).items():  # type: ignore[arg-type]
        if name == "step":
            continue
        if name == "tasks":
            for task, of in value.items():
                told |= {f"{key}/{task}": float(number) for key, number in msgspec.structs.asdict(of).items()}
        elif isinstance(value, Mapping):
            told |= {f"{name}/{key}": float(number) for key, number in value.items()}
        elif isinstance(value, (tuple, list)):
            told[name] = float(len(value))
        elif isinstance(value, (int, float)):
            told[name] = float(value)
    return told


class Loggers:
    """All the places that a run is told to. One that fails is dropped with a warning: it must not end a training."""

    def __init__(self, names: Sequence[str], folder: Path, settings: dict[str, Any]) -> None:
        """Open those called `names` for the run in `folder`; UserError if a package is missing.

        `settings` are the run's, plain values, for the places that show them. Services are reached at the first line.
        """
        demand_installed(names)
        self.folder, self.settings = folder, redacted(settings)
        self.names = list(dict.fromkeys(names))
        self.open: dict[str, Logger] = {}

    def write(self, line: Line) -> None:
        """Tell one step everywhere."""
        told = numbers(line) if self.names else {}
        for name in list(self.names):
            try:
                if name not in self.open:
                    self.open[name] = OPENERS[name](self.folder, self.settings, line.step)
                self.open[name].write(line.step, told)
            except Exception as error:
                # Whatever a service throws (its network, its quota, a full disk), the weights matter more.
                LOG.warning("%s is not told any more: %s: %s", name, type(error).__name__, error)
                self.names.remove(name)

    def close(self) -> None:
        """End all, with what they hold back."""
        for name, logger in self.open.items():
            try:
                logger.close()
            except Exception as error:
                LOG.warning("%s did not end well: %s: %s", name, type(error).__name__, error)
        self.open.clear()


class TensorBoard:
    """Event files in RUN/tensorboard."""

    def __init__(self, folder: Path, settings: dict[str, Any], first: int) -> None:
        """Begin a file of its own with the step `first`; steps from there on in older files are hidden by it."""
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=first if first > 1 else None)

    def write(self, step: int, told: dict[str, float]) -> None:
        """Tell one step."""
        for name, number in told.items():
            self.writer.add_scalar(name, number, step)

    def close(self) -> None:
        """End the file."""
        self.writer.close()


class WandB:
    """A run of Weights & Biases; offline, below RUN/wandb, where there is no key."""

    def __init__(self, folder: Path, settings: dict[str, Any], first: int) -> None:
        """Begin the run, or go on with it."""
        import wandb

        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=identity(folder),
            name=folder.resolve().name,
            dir=str(folder),
            config=settings,
            resume="allow",
            mode=wandb_mode(),
            settings=wandb.Settings(silent=True, console="off", save_code=False, disable_git=True),
        )

    def write(self, step: int, told: dict[str, float]) -> None:
        """Tell one step; W&B takes none twice."""
        self.run.log(told, step=step)

    def close(self) -> None:
        """Send or write what is held back."""
        self.run.finish()


def wandb_mode() -> Any:
    """Return what WANDB_MODE says, or whether there is a key, in the environment or in .netrc, to go online with."""
    if mode := os.environ.get("WANDB_MODE"):
        return mode
    if os.environ.get("WANDB_API_KEY"):
        return "online"
    try:
        hosts = netrc.netrc().hosts
    except (OSError, netrc.NetrcParseError):
        hosts = {}
    return "online" if any("wandb" in host for host in hosts) else "offline"


class Trackio:
    """A run of trackio: a database on this machine (TRACKIO_DIR says where), shown by `trackio show`."""

    def __init__(self, folder: Path, settings: dict[str, Any], first: int) -> None:
        """Begin the run, or go on with it."""
        import trackio

        self.trackio: Any = trackio
        # It greets on stdout, which belongs to the command's own words, or to its JSON.
        with contextlib.redirect_stdout(sys.stderr):
            run: Any = trackio.init(
                PROJECT,
                name=f"{folder.resolve().name}-{identity(folder)}",
                config=settings,
                resume="allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
        # It has no public word for the last step it holds; without this one, steps after a kill would be there twice.
        self.told = int(getattr(run, "_next_step", 0)) - 1

    def write(self, step: int, told: dict[str, float]) -> None:
        """Tell one step, unless it has been told before a kill."""
        if step > self.told:
            self.trackio.log(told, step=step)
            self.told = step

    def close(self) -> None:
        """Write what is held back."""
        with contextlib.redirect_stdout(sys.stderr):
            self.trackio.finish()


OPENERS: dict[str, Any] = {"tensorboard": TensorBoard, "wandb": WandB, "trackio": Trackio}


def redacted(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings without what may be secret in an address; they may go to a service."""
    return {
        name: redacted(value)
        if isinstance(value, dict)
        else files.redact(value)
        if isinstance(value, str) and "://" in value
        else value
        for name, value in settings.items()
    }


def identity(folder: Path) -> str:
    """Return the name that other places know this run by: drawn once, and kept beside it."""
    path = folder / "logger.json"
    if not path.exists():
        temporary = path.with_suffix(".writing")
        temporary.write_bytes(msgspec.json.encode(Identity(name=secrets.token_hex(4))) + b"\n")
        temporary.replace(path)
    return msgspec.json.decode(path.read_bytes(), type=Identity).name
