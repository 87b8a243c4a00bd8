"""A user's mistake, told in one sentence."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake the user can mend: the command line prints the sentence and exits with 2, without a traceback."""


class TooManyRefusals(RuntimeError):
    """A build whose input is rotten beyond its budget: the command line prints the sentence and exits with 3."""


class Failed(RuntimeError):
    """A check that did not pass: the command line prints the sentence and exits with 1."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Say which known name was probably meant, or list them all, for the end of a sentence."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known: {', '.join(names)}" if names else "none is known"
