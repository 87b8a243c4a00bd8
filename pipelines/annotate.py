"""Annotate: question-answer pairs for every clip with a text or captions, by a language model or by rule.

What a model answered stands in a journal beside the output, a line a text, under a digest of model, instructions and
text: whatever ends a run, the next one asks only what is not there. The output is written whole from the journal.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Container, Iterator

import msgspec

from manifests import Clip, UserError, files, load_corpus
from manifests.annotations import Row, write
from manifests.chat import Chat, Limits
from manifests.questions import questions_for
from pipelines.ask import Watch, ask_all, describe, key_of, messages_of
from pipelines.journal import open_journal, read_journal
from pipelines.scan import raw_folder

SHOWN = 5
"""How many failures are told in words."""
CHARACTERS_A_TOKEN = 4
"""Of English, about."""
TOKENS_A_PAIR = 45
"""Of an answer in our form, about."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a run has to do."""

    clips: int
    without: int
    """Clips with neither text nor captions."""
    texts: int
    """Different ones."""
    known: int
    """Texts that the journal answers."""
    tokens_in: int
    tokens_out: int

    @property
    def requests(self) -> int:
        """How many requests there will be, if every answer is right at once."""
        return self.texts - self.known


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """What a run made."""

    plan: Plan
    requests: int
    annotated: int
    """Clips with at least one question."""
    pairs: int
    failed: dict[str, int]
    """Reason to the number of texts."""
    examples: tuple[str, ...]
    """The first failures, for a person."""


class Survey(msgspec.Struct, frozen=True, kw_only=True):
    """The clips, and what to ask."""

    plan: Plan
    listed: list[tuple[str, str, str]]
    """Id, path and key of every clip with something to ask about."""
    texts: dict[str, str]
    """Key to text, of what the journal does not know."""


def path_of(clip: Clip) -> str:
    """Return the path that stands for a clip: of its file below ROOT/raw if that is all of it, else its id."""
    corpus = clip.id.partition("/")[0]
    if len(clip.audio) == 1 and clip.audio[0].path and clip.audio[0].start == 0 and clip.audio[0].seconds is None:
        return f"{corpus}/{clip.audio[0].path}"
    return clip.id


def clips_of(root: str, sources: list[tuple[str, str]]) -> Iterator[Clip]:
    """Yield the clips of several splits; what their readers pass over is for the scan to tell."""
    for corpus, split in sources:
        yield from load_corpus(corpus).clips(raw_folder(root, corpus), split, lambda *_: None)


def survey(sources: list[tuple[str, str]], root: str, known: Container[str], model: str, count: int) -> Survey:
    """List the clips and the texts to ask about."""
    listed: list[tuple[str, str, str]] = []
    texts: dict[str, str] = {}
    keys: set[str] = set()
    clips = 0
    for clip in clips_of(root, sources):
        clips += 1
        if described := describe(clip):
            key = key_of(model, described, count)
            listed.append((clip.id, path_of(clip), key))
            keys.add(key)
            if key not in known:
                texts.setdefault(key, described)
    characters = sum(len(message["content"]) for text in texts.values() for message in messages_of(text, count))
    plan = Plan(
        clips=clips,
        without=clips - len(listed),
        texts=len(keys),
        known=len(keys) - len(texts),
        tokens_in=characters // CHARACTERS_A_TOKEN,
        tokens_out=len(texts) * count * TOKENS_A_PAIR,
    )
    return Survey(plan=plan, listed=listed, texts=texts)


def journal_path(out: str) -> str:
    """Return where the answers behind an output are kept."""
    if not files.is_local(out):
        raise UserError(f"--out is {files.redact(out)!r}, but a model's answers are kept beside it: give a local path")
    return f"{files.local(out)}.journal.jsonl"


def price(sources: list[tuple[str, str]], root: str, out: str, model: str, count: int) -> Plan:
    """Return what a run with a model would ask; nothing is asked and nothing written."""
    return survey(sources, root, read_journal(journal_path(out)).entries, model, count).plan


def annotate(
    sources: list[tuple[str, str]],
    root: str,
    out: str,
    *,
    endpoint: str,
    model: str,
    count: int = 3,
    limits: Limits | None = None,
    again: bool = False,
    watch: Watch = lambda *_: None,
) -> Made:
    """Write `count` questions about every clip of `sources`, asked of a model, to `out`; `again` asks failures anew.

    Failed if the endpoint does not answer; what it has answered is kept, and the next run goes on from there.
    """
    chat = Chat(endpoint, model, limits or Limits())
    files.require_writable(os.path.dirname(journal_path(out)) or ".")
    with open_journal(journal_path(out)) as journal:
        if again:
            journal.entries = {key: entry for key, entry in journal.entries.items() if not entry.failed}
        surveyed = survey(sources, root, journal.entries, model, count)
        failures = asyncio.run(ask_all(chat, surveyed.texts, count, journal, watch))
        entries = journal.entries
    pairs_of = {key: entries[key].pairs for _, _, key in surveyed.listed if key in entries}
    kept = {key: entries[key].failed for _, _, key in surveyed.listed if key in entries and entries[key].failed}
    failures = {**kept, **failures}
    rows = (
        Row(path=path, text=answer, task="QA", question=question, clip=clip)
        for clip, path, key in surveyed.listed
        for question, answer in pairs_of.get(key, ())
    )
    return Made(
        plan=surveyed.plan,
        requests=chat.sent,
        annotated=sum(bool(pairs_of.get(key)) for _, _, key in surveyed.listed),
        pairs=write(out, rows),
        failed=dict(sorted(Counter(told.partition(":")[0] for told in failures.values()).items())),
        examples=tuple(f"{clip}: {failures[key]}" for clip, _, key in surveyed.listed if key in failures)[:SHOWN],
    )


def annotate_by_rule(sources: list[tuple[str, str]], root: str, out: str, count: int = 3) -> Made:
    """Write up to `count` questions about every clip of `sources`, made by rule, to `out`; no model, no network."""
    clips = without = annotated = 0

    def rows() -> Iterator[Row]:
        nonlocal clips, without, annotated
        for clip in clips_of(root, sources):
            clips += 1
            without += not describe(clip)
            pairs = questions_for(clip)[:count]
            annotated += bool(pairs)
            for question, answer in pairs:
                yield Row(path=path_of(clip), text=answer, task="QA", question=question, clip=clip.id)

    pairs = write(out, rows())
    plan = Plan(clips=clips, without=without, texts=clips - without, known=0, tokens_in=0, tokens_out=0)
    return Made(plan=plan, requests=0, annotated=annotated, pairs=pairs, failed={}, examples=())
