"""The tasks: what each makes of a clip. A task is a row here and a file prompts/NAME.txt, one paraphrase a line."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import msgspec

from manifests import draw
from manifests.clips import Clip, Instruction
from manifests.errors import UserError, nearest
from manifests.phones import pronounce
from manifests.text import sentence_case

FOLDER = Path(__file__).parent / "prompts"


class NoAnswer(Exception):
    """A clip that a task can ask nothing of; the reason is counted."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """One task. `level` is the paper's: 1 trained, 2 and 3 untrained (SALMONN section 4)."""

    name: str
    level: int
    metric: str
    about: str
    answer: Callable[[Clip], tuple[str, ...]]

    @property
    def prompts(self) -> tuple[str, ...]:
        """The paraphrases of its instruction."""
        return read_prompts(self.name)


@functools.cache
def read_prompts(task: str) -> tuple[str, ...]:
    """Return the lines of prompts/TASK.txt."""
    lines = (FOLDER / f"{task}.txt").read_text(encoding="utf-8").splitlines()
    return tuple(line.strip() for line in lines if line.strip())


def instruct(task: Task, clip: Clip, key: str) -> tuple[Instruction, ...]:
    """Return what `task` asks of `clip`, with the prompt that `key` draws; NoAnswer says why there is nothing."""
    answers = tuple(dict.fromkeys(answer.strip() for answer in task.answer(clip) if answer.strip()))
    if not answers:
        raise NoAnswer("empty_answer")
    return (Instruction(task=task.name, prompt=draw.choice(task.prompts, "stored", key, task.name), answers=answers),)


def transcript(clip: Clip) -> tuple[str, ...]:
    """Return the transcript in the training form."""
    if not clip.text:
        raise NoAnswer("no_text")
    return (sentence_case(clip.text),)


def gender(clip: Clip) -> tuple[str, ...]:
    """Return ``Female`` or ``Male``."""
    if clip.gender not in ("female", "male"):
        raise NoAnswer("no_gender")
    return (clip.gender.capitalize(),)


def phones(clip: Clip) -> tuple[str, ...]:
    """Return the phones of the transcript, with spaces between."""
    if not clip.text:
        raise NoAnswer("no_text")
    spoken = pronounce(sentence_case(clip.text))
    if spoken is None:
        raise NoAnswer("no_pronunciation")
    return (" ".join(spoken),)


def captions(clip: Clip) -> tuple[str, ...]:
    """Return every caption: all are right."""
    if not clip.captions:
        raise NoAnswer("no_caption")
    return clip.captions


ROWS = (
    Task(name="asr", level=1, metric="wer", about="write down what is said", answer=transcript),
    Task(name="phone_recognition", level=1, metric="per", about="write the phones that are heard", answer=phones),
    Task(
        name="gender_recognition",
        level=1,
        metric="accuracy",
        about="say whether a woman or a man speaks",
        answer=gender,
    ),
    Task(name="audio_caption", level=1, metric="caption", about="describe the sound in a sentence", answer=captions),
)
TASKS = {task.name: task for task in ROWS}


def find_task(name: str) -> Task:
    """Return the task called `name`; UserError with the nearest name if there is none."""
    if name not in TASKS:
        raise UserError(f"there is no task {name!r}; {nearest(name, TASKS)}")
    return TASKS[name]
