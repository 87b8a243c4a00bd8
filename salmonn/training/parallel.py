"""The processes of a run: who they are, how their numbers are summed, how a frozen model is cut over them.

Every rank holds all trained weights and takes the same step; only what they sum passes between them. So a rank whose
batch is empty, or shorter than another's, is no special case. torchrun and Ray Train both say by the environment (RANK,
WORLD_SIZE, LOCAL_RANK, MASTER_ADDR) which process this is.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar

import torch
from torch import distributed, nn

from manifests.errors import Failed, UserError

Result = TypeVar("Result")


class Ranks:
    """The processes that train one model; each has one object of this class."""

    def __init__(self, rank: int = 0, world_size: int = 1, local_rank: int = 0, device: str | torch.device = "cpu"):
        """Be one of `world_size`, the `local_rank`-th of its machine; a device ``cuda`` is that machine's of this
        number. With more than one, torch.distributed has been initialised.
        """
        self.rank, self.world_size, self.local_rank = rank, world_size, local_rank
        self.device = torch.device(device)
        if self.device.type == "cuda" and self.device.index is None:
            self.device = torch.device("cuda", local_rank)
        self.ours = False
        """Whether the process group was made here, and so is to be ended here."""

    @classmethod
    def from_environment(cls, device: str | torch.device = "cpu") -> Ranks:
        """Join the processes that the environment tells of; without any, be alone. UserError if it is half told."""
        rank, size, local = (read_number(name, usual) for name, usual in USUAL.items())
        ranks = cls(rank, size, local, device)
        if size == 1:
            return ranks
        if ranks.device.type == "cuda":
            if local >= torch.cuda.device_count():
                raise UserError(
                    f"this is process {local} of its machine, counted from 0, which has {torch.cuda.device_count()} "
                    "GPU(s); start one process a GPU"
                )
            torch.cuda.set_device(ranks.device)
        if not distributed.is_initialized():
            if not os.environ.get("MASTER_ADDR") or not os.environ.get("MASTER_PORT"):
                raise UserError(
                    f"WORLD_SIZE is {size} but MASTER_ADDR or MASTER_PORT is not set: start the processes by torchrun, "
                    "or unset WORLD_SIZE to train with one"
                )
            distributed.init_process_group(
                "nccl" if ranks.device.type == "cuda" else "gloo",
                rank=rank,
                world_size=size,
                device_id=ranks.device if ranks.device.type == "cuda" else None,
            )
            ranks.ours = True
        return ranks

    def __enter__(self) -> Ranks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes and speaks."""
        return self.rank == 0

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Replace a tensor by its sum over the ranks, which all get the same bits; return it."""
        if self.world_size > 1:
            distributed.all_reduce(tensor)
        return tensor

    def sum_numbers(self, numbers: list[float]) -> list[float]:
        """Return the sum of each number over the ranks, in float64."""
        if self.world_size == 1:
            return list(numbers)
        summed: list[float] = self.sum(torch.tensor(numbers, dtype=torch.float64, device=self.device)).tolist()
        return summed

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all ranks, in order: plain data, rarely; it is pickled between our own processes."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        distributed.all_gather_object(values, value)
        return values

    def together(self, act: Callable[[], Result]) -> Result:
        """Return what `act` returns; if it fails on one rank, fail on all. It must not wait for other ranks itself."""
        if self.world_size == 1:
            return act()
        error: Exception | None = None
        try:
            result = act()
        except Exception as caught:
            error = caught
        self.raise_any(error)
        return result

    def raise_any(self, error: Exception | None) -> None:
        """Raise this rank's error, or else tell that of the first rank that has one; return if none has."""
        told = self.gather(None if error is None else (isinstance(error, UserError), first_line(error)))
        if error is not None:
            raise error
        for rank, one in enumerate(told):
            if one is not None:
                mistake, text = one
                raise UserError(text) if mistake else Failed(f"rank {rank} failed: {text}")

    def demand_equal(self, what: str, value: Any) -> None:
        """Raise UserError on all ranks unless they agree: machines may see other folders by the same name."""
        values = self.gather(value)
        for rank, other in enumerate(values):
            if other != values[0]:
                raise UserError(
                    f"{what} is {values[0]!r} on rank 0 but {other!r} on rank {rank}; all machines of a run must see "
                    "the same run folder, dataset and weights"
                )

    def barrier(self) -> None:
        """Wait for all ranks."""
        if self.world_size > 1:
            self.sum(torch.zeros(1, device=self.device)).item()

    def close(self) -> None:
        """End the process group, if it was made here."""
        if self.ours:
            self.ours = False
            distributed.destroy_process_group()


def share_of(batches: int, ranks: Ranks) -> int:
    """Return how many of a step's batches are each rank's; UserError if the ranks cannot share them evenly."""
    if batches % ranks.world_size:
        raise UserError(
            f"batch.micro_batches is {batches}, which {ranks.world_size} processes cannot share: it is the number of "
            f"batches in a step of all of them; make it a multiple of {ranks.world_size}, or start another number"
        )
    return batches // ranks.world_size


USUAL = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0}
"""What torchrun and Ray Train set, and what it is without them."""


def read_number(name: str, usual: int) -> int:
    """Return a number of the environment; UserError if it is none."""
    told = os.environ.get(name, "")
    if told and not told.isdigit():
        raise UserError(f"the environment variable {name} is {told!r}; it should be a number, as torchrun sets it")
    return int(told) if told else usual


def first_line(error: Exception) -> str:
    """Return an error in one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def shard_frozen(llm: nn.Module, ranks: Ranks) -> None:
    """Cut the frozen weights of a language model's layers over the ranks (FSDP2); each layer is whole when it runs.

    Trained weights stay whole on every rank, as do the embeddings and the head, which are used outside the layers. From
    here on all ranks must run the model equally often, forward and backward.
    """
    if ranks.world_size == 1:
        return
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    blocks = layers_of(llm)
    inside = {id(weight) for block in blocks for weight in block.parameters()}
    whole = {weight for weight in llm.parameters() if weight.requires_grad or id(weight) not in inside}
    mesh = init_device_mesh(ranks.device.type, (ranks.world_size,))
    for block in blocks:
        fully_shard(block, mesh=mesh, ignored_params=whole)
    # The root holds nothing of its own; it lets the layers share one queue, so that the next is fetched ahead.
    fully_shard(llm, mesh=mesh, ignored_params=whole)


def layers_of(llm: nn.Module) -> nn.ModuleList:
    """Return the layers of a language model of any family: its list of modules that holds the most weights."""
    lists = [module for module in llm.modules() if isinstance(module, nn.ModuleList) and len(module)]
    if not lists:
        raise UserError("shard_frozen: this language model has no list of layers; leave it out")
    return max(lists, key=lambda layers: sum(weight.numel() for weight in layers.parameters()))
