"""The tasks: what each makes of a clip. A task is a row here and a file prompts/NAME.txt, one paraphrase a line."""

from __future__ import annotations

import functools
import hashlib
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


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """One thing a task asks of a clip: every right answer, and what fills the place held open in its prompts."""

    answers: tuple[str, ...]
    slot: str = ""


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """One task. `level` is the paper's: 1 trained, 2 and 3 untrained (SALMONN section 4)."""

    name: str
    level: int
    metric: str
    about: str
    ask: Callable[[Clip], tuple[Ask, ...]]
    judged_by: Callable[[Clip], tuple[Ask, ...]] | None = None
    """For a task without one right answer: what an evaluation holds answers against. Nobody trains on it."""

    @property
    def prompts(self) -> tuple[str, ...]:
        """The paraphrases of its instruction; ``{}`` is the place of the slot."""
        return read_prompts(self.name)

    def prompt(self, slot: str, *names: str | int) -> str:
        """Return the paraphrase that `names` draw, with its slot filled."""
        return draw.choice(self.prompts, *names).replace("{}", slot)


@functools.cache
def read_prompts(task: str) -> tuple[str, ...]:
    """Return the lines of prompts/TASK.txt."""
    lines = (FOLDER / f"{task}.txt").read_text(encoding="utf-8").splitlines()
    return tuple(line.strip() for line in lines if line.strip())


def digest_of_task(task: Task) -> str:
    """Return the digest of what a task would ask and answer: of its prompts, and of the code of its rule."""
    here = Path(__file__).parent
    rooms = ["tasks.py", "text.py", *(["phones.py"] if task.name == "phone_recognition" else [])]
    told = "\n".join(task.prompts).encode() + b"".join((here / room).read_bytes() for room in rooms)
    return hashlib.sha256(told).hexdigest()


def asks(task: Task, clip: Clip, evaluated: bool) -> tuple[Ask, ...]:
    """Return what a task asks; where only its evaluation is wanted, what that is judged by will do."""
    try:
        return task.ask(clip)
    except NoAnswer:
        if not evaluated or task.judged_by is None:
            raise
        return task.judged_by(clip)


def instruct(task: Task, clip: Clip, key: str, *, evaluated: bool = False) -> tuple[Instruction, ...]:
    """Return what `task` asks of `clip`, with the prompts that `key` draws; NoAnswer says why there is nothing.

    `evaluated` says that no stage of training uses it.
    """
    instructions = []
    for number, ask in enumerate(asks(task, clip, evaluated)):
        answers = tuple(dict.fromkeys(answer.strip() for answer in ask.answers if answer.strip()))
        if answers:
            prompt = task.prompt(ask.slot, "stored", key, task.name, number)
            instructions.append(Instruction(task=task.name, prompt=prompt, answers=answers, slot=ask.slot))
    if not instructions:
        raise NoAnswer("empty_answer")
    return tuple(instructions)


def transcript(clip: Clip) -> tuple[Ask, ...]:
    """Return the transcript in the training form."""
    if not clip.text:
        raise NoAnswer("no_text")
    return (Ask(answers=(sentence_case(clip.text),)),)


def gender(clip: Clip) -> tuple[Ask, ...]:
    """Return ``Female`` or ``Male``."""
    if clip.gender not in ("female", "male"):
        raise NoAnswer("no_gender")
    return (Ask(answers=(clip.gender.capitalize(),)),)


def phones(clip: Clip) -> tuple[Ask, ...]:
    """Return the phones of the transcript, with spaces between."""
    if not clip.text:
        raise NoAnswer("no_text")
    spoken = pronounce(sentence_case(clip.text))
    if spoken is None:
        raise NoAnswer("no_pronunciation")
    return (Ask(answers=(" ".join(spoken),)),)


def captions(clip: Clip) -> tuple[Ask, ...]:
    """Return every caption: all are right."""
    if not clip.captions:
        raise NoAnswer("no_caption")
    return (Ask(answers=clip.captions),)


def label(name: str, answers: dict[str, str] | None = None) -> Callable[[Clip], tuple[Ask, ...]]:
    """Return a rule that answers with a label, as `answers` words its values, or as it is."""

    def rule(clip: Clip) -> tuple[Ask, ...]:
        value = clip.labels.get(name, "")
        if not value or (answers is not None and value not in answers):
            raise NoAnswer(f"no_{name}")
        return (Ask(answers=(answers[value] if answers else value,)),)

    return rule


