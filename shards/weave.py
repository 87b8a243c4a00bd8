"""Weaving queues into one sequence in which every share holds at every prefix, not only on average.

This is Tijdeman's chairman assignment (Discrete Mathematics 32, 1980) on two floors: the queues of a task together
have the share of the task. In every turn those may be served that do not thereby get an item ahead of their share, nor
their task; of these the one that first would fall an item behind, or somewhat sooner, if its task would. Where that
would leave some task too little time it is another's turn; the task that is due first may always have it.
Turns are drawn ahead: where a queue would fall an item behind, the last turn is changed that prevents it. Should that
not help, in one of some thousand mixtures whose shares differ a thousandfold, the mixture is drawn by another `early`.

What is certain: tasks are always within an item. A turn goes to the task that is due first, which is Tijdeman's rule,
or else to one behind which that rule still comes to the same counts in time. So are queues wherever whole numbers of
items add up to 16 or less: all such mixtures were drawn for a round, and begin anew after it. And so they are in the
first turns of every mixture for which one of EARLY is found, as many as it takes to look (TURNS): what is only observed
is that one was found for every random mixture (tests/test_weave.py), and that it held behind those turns. Whether every
mixture has an order in which queues are within an item is not known; with two tasks it has.

Where items have sizes, seconds or tokens, it is worst-case fair weighted fair queueing (Bennett and Zhang, WF2Q,
INFOCOM 1996) of the tasks, and of the queues in the turns of their task: both within the largest item.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from shards.tijdeman import HAIR, due_first, in_time

try:
    from shards._weave import weave as compiled  # type: ignore[import-not-found]
except ImportError:  # pragma: no cover
    compiled = None

EARLY = (0.1, 1.0, 0.25, 0.5, 0.05, 0.02, 0.15, 0.35, 0.7, 0.01)
"""Of the time from when its task is due to when a queue is: where it counts as due, if that of its task is sooner.
At 0 small queues have turns, for their task's sake, that are missed long after; at 1 tasks are in need more often.
The first leaves the fewest to mend in random mixtures and in all of small numbers; the others are for the rest."""
LOOKED, TURNS = 2.0, 1 << 11
"""Turns of the smallest share, and turns at most, in which no queue may stray for a mixture to be drawn by an EARLY."""
REACH, BEYOND, CHOICES = 256, 32, 8
"""Turns before a queue falls behind that may be changed; turns without another after that; and queues tried in each."""
CHANGES, TRIES = 4, 20_000
"""Turns that are changed together at most; and turns drawn in search of them, for each number of them."""
Floats = NDArray[np.float64]
Small = NDArray[np.int32]


class Loom:
    """Serves queue after queue by their shares."""

    def __init__(self, shares: Sequence[float], tasks: Sequence[int]) -> None:
        """Weave queues of `shares`, which add up to 1; `tasks` says, for each queue, the number of its task."""
        self.shares, self.tasks = np.array(shares, np.float64), np.array(tasks, np.int32)
        self.task_shares = np.bincount(self.tasks, self.shares).astype(np.float64)
        self.served = np.zeros(len(self.shares))
        """What each queue had so far: items, seconds or tokens."""
        self.early = 0.0
        """One of EARLY, once turns were counted."""

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
        if not self.early and not given.shape[1]:
            self.early = early_of(self.shares.tobytes(), self.tasks.tobytes())
        about = (self.shares, self.tasks, self.task_shares, self.served, task_served)
        turns = work(*about, given, given.shape[1], self.early, taken, drawn)
        return drawn[:turns].astype(np.int64)


@functools.lru_cache(maxsize=64)
def early_of(shares: bytes, tasks: bytes) -> float:
    """Return the first of EARLY by which no queue strays by an item, or else that by which none does the longest."""
    loom = Loom(np.frombuffer(shares).tolist(), np.frombuffer(tasks, np.int32).tolist())
    turns = int(min(TURNS, LOOKED / max(loom.shares.min(initial=1.0), HAIR)))
    longest, best = -1, EARLY[0]
    for loom.early in EARLY:
        held = turns_held(loom, turns)
        if held > longest:
            longest, best = held, loom.early
        if held >= turns:
            break
    return best


def turns_held(loom: Loom, turns: int) -> int:
    """Return after how many turns, looked at in pieces, a queue is an item ahead of its share, or behind."""
    loom.served[:] = 0
    drawn = np.empty(0, np.int64)
    while len(drawn) < turns:
        # In pieces that double: where it strays, it does so soon, and every time at great cost.
        drawn = np.concatenate([drawn, loom.draw(max(64, len(drawn)))])
        if astray(loom.shares, drawn) >= 1.0 - HAIR:
            return len(drawn) // 2
    return len(drawn)


def astray(shares: Floats, drawn: NDArray[np.int64]) -> float:
    """Return by how many items a queue is ahead of its share, or behind, at the worst of all prefixes."""
    grouped = np.argsort(drawn, kind="stable")
    queue, had = drawn[grouped], np.bincount(drawn, minlength=len(shares))
    # What a queue had before each of its turns, and the turns of all before that one.
    before, share = np.arange(len(drawn)) - (np.cumsum(had) - had)[queue], shares[queue]
    ends = np.abs(len(drawn) * shares - had).max(initial=0.0)
    behind = (grouped * share - before).max(initial=0.0)
    ahead = (before + 1 - (grouped + 1) * share).max(initial=0.0)
    return float(max(ends, behind, ahead))


def weave(
    shares: Floats, tasks: Small, task_shares: Floats, served: Floats, task_served: Floats,
    sizes: Floats, width: int, early: float, taken: Small, drawn: Small,
) -> int:  # fmt: skip
    """Draw turns, and return how many: what shards/_weave.c does, which is fifty times as fast.

    `served`, `task_served` and `taken` are brought up to date, `drawn` is filled.
    """
    state = State(shares.tolist(), task_shares.tolist(), tasks.tolist(), served.tolist(), task_served.tolist(), early)
    if not width:
        drawn[:] = state.draw(len(drawn))
        taken += np.bincount(drawn, minlength=len(shares)).astype(np.int32)
    took, size, turn = taken.tolist(), sizes.tolist(), 0
    while width and turn < len(drawn) and max(took) < width:
        heads = [row[at] for row, at in zip(size, took, strict=True)]
        best = sized(state, heads)
        state.serve(best, heads[best])
        took[best] += 1
        drawn[turn] = best
        turn += 1
    served[:], task_served[:], taken[:] = state.had, state.task_had, took
    return turn if width else len(drawn)


class State:
    """What queues and tasks had so far, and who is next where every item counts 1."""

    def __init__(
        self, share: list[float], task_share: list[float], task_of: list[int], had: list[float], task_had: list[float],
        early: float,
    ) -> None:  # fmt: skip
        """Begin with what queues, and tasks, `had`."""
        self.early = early
        self.share, self.task_share, self.task_of, self.had, self.task_had = share, task_share, task_of, had, task_had
        self.now, self.left = 0.0, TRIES
        for one in task_had:
            self.now += one

    def serve(self, queue: int, amount: float) -> None:
        """Give so much to a queue; less than nothing takes it back."""
        self.had[queue] += amount
        self.task_had[self.task_of[queue]] += amount
        self.now += amount

    def draw(self, count: int) -> list[int]:
        """Serve `count` turns, and return whose they are.

        A turn depends on the counts before it alone: it is changed if it is the last one by whose change nobody falls
        behind in the first of the next REACH turns in which somebody would. So it does not matter where a draw begins.
        """
        path = [0] * (count + REACH + BEYOND)
        at = settled = 0
        while count and at < count + REACH:
            path[at] = self.choose(0)
            if self.lapses(path[at]):
                at = self.mended(path, max(settled, at - REACH + 1), at)
                settled = at + 1
            self.serve(path[at], 1.0)
            at += 1
        while at > count:
            at -= 1
            self.serve(path[at], -1.0)
        return path[:count]

    def mended(self, path: list[int], first: int, last: int) -> int:
        """Change one turn of `path`, from `first` on, so that nobody falls behind in turn `last`, before which we are.

        Return the turn, and be before it. If nothing helps it is the last one, as it was.
        """
        for changes in range(1, CHANGES + 1):
            self.left = TRIES
            changed = self.mend(path, first, last, last + BEYOND, changes)
            if changed >= 0:
                return changed
            for turn in range(first, last):
                path[turn] = self.choose(0)
                self.serve(path[turn], 1.0)
            path[last] = self.choose(0)
        return last

    def mend(self, path: list[int], first: int, last: int, end: int, changes: int) -> int:
        """Change the last turn after which, with so many `changes` in all, nobody falls behind before turn `end`.

        Return the turn, and be before it; or return -1, and be before turn `first`.
        """
        turn = last
        while True:
            for rank in range(1, CHOICES):
                path[turn] = self.choose(rank)
                if path[turn] < 0 or self.left <= 0:
                    break
                at = turn
                while at < end and not self.lapses(path[at]):
                    self.serve(path[at], 1.0)
                    at += 1
                    path[at] = self.choose(0)
                    self.left -= 1
                held = at == end
                if not held and changes > 1 and at > turn:
                    at = self.mend(path, turn + 1, at, end, changes - 1)
                    held = at >= 0
                    at = at if held else turn + 1
                while at > turn:
                    at -= 1
                    self.serve(path[at], -1.0)
                if held:
                    return turn
            if turn == first:
                return -1
            turn -= 1
            self.serve(path[turn], -1.0)

    def lapses(self, queue: int) -> bool:
        """Whether another queue falls an item behind if this one has the turn."""
        return any(
            other != queue and (self.now + 1.0) * share - had >= 1.0 - HAIR and self.now * share - had < 1.0 - HAIR
            for other, (share, had) in enumerate(zip(self.share, self.had, strict=True))
        )

    def choose(self, rank: int) -> int:
        """Return the queue whose turn it is: the first choice, or the second for `rank` 1; -1 if there are no more."""
        dues: list[tuple[float, int]] = []
        may: list[tuple[float, int]] = []
        for queue, task in enumerate(self.task_of):
            own = (self.had[queue] + 1.0) / self.share[queue]
            due = (self.task_had[task] + 1.0) / self.task_share[task]
            dues.append((due + self.early * (own - due) if due < own else own, queue))
            if (
                self.task_had[task] + 1.0 - (self.now + 1.0) * self.task_share[task] < 1.0 - HAIR
                and self.had[queue] + 1.0 - (self.now + 1.0) * self.share[queue] < 1.0 - HAIR
            ):
                may.append(dues[-1])
        usual = due_first(self.task_share, self.task_had, self.now)
        wanted = rank
        while may:
            best = min(may)[1]
            task = self.task_of[best]
            if usual not in (-1, task) and not in_time(self.task_share, self.task_had, self.now, task):
                may = [other for other in may if self.task_of[other[1]] != task]
            elif wanted:
                wanted -= 1
                may.remove(min(may))
            else:
                return best
        return -1 if rank else min(dues)[1]


def sized(state: State, heads: list[float]) -> int:
    """Return the queue whose turn it is where the next item of each counts `heads`."""
    share, task_share, task_of, had, now = state.share, state.task_share, state.task_of, state.had, state.now
    due: list[tuple[float, int]] = []
    spare: list[tuple[float, int, int]] = []
    for task, (mine, whole) in enumerate(zip(state.task_had, task_share, strict=True)):
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
