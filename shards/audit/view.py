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


class View(msgspec.Struct, frozen=True, kw_only=True):
    """A dataset, the stages of a recipe that are to deal it, and the tables of its index."""

    dataset: Dataset
    recipe: Recipe
    stages: tuple[str, ...]
    settings: Settings
    database: Database


def ordered(tasks: Iterable[str]) -> list[str]:
    """Return tasks in the order in which they are always shown; those that are not known here come last."""
    known = list(TASKS)
    return sorted(tasks, key=lambda task: (known.index(task) if task in known else len(known), task))
