"""Figures: numbers as people read them, each with its exact value beside it for machines."""

from __future__ import annotations

import msgspec
from markupsafe import Markup

FORMATS = {"count": "{:,.0f}", "tenths": "{:,.1f}", "ratio": "{:,.2f}", "number": "{:,.10g}", "limit": "{:g} s"}
"""How plain numbers are read."""
MINUS = "\u2212"


def figure(value: float | None, kind: str) -> Markup:
    """Return a number as it is read, with its exact value beside it for machines; a dash where there is none."""
    if value is None:
        return Markup('<span class="none">&ndash;</span>')
    exact = msgspec.json.encode(value).decode()
    return Markup('<data value="{}">{}</data>').format(exact, spoken(value, kind))


def spoken(value: float, kind: str) -> str:
    """Return a number as it is read."""
    if kind == "hours":
        return duration(value * 3600)
    if kind == "seconds":
        return duration(value)
    if kind == "share":
        return percent(value)
    if kind == "change":
        return f"{'+' if value > 0 else MINUS if value < 0 else ''}{percent(abs(value))}"
    if kind == "bytes":
        return size(value)
    return FORMATS[kind].format(value)


def duration(seconds: float) -> str:
    """Return a length of time in the unit that suits it."""
    if seconds < 59.95:
        return f"{seconds:.1f} s" if seconds else "0 s"
    if seconds < 3597:
        return f"{seconds / 60:.1f} min"
    hours = seconds / 3600
    return f"{hours:,.0f} h" if hours >= 99.95 else f"{hours:.1f} h"


def percent(part: float) -> str:
    """Return a share in percent; what is not nothing is not called so, nor what is not all."""
    if 0 < part < 0.0005:
        return "<0.1%"
    if 0.9995 <= part < 1:
        return ">99.9%"
    return f"{part:.0%}" if part in (0, 1) else f"{part:.1%}"


def size(count: float) -> str:
    """Return bytes in the unit that suits them."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.3g} {unit}" if unit != "B" else f"{count:.0f} B"
        count /= 1000
    return f"{count:,.2f} TB"
