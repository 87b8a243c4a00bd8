"""Targets and actual: what the recipe asks for row by row, and what became of every clip that was found."""

from __future__ import annotations

import msgspec
from markupsafe import Markup

from manifests.recipe import Row
from shards.audit import plots
from shards.audit.database import Database
from shards.audit.digits import neat, share, shown
from shards.audit.verdicts import Gate, fail, good, warn
from shards.audit.view import View

GATES = ("counts", "rows", "coverage", "refusals")
COVERED, LOST = 0.95, 0.8
"""A row that has less of its target is a warning, or a failure. Video corpora rot by a tenth; a lost split is more."""

EXCESS = 1.05
"""A row that has more than its target was not meant so."""

REFUSED, BAD_AUDIO, HANDFUL = 0.01, 0.05, 10
"""Shares of refused clips that warn, and of bad audio that fail beyond a handful: where a build stops, too."""
PACKED, QUARANTINED, EXCLUDED = "#6f8497", "#c0392f", "#a8761a"

QUERIES = {
    "held": """\
select corpus, split, task, sum(samples)::bigint as samples, sum(length) / 16000 / 3600 as hours
from (select corpus, split, samples, length, unnest(list_distinct(tasks)) as task from parts)
group by corpus, split, task order by corpus, split, task""",
    "examples": """\
select corpus, split, task, sum(samples)::bigint as examples
from (select corpus, split, samples, unnest(tasks) as task from parts)
group by corpus, split, task order by corpus, split, task""",
    "splits": """\
select corpus, split, sum(samples)::bigint as samples, sum(length) / 16000 / 3600 as hours
from parts group by corpus, split order by corpus, split""",
    "refused": """\
select corpus, split, verdict, count(*) as clips
from refusals group by corpus, split, verdict order by corpus, split, verdict""",
}


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the recipe: what is meant to be there and what is."""

    stage: str
    task: str
    corpus: str
    splits: tuple[str, ...]
    absent: tuple[str, ...]
    """Splits without an example of the task."""
    target_hours: float | None
    target_samples: int | None
    hours: float
    samples: int
    examples: int
    hours_off: float | None
    """Actual less target, as a share of the target; None without a target."""
    samples_off: float | None


class Funnel(msgspec.Struct, frozen=True, kw_only=True):
    """One split of one corpus: from what is published to what is packed."""

    corpus: str
    split: str
    published: int
    found: int
    fetched: int
    """Of those found, whose audio is there."""
    decoded: int
    """Of those fetched, whose audio is whole."""
    packed: int
    quarantined: int
    excluded: int
    indexed: int
    """Rows of its index."""
    refused: dict[str, int]
    """Rows of its quarantine file for each verdict."""
    hours: float
    coverage: float | None
    """Packed, of those published; None if no count is published."""
    reasons: dict[str, int]
    skipped: dict[str, dict[str, int]]
    """Packed clips that a task could ask nothing of: task, reason, clips."""


class Targets(msgspec.Struct, frozen=True, kw_only=True):
    """Every row of the audited stages, and every split of the dataset."""

    rows: tuple[Target, ...]
    funnel: tuple[Funnel, ...]


def look(view: View) -> Targets:
    """Return what is meant to be there and what is."""
    return Targets(rows=targets(view), funnel=funnel(view))


def targets(view: View) -> tuple[Target, ...]:
    """Return every row of the stages with what is meant to be there and what is."""
    database = view.database
    held = {(corpus, split, task): (samples, hours) for corpus, split, task, samples, hours in database.ask("held")}
    examples = {(corpus, split, task): count for corpus, split, task, count in database.ask("examples")}
    return tuple(target(stage, row, held, examples) for stage in view.stages for row in view.recipe.stage(stage))


def target(
    stage: str,
    row: Row,
    held: dict[tuple[str, str, str], tuple[int, float]],
    examples: dict[tuple[str, str, str], int],
) -> Target:
    """Return one row with what is meant to be there and what is."""
    names = [(row.corpus, split, row.task) for split in row.splits]
    samples = sum(held[name][0] for name in names if name in held)
    hours = sum(held[name][1] for name in names if name in held)
    return Target(
        stage=stage,
        task=row.task,
        corpus=row.corpus,
        splits=row.splits,
        absent=tuple(name[1] for name in names if name not in held),
        target_hours=row.hours,
        target_samples=row.samples,
        hours=neat(hours),
        samples=samples,
        examples=sum(examples.get(name, 0) for name in names),
        hours_off=neat(hours / row.hours - 1) if row.hours else None,
        samples_off=neat(samples / row.samples - 1) if row.samples else None,
    )


def funnel(view: View) -> tuple[Funnel, ...]:
    """Return every split from what is published to what is packed."""
    database: Database = view.database
    indexed = {(corpus, split): (samples, hours) for corpus, split, samples, hours in database.ask("splits")}
    refused: dict[tuple[str, str], dict[str, int]] = {}
    for corpus, split, verdict, clips in database.ask("refused"):
        refused.setdefault((corpus, split), {})[verdict] = clips
    return tuple(
        Funnel(
            corpus=source.corpus,
            split=source.split,
            published=source.published_clips,
            found=source.found,
            fetched=source.found - source.reasons.get("audio_missing", 0),
            decoded=source.found - source.reasons.get("audio_missing", 0) - source.quarantined,
            packed=source.packed,
            quarantined=source.quarantined,
            excluded=source.excluded,
            indexed=indexed.get((source.corpus, source.split), (0, 0.0))[0],
            refused=refused.get((source.corpus, source.split), {}),
            hours=neat(indexed.get((source.corpus, source.split), (0, 0.0))[1]),
            coverage=share(source.packed, source.published_clips) if source.published_clips else None,
            reasons=counted(source.reasons),
            skipped={shown(task): counted(reasons) for task, reasons in sorted(source.skipped.items())},
        )
        for source in view.dataset.manifest.sources
    )


def counted(reasons: dict[str, int]) -> dict[str, int]:
    """Return counts of reasons in the order of their names."""
    return {shown(reason): clips for reason, clips in sorted(reasons.items())}


def gates(found: Targets) -> tuple[Gate, ...]:
    """Judge the counts, the rows, the coverage and the refusals."""
    return counts(found.funnel), rows(found.rows), coverage(found.rows, found.funnel), refusals(found.funnel)


def counts(funnel: tuple[Funnel, ...]) -> Gate:
    """Nothing vanishes: found = packed + quarantined + excluded, and the files hold what is counted."""
    for split in funnel:
        name = f"{split.corpus}:{split.split}"
        parts = f"{split.packed:,} packed + {split.quarantined:,} quarantined + {split.excluded:,} excluded"
        if split.found != split.packed + split.quarantined + split.excluded:
            return fail("counts", f"{name} found {split.found:,} clips, which is not {parts}.")
        if split.indexed != split.packed:
            return fail("counts", f"{name} says {split.packed:,} packed, but its index has {split.indexed:,} rows.")
        for verdict, said in (("quarantined", split.quarantined), ("excluded", split.excluded)):
            listed = split.refused.get(verdict, 0)
            if listed != said:
                return fail("counts", f"{name} says {said:,} {verdict}, but its quarantine lists {listed:,}.")
    found, packed = sum(split.found for split in funnel), sum(split.packed for split in funnel)
    quarantined, excluded = sum(split.quarantined for split in funnel), sum(split.excluded for split in funnel)
    parts = f"{packed:,} packed, {quarantined:,} quarantined, {excluded:,} excluded"
    return good("counts", f"All {found:,} clips found are accounted for: {parts}.")


def rows(targets: tuple[Target, ...]) -> Gate:
    """Every row of the recipe finds its data."""
    lacking = [row for row in targets if row.absent]
    if not lacking:
        return good("rows", f"All {len(targets)} rows of the audited stages find their data in the dataset.")
    first = lacking[0]
    where = f"{first.task} of {first.corpus} in {first.stage} finds nothing in {', '.join(first.absent)}"
    return fail("rows", f"Rows that are not whole: {len(lacking)} of {len(targets)}, for example {where}.")


def coverage(targets: tuple[Target, ...], funnel: tuple[Funnel, ...]) -> Gate:
    """What is meant to be there is there; where the recipe says nothing, what the corpora publish."""
    shares = [
        (1 + off, f"{row.task} of {row.corpus} in {row.stage}", of_what)
        for row in targets
        for off, of_what in ((row.hours_off, "hours"), (row.samples_off, "samples"))
        if off is not None
    ]
    if shares:
        (least, short, what), (most, over, of_what) = min(shares), max(shares)
        if least < COVERED:
            verdict = fail if least < LOST else warn
            return verdict("coverage", f"{short} has {least:.1%} of its target {what}.")
        if most > EXCESS:
            return warn("coverage", f"{over} has {most:.1%} of its target {of_what}: more than was meant.")
        return good("coverage", f"Every row with a target has between {least:.1%} and {most:.1%} of it.")
    known = [(split.coverage, split) for split in funnel if split.coverage is not None]
    if not known:
        return warn("coverage", "Neither the recipe nor the corpora say how much should be there.")
    part, split = min(known, key=first_of)
    name = f"{split.corpus}:{split.split}"
    if part < COVERED:
        held = f"{name} has {split.packed:,} of {split.published:,} published clips ({part:.1%})"
        return warn("coverage", f"The recipe states no targets, and {held}.")
    return good("coverage", f"The recipe states no targets; every split has at least {part:.1%} of those published.")


def refusals(funnel: tuple[Funnel, ...]) -> Gate:
    """Few clips are refused."""
    found = sum(split.found for split in funnel)
    bad, excluded = sum(split.quarantined for split in funnel), sum(split.excluded for split in funnel)
    if not bad + excluded:
        return good("refusals", f"None of {found:,} clips was refused.")
    said = f"{bad + excluded:,} of {found:,} clips were refused ({(bad + excluded) / found:.1%})"
    if bad > max(HANDFUL, BAD_AUDIO * found):
        return fail("refusals", f"{said}; {bad:,} of them have bad audio, more than {BAD_AUDIO:.0%} of all.")
    known = [((split.quarantined + split.excluded) / split.found, split) for split in funnel if split.found]
    part, split = max(known, key=first_of)
    if part > REFUSED:
        return warn("refusals", f"{said}, most in {split.corpus}:{split.split} ({part:.1%}).")
    return good("refusals", f"{said}, at most {part:.1%} of any split.")


def first_of(entry: tuple[float, object]) -> float:
    """Order pairs by their number alone."""
    return entry[0]


def funnel_bar(split: Funnel) -> Markup:
    """Return what became of the clips of a split as one bar."""
    named = (("packed", PACKED), ("quarantined", QUARANTINED), ("excluded", EXCLUDED))
    parts = [(getattr(split, name), fill, f"{getattr(split, name):,} {name}") for name, fill in named]
    return Markup(plots.bar(parts, f"{split.corpus}:{split.split}: {'; '.join(part[2] for part in parts)}", 10))


DRAWN = {"funnel_bar": funnel_bar, "kinds": {"packed": PACKED, "quarantined": QUARANTINED, "excluded": EXCLUDED}}
