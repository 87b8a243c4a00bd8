"""The ATTRIBUTION.md of a dataset: whose work it holds, under which licences, and what was done to it."""

from __future__ import annotations

from manifests.licences import Terms, clip_terms, terms
from shards.markdown import plain, rows
from shards.papers import Papers, facts_of, total

DONE = {
    "copy": "copied byte for byte",
    "transcode": "decoded, brought to 16 kHz and one channel, and encoded anew",
    "render": "rendered from parts of several files, or synthesized",
}
"""What the index' column `action` says, in words."""


def attribution(papers: Papers) -> str:
    """Return the text of ATTRIBUTION.md; it names every corpus and every licence that a clip states."""
    lines = [
        f"# Whose work this is: {plain(papers.manifest.title)}",
        "",
        "This dataset holds the work of others, each under its own licence. Who passes it on, or what is made of it,",
        "keeps to all of them, and names the authors below. What was changed is said for each corpus. To all of it,",
        "instructions and answers were attached, and audio is stored as FLAC, 16 kHz, mono, 16 bits.",
        "",
        "This page is not legal advice; the texts behind the links are what holds.",
        "",
    ]
    for corpus in papers.corpora:
        lines += corpus_lines(papers, corpus)
    return "\n".join(lines)


def corpus_lines(papers: Papers, corpus: str) -> list[str]:
    """Return the section on one corpus."""
    facts, parts = facts_of(corpus), papers.of(corpus)
    stated = sorted({part.source.license for part in parts})
    lines = [f"## {plain(facts.title) if facts else plain(corpus)} (`{corpus}`)", ""]
    if facts and facts.attribution:
        lines += [f"- Authors: {plain(facts.attribution, 999)}"]
    if facts:
        lines += [f"- Source: <{facts.homepage}>"]
    for licence in stated:
        own = terms(licence)
        lines += [f"- Licence, as the corpus states it: {plain(licence, 999)}{link(own)}. {sentence(own)}"]
    if facts and facts.sharing:
        lines += [f"- Before you pass it on: {plain(facts.sharing, 999)}."]
    splits = ", ".join(f"{part.source.split} ({part.source.packed:,} clips)" for part in parts)
    lines += [f"- Taken from it: {splits}."]
    done = total(part.actions for part in parts)
    changed = ", ".join(f"{number:,} {DONE.get(action, action)}" for action, number in done.items())
    lines += [f"- Changes to the audio of its clips: {changed}." if changed else "- No clip of it was packed."]
    if facts and facts.credits:
        lines += [
            f"- Authors of single clips: {plain(facts.credits, 999)}. The index (`index/{corpus}/`) has each sample's"
            " `id`, its files in the corpus (`sources`) and its `license`."
        ]
    return [*lines, "", *clip_lines(papers, corpus), ""]


def link(own: Terms) -> str:
    """Return the name of some terms as a link to their text, in brackets."""
    return f" (<{own.url}>)" if own.url else ""


def sentence(own: Terms) -> str:
    """Return what decides under some terms as a sentence."""
    return plain(own.why[:1].upper() + own.why[1:], 999) + "."


def clip_lines(papers: Papers, corpus: str) -> list[str]:
    """Return the table of the licences that the clips of a corpus state."""
    whole = papers.of(corpus)[0].source.license
    counts = total(part.licences for part in papers.of(corpus))
    cells = []
    for licence, number in counts.items():
        held = clip_terms(whole, licence)
        allowed = ", ".join(
            word
            for word, holds in (
                ("passed on as here", held.may_push),
                ("used commercially", held.commercial),
                ("not without its authors' names", held.attribution),
                ("only under the same terms", held.share_alike),
            )
            if holds
        )
        own = terms(licence)
        named = plain(licence, 999) if licence else "*none stated*"
        cells.append((f"{named}{link(own)}", f"{number:,}", allowed or "nothing"))
    return (
        rows(("licence that a clip states", "clips", "with what the corpus states, it may be"), cells) if cells else []
    )
