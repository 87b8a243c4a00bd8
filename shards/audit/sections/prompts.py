"""Prompts: which paraphrases of every task are stored and how evenly, and what is wrong with any."""

from __future__ import annotations

import math
from typing import Any

import msgspec
from markupsafe import Markup

from manifests import TASKS
from shards.audit import plots
from shards.audit.database import quoted
from shards.audit.digits import neat, share, shown
from shards.audit.figures import percent
from shards.audit.verdicts import Gate, fail, good, warn
from shards.audit.view import View, ordered

GATES: tuple[str, ...] = ("prompts",)
SKEWED = 3
"""The most frequent paraphrase may come so many times as often as it would if all came equally often."""
ENOUGH = 40
"""Of fewer instructions one paraphrase has a large share by chance."""
USUAL = 12
MOST_FORMS = 40
"""Different prompts of one task that are listed; our tasks have 12 to 14."""


def forms() -> str:
    """Return the SQL that gives a prompt the paraphrase it was made of; a prompt that no file has is its own."""
    cases = []
    for name, task in TASKS.items():
        held = sorted((line for line in task.prompts if "{}" in line), key=len, reverse=True)
        parts = [(line, *line.split("{}", 1)) for line in held]
        tests = "\n".join(
            f"    when starts_with(prompt, {quoted(head)}) and ends_with(prompt, {quoted(tail)}) then {quoted(line)}"
            for line, head, tail in parts
        )
        if tests:
            cases.append(f"  when {quoted(name)} then case\n{tests}\n    else prompt end")
    return "case task\n" + "\n".join(cases) + "\n  else prompt end"


QUERIES = {
    "prompts": rf"""
with asked as (select key, unnest(tasks) as task, unnest(prompts) as prompt from samples),
-- the longest paraphrase that fits around a question
formed as (select key, task, prompt, {forms()} as form from asked),
open as (
  select *, case when contains(prompt, '{{') then regexp_matches(prompt, '\{{[A-Za-z0-9_ ]*\}}')
                 else false end as unfilled
  from formed),
counted as (
  select task, form, count(*) as times, count(distinct hash(prompt)) as texts,
         count(*) filter (unfilled) as unfilled, min(key) filter (unfilled) as example
  from open group by task, form),
placed as (
  select *, sum(times) over task as examples, row_number() over (partition by task order by times desc, form) as place
  from counted window task as (partition by task))
select task, form, times, examples, sum(texts) over task as texts, count(*) over task as forms,
       sum(unfilled) over task as unfilled, min(example) over task as example,
       sum(-times / examples * log2(times / examples)) over task as bits
from placed window task as (partition by task)
qualify place <= {MOST_FORMS} order by task, place""".strip(),
    "leaks": """\
select task, sum(answers)::bigint as leaked, min(key) as example from told where leaked group by task order by task""",
}


class Form(msgspec.Struct, frozen=True, kw_only=True):
    """One paraphrase of a task; ``{}`` is the place of its question."""

    prompt: str
    count: int
    share: float
    known: bool
    """Whether the task's prompt file has it today."""


class Prompts(msgspec.Struct, frozen=True, kw_only=True):
    """The stored prompts of one task."""

    task: str
    examples: int
    distinct: int
    """Different texts as stored, questions and all."""
    paraphrases: int | None
    """Lines of the task's prompt file today, from which the stream draws; None for a task that is not known here."""
    used: int
    """How many of them are stored at least once."""
    bits: float
    """Entropy of the paraphrases."""
    most_bits: float | None
    """Entropy if all paraphrases came equally often."""
    frequent: str
    frequent_share: float
    forms: tuple[Form, ...]
    """The most frequent paraphrases, the most frequent first."""
    unfilled: int
    """Prompts with a pair of braces left."""
    unfilled_key: str
    leaked: int
    """Answers of four words and 20 letters or more that stand word for word in their own prompt."""
    leaked_key: str
    shared: tuple[str, ...]
    """Other tasks that ask with a prompt of this one."""


