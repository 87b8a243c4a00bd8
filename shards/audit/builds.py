"""Builds: the queries that hold one build against another, sample by sample and distribution by distribution."""

from __future__ import annotations

EACH = 4
"""Examples of each kind of change."""
MEASURES = {
    "seconds": ("seconds", 0.0, 2.0, 16),
    "letters of the text": ("strlen(text)", 0.0, 20.0, 20),
    "instructions": ("len(tasks)", 0.0, 1.0, 10),
    "source_rate": ("source_rate", 0.0, 4000.0, 25),
    "peak": ("peak", 0.0, 0.05, 20),
    "clipped": ("clipped", 0.0, 0.0005, 20),
    "rms_dbfs": ("rms_dbfs", -80.0, 4.0, 20),
    "lufs": ("lufs", -70.0, 3.5, 20),
    "silence": ("silence", 0.0, 0.05, 20),
    "leading_silence": ("leading_silence", 0.0, 0.25, 20),
    "trailing_silence": ("trailing_silence", 0.0, 0.25, 20),
    "snr_db": ("snr_db", -20.0, 6.0, 20),
    "bandwidth_hz": ("bandwidth_hz", 0.0, 500.0, 16),
}
"""What is compared: expression, lower edge, width and number of bins. What lies outside falls into the end bins."""

NAMES = ("language", "gender", "speaker", "license", "action")
"""Texts of which the shares are compared."""


def binned(name: str, table: str, side: str) -> str:
    """Return the SQL that counts one measure of one build in bins; bin -1 holds what is not measured."""
    what, low, width, bins = MEASURES[name]
    place = f"least(greatest(floor(({what} - ({low:g})) / {width:g}), 0), {bins - 1})"
    return (
        f"select corpus, '{name}' as measure, {side} as here,\n"
        f"       case when isnan({what}::double) then -1 else {place} end::int::varchar as bin, count(*) as samples\n"
        f"from {table} group by all"
    )


def named(name: str, table: str, side: str) -> str:
    """Return the SQL that counts the texts of one column of one build, in 64 classes by hash where they are many."""
    what = f"(hash({name}) % 64)::varchar" if name == "speaker" else name
    return (
        f"select corpus, '{name}' as measure, {side} as here, {what} as bin, count(*) as samples\n"
        f"from {table} group by all"
    )


SIDES = (("samples", "true"), ("other_samples", "false"))
COMPARED = """\
with here as (
  select key, corpus, split, samples, pcm_md5, hash(tasks, answers) as answers, hash(tasks, prompts) as prompts,
         hash(id, language, speaker, gender, text, license) as facts, shard, flac_offset from samples),
there as (
  select key, corpus, split, samples, pcm_md5, hash(tasks, answers) as answers, hash(tasks, prompts) as prompts,
         hash(id, language, speaker, gender, text, license) as facts, shard, flac_offset from other_samples),
compared as (
  select coalesce(here.key, there.key) as key, coalesce(here.corpus, there.corpus) as corpus,
         coalesce(here.split, there.split) as split, here.samples as now, there.samples as before,
         here.pcm_md5 <> there.pcm_md5 as audio, here.answers <> there.answers as answers,
         here.prompts <> there.prompts as prompts, here.facts <> there.facts as facts,
         here.corpus <> there.corpus or here.split <> there.split or here.shard <> there.shard
         or here.flac_offset <> there.flac_offset as moved
  from here full join there using (key))"""
QUERIES = {
    "difference": f"""\
{COMPARED}
select corpus, split, count(now) as here, count(before) as there,
       count(*) filter (before is null) as added, count(*) filter (now is null) as removed,
       count(*) filter (audio) as audio, count(*) filter (answers) as answers,
       count(*) filter (prompts) as prompts, count(*) filter (facts) as facts, count(*) filter (moved) as moved,
       coalesce(sum(now), 0) / 16000 / 3600 as hours, coalesce(sum(before), 0) / 16000 / 3600 as hours_there
from compared group by corpus, split order by corpus, split""",
    "difference_tasks": """\
select task, count(*) filter (here) as examples, count(*) filter (not here) as there
from (select unnest(tasks) as task, true as here from samples
      union all select unnest(tasks), false from other_samples)
group by task order by task""",
    "difference_keys": f"""\
{COMPARED},
told as (
  select key, corpus, split,
         case when before is null then 'added' when now is null then 'removed' when audio then 'audio'
              when answers then 'answers' when prompts then 'prompts' when facts then 'facts' end as change
  from compared),
chosen as (
  select * from told where change is not null
  qualify row_number() over (partition by change order by corpus, split, key) <= {EACH})
select chosen.*, array_to_string(flatten(there.answers), ' | ') as before,
       array_to_string(flatten(here.answers), ' | ') as now
from chosen left join samples as here using (key) left join other_samples as there using (key)
order by change, corpus, split, key""",
    "difference_bins": "\nunion all ".join(
        [binned(name, *side) for name in MEASURES for side in SIDES]
        + [named(name, *side) for name in NAMES for side in SIDES]
    ),
}
