"""Labels: how even the classes of each task of labels are, and what could be told without listening."""

from __future__ import annotations

from typing import Any

import msgspec
from markupsafe import Markup

from manifests import TASKS
from shards.audit import plots
from shards.audit.digits import share, shown
from shards.audit.figures import percent
from shards.audit.verdicts import Gate, fail, good, warn
from shards.audit.view import View, ordered

GATES = ("labels",)
LABELLED = tuple(name for name, task in TASKS.items() if task.metric == "accuracy")
"""Tasks whose answers are labels."""
SKEW = 0.75
"""Share of one class that is a warning: always saying it scores so much. Also where there are four classes."""
ENOUGH = 10
"""Of fewer answers, one class may be alone by chance."""
MOST_CLASSES = 12
SHADES = ("ff", "a6", "66", "40")
OVERLAPPED, VERIFIED = "overlapped_speech_recognition", "speaker_verification"
SEXES = {"female": "woman", "male": "man"}

TASKS_SQL = ", ".join(f"'{name}'" for name in LABELLED)
QUERIES = {
    "labels": f"""\
with asked as (
  select key, corpus, split, unnest(tasks) as task, unnest(answers) as answers
  from samples where list_has_any(tasks, [{TASKS_SQL}])),
said as (select *, answers[1] as answer from asked where task in ({TASKS_SQL}) and len(answers) > 0),
counted as (
  select task, coalesce(trained, false) as trained, answer, count(*) as times
  from said left join roles using (corpus, split) group by all)
select task, trained, answer, times, sum(times) over these as answers, count(*) over these as classes
from counted window these as (partition by task, trained)
qualify row_number() over (partition by task, trained order by times desc, answer) <= {MOST_CLASSES}
order by task, trained desc, times desc, answer""",
    "trials": f"""\
-- the speaker of the utterance that comes first in a pair, and whether pairs with it are always of one kind
with pairs as (
  select regexp_extract(id, '^[^/]+/([^/]+)/', 1) as speaker, answers[list_position(tasks, '{VERIFIED}')][1] as answer
  from samples where list_contains(tasks, '{VERIFIED}')),
led as (
  select speaker, count(*) as pairs, count(distinct answer) as kinds from pairs where speaker <> '' group by speaker)
select count(*) as speakers, coalesce(sum(pairs), 0) as pairs, count(*) filter (kinds = 1 and pairs > 1) as always
from led""",
    "overlaps": f"""\
-- who speaks, in the order of the answer: by the readers' numbers, as the mixture's name tells them
with readers as (
  select regexp_extract(speaker, '([0-9]+)$', 1)::bigint as reader, any_value(gender) as gender
  from voices where regexp_matches(speaker, '/[0-9]+$') group by reader),
mixed as (
  select key, list_sort(regexp_extract_all(id, '([0-9]+)-[0-9]+-[0-9]+', 1)::bigint[]) as found
  from samples where list_contains(tasks, '{OVERLAPPED}')),
placed as (select key, unnest(found) as reader, generate_subscripts(found, 1) as place from mixed where len(found) > 0),
told as (
  select key, string_agg(coalesce(nullif(gender, ''), '?'), ' ' order by place) as voices
  from placed left join readers using (reader) group by key)
select voices, count(*) as mixtures from told group by voices order by mixtures desc, voices limit 20""",
}


class Class(msgspec.Struct, frozen=True, kw_only=True):
    """One label."""

    answer: str
    count: int
    share: float


class Labels(msgspec.Struct, frozen=True, kw_only=True):
    """The labels of one task, in what is trained on or in what is not."""

    task: str
    trained: bool
    answers: int
    distinct: int
    classes: tuple[Class, ...]
    """The most frequent first."""
    majority: float
    """What always saying the most frequent label scores."""


class Voices(msgspec.Struct, frozen=True, kw_only=True):
    """Which voices speak at once, in the order of the answer."""

    voices: str
    mixtures: int
    share: float


class Balance(msgspec.Struct, frozen=True, kw_only=True):
    """How even the labels are."""

    tasks: tuple[Labels, ...]
    pairs: int
    """Pairs of speaker verification whose first speaker is known."""
    leaders: int
    """Speakers who come first in a pair."""
    leaders_always: int
    """Those of several pairs that are all of one answer: who knows the speaker knows the answer."""
    overlaps: tuple[Voices, ...]


def look(view: View) -> Balance:
    """Return how even the labels are."""
    rows: dict[tuple[str, bool], list[tuple[Any, ...]]] = {}
    for task, trained, *row in view.database.ask("labels"):
        rows.setdefault((task, trained), []).append(tuple(row))
    [(leaders, pairs, always)] = view.database.ask("trials")
    voices = view.database.ask("overlaps")
    mixtures = sum(count for _, count in voices)
    return Balance(
        tasks=tuple(
            labels_of(task, trained, rows[task, trained])
            for task in ordered({task for task, _ in rows})
            for trained in (True, False)
            if (task, trained) in rows
        ),
        pairs=int(pairs),
        leaders=leaders,
        leaders_always=always,
        overlaps=tuple(
            Voices(voices=shown(said), mixtures=count, share=share(count, mixtures)) for said, count in voices
        ),
    )


def labels_of(task: str, trained: bool, rows: list[tuple[Any, ...]]) -> Labels:
    """Return the labels of one task."""
    _, _, answers, distinct = rows[0]
    classes = tuple(
        Class(answer=shown(answer), count=times, share=share(times, int(answers))) for answer, times, _, _ in rows
    )
    return Labels(
        task=task,
        trained=trained,
        answers=int(answers),
        distinct=distinct,
        classes=classes,
        majority=classes[0].share,
    )


def gates(found: Balance) -> tuple[Gate, ...]:
    """Judge the classes."""
    return (judged(found),)


def judged(found: Balance) -> Gate:
    """Every task of labels has more than one class to train on, and none of them is nearly all."""
    trained = [row for row in found.tasks if row.trained]
    for row in trained:
        if row.distinct == 1 and row.answers >= ENOUGH:
            said = f"All {row.answers:,} answers of {row.task} to train on are {row.classes[0].answer!r}"
            return fail("labels", f"{said}: there is nothing to learn; add samples of the other classes.")
    skewed = [row for row in trained if row.answers >= ENOUGH and row.majority > SKEW]
    if skewed:
        row = max(skewed, key=lambda row: row.majority)
        said = f"{row.classes[0].answer!r} is {percent(row.majority)} of the answers of {row.task} to train on"
        return warn("labels", f"{said}: always saying it scores so much; even the classes out, or weigh them.")
    if found.leaders_always > max(2, found.leaders // 10):
        said = (
            f"Of {found.leaders:,} speakers who lead pairs of {VERIFIED}, {found.leaders_always:,} have one answer only"
        )
        return warn("labels", f"{said}: to know the voice is enough; draw pairs of both kinds for every speaker.")
    if not trained:
        return good("labels", "No task of labels is trained on.")
    most = percent(max(row.majority for row in trained))
    return good(
        "labels", f"Always saying the most frequent label scores at most {most} in any task that is trained on."
    )


def classes(row: Labels) -> Markup:
    """Return the classes of a task as one bar."""
    parts = [
        (one.count, plots.colour(row.task) + SHADES[min(place, len(SHADES) - 1)], f"{one.answer}: {percent(one.share)}")
        for place, one in enumerate(row.classes)
    ]
    return Markup(plots.bar(parts, f"labels of {row.task}: {'; '.join(part[2] for part in parts)}", 14))


DRAWN = {"label_classes": classes}
