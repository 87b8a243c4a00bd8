"""Evaluation: a run answers a stage, the answers are scored, and both are told together.

RUN/evaluation/STAGE/            the answers, see salmonn/evaluation/answers.py
RUN/evaluation/STAGE/scores.json their scores; it comes last
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from manifests.files import write_whole
from salmonn.evaluation.answers import Made
from salmonn.evaluation.asking import Asking
from salmonn.evaluation.generate import OnBatch, Request, Share, answer_stage
from salmonn.evaluation.respondent import Respondent, RunModel
from salmonn.scoring.answer import read_answers
from salmonn.scoring.judge import Judge
from salmonn.scoring.results import Results, score_answers

SCORES = "scores.json"


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """What scores.json holds."""

    model: str
    step: int | None
    """Of the checkpoint; None for a model that is not a run's."""
    dataset: str
    """Digest of the dataset."""
    recipe: str
    stage: str
    limit: int | None
    """If set, only so many examples of each task were asked about."""
    tasks: dict[str, Made]
    """How the answers to each task came to be, with the samples that were damaged."""
    results: Results


def evaluate(
    run: str | Path,
    request: Request | None = None,
    *,
    step: int | None = None,
    out: str | Path | None = None,
    anew: bool = False,
    share: Share | None = None,
    judge: Judge | None = None,
    on_batch: OnBatch | None = None,
) -> Evaluation:
    """Answer and score a stage with a run's checkpoint, by default the newest; see `generate_answers`.

    Answers that are there are not asked again. Unfinished ones are scored as they are, and counted.
    """
    model = RunModel(run)
    request = request or Request()
    asking = request.asking(model.config.dataset, model.config.recipe)
    folder = Path(out) if out is not None else model.config.folder / "evaluation" / request.stage
    respondent = model.at(step)
    return assess(
        respondent,
        asking,
        request,
        folder,
        step=respondent.step,
        anew=anew,
        share=share,
        judge=judge,
        on_batch=on_batch,
    )


def assess(
    respondent: Respondent,
    asking: Asking,
    request: Request,
    folder: Path,
    *,
    step: int | None = None,
    anew: bool = False,
    share: Share | None = None,
    judge: Judge | None = None,
    on_batch: OnBatch | None = None,
) -> Evaluation:
    """Let `respondent` answer all that is asked, into `folder`, and score it."""
    made = answer_stage(respondent, asking, request, folder, anew=anew, share=share, on_batch=on_batch)
    evaluation = Evaluation(
        model=respondent.name,
        step=step,
        dataset=asking.dataset.digest,
        recipe=asking.recipe.name,
        stage=asking.stage,
        limit=asking.limit,
        tasks=made,
        results=scored(folder, made, judge),
    )
    content = msgspec.json.format(msgspec.json.encode(evaluation)) + b"\n"
    place = folder / SCORES
    # Made again from the same answers it is the same; then nothing is written.
    if not place.exists() or place.read_bytes() != content:
        write_whole(place, content)
    return evaluation


def scored(folder: Path, made: Mapping[str, Made], judge: Judge | None) -> Results:
    """Return the scores of these tasks' answers alone: a folder may hold those of others, by another model."""
    return score_answers((row for task in made for row in read_answers(folder / f"{task}.jsonl")), judge)
