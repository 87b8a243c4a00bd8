"""The order in which examples are dealt: a pure function of the index, the recipe's stage and the seed.

Each row of the stage is a queue that deals its examples in an order of its own, drawn anew each time it runs out.
Queues are woven together by their weights, cut into pools, and each pool into batches of similar length. A cycle is as
many draws as there are examples; without weights it deals every example exactly once.
"""

from __future__ import annotations

import functools
import hashlib
import math

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from manifests import Recipe, UserError, draw
from manifests.recipe import Row
from shards.index import Dataset

POOL = 2048
"""Examples sorted by length together: enough for little padding, few enough that no batch comes from one place."""

Numbers = NDArray[np.int64]


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """What fits into one batch."""

    seconds: float
    """Audio of a batch with its padding: its longest clip times its clips."""
    examples: int
    longest: float
    """Seconds of a clip that are dealt at most; the rest is cut, and counted."""


class Queue(msgspec.Struct, frozen=True, kw_only=True):
    """The examples of one row of the recipe: parallel arrays."""

    row: Row
    sample: Numbers
    """Row of the concatenated index."""
    instruction: Numbers
    """Which instruction of that sample."""
    seconds: NDArray[np.float64]

    def order(self, seed: int, epoch: int) -> Numbers:
        """Return the order of the queue's examples in one of its epochs."""
        names = ("order", seed, self.row.task, self.row.corpus, ",".join(self.row.splits), epoch)
        # Raw words of a bit generator stay the same in every version of numpy; its shuffles may not.
        words = np.random.PCG64(draw.number(*names)).random_raw(len(self.sample))
        return np.argsort(words, kind="stable")


class Dealt(msgspec.Struct, frozen=True, kw_only=True):
    """The draws of one cycle in the order they are dealt, and how they fall into batches."""

    queue: Numbers
    item: Numbers
    """Place in the queue's arrays."""
    epoch: Numbers
    """Which time its queue runs through."""
    starts: Numbers
    """Where each batch begins; one more entry than batches."""


