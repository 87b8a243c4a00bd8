"""The order in which examples are dealt: a pure function of the index, the recipe's stage and the seed.

Each row of the stage is a queue that deals its examples in an order of its own, drawn anew each time it runs out.
Queues are woven together by their shares (shards/weave.py), cut into pools, and each pool into batches of similar
length. A cycle is as many draws as there are examples; without weights it deals every example exactly once.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable

import msgspec
import numpy as np
from numpy.typing import NDArray

from manifests import Recipe, UserError
from shards.cutting import Budget, arrange, cut_batches
from shards.index import Dataset
from shards.queues import Numbers, Queue, Small, make_queues
from shards.weave import Loom

POOL = 2048
"""Examples sorted by length together: enough for little padding, few enough that no batch comes from one place."""
WINDOW = 64
"""Shards whose examples are shuffled among each other. Within a window a reader touches no other shard."""
UNITS = ("examples", "seconds", "tokens")
STRETCH = 256
"""Examples of each queue whose sizes are looked up at a time, where shares count seconds or tokens."""
WOVEN = "salmonn-order-4"
"""Changes when the same arguments give another order: then an older state is refused."""
TOKENS_A_SECOND = 88 / 30
"""What the window Q-Former makes of audio (SALMONN section 3.1): 88 for 30 seconds."""


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """Where a pool begins: all that the order behind it depends on, beside the arguments of the Order."""

    deal: int = 0
    """Examples dealt before it."""
    batch: int = 0
    """Batches dealt before it."""
    items: tuple[int, ...] = ()
    """Of each queue, how many it had dealt."""
    units: tuple[float, ...] = ()
    """Of each queue, how many seconds or tokens it had dealt, if shares count those."""


class Pool(msgspec.Struct, frozen=True, kw_only=True):
    """Draws that are sorted into batches together."""

    queue: Numbers
    item: Numbers
    """Place in the queue's arrays."""
    epoch: Numbers
    """Which time its queue runs through."""
    starts: Numbers
    """Where each batch begins; one more entry than batches."""
    next: Mark


class Dealt(msgspec.Struct, frozen=True, kw_only=True):
    """The draws of one cycle in the order they are dealt, and how they fall into batches."""

    queue: Small
    item: Small
    epoch: Small
    starts: Numbers


