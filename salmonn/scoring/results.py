"""Results: every test set in a folder of answers with its score, a pure function of those files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path

import msgspec

from manifests.errors import UserError
from manifests.tasks import TASKS
from salmonn.scoring.answer import Answer, read_answers
from salmonn.scoring.judge import Judge, StringMatch
from salmonn.scoring.metrics import score
from salmonn.scoring.score import Score


class SetScore(msgspec.Struct, frozen=True, kw_only=True):
    """One test set of one task, as one model answered it."""

    task: str
    corpus: str = ""
    split: str = ""
    model: str = ""
    lora_scale: float = 1.0
    count: int
    """Answers, unfinished ones too."""
    unfinished: int = 0
    """Answers cut off at the longest allowed; scored as they are."""
    cut: int = 0
    """Clips above 30 s whose end was not heard."""
    prompt: str = ""
    """What was asked, or in how many wordings: the wording alone moves a score."""
    decoding: str = ""
    """How answers were searched for."""
    score: Score | None = None
    """None if there is no answer, or no metric for the task; `note` says so."""
    note: str = ""


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """The scores of all test sets, tasks in the order of the paper's tables."""

    judge: str
    """Who judged free answers."""
    sets: tuple[SetScore, ...]


def score_all(path: str | Path, judge: Judge | None = None) -> Results:
    """Score a JSONL file of answers, or all of a folder; UserError if there is none."""
    path = Path(path)
    if (path / "checkpoints").is_dir():  # its log ends with .jsonl, too
        raise UserError(f"{str(path)!r} is the folder of a run; its answers lie below, in {path}/evaluation/STAGE")
    files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    if not files:
        raise UserError(
            f"there are no answers in {str(path)!r}: no file ends with .jsonl; salmonn generate-answers makes them"
        )
    judge = judge or StringMatch()
    return ordered([one for file in files for one in score_file(file, judge)], judge)


def score_file(path: str | Path, judge: Judge | None = None) -> tuple[SetScore, ...]:
    """Score the answers of one file; one without answers is a set of none, named for the file."""
    answers = read_answers(path)
    if not answers:
        return (SetScore(task=Path(path).stem, count=0, note="no answers"),)
    return score_answers(answers, judge or StringMatch()).sets


def score_answers(answers: Iterable[Answer], judge: Judge | None = None) -> Results:
    """Score answers to any tasks, each test set, model and LoRA scale apart."""
    judge = judge or StringMatch()
    groups = groupby(sorted(answers, key=set_of), key=set_of)
    return ordered([score_set(list(group), judge) for _, group in groups], judge)


def set_of(one: Answer) -> tuple[str, str, str, str, float]:
    """Return which test set an answer belongs to, and whose it is."""
    return (one.task, one.corpus, one.split, one.model, one.lora_scale)


def score_set(answers: Sequence[Answer], judge: Judge) -> SetScore:
    """Score the answers of one test set."""
    one = answers[0]
    made: Score | None = None
    note = ""
    if one.task in TASKS:
        made = score(TASKS[one.task].metric, answers, judge)
    else:
        note = f"there is no task {one.task!r}, so no metric for it"
    prompts = {each.prompt for each in answers}
    decodings = sorted({decoding(each) for each in answers})
    return SetScore(
        task=one.task,
        corpus=one.corpus,
        split=one.split,
        model=one.model,
        lora_scale=one.lora_scale,
        count=len(answers),
        unfinished=sum(not each.finished for each in answers),
        cut=sum(each.cut > 0 for each in answers),
        prompt=one.prompt if len(prompts) == 1 else f"{len(prompts)} wordings",
        decoding=" or ".join(decodings),
        score=made,
        note=note,
    )


def decoding(one: Answer) -> str:
    """Return how an answer was searched for; answers of somebody else's program may not say."""
    return f"beam {one.beams}, {one.max_new_tokens} new tokens" if one.beams else "decoding not told"


def ordered(sets: list[SetScore], judge: Judge) -> Results:
    """Return results with tasks in the order of the paper's tables, sets by name."""
    place = {task: number for number, task in enumerate(TASKS)}
    return Results(
        judge=judge.name,
        sets=tuple(sorted(sets, key=lambda one: (place.get(one.task, len(place)), *table_order(one)))),
    )


def table_order(one: SetScore) -> tuple[str, bool, str, str, str, float]:
    """Return where a set stands among those of its task: LibriSpeech before GigaSpeech, as in the paper."""
    return (one.task, one.corpus != "librispeech", one.corpus, one.split, one.model, one.lora_scale)
