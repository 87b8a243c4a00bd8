"""What a person sees: one console, tables, and progress as bars on a terminal or a line every 30 seconds in a log."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

EVERY = 30.0
"""Seconds between lines in a log."""

WIDTH = 140
"""Columns of a log, which has no width of its own."""

FIRST = 24
"""Columns that the first column of a table keeps."""

console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else WIDTH)


def table(title: str, *columns: str, right: tuple[str, ...] = ()) -> Table:
    """Return an empty table; the columns named in `right` hold numbers."""
    made = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for place, column in enumerate(columns):
        # On a narrow terminal the names that say what a row is about are the last to be cut.
        width = FIRST if place == 0 else None
        made.add_column(column, justify="right" if column in right else "left", header_style="dim", min_width=width)
    return made


def hours(seconds: float) -> str:
    """Return a length as people say it: ``3.2 h``, ``4.1 min`` or ``12.0 s``."""
    if seconds >= 3600:
        return f"{seconds / 3600:,.1f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.1f} s"


def size(count: float) -> str:
    """Return bytes as people say them: ``1.2 GB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"


class Bars:
    """Shows how far each step is: called with its name, how much is done, how much there is, and perhaps a note."""

    def __init__(self) -> None:
        self.bars: dict[str, TaskID] = {}
        self.said: dict[str, float] = {}
        self.progress: Progress | None = None
        if console.is_terminal:
            columns = (SpinnerColumn(), TextColumn("  {task.description:<9}"), BarColumn(24), MofNCompleteColumn())
            extra = (TimeElapsedColumn(), TextColumn("{task.fields[note]}"))
            self.progress = Progress(*columns, *extra, console=console, transient=True)

    def __enter__(self) -> Bars:
        if self.progress:
            self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.progress:
            self.progress.stop()

    def __call__(self, step: str, done: int, total: int, note: str = "") -> None:
        """Note that `done` of `total` of a step are done."""
        if self.progress:
            if step not in self.bars:
                self.bars[step] = self.progress.add_task(step, total=total, note=note)
            self.progress.update(self.bars[step], completed=done, total=total, note=note)
            return
        now = time.monotonic()
        if now - self.said.setdefault(step, now) >= EVERY:
            self.said[step] = now
            console.print(f"  {step}: {done} of {total} {note}".rstrip())
