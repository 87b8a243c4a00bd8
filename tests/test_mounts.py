"""Mounts: archives that are not unpacked are read, scanned, trusted and built from as the tree they would unpack to."""

from __future__ import annotations

import concurrent.futures
import contextlib
import gzip
import io
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import TWO, digests
from manifests import Clip, Failed, UserError, files, load_corpus, load_recipe, mounts
from manifests.tables import read_table, write_table
from pipelines import items
from pipelines.build import build
from pipelines.executor import Executor
from pipelines.fetching.fetch import link
from pipelines.items import Outcome, items_of, outcome_path, write_outcome
from pipelines.scan import ScanTask, current, manifest_path, raw_folder, scan, seen_path, stale
from pipelines.trust import trusted_files
from pipelines.unpacking.stream_archive import can_stream, index_path, is_streamed, stream_archive, tar_path
from pipelines.unpacking.unpack import unpack
from shards.quality import UNKNOWN
from shards.refusals import Refused
from shards.render import store
from test_unpack import HOSTILE, SMALL, header, one, tar, zip_of

SPLITS = load_corpus("librispeech").splits
Tree = dict[str, bytes]


def pack(archive: Path, tree: Tree, folders: tuple[str, ...] = (), how: str = "w:gz") -> str:
    """Pack a tree as tar does."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive, how) as made:
        for folder in folders:
            member = tarfile.TarInfo(folder)
            member.type, member.mode = tarfile.DIRTYPE, 0o755
            made.addfile(member)
        for path, content in tree.items():
            member = tarfile.TarInfo(path)
            member.size = len(content)
            made.addfile(member, io.BytesIO(content))
    return str(archive)


def official(published: Path, split: str, archive: Path) -> str:
    """Pack a split of LibriSpeech as openslr.org does: with the texts that all its archives share."""
    top = published / "LibriSpeech"
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive, "w:gz") as made:
        for path in (top / split, *sorted(top.glob("*.TXT"))):
            made.add(path, f"LibriSpeech/{path.name}")
    return str(archive)


@pytest.fixture(scope="module")
def streamed(tmp_path_factory: pytest.TempPathFactory, corpora: Path) -> Path:
    """A root in which nothing of LibriSpeech is unpacked; other corpora are as ever."""
    root = tmp_path_factory.mktemp("streamed")
    held = [path.name for path in (corpora / "librispeech/LibriSpeech").iterdir() if path.is_dir()]
    for item in items_of(load_corpus("librispeech"), SPLITS):
        if item.splits[0] not in held:
            continue
        archive = official(corpora / "librispeech", item.splits[0], root / item.path)
        record = outcome_path(str(root), item).removesuffix(".json") + ".unpacked.parquet"
        made = stream_archive(archive, record=record)
        told = Outcome(
            key=item.key, state="ok", verified="published", unpacked=True, removed=True, files=made.files, bytes=1
        )
        write_outcome(str(root), item, told)
        assert not os.path.exists(archive)
    (root / "raw/audiocaps").symlink_to(corpora / "audiocaps", target_is_directory=True)
    assert {path.name for path in (root / "raw/librispeech").iterdir()} == {".archives"}
    return root


def copied(streamed: Path, folder: Path) -> Path:
    """A copy of a streamed root that may be changed, with the times of its files."""
    shutil.copytree(streamed / "raw/librispeech", folder / "raw/librispeech")
    shutil.copytree(streamed / "fetch", folder / "fetch")
    return folder


# -- the corpus


def test_the_miniature_has_the_splits_that_are_compared(streamed: Path) -> None:
    assert len(list((streamed / "raw/librispeech/.archives").glob("*.tar"))) >= 3


def test_clips_and_manifests_are_those_of_the_unpacked_tree(root: Path, streamed: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    (plain / "raw").mkdir(parents=True)
    (plain / "raw/librispeech").symlink_to(root / "raw/librispeech")
    raw, corpus = raw_folder(str(streamed), "librispeech"), load_corpus("librispeech")
    assert raw == f"archive://{streamed}/raw/librispeech"
    compared = 0
    for split in SPLITS:
        if not (root / "raw/librispeech/LibriSpeech" / split).is_dir():
            with pytest.raises(UserError, match="there is no folder"):
                list(corpus.clips(raw, split))
            continue
        clips = list(corpus.clips(str(root / "raw/librispeech"), split))
        assert clips
        assert list(corpus.clips(raw, split)) == clips
        results = [
            scan(ScanTask(root=str(place), corpus="librispeech", split=split, listing="x"))
            for place in (plain, streamed)
        ]
        assert results[0] == results[1]
        rows, other = (
            Path(manifest_path(str(place), "librispeech", split)).read_bytes() for place in (plain, streamed)
        )
        assert rows == other
        seen = pq.read_table(seen_path(str(streamed), "librispeech", split))
        there = pq.read_table(manifest_path(str(streamed), "librispeech", split))["state"].to_pylist()
        assert seen["verified"].to_pylist() == [state == "ok" for state in there]
        compared += len(clips)
    assert compared > 70


@pytest.mark.slow
def test_a_build_from_archives_is_the_build_from_files(built: Path, streamed: Path, tmp_path: Path) -> None:
    with Executor(2, head_start=600.0) as executor:
        build(load_recipe(TWO), str(streamed), str(tmp_path / "out"), executor=executor, shard_bytes=2**20)
    assert digests(tmp_path / "out") == digests(built)


def test_a_clip_is_stored_the_same_trusted_or_not(root: Path, streamed: Path) -> None:
    top, raw = str(root / "raw/librispeech"), raw_folder(str(streamed), "librispeech")
    for clip in list(load_corpus("librispeech").clips(top, "train-clean-100"))[:10]:
        for trusted in (False, True):
            made, other = (outcome(stored, place, clip, trusted) for place in (top, raw))
            assert made == other


def stored(raw: str, clip: Clip, trusted: bool) -> object:
    """What is stored of a clip, or why it is refused."""
    try:
        return msgspec.structs.replace(store(raw, clip.audio, clip.join, trusted=trusted), quality=UNKNOWN)
    except Refused as refused:
        return str(refused)


def test_who_writes_to_a_tar_loses_its_trust_and_is_seen_by_the_next_scan(
    streamed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = str(copied(streamed, tmp_path))
    now = current(place, "librispeech")
    scan(ScanTask(root=place, corpus="librispeech", split="train-clean-100", listing=now))
    before = pq.read_table(seen_path(place, "librispeech", "train-clean-100"))
    assert any(before["verified"].to_pylist())
    assert not stale(place, "librispeech", "train-clean-100", current(place, "librispeech"))
    tar_file = tmp_path / "raw/librispeech/.archives/train-clean-100.tar"
    with tar_file.open("r+b") as file:
        file.seek(700)
        file.write(b"\0")
    assert stale(place, "librispeech", "train-clean-100", current(place, "librispeech"))
    monkeypatch.setattr(mounts, "MOUNTS", ())  # as in the next process
    scan(ScanTask(root=place, corpus="librispeech", split="train-clean-100", listing=now))
    after = pq.read_table(seen_path(place, "librispeech", "train-clean-100"))
    assert not any(after["verified"].to_pylist())
    there = [n for n, stamp in enumerate(before["stamp"].to_pylist()) if stamp]
    assert there
    assert all(before["stamp"][n] != after["stamp"][n] for n in there)


def test_unpacked_and_streamed_archives_are_trusted_side_by_side(streamed: Path, corpora: Path, tmp_path: Path) -> None:
    place = copied(streamed, tmp_path)
    for end in (".tar", ".tar.parquet"):
        (place / f"raw/librispeech/.archives/test-other{end}").unlink()
    (item,) = items_of(load_corpus("librispeech"), ("test-other",))
    archive = official(corpora / "librispeech", "test-other", place / item.path)
    record = outcome_path(str(place), item).removesuffix(".json") + ".unpacked.parquet"
    unpack(archive, str(place / item.into), record=record)
    raw, trusted = raw_folder(str(place), "librispeech"), trusted_files(str(place), "librispeech")
    assert (place / "raw/librispeech/LibriSpeech/test-other").is_dir()
    for split in ("test-other", "train-clean-100"):
        found = [path for path in files.walk(files.join(raw, "LibriSpeech", split))]
        assert found
        for path in found:
            _, size, stamp = files.read_head(files.join(raw, "LibriSpeech", split, path), 4) or (b"", 0, 0)
            assert trusted[f"LibriSpeech/{split}/{path}"] == (size, stamp)
    os.utime(
        place / "raw/librispeech/LibriSpeech/test-other" / files.walk(files.join(raw, "LibriSpeech/test-other"))[0]
    )
    first = files.walk(files.join(raw, "LibriSpeech/test-other"))[0]
    _, size, stamp = files.read_head(files.join(raw, "LibriSpeech/test-other", first), 4) or (b"", 0, 0)
    assert trusted[f"LibriSpeech/test-other/{first}"] != (size, stamp)


def test_archives_that_nobody_verified_are_not_trusted(streamed: Path, tmp_path: Path) -> None:
    place = str(copied(streamed, tmp_path))
    assert trusted_files(place, "librispeech")
    for item in items_of(load_corpus("librispeech"), SPLITS):
        if told := items.read_outcome(place, item):
            write_outcome(place, item, msgspec.structs.replace(told, verified=""))
    assert trusted_files(place, "librispeech") == {}


def test_a_corpus_reads_the_streamed_archives_of_another(root: Path, streamed: Path, tmp_path: Path) -> None:
    place, corpus = copied(streamed, tmp_path), load_corpus("librimix")
    assert link(corpus, str(tmp_path / "empty")) == ["librispeech"]
    for name in ("metadata", "Libri2Mix"):
        shutil.copytree(root / "raw/librimix" / name, place / "raw/librimix" / name)
    for _ in range(2):
        assert link(corpus, str(place)) == []
    raw, plain = raw_folder(str(place), "librimix"), str(root / "raw/librimix")
    assert files.walk(raw) == files.walk(plain)
    clips = [list(corpus.clips(top, "libri2mix-test")) for top in (raw, plain)]
    assert clips[0] == clips[1] != []
    for clip in clips[0][:3]:
        assert outcome(stored, raw, clip, False) == outcome(stored, plain, clip, False)


# -- every function of files.py, on any tree

NAMES = st.sampled_from(["a", "b", "a.txt", "b-1", "a0", "x y", "\u00e9t\u00e9", "-n", ".hid", "0", "zz.txt"])
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
HOMES = st.sets(st.sampled_from(["disk", "m.tar.gz", "k.tar", "z.tgz"]), min_size=1)
ORDER = ("disk", "k.tar", "m.tar.gz", "z.tgz")
"""Who wins of several that have one path."""


def tidy(tree: dict[str, Any]) -> dict[str, Any]:
    """Leave out what would be a file in one place and a folder in another, and paths that archives pass over."""
    return {
        path: value
        for path, value in tree.items()
        if not path.startswith("-") and not any(other.startswith(f"{path}/") for other in tree)
    }


def outcome(ask: Callable[..., Any], *about: Any) -> Any:
    """What a question gives: an answer, or that there is none."""
    try:
        return ask(*about)
    except OSError:
        return OSError


def listed(url: str) -> list[str]:
    """The names in a folder, none of a file: there object stores and disks differ."""
    return files.names(url) if files.is_folder(url) else []


def head(url: str, length: int) -> tuple[bytes, int] | None:
    """The head of a file and its size; stamps differ."""
    found = files.read_head(url, length)
    return found and found[:2]


@settings(max_examples=60)
@given(
    tree=st.dictionaries(PATHS, st.tuples(HOMES, st.binary(max_size=40)), min_size=1, max_size=12).map(tidy),
    empty=st.sets(PATHS, max_size=3),
    whole=st.sampled_from([0, 10, 1 << 20]),
)
def test_a_mount_is_read_as_the_tree_it_stands_for(tree: dict[str, Any], empty: set[str], whole: int) -> None:
    used = {home for homes, _ in tree.values() for home in homes} - {"disk"}
    if not used:
        return
    taken = set(tree) | {path[:at] for path in tree for at in range(len(path)) if path[at] == "/"}
    folders = [f for f in empty if not f.startswith("-") and not any(f == p or f.startswith(f"{p}/") for p in tree)]
    with tempfile.TemporaryDirectory() as top, pytest.MonkeyPatch.context() as patch:
        patch.setattr(mounts, "WHOLE", whole)
        plain, mounted = Path(top, "plain"), Path(top, "mounted")
        for folder in folders:
            (plain / folder).mkdir(parents=True, exist_ok=True)
        for path, (homes, content) in tree.items():
            first = min(map(ORDER.index, homes))
            (plain / path).parent.mkdir(parents=True, exist_ok=True)
            # The same path has other bytes in each home, so that it shows which one is read.
            (plain / path).write_bytes(content + bytes([first]))
            if "disk" in homes:
                (mounted / path).parent.mkdir(parents=True, exist_ok=True)
                (mounted / path).write_bytes(content + bytes([0]))
        for number, home in enumerate(ORDER):
            if home in used:
                held = {p: content + bytes([number]) for p, (homes, content) in tree.items() if home in homes}
                how = "w" if home == "k.tar" else "w:gz"
                stream_archive(pack(mounted / ".archives" / home, held, tuple(folders), how))
        url = f"archive://{mounted}"
        for path in sorted({"", *taken, *folders, *(f"{path}/x" for path in tree), "nowhere", "a0b"}):
            here, there = files.join(str(plain), path), files.join(url, path)
            for ask in (files.exists, files.is_folder, files.size, listed, files.walk, files.read_bytes, seeks):
                assert outcome(ask, here) == outcome(ask, there), (ask, path)
            for ask in (files.is_folder, listed, files.walk):
                assert outcome(ask, f"{here}/") == outcome(ask, f"{there}/"), (ask, path)
            assert files.walk(here, ".txt") == files.walk(there, ".txt")
            for start, length in ((0, 100), (3, 5), (0, 0), (38, 9), (90, 5)):
                assert outcome(files.read_range, here, start, length) == outcome(files.read_range, there, start, length)
                assert outcome(head, here, length) == outcome(head, there, length)


def seeks(url: str) -> list[bytes]:
    """What is read of a file by jumping about in it."""
    with files.open_read(url) as file:
        found = [file.read(3), bytes([file.tell()])]
        for offset, whence, length in ((5, 0, 4), (-1, 2, 9), (0, 0, -1), (99, 0, 1), (-3, 1, 2), (1, 0, 0)):
            file.seek(offset, whence)
            found.append(file.read(length))
        return found


def test_what_lies_on_disk_hides_members_that_it_stands_in_the_way_of(tmp_path: Path) -> None:
    held = {"a/b/c": b"1", "a/b/d/e": b"2", "f": b"3", "g": b"4"}
    stream_archive(pack(tmp_path / ".archives/x.tar.gz", held))
    (tmp_path / "a").mkdir()
    (tmp_path / "a/b").write_bytes(b"a file")
    (tmp_path / "f").mkdir()
    (tmp_path / "f/h").write_bytes(b"5")
    url = f"archive://{tmp_path}"
    assert files.walk(url) == ["a/b", "f/h", "g"]
    assert files.names(files.join(url, "a")) == ["b"]
    for gone in ("a/b/c", "a/b/d", "a/b/d/e"):
        assert not files.exists(files.join(url, gone))
        with pytest.raises(FileNotFoundError):
            files.read_bytes(files.join(url, gone))
    with pytest.raises(IsADirectoryError):
        files.read_bytes(files.join(url, "f"))
    assert files.read_bytes(files.join(url, "a/b")) == b"a file"


def test_nothing_leads_out_of_a_mount_or_to_its_archives(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"x")
    stream_archive(pack(tmp_path / "m/.archives/x.tar.gz", {"a/b": b"1"}))
    url = f"archive://{tmp_path}/m"
    assert files.names(url) == ["a"]
    for path in ("../secret", "a/../../secret", ".archives", ".archives/x.tar", "a/../.archives/x.tar", "./.archives"):
        assert not files.exists(f"{url}/{path}"), path
        assert files.size(f"{url}/{path}") is None
        with pytest.raises(FileNotFoundError):
            files.read_bytes(f"{url}/{path}")
    assert files.read_bytes(f"{url}/./a//b") == b"1"


def test_a_mount_is_read_only(tmp_path: Path) -> None:
    stream_archive(pack(tmp_path / ".archives/x.tar.gz", {"a/b": b"1"}))
    before = digests(tmp_path)
    url = f"archive://{tmp_path}/a/b"
    for write in (files.write_whole, files.write_new):
        with pytest.raises(UserError, match=f"cannot write to archive://{tmp_path}.* write to {tmp_path}"):
            write(url, b"2")
    for erase in (files.remove, files.remove_tree):
        with pytest.raises(UserError, match="cannot write to"):
            erase(url)
    assert digests(tmp_path) == before


def test_where_nothing_is_mounted_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no archives are mounted at .* --stream"):
        files.exists(f"archive://{tmp_path}/a")


def test_a_pipe_among_the_files_holds_nobody_up(tmp_path: Path) -> None:
    stream_archive(pack(tmp_path / ".archives/x.tar.gz", {"a": b"1"}))
    os.mkfifo(tmp_path / "pipe")
    url = f"archive://{tmp_path}/pipe"
    assert files.size(url) is None
    assert files.read_head(url, 9) is None
    with pytest.raises(FileNotFoundError):
        files.open_read(url)


def test_an_archive_that_comes_later_is_seen(tmp_path: Path) -> None:
    assert raw_folder(str(tmp_path), "librispeech") == f"{tmp_path}/raw/librispeech"
    home = tmp_path / "raw/librispeech"
    for number in range(3):
        time.sleep(0.02)  # clocks of disks tick in hundredths
        stream_archive(pack(home / f".archives/{number}.tar.gz", {f"{number}.txt": b"x", "all": b"%d" % number}))
        raw = raw_folder(str(tmp_path), "librispeech")
        assert files.walk(raw) == [*(f"{n}.txt" for n in range(number + 1)), "all"]
        assert files.read_bytes(files.join(raw, "all")) == b"0"
    time.sleep(0.02)
    (home / "new.txt").write_bytes(b"on disk")
    assert files.read_bytes(files.join(raw_folder(str(tmp_path), "librispeech"), "new.txt")) == b"on disk"


def test_members_go_where_the_archive_would_be_unpacked_to(tmp_path: Path) -> None:
    stream_archive(pack(tmp_path / ".archives/x.tar.gz", {"a/b": b"1"}, ("c/d",)), inner="sub/part")
    assert files.walk(f"archive://{tmp_path}") == ["sub/part/a/b"]
    assert files.is_folder(f"archive://{tmp_path}/sub/part/c/d")


def test_two_archives_that_cannot_lie_in_one_folder_are_told(tmp_path: Path) -> None:
    stream_archive(pack(tmp_path / ".archives/x.tar.gz", {"a/b": b"1"}))
    stream_archive(pack(tmp_path / ".archives/y.tar.gz", {"a": b"1"}))
    with pytest.raises(UserError, match="a is a file in one of the mounted archives and a folder in another"):
        files.exists(f"archive://{tmp_path}/a")


def test_many_threads_read_what_each_asks_for(tmp_path: Path) -> None:
    tree = {f"{n % 7}/{n}": random.Random(n).randbytes(n * 37 % 5000) for n in range(300)}
    stream_archive(pack(tmp_path / ".archives/x.tar.gz", tree))

    def read(seed: int) -> bool:
        order = random.Random(seed).sample(sorted(tree), 200)
        heads = all((files.read_head(f"archive://{tmp_path}/{path}", 9) or ())[0] == tree[path][:9] for path in order)
        return heads and all(files.read_bytes(f"archive://{tmp_path}/{path}") == tree[path] for path in order)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(16)))


# -- what is not whole


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A folder with a streamed archive of some files."""
    stream_archive(pack(tmp_path / ".archives/x.tar.gz", {f"a/{n}": random.Random(n).randbytes(999) for n in range(9)}))
    return tmp_path


