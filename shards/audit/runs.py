"""Runs: thirteen words in a row that a transcript to train on shares with one of an evaluation set.

A word is hashed by its first and its last eight bytes and its length, a run by its words; at 64 bits, no two of the
millions of an index are likely to fall together. Whoever shares a whole transcript is counted as that.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from shards.audit.heard import rows
from shards.audit.likeness import THREADS
from shards.audit.view import View

LENGTH = 13
"""Words of a run, as GPT-3's authors took them (arXiv 2005.14165, appendix C)."""
LEAST = 3 * LENGTH - 1
"""Characters of the shortest text that is looked at: thirteen words of two letters."""
ROWS = 1 << 11
"""Texts hashed at a time."""
MOST = 1 << 20
"""Runs that are followed up at most."""
BITS = 24
"""Of a hash, which say at once that most runs are in no evaluation set."""

ODD, OTHER = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93)
HEADS = np.array([(1 << 8 * size) - 1 for size in range(9)], np.uint64)
TAILS = HEADS[8] ^ HEADS[::-1]
"""The first bytes of eight, none to all, and the last."""
Hashes = NDArray[np.uint64]
MARKED = "[^A-Za-z0-9 ]"
SILENT = r"<[a-z]+> ?|[^\pL\pN ]+"
"""As in SAID of shards/audit/upstream.py."""


class Runs(msgspec.Struct, frozen=True):
    """The runs of some texts, one after the other."""

    hashes: Hashes
    rows: NDArray[np.int64]
    """Of which text each is."""
    begins: NDArray[np.int64]
    """Where in the bytes of all texts each begins,"""
    ends: NDArray[np.int64]
    """and where it ends."""
    whole: Hashes
    """Of each text, the hash of all its words."""


def share(view: View) -> None:
    """Make the table `runs`: a sample to train on, one of an evaluation set, and a run that both have.

    `tainted` is how many samples of the set share one with that split.
    """
    held = list(hashed(view, "evaluated"))
    known = np.unique(np.concatenate([np.zeros(0, np.uint64), *(runs.hashes for _, runs in held)]))
    whole = np.unique(np.concatenate([np.zeros(0, np.uint64), *(runs.whole for _, runs in held)]))
    maybe = np.zeros(2**BITS, bool)
    maybe[known >> np.uint64(64 - BITS)] = True
    mine, count = [NAMED.empty_table()], 0
    for block, runs in hashed(view, "trained") if len(known) else ():
        some = np.flatnonzero(maybe[runs.hashes >> np.uint64(64 - BITS)])
        some = some[among(known, runs.hashes[some]) & ~among(whole, runs.whole[runs.rows[some]])][: MOST - count]
        count += len(some)
        mine.append(named(block, runs, some))
    trained = pa.concat_tables(mine)
    found = np.unique(trained["hash"].to_numpy())
    theirs = [named(block, runs, np.flatnonzero(among(found, runs.hashes))) for block, runs in held]
    connection = view.database.connection
    connection.register("runs_trained", trained)
    connection.register("runs_held", pa.concat_tables([NAMED.empty_table(), *theirs]))
    connection.execute(TABLE)
    connection.unregister("runs_trained")
    connection.unregister("runs_held")


def among(known: Hashes, hashes: Hashes) -> NDArray[np.bool_]:
    """Return which of `hashes` are among those `known`, which ascend."""
    if not len(known):
        return np.zeros(len(hashes), bool)
    same: NDArray[np.bool_] = known[np.minimum(np.searchsorted(known, hashes), len(known) - 1)] == hashes
    return same


TABLE = """\
create or replace temp table runs as
with held as (select hash, corpus, split, min(key) as key from runs_held group by hash, corpus, split),
hits as (
  select mine.corpus, mine.split, mine.key, held.corpus as set_corpus, held.split as set_split, held.key as set_key,
         mine.said as name, hash
  from runs_trained as mine join held using (hash)),
tainted as (
  select hit.corpus, hit.split, set_corpus, set_split, count(distinct key) as tainted
  from (select distinct corpus, split, set_corpus, set_split, hash from hits) as hit
  join runs_held on runs_held.corpus = set_corpus and runs_held.split = set_split and runs_held.hash = hit.hash
  group by hit.corpus, hit.split, set_corpus, set_split)
select hits.* exclude (hash), tainted from hits join tainted using (corpus, split, set_corpus, set_split)"""
SAID_BY = pa.schema([(name, pa.string()) for name in ("corpus", "split", "key", "said")])
NAMED = SAID_BY.append(pa.field("hash", pa.uint64()))


def hashed(view: View, role: str) -> Iterator[tuple[pa.RecordBatch, Runs]]:
    """Yield texts and their runs, block by block."""
    with ThreadPoolExecutor(THREADS) as pool:
        for table in texts(view, role):
            blocks = table.to_batches(ROWS)
            yield from zip(blocks, pool.map(lambda block: runs_of(block["said"]), blocks), strict=True)


