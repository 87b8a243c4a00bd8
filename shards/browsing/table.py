"""The index of a dataset in memory, laid out so that any filter over millions of samples is one quick scan by DuckDB.

What takes few values (corpus, split, language, gender, licence, action, tasks) is one number a sample: its kind. So a
scan counts by kind, and which kinds a filter lets through is settled beside it. All that can be searched lies in lower
case in one column, except prompts that are asked again and again: they are a number, too. Whatever else a page shows is
read from Parquet, for the few samples that it shows.
"""

from __future__ import annotations

import bisect
import contextlib
import itertools
import os
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import duckdb
import msgspec
import pyarrow as pa

from manifests import files
from manifests.tables import read_table
from shards.index import FOR_MACHINES, FORMAT, QUARANTINE, SCHEMA, Dataset

MEASURES = ("seconds", "silence", "clipped", "snr_db", "bandwidth_hz", "lufs")
"""What samples can be filtered and sorted by. A measure that cannot be told is null, which no filter lets through."""
FACETS = ("corpus", "split", "task", "language", "gender", "license", "action")
"""What makes a kind."""
REPEATED = 8
"""Prompts are a number where each occurs so many times on average; the rest is text like any other."""
PROBE = 4096
"""Samples in which letters are counted."""
BETWEEN, WITHIN = "chr(31)", "chr(30)"
"""Characters that part the values of a label, and the tasks of one."""

SAMPLES = f"""
create table samples (
  key varchar, kind uinteger, voice uinteger, asked uinteger, print ubigint,
  {", ".join(f"{name} float" for name in MEASURES)}, hay varchar)"""
EVERYTHING = f"create view everything as select rowid as place, kind, voice, print, {', '.join(MEASURES)} from samples"
SHARED = "language, gender, license, action, tasks"
PLAIN = ", ".join(f"translate({name}, {BETWEEN}, ' ')" for name in ("language", "gender", "license", "action"))
LABEL = f"concat_ws({BETWEEN}, {PLAIN}, array_to_string(tasks, {WITHIN}))"
ASKED = "lower(array_to_string(prompts, chr(10)))"
SINGLE = "len(answers) = 1 and len(answers[1]) = 1 and lower(answers[1][1]) = lower(text)"
HAY = f"""concat_ws(chr(10), lower(id), lower(speaker), lower(text),
  case when key <> replace(id, '/', '_') then key end,
  case when not ({SINGLE}) then lower(array_to_string(flatten(answers), chr(10))) end)"""
"""Keys are looked at by themselves, unless they cannot be told from the id."""


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """What many samples have in common."""

    corpus: str
    split: str
    language: str
    gender: str
    license: str
    action: str
    tasks: tuple[str, ...]


