"""Asking a language model for question-answer pairs about texts: the words, the form of an answer, many at a time."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from typing import Annotated

import msgspec

from manifests import Clip, Failed
from manifests.chat import Chat, Unanswered
from manifests.text import TAG
from pipelines.journal import Entry, Journal

INSTRUCTIONS = """\
You write question-answer pairs for training a model that listens to audio. You are given what is known of a recording:
its transcript, or descriptions of its sounds. The model will hear the recording and see none of this text, so ask about
what is said or heard, never about "the text", "the transcript" or "the description". Every answer must follow from what
is given, and be short. Ask about different things. Answer with JSON alone, in this form, with 1 to {count} pairs:
{{"questions": [{{"question": "...", "answer": "..."}}]}}"""
TRIES = 3
"""How often a model may answer in a wrong form."""
DOWN = 10
"""Texts in a row that get no answer, after all retries, before a run gives up."""
WRONG_ANSWER = "wrong_answer"

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=600, pattern=r"\S")]
Pairs = tuple[tuple[str, str], ...]
Watch = Callable[[str, int, int], None]


class Pair(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One question with its answer, as a model must write it."""

    question: Text
    answer: Text


class Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a model must write."""

    questions: list[Pair]


def describe(clip: Clip) -> str:
    """Return what is known of a clip, as a model is told it; empty if nothing is."""
    text = TAG.sub("", clip.text).strip()
    parts = [f"Transcript:\n{text}"] if text else []
    if captions := [f"- {caption}" for caption in clip.captions if caption.strip()]:
        parts.append("\n".join(["Descriptions:", *captions]))
    return "\n\n".join(parts)


def messages_of(described: str, count: int) -> list[dict[str, str]]:
    """Return the messages that ask for up to `count` pairs."""
    return [
        {"role": "system", "content": INSTRUCTIONS.format(count=count)},
        {"role": "user", "content": described},
    ]


def key_of(model: str, described: str, count: int) -> str:
    """Return the digest under which an answer is kept: of all that it depends on."""
    asked = msgspec.json.encode([model, messages_of(described, count)])
    return hashlib.sha256(asked).hexdigest()


def parse(content: str, count: int) -> Pairs:
    """Return the pairs of a model's answer; ValueError says what is wrong with it."""
    text = content.strip()
    # Many models put JSON between fences, whatever they are told.
    if text.startswith("```") and text.endswith("```") and "\n" in text:
        text = text[text.index("\n") : -3]
    try:
        answer = msgspec.json.decode(text.encode("utf-8", "replace"), type=Answer)
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from None
    if not 1 <= len(answer.questions) <= count:
        raise ValueError(f"{len(answer.questions)} pairs, not 1 to {count}")
    pairs = tuple((pair.question.strip(), pair.answer.strip()) for pair in answer.questions)
    if len({question for question, _ in pairs}) < len(pairs):
        raise ValueError("a question stands there twice")
    return pairs


async def ask_all(chat: Chat, texts: dict[str, str], count: int, journal: Journal, watch: Watch) -> dict[str, str]:
    """Ask about every text and note the answers; return why some of them have none."""
    waiting = iter(texts.items())
    failures: dict[str, str] = {}
    done = in_a_row = 0

    async def work() -> None:
        nonlocal done, in_a_row
        for key, described in waiting:
            try:
                journal.add(Entry(key=key, pairs=await ask(chat, described, count)))
                in_a_row = 0
            except Unanswered as nothing:
                failures[key] = str(nothing)
                in_a_row += 1
                if nothing.reason == WRONG_ANSWER:  # another run would be told the same
                    journal.add(Entry(key=key, failed=str(nothing)))
                if in_a_row >= max(DOWN, 2 * chat.limits.parallel):
                    raise Failed(
                        f"{chat.url}: {in_a_row} texts in a row got no answer, the last for {nothing}; "
                        f"{done + 1 - len(failures):,} of {len(texts):,} are answered and kept, run it again to go on"
                    ) from None
            done += 1
            watch("annotate", done, len(texts))

    async with chat:
        workers = [asyncio.create_task(work()) for _ in range(min(chat.limits.parallel, len(texts)))]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
    return failures


async def ask(chat: Chat, described: str, count: int) -> Pairs:
    """Return the pairs of one text; a wrong answer is asked anew with what is wrong with it."""
    messages = messages_of(described, count)
    error = ""
    for _ in range(TRIES):
        content = await chat.ask(messages)
        try:
            pairs = parse(content, count)
        except ValueError as wrong:
            error = str(wrong)
            told = f"That is not right: {error}. Answer again, with the JSON alone."
            messages = [
                *messages_of(described, count),
                {"role": "assistant", "content": content},
                {"role": "user", "content": told},
            ]
        else:
            return tuple((chat.redact(question), chat.redact(answer)) for question, answer in pairs)
    raise Unanswered(WRONG_ANSWER, chat.shown(error))
