"""Tijdeman's rule (Discrete Mathematics 32, 1980): whose turn it is, and whether another may have it without harm."""

from __future__ import annotations

from collections.abc import Sequence

HAIR = 1e-9
"""Shares are floats: what is exactly an item must not pass for less by its last bits."""
AHEAD, TASKS = 256, 64
"""Turns, and tasks, for which it is looked whether all tasks can still have theirs in time."""


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
