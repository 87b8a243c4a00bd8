"""The page of an audit: made of the report alone, without scripts and without anything from a network."""

from __future__ import annotations

import base64
from pathlib import Path

import jinja2
import msgspec
from markupsafe import Markup

from shards.audit import plots
from shards.audit.mixture import Mixture, Stage, ordered
from shards.audit.report import Answers, Funnel, Report

POLICY = (
    "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
)
"""What a browser may load for the page: what is written in it."""
FORMATS = {"count": "{:,.0f}", "tenths": "{:,.1f}", "ratio": "{:,.2f}", "number": "{:,.10g}", "limit": "{:g} s"}
"""How plain numbers are read."""
PACKED, QUARANTINED, EXCLUDED = "#6f8497", "#c0392f", "#a8761a"
MINUS = "\u2212"
SHADES = ("ff", "a6", "66", "40")
"""How strong the colours of the classes of one task are, as the last two digits of a colour."""


def render(report: Report) -> str:
    """Return the page. Every text from the data is escaped; every figure carries its value of the report."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "n": figure,
        "colour": plots.colour,
        "shares": mixture_bars,
        "lengths": lengths,
        "balance": balance,
        "funnel_bar": funnel_bar,
        "wave": lambda clip: Markup(plots.waveform(clip.peaks, plots.colour(clip.task), f"waveform of {clip.key}")),
        "sound": lambda clip: f"data:audio/mpeg;base64,{base64.b64encode(clip.mp3).decode()}",
        "tasks_of": tasks_of,
        "kinds": {"packed": PACKED, "quarantined": QUARANTINED, "excluded": EXCLUDED},
    }
    return environment.get_template("page.html.j2").render(report=report, policy=POLICY)


def tasks_of(stages: tuple[Stage, ...]) -> list[str]:
    """Return the tasks that any of `stages` deals."""
    return ordered({row.task for stage in stages if stage.mixture for row in stage.mixture.shares})


def figure(value: float | None, kind: str) -> Markup:
    """Return a number as it is read, with its exact value beside it for machines; a dash where there is none."""
    if value is None:
        return Markup('<span class="none">&ndash;</span>')
    exact = msgspec.json.encode(value).decode()
    return Markup('<data value="{}">{}</data>').format(exact, spoken(value, kind))


def spoken(value: float, kind: str) -> str:
    """Return a number as it is read."""
    if kind == "hours":
        return duration(value * 3600)
    if kind == "seconds":
        return duration(value)
    if kind == "share":
        return percent(value)
    if kind == "change":
        return f"{'+' if value > 0 else MINUS if value < 0 else ''}{percent(abs(value))}"
    if kind == "bytes":
        return size(value)
    return FORMATS[kind].format(value)


def duration(seconds: float) -> str:
    """Return a length of time in the unit that suits it."""
    if seconds < 59.95:
        return f"{seconds:.1f} s" if seconds else "0 s"
    if seconds < 3597:
        return f"{seconds / 60:.1f} min"
    hours = seconds / 3600
    return f"{hours:,.0f} h" if hours >= 99.95 else f"{hours:.1f} h"


def percent(part: float) -> str:
    """Return a share in percent; what is not nothing is not called so, nor what is not all."""
    if 0 < part < 0.0005:
        return "<0.1%"
    if 0.9995 <= part < 1:
        return ">99.9%"
    return f"{part:.0%}" if part in (0, 1) else f"{part:.1%}"


def size(count: float) -> str:
    """Return bytes in the unit that suits them."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.3g} {unit}" if unit != "B" else f"{count:.0f} B"
        count /= 1000
    return f"{count:,.2f} TB"


def mixture_bars(mixture: Mixture) -> list[tuple[str, Markup]]:
    """Return the four shares of a stage, each a bar in which every row has its part."""
    bars = []
    for name, field in (
        ("intended", "intended"),
        ("of examples", "by_examples"),
        ("of audio", "by_seconds"),
        ("of answer words", "by_words"),
    ):
        parts = [
            (getattr(row, field), plots.colour(row.task), f"{row.task} of {row.corpus}: {percent(getattr(row, field))}")
            for row in mixture.shares
        ]
        bars.append((name, Markup(plots.bar(parts, f"shares {name}: {'; '.join(part[2] for part in parts)}", 22))))
    return bars


def lengths(mixture: Mixture, stage: str) -> Markup:
    """Return the histogram of the lengths that a stage deals."""
    durations = mixture.durations
    series = [(line.task, line.counts) for line in durations.series]
    return Markup(plots.histogram(durations.edges, series, f"{stage}: draws by length of the clip in seconds"))


def balance(row: Answers) -> Markup:
    """Return the classes of a task of labels as one bar."""
    parts = [
        (one.count, plots.colour(row.task) + SHADES[min(place, len(SHADES) - 1)], f"{one.answer}: {percent(one.share)}")
        for place, one in enumerate(row.classes)
    ]
    return Markup(plots.bar(parts, f"answers of {row.task}: {'; '.join(part[2] for part in parts)}", 10))


def funnel_bar(split: Funnel) -> Markup:
    """Return what became of the clips of a split as one bar."""
    named = (("packed", PACKED), ("quarantined", QUARANTINED), ("excluded", EXCLUDED))
    parts = [(getattr(split, name), fill, f"{getattr(split, name):,} {name}") for name, fill in named]
    return Markup(plots.bar(parts, f"{split.corpus}:{split.split}: {'; '.join(part[2] for part in parts)}", 10))
