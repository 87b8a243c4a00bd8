"""The page of an audit: made of the report alone, without scripts and without anything from a network."""

from __future__ import annotations

from pathlib import Path

import jinja2

from shards.audit import plots
from shards.audit.figures import figure
from shards.audit.report import Report
from shards.audit.sections import DRAWN, SECTIONS

POLICY = (
    "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
)
"""What a browser may load for the page: what is written in it."""


def render(report: Report) -> str:
    """Return the page. Every text from the data is escaped; every figure carries its value of the report."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"n": figure, "colour": plots.colour, **DRAWN}
    return environment.get_template("page.html.j2").render(report=report, policy=POLICY, sections=SECTIONS)
