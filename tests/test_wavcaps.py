"""WavCaps in its published layout, read by us and by aac-datasets; blacklists, ids that end in .wav, crops, damage."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests import AudioRef, Clip, UserError, load_corpus
from manifests.corpora.wavcaps import LICENSE, SOURCES, crop

PEER = {"audioset-sl": "audioset", "bbc": "bbc", "freesound": "freesound", "soundbible": "soundbible"}
Refused = list[tuple[str, str, str]]


def read(root: Path, split: str) -> tuple[list[Clip], Refused]:
    """The clips of a split and what is refused of it."""
    refused: Refused = []
    return list(load_corpus("wavcaps").clips(root, split, lambda *told: refused.append(told))), refused


def write(root: Path, data: object, split: str = "soundbible", blacklists: dict[str, object] | None = None) -> Path:
    source, name = SOURCES[split]
    (root / "json_files" / source).mkdir(parents=True)
    (root / "json_files" / source / name).write_text(json.dumps(data))
    (root / "json_files" / "blacklist").mkdir()
    for title, content in (blacklists or {}).items():
        (root / "json_files" / "blacklist" / title).write_text(json.dumps(content))
    return root


def record(name: object, **changed: object) -> dict[str, object]:
    return {"id": name, "caption": "It rains.", "duration": 3.5, "audio": "wav_path"} | changed


@pytest.fixture(scope="module")
def root(corpora: Path) -> Path:
    return corpora / "wavcaps"


@pytest.mark.parametrize("split", SOURCES)
def test_aac_datasets_reads_the_same_before_the_blacklists(
    root: Path, tmp_path: Path, split: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torchaudio

    monkeypatch.setattr(torchaudio, "AudioMetaData", object, raising=False)  # gone, and asked for at import
    from aac_datasets.datasets.functional import wavcaps as peer

    (tmp_path / "WavCaps").symlink_to(root)
    monkeypatch.setattr(peer, "_is_prepared_wavcaps", lambda *_: True)  # it wants as many files as were published
    theirs = peer.load_wavcaps_dataset(tmp_path, PEER[split])
    clips, refused = read(tmp_path, split)  # the folder WavCaps/ around the tree, as the peer has it
    names = [clip.id.removeprefix(f"wavcaps/{split}/") for clip in clips]
    excluded = [place.removeprefix(f"wavcaps/{split}/") for _, place, _ in refused]
    assert sorted(names + excluded) == sorted(theirs["id"])
    told = dict(zip(theirs["id"], zip(theirs["captions"], theirs["fname"], strict=True), strict=True))
    for name, clip in zip(names, clips, strict=True):
        assert list(clip.captions) == told[name][0]
        assert clip.license == LICENSE
        for ref in clip.audio:
            assert Path(ref.path).name == told[name][1]
            assert (tmp_path / ref.path).is_file()


def test_every_file_of_the_miniature_is_found_in_either_folder_at_any_depth(root: Path) -> None:
    paths = [ref.path for split in SOURCES for clip in read(root, split)[0] for ref in clip.audio]
    assert sorted(paths) == sorted(str(path.relative_to(root)) for path in root.rglob("*.flac"))
    assert "Zip_files/AudioSet_SL/AudioSet_SL_flac/Y-wavcapsB__.flac" in paths
    assert "Audio/SoundBible/9001.flac" in paths


def test_an_id_that_ends_in_wav_is_whole_and_its_file_is_a_flac(root: Path) -> None:
    clips, _ = read(root, "audioset-sl")
    assert [(clip.id, [ref.path.rsplit("/", 1)[1] for ref in clip.audio]) for clip in clips] == [
        ("wavcaps/audioset-sl/Y0-wavcapsA_.wav", ["Y0-wavcapsA_.flac"]),
        ("wavcaps/audioset-sl/Y-wavcapsB__.wav", ["Y-wavcapsB__.flac"]),
        ("wavcaps/audioset-sl/Y0-vanished_.wav", []),
    ]


def test_what_is_on_a_blacklist_is_refused_by_default_and_told_with_the_list(root: Path) -> None:
    assert read(root, "audioset-sl")[1] == [
        ("blacklisted", "wavcaps/audioset-sl/Y3-136288A__.wav", "listed in blacklist_exclude_all_ac.json")
    ]
    assert read(root, "freesound")[1] == [
        ("blacklisted", "wavcaps/freesound/150979", "listed in blacklist_exclude_all_ac.json")
    ]
    assert read(root, "bbc")[1] == read(root, "soundbible")[1] == []


def test_a_blacklist_holds_for_its_source_alone_and_all_of_them_hold(tmp_path: Path) -> None:
    lists = {"a.json": {"AudioSet": ["Y1.wav", "7"], "FreeSound": ["8"]}, "b.json": {"FreeSound": [9, "8"]}}
    write(tmp_path, {"data": [record("7"), record("8"), record("9")]}, "freesound", lists)
    clips, refused = read(tmp_path, "freesound")
    assert [clip.id for clip in clips] == ["wavcaps/freesound/7"]
    assert [detail for _, _, detail in refused] == ["listed in a.json", "listed in b.json"]


def test_without_the_folder_of_blacklists_nothing_is_read(tmp_path: Path) -> None:
    write(tmp_path, {"data": [record("7")]})
    (tmp_path / "json_files" / "blacklist").rmdir()
    with pytest.raises(UserError, match=r"no folder .*blacklist.*keeps test sets out of training"):
        read(tmp_path, "soundbible")


def test_thirty_seconds_of_a_longer_sound_are_taken(root: Path) -> None:
    clips, _ = read(root, "bbc")
    long, short = (clip.audio[0] for clip in clips)
    assert long.seconds == 30.0
    assert long.start in (0.0, 1.0, 2.0, 3.0)
    assert (short.start, short.seconds) == (0.0, None)


@given(st.floats(0, 1e5), st.text(max_size=12))
def test_a_crop_lies_inside_the_sound_on_a_whole_second_and_is_always_the_same(seconds: float, name: str) -> None:
    ref = crop("x.flac", seconds, name)
    assert ref == crop("x.flac", seconds, name)
    if seconds <= 30:
        assert ref == AudioRef(path="x.flac")
    else:
        assert ref.seconds == 30
        assert ref.start == int(ref.start)
        assert 0 <= ref.start <= seconds - 30


def test_crops_are_spread_over_a_sound_of_2438_seconds() -> None:
    starts = [crop("x.flac", 2438.0, f"wavcaps/soundbible/{number}").start for number in range(4000)]
    assert 0 <= min(starts) < 30 and 2378 < max(starts) <= 2408
    assert all(900 < count < 1100 for count in Counter(int(start // 602.5) for start in starts).values())


def test_a_length_may_be_a_whole_number_or_a_text_and_an_id_a_number(tmp_path: Path) -> None:
    write(tmp_path, {"data": [record(1, duration=40), record("2", duration="41.5"), record("3", duration=0)]})
    (tmp_path / "Audio" / "SoundBible").mkdir(parents=True)
    for name in "123":
        (tmp_path / "Audio" / "SoundBible" / f"{name}.flac").touch()
    clips, refused = read(tmp_path, "soundbible")
    assert [clip.audio[0].seconds for clip in clips] == [30.0, 30.0, None]
    assert not refused


@pytest.mark.parametrize(
    "damaged",
    [
        {"id": "1", "duration": 2.0},
        {"caption": "no id", "duration": 2.0},
        record("1", duration="long"),
        record("1", duration=-1),
        record("1", duration="nan"),
        record("1", duration="inf"),
        record("1", duration=None),
        record("1", caption=["a", "b"]),
        record(""),
        record({"a": 1}),
        "a text",
        None,
        [],
    ],
)
def test_a_damaged_record_is_refused_with_its_file_and_number_and_the_others_are_read(
    tmp_path: Path, damaged: object
) -> None:
    write(tmp_path, {"num_captions_per_audio": 1, "data": [record("7"), damaged, record("9")]})
    clips, refused = read(tmp_path, "soundbible")
    assert [clip.id for clip in clips] == ["wavcaps/soundbible/7", "wavcaps/soundbible/9"]
    ((reason, place, detail),) = refused
    assert (reason, place) == ("malformed_row", "wavcaps/sb_final.json:2")
    assert detail.startswith("record 2")


@pytest.mark.parametrize("content", ['[{"id": "1"}]', '{"data": 5}', '{"data": [', "<html>", ""])
def test_a_file_of_another_shape_is_told_by_name(tmp_path: Path, content: str) -> None:
    write(tmp_path, {})
    (tmp_path / "json_files" / "SoundBible" / "sb_final.json").write_text(content)
    with pytest.raises(UserError, match=r"sb_final\.json is not as published: .*fetch it anew"):
        read(tmp_path, "soundbible")


def test_a_pointer_of_git_lfs_is_called_so(tmp_path: Path) -> None:
    write(tmp_path, {}, "freesound")
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4499ada1\nsize 147300685\n"
    (tmp_path / "json_files" / "FreeSound" / "fsd_final.json").write_text(pointer)
    with pytest.raises(UserError, match=r"fsd_final\.json is not as published: a pointer of git-lfs"):
        read(tmp_path, "freesound")


def test_a_missing_file_says_where_it_comes_from(tmp_path: Path) -> None:
    write(tmp_path, {"data": []})
    with pytest.raises(UserError, match=r"wavcaps: there is no file .*as_final\.json.*cvssp/WavCaps"):
        read(tmp_path, "audioset-sl")