def read_everything(folder: Path) -> int:
    url = f"archive://{folder}"
    return sum(len(files.read_bytes(files.join(url, path))) for path in files.walk(url))


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def shift(path: Path) -> None:
    """Let the index name bytes that are not there."""
    table = pq.read_table(path)
    offsets = [offset + 10_000 for offset in table["offset"].to_pylist()]
    write_table(str(path), table.set_column(1, table.schema.field(1), [offsets]))


def forget(path: Path) -> None:
    """Let the index tell nothing of its tar."""
    write_table(
        str(path), (table := pq.read_table(path)).replace_schema_metadata({b"format": table.schema.metadata[b"format"]})
    )


def retype(path: Path) -> None:
    """Let the index have words where numbers belong."""
    table = pq.read_table(path)
    words = table.set_column(1, "offset", [["many"] * len(table)])
    write_table(str(path), words.replace_schema_metadata(table.schema.metadata))


@pytest.mark.parametrize(
    ("name", "harm", "told"),
    [
        ("x.tar", cut, r"x\.tar has [0-9,]+ bytes and not [0-9,]+; remove the tar and its index, and fetch"),
        ("x.tar", os.unlink, r"x\.tar is gone"),
        ("x.tar.parquet", cut, r"x\.tar\.parquet is not a whole Parquet file"),
        ("x.tar.parquet", lambda path: path.write_bytes(b""), r"x\.tar\.parquet is not a whole Parquet file"),
        ("x.tar.parquet", shift, r"x\.tar\.parquet names bytes that .*x\.tar does not have"),
        ("x.tar.parquet", forget, r"x\.tar\.parquet is damaged"),
        ("x.tar.parquet", retype, r"x\.tar\.parquet is damaged"),
    ],
)
def test_a_damaged_pair_is_a_sentence(small: Path, name: str, harm: Callable[[Path], Any], told: str) -> None:
    harm(small / ".archives" / name)
    with pytest.raises(UserError, match=told):
        read_everything(small)


