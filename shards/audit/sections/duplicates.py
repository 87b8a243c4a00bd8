"""Duplicates: what is there twice, by bytes, samples, sound, and text; and what is meant to be there many times."""

from __future__ import annotations

import msgspec

from shards.audit import clashes, heard
from shards.audit.digests import digest
from shards.audit.digits import shown
from shards.audit.origins import samples_of, trace
from shards.audit.upstream import ORIGINS, SAID, SCRIPTED
from shards.audit.verdicts import Gate, good, warn
from shards.audit.view import View, ordered

GATES = ("duplicates",)
OFTEN = 0.01
"""Share of transcripts that come again in a corpus in which nobody reads what another reads."""

DESCRIBED = ("audio_caption", "audio_story", "music_caption")
"""Tasks with many right answers: two descriptions of one sound do not contradict each other."""
QUERIES = {
    **clashes.QUERIES,
    "copies": """\
with copies as (
  select count(*) as samples, pcm_md5, min((flac_bytes, flac_crc32)) = max((flac_bytes, flac_crc32)) as whole
  from doubles group by pcm_md5 having count(*) > 1)
select count(*) as groups, coalesce(sum(samples - 1), 0) as surplus, count(*) filter (whole) as same_bytes,
       min(pcm_md5) as first
from copies""",
    "copied": """\
with places as (
  select pcm_md5, corpus, split, count(*) as samples, min(key) as key, max(key) as last
  from doubles group by pcm_md5, corpus, split)
select one.corpus, one.split, other.corpus as other_corpus, other.split as other_split, count(*) as recordings,
       min([one.key, other.last]) as example
from places as one join places as other using (pcm_md5)
where (one.corpus, one.split) < (other.corpus, other.split)
   or ((one.corpus, one.split) = (other.corpus, other.split) and one.samples > 1)
group by all order by all""",
    "repeated": """\
with texts as (
  select corpus, said, count(*) as samples, min(audio) <> max(audio) as differ,
         min(length) as length, min(length) = max(length) as alike
  from said join places using (place) group by corpus, said)
select corpus, sum(samples)::bigint as texts, count(*) as different,
       coalesce(sum(samples - 1) filter (differ), 0)::bigint as repeated, max(samples) filter (differ) as most,
       min([length::ubigint, said]) filter (differ and alike) as example
from texts group by corpus order by corpus""",
    "sources": f"""\
with corpora as (
  select corpus, 1::bigint << (row_number() over (order by corpus) - 1)::int as bit
  from (select distinct corpus from samples)),
used as (
  select bit_or(bit) as bits, count(*) as uses
  from (select corpus, hash(unnest({ORIGINS})) as source from samples) join corpora using (corpus) group by source),
sets as (select bits, count(*) as sources, sum(uses)::bigint as uses from used group by bits)
select string_agg(corpus, ', ' order by corpus) as corpora, sources, uses
from sets join corpora on bits & bit > 0 group by bits, sources, uses order by corpora""",
}


class Copies(msgspec.Struct, frozen=True, kw_only=True):
    """Recordings that are in two splits, or twice in one."""

    corpus: str
    split: str
    other_corpus: str
    other_split: str
    recordings: int
    keys: tuple[str, ...]
    """Of one of them, two samples."""


class Conflict(msgspec.Struct, frozen=True, kw_only=True):
    """Recordings of which two samples are to be answered differently, in one task."""

    task: str
    recordings: int
    matters: bool
    """Not where many answers are right, as in captions."""
    examples: tuple[tuple[tuple[str, str], ...], ...]
    """Pairs of (key, answers)."""


class Texts(msgspec.Struct, frozen=True, kw_only=True):
    """Transcripts of one corpus that several recordings have."""

    corpus: str
    texts: int
    different: int
    repeated: int
    """Samples that say what another one said before them, in other audio."""
    most: int
    """Samples that say the most frequent one."""
    keys: tuple[str, ...]
    text: str
    """An example."""


class Likely(msgspec.Struct, frozen=True, kw_only=True):
    """Pairs of clips that sound alike, in two splits or in one."""

    corpus: str
    split: str
    other_corpus: str
    other_split: str
    pairs: int
    examples: tuple[tuple[str, str, int, int], ...]
    """Two keys, words that they share, bits in which the closest two differ."""


class Reuse(msgspec.Struct, frozen=True, kw_only=True):
    """Sources that several samples are made of, by design."""

    corpora: str
    sources: int
    uses: int


class Duplicates(msgspec.Struct, frozen=True, kw_only=True):
    """What is there twice."""

    groups: int
    surplus: int
    """Samples that could go without any audio being lost."""
    same_bytes: int
    """Groups whose FLAC files are the same, byte for byte."""
    keys: tuple[str, ...]
    """Two samples of the first group."""
    copies: tuple[Copies, ...]
    conflicts: tuple[Conflict, ...]
    texts: tuple[Texts, ...]
    heard: heard.Heard
    likely: tuple[Likely, ...]
    likely_pairs: int
    reuse: tuple[Reuse, ...]
    tasks: dict[str, dict[str, int]]
    """Corpus to task to samples: one audio serves several."""


