"""LibriMix: mixtures that were made and mixtures that we render, to the last bit; torn tables; the mode that cuts."""

from __future__ import annotations

import csv
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from manifests import Clip, UserError, files, load_corpus
from manifests.corpora.librimix import reference
from shards.render import store

RENDERED = ("libri2mix-dev", "libri2mix-test", "libri3mix-train-100", "libri3mix-dev", "libri3mix-test")
MADE = "libri2mix-train-100"
TREE = "Libri2Mix/wav16k/max/train-100/mix_clean"
TABLE = "metadata/Libri2Mix/libri2mix_train-clean-100.csv"
Refused = list[tuple[str, str, str]]


def read(root: Path, split: str) -> tuple[list[Clip], Refused]:
    refused: Refused = []
    clips = list(load_corpus("librimix").clips(root, split, lambda *told: refused.append(told)))
    return clips, refused


def name(clip: Clip) -> str:
    return clip.id.removeprefix("librimix/")


def table(root: Path, split: str) -> list[dict[str, str]]:
    family, part = split.split("-", 1)
    subset = {"dev": "dev-clean", "test": "test-clean", "train-100": "train-clean-100"}[part]
    with open(root / f"metadata/Libri{family[5]}Mix/{family}_{subset}.csv", newline="") as file:
        return list(csv.DictReader(file))


def spoken(root: Path) -> dict[str, str]:
    """Every transcript of the tree."""
    lines = [
        line for path in (root / "LibriSpeech").glob("*/*/*/*.trans.txt") for line in path.read_text().splitlines()
    ]
    return dict(line.split(" ", 1) for line in lines)


@pytest.fixture(scope="module")
def root(corpora: Path) -> Path:
    return corpora / "librimix"


@pytest.fixture
def copy(root: Path, tmp_path: Path) -> Path:
    """The miniature, to be damaged; LibriSpeech is a link here too."""
    shutil.copytree(root, tmp_path / "librimix", symlinks=True, ignore=shutil.ignore_patterns("LibriSpeech"))
    (tmp_path / "librimix/LibriSpeech").symlink_to(root / "LibriSpeech", target_is_directory=True)
    shutil.copytree(root / "metadata/LibriSpeech", tmp_path / "librimix/metadata/LibriSpeech", dirs_exist_ok=True)
    return tmp_path / "librimix"


def test_torchaudio_finds_the_same_mixtures_on_disk(root: Path) -> None:
    from torchaudio.datasets import LibriMix

    peer = LibriMix(root, subset="train-100", num_speakers=2, sample_rate=16000, mode="max")
    theirs = [peer.get_metadata(place) for place in range(len(peer))]
    clips, refused = read(root, MADE)
    assert sorted(clip.audio[0].path for clip in clips) == sorted(f"Libri2Mix/{path}" for _, path, _ in theirs)
    assert all((clip.join, len(clip.audio)) == ("single", 1) for clip in clips)
    assert not refused
    assert [name(clip) for clip in clips] == [row["mixture_ID"] for row in table(root, MADE)]


@pytest.mark.parametrize("split", RENDERED)
def test_a_rendered_mixture_is_the_sum_of_gain_times_source_to_the_last_bit(root: Path, split: str) -> None:
    clips, refused = read(root, split)
    assert not refused
    for clip, row in zip(clips, table(root, split), strict=True):
        assert name(clip) == row["mixture_ID"]
        total = np.zeros(0, np.float32)
        for place in range(1, len(clip.audio) + 1):
            source, rate = soundfile.read(root / "LibriSpeech" / row[f"source_{place}_path"], dtype="float32")
            assert rate == 16000
            length = max(len(total), len(source))
            total = np.pad(total, (0, length - len(total)))
            total += np.pad(source * np.float32(row[f"source_{place}_gain"]), (0, length - len(source)))
        wanted = np.clip(np.round(total.astype(np.float64) * 32768), -32768, 32767).astype(np.int16)
        stored = store(str(root), clip.audio, clip.join)
        pcm, _ = soundfile.read(io.BytesIO(stored.flac), dtype="int16")
        assert np.array_equal(pcm, wanted)
        assert stored.action == "render"


