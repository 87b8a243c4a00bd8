"""Tables that many queries count from: each is made by one look at the index, once a query that names it is asked."""

from __future__ import annotations

import re

from shards.scripts import SCRIPTS
from shards.traits import BIT

LONGEST = 300
"""Tokens of an answer that the presets train on (max_answer_tokens); more lose their end. A token is three bytes."""


def marked(name: str, marks: str = "marks") -> str:
    """Return the SQL for whether a text has one of MARKS."""
    return f"({marks} & {BIT[name]}) > 0"


def script_of(marks: str) -> str:
    """Return the SQL for the script of a text by its marks; empty if it has no letter of these."""
    tests = " ".join(f"when {marked(name, marks)} then '{name}'" for name in SCRIPTS)
    return f"case {tests} else '' end"


FLAGS = ("tagged", "broken", "garbled", "repeating", "leaked")
COLUMNS = ", ".join(f"{marked(name)} as {name}" for name in FLAGS)
TABLES = {
    "parts": """\
-- samples that have in common of what split, language and licence they are, and what is asked of them
create table parts as
select corpus, split, language, license, tasks, count(*) as samples, sum(samples) as length
from samples group by corpus, split, language, license, tasks;""",
    "voices": """\
create table voices as
select corpus, split, speaker, gender, count(*) as samples, sum(samples) as length
from samples group by corpus, split, speaker, gender;""",
    "told": f"""\
-- answers that have in common what was told of them when they were packed; an instruction without one has no words
create table told as
with asked as (
  select key, corpus, language, unnest(tasks) as task, unnest(prompt_traits) as prompt, unnest(answer_traits) as answers
  from samples),
said as (
  select key, corpus, language, task, prompt.marks as prompt,
         unnest(case when len(answers) = 0 then [null] else answers end) as answer
  from asked),
counted as (
  select corpus, language, task, prompt, answer.marks as marks, answer.words as words,
         answer.bytes > {3 * LONGEST} as long, count(*) as answers, min(key) as key
  from said group by all)
select corpus, language, task, words, long, {COLUMNS},
       {script_of("prompt")} as asked,
       {script_of("marks")} as script,
       case when {marked("simplified")} then case when {marked("traditional")} then 'both' else 'simplified' end
            when {marked("traditional")} then 'traditional' else '' end as form,
       answers, key
from counted;""",
}
"""By name: the SQL that makes each of the table `samples`."""


def named_in(sql: str) -> list[str]:
    """Return the SQL of the tables that a query asks."""
    return [made for name, made in TABLES.items() if re.search(rf"\b(from|join) {name}\b", sql)]
