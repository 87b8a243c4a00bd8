"""The quarantine as the page shows it: the clips that are not in the dataset, and why."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from manifests.errors import UserError, nearest
from shards.browsing.address import page_number, searched
from shards.browsing.queries import LINE, PAGE, Facet
from shards.browsing.table import Table
from shards.refusals import REASONS

FACETS = ("corpus", "split", "verdict", "reason")


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """A clip that is not in the dataset, and why."""

    corpus: str
    split: str
    id: str
    verdict: str
    reason: str
    why: str
    """The reason in words, where there are any."""
    detail: str
    source: str
    bytes: int


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """One page of the quarantine."""

    total: int
    page: int
    pages: int
    rows: tuple[Refusal, ...]
    facets: dict[str, tuple[Facet, ...]]


def refusals(table: Table, pairs: Iterable[tuple[str, str]]) -> Refused:
    """Return a page of the quarantine as an address asks for it; UserError names what cannot be understood."""
    known = ("q", "page", *FACETS)
    held: dict[str, list[str]] = {}
    for name, value in pairs:
        if name not in known:
            raise UserError(f"no filter of the quarantine is called {name!r}; {nearest(name, known)}")
        held.setdefault(name, []).append(value)
    asked = page_number(held.get("page", [""])[-1])
    q = searched(held.get("q", [""])[-1])
    conditions = {"q": "contains(hay, lower($q))"} if q else {}
    values: dict[str, Any] = {"q": q} if q else {}
    for name in FACETS:
        if name in held:
            conditions[name], values[name] = f"list_contains(${name}, {name})", held[name]

    def where(leaving: str = "") -> tuple[str, dict[str, Any] | None]:
        kept = [condition for name, condition in conditions.items() if name != leaving]
        told = {name: value for name, value in values.items() if name != leaving}
        return (f"where {' and '.join(kept)}" if kept else ""), told or None

    clause, told = where()
    ((total,),) = table.ask(f"select count(*) from refusals {clause}", told)
    pages = max(1, -(-total // PAGE))
    page = min(asked, pages)
    rows = table.ask(
        f"select corpus, split, id, verdict, reason, detail, source, bytes from refusals {clause} "
        f"order by rowid limit {PAGE} offset {(page - 1) * PAGE}",
        told,
    )
    facets = {}
    for name in FACETS:
        others, given = where(name)
        every = table.ask(f"select distinct {name} from refusals order by 1")
        counts = dict(table.ask(f"select {name}, count(*) from refusals {others} group by 1", given))
        facets[name] = tuple(Facet(value=value, count=counts.get(value, 0)) for (value,) in every)
    return Refused(total=total, page=page, pages=pages, rows=tuple(refusal(*row) for row in rows), facets=facets)


def refusal(
    corpus: str, split: str, id: str, verdict: str, reason: str, detail: str, source: str, size: int
) -> Refusal:
    """Return one refused clip."""
    return Refusal(
        corpus=corpus, split=split, id=id, verdict=verdict, reason=reason, why=REASONS.get(reason, ""),
        detail=detail[: 4 * LINE], source=source, bytes=size,
    )  # fmt: skip
