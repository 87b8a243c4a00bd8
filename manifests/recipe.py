"""A recipe: which tasks of which corpora, at which weights, in each stage of training."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import msgspec

from manifests.corpus import load_corpus
from manifests.errors import UserError, nearest
from manifests.settings import read_toml
from manifests.tasks import find_task

FOLDER = Path(__file__).parent / "recipes"
STAGES = ("pretrain", "instruct", "activate", "evaluate")


class Row(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One task of one corpus in one stage: a row of the paper's table."""

    task: str
    corpus: str
    splits: tuple[str, ...]
    weight: float | None = None
    """Share of the examples dealt, relative to the other rows. If no row has one, every example is dealt once."""
    min_seconds: float = 0.0
    max_seconds: float = math.inf
    """Clips outside these lengths are not dealt for this row; they stay in the dataset for others."""
    language: str = ""
    """If set, only clips of this language (BCP 47) are dealt."""
    hours: float | None = None
    """How many hours of audio are meant to be there."""
    samples: int | None = None
    """How many samples are meant to be there."""

    @property
    def name(self) -> str:
        """Short name for tables and errors: ``asr of librispeech``."""
        return f"{self.task} of {self.corpus}"


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The rows of each stage; `name` is the name of its file."""

    title: str
    name: str = ""
    pretrain: tuple[Row, ...] = ()
    instruct: tuple[Row, ...] = ()
    activate: tuple[Row, ...] = ()
    evaluate: tuple[Row, ...] = ()
    temperature: dict[str, float] = {}
    """Stage to exponent: rows without weights are dealt in proportion to their examples to this power; 1 is by size."""

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages that have rows, in the order of training."""
        return tuple(stage for stage in STAGES if getattr(self, stage))

    def stage(self, name: str) -> tuple[Row, ...]:
        """Return the rows of one stage; UserError if it has none."""
        if name not in self.stages:
            raise UserError(f"recipe {self.name!r} has no stage {name!r}; it has {', '.join(self.stages)}")
        rows: tuple[Row, ...] = getattr(self, name)
        return rows

    def sources(self) -> dict[tuple[str, str], tuple[str, ...]]:
        """Map each (corpus, split) of any stage to the tasks to instruct it for: what a build must pack."""
        tasks: dict[tuple[str, str], set[str]] = {}
        for stage in self.stages:
            for row in self.stage(stage):
                for split in row.splits:
                    tasks.setdefault((row.corpus, split), set()).add(row.task)
        return {source: tuple(sorted(tasks[source])) for source in sorted(tasks)}

    def evaluated(self, corpus: str, split: str) -> tuple[str, ...]:
        """Return the tasks that only the stage ``evaluate`` asks of a split."""
        trained = {
            row.task
            for stage in self.stages
            if stage != "evaluate"
            for row in self.stage(stage)
            if row.corpus == corpus and split in row.splits
        }
        return tuple(task for task in self.sources()[corpus, split] if task not in trained)

    def digest(self, stage: str) -> str:
        """Return what identifies the mixture of one stage: sha256 of its tasks, splits and weights, without targets."""
        rows = [
            (row.task, row.corpus, row.splits, row.weight, row.min_seconds, repr(row.max_seconds), row.language)
            for row in self.stage(stage)
        ]
        return hashlib.sha256(msgspec.json.encode((rows, self.temperature.get(stage, 1.0)))).hexdigest()


def recipe_names() -> tuple[str, ...]:
    """Return the names of the recipes that come with the project."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))


def load_recipe(name: str | Path) -> Recipe:
    """Return the recipe called `name`, or the one in the TOML file of that path; UserError says what is wrong."""
    path = Path(name)
    if path.suffix != ".toml":
        if str(name) not in recipe_names():
            raise UserError(f"there is no recipe {str(name)!r}; {nearest(str(name), recipe_names())}")
        path = FOLDER / f"{name}.toml"
    recipe = msgspec.structs.replace(read_toml(path, Recipe), name=path.stem)
    if not recipe.stages:
        raise UserError(f"{path}: no stage has a row; write at least one [[instruct]] table")
    for stage in recipe.stages:
        rows = expanded(recipe.stage(stage), where=f"{path}: stage {stage!r}")
        check_stage(rows, where=f"{path}: stage {stage!r}")
        recipe = msgspec.structs.replace(recipe, **{stage: rows})
    check_temperature(recipe, where=str(path))
    for row in recipe.evaluate:
        if row.weight is not None:
            raise UserError(
                f"{path}: {row.name} has a weight, but evaluation takes every example once; drop the weight"
            )
    return recipe


def expanded(rows: tuple[Row, ...], *, where: str) -> tuple[Row, ...]:
    """Return rows with the splits that an alias stands for; UserError for a corpus or split that does not exist."""
    try:
        return tuple(
            msgspec.structs.replace(
                row, splits=tuple(split for name in row.splits for split in load_corpus(row.corpus).expand(name))
            )
            for row in rows
        )
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def check_temperature(recipe: Recipe, *, where: str) -> None:
    """Raise UserError for a temperature of a stage that has weights, or does not exist, or is out of range."""
    for stage, power in recipe.temperature.items():
        rows = recipe.stage(stage)
        if rows[0].weight is not None or stage == "evaluate":
            raise UserError(f"{where}: stage {stage!r} has a temperature and may not; drop its weights, or that")
        if not 0 <= power <= 1:
            raise UserError(
                f"{where}: the temperature of {stage!r} is {power}; it must be from 0 (even) to 1 (by size)"
            )


def check_stage(rows: tuple[Row, ...], *, where: str) -> None:
    """Raise UserError for a row that names what does not exist or cannot be."""
    for row in rows:
        try:
            task, corpus = find_task(row.task), load_corpus(row.corpus)
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
        if not 0 <= row.min_seconds < row.max_seconds:
            raise UserError(f"{where}: {row.name} takes clips of {row.min_seconds} to {row.max_seconds} s; none is")
        if not row.splits:
            raise UserError(f"{where}: {row.name} has no splits; {corpus.name} has {', '.join(corpus.splits)}")
        if task.name not in corpus.facts.tasks:
            serves = ", ".join(corpus.facts.tasks)
            raise UserError(f"{where}: {corpus.name} does not serve the task {task.name!r}; it serves {serves}")
        if row.weight is not None and not 0 < row.weight < float("inf"):
            raise UserError(f"{where}: the weight of {row.name} is {row.weight}; it must be above 0")
    weighted = [row for row in rows if row.weight is not None]
    if weighted and len(weighted) < len(rows):
        without = next(row for row in rows if row.weight is None)
        raise UserError(f"{where}: {without.name} has no weight but other rows have; give every row one or none")
    names = [(row.task, row.corpus, split) for row in rows for split in row.splits]
    for twice in {name for name in names if names.count(name) > 1}:
        raise UserError(f"{where}: {twice[0]} of {twice[1]}:{twice[2]} stands in two rows; keep one")
