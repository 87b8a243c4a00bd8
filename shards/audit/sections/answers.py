"""Answers: what is to be said, how long it is, what is said again and again, and what is wrong with any."""

from __future__ import annotations

from typing import Any

import msgspec
from markupsafe import Markup

from shards.audit import plots
from shards.audit.digits import neat, share, shown
from shards.audit.figures import percent
from shards.audit.tables import LONGEST
from shards.audit.transcripts import SQL, Pace, pace, unlike
from shards.audit.verdicts import Gate, fail, good, warn
from shards.audit.view import View, ordered

GATES = ("answers",)
LABEL_TIMES = 5
"""So often, at least, the labels of a task are given on average."""
SHADES = ("ff", "a6", "66", "40")
"""How strong the colours of the classes of one task are, as the last two digits of a colour."""
SENTENCE, OFTEN, MUCH, ALWAYS = 4, 20, 0.02, 1000
"""An answer of so many words is for many clips if it is given so often and for that share, or so often at all."""
FEW = 0.01
"""Share of answers with a fault that is a warning; control characters and the like are one from the first on."""

QUERIES = {
    "answers": """\
with counted as (select task, words, sum(answers) as times from told where words is not null group by task, words),
reached as (
  select task, words, times, sum(times) over (partition by task order by words) as upto,
         sum(times) over (partition by task) as answers
  from counted),
wanted as (select *, unnest([0.01, 0.5, 0.99]::double[]) as part from reached),
placed as (select *, part * (answers - 1) as place from wanted),
-- between the two answers that a place falls between
between as (
  select task, part, min(words) filter (upto > floor(place)) as low, min(words) filter (upto > ceil(place)) as high,
         any_value(place - floor(place)) as way
  from placed group by task, part),
parts as (select task, list(low + (high - low) * way order by part) as parts from between group by task),
summed as (
  select task, sum(answers) as answers, sum(answers) filter (words = 0) as empty, min(words) as least,
         max(words) as most, sum(answers) filter (long) as long, sum(answers) filter (tagged) as tagged,
         sum(answers) filter (broken) as broken, sum(answers) filter (garbled) as garbled,
         sum(answers) filter (repeating) as repeating, min(key) filter (words = 0) as empty_key,
         min(key) filter (long) as long_key, min(key) filter (tagged) as tagged_key,
         min(key) filter (broken) as broken_key, min(key) filter (garbled) as garbled_key,
         min(key) filter (repeating) as repeating_key
  from told where words is not null group by task)
select task, answers, coalesce(empty, 0) as empty, least, parts[2] as median, most, parts[1] as p1, parts[3] as p99,
       coalesce(long, 0) as long, coalesce(tagged, 0) as tagged, coalesce(broken, 0) as broken,
       coalesce(garbled, 0) as garbled, coalesce(repeating, 0) as repeating,
       empty_key, long_key, tagged_key, broken_key, garbled_key, repeating_key
from summed join parts using (task) order by task""",
    "instructions": """\
select task, sum(samples)::bigint as examples from (select samples, unnest(tasks) as task from parts)
group by task order by task""",
    "unanswered": """\
select task, sum(answers)::bigint as unanswered, min(key) as example from told where words is null
group by task order by task""",
    "frequent": """\
with asked as (select hash(unnest(tasks)) as task, unnest(answer_traits) as answers from samples),
said as (select task, unnest(answers).code as code from asked),
counted as (select task, code, count(*) as times from said group by task, code),
-- of each task the twelve with the most, in one number each: how often, then which
ranked as (
  select task, count(*) as answers, max(times::hugeint * 18446744073709551616 + code, 12) as most
  from counted group by task),
chosen as (select task, answers, unnest(case when answers <= 12 then most else most[1:1] end) as rank from ranked),
placed as (
  select names.task, answers, (rank // 18446744073709551616)::bigint as times,
         (rank % 18446744073709551616)::ubigint as code
  from chosen join (select distinct unnest(tasks) as task from parts) names on chosen.task = hash(names.task)),
-- the first samples of those few, by a second look, and what they say
again as (select key, unnest(tasks) as task, unnest(answer_traits) as answers from samples),
spoken as (select key, task, unnest(answers).code as code from again),
few as (select * from spoken where code in (select code from placed)),
first as (
  select task, code, min(key) as key, any_value(times) as times, any_value(placed.answers) as answers
  from few join placed using (task, code) group by task, code),
texts as (
  select key, unnest(tasks) as task, unnest(answers) as texts from samples where key in (select key from first)),
read as (select key, task, unnest(texts) as answer from texts)
select distinct task, answer, times, answers, key
from read join first using (key, task) where md5_number_lower(answer) = code
order by task, times desc, answer""",
    "transcripts": SQL,
}


