"""Origins: what all samples were made of, by hashes of its names: what serves several samples, and what may leak."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from manifests import files
from shards.audit.database import quoted, unglobbed
from shards.audit.leaks import KINDS
from shards.audit.likeness import sort
from shards.audit.runs import Hashes, Marks, among
from shards.audit.upstream import ORIGINS
from shards.audit.view import View
from shards.index import Source

PARTS = 8
"""Of all hashes, which are sorted one after the other: what is beside them in memory is as much less."""
CORPORA = 6
"""Bits of a hash that make room for the number of its corpus; its last, which tell the least."""

TAINTED = ("tainted",)
"""Beside the answers to queries."""
Reused = list[tuple[str, int, int]]


def samples_of(view: View, sources: Iterable[Source]) -> str:
    """Return SQL of the table `samples` with no other splits than `sources`; others are not read."""
    named = list(sources)
    if not files.is_local(view.dataset.url) or not named:
        names = ", ".join(f"({quoted(source.corpus)}, {quoted(source.split)})" for source in named)
        return f"(select * from samples where {f'(corpus, split) in ({names})' if named else 'false'})"
    places = (files.local(files.join(view.dataset.url, source.index.path)) for source in named)
    return f"read_parquet([{', '.join(quoted(unglobbed(place)) for place in places)}])"


def trace(view: View) -> None:
    """Answer the query `sources`, and which splits to train on share a source with an evaluation set: TAINTED."""
    answers = view.database.answers
    if TAINTED in answers:
        return
    sides = {(corpus, split): side for corpus, split, *side in view.database.ask("sides")}
    named = [(source, sides.get((source.corpus, source.split))) for source in view.dataset.manifest.sources]
    trained, evaluated = ([source for source, side in named if side and side[place]] for place in (0, 1))
    origins = Origins(view)
    answers["sources",] = list(origins.reused())
    answers[TAINTED] = [(source.corpus, source.split) for source in origins.tainted(trained, evaluated)]


class Origins:
    """The upstream names of all samples, as hashes, by split."""

    def __init__(self, view: View) -> None:
        """Read the ids of all samples."""
        self.view, self.sources = view, view.dataset.manifest.sources
        self.hashes: list[Hashes] = []
        for source in self.sources:
            # Of one split at a time the corpus is known: the rules of others are not tried on each row.
            one = f"select id, {quoted(source.corpus)} as corpus, {quoted(source.split)} as split"
            sql = f"select hash(unnest({ORIGINS})) as source from ({one} from {samples_of(view, [source])})"
            self.hashes.append(view.database.connection.execute(sql).fetchnumpy()["source"])

    def reused(self) -> Reused:
        """Return corpora that share sources, how many, and how many samples use these: the query `sources`."""
        corpora = sorted({source.corpus for source in self.sources})
        found: dict[int, tuple[int, int]] = {}
        for number in range(PARTS):
            keys = np.concatenate([np.zeros(0, np.uint64), *(
                of[of >> np.uint64(61) == number] >> np.uint64(CORPORA) << np.uint64(CORPORA)
                | np.uint64(corpora.index(source.corpus))
                for source, of in zip(self.sources, self.hashes, strict=True)
            )])  # fmt: skip
            sort(keys, 0)
            names = keys >> np.uint64(CORPORA)
            firsts = np.flatnonzero(np.concatenate([names[:1] == names[:1], names[1:] != names[:-1]]))
            uses = np.diff(firsts, append=len(keys))
            corpus = np.uint64(1) << (keys & np.uint64((1 << CORPORA) - 1))
            sets = np.bitwise_or.reduceat(corpus, firsts) if len(firsts) else corpus
            while len(sets):  # a few sets of corpora, and nearly always one of one
                same = sets == sets[0]
                held = found.get(int(sets[0]), (0, 0))
                found[int(sets[0])] = (held[0] + int(same.sum()), held[1] + int(uses[same].sum()))
                sets, uses = sets[~same], uses[~same]
        return sorted(
            (", ".join(name for place, name in enumerate(corpora) if bits >> place & 1), sources, uses)
            for bits, (sources, uses) in found.items()
        )

    def tainted(self, trained: Iterable[Source], evaluated: Iterable[Source]) -> list[Source]:
        """Return those of the splits to train on that share a source with one that is evaluated, or is known to be."""
        known = self.view.database.connection.execute(
            "select hash(name) as name from known where kind = $kind", {"kind": KINDS["id"]["kind"]}
        ).fetchnumpy()["name"]
        of = {(source.corpus, source.split): hashes for source, hashes in zip(self.sources, self.hashes, strict=True)}
        held = np.unique(np.concatenate([known, *(of[source.corpus, source.split] for source in evaluated)]))
        maybe = Marks(held)
        found = []
        for source in trained:
            mine = of[source.corpus, source.split]
            if among(held, mine[maybe.of(mine)]).any():
                found.append(source)
        return found
