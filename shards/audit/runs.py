"""Runs: thirteen words in a row that a transcript to train on shares with one of an evaluation set.

A word is hashed by its first and its last eight bytes and its length, a run by its words; at 64 bits, no two of the
millions of an index are likely to fall together. Whoever shares a whole transcript is counted as that.
"""

from __future__ import annotations

import functools
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from shards.audit.heard import chosen
from shards.audit.view import View
from shards.index import Source

try:
    from shards._alike import runs as find  # type: ignore[import-not-found]
    from shards._alike import spoken
except ImportError:  # pragma: no cover
    find = spoken = None

LENGTH = 13
"""Words of a run, as GPT-3's authors took them (arXiv 2005.14165, appendix C)."""
MOST = 1 << 20
"""Runs that are followed up at most."""
BITS = 24
"""Of a hash, which say at once that most runs are in no evaluation set."""

ODD, OTHER = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93)
HEADS = np.array([(1 << 8 * size) - 1 for size in range(9)], np.uint64)
TAILS = HEADS[8] ^ HEADS[::-1]
"""The first bytes of eight, none to all, and the last."""
Hashes = NDArray[np.uint64]
Numbers = NDArray[np.int64]
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


class Search:
    """Looks for runs of evaluation sets, which must be held first, in what is trained on."""

    def __init__(self) -> None:
        """Begin with nothing held."""
        self.held: list[tuple[Source, int, Runs]] = []
        self.mine: list[tuple[Source, Numbers, list[str], Hashes]] = []
        self.count = 0
        self.known = self.whole = np.zeros(0, np.uint64)
        self.maybe: Marks | None = None

    def hold(self, source: Source, first: int, said: pa.StringArray) -> None:
        """Hold texts of an evaluation set, those of a split from row `first` on."""
        self.held.append((source, first, runs_of(said)))

    def look(self, source: Source, first: int, said: pa.StringArray) -> None:
        """Look at texts that are trained on. Who shares a whole transcript is counted as that."""
        if self.maybe is None:
            nothing = np.zeros(0, np.uint64)
            self.known = np.unique(np.concatenate([nothing, *(runs.hashes for *_, runs in self.held)]))
            self.whole = np.unique(np.concatenate([nothing, *(runs.whole for *_, runs in self.held)]))
            self.maybe = Marks(self.known)
        if not len(self.known):
            return
        runs = runs_of(said, self.maybe)
        some = np.flatnonzero(among(self.known, runs.hashes) & ~among(self.whole, runs.whole[runs.rows]))
        some = some[: MOST - self.count]
        if len(some):
            content = memoryview(said.buffers()[2])
            spans = zip(runs.begins[some].tolist(), runs.ends[some].tolist(), strict=True)
            told = [bytes(content[begin:end]).decode() for begin, end in spans]
            self.mine.append((source, runs.rows[some] + first, told, runs.hashes[some]))
            self.count += len(some)

    def share(self, view: View) -> None:
        """Make the table `runs`: a sample to train on, one of an evaluation set, and a run that both have.

        `tainted` is how many samples of the set share one with that split.
        """
        found = np.unique(np.concatenate([np.zeros(0, np.uint64), *(hashes for *_, hashes in self.mine)]))
        theirs = []
        for source, first, runs in self.held:
            some = np.flatnonzero(among(found, runs.hashes))
            if len(some):
                theirs.append((source, runs.rows[some] + first, [""] * len(some), runs.hashes[some]))
        connection = view.database.connection
        connection.register("runs_trained", named(view, self.mine))
        connection.register("runs_held", named(view, theirs))
        connection.execute(TABLE)
        connection.unregister("runs_trained")
        connection.unregister("runs_held")


