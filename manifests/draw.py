"""Draws that are pure functions of names: the same words give the same choice on every machine and in every run."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

Option = TypeVar("Option")


def number(*names: str | int) -> int:
    """Return a number in [0, 2**64) from `names`; each tuple of names has its own."""
    digest = hashlib.blake2b("\x1f".join(map(str, names)).encode("utf-8"), digest_size=8)
    return int.from_bytes(digest.digest(), "big")


def choice(options: Sequence[Option], *names: str | int) -> Option:
    """Return one of `options`, each with the same chance over many names."""
    return options[number(*names) % len(options)] if len(options) > 1 else options[0]
