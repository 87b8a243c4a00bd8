"""Markdown and YAML of texts that others wrote: shown as they are, in one line, and never taken for markup."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Sequence

MARKS = re.compile(r"([\\`*_\[\]<>|~$&@]|:(?=//)|(?<=www)\.)", re.IGNORECASE)
"""What Markdown, or a page that shows it, could take for markup, a link or a formula."""
LONGEST = 160
"""Characters of a text that are shown."""


def plain(text: str, longest: int = LONGEST) -> str:
    """Return a text in one line, without control characters, cut to `longest`, with every mark escaped."""
    kept = "".join(" " if unicodedata.category(one)[0] in "CZ" else one for one in text)
    line = " ".join(kept.split())
    line = line if len(line) <= longest else line[: longest - 3].rstrip() + "..."
    return MARKS.sub(r"\\\1", line)


def rows(names: Sequence[str], content: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table; its cells are Markdown."""
    lines = [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    return [*lines, *(f"| {' | '.join(cells)} |" for cells in content)]


def quoted(text: str) -> str:
    """Return a text as a YAML string, ASCII alone, whatever it holds."""
    return "".join(
        one if one.isascii() and one.isprintable() else rf"\U{ord(one):08x}"
        for one in json.dumps(text, ensure_ascii=False)
    )
