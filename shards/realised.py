"""What a stream deals, counted: the shares of tasks and rows, and how batches are filled."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from shards.index import Dataset
from shards.plan import Order
from shards.queues import Numbers, make_queues


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """What one row of the recipe, or one task, was to have and has."""

    name: str
    splits: tuple[str, ...]
    """Of a row; a task has none."""
    intended: float
    """Share that the recipe gives it, in the unit that shares count."""
    examples: int
    seconds: float
    """Audio, behind the cut left out."""
    tokens: int
    """Of its answers, the longest of each example: a third of its bytes, rounded up."""
    of_examples: float
    of_seconds: float
    of_tokens: float
    epochs: float
    """How often each of its examples was dealt, on average."""


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """The least, the mean and the most of something in a batch."""

    min: float
    mean: float
    max: float


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """Batches that follow each other, of one pool."""

    first: int
    """Number of the first."""
    queue: Numbers
    item: Numbers
    epoch: Numbers
    sizes: Numbers
    """Examples of each batch."""
    ends: bool
    """Whether the pool ends with them."""

    @property
    def numbers(self) -> Numbers:
        """Of its batches."""
        return np.arange(self.first, self.first + len(self.sizes))


def planned(order: Order, *, batches: int | None = None, epochs: int | None = None) -> Iterator[Part]:
    """Yield what `order` deals from its start: so many batches, or epochs, whatever ends first."""
    mark = order.start
    while (batches is None or mark.batch < batches) and (epochs is None or mark.deal < epochs * order.examples):
        pool = order.pool(mark)
        many = len(pool.starts) - 1
        if batches is not None:
            many = min(many, batches - mark.batch)
        draws = slice(0, int(pool.starts[many]))
        yield Part(
            first=mark.batch,
            queue=pool.queue[draws],
            item=pool.item[draws],
            epoch=pool.epoch[draws],
            sizes=np.diff(pool.starts[: many + 1]),
            ends=many == len(pool.starts) - 1,
        )
        mark = pool.next


class Counter(Protocol):
    """Counts parts."""

    def add(self, part: Part) -> None:
        """Count one more."""


def count(parts: Iterable[Part], *counters: Counter) -> None:
    """Let each counter count each part."""
    for part in parts:
        for counter in counters:
            counter.add(part)


class Tally:
    """Counts examples, audio and answers by row, and how batches are filled; of one rank, or of all."""

    def __init__(self, order: Order, tokens: NDArray[np.int32], rank: int = 0, world_size: int = 1) -> None:
        """Count the batches whose number is `rank` modulo `world_size`."""
        self.order, self.tokens, self.rank, self.world_size = order, tokens, rank, world_size
        self.seen: dict[int, list[tuple[str, float]]] = {}
        """By the number of a batch that may lack damaged examples: task and seconds of those that were dealt."""
        self.by_row = np.zeros((3, len(order.queues)))
        """Examples, seconds and tokens of each row."""
        self.examples: list[Numbers] = []
        """Of each batch."""
        self.seconds: list[NDArray[np.float64]] = []
        """Audio of each batch."""
        self.padded = self.cut = 0.0
        self.end = 0
        """Number of the batch behind the last."""

    def add(self, part: Part) -> None:
        """Count one more part."""
        chosen = part.numbers % self.world_size == self.rank
        self.end = part.first + len(part.sizes)
        batch = np.repeat(np.arange(len(part.sizes)), part.sizes)
        kept = chosen[batch]
        for number in sorted(self.seen.keys() & set(part.numbers[chosen].tolist())):
            mine = batch == number - part.first
            kept[mine] = self.present(part.queue[mine], part.item[mine], self.seen[number])
        batch, queue = batch[kept], part.queue[kept]
        place = self.order.offsets[queue] + part.item[kept]
        whole, seconds = self.order.seconds[place], self.order.dealt(place)
        for row, amounts in enumerate((None, seconds, self.tokens[place])):
            self.by_row[row] += np.bincount(queue, amounts, minlength=self.by_row.shape[1])
        self.cut += float((whole - seconds).sum())
        sizes = np.bincount(batch, minlength=len(part.sizes))
        self.examples.append(sizes[chosen])
        self.seconds.append(np.bincount(batch, seconds, minlength=len(part.sizes))[chosen])
        filled = sizes[sizes > 0]
        if len(filled):
            self.padded += float((np.maximum.reduceat(seconds, np.cumsum(filled) - filled) * filled).sum())

    def present(self, queue: Numbers, item: Numbers, seen: list[tuple[str, float]]) -> list[bool]:
        """Say which draws of a batch were dealt, where damaged ones are missing: both are in the same order."""
        kept: list[bool] = []
        for of, seconds in zip(
            queue.tolist(), self.order.dealt(self.order.offsets[queue] + item).tolist(), strict=True
        ):
            task, length = seen[sum(kept)] if sum(kept) < len(seen) else ("", 0.0)
            kept.append(task == self.order.queues[of].row.task and abs(length - seconds) < 1e-3)
        assert sum(kept) == len(seen), "what was dealt is not what was planned"
        return kept

    @property
    def padding(self) -> float:
        """Share of the padded audio that is padding, from 0 to 1."""
        return 1 - float(self.by_row[1].sum()) / self.padded if self.padded else 0.0

    @property
    def batch_examples(self) -> Spread:
        """Examples of a batch."""
        return spread(np.concatenate([*self.examples, np.zeros(0, np.int64)]))

    @property
    def batch_seconds(self) -> Spread:
        """Audio of a batch, seconds."""
        return spread(np.concatenate([*self.seconds, np.zeros(0)]))

    @property
    def rows(self) -> tuple[Share, ...]:
        """The share of each row of the recipe."""
        numbers = np.arange(len(self.order.queues))
        named = [(queue.row.name, queue.row.splits) for queue in self.order.queues]
        return self.shares(named, numbers)

    @property
    def tasks(self) -> tuple[Share, ...]:
        """The share of each task."""
        named = dict.fromkeys(queue.row.task for queue in self.order.queues)
        return self.shares([(task, ()) for task in named], np.array(self.order.tasks))

    def shares(self, named: list[tuple[str, tuple[str, ...]]], group: Numbers) -> tuple[Share, ...]:
        """Return the shares of groups of rows."""
        counted = np.stack([np.bincount(group, one) for one in self.by_row])
        of = counted / np.maximum(counted.sum(1, keepdims=True), 1e-12)
        intended, sizes = np.bincount(group, self.order.shares), np.bincount(group, self.order.sizes)
        return tuple(
            Share(
                name=name,
                splits=splits,
                intended=float(intended[place]),
                examples=int(counted[0, place]),
                seconds=float(counted[1, place]),
                tokens=int(counted[2, place]),
                of_examples=float(of[0, place]),
                of_seconds=float(of[1, place]),
                of_tokens=float(of[2, place]),
                epochs=float(counted[0, place] / sizes[place]),
            )
            for place, (name, splits) in enumerate(named)
        )


def spread(values: NDArray[np.int64] | NDArray[np.float64]) -> Spread:
    """Return the least, the mean and the most of `values`; zeros if there are none."""
    if not len(values):
        return Spread(min=0.0, mean=0.0, max=0.0)
    return Spread(min=float(values.min()), mean=float(values.mean()), max=float(values.max()))


def answer_tokens(dataset: Dataset, order: Order) -> NDArray[np.int32]:
    """Return the tokens of the longest answer of every example, queue behind queue."""
    if order.unit == "tokens" or order.budget.tokens:
        return np.concatenate([queue.answer for queue in order.queues])
    rows = tuple(queue.row for queue in order.queues)
    return np.concatenate(
        [queue.answer for queue in make_queues(dataset, rows, count=None, tokens=False, answers=True)[2]]
    )
