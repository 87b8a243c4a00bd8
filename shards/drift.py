"""How far an order is from what it should be: shares from what was intended, and the whole from a full shuffle."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from shards.plan import Order
from shards.queues import Numbers
from shards.realised import Part


class Deviation(msgspec.Struct, frozen=True, kw_only=True):
    """How far shares are from what was intended, at worst, in `unit`; of all ranks together.

    Tasks and rows are held against their shares of all that was dealt so far. At the ends of pools no task is further
    off than one example, and no row, all but always (shards/weave.py); between, a batch of one length holds more of one
    than of another.
    """

    unit: str
    one_example: float
    """The largest example, in `unit`."""
    tasks_at_steps: float
    rows_at_steps: float
    tasks_at_pool_ends: float | None
    """None if no pool ended."""
    rows_at_pool_ends: float | None


class Randomness(msgspec.Struct, frozen=True, kw_only=True):
    """How near the order of whole epochs is to a full shuffle."""

    neighbours: float | None
    """Of examples of a row that are neighbours in the index, the mean distance in the order they are dealt in, over
    what a full shuffle of n gives: (n + 1) / 3. 1 is a full shuffle, near 0 the order of the index. None if no row was
    dealt whole."""
    lengths: float | None
    """Correlation of the mean lengths of batches that follow each other: 0 in a full shuffle, 1 for a curriculum."""


class Drift:
    """Finds how far shares are off, at worst, from the first batch counted on."""

    def __init__(self, order: Order, tokens: NDArray[np.int32], micro_batches: int) -> None:
        """A step is `micro_batches` batches, of all ranks."""
        self.order, self.tokens, self.micro_batches = order, tokens, micro_batches
        self.task = np.zeros((len(order.queues), max(order.tasks) + 1))
        self.task[np.arange(len(order.queues)), order.tasks] = 1
        self.of_task = order.shares @ self.task
        self.served = np.zeros(len(order.queues))
        self.largest = 0.0
        self.worst: dict[str, float] = {}

    def add(self, part: Part) -> None:
        """Count one more part."""
        rows = len(self.served)
        place = self.order.offsets[part.queue] + part.item
        if self.order.unit == "examples":
            amount = np.ones(len(place))
        else:
            # As the order counts them.
            in_seconds = self.order.unit == "seconds"
            amount = self.order.dealt(place) if in_seconds else np.maximum(self.tokens[place], 1).astype(np.float64)
        cell = np.repeat(np.arange(len(part.sizes)), part.sizes) * rows + part.queue
        each = np.bincount(cell, amount, minlength=len(part.sizes) * rows).reshape(-1, rows)
        served = self.served + each.cumsum(0)
        self.served, self.largest = served[-1], max(self.largest, float(amount.max()))
        self.note("steps", served[(part.numbers + 1) % self.micro_batches == 0])
        if part.ends:
            self.note("pool_ends", served[-1:])

    def note(self, where: str, served: NDArray[np.float64]) -> None:
        """Keep the worst of [points, rows]."""
        if len(served):
            tasks = served @ self.task
            off_tasks = np.abs(tasks - tasks.sum(1, keepdims=True) * self.of_task).max()
            off_rows = np.abs(served - tasks.sum(1, keepdims=True) * self.order.shares).max()
            for name, off in (("tasks", off_tasks), ("rows", off_rows)):
                key = f"{name}_at_{where}"
                self.worst[key] = max(self.worst.get(key, 0.0), float(off))

    @property
    def deviation(self) -> Deviation:
        """The worst so far."""
        worst = {"tasks_at_steps": 0.0, "rows_at_steps": 0.0, "tasks_at_pool_ends": None, "rows_at_pool_ends": None}
        return Deviation(unit=self.order.unit, one_example=self.largest, **(worst | self.worst))  # type: ignore[arg-type]


class Scatter:
    """Finds how near an order is to a full shuffle."""

    def __init__(self, order: Order) -> None:
        """Count whole epochs."""
        self.order = order
        self.places: dict[tuple[int, int], NDArray[np.int32]] = {}
        """Of each row and epoch in hand, where in its order each example was dealt."""
        self.dealt: dict[tuple[int, int], int] = {}
        self.distance = self.pairs = 0.0
        self.lengths: list[NDArray[np.float64]] = []
        self.batches = 0

    def add(self, part: Part) -> None:
        """Count one more part."""
        self.batches += len(part.sizes)
        seconds = self.order.dealt(self.order.offsets[part.queue] + part.item)
        self.lengths.append(np.add.reduceat(seconds, np.cumsum(part.sizes) - part.sizes) / part.sizes)
        for queue in np.unique(part.queue).tolist():
            mine = part.queue == queue
            items, epochs = part.item[mine], part.epoch[mine]
            for epoch in np.unique(epochs).tolist():
                self.follow((queue, epoch), items[epochs == epoch])

    def follow(self, of: tuple[int, int], items: Numbers) -> None:
        """Note where the next examples of a row were dealt in one of its epochs; measure it when all were."""
        size, had = int(self.order.sizes[of[0]]), self.dealt.get(of, 0)
        places = self.places.setdefault(of, np.zeros(size, np.int32))
        places[items] = np.arange(had, had + len(items))
        self.dealt[of] = had + len(items)
        if self.dealt[of] == size:
            del self.places[of]
            self.distance += float(np.abs(np.diff(places)).sum()) / ((size + 1) / 3)
            self.pairs += size - 1

    @property
    def randomness(self) -> Randomness:
        """The measures so far."""
        lengths = np.concatenate([*self.lengths, np.zeros(0)])
        varied = len(lengths) > 2 and lengths[:-1].std() > 0 and lengths[1:].std() > 0
        return Randomness(
            neighbours=self.distance / self.pairs if self.pairs else None,
            lengths=float(np.corrcoef(lengths[:-1], lengths[1:])[0, 1]) if varied else None,
        )
