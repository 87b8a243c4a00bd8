"""The stream as a torch dataset: batches of tensors for DataLoader, torchdata's StatefulDataLoader and Ray Train.

    dataset = SalmonnIterable("dataset", "librispeech-100", stage="instruct", max_seconds=240.0, max_examples=32)
    loader = StatefulDataLoader(dataset, batch_size=None, num_workers=2, pin_memory=torch.cuda.is_available())

`batch_size=None`, since the stream makes the batches. The stream decodes in threads of its own: workers are for those
whose training loop holds the GIL, and each of them reads the index and deals its share of the rank's batches.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from manifests import Recipe, UserError, load_recipe
from shards import Batch, Dataset, Stream

MARKER = "salmonn_stream"
"""The key by which a state of ours is found within that of a loader."""
KINDS = (torch.float32, torch.int16)


class SalmonnIterable(IterableDataset[dict[str, Any]]):
    """Yields the batches of one rank as dicts; of N workers each yields every N-th, in DataLoader's order.

    A batch holds `audio` [B, T] at 16 kHz, zero behind the end of each, `lengths` int64 [B] in samples, the lists
    `keys`, `tasks`, `prompts` and `answers` of B texts, and the numbers `step` and `micro`. All ranks are dealt the
    same number of batches; in the last step some may hold nothing (B = 0).

    Each iteration begins at the same place: at the beginning, or at `state`. Its iterator has the `state_dict` and
    `load_state_dict` that StatefulDataLoader asks for, and resumes exactly, with as many ranks and workers as before.
    To go on with others, pass `stream_state(loader.state_dict())` as `state`.
    """

    def __init__(
        self,
        dataset: Dataset | Path | str,
        recipe: Recipe | Path | str,
        *,
        rank: int | None = None,
        world_size: int | None = None,
        micro_batches: int | None = None,
        audio: torch.dtype = torch.float32,
        state: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        """Take the arguments of Stream, as `options` those not named here; the stream is made where it is iterated.

        Rank and world size are by default those of torch.distributed, if it is initialised when this is made, as it is
        in Ray Train's TorchTrainer. `audio` is float32, in [-1, 1], or int16, half the memory. `state` is that of a
        Stream or of `stream_state`. UserError if the dataset or the recipe is not there, or if the ranks cannot be; the
        rest is checked by the stream.
        """
        if audio not in KINDS:
            raise UserError(f"audio cannot be {audio}; it can be {' or '.join(map(str, KINDS))}")
        if (rank is None) != (world_size is None):
            raise UserError(f"rank is {rank}, world_size {world_size}; give both, or neither")
        if rank is None and torch.distributed.is_available() and torch.distributed.is_initialized():
            rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
        self.rank, self.world_size = rank or 0, world_size or 1
        self.micro_batches = self.world_size if micro_batches is None else micro_batches
        if not 0 <= self.rank < self.world_size or self.micro_batches < 1 or self.micro_batches % self.world_size:
            raise UserError(
                f"rank {self.rank} of {self.world_size} cannot share {self.micro_batches} micro-batches a step; "
                "their number must be a multiple of the world size"
            )
        # A misspelt option is a mistake of this line, not of a worker later.
        inspect.signature(Stream).bind(None, None, **options)
        self.dataset = dataset if isinstance(dataset, Dataset) else Dataset(dataset)
        self.recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
        self.audio, self.state, self.options = audio, state, options

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Deal this worker's share of the rank's batches."""
        worker = get_worker_info()
        return Dealing(self, 0, 1) if worker is None else Dealing(self, worker.id, worker.num_workers)

    def tensors(self, batch: Batch) -> dict[str, Any]:
        """Return a batch as tensors and texts."""
        # Both stay whole while the tensor is held: float32 is a copy, and the memory of int16 is not used again before.
        audio = batch.audio if self.audio == torch.float32 else batch.pcm
        return {
            "audio": torch.from_numpy(audio),
            "lengths": torch.from_numpy(batch.lengths),
            "keys": [example.key for example in batch.examples],
            "tasks": [example.task for example in batch.examples],
            "prompts": [example.prompt for example in batch.examples],
            "answers": [example.answer for example in batch.examples],
        }


