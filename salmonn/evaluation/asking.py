"""What is asked: every example of a stage once, task by task, in batches of similar length; fixed by the dataset alone.

The prompt of an example is the one in its shard: its wording moves the scores, so it is never drawn anew. Which
batch an example is in depends on nothing but the index, the recipe and the size of a batch, so that a run that was
killed, or that many processes share, asks the same batches.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import msgspec
import numpy as np
import numpy.typing as npt

from manifests import TASKS, Recipe, UserError, draw
from manifests.errors import nearest
from manifests.recipe import Row
from salmonn.evaluation.answers import Damage
from salmonn.scoring.answer import Answer
from salmonn.scoring.metrics import JUDGED
from shards import Dataset
from shards.audio import Refused, read_flac
from shards.flac import RATE
from shards.plan import Budget, cut_batches
from shards.queues import make_queues
from shards.reading import Damaged, Held, Reader

LONGEST = 30.0
"""Seconds that a model hears of a clip."""
SPOKEN = ("spoken_query_qa", "speech_audio_coreasoning")
"""Tasks whose question is what the clip says."""


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """One example of a task, not read yet."""

    row: int
    """Its sample's, in the concatenated index."""
    instruction: int
    """Which of that sample."""
    key: str
    seconds: float


class Heard(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One example, read: what a model is given, and the row of its answer with the answer still open."""

    wave_S: npt.NDArray[np.float32]
    """Mono at 16 kHz, in [-1, 1], the first 30 s."""
    open: Answer


class Read(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A batch as it was read."""

    number: int
    heard: tuple[Heard, ...]
    damaged: tuple[Damage, ...]


class Asking:
    """All that is asked of a stage."""

    def __init__(
        self,
        dataset: Dataset,
        recipe: Recipe,
        stage: str,
        *,
        tasks: Sequence[str] = (),
        limit: int | None = None,
        seed: int = 0,
        batch_seconds: float = 480.0,
        batch_examples: int = 16,
    ) -> None:
        """Ask the stage's `tasks`, by default all; of each at most `limit` examples, drawn by `seed`.

        UserError if the dataset does not hold the rows, or for a task that the stage has not.
        """
        if limit is not None and limit < 1:
            raise UserError(f"limit is {limit}; it must be at least 1, or left out")
        if batch_examples < 1 or batch_seconds < LONGEST:
            raise UserError(
                f"a batch of {batch_examples} examples and {batch_seconds:g} s cannot be; it needs at least one "
                f"example, and {LONGEST:g} s, the longest that is heard of one"
            )
        self.rows = rows_of(recipe, stage, tasks)
        self.dataset, self.recipe, self.stage = dataset, recipe, stage
        self.limit, self.seed = limit, seed
        self.budget = Budget(seconds=batch_seconds, examples=batch_examples, longest=LONGEST)
        self.sources, self.firsts, queues = make_queues(dataset, self.rows, count=None, tokens=False)
        keys = [key for source in self.sources for key in dataset.table(*source, ["key"])["key"].to_pylist()]
        found: dict[str, list[Question]] = {}
        for queue in queues:
            columns = (queue.sample.tolist(), queue.instruction.tolist(), queue.seconds.tolist())
            found.setdefault(queue.row.task, []).extend(
                Question(row=row, instruction=place, key=keys[row], seconds=seconds)
                for row, place, seconds in zip(*columns, strict=True)
            )
        self.batches = {task: self.cut(task, found[task]) for task in sorted(found)}
        """Task to its batches, the longest clips first: what does not fit into memory shows at once."""
        self.reader: Reader | None = None

    def cut(self, task: str, questions: list[Question]) -> list[list[Question]]:
        """Return the questions of a task in batches; with a limit, those that a hash of their keys puts first."""
        if self.limit is not None:
            questions.sort(key=lambda one: draw.number("ask", self.seed, task, one.key, one.instruction))
            questions = questions[: self.limit]
        questions.sort(key=lambda one: (min(one.seconds, LONGEST), one.key, one.instruction))
        starts = cut_batches(np.array([min(one.seconds, LONGEST) for one in questions]), self.budget)
        return [questions[a:b] for a, b in itertools.pairwise(starts)][::-1]

    def count(self, task: str) -> int:
        """Return how many examples of a task are asked about."""
        return sum(map(len, self.batches[task]))

    def digest(self, task: str) -> str:
        """Return what identifies the rows of one task."""
        rows = [row for row in self.rows if row.task == task]
        mine = [(row.corpus, row.splits, row.min_seconds, repr(row.max_seconds), row.language) for row in rows]
        return hashlib.sha256(msgspec.json.encode(mine)).hexdigest()

    def read(self, task: str, numbers: Sequence[int]) -> Iterator[Read]:
        """Yield these batches of a task with their audio; the next is read while one is at work."""
        with ThreadPoolExecutor(1, thread_name_prefix="asking") as pool:
            ahead = [pool.submit(self.read_batch, task, number) for number in numbers[:1]]
            for following in (*numbers[1:], None):
                batch = ahead.pop().result()
                if following is not None:
                    ahead.append(pool.submit(self.read_batch, task, following))
                yield batch

    def read_batch(self, task: str, number: int) -> Read:
        """Read one batch; damaged samples are named, not asked about."""
        if self.reader is None:
            self.reader = Reader(self.dataset, self.sources)
        heard, damaged = [], []
        for question in self.batches[task][number]:
            try:
                held = self.reader.read(question.row)
                pcm = read_flac(bytes(held.flac), held.where, crc32=held.crc32, frames=held.samples)
            except (Damaged, Refused) as error:
                damaged.append(Damage(key=question.key, why=str(error)))
                continue
            wave_S = pcm[: round(LONGEST * RATE)].astype(np.float32) / np.float32(32768)
            heard.append(Heard(wave_S=wave_S, open=open_answer(held, question.instruction, len(wave_S))))
        return Read(number=number, heard=tuple(heard), damaged=tuple(damaged))


def rows_of(recipe: Recipe, stage: str, tasks: Sequence[str]) -> tuple[Row, ...]:
    """Return the rows of a stage for some of its tasks, or for all; UserError for one that it has not."""
    rows = recipe.stage(stage)
    own = {row.task for row in rows}
    for task in tasks:
        if task not in own:
            raise UserError(f"stage {stage!r} of recipe {recipe.name!r} has no task {task!r}; {nearest(task, own)}")
    return tuple(row for row in rows if not tasks or row.task in tasks)


def open_answer(held: Held, instruction: int, samples: int) -> Answer:
    """Return the row of an example with nothing answered yet."""
    sample = held.sample
    asked = sample.instructions[instruction]
    judged = TASKS[asked.task].metric in JUDGED
    return Answer(
        key=sample.key,
        task=asked.task,
        corpus=sample.corpus,
        split=sample.split,
        prompt=asked.prompt,
        slot=asked.slot,
        answer="",
        references=asked.answers,
        finished=False,
        seconds=samples / RATE,
        cut=(held.samples - samples) / RATE,
        question=question_of(asked.task, asked.prompt, asked.slot, sample.text) if judged else "",
        transcript=sample.text if judged else "",
    )


def question_of(task: str, prompt: str, slot: str, text: str) -> str:
    """Return the question that an answer is judged against: the one spoken, the one written, or the whole prompt."""
    if task in SPOKEN:
        return text
    # A slot's name alone is no question: the prompt asks for it.
    return slot if slot and task != "slot_filling" else prompt
