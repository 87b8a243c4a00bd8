"""The index and the quarantine of a dataset as tables of DuckDB, and the queries of the audit."""

from __future__ import annotations

from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset
import pyarrow.fs

from manifests import Recipe, files
from manifests.tables import read_table
from shards.index import FORMAT, SCHEMA, Dataset

VIEWS = """\
-- run in the folder of the dataset
create view samples as select * from read_parquet([
{indexes}]);
create view refusals as
select *, split_part(filename, '/', -2) as corpus, regexp_extract(filename, '([^/]+)[.]parquet$', 1) as split
from read_parquet([
{quarantines}], filename = true);
-- what the audited stages do with each split
create table roles as select * from (values
{roles}
) as role (corpus, split, trained, evaluated);"""

QUERIES = {
    "totals": """\
select count(*) as samples, sum(samples) / 16000 / 3600 as hours, sum(len(tasks)) as examples
from samples""",
    "splits": """\
select corpus, split, count(*) as samples, sum(samples) / 16000 / 3600 as hours
from samples group by corpus, split order by corpus, split""",
    "held": """\
select corpus, split, task, count(*) as samples, sum(samples) / 16000 / 3600 as hours
from (select corpus, split, samples, unnest(list_distinct(tasks)) as task from samples)
group by corpus, split, task order by corpus, split, task""",
    "examples": """\
select corpus, split, task, count(*) as examples
from (select corpus, split, unnest(tasks) as task from samples)
group by corpus, split, task order by corpus, split, task""",
    "refused": """\
select corpus, split, verdict, count(*) as clips
from refusals group by corpus, split, verdict order by corpus, split, verdict""",
    "prompts": """\
with asked as (select unnest(tasks) as task, unnest(prompts) as prompt from samples),
counted as (select task, prompt, count(*) as times from asked group by task, prompt)
select task, sum(times) as examples, count(*) as prompts,
       first(prompt order by times desc, prompt) as frequent, max(times) as times
from counted group by task order by task""",
    "answers": r"""
with asked as (select unnest(tasks) as task, unnest(answers) as answers from samples),
said as (select task, unnest(answers) as answer from asked),
spaced as (select task, translate(answer, E'\t\n\f\r', '    ') as answer from said),
counted as (
  select task, case when answer = '' or contains(answer, '  ') or starts_with(answer, ' ') or ends_with(answer, ' ')
                    then len(list_filter(string_split(answer, ' '), lambda piece: piece <> ''))
                    else strlen(answer) - strlen(replace(answer, ' ', '')) + 1 end as words
  from spaced)
select task, count(*) as answers, count(*) filter (words = 0) as empty,
       min(words) as least, median(words) as median, max(words) as most
from counted group by task order by task""".strip(),
    "unanswered": """\
with asked as (select unnest(tasks) as task, unnest(answers) as answers from samples)
select task, count(*) as examples, count(*) filter (len(answers) = 0) as unanswered
from asked group by task order by task""",
    "frequent": """\
with asked as (select unnest(tasks) as task, unnest(answers) as answers from samples),
said as (select task, unnest(answers) as answer from asked),
counted as (select task, answer, count(*) as times from said group by task, answer),
placed as (
  select *, row_number() over (partition by task order by times desc, answer) as place,
         count(*) over (partition by task) as answers
  from counted)
select task, answer, times, answers from placed
where place = 1 or (place <= 12 and answers <= 12) order by task, place""",
    "copies": """\
with copies as (
  select pcm_md5, count(*) as samples, bool_or(trained) as trained, bool_or(evaluated) as evaluated
  from samples left join roles using (corpus, split) group by pcm_md5)
select count(*) filter (samples > 1) as groups, coalesce(sum(samples - 1), 0) as surplus,
       count(*) filter (trained and evaluated) as shared,
       min(pcm_md5) filter (samples > 1) as first, min(pcm_md5) filter (trained and evaluated) as first_shared
from copies""",
    "copy": "select corpus, split, key from samples where pcm_md5 = $pcm_md5 order by corpus, split, key limit 2",
    "reasons": """\
select verdict, reason, corpus, split, count(*) as clips
from refusals group by all order by clips desc, reason, verdict, corpus, split""",
    "refusals": """\
select corpus, split, id, verdict, reason, detail
from refusals order by corpus, split, id, verdict, reason limit 20""",
    "licences": """\
select corpus, license, count(*) as samples, sum(samples) / 16000 / 3600 as hours
from samples group by corpus, license order by corpus, license""",
}


