"""Waiting for a pipe: by poll, since select knows no file descriptor from 1,024 on, and a trainer may have more."""

from __future__ import annotations

import select
from typing import IO, Any


def readable(pipe: int | IO[Any], seconds: float) -> bool:
    """Wait at most `seconds` until something can be read from `pipe`, or it has ended; return whether."""
    poll = select.poll()
    poll.register(pipe, select.POLLIN | select.POLLHUP)
    return bool(poll.poll(max(0.0, seconds) * 1000))