def test_a_mixture_that_is_too_loud_is_clipped_and_not_rescaled(root: Path) -> None:
    clip = next(clip for clip in read(root, "libri2mix-test")[0] if max(ref.gain for ref in clip.audio) > 10)
    pcm, _ = soundfile.read(io.BytesIO(store(str(root), clip.audio, clip.join).flac), dtype="int16")
    assert (pcm.max(), pcm.min()) == (32767, -32768)


def test_rendering_gives_what_the_published_mixer_writes(root: Path, copy: Path) -> None:
    made = {name(clip): clip for clip in read(root, MADE)[0]}
    shutil.rmtree(copy / "Libri2Mix")
    rendered = {name(clip): clip for clip in read(copy, MADE)[0]}
    assert made.keys() == rendered.keys()
    for key, clip in rendered.items():
        assert clip.join == "mix"
        assert clip.text == made[key].text
        pcm, _ = soundfile.read(io.BytesIO(store(str(copy), clip.audio, clip.join).flac), dtype="int16")
        theirs, _ = soundfile.read(root / made[key].audio[0].path, dtype="int16")
        # libsndfile writes floats at 32767 and reads at 32768, so its file is softer by up to one step
        assert len(pcm) == len(theirs)
        assert np.abs(pcm.astype(np.int32) - theirs).max() <= 1


@pytest.mark.parametrize("split", [*RENDERED, MADE])
def test_transcripts_stand_in_the_order_of_the_speakers_numbers(root: Path, split: str) -> None:
    texts = spoken(root)
    for clip in read(root, split)[0]:
        parts = sorted(name(clip).split("_"), key=lambda part: int(part.split("-")[0]))
        assert clip.text == "\n".join(texts[part] for part in parts)
        assert (clip.language, clip.speaker, clip.gender, clip.license) == ("en", "", "", "CC-BY-4.0")


def test_the_order_of_speakers_is_not_that_of_the_mixture(root: Path) -> None:
    clips = {name(clip): clip for split in (*RENDERED, MADE) for clip in read(root, split)[0]}
    assert clips["328-129766-0000_19-198-0000"].text.split("\n")[0] == spoken(root)["19-198-0000"]
    assert any(int(key.split("-")[0]) > int(key.split("_")[1].split("-")[0]) for key in clips)


def test_links_to_librispeech_are_followed(root: Path) -> None:
    assert (root / "LibriSpeech").is_symlink()
    assert files.walk(root, ".flac")
    assert all((root / ref.path).is_file() for split in RENDERED for clip in read(root, split)[0] for ref in clip.audio)


@pytest.mark.parametrize("split", [*RENDERED, MADE])
def test_ids_are_unique_and_their_order_is_fixed(root: Path, split: str) -> None:
    ids = [clip.id for clip in read(root, split)[0]]
    assert len(set(ids)) == len(ids) > 0
    assert ids == [clip.id for clip in read(root, split)[0]]


def test_a_listed_mixture_without_its_file_stays_listed(copy: Path) -> None:
    next((copy / TREE).iterdir()).unlink()
    clips, refused = read(copy, MADE)
    assert len(clips) == 3
    assert sum((copy / clip.audio[0].path).exists() for clip in clips) == 2
    assert not refused


def test_without_a_list_the_files_are_the_list(root: Path, copy: Path) -> None:
    shutil.rmtree(copy / "Libri2Mix/wav16k/max/metadata")
    (copy / TREE / "._328-129766-0000_19-198-0000.wav").write_bytes(b"\x00\x05\x16\x07")
    (copy / TREE / "readme.wav").touch()
    clips, refused = read(copy, MADE)
    assert [clip.id for clip in clips] == sorted(clip.id for clip in read(root, MADE)[0])
    assert [told[:2] for told in refused] == [("malformed_row", f"librimix/{TREE}/readme.wav")]


