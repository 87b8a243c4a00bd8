"""The answers to what a page asks of the table: how many samples, how many of each facet, and fifty of them."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator
from math import inf, isfinite
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from shards.browsing.address import Query
from shards.browsing.table import FACETS, Kind, Table, numbers

PAGE = 50
"""Samples of a page."""
KEPT = 3
"""Searches whose hits are kept, so that what is asked next about them is quick."""
VALUES = 200
"""Values of a facet that are told, those with the most samples: licences may name an author each."""
LINE = 240
"""Letters that a list shows of a text."""
KEYLIKE = re.compile(r"[a-z0-9_-]+")


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """What a list shows of a sample."""

    key: str
    corpus: str
    split: str
    tasks: tuple[str, ...]
    speaker: str
    seconds: float | None
    line: str
    """The text, else an answer; of a long one what is around that which was found."""
    found: str
    """What of an answer, a prompt or the like was found, where that is not the line."""


class Facet(msgspec.Struct, frozen=True, kw_only=True):
    """A value of a facet, and how many samples would be left if it were chosen, all other filters as they are."""

    value: str
    count: int


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a query."""

    total: int
    hours: float
    page: int
    pages: int
    rows: tuple[Row, ...]
    facets: dict[str, tuple[Facet, ...]]


class Asker:
    """Answers queries. Not safe for threads: whoever asks holds the table's lock."""

    def __init__(self, table: Table) -> None:
        """Set out which kinds have which values."""
        self.table = table
        self.hits: OrderedDict[str, str] = OrderedDict()
        self.made = 0
        self.values: dict[str, list[str]] = {}
        self.holds: dict[str, NDArray[np.bool_]] = {}
        for name in FACETS:
            of_kinds = [values_of(kind, name) for kind in table.kinds]
            self.values[name] = sorted({value for values in of_kinds for value in values})
            columns = {value: column for column, value in enumerate(self.values[name])}
            self.holds[name] = np.zeros((len(table.kinds), len(columns)), np.bool_)
            for row, values in enumerate(of_kinds):
                self.holds[name][row, [columns[value] for value in values]] = True
        self.voices: dict[str, list[int]] = {}
        for code, speaker in enumerate(table.speakers):
            self.voices.setdefault(speaker, []).append(code)

    def find(self, query: Query) -> Found:
        """Return the samples of a query, one page of them."""
        q = str(self.table.ask("select lower(?)", [query.q])[0][0])
        source = self.source(q)
        where = [*(["found"] if q else []), *self.conditions(query)]
        every = len(self.table.kinds)
        counted = self.table.ask(f"select kind, count(*), sum(seconds) from {source} {clause(where)} group by kind")
        counts, seconds = np.zeros(every, np.int64), np.zeros(every)
        for kind, samples, length in counted:
            counts[kind], seconds[kind] = samples, length or 0.0
        allowed = {name: self.allowed(name, query.chosen.get(name, ())) for name in FACETS}
        through = np.logical_and.reduce([np.ones(every, np.bool_), *allowed.values()])
        total = int(counts[through].sum())
        pages = max(1, -(-total // PAGE))
        page = min(query.page, pages)
        if not through.all():
            where = [*where, f"kind in ({numbers(np.flatnonzero(through & (counts > 0)).tolist())})"]
        rows = self.page(source, where, query.sort, page, q) if total else ()
        facets = {}
        for name in FACETS:
            others = np.logical_and.reduce([np.ones(every, np.bool_), *(allowed[o] for o in FACETS if o != name)])
            held = (counts * others) @ self.holds[name]
            most = np.argsort(-held, kind="stable")[:VALUES].tolist()
            chosen = [place for place, value in enumerate(self.values[name]) if value in query.chosen.get(name, ())]
            facets[name] = tuple(
                Facet(value=self.values[name][place], count=int(held[place]))
                for place in sorted({place for place in most if held[place]} | set(chosen))
            )
        return Found(
            total=total, hours=float(seconds[through].sum()) / 3600, page=page, pages=pages, rows=rows, facets=facets
        )

    def allowed(self, name: str, chosen: tuple[str, ...]) -> NDArray[np.bool_]:
        """Return which kinds one facet lets through."""
        if not chosen:
            return np.ones(len(self.table.kinds), np.bool_)
        columns = [place for place, value in enumerate(self.values[name]) if value in chosen]
        return np.asarray(self.holds[name][:, columns].any(axis=1))

    def conditions(self, query: Query) -> list[str]:
        """Return, in SQL, what a query asks of a sample beyond its kind and its text."""
        made = []
        for name, (low, high) in query.limits.items():
            made += [
                f"{sign} {end!r}::float" for sign, end in ((f"{name} >=", low), (f"{name} <=", high)) if isfinite(end)
            ]
            made += ["false"] * (low == inf or high == -inf)
            # A measure that cannot be told is within no limits.
            made.append(f"{name} is not null")
        if query.speaker:
            made.append(f"voice in ({numbers(self.voices.get(query.speaker, []))})")
        if query.copies:
            made.append("print in (select print from twins)")
        return made

    def source(self, q: str) -> str:
        """Return the samples in which `q` is found; what a scan found is kept, a truth value a sample, for the next."""
        if not q:
            return "everything"
        if q not in self.hits:
            name = f"hits_{self.made}"
            self.made += 1
            looked, values = self.looked(q)
            self.table.connection.execute(f"create table {name} as select {looked} as found from samples", values)
            self.hits[q] = name
            if len(self.hits) > KEPT:
                self.table.connection.execute(f"drop table {self.hits.popitem(last=False)[1]}")
        self.hits.move_to_end(q)
        return f"everything positional join {self.hits[q]}"

    def looked(self, q: str) -> tuple[str, dict[str, Any]]:
        """Return the condition of a search and its values.

        DuckDB leaps to the first letter of what it looks for; so what begins with the rarest is looked for first.
        """
        rarest = min(range(len(q)), key=lambda place: self.table.common[q[place]])
        made = "contains(hay, $q)"
        values: dict[str, Any] = {"q": q}
        if rarest:
            made, values["rare"] = f"(contains(hay, $rare) and {made})", q[rarest:]
        if "_" in q and KEYLIKE.fullmatch(q):
            made += " or contains(key, $q)"
        asked = [row[0] for row in self.table.ask("select contains(text, ?) from asked order by code", [q])]
        if any(asked):
            # Not `in`, which becomes a join, and joins do not keep the order of samples.
            made, values["asked"] = f"{made} or coalesce($asked[asked + 1], false)", asked
        return made, values

    def page(self, source: str, where: list[str], sort: str, page: int, q: str) -> tuple[Row, ...]:
        """Return the rows of one page."""
        name, down = sort.removeprefix("-"), sort.startswith("-")
        order = f"{name} {'desc' if down else 'asc'} nulls last, place" if sort else "place"
        places = [
            row[0]
            for row in self.table.ask(
                f"select place from {source} {clause(where)} order by {order} limit {PAGE} offset {(page - 1) * PAGE}"
            )
        ]
        query = f"select rowid, key, kind, voice, seconds from samples where rowid in ({numbers(places)})"
        picked = {row[0]: row[1:] for row in self.table.ask(query)}
        lines = self.lines(places, q)
        return tuple(
            Row(
                key=key,
                corpus=self.table.kinds[kind].corpus,
                split=self.table.kinds[kind].split,
                tasks=self.table.kinds[kind].tasks,
                speaker=self.table.speakers[voice],
                seconds=seconds,
                line=lines[place][0],
                found=lines[place][1],
            )
            for place, (key, kind, voice, seconds) in ((place, picked[place]) for place in places)
        )

    def lines(self, places: list[int], q: str) -> dict[int, tuple[str, str]]:
        """Return the line and the found text of some samples.

        To read a column for samples from all over the index takes its time: no more than the line is read. What was
        found is told as it lies here, in lower case.
        """
        lines: dict[int, str] = {}
        for column in ("text", "answers"):
            left = [place for place in places if place not in lines]
            for place, row in self.table.rows(left, (column,)).items():
                if text := next(filter(None, flat(row.get(column, ""))), ""):
                    lines[place] = text
        missed = [place for place in places if q not in lines.get(place, "").lower()]
        query = f"""select rowid, hay, key, coalesce((select text from asked where code = samples.asked), '')
            from samples where rowid in ({numbers(missed)})"""
        found = {place: next((text for text in texts if q in text), "") for place, *texts in self.table.ask(query)}
        return {place: (cut(lines.get(place, ""), q), excerpt(found.get(place, ""), q)) for place in places}


def flat(value: Any) -> Iterator[str]:
    """Yield the texts in lists of lists."""
    if isinstance(value, str):
        yield value
    else:
        for inner in value:
            yield from flat(inner)


def cut(text: str, q: str) -> str:
    """Return of a long text what is around `q`."""
    begin = max(0, text.lower().find(q) - LINE // 3) if len(text) > LINE else 0
    shown = " ".join(text[begin : begin + LINE].split())
    return f"{'... ' if begin else ''}{shown}{' ...' if len(text) > begin + LINE else ''}"


def excerpt(text: str, q: str) -> str:
    """Return of texts in lines what is around `q`, in its own line."""
    return cut(next((line for line in text.split("\n") if q in line), ""), q)


def values_of(kind: Kind, facet: str) -> tuple[str, ...]:
    """Return the values of one facet that a kind has."""
    return kind.tasks if facet == "task" else (getattr(kind, facet),)


def clause(conditions: list[str]) -> str:
    """Return conditions as a clause of SQL."""
    return f"where {' and '.join(conditions)}" if conditions else ""