class Marks:
    """Says of most numbers at once that they are not among those known."""

    def __init__(self, known: Hashes) -> None:
        """Mark how numbers begin."""
        marks = np.zeros(2**BITS, bool)
        marks[known >> np.uint64(64 - BITS)] = True
        self.bits = np.packbits(marks, bitorder="little")

    def of(self, hashes: Hashes) -> Numbers:
        """Return the places of those that may be."""
        marks = hashes >> np.uint64(64 - BITS)
        places: Numbers = np.flatnonzero(
            self.bits[marks >> np.uint64(3)] >> (marks & np.uint64(7)).astype(np.uint8) & 1
        )
        return places


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
NAMED = pa.schema([*((name, pa.string()) for name in ("corpus", "split", "key", "said")), ("hash", pa.uint64())])


def named(view: View, found: list[tuple[Source, Numbers, list[str], Hashes]]) -> pa.Table:
    """Return runs with the samples that they are of."""
    tables = [NAMED.empty_table()]
    for name in dict.fromkeys((source.corpus, source.split) for source, *_ in found):
        mine = [entry for entry in found if (entry[0].corpus, entry[0].split) == name]
        places, at = np.unique(np.concatenate([numbers for _, numbers, *_ in mine]), return_inverse=True)
        keys = pa.concat_tables(chosen(view, mine[0][0], places, ["key"]))["key"].take(pa.array(at))
        said, hashes = [one for entry in mine for one in entry[2]], np.concatenate([entry[3] for entry in mine])
        names = [pa.repeat(one, len(said)) for one in name]
        tables.append(pa.table([*names, keys, pa.array(said), pa.array(hashes)], schema=NAMED))
    return pa.concat_tables(tables)


def say(texts: pa.StringArray) -> tuple[pa.StringArray, pa.BooleanArray, NDArray[np.int32]]:
    """Return what transcripts say if they are ASCII, else themselves; whether they are; and their characters."""
    if spoken is None:
        plain = pc.equal(pc.binary_length(texts), pc.utf8_length(texts))
        said = pc.if_else(plain, pc.utf8_trim(words_of(texts), " "), texts)
        return said, plain, pc.utf8_length(texts).to_numpy()
    content, offsets, letters, ascii_only = spoken(*spans_of(texts))
    said = pa.StringArray.from_buffers(len(texts), pa.py_buffer(offsets), pa.py_buffer(content))
    plain = np.frombuffer(ascii_only, bool)
    return said, pa.array(plain), np.frombuffer(letters, np.int32)


def spans_of(texts: pa.StringArray) -> tuple[Any, NDArray[np.int32]]:
    """Return the bytes of texts, and where in them each begins and the last ends."""
    _, offsets, content = texts.buffers()
    return content or b"", np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1]


def words_of(texts: pa.StringArray, plain: pa.BooleanArray | None = None) -> pa.StringArray:
    """Return transcripts without case and punctuation; those that are `plain` are without."""
    if plain is not None and pc.all(plain).as_py():
        return texts
    said = pc.utf8_lower(texts)
    marked = pc.match_substring_regex(texts, MARKED)
    if not pc.any(marked).as_py():
        return said
    return pc.if_else(marked, pc.replace_substring_regex(said, SILENT, ""), said)


def runs_of(said: pa.StringArray, maybe: Marks | None = None) -> Runs:
    """Return the runs of texts whose words stand with blanks between, only those that may be known if `maybe`."""
    if find is None:
        runs = runs_in_numpy(said)
        some = np.arange(len(runs.hashes)) if maybe is None else maybe.of(runs.hashes)
        return Runs(runs.hashes[some], runs.rows[some], runs.begins[some], runs.ends[some], runs.whole)
    found, whole = find(*spans_of(said), b"" if maybe is None else maybe.bits)
    hashes, rows, begins, ends = np.frombuffer(found, np.int64).reshape(-1, 4).T
    return Runs(hashes.view(np.uint64), rows, begins, ends, np.frombuffer(whole, np.uint64))


def runs_in_numpy(said: pa.StringArray) -> Runs:
    """Return the runs of texts: what shards/_alike.c does, ten times as fast."""
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
