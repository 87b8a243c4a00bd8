"""Heard: the table `likely`, pairs of clips that sound alike though nothing else says that they are one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from manifests import files
from manifests.tables import open_parquet
from shards.audit.likeness import Pairs, Prints, across, confirm, distinct, ranges, within
from shards.audit.upstream import ORIGINS, composed
from shards.audit.view import View
from shards.fingerprint import Words
from shards.index import Source

HEARD = 24
"""Words of a clip that are looked at: those of the 30 s that are dealt."""
BUDGET, FEWEST = 4_000_000, 2
"""Words that are held against each other. Where there are more, it is the first of each clip, so many at least."""
HELD = 40_000_000
"""Words kept in memory, in 320 MB, for they are asked for several times; more are read anew each time."""
ROWS = 1 << 13
"""Rows of the index that are read at a time."""

QUERIES = {
    "prints": """\
select corpus, split, octet_length(fingerprint) // 8 as words, count(*) as clips
from samples group by corpus, split, words order by corpus, split, words""",
    "sides": "select corpus, split, trained, evaluated, asked from sides order by corpus, split",
}

LIKELY = f"""\
create temp table likely as
with facts as (select *, {ORIGINS} as origins from likely_facts),
pairs as (select one, other, shared, bits from likely_pairs union all select other, one, shared, bits from likely_pairs)
select one.corpus, one.split, one.key, other.corpus as other_corpus, other.split as other_split,
       other.key as other_key, shared, bits, pairs.one < pairs.other as first
from pairs join facts as one on one.clip = pairs.one join facts as other on other.clip = pairs.other
where one.pcm_md5 <> other.pcm_md5 and not list_has_any(one.origins, other.origins)"""
"""Each pair both ways. What has the same samples or the same source is told elsewhere."""

FACTS = ["key", "id", "corpus", "split", "pcm_md5"]


SAID = ("heard",)
"""What was said is kept beside the answers to queries."""


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """What was held against each other by its fingerprint."""

    clips: int
    """That have one, and are not made of other clips, as pairs and mixtures are."""
    words: int
    """Looked at of each, at most, when all are held against all; against evaluation sets it is HEARD."""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One split whose clips are heard, and the number of its first clip among all of them."""

    source: Source
    first: int
    trained: bool
    evaluated: bool


def hear(view: View) -> Heard:
    """Make the table `likely`, unless it is there, and say what went into it."""
    answers = view.database.answers
    if SAID in answers:
        [(clips, most)] = answers[SAID]
        return Heard(clips=clips, words=most)
    parts = tuple(parts_of(view))
    connection = view.database.connection
    if most_words(view, parts) <= HELD:
        memory = Memory(view, HEARD)
        sizes = memory.sizes(parts)
    else:
        sizes = sizes_of(view, parts)
        memory = Memory(view, next((words for words in (HEARD, most_of(sizes)) if total(sizes, words) <= HELD), 0))
    clips = sum(clips for size, clips in sizes if size)
    most = most_of(sizes)
    pairs = candidates(memory, parts, most, total(sizes, most))
    alike = confirm(pairs, lambda: memory.prints(parts, HEARD))
    memory.blocks.clear()
    columns = {"one": alike.pairs[:, 0], "other": alike.pairs[:, 1], "shared": alike.shared, "bits": alike.bits}
    connection.register("likely_pairs", pa.table(columns))
    connection.register("likely_facts", facts(view, parts, np.unique(alike.pairs)))
    connection.execute(LIKELY)
    connection.unregister("likely_pairs")
    connection.unregister("likely_facts")
    answers[SAID] = [(clips, most)]
    return Heard(clips=clips, words=most)


def most_of(sizes: list[tuple[int, int]]) -> int:
    """Return how many words of each clip can be held against each other."""
    most = HEARD
    while most > FEWEST and total(sizes, most) > BUDGET:
        most -= 1
    return most


def most_words(view: View, parts: Iterable[Part]) -> int:
    """Return how many words fingerprints have at most, by what the files of the index say of themselves."""
    found = 0
    for part in parts:
        with open_parquet(files.join(view.dataset.url, part.source.index.path)) as parquet:
            place = [parquet.schema.column(n).path for n in range(len(parquet.schema))].index("fingerprint")
            groups = range(parquet.num_row_groups)
            found += sum(parquet.metadata.row_group(group).column(place).total_uncompressed_size for group in groups)
    return found // 8


def sizes_of(view: View, parts: Iterable[Part]) -> list[tuple[int, int]]:
    """Return how many words fingerprints have, and how many have so many, by the query `prints`."""
    names = {(part.source.corpus, part.source.split) for part in parts}
    return [(size, clips) for corpus, split, size, clips in view.database.ask("prints") if (corpus, split) in names]


def total(sizes: list[tuple[int, int]], most: int) -> int:
    """Return how many words there are if no clip has more than `most`."""
    return sum(min(size, most) * clips for size, clips in sizes)


def parts_of(view: View) -> Iterator[Part]:
    """Yield the splits that are heard, in the order of dataset.json."""
    sides = {(corpus, split): role for corpus, split, *role in view.database.ask("sides")}
    first = 0
    for source in view.dataset.manifest.sources:
        trained, evaluated, _ = sides.get((source.corpus, source.split), (False, False, False))
        if not composed(source.corpus, source.split):
            yield Part(source=source, first=first, trained=trained, evaluated=evaluated)
            first += source.packed


