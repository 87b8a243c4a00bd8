"""What a page asks, read strictly from its address: a search, filters, an order, a page."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

import msgspec

from manifests.errors import UserError, nearest
from shards.browsing.table import FACETS, MEASURES

LONGEST = 200
"""Letters of a search."""
LARGEST = 3e38
"""Of numbers in four bytes."""
SORTS = ("", *MEASURES, *(f"-{name}" for name in MEASURES))
"""In the order of the index, upwards or, with a minus, downwards."""


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """Which samples to show."""

    q: str = ""
    """Found in text, prompts, answers, id, key or speaker, whatever the case."""
    chosen: dict[str, tuple[str, ...]] = {}
    """Of each facet, values of which a sample has one."""
    speaker: str = ""
    limits: dict[str, tuple[float, float]] = {}
    """Of each measure, from and to."""
    copies: bool = False
    """Only samples that sound the same, to the bit, as another."""
    sort: str = ""
    page: int = 1


def read_query(pairs: Iterable[tuple[str, str]]) -> Query:
    """Return the query of an address; UserError names what cannot be understood."""
    known = (
        "q",
        "speaker",
        "copies",
        "sort",
        "page",
        *FACETS,
        *(f"{m}_{end}" for m in MEASURES for end in ("from", "to")),
    )
    held: dict[str, list[str]] = {}
    for name, value in pairs:
        if name not in known:
            raise UserError(f"no filter is called {name!r}; {nearest(name, known)}")
        held.setdefault(name, []).append(value)
    one = {name: values[-1] for name, values in held.items()}
    sort = one.get("sort", "")
    if sort not in SORTS:
        raise UserError(f"cannot sort by {sort!r}; {nearest(sort, SORTS[1:])}")
    limits = {}
    for name in MEASURES:
        low, high = (number(f"{name}_{end}", one.get(f"{name}_{end}", "")) for end in ("from", "to"))
        if low is not None or high is not None:
            limits[name] = (-math.inf if low is None else low, math.inf if high is None else high)
    return Query(
        q=searched(one.get("q", "")),
        chosen={name: tuple(held[name]) for name in FACETS if name in held},
        speaker=one.get("speaker", ""),
        limits=limits,
        copies=bool(one.get("copies")),
        sort=sort,
        page=page_number(one.get("page", "")),
    )


def searched(text: str) -> str:
    """Return what is looked for: one line, in lower case, not longer than LONGEST."""
    return " ".join(text[:LONGEST].split("\n")).strip()


def number(name: str, text: str) -> float | None:
    """Return a limit; None where there is none, UserError if it is not a number."""
    if not text.strip():
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if math.isnan(value):
        raise UserError(f"{name} is {text[:40]!r}; it must be a number")
    return value if abs(value) < LARGEST else math.copysign(math.inf, value)


def page_number(text: str) -> int:
    """Return the number of a page, the first where none is given; UserError if it is not one."""
    if not re.fullmatch(r"[1-9][0-9]{0,8}|", text, re.ASCII):
        raise UserError(f"page is {text[:40]!r}; it must be a whole number from 1 on")
    return int(text or 1)
