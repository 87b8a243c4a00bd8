"""Pairs: duplicates.csv and leaks.csv, which list every pair that the page counts."""

from __future__ import annotations

import csv
import os
import uuid
from collections.abc import Mapping
from pathlib import Path

from shards.audit.cells import defused
from shards.audit.database import Database
from shards.audit.leaks import LISTED, PAIRS, SHORT
from shards.audit.sections.duplicates import ONE_WAY
from shards.audit.upstream import SAID

DUPLICATES = {
    "audio": """\
with same as (
  select pcm_md5, corpus, split, key, min((corpus, split, key)) over (partition by pcm_md5) as one
  from samples semi join (select pcm_md5 from samples group by pcm_md5 having count(*) > 1) using (pcm_md5))
select 'audio' as kind, one[3] as key, one[1] || ':' || one[2] as held_in, key as other_key,
       corpus || ':' || split as other_held_in, pcm_md5 as what
from same where (corpus, split, key) <> one order by all""",
    "text": f"""\
with said as (
  select corpus, split, key, text, pcm_md5, hash({SAID}) as said from samples where len(text) >= {SHORT}),
same as (
  select *, min((split, key, pcm_md5)) over (partition by corpus, said) as one
  from said semi join (
    select corpus, said from said group by corpus, said having min(pcm_md5) <> max(pcm_md5)) using (corpus, said))
select 'text' as kind, one[2] as key, corpus || ':' || one[1] as held_in, key as other_key,
       corpus || ':' || split as other_held_in, text as what
from same where pcm_md5 <> one[3] order by all""",
    "sound": f"""\
select 'sound' as kind, key, corpus || ':' || split as held_in, other_key,
       other_corpus || ':' || other_split as other_held_in,
       'words shared: ' || shared || ', bits apart: ' || bits || ' of 64' as what
from likely where {ONE_WAY} order by all""",
}
"""Every sample that repeats another, beside the first that is the same."""
LEAKS = {
    **LISTED,
    "words": PAIRS.format(kind="words").replace("from hits", "from runs"),
    "sound": """\
select 'sound' as kind, key as trained, corpus || ':' || split as trained_in, other_key as evaluated,
       other_corpus || ':' || other_split as evaluated_in,
       'words shared: ' || shared || ', bits apart: ' || bits || ' of 64' as what
from likely join sides as mine using (corpus, split)
join sides as theirs on theirs.corpus = other_corpus and theirs.split = other_split
where mine.trained and theirs.evaluated order by all""",
}
"""Every single leak."""

AT_ONCE = 10_000
"""Rows held at a time."""


def write_pairs(database: Database, folder: str | Path) -> list[Path]:
    """Write the lists into `folder` once both sections have been looked at, and return where they are."""
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    named = {"duplicates.csv": DUPLICATES, "leaks.csv": LEAKS}
    for name, queries in named.items():
        write_list(database, queries, place / name)
    return [place / name for name in named]


def write_list(database: Database, queries: Mapping[str, str], path: Path) -> None:
    """Write the rows of all `queries`, which have the same columns, into one file, whole or not at all."""
    attempt = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with attempt.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            for number, sql in enumerate(queries.values()):
                result = database.connection.execute(sql)
                if number == 0:
                    writer.writerow([column[0] for column in result.description or ()])
                while rows := result.fetchmany(AT_ONCE):
                    writer.writerows([defused(cell) for cell in row] for row in rows)
        os.replace(attempt, path)
    finally:
        attempt.unlink(missing_ok=True)
