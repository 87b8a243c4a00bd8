"""The view: what every section of an audit looks at."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from manifests import TASKS, Recipe
from shards.audit.database import Database
from shards.index import Dataset


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What the audit was asked."""

    stages: tuple[str, ...]
    seed: int
    max_seconds: float
    """Audio of a batch with its padding."""
    max_examples: int
    longest: float
    """Seconds of a clip that are dealt at most."""
    world_size: int = 1
    """GPUs for which steps are counted."""
    against: tuple[str, ...] = ()
    """Further evaluation sets, CORPUS:SPLIT, that are looked for in what is trained on."""


class View(msgspec.Struct, frozen=True, kw_only=True):
    """A dataset, the stages of a recipe that are to deal it, and the tables of its index."""

    dataset: Dataset
    recipe: Recipe
    stages: tuple[str, ...]
    settings: Settings
    database: Database
    other: Dataset | None = None
    """The build that this one is compared with."""


def ordered(tasks: Iterable[str]) -> list[str]:
    """Return tasks in the order in which they are always shown; those that are not known here come last."""
    known = list(TASKS)
    return sorted(tasks, key=lambda task: (known.index(task) if task in known else len(known), task))
