"""MusicNet: which 30 s of a recording, what is asked about them, and tables that are not the published."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests import Clip, UserError, load_corpus
from manifests.corpora.musicnet import COLUMNS, INSTRUMENTS, NOTES, RATE, TEST, WINDOW, spell

Refused = list[tuple[str, str, str]]


def read(root: Path, split: str) -> list[Clip]:
    return list(load_corpus("musicnet").clips(root, split))


def read_refusing(root: Path, split: str) -> tuple[list[Clip], Refused]:
    refused: Refused = []
    return list(load_corpus("musicnet").clips(root, split, lambda *told: refused.append(told))), refused


def rows_of(root: Path) -> list[dict[str, str]]:
    with open(root / "musicnet_metadata.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_world(root: Path, seconds: int, notes: list[tuple[int, int, str]], name: str = "1727") -> Path:
    """One recording of a length, with notes of (first sample, last sample, program)."""
    (root / "musicnet/train_data").mkdir(parents=True, exist_ok=True)
    labels = root / "musicnet/train_labels"
    labels.mkdir(exist_ok=True)
    with open(root / "musicnet_metadata.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([COLUMNS, [name, "Bach", "Fugue", "1", "Solo Piano", "x", "y", "BWV1", seconds]])
    with open(labels / f"{name}.csv", "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([NOTES, *((*n, 60, 0.0, 1.0, "Quarter") for n in notes)])
    return root


@pytest.fixture(scope="module")
def root(corpora: Path) -> Path:
    return corpora / "musicnet"


@pytest.fixture
def copy(root: Path, tmp_path: Path) -> Path:
    """The miniature without its audio, to be damaged."""
    return Path(shutil.copytree(root, tmp_path / "musicnet", ignore=shutil.ignore_patterns("*.wav")))


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_csv_module_finds_the_same_recordings_and_facts(root: Path, split: str) -> None:
    members = {"train": {"1727", "2186", "2532"}, "test": {"1759", "2382"}}[split]
    expected = {
        f"musicnet/{row['id']}": (row["composer"], row["ensemble"]) for row in rows_of(root) if row["id"] in members
    }
    clips = read(root, split)
    assert {clip.id: (clip.questions[0][1], clip.questions[1][1]) for clip in clips} == expected
    assert {clip.license for clip in clips} == {"CC-BY-4.0"}


def test_the_bytes_are_those_of_the_published_table(root: Path) -> None:
    content = (root / "musicnet_metadata.csv").read_bytes()
    assert content.count(b"\r\n") == content.count(b"\n") == 6
    assert "Neal O\u2019Doan" in content.decode("utf-8")


def test_the_instruments_are_those_of_the_notes_within_the_clip(root: Path) -> None:
    (clip,) = (clip for clip in read(root, "train") if clip.id == "musicnet/1727")
    assert clip.questions == (
        ("Who composed this music?", "Schubert"),
        ("What kind of ensemble plays this music?", "Piano Quintet"),
        ("Which instruments are heard?", "piano, violin, viola, cello and double bass"),
    )
    with open(root / "musicnet/train_labels/1727.csv", newline="") as file:
        assert {INSTRUMENTS[row["instrument"]] for row in csv.DictReader(file)} == {
            *clip.questions[2][1].replace(" and ", ", ").split(", ")
        }


def test_a_note_before_or_behind_the_clip_is_not_heard(tmp_path: Path) -> None:
    start = int(read(write_world(tmp_path, 600, []), "train")[0].audio[0].start)
    assert 0 < start <= 600 - WINDOW
    begin, end = start * RATE, (start + WINDOW) * RATE
    notes = [(begin - 9, begin, "1"), (begin - 9, begin + 1, "41"), (end - 1, end + 9, "42"), (end, end + 9, "43")]
    assert read(write_world(tmp_path, 600, notes), "train")[0].questions[2][1] == "violin and viola"


def test_a_note_that_lasts_through_the_clip_is_heard(tmp_path: Path) -> None:
    notes = [(0, 600 * RATE, "74")]
    assert read(write_world(tmp_path, 600, notes), "train")[0].questions[2][1] == "flute"


def test_when_nothing_sounds_nothing_is_asked_of_it(tmp_path: Path) -> None:
    assert len(read(write_world(tmp_path, 600, []), "train")[0].questions) == 2


def test_without_labels_the_other_questions_stay(root: Path) -> None:
    (clip,) = (clip for clip in read(root, "test") if clip.id == "musicnet/1759")
    assert [answer for _, answer in clip.questions] == ["Schubert", "Solo Piano"]


@given(st.integers(1, 4000), st.integers(1, 9999))
def test_a_clip_lies_within_its_recording(tmp_path_factory: pytest.TempPathFactory, seconds: int, name: int) -> None:
    if str(name) in TEST:
        return
    folder = tmp_path_factory.mktemp("musicnet")
    (clip,) = read(write_world(folder, seconds, [], str(name)), "train")
    (again,) = read(folder, "train")
    assert clip == again
    (ref,) = clip.audio
    assert ref.start == int(ref.start) >= 0
    assert ref.seconds == min(WINDOW, seconds)
    assert ref.start + ref.seconds <= seconds


def test_a_recording_shorter_than_a_clip_is_taken_whole(root: Path) -> None:
    import soundfile

    for split in ("train", "test"):
        for clip in read(root, split):
            path = root / clip.audio[0].path
            if path.exists():
                info = soundfile.info(str(path))
                assert (info.samplerate, info.channels, info.subtype) == (44100, 1, "FLOAT")
                assert (clip.audio[0].start, clip.audio[0].seconds) == (0.0, 1.0)
                assert info.duration <= 1.0


def test_the_root_may_hold_the_published_folder_or_be_it(copy: Path) -> None:
    around = read(copy, "train")
    shutil.copy(copy / "musicnet_metadata.csv", copy / "musicnet")
    inside = read(copy / "musicnet", "train")
    assert [clip.questions for clip in inside] == [clip.questions for clip in around]
    assert [f"musicnet/{clip.audio[0].path}" for clip in inside] == [clip.audio[0].path for clip in around]
    (copy / "musicnet_metadata.csv").unlink()
    assert read(copy, "train") == around


def test_a_missing_table_or_folder_says_what_to_unpack(copy: Path) -> None:
    shutil.rmtree(copy / "musicnet/test_data", ignore_errors=True)
    with pytest.raises(UserError, match=r"no folder .*test_data.*unpack musicnet\.tar\.gz"):
        read(copy, "test")
    (copy / "musicnet_metadata.csv").unlink()
    with pytest.raises(UserError, match=r"no file .*musicnet_metadata\.csv.*Zenodo"):
        read(copy, "train")


@pytest.mark.parametrize("content", [b"", b"<html>404</html>\n", b"id;composer\n", b"\xff\xfe\x00"])
def test_a_table_that_is_not_the_published_is_refused_by_name(copy: Path, content: bytes) -> None:
    (copy / "musicnet_metadata.csv").write_bytes(content)
    with pytest.raises(UserError, match=r"musicnet_metadata\.csv is not MusicNet's table"):
        read(copy, "train")


@pytest.mark.parametrize(
    "row",
    [
        "1,Bach",
        "x,Bach,a,b,c,d,e,f,9",
        "1,Bach,a,b,c,d,e,f,long",
        "1,,a,b,c,d,e,f,9",
        "1,Bach,a,b,c,d,e,f,0",
        "1,2,3,4,5,6,7,8,9,10",
    ],
)
def test_a_damaged_recording_is_refused_with_file_and_line(copy: Path, row: str) -> None:
    whole = read(copy, "train")
    with open(copy / "musicnet_metadata.csv", "ab") as file:
        file.write(f"{row}\r\n".encode())
    clips, refused = read_refusing(copy, "train")
    assert clips == whole
    assert [(reason, place) for reason, place, _ in refused] == [("malformed_row", "musicnet/musicnet_metadata.csv:7")]


@pytest.mark.parametrize(
    "row", ["1,2", "a,9,1,60,0.0,1.0,Quarter", "0,9,25,60,0.0,1.0,Quarter", "0,-9,1,60,0.0,1.0,Half"]
)
def test_a_damaged_note_is_refused_and_leaves_no_guess_behind(copy: Path, row: str) -> None:
    with open(copy / "musicnet/train_labels/1727.csv", "a") as file:
        file.write(f"{row}\n")
    clips, refused = read_refusing(copy, "train")
    assert [(reason, place) for reason, place, _ in refused] == [("malformed_row", "musicnet/train_labels/1727.csv:7")]
    assert [len(clip.questions) for clip in clips] == [2, 3, 3]


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"start,end\n"])
def test_labels_that_are_not_are_refused(copy: Path, content: bytes) -> None:
    (copy / "musicnet/train_labels/1727.csv").write_bytes(content)
    clips, refused = read_refusing(copy, "train")
    assert [place for _, place, _ in refused] == ["musicnet/train_labels/1727.csv:1"]
    assert [len(clip.questions) for clip in clips] == [2, 3, 3]


def test_instruments_are_spelled_as_one_says_them() -> None:
    assert spell({"72"}) == "clarinet"
    assert spell({"72", "61"}) == "horn and clarinet"
    assert spell({"72", "61", "7"}) == "harpsichord, horn and clarinet"


@pytest.mark.slow
def test_the_published_table_parses_whole(tmp_path: Path, real_corpora: Path) -> None:
    real = real_corpora / "musicnet"
    shutil.copy(real / "musicnet_metadata.csv", tmp_path)
    for split in ("train", "test"):
        (tmp_path / f"musicnet/{split}_data").mkdir(parents=True)
    found = {split: read(tmp_path, split) for split in ("train", "test")}
    for split, clips in found.items():
        assert len(clips) == load_corpus("musicnet").split(split).clips
    rows = {f"musicnet/{row['id']}": row for row in rows_of(tmp_path)}
    clips = found["train"] + found["test"]
    assert len(rows) == 330 and {clip.id for clip in clips} == rows.keys()
    assert sum(clip.audio[0].seconds or 0 for clip in clips) == 330 * WINDOW
    assert all(clip.audio[0].start + WINDOW <= int(rows[clip.id]["seconds"]) for clip in clips)
