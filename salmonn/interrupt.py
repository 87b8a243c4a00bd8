"""SIGINT and SIGTERM as a wish to stop when the step is done."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Any


@contextlib.contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in the list that is yielded, so that a step can end; a second one acts as usual."""
    asked: list[int] = []
    usual: dict[int, Any] = {}

    def restore() -> None:
        while usual:
            signal.signal(*usual.popitem())

    def note(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        restore()

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            usual[number] = signal.signal(number, note)
    except ValueError:  # not the main thread, which alone receives signals
        pass
    try:
        yield asked
    finally:
        restore()
