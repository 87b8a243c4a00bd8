"""Digests: one pass over the digests of the audio and the transcripts of all samples, and the tables it makes.

`doubles`, `places` and `said` are what their SQL says (shards/audit/leaks.py), at a third of what it takes DuckDB.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from shards.audit.heard import chosen, rows
from shards.audit.leaks import DOUBLES, SHORT, SPOKEN
from shards.audit.likeness import sort
from shards.audit.runs import Hashes, Marks, Search, among, say, words_of
from shards.audit.upstream import SAID
from shards.audit.view import View
from shards.index import SCHEMA

DIGEST = 32
"""Digits of an MD5."""
FACTORS = np.array([0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB], np.uint64)
PARTS = 8
"""Of all digests, which are sorted one after the other: what is beside them in memory is as much less."""

COPIED = ["pcm_md5", "key", "flac_bytes", "flac_crc32", "all_zero", "tasks"]
CODES = "answer_traits.list.element.list.element.code"
DOUBLED = pa.schema(
    [
        *(SCHEMA.field(name) for name in COPIED),
        ("answer_traits", pa.list_(pa.list_(pa.struct([("code", pa.uint64())])))),
        ("corpus", pa.string()),
        ("split", pa.string()),
        ("source", pa.int64()),
        ("row", pa.int64()),
    ]
)
"""Of the table that is made: in place of answers, their codes and where they are."""
TEXTS = pa.schema(
    [
        ("place", pa.uint64()),
        ("text", pa.string()),
        ("plain", pa.bool_()),  # whether the text is what is said already
        ("length", pa.int64()),
        ("pcm_md5", pa.string()),
    ]
)
TABLE = f"""\
create table said as
select place, hash(case when plain then text else {SAID} end) as said, hash(pcm_md5) as audio, length
from said_texts where length >= {SHORT}"""


def digest(view: View) -> None:
    """Make the tables `doubles`, `places`, `said` and `runs`, unless they are there."""
    database = view.database
    if DOUBLES in database.views:
        return
    database.views += f"\n{DOUBLES}\n{SPOKEN}"
    sides = {(corpus, split): part for corpus, split, *part in database.ask("sides")}
    sources = view.dataset.manifest.sources
    trained, evaluated = (
        [source for source in sources if sides.get((source.corpus, source.split), (False, False))[side]]
        for side in (0, 1)
    )
    connection, search, audio = database.connection, Search(), {}
    connection.execute("create table places (corpus varchar, split varchar, place ubigint)")
    for source in sources:
        # As the columns of the index have it: a split without a sample is none.
        if source.packed:
            connection.execute(
                "insert into places values ($c, $s, hash($c, $s))", {"c": source.corpus, "s": source.split}
            )
    places = {(c, s): place for c, s, place in connection.execute("select * from places").fetchall()}

    def texts() -> Iterator[pa.RecordBatch]:
        # First what is evaluated: what is trained on is held against it as it comes.
        for source in sorted(sources, key=lambda source: source not in evaluated):
            parts, first = [np.zeros(0, np.uint64)], 0
            for table in rows(view, source, ["text", "pcm_md5"]):
                [batch] = table.combine_chunks().to_batches() or [None]
                parts.append(numbers_of(batch["pcm_md5"]))
                text, plain, lengths = say(batch["text"])
                if lengths.max(initial=0) >= SHORT:
                    place = pa.repeat(pa.scalar(places[source.corpus, source.split], pa.uint64()), len(text))
                    columns = [place, text, plain, pa.array(lengths.astype(np.int64)), batch["pcm_md5"]]
                    yield pa.record_batch(columns, schema=TEXTS)
                if source in evaluated:
                    search.hold(source, first, words_of(text, plain))
                elif source in trained:
                    search.look(source, first, words_of(text, plain))
                first += len(text)
            audio[source.corpus, source.split] = np.concatenate(parts)

    connection.register("said_texts", pa.RecordBatchReader.from_batches(TEXTS, texts()))
    connection.execute(TABLE)
    connection.unregister("said_texts")
    for source in trained:
        if source in evaluated:
            for first, table in numbered(rows(view, source, ["text"])):
                text, plain, _ = say(table["text"].combine_chunks())
                search.look(source, first, words_of(text, plain))
    search.share(view)
    copies = dict(zip(audio, doubled(list(audio.values())), strict=True))

    def doubles() -> Iterator[pa.RecordBatch]:
        for number, source in enumerate(sources):
            rows, first = copies[source.corpus, source.split], 0
            for table in chosen(view, source, rows, [*COPIED, CODES]):
                here = slice(first, first := first + len(table))
                more = [
                    *(pa.repeat(one, len(table)) for one in (source.corpus, source.split, number)),
                    pa.array(rows[here]),
                ]
                columns = [*(table[name] for name in (*COPIED, "answer_traits")), *more]
                yield from pa.table(columns, DOUBLED.names).cast(DOUBLED).to_batches()

    connection.register("doubles_rows", pa.RecordBatchReader.from_batches(DOUBLED, doubles()))
    connection.execute("create table doubles as select * from doubles_rows")
    connection.unregister("doubles_rows")


def numbers_of(digests: pa.StringArray) -> Hashes:
    """Return a number for each digest, of 64 bits: two digests are most unlikely to have one."""
    _, offsets, content = digests.buffers()
    ends = np.frombuffer(offsets, np.int32)[digests.offset : digests.offset + len(digests) + 1]
    whole = np.diff(ends) == DIGEST
    if not whole.all():
        made = np.array([hash(text) & (1 << 64) - 1 for text in digests.to_pylist()], np.uint64)
        if whole.any():
            made[whole] = numbers_of(pc.filter(digests, pa.array(whole)))
        return made
    words = np.frombuffer(content or b"", "<u8", len(digests) * DIGEST // 8, int(ends[0])).reshape(-1, DIGEST // 8)
    numbers: Hashes = (words * FACTORS).sum(axis=1, dtype=np.uint64)
    numbers ^= numbers >> np.uint64(32)
    numbers *= FACTORS[0]
    return numbers ^ numbers >> np.uint64(29)


def doubled(parts: list[Hashes]) -> list[NDArray[np.int64]]:
    """Return the places in each of `parts` of numbers that are there twice, in it or in others."""
    shift, twice = np.uint64(64 - PARTS.bit_length() + 1), []
    for number in range(PARTS):
        some = np.concatenate([np.zeros(0, np.uint64), *(part[part >> shift == number] for part in parts)])
        sort(some, 0)
        twice.append(np.unique(some[1:][some[1:] == some[:-1]]))
    known = np.concatenate(twice)
    maybe = Marks(known)
    places = [maybe.of(part) for part in parts]
    return [some[among(known, part[some])] for part, some in zip(parts, places, strict=True)]


def numbered(tables: Iterable[pa.Table]) -> Iterator[tuple[int, pa.Table]]:
    """Yield tables, each with the number of its first row."""
    first = 0
    for table in tables:
        yield first, table
        first += table.num_rows
