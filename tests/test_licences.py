"""Licences: what is known of each that a corpus states, and which of several hold together."""

from __future__ import annotations

import ast
import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests import corpus_names, load_corpus
from manifests.licences import SAME, STATED, clip_terms, joined, strictest, terms

KINDS = ("by", "by-sa", "by-nc", "by-nd", "by-nc-sa", "by-nc-nd")
CC = [f"CC-{kind.upper()}-{version}" for kind in KINDS for version in ("2.0", "3.0", "4.0")]
ALL = [*STATED, *SAME, *CC, "all rights reserved", ""]
FORBIDDEN = {"audiocaps", "coreasoning", "gigaspeech", "iemocap", "inspec", "millionsong", "musiccaps"}
FORBIDDEN |= {"voxceleb1", "wavcaps"}
ROOT = Path(__file__).parent.parent


def test_every_corpus_says_who_made_it_and_states_terms_that_somebody_has_read() -> None:
    for name in corpus_names():
        facts = load_corpus(name).facts
        own = terms(facts.license)
        assert own.known and own.why and own.url.startswith("http"), name
        assert len(facts.attribution) > 20 and facts.attribution.isascii(), name
        assert not own.by_clip or facts.credits, f"{name} leaves its licence to the clips: where are their authors?"


def test_every_licence_that_a_reader_writes_is_known() -> None:
    """Texts that a reader gives as `license`, or keeps as LICENSE, are found in its code."""
    found = {}
    for path in sorted((ROOT / "manifests/corpora").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.keyword) and node.arg == "license" and isinstance(node.value, ast.Constant):
                found[node.value.value] = path.stem
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "LICENSE":
                found[node.value.value] = path.stem
    assert {"CC-BY-4.0", "MIT", "IEMOCAP release form", "academic use only (WavCaps)"} <= set(found)
    assert [licence for licence in found if not terms(licence).known] == []


def test_which_corpora_may_be_published() -> None:
    assert {name for name in corpus_names() if not terms(load_corpus(name).facts.license).may_push} == FORBIDDEN


@pytest.mark.parametrize(
    ("stated", "name", "hub"),
    [
        ("CC-BY-4.0", "CC BY 4.0", "cc-by-4.0"),
        ("cc by-nc-sa 3.0", "CC BY-NC-SA 3.0", "cc-by-nc-sa-3.0"),
        ("http://creativecommons.org/licenses/by/3.0/", "CC BY 3.0", "cc-by-3.0"),
        ("https://creativecommons.org/publicdomain/zero/1.0/", "CC0 1.0", "cc0-1.0"),
        ("http://creativecommons.org/licenses/sampling+/1.0/", "CC Sampling+ 1.0", "other"),
        ("CC-BY-NC-ND-2.0", "CC BY-NC-ND 2.0", "other"),
        ("mit", "MIT licence", "mit"),
        ("CC-BY-4.0 texts, CC-BY-NC-4.0 audio", "CC BY-NC 4.0", "cc-by-nc-4.0"),
    ],
)
def test_a_licence_is_known_by_its_name_or_its_page(stated: str, name: str, hub: str) -> None:
    assert (terms(stated).name, terms(stated).hub) == (name, hub)


@pytest.mark.parametrize(
    "stated", ["", "all rights reserved", "CC-BY-5", "CC-BY-4.0; DROP", "http://evil.example/licenses/by/3.0/"]
)
def test_what_nobody_has_read_allows_nothing_and_says_so(stated: str) -> None:
    own = terms(stated)
    assert not (own.known or own.redistribute or own.commercial or own.derivatives or own.may_push)
    assert "unknown terms allow nothing" in own.why
    assert all(own.strictness > terms(other).strictness for other in [*STATED, *CC])


def test_creative_commons_mean_what_their_letters_say() -> None:
    for licence in CC:
        own, letters = terms(licence), licence.lower().split("-")
        assert own.redistribute and own.attribution and own.known
        assert (own.commercial, own.derivatives, own.share_alike) == (
            "nc" not in letters,
            "nd" not in letters,
            "sa" in letters,
        )
        assert own.may_push is ("nd" not in letters)


def test_the_order_of_strictness() -> None:
    order = ["CC0-1.0", "CC-BY-4.0", "CC-BY-SA-4.0", "CC-BY-NC-4.0", "CC-BY-NC-SA-4.0", "CC-BY-ND-4.0"]
    order += ["CC-BY-NC-ND-4.0", "IEMOCAP release form", "who knows"]
    strict = [terms(licence).strictness for licence in order]
    assert strict == sorted(strict) and len(set(strict)) == len(strict)


@given(st.lists(st.sampled_from(ALL), min_size=1, max_size=5))
def test_together_licences_allow_what_all_of_them_allow_and_ask_what_any_asks(licences: list[str]) -> None:
    whole, each = strictest(licences), [terms(licence) for licence in licences]
    for allowed in ("redistribute", "commercial", "derivatives", "known", "may_push"):
        assert getattr(whole, allowed) == all(getattr(one, allowed) for one in each), allowed
    for asked in ("attribution", "share_alike"):
        assert getattr(whole, asked) == any(getattr(one, asked) for one in each), asked
    assert whole.strictness >= max(one.strictness for one in each)
    assert whole.name in {one.name for one in each} or " and " in whole.name
    assert whole == strictest(reversed(licences)) == strictest([*licences, *licences])
    # The Hub's identifier is given only to what covers everything.
    assert whole.hub == "other" or all(whole.covers(one) for one in each)


@given(*[st.sampled_from(ALL)] * 3)
def test_joining_does_not_depend_on_the_order(a: str, b: str, c: str) -> None:
    flags = {
        (one.redistribute, one.commercial, one.derivatives, one.share_alike, one.attribution, one.known)
        for one in (joined([joined([terms(x), terms(y)]), terms(z)]) for x, y, z in itertools.permutations((a, b, c)))
    }
    assert len(flags) == 1


def test_share_alike_and_non_commercial_hold_side_by_side() -> None:
    both = strictest(["CC-BY-SA-4.0", "CC-BY-NC-4.0", "CC0-1.0"])
    assert (both.name, both.hub) == ("CC BY-NC 4.0 and CC BY-SA 4.0", "other")
    assert both.share_alike and not both.commercial and both.may_push
    assert strictest(["CC-BY-3.0", "CC-BY-4.0", "CC0-1.0"]).hub == "cc-by-4.0"
    assert strictest(["CC-BY-SA-3.0", "CC-BY-SA-4.0"]).hub == "cc-by-sa-4.0"
    assert strictest(["CC-BY-NC-SA-4.0", "CC-BY-SA-4.0"]).hub == "other"


def test_what_a_clip_states_does_not_lift_what_its_corpus_states() -> None:
    audiocaps, clotho = (load_corpus(name).facts.license for name in ("audiocaps", "clotho"))
    assert terms("MIT").may_push and not clip_terms(audiocaps, "MIT").may_push
    free = clip_terms(clotho, "CC0-1.0")
    assert free.may_push and not free.commercial and not free.by_clip
    assert not clip_terms(clotho, "CC-BY-NC-ND-4.0").may_push
    # Where every clip states its own, one that repeats the corpus has none.
    assert terms(clotho).may_push and not clip_terms(clotho, clotho).known
    assert not clip_terms("CC-BY-4.0", "all rights reserved").may_push
