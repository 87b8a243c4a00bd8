"""What an audit says: plain values, from which both audit.json and the page are written. Shares run from 0 to 1."""

from __future__ import annotations

from typing import Literal

import msgspec

from shards.audit.listen import Heard
from shards.audit.mixture import Stage

FORMAT = "salmonn-audit-1"

Verdict = Literal["PASS", "WARN", "FAIL"]


class Gate(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that must hold before training, and whether it does."""

    name: str
    verdict: Verdict
    sentence: str


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What the audit was asked."""

    stages: tuple[str, ...]
    seed: int
    max_seconds: float
    """Audio of a batch with its padding."""
    max_examples: int
    longest: float
    """Seconds of a clip that are dealt at most."""


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """The dataset in a line."""

    hours: float
    samples: int
    examples: int
    corpora: tuple[str, ...]
    splits: int
    tasks: tuple[str, ...]
    found: int
    refused: int
    shards: int
    bytes: int


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the recipe: what is meant to be there and what is."""

    stage: str
    task: str
    corpus: str
    splits: tuple[str, ...]
    absent: tuple[str, ...]
    """Splits without an example of the task."""
    target_hours: float | None
    target_samples: int | None
    hours: float
    samples: int
    examples: int
    hours_off: float | None
    """Actual less target, as a share of the target; None without a target."""
    samples_off: float | None


class Funnel(msgspec.Struct, frozen=True, kw_only=True):
    """One split of one corpus: from what is published to what is packed."""

    corpus: str
    split: str
    published: int
    found: int
    packed: int
    quarantined: int
    excluded: int
    indexed: int
    """Rows of its index."""
    refused: dict[str, int]
    """Rows of its quarantine file for each verdict."""
    hours: float
    coverage: float | None
    """Packed, of those published; None if no count is published."""
    reasons: dict[str, int]
    skipped: dict[str, dict[str, int]]
    """Packed clips that a task could ask nothing of: task, reason, clips."""


class Prompts(msgspec.Struct, frozen=True, kw_only=True):
    """The stored prompts of one task."""

    task: str
    examples: int
    distinct: int
    paraphrases: int | None
    """Lines of the task's prompt file today, from which the stream draws; None for a task that is not known here."""
    frequent: str
    frequent_share: float


class AnswerClass(msgspec.Struct, frozen=True, kw_only=True):
    """One of the few answers of a task of labels."""

    answer: str
    count: int
    share: float


class Answers(msgspec.Struct, frozen=True, kw_only=True):
    """The answers of one task."""

    task: str
    examples: int
    answers: int
    distinct: int
    empty: int
    """Answers without a word, and examples without an answer."""
    words_least: int
    words_median: float
    words_most: int
    frequent: str
    frequent_share: float
    """Of all answers of the task."""
    classes: tuple[AnswerClass, ...]
    """All answers, the most frequent first, if they are so few that they are labels."""


class Duplicates(msgspec.Struct, frozen=True, kw_only=True):
    """Samples with the very same audio."""

    groups: int
    surplus: int
    """Samples that could go without any audio being lost."""
    shared: int
    """Recordings that are in a split to train on and in one to evaluate on."""
    keys: tuple[str, ...]
    """Two samples of the first group; of the first shared one, if there is one."""


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """One reason of refusal in one split."""

    verdict: str
    reason: str
    meaning: str
    corpus: str
    split: str
    clips: int


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """One clip that was not packed."""

    id: str
    corpus: str
    split: str
    verdict: str
    reason: str
    detail: str


class Licence(msgspec.Struct, frozen=True, kw_only=True):
    """The hours of one corpus under one licence."""

    corpus: str
    license: str
    samples: int
    hours: float


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """What proves one split."""

    corpus: str
    split: str
    terms: str
    """The licence as the corpus states it for all its clips."""
    shards: int
    bytes: int
    index_sha256: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All an audit says."""

    format: str
    title: str
    recipe: str
    recipe_title: str
    built_from: str
    """The recipe that the dataset was built from."""
    digest: str
    plan: str
    verdict: Verdict
    gates: tuple[Gate, ...]
    totals: Totals
    settings: Settings
    targets: tuple[Target, ...]
    funnel: tuple[Funnel, ...]
    stages: tuple[Stage, ...]
    prompts: tuple[Prompts, ...]
    answers: tuple[Answers, ...]
    duplicates: Duplicates
    reasons: tuple[Reason, ...]
    refusals: tuple[Refusal, ...]
    """The first of them."""
    licences: tuple[Licence, ...]
    clips: tuple[Heard, ...]
    origins: tuple[Origin, ...]
    tools: dict[str, str]
    sql: dict[str, str]
    """Every query whose answer is in the report, and `views`, the tables they ask."""
