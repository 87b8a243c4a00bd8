"""Curves as SVG: a pure function from numbers to the text of a file that any browser or editor opens by itself.

One panel below the other, each with an axis of its own unit. Every point has a <title> with its numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import msgspec

from shards.audit.plots import colour

WIDTH, LEFT, RIGHT, TOP, HEIGHT, BOTTOM = 760, 64, 250, 30, 150, 42
"""Pixels: of the whole, of the letters beside the axes, and of the area of a panel."""
DASHES = ("", "7 4", "2 3", "9 3 2 3")
"""Of the curves of one task, which share its colour."""
STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#333}.head{font-weight:600;fill:#111}.grid{stroke:#e3e6ea}"
    ".axis{stroke:#8a929b}.curve{fill:none;stroke-width:2}.band{opacity:.13}.mark{stroke:#8a929b;stroke-dasharray:3 4}"
)


class Curve(msgspec.Struct, frozen=True, kw_only=True):
    """One line: a value at each x, in the unit it is shown in."""

    name: str
    task: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float | None, ...] = ()
    """Of the 95 % interval, where there is one."""
    high: tuple[float | None, ...] = ()


class Panel(msgspec.Struct, frozen=True, kw_only=True):
    """Curves over one axis."""

    title: str
    curves: tuple[Curve, ...]


def draw(panels: Sequence[Panel], title: str, x_label: str, mark: float | None = None) -> str:
    """Return the file; a dashed line stands at the x of `mark`. A panel without a point is left out."""
    shown = [panel for panel in panels if any(curve.x for curve in panel.curves)]
    every = [x for panel in shown for curve in panel.curves for x in curve.x]
    xs = (min(every, default=0.0), max(every, default=1.0))
    step = TOP + HEIGHT + BOTTOM
    inside = "".join(
        f'<g transform="translate(0 {26 + place * step})">{drawn(panel, xs, x_label, mark)}</g>'
        for place, panel in enumerate(shown)
    )
    height = 30 + step * len(shown)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'height="{height}"><title>{escape(title)}</title><style>{STYLE}</style>'
        f'<rect width="100%" height="100%" fill="#fff"/><text class="head" x="8" y="18">{escape(title)}</text>'
        f"{inside}</svg>\n"
    )


def drawn(panel: Panel, xs: tuple[float, float], x_label: str, mark: float | None) -> str:
    """Return one panel: its grid, its curves with their intervals, and their names."""
    values = [
        value
        for curve in panel.curves
        for value in (*curve.y, *(v for v in (*curve.low, *curve.high) if v is not None))
    ]
    ticks = rounds(min(0.0, *values), max(values), 4)
    ys = (ticks[0], ticks[-1])
    right, bottom = WIDTH - RIGHT, TOP + HEIGHT
    parts = [f'<text class="head" x="{LEFT}" y="{TOP - 12}">{escape(panel.title)}</text>']
    for tick in ticks:
        y = across(tick, ys, bottom, TOP)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:g}" y2="{y:g}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:g}" text-anchor="end">{tick:g}</text>')
    for tick in rounds(*xs, 8):
        if xs[0] <= tick <= xs[1]:
            x = across(tick, xs, LEFT, right)
            parts.append(f'<text x="{x:g}" y="{bottom + 16}" text-anchor="middle">{tick:g}</text>')
    if mark is not None and xs[0] <= mark <= xs[1]:
        x = across(mark, xs, LEFT, right)
        parts.append(f'<line class="mark" x1="{x:g}" x2="{x:g}" y1="{TOP}" y2="{bottom}"/>')
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
    parts.append(f'<text x="{(LEFT + right) / 2:g}" y="{bottom + 33}" text-anchor="middle">{escape(x_label)}</text>')
    seen: dict[str, int] = {}
    for place, curve in enumerate(panel.curves):
        dash = DASHES[seen.setdefault(curve.task, 0) % len(DASHES)]
        seen[curve.task] += 1
        parts.append(line(curve, xs, ys, dash))
        y = TOP + 6 + 17 * place
        parts.append(f'<path class="curve" stroke="{colour(curve.task)}"{dashed(dash)} d="M{right + 14} {y}h22"/>')
        parts.append(f'<text x="{right + 42}" y="{y + 4}">{escape(curve.name)}</text>')
    return "".join(parts)


def line(curve: Curve, xs: tuple[float, float], ys: tuple[float, float], dash: str) -> str:
    """Return a curve, its points, and the band of its interval."""
    fill, right, bottom = colour(curve.task), WIDTH - RIGHT, TOP + HEIGHT
    places = [(across(x, xs, LEFT, right), across(y, ys, bottom, TOP)) for x, y in zip(curve.x, curve.y, strict=True)]
    band = ""
    bounds = [
        (x, low, high)
        for x, low, high in zip(curve.x, curve.low, curve.high, strict=False)
        if low is not None and high is not None
    ]
    if len(bounds) > 1:
        edge = [(x, low) for x, low, _ in bounds] + [(x, high) for x, _, high in bounds[::-1]]
        corners = " ".join(f"{across(x, xs, LEFT, right):g},{across(y, ys, bottom, TOP):g}" for x, y in edge)
        band = f'<polygon class="band" fill="{fill}" points="{corners}"/>'
    path = "L".join(f"{x:g} {y:g}" for x, y in places)
    points = "".join(
        f'<circle cx="{x:g}" cy="{y:g}" r="3.2" fill="{fill}"><title>{escape(told(curve, at))}</title></circle>'
        for at, (x, y) in enumerate(places)
    )
    return f'{band}<path class="curve" stroke="{fill}"{dashed(dash)} d="M{path}"/>{points}'


def told(curve: Curve, at: int) -> str:
    """Return one point in words."""
    between = ""
    if curve.low and curve.low[at] is not None:
        between = f" ({curve.low[at]:.4g} to {curve.high[at]:.4g})"
    return f"{curve.name}, {curve.x[at]:g}: {curve.y[at]:.4g}{between}"


def dashed(dash: str) -> str:
    """Return the attribute of a line's dashes."""
    return f' stroke-dasharray="{dash}"' if dash else ""


def across(value: float, span: tuple[float, float], first: float, last: float) -> float:
    """Return where a value of `span` stands between two places, in pixels; in their middle if the span is a point."""
    low, high = span
    share = (value - low) / (high - low) if high > low else 0.5
    return round(first + share * (last - first), 2)


def rounds(low: float, high: float, most: int) -> list[float]:
    """Return round numbers at equal steps, at most `most` steps, the first at or below `low`, the last at or above."""
    # A span that is lost in rounding is drawn as a point.
    wide = high - low if high - low > 1e-9 * max(abs(low), abs(high), 1e-9) else max(abs(high), 1.0)
    scale = 10.0 ** math.floor(math.log10(wide / most))
    step = next(
        scale * factor
        for factor in (1, 2, 5, 10, 20, 50)
        if math.ceil((low + wide) / (scale * factor)) - math.floor(low / (scale * factor)) <= most
    )
    first = math.floor(low / step)
    return [round((first + number) * step, 12) for number in range(math.ceil((low + wide) / step) - first + 1)]
