"""Plots as SVG: pure functions from numbers to text. They stretch with the page, their letters do not.

Each has a <title> that says what it shows, and each of its parts one with its numbers, for readers that do not see it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from manifests import TASKS

COLOURS = (
    "#3b74c4",
    "#c9542b",
    "#23875e",
    "#9459b8",
    "#9a7412",
    "#c04484",
    "#2785a1",
    "#717d22",
    "#6468d6",
    "#94684f",
    "#5d7f94",
    "#cc4450",
)
"""A colour a task, in the order of the tasks: each has a contrast of 3 to 1 or more, to white and to black."""
HEIGHT = 150
"""Pixels of the bars of a histogram; letters stand below them."""

Part = tuple[float, str, str]
"""Of a bar: its length, its colour, and what it is."""


def colour(task: str) -> str:
    """Return the colour of a task; it is the same in every plot and every page."""
    return COLOURS[list(TASKS).index(task) % len(COLOURS)] if task in TASKS else "#7b8794"


def bar(parts: Sequence[Part], title: str, height: int = 16) -> str:
    """Return one bar of parts that lie side by side; it fills the width of its place."""
    total = sum(length for length, _, _ in parts)
    drawn, left = [], 0.0
    for length, fill, name in parts:
        if length:
            width = 100 * length / total
            drawn.append(
                f'<rect class="part" x="{percent(left)}" y="0" width="{percent(width)}" height="{height}" '
                f'fill="{fill}"><title>{escape(name)}</title></rect>'
            )
            left += width
    inside = f"<title>{escape(title)}</title>{''.join(drawn)}"
    return f'<svg class="bar" role="img" width="100%" height="{height}">{inside}</svg>'


def histogram(edges: Sequence[float], series: Sequence[tuple[str, Sequence[int]]], title: str) -> str:
    """Return stacked bars: for each task how many draws fall into each bin; the last bin has no upper edge."""
    used = len(edges) if any(counts[-1] for _, counts in series) else len(edges) - 1
    most = max((sum(counts[place] for _, counts in series) for place in range(used)), default=0)
    step = tick(most)
    top = max(1, math.ceil(most / step)) * step
    bars = "".join(stack(place, used, edges, series, top) for place in range(used))
    labels = [(place, edges[place]) for place in range(0, min(used + 1, len(edges)), 5)]
    return framed(bars, labels, used, top, step, title)


def stack(place: int, bins: int, edges: Sequence[float], series: Sequence[tuple[str, Sequence[int]]], top: int) -> str:
    """Return the bars of one bin, one on the other."""
    drawn, below = [], 0
    upper = f" to {edges[place + 1]:g}" if place + 1 < len(edges) else " or more"
    for task, counts in series:
        if count := counts[place]:
            y = height_of(below + count, top)
            drawn.append(
                f'<rect class="part" x="{percent(100 * place / bins)}" y="{y:g}" width="{percent(100 / bins)}" '
                f'height="{round(height_of(below, top) - y, 2):g}" fill="{colour(task)}">'
                f"<title>{escape(task)}, {edges[place]:g}{upper} s: {count:,}</title></rect>"
            )
            below += count
    return "".join(drawn)


def shade(place: int) -> str:
    """Return the colour of the place-th of things that are no tasks; after a dozen the colours come again."""
    return COLOURS[(5 * place + 6) % len(COLOURS)]


def levels(edges: Sequence[float], series: Sequence[tuple[str, Sequence[int]]], title: str, unit: str) -> str:
    """Return stacked bars of measures: for each of the series how many fall into each bin between two edges."""
    bins = len(edges) - 1
    most = max((sum(counts[place] for _, counts in series) for place in range(bins)), default=0)
    step = tick(most)
    top = max(1, math.ceil(most / step)) * step
    drawn = []
    for place in range(bins):
        below = 0
        for number, (name, counts) in enumerate(series):
            if count := counts[place]:
                y = height_of(below + count, top)
                said = f"{name}, {edges[place]:g} to {edges[place + 1]:g} {unit}: {count:,}"
                drawn.append(
                    f'<rect class="part" x="{percent(100 * place / bins)}" y="{y:g}" width="{percent(100 / bins)}" '
                    f'height="{round(height_of(below, top) - y, 2):g}" fill="{shade(number)}">'
                    f"<title>{escape(said)}</title></rect>"
                )
                below += count
    return framed("".join(drawn), [(place, edges[place]) for place in range(0, bins + 1, 3)], bins, top, step, title)


def framed(bars: str, labels: Sequence[tuple[int, float]], bins: int, top: int, step: int, title: str) -> str:
    """Return bars with a grid behind them, numbers below and at the side."""
    grid = [
        f'<line class="grid" x1="0" x2="100%" y1="{height_of(value, top)}" y2="{height_of(value, top)}"/>'
        for value in range(0, top + 1, step)
    ]
    below = [
        f'<text x="{percent(100 * place / bins)}" y="{HEIGHT + 25}" {anchor(place, bins)}>{edge:g}</text>'
        for place, edge in labels
    ]
    ticks = [
        f'<text x="34" y="{height_of(value, top) + 4:g}" text-anchor="end">{short(value)}</text>'
        for value in range(0, top + 1, step)
    ]
    inside = f"<title>{escape(title)}</title>{''.join(grid)}{bars}{''.join(below)}"
    return (
        f'<div class="chart"><svg class="axis" aria-hidden="true" width="40" height="{HEIGHT + 30}">{"".join(ticks)}'
        f'</svg><svg class="axis" role="img" width="100%" height="{HEIGHT + 30}">{inside}</svg></div>'
    )


def columns(parts: Sequence[tuple[float, str]], even: float, fill: str, title: str, height: int = 30) -> str:
    """Return small columns side by side, each with what it is, and a line at the height `even`."""
    top = max([even, *(value for value, _ in parts)], default=0.0) or 1.0
    width = 100 / max(1, len(parts))
    drawn = []
    for place, (value, name) in enumerate(parts):
        # What is not nothing can be seen.
        tall = max(1.0, height * value / top) if value else 0.0
        drawn.append(
            f'<rect class="part" x="{percent(place * width)}" y="{round(height - tall, 2):g}" width="{percent(width)}" '
            f'height="{round(tall, 2):g}" fill="{fill}"><title>{escape(name)}</title></rect>'
        )
    level = round(height * (1 - even / top), 2)
    line = f'<line class="even" x1="0" x2="100%" y1="{level:g}" y2="{level:g}"/>' if even else ""
    inside = f"<title>{escape(title)}</title>{''.join(drawn)}{line}"
    return f'<svg class="columns" role="img" width="100%" height="{height}">{inside}</svg>'


def waveform(peaks: Sequence[int], fill: str, title: str) -> str:
    """Return the outline of a clip, scaled to its loudest peak."""
    most = max(peaks, default=0) or 1
    strokes = []
    for place, peak in enumerate(peaks):
        half = max(0.4, 23.5 * peak / most)
        strokes.append(f"M{place + 0.15:g} {24 - half:.1f}h.7v{2 * half:.1f}h-.7z")
    return (
        f'<svg class="wave" role="img" width="100%" height="56" viewBox="0 0 {max(1, len(peaks))} 48" '
        f'preserveAspectRatio="none"><title>{escape(title)}</title><path d="{"".join(strokes)}" fill="{fill}"/></svg>'
    )


def tick(most: int) -> int:
    """Return a round step that cuts 0 to `most` into at most four."""
    step = 1
    while True:
        for factor in (1, 2, 5):
            if most <= 4 * step * factor:
                return step * factor
        step *= 10


def height_of(value: float, top: float) -> float:
    """Return where a value stands, in pixels from above; room is left for the letters of the highest tick."""
    return round(6 + HEIGHT * (1 - value / top), 2)


def percent(number: float) -> str:
    """Return a length in percent of the width."""
    return f"{round(number, 3):g}%"


def anchor(place: int, bins: int) -> str:
    """Return how a label stands at its edge, so that the first and the last are not cut off."""
    return f'text-anchor="{"start" if place == 0 else "end" if place == bins else "middle"}"'


def short(number: int) -> str:
    """Return a number in few letters."""
    for size, letter in ((10**6, "M"), (10**3, "k")):
        if number >= 10 * size or (number >= size and number % size == 0):
            return f"{number / size:g}{letter}"
    return f"{number:,}"