class Order:
    """Deals pool after pool: `pool(mark)` depends on nothing but the arguments of the constructor and the mark."""

    def __init__(
        self,
        dataset: Dataset,
        recipe: Recipe,
        stage: str,
        seed: int,
        budget: Budget,
        *,
        unit: str = "examples",
        window: int = WINDOW,
        count: Callable[[str], int] | None = None,
        answers: bool = False,
    ) -> None:
        """Read what the order depends on from the index; UserError if the dataset does not hold the stage's data.

        Shares count `unit`: examples, seconds of audio, or tokens of the answer. `count` says how many tokens a text
        has, by default a third of its bytes; those of answers are counted if anything needs them, or `answers`.
        """
        if unit not in UNITS:
            raise UserError(f"shares cannot count {unit!r}; they can count {', '.join(UNITS)}")
        if window < 1:
            raise UserError(f"the window is {window} shards; it must be at least 1")
        rows = recipe.stage(stage)
        self.seed, self.budget, self.unit, self.window = seed, budget, unit, window
        needs_tokens = unit == "tokens" or budget.tokens > 0
        self.sources, self.firsts, self.queues = make_queues(
            dataset, rows, count=count, tokens=needs_tokens, answers=answers
        )
        sizes = np.array([len(queue.sample) for queue in self.queues], np.float64)
        power = recipe.temperature.get(stage, 1.0)
        weights = sizes**power if rows[0].weight is None else np.array([row.weight for row in rows])
        self.whole = rows[0].weight is None and power == 1.0 and unit == "examples"
        """Whether a cycle deals every example once."""
        self.shares = weights / weights.sum()
        self.examples = int(sizes.sum())
        tasks = list(dict.fromkeys(row.task for row in rows))
        self.tasks = [tasks.index(row.task) for row in rows]
        self.sizes = sizes.astype(np.int64)
        self.offsets: Numbers = np.cumsum(self.sizes) - self.sizes
        self.seconds = np.concatenate([queue.seconds for queue in self.queues])
        """Of the examples of all queues behind one another, what is beyond the longest too."""
        self.answers = np.concatenate([queue.answer for queue in self.queues]) if answers else None
        """Tokens of the longest answer of each, if these are counted."""
        spans = [slice(int(first), int(first + size)) for first, size in zip(self.offsets, self.sizes, strict=True)]
        # One array for both, so that none is there twice.
        self.queues = [
            msgspec.structs.replace(
                queue,
                seconds=self.seconds[span],
                answer=queue.answer if self.answers is None else self.answers[span],
            )
            for queue, span in zip(self.queues, spans, strict=True)
        ]
        self.text = np.concatenate([queue.prompt + queue.answer for queue in self.queues]) if budget.tokens else None
        self.held = np.zeros(self.examples, np.int32)
        """The orders of all queues behind one another, each of the epoch it is in."""
        self.current = np.full(len(self.queues), -1, np.int64)
        """That epoch; -1 for none."""

    @property
    def digest(self) -> str:
        """What identifies the settings that the order depends on."""
        return hashlib.sha256(msgspec.json.encode((WOVEN, self.budget, POOL, self.unit, self.window))).hexdigest()

    def locate(self, sample: int) -> tuple[str, str, int]:
        """Return corpus, split and row in that split's index of a sample."""
        place = int(np.searchsorted(self.firsts, sample, side="right")) - 1
        return (*self.sources[place], sample - self.firsts[place])

    @property
    def start(self) -> Mark:
        """The mark of the first pool."""
        return Mark(items=(0,) * len(self.queues))

    def dealt(self, places: Numbers) -> NDArray[np.float64]:
        """Return how many seconds are dealt of the examples at `places` of all queues behind one another."""
        seconds: NDArray[np.float64] = np.minimum(self.seconds[places], self.budget.longest)
        return seconds

    def draws(self, mark: Mark, most: int = POOL) -> tuple[Numbers, Numbers, Numbers, Mark]:
        """Return the draws of a pool as they are woven: queue, item and epoch of each; and the mark behind them.

        Of several pools, if it is `most` of a whole number of them.

        At every prefix of these, over all pools, each task and each row is within one example of its share, or within
        the longest where shares count seconds or tokens; shards/weave.py says how far that goes.
        """
        count = min(most, self.examples - mark.deal % self.examples)
        loom, sized = Loom(self.shares.tolist(), self.tasks), self.unit != "examples"
        loom.served[:] = (mark.units or loom.served) if sized else mark.items
        queue = self.draw_sized(loom, count, mark.items) if sized else loom.draw(count)
        counts = np.bincount(queue, minlength=len(self.queues))
        at = tuple((np.array(mark.items) + counts).tolist())
        # The how-manieth of its queue each draw is: their ranks among the draws of one queue, behind what it had.
        grouped = np.argsort(queue.astype(np.int16 if len(counts) < 1 << 15 else np.int64), kind="stable")
        first = np.cumsum(counts) - counts
        number = np.empty(count, np.int64)
        number[grouped] = np.arange(count) - np.repeat(first - np.array(mark.items), counts)
        epoch, rest = np.divmod(number, self.sizes[queue])
        item = self.items(queue, epoch, rest)
        units = tuple(loom.served.tolist()) if sized else ()
        after = Mark(deal=mark.deal + count, batch=mark.batch, items=at, units=units)
        return queue, item, epoch, after

    def items(self, queue: Numbers, epoch: Numbers, rest: Numbers) -> Numbers:
        """Return what each draw, `rest` places into an epoch of its queue, is of that queue's arrays."""
        last = np.full(len(self.queues), -1, np.int64)
        np.maximum.at(last, queue, epoch)
        item = np.empty(len(queue), np.int64)
        # Where a queue runs out within the pool, its last draws of the epochs before.
        behind = epoch != last[queue]
        if behind.any():
            early = np.flatnonzero(behind)
            early = early[np.lexsort((epoch[early], queue[early]))]
            cuts = np.flatnonzero(np.diff(queue[early]) | np.diff(epoch[early])) + 1
            for mine in np.split(early, cuts):
                item[mine] = self.order_of(int(queue[mine[0]]), int(epoch[mine[0]]))[rest[mine]]
        for one in np.flatnonzero((last >= 0) & (last != self.current)).tolist():
            self.hold(one, int(last[one]))
        item[~behind] = self.held[self.offsets[queue[~behind]] + rest[~behind]]
        return item

    def order_of(self, queue: int, epoch: int) -> Small:
        """Return the order of a queue's examples in one of its epochs."""
        if self.current[queue] == epoch:
            return self.held[self.offsets[queue] : self.offsets[queue] + self.sizes[queue]]
        return self.queues[queue].order(self.seed, epoch, self.window)

    def hold(self, queue: int, epoch: int) -> None:
        """Keep the order of a queue in one of its epochs at hand, in place of the one before."""
        self.held[self.offsets[queue] : self.offsets[queue] + self.sizes[queue]] = self.order_of(queue, epoch)
        self.current[queue] = epoch

    def draw_sized(self, loom: Loom, count: int, items: tuple[int, ...]) -> Numbers:
        """Return the queues of the next draws, where an example counts its seconds or tokens."""
        at, parts = np.array(items), [np.zeros(0, np.int64)]
        while (left := count - sum(map(len, parts))) > 0:
            sizes = np.stack([self.sizes_from(queue, int(first), STRETCH) for queue, first in enumerate(at)])
            parts.append(loom.draw(left, sizes))
            at += np.bincount(parts[-1], minlength=len(at))
        return np.concatenate(parts)

    def sizes_from(self, queue: int, first: int, count: int) -> NDArray[np.float64]:
        """Return the sizes of a queue's next examples, in the order they are dealt."""
        epoch, rest = np.divmod(first + np.arange(count), self.sizes[queue])
        if self.current[queue] != epoch[0]:
            self.hold(queue, int(epoch[0]))
        parts = [self.order_of(queue, time)[rest[epoch == time]] for time in range(int(epoch[0]), int(epoch[-1]) + 1)]
        return self.size_of(self.queues[queue], np.concatenate(parts))

    def size_of(self, queue: Queue, items: Small) -> NDArray[np.float64]:
        """Return how much examples of a queue count, in the unit of the shares."""
        if self.unit == "seconds":
            return np.minimum(queue.seconds[items], self.budget.longest)
        # An example without an answer of a token would be dealt for nothing, again and again.
        return np.maximum(1.0, queue.answer[items]) if self.unit == "tokens" else np.ones(len(items))

    def pool(self, mark: Mark) -> Pool:
        """Return the pool that begins at `mark`."""
        queue, item, epoch, after = self.draws(mark)
        order, starts = self.arranged(self.offsets[queue] + item, mark.deal)
        after = msgspec.structs.replace(after, batch=mark.batch + len(starts) - 1)
        return Pool(queue=queue[order], item=item[order], epoch=epoch[order], starts=starts, next=after)

    def arranged(self, places: Numbers, deal: int) -> tuple[Numbers, Numbers]:
        """Return in which order the draws of whole pools are dealt, and where batches begin, with the end of the last.

        `places` are those of the draws in all queues behind one another, `deal` is how many were drawn before.
        """
        seconds, tokens = self.dealt(places), None
        if self.text is not None:
            tokens = np.ceil(seconds * TOKENS_A_SECOND).astype(np.int64) + self.text[places]
        return arrange(seconds, tokens, self.budget, self.seed, deal, POOL)

    @functools.lru_cache(maxsize=2)  # noqa: B019 - an Order lives as long as its stream
    def cycle(self, number: int) -> Dealt:
        """Return a whole cycle. Without weights any is as quick as the first; else those before it are woven, too."""
        mark = self.start
        if self.whole:
            items = tuple(number * len(queue.sample) for queue in self.queues)
            mark = Mark(deal=number * self.examples, items=items)
        while mark.deal < number * self.examples:
            mark = self.draws(mark)[3]
        queue, item, epoch = (np.empty(self.examples, np.int32) for _ in range(3))
        starts, at = [np.zeros(1, np.int64)], 0
        while at < self.examples:
            pool = self.pool(mark)
            span = slice(at, at + len(pool.queue))
            queue[span], item[span], epoch[span] = pool.queue, pool.item, pool.epoch
            starts.append(pool.starts[1:] + at)
            at, mark = span.stop, pool.next
        return Dealt(queue=queue, item=item, epoch=epoch, starts=np.concatenate(starts))


__all__ = ["POOL", "Budget", "Dealt", "Mark", "Order", "Pool", "Queue", "cut_batches"]
