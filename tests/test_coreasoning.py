"""Co-reasoning: what is asked over a clip is answered by its captions, yes as often as no, the same in every run."""

from __future__ import annotations

import gzip
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests import Clip, UserError, load_corpus
from manifests.corpora.coreasoning import ANIMALS, SOUND, SPEECH, TOPICS, WHICH_ANIMAL, questions
from manifests.corpora.wikiqa import VOICES

PUBLISHED = Path(__file__).parent / "published" / "audiocaps"
Refusals = list[tuple[str, str, str]]


def read(root: Path) -> tuple[list[Clip], Refusals]:
    refused: Refusals = []
    clips = list(load_corpus("coreasoning").clips(root, "test", lambda *told: refused.append(told)))
    return clips, refused


def answers(*captions: str) -> dict[str, str]:
    return dict(questions(captions))


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real captions of AudioCaps test, without audio."""
    root = tmp_path_factory.mktemp("coreasoning")
    (root / "audiocaps/dataset").mkdir(parents=True)
    table = gzip.decompress((PUBLISHED / "test.csv.gz").read_bytes())
    (root / "audiocaps/dataset/test.csv").write_bytes(table)
    return root


def test_the_miniature_is_read_through_its_link(corpora: Path) -> None:
    clips, refused = read(corpora / "coreasoning")
    theirs = list(load_corpus("audiocaps").clips(corpora / "audiocaps", "test"))
    assert [clip.id.split("/")[1] for clip in clips] == [clip.id.split("/")[1] for clip in theirs]
    assert not refused
    for clip, source in zip(clips, theirs, strict=True):
        sound, speech = clip.audio
        assert clip.join == "mix"
        assert sound.path == f"audiocaps/{source.audio[0].path}"
        assert (corpora / "coreasoning" / sound.path).is_file()
        assert (sound.gain, speech.gain) == (SOUND, SPEECH)
        assert (speech.path, speech.speech) == ("", clip.text)
        assert speech.voice in VOICES
        assert clip.captions == source.captions
    assert clips[0].text == WHICH_ANIMAL
    assert clips[0].questions == (("", "A dog"),)
    assert clips[0].labels == {"recipe": "coreasoning 1, seed 0, sound 0.3 + question 0.7"}
    assert (clips[1].text, clips[1].questions) == ("Do you hear water?", (("", "Yes"),))


def test_two_full_scale_signals_sum_to_full_scale() -> None:
    assert SOUND + SPEECH == 1


def test_all_published_clips_are_asked_and_yes_is_as_frequent_as_no(published: Path) -> None:
    clips, refused = read(published)
    assert (len(clips), refused) == (load_corpus("coreasoning").split("test").clips, [])
    told = Counter(clip.questions[0][1] for clip in clips)
    assert told["Yes"] + told["No"] > 900
    assert 0.9 < told["Yes"] / told["No"] < 1.1
    # A question alone does not give its answer away.
    pairs = Counter((clip.text, clip.questions[0][1]) for clip in clips)
    for topic in TOPICS:
        assert (
            1 / 3 < pairs[topic.question, "Yes"] / (pairs[topic.question, "Yes"] + pairs[topic.question, "No"]) < 2 / 3
        )
    assert {clip.audio for clip in clips} == {()}


def test_the_draws_depend_on_the_clip_alone(published: Path, tmp_path: Path) -> None:
    header, *rows = (published / "audiocaps/dataset/test.csv").read_text().splitlines()
    (tmp_path / "audiocaps/dataset").mkdir(parents=True)
    some_rows = [row for row in rows if row.split(",")[1] < "1"]
    (tmp_path / "audiocaps/dataset/test.csv").write_text("\n".join([header, *some_rows]))
    asked = {clip.id: (clip.text, clip.questions) for clip in read(published)[0]}
    some = read(tmp_path)[0]
    assert 10 < len(some) == len(some_rows) / 5 < 200
    assert all(asked[clip.id] == (clip.text, clip.questions) for clip in some)


def test_an_answer_can_be_found_in_the_captions(published: Path) -> None:
    topics = {topic.question: topic for topic in TOPICS}
    for clip in read(published)[0]:
        (answer,) = (answer for _, answer in clip.questions)
        captions = [f" {caption.lower()} " for caption in clip.captions]
        if answer == "No":
            assert not any(f" {hint}" in caption for caption in captions for hint in topics[clip.text].hints)
        elif answer == "Yes":
            told = [any(word in caption for word in topics[clip.text].heard) for caption in captions]
            assert sum(told) >= 3
        else:
            assert sum(answer.split()[1].lower()[:3] in caption for caption in captions) >= 3 or answer == "A dog"


@pytest.mark.parametrize(
    ("captions", "answer"),
    [
        (("A dog barks",), "A dog"),
        (("Two puppies whimper", "Dogs yap"), "A dog"),
        (("Horses trot", "Hooves clop", "A horse neighs"), "A horse"),
        (("A dog barks", "A cat meows"), None),
        (("A dog barks as birds sing",), None),
        (("Barking", "Something barks"), None),
        (("A cat meows", "Meowing", "Meowing and a voice"), None),
        (("A man imitates a cat",), None),
        (("A cat meows over barking",), None),
        (("Duck calls are blown",), None),
        (("A toy dog yaps",), None),
    ],
)
def test_an_animal_is_asked_for_where_one_is_named_and_no_other(captions: tuple, answer: str | None) -> None:
    assert answers(*captions).get(WHICH_ANIMAL) == answer


def test_no_needs_captions_that_leave_nothing_open() -> None:
    assert answers("A man speaks")["Do you hear water?"] == "No"
    assert "Do you hear water?" not in answers("A man speaks, then splashing")
    assert answers("Rain falls", "Thunder") == {"Do you hear water?": "Yes"}
    assert "Do you hear water?" not in answers("Rain falls", "Thunder", "A man speaks")


def test_a_clip_whose_captions_answer_nothing_is_refused(tmp_path: Path) -> None:
    every = " ".join(topic.hints[0] for topic in TOPICS)
    (tmp_path / "audiocaps/dataset").mkdir(parents=True)
    table = f"audiocap_id,youtube_id,start_time,caption\n1,aaaaaaaaaaa,0,{every}\n2,bbbbbbbbbbb,x,rain\n"
    (tmp_path / "audiocaps/dataset/test.csv").write_text(table)
    clips, refused = read(tmp_path)
    assert clips == []
    assert [reason for reason, _, _ in refused] == ["malformed_row", "no_question"]
    assert refused[0][1].endswith("test.csv:3")
    assert refused[1][1] == "coreasoning/aaaaaaaaaaa_0"


def test_a_missing_link_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"coreasoning: there is no folder .*audiocaps'; link the folder of AudioCaps"):
        read(tmp_path)
    (tmp_path / "audiocaps").mkdir()
    with pytest.raises(UserError, match=r"test\.csv"):
        read(tmp_path)


def test_the_rules_hold_each_other() -> None:
    for topic in TOPICS:
        assert all(word.startswith(topic.hints) for word in topic.heard)
    assert set(ANIMALS.values()) > {"A dog", "A cat", "An owl"}


@given(st.lists(st.text(max_size=30), max_size=5).map(tuple))
def test_any_captions_are_asked_of_without_contradiction(captions: tuple[str, ...]) -> None:
    asked = questions(captions)
    assert len({(question, answer) for question, answer in asked}) == len(dict(asked))
