"""Licences: under which terms the audio stands, what they allow together, and who forbids to pass it on."""

from __future__ import annotations

import msgspec
from markupsafe import Markup

from manifests.licences import Terms, clip_terms, joined
from shards.audit import plots
from shards.audit.digits import neat, shown
from shards.audit.figures import duration
from shards.audit.verdicts import Gate, fail, good, warn
from shards.audit.view import View

GATES: tuple[str, ...] = ("licence",)
OPEN, PRIVATE, CLOSED, UNKNOWN = "#23875e", "#9a7412", "#cc4450", "#7b8794"
KINDS = {
    "open": (OPEN, "may be passed on and used commercially"),
    "research": (PRIVATE, "may be passed on, not used commercially"),
    "closed": (CLOSED, "may not be passed on"),
    "unknown": (UNKNOWN, "nobody here has read its terms, or it states none"),
}
"""What terms allow, by colour and in words."""
PAPER = "ATTRIBUTION.md"
"""The file of a dataset that names authors and licences."""

QUERIES = {
    "licences": """\
select corpus, license, sum(samples)::bigint as samples, sum(length) / 16000 / 3600 as hours
from parts group by corpus, license order by corpus, license""",
}


class Licence(msgspec.Struct, frozen=True, kw_only=True):
    """The hours of one corpus under one licence, and what holds for them."""

    corpus: str
    license: str
    """As each of these samples states it."""
    stated: tuple[str, ...]
    """As the corpus states it for all."""
    samples: int
    hours: float
    terms: str
    """What both allow together, by its name."""
    why: str
    kind: str
    """One of KINDS."""
    commercial: bool
    may_push: bool
    attribution: bool
    share_alike: bool


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """The hours of what allows the same."""

    kind: str
    hours: float


class Licences(msgspec.Struct, frozen=True, kw_only=True):
    """The licences of a dataset, and what all of them allow together: the strictest wins."""

    rows: tuple[Licence, ...]
    kinds: tuple[Kind, ...]
    terms: str
    commercial: bool
    may_push: bool
    attribution: bool
    share_alike: bool
    not_commercial: tuple[str, ...]
    """Corpora that forbid commercial use, and why: ``corpus: because``."""
    not_pushed: tuple[str, ...]
    """Corpora that forbid to be passed on, and why."""
    paper: str


def look(view: View) -> Licences:
    """Return the hours of each corpus under each licence, and what all allow together."""
    stated: dict[str, set[str]] = {}
    for source in view.dataset.manifest.sources:
        stated.setdefault(source.corpus, set()).add(source.license)
    held: list[tuple[Licence, Terms]] = []
    for corpus, license, samples, hours in view.database.ask("licences"):
        terms = joined(clip_terms(one, license) for one in sorted(stated.get(corpus, {""})))
        held.append((licence(corpus, license, stated.get(corpus, set()), samples, hours, terms), terms))
    rows = tuple(row for row, _ in held)
    whole = joined(terms for _, terms in held)
    return Licences(
        rows=rows,
        kinds=tuple(
            Kind(kind=kind, hours=neat(sum(row.hours for row in rows if row.kind == kind)))
            for kind in KINDS
            if any(row.kind == kind for row in rows)
        ),
        terms=shown(whole.name),
        commercial=whole.commercial,
        may_push=whole.may_push,
        attribution=whole.attribution,
        share_alike=whole.share_alike,
        not_commercial=reasons([row for row in rows if not row.commercial]),
        not_pushed=reasons([row for row in rows if not row.may_push]),
        paper=PAPER,
    )


def licence(corpus: str, license: str, stated: set[str], samples: int, hours: float, terms: Terms) -> Licence:
    """Return one row."""
    if not terms.known:
        kind = "unknown"
    elif not terms.may_push:
        kind = "closed"
    else:
        kind = "open" if terms.commercial else "research"
    return Licence(
        corpus=corpus,
        license=shown(license),
        stated=tuple(shown(one) for one in sorted(stated)),
        samples=samples,
        hours=neat(hours),
        terms=shown(terms.name),
        why=shown(terms.why),
        kind=kind,
        commercial=terms.commercial,
        may_push=terms.may_push,
        attribution=terms.attribution,
        share_alike=terms.share_alike,
    )


def reasons(rows: list[Licence]) -> tuple[str, ...]:
    """Return corpora with what decides, each reason once."""
    return tuple(dict.fromkeys(shown(f"{row.corpus}: {row.why}") for row in rows))


def gates(found: Licences) -> tuple[Gate, ...]:
    """Judge the licences."""
    return (judged(found),)


def judged(found: Licences) -> Gate:
    """All terms are known; the dataset may be used commercially and passed on, or it is said what may not be."""
    unknown = [row for row in found.rows if row.kind == "unknown"]
    if unknown:
        row, samples = unknown[0], sum(row.samples for row in unknown)
        what = f"states {row.license!r}" if row.license else "states no licence"
        said = f"The terms of {samples:,} samples are not known: {row.samples:,} of {row.corpus} {what}"
        if not row.license:
            return fail("licence", f"{said}. Find out under what they are published, and let the reader say it.")
        return fail("licence", f"{said}. Read those terms, add them to manifests/licences.py, or leave these out.")
    if not found.rows:
        return good("licence", "There is no sample, so no licence.")
    closed, private = of_kind(found, "closed"), of_kind(found, "research")
    if closed:
        names = ", ".join(dict.fromkeys(row.corpus for row in closed))
        said = (
            f"{duration(3600 * sum(row.hours for row in closed))} may not be passed on ({names}), so neither may this"
        )
        return warn("licence", f"{said} dataset: train on it, but do not publish it; salmonn push will refuse.")
    if private:
        names = ", ".join(dict.fromkeys(row.corpus for row in private))
        said = f"{duration(3600 * sum(row.hours for row in private))} are not for commercial use ({names})"
        return warn("licence", f"{said}, so neither is this dataset. It may be passed on under {found.terms}.")
    whole = f"All {duration(3600 * sum(row.hours for row in found.rows))} may be used commercially and passed on"
    return good("licence", f"{whole}, under {found.terms}; {found.paper} names the authors.")


def of_kind(found: Licences, kind: str) -> list[Licence]:
    """Return the rows of one kind."""
    return [row for row in found.rows if row.kind == kind]


def kind_of(name: str) -> tuple[str, str]:
    """Return colour and meaning of what terms allow."""
    return KINDS.get(name, (UNKNOWN, name))


def hours_bar(found: Licences) -> Markup:
    """Return the hours of each kind as one bar."""
    named = [(one.hours, *kind_of(one.kind)) for one in found.kinds]
    parts = [(hours, fill, f"{said}: {duration(3600 * hours)}") for hours, fill, said in named]
    return Markup(plots.bar(parts, f"hours by what may be done: {'; '.join(part[2] for part in parts)}"))


DRAWN = {"licence_bar": hours_bar, "licence_kind": kind_of}
