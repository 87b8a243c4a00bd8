"""AudioCaps v1 and v2.0: every published row, the names of audio that users bring, and tables of another shape."""

from __future__ import annotations

import csv
import gzip
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests import Clip, UserError, load_corpus
from manifests.corpora.audiocaps import COLUMNS, read_captions
from manifests.corpus import refuse_none

PUBLISHED = Path(__file__).parent / "published" / "audiocaps"
ROWS = {"train": 49838, "val": 2475, "test": 4875}
PER_CLIP = {"train": 1, "val": 5, "test": 5}


def read(root: Path, split: str) -> list[Clip]:
    """The clips of a split; the corpus raises UserError for a row that is refused."""
    return list(load_corpus("audiocaps").clips(root, split))


def write_rows(root: Path, rows: list[tuple[str, str, str, str]], split: str = "test", folder: str = "dataset") -> Path:
    table = root / folder / f"{split}.csv"
    table.parent.mkdir(parents=True, exist_ok=True)
    with open(table, "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])
    return table


def touch(root: Path, *names: str, split: str = "test") -> None:
    folder = root / "audio" / split
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three real tables, without audio."""
    root = tmp_path_factory.mktemp("audiocaps")
    (root / "dataset").mkdir()
    for split in ROWS:
        (root / "dataset" / f"{split}.csv").write_bytes(gzip.decompress((PUBLISHED / f"{split}.csv.gz").read_bytes()))
    return root


@pytest.mark.parametrize("split", ROWS)
def test_every_published_row_is_read_and_the_counts_are_the_published_ones(published: Path, split: str) -> None:
    clips = read(published, split)
    assert len(clips) == ROWS[split] // PER_CLIP[split] == load_corpus("audiocaps").split(split).clips
    assert {len(clip.captions) for clip in clips} == {PER_CLIP[split]}
    assert len({clip.id for clip in clips}) == len(clips)
    with open(published / "dataset" / f"{split}.csv", newline="", encoding="utf-8") as file:
        theirs: dict[str, list[str]] = {}
        for row in csv.DictReader(file):
            theirs.setdefault(f"audiocaps/{row['youtube_id']}_{row['start_time']}", []).append(row["caption"])
    assert {clip.id: list(clip.captions) for clip in clips} == theirs
    assert [clip.id for clip in clips] == list(theirs)
    assert all(caption for clip in clips for caption in clip.captions)


def test_known_rows_are_read_as_they_stand(published: Path) -> None:
    by_id = {clip.id: clip for clip in read(published, "train")}
    assert by_id["audiocaps/r1nicOVtvkQ_130"].captions == ("A woman talks nearby as water pours",)
    assert by_id["audiocaps/3eJ9RynJzP8_80"].captions == (
        "The wind is blowing, insects are singing, and rustling occurs",
    )


def test_no_audio_at_all_leaves_every_clip_listed_and_empty(published: Path) -> None:
    assert {clip.audio for clip in read(published, "val")} == {()}


def test_ids_that_begin_with_a_hyphen_are_ids(published: Path, tmp_path: Path) -> None:
    hyphened = [clip for clip in read(published, "test") if clip.id.startswith("audiocaps/-")]
    assert len({clip.id for clip in hyphened}) == 95 // 5
    write_rows(tmp_path, [("1", "-abcdefghij", "7", "rain")])
    touch(tmp_path, "-abcdefghij_7.flac")
    assert read(tmp_path, "test")[0].audio[0].path == "audio/test/-abcdefghij_7.flac"


@pytest.mark.parametrize("name", ["7fmOlUlwoNg_20.flac", "Y7fmOlUlwoNg.wav", "7fmOlUlwoNg.m4a", "7fmOlUlwoNg_20.mp3"])
def test_each_usual_name_of_a_file_is_found(tmp_path: Path, name: str) -> None:
    write_rows(tmp_path, [("1", "7fmOlUlwoNg", "20", "rain")])
    touch(tmp_path, name, "unrelated.wav")
    assert [ref.path for ref in read(tmp_path, "test")[0].audio] == [f"audio/test/{name}"]


def test_the_name_with_the_start_goes_before_the_others(tmp_path: Path) -> None:
    write_rows(tmp_path, [("1", "aaaaaaaaaaa", "20", "rain"), ("2", "aaaaaaaaaaa", "300", "wind")])
    touch(tmp_path, "aaaaaaaaaaa.wav", "Yaaaaaaaaaaa.wav", "aaaaaaaaaaa_20.wav")
    first, second = read(tmp_path, "test")
    assert first.audio[0].path == "audio/test/aaaaaaaaaaa_20.wav"
    assert second.audio[0].path == "audio/test/Yaaaaaaaaaaa.wav"


def test_the_audio_of_another_split_is_not_taken(tmp_path: Path) -> None:
    write_rows(tmp_path, [("1", "aaaaaaaaaaa", "20", "rain")])
    touch(tmp_path, "aaaaaaaaaaa_20.wav", split="train")
    assert read(tmp_path, "test")[0].audio == ()


def test_the_miniature_holds_every_naming_and_one_clip_without_audio(corpora: Path) -> None:
    clips = read(corpora / "audiocaps", "train")
    paths = {ref.path for clip in clips for ref in clip.audio}
    on_disk = {f"audio/train/{path.name}" for path in (corpora / "audiocaps/audio/train").iterdir()}
    assert paths == on_disk
    assert [clip.id for clip in clips if not clip.audio] == ["audiocaps/0-vanished__0"]
    vanished = next(clip for clip in clips if not clip.audio)
    assert vanished.captions == ("A crowd claps, and a man laughs",)


def test_a_missing_table_says_where_it_comes_from(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"audiocaps: there is no file .*test\.csv.*published repository"):
        read(tmp_path, "test")


@pytest.mark.parametrize(
    "header",
    ["youtube_id,audiocap_id,start_time,caption", "id,caption", "", "<html><body>404", "audiocap_id;youtube_id"],
)
def test_a_table_with_other_columns_is_refused_by_name(tmp_path: Path, header: str) -> None:
    table = write_rows(tmp_path, [])
    table.write_text(f"{header}\n1,2,3,4\n")
    with pytest.raises(UserError, match=r"test\.csv.*audiocap_id.*youtube_id.*start_time.*caption"):
        read(tmp_path, "test")


@pytest.mark.parametrize(
    "row",
    [
        "1,aaaaaaaaaaa,twenty,rain",
        "1,aaaaaaaaaaa,-5,rain",
        "1,aaaaaaaaaaa,2.5,rain",
        f"1,aaaaaaaaaaa,{'9' * 5000},rain",
        "1,,20,rain",
        "1,aaaaaaaaaaa",
        "1,aaaaaaaaaaa,20",
        "1,aaaaaaaaaaa,20,rain,wind",
    ],
)
@pytest.mark.parametrize(("split", "folder"), [("test", "dataset"), ("test-v2", "dataset2.0")])
def test_a_damaged_row_is_refused_with_file_and_line_and_the_others_are_read(
    tmp_path: Path, row: str, split: str, folder: str
) -> None:
    table = write_rows(tmp_path, [("1", "bbbbbbbbbbb", "20", "rain")], folder=folder)
    table.write_text(f"{table.read_text()}{row}\n3,ccccccccccc,30,wind\n")
    refused: list[tuple[str, str, str]] = []
    clips = list(load_corpus("audiocaps").clips(tmp_path, split, lambda *told: refused.append(told)))
    assert [clip.captions for clip in clips] == [("rain",), ("wind",)]
    ((reason, place, detail),) = refused
    assert (reason, place) == ("malformed_row", f"audiocaps/{folder}/test.csv:3")
    assert "is not audiocap_id,youtube_id,start_time,caption" in detail
    with pytest.raises(UserError, match=r"test\.csv:3: malformed_row"):
        read(tmp_path, split)


def test_a_byte_order_mark_and_windows_line_ends_change_nothing(tmp_path: Path) -> None:
    table = write_rows(tmp_path, [("1", "aaaaaaaaaaa", "20", 'a "loud" bang, then rain')])
    plain = read(tmp_path, "test")
    table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes().replace(b"\n", b"\r\n"))
    assert read(tmp_path, "test") == plain
    assert plain[0].captions == ('a "loud" bang, then rain',)


videos = st.text(st.sampled_from("abcXYZ019-_"), min_size=11, max_size=11)
captions = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30).map(str.strip)
captions |= st.sampled_from(['"', '""', ",", 'a "b", c', "line\nbreak", "'", "=1+1"])


@given(
    world=st.dictionaries(
        st.tuples(videos, st.integers(0, 900)), st.lists(captions, min_size=1, max_size=3), max_size=6
    )
)
def test_any_table_that_the_csv_module_writes_is_read_back_exactly(world: dict[tuple[str, int], list[str]]) -> None:
    rows = [("1", video, str(start), text) for (video, start), texts in world.items() for text in texts]
    with tempfile.TemporaryDirectory() as folder:
        assert read_captions(str(write_rows(Path(folder), rows)), "audiocaps/test.csv", refuse_none) == world


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_v2_finds_the_audio_of_v1_under_ids_of_its_own(corpora: Path, split: str) -> None:
    first, second = read(corpora / "audiocaps", split), read(corpora / "audiocaps", f"{split}-v2")
    paths = {clip.id.removeprefix("audiocaps/"): clip.audio for clip in first}
    for clip in second:
        assert clip.audio == paths.get(clip.id.removeprefix("audiocaps/v2/"), ())
    assert not {clip.id for clip in first} & {clip.id for clip in second}
    assert [clip.id for clip in second if not clip.audio] == (["audiocaps/v2/0-newin-v2__140"] * (split == "train"))
    assert {len(clip.captions) for clip in second} == {PER_CLIP[split]}


def test_captions_of_v2_that_do_not_stand_side_by_side_are_put_together(corpora: Path) -> None:
    clip = next(clip for clip in read(corpora / "audiocaps", "test-v2") if clip.id == "audiocaps/v2/3-136288A___0")
    assert clip.captions[0] == "a dog is barking"
    assert len(clip.captions) == 5


def test_aac_datasets_reads_the_same_of_the_clips_that_it_finds(
    corpora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torchaudio

    monkeypatch.setattr(torchaudio, "AudioMetaData", object, raising=False)  # gone, and asked for at import
    from aac_datasets.datasets.functional.audiocaps import load_audiocaps_dataset

    top = tmp_path / "AUDIOCAPS"
    (top / "audio_32000Hz").mkdir(parents=True)
    (top / "csv_files_v1").symlink_to(corpora / "audiocaps" / "dataset")
    (top / "audio_32000Hz" / "test").mkdir()
    clips = read(corpora / "audiocaps", "test")
    for clip in clips[:3]:  # it knows one name of a file
        (top / "audio_32000Hz" / "test" / f"{clip.id.removeprefix('audiocaps/')}.flac").touch()
    theirs, _ = load_audiocaps_dataset(tmp_path, "test")
    told = zip(theirs["youtube_id"], theirs["start_time"], theirs["captions"], strict=True)
    assert {f"audiocaps/{video}_{start}": tuple(texts) for video, start, texts in told} == {
        clip.id: clip.captions for clip in clips[:3]
    }


@pytest.mark.slow
def test_the_published_tables_of_v2_are_read_whole(real_corpora: Path) -> None:
    root = real_corpora / "audiocaps"
    assert any((root / "dataset2.0").glob("*.csv"))
    for part in ("train", "val", "test"):
        if not (root / "dataset2.0" / f"{part}.csv").exists():
            continue
        clips = read(root, f"{part}-v2")
        assert len(clips) == load_corpus("audiocaps").split(f"{part}-v2").clips
        assert {len(clip.captions) for clip in clips} == {PER_CLIP[part]}
        assert all(clip.id.startswith("audiocaps/v2/") for clip in clips)
