"""Weaving queues into one sequence in which every share holds at every prefix, not only on average.

This is worst-case fair weighted fair queueing (Bennett and Zhang, WF2Q, INFOCOM 1996), which with items of size 1 is
Tijdeman's solution of the chairman assignment problem (Discrete Mathematics 32, 1980): of the queues that have not had
more than their share, the one whose next item is due first is served. No queue is ever ahead or behind by an item.
Tasks are woven so, and then, in the turns of each task, its queues.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

SLACK = 1 + 1e-12
"""Shares are floats: what is due by exact arithmetic must not wait for its last bit."""


class Weave:
    """Serves queue after queue by their shares, which add up to 1."""

    def __init__(self, shares: Sequence[float]) -> None:
        """Begin with nothing served."""
        self.shares = list(shares)
        self.served = [0.0] * len(self.shares)
        """What each queue had so far: items, seconds or tokens."""

    def draw(self, count: int) -> list[int]:
        """Return the queues of the next `count` turns, where every item counts 1."""
        shares, served = self.shares, self.served
        if len(shares) == 1:
            served[0] += count
            return [0] * count
        turn = round(sum(served))
        ready: list[tuple[float, int]] = []
        """Queues that may be served, by when their next item is due."""
        early: list[tuple[float, int]] = []
        """Queues that have had more than their share, by when they have not."""
        for queue, (had, share) in enumerate(zip(served, shares, strict=True)):
            if had <= turn * share * SLACK:
                heapq.heappush(ready, ((had + 1) / share, queue))
            else:
                heapq.heappush(early, (had / share, queue))
        drawn: list[int] = []
        append, pop, push, replace = drawn.append, heapq.heappop, heapq.heappush, heapq.heapreplace
        late = turn * SLACK
        for now in range(turn + 1, turn + count + 1):
            while early and early[0][0] <= late:
                queue = pop(early)[1]
                push(ready, ((served[queue] + 1) / shares[queue], queue))
            late = now * SLACK
            # Shares add up to 1, so that somebody has not had too much; only the last bit of a float may hide it.
            due, queue = ready[0] if ready else early[0]
            append(queue)
            had = served[queue] = served[queue] + 1
            if not ready:
                replace(early, (had / shares[queue], queue))
            elif due <= late:
                # What was due now has been served: the next may be served at once.
                replace(ready, ((had + 1) / shares[queue], queue))
            else:
                pop(ready)
                push(early, (due, queue))
        return drawn

    def next(self, size: Callable[[int], float]) -> int:
        """Return the queue that is served next, where the next item of a queue counts `size(queue)`."""
        now = sum(self.served)
        best, due = -1, 0.0
        for queue, (had, share) in enumerate(zip(self.served, self.shares, strict=True)):
            if had <= now * share * SLACK:
                finish = (had + size(queue)) / share
                if best < 0 or finish < due:
                    best, due = queue, finish
        if best < 0:
            return min(range(len(self.shares)), key=lambda queue: self.served[queue] / self.shares[queue])
        return best


class Loom:
    """Weaves tasks, and in the turns of each the queues of that task."""

    def __init__(self, shares: Sequence[float], tasks: Sequence[int]) -> None:
        """Weave queues of `shares`, which add up to 1; `tasks` says, for each queue, the number of its task."""
        self.queues = [[q for q, task in enumerate(tasks) if task == number] for number in range(max(tasks) + 1)]
        self.first = np.array([mine[0] for mine in self.queues], np.int64)
        of_task = [sum(shares[q] for q in mine) for mine in self.queues]
        self.tasks = Weave(of_task)
        self.inner = [
            Weave([shares[q] / whole for q in mine]) for mine, whole in zip(self.queues, of_task, strict=True)
        ]

    @property
    def state(self) -> list[list[float]]:
        """What each task and each of its queues had so far."""
        return [list(self.tasks.served), *(list(weave.served) for weave in self.inner)]

    @state.setter
    def state(self, value: list[list[float]]) -> None:
        self.tasks.served = list(value[0])
        for weave, served in zip(self.inner, value[1:], strict=True):
            weave.served = list(served)

    def draw(self, count: int) -> NDArray[np.int64]:
        """Return the queues of the next `count` turns, where every example counts 1."""
        tasks = np.array(self.tasks.draw(count), np.int64)
        drawn = self.first[tasks]
        for task, (mine, weave) in enumerate(zip(self.queues, self.inner, strict=True)):
            if len(mine) > 1:
                turns = np.flatnonzero(tasks == task)
                drawn[turns] = np.array(mine, np.int64)[weave.draw(len(turns))]
            else:
                weave.served[0] = self.tasks.served[task]
        return drawn

    def draw_sized(self, count: int, size: Callable[[int], float], take: Callable[[int], None]) -> list[int]:
        """Return the queues of the next `count` turns; an example counts `size`, and `take` moves its queue on."""
        drawn = []
        for _ in range(count):
            heads = [self.head(task, size) for task in range(len(self.inner))]
            task = self.tasks.next(lambda number, heads=heads: size(heads[number]))  # type: ignore[misc]
            queue = heads[task]
            amount = size(queue)
            self.tasks.served[task] += amount
            self.inner[task].served[self.queues[task].index(queue)] += amount
            take(queue)
            drawn.append(queue)
        return drawn

    def head(self, task: int, size: Callable[[int], float]) -> int:
        """Return the queue of a task that would be served next."""
        mine = self.queues[task]
        return mine[self.inner[task].next(lambda place: size(mine[place]))] if len(mine) > 1 else mine[0]
