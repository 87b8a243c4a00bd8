"""Transcripts: how those of each corpus are written, and whether as much is said as is heard."""

from __future__ import annotations

from typing import Any

import msgspec

from shards.audit.digits import share, shown
from shards.audit.tables import marked

SLOW, FAST = 3.0, 30.0
"""Characters a second. English is read at 10 to 20; outside of this, text and audio hardly belong together."""
FEW = 0.01
"""Share of transcripts of an odd pace that is a warning."""
ENOUGH = 40
"""Of fewer transcripts it says nothing."""

SQL = f"""\
with asked as (
  select key, corpus, samples, unnest(tasks) as task, unnest(answer_traits) as answers
  from samples where list_contains(tasks, 'asr')),
said as (
  select key, corpus, answers[1].marks as marks, (answers[1].letters::bigint * 16000.0 / samples)::float as pace
  from asked where task = 'asr' and len(answers) > 0 and samples > 0)
select corpus, count(*) as transcripts,
       count(*) filter ({marked("capital")} and not {marked("small")}) as upper,
       count(*) filter ({marked("small")} and not {marked("capital")}) as lower,
       count(*) filter ({marked("titled")}) as sentence, count(*) filter ({marked("punctuated")}) as punctuated,
       quantile_cont(pace, 0.01) as p1, quantile_cont(pace, 0.5) as median, quantile_cont(pace, 0.99) as p99,
       count(*) filter (pace < {SLOW}) as slow, count(*) filter (pace > {FAST}) as fast,
       min(key) filter (pace < {SLOW}) as slow_key, min(key) filter (pace > {FAST}) as fast_key
from said group by corpus order by corpus"""


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How the transcripts of one corpus are written, and how fast they are spoken."""

    corpus: str
    transcripts: int
    upper: float
    """Shares of the transcripts: all capitals, no capital, one capital at the start; the rest is mixed."""
    lower: float
    sentence: float
    mixed: float
    punctuated: float
    slowest: float
    """Characters a second that 1 % of the transcripts, a half, and all but 1 % stay below."""
    median: float
    fastest: float
    slow: int
    """Transcripts below SLOW characters a second."""
    fast: int
    """Transcripts above FAST characters a second."""
    slow_key: str
    fast_key: str


def pace(corpus: str, count: int, upper: int, lower: int, sentence: int, punctuated: int, *rest: Any) -> Pace:
    """Return one row of the transcripts."""
    p1, median, p99, slow, fast, slow_key, fast_key = rest
    return Pace(
        corpus=corpus,
        transcripts=count,
        upper=share(upper, count),
        lower=share(lower, count),
        sentence=share(sentence, count),
        mixed=share(count - upper - lower - sentence, count),
        punctuated=share(punctuated, count),
        slowest=round(p1, 2),
        median=round(median, 2),
        fastest=round(p99, 2),
        slow=slow,
        fast=fast,
        slow_key=shown(slow_key or ""),
        fast_key=shown(fast_key or ""),
    )


def unlike(paces: list[Pace]) -> str:
    """Return a sentence on what is odd about the transcripts, empty if nothing is."""
    off = [one for one in paces if one.transcripts >= ENOUGH and one.slow + one.fast > FEW * one.transcripts]
    if off:
        one = max(off, key=lambda one: (one.slow + one.fast) / one.transcripts)
        said = f"{one.slow + one.fast:,} of {one.transcripts:,} transcripts of {one.corpus} have under {SLOW:g} or over"
        said = f"{said} {FAST:g} characters a second, for example {one.fast_key or one.slow_key}"
        return f"{said}: their text may be that of another span; listen to some."
    return styles(paces)


def styles(paces: list[Pace]) -> str:
    """Return how two corpora of enough transcripts write differently, empty if none does."""
    written: dict[str, Pace] = {}
    for one in paces:
        if one.transcripts >= ENOUGH:
            case = max(("upper", "lower", "sentence", "mixed"), key=lambda name: float(getattr(one, name)))
            written.setdefault(f"{case} case, {'with' if one.punctuated > 0.5 else 'without'} punctuation", one)
    if len(written) < 2:
        return ""
    (first, one), (second, other), *_ = written.items()
    said = f"Transcripts of {one.corpus} are in {first}, those of {other.corpus} in {second}"
    return f"{said}: the model will learn to tell the corpora apart; bring them to one form."