class Table:
    """The index and the quarantine of a dataset as tables of DuckDB: `everything`, `samples`, `asked`, `refusals`."""

    def __init__(self, dataset: Dataset, told: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Read the index; UserError if a file is missing or not one of ours. `told` hears of samples read, of all."""
        self.dataset = dataset
        self.lock = threading.Lock()
        self.connection = duckdb.connect(
            config={
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
                "temp_directory": "",
            }
        )
        self.kinds: list[Kind] = []
        self.speakers: list[str] = []
        self.firsts: list[int] = []
        """Of each split, the place of its first sample."""
        self.count = self.prompts = 0
        self.copied = tempfile.TemporaryDirectory(prefix="salmonn-serve-")
        self.paths: list[str] = []
        self.held: list[set[str]] = []
        """Of each split, the columns of its index."""
        self.connection.execute("set enable_progress_bar = false")
        # From the least and the greatest number that Parquet tells of, which leave NaN out, DuckDB 2.0 concludes that
        # there is none, and takes isnan() for false.
        self.connection.execute("set disabled_optimizers = 'statistics_propagation'")
        self.connection.execute(SAMPLES)
        self.connection.execute("create table asked (code uinteger, text varchar)")
        with self.closing_on_error():
            total = sum(source.packed for source in dataset.manifest.sources)
            for source in dataset.manifest.sources:
                self.firsts.append(self.count)
                self.paths.append(self.at_hand(source.index.path, source.corpus, source.split))
                self.load(source.corpus, source.split)
                told(self.count, total)
            self.connection.execute(EVERYTHING)
            self.connection.execute(
                "create table twins as select print from samples where print is not null group by 1 having count(*) > 1"
            )
            self.connection.execute("reset disabled_optimizers")
            self.load_refusals()
            self.common = self.letters()

    @contextlib.contextmanager
    def closing_on_error(self) -> Iterator[None]:
        """Leave no copies behind where the index cannot be read."""
        try:
            yield
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Forget everything."""
        self.connection.close()
        self.copied.cleanup()

    def at_hand(self, path: str, corpus: str, split: str) -> str:
        """Return a path on this machine of the index of a split; UserError if it is not one.

        Its own path might hold what DuckDB takes for a pattern.
        """
        self.dataset.table(corpus, split, [])
        place = files.join(self.dataset.url, path)
        copy = f"{self.copied.name}/{len(self.paths)}.parquet"
        if files.is_local(place):
            os.symlink(os.path.abspath(files.local(place)), copy)
        else:
            files.write_whole(copy, files.read_bytes(place))
        return copy

    def load(self, corpus: str, split: str) -> None:
        """Add one split, in the order of its index."""
        self.connection.execute(f"create or replace temp view part as {self.columns(self.paths[-1])}")
        ((rows, seen, prompts),) = self.ask(
            f"""select (select count(*) from part), count(*), count(distinct {ASKED})
            from (select prompts from part limit {PROBE})"""
        )
        if not rows:
            return
        kinds = self.numbered("kind", f"{LABEL} from (select distinct {SHARED} from part)")
        voices = self.numbered("voice", "speaker from part")
        numbered = prompts * REPEATED <= seen
        if numbered:
            asked = list(enumerate(self.numbered("asked", f"{ASKED} from part"), self.prompts))
            texts = pa.table({"code": [code for code, _ in asked], "text": [text for _, text in asked]})
            self.connection.register("texts", texts)
            self.connection.execute("insert into asked select * from texts")
        hay = HAY if numbered else f"{HAY} || chr(10) || {ASKED}"
        code = f"{self.prompts}::uinteger + enum_code({ASKED}::part_asked)" if numbered else "null"
        self.connection.execute(
            f"""insert into samples select key, {len(self.kinds)}::uinteger + enum_code({LABEL}::part_kind),
            {len(self.speakers)}::uinteger + enum_code(speaker::part_voice), {code},
            case when pcm_md5 <> '' then hash(pcm_md5) end,
            {", ".join(f"case when not isnan({name}) then {name} end" for name in MEASURES)}, {hay} from part"""
        )
        self.kinds += [kind_of(corpus, split, label) for label in kinds]
        self.speakers += voices
        self.prompts += len(asked) if numbered else 0
        self.count += rows

    def columns(self, path: str) -> str:
        """Return the SQL of an index with all that is needed of it; what an index leaves out is empty."""
        held = {row[0] for row in self.ask(f"describe select * from read_parquet({quoted(path)})")}
        wanted = ("key", "id", "language", "gender", "license", "action", "speaker", "text", "pcm_md5", *MEASURES)
        chosen = [
            name if name in held else f"{blank(SCHEMA.field(name).type)} as {name}"
            for name in (*wanted, "tasks", "prompts", "answers")
        ]
        self.held.append(held)
        return f"select {', '.join(chosen)} from read_parquet({quoted(path)})"

    def numbered(self, name: str, query: str) -> list[str]:
        """Make a type that numbers the values of a query of the split at hand; return them in that order."""
        self.connection.execute(f"drop type if exists part_{name}")
        self.connection.execute(f"create type part_{name} as enum (select distinct {query} order by 1)")
        ((values,),) = self.ask(f"select enum_range(null::part_{name})")
        return list(values)

    def load_refusals(self) -> None:
        """Add the quarantine of all splits."""
        columns = ", ".join(f"{field.name} {'bigint' if field.name == 'bytes' else 'varchar'}" for field in QUARANTINE)
        self.connection.execute(f"create table refusals (corpus varchar, split varchar, {columns}, hay varchar)")
        for source in self.dataset.manifest.sources:
            part = read_table(files.join(self.dataset.url, source.quarantine.path), FORMAT)
            self.connection.register("refused", part)
            self.connection.execute(
                f"""insert into refusals select $corpus, $split, {", ".join(QUARANTINE.names)},
                lower(concat_ws(chr(10), id, reason, detail, source)) from refused""",
                {"corpus": source.corpus, "split": source.split},
            )

    def letters(self) -> Counter[str]:
        """Count letters in some of the texts: a search is quick that begins with a rare one."""
        step = max(1, self.count // PROBE)
        rows = self.ask(f"select left(hay, 1000) from samples where rowid % {step} = 0")
        return Counter(itertools.chain.from_iterable(row[0] for row in rows))

    def ask(self, query: str, values: Any = None) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        rows: list[tuple[Any, ...]] = self.connection.execute(query, values).fetchall()
        return rows

    def place_of(self, key: str) -> int | None:
        """Return the place of a sample; None if there is none."""
        found = self.ask("select rowid from samples where key = ?", [key])
        return int(found[0][0]) if found else None

    def keys_at(self, places: Sequence[int]) -> dict[int, str]:
        """Return the keys at some places; those beyond the ends are left out."""
        return dict(self.ask(f"select rowid, key from samples where rowid in ({numbers(places)})"))

    def rows(self, places: Sequence[int], columns: Sequence[str]) -> dict[int, dict[str, Any]]:
        """Return some columns of the index, those that there are, of the samples at some places."""
        parts: dict[int, list[int]] = {}
        for place in places:
            part = bisect.bisect_right(self.firsts, place) - 1
            parts.setdefault(part, []).append(place - self.firsts[part])
        found = {}
        for part, inside in parts.items():
            there = [name for name in columns if name in self.held[part]]
            query = f"""select {", ".join(["file_row_number", *there])} from read_parquet({quoted(self.paths[part])},
                file_row_number = true) where file_row_number in ({numbers(inside)})"""
            for number, *values in self.ask(query):
                found[self.firsts[part] + number] = dict(zip(there, values, strict=True))
        return found

    def whole_row(self, place: int) -> dict[str, Any]:
        """Return the row of the index at a place; what the index leaves out is empty."""
        held = self.rows([place], [name for name in SCHEMA.names if name not in FOR_MACHINES])[place]
        return {field.name: held.get(field.name, empty(field.type)) for field in SCHEMA}


def kind_of(corpus: str, split: str, label: str) -> Kind:
    """Return the kind that a label of the index stands for."""
    language, gender, license, action, tasks = label.split(chr(31), 4)
    held = tuple(sorted(set(tasks.split(chr(30))) - {""}))
    return Kind(
        corpus=corpus, split=split, language=language, gender=gender, license=license, action=action, tasks=held
    )


def blank(kind: pa.DataType) -> str:
    """Return, in SQL, what stands for a column that an index leaves out."""
    if pa.types.is_list(kind):
        return "[]::varchar[][]" if pa.types.is_list(kind.value_type) else "[]::varchar[]"
    return "''" if pa.types.is_string(kind) else "'nan'::float"


def empty(kind: pa.DataType) -> Any:
    """Return what stands for a value that an index leaves out."""
    if pa.types.is_list(kind):
        return []
    if pa.types.is_string(kind):
        return ""
    return None if pa.types.is_floating(kind) else 0


def quoted(text: str) -> str:
    """Return `text` as a string of SQL."""
    return "'" + text.replace("'", "''") + "'"


def numbers(values: Sequence[int]) -> str:
    """Return whole numbers as a list of SQL, which must not be empty."""
    return ", ".join(str(int(value)) for value in values) or "-1"
