"""Verdicts on disk, each under the digest of all that it depends on, so that none is asked for twice.

FOLDER/ab/abcd....json  one verdict, with what it is about

A verdict is linked into its place whole, and the first one stays: a kill leaves none by halves, and two runs at a time
score alike.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from salmonn.scoring.judge import Verdict

Asked = tuple[str, tuple[str, ...], str]
"""A question, its references, and the answer to mark."""


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What a file holds."""

    model: str
    instructions: str
    question: str
    references: tuple[str, ...]
    answer: str
    correct: bool
    reason: str


class Verdicts:
    """The verdicts of one model under one set of instructions."""

    def __init__(self, folder: Path, model: str, instructions: str) -> None:
        """Keep them in `folder`, which others may share."""
        self.folder, self.model, self.instructions = folder, model, instructions

    def path(self, asked: Asked) -> Path:
        """Return where the verdict on `asked` is kept."""
        digest = hashlib.sha256(msgspec.json.encode([self.model, self.instructions, *asked])).hexdigest()
        return self.folder / digest[:2] / f"{digest}.json"

    def find(self, asked: Asked) -> Verdict | None:
        """Return the verdict that is kept; None if there is none, or what is there is damaged or of something else."""
        try:
            kept = msgspec.json.decode(self.path(asked).read_bytes(), type=Kept)
        except (FileNotFoundError, msgspec.MsgspecError, UnicodeDecodeError):
            return None
        about = (kept.model, kept.instructions, kept.question, kept.references, kept.answer)
        return Verdict(correct=kept.correct, reason=kept.reason) if about == (*self.whose(), *asked) else None

    def keep(self, asked: Asked, verdict: Verdict) -> Verdict:
        """Write a verdict; return the one that stands, which another run may have written first."""
        path = self.path(asked)
        (model, instructions), (question, references, answer) = self.whose(), asked
        kept = Kept(
            model=model,
            instructions=instructions,
            question=question,
            references=references,
            answer=answer,
            correct=verdict.correct,
            reason=verdict.reason,
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self.folder, prefix=".new-", delete=False) as file:
            file.write(msgspec.json.encode(kept) + b"\n")
        try:
            # A link never replaces what is there.
            os.link(file.name, path)
        except FileExistsError:
            if (first := self.find(asked)) is not None:
                return first
            os.replace(file.name, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(file.name)
        return verdict

    def whose(self) -> tuple[str, str]:
        """Return the model and its instructions."""
        return self.model, self.instructions


def default_folder() -> Path:
    """Return the folder of the user in which verdicts are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "salmonn" / "judge"


def as_asked(question: str, references: Sequence[str], answer: str) -> Asked:
    """Return what is asked in one form: the order of references, of which any is enough, does not matter."""
    return clean(question), tuple(sorted({clean(one) for one in references})), clean(answer)


def clean(text: str) -> str:
    """Return `text` without halves of characters, which no request can hold."""
    return text.strip().encode("utf-8", "replace").decode()
