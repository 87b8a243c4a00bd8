"""Speech-audio co-reasoning: a spoken question about the sound behind it, answered right, and followed at all.

The paper lets GPT-3.5 judge both from the caption of the background and the question. A judge that says whether an
answer followed is believed; where it does not say, the rule of 30 % word error rate against what is spoken stands in.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from salmonn.scoring.answer import Answer
from salmonn.scoring.judge import Judge
from salmonn.scoring.questions import score as score_questions
from salmonn.scoring.score import Score


def score(answers: Sequence[Answer], judge: Judge) -> Score:
    """Return the judged accuracy and the following rate; the question is what is spoken."""
    spoken = [msgspec.structs.replace(one, question=one.question or one.transcript) for one in answers]
    result = score_questions(spoken, judge)
    return msgspec.structs.replace(result, also=result.also[:1])
