"""Columns by lot: texts by the frequencies of language, answers of every task, digests, measures and fingerprints."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shards.quality import Quality

VOCABULARY = 40_000
WORDS_A_SECOND = 2.7
PHONES = "AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY P R S SH T TH UH UW V W Y Z ZH"
LABELS = {
    "gender_recognition": ("Female", "Male"),
    "speaker_verification": ("Yes", "No"),
    "emotion_recognition": ("Neutral", "Angry", "Sad", "Happy"),
}
LENGTHS = {"audio_caption": 9, "music_caption": 48, "audio_story": 90, "speech_qa": 6, "audio_qa": 4, "music_qa": 5}
"""Words of an answer that the length of the clip does not give."""
CHINESE = [chr(0x4E00 + number) for number in range(3000)]

Dice = np.random.Generator


@functools.cache
def vocabulary() -> tuple[pa.Array, np.ndarray[Any, Any]]:
    """Return words that could be, and where the chance of each ends: the k-th is 1/k as frequent as the first."""
    dice = np.random.default_rng(1)
    syllables = [a + b for a in "bcdfghklmnprstvw" for b in ("a", "e", "i", "o", "u", "an", "er", "in", "ou", "el")]
    made = {"".join(dice.choice(syllables, dice.integers(1, 4)).tolist()) for _ in range(2 * VOCABULARY)}
    words = sorted(made)[:VOCABULARY]
    return pa.array(dice.permutation(words).tolist()), np.cumsum(1 / np.arange(2, len(words) + 2))


def texts(dice: Dice, lengths: Any, words: pa.Array | None = None, chances: Any = None) -> pa.Array:
    """Return texts of so many words each."""
    if words is None:
        words, chances = vocabulary()
    lengths = np.maximum(1, lengths).astype(np.int32)
    ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    if chances is None:
        drawn = dice.integers(0, len(words), ends[-1], np.int32)
    else:
        drawn = np.searchsorted(chances, dice.random(ends[-1]) * chances[-1]).astype(np.int32)
    return pc.binary_join(pa.ListArray.from_arrays(pa.array(ends), words.take(pa.array(drawn))), " ")


def letters(dice: Dice, lengths: Any) -> pa.Array:
    """Return texts without white space, of so many characters each."""
    parts = pa.array(CHINESE)
    ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    drawn = pa.array((dice.beta(0.6, 4, ends[-1]) * len(CHINESE)).astype(np.int32))
    return pc.binary_join(pa.ListArray.from_arrays(pa.array(ends), parts.take(drawn)), "")


def answers_of(task: str, dice: Dice, count: int, seconds: Any, said: pa.Array) -> tuple[pa.Array, int]:
    """Return the answers that a task wants of `count` clips, and how many of each clip."""
    if task == "asr":
        return said, 1
    if task == "phone_recognition":
        return texts(dice, seconds * WORDS_A_SECOND * 3, pa.array(PHONES.split())), 1
    if task in LABELS:
        return pa.array(LABELS[task]).take(pa.array(dice.integers(0, len(LABELS[task]), count))), 1
    if task in ("translation_en_zh", "translation_en_ja"):
        return letters(dice, np.maximum(2, seconds * WORDS_A_SECOND * 1.6).astype(np.int32)), 1
    if task in LENGTHS:
        return texts(dice, dice.poisson(LENGTHS[task], count)), 1
    return texts(dice, seconds * WORDS_A_SECOND), 1


def interleaved(columns: list[pa.Array]) -> pa.Array:
    """Return arrays of equal length as one: the first of each, then the second of each."""
    each = len(columns[0])
    order = np.arange(each * len(columns)).reshape(len(columns), each).T.reshape(-1)
    return pa.concat_arrays([column.cast(pa.string()) for column in columns]).take(pa.array(order))


def lists(values: pa.Array, each: int) -> pa.Array:
    """Return lists of `each` values."""
    return pa.ListArray.from_arrays(pa.array(np.arange(0, len(values) + 1, each, dtype=np.int32)), values)


def hexes(dice: Dice, count: int) -> pa.Array:
    """Return digests of 32 digits; one of a thousand is that of its neighbour."""
    data = dice.bytes(16 * count).hex()
    digests = [data[32 * one : 32 * one + 32] for one in range(count)]
    for one in range(500, count, 1000):
        digests[one] = digests[one - 1]
    return pa.array(digests)


def qualities(dice: Dice, count: int, seconds: Any) -> dict[str, pa.Array]:
    """Return what shards/quality.py measures, in the digits in which it is kept."""
    half = np.abs(dice.normal(0.4, 0.3, count))
    values = {
        "peak": np.clip(dice.normal(0.5, 0.2, count), 0.01, 1).round(6),
        "clipped": np.where(dice.random(count) < 0.02, dice.random(count) / 500, 0).round(7),
        "dc": dice.normal(0, 1e-4, count).round(6),
        "rms_dbfs": dice.normal(-25, 5, count).round(2),
        "lufs": dice.normal(-26, 5, count).round(2),
        "silence": np.clip(dice.normal(0.15, 0.1, count), 0, 1).round(4),
        "leading_silence": np.minimum(half, seconds).round(2),
        "trailing_silence": np.minimum(half[::-1], seconds).round(2),
        "snr_db": dice.normal(28, 9, count).round(2),
        "bandwidth_hz": dice.choice(np.arange(3000, 8001, 125), count, p=spread_of(41)),
        "all_zero": np.zeros(count, bool),
    }
    assert values.keys() == Quality.__annotations__.keys()
    return {name: pa.array(column) for name, column in values.items()}


@functools.cache
def spread_of(size: int) -> Any:
    """Return chances of which the last takes the most."""
    weights = 1 / (1 + np.arange(size)[::-1]) ** 2
    return weights / weights.sum()


def prints(dice: Dice, seconds: Any) -> pa.Array:
    """Return fingerprints: 8 bytes for a second and a quarter, six words at least."""
    words = np.clip(seconds / 1.25, 6, 96).astype(np.int64)
    ends = np.concatenate([[0], np.cumsum(8 * words)]).astype(np.int32)
    return pa.Array.from_buffers(
        pa.binary(), len(words), [None, pa.py_buffer(ends), pa.py_buffer(dice.bytes(int(ends[-1])))]
    )
