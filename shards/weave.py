"""Weaving queues into one sequence in which every share holds at every prefix, not only on average.

This is Tijdeman's chairman assignment (Discrete Mathematics 32, 1980) on two floors: the queues of a task together
have the share of the task. In every turn those may be served that do not thereby get an item ahead of their share, nor
their task; of these the one that first would fall an item behind, or whose task would. Where that would leave some
task too little time it is another's turn; the task that is due first may always have it. So tasks are within an item
for certain, and queues in all but one of a hundred random mixtures, there within two (tests/test_weave.py).

Where items have sizes, seconds or tokens, it is worst-case fair weighted fair queueing (Bennett and Zhang, WF2Q,
INFOCOM 1996) of the tasks, and of the queues in the turns of their task: both within the largest item.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

try:
    from shards._weave import weave as compiled  # type: ignore[import-not-found]
except ImportError:  # pragma: no cover
    compiled = None

HAIR = 1e-9
"""Shares are floats: what is exactly an item must not pass for less by its last bits."""
AHEAD, TASKS = 256, 64
"""Turns, and tasks, for which it is looked whether all tasks can still have theirs in time."""
Floats = NDArray[np.float64]
Small = NDArray[np.int32]
Due = tuple[float, float, int]


class Loom:
    """Serves queue after queue by their shares."""

    def __init__(self, shares: Sequence[float], tasks: Sequence[int]) -> None:
        """Weave queues of `shares`, which add up to 1; `tasks` says, for each queue, the number of its task."""
        self.shares, self.tasks = np.array(shares, np.float64), np.array(tasks, np.int32)
        self.task_shares = np.bincount(self.tasks, self.shares).astype(np.float64)
        self.served = np.zeros(len(self.shares))
        """What each queue had so far: items, seconds or tokens."""

    def draw(self, count: int, sizes: Floats | None = None, *, slowly: bool = compiled is None) -> NDArray[np.int64]:
        """Return the queues of the next `count` turns; `slowly` draws them in Python.

        `sizes` [queues, items] are of the next items of each queue, which count 1 otherwise. Fewer turns are drawn if
        those of one queue run out.
        """
        given = np.zeros((len(self.shares), 0)) if sizes is None else np.ascontiguousarray(sizes, np.float64)
        taken, drawn = np.zeros(len(self.shares), np.int32), np.empty(count, np.int32)
        # By the queues each time: whoever begins here, from a mark, has them alone.
        task_served = np.bincount(self.tasks, self.served).astype(np.float64)
        work = weave if slowly or compiled is None else compiled
        about = (self.shares, self.tasks, self.task_shares, self.served, task_served)
        turns = work(*about, given, given.shape[1], taken, drawn)
        return drawn[:turns].astype(np.int64)


def weave(
    shares: Floats, tasks: Small, task_shares: Floats, served: Floats, task_served: Floats,
    sizes: Floats, width: int, taken: Small, drawn: Small,
) -> int:  # fmt: skip
    """Draw turns, and return how many: what shards/_weave.c does, which is fifty times as fast.

    `served`, `task_served` and `taken` are brought up to date, `drawn` is filled.
    """
    task_of, task_had, had = tasks.tolist(), task_served.tolist(), served.tolist()
    state = (shares.tolist(), task_shares.tolist(), task_of, had, task_had)
    took, size = taken.tolist(), sizes.tolist()
    now, turn = 0.0, 0
    for one in task_had:
        now += one
    while turn < len(drawn) and not (width and max(took) >= width):
        heads = [row[at] for row, at in zip(size, took, strict=True)] if width else []
        best = sized(*state, now, heads) if width else counted(*state, now)
        one = heads[best] if width else 1.0
        had[best] += one
        task_had[task_of[best]] += one
        now += one
        took[best] += 1
        drawn[turn] = best
        turn += 1
    served[:], task_served[:], taken[:] = had, task_had, took
    return turn


def counted(
    share: list[float], task_share: list[float], task_of: list[int], had: list[float], task_had: list[float], now: float
) -> int:
    """Return the queue whose turn it is after `now` turns, where every item counts 1."""
    due: list[Due] = []
    may: list[Due] = []
    for queue, task in enumerate(task_of):
        own, task_due = (had[queue] + 1.0) / share[queue], (task_had[task] + 1.0) / task_share[task]
        due.append((min(own, task_due), own, queue))
        if (
            task_had[task] + 1.0 - (now + 1.0) * task_share[task] < 1.0 - HAIR
            and had[queue] + 1.0 - (now + 1.0) * share[queue] < 1.0 - HAIR
        ):
            may.append(due[-1])
    usual = due_first(task_share, task_had, now)
    while may:
        best = min(may)[-1]
        task = task_of[best]
        if usual in (-1, task) or in_time(task_share, task_had, now, task):
            return best
        may = [other for other in may if task_of[other[-1]] != task]
    return min((first, queue) for first, _, queue in due)[-1]


def due_first(shares: Sequence[float], had: Sequence[float], turns: float) -> int:
    """Return the task that is due first of those that one more turn would not get an item ahead; -1 without any."""
    waiting = [
        ((one + 1.0) / share, task)
        for task, (share, one) in enumerate(zip(shares, had, strict=True))
        if one + 1.0 - (turns + 1.0) * share < 1.0 - HAIR
    ]
    return min(waiting)[1] if waiting else -1


def in_time(shares: Sequence[float], had: Sequence[float], turns: float, task: int) -> bool:
    """Whether all tasks still get theirs in time if `task` has this turn.

    With the task that is due first they would, turn by turn. The two ways meet when that way comes to `task`, too.
    """
    if len(shares) > TASKS:
        return False
    safe, bold = list(had), list(had)
    for more in range(AHEAD):
        usual = due_first(shares, safe, turns)
        mine = due_first(shares, bold, turns) if more else task
        if usual < 0 or mine < 0:
            return False
        safe[usual] += 1.0
        bold[mine] += 1.0
        turns += 1.0
        if any(turns * share - one >= 1.0 - HAIR for share, one in zip(shares, bold, strict=True)):
            return False
        if safe == bold:
            return True
    return False


def sized(
    share: list[float], task_share: list[float], task_of: list[int], had: list[float], task_had: list[float],
    now: float, heads: list[float],
) -> int:  # fmt: skip
    """Return the queue whose turn it is after `now` seconds or tokens, where the next item of each counts `heads`."""
    due: list[tuple[float, int]] = []
    spare: list[tuple[float, int, int]] = []
    for task, (mine, whole) in enumerate(zip(task_had, task_share, strict=True)):
        queues = [queue for queue, of in enumerate(task_of) if of == task]
        if not queues:
            continue
        ready = [queue for queue in queues if had[queue] <= mine * (share[queue] / whole) * (1.0 + HAIR)]
        if ready:
            head = min(((had[queue] + heads[queue]) / share[queue], queue) for queue in ready)[1]
        else:
            head = min((had[queue] / share[queue], queue) for queue in queues)[1]
        spare.append((mine / whole, task, head))
        if mine <= now * whole * (1.0 + HAIR):
            due.append(((mine + heads[head]) / whole, head))
    # Of those due at one time the first task, as the compiled loop has it: heads are in the order of tasks here.
    return min(due, key=lambda one: one[0])[1] if due else min(spare)[-1]
