"""Leakage: what is trained on that an evaluation set holds, too, by audio, source, speaker, text and sound."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec

from shards.audit import heard, leaks
from shards.audit.digests import digest
from shards.audit.digits import shown
from shards.audit.known import SETS, names_of
from shards.audit.origins import TAINTED, samples_of, trace
from shards.audit.upstream import SCRIPTED, UNSEEN
from shards.audit.verdicts import Gate, fail, good, warn
from shards.audit.view import View

GATES = ("leak",)

QUERIES = {
    **heard.QUERIES,
    **leaks.QUERIES,
    "blacklisted": """\
select count(*) as clips from refusals where corpus = 'wavcaps' and split = 'freesound' and reason = 'blacklisted'""",
}

Weight = Literal["gate", "look", "expected"]
Kind = Literal["audio", "id", "speaker", "text", "words", "sound"]
SAID = {
    "audio": "audio, sample for sample",
    "id": "recordings of one source",
    "speaker": "speakers",
    "text": "whole sentences",
    "words": "runs of thirteen words",
    "sound": "what sounds alike",
}
"""What two splits share."""


class Leak(msgspec.Struct, frozen=True, kw_only=True):
    """What a split to train on has in common with an evaluation set, in one way."""

    kind: Kind
    corpus: str
    split: str
    set_corpus: str
    set_split: str
    samples: int
    """To train on, that share something with the set."""
    set_samples: int
    """Of the set, as far as the dataset holds it."""
    shared: int
    """Different things they share; pairs of clips, where they sound alike."""
    weight: Weight
    """Whether it fails the gate, or someone should look at it, or it is in the nature of the corpus."""
    examples: tuple[tuple[str, str, str], ...]
    """A key to train on, a key of the set (empty where only a list knows it), and what they share."""


class Set(msgspec.Struct, frozen=True, kw_only=True):
    """An evaluation set."""

    corpus: str
    split: str
    asked: bool
    """Whether the recipe evaluates on it, or --against names it; else it is a test set that everyone uses."""
    trained: bool
    """Whether it is itself trained on."""
    samples: int
    """In the dataset."""
    listed: int
    """Names that a list which comes with this program has of it: sources, or speakers."""


class Leakage(msgspec.Struct, frozen=True, kw_only=True):
    """What is trained on that an evaluation set holds, too."""

    trained: int
    """Splits that are trained on."""
    sets: tuple[Set, ...]
    leaks: tuple[Leak, ...]
    heard: heard.Heard
    blacklisted: int | None
    """Clips of WavCaps that its blacklist kept out; None unless its sounds of Freesound train and Clotho evaluates."""


LIKELY = """\
select corpus, split, other_corpus, other_split, count(distinct key), count(distinct other_key), count(*),
       min((bits, -shared, key, other_key), 3)
from likely join sides as mine using (corpus, split)
join sides as theirs on theirs.corpus = other_corpus and theirs.split = other_split
where mine.trained and theirs.evaluated
group by all order by corpus, split, other_corpus, other_split"""
RUNS = """\
select corpus, split, set_corpus, set_split, count(distinct key), max(tainted), count(distinct name),
       min([key, set_key, name], 3)
