"""Answers to every example of a stage, by a run or anyone else: resumable after a kill, in the same bytes.

RUN/evaluation/STAGE/   see salmonn/evaluation/answers.py
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from salmonn.evaluation.answers import Book, Done, Journal, Made, Plan
from salmonn.evaluation.asking import Asking, Read
from salmonn.evaluation.request import Decoding, Request, Share
from salmonn.evaluation.respondent import Respondent, RunModel, RunRespondent

__all__ = ["OnBatch", "Request", "Share", "answer_batches", "answer_stage", "generate_answers", "plan_of", "unanswered"]

LOG = logging.getLogger("salmonn")
OnBatch = Callable[[str, int, int], None]
"""Told a task, how many of its examples a batch answered, and how many there are."""


def generate_answers(
    run: str | Path,
    request: Request | None = None,
    *,
    step: int | None = None,
    out: str | Path | None = None,
    anew: bool = False,
    share: Share | None = None,
    on_batch: OnBatch | None = None,
) -> dict[str, Made]:
    """Let a run's checkpoint, by default the newest, answer every example of a stage; return what was made, by task.

    Answers come into ``RUN/evaluation/STAGE``, or into `out`. Killed and called again, it goes on behind the last
    batch and ends in the same bytes; what is there already is not asked again. UserError if answers are there that
    were made otherwise, unless `anew` lets them be replaced.
    """
    model = RunModel(run)
    request = request or Request()
    asking = request.asking(model.config.dataset, model.config.recipe)
    folder = Path(out) if out is not None else model.config.folder / "evaluation" / request.stage
    return answer_stage(model.at(step), asking, request, folder, anew=anew, share=share, on_batch=on_batch)


def answer_stage(
    respondent: Respondent,
    asking: Asking,
    request: Request,
    folder: Path,
    *,
    anew: bool = False,
    share: Share | None = None,
    on_batch: OnBatch | None = None,
) -> dict[str, Made]:
    """Let `respondent` answer all that is asked, into `folder`; see `generate_answers`.

    Only a run can be shared by several processes.
    """
    books = {task: Book(folder, plan_of(respondent.name, asking, request, task)) for task in asking.batches}
    made = {task: book.open(anew) for task, book in books.items()}
    todo = {task: unanswered(books[task], asking) for task, whole in made.items() if whole is None}
    tell(on_batch, asking, todo)
    if share is not None and (share.workers or share.address):
        from salmonn.evaluation.sharing import answer_on_ray

        assert isinstance(respondent, RunRespondent), "only a run is made anew in other processes"
        answer_on_ray(respondent, asking, request, folder, todo, share, on_batch)
    for task, numbers in todo.items():
        answer_batches(respondent, asking, request, books[task], numbers if not shared(share) else [], on_batch)
        made[task] = books[task].close(len(asking.batches[task]))
    for task, one in made.items():
        if one is not None and one.damaged:
            LOG.warning("%s: %d samples are damaged and were not asked about", task, len(one.damaged))
    return {task: one for task, one in made.items() if one is not None}


def answer_batches(
    respondent: Respondent,
    asking: Asking,
    request: Request,
    book: Book,
    numbers: Sequence[int],
    on_batch: OnBatch | None = None,
    process: int = 0,
) -> None:
    """Answer some batches of a task, each into the journal of this process before the next is begun."""
    if not numbers:
        return
    task = book.plan.task
    with Journal(book, process) as journal:
        for read in asking.read(task, numbers):
            journal.write(answer_batch(respondent, read, request.decoding(task)))
            if on_batch is not None:
                on_batch(task, len(asking.batches[task][read.number]), asking.count(task))


def answer_batch(respondent: Respondent, read: Read, decoding: Decoding) -> Done:
    """Return the answers to one batch."""
    waves = [one.wave_S for one in read.heard]
    replies = respondent.reply(waves, [one.open.prompt for one in read.heard], decoding) if waves else []
    answers = tuple(
        msgspec.structs.replace(
            one.open,
            answer=reply.answer,
            finished=reply.finished,
            model=respondent.name,
            beams=decoding.beams,
            max_new_tokens=decoding.max_new_tokens,
            lora_scale=decoding.lora_scale,
            seed=decoding.seed,
        )
        for one, reply in zip(read.heard, replies, strict=True)
    )
    return Done(number=read.number, answers=answers, damaged=read.damaged)


def plan_of(name: str, asking: Asking, request: Request, task: str) -> Plan:
    """Return all that the answers to a task depend on."""
    decoding = request.decoding(task)
    return Plan(
        task=task,
        model=name,
        dataset=asking.dataset.digest,
        recipe=asking.recipe.name,
        stage=asking.stage,
        rows=asking.digest(task),
        questions=asking.count(task),
        limit=asking.limit,
        seed=asking.seed,
        beams=decoding.beams,
        max_new_tokens=decoding.max_new_tokens,
        lora_scale=decoding.lora_scale,
        batch_seconds=asking.budget.seconds,
        batch_examples=asking.budget.examples,
    )


def unanswered(book: Book, asking: Asking) -> list[int]:
    """Return the numbers of the batches that a begun book does not hold yet."""
    return sorted(set(range(len(asking.batches[book.plan.task]))) - book.batches().keys())


def shared(share: Share | None) -> bool:
    """Whether other processes answer."""
    return share is not None and bool(share.workers or share.address)


def tell(on_batch: OnBatch | None, asking: Asking, todo: dict[str, list[int]]) -> None:
    """Tell how many examples of each task were answered before."""
    if on_batch is not None:
        for task, batches in asking.batches.items():
            left = sum(len(batches[number]) for number in todo.get(task, ()))
            on_batch(task, asking.count(task) - left, asking.count(task))
