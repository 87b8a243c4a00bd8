"""IEMOCAP: turns of our own in the published layout, read by us and by torchaudio; labels, speakers and torn lines."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests import Clip, UserError, load_corpus

SESSIONS = tuple(f"session{number}" for number in range(1, 6))
MERGED = {"neu": "neutral", "hap": "happy", "exc": "happy", "sad": "sad", "ang": "angry"}
HEADER = "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"
Refused = list[tuple[str, str, str]]


def read(root: Path, split: str) -> tuple[list[Clip], Refused]:
    refused: Refused = []
    clips = list(load_corpus("iemocap").clips(root, split, lambda *told: refused.append(told)))
    return clips, refused


def write(root: Path, evaluation: str, transcription: str = "", dialog: str = "Ses01F_impro01") -> Path:
    for part, text in (("EmoEvaluation", evaluation), ("transcriptions", transcription)):
        place = root / "IEMOCAP_full_release/Session1/dialog" / part / f"{dialog}.txt"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(text.encode())
    return root


@pytest.fixture(scope="module")
def root(corpora: Path) -> Path:
    return corpora / "iemocap"


@pytest.mark.parametrize("split", SESSIONS)
def test_torchaudio_reads_the_same_turns_files_and_labels(root: Path, tmp_path: Path, split: str) -> None:
    from torchaudio.datasets import IEMOCAP

    # torchaudio would read the Finder's files as text, and knows the tree by another name
    shutil.copytree(root / "IEMOCAP_full_release", tmp_path / "IEMOCAP", ignore=shutil.ignore_patterns("._*"))
    peer = IEMOCAP(tmp_path, sessions=(int(split[-1]),))
    theirs = {}
    for path, rate, name, label, dialog in map(peer.get_metadata, range(len(peer))):
        assert (rate, dialog) == (16000, name.split("_")[0])
        if label in MERGED:
            theirs[f"iemocap/{name}"] = (path, MERGED[label])
    clips, _ = read(root, split)
    ours = {clip.id: (clip.audio[0].path.split("/", 1)[1], clip.labels["emotion"]) for clip in clips}
    assert ours == theirs
    assert ours


def test_every_labelled_turn_is_a_clip_or_a_refusal(root: Path) -> None:
    told: Counter[str] = Counter()
    for path in root.rglob("EmoEvaluation/Ses*.txt"):
        told.update(re.findall(r"^\[[^]]*\]\tSes\w+\t(\w+)\t", path.read_text(), re.MULTILINE))
    found: Counter[str] = Counter()
    left: Counter[str] = Counter()
    for split in SESSIONS:
        clips, refused = read(root, split)
        found.update(clip.labels["emotion"] for clip in clips)
        assert {reason for reason, _, _ in refused} <= {"emotion_not_in_four_classes"}
        left.update(detail.split()[-1] for _, _, detail in refused)
    wanted: Counter[str] = Counter()
    for label, emotion in MERGED.items():
        wanted[emotion] += told.pop(label)
    assert found == wanted
    assert left == told
    assert set(told) == {"fru", "xxx", "sur", "oth", "fea", "dis"}


def test_one_turn_is_read_in_full(root: Path) -> None:
    clip = read(root, "session1")[0][0]
    assert clip.id == "iemocap/Ses01F_impro01_F000"
    path = "IEMOCAP_full_release/Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav"
    assert [ref.path for ref in clip.audio] == [path]
    assert (clip.text, clip.language, clip.labels) == ("The boat is late again.", "en", {"emotion": "neutral"})
    assert clip.license == "IEMOCAP release form"


def test_the_speaker_is_the_letter_of_the_turn_and_not_that_of_the_dialog(root: Path) -> None:
    by_id = {clip.id: clip for split in SESSIONS for clip in read(root, split)[0]}
    assert by_id["iemocap/Ses01F_impro01_M000"].speaker == "iemocap/Ses01M"
    assert by_id["iemocap/Ses03M_impro03_F000"].speaker == "iemocap/Ses03F"
    for clip in by_id.values():
        letter = clip.id.rsplit("_", 1)[1][0]
        assert clip.speaker == f"iemocap/{clip.id[8:13]}{letter}"
        assert clip.gender == {"F": "female", "M": "male"}[letter]
    # two actors a session, none in two sessions: training and test share no voice
    assert len({clip.speaker for clip in by_id.values()}) == 10


def test_the_finders_files_are_none_of_the_corpus(root: Path, tmp_path: Path) -> None:
    strange = [path for path in root.rglob("._*")]
    assert {path.suffix for path in strange} == {".txt", ".wav"}
    for path in strange:
        with pytest.raises(UnicodeDecodeError):
            path.read_text(encoding="utf-8")
    shutil.copytree(root, tmp_path / "clean", ignore=shutil.ignore_patterns("._*"))
    assert read(root, "session1") == read(tmp_path / "clean", "session1")


def test_a_transcript_without_times_is_read_and_one_without_a_turn_is_not(root: Path) -> None:
    texts = {clip.id: clip.text for split in SESSIONS for clip in read(root, split)[0]}
    assert texts["iemocap/Ses02F_impro02_F000"] == "The garden is gone."
    assert all(texts.values())
    lines = (root / "IEMOCAP_full_release/Session3/dialog/transcriptions/Ses03M_impro03.txt").read_text()
    assert "M: [LAUGHTER]" in lines
    assert texts["iemocap/Ses03M_impro03_M000"] == "I got the part!"


def test_texts_with_colons_and_brackets_stay_whole(tmp_path: Path) -> None:
    turn = "Ses01F_impro01_F000"
    write(tmp_path, f"{HEADER}[1 - 2]\t{turn}\tang\t[1, 1, 1]\n", f"{turn} [001.0-002.0]: It's 10:30 [LAUGHTER]: no.\n")
    assert read(tmp_path, "session1")[0][0].text == "It's 10:30 [LAUGHTER]: no."


def test_a_turn_without_transcript_keeps_its_label(tmp_path: Path) -> None:
    write(tmp_path, f"{HEADER}[1 - 2]\tSes01F_impro01_F000\tang\t[1, 1, 1]\n")
    (tmp_path / "IEMOCAP_full_release/Session1/dialog/transcriptions/Ses01F_impro01.txt").unlink()
    (clip,), refused = read(tmp_path, "session1")
    assert (clip.text, clip.labels, refused) == ("", {"emotion": "angry"}, [])


def test_the_root_may_hold_the_release_or_be_it(root: Path) -> None:
    for split in SESSIONS:
        ids = [clip.id for clip in read(root, split)[0]]
        assert ids == [clip.id for clip in read(root / "IEMOCAP_full_release", split)[0]]
        for clip in read(root / "IEMOCAP_full_release", split)[0]:
            assert (root / "IEMOCAP_full_release" / clip.audio[0].path).is_file()


def test_sessions_are_parted_as_the_paper_parts_them() -> None:
    corpus = load_corpus("iemocap")
    assert corpus.expand("train") == SESSIONS[:4]
    assert corpus.expand("test") == SESSIONS[4:]
    assert sum(corpus.split(split).clips for split in SESSIONS) == 5531


@pytest.mark.parametrize("gone", ["IEMOCAP_full_release", "dialog/EmoEvaluation", "dialog/transcriptions"])
def test_a_tree_that_is_not_as_published_is_one_sentence(tmp_path: Path, gone: str) -> None:
    write(tmp_path, HEADER)
    shutil.rmtree(next(tmp_path.rglob(gone)) if "/" in gone else tmp_path / gone)
    with pytest.raises(UserError, match=rf"iemocap: there is no folder .*{gone.split('/')[-1]}"):
        read(tmp_path, "session1")


@pytest.mark.parametrize(
    "line",
    [
        "[1.0 - 2.0]\tSes01F_impro01_F000",
        "[1.0 - 2.0] Ses01F_impro01_F000 neu",
        "[1.0 - 2.0]\tSes01F_impro02_F000\tneu\t[1, 1, 1]",
        "[1.0 - 2.0]\tSes01F_impro01_X000\tneu\t[1, 1, 1]",
        "[1.0 - 2.0]\t../../etc/passwd\tneu\t[1, 1, 1]",
        "[1.0 - 2.0]\tSes01F_impro01_F000\thappy\t[1, 1, 1]",
        "1.0 - 2.0]\tSes01F_impro01_F000\tneu\t[1, 1, 1]",
    ],
)
def test_a_torn_turn_is_refused_by_file_and_line(tmp_path: Path, line: str) -> None:
    write(tmp_path, f"{HEADER}{line}\nC-E2:\tNeutral;\t()\n\n[3 - 4]\tSes01F_impro01_M000\tsad\t[1, 1, 1]\n")
    clips, refused = read(tmp_path, "session1")
    assert [clip.id for clip in clips] == ["iemocap/Ses01F_impro01_M000"]
    path = "iemocap/IEMOCAP_full_release/Session1/dialog/EmoEvaluation/Ses01F_impro01.txt"
    assert [told[:2] for told in refused] == [("malformed_row", f"{path}:3")]


def test_a_torn_transcript_line_is_refused_by_file_and_line(tmp_path: Path) -> None:
    write(tmp_path, HEADER, "Ses01F_impro01_F000 [001.0-002.0] no colon\n")
    (told,) = read(tmp_path, "session1")[1]
    assert told[0] == "malformed_row"
    assert told[1].endswith("transcriptions/Ses01F_impro01.txt:1")


turns = st.tuples(st.sampled_from("FM"), st.integers(0, 999)).map(lambda turn: f"Ses01F_impro01_{turn[0]}{turn[1]:03d}")
texts = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=40)


@given(world=st.dictionaries(turns, st.tuples(st.sampled_from([*MERGED, "fru", "xxx"]), texts), max_size=6))
def test_any_dialog_is_read_back_exactly(world: dict[str, tuple[str, str]]) -> None:
    evaluation = "".join(
        f"[1.0 - 2.0]\t{turn}\t{label}\t[1, 1, 1]\nC-E1:\t{label};\t()\n\n" for turn, (label, _) in world.items()
    )
    transcription = "".join(f"{turn} [001.0-002.0]: {text}\n" for turn, (_, text) in world.items())
    with tempfile.TemporaryDirectory() as folder:
        clips, refused = read(write(Path(folder), HEADER + evaluation, transcription), "session1")
    wanted = {f"iemocap/{turn}": (MERGED[label], text) for turn, (label, text) in world.items() if label in MERGED}
    assert {clip.id: (clip.labels["emotion"], clip.text) for clip in clips} == wanted
    assert len(refused) == len(world) - len(wanted)