COPY = "select key from doubles where pcm_md5 = $md5 order by corpus, split, key limit 2"
TWINS = f"""\
select key, text from {{table}} as samples where corpus = $corpus and len(text) = $length and hash({SAID}) = $said
order by key limit 2"""
ALIKE = """\
select corpus, split, other_corpus, other_split, count(*), min((bits, -shared, key, other_key), 3)
from likely left join sides as mine using (corpus, split)
left join sides as theirs on theirs.corpus = other_corpus and theirs.split = other_split
where {one_way}
  and not coalesce(mine.trained and theirs.evaluated or theirs.trained and mine.evaluated, false)
group by corpus, split, other_corpus, other_split order by corpus, split, other_corpus, other_split"""
ONE_WAY = "(corpus, split, key) < (other_corpus, other_split, other_key)"


def look(view: View) -> Duplicates:
    """Return what is there twice."""
    digest(view)
    trace(view)
    [(groups, surplus, same_bytes, first)] = view.database.ask("copies")
    connection = view.database.connection
    keys = connection.execute(COPY, {"md5": first}).fetchall() if first else []
    heard_of = heard.hear(view)
    alike = connection.execute(ALIKE.format(one_way=ONE_WAY)).fetchall()
    tasks: dict[str, dict[str, int]] = {}
    for corpus, _, task, samples, _ in view.database.ask("held"):
        tasks.setdefault(corpus, {})[task] = tasks.get(corpus, {}).get(task, 0) + samples
    return Duplicates(
        groups=groups,
        surplus=int(surplus),
        same_bytes=same_bytes,
        keys=tuple(shown(row[0]) for row in keys),
        copies=copies(view) if groups else (),
        conflicts=conflicts(view) if groups else (),
        texts=tuple(texts(view)),
        heard=heard_of,
        likely=tuple(
            Likely(
                corpus=row[0],
                split=row[1],
                other_corpus=row[2],
                other_split=row[3],
                pairs=row[4],
                examples=tuple((shown(one), shown(other), -shared, bits) for bits, shared, one, other in row[5]),
            )
            for row in alike
        ),
        likely_pairs=sum(row[4] for row in alike),
        reuse=tuple(
            Reuse(corpora=shown(corpora), sources=sources, uses=uses)
            for corpora, sources, uses in view.database.ask("sources")
            if uses > sources
        ),
        tasks={corpus: {task: held[task] for task in ordered(held)} for corpus, held in sorted(tasks.items())},
    )


def copies(view: View) -> tuple[Copies, ...]:
    """Return where the copies are."""
    return tuple(
        Copies(
            corpus=corpus,
            split=split,
            other_corpus=other_corpus,
            other_split=other_split,
            recordings=recordings,
            keys=tuple(map(shown, example)),
        )
        for corpus, split, other_corpus, other_split, recordings, example in view.database.ask("copied")
    )


def conflicts(view: View) -> tuple[Conflict, ...]:
    """Return the tasks in which copies are to be answered differently."""
    return tuple(
        Conflict(
            task=shown(task),
            recordings=recordings,
            matters=task not in DESCRIBED,
            examples=tuple(tuple((shown(key), shown(answer)) for key, answer in pair) for pair in examples),
        )
        for task, recordings, examples in clashes.clashes(view)
    )


def texts(view: View) -> list[Texts]:
    """Return the corpora that say something twice."""
    made = []
    for corpus, told, different, repeated, most, example in view.database.ask("repeated"):
        twins = []
        if example:
            values = {"corpus": corpus, "length": example[0], "said": example[1]}
            of_corpus = [source for source in view.dataset.manifest.sources if source.corpus == corpus]
            sql = TWINS.format(table=samples_of(view, of_corpus))
            twins = view.database.connection.execute(sql, values).fetchall()
        made.append(
            Texts(
                corpus=corpus,
                texts=told,
                different=different,
                repeated=repeated,
                most=most or 0,
                keys=tuple(shown(key) for key, _ in twins),
                text=shown(twins[0][1]) if twins else "",
            )
        )
    return made


def gates(found: Duplicates) -> tuple[Gate, ...]:
    """Judge whether any audio is there twice."""
    return (twice(found),)


def twice(found: Duplicates) -> Gate:
    """No audio is there twice, sample for sample or by its sound."""
    against = [conflict for conflict in found.conflicts if conflict.matters]
    if against:
        most = max(against, key=lambda conflict: conflict.recordings)
        [one, other, *_] = most.examples[0]
        return warn(
            "duplicates",
            f"Recordings that are there twice with different answers: {sum(c.recordings for c in against):,}, for "
            f"example {one[0]} and {other[0]}: {most.task} wants {one[1]!r} and {other[1]!r}. Keep one of each.",
        )
    if found.groups:
        said = f"Samples that repeat the audio of another: {found.surplus:,}"
        return warn("duplicates", f"{said}, for example {' and '.join(found.keys)}.")
    if found.likely:
        pair = found.likely[0].examples[0]
        return warn(
            "duplicates",
            f"No two samples have the same audio, but pairs that sound alike: {found.likely_pairs:,}. Listen to some, "
            f"for example {pair[0]} and {pair[1]}.",
        )
    said_twice = [row for row in found.texts if row.corpus not in SCRIPTED and row.repeated > OFTEN * row.texts]
    if said_twice:
        row = max(said_twice, key=lambda row: row.repeated / row.texts)
        told = f"{row.repeated:,} of {row.texts:,} transcripts of {row.corpus} are those of another recording, too"
        return warn(
            "duplicates", f"{told}, for example {' and '.join(row.keys)}: the same read twice, or one text misplaced?"
        )
    return good("duplicates", "No two samples have the same audio, sample for sample, and none sound alike.")
