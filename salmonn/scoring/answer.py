"""An answer: one line of a task's JSONL file, which is all that a score is made of."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import msgspec

from manifests.errors import UserError

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Signs that no language writes: outside programs that count lines or end a text at a null trip over them."""


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One question to a model about one clip, what it answered, and what would have been right."""

    key: str
    task: str
    corpus: str = ""
    split: str = ""
    prompt: str = ""
    slot: str = ""
    """What filled the place held open in the prompt: of slot filling, the name of the slot."""
    answer: str
    references: tuple[str, ...]
    """Every right answer; of a story, what can be heard."""
    finished: bool = True
    """Whether the model ended the answer itself, within the allowed number of tokens."""
    seconds: float = 0.0
    """Of audio that was heard."""
    cut: float = 0.0
    """Seconds of the clip behind 30 s, that were not."""
    question: str = ""
    """What a judge holds the answer against: the question asked or spoken."""
    transcript: str = ""
    """What is said in the clip: an answer that repeats it has not followed its instruction."""
    lora_scale: float = 1.0
    seed: int = 0
    beams: int = 1
    max_new_tokens: int = 200
    model: str = ""
    """Who answered: a run and its step, or a foreign model."""


def read_answers(path: str | Path) -> list[Answer]:
    """Return the answers of a JSONL file; UserError names the line that is none, or that answers a question twice."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UserError(
            f"cannot read the answers in {str(path)!r}: {error.strerror}; salmonn generate-answers writes a file a task"
        ) from None
    decoder = msgspec.json.Decoder(Answer)
    found: list[Answer] = []
    asked: dict[tuple[object, ...], int] = {}
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            answer = decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UserError(f"{path}, line {number}, is not an answer: {error}") from None
        # A row that stands twice counts twice, and no score shows it.
        first = asked.setdefault(identity(answer), number)
        if first != number:
            raise UserError(f"{path}: line {number} answers {answer.key!r} again, after line {first}; keep one of them")
        found.append(answer)
    return found


def identity(answer: Answer) -> tuple[object, ...]:
    """Return what tells a question and who answers it from every other."""
    who = (answer.model, answer.lora_scale, answer.seed, answer.beams, answer.max_new_tokens)
    return (answer.task, answer.corpus, answer.split, answer.key, answer.prompt, answer.slot, *who)


def tidy(answers: Iterable[Answer]) -> list[Answer]:
    """Return answers in an order of their own, so that no score depends on another, without unwritable signs.

    An answer without a reference gets an empty one: what is said then is too much, and nothing is right.
    """
    cleaned = [
        msgspec.structs.replace(
            one,
            answer=plain(one.answer),
            references=tuple(plain(reference) for reference in one.references) or ("",),
            question=plain(one.question),
            transcript=plain(one.transcript),
        )
        for one in answers
    ]
    return sorted(
        cleaned, key=lambda one: (one.task, one.corpus, one.split, one.key, one.prompt, msgspec.json.encode(one))
    )


def plain(text: str) -> str:
    """Return `text` with a space for each control sign but tabs and line ends."""
    return CONTROL.sub(" ", text.replace("\r\n", "\n")) if not text.isprintable() else text
