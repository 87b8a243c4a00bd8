"""The gates: what must hold before GPU hours are spent, each with a verdict and one sentence."""

from __future__ import annotations

from collections.abc import Iterable

from shards.audit.listen import Heard
from shards.audit.mixture import Stage
from shards.audit.report import Answers, Duplicates, Funnel, Gate, Target, Verdict

COVERED, LOST = 0.95, 0.8
"""A row that has less of its target is a warning, or a failure. Video corpora rot by a tenth; a lost split is more."""
EXCESS = 1.05
"""A row that has more than its target was not meant so."""
REFUSED, BAD_AUDIO, HANDFUL = 0.01, 0.05, 10
"""Shares of refused clips that warn, and of bad audio that fail beyond a handful: where a build stops, too."""
EPOCHS = 4.0
"""Beyond four times in a cycle, data that is repeated is worth less and less (Muennighoff et al., 2023, for text)."""


def worst(gates: Iterable[Gate]) -> Verdict:
    """Return the verdict of all gates together."""
    found = {gate.verdict for gate in gates}
    return "FAIL" if "FAIL" in found else "WARN" if "WARN" in found else "PASS"


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


def empty_answers(answers: tuple[Answers, ...]) -> Gate:
    """Every instruction has answers, and every answer has a word."""
    empty = [row for row in answers if row.empty]
    if empty:
        most, total = max(empty, key=lambda row: row.empty), sum(row.empty for row in empty)
        return fail("answers", f"Empty or missing answers: {total:,}, of which {most.empty:,} in {most.task}.")
    return good("answers", f"None of {sum(row.answers for row in answers):,} answers is empty.")


def duplicates(copies: Duplicates) -> Gate:
    """No audio is there twice; none is both trained and evaluated on."""
    if copies.shared:
        said = f"Recordings both trained on and evaluated on: {copies.shared:,}"
        return fail("duplicates", f"{said}, for example {' and '.join(copies.keys)}.")
    if copies.groups:
        said = f"Samples that repeat the audio of another: {copies.surplus:,}"
        return warn("duplicates", f"{said}, for example {' and '.join(copies.keys)}.")
    return good("duplicates", "No two samples have the same audio, sample for sample.")


def epochs(stages: tuple[Stage, ...]) -> Gate:
    """No row is repeated so often in a cycle that it is learnt by heart."""
    rows = [(row.epochs, stage.name, row) for stage in stages if stage.mixture for row in stage.mixture.shares]
    if not rows:
        return fail("epochs", "No audited stage can be dealt from this dataset.")
    most, stage, row = max(rows, key=lambda entry: entry[0])
    said = f"A cycle of {stage} deals {row.task} of {row.corpus} {most:.2f} times"
    if most > EPOCHS:
        return warn("epochs", f"{said}: above {EPOCHS:g}, repetition teaches less and less.")
    return good("epochs", f"{said}; no row is repeated more.")


def sound(clips: tuple[Heard, ...]) -> Gate:
    """The bytes of the clips drawn to listen to are those the index describes."""
    broken = [clip for clip in clips if clip.problem]
    if broken:
        said = f"{len(broken)} of {len(clips)} clips read back are not whole: {broken[0].key}, {broken[0].problem}"
        return fail("audio", f"{said}; salmonn verify finds all that are damaged.")
    if not clips:
        return fail("audio", "There is no clip to listen to.")
    return good("audio", f"All {len(clips)} clips drawn to listen to decode to exactly what the index says.")


def first_of(entry: tuple[float, object]) -> float:
    """Order pairs by their number alone."""
    return entry[0]


def good(name: str, sentence: str) -> Gate:
    """Return a gate that holds."""
    return Gate(name=name, verdict="PASS", sentence=sentence)


def warn(name: str, sentence: str) -> Gate:
    """Return a gate that someone should look at."""
    return Gate(name=name, verdict="WARN", sentence=sentence)


def fail(name: str, sentence: str) -> Gate:
    """Return a gate that does not hold."""
    return Gate(name=name, verdict="FAIL", sentence=sentence)
