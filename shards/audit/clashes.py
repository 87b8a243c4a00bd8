"""Clashes: recordings that are there several times, and are to be answered differently in one task."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from manifests import TASKS
from shards.audit.heard import chosen
from shards.audit.view import View

OPEN = tuple(sorted(name for name, task in TASKS.items() if any("{}" in prompt for prompt in task.prompts)))
"""Tasks whose prompt holds a question: two answers of one clip may be answers to two of them."""

CONFLICTS = """\
with asked as (
  select pcm_md5, key, unnest(tasks) as task, unnest(answers) as answers
  from {table}),
told as (
  select pcm_md5, task, min_by([key, array_to_string(answers, ' | ')], (list_sort(answers), key)) as one,
         max_by([key, array_to_string(answers, ' | ')], (list_sort(answers), key)) as other
  from asked where {where}
  group by pcm_md5, task having count(distinct list_sort(answers)) > 1)
select task, count(*) as recordings, min([one, other], 3) as examples from told group by task order by task"""
QUERIES = {"conflicts": CONFLICTS.format(table="doubles", where=f"task not in {OPEN}")}

CLASHES = f"""\
create or replace temp table clashes as
with asked as (
  select pcm_md5, key, source, row, unnest(tasks) as task, unnest(answer_traits) as codes from doubles),
clashing as (
  select task, pcm_md5, min(key) as first, list({{'source': source, 'row': row}}) as rows
  from asked where task not in {OPEN} group by task, pcm_md5 having count(distinct list_sort(codes)) > 1)
select *, row_number() over (partition by task order by first, pcm_md5) as place from clashing"""
"""By the codes of answers, which are the same where the texts are: so none is read."""
SHOWN, FIRST = 3, 8
"""Examples of a task, and recordings that are looked at for them at first."""

Rows = list[tuple[str, int, list[Any]]]


def clashes(view: View) -> Rows:
    """Return what the query `conflicts` does: tasks, recordings, and examples; only their answers are read."""
    connection = view.database.connection
    connection.execute(CLASHES)
    counts = connection.execute("select task, count(*) from clashes group by task order by task").fetchall()
    found: dict[str, tuple[int, list[Any]]] = {task: (samples, []) for task, samples in counts}
    most = FIRST
    while most:
        for task, examples in examples_of(view, most):
            found[task] = (found[task][0], examples)
        # Who is not looked at has a greater key than the first of all that were not.
        after = connection.execute("select task, first from clashes where place = $place", {"place": most + 1})
        short = [task for task, first in after.fetchall() if not settled(found[task][1], first)]
        most = 4 * most if short else 0
    return [(task, samples, examples) for task, (samples, examples) in found.items()]


def settled(examples: list[Any], first: str) -> bool:
    """Whether no recording whose samples have `first` as their least key can be among the examples."""
    return len(examples) == SHOWN and bool(examples[-1][0][0] <= first)


def examples_of(view: View, most: int) -> list[tuple[str, Any]]:
    """Return the examples of each task among its first recordings."""
    connection = view.database.connection
    wanted = connection.execute(
        "select distinct one.source, one.row from (select unnest(rows) as one from clashes where place <= $most) "
        "order by all",
        {"most": most},
    ).fetchall()
    sources = view.dataset.manifest.sources
    tables = []
    for number in sorted({source for source, _ in wanted}):
        rows = np.array([row for source, row in wanted if source == number], np.int64)
        columns = ["pcm_md5", "key", "tasks", "answers"]
        tables += [table.select(columns) for table in chosen(view, sources[number], rows, columns)]
    if not tables:
        return []
    connection.register("clashing", pa.concat_tables(tables))
    pairs = f"(task, pcm_md5) in (select (task, pcm_md5) from clashes where place <= {most})"
    told = connection.execute(CONFLICTS.format(table="clashing", where=pairs)).fetchall()
    connection.unregister("clashing")
    return [(task, examples) for task, _, examples in told]
