"""Extremes to listen to: the worst clip of each measure of audio quality, read back from the shards."""

from __future__ import annotations

import msgspec

from shards.audit.digits import neat
from shards.audit.sections.clips import Heard, hear, place_of
from shards.audit.sections.quality import WORST, badness
from shards.audit.view import View

QUERIES: dict[str, str] = {}
MOST_MP3 = 80_000
"""Bytes of one clip: eight of them and the ten others leave a fourth of the page's 5 MB."""


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """At the end of which measure a clip stands, and where."""

    measure: str
    value: float


class Extreme(msgspec.Struct, frozen=True, kw_only=True):
    """One clip at the bad end of a measure, or of several."""

    measures: tuple[Measured, ...]
    clip: Heard


def look(view: View) -> tuple[Extreme, ...]:
    """Return the worst clip of each measure, each clip once."""
    worst: dict[str, tuple[float, str, str, str]] = {}
    for measure, value, key, corpus, split in view.database.ask("worst"):
        this = (badness(measure, value), key, corpus, split)
        worst[measure] = min(worst.get(measure, this), this)
    found: dict[tuple[str, str, str], list[Measured]] = {}
    for measure in filter(worst.__contains__, WORST):
        bad, key, corpus, split = worst[measure]
        value = neat(round(-bad if WORST[measure][1] == "desc" else bad, 4))
        found.setdefault((corpus, split, key), []).append(Measured(measure=measure, value=value))
    return tuple(Extreme(measures=tuple(why), clip=read(view, *place)) for place, why in found.items())


def read(view: View, corpus: str, split: str, key: str) -> Heard:
    """Read back the sample called `key`."""
    place = place_of(view.dataset, corpus, split, key)
    return hear(view.dataset, "", corpus, split, place, view.settings.longest, MOST_MP3)