def test_a_mixture_without_a_transcript_has_no_text_rather_than_half_of_it(copy: Path) -> None:
    (copy / "LibriSpeech").unlink()
    chapter = "train-clean-100/403/126855"
    (copy / "LibriSpeech" / chapter).mkdir(parents=True)
    (copy / "LibriSpeech" / chapter / "403-126855.trans.txt").write_text("403-126855-0000 THE SEVENTH CHAPTER\n")
    clips, _ = read(copy, MADE)
    assert len(clips) == 3
    assert {clip.text for clip in clips} == {""}


def cut_to_min(copy: Path) -> None:
    """Turn the tree that was made with max into one made with min, and take the table away."""
    (copy / "Libri2Mix/wav16k/max").rename(copy / "Libri2Mix/wav16k/min")
    (copy / TABLE).unlink()


def test_mixtures_of_a_min_tree_are_refused(copy: Path) -> None:
    cut_to_min(copy)
    clips, refused = read(copy, MADE)
    assert not clips
    assert {told[0] for told in refused} == {"min_mode_cuts_transcript"}
    assert len(refused) == 3


def test_a_min_mixture_of_equal_sources_loses_nothing_and_is_read(copy: Path) -> None:
    cut_to_min(copy)
    lengths = copy / "metadata/LibriSpeech/train-clean-100.csv"
    fields = [row.split(",") for row in lengths.read_text().splitlines()]
    for row in fields:
        row[3] = "37040" if row[0] in ("328", "19") else row[3]
    lengths.write_text("".join(f"{','.join(row)}\n" for row in fields))
    clips, refused = read(copy, MADE)
    assert [name(clip) for clip in clips] == ["328-129766-0000_19-198-0000"]
    assert clips[0].audio[0].path.startswith("Libri2Mix/wav16k/min/")
    assert len(refused) == 2
    lengths.unlink()
    assert len(read(copy, MADE)[1]) == 3


def test_with_the_table_a_min_tree_is_passed_by_and_max_is_rendered(copy: Path) -> None:
    (copy / "Libri2Mix/wav16k/max").rename(copy / "Libri2Mix/wav16k/min")
    assert {clip.join for clip in read(copy, MADE)[0]} == {"mix"}


def test_what_is_missing_is_told(root: Path, copy: Path) -> None:
    with pytest.raises(
        UserError, match=r"librimix: there is neither the folder .*train-360/mix_clean.*JorisCos/LibriMix"
    ):
        read(root, "libri2mix-train-360")
    (copy / "LibriSpeech").unlink()
    with pytest.raises(UserError, match=r"librimix: there is no folder .*LibriSpeech.*link it there"):
        read(copy, MADE)


@pytest.mark.parametrize("header", ["mixture_ID,source_1_path", "", "<html>", "mixture_ID;source_1_path;source_1_gain"])
def test_a_table_with_other_columns_is_refused_by_name(copy: Path, header: str) -> None:
    shutil.rmtree(copy / "Libri2Mix")
    (copy / TABLE).write_text(f"{header}\n1,2\n")
    with pytest.raises(UserError, match=r"libri2mix_train-clean-100\.csv: the columns are .*source_2_gain"):
        read(copy, MADE)


