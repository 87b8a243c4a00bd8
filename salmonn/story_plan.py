"""The plan of a dataset of stories: about which clips, told how and by which model. One plan, one set of bytes."""

from __future__ import annotations

import hashlib
import math

import msgspec
import numpy as np
import pyarrow.compute as pc

from manifests import TASKS, Recipe, UserError, draw, load_corpus
from shards import Dataset

TASK = "audio_story"
STAGE = "activate"
RECIPE = "stories"
"""Of clips to tell about, for a run whose own recipe has no such stage."""
COUNT = 12
"""Stories, as in the paper."""
LORA_SCALE = 0.5
"""Stories appear at a scaling of about 2, of 4 in training (paper, Figure 3)."""


class Telling(msgspec.Struct, frozen=True, kw_only=True):
    """How stories are told; UserError if they cannot be."""

    count: int = COUNT
    lora_scale: float = LORA_SCALE
    seed: int = 0
    """Of the choice of clips, and of the tokens where they are drawn."""
    beams: int = 4
    """Width of the search; 1 is greedy."""
    temperature: float = 0.0
    """Above 0, tokens are drawn instead of searched for; then `beams` is 1."""
    max_new_tokens: int = 200

    def __post_init__(self) -> None:
        if min(self.count, self.beams, self.max_new_tokens) < 1:
            told = f"count is {self.count}, beams {self.beams} and max_new_tokens {self.max_new_tokens}"
            raise UserError(f"{told}; each must be at least 1")
        if not 0 <= self.lora_scale <= 1:
            raise UserError(f"lora_scale is {self.lora_scale}; stories need one from 0 (no LoRA) to 1 (as trained)")
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise UserError(f"the temperature is {self.temperature}; it must be above 0, 1 is the model's own")
        if self.temperature and self.beams != 1:
            raise UserError(
                f"tokens are drawn at temperature {self.temperature} or searched for with {self.beams} beams"
            )


def make_telling(
    count: int, lora_scale: float, seed: int, beams: int | None, sample: float | None, max_new_tokens: int
) -> Telling:
    """Return how stories are told, as the command line says it; UserError if it says two things at once."""
    if sample is not None and beams is not None:
        raise UserError(f"--sample {sample:g} draws tokens and --beams {beams} searches for them; give one of the two")
    if sample is not None and not sample > 0:
        raise UserError(f"--sample is {sample}; the temperature must be above 0, 1 is the model's own")
    return Telling(
        count=count,
        lora_scale=lora_scale,
        seed=seed,
        beams=(1 if sample else 4) if beams is None else beams,
        temperature=sample or 0.0,
        max_new_tokens=max_new_tokens,
    )


class Writer(msgspec.Struct, frozen=True, kw_only=True):
    """The model that tells the stories."""

    run: str
    """The name of the run's folder."""
    step: int
    weights: str
    """sha256 of the trained weights."""
    model: str
    """sha256 of the model's settings."""
    frozen: str
    """sha256 of the frozen weights."""
    tools: dict[str, str]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that determines the bytes of a dataset of stories."""

    format: str
    dataset: str
    """Digest of the dataset whose clips they are about."""
    recipe: str
    stage: str
    mixture: str
    """Digest of the rows that name those clips."""
    prompts: tuple[str, ...]
    telling: Telling
    writer: Writer

    @property
    def digest(self) -> str:
        """sha256 of the plan."""
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """A clip that a story may be told about."""

    corpus: str
    split: str
    row: int
    """In the index of its split."""
    key: str

    @property
    def prompt(self) -> str:
        """What the model is asked; also the prompt that is stored, as pack would draw it."""
        return TASKS[TASK].prompt("", "stored", self.key, TASK, 0)


def clips_of(recipe: Recipe, stage: str) -> list[tuple[str, str, float, float, str]]:
    """Return corpus, split, least and most seconds and language of the clips that a stage names for stories.

    UserError if no corpus of it serves the task: no recipe could train on the stories.
    """
    rows = [row for row in recipe.stage(stage) if TASK in load_corpus(row.corpus).facts.tasks]
    if not rows:
        raise UserError(
            f"stage {stage!r} of recipe {recipe.name!r} has no corpus that serves the task {TASK!r} "
            "(salmonn tasks shows which do); name another --recipe or --stage"
        )
    named = [
        (row.corpus, split, row.min_seconds, row.max_seconds, row.language) for row in rows for split in row.splits
    ]
    return list(dict.fromkeys(named))


def choose(dataset: Dataset, recipe: Recipe, stage: str, seed: int) -> list[Choice]:
    """Return the clips of a stage's rows in the order in which stories are told about them; each clip once.

    The order is a hash of the seed and the key. Splits take turns, so that each row of a recipe gets its share.
    """
    turns: dict[str, tuple[int, int, Choice]] = {}
    for place, (corpus, split, least, most, language) in enumerate(clips_of(recipe, stage)):
        table = dataset.table(corpus, split, ["key", "seconds", "language"])
        fits = pc.and_(pc.greater_equal(table["seconds"], least), pc.less_equal(table["seconds"], most))
        if language:
            fits = pc.and_(fits, pc.equal(table["language"], language))
        rows = np.flatnonzero(fits.to_numpy()).tolist()
        mine = [Choice(corpus=corpus, split=split, row=row, key=table["key"][row].as_py()) for row in rows]
        mine.sort(key=lambda choice: draw.number("story", seed, choice.key))
        for turn, choice in enumerate(mine):
            turns.setdefault(choice.key, (turn, place, choice))
    return [choice for _, _, choice in sorted(turns.values(), key=lambda told: told[:2])]


def differences(old: Plan, new: Plan) -> list[str]:
    """Return what differs, as ``lora_scale was 0.5, is 0.4``."""
    before, after = (
        {**told.pop("telling"), **told.pop("writer"), **told} for told in map(msgspec.to_builtins, (old, new))
    )
    return [f"{name} was {before[name]!r}, is {after[name]!r}" for name in before if before[name] != after[name]]
