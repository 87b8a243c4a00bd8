"""What a person sees of a run: its price before, its pace while it goes, and afterwards what each task has learnt."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from manifests.console import console, hours, size, table

# What needs torch is imported for its types only.
if TYPE_CHECKING:
    from salmonn.training.price import Price
    from salmonn.training.run import StepLog
    from salmonn.training.trainer import RunResult

EVERY = 10
"""Steps that one line of the table sums up, at least."""
RECENT = 50
"""Steps that a pace is told of."""
COLUMNS = 40
"""Of a curve."""
EIGHTHS = "".join(map(chr, range(0x2581, 0x2589)))
"""Bars of an eighth to eight eighths of a line's height."""
DEVICES = {"cuda": "on a GPU", "cpu": "on a CPU"}


class Pace:
    """How fast a run goes of late, and when it will be done."""

    def __init__(self, goal: int) -> None:
        """The run ends with the step `goal`."""
        self.goal = goal
        self.recent: deque[tuple[float, int]] = deque(maxlen=RECENT)

    def note(self, line: StepLog) -> str:
        """Return what to say beside a bar: ``loss 2.314, 35.2 clips/s, 1.5 h left``."""
        self.recent.append((time.monotonic(), line.examples))
        said = f"loss {line.loss:.3f}"
        passed = self.recent[-1][0] - self.recent[0][0]
        if passed <= 0:
            return said
        clips = sum(examples for _, examples in self.recent) - self.recent[0][1]
        left = (self.goal - line.step) * passed / (len(self.recent) - 1)
        return f"{said}, {clips / passed:.1f} clips/s, {hours(left)} left"


def show_run(result: RunResult, lines: Sequence[StepLog], whole: Sequence[StepLog] = ()) -> None:
    """Print a call of `train` by its steps: loss and share of answer tokens hit, over all and by task.

    With the lines of the `whole` run the tasks' curves begin where it began.
    """
    if not lines:
        console.print(f"{result.run} is trained to step {result.steps}, nothing to do")
        return
    shown = table("", "steps", "loss", "hits", "padding", "waited", right=("loss", "hits", "padding", "waited"))
    parts = spans(lines, 10)
    for part in parts:
        tokens = max(1, sum(line.tokens for line in part))
        hits = sum(task.accuracy * task.tokens for line in part for task in line.tasks.values())
        shown.add_row(
            f"{part[0].step}-{part[-1].step}",
            f"{sum(line.loss * line.tokens for line in part) / tokens:.3f}",
            f"{hits / tokens:.1%}",
            f"{sum(line.padding for line in part) / len(part):.1%}",
            f"{sum(line.wait_seconds for line in part) / max(1e-9, sum(line.seconds for line in part)):.1%}",
        )
    console.print(shown)
    show_tasks(parts, whole or lines)
    went = f"steps {lines[0].step} to {lines[-1].step}" + (
        f" (resumed at {result.resumed_from})" if result.resumed_from else ""
    )
    console.print(
        f"{went} in {result.seconds:.1f} s, {len(lines) / result.seconds:.1f} steps a second; kept in {result.run}"
    )
    if result.ended == "signal":
        console.print("asked to stop, and saved; run the same command again to go on")


