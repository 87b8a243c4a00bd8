"""Difference: what another build of the data holds that this one does not, and where the numbers have moved."""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from shards.audit.builds import MEASURES, QUERIES
from shards.audit.digits import neat, share, shown
from shards.audit.verdicts import Gate, fail, good, warn
from shards.audit.view import View, ordered

__all__ = ["QUERIES", "gates", "look"]

GATES = ("drift",)

FEW = 200
"""Samples of either build below which a corpus says nothing about a distribution."""
MOVED, CHANGED = 0.1, 0.25
"""Population stability indices above which a distribution is said to have moved, and to have changed (the customary
limits of credit scoring, where the index comes from)."""
LOST = 0.05
"""Share of a split that may be gone before a build is another one."""
SHOWN = 20


class Changed(msgspec.Struct, frozen=True, kw_only=True):
    """One split in both builds, sample by sample."""

    corpus: str
    split: str
    here: int
    there: int
    """Samples of the other build."""
    added: int
    removed: int
    audio: int
    """Samples of which the audio is another; of the next three likewise. One sample may count for several."""
    answers: int
    prompts: int
    facts: int
    """Id, language, speaker, gender, text or licence."""
    moved: int
    """Samples that lie elsewhere: in another shard, or at another byte of it."""
    hours: float
    hours_there: float


class Weighed(msgspec.Struct, frozen=True, kw_only=True):
    """One task in both builds."""

    task: str
    examples: int
    there: int
    share: float
    share_there: float


class Shift(msgspec.Struct, frozen=True, kw_only=True):
    """How far a measure of a corpus has moved."""

    corpus: str
    measure: str
    stability: float
    """Population stability index: sum over bins of (p - q) ln(p / q)."""
    distance: float
    """Kolmogorov and Smirnov's, between the two distributions over the bins in their order; 0 for names."""


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """One sample that is not as it was."""

    change: str
    key: str
    corpus: str
    split: str
    before: str
    """Its answers in the other build."""
    now: str


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """What another build is to the audited one."""

    title: str
    digest: str
    """Of the other build."""
    conclusion: str
    splits: tuple[Changed, ...]
    tasks: tuple[Weighed, ...]
    shifts: tuple[Shift, ...]
    """The greatest, of measures with enough samples on either side."""
    examples: tuple[Example, ...]


def look(view: View) -> Difference | None:
    """Return how the build differs from the other one; None if there is none."""
    if view.other is None:
        return None
    database = view.database
    splits = tuple(changed(*row) for row in database.ask("difference"))
    return Difference(
        title=shown(view.other.manifest.title),
        digest=view.other.digest,
        conclusion=concluded(splits, view.other.digest == view.dataset.digest),
        splits=splits,
        tasks=weighed({task: (here, there) for task, here, there in database.ask("difference_tasks")}),
        shifts=shifts(database.ask("difference_bins")),
        examples=tuple(
            Example(
                change=change,
                key=shown(key),
                corpus=corpus,
                split=split,
                before=shown(before or ""),
                now=shown(now or ""),
            )
            for key, corpus, split, change, before, now in database.ask("difference_keys")
        ),
    )


def changed(corpus: str, split: str, *counts: float) -> Changed:
    """Return one row of the comparison."""
    fields = Changed.__struct_fields__[2:]
    values = {name: int(count) for name, count in zip(fields[:-2], counts[:-2], strict=True)}
    return Changed(corpus=corpus, split=split, **values, hours=neat(counts[-2]), hours_there=neat(counts[-1]))


def concluded(splits: tuple[Changed, ...], same: bool) -> str:
    """Say in a sentence what the other build is to this one."""
    total = {name: sum(getattr(split, name) for split in splits) for name in Changed.__struct_fields__[2:-2]}
    if same:
        return "The same build: every byte of every sample is the same."
    if total["added"] or total["removed"] or total["audio"]:
        parts = [f"{total[name]:,} {word}" for name, word in SAID.items() if total[name]]
        return f"Other data: {', '.join(parts)} of {total['here']:,} samples here and {total['there']:,} there."
    if total["answers"] or total["prompts"] or total["facts"]:
        parts = [f"{total[name]:,} {word}" for name, word in SAID.items() if total[name]]
        return f"The same audio with other words: {', '.join(parts)} of {total['here']:,} samples."
    if total["moved"]:
        return f"The same data in a new order: {total['moved']:,} of {total['here']:,} samples lie elsewhere."
    return "The same data: no sample differs in audio, words or place."


