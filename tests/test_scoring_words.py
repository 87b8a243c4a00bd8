"""Error rates of words, phones and several speakers: as jiwer, whisper-normalizer and meeteval count them."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import jiwer
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from whisper_normalizer.english import EnglishTextNormalizer

from salmonn.scoring.metrics import score
from salmonn.scoring.normalizer import english, normalize
from salmonn.scoring.score import Score
from salmonn.scoring.speakers import permuted, sentences
from scored import answer, answers

WHISPER = EnglishTextNormalizer()
CASES = json.loads((Path(__file__).parent / "golden" / "scoring" / "cpwer.json").read_text())


def wer(*pairs: tuple[str, str]) -> Score:
    """The rate of pairs of reference and answer."""
    return score("wer", answers("asr", [(said, [right]) for right, said in pairs]))


def test_it_is_the_rate_of_the_set_not_a_mean_of_rates() -> None:
    pairs = [("the cat sat", "the cat sat"), ("a dog", "a big dog"), ("some words of a text", "some words of a")]
    made = wer(*pairs)
    assert made.value == jiwer.process_words([r for r, _ in pairs], [s for _, s in pairs]).wer == 2 / 10
    assert made.value != pytest.approx(np.mean([jiwer.wer(right, said) for right, said in pairs]))
    assert (made.count, made.details["insertions"], made.details["deletions"]) == (3, 1, 1)
    assert made.text() == "20.0"


WORD = st.sampled_from(["the", "cat", "sat", "on", "a", "mat", "one", "two", "colour", "don't"])
SENTENCE = st.lists(WORD, max_size=9).map(" ".join)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(SENTENCE, SENTENCE), min_size=1, max_size=8))
def test_it_is_jiwers_over_whispers_normaliser(pairs: list[tuple[str, str]]) -> None:
    found = jiwer.process_words([WHISPER(right) for right, _ in pairs], [WHISPER(said) for _, said in pairs])
    made = wer(*pairs)
    assert made.value == found.wer
    assert made.details["substitutions"] == found.substitutions
    assert made.details["words"] == found.hits + found.substitutions + found.deletions


PARTS = st.sampled_from(
    [
        *("the", "cat", "and", "a", "half", "one", "two", "twenty", "hundred", "thousand", "million", "oh", "zero"),
        *("double", "triple", "point", "minus", "plus", "percent", "per", "cent", "dollars", "cents", "pound", "first"),
        *(
            "second",
            "thirds",
            "eleven",
            "mr",
            "mrs.",
            "Dr",
            "st",
            "gen",
            "Hmm",
            "uh",
            "um",
            "umbrella",
            "won't",
            "can't",
        ),
        *("y'all", "i'ma", "it's", "he'd", "been", "'d", "gone", "they've", "'s", "n't", "'m", "don't", "colour"),
        *("organise", "\u00e9t\u00e9", "na\u00efve", "$20.50", "\u2014", "20", "3.5", "1,000", "5%", "21st", "1990s"),
        *(".", ",", "?", "!", "...", "(", ")", "[", "]", "<", ">", "'", '"', "-", "\u20ac5", "\u00df", "decillion"),
    ]
)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(PARTS, st.sampled_from([" ", " ", " ", "", "\n"])), max_size=14))
def test_the_short_way_is_the_long_way(parts: list[tuple[str, str]]) -> None:
    text = "".join(word + gap for word, gap in parts)
    try:
        whole = WHISPER(text)
    except Exception:  # the library stumbles over some numbers; ours must not
        assert isinstance(normalize(text), str)
    else:
        assert normalize(text) == whole.strip()


def test_most_texts_go_the_short_way() -> None:
    for text in ("Mister Brown's colour, isn't it?", "one hundred and twenty men", "Well. No. 'tis Dr. Smith"):
        assert english().short(text.lower()) == WHISPER(text).strip()


def test_numbers_contractions_and_spellings_are_brought_together() -> None:
    assert wer(("Mr. Brown's colour isn't twenty", "mister brown's color is not 20")).value == 0
    assert wer(("they'd won one hundred and five", "They would won 105!")).value == 0


def test_nothing_said_is_all_deletions_and_nothing_right_all_insertions() -> None:
    assert wer(("good morning", "")).value == 1
    assert wer(("", "good morning"), ("some words here", "some words here")).value == 2 / 3
    assert wer(("", "")).value == 0
    assert wer(("", "good morning")).value == 2
    assert score("wer", [answer("asr", "good morning")]).value == 2  # no reference at all


def test_the_nearest_of_several_references_counts() -> None:
    made = score("wer", [answer("asr", "good morning", "something else here", "good morning")])
    assert (made.value, made.details["words"]) == (0, 2)


def test_gigaspeech_punctuation_is_nothing_and_noise_is_dropped() -> None:
    pairs = [
        ("FOUR O'CLOCK TOMORROW <COMMA> SAID WILLIAMS <PERIOD>", "four o'clock tomorrow said williams"),
        ("<NOISE>", "thank you"),
        ("<SIL> <MUSIC>", ""),
        ("AND <QUESTIONMARK> <OTHER>", "and"),
    ]
    made = wer(*pairs)
    assert (made.value, made.count, made.details["noise segments dropped"]) == (0, 2, 2)
    nothing = wer(("<OTHER>", "hm hello"))
    assert (nothing.value, nothing.count) == (None, 0)
    assert nothing.note == "nothing but noise in the references"


def test_silences_are_dropped_from_phones_on_both_sides() -> None:
    made = score("per", answers("phone_recognition", [("SIL hh ah l ow SIL", ["HH AH L OW"]), ("K AE", ["K AE T"])]))
    assert made.value == 1 / 7
    assert made.details["normalizer"] == "upper case, silences dropped"


def test_unfinished_phones_are_counted_and_told_apart() -> None:
    lines = [
        answer("phone_recognition", "K AE T", "K AE T", key="a"),
        answer("phone_recognition", "K", "K AE T S", key="b", finished=False),
    ]
    made = score("per", lines)
    assert made.value == 3 / 7
    assert (made.also[0].name, made.also[0].value) == ("unfinished", 0.5)
    assert made.details["PER of finished answers alone"] == "0.0%"


@pytest.mark.parametrize("case", CASES)
def test_cpwer_is_meetevals(case: dict[str, list[str]]) -> None:
    """Values of meeteval 0.4.3, whose source needs a C++ compiler to install."""
    counts = permuted(case["references"], case["answers"])
    assert (int(counts[:3].sum()), int(counts[3])) == (case["errors"], case["words"])


def test_cpwer_is_meetevals_where_that_is_installed() -> None:
    wer_of = pytest.importorskip("meeteval.wer").cp_word_error_rate
    for case in CASES:
        assert wer_of(case["references"], case["answers"] or [""]).errors == case["errors"]


@settings(max_examples=60, deadline=None)
@given(st.lists(SENTENCE.filter(bool), min_size=1, max_size=3), st.lists(SENTENCE.filter(bool), min_size=1, max_size=4))
def test_no_permutation_has_fewer_errors(right: list[str], said: list[str]) -> None:
    many = max(len(right), len(said))
    padded = right + [""] * (many - len(right)), said + [""] * (many - len(said))
    tried = [
        sum(
            found.substitutions + found.deletions + found.insertions
            for found in itertools.starmap(jiwer.process_words, zip(padded[0], order, strict=True))
        )
        for order in itertools.permutations(padded[1])
    ]
    assert permuted(right, said)[:3].sum() == min(tried)


def cpwer(right: str, said: str) -> Score:
    return score("cpwer", [answer("overlapped_speech_recognition", said, right)])


def test_the_order_of_speakers_does_not_matter_but_a_missing_one_does() -> None:
    right = "The cat sat. A dog ran far away."
    assert cpwer(right, "A dog ran far away. The cat sat.").value == 0
    alone = cpwer(right, "The cat sat.")
    assert (alone.value, alone.details["deletions"]) == (5 / 8, 5)
    assert alone.details["answers with as many sentences as speakers"] == "0.0%"
    more = cpwer(right, "The cat sat. A dog ran far away. Yes indeed.")
    assert (more.value, more.details["insertions"]) == (2 / 8, 2)
    assert cpwer(right, "").value == 1


def test_a_title_ends_no_sentence() -> None:
    assert sentences("Mr. Smith came. Who? St. James at 3.5!") == ["mister smith came", "who", "saint james at 3.5"]
