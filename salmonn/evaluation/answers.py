"""The answers to a task's questions on disk: whole batches only, so that a kill at any point loses and repeats nothing.

FOLDER/TASK.jsonl           the answers, a line each, sorted by key and prompt; it comes last, so there it means all are
FOLDER/TASK.made.json       what they depend on, and which samples were too damaged to be asked about
FOLDER/TASK.partial/        while they are made: plan.json, and for each process NUMBER.jsonl, a line a batch
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import msgspec

from manifests.errors import Failed, UserError
from manifests.files import sync_folder, write_whole
from salmonn.scoring.answer import Answer

Kind = TypeVar("Kind")


class Damage(msgspec.Struct, frozen=True, kw_only=True):
    """A sample that could not be read, and so was not asked about."""

    key: str
    why: str


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """All that the answers to a task depend on."""

    task: str
    model: str
    """Who answers."""
    dataset: str
    """Digest."""
    recipe: str
    stage: str
    rows: str
    """Digest of the recipe's rows of this task."""
    questions: int
    limit: int | None
    seed: int
    """Of which examples are asked about, where there is a limit."""
    beams: int
    max_new_tokens: int
    lora_scale: float
    batch_seconds: float
    batch_examples: int


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """What TASK.made.json holds."""

    plan: Plan
    answers: int
    unfinished: int
    """Answers cut off at `max_new_tokens`; they are scored as they are."""
    cut: int
    """Clips above 30 s whose end was not heard."""
    damaged: tuple[Damage, ...]
    """Samples that were not asked about."""
    sha256: str
    """Of TASK.jsonl."""


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """A batch that is answered: a line of a journal."""

    number: int
    answers: tuple[Answer, ...]
    damaged: tuple[Damage, ...] = ()


class Book:
    """The answers to the questions of one task."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        """They belong into `folder`, which need not be there."""
        self.folder, self.plan = folder, plan
        self.answers = folder / f"{plan.task}.jsonl"
        self.about = folder / f"{plan.task}.made.json"
        self.partial = folder / f"{plan.task}.partial"

    def open(self, anew: bool = False) -> Made | None:
        """Make ready to go on, or return what is there if it is all; UserError if that was made otherwise.

        With `anew`, what was made otherwise is removed.
        """
        try:
            before, whole = self.before(), self.finished()
        except UserError:
            if not anew:
                raise
            before = whole = None
        if before == self.plan:
            if whole is not None:
                shutil.rmtree(self.partial, ignore_errors=True)
            return whole
        if (before is not None or self.answers.exists()) and not anew:
            told = differences(before, self.plan) if before is not None else "nothing says how they were made"
            raise UserError(
                f"{self.answers} was made otherwise: {told}. Go back to that, name another --out, "
                "or let --anew replace it"
            )
        # The answers go first: as long as they are there, they are all.
        for path in (self.answers, self.about):
            path.unlink(missing_ok=True)
        shutil.rmtree(self.partial, ignore_errors=True)
        self.partial.mkdir(parents=True)
        write_whole(self.partial / "plan.json", msgspec.json.encode(self.plan))
        return None

    def before(self) -> Plan | None:
        """Return what the answers that are there depend on, finished or begun; None if none are."""
        made = self.finished()
        if made is not None:
            return made.plan
        path = self.partial / "plan.json"
        return decode(path, Plan) if path.exists() else None

    def finished(self) -> Made | None:
        """Return what is told of the answers if they are all there; UserError if they were altered since."""
        if not (self.answers.exists() and self.about.exists()):
            return None
        made = decode(self.about, Made)
        if hashlib.sha256(self.answers.read_bytes()).hexdigest() != made.sha256:
            raise UserError(f"{self.answers} was altered since it was made; --anew makes it again")
        return made

    def batches(self) -> dict[int, Done]:
        """Return the batches that are answered, by number; a line that a kill left incomplete is not one."""
        found: dict[int, Done] = {}
        for path in sorted(self.partial.glob("*.jsonl")):
            whole = path.read_bytes().rpartition(b"\n")[0]
            for line in whole.splitlines():
                done = msgspec.json.decode(line, type=Done)
                found.setdefault(done.number, done)
        return found

    def close(self, batches: int) -> Made:
        """Write the finished file from the journals of all processes; Failed unless they hold all batches."""
        found = self.batches()
        missing = set(range(batches)) - found.keys()
        if missing:
            raise Failed(f"{self.partial}: {len(missing)} of {batches} batches are missing; run the same command again")
        rows = sorted((row for done in found.values() for row in done.answers), key=order)
        damaged = sorted((one for done in found.values() for one in done.damaged), key=lambda one: (one.key, one.why))
        content = b"".join(msgspec.json.encode(row) + b"\n" for row in rows)
        made = Made(
            plan=self.plan,
            answers=len(rows),
            unfinished=sum(not row.finished for row in rows),
            cut=sum(row.cut > 0 for row in rows),
            damaged=tuple(damaged),
            sha256=hashlib.sha256(content).hexdigest(),
        )
        for path in (self.about, self.answers):
            for left in self.folder.glob(f".{path.name}.*.tmp"):  # by a kill in the midst of what follows
                left.unlink()
        write_whole(self.about, msgspec.json.format(msgspec.json.encode(made)) + b"\n")
        write_whole(self.answers, content)
        shutil.rmtree(self.partial)
        return made


class Journal:
    """The batches that one process answered, each on the disk before the next is begun."""

    def __init__(self, book: Book, process: int = 0) -> None:
        """Go on behind the last whole line; UserError if another process has the journal open."""
        path = book.partial / f"{process:03d}.jsonl"
        fresh = not path.exists()
        self.file = path.open("ab+")
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.file.close()
            raise UserError(f"{book.answers} is being made by another process; wait for it, or stop it") from None
        if fresh:
            sync_folder(path.parent)
        # What a kill left of a line would make the next one unreadable.
        self.file.seek(0)
        self.file.truncate(self.file.read().rfind(b"\n") + 1)

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.file.close()

    def write(self, done: Done) -> None:
        """Write a batch and wait until it is on the disk."""
        self.file.write(msgspec.json.encode(done) + b"\n")
        self.file.flush()
        os.fsync(self.file.fileno())


def order(row: Answer) -> tuple[str, str, str, str]:
    """Return where a row stands in its file; two slots of one prompt have different prompts, but need not."""
    return (row.key, row.prompt, row.slot, row.answer)


def differences(old: Plan, new: Plan) -> str:
    """Return what differs, as ``beams was 4, is 1``."""
    before, after = msgspec.to_builtins(old), msgspec.to_builtins(new)
    return "; ".join(
        f"{name} was {before[name]!r}, is {after[name]!r}" for name in before if before[name] != after[name]
    )


def decode(path: Path, kind: type[Kind]) -> Kind:
    """Return what a JSON file of ours holds; UserError if it is none."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except msgspec.MsgspecError as error:
        raise UserError(f"{path} is damaged or of another version ({error}); --anew makes it again") from None