SAID = {
    "added": "added",
    "removed": "removed",
    "audio": "with other audio",
    "answers": "with other answers",
    "prompts": "with other prompts",
    "facts": "with other facts",
}


def weighed(counts: Mapping[str, tuple[int, int]]) -> tuple[Weighed, ...]:
    """Return the tasks of both builds with their shares of the instructions."""
    here, there = (sum(pair[side] for pair in counts.values()) for side in (0, 1))
    return tuple(
        Weighed(
            task=task,
            examples=counts[task][0],
            there=counts[task][1],
            share=share(counts[task][0], here),
            share_there=share(counts[task][1], there),
        )
        for task in ordered(counts)
    )


def shifts(rows: list[tuple[str, str, bool, str, int]]) -> tuple[Shift, ...]:
    """Return the measures that moved most, the greatest first."""
    counted: dict[tuple[str, str], tuple[dict[str, int], dict[str, int]]] = {}
    for corpus, measure, here, place, samples in rows:
        counted.setdefault((corpus, measure), ({}, {}))[not here][place] = samples
    made = []
    for (corpus, measure), (now, before) in counted.items():
        if min(sum(now.values()), sum(before.values())) >= FEW:
            bins = sorted({*now, *before}, key=int) if measure in MEASURES else sorted({*now, *before})
            these, those = [now.get(place, 0) for place in bins], [before.get(place, 0) for place in bins]
            far = distance(these, those) if measure in MEASURES else 0.0
            made.append(Shift(corpus=corpus, measure=measure, stability=stability(these, those), distance=far))
    made.sort(key=lambda shift: (-shift.stability, shift.corpus, shift.measure))
    return tuple(made[:SHOWN])


def stability(here: list[int], there: list[int]) -> float:
    """Return the population stability index of two counts over the same bins; half a sample is put into each bin."""
    now, before = sum(here) + len(here) / 2, sum(there) + len(there) / 2
    pairs = [((one + 0.5) / now, (other + 0.5) / before) for one, other in zip(here, there, strict=True)]
    return neat(math.fsum((p - q) * math.log(p / q) for p, q in pairs))


def distance(here: list[int], there: list[int]) -> float:
    """Return the greatest difference of the two cumulated shares."""
    now, before, most = 0, 0, 0.0
    for one, other in zip(here, there, strict=True):
        now, before = now + one, before + other
        most = max(most, abs(now / sum(here) - before / sum(there)))
    return neat(most)


def gates(found: Difference | None) -> tuple[Gate, ...]:
    """Judge whether the build is what the other one leads to expect; without another there is nothing to judge."""
    if found is None:
        return ()
    for split in found.splits:
        if split.there and split.removed > LOST * split.there:
            gone = f"{split.corpus}:{split.split} lacks {split.removed:,} of the {split.there:,} samples it had"
            return (fail("drift", f"{gone}; if that was not meant, look at its quarantine and build it again."),)
    # A split that is new or gone as a whole changes every distribution; the counts above tell of that.
    most = found.shifts[0] if found.shifts else None
    if most and most.stability > CHANGED:
        moved = f"{most.measure} of {most.corpus} has changed (stability index {most.stability:.2f}, limit {CHANGED:g})"
        return (fail("drift", f"{moved}; the table of shifts says what else has."),)
    if most and most.stability > MOVED:
        return (warn("drift", f"{most.measure} of {most.corpus} has moved (stability index {most.stability:.2f})."),)
    if any(split.added or split.removed or split.audio or split.answers for split in found.splits):
        return (warn("drift", found.conclusion),)
    return (good("drift", found.conclusion),)