GOOD = (
    "19-198-0000_403-126855-0000,train-clean-100/19/198/19-198-0000.flac,0.5,"
    "train-clean-100/403/126855/403-126855-0000.flac,1.5,tr/a.wav,1.0"
)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("0.5", "loud"),
        ("0.5", "nan"),
        ("1.5", "-inf"),
        ("1.5", ""),
        (",tr/a.wav", ""),
        ("1.0", "1.0,2"),
        ("19-198-0000_", ""),
        ("19-198-0000_", "19-198-0001_"),
        ("train-clean-100/19/", "../../19/"),
        ("19-198-0000.flac", "19-198-0000.wav"),
        ("198/19", "199/19"),
        ("403-126855-0000,", "403-126855-0000_1-2-3,"),
        ("19-198", "\0"),
        ("tr/a.wav", "a" * 200_000),
        ("tr/a.wav", '"open'),
    ],
)
def test_a_torn_row_is_refused_by_file_and_line(copy: Path, old: str, new: str) -> None:
    shutil.rmtree(copy / "Libri2Mix")
    header = (copy / TABLE).read_text().splitlines()[0]
    (copy / TABLE).write_text("\n".join([header, GOOD.replace(old, new, 1), GOOD]) + "\n")
    clips, refused = read(copy, MADE)
    assert [name(clip) for clip in clips] == ["19-198-0000_403-126855-0000"]
    assert [told[:2] for told in refused] == [("malformed_row", f"librimix/{TABLE}:2")]


def test_speakers_are_floats_in_the_info_table_and_contradictions_are_refused(copy: Path) -> None:
    info = copy / TABLE.replace(".csv", "_info.csv")
    text = info.read_text()
    assert ",328.0,F,19.0,F\n" in text
    assert len(read(copy, MADE)[0]) == 3
    info.write_text(text.replace("328.0", "3280.0").replace("403.0", "none"))
    shutil.rmtree(copy / "Libri2Mix")
    clips, refused = read(copy, MADE)
    assert len(clips) == 2
    assert [told[:2] for told in refused] == [
        ("malformed_row", f"librimix/{TABLE.replace('.csv', '_info.csv')}:2"),
        ("malformed_row", f"librimix/{TABLE}:3"),
    ]


numbers = st.integers(0, 999_999_999)


@given(reader=numbers, chapter=numbers, number=numbers, gain=st.floats(allow_nan=False, allow_infinity=False))
def test_any_source_of_librispeech_is_read_back_exactly(reader: int, chapter: int, number: int, gain: float) -> None:
    path = f"dev-clean/{reader}/{chapter}/{reader}-{chapter}-{number:04d}.flac"
    ref = reference(path, repr(gain))
    assert ref is not None
    assert (ref.path, ref.gain) == (f"LibriSpeech/{path}", gain)


@given(path=st.text(max_size=60), gain=st.text(max_size=10))
def test_any_other_source_is_none(path: str, gain: str) -> None:
    assert reference(path, gain) is None


@pytest.mark.slow
@pytest.mark.parametrize("split", ["libri2mix-dev", "libri2mix-test", "libri3mix-test"])
def test_the_published_tables_are_read_whole(tmp_path: Path, real_corpora: Path, split: str) -> None:
    real = real_corpora / "librimix"
    (tmp_path / "metadata").symlink_to(real / "metadata", target_is_directory=True)
    (tmp_path / "LibriSpeech").mkdir()
    clips, refused = read(tmp_path, split)
    assert not refused
    assert len(clips) == load_corpus("librimix").split(split).clips == 3000
    for clip, row in zip(clips, table(real, split), strict=True):
        assert name(clip) == row["mixture_ID"]
        for place, ref in enumerate(clip.audio, start=1):
            assert (ref.path, ref.gain) == (
                f"LibriSpeech/{row[f'source_{place}_path']}",
                float(row[f"source_{place}_gain"]),
            )
    lengths: dict[str, int] = {}
    for subset in ("dev-clean", "test-clean"):
        with open(real / f"metadata/LibriSpeech/{subset}.csv", newline="") as file:
            lengths |= {f"LibriSpeech/{row['origin_path']}": int(row["length"]) for row in csv.DictReader(file)}
    seconds = sum(max(lengths[ref.path] for ref in clip.audio) for clip in clips) / 16000
    assert round(seconds / 3600, 1) == load_corpus("librimix").split(split).hours
