"""The metrics by name, as the rows of manifests/tasks.py name them: a task's row says how it is scored."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from manifests.errors import UserError, nearest
from salmonn.scoring import (
    captions,
    choices,
    coreasoning,
    keywords,
    music,
    phones,
    questions,
    slots,
    speakers,
    story,
    translation,
    words,
)
from salmonn.scoring.answer import Answer, tidy
from salmonn.scoring.judge import Judge, StringMatch
from salmonn.scoring.score import Score

METRICS: dict[str, Callable[[Sequence[Answer]], Score]] = {
    "wer": words.score,
    "per": phones.score,
    "cpwer": speakers.score,
    "bleu_zh": translation.chinese,
    "bleu_de": translation.german,
    "bleu_ja": translation.japanese,
    "caption": captions.score,
    "music_caption": music.score,
    "accuracy": choices.score,
    "keywords": keywords.score,
    "story": story.score,
}
JUDGED: dict[str, Callable[[Sequence[Answer], Judge], Score]] = {
    "judge": questions.score,
    "slots": slots.score,
    "coreasoning": coreasoning.score,
}
"""Metrics whose answers are free: somebody has to say which are right."""


def score(metric: str, answers: Sequence[Answer], judge: Judge | None = None) -> Score:
    """Return the score of answers, whatever their order; UserError for a metric that there is not.

    Answers of any text can be scored: an empty one is wrong, and signs that no language writes count as spaces.
    """
    if not answers:
        raise ValueError("0 answers; there must be at least 1 to score")
    ordered = tidy(answers)
    if metric in JUDGED:
        return JUDGED[metric](ordered, judge or StringMatch())
    if metric not in METRICS:
        raise UserError(f"there is no metric {metric!r}; {nearest(metric, METRICS | JUDGED)}")
    return METRICS[metric](ordered)
