"""What is told of every prompt and answer at pack is what plain Python and DuckDB find in it."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.index import SCHEMA
from shards.scripts import SCRIPTS, SIMPLIFIED_ONLY, TRADITIONAL_ONLY
from shards.traits import BIT, MARKS, TRAITS, traits

SIGNS = "aZ. \t\n?<COMMA>{}\x07\x7f\ufffd\u00e9\u00c3\u00a9\u00df\u4e2d\u56fd\u570b\u3042\u30ab\u0416\u03b1\u0e01\u3002"
TEXTS = st.text(SIGNS) | st.sampled_from(
    ["no no no no no no no no", "Ja", "{text}", "<COMMA>", "a dog barks TWICE at night"]
)


def told(prompts: list[list[str]], answers: list[list[list[str]]]) -> dict[str, list[Any]]:
    columns = [pa.array(texts, SCHEMA.field(name).type) for name, texts in (("prompts", prompts), ("answers", answers))]
    made = traits(*columns)
    assert {name: column.type for name, column in made.items()} == TRAITS
    return {name: column.to_pylist() for name, column in made.items()}


def code(text: str) -> int:
    return int.from_bytes(hashlib.md5(text.encode()).digest()[8:], "little")


def letter_of(script: str, sign: str) -> bool:
    name = unicodedata.name(sign, "")
    starts = {"Kana": ("HIRAGANA", "KATAKANA"), "Han": ("CJK UNIFIED",)}.get(script, (script.upper(),))
    return sign.isalpha() and name.startswith(starts)


def marks(text: str) -> set[str]:
    """Those of a text by itself, as a loop finds them."""
    small, capital = ([unicodedata.category(sign) == kind for sign in text] for kind in ("Ll", "Lu"))
    found = {
        "small": any(small),
        "capital": any(capital),
        "titled": any(small) and any(capital) and not any(capital[1:]),
        "unfilled": bool(re.search(r"\{[A-Za-z0-9_ ]*\}", text)),
        "tagged": bool(re.search("<[A-Z]+>", text)),
        "broken": any(sign in "\x7f\ufffd" or (sign < " " and sign not in "\t\n\f\r") for sign in text),
        "garbled": bool(
            re.search(
                "[\u00c2\u00c3][\u0080-\u00bf]|\u00e2(\u20ac|[\u0080-\u009f])|[\u00e3-\u00e9][\u0080-\u009f\u00a1-\u00bf]{2}",
                text,
            )
        ),
        "punctuated": bool(set(text) & set(".,;:?!\u3001\u3002\uff0c\uff1f")),
        "simplified": bool(set(text) & set(SIMPLIFIED_ONLY)),
        "traditional": bool(set(text) & set(TRADITIONAL_ONLY)),
        "repeating": repeats(text),
    } | {script: any(letter_of(script, sign) for sign in text) for script in SCRIPTS}
    return {name for name, so in found.items() if so}


def repeats(text: str) -> bool:
    pieces: list[str | None] = list(re.split("[ \t\n\f\r]", text))
    around = [None] * 4 + pieces + [None] * 4
    again = [piece in around[place + 5 : place + 9] for place, piece in enumerate(pieces)]
    middle = len(pieces) // 2 - 1
    near = around[middle : middle + 4] + around[middle + 5 : middle + 9]
    return len(pieces) >= 8 and pieces[middle] in near and 2 * sum(again) > len(pieces)


def leaks(prompt: str, answer: str) -> bool:
    long = 20 <= len(answer.encode()) <= len(prompt.encode()) and len(re.split("[ \t\n\f\r]", answer)) >= 4
    return long and answer.lower() in prompt.lower()


def as_set(bits: int) -> set[str]:
    return {name for name in MARKS if bits & BIT[name]}


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(st.tuples(TEXTS, st.lists(TEXTS, max_size=3)), max_size=3), max_size=3))
def test_what_is_told_is_what_a_loop_finds(samples: list[list[tuple[str, list[str]]]]) -> None:
    prompts = [[prompt for prompt, _ in sample] for sample in samples]
    answers = [[texts for _, texts in sample] for sample in samples]
    found = told(prompts, answers)
    assert [[one["code"] for one in row] for row in found["prompt_traits"]] == [
        [code(p) for p in row] for row in prompts
    ]
    assert [[as_set(one["marks"]) for one in row] for row in found["prompt_traits"]] == [
        [marks(prompt) for prompt in row] for row in prompts
    ]
    for row, asked, said in zip(found["answer_traits"], prompts, answers, strict=True):
        for several, prompt, texts in zip(row, asked, said, strict=True):
            for one, text in zip(several, texts, strict=True):
                assert as_set(one.pop("marks")) == marks(text) | ({"leaked"} if leaks(prompt, text) else set())
                words = len(re.findall("[^ \t\n\f\r]+", text))
                assert one == {"code": code(text), "words": words, "letters": len(text), "bytes": len(text.encode())}


@pytest.mark.parametrize(
    "text", ["no " * 9, "a b c d e f g h", "x y " * 5, "one\ttwo\none two one two one two", "  " * 9]
)
def test_what_repeats_itself_is_told(text: str) -> None:
    [[[one]]] = told([["p"]], [[[text]]])["answer_traits"]
    assert (one["marks"] & BIT["repeating"] > 0) == repeats(text)


@pytest.mark.parametrize(
    ("prompt", "answer", "leaked"),
    [
        ("Is it so that A DOG BARKS twice at night?", "a dog barks twice at night", True),
        ("Is it so that a dog barks?", "a dog barks", False),
        ("Is it so that a dog barks twice?", "a dog barks twice at night, and runs", False),
        ("Is it \u00c9COLE de la rive gauche, or not?", "\u00e9cole de la rive gauche", True),
    ],
)
def test_an_answer_in_its_prompt_is_told(prompt: str, answer: str, leaked: bool) -> None:
    [[[one]]] = told([[prompt]], [[[answer]]])["answer_traits"]
    assert (one["marks"] & BIT["leaked"] > 0) == leaked


@given(st.text())
def test_a_code_is_the_one_that_duckdb_gives_a_text(text: str) -> None:
    [(found,)] = duckdb.execute("select md5_number_lower($1)", [text]).fetchall()
    assert found == code(text)
