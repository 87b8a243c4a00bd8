"""Adopting a local copy of a corpus by links: what is taken, what is refused, and that the copy stays as it was."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from conftest import digests
from manifests import UserError, corpus_names, load_corpus
from pipelines.fetching import adopt as room
from pipelines.fetching.adopt import adopt, page


def state(folder: Path) -> dict[str, tuple]:
    """Names, content, modes and times of all below a folder."""
    found = sorted(folder.rglob("*"))
    about = {str(path.relative_to(folder)): path.lstat() for path in found}
    return {name: (one.st_mode, one.st_size, one.st_mtime_ns) for name, one in about.items()} | digests(folder)


@pytest.fixture
def own(tmp_path: Path, corpora: Path) -> Path:
    """One's own copy of IEMOCAP."""
    return Path(shutil.copytree(corpora / "iemocap", tmp_path / "own"))


@pytest.mark.parametrize("corpus", corpus_names())
def test_the_miniature_of_every_corpus_is_adopted(corpus: str, tmp_path: Path, corpora: Path) -> None:
    own = shutil.copytree(corpora / corpus, tmp_path / "own")
    before = state(own)
    adopted = adopt(corpus, str(own), str(tmp_path / "root"))
    assert digests(tmp_path / "root" / "raw" / corpus) == digests(own)
    assert state(own) == before
    assert sum(adopted.linked.values()) == adopted.files == len(digests(own))
    for one in adopted.splits:
        clips = list(load_corpus(corpus).clips(own, one.split, lambda *_: None))
        assert one.clips == len(clips)
        assert one.with_audio <= one.clips
        assert one.published == load_corpus(corpus).split(one.split).clips


@pytest.mark.parametrize("corpus", corpus_names())
def test_a_page_names_the_folder_the_homepage_and_every_split(corpus: str) -> None:
    text, facts = page(corpus), load_corpus(corpus).facts
    assert f"ROOT/raw/{corpus}/" in text
    assert f"salmonn fetch {corpus} --from DIR" in text
    for part in (facts.homepage, facts.steps, *facts.splits):
        assert part in text


def test_files_are_the_same_on_one_disk_and_a_second_run_does_nothing(own: Path, tmp_path: Path) -> None:
    first = adopt("iemocap", str(own), str(tmp_path / "root"))
    assert set(first.linked) == {"hard link"}
    assert not first.already
    name = next(iter(digests(own)))
    assert (own / name).samefile(tmp_path / "root/raw/iemocap" / name)
    before = state(tmp_path / "root/raw/iemocap")
    again = adopt("iemocap", str(own), str(tmp_path / "root"))
    assert again.already
    assert again.linked == {}
    assert again.splits == first.splits
    assert state(tmp_path / "root/raw/iemocap") == before
    assert not list((tmp_path / "root/raw").glob(".*"))


def test_links_across_disks_and_copies(own: Path, tmp_path: Path) -> None:
    shm = Path("/dev/shm")
    if not shm.is_dir() or shm.stat().st_dev == tmp_path.stat().st_dev:
        # What is tested is a link that cannot be hard: with one file system there is none to be had.
        pytest.skip("no second file system here")
    root = shm / f"salmonn-adopt-{os.getpid()}"
    try:
        assert set(adopt("iemocap", str(own), str(root)).linked) == {"symbolic link"}
        assert digests(root / "raw/iemocap") == digests(own)
        assert adopt("iemocap", str(own), str(root)).already
        shutil.rmtree(root)
        assert set(adopt("iemocap", str(own), str(root), copy=True).linked) == {"copy"}
        assert not any(path.is_symlink() for path in root.rglob("*"))
        assert adopt("iemocap", str(own), str(root), copy=True).already
    finally:
        shutil.rmtree(root, ignore_errors=True)


def test_lists_fetched_before_are_joined_by_the_audio(tmp_path: Path, corpora: Path) -> None:
    own = shutil.copytree(corpora / "voxceleb1" / "wav", tmp_path / "own" / "wav").parent
    raw = tmp_path / "root/raw/voxceleb1"
    with pytest.raises(UserError, match=r"vox1_meta\.csv"):
        adopt("voxceleb1", str(own), str(tmp_path / "root"))
    raw.mkdir(parents=True, exist_ok=True)
    for name in ("vox1_meta.csv", "iden_split.txt", "veri_test.txt"):
        shutil.copy(corpora / "voxceleb1" / name, raw)
    adopted = adopt("voxceleb1", str(own), str(tmp_path / "root"), splits=("dev",))
    assert adopted.splits[0].with_audio > 0
    assert digests(raw) == digests(corpora / "voxceleb1")