def translation(language: str) -> Callable[[Clip], tuple[Ask, ...]]:
    """Return a rule that answers with the translation into `language`."""

    def rule(clip: Clip) -> tuple[Ask, ...]:
        if not clip.translations.get(language):
            raise NoAnswer("no_translation")
        return (Ask(answers=(clip.translations[language],)),)

    return rule


def overlapped(clip: Clip) -> tuple[Ask, ...]:
    """Return what every speaker says, a sentence each: ``Sentence one. Sentence two.``"""
    sentences = [sentence for line in clip.text.splitlines() if (sentence := sentence_case(line))]
    if len(sentences) < 2:
        raise NoAnswer("no_second_speaker")
    return (Ask(answers=(" ".join(f"{sentence}." for sentence in sentences),)),)


def questions(clip: Clip) -> tuple[Ask, ...]:
    """Return every question with its answers; several answers of one question are all right."""
    answers: dict[str, list[str]] = {}
    for question, answer in clip.questions:
        if question:
            answers.setdefault(question, []).append(answer)
    if not answers:
        raise NoAnswer("no_question")
    return tuple(Ask(answers=tuple(right), slot=question) for question, right in answers.items())


def spoken_question(clip: Clip) -> tuple[Ask, ...]:
    """Return the answers to the question that the clip itself asks."""
    right = tuple(answer for question, answer in clip.questions if not question)
    if not right:
        raise NoAnswer("no_answer")
    return (Ask(answers=right),)


def keywords(clip: Clip) -> tuple[Ask, ...]:
    """Return all keyphrases in one answer, with commas between."""
    if not clip.labels.get("keywords"):
        raise NoAnswer("no_keywords")
    return (Ask(answers=(", ".join(part.strip() for part in clip.labels["keywords"].split(";") if part.strip()),)),)


JUDGED_BY = {"audio_story": captions}
"""A story is judged by what can be heard."""
EMOTIONS = {"neutral": "Neutral", "happy": "Happy", "sad": "Sad", "angry": "Angry"}
YES_NO = {"yes": "Yes", "no": "No"}

# name, level, metric, what it asks, rule; in the order of the paper's tables.
ROWS: tuple[tuple[str, int, str, str, Callable[[Clip], tuple[Ask, ...]]], ...] = (
    ("asr", 1, "wer", "write down what is said", transcript),
    ("translation_en_zh", 1, "bleu_zh", "translate English speech into Chinese", translation("zh-CN")),
    ("audio_caption", 1, "caption", "describe the sound in a sentence", captions),
    ("phone_recognition", 1, "per", "write the phones that are heard", phones),
    ("emotion_recognition", 1, "accuracy", "name the speaker's emotion", label("emotion", EMOTIONS)),
    ("music_caption", 1, "music_caption", "describe the music", captions),
    ("overlapped_speech_recognition", 1, "cpwer", "write down what each of several speakers says", overlapped),
    ("speaker_verification", 1, "accuracy", "say whether one person speaks throughout", label("same_speaker", YES_NO)),
    ("gender_recognition", 1, "accuracy", "say whether a woman or a man speaks", gender),
    ("speech_qa", 1, "judge", "answer a question about what is said", questions),
    ("audio_qa", 1, "judge", "answer a question about the sounds", questions),
    ("music_qa", 1, "judge", "answer a question about the music", questions),
    ("translation_en_de", 2, "bleu_de", "translate English speech into German", translation("de")),
    ("translation_en_ja", 2, "bleu_ja", "translate English speech into Japanese", translation("ja")),
    ("keyword_extraction", 2, "keywords", "name the keywords of a talk", keywords),
    ("spoken_query_qa", 2, "judge", "answer a spoken question", spoken_question),
    ("slot_filling", 2, "slots", "find the value of a slot in a request", questions),
    ("audio_story", 3, "story", "tell a story that fits the sound", label("story")),
    ("speech_audio_coreasoning", 3, "coreasoning", "answer a spoken question about the background", spoken_question),
)
TASKS = {
    name: Task(name=name, level=level, metric=metric, about=about, ask=rule, judged_by=JUDGED_BY.get(name))
    for name, level, metric, about, rule in ROWS
}


def find_task(name: str) -> Task:
    """Return the task called `name`; UserError with the nearest name if there is none."""
    if name not in TASKS:
        raise UserError(f"there is no task {name!r}; {nearest(name, TASKS)}")
    return TASKS[name]
