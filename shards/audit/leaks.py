"""Leaks: SQL that finds what splits to train on share with evaluation sets, by a name that samples have in common."""

from __future__ import annotations

from shards.audit.upstream import ORIGINS, SAID, VOICES

SHORT = 20
"""Characters of a transcript below which it says what anyone may say."""

DOUBLES = """\
-- the samples whose audio another one has, too: few, and asked for often
create table doubles as
select pcm_md5, corpus, split, key, flac_bytes, flac_crc32, all_zero, tasks, answers
from samples where hash(pcm_md5) in (select hash(pcm_md5) from samples group by hash(pcm_md5) having count(*) > 1);"""

SPOKEN = f"""\
-- what is said, without case and punctuation, by its hash
create table places as select distinct corpus, split, hash(corpus, split) as place from samples;
create table said as
select hash(corpus, split) as place, hash({SAID}) as said, hash(pcm_md5) as audio, len(text) as length
from samples where len(text) >= {SHORT};"""

HITS = """\
with mine as not materialized (
  select corpus, split, key, unnest({names}) as name
  from {mine} as samples join sides using (corpus, split) where trained and {where}),
theirs as not materialized (
  select corpus, split, key, unnest({names}) as name
  from {theirs} as samples join sides using (corpus, split) where evaluated and {where}),
held as (
  select corpus, split, name, max(key) as key from (
    select corpus, split, name, key from theirs
    union all select corpus, split, name, '' from known where kind = '{kind}')
  group by corpus, split, name),
hits as materialized (
  select mine.corpus, mine.split, held.corpus as set_corpus, held.split as set_split,
         mine.key, held.key as set_key, name
  from mine join held using (name))
"""
"""The rows `hits`: a sample to train on, and what it shares with an evaluation set, for each thing that it shares."""

COUNTED = """\
,
tainted as (
  select hit.corpus, hit.split, hit.set_corpus, hit.set_split, count(distinct hash(key)) as tainted
  from theirs
  join (select distinct corpus, split, set_corpus, set_split, name from hits) as hit
    on theirs.corpus = hit.set_corpus and theirs.split = hit.set_split and theirs.name = hit.name
  group by all)
select corpus, split, set_corpus, set_split,
       count(distinct hash(key)) as samples, coalesce(any_value(tainted), 0) as set_samples,
       count(distinct name) as shared, min([key, set_key, name], 3) as examples
from hits left join tainted using (corpus, split, set_corpus, set_split)
group by corpus, split, set_corpus, set_split order by corpus, split, set_corpus, set_split"""

BOTH = """
    select said from said join places using (place) join sides using (corpus, split) where trained
    intersect
    select said from said join places using (place) join sides using (corpus, split) where evaluated"""
"""Hashes of what is said on both sides: mostly none, so that no text is looked at."""

KINDS = {
    "audio": {"names": "[pcm_md5]", "where": "not all_zero", "kind": ""},
    "id": {"names": ORIGINS, "where": "true", "kind": "origin"},
    "speaker": {"names": VOICES, "where": "true", "kind": "speaker"},
    "text": {"names": f"[{SAID}]", "where": f"len(text) >= {SHORT} and hash({SAID}) in ({BOTH})", "kind": ""},
}
"""What two samples can have in common: the very samples of the audio, a source, a speaker, a whole transcript."""


def rows_of(kind: str, sql: str, mine: str = "samples", theirs: str = "samples") -> str:
    """Return SQL over the hits of a kind, of what is trained on in one table and what is evaluated in another."""
    tables = {"mine": "doubles", "theirs": "doubles"} if kind == "audio" else {"mine": mine, "theirs": theirs}
    return (HITS.rstrip("\n") + sql).format(**KINDS[kind], **tables)


QUERIES = {f"leak_{kind}": rows_of(kind, COUNTED) for kind in KINDS}

PAIRS = """\
select '{kind}' as kind, key as trained, corpus || ':' || split as trained_in, set_key as evaluated,
       set_corpus || ':' || set_split as evaluated_in, name as shared
from hits order by all"""

LISTED = {kind: rows_of(kind, "\n" + PAIRS.replace("{kind}", kind)) for kind in KINDS}
"""Every hit by itself, for the list beside the page."""
