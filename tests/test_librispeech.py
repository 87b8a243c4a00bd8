"""LibriSpeech as published, read by us and by torchaudio; trees of our own making, read back exactly."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests import Clip, UserError, load_corpus

SPLITS = ("train-clean-100", "dev-clean", "test-clean", "test-other")
MISSING = "1688-142285-0005"
"""In the miniature's test-other: transcribed, but without its file."""


def read(root: Path | str, split: str) -> list[Clip]:
    return list(load_corpus("librispeech").clips(root, split))


def name(clip: Clip) -> str:
    return clip.id.removeprefix("librispeech/")


@pytest.fixture(scope="module")
def root(corpora: Path) -> Path:
    return corpora / "librispeech"


@pytest.fixture
def copy(root: Path, tmp_path: Path) -> Path:
    """One split of the miniature, to be damaged."""
    for part in ("SPEAKERS.TXT", "test-clean"):
        place = tmp_path / "LibriSpeech" / part
        place.parent.mkdir(exist_ok=True)
        (shutil.copytree if (root / "LibriSpeech" / part).is_dir() else shutil.copy)(root / "LibriSpeech" / part, place)
    return tmp_path


@pytest.mark.parametrize("split", SPLITS)
def test_torchaudio_reads_the_same_from_every_file(root: Path, split: str) -> None:
    from torchaudio.datasets import LIBRISPEECH

    peer = LIBRISPEECH(root, url=split, folder_in_archive="LibriSpeech", download=False)
    theirs = {}
    for place in range(len(peer._walker)):
        path, _rate, text, speaker, chapter, utterance = peer.get_metadata(place)
        theirs[f"{speaker}-{chapter}-{utterance:04d}"] = (path, text, f"librispeech/{speaker}", str(chapter))
    ours = {}
    for clip in read(root, split):
        path = clip.audio[0].path.removeprefix("LibriSpeech/")
        ours[name(clip)] = (path, clip.text, clip.speaker, path.split("/")[2])
    ours.pop(MISSING, None)
    # torchaudio names the path below the folder of the split in some versions
    assert {key: (Path(value[0]).name, *value[1:]) for key, value in ours.items()} == {
        key: (Path(value[0]).name, *value[1:]) for key, value in theirs.items()
    }
    on_disk = {path.stem for path in (root / "LibriSpeech" / split).rglob("*.flac")}
    assert ours.keys() == on_disk
    assert all((root / "LibriSpeech" / value[0]).is_file() for value in ours.values())


def test_a_line_without_its_file_is_listed_all_the_same(root: Path) -> None:
    clips = {name(clip): clip for clip in read(root, "test-other")}
    assert clips[MISSING].text == "YOU WHO WERE ALWAYS ACCUSING PEOPLE OF BEING SHOPPY AT HELSTONE"
    assert not (root / clips[MISSING].audio[0].path).exists()
    assert len(clips) == len(list((root / "LibriSpeech/test-other").rglob("*.flac"))) + 1


def test_one_clip_is_read_in_full(root: Path) -> None:
    clip = next(clip for clip in read(root, "dev-clean") if name(clip) == "1272-128104-0000")
    assert clip.text == "MISTER QUILTER IS THE APOSTLE OF THE MIDDLE CLASSES AND WE ARE GLAD TO WELCOME HIS GOSPEL"
    assert clip.audio[0].path == "LibriSpeech/dev-clean/1272/128104/1272-128104-0000.flac"
    assert (clip.audio[0].start, clip.audio[0].seconds, clip.audio[0].channel) == (0.0, None, None)
    assert (clip.speaker, clip.gender, clip.language) == ("librispeech/1272", "male", "en")
    assert clip.license == "CC-BY-4.0"


def test_the_bar_in_the_name_of_reader_60_is_no_column(root: Path) -> None:
    clip = next(clip for clip in read(root, "train-clean-100") if clip.speaker == "librispeech/60")
    assert clip.gender == "male"


def test_genders_are_those_of_the_published_table(root: Path) -> None:
    told = {}
    for line in (root / "LibriSpeech/SPEAKERS.TXT").read_text().splitlines():
        if not line.startswith(";"):
            told[line.split()[0]] = line[line.index("|") + 1 :].split()[0]
    assert len(told) == 2484
    for split in SPLITS:
        for clip in read(root, split):
            assert clip.gender == {"F": "female", "M": "male"}[told[clip.speaker.split("/")[1]]]


