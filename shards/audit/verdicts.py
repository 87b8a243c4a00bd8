"""Verdicts: what must hold before GPU hours are spent, each a gate with a verdict and one sentence."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

Verdict = Literal["PASS", "WARN", "FAIL"]


class Gate(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that must hold before training, and whether it does."""

    name: str
    verdict: Verdict
    sentence: str


def worst(gates: Iterable[Gate]) -> Verdict:
    """Return the verdict of all gates together."""
    found = {gate.verdict for gate in gates}
    return "FAIL" if "FAIL" in found else "WARN" if "WARN" in found else "PASS"


def good(name: str, sentence: str) -> Gate:
    """Return a gate that holds."""
    return Gate(name=name, verdict="PASS", sentence=sentence)


def warn(name: str, sentence: str) -> Gate:
    """Return a gate that someone should look at."""
    return Gate(name=name, verdict="WARN", sentence=sentence)


def fail(name: str, sentence: str) -> Gate:
    """Return a gate that does not hold."""
    return Gate(name=name, verdict="FAIL", sentence=sentence)
