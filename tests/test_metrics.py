"""Scores against jiwer itself and by hand."""

from __future__ import annotations

import jiwer
import pytest

from manifests.errors import UserError
from salmonn.metrics import score


def test_word_error_rate_is_corpus_level() -> None:
    references = ["the cat sat", "a dog", "some words of a text"]
    answers = ["the cat sat", "a big dog", "some words of a"]
    result = score("wer", [[r] for r in references], answers)
    assert result.value == jiwer.process_words(references, answers).wer == 2 / 10
    assert result.count == 3
    assert result.details["insertions"] == 1
    assert result.details["deletions"] == 1


def test_texts_are_normalised_as_whisper_does() -> None:
    result = score("wer", [["Mr. Brown's colour isn't twenty"]], ["mister brown's color is not 20"])
    assert result.value == 0


def test_an_empty_reference_counts_its_insertions() -> None:
    result = score("wer", [[""], ["good morning"]], ["some words here", "good morning"])
    assert result.value == jiwer.process_words(["", "good morning"], ["some words here", "good morning"]).wer == 1.5
    assert score("wer", [[""]], [""]).value == 0
    assert score("wer", [[""]], ["good morning"]).value == 2


def test_an_empty_answer_is_all_deletions() -> None:
    assert score("wer", [["good morning"]], [""]).value == 1


def test_the_nearest_of_several_references_counts() -> None:
    result = score("wer", [["something else here", "good morning"]], ["good morning"])
    assert result.value == 0
    assert result.details["words"] == 2


def test_phone_error_rate_drops_silences_on_both_sides() -> None:
    result = score("per", [["HH AH0 L OW1"], ["K AE1 T"]], ["SIL hh ah0 l ow1 SIL", "K AE1"])
    assert result.value == 1 / 7


@pytest.mark.parametrize(
    ("answer", "hit"),
    [
        *(("Female", True), (" female.", True), ("FEMALE, I think", True), ("'Female'", True)),
        *(("A female", False), ("Male", False), ("", False), ("...", False)),
    ],
)
def test_accuracy_looks_at_the_first_word(answer: str, hit: bool) -> None:
    assert score("accuracy", [("Female",)], [answer]).value == hit


def test_accuracy_is_a_share_of_all_answers() -> None:
    result = score("accuracy", [["Yes"], ["No"], ["Yes", "Yeah"], ["No"]], ["yes", "yes", "yeah!", ""])
    assert (result.value, result.count, result.details["correct"]) == (0.5, 4, 2)


def test_a_metric_without_a_scorer_says_so() -> None:
    with pytest.raises(UserError, match="'caption' has no scorer yet; there is accuracy, per, wer"):
        score("caption", [["a"]], ["a"])


def test_nothing_to_score_is_an_error() -> None:
    with pytest.raises(ValueError, match="0 answers"):
        score("wer", [], [])
