"""What a run will cost, told before it begins: weights, memory, steps, examples, hours and epochs. No weight is loaded.

Sizes are counted on the model's skeleton, data on the plan of the stream that the run will be dealt; no audio is read.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from manifests import UserError, load_recipe
from salmonn.config import FRAMES
from salmonn.model import Salmonn
from salmonn.training.forecast import Data, Fullest, Target, forecast
from salmonn.training.loggers import demand_installed
from salmonn.training.memory import NAMES, Memory, estimate_memory, frozen_counts
from salmonn.training.parallel import Ranks, share_of
from salmonn.training.settings import TrainConfig, resolve
from salmonn.training.skeleton import skeleton
from salmonn.training.start import learning


class PartPrice(msgspec.Struct, frozen=True, kw_only=True):
    """One part of the model, in weights."""

    name: str
    dtype: str
    """As the settings have it: ``auto`` is bfloat16 on a GPU and float32 elsewhere."""
    trained: int
    """In the checkpoint, and float32."""
    learning: int
    """Those of them that this run changes."""
    frozen: int


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """What `salmonn train CONFIG --dry-run --json` prints."""

    run: str
    stage: str
    recipe: str
    dataset: str
    steps: int
    processes: int
    batches_per_step: int
    """Of all processes together."""
    parts: tuple[PartPrice, ...]
    trained: int
    learning: int
    frozen: int
    fullest: Fullest
    """The batch that the memory is told for."""
    memory: tuple[Memory, ...]
    """Of each process, on each device that the settings allow."""
    checkpoint_weights: int
    """Bytes of a checkpoint's model.safetensors, all but its header."""
    checkpoint_optimizer: int
    """Bytes of its optimizer.safetensors."""
    checkpoints: int
    """Bytes of all that are kept, and of one being written."""
    data: Data | None
    """None without a dataset."""
    targets: tuple[Target, ...]
    """Without a dataset: what the recipe means to have."""
    remarks: tuple[str, ...]


def price(config: TrainConfig, *, processes: int = 1) -> Price:
    """Return what the run that `config` describes will cost; UserError if the settings name what cannot be.

    A dataset that is not built yet is no error: then the recipe's own figures are told.
    """
    config = resolve(config)
    share_of(config.batch.micro_batches, Ranks(world_size=processes))
    model, remarks = skeleton(config.sizes)
    learn = learning(
        model, config.parts, {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    )
    data = forecast(config, load_recipe(config.recipe), audio_tokens(model))
    parts = tuple(price_parts(model, set(learn)))
    trained, learnt = sum(part.trained for part in parts), sum(part.learning for part in parts)
    devices = ("cuda", "cpu") if config.device == "auto" else (config.device,)
    weights, optimizer = 4 * trained, 8 * learnt
    return Price(
        run=config.run,
        stage=config.stage,
        recipe=config.recipe,
        dataset=config.dataset,
        steps=config.steps,
        processes=processes,
        batches_per_step=config.batch.micro_batches,
        parts=parts,
        trained=trained,
        learning=learnt,
        frozen=sum(part.frozen for part in parts),
        fullest=data.fullest,
        memory=tuple(estimate_memory(model, config, device, processes, data.fullest, learnt) for device in devices),
        checkpoint_weights=weights,
        checkpoint_optimizer=optimizer,
        checkpoints=(config.keep + 1) * (weights + optimizer),
        data=data.data,
        targets=data.targets,
        remarks=(*remarks, *data.remarks, *missing(config)),
    )


def price_parts(model: Salmonn, learn: set[str]) -> Iterable[PartPrice]:
    """Yield the parts of the model: the frozen ones, then the trained ones, of which the weights in `learn` learn."""
    for part, frozen in frozen_counts(model).items():
        if frozen:
            dtype = getattr(model.config, part).dtype
            yield PartPrice(name=NAMES[part], dtype=dtype, trained=0, learning=0, frozen=frozen)
    state = model.trainable_state()
    for part, names in model.parts().items():
        if names:
            own = [state[name].numel() for name in names]
            changed = [state[name].numel() for name in names if name in learn]
            yield PartPrice(name=part, dtype="float32", trained=sum(own), learning=sum(changed), frozen=0)


def audio_tokens(model: Salmonn) -> int:
    """Return how many tokens the language model reads of any clip."""
    qformer = model.qformer
    return ((FRAMES - qformer.kernel) // qformer.stride + 1) * model.config.qformer.queries


def missing(config: TrainConfig) -> list[str]:
    """Say what the run will need and is not on this machine: the weights it begins with, a logger."""
    told = []
    if config.init_from and not Path(config.init_from).exists():
        told.append(f"there is nothing at init_from {config.init_from!r} yet: the stage before has to be trained first")
    try:
        demand_installed(config.loggers)
    except UserError as error:
        told.append(str(error))
    return told
