"""The page of an evaluation: one static file with the paper's table beside ours, made without scripts and network."""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Any

import jinja2
import msgspec
from markupsafe import Markup

from manifests import draw
from manifests.files import write_whole
from manifests.tasks import TASKS
from salmonn.scoring.answer import Answer, plain, read_answers, tidy
from salmonn.scoring.results import Results, set_of
from salmonn.scoring.table import Row, rows

SAMPLES = 4
"""Answers shown of each test set."""
LONGEST = 2000
"""Characters shown of a text; a story has a thousand."""
LEVELS = {
    1: "Tasks of instruction tuning",
    2: "Untrained tasks of speech",
    3: "Untrained tasks of speech and sound together",
    0: "Tasks of your own",
}


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """A level of the paper with its rows of the table."""

    title: str
    rows: list[Row]


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """A test set with some of its answers."""

    task: str
    set: str
    count: int
    answers: list[Answer]


def write_page(results: Results, path: str | Path, answers: str | Path = "") -> None:
    """Write the page of `results` to `path`, with samples from the file or folder of `answers` that they score."""
    write_whole(path, render(results, samples(read_all(answers)) if answers else []).encode())


def read_all(answers: str | Path) -> list[Answer]:
    """Return the answers of a file, or of all files of a folder."""
    path = Path(answers)
    return [one for file in (sorted(path.glob("*.jsonl")) if path.is_dir() else [path]) for one in read_answers(file)]


def samples(answers: Iterable[Answer]) -> list[Shown]:
    """Return some answers of each test set: the same ones every time, and for every model of one set."""
    found = []
    for (task, corpus, split, model, scale), group in groupby(sorted(tidy(answers), key=set_of), key=set_of):
        all_of_it = list(group)
        drawn = sorted(all_of_it, key=lambda one: draw.number("shown", one.task, one.key, one.prompt, one.slot))
        told = " ".join(part for part in ("/".join(filter(None, (corpus, split))), model) if part)
        name = told + (f" LoRA x{scale:g}" if scale != 1 else "")
        found.append(Shown(task=task, set=name, count=len(all_of_it), answers=drawn[:SAMPLES]))
    place = {task: number for number, task in enumerate(TASKS)}
    return sorted(found, key=lambda one: (place.get(one.task, len(place)), one.task, one.set))


def groups(results: Results) -> list[Group]:
    """Return the rows of the table by the paper's levels."""
    level = {task.name: task.level for task in TASKS.values()}
    made = rows(results)
    found = [(title, [one for one in made if level.get(one.task, 0) == number]) for number, title in LEVELS.items()]
    return [Group(title=title, rows=own) for title, own in found if own]


def render(results: Results, shown: list[Shown]) -> str:
    """Return the page. Every text is escaped, isolated from the direction of its neighbours, and without control signs.

    The policy in it lets a browser load nothing and run nothing; of style it takes the one block, by its digest.
    """
    style = importlib.resources.files("shards").joinpath("audit/page.css").read_text(encoding="utf-8")
    # What stands between the tags, to the byte.
    inner = f"\n{style}\n"
    digest = base64.b64encode(hashlib.sha256(inner.encode()).digest()).decode()
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=written,
    )
    environment.filters["short"] = short
    return environment.get_template("page.html.j2").render(
        results=results,
        groups=groups(results),
        shown=shown,
        style=Markup(inner),
        policy=(f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"),
    )


def written(value: Any) -> Any:
    """Return a text without signs that no page may hold."""
    return plain(value) if type(value) is str else value


def short(text: str) -> str:
    """Return the beginning of a text that is too long to show, and how much more there is."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ... and {len(text) - LONGEST:,} more characters"
