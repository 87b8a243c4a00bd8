"""Answers: what is to be said, how long it is, and what is said again and again."""

from __future__ import annotations

import msgspec
from markupsafe import Markup

from shards.audit import plots
from shards.audit.digits import neat, share, shown
from shards.audit.figures import percent
from shards.audit.verdicts import Gate, fail, good
from shards.audit.view import View, ordered

GATES = ("answers",)
LABEL_TIMES = 5
"""So often, at least, the labels of a task are given on average."""
SHADES = ("ff", "a6", "66", "40")
"""How strong the colours of the classes of one task are, as the last two digits of a colour."""

QUERIES = {
    "answers": r"""
with asked as (select unnest(tasks) as task, unnest(answers) as answers from samples),
said as (select task, unnest(answers) as answer from asked),
spaced as (select task, translate(answer, E'\t\n\f\r', '    ') as answer from said),
counted as (
  select task, case when answer = '' or contains(answer, '  ') or starts_with(answer, ' ') or ends_with(answer, ' ')
                    then len(list_filter(string_split(answer, ' '), lambda piece: piece <> ''))
                    else strlen(answer) - strlen(replace(answer, ' ', '')) + 1 end as words
  from spaced)
select task, count(*) as answers, count(*) filter (words = 0) as empty,
       min(words) as least, median(words) as median, max(words) as most
from counted group by task order by task""".strip(),
    "unanswered": """\
with asked as (select unnest(tasks) as task, unnest(answers) as answers from samples)
select task, count(*) as examples, count(*) filter (len(answers) = 0) as unanswered
from asked group by task order by task""",
    "frequent": """\
with asked as (select unnest(tasks) as task, unnest(answers) as answers from samples),
said as (select task, unnest(answers) as answer from asked),
counted as (select task, answer, count(*) as times from said group by task, answer),
placed as (
  select *, row_number() over (partition by task order by times desc, answer) as place,
         count(*) over (partition by task) as answers
  from counted)
select task, answer, times, answers from placed
where place = 1 or (place <= 12 and answers <= 12) order by task, place""",
}


class AnswerClass(msgspec.Struct, frozen=True, kw_only=True):
    """One of the few answers of a task of labels."""

    answer: str
    count: int
    share: float


class Answers(msgspec.Struct, frozen=True, kw_only=True):
    """The answers of one task."""

    task: str
    examples: int
    answers: int
    distinct: int
    empty: int
    """Answers without a word, and examples without an answer."""
    words_least: int
    words_median: float
    words_most: int
    frequent: str
    frequent_share: float
    """Of all answers of the task."""
    classes: tuple[AnswerClass, ...]
    """All answers, the most frequent first, if they are so few that they are labels."""


def look(view: View) -> tuple[Answers, ...]:
    """Return the answers of every task; the classes of those that have few different ones."""
    said = {row[0]: row[1:] for row in view.database.ask("answers")}
    frequent: dict[str, list[tuple[str, int, int]]] = {}
    for task, answer, times, distinct in view.database.ask("frequent"):
        frequent.setdefault(task, []).append((answer, times, distinct))
    asked = {row[0]: row[1:] for row in view.database.ask("unanswered")}
    made = []
    for task in ordered(asked):
        examples, unanswered = asked[task]
        count, empty, least, median, most = said.get(task, (0, 0, 0, 0.0, 0))
        top = frequent.get(task, [("", 0, 0)])
        # Labels come again and again; a few answers that hardly do are only a small task.
        labels = top if top[0][2] * LABEL_TIMES <= count else []
        made.append(
            Answers(
                task=task,
                examples=examples,
                answers=count,
                distinct=top[0][2],
                empty=empty + unanswered,
                words_least=least,
                words_median=neat(median),
                words_most=most,
                frequent=shown(top[0][0]),
                frequent_share=share(top[0][1], count),
                classes=tuple(
                    AnswerClass(answer=shown(answer), count=times, share=share(times, count))
                    for answer, times, distinct in labels
                    if distinct == len(labels)
                ),
            )
        )
    return tuple(made)


def gates(found: tuple[Answers, ...]) -> tuple[Gate, ...]:
    """Judge whether any is empty."""
    return (empty_answers(found),)


def empty_answers(answers: tuple[Answers, ...]) -> Gate:
    """Every instruction has answers, and every answer has a word."""
    empty = [row for row in answers if row.empty]
    if empty:
        most, total = max(empty, key=lambda row: row.empty), sum(row.empty for row in empty)
        return fail("answers", f"Empty or missing answers: {total:,}, of which {most.empty:,} in {most.task}.")
    return good("answers", f"None of {sum(row.answers for row in answers):,} answers is empty.")


def balance(row: Answers) -> Markup:
    """Return the classes of a task of labels as one bar."""
    parts = [
        (one.count, plots.colour(row.task) + SHADES[min(place, len(SHADES) - 1)], f"{one.answer}: {percent(one.share)}")
        for place, one in enumerate(row.classes)
    ]
    return Markup(plots.bar(parts, f"answers of {row.task}: {'; '.join(part[2] for part in parts)}", 10))


DRAWN = {"balance": balance}
