"""The index and the quarantine of a dataset as tables of DuckDB, which the sections of the audit ask."""

from __future__ import annotations

from collections.abc import Mapping
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
) as role (corpus, split, trained, evaluated) where corpus is not null;"""


class Database:
    """Answers the queries. Tables are read as they are asked for, only the columns needed."""

    def __init__(self, dataset: Dataset, recipe: Recipe, stages: tuple[str, ...], queries: Mapping[str, str]) -> None:
        """Open the tables of `dataset` for `queries`; UserError if a file is missing or not one of ours."""
        self.queries = queries
        self.views = views(dataset, roles(recipe, stages))
        self.connection = duckdb.connect()
        self.connection.register("samples", samples(dataset))
        self.connection.register("refusals", refusals(dataset))
        self.connection.execute(self.views[self.views.index("create table roles") :])

    def attach(self, other: Dataset) -> None:
        """Add the index of another build as the table `other_samples`; its views tell the folder as OTHER."""
        self.connection.register("other_samples", samples(other))
        paths = ",\n".join(f"  {quoted(f'OTHER/{source.index.path}')}" for source in other.manifest.sources)
        self.views += (
            "\n-- OTHER: the folder of the dataset that is compared with"
            f"\ncreate view other_samples as select * from read_parquet([\n{paths}]);"
        )

    def ask(self, name: str, **values: str) -> list[tuple[Any, ...]]:
        """Return the rows of one of the queries, by its name."""
        rows: list[tuple[Any, ...]] = self.connection.execute(self.queries[name], values or None).fetchall()
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
        roles=",\n".join(values) or "  (null::varchar, null::varchar, false, false)",
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
