"""The training form of a transcript: lower case, a capital at the start, no punctuation.

SALMONN's released annotations hold LibriSpeech text as ``Chapter one missus rachel lynde is surprised``
(its example_data.json), so every corpus's transcript is brought to that form.
"""

from __future__ import annotations

import re
import unicodedata

TAG = re.compile(r"<[A-Z]+>")
"""What GigaSpeech writes for punctuation: ``FOUR O'CLOCK <COMMA> SAID WILLIAMS <PERIOD>``."""


class Signs(dict[int, str]):
    """Maps a character to itself if it belongs to a word, else to a space; the marks on a letter do, as in Hindi."""

    def __missing__(self, point: int) -> str:
        sign = chr(point)
        belongs = sign.isalnum() or sign == "'" or unicodedata.category(sign)[0] == "M"
        self[point] = sign if belongs else " "
        return self[point]


SIGNS = Signs()


def sentence_case(text: str) -> str:
    """Return `text` in lower case without punctuation, its first letter a capital; empty if nothing is spoken.

    Apostrophes belong to words ("don't", "'tis", "boys'"); one that stands alone is punctuation.
    """
    text = TAG.sub(" ", text)
    # Lower case can undo the composition of a letter with its marks, hence the second time.
    text = unicodedata.normalize("NFC", text).replace("\u2019", "'").lower()
    words = unicodedata.normalize("NFC", text).translate(SIGNS).split()
    joined = " ".join(word for word in words if word.isalnum() or any(sign.isalnum() for sign in word))
    # A letter whose capital is two, like the German sharp s, stays as it is.
    first = joined[:1].upper() if len(joined[:1].upper()) == 1 else joined[:1]
    return unicodedata.normalize("NFC", first + joined[1:])
