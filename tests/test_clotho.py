"""Clotho as published, read by us and by aac-datasets; names with spaces, two encodings, a licence a sound."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest

from manifests import Clip, UserError, load_corpus
from manifests.corpora.clotho import LICENSE, spdx

SPLITS = ("development", "validation", "evaluation")
PEER = {"development": "dev", "validation": "val", "evaluation": "eval"}


def read(root: Path, split: str) -> list[Clip]:
    """The clips of a split; the corpus raises UserError for a row that is refused."""
    return list(load_corpus("clotho").clips(root, split))


@pytest.fixture(scope="module")
def root(corpora: Path) -> Path:
    return corpora / "clotho"


@pytest.fixture
def copy(root: Path, tmp_path: Path) -> Path:
    """The miniature, to be damaged."""
    shutil.copytree(root, tmp_path / "clotho")
    return tmp_path / "clotho"


def lay_out(root: Path, place: Path) -> Path:
    """The miniature in the folders of aac-datasets."""
    audio, tables = place / "CLOTHO_v2.1" / "clotho_audio_files", place / "CLOTHO_v2.1" / "clotho_csv_files"
    for folder in (audio, tables, place / "CLOTHO_v2.1" / "archives"):
        folder.mkdir(parents=True)
    for split in SPLITS:
        (audio / split).symlink_to(root / split)
    for table in root.glob("*.csv"):
        (tables / table.name).symlink_to(table)
    return place


@pytest.mark.parametrize("split", SPLITS)
def test_aac_datasets_reads_the_same(root: Path, tmp_path: Path, split: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import torchaudio

    monkeypatch.setattr(torchaudio, "AudioMetaData", object, raising=False)  # gone, and asked for at import
    from aac_datasets.datasets.functional import clotho as peer

    # it looks for as many files as rows, and one sound of ours is missing on purpose
    monkeypatch.setattr(peer, "_is_prepared_clotho", lambda *_: True)
    theirs = peer.load_clotho_dataset(lay_out(root, tmp_path), PEER[split])
    ours = read(root, split)
    assert [clip.id for clip in ours] == [f"clotho/{split}/{name}" for name in theirs["fname"]]
    assert [list(clip.captions) for clip in ours] == theirs["captions"]
    assert [clip.labels["freesound"] for clip in ours] == theirs["sound_id"]
    assert [clip.license for clip in ours] == [spdx(link) for link in theirs["license"]]


@pytest.mark.parametrize("split", SPLITS)
def test_the_layout_of_aac_datasets_is_read_as_well(root: Path, tmp_path: Path, split: str) -> None:
    there = lay_out(root, tmp_path)
    ours = read(there, split)
    assert [(c.id, c.captions, c.license) for c in ours] == [(c.id, c.captions, c.license) for c in read(root, split)]
    for clip in ours:
        for ref in clip.audio:
            assert ref.path.startswith(f"CLOTHO_v2.1/clotho_audio_files/{split}/")
            assert (there / ref.path).is_file()


def test_names_keep_their_spaces_brackets_and_dots(root: Path) -> None:
    clips = read(root, "development")
    assert [clip.id for clip in clips] == [
        "clotho/development/ dog barks.wav",
        "clotho/development/Rain [heavy] no. 2.wav",
        "clotho/development/sea waves.wav",
    ]
    assert clips[0].audio[0].path == "development/ dog barks.wav"
    assert {ref.path for clip in clips for ref in clip.audio} == {
        f"development/{path.name}" for path in (root / "development").iterdir()
    }


def test_captions_are_five_and_keep_their_trailing_spaces(root: Path) -> None:
    clips = [clip for split in SPLITS for clip in read(root, split)]
    assert {len(clip.captions) for clip in clips} == {5}
    assert clips[0].captions[:3] == ("A dog barks ", "A dog is barking", "Barking of a dog ")
    assert not any("\r" in caption or "\n" in caption for clip in clips for caption in clip.captions)


def test_the_tables_of_the_miniature_have_the_line_ends_and_the_encoding_of_the_published_ones(root: Path) -> None:
    for split in SPLITS:
        for kind in ("captions", "metadata"):
            content = (root / f"clotho_{kind}_{split}.csv").read_bytes()
            assert (b"\r\n" in content) == (split != "evaluation")
    assert "caf\u00e9".encode("iso-8859-1") in (root / "clotho_metadata_development.csv").read_bytes()


def test_every_sound_has_its_own_licence(root: Path) -> None:
    assert [clip.license for clip in read(root, "development")] == ["CC0-1.0", "CC0-1.0", "CC-BY-3.0"]


@pytest.mark.parametrize(
    ("link", "name"),
    [
        ("http://creativecommons.org/publicdomain/zero/1.0/", "CC0-1.0"),
        ("http://creativecommons.org/licenses/by/3.0/", "CC-BY-3.0"),
        ("https://creativecommons.org/licenses/by-nc/4.0", "CC-BY-NC-4.0"),
        ("http://creativecommons.org/licenses/sampling+/1.0/", "http://creativecommons.org/licenses/sampling+/1.0/"),
        ("", ""),
    ],
)
def test_links_become_identifiers_where_there_is_one(link: str, name: str) -> None:
    assert spdx(link) == name


def test_one_name_in_two_splits_is_two_clips_of_one_sound(root: Path) -> None:
    first = next(clip for clip in read(root, "development") if clip.id.endswith("/sea waves.wav"))
    second = next(clip for clip in read(root, "validation") if clip.id.endswith("/sea waves.wav"))
    assert first.id != second.id
    assert first.labels == second.labels == {"freesound": "102852"}


def test_a_sound_without_its_file_is_listed_all_the_same(root: Path) -> None:
    clips = read(root, "evaluation")
    assert [clip.id for clip in clips if not clip.audio] == ["clotho/evaluation/  clock (old).wav"]


def test_a_sound_without_metadata_has_the_licence_of_the_corpus(copy: Path) -> None:
    table = copy / "clotho_metadata_evaluation.csv"
    table.write_bytes(table.read_bytes().splitlines(keepends=True)[0])
    assert {(clip.license, *clip.labels) for clip in read(copy, "evaluation")} == {(LICENSE,)}


@pytest.mark.parametrize("row", ["x.wav,one,two", "x.wav,1,2,3,4,5,6", " ,1,2,3,4,5"])
def test_a_damaged_row_is_refused_with_file_and_line_and_the_others_are_read(copy: Path, row: str) -> None:
    table = copy / "clotho_captions_evaluation.csv"
    lines = table.read_text().splitlines()
    table.write_text("\n".join([*lines[:2], row, *lines[2:]]) + "\n")
    refused: list[tuple[str, str, str]] = []
    clips = list(load_corpus("clotho").clips(copy, "evaluation", lambda *told: refused.append(told)))
    assert len(clips) == 2
    assert [told[:2] for told in refused] == [("malformed_row", "clotho/clotho_captions_evaluation.csv:3")]


def test_a_name_that_leads_out_of_the_folder_finds_no_file(copy: Path) -> None:
    table = copy / "clotho_captions_evaluation.csv"
    table.write_text(table.read_text() + "../LICENCES.tsv,1,2,3,4,5\n")
    assert read(copy, "evaluation")[-1].audio == ()


@pytest.mark.parametrize("name", ["clotho_captions_development.csv", "clotho_metadata_development.csv"])
def test_a_missing_table_says_where_it_comes_from(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(UserError, match=rf"clotho: there is no file .*{name}.*zenodo\.org/records/4783391"):
        read(copy, "development")


def test_other_columns_are_told(copy: Path) -> None:
    (copy / "clotho_captions_development.csv").write_text("name,caption\nx.wav,rain\n")
    with pytest.raises(UserError, match=r"columns are \['name', 'caption'\].*'file_name', 'caption_1'"):
        read(copy, "development")


def test_a_plain_csv_reader_counts_the_same_rows(root: Path) -> None:
    for split in SPLITS:
        with open(root / f"clotho_captions_{split}.csv", newline="", encoding="utf-8") as file:
            assert len(list(csv.DictReader(file))) == len(read(root, split))