@pytest.mark.parametrize("split", SPLITS)
def test_texts_are_letters_apostrophes_and_single_spaces(root: Path, split: str) -> None:
    for clip in read(root, split):
        assert set(clip.text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZ' ")
        assert clip.text == " ".join(clip.text.split())


@pytest.mark.parametrize("split", SPLITS)
def test_ids_are_unique_and_their_order_is_fixed(root: Path, split: str) -> None:
    ids = [clip.id for clip in read(root, split)]
    assert len(set(ids)) == len(ids)
    assert ids == [clip.id for clip in read(root, split)]


def test_the_root_may_hold_the_published_folder_or_be_it(root: Path) -> None:
    inside = read(root / "LibriSpeech", "dev-clean")
    around = read(root, "dev-clean")
    assert [clip.id for clip in inside] == [clip.id for clip in around]
    for one, other in zip(inside, around, strict=True):
        assert (root / "LibriSpeech" / one.audio[0].path).samefile(root / other.audio[0].path)


def test_a_missing_root_says_how_to_get_the_corpus(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"librispeech: there is no folder .*nowhere.*openslr\.org/12"):
        read(tmp_path / "nowhere", "dev-clean")


def test_a_missing_split_names_its_archive(copy: Path) -> None:
    with pytest.raises(UserError, match=r"no folder .*dev-clean.*unpack dev-clean\.tar\.gz"):
        read(copy, "dev-clean")


def test_a_split_that_was_never_published_is_refused_with_the_nearest(root: Path) -> None:
    with pytest.raises(UserError, match=r"librispeech has no split 'train-clean-10'; did you mean 'train-clean-100'\?"):
        read(root, "train-clean-10")


def test_missing_speakers_are_told(copy: Path) -> None:
    (copy / "LibriSpeech/SPEAKERS.TXT").unlink()
    with pytest.raises(UserError, match=r"no file .*SPEAKERS\.TXT"):
        read(copy, "test-clean")


def test_a_speaker_who_is_not_in_the_table_has_no_gender(copy: Path) -> None:
    (copy / "LibriSpeech/SPEAKERS.TXT").write_text("; nobody\n")
    assert {clip.gender for clip in read(copy, "test-clean")} == {""}


@pytest.mark.parametrize("damage", [b"<html>Too many requests</html>\n", b"1089 | M | test-cl", b"\xff\xfe\x00"])
def test_a_damaged_table_of_speakers_is_a_sentence_that_names_the_file(copy: Path, damage: bytes) -> None:
    (copy / "LibriSpeech/SPEAKERS.TXT").write_bytes(damage)
    with pytest.raises(UserError, match=r"SPEAKERS\.TXT"):
        read(copy, "test-clean")


words = st.text(st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZ'"), min_size=1, max_size=12)
texts = st.lists(words, min_size=1, max_size=8).map(" ".join)
names = st.text(st.characters(min_codepoint=32, max_codepoint=0x24F, exclude_characters="\x7f\x85"), max_size=20)
readers = st.dictionaries(
    st.integers(1, 9999),
    st.tuples(
        st.sampled_from("FM"),
        names,
        st.dictionaries(st.integers(1, 999999), st.lists(texts, min_size=1, max_size=4), min_size=1, max_size=2),
    ),
    min_size=1,
    max_size=3,
)


@settings(max_examples=40)
@given(readers, st.sampled_from(SPLITS))
def test_any_tree_in_the_published_format_is_read_back_exactly(world: dict, split: str) -> None:
    expected = {}
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder, "LibriSpeech")
        speakers = ["; the published header", ";ID  |SEX| SUBSET           |MINUTES| NAME"]
        for reader, (sex, called, chapters) in world.items():
            speakers.append(f"{reader:<4} | {sex} | {split:<16} | 25.03 | {called}")
            for chapter, lines in chapters.items():
                place = top / split / str(reader) / str(chapter)
                place.mkdir(parents=True)
                ids = [f"{reader}-{chapter}-{number:04d}" for number in range(len(lines))]
                pairs = zip(ids, lines, strict=True)
                (place / f"{reader}-{chapter}.trans.txt").write_text("".join(f"{i} {text}\n" for i, text in pairs))
                for i, text in zip(ids, lines, strict=True):
                    gender = {"F": "female", "M": "male"}[sex]
                    path = f"LibriSpeech/{split}/{reader}/{chapter}/{i}.flac"
                    expected[f"librispeech/{i}"] = (path, text, f"librispeech/{reader}", gender)
        (top / "SPEAKERS.TXT").write_text("\n".join(speakers) + "\n", encoding="utf-8")
        clips = read(folder, split)
    assert len(clips) == len(expected)
    assert {c.id: (c.audio[0].path, c.text, c.speaker, c.gender) for c in clips} == expected


def test_lhotse_reads_the_same_utterances_from_the_miniature(corpora: Path) -> None:
    from lhotse.recipes import prepare_librispeech

    (manifests,) = prepare_librispeech(corpora / "librispeech" / "LibriSpeech", dataset_parts=["dev-clean"]).values()
    theirs = {one.id: (one.text, one.speaker) for one in manifests["supervisions"]}
    ours = {
        clip.id.removeprefix("librispeech/"): (clip.text, clip.speaker.removeprefix("librispeech/"))
        for clip in load_corpus("librispeech").clips(corpora / "librispeech", "dev-clean")
    }
    assert ours == theirs
    paths = {one.id: one.sources[0].source for one in manifests["recordings"]}
    for clip in load_corpus("librispeech").clips(corpora / "librispeech", "dev-clean"):
        assert paths[clip.id.removeprefix("librispeech/")].endswith(clip.audio[0].path)