class Block(msgspec.Struct, frozen=True):
    """The words of clips that follow each other, the first of which has the number `first`."""

    first: int
    words: Words
    sizes: NDArray[np.int32] | NDArray[np.uint8]
    """How many are of each clip."""

    def cut(self, most: int) -> Block:
        """Return the first `most` words of every clip."""
        if self.sizes.max(initial=0) <= most:
            return self
        begins, sizes = np.cumsum(self.sizes, dtype=np.int64) - self.sizes, np.minimum(self.sizes, most)
        return Block(self.first, self.words[ranges(begins, sizes)], sizes)

    def prints(self) -> Prints:
        """Return the words, with the number of its clip beside each."""
        clips = np.arange(self.first, self.first + len(self.sizes), dtype=np.uint32)
        return Prints(self.words, np.repeat(clips, self.sizes))

    def copy(self) -> Block:
        """Return what holds no more memory than it needs, of at most 255 words a clip."""
        return Block(self.first, self.words.copy(), self.sizes.astype(np.uint8))


class Memory:
    """The words of clips: read from the index, of each split once if no more than `kept` words of a clip are asked."""

    def __init__(self, view: View, kept: int) -> None:
        self.view, self.kept = view, kept
        self.blocks: dict[tuple[str, str], list[Block]] = {}

    def sizes(self, parts: Iterable[Part]) -> list[tuple[int, int]]:
        """Read all `parts`, and return of how many words how many clips there are, or more words than are kept."""
        counts = np.zeros(self.kept + 1, np.int64)
        for part in parts:
            self.blocks[part.source.corpus, part.source.split] = held = []
            for block in read_blocks(self.view, part):
                held.append(block.cut(self.kept).copy())
                counts += np.bincount(held[-1].sizes, minlength=len(counts))
        return list(enumerate(counts.tolist()))

    def prints(self, parts: Iterable[Part], most: int) -> Iterator[Prints]:
        """Yield the first `most` words of every clip of `parts`."""
        for part in parts:
            name = part.source.corpus, part.source.split
            if most <= self.kept and name in self.blocks:
                yield from (block.cut(most).prints() for block in self.blocks[name])
                continue
            blocks = []
            for block in read_blocks(self.view, part):
                if self.kept and name not in self.blocks:
                    blocks.append(block.cut(self.kept).copy())
                yield block.cut(most).prints()
            if self.kept:
                self.blocks.setdefault(name, blocks)


def candidates(memory: Memory, parts: tuple[Part, ...], most: int, count: int) -> Pairs:
    """Return the pairs of clips, the smaller number first, that have a word in common."""
    held = [*memory.prints([part for part in parts if part.evaluated], HEARD)]
    sets = Prints(
        np.concatenate([np.zeros(0, np.uint64), *(block.words for block in held)]),
        np.concatenate([np.zeros(0, np.uint32), *(block.clips for block in held)]),
    )
    del held
    leaks = across(memory.prints([part for part in parts if part.trained], HEARD), sets)
    if count <= BUDGET:
        few = [*memory.prints(parts, most)]
        copies = within(lambda: few, count)
    else:
        for _ in memory.prints(parts if memory.kept else (), most):
            pass  # what was not read so far: within() has threads, which would all do so
        copies = within(lambda: memory.prints(parts, most), count)
    return distinct([np.sort(leaks[leaks[:, 0] != leaks[:, 1]], axis=1), copies])


def read_blocks(view: View, part: Part) -> Iterator[Block]:
    """Yield the words of a split as the index has them."""
    for first, table in read(view, part, ["fingerprint"]):
        column = table["fingerprint"].combine_chunks()
        column = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
        _, offsets, content = column.buffers()
        ends = np.frombuffer(offsets, np.int32)[column.offset : column.offset + len(column) + 1] // 8
        yield Block(first, np.frombuffer(content or b"", "<u8")[ends[0] : ends[-1]], np.diff(ends))


def facts(view: View, parts: Iterable[Part], clips: NDArray[np.int64]) -> pa.Table:
    """Return what the index says of some clips, by their numbers, which ascend."""
    kinds = [("clip", pa.int64()), *((name, pa.string()) for name in FACTS)]
    tables = [pa.schema(kinds).empty_table()]
    for part in parts:
        if np.searchsorted(clips, part.first) == np.searchsorted(clips, part.first + part.source.packed):
            continue
        mine = clips[slice(*np.searchsorted(clips, [part.first, part.first + part.source.packed]))]
        some = pa.concat_tables(chosen(view, part.source, mine - part.first, FACTS)).select(FACTS)
        tables.append(some.add_column(0, "clip", pa.array(mine)).cast(pa.schema(kinds)))
    return pa.concat_tables(tables)


def read(view: View, part: Part, columns: list[str]) -> Iterator[tuple[int, pa.Table]]:
    """Yield columns of the index of a split, some row groups at a time, with the number of the first clip."""
    first = part.first
    for table in rows(view, part.source, columns):
        yield first, table
        first += table.num_rows


def rows(view: View, source: Source, columns: list[str]) -> Iterator[pa.Table]:
    """Yield columns of the index of a split, ROWS rows at a time."""
    place = files.join(view.dataset.url, source.index.path)
    with open_parquet(place) as parquet:
        for batch in parquet.iter_batches(ROWS, columns=columns, use_threads=False):
            yield pa.table(batch)


def chosen(view: View, source: Source, numbers: NDArray[np.int64], columns: list[str]) -> Iterator[pa.Table]:
    """Yield columns of some rows of the index of a split, by their numbers, which ascend; a row group at a time."""
    if not len(numbers):
        return
    with open_parquet(files.join(view.dataset.url, source.index.path)) as parquet:
        first = 0
        for group in range(parquet.num_row_groups):
            after = first + parquet.metadata.row_group(group).num_rows
            low, high = np.searchsorted(numbers, [first, after])
            if low < high:
                yield parquet.read_row_group(group, columns, use_threads=False).take(
                    pa.array(numbers[low:high] - first)
                )
            first = after
