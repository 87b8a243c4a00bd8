"""Answers that somebody else's program gave, joined to the questions of a stage, and written as those of a run are.

A file is JSON lines or CSV with the columns ``key`` and ``answer``; ``task``, ``prompt`` and ``slot`` where a key alone
does not say which question was answered. The samples that lmms-eval logs of our export are taken as they are.
"""

from __future__ import annotations

import csv
import hashlib
import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from manifests.errors import UserError
from salmonn.evaluation.answers import Book, Damage, Done, Journal, Made
from salmonn.evaluation.asking import LONGEST, Asking, Question, open_answer
from salmonn.evaluation.generate import plan_of
from salmonn.evaluation.request import Request
from salmonn.scoring.answer import Answer
from shards.flac import RATE
from shards.reading import Damaged, Reader

LOG = logging.getLogger("salmonn")
TEXTS = ("key", "answer", "task", "prompt", "slot")
OURS = Answer(key="", task="", answer="", references=())
"""What a row of ours leaves out is as here."""
SHOWN = 5
"""How many keys are named."""


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """One answer of the file."""

    key: str
    answer: str
    task: str = ""
    prompt: str = ""
    slot: str = ""
    finished: bool = True
    lora_scale: float = 1.0
    seed: int = 0
    beams: int = 0
    """0, as the next, if the file does not say how the answer was searched for."""
    max_new_tokens: int = 0
    line: int = 0

    def fits(self, asked: Answer) -> bool:
        """Whether it answers this question: where it says more than a key, that has to be the same."""
        own, theirs = (self.task, self.prompt, self.slot), (asked.task, asked.prompt, asked.slot)
        return self.key == asked.key and all(said in ("", meant) for said, meant in zip(own, theirs, strict=True))


class Joined(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a file."""

    made: dict[str, Made]
    taken: int
    unknown: tuple[str, ...]
    """Keys of answers to no question that is asked."""
    missing: tuple[str, ...]
    """``task key`` of questions without an answer: they count as answered with nothing."""


def take_answers(
    path: str | Path, asking: Asking, request: Request, folder: Path, *, model: str = "", anew: bool = False
) -> Joined:
    """Write the answers of a file to the questions of `asking` into `folder`, as a run's; a missing one is empty.

    `model` is who gave them, by default the file. UserError for a file that is none, for two answers to one question,
    for one answer that fits two, and if none fits any.
    """
    content = read(path)
    given = list(parse(content, Path(path)))
    name = model or f"answers:{Path(path).name}@{hashlib.sha256(content).hexdigest()[:12]}"
    by_key: dict[str, list[Given]] = {}
    for one in given:
        by_key.setdefault(one.key, []).append(one)
    reader = Reader(asking.dataset, asking.sources)
    used: dict[int, Answer] = {}
    missing: list[str] = []
    batches: dict[str, list[Done]] = {}
    for task, questions in asking.batches.items():
        for number, batch in enumerate(questions):
            rows, damaged = [], []
            for question in batch:
                try:
                    asked = opened(reader, question)
                except Damaged as error:
                    damaged.append(Damage(key=question.key, why=str(error)))
                    continue
                answer = choose(path, by_key.get(asked.key, []), asked, used)
                if answer is None:
                    missing.append(f"{task} {asked.key}")
                rows.append(filled(asked, answer, name))
            batches.setdefault(task, []).append(Done(number=number, answers=tuple(rows), damaged=tuple(damaged)))
    if not used:
        raise UserError(
            f"{path}: none of its {len(given)} keys is that of a question of stage {asking.stage!r}; the first is "
            f"{given[0].key!r}" + (f", one that is asked for is {missing[0]!r}" if missing else "")
        )
    made = {}
    for task, done in batches.items():
        book = Book(folder, plan_of(name, asking, request, task))
        whole = book.open(anew)
        if whole is None:
            there = book.batches()
            with Journal(book) as journal:
                for batch_done in done:
                    if batch_done.number not in there:
                        journal.write(batch_done)
            whole = book.close(len(done))
        made[task] = whole
    unknown = tuple(one.key for one in given if one.line not in used)
    tell("answers to no question that is asked", unknown)
    tell("questions have no answer and count as answered with nothing", tuple(missing))
    return Joined(made=made, taken=len(used), unknown=unknown, missing=tuple(missing))


def opened(reader: Reader, question: Question) -> Answer:
    """Return the row of a question with nothing answered yet; its audio is not decoded."""
    held = reader.read(question.row)
    return open_answer(held, question.instruction, min(held.samples, round(LONGEST * RATE)))


def choose(path: str | Path, candidates: list[Given], asked: Answer, used: dict[int, Answer]) -> Given | None:
    """Return the one answer to a question, or None; UserError if that is not clear."""
    fitting = [one for one in candidates if one.fits(asked)]
    if not fitting:
        return None
    one = fitting[0]
    if len(fitting) > 1:
        raise UserError(f"{path}: lines {one.line} and {fitting[1].line} both answer {asked.task} of {asked.key!r}")
    before = used.setdefault(one.line, asked)
    if before is not asked:
        which = "task" if before.task != asked.task else "prompt"
        raise UserError(
            f"{path}, line {one.line}: the key {asked.key!r} is that of {before.task} ({before.prompt!r}) and of "
            f"{asked.task} ({asked.prompt!r}); a column {which!r} must say which was answered"
        )
    return one


def filled(asked: Answer, given: Given | None, name: str) -> Answer:
    """Return the row of a question with its answer."""
    said = given or Given(key=asked.key, answer="", finished=False)
    return msgspec.structs.replace(
        asked,
        answer=said.answer,
        finished=said.finished,
        model=name,
        lora_scale=said.lora_scale,
        seed=said.seed,
        beams=said.beams,
        max_new_tokens=said.max_new_tokens,
    )


def tell(what: str, keys: tuple[str, ...]) -> None:
    """Warn of keys that did not come together, the first of them by name."""
    if keys:
        more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
        LOG.warning("%d %s: %s%s", len(keys), what, ", ".join(keys[:SHOWN]), more)


def read(path: str | Path) -> bytes:
    """Return the bytes of a file; UserError if there are none."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the answers in {str(path)!r}: {error.strerror}") from None
    if not content.strip():
        raise UserError(f"the file {str(path)!r} is empty; it must hold the columns key and answer")
    return content