def test_a_tar_cut_while_it_is_read_is_a_sentence(small: Path) -> None:
    assert read_everything(small) == 9 * 999
    cut(small / ".archives/x.tar")
    with pytest.raises(UserError, match="ends before what its index says"):
        read_everything(small)


@given(place=st.integers(0, 10**6), flip=st.integers(1, 255))
def test_a_flipped_byte_in_an_index_never_reads_outside(place: int, flip: int) -> None:
    with tempfile.TemporaryDirectory() as top:
        tree = {f"a/{n}": bytes([n]) * 50 for n in range(5)}
        index = Path(index_path(stream := pack(Path(top, ".archives/x.tar.gz"), tree)))
        stream_archive(stream)
        content = bytearray(index.read_bytes())
        content[place % len(content)] ^= flip
        index.write_bytes(content)
        tar, url = Path(tar_path(stream)).read_bytes(), f"archive://{top}"
        with contextlib.suppress(UserError, FileNotFoundError):
            for path in files.walk(url):
                assert files.read_bytes(files.join(url, path)) in tar


# -- from archive to tar


def test_what_is_made_is_what_gzip_makes_and_an_index_of_it(tmp_path: Path) -> None:
    tree = {f"a/{n}.flac": random.Random(n).randbytes(n * 700) for n in range(40)} | {
        "b/\u00e9t\u00e9 " + "x" * 120: b"long"
    }
    archive = pack(tmp_path / ".archives/x.tar.gz", tree, ("a", "b", "empty/one"))
    plain = gzip.decompress(Path(archive).read_bytes())
    made = stream_archive(archive, record=str(tmp_path / "record"))
    assert (made.files, made.bytes, made.format) == (41, sum(map(len, tree.values())), "tar.gz")
    assert Path(tar_path(archive)).read_bytes() == plain
    assert sorted(os.listdir(tmp_path / ".archives")) == ["x.tar", "x.tar.parquet"]
    rows = read_table(index_path(archive), "salmonn-mounted-1").to_pylist()
    assert [row["path"] for row in rows] == sorted([*tree, "empty/one/"])
    assert all(plain[row["offset"] : row["offset"] + row["bytes"]] == tree.get(row["path"], b"") for row in rows)
    assert is_streamed(archive)


