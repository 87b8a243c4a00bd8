"""Answers of one word, keywords, judged answers, following rates and stories: by hand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest

from salmonn.scoring.judge import StringMatch, Verdict
from salmonn.scoring.keywords import is_right, phrases
from salmonn.scoring.metrics import score
from salmonn.scoring.score import Score
from salmonn.scoring.story import repeating
from scored import STORY, answer, answers


@pytest.mark.parametrize(
    ("said", "hit"),
    [
        *(("Yes.", True), ("yes", True), ("Yes, it is", True), ("YES!", True), ("Yes,it is.", True), ('"Yes"', True)),
        *(
            ("**Yes**", True),
            ("No, yes", False),
            ("It is, yes", False),
            ("", False),
            ("...", False),
            ("Yesterday", False),
        ),
    ],
)
def test_yes_is_yes_however_it_is_written(said: str, hit: bool) -> None:
    assert score("accuracy", [answer("speaker_verification", said, "Yes")]).value == hit


def test_an_emotion_is_its_first_word_and_nothing_else() -> None:
    rows = [("Sad.", ["Sad"]), ("Frustrated", ["Angry"]), ("happy, I think", ["Happy"]), ("A sad voice", ["Sad"])]
    made = score("accuracy", answers("emotion_recognition", rows))
    assert (made.value, made.details["correct"], made.text()) == (0.5, 2, "0.50")
    assert made.details["answers that are none of the labels"] == 2
    assert made.details["commonest answer alone"] == "50.0%"


def test_keywords_follow_the_rule_of_the_reproduction() -> None:
    assert phrases("Speech-recognition, and neural nets., audio and video") == [
        *("speech recognition", "neural nets", "audio and video")
    ]
    gold = ["automatic speech recognition", "noise", "neural nets"]
    assert is_right("speech recognition", gold)  # several words: within a keyphrase
    assert is_right("noise", gold)  # one word: equal
    assert not is_right("neural", gold)
    assert not is_right("speech recognition of noise", gold)


def test_keywords_are_divided_by_what_could_be_right() -> None:
    rows = [
        ("speech recognition, noise, neural", ["automatic speech recognition, noise, neural nets, hidden models"]),
        ("graphs, trees, sets", ["graphs"]),
        ("noise, noise, Noise", ["noise, speech, nets"]),
        ("a b, c d, e f, g h", ["a b, c d, e f, g h"]),
        ("", ["audio, video"]),
    ]
    made = score("keywords", answers("keyword_extraction", rows))
    assert (made.details["keywords right"], made.details["keywords possible"]) == (2 + 1 + 1 + 3 + 0, 3 + 1 + 3 + 3 + 2)
    assert made.value == 7 / 12


@pytest.mark.parametrize(
    ("right", "said", "correct"),
    [
        ("seven a.m.", "The alarm is set for Seven A.M.", True),
        ("seven", "It is 7", True),
        ("colour", "the color", True),
        ("cat", "concatenate", False),
        ("No", "Yes, there is no dog", False),
        ("No", "No.", True),
        ("Yes", "Yes, it is", True),
        ("a dog", "", False),
        ("um", "um", True),  # Whisper's normaliser takes it for noise
        ("?", "?", True),
        ("?", "!", False),
    ],
)
def test_the_string_match_judge(right: str, said: str, correct: bool) -> None:
    assert StringMatch().judge("", ["never", right], said).correct == correct
    assert StringMatch().judge("", ["never", right], said) == StringMatch().judge("", ["never", right], said)


class Stern:
    """A judge that finds right what is put in quotes, and says who followed."""

    name = "stern"

    def __init__(self, followed: bool | None = None) -> None:
        self.followed = followed
        self.heard: list[tuple[str, Sequence[str], str]] = []

    def prepare(self, questions: Iterable[tuple[str, Sequence[str], str]]) -> None:
        self.heard = list(questions)

    def judge(self, question: str, references: Sequence[str], answer: str) -> Verdict:
        assert (question, references, answer) in self.heard
        return Verdict(correct=answer.startswith("'"), reason="quotes", followed=self.followed)


def parts(made: Score) -> dict[str, float | None]:
    return {part.name: part.value for part in made.parts()}


def test_the_judge_decides_and_is_named() -> None:
    rows = [("'a'", ["b"]), ("b", ["b"]), ("", ["b"]), (" ", ["b"])]
    judge = Stern()
    made = score("judge", answers("speech_qa", rows, question="What?"), judge)
    assert (made.value, made.details["judge"]) == (0.25, "stern")
    assert judge.heard == [("What?", ("b",), "'a'"), ("What?", ("b",), "b")]  # nothing is not worth asking about
    assert score("judge", answers("speech_qa", rows)).details["judge"] == "string match"


def test_an_answer_near_the_transcript_has_not_followed() -> None:
    spoken = "how is salt made in the old days by people"  # ten words
    said = {
        "by drying sea water": True,
        spoken: False,
        spoken.replace("old", "olden").replace("salt", "malt"): False,  # 20 % of errors
        spoken.replace("old", "olden").replace("salt", "malt").replace("days", "ways"): True,  # 30 %
        "": False,
        " ": False,
    }
    rows = [(text, ["by drying sea water"]) for text in said]
    for one, followed in zip(answers("spoken_query_qa", rows, transcript=spoken), said.values(), strict=True):
        assert parts(score("judge", [one]))["following rate"] == followed, one.answer
    made = score("judge", answers("spoken_query_qa", rows, transcript=spoken))
    assert parts(made)["following rate"] == 2 / 6
    unknown = score("judge", answers("spoken_query_qa", rows)).also[0]
    assert (unknown.value, unknown.count) == (None, 0) and "needs what is said" in unknown.note
    # A right answer has followed, even where it is all that was said.
    whole = answer("slot_filling", "Jazz.", "jazz", slot="music genre", transcript="jazz")
    assert parts(score("slots", [whole]))["following rate"] == 1


def test_token_f1_is_that_of_squad() -> None:
    rows = [("the big dog!", ["a dog", "cats"]), ("", ["dog"]), ("dog", ["dog"]), ("cat", ["dog"])]
    assert parts(score("judge", answers("audio_qa", rows)))["token F1"] == pytest.approx((2 / 3 + 0 + 1 + 0) / 4)


def test_slots_tell_their_worst_kind() -> None:
    lines = [
        answer("slot_filling", "at seven", "seven", key="a", slot="time", transcript="wake me at seven"),
        answer("slot_filling", "rock", "jazz", key="a", slot="genre", transcript="wake me with jazz"),
    ]
    made = score("slots", lines)
    assert (made.value, made.details["kinds of slots"], made.details["worst"]) == (0.5, 2, "genre (0 of 1)")


def test_coreasoning_believes_a_judge_on_who_followed() -> None:
    rows = [("'Yes'", ["Yes"]), ("do you hear water", ["Yes"]), ("", ["No"])]
    lines = answers("speech_audio_coreasoning", rows, transcript="Do you hear water?")
    assert parts(score("coreasoning", lines)) == {"accuracy": 1 / 3, "following rate": 1 / 3}
    assert parts(score("coreasoning", lines, Stern(followed=True)))["following rate"] == 2 / 3
    judge = Stern()
    score("coreasoning", lines, judge)
    assert judge.heard[0][0] == "Do you hear water?"  # what is spoken is the question


def test_stories_are_counted_in_distinct_words() -> None:
    rows = [("The dog. the DOG, barks!", ["x"]), (STORY, ["x"]), ("", ["x"])]
    made = score("story", answers("audio_story", rows))
    assert parts(made) == {"diversity": (3 + 60 + 0) / 3, "following rate": 1 / 3, "repeat rate": 0}
    assert score("story", [answer("audio_story", "word " * 49, "x")]).also[0].value == 0
    assert score("story", [answer("audio_story", "word " * 50, "x")]).also[0].value == 1


def test_four_words_may_stand_three_times() -> None:
    assert not repeating(["a", "b", "c", "d", "e"] * 3)
    assert repeating(["a", "b", "c", "d", "e"] * 4)
    assert repeating(["la"] * 7) and not repeating(["la"] * 6)
