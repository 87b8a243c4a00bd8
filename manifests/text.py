"""The training form of a transcript: lower case, a capital at the start, no punctuation.

SALMONN's released annotations hold LibriSpeech text as ``Chapter one missus rachel lynde is surprised``
(facts/corpora.md, section 0), so every corpus's transcript is brought to that form.
"""

from __future__ import annotations

import re
import unicodedata

NOT_SPOKEN = re.compile(r"[^\w\s']|_", re.UNICODE)


def sentence_case(text: str) -> str:
    """Return `text` in lower case without punctuation, its first letter a capital; empty if nothing is spoken.

    Apostrophes belong to words ("don't", "'tis", "boys'"); one that stands alone is punctuation.
    """
    text = unicodedata.normalize("NFC", text).replace("\u2019", "'").lower()
    text = NOT_SPOKEN.sub(" ", text)
    words = [word for word in text.split() if word.strip("'")]
    joined = " ".join(words)
    return joined[:1].upper() + joined[1:]
