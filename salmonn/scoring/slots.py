"""Slot filling: the share of slots whose value is said, and how many answers did more than write down the request."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import msgspec

from salmonn.scoring.answer import Answer
from salmonn.scoring.judge import Judge
from salmonn.scoring.questions import ask, judged
from salmonn.scoring.score import Score


def score(answers: Sequence[Answer], judge: Judge) -> Score:
    """Return the judged accuracy over all slots; its details name the kind that goes worst."""
    verdicts = ask(answers, judge)
    result = judged(answers, judge, verdicts)
    kinds: dict[str, list[bool]] = defaultdict(list)
    for one, verdict in zip(answers, verdicts, strict=True):
        kinds[one.slot].append(verdict.correct)
    if set(kinds) == {""}:
        return result
    worst = min(kinds, key=lambda kind: (sum(kinds[kind]) / len(kinds[kind]), kind))
    told = f"{worst} ({sum(kinds[worst])} of {len(kinds[worst])})"
    return msgspec.structs.replace(result, details=result.details | {"kinds of slots": len(kinds), "worst": told})