def parse(content: bytes, path: Path) -> Iterator[Given]:
    """Yield the answers of a file: CSV if its name says so, else JSON lines. UserError names the line that is wrong."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8") from None
    rows = csv_rows(text, path) if path.suffix.lower() == ".csv" else json_rows(text, path)
    for line, row in rows:
        row = from_lmms_eval(row) if isinstance(row.get("doc"), dict) else row
        if "references" in row:  # of a file of ours, which leaves out what is as ever
            row = {"beams": OURS.beams, "max_new_tokens": OURS.max_new_tokens, **row}
        named = {field: row[field] for field in Given.__struct_fields__ if field in row}
        try:
            # Spreadsheets and programs write a key of digits as a number.
            told = {
                name: str(value) if name in TEXTS and type(value) in (int, float) else value
                for name, value in named.items()
            }
            yield msgspec.convert({**told, "line": line}, Given, strict=False)
        except msgspec.ValidationError as error:
            raise UserError(f"{path}, line {line}: {error}; it must have a key and an answer") from None


def csv_rows(text: str, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the rows of a CSV file by the line that they end on."""
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    # The limit is of the whole process, whose other readers rely on theirs.
    usual = csv.field_size_limit(1 << 24)
    try:
        rows = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: {error}") from None
    finally:
        csv.field_size_limit(usual)
    for line, row in rows:
        yield line, {str(name): value for name, value in row.items() if value is not None}


def json_rows(text: str, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the objects of a file of JSON lines."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield number, msgspec.json.decode(line, type=dict[str, Any])
            except (msgspec.DecodeError, UnicodeEncodeError) as error:
                raise UserError(f"{path}, line {number} is no JSON object: {error}") from None


def from_lmms_eval(row: dict[str, Any]) -> dict[str, Any]:
    """Return a logged sample of lmms-eval (``--log_samples``) as a row: what its task asked stands in `doc`."""
    said = row.get("filtered_resps", row.get("resps"))
    while isinstance(said, list) and said:
        said = said[0]
    return {**{name: row["doc"].get(name, "") for name in ("key", "task", "prompt", "slot")}, "answer": said or ""}