def test_the_same_again_gives_the_same(tmp_path: Path) -> None:
    archive = Path(pack(tmp_path / ".archives/x.tar.gz", {f"{n}": b"x" * n for n in range(9)}))
    content, made = archive.read_bytes(), []
    for _ in range(2):
        archive.write_bytes(content)
        stream_archive(str(archive), record=str(tmp_path / "record"))
        made.append((tmp_path / "record").read_bytes() + (tmp_path / ".archives/x.tar").read_bytes())
        rows = read_table(index_path(str(archive)), "salmonn-mounted-1")
        made[-1] += repr(rows.to_pylist()).encode()
    assert made[0] == made[1]


def test_a_plain_tar_stays_where_it_is(tmp_path: Path) -> None:
    archive = pack(tmp_path / ".archives/x.tar", {"a": b"1"}, how="w")
    before = os.stat(archive)
    stream_archive(archive)
    assert (os.stat(archive).st_ino, os.stat(archive).st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert files.walk(f"archive://{tmp_path}") == ["a"]


def test_what_cannot_be_streamed_is_known_before(tmp_path: Path) -> None:
    home = tmp_path / ".archives"
    assert can_stream(pack(home / "x.tar.gz", {"a": b"1"}))
    assert can_stream(pack(home / "x.tgz", {"a": b"1"}))
    assert can_stream(pack(home / "y.tar.xz", {"a": b"1"}, how="w:xz"))
    (home / "z.zip").write_bytes(zip_of(("a", b"1")))
    wrong = [
        str(home / "z.zip"),
        pack(home / "packed.tar", {"a": b"1"}),
        pack(tmp_path / "elsewhere/x.tar.gz", {"a": b"1"}),
    ]
    before = digests(tmp_path)
    for archive in wrong:
        assert not can_stream(archive)
        with pytest.raises(UserError, match="unpack it"):
            stream_archive(archive)
    assert digests(tmp_path) == before


TARS = [name for name in HOSTILE if name.split("_")[0] in ("tar", "gz", "bz2", "xz")]


def test_most_hostile_archives_are_tars() -> None:
    assert len(TARS) > 55


@pytest.mark.parametrize("name", TARS)
def test_a_hostile_archive_is_a_sentence_and_leaves_nothing(name: str, tmp_path: Path) -> None:
    make, told = HOSTILE[name]
    archive = tmp_path / ".archives/x.tar.gz"
    archive.parent.mkdir()
    archive.write_bytes(make())
    before = digests(tmp_path)
    with pytest.raises(UserError) as caught:
        stream_archive(str(archive), caps=SMALL, record=str(tmp_path / "record"))
    assert told in str(caught.value)
    assert "x.tar.gz" in str(caught.value)
    assert digests(tmp_path) == before
    assert raw_folder(str(tmp_path), "x") == f"{tmp_path}/raw/x"
    assert not mounts.mountable(str(tmp_path))


def test_a_member_among_the_archives_is_refused(tmp_path: Path) -> None:
    archive = pack(tmp_path / ".archives/x.tar.gz", {"a": b"1", ".archives/y.tar.parquet": b"2"})
    with pytest.raises(UserError, match="would lie among the archives"):
        stream_archive(archive)


def test_no_more_is_written_than_the_cap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tmp_path / ".archives/x.tar.gz"
    archive.parent.mkdir()
    archive.write_bytes(gzip.compress(tar(one("a", bytes(20_000_000)))))
    resource_limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL.bytes, resource_limit[1]))
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with pytest.raises(UserError, match="3,000,000 bytes"):
            stream_archive(str(archive), caps=SMALL)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, resource_limit)
        signal.signal(signal.SIGXFSZ, handler)


