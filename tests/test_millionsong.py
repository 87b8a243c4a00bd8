"""Million Song Dataset: the same facts by PyTables, the user's own audio by track id, and files that are no songs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from manifests import Clip, UserError, load_corpus

SONG = "MillionSongSubset/data/A/A/A/TRAAAQZ12903CAB001.h5"


def read(root: Path, split: str) -> list[Clip]:
    return list(load_corpus("millionsong").clips(root, split))


def read_refusing(root: Path, split: str) -> tuple[list[Clip], list[tuple[str, str, str]]]:
    refused: list[tuple[str, str, str]] = []
    return list(load_corpus("millionsong").clips(root, split, lambda *told: refused.append(told))), refused


@pytest.fixture(scope="module")
def root(corpora: Path) -> Path:
    return corpora / "millionsong"


@pytest.fixture
def copy(root: Path, tmp_path: Path) -> Path:
    """The miniature, to be damaged."""
    return Path(shutil.copytree(root, tmp_path / "millionsong"))


@pytest.mark.parametrize("split", ["subset", "full"])
def test_pytables_reads_the_same_facts_from_every_file(root: Path, split: str) -> None:
    tables = pytest.importorskip("tables", reason="PyTables, which the authors' own getters use, is not installed")
    top = root / {"subset": "MillionSongSubset", "full": "MillionSong"}[split]
    expected = []
    for path in sorted(top.rglob("*.h5")):
        with tables.open_file(str(path)) as song:
            weights = song.root.metadata.artist_terms_weight[:]
            terms = song.root.metadata.artist_terms[:]
            year = song.root.musicbrainz.songs.cols.year[0]
            asked = []
            if len(terms):
                asked.append(("What style of music is this artist known for?", terms[np.argmax(weights)].decode()))
            if year:
                asked.append(("In which year was this song released?", str(year)))
            expected.append((f"millionsong/{song.root.analysis.songs.cols.track_id[0].decode()}", tuple(asked)))
    assert [(clip.id, clip.questions) for clip in read(root, split)] == expected
    assert len(expected) == {"subset": 3, "full": 2}[split]


def test_the_term_of_most_weight_is_the_style_though_it_is_not_the_first(root: Path) -> None:
    clip = read(root, "subset")[1]
    assert clip.questions == (("What style of music is this artist known for?", "nu jazz"),)


def test_an_unknown_year_and_an_artist_without_terms_are_not_asked(root: Path) -> None:
    told = {clip.id[-3:]: [question.split()[1] for question, _ in clip.questions] for clip in read(root, "subset")}
    assert told == {"001": ["style", "which"], "002": ["style"], "003": ["which"]}


def test_audio_of_the_user_is_joined_by_track_id_in_either_layout(root: Path) -> None:
    paths = [ref.path for split in ("subset", "full") for clip in read(root, split) for ref in clip.audio]
    assert paths == [
        "audio/TRAAAQZ12903CAB001.ogg",
        "audio/A/A/B/TRAABCD12903CAB002.ogg",
        "audio/TRABZZY12903CAB003.ogg",
        "audio/C/D/E/TRCDEFG12903CAB005.ogg",
    ]
    assert all((root / path).is_file() for path in paths)


def test_a_song_without_audio_is_listed_all_the_same(root: Path, copy: Path) -> None:
    assert [clip.id for clip in read(root, "full") if not clip.audio] == ["millionsong/TRZZZZZ12903CAB006"]
    shutil.rmtree(copy / "audio")
    clips = read(copy, "subset")
    assert [clip.audio for clip in clips] == [(), (), ()]
    assert [clip.questions for clip in clips] == [clip.questions for clip in read(root, "subset")]


def test_the_table_says_that_there_is_no_audio_in_the_set() -> None:
    steps = load_corpus("millionsong").facts.steps
    assert "your own audio, for none is published" in steps
    assert "audio/<track_id>.*" in steps


@pytest.mark.parametrize("split", ["subset", "full"])
def test_the_folder_data_and_the_top_folder_may_be_left_out(copy: Path, split: str) -> None:
    whole = read(copy, split)
    name = {"subset": "MillionSongSubset", "full": "MillionSong"}[split]
    (copy / name / "data").rename(copy / "songs")
    (copy / name).rmdir()
    (copy / "songs").rename(copy / name)
    assert read(copy, split) == whole
    (copy / name / "audio").mkdir()
    assert [clip.id for clip in read(copy / name, split)] == [clip.id for clip in whole]


def test_a_tree_that_is_not_the_set_is_told(tmp_path: Path, copy: Path) -> None:
    with pytest.raises(UserError, match=r"millionsong: there are no folders A, B, C in .*/data/A/A/A/<track_id>\.h5"):
        read(tmp_path, "subset")
    shutil.rmtree(copy / "MillionSong")
    with pytest.raises(UserError, match=r"MillionSong/data"):
        read(copy, "full")


def damage(path: Path, kind: str) -> None:
    """Make of a song something else."""
    if kind == "page":
        path.write_text("<html>404</html>")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "cut":
        path.write_bytes(path.read_bytes()[:40_000])
    elif kind == "other":
        path.unlink()
        with h5py.File(path, "w") as file:
            file["notes"] = np.arange(3)
    elif kind == "renamed":
        shutil.copy(path.parents[1] / "B" / "TRAABCD12903CAB002.h5", path)
    else:
        with h5py.File(path, "r+") as song:
            if kind == "summary":
                song["analysis/songs"].resize((2,))
            elif kind == "group":
                del song["musicbrainz"]
            elif kind == "text":
                song["metadata/artist_terms"][:] = b"\xff\xfe"
            elif kind == "weights":
                song["metadata/artist_terms_weight"].resize((1,))
            elif kind == "huge":
                song["metadata/artist_terms"].resize((10**9,))
                song["metadata/artist_terms_weight"].resize((10**9,))
            elif kind == "numbers":
                del song["metadata/artist_terms"]
                song["metadata/artist_terms"] = np.ones((2, 2))
            elif kind == "link":
                del song["metadata/artist_terms"]
                song["metadata/artist_terms"] = h5py.ExternalLink("elsewhere.h5", "/terms")
            elif kind == "elsewhere":
                del song["metadata/artist_terms"]
                outside = [(str(path.parent / "secret"), 0, 16)]
                song["metadata"].create_dataset("artist_terms", (2,), dtype="S8", external=outside)


KINDS = ["page", "empty", "cut", "other", "renamed", "summary", "group", "text", "weights", "huge", "numbers"]


@pytest.mark.parametrize("kind", [*KINDS, "link", "elsewhere"])
def test_a_file_that_is_not_the_song_is_refused_by_name(copy: Path, kind: str) -> None:
    whole = read(copy, "subset")
    damage(copy / SONG, kind)
    clips, refused = read_refusing(copy, "subset")
    assert clips == whole[1:]
    place = "millionsong/A/A/A/TRAAAQZ12903CAB001.h5:1"
    assert [(reason, where) for reason, where, _ in refused] == [("malformed_row", place)]
    assert refused[0][2]


def test_every_single_torn_file_is_refused_or_read_and_never_a_crash(copy: Path) -> None:
    content = (copy / SONG).read_bytes()
    for place in range(0, len(content), 1999):
        (copy / SONG).write_bytes(content[:place] + bytes(64) + content[place + 64 :])
        clips, refused = read_refusing(copy, "subset")
        assert len(clips) + len(refused) == 3


def test_without_h5py_the_sentence_says_what_to_install(root: Path) -> None:
    code = (
        "import sys; sys.modules['h5py'] = None\n"
        "from manifests import UserError, load_corpus\n"
        "try: list(load_corpus('millionsong').clips(sys.argv[1], 'subset'))\n"
        "except UserError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(root)], capture_output=True, text=True, timeout=60)
    assert "pip install h5py" in done.stdout
