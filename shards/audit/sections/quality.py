"""Quality of the audio, as it was measured when it was packed: split by split, with the worst of each measure."""

from __future__ import annotations

from typing import Any

import msgspec
from markupsafe import Markup

from shards.audit import plots
from shards.audit.digits import neat, shown
from shards.audit.figures import percent
from shards.audit.verdicts import Gate, fail, good, warn
from shards.audit.view import View

GATES = ("quality",)

HALF_SILENT, SILENT, LEADING = 0.4, 0.8, 2.0
"""Shares of a clip that is silence, and seconds of silence before the first sound, beyond which a clip is counted."""
CLIPPED = 0.001
OFFSET, FAINT, QUIET = 0.02, 0.01, -45.0
"""DC offset and peak, of full scale, and loudness in LUFS: beyond, below and below which a clip is counted."""
HUM, TELEPHONE, FULL_BAND = 2000, 4250, 7500
"""Hz. Nothing above 2 kHz is a tone or a hum; to 4.25 kHz a telephone; what ends below 7.5 kHz has lost its top to a
lossy codec or a lower rate."""
LOUDNESS = tuple(range(-60, 1, 4))
NOISE = tuple(range(-20, 61, 5))
"""Edges of the histograms, LUFS and dB; what lies outside is in the first or the last bin."""
MOST_CORPORA, OTHERS = len(plots.COLOURS), "others"
"""So many corpora have a colour of their own in a histogram."""
FEW, HARD, ENOUGH = 0.02, 0.5, 5
"""Shares of a split with a fault that warn, and that fail if it is one of DEADLY; so many clips at least to fail."""

FAULTS = {
    "all_zero": "all samples are zero",
    "silent": "more than 80% silence",
    "half_silent": "more than 40% silence",
    "leading": "more than 2 s of silence before the first sound",
    "clipped": "more than 0.1% of the samples clipped",
    "faint": "no sample above 1% of full scale",
    "offset": "a DC offset of more than 2% of full scale",
    "quiet": "a loudness below -45 LUFS",
    "hum": "nothing above 2 kHz",
    "telephone": "nothing above 4.25 kHz, as by telephone",
    "dull": "nothing above 7.5 kHz, as after an MP3 or from a lower rate",
}
JUDGED = ("silent", "clipped", "faint", "offset", "telephone")
"""Faults that warn where many clips of a split to train on have them: the others may be of the matter."""
DEADLY = ("all_zero", "silent", "faint")
"""Those that fail where most of a split has them: there is next to nothing to hear."""

# A NaN is greater than any number in DuckDB, so each comparison has to leave it out.
TESTS = {
    "all_zero": "all_zero",
    "silent": f"not isnan(silence) and silence > {SILENT}",
    "half_silent": f"not isnan(silence) and silence > {HALF_SILENT}",
    "leading": f"not isnan(leading_silence) and leading_silence > {LEADING}",
    "clipped": f"not isnan(clipped) and clipped > {CLIPPED}",
    "faint": f"peak < {FAINT}",
    "offset": f"not isnan(dc) and abs(dc) > {OFFSET}",
    "quiet": f"lufs < {QUIET}",
    "hum": f"bandwidth_hz <= {HUM}",
    "telephone": f"bandwidth_hz > {HUM} and bandwidth_hz <= {TELEPHONE}",
    "dull": f"bandwidth_hz > {TELEPHONE} and bandwidth_hz < {FULL_BAND}",
}
COUNTED = ",\n       ".join(f"count(*) filter ({test}) as {name}" for name, test in TESTS.items())
MEASURES = ("silence", "leading_silence", "clipped", "peak", "dc", "lufs", "snr_db", "bandwidth_hz")
MEDIANS = ",\n       ".join(f"median(nullif({name}, 'nan'::float)) as {name}_half" for name in MEASURES)

WORST = {
    "silence": ("silence", "desc", "most silence", "share"),
    "leading_silence": ("leading_silence", "desc", "latest first sound", "seconds"),
    "clipped": ("clipped", "desc", "most clipping", "share"),
    "dc": ("abs(dc)", "desc", "largest DC offset", "share"),
    "lufs": ("lufs", "asc", "quietest", "level"),
    "loud": ("lufs", "desc", "loudest", "level"),
    "snr_db": ("snr_db", "asc", "noisiest by the estimate", "level"),
    "bandwidth_hz": ("bandwidth_hz", "asc", "narrowest band", "count"),
}
"""Measures whose worst clips are listed: their SQL, which end is bad, what that is, and how the number is read."""
WORST_OF_EACH = 5


