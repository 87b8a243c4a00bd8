"""Likeness: which of millions of clips sound alike, by the words of their fingerprints. Candidates, to be listened to.

Evaluation sets are small: their words lie in tables by CHUNKS of their bits, and the words of what is trained stream
past. All clips among themselves are many: their words are sorted, from each of TURNS bits on, and each is held against
the NEAR words behind it. So two words are compared if they share a chunk, or begin alike; a word that very many clips
have (silence, a jingle, a bed of music) is compared with some of them only. What two clips share is then counted over
all their words. shards/_alike.c has the loops; numpy does the same where it was not compiled.

Of random words, six in a clip and nine million in all, 99 of 100 copies are found if a bit of twenty is flipped; if a
bit of ten, 88 of those in evaluation sets and 82 of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import msgspec
import numpy as np
from numpy.typing import NDArray

from shards.fingerprint import LIMIT, Words

Numbers = NDArray[np.uint32]
Pairs = NDArray[np.int64]
"""Numbers of clips [pairs, 2]."""

CHUNKS = 4
"""Parts of a word that evaluation sets are looked up by, spread over its 64 bits."""
SPARSE = 3
"""Bits that a chunk has more than it needs for each word to have its own: most of what streams past meets none."""
BUCKET = 64
"""Words of evaluation sets that are compared at most, of those with one chunk."""
TURNS = (0, 32)
"""Bits from which on words are sorted."""
NEAR = 16
"""Words behind it in that order that each is compared with."""
CLOSE = 4
"""Bits in which two words of one sound differ so seldom by chance that one such pair is enough for a short clip."""
SHARE = 4
"""One in so many words of the shorter clip must be found in the longer: two clips may begin with one jingle."""

AT_ONCE = 1 << 16
"""Words compared at a time: they stay in the cache."""
SORTED = 1 << 21
"""Words sorted at a time, in 80 MB for each of the threads."""
MOST = 1 << 21
"""Pairs that are followed up at most."""
THREADS = 2


class Prints(msgspec.Struct, frozen=True):
    """The words of some clips, and of which clip each is."""

    words: Words
    clips: Numbers


Counts = NDArray[np.int32] | NDArray[np.int64]
Read = Callable[[], Iterable[Prints]]
"""Yields the words of all clips in blocks, clip after clip; it may be asked several times."""


class Alike(msgspec.Struct, frozen=True):
    """Pairs of clips that may be one sound, closest first."""

    pairs: Pairs
    shared: NDArray[np.int64]
    """Words of the shorter clip of each pair that the longer has."""
    bits: NDArray[np.int64]
    """Bits in which the closest two of their words differ."""


def across(blocks: Iterable[Prints], held: Prints) -> Pairs:
    """Return pairs (clip of a block, clip of `held`) that have a word in common, but for LIMIT bits."""
    if not len(held.words):
        return np.zeros((0, 2), np.int64)
    width = int(np.clip(np.ceil(np.log2(len(held.words))) + SPARSE, 12, 24))
    tables = [Table(held, int(shift), width) for shift in np.linspace(0, 64 - width, CHUNKS).round()]
    with ThreadPoolExecutor(THREADS) as pool:
        # A block at a time: a pool takes all it is given, and would have all clips in memory.
        return gathered(found for block in blocks for found in pool.map(Table.find, tables, [block] * CHUNKS))


class Table:
    """The words of some clips by one chunk of their bits."""

    def __init__(self, held: Prints, shift: int, width: int) -> None:
        self.shift, self.width = shift, width
        self.parts = fill(held.words, held.clips, shift, width)

    def find(self, block: Prints) -> Pairs:
        """Return the pairs (clip of the block, clip of this table)."""
        return told(look(block.words, block.clips, *self.parts, self.shift, self.width, BUCKET, LIMIT))


def fill_in_numpy(words: Words, clips: Numbers, shift: int, width: int) -> tuple[bytes, bytes, bytes, bytes]:
    """Return words and clips by a chunk of the words, where each chunk begins, and a bit for each that has any."""
    chunks = chunked(words, shift, width)
    order = np.argsort(chunks, kind="stable")
    sizes = np.bincount(chunks, minlength=2**width)
    ends = np.cumsum(np.append(0, sizes)).astype(np.int32)
    parts = words[order], clips[order], ends, np.packbits(sizes > 0, bitorder="little")
    return parts[0].tobytes(), parts[1].tobytes(), parts[2].tobytes(), parts[3].tobytes()


def look_in_numpy(
    words: Words,
    clips: Numbers,
    held: bytes,
    held_clips: bytes,
    ends: bytes,
    taken: bytes,
    shift: int,
    width: int,
    most: int,
    limit: int,
) -> bytes:
    """Return the pairs (clip, clip of a table) whose words have one chunk: what shards/_alike.c does, much faster.

    The words of the table begin, by the number of their chunk, at `ends`, and `taken` has a bit a chunk: whether there
    are any.
    """
    parts, of, of_clips = [b""], np.frombuffer(held, np.uint64), np.frombuffer(held_clips, np.uint32)
    starts, any_there = np.frombuffer(ends, np.int32), np.frombuffer(taken, np.uint8)
    for first in range(0, len(words), AT_ONCE):
        these = words[first : first + AT_ONCE]
        chunks = chunked(these, shift, width)
        known = np.flatnonzero(any_there[chunks >> 3] >> (chunks & 7).astype(np.uint8) & 1)
        begins = starts[chunks[known]]
        sizes = np.minimum(starts[chunks[known] + 1] - begins, most)
        mine, theirs = np.repeat(known, sizes), ranges(begins, sizes)
        near = np.bitwise_count(these[mine] ^ of[theirs]) <= limit
        parts.append(paired(clips[first : first + AT_ONCE][mine[near]], of_clips[theirs[near]]))
    return b"".join(parts)


def near_in_numpy(words: Words, clips: Numbers, reach: int, limit: int) -> bytes:
    """Return the pairs of clips with words at most `reach` places apart and alike: what shards/_alike.c does."""
    parts = [b""]
    for first in range(0, len(words), AT_ONCE):
        block = words[first : first + AT_ONCE + reach]
        for lag in range(1, min(reach + 1, len(block))):
            most = min(AT_ONCE, len(block) - lag)
            found = first + np.flatnonzero(np.bitwise_count(block[lag : lag + most] ^ block[:most]) <= limit)
            found = found[clips[found] != clips[found + lag]]
            parts.append(paired(clips[found], clips[found + lag]))
    return b"".join(parts)


def sort_in_numpy(numbers: NDArray[np.uint64], low: int) -> None:
    """Sort in place, by the bits from `low` on; below them the numbers ascend. What shards/_alike.c does."""
    assert 0 <= low < 64
    numbers.sort()


__all__ = ["Alike", "Pairs", "Prints", "across", "confirm", "distinct", "ranges", "sort", "within"]
try:
    from shards._alike import fill, look, near, sort  # type: ignore[import-not-found]
except ImportError:
    fill, look, near, sort = fill_in_numpy, look_in_numpy, near_in_numpy, sort_in_numpy


def within(read: Read, count: int) -> Pairs:
    """Return pairs of clips, the smaller number first, that have a word in common, of `count` words in all."""
    power = max(0, int(np.ceil(np.log2(max(1, count) / SORTED))))

    def find(job: tuple[int, int]) -> Pairs:
        turn, part = job
        return neighbours(Prints(*map(np.concatenate, zip(*turned(read, turn, part, power), strict=True))))

    jobs = [(turn, part) for turn in TURNS for part in range(2**power)]
    with ThreadPoolExecutor(THREADS) as pool:
        return gathered(pool.map(find, jobs))


def turned(read: Read, turn: int, part: int, power: int) -> Iterator[tuple[Words, Numbers]]:
    """Yield the words that, from bit `turn` on, begin with the number `part` of `power` bits."""
    yield np.zeros(0, np.uint64), np.zeros(0, np.uint32)
    for block in read():
        words = (block.words << np.uint64(turn)) | (block.words >> np.uint64(64 - turn)) if turn else block.words
        if power:
            mine = np.flatnonzero(words >> np.uint64(64 - power) == part)
            yield words[mine], block.clips[mine]
        else:
            yield words, block.clips


def neighbours(prints: Prints) -> Pairs:
    """Return the pairs of clips that have words near to each other in order, and alike."""
    # Sorted by all but their last bits, which make room for the place: what is moved is a number each.
    room = np.uint64(max(1, int(np.ceil(np.log2(len(prints.words) + 1)))))
    order = (prints.words >> room << room) | np.arange(len(prints.words), dtype=np.uint64)
    sort(order, int(room))
    order &= (np.uint64(1) << room) - np.uint64(1)
    words, clips = (np.take(of, order.astype(np.int64), mode="clip") for of in (prints.words, prints.clips))
    return np.sort(told(near(words, clips, NEAR, LIMIT)), axis=1)


def gathered(found: Iterable[Pairs]) -> Pairs:
    """Return all pairs once, MOST at most, in order."""
    pairs, held = np.zeros((0, 2), np.int64), []
    for part in found:
        held.append(part)
        if sum(map(len, held)) > MOST:
            pairs, held = distinct([pairs, *held])[:MOST], []
    return distinct([pairs, *held])[:MOST]


def distinct(parts: list[Pairs]) -> Pairs:
    """Return all pairs once, in order."""
    pairs = np.concatenate(parts)
    each = np.unique(pairs[:, 0] << 32 | pairs[:, 1])
    return np.stack([each >> 32, each & (2**32 - 1)], axis=1)


def confirm(pairs: Pairs, read: Read) -> Alike:
    """Return those of `pairs` that share enough over all their words."""
    wanted = np.unique(pairs)
    most = int(wanted[-1]) + 1 if len(wanted) else 0
    keep = np.zeros(most, bool)
    keep[wanted] = True
    words, clips = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
    for block in read() if most else ():
        mine = block.clips < most
        mine[mine] = keep[block.clips[mine]]
        words.append(block.words[mine])
        clips.append(block.clips[mine].astype(np.int64))
    all_words, sizes = np.concatenate(words), np.bincount(np.concatenate(clips), minlength=most)
    begins = np.concatenate([[0], np.cumsum(sizes)])
    work = np.cumsum(sizes[pairs[:, 0]] * sizes[pairs[:, 1]])
    cuts = np.searchsorted(work, np.arange(0, work[-1] if len(work) else 1, 16 * AT_ONCE)).tolist()
    shared, bits = np.zeros(len(pairs), np.int64), np.zeros(len(pairs), np.int64)
    for first, last in zip(cuts, [*cuts[1:], len(pairs)], strict=True):
        shared[first:last], bits[first:last] = compared(pairs[first:last], all_words, begins, sizes)
    shorter = sizes[pairs].min(axis=1)
    good = ((shared > 1) | (bits <= CLOSE)) & (SHARE * shared >= shorter)
    order = np.lexsort((pairs[good, 1], pairs[good, 0], -shared[good], bits[good]))
    return Alike(pairs[good][order], shared[good][order], bits[good][order])


def compared(
    pairs: Pairs, words: Words, begins: NDArray[np.int64], sizes: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return how many words of the shorter clip of each pair the longer has, and the least bits between two."""
    shorter = np.argmin(sizes[pairs], axis=1)
    rows = np.arange(len(pairs))
    one, other = pairs[rows, shorter], pairs[rows, 1 - shorter]
    # A line a word of the shorter clip; in each line all words of the longer.
    line_pair = np.repeat(rows, sizes[one])
    line_word = words[ranges(begins[one], sizes[one])]
    lengths = sizes[other][line_pair]
    bits = np.bitwise_count(np.repeat(line_word, lengths) ^ words[ranges(begins[other][line_pair], lengths)])
    least = np.minimum.reduceat(bits, np.cumsum(lengths) - lengths) if len(bits) else np.zeros(0, np.uint8)
    shared = np.bincount(line_pair[least <= LIMIT], minlength=len(pairs))
    closest = np.full(len(pairs), 64)
    np.minimum.at(closest, line_pair, least)
    return shared, closest


def ranges(begins: Counts, sizes: Counts) -> NDArray[np.int64]:
    """Return the numbers from each of `begins` on, `sizes` of them, one after the other."""
    ends = np.cumsum(sizes, dtype=np.int64)
    total = int(ends[-1]) if len(ends) else 0
    numbers: NDArray[np.int64] = np.arange(total) + np.repeat(begins.astype(np.int64) - (ends - sizes), sizes)
    return numbers


def chunked(words: Words, shift: int, width: int) -> NDArray[np.int64]:
    """Return `width` bits of each word, from bit `shift` on."""
    return ((words >> np.uint64(shift)) & np.uint64(2**width - 1)).astype(np.int64)


def paired(these: Numbers, those: Numbers) -> bytes:
    """Return two columns of numbers as pairs, as the loops in C tell them."""
    return np.stack([these, those], axis=1).astype(np.uint32).tobytes()


def told(pairs: bytes) -> Pairs:
    """Return such pairs as numbers."""
    return np.frombuffer(pairs, np.uint32).reshape(-1, 2).astype(np.int64)