def test_what_is_there_is_never_overwritten(own: Path, tmp_path: Path) -> None:
    name = next(name for name in digests(own) if name.endswith(".txt"))
    place = tmp_path / "root/raw/iemocap" / name
    place.parent.mkdir(parents=True)
    # Another content of the same size.
    place.write_bytes(bytes(reversed((own / name).read_bytes())))
    before = state(tmp_path / "root/raw"), state(own)
    with pytest.raises(UserError, match="another file"):
        adopt("iemocap", str(own), str(tmp_path / "root"))
    assert (state(tmp_path / "root/raw"), state(own)) == before


@pytest.mark.parametrize("change", ["empty", "foreign", "absent", "inside", "link"])
def test_what_is_no_corpus_is_refused_and_leaves_nothing(change: str, own: Path, tmp_path: Path) -> None:
    root, given = tmp_path / "root", own
    if change in ("empty", "foreign"):
        shutil.rmtree(own)
        own.mkdir()
    if change == "foreign":
        (own / "song.mp3").write_bytes(b"x")
    if change == "absent":
        given = tmp_path / "nowhere"
    if change == "inside":
        root = own / "root"
    if change == "link":
        (root / "raw").mkdir(parents=True)
        (root / "raw/iemocap").symlink_to(tmp_path)
    with pytest.raises(UserError) as told:
        adopt("iemocap", str(given), str(root))
    assert ".adopting" not in str(told.value)
    assert "\n" not in str(told.value)
    assert change == "link" or not (root / "raw/iemocap").exists()
    assert not list(tmp_path.rglob("*.adopting"))


def test_a_split_that_is_named_must_be_there(own: Path, tmp_path: Path) -> None:
    shutil.rmtree(own / "IEMOCAP_full_release/Session5")
    with pytest.raises(UserError, match="Session5"):
        adopt("iemocap", str(own), str(tmp_path / "root"), splits=("session5",))
    adopted = adopt("iemocap", str(own), str(tmp_path / "root"), splits=("session1",))
    assert [one.split for one in adopted.splits] == ["session1"]
    assert str(tmp_path / "root/raw/iemocap") in adopt("iemocap", str(own), str(tmp_path / "root")).unread["session5"]


def test_links_inside_count_as_files_and_others_are_refused(own: Path, tmp_path: Path) -> None:
    wav = next(own.rglob("*.wav"))
    secret = tmp_path / "secret"
    secret.write_text("not theirs")
    moved = own / "elsewhere.wav"
    wav.rename(moved)
    wav.symlink_to(moved)
    adopt("iemocap", str(own), str(tmp_path / "one"))
    taken = tmp_path / "one/raw/iemocap" / wav.relative_to(own)
    assert taken.samefile(moved)
    assert not taken.is_symlink()
    for number, target in enumerate([secret, tmp_path, own, tmp_path / "nothing", Path("../secret")]):
        link = own / "odd"
        link.symlink_to(target)
        with pytest.raises(UserError, match="link"):
            adopt("iemocap", str(own), str(tmp_path / f"root{number}"))
        link.unlink()
    os.mkfifo(own / "pipe")
    with pytest.raises(UserError, match="neither a file nor a folder"):
        adopt("iemocap", str(own), str(tmp_path / "two"))
    assert not list(tmp_path.rglob("raw/iemocap/odd"))


def test_damage_is_counted(tmp_path: Path, corpora: Path) -> None:
    own = shutil.copytree(corpora / "librispeech", tmp_path / "own")
    before = adopt("librispeech", str(own), str(tmp_path / "before"))
    whole = [path for path in sorted(own.rglob("*.flac")) if path.read_bytes()[:4] == b"fLaC"]
    first, second, third = whole[:3]
    for path in (first, second, third):
        path.unlink()  # it is hard-linked
    first.write_bytes(b"")
    second.write_bytes(b"<html>sorry</html>" * 10)
    third.write_bytes(b"fLa")
    adopted = adopt("librispeech", str(own), str(tmp_path / "root"))
    assert adopted.empty == before.empty + 1
    assert set(adopted.broken) - set(before.broken) == {path.relative_to(own).as_posix() for path in (second, third)}


def test_a_killed_run_leaves_what_the_next_completes(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take, left = room.take, [5]

    def die(*arguments: object) -> str:
        left[0] -= 1
        if left[0] < 0:
            os._exit(9)
        return take(*arguments)

    monkeypatch.setattr(room, "take", die)
    child = os.fork()
    if child == 0:
        adopt("iemocap", str(own), str(tmp_path / "root"))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert not (tmp_path / "root/raw/iemocap").exists()
    assert list((tmp_path / "root/raw").glob("*.adopting")) or list((tmp_path / "root/raw").glob(".*.adopting"))
    monkeypatch.setattr(room, "take", take)
    adopt("iemocap", str(own), str(tmp_path / "root"))
    assert digests(tmp_path / "root/raw/iemocap") == digests(own)
    assert not list((tmp_path / "root/raw").glob(".*"))
