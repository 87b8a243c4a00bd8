"""The settings of a training run, read from TOML: what is trained on what, for how long, and where it is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec

from manifests.errors import UserError, nearest
from manifests.settings import read_toml
from salmonn.config import OptimizerConfig, SalmonnConfig, load_preset

PARTS = ("qformer", "lora", "ln", "projection", "words")
"""What of a model can learn, as Salmonn.parts() names it."""

LoggerName = Literal["tensorboard", "wandb", "trackio"]
Precision = Literal["auto", "float32", "bfloat16"]


class BatchConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many examples a step learns from."""

    max_seconds: float = 120.0
    """Audio in a batch, padding included."""
    max_examples: int = 8
    """Examples in a batch; 8 a GPU as released."""
    micro_batches: int = 1
    """Batches whose gradients are summed into one step."""
    readers: int = 2
    """Threads that decode audio ahead of the model; they change nothing but speed."""

    def __post_init__(self) -> None:
        for name in ("max_seconds", "max_examples", "micro_batches", "readers"):
            if getattr(self, name) <= 0:
                raise ValueError(f"batch.{name} is {getattr(self, name)}; it must be above 0")


class TrainConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One training run."""

    run: str
    """The folder that keeps the run: settings, log, checkpoints, evaluation."""
    dataset: str
    """Folder or URL of the dataset that `salmonn build` made."""
    recipe: str
    """Name of a recipe, or the path of its TOML file."""
    model: str | SalmonnConfig
    """Name of a preset, or a table with all sizes."""
    steps: int
    """Steps of the whole run; may be raised later to go on."""
    stage: str = "instruct"
    init_from: str = ""
    """Where the trained weights come from at step 0: a run's folder, a checkpoint's, or a released ``.pth``; empty
    means fresh ones. A run that has a checkpoint goes on from it and does not look here again."""
    parts: tuple[str, ...] = ()
    """Which of PARTS learn, the rest stays as it came; empty means all that the model has."""
    optimizer: OptimizerConfig | None = None
    """None means the preset's, or for a table in place of a preset the released stage 1."""
    batch: BatchConfig = BatchConfig()
    seed: int = 0
    """Of the order of the examples and of dropout."""
    checkpoint_every: int = 1000
    """Steps between checkpoints; the last step has one too."""
    keep: int = 2
    """How many checkpoints stay."""
    threads: int = 0
    """CPU threads torch computes with; 0 means its own choice. Bits are the same only with the same number."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Precision = "auto"
    """Of the products in the trained forward pass (autocast); ``auto`` is bfloat16 on a GPU, else float32."""
    compile: bool = False
    """Compile the frozen encoders: faster after the first minutes, other last bits."""
    gradient_checkpointing: bool = False
    """Compute the language model's layers twice instead of keeping what they made: less memory, a third more time."""
    shard_frozen: bool = False
    """Cut the frozen language model over all ranks (FSDP2), for one that a single GPU cannot hold."""
    loggers: tuple[LoggerName, ...] = ()
    """Where each step is told beside log.jsonl."""
    skips: float = 0.001
    """Largest share of examples, 0 to 1, whose audio may be unreadable before the run stops."""

    def __post_init__(self) -> None:
        for name in ("steps", "checkpoint_every", "keep"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.threads < 0:
            raise ValueError(f"threads is {self.threads}; it must be 0 (torch's choice) or above")
        if not 0 <= self.skips <= 1:
            raise ValueError(f"skips is {self.skips}; it is a share of the examples, from 0 to 1")
        for part in self.parts:
            if part not in PARTS:
                raise ValueError(f"parts: there is no part {part!r}; {nearest(part, PARTS)}")

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return Path(self.run)

    @property
    def sizes(self) -> SalmonnConfig:
        """The model's settings; a preset has been resolved to them."""
        assert isinstance(self.model, SalmonnConfig), "resolve first"
        return self.model

    @property
    def adam(self) -> OptimizerConfig:
        """The optimizer's settings; a missing table has been resolved to them."""
        assert self.optimizer is not None, "resolve first"
        return self.optimizer


def load_train_config(path: str | Path) -> TrainConfig:
    """Read the settings of a run from a TOML file; UserError says what is wrong and where."""
    return read_toml(path, TrainConfig)


def resolve(config: TrainConfig) -> TrainConfig:
    """Return the settings with a preset's name replaced by what it stands for."""
    if isinstance(config.model, SalmonnConfig):
        return msgspec.structs.replace(config, optimizer=config.optimizer or OptimizerConfig())
    preset = load_preset(config.model)
    return msgspec.structs.replace(config, model=preset.model, optimizer=config.optimizer or preset.optimizer)


ORDERING = ("dataset", "recipe", "stage", "seed")
"""Settings that the order of the examples depends on, beside those of a batch."""

FREE = (
    *("run", "checkpoint_every", "keep", "batch.readers", "loggers", "skips"),
    *("gradient_checkpointing", "shard_frozen"),
)
"""Settings that leave the results of a run alone. ``threads``, ``compile`` and ``precision`` are not among them: they
change how sums are rounded, and a resumed run would differ from one never stopped."""


def differences(old: TrainConfig, new: TrainConfig, *, reseed: bool = False) -> list[str]:
    """Return what makes `new` another run than `old`, as ``batch.max_examples was 8, is 16``; both are resolved.

    Nothing that leaves the results alone counts: what FREE names, and more steps.
    With `reseed`, neither does what the order of the examples depends on.
    """
    before, after = flatten(msgspec.to_builtins(old)), flatten(msgspec.to_builtins(new))
    ordering = [name for name in before if name in ORDERING or name.startswith("batch.")] if reseed else []
    for free in {*FREE, *ordering}:
        before.pop(free), after.pop(free)
    if new.steps >= old.steps:
        before.pop("steps"), after.pop("steps")
    names = sorted(before.keys() | after.keys())
    return [f"{n} was {before.get(n)!r}, is {after.get(n)!r}" for n in names if before.get(n) != after.get(n)]


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested tables as one with dotted names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def demand_same(old: TrainConfig, new: TrainConfig, *, reseed: bool = False) -> None:
    """Raise UserError if the run folder of `new` belongs to the settings `old`, naming all that changed."""
    changed = differences(old, new, reseed=reseed)
    if changed:
        raise UserError(
            f"the run folder {new.run!r} was made with other settings: {'; '.join(changed)}. "
            "Give this run a folder of its own, or go back to those settings; where only the examples changed, "
            "--reseed goes on with the weights and deals them anew"
        )
