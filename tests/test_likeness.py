"""Likeness: the loops in C tell the pairs that numpy tells, and refuse arrays that do not fit together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.audit import likeness
from shards.audit.likeness import Pairs, Prints, Table, told


def drawn(seed: int, count: int, sounds: int, flips: int) -> Prints:
    """Words of `count` clips, at most three in a row of one, near to a few sounds: many pairs of them are alike."""
    dice = np.random.default_rng(seed)
    words = dice.integers(0, 2**64, sounds, np.uint64)[dice.integers(0, sounds, count)]
    for _ in range(flips):
        words ^= np.uint64(1) << dice.integers(0, 64, count, np.uint64)
    return Prints(words, np.sort(dice.integers(0, count // 2 + 1, count, np.uint32)))


def in_order(pairs: bytes) -> list[list[int]]:
    """All pairs, each as often as it is told."""
    return sorted(told(pairs).tolist())


# Around the sizes of a step of C, and of what numpy takes at once.
COUNTS = st.one_of(st.integers(0, 20), st.integers(250, 530))
AT_ONCE = st.sampled_from([1, 7, 256, 1 << 16])


@given(
    seed=st.integers(0, 2**32 - 1), count=COUNTS, sounds=st.integers(1, 40), flips=st.integers(0, 9),
    reach=st.integers(0, 20), limit=st.integers(0, 64), at_once=AT_ONCE,
)  # fmt: skip
def test_the_loop_in_c_finds_the_neighbours_that_numpy_finds(
    seed: int, count: int, sounds: int, flips: int, reach: int, limit: int, at_once: int
) -> None:
    assert likeness.near is not likeness.near_in_numpy, "shards/_alike.c was not built: run 'make setup'"
    prints = drawn(seed, count, sounds, flips)
    words, clips = np.sort(prints.words), prints.clips
    compiled = in_order(likeness.near(words, clips, reach, limit))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(likeness, "AT_ONCE", at_once)
        assert compiled == in_order(likeness.near_in_numpy(words, clips, reach, limit))
    one_by_one = [
        [int(clips[i]), int(clips[j])]
        for i in range(min(count, 40))
        for j in range(i + 1, min(count, 40, i + 1 + reach))
        if clips[i] != clips[j] and (int(words[i]) ^ int(words[j])).bit_count() <= limit
    ]
    assert in_order(likeness.near(words[:40], clips[:40], reach, limit)) == sorted(one_by_one)


@given(
    seed=st.integers(0, 2**32 - 1), count=COUNTS, held=COUNTS, sounds=st.integers(1, 40), flips=st.integers(0, 9),
    width=st.integers(3, 14), shift=st.integers(0, 50), most=st.integers(0, 70), limit=st.integers(0, 64),
    at_once=AT_ONCE,
)  # fmt: skip
def test_the_loop_in_c_looks_up_what_numpy_looks_up(
    seed: int, count: int, held: int, sounds: int, flips: int, width: int, shift: int, most: int, limit: int,
    at_once: int,
) -> None:  # fmt: skip
    assert likeness.look is not likeness.look_in_numpy, "shards/_alike.c was not built: run 'make setup'"
    these, those = drawn(seed, count, sounds, flips), drawn(seed, held, sounds, flips // 2)
    table = Table(those, shift, width)
    assert table.parts == likeness.fill_in_numpy(those.words, those.clips, shift, width)
    given = (these.words, these.clips, *table.parts, shift, width, most, limit)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(likeness, "AT_ONCE", at_once)
        assert in_order(likeness.look(*given)) == in_order(likeness.look_in_numpy(*given))


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(0, 5000), low=st.integers(13, 63), few=st.integers(0, 63))
def test_the_loop_in_c_sorts_as_numpy_does(seed: int, count: int, low: int, few: int) -> None:
    assert likeness.sort is not likeness.sort_in_numpy, "shards/_alike.c was not built: run 'make setup'"
    words = np.random.default_rng(seed).integers(0, 2**64, count, np.uint64) >> np.uint64(few)
    numbers = (words >> np.uint64(low) << np.uint64(low)) | np.arange(count, dtype=np.uint64)
    plain = numbers.copy()
    likeness.sort(numbers, low)
    likeness.sort_in_numpy(plain, low)
    assert np.array_equal(numbers, plain)


def test_all_that_is_found_is_the_same_without_the_loops_in_c(monkeypatch: pytest.MonkeyPatch) -> None:
    prints, held = drawn(1, 5000, 900, 3), drawn(1, 700, 900, 2)

    def found() -> tuple[Pairs, Pairs]:
        blocks = [Prints(prints.words[k : k + 999], prints.clips[k : k + 999]) for k in range(0, 5000, 999)]
        return likeness.across(blocks, held), likeness.within(lambda: blocks, 5000)

    compiled = found()
    monkeypatch.setattr(likeness, "near", likeness.near_in_numpy)
    monkeypatch.setattr(likeness, "look", likeness.look_in_numpy)
    monkeypatch.setattr(likeness, "sort", likeness.sort_in_numpy)
    plain = found()
    assert min(map(len, compiled)) > 1000
    assert all(np.array_equal(one, other) for one, other in zip(compiled, plain, strict=True))


def test_the_loops_in_c_refuse_what_lies_outside_of_their_arrays() -> None:
    prints = drawn(1, 50, 3, 1)
    for words, clips, reach in [(prints.words[1:], prints.clips, 1), (prints.words, prints.clips, -1)]:
        with pytest.raises(ValueError, match="do not fit"):
            likeness.near(words, clips, reach, 10)
    for low in (-1, 64):
        with pytest.raises(ValueError, match="do not fit"):
            likeness.sort(prints.words, low)
    table = Table(prints, 20, 8)
    words, clips, ends, taken = table.parts
    right = [*(prints.words, prints.clips, words, clips, ends, taken), 20, 8, 64, 10]
    assert len(likeness.look(*right))
    # Words without clips, a table cut short, ends beyond it and before it, a chunk that is no part of a word.
    wrong = {1: prints.clips[1:], 2: words[8:], 3: clips[4:], 4: ends[4:], 5: taken[1:]}
    at = np.frombuffer(ends, np.int32)
    for place, value in [*wrong.items(), (4, at + 1), (4, at - 60), (6, 57), (6, -1), (7, 2), (7, 31)]:
        with pytest.raises(ValueError, match="do not fit"):
            likeness.look(*right[:place], value, *right[place + 1 :])
    for words, clips, shift, width in [
        (prints.words[1:], prints.clips, 20, 8),
        (prints.words, prints.clips, 57, 8),
        (prints.words, prints.clips, -1, 8),
        (prints.words, prints.clips, 20, 2),
        (prints.words, prints.clips, 20, 31),
    ]:
        with pytest.raises(ValueError, match="do not fit"):
            likeness.fill(words, clips, shift, width)
