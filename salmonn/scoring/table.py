"""The paper's table with our scores beside its own: as rows for any page or file, and on a terminal."""

from __future__ import annotations

import msgspec
from rich.markup import escape
from rich.table import Table

from manifests.console import table
from salmonn.scoring.published import Published, published
from salmonn.scoring.results import Results, SetScore
from salmonn.scoring.score import Score

HOW = ("how", "normalizer", "average", "tokenizer", "speakers", "signature", "library", "judge")
"""Details that say how a score is counted; all others are what it is made of."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One score on one test set, ready to be read."""

    task: str
    set: str
    score: str
    value: str
    interval: str
    """Of 95 %."""
    without: str
    with_: str = msgspec.field(name="with")
    reference: str
    by: str
    """Whose the reference is."""
    count: int
    unfinished: int
    cut: int
    how: str
    """Normaliser, tokenizer, library with its version, judge."""
    asked: str
    """The prompt, and how answers were searched for."""
    made_of: str
    note: str
    """Why there is no value, or why the paper's is not quite comparable."""


def rows(results: Results) -> list[Row]:
    """Return the rows of the table, several for a set with several scores."""
    made = []
    for one in results.sets:
        scores = one.score.parts() if one.score else (None,)
        made += [row(one, each) for each in scores]
    return made


def row(one: SetScore, score: Score | None) -> Row:
    """Return one row; for a set without a score, what there is to say of it."""
    paper = published(one.task, one.corpus, one.split, score.name) if score else None
    details = score.details if score else {}
    place = "/".join(part for part in (one.corpus, one.split) if part)
    who = [part for part in (one.model, f"LoRA x{one.lora_scale:g}" if one.lora_scale != 1 else "") if part]
    asked = [part for part in (f"prompt: {one.prompt}" if one.prompt else "", one.decoding) if part]
    return Row(
        task=one.task,
        set=" ".join([place, *who]).strip() or "-",
        score=score.name if score else "-",
        value=score.text() if score else "-",
        interval=score.interval() if score else "-",
        without=number(paper, paper.without if paper else None),
        with_=number(paper, paper.with_ if paper else None),
        reference=number(paper, paper.reference if paper else None),
        by=paper.by if paper else "",
        count=score.count if score else one.count,
        unfinished=one.unfinished,
        cut=one.cut,
        how="; ".join(f"{name}: {details[name]}" for name in HOW if name in details),
        asked="; ".join(asked),
        made_of=", ".join(f"{name} {value}" for name, value in details.items() if name not in HOW),
        note="; ".join(part for part in (one.note, score.note if score else "", paper.note if paper else "") if part),
    )


def number(paper: Published | None, value: float | None) -> str:
    """Return one of the paper's numbers as it prints them."""
    return "-" if paper is None or value is None else f"{value:.{paper.digits}f}"


def scores_table(results: Results) -> Table:
    """Return the table of scores for a terminal."""
    names = ("task", "set", "score", "ours", "95 %", "w/o", "w/", "reference", "answers", "unfinished")
    right = ("ours", "w/o", "w/", "reference", "answers", "unfinished")
    made = table(f"Scores beside the paper's; free answers judged by {escape(results.judge)}", *names, right=right)
    for each in rows(results):
        cells = (each.task, each.set, each.score, each.value, each.interval, each.without, each.with_, each.reference)
        made.add_row(*map(escape, (*cells, str(each.count), str(each.unfinished))))
    return made


def ways(results: Results) -> list[str]:
    """Return lines on how each score is counted: without it no number can be compared with another's."""
    told: dict[str, list[str]] = {}
    for each in rows(results):
        if each.score != "-":
            tasks = told.setdefault(f"{each.score}: {each.how}", [])
            tasks += [each.task] if each.task not in tasks else []
    return [f"{line} [{', '.join(tasks)}]" for line, tasks in told.items()]


def remarks(results: Results) -> list[str]:
    """Return lines on what was asked, whose the references are, what scores are made of, and why one is missing."""
    told = {}
    for each in rows(results):
        where = f"{each.task} {each.set}" if each.set != "-" else each.task
        told[f"{where}: {each.asked}"] = bool(each.asked)
        cut = f"{each.cut} clips were longer than 30 s and not heard to their end"
        told[f"{where}: {cut}"] = each.cut > 0
        told[f"{where}, {each.score}: {each.made_of}"] = bool(each.made_of)
        told[f"{where}, {each.score}: the reference is {each.by}"] = bool(each.by)
        told[f"{where}, {each.score}: {each.note}"] = bool(each.note)
    return [line for line, meant in told.items() if meant]