class Order:
    """Deals batch after batch: `batch(n)` depends on nothing but the arguments of the constructor and n."""

    def __init__(self, dataset: Dataset, recipe: Recipe, stage: str, seed: int, budget: Budget) -> None:
        """Read what the order depends on from the index; UserError if the dataset does not hold the stage's data."""
        rows = recipe.stage(stage)
        self.seed, self.budget = seed, budget
        sources = sorted({(row.corpus, split) for row in rows for split in row.splits})
        columns = ["tasks", "seconds", "language"]
        tables = {source: dataset.table(*source, columns) for source in sources}
        firsts = dict(
            zip(sources, np.cumsum([0] + [tables[source].num_rows for source in sources]).tolist(), strict=False)
        )
        self.sources = sources
        self.firsts = [firsts[source] for source in sources]
        self.queues = [make_queue(row, tables, firsts) for row in rows]
        for queue in self.queues:
            if not len(queue.sample):
                splits = ", ".join(queue.row.splits)
                raise UserError(
                    f"the dataset has no example for {queue.row.name} ({splits}); build it, or drop the row"
                )
        counts = np.array([len(queue.sample) for queue in self.queues], np.float64)
        power = recipe.temperature.get(stage, 1.0)
        self.whole = rows[0].weight is None and power == 1.0
        weights = counts**power if rows[0].weight is None else np.array([queue.row.weight for queue in self.queues])
        self.shares = weights / weights.sum()
        self.examples = int(counts.sum())

    @property
    def digest(self) -> str:
        """What identifies the budget of a batch, which the order depends on."""
        return hashlib.sha256(msgspec.json.encode((self.budget, POOL))).hexdigest()

    def locate(self, sample: int) -> tuple[str, str, int]:
        """Return corpus, split and row in that split's index of a sample."""
        place = int(np.searchsorted(self.firsts, sample, side="right")) - 1
        return (*self.sources[place], sample - self.firsts[place])

    @functools.lru_cache(maxsize=2)  # noqa: B019 - an Order lives as long as its stream
    def cycle(self, number: int) -> Dealt:
        """Return one cycle."""
        queue, item, epoch = self.weave(number)
        seconds = np.minimum(
            np.concatenate([q.seconds for q in self.queues])[self.offsets()[queue] + item], self.budget.longest
        )
        order, starts = self.pools(seconds, number)
        return Dealt(queue=queue[order], item=item[order], epoch=epoch[order], starts=starts)

    def offsets(self) -> Numbers:
        """Return where each queue's arrays begin if they lie one behind the other."""
        return np.cumsum([0] + [len(queue.sample) for queue in self.queues[:-1]]).astype(np.int64)

    def weave(self, number: int) -> tuple[Numbers, Numbers, Numbers]:
        """Return the draws of a cycle: queue, item and epoch of each.

        The j-th draw of a queue with share p is due at (j + 1/2) / p; what is due in [cycle, cycle + 1) times the
        number of examples belongs to the cycle, the earliest first: shares hold at every prefix, not only on average.
        """
        parts = []
        for place, (queue, share) in enumerate(zip(self.queues, self.shares.tolist(), strict=True)):
            size = len(queue.sample)
            if self.whole:
                first, last = number * size, (number + 1) * size
            else:
                first = math.ceil(number * self.examples * share - 0.5)
                last = math.ceil((number + 1) * self.examples * share - 0.5)
            draws = np.arange(first, last)
            epochs = draws // size
            orders = {epoch: queue.order(self.seed, epoch) for epoch in np.unique(epochs).tolist()}
            items = np.array([], np.int64)
            for epoch, order in orders.items():
                items = np.concatenate([items, order[draws[epochs == epoch] - epoch * size]])
            parts.append((np.full(len(draws), place), items, epochs, (draws + 0.5) / share))
        due = np.concatenate([part[3] for part in parts])
        order = np.argsort(due, kind="stable")
        queue_of, item_of, epoch_of = (np.concatenate([part[k] for part in parts])[order] for k in range(3))
        return queue_of, item_of, epoch_of

    def pools(self, seconds: NDArray[np.float64], number: int) -> tuple[Numbers, Numbers]:
        """Return an order of draws that puts those of similar length together, and where its batches begin."""
        batches: list[Numbers] = []
        for pool, first in enumerate(range(0, len(seconds), POOL)):
            inside = np.arange(first, min(first + POOL, len(seconds)))
            inside = inside[np.argsort(seconds[inside], kind="stable")]
            cut = cut_batches(seconds[inside], self.budget)
            made = np.split(inside, cut[1:-1])
            words = np.random.PCG64(draw.number("batches", self.seed, number, pool)).random_raw(len(made))
            batches += [made[place] for place in np.argsort(words, kind="stable").tolist()]
        starts = np.cumsum([0] + [len(batch) for batch in batches])
        return np.concatenate(batches), starts.astype(np.int64)


def make_queue(row: Row, tables: dict[tuple[str, str], pa.Table], firsts: dict[tuple[str, str], int]) -> Queue:
    """Return the examples of one row of the recipe, in the order of the index."""
    samples, instructions, seconds = [], [], []
    for split in row.splits:
        table = tables[row.corpus, split].combine_chunks()
        tasks = table["tasks"].combine_chunks()
        parents = pc.list_parent_indices(tasks).to_numpy()
        places = np.arange(len(parents)) - tasks.offsets.to_numpy()[:-1][parents] + tasks.offsets[0].as_py()
        chosen = pc.equal(tasks.flatten(), row.task).to_numpy(zero_copy_only=False)
        length = table["seconds"].to_numpy()[parents]
        chosen &= (length >= row.min_seconds) & (length <= row.max_seconds)
        if row.language:
            chosen &= pc.equal(table["language"], row.language).to_numpy()[parents]
        samples.append(parents[chosen] + firsts[row.corpus, split])
        instructions.append(places[chosen])
        seconds.append(table["seconds"].to_numpy()[parents[chosen]])
    return Queue(
        row=row,
        sample=np.concatenate(samples).astype(np.int64),
        instruction=np.concatenate(instructions).astype(np.int64),
        seconds=np.concatenate(seconds),
    )


def cut_batches(seconds: NDArray[np.float64], budget: Budget) -> list[int]:
    """Cut clips, sorted by length, into batches within `budget`; return where each begins, and the end of the last."""
    cuts = [0]
    for place, length in enumerate(seconds.tolist()):
        clips = place - cuts[-1] + 1
        if clips > 1 and (clips > budget.examples or clips * length > budget.seconds):
            cuts.append(place)
    return [*cuts, len(seconds)]