def spans(lines: Sequence[StepLog], many: int, least: int = EVERY) -> list[Sequence[StepLog]]:
    """Cut steps into at most `many` parts of at least `least` each, but for the last."""
    width = max(least, -(-len(lines) // many))
    return [lines[first : first + width] for first in range(0, len(lines), width)]


def show_tasks(parts: Sequence[Sequence[StepLog]], whole: Sequence[StepLog]) -> None:
    """Print each task's loss and hits at the beginning and at the end of a call, and the curve of its hits in the run.

    A task that is not heard yet stays level at what the language model guesses (0.40 to 0.45 for speech), then breaks
    away: facts of SALMONN's alignment that a single number hides.
    """
    columns = ("loss at first", "at last", "hits at first", "at last ")
    steps = f"hits from step {whole[0].step} to {whole[-1].step}, 0 to 100 %"
    shown = table("", "task", *columns, steps, right=columns)
    for name in sorted({task for part in parts for line in part for task in line.tasks}):
        told = [summed(part, name) for part in parts]
        seen = [one for one in told if one is not None]
        (first_loss, first_hits), (last_loss, last_hits) = seen[0], seen[-1]
        drawn = curve([None if (of := summed(part, name)) is None else of[1] for part in spans(whole, COLUMNS, 1)])
        shown.add_row(name, f"{first_loss:.3f}", f"{last_loss:.3f}", f"{first_hits:.1%}", f"{last_hits:.1%}", drawn)
    console.print(shown)


def curve(shares: Sequence[float | None]) -> str:
    """Return shares from 0 to 1 as bars of their height, or in tenths where the terminal has no such letters."""
    levels = EIGHTHS if console.encoding.startswith("utf") else "0123456789"
    return "".join(" " if share is None else levels[min(len(levels) - 1, int(share * len(levels)))] for share in shares)


def summed(part: Sequence[StepLog], task: str) -> tuple[float, float] | None:
    """Return a task's loss and share of hits over some steps, None if they hold none of its examples."""
    of = [line.tasks[task] for line in part if task in line.tasks]
    tokens = sum(one.tokens for one in of)
    if not tokens:
        return None
    return sum(one.loss * one.tokens for one in of) / tokens, sum(one.accuracy * one.tokens for one in of) / tokens


def show_price(told: Price) -> None:
    """Print what a run will cost."""
    show_weights(told)
    show_memory(told)
    show_data(told)
    console.print(
        f"a checkpoint takes {size(told.checkpoint_weights)} for the trained weights and "
        f"{size(told.checkpoint_optimizer)} for the optimizer; all that are kept, and one being written, "
        f"{size(told.checkpoints)} in {told.run}",
        markup=False,
    )
    for remark in told.remarks:
        console.print(f"note: {remark}", markup=False)


def show_weights(told: Price) -> None:
    """Print the weights of each part."""
    columns = ("trained", "learn in this run", "frozen")
    shown = table(f"{told.stage} of {told.recipe}: weights", "part", "type", *columns, right=columns)
    for part in told.parts:
        numbers = (part.trained, part.learning, part.frozen)
        shown.add_row(part.name, part.dtype, *(f"{number:,}" if number else "" for number in numbers))
    shown.add_row("all", "", f"{told.trained:,}", f"{told.learning:,}", f"{told.frozen:,}", style="bold")
    console.print(shown)


def show_memory(told: Price) -> None:
    """Print the memory of one process, item by item, on each device it may run on."""
    columns = [DEVICES[memory.device] for memory in told.memory]
    among = f", one of {told.processes}" if told.processes > 1 else ""
    shown = table(f"memory of a process{among} (estimate)", "item", *columns, right=tuple(columns))
    for item in dict.fromkeys(name for memory in told.memory for name in memory.items):
        shown.add_row(item, *(size(memory.items[item]) if item in memory.items else "" for memory in told.memory))
    shown.add_row("all", *(size(memory.total) for memory in told.memory), style="bold")
    console.print(shown)
    full = told.fullest
    console.print(
        f"its fullest batch: {counted(full.examples, 'clip')}, {full.tokens:,} tokens, {full.answers:,} of them answers"
    )


def show_data(told: Price) -> None:
    """Print what is dealt in all steps, or what the recipe means to have where there is no dataset yet."""
    steps = f"{told.steps:,} steps of {counted(told.batches_per_step, 'batch')}"
    if told.data is None:
        shown = table(f"{steps}; the recipe's own figures", "row", "hours", "samples", right=("hours", "samples"))
        for row in told.targets:
            shown.add_row(
                row.name,
                "-" if row.hours is None else f"{row.hours:,.0f}",
                "-" if row.samples is None else f"{row.samples:,}",
            )
        console.print(shown)
        most = told.steps * told.batches_per_step * told.fullest.examples
        console.print(f"at most {most:,} examples are learnt from")
        return
    columns = ("examples", "share", "hours", "answer tokens", "epochs")
    shown = table(steps, "task", *columns, right=columns)
    for task in told.data.tasks:
        shown.add_row(
            task.name,
            f"{task.examples:,}",
            f"{task.of_examples:.1%}",
            f"{task.seconds / 3600:,.1f}",
            f"{task.of_tokens:.1%}",
            f"{task.epochs:.2f}",
        )
    data = told.data
    shown.add_row("all", f"{data.examples:,}", "", f"{data.hours:,.1f}", "", f"{data.epochs:.2f}", style="bold")
    console.print(shown)
    console.print(f"{data.examples_per_step:.1f} examples a step; padding is {data.padding:.1%} of the audio")


def counted(number: int, thing: str) -> str:
    """Return a number of things: ``1 batch``, ``32 batches``."""
    plural = "" if number == 1 else "es" if thing.endswith("ch") else "s"
    return f"{number:,} {thing}{plural}"
