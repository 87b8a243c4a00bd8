"""Our evaluation sets in the layouts that other harnesses read, so that a model of theirs meets the same questions.

A set is one task on one split of one corpus, with the prompts that are stored in the dataset. Layouts:
lmms_eval.py, ultraeval_audio.py.
"""

from __future__ import annotations

import bisect
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from manifests import TASKS, UserError, load_recipe
from manifests.console import Bars, console
from manifests.errors import nearest
from salmonn.evaluation.asking import Asking, Question, open_answer
from salmonn.evaluation.request import MORE_TOKENS, MOST_TOKENS
from salmonn.scoring.answer import Answer
from shards import Dataset
from shards.reading import Reader

OnSet = Callable[[int, int, str], None]
"""Told how many of how many sets are written, and the name of the last."""


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One question with its sound."""

    flac: bytes
    """The clip as it is in the dataset, the whole of it."""
    open: Answer
    """The row of its answer, still open."""


class Set(msgspec.Struct, frozen=True, kw_only=True):
    """One task on one split of one corpus."""

    task: str
    corpus: str
    split: str
    questions: tuple[Question, ...]
    """In the order of their keys."""

    @property
    def name(self) -> str:
        """What a harness calls it: ``asr_librispeech_test_clean``."""
        name = "_".join((self.task, self.corpus, self.split))
        return "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in name)

    @property
    def metric(self) -> str:
        """The metric of its task."""
        return TASKS[self.task].metric

    @property
    def longest(self) -> int:
        """Tokens that an answer may have."""
        return MORE_TOKENS.get(self.task, MOST_TOKENS)


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Where sets come from, for those who find them."""

    title: str
    digest: str
    recipe: str
    stage: str


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """What an export wrote."""

    folder: Path
    sets: tuple[str, ...]
    questions: int


def sets_of(asking: Asking) -> list[Set]:
    """Return the sets of what is asked, in the order of their names."""
    found: dict[tuple[str, str, str], list[Question]] = {}
    for task, batches in asking.batches.items():
        for question in (one for batch in batches for one in batch):
            corpus, split = asking.sources[bisect.bisect_right(asking.firsts, question.row) - 1]
            found.setdefault((task, corpus, split), []).append(question)
    made = [
        Set(
            task=task,
            corpus=corpus,
            split=split,
            questions=tuple(sorted(questions, key=lambda one: (one.key, one.instruction))),
        )
        for (task, corpus, split), questions in sorted(found.items())
    ]
    assert len({one.name for one in made}) == len(made), "two sets have one name"
    return made


def items(reader: Reader, one: Set) -> Iterator[Item]:
    """Yield the questions of a set with their sounds; Damaged if a sample's bytes are not those of the index."""
    for question in one.questions:
        held = reader.read(question.row)
        yield Item(flac=bytes(held.flac), open=open_answer(held, question.instruction, held.samples))


def export_eval(
    data: str,
    to: str,
    out: str | Path,
    *,
    recipe: str = "salmonn",
    stage: str = "evaluate",
    limit: int | None = None,
    on_set: OnSet | None = None,
) -> Written:
    """Write the sets of a stage into the new folder `out` in the layout of `to`; it appears whole or not at all.

    `limit` keeps at most so many questions of each task. UserError for a layout that there is not, or if something is
    at `out`.
    """
    from salmonn.evaluation import lmms_eval, ultraeval_audio

    layouts = {"lmms-eval": lmms_eval.write, "ultraeval-audio": ultraeval_audio.write}
    if to not in layouts:
        raise UserError(f"--to is {to!r}; {nearest(to, layouts)}")
    place = Path(out).absolute()
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise UserError(f"--out {str(out)!r} is there already; name a folder that is not")
    dataset = Dataset(data)
    asking = Asking(dataset, load_recipe(recipe), stage, limit=limit)
    sets = sets_of(asking)
    if not sets:
        raise UserError(f"{data!r} holds nothing of stage {stage!r}; there is nothing to export")
    told = Source(
        title=dataset.manifest.title,
        digest=dataset.digest,
        recipe=asking.recipe.name,
        stage=stage,
    )
    partial = place.with_name(f"{place.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    reader = Reader(dataset, asking.sources)
    for number, one in enumerate(sets, start=1):
        layouts[to](partial, place, told, sets, one, items(reader, one))
        if on_set is not None:
            on_set(number, len(sets), one.name)
    if place.exists():
        place.rmdir()
    partial.rename(place)
    return Written(folder=place, sets=tuple(one.name for one in sets), questions=sum(len(s.questions) for s in sets))


def command(data: str, to: str, out: str, recipe: str, stage: str, limit: int | None) -> None:
    """Export with a bar, and say what was written and how it is used."""
    with Bars() as bars:
        made = export_eval(
            data,
            to,
            out,
            recipe=recipe,
            stage=stage,
            limit=limit,
            on_set=lambda done, of, name: bars("export-eval", done, of, name),
        )
    console.print(f"{made.questions:,} questions of {len(made.sets)} sets are in {made.folder}", soft_wrap=True)
    console.print(f"{made.folder / 'README.md'} says how {to} is run on them", soft_wrap=True)
