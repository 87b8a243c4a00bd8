"""The sections of an audit, in the order of its page. Each is a room with a template of the same name beside it.

A room has QUERIES, the SQL of its numbers by name; `look`, which makes its part of the report from a View; GATES, the
names of the gates that its `gates` judges from that part; and DRAWN, if its template draws: names and what they stand
for. To add a section: the room, the template, a line here, and a field of the same name in the Report.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import msgspec

from shards.audit.sections import (
    answers,
    batching,
    clips,
    difference,
    duplicates,
    extremes,
    labels,
    languages,
    leakage,
    licences,
    mixture,
    prompts,
    provenance,
    quality,
    quarantine,
    speakers,
    targets,
    totals,
)


class Section(msgspec.Struct, frozen=True):
    """One section of the page."""

    name: str
    title: str


SECTIONS = (
    Section("targets", "Targets"),
    Section("mixture", "Mixture"),
    Section("batching", "Batching"),
    Section("prompts", "Prompts"),
    Section("answers", "Answers"),
    Section("labels", "Labels"),
    Section("speakers", "Speakers"),
    Section("languages", "Languages"),
    Section("quality", "Audio quality"),
    Section("duplicates", "Duplicates"),
    Section("leakage", "Leakage"),
    Section("licences", "Licences"),
    Section("provenance", "Provenance"),
    Section("quarantine", "Quarantine"),
    Section("clips", "Clips to listen to"),
    Section("difference", "Difference"),
)

ROOMS: dict[str, ModuleType] = {
    "totals": totals,
    "targets": targets,
    "mixture": mixture,
    "prompts": prompts,
    "answers": answers,
    "labels": labels,
    "speakers": speakers,
    "languages": languages,
    "quality": quality,
    "duplicates": duplicates,
    "leakage": leakage,
    "licences": licences,
    "provenance": provenance,
    "quarantine": quarantine,
    "extremes": extremes,
    "clips": clips,
    "difference": difference,
}
"""What makes each field of the report."""

QUERIES: dict[str, str] = {name: sql for room in ROOMS.values() for name, sql in room.QUERIES.items()}
GATES: tuple[str, ...] = tuple(gate for room in ROOMS.values() for gate in getattr(room, "GATES", ()))
DRAWN: dict[str, Callable[..., Any] | Any] = {
    name: drawn for room in (*ROOMS.values(), batching) for name, drawn in getattr(room, "DRAWN", {}).items()
}