def worst_sql() -> str:
    """Return the SQL for the worst clips of each measure: how bad the fifth is of each, then what is as bad as that."""
    ends, near, parts = [], [], []
    for name, (value, order, _, _) in WORST.items():
        told = f"not isnan({value}) and {value} > 0" if order == "desc" and name != "loud" else f"not isnan({value})"
        most, than = ("max", ">=") if order == "desc" else ("min", "<=")
        ends.append(f"{most}({value}, {WORST_OF_EACH}) filter ({told}) as {name}_end")
        near.append(f"({told} and {value} {than} (select {name}_end[-1] from ends))")
        parts.append(
            f"(select '{name}' as measure, ({value})::double as value, key, corpus, split from near where {told} "
            f"order by {value} {order}, key limit {WORST_OF_EACH})"
        )
    columns = ", ".join(dict.fromkeys(value.removeprefix("abs(").removesuffix(")") for value, *_ in WORST.values()))
    return (
        "with ends as (\n  select {}\n  from samples),\nnear as (\n  select key, corpus, split, {}\n  from samples "
        "where {})\n{}"
    ).format(",\n         ".join(ends), columns, "\n    or ".join(near), "\nunion all\n".join(parts))


QUERIES = {
    "quality": f"""\
select corpus, split, coalesce(any_value(trained), false) as trained, count(*) as clips,
       count(*) filter (not isnan(peak)) as measured,
       {COUNTED},
       {MEDIANS}
from samples left join roles using (corpus, split) group by corpus, split order by corpus, split""",
    "levels": f"""\
with counted as (
  select corpus, case when not isnan(lufs) then floor((lufs - {LOUDNESS[0]}) / 4)::integer end as lufs,
         case when not isnan(snr_db) then floor((snr_db - {NOISE[0]}) / 5)::integer end as snr_db, count(*) as clips
  from samples group by all),
seen as (
  select 'lufs' as measure, corpus, lufs as bin, {len(LOUDNESS) - 2} as last, clips from counted
  union all select 'snr_db', corpus, snr_db, {len(NOISE) - 2}, clips from counted)
select measure, corpus, greatest(0, least(last, bin)) as bin, sum(clips)::bigint as clips
from seen where bin is not null group by all order by measure, corpus, bin""",
    "worst": worst_sql(),
}


class SplitQuality(msgspec.Struct, frozen=True, kw_only=True):
    """The audio of one split."""

    corpus: str
    split: str
    trained: bool
    clips: int
    measured: int
    """Clips whose samples were seen when they were packed: those taken on trust were not."""
    faults: dict[str, int]
    """How many clips have each of FAULTS."""
    medians: dict[str, float | None]
    """Of each measure, None where it is of none."""


class Bars(msgspec.Struct, frozen=True, kw_only=True):
    """Clips of one corpus in each bin."""

    corpus: str
    counts: tuple[int, ...]


class Levels(msgspec.Struct, frozen=True, kw_only=True):
    """Clips by one measure. What lies outside of the edges is in the first or the last bin."""

    edges: tuple[float, ...]
    """One more than there are bins."""
    bars: tuple[Bars, ...]


class Worst(msgspec.Struct, frozen=True, kw_only=True):
    """One clip at the bad end of a measure."""

    measure: str
    value: float
    key: str
    corpus: str
    split: str


class Quality(msgspec.Struct, frozen=True, kw_only=True):
    """The quality of the audio of a dataset."""

    splits: tuple[SplitQuality, ...]
    loudness: Levels
    noise: Levels
    worst: tuple[Worst, ...]
    """The worst clips of each measure, the worst first."""


def look(view: View) -> Quality:
    """Return the quality of the audio."""
    splits = []
    for corpus, split, trained, clips, measured, *rest in view.database.ask("quality"):
        counts, medians = rest[: len(TESTS)], rest[len(TESTS) :]
        splits.append(
            SplitQuality(
                corpus=corpus,
                split=split,
                trained=trained,
                clips=clips,
                measured=measured,
                faults=dict(zip(TESTS, counts, strict=True)),
                medians={
                    name: None if value is None else round(value, 4)
                    for name, value in zip(MEASURES, medians, strict=True)
                },
            )
        )
    found: dict[str, dict[str, list[int]]] = {"lufs": {}, "snr_db": {}}
    bins = {"lufs": len(LOUDNESS) - 1, "snr_db": len(NOISE) - 1}
    for measure, corpus, place, clips in view.database.ask("levels"):
        found[measure].setdefault(corpus, [0] * bins[measure])[place] = clips
    return Quality(
        splits=tuple(splits),
        loudness=levels(LOUDNESS, found["lufs"]),
        noise=levels(NOISE, found["snr_db"]),
        worst=worst(view.database.ask("worst")),
    )