class Dealing:
    """One iteration by one of N workers: of the rank's batches, every N-th.

    Batches are numbered over all ranks and steps. Of W ranks, rank r deals the numbers r modulo W; of its N workers,
    one deals those that are r + turn * W modulo W * N: it is a rank of a larger world, with W * N batches a step.
    """

    def __init__(self, of: SalmonnIterable, worker: int, workers: int) -> None:
        """Begin where the dataset says; workers take turns, beginning with worker 0."""
        self.of, self.worker, self.workers = of, worker, workers
        # DataLoader asks worker 0 first, whatever number comes first.
        first = 0 if of.state is None else int(of.state["step"]) * of.micro_batches // of.world_size
        self.open((first + worker) % workers)
        if of.state is not None:
            if of.state["micro_batches"] != of.micro_batches:
                raise UserError(
                    f"cannot resume: micro_batches was {of.state['micro_batches']!r}, now it is {of.micro_batches!r}; "
                    "pass the former"
                )
            ahead = {"step": (first + worker) // workers, "micro_batches": self.world}
            self.stream.load_state_dict(of.state | ahead)
        self.mark = self.stream.state_dict()["mark"]
        """Of a pool at or before the beginning of the step that the next batch belongs to."""

    def open(self, turn: int) -> None:
        """Make the stream of one of the N turns."""
        of = self.of
        self.turn, self.world = turn, of.world_size * self.workers
        rank = of.rank + turn * of.world_size
        self.stream = Stream(
            of.dataset, of.recipe, rank=rank, world_size=self.world, micro_batches=self.world, **of.options
        )
        self.batches: Iterator[Batch] | None = None

    def __iter__(self) -> Dealing:
        """Go on."""
        return self

    def __next__(self) -> dict[str, Any]:
        """Return the next batch."""
        if self.batches is None:
            self.batches = iter(self.stream)
        step, micro = divmod(self.coming, self.of.micro_batches)
        batch = next(self.batches, None)
        # The last step of the larger world may reach behind the last of ours, or end before it does.
        if (batch is None or not batch.examples) and self.over(step):
            self.batches = iter(())
            raise StopIteration
        if batch is None:
            batch = Batch(step=0, micro=0, examples=(), pcm=np.zeros((0, 0), np.int16), lengths=np.zeros(0, np.int64))
            self.stream.begun = self.stream.next = self.stream.after(self.stream.begun)
        if self.coming // self.of.micro_batches > step:
            self.mark = self.stream.state_dict()["mark"]
        return self.of.tensors(batch) | {"step": step, "micro": micro}

    @property
    def coming(self) -> int:
        """The number of this worker's next batch."""
        return self.stream.begun.step * self.world + self.stream.rank

    def over(self, step: int) -> bool:
        """Return whether the last epoch ends before `step`."""
        mark = self.stream.begun.mark
        while not self.stream.ended(mark) and mark.batch <= step * self.of.micro_batches:
            mark = self.stream.pool(mark).next
        return mark.batch <= step * self.of.micro_batches

    def state_dict(self) -> dict[str, Any]:
        """Return where this worker stands: JSON."""
        stream = self.stream.state_dict()
        return {
            MARKER: {
                "rank": self.of.rank,
                "world_size": self.of.world_size,
                "num_workers": self.workers,
                "worker": self.worker,
                "turn": self.turn,
                "stream": stream,
                "micro_batches": self.of.micro_batches,
                "mark": self.mark,
            }
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`; UserError names what has changed since."""
        ours = state.get(MARKER)
        if ours is None:
            raise UserError("this is not the state of a SalmonnIterable")
        mine = {"rank": self.of.rank, "world_size": self.of.world_size, "num_workers": self.workers}
        mine |= {"worker": self.worker, "micro_batches": self.of.micro_batches}
        for name, value in mine.items():
            if ours[name] != value:
                raise UserError(
                    f"cannot resume: {name} was {ours[name]}, now it is {value}; "
                    "pass stream_state(...) of the old state as the dataset's state instead"
                )
        if ours["turn"] != self.turn:
            self.open(ours["turn"])
        self.stream.load_state_dict(ours["stream"])
        self.batches, self.mark = None, ours["mark"]


def stream_state(loader_state: dict[str, Any]) -> dict[str, Any]:
    """Return the state of a Stream in that of a StatefulDataLoader, to go on with other ranks, workers or loaders.

    It is in whole steps: of a step that was begun, all is dealt again. Take the state of rank 0, or of any rank.
    """
    found = list(states(loader_state))
    if not found:
        raise UserError("there is no state of a SalmonnIterable in this; is it that of a loader of one?")
    world, workers, micro_batches = (found[0][name] for name in ("world_size", "num_workers", "micro_batches"))
    next_of_rank, state = min(
        ((one["stream"]["step"] * workers + one["turn"], one) for one in found), key=lambda pair: pair[0]
    )
    # A loader that keeps the state of every n-th batch only counts those since.
    next_of_rank += int(loader_state.get("_steps_since_snapshot", 0))
    step = next_of_rank * world // micro_batches
    return dict(state["stream"]) | {"step": step, "mark": state["mark"], "micro_batches": micro_batches}


def states(loader_state: Any) -> Iterator[dict[str, Any]]:
    """Yield the states of ours in that of a loader, wherever it keeps them."""
    if isinstance(loader_state, dict):
        if MARKER in loader_state:
            yield loader_state[MARKER]
        else:
            for value in loader_state.values():
                yield from states(value)
