"""Duplicates: samples with the very same audio."""

from __future__ import annotations

import msgspec

from shards.audit.digits import shown
from shards.audit.verdicts import Gate, fail, good, warn
from shards.audit.view import View

GATES = ("duplicates",)

QUERIES = {
    "copies": """\
with copies as (
  select pcm_md5, count(*) as samples, bool_or(trained) as trained, bool_or(evaluated) as evaluated
  from samples left join roles using (corpus, split) group by pcm_md5)
select count(*) filter (samples > 1) as groups, coalesce(sum(samples - 1), 0) as surplus,
       count(*) filter (trained and evaluated) as shared,
       min(pcm_md5) filter (samples > 1) as first, min(pcm_md5) filter (trained and evaluated) as first_shared
from copies""",
    "copy": "select corpus, split, key from samples where pcm_md5 = $pcm_md5 order by corpus, split, key limit 2",
}


class Duplicates(msgspec.Struct, frozen=True, kw_only=True):
    """Samples with the very same audio."""

    groups: int
    surplus: int
    """Samples that could go without any audio being lost."""
    shared: int
    """Recordings that are in a split to train on and in one to evaluate on."""
    keys: tuple[str, ...]
    """Two samples of the first group; of the first shared one, if there is one."""


def look(view: View) -> Duplicates:
    """Return the samples with the very same audio."""
    [(groups, surplus, shared, first, first_shared)] = view.database.ask("copies")
    md5 = first_shared or first
    same = view.database.ask("copy", pcm_md5=md5) if md5 else []
    return Duplicates(groups=groups, surplus=int(surplus), shared=shared, keys=tuple(shown(row[2]) for row in same))


def gates(found: Duplicates) -> tuple[Gate, ...]:
    """Judge whether any audio is there twice."""
    return (twice(found),)


def twice(copies: Duplicates) -> Gate:
    """No audio is there twice; none is both trained and evaluated on."""
    if copies.shared:
        said = f"Recordings both trained on and evaluated on: {copies.shared:,}"
        return fail("duplicates", f"{said}, for example {' and '.join(copies.keys)}.")
    if copies.groups:
        said = f"Samples that repeat the audio of another: {copies.surplus:,}"
        return warn("duplicates", f"{said}, for example {' and '.join(copies.keys)}.")
    return good("duplicates", "No two samples have the same audio, sample for sample.")