def texts(view: View, role: str) -> Iterator[pa.Table]:
    """Yield corpus, split, key and the words of the transcripts of a side, long enough to hold a run."""
    sides = {(corpus, split): part for corpus, split, *part in view.database.ask("sides")}
    for source in view.dataset.manifest.sources:
        if sides.get((source.corpus, source.split), (False, False))[role == "evaluated"]:
            for table in rows(view, source, ["corpus", "split", "key", "text"]):
                table = table.filter(pc.greater_equal(pc.utf8_length(table["text"]), LEAST))
                said = pa.chunked_array([words_of(chunk) for chunk in table["text"].chunks], pa.string())
                table = table.drop_columns("text").append_column("said", said)
                yield table.cast(SAID_BY).combine_chunks()


def words_of(text: pa.StringArray) -> pa.StringArray:
    """Return transcripts without case and punctuation."""
    said = pc.utf8_lower(text)
    marked = pc.match_substring_regex(text, MARKED)
    if not pc.any(marked).as_py():
        return said
    return pc.if_else(marked, pc.replace_substring_regex(said, SILENT, ""), said)


def named(block: pa.RecordBatch, runs: Runs, some: NDArray[np.int64]) -> pa.Table:
    """Return some runs with the samples that they are of."""
    content = memoryview(block["said"].buffers()[2] or b"")
    said = [
        bytes(content[first:last]).decode()
        for first, last in zip(runs.begins[some].tolist(), runs.ends[some].tolist(), strict=True)
    ]
    taken = block.take(pa.array(runs.rows[some]))
    columns = [taken["corpus"], taken["split"], taken["key"], pa.array(said, pa.string()), runs.hashes[some]]
    return pa.table([*columns[:4], pa.array(columns[4])], schema=NAMED)


def runs_of(said: pa.StringArray) -> Runs:
    """Return the runs of texts whose words stand with blanks between."""
    _, offsets, content = said.buffers()
    cut = np.frombuffer(offsets, np.int32)[said.offset : said.offset + len(said) + 1].astype(np.int64)
    low = int(cut[0])
    letters = np.frombuffer(content or b"", np.uint8)[low : int(cut[-1])]
    cut -= low
    # A word begins at a letter behind a blank or at the start of a text, and ends likewise.
    inner = letters != ord(" ")
    first, last = inner.copy(), inner.copy()
    first[1:] &= ~inner[:-1]
    last[:-1] &= ~inner[1:]
    starts, stops = cut[:-1][cut[:-1] < len(letters)], cut[1:][cut[1:] > 0] - 1
    first[starts], last[stops] = inner[starts], inner[stops]
    begins, ends = np.flatnonzero(first), np.flatnonzero(last) + 1
    # Eight bytes from the start of each word and eight to its end, and its length: all of it, up to 16 letters.
    padded = np.zeros(len(letters) + 16, np.uint8)
    padded[8:-8] = letters
    eights = np.ndarray(len(letters) + 9, "<u8", padded, 0, (1,))
    sizes = ends - begins
    words = eights[begins + 8] & HEADS[np.minimum(sizes, 8)]
    words *= ODD
    words ^= words >> np.uint64(32)
    words += eights[ends] & TAILS[np.minimum(sizes, 8)]
    words += sizes.astype(np.uint64) << np.uint64(40)
    words *= OTHER
    words ^= words >> np.uint64(29)
    bounds = np.searchsorted(begins, cut)
    rows = np.repeat(np.arange(len(said)), np.diff(bounds))
    hashes = np.zeros(max(0, len(words) - LENGTH + 1), np.uint64)
    for place in range(LENGTH):
        hashes *= ODD
        hashes += words[place : place + len(hashes)]
    hashes ^= hashes >> np.uint64(31)
    hashes *= OTHER
    kept = np.flatnonzero(rows[: len(hashes)] == rows[LENGTH - 1 :][: len(hashes)])
    running = np.zeros(len(words) + 1, np.uint64)
    np.cumsum(words * powers_of(int(ODD), len(words))[np.arange(len(words)) - bounds[:-1][rows]], out=running[1:])
    whole = running[bounds[1:]] - running[bounds[:-1]]
    return Runs(hashes[kept], rows[kept], begins[kept] + low, ends[kept + LENGTH - 1] + low, whole)


@functools.cache
def many_powers(number: int, most: int) -> Hashes:
    """Return the powers of a number, from the 0th on, modulo 2^64."""
    factors = np.full(most + 1, number, np.uint64)
    factors[0] = 1
    made: Hashes = np.cumprod(factors, dtype=np.uint64)
    return made


def powers_of(number: int, least: int) -> Hashes:
    """Return more than `least` powers of a number."""
    return many_powers(number, max(1 << 18, 1 << least.bit_length()))
