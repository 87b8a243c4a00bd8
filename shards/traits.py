"""Traits: what can be told of every prompt and answer while it is packed, so that no audit need read all texts again.

Of each text the code by which equal ones are known, how long it is, and marks: a bit for each of MARKS that is so. They
are columns of the index beside the texts and follow from these alone; `salmonn verify` holds them against the texts.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from shards.scripts import SCRIPTS, SIMPLIFIED_ONLY, TRADITIONAL_ONLY

Flags = NDArray[np.bool_]
Numbers = NDArray[np.int64]

GARBLED = (
    r"[\x{C2}\x{C3}][\x{80}-\x{BF}]|\x{E2}(\x{20AC}|[\x{80}-\x{9F}])"
    r"|[\x{E3}-\x{E9}][\x{80}-\x{9F}\x{A1}-\x{BF}]{2}"
)
"""UTF-8 read as Latin-1 or as Windows has it: the first byte of a letter, then bytes that only go on with one."""
PUNCTUATION = r"[.,;:?!\x{3001}\x{3002}\x{FF0C}\x{FF1F}]"
PATTERNS = {
    "small": r"\p{Ll}",
    "capital": r"\p{Lu}",
    "unfilled": r"\{[A-Za-z0-9_ ]*\}",
    "tagged": "<[A-Z]+>",
    "broken": r"[\x00-\x08\x0B\x0E-\x1F\x7F\x{FFFD}]",
    "garbled": GARBLED,
    "punctuated": PUNCTUATION,
    "simplified": f"[{SIMPLIFIED_ONLY}]",
    "traditional": f"[{TRADITIONAL_ONLY}]",
    **{script: f"[{letters}]" for script, letters in SCRIPTS.items()},
}
"""What a text has that one of these fits (RE2)."""
ASCII = {"small": "[a-z]", "capital": "[A-Z]", "punctuated": "[.,;:?!]", "Latin": "[A-Za-z]"} | {
    name: PATTERNS[name] for name in ("unfilled", "tagged", "broken")
}
"""The same of a text without a letter beyond ASCII, where the others cannot fit."""
MARKS = (*PATTERNS, "titled", "repeating", "leaked")
"""Bit by bit. `titled`: small letters, and capitals none of which is behind its first letter. `repeating`: of eight
pieces or more, more than half come again within four pieces, and so does the one in the middle. `leaked`: an answer of
four pieces and 20 bytes or more that stands word for word in its prompt, cases aside. Pieces are what lies between
spaces, tabs and ends of lines."""
BIT = {name: 1 << place for place, name in enumerate(MARKS)}

CODE, MARK = pa.field("code", pa.uint64(), nullable=False), pa.field("marks", pa.uint32(), nullable=False)
PROMPT = pa.struct([CODE, MARK])
ANSWER = pa.struct(
    [
        CODE,
        pa.field("words", pa.uint32(), nullable=False),
        pa.field("letters", pa.uint32(), nullable=False),
        pa.field("bytes", pa.uint32(), nullable=False),
        MARK,
    ]
)
"""`code` is the second half of the MD5, as DuckDB's md5_number_lower has it; `letters` are characters of Unicode,
`bytes` those of UTF-8, `words` pieces that are not empty."""
PROMPTS = pa.list_(pa.field("item", PROMPT, nullable=False))
ANSWERS = pa.list_(pa.field("item", pa.list_(pa.field("item", ANSWER, nullable=False)), nullable=False))
TRAITS = {"prompt_traits": PROMPTS, "answer_traits": ANSWERS}
"""The columns: like `prompts`, and like `answers`."""
LEAK = (20, 4)
"""Bytes and pieces of an answer that can be said to stand in its prompt: less is a choice that a prompt may name."""


def traits(prompts: pa.ListArray, answers: pa.ListArray) -> dict[str, pa.Array]:
    """Return the columns TRAITS of texts: `prompts` one an instruction, `answers` several."""
    asked, lists = pc.list_flatten(prompts), pc.list_flatten(answers)
    said, counts = pc.list_flatten(lists), pc.list_value_length(lists)
    told, numbers = told_once(asked)
    made = pa.StructArray.from_arrays(
        [pa.array(told[name][numbers]) for name in ("code", "marks")], fields=list(PROMPT)
    )
    told, numbers = told_once(said)
    marks, pieces = told["marks"][numbers], told["pieces"][numbers]
    of = np.repeat(np.arange(len(asked)), counts.to_numpy(zero_copy_only=False))
    marks[leaked(asked, said, of, told["bytes"][numbers], pieces)] |= BIT["leaked"]
    columns = [pa.array(told[name][numbers]) for name in ("code", "words", "letters", "bytes")]
    answered = pa.StructArray.from_arrays([*columns, pa.array(marks)], fields=list(ANSWER))
    inner = pa.ListArray.from_arrays(ends(counts), answered, type=ANSWERS.value_type)
    return {
        "prompt_traits": pa.ListArray.from_arrays(ends(pc.list_value_length(prompts)), made, type=PROMPTS),
        "answer_traits": pa.ListArray.from_arrays(ends(pc.list_value_length(answers)), inner, type=ANSWERS),
    }


def ends(counts: pa.Array) -> pa.Array:
    """Return where lists of so many entries begin, and where the last ends."""
    return pa.array(np.concatenate([[0], np.cumsum(counts.to_numpy(zero_copy_only=False))]).astype(np.int32))


def told_once(texts: pa.Array) -> tuple[dict[str, Any], Numbers]:
    """Return what is told of each different text, and which of them each text is."""
    coded = texts.dictionary_encode()
    different = coded.dictionary
    digests = b"".join([hashlib.md5(text).digest() for text in different.cast(pa.binary()).to_pylist()])
    letters, size = (number(count(different)) for count in (pc.utf8_length, pc.binary_length))
    pieces, words, repeating = pieces_of(different)
    marks = fits(different, letters == size)
    marks[repeating] |= BIT["repeating"]
    told = {
        "code": np.frombuffer(digests, "<u8")[1::2],
        "words": words.astype(np.uint32),
        "letters": letters.astype(np.uint32),
        "bytes": size.astype(np.uint32),
        "marks": marks,
        "pieces": pieces,
    }
    return told, number(coded.indices)


def number(values: pa.Array) -> Numbers:
    """Return numbers as int64."""
    made: Numbers = values.to_numpy(zero_copy_only=False).astype(np.int64)
    return made


def fits(texts: pa.Array, plain: Flags) -> NDArray[np.uint32]:
    """Return the marks of texts by the patterns that fit them; `plain` are those in ASCII."""
    marks = np.zeros(len(texts), np.uint32)
    for patterns, places in ((ASCII, np.flatnonzero(plain)), (PATTERNS, np.flatnonzero(~plain))):
        some = texts.take(pa.array(places))
        for name, pattern in patterns.items():
            marks[places[matching(some, pattern)]] |= np.uint32(BIT[name])
    cased = np.uint32(BIT["small"] | BIT["capital"])
    places = np.flatnonzero(marks & cased == cased)
    some = texts.take(pa.array(places))
    later = matching(some, r"(?s)^.+\p{Lu}")
    marks[np.delete(places, later)] |= np.uint32(BIT["titled"])
    return marks


def matching(texts: pa.Array, pattern: str) -> Numbers:
    """Return the places of the texts that a pattern fits."""
    found: Numbers = np.flatnonzero(pc.match_substring_regex(texts, pattern).to_numpy(zero_copy_only=False))
    return found


def pieces_of(texts: pa.Array) -> tuple[Numbers, Numbers, Numbers]:
    """Return how many pieces and how many words texts have, and the places of those that repeat themselves."""
    # A pattern takes five times as long as a space, and hardly a text needs it.
    rare = len(matching(texts, "[\t\n\f\r]")) > 0
    split = pc.split_pattern_regex(texts, "[ \t\n\f\r]") if rare else pc.split_pattern(texts, " ")
    flat, counts = pc.list_flatten(split), number(pc.list_value_length(split))
    last = np.cumsum(counts)
    empty = np.concatenate([[0], np.cumsum(pc.equal(flat, "").to_numpy(zero_copy_only=False))])
    words = counts - (empty[last] - empty[last - counts])
    codes = number(flat.dictionary_encode().indices)
    end = np.repeat(last, counts)
    place = np.arange(len(codes))
    padded = np.concatenate([codes, np.full(4, -1)])
    same = [(padded[step : step + len(codes)] == codes) & (place + step < end) for step in (1, 2, 3, 4)]
    again = np.concatenate([[0], np.cumsum(np.logical_or.reduce(same))])
    often = np.flatnonzero((counts >= 8) & (2 * (again[last] - again[last - counts]) > counts))
    middle = (last - counts + counts // 2 - 1)[often]
    around = np.zeros(len(often), bool)
    for step, one in zip((1, 2, 3, 4), same, strict=True):
        before = middle - step
        around |= one[middle] | (one[before] & (before >= (last - counts)[often]))
    return counts, words, often[around]


def leaked(asked: pa.Array, said: pa.Array, of: Numbers, size: Any, pieces: Numbers) -> Numbers:
    """Return the places of answers that stand in their prompt; `of` is the place of the prompt of each."""
    least, few = LEAK
    room = number(pc.binary_length(asked))[of]
    places = np.flatnonzero((size >= least) & (size <= room) & (pieces >= few))
    answers, prompts = pc.utf8_lower(said.take(pa.array(places))), pc.utf8_lower(asked.take(pa.array(of[places])))
    found = [answer in prompt for answer, prompt in zip(answers.to_pylist(), prompts.to_pylist(), strict=True)]
    stands: Numbers = places[np.array(found, bool)]
    return stands