def test_one_process_at_a_time_streams_an_archive(tmp_path: Path) -> None:
    import fcntl

    archive = pack(tmp_path / ".archives/x.tar.gz", {"a": b"1"})
    with open(archive, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(Failed, match="another process"):
            stream_archive(archive)
    stream_archive(archive)


STREAM = """
import sys
from pipelines.unpacking.stream_archive import stream_archive
print("go", flush=True)
stream_archive(sys.argv[1], record=sys.argv[2])
"""


@pytest.mark.slow
def test_killed_at_random_moments_and_run_again_it_is_the_same(tmp_path: Path) -> None:
    draw = random.Random(4)
    tree = {f"a/{n}": random.Random(n).randbytes(200_000) for n in range(200)}
    content = Path(pack(tmp_path / "x.tar.gz", tree)).read_bytes()
    fates = []
    for attempt in range(20):
        home = tmp_path / str(attempt)
        archive = home / ".archives/x.tar.gz"
        archive.parent.mkdir(parents=True)
        archive.write_bytes(content)
        command = [sys.executable, "-c", STREAM, str(archive), str(home / "record")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            process.stdout.readline()
            time.sleep(draw.uniform(0, 0.8))
            process.send_signal(signal.SIGKILL)
        fates.append(sorted(os.listdir(archive.parent)))
        if archive.exists():
            stream_archive(str(archive), record=str(home / "record"))
        assert sorted(os.listdir(archive.parent)) == ["x.tar", "x.tar.parquet"]
        assert read_table(str(home / "record"), "salmonn-unpacked-1").num_rows == 200
        assert all(files.read_bytes(f"archive://{home}/{path}") == tree[path] for path in draw.sample(sorted(tree), 5))
        shutil.rmtree(home)
    assert any(name.endswith(".tmp") for fate in fates for name in fate), "no kill met a tar half written"


# -- what it costs


def spent(work: Callable[[], Any]) -> float:
    """Processor seconds of this process, best of three."""
    costs = []
    for _ in range(3):
        begin = time.process_time()
        work()
        costs.append(time.process_time() - begin)
    return min(costs)


@pytest.mark.slow
# The peer of the measurement: without the program there is nothing to compare with.
@pytest.mark.skipif(not shutil.which("gzip"), reason="no program gzip")
def test_streaming_costs_little_more_processor_time_than_gzip(tmp_path: Path) -> None:
    tree = {f"top/{n // 50}/{n}.flac": random.Random(n).randbytes(130_000) for n in range(1500)}
    source = pack(tmp_path / "x.tar.gz", tree)

    def ours() -> None:
        archive = tmp_path / ".archives/x.tar.gz"
        archive.parent.mkdir(exist_ok=True)
        os.link(source, archive)
        stream_archive(str(archive), record=str(tmp_path / "record"))

    def theirs() -> float:
        begin = resource.getrusage(resource.RUSAGE_CHILDREN)
        with open(tmp_path / "theirs", "wb") as out:
            subprocess.run(["gzip", "-dc", source], stdout=out, check=True)
        end = resource.getrusage(resource.RUSAGE_CHILDREN)
        return end.ru_utime + end.ru_stime - begin.ru_utime - begin.ru_stime

    mine, other = spent(ours), min(theirs() for _ in range(3))
    print(f"stream {mine:.2f} cpu-s, gzip -d {other:.2f}: {mine / other:.2f}")
    assert mine < 1.3 * other


@pytest.mark.slow
def test_a_mount_is_scanned_and_read_as_fast_as_files(tmp_path: Path, corpora: Path) -> None:
    sound = next((corpora / "librispeech/LibriSpeech/test-clean").rglob("*.flac")).read_bytes()[:20_000]
    tree: Tree = {"LibriSpeech/SPEAKERS.TXT": b"14 | F | test-clean | 25.03 | A\n"}
    for chapter in range(500):
        name = f"{14 + chapter // 8}-{chapter}"
        top = f"LibriSpeech/test-clean/{name.replace('-', '/')}/{name}"
        tree |= {f"{top}-{n:04}.flac": sound + b"%d" % n for n in range(40)}
        tree[f"{top}.trans.txt"] = "".join(f"{name}-{n:04} A WORD\n" for n in range(40)).encode()
    plain, mounted = tmp_path / "plain", tmp_path / "mounted"
    archive = pack(mounted / "raw/librispeech/.archives/x.tar.gz", tree)
    unpack(archive, str(plain / "raw/librispeech"))
    stream_archive(archive)
    paths = [path for path in tree if path.endswith(".flac")]

    def scanned(root: Path) -> int:
        return scan(ScanTask(root=str(root), corpus="librispeech", split="test-clean")).clips

    def read(root: Path) -> int:
        top = raw_folder(str(root), "librispeech")
        return sum(len(files.read_bytes(f"{top}/{path}")) for path in paths)

    for name, work in (("scan", scanned), ("read", read)):
        assert work(plain) == work(mounted) > 19_999
        mine, other = spent(lambda: work(plain)), spent(lambda: work(mounted))  # noqa: B023
        print(f"{name}: files {mine:.2f} cpu-s, mount {other:.2f}")
        assert other < 1.1 * mine, name


MEMORY = """
import json, sys, time
import manifests.mounts
from manifests import files
def told(name):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(name))
files.exists(sys.argv[2] + "/x")  # the reader of Parquet and its threads
before, begin = told("VmRSS"), time.process_time()
files.exists(sys.argv[1] + "/x")
print(json.dumps([told("VmRSS") - before, told("VmHWM") - before, time.process_time() - begin]))
"""


@pytest.mark.slow
def test_three_hundred_thousand_members_take_modest_memory(tmp_path: Path) -> None:
    archive = tmp_path / ".archives/x.tar"
    archive.parent.mkdir()
    with archive.open("wb") as file:
        for n in range(300_000):
            file.write(
                header(f"LibriSpeech/train-other-500/{n // 1500}/{n // 50}/{n // 1500}-{n // 50}-{n % 50:04}.flac")
            )
        file.write(bytes(1024))
    stream_archive(str(archive))
    stream_archive(pack(tmp_path / "small/.archives/x.tar.gz", {"a": b"1"}))
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, f"archive://{tmp_path}", f"archive://{tmp_path}/small"],
        check=True,
        capture_output=True,
        text=True,
    )
    held, peak, seconds = json.loads(done.stdout)
    print(f"held {held / 1e6:.0f} MB, at most {peak / 1e6:.0f} MB, {seconds:.2f} cpu-s")
    assert held < 60e6
    assert peak < 250e6
