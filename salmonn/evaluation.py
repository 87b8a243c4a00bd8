"""Evaluation: every example of a stage answered once, written down, and scored by its task's metric.

RUN/evaluation/<task>.jsonl  one line an example: key, prompt, answer, references, whether it was finished
RUN/evaluation/scores.json   the scores, with counts, and how the answers were decoded
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec

from manifests import TASKS, load_recipe
from manifests.errors import UserError
from salmonn.metrics import Score, find_scorer, score
from salmonn.model import Salmonn
from salmonn.training.run import load_run, replace_file
from shards import Dataset, Stream


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One line of <task>.jsonl."""

    key: str
    task: str
    prompt: str
    answer: str
    references: tuple[str, ...]
    finished: bool
    """Whether the model ended the answer itself, within the allowed number of tokens."""
    seconds: float
    """Of audio that was heard."""
    cut: float
    """Seconds of the clip behind 30 s, that were not."""


class TaskResult(msgspec.Struct, frozen=True, kw_only=True):
    """One task's part of an evaluation."""

    task: str
    count: int
    """Examples answered: all that were dealt, unfinished ones too."""
    unfinished: int
    """Answers cut off at `max_new_tokens`; scored as they are."""
    cut: int
    """Clips above 30 s whose end was not heard."""
    score: Score | None
    """None if the task's metric has no scorer yet; `note` says so."""
    note: str = ""


class EvaluationResult(msgspec.Struct, frozen=True, kw_only=True):
    """What scores.json holds."""

    folder: Path
    step: int
    """Of the checkpoint."""
    dataset: str
    """Digest of the dataset."""
    recipe: str
    stage: str
    limit: int | None
    """If set, only so many examples were dealt."""
    beams: int
    max_new_tokens: int
    tasks: tuple[TaskResult, ...]


def evaluate(
    run: str | Path,
    *,
    dataset: str | None = None,
    recipe: str | None = None,
    stage: str = "evaluate",
    limit: int | None = None,
    beams: int = 1,
    max_new_tokens: int = 200,
    on_batch: Callable[[int], None] | None = None,
) -> EvaluationResult:
    """Answer and score a stage with the run's newest checkpoint; dataset and recipe default to the run's own.

    Every example is answered exactly once, or the first `limit` that are dealt. `on_batch` is told how many examples
    each batch had. Unfinished answers are scored as they are, and counted.
    """
    if limit is not None and limit < 1:
        raise UserError(f"limit is {limit}; it must be at least 1, or left out")
    config, model, step = load_run(run)
    data = Dataset(dataset or config.dataset)
    stream = Stream(
        data,
        load_recipe(recipe or config.recipe),
        stage=stage,
        seed=0,
        max_seconds=config.batch.max_seconds,
        max_examples=config.batch.max_examples,
        epochs=1,
        # The prompt of an example is the one in its shard, whatever the seed: its wording moves the scores.
        prompts="stored",
        threads=config.batch.readers,
    )
    answers = answer_all(model, stream, limit=limit, beams=beams, max_new_tokens=max_new_tokens, on_batch=on_batch)
    result = EvaluationResult(
        folder=Path(run) / "evaluation",
        step=step,
        dataset=data.digest,
        recipe=recipe or config.recipe,
        stage=stage,
        limit=limit,
        beams=beams,
        max_new_tokens=max_new_tokens,
        tasks=tuple(score_task(task, answers[task]) for task in sorted(answers)),
    )
    write_result(result, answers)
    return result


def answer_all(
    model: Salmonn,
    batches: Iterable[Any],
    *,
    limit: int | None,
    beams: int,
    max_new_tokens: int,
    on_batch: Callable[[int], None] | None,
) -> dict[str, list[Answer]]:
    """Return the answers to every example of `batches` by task, in the order of their keys."""
    answers: dict[str, list[Answer]] = {}
    done = 0
    for batch in batches:
        examples = batch.examples if limit is None else batch.examples[: limit - done]
        prompts = [model.config.prompt.wrap(example.prompt) for example in examples]
        ids = model.generate_ids([example.audio for example in examples], prompts, beams, max_new_tokens)
        for example, new in zip(examples, ids, strict=True):
            answer = Answer(
                key=example.key,
                task=example.task,
                prompt=example.prompt,
                answer=model.decode(new),
                references=tuple(example.answers),
                finished=new[-1:] == [model.tokenizer.eos_token_id],
                seconds=example.seconds,
                cut=example.cut,
            )
            answers.setdefault(example.task, []).append(answer)
        done += len(examples)
        if on_batch is not None:
            on_batch(len(examples))
        if done == limit:
            break
    return {task: sorted(lines, key=lambda line: (line.key, line.prompt)) for task, lines in answers.items()}


def score_task(task: str, answers: list[Answer]) -> TaskResult:
    """Return the score of one task's answers, or why there is none."""
    result, note = None, ""
    try:
        find_scorer(TASKS[task].metric)
    except UserError as error:
        note = str(error)
    else:
        result = score(TASKS[task].metric, [a.references for a in answers], [a.answer for a in answers])
    cut = sum(answer.cut > 0 for answer in answers)
    unfinished = sum(not answer.finished for answer in answers)
    return TaskResult(task=task, count=len(answers), unfinished=unfinished, cut=cut, score=result, note=note)


def write_result(result: EvaluationResult, answers: dict[str, list[Answer]]) -> None:
    """Write the answers of each task, then the scores; files of an earlier evaluation are replaced."""
    result.folder.mkdir(parents=True, exist_ok=True)
    # scores.json goes first and comes last, so that its existence means that all of it is there.
    for old in (result.folder / "scores.json", *result.folder.glob("*.jsonl")):
        old.unlink(missing_ok=True)
    for task, lines in answers.items():
        content = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
        replace_file(result.folder / f"{task}.jsonl", content)
    plain = msgspec.to_builtins(result, enc_hook=str)
    plain["folder"] = "evaluation"
    replace_file(result.folder / "scores.json", msgspec.json.format(msgspec.json.encode(plain)) + b"\n")