from runs group by corpus, split, set_corpus, set_split order by corpus, split, set_corpus, set_split"""


def look(view: View) -> Leakage:
    """Return what leaks."""
    digest(view)
    trace(view)
    sides = view.database.ask("sides")
    held = {(source.corpus, source.split): source.packed for source in view.dataset.manifest.sources}
    asked = {(corpus, split) for corpus, split, _, evaluated, meant in sides if evaluated and meant}
    trained = {(corpus, split) for corpus, split, is_trained, *_ in sides if is_trained}
    found = [
        leak_of(kind, row, weight(kind, row[0], row[2], (row[2], row[3]) in asked), row[7])
        for kind, rows in shared_of(view).items()
        for row in rows
    ]
    heard_of = heard.hear(view)
    for row in view.database.connection.execute(LIKELY).fetchall():
        alike = [
            (one, other, f"words shared: {-words}, bits apart: {bits} of 64") for bits, words, one, other in row[7]
        ]
        found.append(leak_of("sound", row, "look", alike))
    both = ("wavcaps", "freesound") in trained & held.keys() and any(corpus == "clotho" for corpus, _ in asked)
    return Leakage(
        trained=len(trained & held.keys()),
        sets=tuple(
            Set(
                corpus=corpus,
                split=split,
                asked=meant,
                trained=is_trained,
                samples=held.get((corpus, split), 0),
                listed=len(names_of(SETS[corpus, split].name)) if (corpus, split) in SETS else 0,
            )
            for corpus, split, is_trained, evaluated, meant in sides
            if evaluated
        ),
        leaks=tuple(found),
        heard=heard_of,
        blacklisted=view.database.ask("blacklisted")[0][0] if both else None,
    )


def leak_of(kind: str, row: tuple[Any, ...], weight: Weight, examples: Iterable[Sequence[str]]) -> Leak:
    """Return a row of a query, but for its examples, as a leak."""
    corpus, split, set_corpus, set_split, samples, set_samples, shared = row[:7]
    return Leak(
        kind=msgspec.convert(kind, Kind),
        corpus=corpus,
        split=split,
        set_corpus=set_corpus,
        set_split=set_split,
        samples=samples,
        set_samples=set_samples,
        shared=shared,
        weight=weight,
        examples=tuple((shown(one), shown(other), shown(what)) for one, other, what in examples),
    )


def shared_of(view: View) -> dict[str, list[Any]]:
    """Return what splits share with evaluation sets, by its kind."""
    connection = view.database.connection
    sides = {(corpus, split): side for corpus, split, *side in view.database.ask("sides")}
    named = [(source, sides.get((source.corpus, source.split))) for source in view.dataset.manifest.sources]
    trained, evaluated = ([source for source, side in named if side and side[place]] for place in (0, 1))
    # What the queries say that stand on the page, but for splits and texts that cannot be in them.
    tainted = view.database.answers[TAINTED]
    of_source = [source for source in trained if (source.corpus, source.split) in tainted]
    ours, theirs = samples_of(view, trained), samples_of(view, evaluated)
    tables = {"audio": (ours, theirs), "speaker": (ours, theirs)}
    if of_source:
        tables["id"] = samples_of(view, of_source), theirs
    # Mostly nothing is said on both sides, or it is short; then nobody needs to look at what is said by whom.
    [(longest,)] = connection.execute(f"select max(length) from said where said in ({leaks.BOTH})").fetchall()
    if longest is not None:
        short = f"(select * from {{}} where len(text) <= {longest})"
        tables["text"] = short.format(ours), short.format(theirs)
    found = {
        kind: connection.execute(leaks.rows_of(kind, leaks.COUNTED, *tables[kind])).fetchall()
        for kind in leaks.KINDS
        if trained and kind in tables
    }
    return {**found, "words": connection.execute(RUNS).fetchall()}


def weight(kind: str, corpus: str, of_set: str, asked: bool) -> Weight:
    """Return how much a leak of `kind` from a corpus into a set of another, or the same, weighs."""
    if kind in ("audio", "id"):
        return "gate" if asked else "look"
    if kind == "speaker":
        return "expected" if of_set not in UNSEEN else "gate" if asked else "look"
    return "expected" if corpus == of_set and corpus in SCRIPTED else "look"


def gates(found: Leakage) -> tuple[Gate, ...]:
    """Judge whether anything leaks."""
    return (leak(found),)


def leak(found: Leakage) -> Gate:
    """Nothing that is trained on is in an evaluation set."""
    names = ", ".join(f"{one.corpus}:{one.split}" for one in found.sets if one.asked)
    if broken := [one for one in found.leaks if one.weight == "gate"]:
        first = broken[0]
        more = sorted({SAID[one.kind] for one in broken} - {SAID[first.kind]})
        also = f" Evaluation sets share more with what is trained on: {', '.join(more)}." if more else ""
        return fail("leak", f"{told(first)} Leave these out of training, or that set out of evaluation.{also}")
    if found.blacklisted == 0:
        return warn(
            "leak",
            "wavcaps:freesound holds sounds of Clotho, which is evaluated, and none was refused as blacklisted: put "
            "WavCaps' own json_files/blacklist in place, scan and build again.",
        )
    if doubtful := [one for one in found.leaks if one.weight == "look"]:
        return warn("leak", f"{told(doubtful[0])} Look at it before you trust scores on that set.")
    if not names:
        return good("leak", "No evaluation set is named; of the test sets that everyone uses nothing is trained on.")
    return good("leak", f"Nothing that is trained on is in {names}: no audio, no source, no speaker, no sentence.")


def told(one: Leak) -> str:
    """Return a leak as a sentence."""
    key, other, what = one.examples[0]
    named = {"id": f" ({what})", "speaker": f" ({what})", "text": f" ({what!r})", "words": f" ({what!r})"}
    example = f"for example {key}{f' and {other}' if other else ''}{named.get(one.kind, '')}"
    return (
        f"{one.corpus}:{one.split} is trained on and shares {SAID[one.kind]} with {one.set_corpus}:{one.set_split}: "
        f"samples to train on {one.samples:,}, {example}."
    )


DRAWN = {"in_common": SAID}
