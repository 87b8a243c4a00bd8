"""What an audit says: plain values, from which both report.json and the page are written. Shares run from 0 to 1."""

from __future__ import annotations

import msgspec

from shards.audit.sections.answers import Answers
from shards.audit.sections.clips import Heard
from shards.audit.sections.difference import Difference
from shards.audit.sections.duplicates import Duplicates
from shards.audit.sections.extremes import Extreme
from shards.audit.sections.labels import Balance
from shards.audit.sections.languages import Languages
from shards.audit.sections.leakage import Leakage
from shards.audit.sections.licences import Licences
from shards.audit.sections.mixture import Stage
from shards.audit.sections.prompts import Prompts
from shards.audit.sections.provenance import Provenance
from shards.audit.sections.quality import Quality
from shards.audit.sections.quarantine import Quarantine
from shards.audit.sections.speakers import Speakers
from shards.audit.sections.targets import Targets
from shards.audit.sections.totals import Totals
from shards.audit.verdicts import Gate, Verdict
from shards.audit.view import Settings

FORMAT = "salmonn-audit-2"


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All an audit says: a field for each section, which its room explains."""

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
    settings: Settings
    totals: Totals
    targets: Targets
    mixture: tuple[Stage, ...]
    prompts: tuple[Prompts, ...]
    answers: tuple[Answers, ...]
    labels: Balance
    speakers: tuple[Speakers, ...]
    languages: Languages
    quality: Quality
    duplicates: Duplicates
    leakage: Leakage
    licences: Licences
    provenance: Provenance
    quarantine: Quarantine
    extremes: tuple[Extreme, ...]
    clips: tuple[Heard, ...]
    difference: Difference | None
    sql: dict[str, str]
    """Every query whose answer is in the report, and `views`, the tables they ask."""
