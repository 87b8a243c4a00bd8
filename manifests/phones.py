"""Words to phones: the corpus's own lexicon first, then CMUdict, then gruut's model for what neither holds.

Phones are the 39 of CMUdict without stress, as in the phone_recognition annotations of SALMONN's authors.
"""

from __future__ import annotations

import functools
import gzip
import importlib.metadata
import importlib.util
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path(__file__).parent / "lexicons"
LEXICONS = (("librispeech-g2p", ".txt.gz", "\0"), ("cmudict", ".dict.gz", "#"))
"""Name, end of the file's name, and what begins a comment in it."""
WORD = re.compile(r"[a-z']+")
VARIANT = re.compile(r"\(\d+\)$")

# gruut's inventory for US English was made from CMUdict, so each of its phones is one of CMUdict's.
ARPABET = {
    "n": "N", "ə": "AH", "ɪ": "IH", "l": "L", "s": "S", "t": "T", "ɹ": "R", "k": "K", "i": "IY", "d": "D",
    "m": "M", "ɚ": "ER", "z": "Z", "ɛ": "EH", "ɑ": "AA", "æ": "AE", "b": "B", "oʊ": "OW", "p": "P", "ɡ": "G",
    "f": "F", "eɪ": "EY", "ɔ": "AO", "aɪ": "AY", "ŋ": "NG", "v": "V", "u": "UW", "h": "HH", "ʃ": "SH", "ʌ": "AH",
    "w": "W", "d͡ʒ": "JH", "j": "Y", "t͡ʃ": "CH", "aʊ": "AW", "θ": "TH", "ʊ": "UH", "ɔɪ": "OY", "ð": "DH", "ʒ": "ZH",
}  # fmt: skip


@functools.cache
def lexicons() -> dict[str, dict[str, tuple[str, ...]]]:
    """Map each lexicon, the first asked first, to its words in lower case with their first pronunciation."""
    read: dict[str, dict[str, tuple[str, ...]]] = {}
    for name, end, comment in LEXICONS:
        words = read.setdefault(name, {})
        for word, phones in read_lexicon(f"{name}{end}", comment):
            words.setdefault(word, phones)
    return read


def read_lexicon(name: str, comment: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield word and phones from a file of lexicons/; a variant like ``read(2)`` is left out."""
    for line in gzip.decompress((FOLDER / name).read_bytes()).decode("utf-8").splitlines():
        word, *phones = line.split(comment, 1)[0].split()
        if not VARIANT.search(word):
            yield word.lower(), tuple(phone.rstrip("012") for phone in phones)


def look_up(word: str) -> tuple[str, tuple[str, ...]]:
    """Return where the pronunciation of a word comes from, and its phones; ``unknown`` and none if nowhere."""
    for name, words in lexicons().items():
        if word in words:
            return name, words[word]
    guessed = guess(word)
    return ("gruut" if guessed else "unknown"), guessed


def source() -> str:
    """Name the chain that `pronounce` uses on this machine: it belongs to what identifies a build."""
    gruut = importlib.util.find_spec("gruut") is not None
    return ", ".join(name for name, _, _ in LEXICONS) + (
        f", gruut {importlib.metadata.version('gruut')}" if gruut else ""
    )


def pronounce(text: str) -> tuple[str, ...] | None:
    """Return the phones of an English `text`, or None if some word has no pronunciation."""
    phones: list[str] = []
    for word in text.lower().split():
        _, found = look_up(word)
        if not found:
            return None
        phones.extend(found)
    return tuple(phones)


def word_sources(text: str) -> Counter[str]:
    """Count where the pronunciations of the words of `text` come from; ``unknown`` are out of vocabulary."""
    return Counter(look_up(word)[0] for word in text.lower().split())


@functools.cache
def guess(word: str) -> tuple[str, ...]:
    """Return gruut's phones of a word outside the lexicons; empty if gruut is not installed or the word is not one."""
    if not WORD.fullmatch(word) or not word.strip("'") or importlib.util.find_spec("gruut") is None:
        return ()
    from gruut import sentences

    heard = [phone for part in sentences(word, lang="en-us") for token in part for phone in token.phonemes or ()]
    # The signs for stress stand in front of the vowel.
    return tuple(ARPABET[phone.lstrip("ˈˌ")] for phone in heard if phone.lstrip("ˈˌ") in ARPABET)
