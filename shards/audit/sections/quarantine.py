"""Quarantine: what was refused, and why."""

from __future__ import annotations

import msgspec

from shards.audio import REASONS
from shards.audit.database import Database
from shards.audit.digits import shown
from shards.audit.verdicts import Gate
from shards.audit.view import View
from shards.refusals import STORIES

GATES: tuple[str, ...] = ()
MEANINGS = {
    "excluded audio_missing": "the corpus lists the clip, but its audio is not among the files",
    "excluded no_instruction": "no task of the recipe can ask anything of the clip",
    **{f"excluded {reason}": meaning for reason, meaning in STORIES.items()},
    **{f"quarantined {reason}": meaning for reason, meaning in REASONS.items()},
}

QUERIES = {
    "reasons": """\
select verdict, reason, corpus, split, count(*) as clips
from refusals group by all order by clips desc, reason, verdict, corpus, split""",
    "refusals": """\
with placed as (
  select corpus, split, id, verdict, reason, detail,
         row_number() over (partition by corpus, split, verdict, reason order by id, detail) as place
  from refusals)
select corpus, split, id, verdict, reason, detail
from placed order by place, corpus, split, id, verdict, reason limit 20""",
}


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """One reason of refusal in one split."""

    verdict: str
    reason: str
    meaning: str
    corpus: str
    split: str
    clips: int


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """One clip that was not packed."""

    id: str
    corpus: str
    split: str
    verdict: str
    reason: str
    detail: str


class Quarantine(msgspec.Struct, frozen=True, kw_only=True):
    """The refusals, counted, and some of them."""

    reasons: tuple[Reason, ...]
    refusals: tuple[Refusal, ...]
    """Some of each reason and split: the first of each, then the second of each."""


def look(view: View) -> Quarantine:
    """Return what was refused."""
    return Quarantine(reasons=reasons(view.database), refusals=refusals(view.database))


def reasons(database: Database) -> tuple[Reason, ...]:
    """Return why clips were refused, the most frequent reason first."""
    return tuple(
        Reason(
            verdict=verdict,
            reason=shown(reason),
            meaning=MEANINGS.get(f"{verdict} {reason}", "a reason of another version, not explained here"),
            corpus=corpus,
            split=split,
            clips=clips,
        )
        for verdict, reason, corpus, split, clips in database.ask("reasons")
    )


def refusals(database: Database) -> tuple[Refusal, ...]:
    """Return some refusals of every reason and split."""
    return tuple(
        Refusal(id=shown(name), corpus=corpus, split=split, verdict=verdict, reason=shown(reason), detail=shown(detail))
        for corpus, split, name, verdict, reason, detail in database.ask("refusals")
    )


def gates(found: Quarantine) -> tuple[Gate, ...]:
    """Judge nothing: the section of targets counts the refusals."""
    return ()
