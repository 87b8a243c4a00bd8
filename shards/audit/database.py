"""The index and the quarantine of a dataset as tables of DuckDB, which the sections of the audit ask."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Mapping
from typing import Any

import duckdb
import pyarrow as pa

from manifests import Recipe, files
from manifests.tables import read_table
from shards.audit.tables import named_in
from shards.index import FORMAT, QUARANTINE, SCHEMA, Dataset

MEMORY = "600MB"
"""What DuckDB holds at most. Beyond it the disk is used: an audit is to run beside a training."""
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
) as role (corpus, split, trained, evaluated) where corpus is not null;"""


class Database:
    """Answers the queries. Tables are read as they are asked for, only the columns needed."""

    def __init__(self, dataset: Dataset, recipe: Recipe, stages: tuple[str, ...], queries: Mapping[str, str]) -> None:
        """Open the tables of `dataset` for `queries`; UserError if a file is missing or not one of ours."""
        self.queries = queries
        self.answers: dict[tuple[str, ...], list[tuple[Any, ...]]] = {}
        """Of the queries that were asked: several sections ask the same."""
        self.views = views(dataset, roles(recipe, stages))
        # What does not fit is written here, until this Database is gone.
        self.spill = tempfile.TemporaryDirectory(prefix="salmonn-audit-", ignore_cleanup_errors=True)
        self.connection = duckdb.connect(config={"memory_limit": MEMORY, "temp_directory": self.spill.name})
        self.owner, self.threads = threading.get_ident(), threading.local()
        self.add("samples", dataset)
        self.add_refusals(dataset)
        self.connection.execute(self.views[self.views.index("create table roles") :])

    def attach(self, other: Dataset) -> None:
        """Add the index of another build as the table `other_samples`; its views tell the folder as OTHER."""
        self.add("other_samples", other)
        paths = ",\n".join(f"  {quoted(f'OTHER/{source.index.path}')}" for source in other.manifest.sources)
        self.views += (
            "\n-- OTHER: the folder of the dataset that is compared with"
            f"\ncreate view other_samples as select * from read_parquet([\n{paths}]);"
        )

    def add(self, name: str, dataset: Dataset) -> None:
        """Add the index of all splits as a table: on this machine, one that is read when it is asked; else, read now.

        DuckDB reads its own files a third faster than Arrow's tables, lists of texts above all.
        """
        places = [files.join(dataset.url, source.index.path) for source in dataset.manifest.sources]
        if not places or not files.is_local(dataset.url):
            tables = (read_table(place, FORMAT) for place in places)
            self.connection.register(name, pa.concat_tables([SCHEMA.empty_table(), *tables]))
            return
        for place in places:
            read_table(place, FORMAT, [])
        paths = ", ".join(quoted(unglobbed(files.local(place))) for place in places)
        self.connection.execute(f"create view {name} as select * from read_parquet([{paths}])")

    def add_refusals(self, dataset: Dataset) -> None:
        """Add the quarantine of all splits as a table, with their names."""
        sources = dataset.manifest.sources
        places = [files.join(dataset.url, source.quarantine.path) for source in sources]
        if not places or not files.is_local(dataset.url):
            tables = [
                named(read_table(place, FORMAT), source.corpus, source.split)
                for place, source in zip(places, sources, strict=True)
            ]
            self.connection.register("refusals", pa.concat_tables([named(QUARANTINE.empty_table(), "", ""), *tables]))
            return
        selects = []
        for place, source in zip(places, sources, strict=True):
            read_table(place, FORMAT, [])
            selects.append(
                f"select *, {quoted(source.corpus)} as corpus, {quoted(source.split)} as split "
                f"from read_parquet({quoted(unglobbed(files.local(place)))})"
            )
        self.connection.execute(f"create view refusals as {' union all '.join(selects)}")

    def define(self, sql: str) -> None:
        """Make further tables, unless they are there, and tell how."""
        if sql in self.views:
            return
        self.views += f"\n{sql}"
        self.connection.execute(sql)

    def mine(self) -> duckdb.DuckDBPyConnection:
        """Return the connection of this thread: one answers a query at a time."""
        if threading.get_ident() == self.owner:
            return self.connection
        if not hasattr(self.threads, "cursor"):
            self.threads.cursor = self.connection.cursor()
        made: duckdb.DuckDBPyConnection = self.threads.cursor
        return made

    def prepare(self, sql: str) -> None:
        """Make the tables that a query asks, of those that need not always be there."""
        for made in named_in(sql):
            self.define(made)

    def ask(self, name: str, **values: str) -> list[tuple[Any, ...]]:
        """Return the rows of one of the queries, by its name."""
        asked = (name, *(part for pair in sorted(values.items()) for part in pair))
        if asked not in self.answers:
            self.prepare(self.queries[name])
            self.answers[asked] = self.mine().execute(self.queries[name], values or None).fetchall()
        return self.answers[asked]


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
        roles=",\n".join(values) or "  (null::varchar, null::varchar, false, false)",
    )


def quoted(text: str) -> str:
    """Return `text` as a string of SQL."""
    return "'" + text.replace("'", "''") + "'"


def unglobbed(path: str) -> str:
    """Return a path as a pattern that nothing else fits."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in path)


def named(table: pa.Table, corpus: str, split: str) -> pa.Table:
    """Return the quarantine of a split with its names."""
    for name, value in (("corpus", corpus), ("split", split)):
        table = table.append_column(name, pa.array([value] * table.num_rows, pa.string()))
    return table
