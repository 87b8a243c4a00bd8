"""The board of a fetch: what is on its way, how fast and how long it takes, live on a terminal, in lines in a log."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from types import TracebackType

from rich.live import Live
from rich.table import Table

from manifests import files
from manifests.console import EVERY, console, hours, size, table
from pipelines.fetching.part import read_origin
from pipelines.items import Item, Outcome, outcome_path, read_outcome

TICK = 0.5
"""Seconds between two looks at the disk."""
SPAN = 20.0
"""Seconds over which speed is measured."""
SHOWN = 12
"""Items on their way that are shown one by one."""


class Speed:
    """Bytes a second over the last while."""

    def __init__(self) -> None:
        self.seen: deque[tuple[float, int]] = deque()

    def note(self, count: int, now: float) -> float:
        """Note that `count` bytes are there at `now`; return bytes a second, 0 until that can be told."""
        if not count:
            return 0.0
        self.seen.append((now, count))
        while now - self.seen[0][0] > SPAN:
            self.seen.popleft()
        begin, first = self.seen[0]
        return max(0.0, (count - first) / (now - begin)) if now > begin else 0.0


def told(outcome: Outcome) -> str:
    """Return what became of an item in a few words."""
    if outcome.state != "ok":
        return f"{'failed' if outcome.state == 'permanent' else 'not yet'}: {outcome.why}"
    words = ["was there" if outcome.reason == "found" else "fetched"]
    held = {"published": "as published", "lock": "as in fetch.lock"}.get(outcome.verified, "digest learned")
    words += [held, *([f"{outcome.files:,} files unpacked"] if outcome.unpacked else [])]
    return ", ".join(words)


class Board:
    """Looks at what workers leave on the disk, so that it shows the same wherever they run. A context."""

    def __init__(self, items: Sequence[Item], root: str) -> None:
        """Show `items` below `root`."""
        self.items, self.root = items, root
        self.before = {item.key: self.stamp(item) for item in items}
        self.done: dict[str, Outcome] = {}
        self.total = Speed()
        self.speeds: dict[str, Speed] = {}
        self.now: dict[str, tuple[int, float]] = {}
        """Items on their way to bytes that are there and bytes a second."""
        self.sizes = {item.key: item.bytes for item in items}
        """As published, or as the server told."""
        self.speed = 0.0
        self.stop = threading.Event()
        self.live = Live(get_renderable=self.render, console=console, refresh_per_second=2, transient=True)
        self.thread = threading.Thread(target=self.watch, daemon=True)

    def __enter__(self) -> Board:
        if console.is_terminal:
            self.live.start()
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop.set()
        self.thread.join()
        self.look()
        if console.is_terminal:
            self.live.stop()

    def stamp(self, item: Item) -> tuple[int, int] | None:
        """Return what changes when an item's outcome is written anew."""
        found = files.read_head(outcome_path(self.root, item), 0)
        return None if found is None else (found[1], found[2])

    def watch(self) -> None:
        """Look again and again."""
        said = time.monotonic()
        while not self.stop.wait(TICK):
            self.look()
            if not console.is_terminal and time.monotonic() - said >= EVERY:
                said = time.monotonic()
                console.print(f"  {self.summary()}", markup=False)

    def look(self) -> None:
        """See what is new on the disk; what is finished is told in a line of its own."""
        now = time.monotonic()
        for item in self.items:
            if item.key in self.done:
                continue
            if self.stamp(item) != self.before[item.key] and (outcome := read_outcome(self.root, item)):
                self.done[item.key] = outcome
                self.now.pop(item.key, None)
                pace = f", {size(outcome.received / outcome.seconds)}/s" if outcome.received and outcome.seconds else ""
                length = f"{size(outcome.bytes)}{pace}, " if outcome.state == "ok" else ""
                console.print(f"{item.key}: {length}{told(outcome)}", markup=False)
                continue
            part = files.join(self.root, f"{item.path}.part")
            there = files.size(part)
            if there is not None:
                self.sizes[item.key] = self.sizes[item.key] or read_origin(part).total
                self.now[item.key] = (there, self.speeds.setdefault(item.key, Speed()).note(there, now))
        self.speed = self.total.note(self.here, now)

    @property
    def here(self) -> int:
        """Bytes that are there."""
        return sum(outcome.bytes for outcome in self.done.values()) + sum(there for there, _ in list(self.now.values()))

    @property
    def left(self) -> int:
        """Bytes that are missing of items whose size is known."""
        now = dict(self.now)
        return sum(
            max(0, total - now.get(key, (0, 0.0))[0]) for key, total in self.sizes.items() if key not in self.done
        )

    def summary(self) -> str:
        """Return how far all of it is, in a line."""
        rest = f", about {hours(self.left / self.speed)} left" if self.speed and self.left else ""
        return f"{len(self.done)} of {len(self.items)} items, {size(self.here)}, {size(self.speed)}/s{rest}"

    def render(self) -> Table:
        """Return the live table."""
        made = table(self.summary(), "item", "there", "of", "speed", "left", right=("there", "of", "speed", "left"))
        for key, (there, speed) in list(self.now.items())[:SHOWN]:
            whole = self.sizes[key]
            left = hours(max(0, whole - there) / speed) if whole and speed else ""
            made.add_row(key, size(there), size(whole) if whole else "?", f"{size(speed)}/s", left)
        return made