def levels(edges: tuple[int, ...], found: dict[str, list[int]]) -> Levels:
    """Return the bars of one measure."""
    largest = sorted(found, key=lambda corpus: (-sum(found[corpus]), corpus))[: MOST_CORPORA - 1]
    small = (
        [found.pop(corpus) for corpus in sorted(found) if corpus not in largest] if len(found) > MOST_CORPORA else []
    )
    bars = tuple(Bars(corpus=corpus, counts=tuple(counts)) for corpus, counts in sorted(found.items()))
    if small:
        bars += (Bars(corpus=OTHERS, counts=tuple(map(sum, zip(*small, strict=True)))),)
    return Levels(edges=tuple(map(float, edges)), bars=bars)


def worst(rows: list[tuple[Any, ...]]) -> tuple[Worst, ...]:
    """Return the worst clips of each measure, in the order of WORST."""
    order = list(WORST)
    ranked = sorted(rows, key=lambda row: (order.index(row[0]), badness(row[0], row[1]), row[2]))
    return tuple(
        Worst(measure=name, value=neat(round(value, 4)), key=shown(key), corpus=corpus, split=split)
        for name, value, key, corpus, split in ranked
    )


def badness(measure: str, value: float) -> float:
    """Return what orders clips, the worst first."""
    return -value if WORST[measure][1] == "desc" else value


def gates(found: Quality) -> tuple[Gate, ...]:
    """Judge the audio."""
    return (judged(found),)


def judged(found: Quality) -> Gate:
    """All audio was measured, none to train on is nothing but zeros, and few clips of a split are bad."""
    clips, measured = sum(row.clips for row in found.splits), sum(row.measured for row in found.splits)
    zero = [row for row in found.splits if row.trained and row.faults["all_zero"]]
    if zero:
        row, total = zero[0], sum(row.faults["all_zero"] for row in zero)
        said = f"Clips to train on that are nothing but zeros: {total:,}, {row.faults['all_zero']:,} of them in"
        return fail("quality", f"{said} {row.corpus}:{row.split}; look at its files, and leave these out.")
    rates = [
        (row.faults[name] / row.measured, row.faults[name], name, row)
        for row in found.splits
        if row.trained and row.measured
        for name in JUDGED
    ]
    dead = [one for one in rates if one[2] in DEADLY and one[0] > HARD and one[1] >= ENOUGH]
    if dead:
        part, count, name, row = max(dead, key=first_of)
        said = f"{count:,} of {row.measured:,} clips of {row.corpus}:{row.split} ({percent(part)}) are bad:"
        return fail("quality", f"{said} {FAULTS[name]}. Listen to some; something went wrong before or in packing.")
    if measured < clips:
        said = f"The audio of {clips - measured:,} of {clips:,} clips was not measured, so nothing is known of it"
        return warn("quality", f"{said}: they were taken on trust; build without --trust-digests to measure them.")
    odd = [one for one in rates if one[0] > FEW]
    if odd:
        part, count, name, row = max(odd, key=first_of)
        said = f"{count:,} of {row.measured:,} clips of {row.corpus}:{row.split} ({percent(part)}): {FAULTS[name]}"
        return warn("quality", f"{said}. Listen to the worst ones below.")
    return good("quality", f"All {clips:,} clips were measured; no split to train on has many that are bad.")


def first_of(entry: tuple[float, int, str, SplitQuality]) -> float:
    """Order by the share alone."""
    return entry[0]


def histogram(found: Levels, title: str, unit: str) -> Markup:
    """Return the histogram of one measure, its corpora one on the other."""
    series = [(line.corpus, line.counts) for line in found.bars]
    return Markup(plots.levels(found.edges, series, title, unit))


def shades(found: Levels) -> dict[str, str]:
    """Return the colour of each corpus."""
    return {line.corpus: plots.shade(place) for place, line in enumerate(found.bars)}


DRAWN = {"level_histogram": histogram, "level_shades": shades, "quality_faults": FAULTS, "worst_of": WORST}