class AnswerClass(msgspec.Struct, frozen=True, kw_only=True):
    """One of the few answers of a task of labels."""

    answer: str
    count: int
    share: float


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong with some answers of a task."""

    kind: str
    count: int
    share: float
    """Of the answers of the task."""
    key: str
    """A sample that has one."""


class Answers(msgspec.Struct, frozen=True, kw_only=True):
    """The answers of one task."""

    task: str
    examples: int
    answers: int
    distinct: int
    empty: int
    """Answers without a word, and examples without an answer."""
    words_least: int
    words_p1: float
    words_median: float
    words_p99: float
    words_most: int
    frequent: str
    frequent_share: float
    """Of all answers of the task."""
    frequent_count: int
    frequent_key: str
    faults: tuple[Fault, ...]
    classes: tuple[AnswerClass, ...]
    """All answers, the most frequent first, if they are so few that they are labels."""
    transcripts: tuple[Pace, ...]
    """Of speech recognition, corpus by corpus."""


KINDS = {
    "empty": "empty or missing",
    "tagged": "tags left, as <COMMA>",
    "long": f"longer than about {LONGEST} tokens, so that their end is cut off",
    "broken": "control characters or a lost character",
    "garbled": "letters read in the wrong encoding",
    "repeating": "the same few words again and again",
}
"""What can be wrong with an answer."""


def look(view: View) -> tuple[Answers, ...]:
    """Return the answers of every task; the classes of those that have few different ones."""
    said = {row[0]: row[1:] for row in view.database.ask("answers")}
    frequent: dict[str, list[tuple[str, int, int, str]]] = {}
    for task, answer, times, distinct, key in view.database.ask("frequent"):
        frequent.setdefault(task, []).append((answer, times, distinct, key))
    paces = tuple(pace(*row) for row in view.database.ask("transcripts"))
    none: tuple[Any, ...] = (0, 0, 0, 0.0, 0, 0.0, 0.0, *[0] * 5, *[None] * 6)
    examples = dict(view.database.ask("instructions"))
    missing = {row[0]: row[1:] for row in view.database.ask("unanswered")}
    return tuple(
        answers_of(
            task,
            (examples[task], *missing.get(task, (0, None))),
            said.get(task, none),
            frequent.get(task, [("", 0, 0, "")]),
            paces if task == "asr" else (),
        )
        for task in ordered(examples)
    )


def answers_of(
    task: str,
    asked: tuple[Any, ...],
    said: tuple[Any, ...],
    top: list[tuple[str, int, int, str]],
    paces: tuple[Pace, ...],
) -> Answers:
    """Return what the queries say of one task."""
    examples, unanswered, unanswered_key = asked
    count, empty, least, median, most, p1, p99, *rest = said
    counts = dict(zip(("long", "tagged", "broken", "garbled", "repeating"), rest, strict=False))
    keys = dict(zip(("empty", "long", "tagged", "broken", "garbled", "repeating"), rest[5:], strict=True))
    counts["empty"], keys["empty"] = empty + unanswered, keys["empty"] or unanswered_key
    # Labels come again and again; a few answers that hardly do are only a small task.
    labels = top if top[0][2] * LABEL_TIMES <= count else []
    return Answers(
        task=task,
        examples=examples,
        answers=count,
        distinct=top[0][2],
        empty=counts["empty"],
        words_least=least,
        words_p1=neat(p1),
        words_median=neat(median),
        words_p99=neat(p99),
        words_most=most,
        frequent=shown(top[0][0]),
        frequent_share=share(top[0][1], count),
        frequent_count=top[0][1],
        frequent_key=shown(top[0][3]),
        faults=tuple(
            Fault(kind=kind, count=counts[kind], share=share(counts[kind], max(count, examples)), key=shown(keys[kind]))
            for kind in KINDS
            if counts[kind]
        ),
        classes=tuple(
            AnswerClass(answer=shown(answer), count=times, share=share(times, count))
            for answer, times, distinct, _ in labels
            if distinct == len(labels)
        ),
        transcripts=paces,
    )


def gates(found: tuple[Answers, ...]) -> tuple[Gate, ...]:
    """Judge whether any is empty or has tags left, and whether one should look at others."""
    return (judged(found),)


def judged(answers: tuple[Answers, ...]) -> Gate:
    """Every instruction has answers, every answer has a word and none a tag; few are odd in another way."""
    if empty := [(fault, row) for row in answers for fault in row.faults if fault.kind == "empty"]:
        fault, row = max(empty, key=lambda pair: pair[0].count)
        total = sum(fault.count for fault, _ in empty)
        said = f"Empty or missing answers: {total:,}, of which {fault.count:,} in {row.task}, for example {fault.key}"
        return fail("answers", f"{said}. Leave these samples out, or build anew from a corpus that has them.")
    if tagged := [(fault, row) for row in answers for fault in row.faults if fault.kind == "tagged"]:
        fault, row = max(tagged, key=lambda pair: pair[0].count)
        total = sum(fault.count for fault, _ in tagged)
        said = f"Answers with tags left in them: {total:,}, of which {fault.count:,} in {row.task}"
        return fail(
            "answers",
            f"{said}, for example {fault.key}. The model would learn to write <COMMA>; build anew with this version.",
        )
    odd = [(fault, row) for row in answers for fault in row.faults if fault.kind == "broken" or fault.share > FEW]
    if odd:
        fault, row = max(odd, key=lambda pair: pair[0].count)
        said = f"{fault.count:,} answers of {row.task} ({percent(fault.share)}) have {KINDS[fault.kind]}"
        return warn("answers", f"{said}, for example {fault.key}; look at them before training.")
    if same := [row for row in answers if one_for_many(row)]:
        row = max(same, key=lambda row: row.frequent_count)
        said = f"{row.frequent_count:,} answers of {row.task} ({percent(row.frequent_share)}) are the same"
        said = f"{said}: {row.frequent!r}, for example {row.frequent_key}"
        return warn("answers", f"{said}; were captions joined to the wrong clips?")
    if said := unlike([one for row in answers for one in row.transcripts]):
        return warn("answers", said)
    return good("answers", f"None of {sum(row.answers for row in answers):,} answers is empty; few are odd in any way.")


def one_for_many(row: Answers) -> bool:
    """Whether one sentence answers very many clips."""
    if len(row.frequent.split()) < SENTENCE:
        return False
    return row.frequent_count >= ALWAYS or (row.frequent_count >= OFTEN and row.frequent_share > MUCH)


def balance(row: Answers) -> Markup:
    """Return the classes of a task of labels as one bar."""
    parts = [
        (one.count, plots.colour(row.task) + SHADES[min(place, len(SHADES) - 1)], f"{one.answer}: {percent(one.share)}")
        for place, one in enumerate(row.classes)
    ]
    return Markup(plots.bar(parts, f"answers of {row.task}: {'; '.join(part[2] for part in parts)}", 10))


DRAWN = {"balance": balance, "kinds_of_faults": KINDS}
