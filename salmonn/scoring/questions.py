"""Questions with free answers: the share that a judge finds right, the overlap of words, and who followed at all."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from salmonn.scoring import following
from salmonn.scoring.answer import Answer
from salmonn.scoring.bootstrap import mean_interval
from salmonn.scoring.judge import UNSAID, Judge, Verdict
from salmonn.scoring.score import Score

SIGN = re.compile(r"[^\w\s]")
ARTICLE = re.compile(r"\b(?:a|an|the)\b")


def score(answers: Sequence[Answer], judge: Judge) -> Score:
    """Return the judged accuracy; beside it the following rate and the F1 of tokens."""
    return judged(answers, judge, ask(answers, judge))


def ask(answers: Sequence[Answer], judge: Judge) -> list[Verdict]:
    """Return the judge's verdicts; an answer of nothing is wrong without asking."""
    put = [(one.question or one.slot or one.prompt, one.references, one.answer) for one in answers]
    judge.prepare([each for each in put if each[2].strip()])
    nothing = Verdict(correct=False, reason="no answer", followed=False)
    return [judge.judge(*each) if each[2].strip() else nothing for each in put]


def judged(answers: Sequence[Answer], judge: Judge, verdicts: Sequence[Verdict]) -> Score:
    """Return the scores that verdicts come to."""
    right = [verdict.correct for verdict in verdicts]
    unsaid = sum(verdict.reason == UNSAID for verdict in verdicts)
    without: dict[str, float | str] = {"without a valid verdict": unsaid} if unsaid else {}
    low, high = mean_interval(right)
    told = [verdict.followed for verdict in verdicts]
    # An empty answer followed nothing, but only a rule or a judge can speak for the others.
    by_judge = (
        told if any(said is not None for said, one in zip(told, answers, strict=True) if one.answer.strip()) else None
    )
    return Score(
        name="accuracy",
        value=sum(right) / len(answers),
        low=low,
        high=high,
        count=len(answers),
        details={"correct": sum(right), "judge": judge.name, **without},
        also=(following.score(answers, by_judge), token_f1(answers)),
    )


def token_f1(answers: Sequence[Answer]) -> Score:
    """Return the mean F1 of tokens against the nearest reference, counted as for SQuAD (Rajpurkar et al., 2016)."""
    values = [max(f1(reference, one.answer) for reference in one.references) for one in answers]
    low, high = mean_interval(values)
    return Score(
        name="token F1",
        value=sum(values) / len(values),
        low=low,
        high=high,
        count=len(values),
        details={"normalizer": "lower case, without punctuation and articles, as for SQuAD"},
    )


def f1(reference: str, answer: str) -> float:
    """Return the harmonic mean of the shares of tokens that reference and answer have in common."""
    right, said = tokens(reference), tokens(answer)
    if not right or not said:
        return float(bool(answer.strip()) and reference.strip() == answer.strip())
    common = sum((Counter(right) & Counter(said)).values())
    return 2 * common / (len(right) + len(said))


def tokens(text: str) -> list[str]:
    """Return the tokens that count."""
    return ARTICLE.sub(" ", SIGN.sub("", text.lower())).split()
