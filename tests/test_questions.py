"""Questions by rule: every answer stands in the text where the question says, and no question has two answers."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests import Clip, load_corpus
from manifests.questions import MOST, NUMBERS, PARAPHRASES, SOUNDS, Found, candidates, questions_for
from manifests.text import sentence_case

WORDS = [
    "the",
    "boy",
    "saw",
    "two",
    "boys",
    "mister",
    "quilter",
    "three",
    "dogs",
    "don't",
    "ran",
    "hundred",
    "and",
    "o",
]
TRANSCRIPTS = st.lists(st.sampled_from(WORDS), max_size=14).map(" ".join) | st.text(max_size=60)
PIECES = ["A man", "a woman", "two dogs", "birds", "speaks", "barking", "is talking", "laughing", "and", ",", "while"]
PIECES += [
    "followed by",
    "then",
    "and then",
    "water",
    "in a car",
    "with",
    "a door",
    "closes",
    "three beeps",
    "now",
    ".",
]
CAPTIONS = st.lists(st.lists(st.sampled_from(PIECES), max_size=9).map(" ".join) | st.text(max_size=40), max_size=3)


def said(text: str, name: str = "c/one", **more: str) -> Clip:
    return Clip(id=name, audio=(), text=text, language="en", **more)


def heard(*captions: str, name: str = "c/one") -> Clip:
    return Clip(id=name, audio=(), captions=captions)


def found(clip: Clip, kind: str) -> list[tuple[str, str]]:
    return [(one.about, one.answer) for one in candidates(clip) if one.kind == kind]


def holds(one: Found) -> bool:
    """Whether an answer is right, worked out in another way than it was found."""
    words = one.text.split(" ")
    match one.kind:
        case "first":
            return one.answer == words[0]
        case "last":
            return one.answer == words[-1]
        case "after" | "name":
            at = words.index(one.about)
            return words.count(one.about) == 1 and words[at + 1] == one.answer
        case "before":
            return words.count(one.about) == 1 and f" {one.answer} {one.about} " in f" {one.text} "
        case "how many" | "how many heard":
            counted = re.findall(rf"(?<![\w'-]){re.escape(one.about)}(?![\w'-])", one.text, re.IGNORECASE)
            right = f"{one.answer} {one.about}".lower() in one.text.lower() and len(counted) == 1
            return right and one.answer.lower() in NUMBERS
        case "heard first":
            rest = one.text.removeprefix(one.answer).lstrip(" ,;").lower()
            return rest.startswith(("followed by", "then", "and ", "is ", "are "))
        case "heard last":
            return one.text.endswith(one.answer) and bool(
                re.search(r"(followed by|then) $", one.text.removesuffix(one.answer), re.IGNORECASE)
            )
        case "who":
            # One word of the text belongs to the sound, and stands right behind the answer.
            forms = [word for word in re.findall(r"[^\W\d_]+", one.text.lower()) if SOUNDS.get(word) == one.about]
            behind = one.text[one.start + len(one.answer) :].lower().split()
            return (
                len(forms) == 1 and SOUNDS.get(next(word for word in behind if word not in ("is", "are"))) == one.about
            )
    return False


@given(text=TRANSCRIPTS, captions=CAPTIONS)
def test_every_answer_stands_in_the_text_where_it_is_claimed(text: str, captions: list[str]) -> None:
    clip = Clip(id="c/one", audio=(), text=text, captions=tuple(captions), language="en-US")
    sources = {sentence_case(text).lower()} | {" ".join(caption.split()).rstrip(" .") for caption in captions}
    sources |= {" ".join(caption.split()) for caption in captions}
    for one in candidates(clip):
        assert one.text in sources
        assert one.text[one.start : one.start + len(one.answer)] == one.answer
        assert one.answer.strip() == one.answer != ""
        assert holds(one), one


@given(text=TRANSCRIPTS, captions=CAPTIONS)
def test_no_question_about_captions_has_two_answers(text: str, captions: list[str]) -> None:
    answers: dict[tuple[str, str], set[str]] = {}
    for one in candidates(Clip(id="c/one", audio=(), text=text, captions=tuple(captions))):
        if one.about:
            answers.setdefault((one.kind, one.about), set()).add(one.answer.lower())
    assert all(len(right) == 1 for right in answers.values())


@given(text=TRANSCRIPTS, captions=CAPTIONS, name=st.text(min_size=1, max_size=8))
def test_a_clip_has_the_same_few_questions_every_time_and_they_are_well_formed(
    text: str, captions: list[str], name: str
) -> None:
    clip = Clip(id=f"c/{name}", audio=(), text=text, captions=tuple(captions), language="en")
    pairs = questions_for(clip)
    assert pairs == questions_for(clip)
    known = candidates(clip)
    assert (1 if known else 0) <= len(pairs) <= MOST
    assert len({question for question, _ in pairs}) == len(pairs)
    possible = {(template.format(one.about), one.answer) for one in known for template in PARAPHRASES[one.kind]}
    for pair in pairs:
        assert pair in possible
        assert re.fullmatch(r"[A-Z][^{}\n]*\?", pair[0]) and "  " not in pair[0]


def test_every_kind_has_several_paraphrases_of_one_form() -> None:
    for kind, templates in PARAPHRASES.items():
        assert len(set(templates)) == len(templates) >= 4
        assert len({template.count("{}") for template in templates}) == 1, kind
        assert all(template.isascii() and template.endswith("?") for template in templates)


def test_clips_differ_in_what_is_asked_and_how() -> None:
    text = "mister quilter saw two boys near the river and they ran home"
    asked = [questions_for(said(text, f"c/{number}")) for number in range(300)]
    assert {len(pairs) for pairs in asked} == {1, 2, 3}
    seen = {question for pairs in asked for question, _ in pairs}
    for kind in ("after", "before", "first", "last", "name", "how many"):
        for template in PARAPHRASES[kind]:
            before, _, after = template.partition("{}")
            assert any(question.startswith(before) and question.endswith(after) for question in seen), template


def test_transcripts() -> None:
    clip = said("MISTER QUILTER IS THE APOSTLE OF THE MIDDLE CLASSES")
    assert found(clip, "first") == [("", "mister")] and found(clip, "last") == [("", "classes")]
    assert ("apostle", "of") in found(clip, "after") and ("apostle", "the") in found(clip, "before")
    assert "the" not in {about for about, _ in found(clip, "after") + found(clip, "before")}
    assert found(clip, "name") == [("mister", "quilter")]
    assert found(said("FOUR O'CLOCK <COMMA> SAID WILLIAMS <PERIOD>"), "last") == [("", "williams")]


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("there are two boys here", [("boys", "two")]),
        ("twenty two boys came", []),
        ("two hundred boys came", []),
        ("two boys met three boys", []),
        ("the two is less", []),
        ("one or two boys", []),
        ("two hundred and ten boys", []),
        ("three thousand people", []),
        ("for three years' war", []),
        ("three-legged dogs and two-year-olds", []),
        ("she saw seven men and ten women", [("men", "seven"), ("women", "ten")]),
    ],
)
def test_numbers(text: str, pairs: list[tuple[str, str]]) -> None:
    assert found(said(text), "how many") == pairs
    assert found(heard(text), "how many heard") == pairs


@pytest.mark.parametrize(
    ("caption", "first", "last"),
    [
        ("A dog barks followed by a car horn", "A dog barks", "a car horn"),
        ("A man speaks, then a door closes.", "A man speaks", "a door closes"),
        ("Rain falls and then a bell rings then a cat meows", "Rain falls", "a cat meows"),
        ("Sirens are followed by a crash", None, "a crash"),
        ("A bird chirps now and then", None, None),
        ("Every now and then a bird chirps", None, None),
        ("Then a dog barks", None, None),
        ("A dog barks. Then a man speaks then laughs", None, None),
        ("A dog barks while a man speaks", None, None),
    ],
)
def test_what_is_heard_in_turn(caption: str, first: str | None, last: str | None) -> None:
    assert found(heard(caption), "heard first") == ([("", first)] if first else [])
    assert found(heard(caption), "heard last") == ([("", last)] if last else [])


@pytest.mark.parametrize(
    ("caption", "pairs"),
    [
        ("A man is speaking and a dog barks", [("speaking", "A man"), ("barking", "a dog")]),
        ("A young man talks as birds chirp", [("speaking", "A young man"), ("chirping", "birds")]),
        ("A man speaks and a woman talks", []),
        ("A man and a woman speaking", []),
        ("Water splashing, a dog, and a man laughing", [("splashing", "Water")]),
        ("A man in a car speaking", []),
        ("A loud barking", []),
        ("A woman speaking with muffled voices", []),
        ("Wind blows followed by a child crying", [("crying", "a child")]),
    ],
)
def test_who_makes_a_sound(caption: str, pairs: list[tuple[str, str]]) -> None:
    assert found(heard(caption), "who") == pairs


def test_captions_that_disagree_are_not_asked_about() -> None:
    assert found(heard("A man speaks", "A woman speaks"), "who") == []
    assert found(heard("A man speaks", "a man is talking"), "who") == [("speaking", "A man"), ("speaking", "a man")]
    assert found(heard("Two dogs run", "Three dogs run"), "how many heard") == []


def test_nothing_is_asked_of_other_languages_pairs_and_mixtures() -> None:
    text = "das ist ein langer satz mit worten"
    assert candidates(Clip(id="c/1", audio=(), text=text, language="de")) == []
    for join in ("mix", "concat"):
        assert candidates(Clip(id="c/1", audio=(), text=f"{text}\n{text}", join=join)) == []
    assert questions_for(Clip(id="c/1", audio=())) == () and questions_for(said("well then")) == ()


def test_the_miniatures_get_questions(corpora) -> None:
    clips = list(load_corpus("librispeech").clips(corpora / "librispeech", "dev-clean"))
    assert all(questions_for(clip) for clip in clips)
    assert all(answer in sentence_case(clip.text).lower() for clip in clips for _, answer in questions_for(clip))
