"""Prompts: the stored prompts of every task."""

from __future__ import annotations

import msgspec

from manifests import TASKS
from shards.audit.digits import share, shown
from shards.audit.verdicts import Gate
from shards.audit.view import View, ordered

GATES: tuple[str, ...] = ()

QUERIES = {
    "prompts": """\
with asked as (select unnest(tasks) as task, unnest(prompts) as prompt from samples),
counted as (select task, prompt, count(*) as times from asked group by task, prompt)
select task, sum(times) as examples, count(*) as prompts,
       first(prompt order by times desc, prompt) as frequent, max(times) as times
from counted group by task order by task""",
}


class Prompts(msgspec.Struct, frozen=True, kw_only=True):
    """The stored prompts of one task."""

    task: str
    examples: int
    distinct: int
    paraphrases: int | None
    """Lines of the task's prompt file today, from which the stream draws; None for a task that is not known here."""
    frequent: str
    frequent_share: float


def look(view: View) -> tuple[Prompts, ...]:
    """Return the stored prompts of every task."""
    rows = {row[0]: row[1:] for row in view.database.ask("prompts")}
    made = []
    for task in ordered(rows):
        examples, distinct, frequent, times = rows[task]
        made.append(
            Prompts(
                task=task,
                examples=int(examples),
                distinct=distinct,
                paraphrases=len(TASKS[task].prompts) if task in TASKS else None,
                frequent=shown(frequent),
                frequent_share=share(times, int(examples)),
            )
        )
    return tuple(made)


def gates(found: tuple[Prompts, ...]) -> tuple[Gate, ...]:
    """Judge nothing."""
    return ()
