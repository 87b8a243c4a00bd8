"""SLURP: slots by span and by bracket, twins of a take, both layouts, and lines that are no sentence."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests import Clip, UserError, load_corpus
from manifests.corpora.slurp import Entity, Token, slot

SPLITS = ("train", "train-synthetic", "devel", "test")
COUNTS = {"devel": (2033, 8690), "test": (2974, 13078)}
BRACKET = re.compile(r"\[([^:\]]+):([^\]]+)\]")


def read(root: Path, split: str) -> list[Clip]:
    return list(load_corpus("slurp").clips(root, split))


def read_refusing(root: Path, split: str) -> tuple[list[Clip], list[tuple[str, str, str]]]:
    refused: list[tuple[str, str, str]] = []
    return list(load_corpus("slurp").clips(root, split, lambda *told: refused.append(told))), refused


def lines(root: Path, split: str) -> list[dict]:
    table = root / "dataset" / "slurp" / f"{split.replace('-', '_')}.jsonl"
    return [json.loads(line) for line in table.read_text(encoding="utf-8").splitlines()]


def bracketed(row: dict) -> tuple[tuple[str, str], ...]:
    """The slots as the annotated sentence has them: another notation of the same facts."""
    return tuple(
        (name.strip().replace("_", " "), value.strip()) for name, value in BRACKET.findall(row["sentence_annotation"])
    )


@pytest.fixture(scope="module")
def root(corpora: Path) -> Path:
    return corpora / "slurp"


@pytest.fixture
def copy(root: Path, tmp_path: Path) -> Path:
    """The tables of the miniature, to be damaged."""
    shutil.copytree(root / "dataset", tmp_path / "dataset")
    return tmp_path


@pytest.mark.parametrize("split", SPLITS)
def test_every_recording_is_a_clip_with_the_slots_of_the_annotated_sentence(root: Path, split: str) -> None:
    expected = [
        (f"slurp/{recording['file'][:-5]}", row["sentence"], bracketed(row))
        for row in lines(root, split)
        for recording in row["recordings"]
    ]
    assert [(clip.id, clip.text, clip.questions) for clip in read(root, split)] == expected


def test_a_slot_that_occurs_twice_is_asked_twice(root: Path) -> None:
    clip = read(root, "devel")[0]
    assert clip.text == "siri what is one american dollar in japanese yen"
    assert clip.questions == (("currency name", "american dollar"), ("currency name", "japanese yen"))
    assert clip.labels == {"scenario": "qa", "intent": "qa_currency", "mic": "headset"}
    assert (clip.language, clip.license) == ("en", "CC-BY-NC-4.0")


def test_both_twins_of_a_take_are_clips_and_the_label_tells_them_apart(root: Path) -> None:
    clips = {clip.id: clip for clip in read(root, "test")}
    near, far = clips["slurp/audio--1504190646-headset"], clips["slurp/audio--1504190646"]
    assert (near.labels["mic"], far.labels["mic"]) == ("headset", "far")
    assert (near.text, near.questions, near.speaker) == (far.text, far.questions, far.speaker)


def test_a_sentence_without_slots_has_its_text_alone(root: Path) -> None:
    clip = next(clip for clip in read(root, "test") if clip.text == "increase the brightness of the lights")
    assert clip.questions == ()


def test_the_intent_is_not_made_of_scenario_and_action(root: Path) -> None:
    row = next(row for row in lines(root, "test") if row["slurp_id"] == 962)
    assert row["intent"] != f"{row['scenario']}_{row['action']}"
    clip = next(clip for clip in read(root, "test") if clip.text == row["sentence"])
    assert (clip.labels["intent"], clip.labels["scenario"]) == (row["intent"], row["scenario"])


def test_the_code_of_a_reader_tells_the_gender(root: Path) -> None:
    told = {clip.speaker: clip.gender for split in SPLITS for clip in read(root, split)}
    assert told == {
        "slurp/FO-488": "female",
        "slurp/FE-149": "female",
        "slurp/ME-139": "male",
        "slurp/MO-446": "male",
        "slurp/UNK-323": "",
        "": "",
    }


def test_synthetic_speech_has_no_reader_and_no_microphone(root: Path) -> None:
    (clip,) = read(root, "train-synthetic")
    assert (clip.speaker, clip.gender, "mic" in clip.labels) == ("", "", False)
    assert clip.audio[0].path == "audio/slurp_synth/audio-20000-synth-0.flac"
    assert load_corpus("slurp").expand("train_synthetic") == ("train-synthetic",)


@pytest.mark.parametrize("split", SPLITS)
def test_all_files_but_one_are_there(root: Path, split: str) -> None:
    missing = [clip.id for clip in read(root, split) if not (root / clip.audio[0].path).is_file()]
    assert missing == (["slurp/audio-1490356953-headset"] if split == "test" else [])


def test_ids_are_unique_in_the_corpus(root: Path) -> None:
    ids = [clip.id for split in SPLITS for clip in read(root, split)]
    assert len(set(ids)) == len(ids)


def test_the_tables_may_lie_beside_the_audio(root: Path, tmp_path: Path) -> None:
    shutil.copy(root / "dataset/slurp/devel.jsonl", tmp_path)
    (tmp_path / "slurp_real").mkdir()
    ours, theirs = read(tmp_path, "devel"), read(root, "devel")
    assert [clip.audio[0].path for clip in ours] == [clip.audio[0].path.removeprefix("audio/") for clip in theirs]
    assert {(clip.speaker, clip.gender) for clip in ours} == {("", "")}


def test_a_missing_table_says_where_it_comes_from(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"slurp: there is no file .*train_synthetic\.jsonl.*github\.com/pswietojanski"):
        read(tmp_path, "train-synthetic")


def test_metadata_that_is_not_is_a_sentence_that_names_the_file(copy: Path) -> None:
    (copy / "dataset/slurp/metadata.json").write_text("<html>404</html>")
    with pytest.raises(UserError, match=r"metadata\.json.*fetch it anew"):
        read(copy, "devel")


@pytest.mark.parametrize(
    "damage",
    [
        "{",
        "[]",
        "\x00",
        '"a sentence"',
        '{"slurp_id": 1, "sentence": "no more"}',
        json.dumps({"span": [9], "type": "date"}),
    ],
)
def test_a_line_that_is_no_sentence_is_refused_with_file_and_line(copy: Path, damage: str) -> None:
    table = copy / "dataset/slurp/devel.jsonl"
    first, *rest = table.read_text().splitlines(keepends=True)
    whole = read(copy, "devel")
    table.write_text(first + damage + "\n" + "".join(rest))
    clips, refused = read_refusing(copy, "devel")
    assert clips == whole
    assert [(reason, place) for reason, place, _ in refused] == [("malformed_row", "slurp/devel.jsonl:2")]
    with pytest.raises(UserError, match=r"devel\.jsonl:2"):
        read(copy, "devel")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("entities", [{"span": [4, 99], "type": "currency_name"}]),
        ("entities", [{"span": [], "type": "currency_name"}]),
        ("recordings", [{"file": "../../etc/passwd.flac"}]),
        ("recordings", [{"file": "audio-1.wav"}]),
        ("sentence", None),
    ],
)
def test_a_field_that_cannot_be_used_refuses_its_line(copy: Path, key: str, value: object) -> None:
    table = copy / "dataset/slurp/devel.jsonl"
    row = json.loads(table.read_text().splitlines()[0])
    table.write_text(json.dumps(row | {key: value}) + "\n")
    clips, refused = read_refusing(copy, "devel")
    assert clips == []
    assert [place for _, place, _ in refused] == ["slurp/devel.jsonl:1"]


def test_bytes_that_are_not_text_are_refused(copy: Path) -> None:
    (copy / "dataset/slurp/devel.jsonl").write_bytes(b'\xff\xfe\n{"sentence": "\xe9"}\n\n')
    clips, refused = read_refusing(copy, "devel")
    assert clips == []
    assert [place for _, place, _ in refused] == ["slurp/devel.jsonl:1", "slurp/devel.jsonl:2"]


words = st.text(st.sampled_from("abcdefghijklmnopqrstuvwxyz@."), min_size=1, max_size=8).filter(
    lambda word: word != "n't"
)


@given(st.lists(words, min_size=1, max_size=9), st.data())
def test_the_value_of_any_span_is_its_words_with_spaces_between(sentence: list[str], data: st.DataObject) -> None:
    first = data.draw(st.integers(0, len(sentence) - 1))
    last = data.draw(st.integers(first, len(sentence) - 1))
    tokens = [Token(id=number, surface=word) for number, word in enumerate(sentence)]
    entity = Entity(type="event_name", span=list(range(first, last + 1)))
    assert slot(entity, tokens) == ("event name", " ".join(sentence[first : last + 1]))
    clitic = [*tokens, Token(id=len(tokens), surface="'s")]
    entity = Entity(type="event_name", span=[*entity.span, len(tokens)])
    assert slot(entity, clitic)[1] == " ".join(sentence[first : last + 1]) + "'s"


@pytest.mark.slow
@pytest.mark.parametrize("split", COUNTS)
def test_the_published_tables_parse_whole(tmp_path: Path, real_corpora: Path, split: str) -> None:
    real = real_corpora / "slurp"
    clips, rows = read(real, split), lines(real, split)
    assert (len(rows), len(clips)) == COUNTS[split]
    assert len(clips) == load_corpus("slurp").split(split).clips == len({clip.id for clip in clips})
    assert len({clip.labels["scenario"] for clip in clips}) == 18
    assert len({name for clip in clips for name, _ in clip.questions}) == 53
    found = {clip.id: clip.questions for clip in clips}
    differ = {row["slurp_id"] for row in rows if bracketed(row) != found[f"slurp/{row['recordings'][0]['file'][:-5]}"]}
    # "mail id" of one sentence is the tokens "mail", "i", "d".
    assert differ == ({17037} if split == "devel" else set())