def look(view: View) -> tuple[Prompts, ...]:
    """Return the stored prompts of every task."""
    rows: dict[str, list[tuple[Any, ...]]] = {}
    tasks_of: dict[str, set[str]] = {}
    for task, *row in view.database.ask("prompts"):
        rows.setdefault(task, []).append(tuple(row))
        tasks_of.setdefault(row[0], set()).add(task)
    leaked = {task: (count, key) for task, count, key in view.database.ask("leaks")}
    return tuple(prompts_of(task, rows[task], leaked.get(task, (0, "")), tasks_of) for task in ordered(rows))


def prompts_of(task: str, rows: list[tuple[Any, ...]], leak: tuple[int, str], tasks_of: dict[str, set[str]]) -> Prompts:
    """Return what the rows of one task say: a paraphrase each, the most frequent first."""
    known = TASKS[task].prompts if task in TASKS else ()
    _, _, examples, texts, _, unfilled, key, bits = rows[0]
    forms = tuple(
        Form(prompt=shown(form), count=times, share=share(times, int(examples)), known=form in known)
        for form, times, *_ in rows
    )
    # Prompts with a place for a question are told apart by the question.
    twice = {other for form, *_ in rows if "{}" not in form for other in tasks_of[form]} - {task}
    return Prompts(
        task=task,
        examples=int(examples),
        distinct=int(texts),
        paraphrases=len(known) if known else None,
        used=sum(form.known for form in forms),
        bits=abs(neat(bits)),
        most_bits=neat(math.log2(len(known))) if known else None,
        frequent=forms[0].prompt,
        frequent_share=forms[0].share,
        forms=forms,
        unfilled=int(unfilled),
        unfilled_key=shown(key or ""),
        leaked=leak[0],
        leaked_key=shown(leak[1]),
        shared=tuple(shown(other) for other in ordered(twice)),
    )


def gates(found: tuple[Prompts, ...]) -> tuple[Gate, ...]:
    """Judge whether prompts are filled, tell nothing away, and are varied."""
    return (judged(found),)


def judged(found: tuple[Prompts, ...]) -> Gate:
    """No prompt has a place left open or its answer in it; none comes far too often, or for two tasks."""
    if unfilled := [row for row in found if row.unfilled]:
        total, row = sum(row.unfilled for row in unfilled), unfilled[0]
        said = f"Prompts with a place left open: {total:,}, for example {row.task} of {row.unfilled_key}"
        return fail("prompts", f"{said}. The model would learn to be asked about braces; build these samples anew.")
    if leaked := [row for row in found if row.leaked]:
        total, row = sum(row.leaked for row in leaked), leaked[0]
        said = (
            f"Prompts that hold their own answer word for word: {total:,}, for example {row.task} of {row.leaked_key}"
        )
        return fail("prompts", f"{said}. Such answers are copied, not heard; mend the questions and build anew.")
    skewed = [row for row in found if row.examples >= ENOUGH and row.frequent_share * expected(row) > SKEWED]
    if skewed:
        row = max(skewed, key=lambda row: row.frequent_share * expected(row))
        even = f"of {expected(row)} paraphrases each would have {1 / expected(row):.1%}"
        said = f"{row.task} is asked with one prompt {row.frequent_share:.1%} of the time ({row.frequent!r}); {even}"
        return warn("prompts", f"{said}. Vary the prompts, or the model will heed only this one.")
    if twice := [row for row in found if row.shared]:
        row = twice[0]
        said = f"{row.task} and {row.shared[0]} share a prompt"
        return warn("prompts", f"{said}: the model cannot know which answer is wanted. Reword one of them.")
    used = f"{sum(row.used for row in found)} of {sum(row.paraphrases or 0 for row in found)} paraphrases are stored"
    return good("prompts", f"No prompt is left open, tells its answer or comes far too often; {used}.")


def expected(row: Prompts) -> int:
    """Return how many paraphrases there should be: those known, or twelve, as every task of ours has."""
    return row.paraphrases or USUAL


def columns(row: Prompts) -> Markup:
    """Return how often each paraphrase is used, a column each, those never used too."""
    unused = [(0.0, "never used")] * ((row.paraphrases or row.used) - row.used)
    parts = [(form.share, f"{form.prompt}: {percent(form.share)}") for form in row.forms]
    even = 1 / expected(row)
    return Markup(plots.columns([*parts, *unused], even, plots.colour(row.task), f"paraphrases of {row.task}"))


DRAWN = {"paraphrases": columns}
