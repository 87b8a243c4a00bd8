"""Numbers and texts as a report holds them: the same input gives the same digits, and no text is endless."""

from __future__ import annotations


def neat(number: float) -> float:
    """Round away what depends on the order of a sum."""
    return round(float(number), 9)


def share(part: float, whole: float) -> float:
    """Return `part` of `whole`, 0 of nothing."""
    return neat(part / whole) if whole else 0.0


LONGEST_TEXT = 400
"""Characters of a text from the data that a report shows."""


def shown(text: str) -> str:
    """Return `text` without control characters, and cut where it is too long for a page."""
    printed = "".join(letter if letter >= " " and letter != "\x7f" else " " for letter in text[: LONGEST_TEXT + 1])
    return printed if len(printed) <= LONGEST_TEXT else f"{printed[:LONGEST_TEXT]}... ({len(text)} characters)"
