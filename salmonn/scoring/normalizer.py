"""The normaliser of English text: Whisper's, with the rules that cannot touch a text left out for speed.

Whisper's puts every text through fifty rules and every word through its numbers; most texts hold nothing that any of
them looks for. What cannot change a text is skipped: the result is that of `whisper_normalizer`, which tests hold, and
thirty thousand answers take seconds.
"""

from __future__ import annotations

import functools
import re
import string
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from salmonn.scoring.libraries import library, version

PLAIN = re.compile(r"[a-z' ,.;:!?\"\n\t-]*")
"""Texts with a digit, a bracket, a currency or a letter beyond English take the long way."""
SIGNS = str.maketrans("',;:!?\"-", " " * 8)
ALL_SIGNS = str.maketrans(string.punctuation, " " * len(string.punctuation))
SPACES = re.compile(r"\s+'")
DOT = re.compile(r"\.([^0-9]|$)")
HALF = re.compile(r"\band\s+a\s+half\b")


class English:
    """Whisper's normaliser; call it with a text."""

    def __init__(self) -> None:
        self.whole: Any = library("whisper_normalizer.english").EnglishTextNormalizer()
        # A rule can only touch a text that holds what it looks for: "mr" of the rule \bmr\b.
        self.rules = [(rule.replace(r"\b", ""), re.compile(rule), by) for rule, by in self.whole.replacers.items()]
        self.noise = re.compile(self.whole.ignore_patterns)
        self.noises = re.findall("[a-z]+", self.whole.ignore_patterns.replace(r"\b", ""))
        self.numbers = self.whole.standardize_numbers
        # An "and" between words that are no numbers stays as it is.
        self.number_words = frozenset(self.numbers.words - {"and"})
        self.number_run = functools.lru_cache(maxsize=1 << 14)(self.of_run)
        self.spelling = self.whole.standardize_spellings.mapping

    def __call__(self, text: str) -> str:
        """Return the words of `text` as they are compared, with single spaces between."""
        lower = text.lower()
        try:
            short = self.short(lower) if PLAIN.fullmatch(lower) else None
            return str(self.whole(text)).strip() if short is None else short
        except (AssertionError, ArithmeticError, IndexError, TypeError, ValueError):
            # The library stumbles over some numbers, as of thousands of digits: no answer may stop the scores of all.
            return " ".join(lower.translate(ALL_SIGNS).split())

    def short(self, text: str) -> str | None:
        """Return what the rules make of a plain text in lower case; None if it is one for the long way after all."""
        if any(noise in text for noise in self.noises):
            text = self.noise.sub("", text)
        if "'" in text:
            text = SPACES.sub("'", text)
        for sought, rule, by in self.rules:
            if sought in text:
                text = rule.sub(by, text)
        if "." in text:
            text = DOT.sub(r" \1", text)
            if "." in text:
                return None
        words = text.translate(SIGNS).split()
        if "half" in words and HALF.search(" ".join(words)):
            return None
        if not self.number_words.isdisjoint(words):
            words = self.numbers.postprocess(" ".join(self.with_numbers(words))).split()
            if not all(map(str.isalnum, words)):
                return None
        return " ".join([self.spelling.get(word, word) for word in words])

    def with_numbers(self, words: list[str]) -> Iterator[str]:
        """Yield words with their numbers in digits; the library's rules look no further than one run of them."""
        for numeric, run in groupby(words, key=self.numbers.words.__contains__):
            found = tuple(run)
            yield from self.number_run(found) if numeric else found

    def of_run(self, run: tuple[str, ...]) -> tuple[str, ...]:
        """Return what the library makes of a run of numbers between two words that are none."""
        return tuple(self.numbers.process_words(["x", *run, "x"]))[1:-1]


@functools.cache
def english() -> English:
    """Return the normaliser, made once."""
    return English()


@functools.lru_cache(maxsize=1 << 16)
def normalize(text: str) -> str:
    """Return `text` as Whisper's English normaliser has it."""
    return english()(text)


def normalizer() -> str:
    """Name the normaliser, for a score."""
    return f"Whisper's English (whisper-normalizer {version('whisper-normalizer')})"
