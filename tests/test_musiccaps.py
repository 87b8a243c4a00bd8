"""MusicCaps: the published rows, Python literals and line ends in quotes, audio that users bring, hostile lists."""

from __future__ import annotations

import ast
import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests import Clip, UserError, load_corpus
from manifests.corpora.musiccaps import COLUMNS, TABLE, read_aspects

SPLITS = {"train": "False", "eval": "True"}


def read(root: Path, split: str) -> list[Clip]:
    """The clips of a split; the corpus raises UserError for a row that is refused."""
    return list(load_corpus("musiccaps").clips(root, split))


def write_rows(root: Path, *rows: tuple[str, ...]) -> Path:
    with open(root / TABLE, "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])
    return root


def row(ytid: str, aspects: str = "['jazz']", caption: str = "A duo.", told: str = "False") -> tuple[str, ...]:
    return (ytid, "30", "40", "/m/04rlf", aspects, caption, "4", "False", told)


def same_as_the_csv_module(root: Path, split: str) -> list[Clip]:
    """Hold every clip of `split` against Python's own reader."""
    with open(root / TABLE, newline="", encoding="utf-8") as file:
        theirs = [line for line in csv.DictReader(file) if line["is_audioset_eval"] == SPLITS[split]]
    clips = read(root, split)
    assert [clip.id for clip in clips] == [f"musiccaps/{line['ytid']}" for line in theirs]
    assert [clip.captions for clip in clips] == [(line["caption"],) for line in theirs]
    assert [clip.labels["aspects"].split("; ") for clip in clips] == [
        ast.literal_eval(line["aspect_list"]) for line in theirs
    ]
    assert {clip.license for clip in clips} == {"CC-BY-SA-4.0"}
    return clips


@pytest.mark.parametrize(("split", "count"), [("train", 7), ("eval", 5)])
def test_the_miniature_is_read_as_by_the_csv_module(corpora: Path, split: str, count: int) -> None:
    assert len(same_as_the_csv_module(corpora / "musiccaps", split)) == count


@pytest.mark.slow
def test_the_published_table_is_read_whole(real_corpora: Path) -> None:
    clips = [clip for split in SPLITS for clip in same_as_the_csv_module(real_corpora / "musiccaps", split)]
    assert len({clip.id for clip in clips}) == len(clips) == 5521
    for split in SPLITS:
        assert len(read(real_corpora / "musiccaps", split)) == load_corpus("musiccaps").split(split).clips
    assert sum("\n" in clip.captions[0] for clip in clips) == 5
    assert any(clip.id.startswith("musiccaps/-") for clip in clips)


def test_one_clip_is_read_in_full(corpora: Path) -> None:
    clip = next(clip for clip in read(corpora / "musiccaps", "eval") if clip.id == "musiccaps/R60qQ3ag8y8")
    assert clip.captions == ("An instrumental jazz piano and vibraphone duo. Peppy and upbeat with a latin tinge.",)
    assert clip.labels == {"aspects": "jazz; piano; vibraphone; duo; peppy; latin; upbeat; instrumental"}
    assert [ref.path for ref in clip.audio] == ["audio/R60qQ3ag8y8_100.ogg"]


def test_line_ends_inside_a_caption_are_part_of_it(corpora: Path) -> None:
    texts = {clip.id: clip.captions[0] for split in SPLITS for clip in read(corpora / "musiccaps", split)}
    assert [name for name, text in texts.items() if "\n" in text] == ["musiccaps/ocCIB2bPq_Y", "musiccaps/3OUNEL8XaR0"]


def test_apostrophes_and_quotes_inside_an_aspect_are_kept(corpora: Path) -> None:
    labels = {clip.id: clip.labels["aspects"] for clip in read(corpora / "musiccaps", "train")}
    assert labels["musiccaps/00M9FhCet6s"].startswith("children's song; male voice")
    assert 'punchy "4 on the floor" kick' in labels["musiccaps/1IMi7yfZVVM"].split("; ")


def test_ids_that_begin_with_a_hyphen_are_ids(corpora: Path) -> None:
    hyphened = [clip for clip in read(corpora / "musiccaps", "eval") if clip.id.startswith("musiccaps/-")]
    assert [clip.audio[0].path for clip in hyphened] == [
        "audio/-0Gj8-vB1q4_30.ogg",
        "audio/-eDAoheZrY8.ogg",
        "audio/-uaTK8sa5Ms_10.ogg",
    ]


def test_the_miniature_uses_all_its_files_and_lacks_two(corpora: Path) -> None:
    clips = [clip for split in SPLITS for clip in read(corpora / "musiccaps", split)]
    on_disk = {f"audio/{path.name}" for path in (corpora / "musiccaps" / "audio").iterdir()}
    assert {ref.path for clip in clips for ref in clip.audio} == on_disk
    assert [clip.id for clip in clips if not clip.audio] == ["musiccaps/1IMi7yfZVVM", "musiccaps/ocCIB2bPq_Y"]


@pytest.mark.parametrize("name", ["abc-_345678_30.wav", "abc-_345678.m4a", "abc-_345678_30.flac"])
def test_each_usual_name_of_a_file_is_found(tmp_path: Path, name: str) -> None:
    write_rows(tmp_path, row("abc-_345678"))
    (tmp_path / "audio").mkdir()
    for other in (name, "abc-_345678_40.wav"):
        (tmp_path / "audio" / other).touch()
    assert [ref.path for ref in read(tmp_path, "train")[0].audio] == [f"audio/{name}"]


@pytest.mark.parametrize(
    "damaged",
    [
        row("x", aspects="jazz, piano"),
        row("x", aspects="('jazz',)"),
        row("x", aspects="['jazz', 4]"),
        row("x", aspects="{[]: 1}"),
        row("x", aspects="__import__('os').getcwd()"),
        row("x", aspects="[" * 9000),
        row("x", aspects="-" * 9000 + "1"),
        row("x", aspects=f"[{'1,' * 9000}]"),
        row("x", aspects="['\\ud800']"),
        row("x", aspects=""),
        row("", told="False"),
        row("x", told="perhaps"),
        row("x")[:-1],
    ],
)
def test_a_damaged_row_is_refused_with_file_and_line_and_the_others_are_read(
    tmp_path: Path, damaged: tuple[str, ...]
) -> None:
    write_rows(tmp_path, row("aaaaaaaaaaa", caption="two\nlines"), damaged, row("bbbbbbbbbbb"))
    refused: list[tuple[str, str, str]] = []
    clips = list(load_corpus("musiccaps").clips(tmp_path, "train", lambda *told: refused.append(told)))
    assert [clip.id for clip in clips] == ["musiccaps/aaaaaaaaaaa", "musiccaps/bbbbbbbbbbb"]
    assert [told[:2] for told in refused] == [("malformed_row", f"musiccaps/{TABLE}:4")]


def test_no_aspects_are_no_label(tmp_path: Path) -> None:
    assert read(write_rows(tmp_path, row("aaaaaaaaaaa", aspects="[]")), "train")[0].labels == {}


def test_a_missing_table_says_where_it_comes_from(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"musiccaps: there is no file .*musiccaps-public\.csv.*google/MusicCaps"):
        read(tmp_path, "train")


def test_a_table_with_other_columns_is_told(tmp_path: Path) -> None:
    (tmp_path / TABLE).write_text("ytid,caption\nx,y\n")
    with pytest.raises(UserError, match=r"columns are \['ytid', 'caption'\].*'aspect_list'"):
        read(tmp_path, "train")


words = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12)


@given(st.lists(words, max_size=6))
def test_any_list_of_words_is_read_as_python_wrote_it(aspects: list[str]) -> None:
    assert read_aspects(repr(aspects)) == "; ".join(aspects)


@given(st.text(max_size=40))
def test_no_text_makes_the_reader_of_lists_fail(text: str) -> None:
    read = read_aspects(text)
    assert read is None or isinstance(ast.literal_eval(text), list)
