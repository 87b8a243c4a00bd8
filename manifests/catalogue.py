"""The catalogue: what corpora, tasks and recipes there are, as tables. README's tables are made here too."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from manifests.console import console, table
from manifests.corpus import corpus_names, load_corpus
from manifests.recipe import load_recipe, recipe_names
from manifests.tasks import TASKS

ACCESS = {"open": "download", "gated": "accept terms", "form": "sign a form", "manual": "get it by hand"}


def corpus_rows() -> Iterator[tuple[str, ...]]:
    """Yield name, title, access, licence, clips, hours, tasks of every corpus."""
    for name in corpus_names():
        facts = load_corpus(name).facts
        splits = [split for one, split in facts.splits.items() if one not in facts.nested]
        clips, hours = sum(split.clips for split in splits), sum(split.hours for split in splits)
        yield (
            name,
            facts.title,
            ACCESS[facts.access],
            facts.license,
            f"{clips:,}",
            f"{hours:,.1f}",
            ", ".join(facts.tasks),
        )


def task_rows() -> Iterator[tuple[str, ...]]:
    """Yield name, what it asks, level, metric, number of prompts, corpora of every task."""
    for task in TASKS.values():
        serving = [name for name in corpus_names() if task.name in load_corpus(name).facts.tasks]
        yield task.name, task.about, str(task.level), task.metric, str(len(task.prompts)), ", ".join(serving)


CORPUS_COLUMNS = ("corpus", "title", "access", "licence", "clips", "hours", "tasks")
TASK_COLUMNS = ("task", "what it asks", "level", "metric", "prompts", "corpora")


def show_corpora() -> None:
    """Print the corpora and their splits."""
    made = table("Corpora", *CORPUS_COLUMNS, right=("clips", "hours"))
    for row in corpus_rows():
        made.add_row(*row)
    console.print(made)
    splits = table("\nSplits, as published", "split", "clips", "hours", right=("clips", "hours"))
    for name in corpus_names():
        for split, facts in load_corpus(name).facts.splits.items():
            splits.add_row(f"{name}:{split}", f"{facts.clips:,}", f"{facts.hours:,.1f}")
    console.print(splits)


def show_tasks() -> None:
    """Print the tasks."""
    made = table("Tasks", *TASK_COLUMNS, right=("level", "prompts"))
    for row in task_rows():
        made.add_row(*row)
    console.print(made)


Actual = dict[tuple[str, int], tuple[float, int]]
"""Stage and number of a row to its seconds and samples in a dataset."""


def show_recipe(name: str, actual: Actual | None = None) -> None:
    """Print what a recipe mixes in each stage, its targets, and beside them what a dataset has, if that is given."""
    recipe = load_recipe(name)
    console.print(f"[bold]{recipe.name}[/]: {recipe.title}")
    numbers = ("share", "hours", "samples") + (("hours there", "samples there") if actual is not None else ())
    for stage in recipe.stages:
        rows = recipe.stage(stage)
        made = table(f"\n{stage}", "task", "corpus", "splits", *numbers, right=numbers)
        total = sum(row.weight or 0 for row in rows)
        power = recipe.temperature.get(stage, 1.0)
        by_size = "by size" if power == 1 else f"by size ^ {power:g}"
        for number, row in enumerate(rows):
            share = f"{row.weight / total:.1%}" if row.weight else by_size
            cells = [share, told(row.hours), told(row.samples)]
            if actual is not None:
                seconds, samples = actual.get((stage, number), (0.0, 0))
                cells += [f"{seconds / 3600:,.4g}", f"{samples:,}"]
            made.add_row(row.task, row.corpus, ", ".join(row.splits), *cells)
        console.print(made)
    if recipe.name in recipe_names():
        console.print(
            f"\n[dim]manifests/recipes/{recipe.name}.toml; for a mixture of your own, give the path of a copy[/]"
        )


def told(target: float | None) -> str:
    """Return a target, or a dash where there is none."""
    return "-" if target is None else f"{target:,.10g}"


def markdown(columns: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    """Return a table for README.md, which a test holds against the code."""
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def with_tables(text: str) -> str:
    """Return README.md's text with its tables of corpora and tasks made anew."""
    for name, columns, rows in (("corpora", CORPUS_COLUMNS, corpus_rows()), ("tasks", TASK_COLUMNS, task_rows())):
        between = re.compile(rf"(<!-- {name}:[^>]*-->\n).*?(<!-- end -->)", re.DOTALL)
        made = markdown(columns, rows).replace("\\", "\\\\")
        text = between.sub(rf"\1{made}\n\2", text)
    return text


if __name__ == "__main__":
    readme = Path(sys.argv[1])
    readme.write_text(with_tables(readme.read_text(encoding="utf-8")), encoding="utf-8")
