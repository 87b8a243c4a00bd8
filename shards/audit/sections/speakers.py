"""Speakers and gender: who is heard, how long, and how much of it is one person's or one sex's."""

from __future__ import annotations

import msgspec
from markupsafe import Markup

from shards.audit import plots
from shards.audit.digits import neat, share, shown
from shards.audit.figures import duration, percent
from shards.audit.verdicts import Gate, good, warn
from shards.audit.view import View

GATES = ("speakers",)
MUCH, TIMES = 0.1, 5
"""One speaker holds too much of a split with a tenth of its hours, if that is five times the mean."""
ONE_SEX, ENOUGH = 0.8, 20
"""Share of the hours of one sex that is a warning, in splits of so many speakers or more."""
FEMALE, MALE, UNKNOWN = "#b2568d", "#3f7fb0", "#7b8794"
UNTOLD = "not told"

QUERIES = {
    "speakers": """\
with spans as (select *, length / 16000 / 3600 as hours from voices),
people as (  -- whoever is called female here and male there counts once, as who they mostly are
  select corpus, split, speaker, arg_max(gender, (hours, gender)) as gender,
         sum(samples) as samples, sum(hours) as hours
  from spans where speaker <> '' group by corpus, split, speaker),
ranked as (
  select *, row_number() over (partition by corpus, split order by hours, speaker) as place from people),
known as (
  select corpus, split, count(*) as speakers, sum(samples) as samples, sum(hours) as hours,
         2 * sum(place * hours) / (count(*) * sum(hours)) - (count(*) + 1) / count(*) as gini,
         median(hours) as median, max(hours) as most, arg_max(speaker, place) as first,
         count(*) filter (gender = 'female') as women, count(*) filter (gender = 'male') as men
  from ranked group by corpus, split),
heard as (
  select corpus, split, sum(samples) as samples, sum(hours) as hours,
         coalesce(sum(hours) filter (gender = 'female'), 0) as female,
         coalesce(sum(hours) filter (gender = 'male'), 0) as male
  from spans group by corpus, split)
select corpus, split, coalesce(trained, false) as trained, heard.samples, heard.hours, female, male,
       coalesce(speakers, 0) as speakers, coalesce(known.samples, 0) as named, coalesce(known.hours, 0) as named_hours,
       gini, median, most, first, coalesce(women, 0) as women, coalesce(men, 0) as men
from heard left join known using (corpus, split) left join roles using (corpus, split)
order by corpus, split""",
}


class Speakers(msgspec.Struct, frozen=True, kw_only=True):
    """Who is heard in one split."""

    corpus: str
    split: str
    trained: bool
    samples: int
    hours: float
    speakers: int
    """Different ones that are named."""
    unknown: float
    """Share of the hours whose speaker is not named."""
    gini: float | None
    """Of the hours of the named speakers: 0 if all are heard equally long, towards 1 if one is heard alone."""
    median_hours: float | None
    """Of a speaker."""
    most_hours: float | None
    most_share: float | None
    """Of the hours of the split that the most heard speaker holds."""
    first: str
    """The most heard speaker."""
    women: int
    men: int
    female_hours: float
    male_hours: float
    unknown_hours: float
    """Of speakers whose gender is not told."""


def look(view: View) -> tuple[Speakers, ...]:
    """Return who is heard in every split."""
    made = []
    for row in view.database.ask("speakers"):
        corpus, split, trained, samples, hours, female, male, speakers, _, named, gini, median, most, first, *sexes = (
            row
        )
        made.append(
            Speakers(
                corpus=corpus,
                split=split,
                trained=trained,
                samples=int(samples),
                hours=neat(hours),
                speakers=speakers,
                unknown=abs(share(hours - named, hours)),
                gini=None if gini is None else abs(neat(gini)),
                median_hours=None if median is None else neat(median),
                most_hours=None if most is None else neat(most),
                most_share=None if most is None else share(most, hours),
                first=shown(first or ""),
                women=sexes[0],
                men=sexes[1],
                female_hours=neat(female),
                male_hours=neat(male),
                unknown_hours=abs(neat(hours - female - male)),
            )
        )
    return tuple(made)


def gates(found: tuple[Speakers, ...]) -> tuple[Gate, ...]:
    """Judge whether one speaker or one sex holds too much of what is trained on."""
    return (judged(found),)


def judged(found: tuple[Speakers, ...]) -> Gate:
    """No speaker holds too much of a split to train on, nor does one sex."""
    known = [row for row in found if row.trained and row.speakers and row.hours]
    loud = [row for row in known if (row.most_share or 0) > max(MUCH, TIMES / row.speakers)]
    if loud:
        row = max(loud, key=lambda row: row.most_share or 0)
        said = f"{row.first} speaks {percent(row.most_share or 0)} of {row.corpus}:{row.split}"
        return warn("speakers", f"{said}, one of {row.speakers:,} speakers; take fewer of their clips.")
    for row in known:
        told = row.female_hours + row.male_hours
        most = max(row.female_hours, row.male_hours)
        if row.women + row.men >= ENOUGH and most > ONE_SEX * told:
            who = "women" if most == row.female_hours else "men"
            said = f"{percent(most / told)} of {row.corpus}:{row.split} is spoken by {who}"
            return warn(
                "speakers", f"{said} (of {duration(told * 3600)} whose speaker's gender is told); add the others."
            )
    if not known:
        return good("speakers", "No split to train on names its speakers, so nothing can be said of them.")
    people, hours = sum(row.speakers for row in known), sum(row.hours for row in known)
    row = max(known, key=lambda row: row.most_share or 0)
    said = f"{people:,} speakers in {duration(hours * 3600)} to train on whose corpora name them"
    return good("speakers", f"{said}; none holds too much (at most {percent(row.most_share or 0)} of a split).")


def sexes(row: Speakers) -> Markup:
    """Return the hours of women, men and unknown as one bar."""
    named = (
        (row.female_hours, FEMALE, "women"),
        (row.male_hours, MALE, "men"),
        (row.unknown_hours, UNKNOWN, UNTOLD),
    )
    parts = [(hours, fill, f"{name}: {duration(hours * 3600)}") for hours, fill, name in named]
    return Markup(plots.bar(parts, f"{row.corpus}:{row.split}: {'; '.join(part[2] for part in parts)}", 10))


DRAWN = {"sexes": sexes, "sex_colours": {"women": FEMALE, "men": MALE, UNTOLD: UNKNOWN}}