class Database:
    """Answers the queries. Tables are read as they are asked for, only the columns needed."""

    def __init__(self, dataset: Dataset, recipe: Recipe, stages: tuple[str, ...]) -> None:
        """Open the tables of `dataset`; UserError if a file is missing or not one of ours."""
        self.views = views(dataset, roles(recipe, stages))
        self.connection = duckdb.connect()
        self.connection.register("samples", samples(dataset))
        self.connection.register("refusals", refusals(dataset))
        self.connection.execute(self.views[self.views.index("create table roles") :])

    def ask(self, name: str, **values: str) -> list[tuple[Any, ...]]:
        """Return the rows of one query of QUERIES."""
        rows: list[tuple[Any, ...]] = self.connection.execute(QUERIES[name], values or None).fetchall()
        return rows


def roles(recipe: Recipe, stages: tuple[str, ...]) -> dict[tuple[str, str], tuple[bool, bool]]:
    """Map each corpus and split of `stages` to whether it is trained on, and whether it is evaluated on."""
    found: dict[tuple[str, str], tuple[bool, bool]] = {}
    for stage in stages:
        for row in recipe.stage(stage):
            for split in row.splits:
                trained, evaluated = found.get((row.corpus, split), (False, False))
                found[row.corpus, split] = (trained or stage != "evaluate", evaluated or stage == "evaluate")
    return dict(sorted(found.items()))


def views(dataset: Dataset, roles: dict[tuple[str, str], tuple[bool, bool]]) -> str:
    """Return the SQL that makes the tables the queries ask, for anyone with duckdb."""
    sources = dataset.manifest.sources
    values = (f"  ({quoted(c)}, {quoted(s)}, {str(t).lower()}, {str(e).lower()})" for (c, s), (t, e) in roles.items())
    return VIEWS.format(
        indexes=",\n".join(f"  {quoted(source.index.path)}" for source in sources),
        quarantines=",\n".join(f"  {quoted(source.quarantine.path)}" for source in sources),
        roles=",\n".join(values),
    )


def quoted(text: str) -> str:
    """Return `text` as a string of SQL."""
    return "'" + text.replace("'", "''") + "'"


def samples(dataset: Dataset) -> Any:
    """Return the index of all splits: on this machine, a table that is read when it is asked; elsewhere, read now.

    Arrow scans a dataset in threads, and none of them may hold a file of Python's: see `open_parquet`.
    """
    places = [files.join(dataset.url, source.index.path) for source in dataset.manifest.sources]
    if not files.is_local(dataset.url):
        return pa.concat_tables([SCHEMA.empty_table(), *(read_table(place, FORMAT) for place in places)])
    for place in places:
        read_table(place, FORMAT, [])
    system = pyarrow.fs.LocalFileSystem()
    return pyarrow.dataset.dataset(list(map(files.local, places)), schema=SCHEMA, format="parquet", filesystem=system)


def refusals(dataset: Dataset) -> pa.Table:
    """Return the quarantine of all splits, with their names."""
    tables = []
    for source in dataset.manifest.sources:
        table = read_table(files.join(dataset.url, source.quarantine.path), FORMAT)
        for name, value in (("corpus", source.corpus), ("split", source.split)):
            table = table.append_column(name, pa.array([value] * table.num_rows, pa.string()))
        tables.append(table)
    return pa.concat_tables(tables)
