"""VoxCeleb1: lists read by us and by torchaudio, and training pairs that are balanced and touch no test speaker."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from manifests import Clip, UserError, load_corpus
from manifests.corpora.voxceleb1 import PAIRS, SIDE, draw_pairs
from shards.render import SILENCE, store

HEADER = "VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet\n"
SPLITS = ("dev", "test", "verification-train", "verification-test")
Refused = list[tuple[str, str, str]]
Pair = tuple[bool, str, str]


def read(root: Path, split: str) -> tuple[list[Clip], Refused]:
    refused: Refused = []
    clips = list(load_corpus("voxceleb1").clips(root, split, lambda *told: refused.append(told)))
    return clips, refused


def sides(clip: Clip) -> list[str]:
    return clip.id.removeprefix("voxceleb1/").split("+")


def speaker(name: str) -> str:
    return name.split("/")[0]


def write(root: Path, meta: str = "", listed: str = "", trials: str = "") -> Path:
    (root / "wav").mkdir(parents=True)
    (root / "vox1_meta.csv").write_text(HEADER + meta)
    (root / "iden_split.txt").write_text(listed)
    (root / "veri_test.txt").write_text(trials)
    return root


@pytest.fixture(scope="module")
def root(corpora: Path) -> Path:
    return corpora / "voxceleb1"


def test_torchaudio_reads_the_same_utterances(root: Path) -> None:
    from torchaudio.datasets import VoxCeleb1Identification

    theirs = {}
    for subset in ("train", "dev", "test"):
        peer = VoxCeleb1Identification(root, subset=subset, download=False)
        for path, rate, number, name in map(peer.get_metadata, range(len(peer))):
            assert rate == 16000
            theirs[path] = (number, name)
    ours = {}
    for clip in read(root, "dev")[0] + read(root, "test")[0]:
        (name,) = sides(clip)
        assert (root / clip.audio[0].path).is_file()
        assert clip.speaker == f"voxceleb1/{speaker(name)}"
        # its number drops the "id1" of the speaker
        ours[clip.audio[0].path.removeprefix("wav/")] = (int(speaker(name)[3:]), "-".join(name.rsplit("/", 2)))
    assert ours == theirs
    assert {f"wav/{path}" for path in ours} == {str(path.relative_to(root)) for path in root.rglob("*.wav")}


def test_torchaudio_reads_the_same_trials_in_the_same_order(root: Path) -> None:
    from torchaudio.datasets import VoxCeleb1Verification

    peer = VoxCeleb1Verification(root, download=False)
    theirs = [peer.get_metadata(place) for place in range(len(peer))]
    clips, refused = read(root, "verification-test")
    ours = [(*(ref.path.removeprefix("wav/") for ref in clip.audio), clip.labels["same_speaker"]) for clip in clips]
    assert ours == [(first, second, "yes" if label else "no") for first, second, _, label, _, _ in theirs]
    assert not refused


def test_genders_and_sets_are_those_of_the_table(root: Path) -> None:
    rows = [line.split("\t") for line in (root / "vox1_meta.csv").read_text().splitlines()[1:]]
    for split in ("dev", "test"):
        clips, refused = read(root, split)
        assert {clip.speaker: clip.gender for clip in clips} == {
            f"voxceleb1/{row[0]}": {"m": "male", "f": "female"}[row[2]] for row in rows if row[4] == split
        }
        assert not refused


def test_a_pair_is_two_spans_one_after_the_other(root: Path) -> None:
    clip = read(root, "verification-test")[0][0]
    assert clip.id == "voxceleb1/id10270/5r0dWxy17C8/00006+id10270/5r0dWxy17C8/00010"
    assert clip.join == "concat"
    assert clip.labels == {"same_speaker": "yes"}
    assert [(ref.start, ref.seconds) for ref in clip.audio] == [(0.0, SIDE), (0.0, SIDE)]
    assert 2 * SIDE + SILENCE / 16000 <= 30
    assert (clip.speaker, clip.gender, clip.text) == ("", "", "")


def test_a_pair_is_rendered_with_silence_between_and_each_side_within_its_bound(root: Path, tmp_path: Path) -> None:
    clip = read(root, "verification-test")[0][0]
    first, second = (soundfile.read(root / ref.path, dtype="int16")[0] for ref in clip.audio)
    stored = store(str(root), clip.audio, clip.join)
    assert stored.samples == len(first) + SILENCE + len(second)
    # a side longer than its bound is cut, one shorter gives what it has
    shutil.copytree(root / "wav" / "id10270", tmp_path / "wav" / "id10270")
    long = np.tile(first, 10)
    soundfile.write(tmp_path / clip.audio[0].path, long, 16000)
    stored = store(str(tmp_path), clip.audio, clip.join)
    assert stored.samples == round(SIDE * 16000) + SILENCE + len(second)


@pytest.mark.parametrize("split", SPLITS)
def test_ids_are_unique_and_their_order_is_fixed(root: Path, split: str) -> None:
    ids = [clip.id for clip in read(root, split)[0]]
    assert len(set(ids)) == len(ids) > 0
    assert ids == [clip.id for clip in read(root, split)[0]]


def test_training_pairs_never_touch_a_test_speaker(root: Path) -> None:
    rows = [line.split("\t") for line in (root / "vox1_meta.csv").read_text().splitlines()[1:]]
    test = {row[0] for row in rows if row[4] == "test"}
    tried = {speaker(side) for clip in read(root, "verification-test")[0] for side in sides(clip)}
    used = {speaker(side) for clip in read(root, "verification-train")[0] for side in sides(clip)}
    assert tried == test
    assert used == {row[0] for row in rows} - test


def check(pairs: list[Pair], said: dict[str, list[str]], genders: dict[str, str]) -> None:
    """Hold drawn pairs against what they promise, counted anew."""
    told: Counter[str] = Counter()
    for same, first, second in pairs:
        assert first != second
        assert same == (speaker(first) == speaker(second))
        told[first] += 1 if same else -1
    assert len({(first, second) for _, first, second in pairs}) == len(pairs)
    assert not any(told.values()), "as many yes as no, for each that leads"
    leads = Counter(first for _, first, _ in pairs)
    follows = Counter(second for same, _, second in pairs if same)
    for one, names in said.items():
        for name in names:
            assert leads[name] == 2 * min(PAIRS // 2, len(names) - 1)
            assert follows[name] == leads[name] / 2
        alike = [
            genders[speaker(second)] == genders[one] for same, a, second in pairs if not same and speaker(a) == one
        ]
        both = {genders[other] == genders[one] for other in said if other != one} == {True, False}
        if both and len(names) > 1:
            assert abs(2 * sum(alike) - len(alike)) <= 1


def test_the_pairs_of_the_miniature_keep_every_promise(root: Path) -> None:
    said: dict[str, list[str]] = {}
    genders = {}
    for clip in read(root, "dev")[0]:
        (name,) = sides(clip)
        said.setdefault(speaker(name), []).append(name)
        genders[speaker(name)] = clip.gender
    pairs = [(clip.labels["same_speaker"] == "yes", *sides(clip)) for clip in read(root, "verification-train")[0]]
    check(pairs, said, genders)
    assert len(pairs) == 16


@given(
    sizes=st.lists(st.tuples(st.integers(2, 7), st.sampled_from(["female", "male"])), min_size=2, max_size=6),
    salt=st.integers(0, 9),
)
def test_any_speakers_give_pairs_that_keep_every_promise(sizes: list[tuple[int, str]], salt: int) -> None:
    said = {f"id{n:05d}": [f"id{n:05d}/v{salt}/{u:05d}" for u in range(size)] for n, (size, _) in enumerate(sizes)}
    genders = {f"id{n:05d}": gender for n, (_, gender) in enumerate(sizes)}

    def draw() -> list[Pair]:
        listed: Iterator[str] = (name for names in said.values() for name in names)
        return list(draw_pairs(listed, {one: (gender, "dev") for one, gender in genders.items()}, pytest.fail))

    pairs = draw()
    check(pairs, said, genders)
    assert draw() == pairs


def test_a_full_set_has_as_many_pairs_an_utterance_as_stated() -> None:
    said = [f"id{n:05d}/video/{u:05d}" for n in range(30) for u in range(40)]
    speakers = {f"id{n:05d}": ("female" if n % 3 else "male", "dev") for n in range(30)}
    pairs = list(draw_pairs(iter(said), speakers, pytest.fail))
    assert len(pairs) == PAIRS * len(said)
    strangers = [(first, second) for same, first, second in pairs if not same]
    alike = sum(speakers[speaker(first)] == speakers[speaker(second)] for first, second in strangers)
    assert 2 * alike == len(strangers)
    # drawn, not dealt in order: strangers come from everywhere
    assert len({speaker(second) for _, second in strangers}) == 30
    facts = load_corpus("voxceleb1").facts.splits
    assert facts["verification-train"].clips == PAIRS * facts["dev"].clips


def test_a_speaker_of_one_utterance_pairs_with_nobody_and_is_told(tmp_path: Path) -> None:
    listed = "".join(f"1 id1000{n}/vvvvvvvvvvv/0000{u}.wav\n" for n, u in [(1, 1), (1, 2), (2, 1), (3, 1), (3, 2)])
    meta = "".join(f"id1000{n}\tA\tm\tUK\tdev\n" for n in (1, 2, 3))
    clips, refused = read(write(tmp_path / "a", meta, listed), "verification-train")
    assert len(clips) == 8
    assert [told[:2] for told in refused] == [("lone_utterance", "voxceleb1/id10002/vvvvvvvvvvv/00001")]
    with pytest.raises(UserError, match=r"iden_split\.txt has 1 dev speakers"):
        read(write(tmp_path / "b", meta, "\n".join(listed.splitlines()[:3])), "verification-train")


def test_commas_instead_of_tabs_are_refused_by_name(root: Path, tmp_path: Path) -> None:
    write(tmp_path / "a")
    (tmp_path / "a/vox1_meta.csv").write_text((root / "vox1_meta.csv").read_text().replace("\t", ","))
    with pytest.raises(UserError, match=r"vox1_meta\.csv.*parted by commas.*tabs as delimiter"):
        read(tmp_path / "a", "dev")


def test_missing_folders_and_lists_are_told(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"voxceleb1: there is no folder .*wav"):
        read(tmp_path, "dev")
    for number, (split, name) in enumerate(
        [("dev", "vox1_meta.csv"), ("test", "iden_split.txt"), ("verification-test", "veri_test.txt")]
    ):
        folder = write(tmp_path / str(number))
        (folder / name).unlink()
        with pytest.raises(UserError, match=rf"voxceleb1: there is no file .*{name}"):
            read(folder, split)


def test_the_tree_may_lie_in_a_folder_of_its_name(root: Path, tmp_path: Path) -> None:
    (tmp_path / "VoxCeleb1").symlink_to(root, target_is_directory=True)
    for split in SPLITS:
        clips = read(tmp_path, split)[0]
        assert [clip.id for clip in clips] == [clip.id for clip in read(root, split)[0]]
        assert all((tmp_path / ref.path).is_file() for clip in clips for ref in clip.audio)


def test_windows_line_ends_change_nothing(root: Path, tmp_path: Path) -> None:
    write(tmp_path / "a")
    for name in ("vox1_meta.csv", "iden_split.txt", "veri_test.txt"):
        (tmp_path / "a" / name).write_bytes((root / name).read_bytes().replace(b"\n", b"\r\n"))
    for split in SPLITS:
        assert read(tmp_path / "a", split) == read(root, split)


@pytest.mark.parametrize(
    "row", ["id10002\tB\tm\tUK", "id10002\tB\tx\tUK\tdev", "id10002\tB\tm\tUK\ttrain", "id10002,B,m,UK,dev", ""]
)
def test_a_torn_row_of_the_speakers_is_refused_by_line(tmp_path: Path, row: str) -> None:
    folder = write(tmp_path / "a", f"id10001\tA\tm\tUK\tdev\n{row}\n", "1 id10001/vvvvvvvvvvv/00001.wav\n")
    clips, refused = read(folder, "dev")
    assert len(clips) == 1
    assert [told[:2] for told in refused] == [("malformed_row", "voxceleb1/vox1_meta.csv:3")]


@pytest.mark.parametrize(
    "row",
    [
        "id10001/vvvvvvvvvvv/00002.wav",
        "4 id10001/vvvvvvvvvvv/00002.wav",
        "1 id10001/00002.wav",
        "1 ../../00002.wav",
        "",
        "1 id10001/../00002.wav",
    ],
)
def test_a_torn_row_of_the_utterances_is_refused_by_line(tmp_path: Path, row: str) -> None:
    folder = write(tmp_path / "a", "id10001\tA\tm\tUK\tdev\n", f"1 id10001/vvvvvvvvvvv/00001.wav\n{row}\n")
    clips, refused = read(folder, "dev")
    assert len(clips) == 1
    assert [told[:2] for told in refused] == [("malformed_row", "voxceleb1/iden_split.txt:2")]


def test_an_utterance_of_nobody_in_the_table_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", "id10001\tA\tm\tUK\tdev\n", "1 id19999/vvvvvvvvvvv/00001.wav\n")
    assert read(folder, "dev")[1][0][:2] == ("unknown_speaker", "voxceleb1/id19999/vvvvvvvvvvv/00001")


@pytest.mark.parametrize(
    "row",
    [
        "1 id10270/vvvvvvvvvvv/00001.wav",
        "2 id10270/vvvvvvvvvvv/00001.wav id10270/vvvvvvvvvvv/00002.wav",
        "1 id10270/vvvvvvvvvvv/00001.wav id10271/vvvvvvvvvvv/00001.wav",
        "0 id10270/vvvvvvvvvvv/00001.wav id10270/vvvvvvvvvvv/00002.wav",
        "1 id10270/vvvvvvvvvvv/00001.wav id10270/vvvvvvvvvvv/00002.wav more",
        "<html>",
    ],
)
def test_a_torn_trial_is_refused_by_line(tmp_path: Path, row: str) -> None:
    good = "1 id10270/vvvvvvvvvvv/00001.wav id10270/vvvvvvvvvvv/00002.wav"
    clips, refused = read(write(tmp_path / "a", trials=f"{row}\n{good}\n"), "verification-test")
    assert len(clips) == 1
    assert [told[:2] for told in refused] == [("malformed_row", "voxceleb1/veri_test.txt:1")]


@pytest.mark.slow
def test_the_published_lists_are_read_whole(tmp_path: Path) -> None:
    if "SALMONN_REAL_CORPORA" not in os.environ:
        # The whole lists are large, and without a licence to bundle them by.
        pytest.skip("SALMONN_REAL_CORPORA does not name the folder of the real metadata")
    real = Path(os.environ["SALMONN_REAL_CORPORA"]) / "voxceleb1"
    rows = [line.split("\t") for line in (real / "vox1_meta.csv").read_text().splitlines()[1:]]
    listed = "".join(f"1 {row[0]}/vvvvvvvvvvv/{number:05d}.wav\n" for row in rows for number in range(123))
    folder = write(tmp_path / "a", listed=listed)
    for name in ("vox1_meta.csv", "veri_test.txt"):
        shutil.copy(real / name, folder / name)
    clips, refused = read(folder, "verification-test")
    assert len(clips) == load_corpus("voxceleb1").split("verification-test").clips == 37720
    assert Counter(clip.labels["same_speaker"] for clip in clips) == {"yes": 18860, "no": 18860}
    tried = {side for clip in clips for side in sides(clip)}
    assert (len(tried), len({speaker(side) for side in tried})) == (4715, 40)
    genders = Counter((split, clip.gender) for split in ("dev", "test") for clip in read(folder, split)[0])
    speakers = {place: count // 123 for place, count in genders.items()}
    assert speakers == {("dev", "male"): 665, ("dev", "female"): 546, ("test", "male"): 25, ("test", "female"): 15}
    pairs, lone = read(folder, "verification-train")
    assert not refused + lone
    assert len(pairs) == PAIRS * 1211 * 123
    assert not {speaker(side) for clip in pairs for side in sides(clip)} & {speaker(side) for side in tried}
    assert len({clip.id for clip in pairs}) == len(pairs)


def test_lhotse_finds_the_same_utterances_speakers_and_genders(corpora: Path) -> None:
    from lhotse.recipes.voxceleb import _prepare_voxceleb_v1

    root = corpora / "voxceleb1"
    theirs = {
        str(Path(recording.sources[0].source).relative_to(root)): (one.speaker, one.gender)
        for part in _prepare_voxceleb_v1(root, 1).values()
        for one, recording in zip(part["supervisions"], part["recordings"], strict=True)
    }
    ours = {}
    for split in ("dev", "test"):
        for clip in load_corpus("voxceleb1").clips(root, split, lambda *_: None):
            if clip.audio and (root / clip.audio[0].path).exists():
                ours[clip.audio[0].path] = (clip.speaker.removeprefix("voxceleb1/"), clip.gender[0])
    assert len(ours) == 11
    assert ours == theirs
