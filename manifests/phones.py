"""Words to phones: the corpus's own lexicon first, then CMUdict, then gruut's model for what neither holds.

Phones are the 39 of CMUdict without stress, as in the phone_recognition annotations of SALMONN's authors.
"""

from __future__ import annotations

import functools
import gzip
import importlib.metadata
import importlib.util
import re
from pathlib import Path

FOLDER = Path(__file__).parent / "lexicons"
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
def lexicon() -> dict[str, tuple[str, ...]]:
    """Map lower-case words to phones: LibriSpeech's lexicon over CMUdict, first pronunciation of each."""
    words: dict[str, tuple[str, ...]] = {}
    for name, comment in (("librispeech-g2p.txt.gz", "\0"), ("cmudict.dict.gz", "#")):
        for line in gzip.decompress((FOLDER / name).read_bytes()).decode("utf-8").splitlines():
            word, *phones = line.split(comment, 1)[0].split()
            word = word.lower()
            if not VARIANT.search(word):
                words.setdefault(word, tuple(phone.rstrip("012") for phone in phones))
    return words


def source() -> str:
    """Name the chain that `pronounce` uses on this machine: it belongs to what identifies a build."""
    gruut = importlib.util.find_spec("gruut") is not None
    return "librispeech-g2p, cmudict" + (f", gruut {importlib.metadata.version('gruut')}" if gruut else "")


def pronounce(text: str) -> tuple[str, ...] | None:
    """Return the phones of an English `text`, or None if some word has no pronunciation."""
    phones: list[str] = []
    for word in text.lower().split():
        found = lexicon().get(word) or guess(word)
        if not found:
            return None
        phones.extend(found)
    return tuple(phones)


@functools.cache
def guess(word: str) -> tuple[str, ...]:
    """Return gruut's phones of a word outside the lexicons; empty if gruut is not installed or the word is not one."""
    if not WORD.fullmatch(word) or not word.strip("'") or importlib.util.find_spec("gruut") is None:
        return ()
    from gruut import sentences

    heard = [phone for part in sentences(word, lang="en-us") for token in part for phone in token.phonemes or ()]
    # The signs for stress stand in front of the vowel.
    return tuple(ARPABET[phone.lstrip("ˈˌ")] for phone in heard if phone.lstrip("ˈˌ") in ARPABET)
