"""Archives: real ones unpack as tarfile, zipfile and tar unpack them; hostile and damaged ones leave nothing behind."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import os
import random
import resource
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import py7zr
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests import Failed, UserError
from manifests.tables import read_table
from pipelines.unpacking import sevenzip, stage
from pipelines.unpacking.archives import Caps
from pipelines.unpacking.unpack import RECORD, stream_members, unpack

SMALL = Caps(bytes=3_000_000, members=200, depth=8)
"""What the hostile ones may come to."""
AUDIO = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
WAV = b"RIFF\x24\0\0\0WAVEfmt " + bytes(20)


# Making archives by hand, where the libraries refuse to.


def header(name: bytes | str, size: int = 0, kind: bytes = b"0", **fields: bytes) -> bytes:
    """A tar header with a right checksum; `fields` are written over the usual ones."""
    name = name.encode() if isinstance(name, str) else name
    block = bytearray(512)
    block[: len(name[:100])] = name[:100]
    block[100:108], block[108:116], block[116:124] = b"0004755\0", b"0000000\0", b"0000000\0"
    block[124:136], block[136:148] = b"%011o\0" % size, b"%011o\0" % 1_500_000_000
    block[156:157], block[257:265] = kind, b"ustar\00000"
    places = {"sizes": 124, "times": 136, "link": 157, "magic": 257, "prefix": 345}
    for field, value in fields.items():
        block[places[field] : places[field] + len(value)] = value
    block[148:156] = b"%06o\0 " % (sum(block[:148]) + sum(block[156:]) + 8 * 32)
    return bytes(block)


def one(name: bytes | str, content: bytes = b"hello", kind: bytes = b"0", **fields: bytes) -> bytes:
    return header(name, len(content), kind, **fields) + content + bytes(-len(content) % 512)


def pax(**records: bytes) -> bytes:
    """A pax header: each record begins with its own length."""
    content = b""
    for key, value in records.items():
        bare = b" " + key.replace("__", ".").encode() + b"=" + value + b"\n"
        length = next(n for n in range(len(bare), len(bare) + 9) if n == len(bare) + len(str(n)))
        content += str(length).encode() + bare
    return one("pax", content, b"x")


def tar(*parts: bytes) -> bytes:
    return b"".join(parts) + bytes(1024)


def zip_of(*entries: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED, mode: int = 0o100644) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in entries:
            info = zipfile.ZipInfo("x", (2020, 2, 3, 4, 5, 6))
            info.filename = name
            info.compress_type, info.create_system, info.external_attr = method, 3, mode << 16
            archive.writestr(info, content)
    return out.getvalue()


def changed(content: bytes, signature: bytes, offset: int, value: bytes, nth: int = 0) -> bytes:
    """Write `value` behind the n-th `signature`."""
    at = -1
    for _ in range(nth + 1):
        at = content.index(signature, at + 1)
    return content[: at + offset] + value + content[at + offset + len(value) :]


def overlapping() -> bytes:
    """A directory with two members at one place: the bomb of David Fifield in small."""
    made = zip_of(("a", bytes(400_000)), ("b", b""))
    return changed(changed(made, b"PK\1\2", 42, bytes(4), 1), b"PK\1\2", 16, made[14:26], 1)


def seven(*entries: tuple[str, bytes]) -> bytes:
    out = io.BytesIO()
    with py7zr.SevenZipFile(out, "w") as archive:
        for name, content in entries:
            archive._writestr(content, name)  # the public method looks at names
    return out.getvalue()


def seven_link() -> bytes:
    out, folder = io.BytesIO(), Path(os.environ["PYTEST_LINKS"])
    (folder / "link").unlink(missing_ok=True)
    (folder / "link").symlink_to("/etc/passwd")
    with py7zr.SevenZipFile(out, "w") as archive:
        archive.write(folder / "link", "link")
    return out.getvalue()


def table(**columns: object) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out)
    return out.getvalue()


def sounds(*names: object, content: bytes | None = WAV) -> bytes:
    audio = pa.array([{"bytes": content, "path": "x.wav"} for _ in names], AUDIO)
    return table(segment_id=pa.array(list(names), pa.string()), audio=audio)


def xz_that_asks_for_4_gib() -> bytes:
    made = bytearray(lzma.compress(tar(one("a"))))
    end = 12 + (made[12] + 1) * 4
    made[12 + 4] = 40  # the dictionary, of 4 GiB
    made[end - 4 : end] = struct.pack("<L", zlib.crc32(made[12 : end - 4]))
    return bytes(made)


def deep(levels: int) -> str:
    return "/".join(["d"] * levels)


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "tar_parent": (lambda: tar(one("../x")), "leads out"),
    "tar_parent_inside": (lambda: tar(one("a/b/../../../x")), "leads out"),
    "tar_absolute": (lambda: tar(one("/tmp/x")), "absolute"),
    "tar_absolute_by_prefix": (lambda: tar(one("x", prefix=b"/tmp")), "absolute"),
    "tar_drive": (lambda: tar(one("C:x")), "absolute"),
    "tar_backslash": (lambda: tar(one("..\\x")), "backslash"),
    "tar_nul": (lambda: tar(pax(path=b"a\0b"), one("a")), "control"),
    "tar_newline": (lambda: tar(one("a\nb")), "control"),
    "tar_escape": (lambda: tar(one("a\x1b[2J")), "control"),
    "tar_not_utf8": (lambda: tar(one(b"caf\xe9.wav")), "not UTF-8"),
    "tar_no_name": (lambda: tar(one("")), "no name"),
    "tar_symlink": (lambda: tar(one("a", b"", b"2", link=b"/etc")), "symbolic link"),
    "tar_through_symlink": (lambda: tar(one("a", b"", b"2", link=b".."), one("a/x")), "symbolic link"),
    "tar_link_behind_files": (lambda: tar(one("a"), one("b"), one("c", b"", b"2", link=b"a")), "symbolic link"),
    "tar_hard_link": (lambda: tar(one("a", b"", b"1", link=b"/etc/passwd")), "hard link"),
    "tar_pax_link": (lambda: tar(pax(linkpath=b"/etc/passwd"), one("a", b"", b"2")), "symbolic link"),
    "tar_char_device": (lambda: tar(one("a", b"", b"3")), "device"),
    "tar_block_device": (lambda: tar(one("a", b"", b"4")), "device"),
    "tar_pipe": (lambda: tar(one("a", b"", b"6")), "pipe"),
    "tar_unknown_kind": (lambda: tar(one("a", b"", b"Z")), "unknown kind"),
    "tar_other_volume": (lambda: tar(one("a", b"", b"M")), "another volume"),
    "tar_sparse": (lambda: tar(one("a", b"", b"S")), "sparse"),
    "tar_pax_sparse": (lambda: tar(pax(GNU__sparse__size=b"9" * 12), one("a")), "sparse"),
    "tar_twice": (lambda: tar(one("a"), one("b"), one("./a")), "comes twice"),
    "tar_case_twin": (lambda: tar(one("Rain.wav"), one("rain.wav")), "only in case"),
    "tar_unicode_twin": (
        lambda: tar(*(one(unicodedata.normalize(form, "caf\xe9")) for form in ("NFC", "NFD"))),
        "normalisation",
    ),
    "tar_file_then_folder": (lambda: tar(one("a"), one("a/b")), "file in one place"),
    "tar_folder_then_file": (lambda: tar(one("a/b"), one("a")), "file in one place"),
    "tar_folder_with_content": (lambda: tar(one("a/", b"x", b"5")), "folder of 1 byte"),
    "tar_too_deep": (lambda: tar(one(deep(9))), "9 folders deep"),
    "tar_long_name": (lambda: tar(one("n", b"x" * 300 + b"\0", b"L"), one("x")), "more than 255 bytes"),
    "tar_long_path": (lambda: tar(one("n", b"/".join([b"x" * 200] * 6), b"L"), one("x")), "path of 1,205 bytes"),
    "tar_negative_size": (lambda: tar(header("a", sizes=b"\xff" * 12), one("b")), "the size -1"),
    "tar_negative_pax_size": (lambda: tar(pax(size=b"-512"), one("b")), "the size b'-512'"),
    "tar_size_of_words": (lambda: tar(header("a", sizes=b"many bytes\0\0")), "no size"),
    "tar_pax_size_for_all": (lambda: tar(one("g", b"9 size=1\n", b"g"), one("a")), "to all"),
    "tar_pax_without_records": (lambda: tar(one("p", b"100000 path=x\n", b"x"), one("a")), "not made of records"),
    "tar_pax_of_length_0": (lambda: tar(one("p", b"0 path=x\n", b"x"), one("a")), "not made of records"),
    "tar_pax_of_10_gb": (lambda: header("p", 8**11 - 1, b"x"), "is a header of"),
    "tar_pax_at_the_end": (lambda: tar(one("a"), pax(path=b"b")), "describes another"),
    "tar_size_of_an_exabyte": (lambda: header("a", sizes=b"\x80" + (1 << 60).to_bytes(11, "big")), "3,000,000 bytes"),
    "tar_too_large": (lambda: tar(one("a", bytes(2_000_000)), one("b", bytes(1_000_001))), "3,000,000 bytes"),
    "tar_too_many": (lambda: tar(*(one(f"{n}", b"") for n in range(201))), "200 members"),
    "tar_too_many_headers": (lambda: tar(*[one("n", b"x\0", b"L")] * 201), "200 members"),
    "tar_cut_between_members": (lambda: one("a") + one("b"), "cut off, at member 'b'"),
    "tar_cut_in_a_member": (lambda: one("a") + one("b", bytes(5000))[:3000], "cut off, at member 'b'"),
    "tar_cut_in_a_header": (lambda: one("a") + one("b")[:100], "cut off, at member 'a'"),
    "tar_damaged_header": (lambda: tar(one("a"), b"\1" + one("b")[1:]), "header is damaged, at member 'a'"),
    "tar_behind_its_end": (lambda: tar(one("a")) + tar(one("b")), "behind its end mark"),
    "tar_empty": (lambda: tar(bytes(9216)), "no file"),
    "gz_bomb": (lambda: gzip.compress(tar(one("a", bytes(20_000_000)))), "3,000,000 bytes"),
    "gz_bomb_of_what_is_passed_over": (lambda: gzip.compress(tar(one("._a", bytes(20_000_000)))), "3,000,000 bytes"),
    "gz_bomb_behind_the_end": (lambda: gzip.compress(tar(one("a")) + bytes(20_000_000)), "3,000,000 bytes"),
    "gz_bomb_of_streams": (lambda: gzip.compress(tar(one("a"))) + gzip.compress(bytes(99_999)) * 90, "3,000,000 bytes"),
    "gz_cut": (lambda: gzip.compress(tar(one("a", random.Random(0).randbytes(50_000))))[:-9000], "cut off, at member"),
    "gz_cut_in_its_trailer": (lambda: gzip.compress(tar(one("a")))[:-3], "cut off"),
    "gz_flipped": (lambda: changed(gzip.compress(tar(one("a", bytes(range(256))))), b"\x1f", 120, b"\0"), "damaged"),
    "gz_wrong_crc": (lambda: gzip.compress(tar(one("a")))[:-8] + bytes(8), "damaged"),
    "gz_and_more": (lambda: gzip.compress(tar(one("a"))) + b"more", "behind its gz stream"),
    "gz_of_text": (lambda: gzip.compress(b"no tar " * 1000), "no tar in it"),
    "bz2_bomb": (lambda: bz2.compress(tar(one("a", bytes(20_000_000)))), "3,000,000 bytes"),
    "bz2_cut": (lambda: bz2.compress(tar(one("a")))[:-5], "cut off"),
    "xz_bomb": (lambda: lzma.compress(tar(one("a", bytes(20_000_000))), preset=0), "3,000,000 bytes"),
    "xz_cut": (lambda: lzma.compress(tar(one("a")))[:-20], "cut off"),
    "xz_memory": (xz_that_asks_for_4_gib, "damaged"),
    "zip_parent": (lambda: zip_of(("../x", b"a")), "leads out"),
    "zip_absolute": (lambda: zip_of(("/tmp/x", b"a")), "absolute"),
    "zip_drive": (lambda: zip_of(("C:/x", b"a")), "absolute"),
    "zip_backslash": (lambda: zip_of(("a\\..\\..\\x", b"a")), "backslash"),
    "zip_nul": (lambda: zip_of(("aXb", b"a")).replace(b"aXb", b"a\0b"), "control"),
    "zip_not_unicode": (lambda: zip_of(("\xe9", b"a")).replace(b"\xc3\xa9", b"\xff\xff"), "not Unicode"),
    "zip_symlink": (lambda: zip_of(("a", b"/etc"), mode=stat.S_IFLNK | 0o777), "symbolic link"),
    "zip_pipe": (lambda: zip_of(("a", b""), mode=stat.S_IFIFO), "a pipe"),
    "zip_twice": (lambda: zip_of(("a", b"1"), ("./a", b"2")), "comes twice"),
    "zip_encrypted": (lambda: changed(zip_of(("a", b"x")), b"PK\1\2", 8, b"\1\0"), "encrypted"),
    "zip_unknown_method": (
        lambda: changed(changed(zip_of(("a", b"x")), b"PK\1\2", 10, b"\x63"), b"PK\3\4", 8, b"\x63"),
        "method 99",
    ),
    "zip_two_names": (lambda: changed(zip_of(("a", b"x")), b"PK\1\2", 46, b"b"), "by its own header"),
    "zip_overlapping": (overlapping, "lies over"),
    "zip_longer_than_it_says": (
        lambda: changed(zip_of(("a", bytes(9000))), b"PK\1\2", 24, struct.pack("<L", 100)),
        "more than the 100 bytes",
    ),
    "zip_shorter_than_it_says": (
        lambda: changed(zip_of(("a", bytes(9000))), b"PK\1\2", 24, struct.pack("<L", 9001)),
        "cut off, at member 'a'",
    ),
    "zip_wrong_crc": (lambda: changed(zip_of(("a", b"hello")), b"PK\1\2", 16, b"\0\0\0\0"), "another checksum"),
    "zip_bomb": (lambda: zip_of(("a", bytes(20_000_000))), "3,000,000 bytes"),
    "zip_cut": (lambda: zip_of(("a", bytes(9000)))[:-30], "ends with a directory"),
    "zip_cut_in_front": (lambda: b"PK\3\4" + zip_of(("a", b"x" * 99), ("b", b"y"))[40:], "not where it says"),
    "zip_more_entries_than_there_are": (
        lambda: changed(zip_of(("a", b"x")), b"PK\5\6", 10, b"\2\0"),
        "directory is damaged",
    ),
    "zip_too_many": (lambda: zip_of(*((str(n), b"") for n in range(201))), "200 members"),
    "zip_lost_parts": (lambda: changed(zip_of(("a", b"x")), b"PK\5\6", 4, b"\2\0"), "name the last .zip"),
    "7z_parent": (lambda: seven(("../x", b"a")), "leads out"),
    "7z_absolute": (lambda: seven(("/tmp/x", b"a")), "absolute"),
    "7z_twice": (lambda: seven(("a", b"1"), ("a", b"2")), "comes twice"),
    "7z_symlink": (seven_link, "is a link"),
    "7z_bomb": (lambda: seven(("a", bytes(20_000_000))), "3,000,000 bytes"),
    "7z_cut": (lambda: seven(("a", random.Random(0).randbytes(50_000)))[:-2000], "is not whole"),
    "7z_flipped": (lambda: changed(seven(("a", b"hello" * 999)), b"7z", 50, b"\xff\xff"), "is not whole"),
    "7z_header_of_exabytes": (lambda: changed(seven(("a", b"x")), b"7z", 12, b"\xff" * 20), "is not whole"),
    "parquet_parent": (lambda: sounds("../x"), "slash"),
    "parquet_dots": (lambda: sounds(".."), "leads out"),
    "parquet_twice": (lambda: sounds("a", "a"), "comes twice"),
    "parquet_control": (lambda: sounds("a\nb"), "control"),
    "parquet_no_sound": (lambda: sounds("a", content=b"#!/bin/sh"), "no sound that we know"),
    "parquet_without_audio": (lambda: table(segment_id=["a"], text=["b"]), "no column 'audio'"),
    "parquet_audio_of_text": (lambda: table(segment_id=["a"], audio=["b"]), "no column 'audio'"),
    "parquet_of_nothing": (lambda: sounds(None, "", content=None), "no file to unpack"),
    "parquet_cut": (lambda: sounds("a")[:-20], "no Parquet that can be read"),
    "parquet_too_large": (lambda: sounds("a", "b", content=WAV + bytes(1_500_000)), "3,000,000 bytes"),
    "html": (lambda: b"<!DOCTYPE html><title>404</title>", "a page of HTML"),
    "git_lfs": (lambda: b"version https://git-lfs.github.com/spec/v1\n", "pointer of git-lfs"),
    "text": (lambda: b"hello " * 200, "no archive that we know"),
    "nothing": (lambda: b"", "is empty"),
}


def listing(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every path below a folder: kind, and content or target."""
    found = {}
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        content = path.read_bytes() if stat.S_ISREG(mode) else os.readlink(path).encode() if path.is_symlink() else b""
        found[path.relative_to(folder).as_posix()] = (stat.S_IFMT(mode), content)
    return found


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> list[int]:
    """The bytes of every write to a stage; the writes are real."""
    sizes: list[int] = []
    write = os.write

    def count(handle: int, piece: bytes) -> int:
        done = write(handle, piece)
        sizes.append(done)
        return done

    monkeypatch.setattr(stage.os, "write", count)
    monkeypatch.setenv("PYTEST_LINKS", str(tmp_path_factory.mktemp("links")))
    return sizes


def test_there_are_forty_hostile_archives_and_more() -> None:
    assert len(HOSTILE) > 100


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive_is_a_sentence_and_leaves_nothing(name: str, tmp_path: Path, written: list[int]) -> None:
    make, told = HOSTILE[name]
    archive = tmp_path / "archive.bin"
    archive.write_bytes(make())
    (tmp_path / "into").mkdir()
    (tmp_path / "into/mine").write_text("mine")
    before, begin = listing(tmp_path), time.monotonic()
    with pytest.raises(UserError) as caught:
        unpack(str(archive), str(tmp_path / "into"), caps=SMALL, record=str(tmp_path / "record.parquet"))
    assert time.monotonic() - begin < 10
    assert told in str(caught.value)
    assert "archive.bin" in str(caught.value)
    assert str(caught.value).isprintable()
    assert listing(tmp_path) == before
    assert sum(written) <= SMALL.bytes


def test_a_bomb_below_the_cap_of_bytes_is_stopped_by_its_ratio(tmp_path: Path, written: list[int]) -> None:
    block = bytes(1 << 20)
    with gzip.open(tmp_path / "bomb.tar.gz", "wb", compresslevel=9) as file:
        file.write(header("zeros", 300 << 20))
        for _ in range(300):
            file.write(block)
        file.write(bytes(1024))
    with pytest.raises(UserError, match="more than 200 times its size"):
        unpack(str(tmp_path / "bomb.tar.gz"), str(tmp_path / "into"))
    assert 0 < sum(written) < 200 << 20
    assert os.listdir(tmp_path) == ["bomb.tar.gz"]


@pytest.mark.parametrize("kind", ["link", "file"])
def test_what_lies_in_the_way_is_not_followed_and_not_replaced(tmp_path: Path, kind: str) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "into").mkdir()
    if kind == "link":
        (tmp_path / "into/a").symlink_to(tmp_path / "outside")
    else:
        (tmp_path / "into/a").write_text("mine")
    (tmp_path / "a.tar").write_bytes(tar(one("0"), one("a/b/c")))
    before = listing(tmp_path)
    with pytest.raises(UserError, match=rf"into/a is a {kind}, where the archive has a folder"):
        unpack(str(tmp_path / "a.tar"), str(tmp_path / "into"))
    assert listing(tmp_path) == before


def test_a_link_where_a_file_goes_is_replaced_and_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("theirs")
    (tmp_path / "into").mkdir()
    (tmp_path / "into/a").symlink_to(tmp_path / "outside")
    (tmp_path / "a.tar").write_bytes(tar(one("a")))
    unpack(str(tmp_path / "a.tar"), str(tmp_path / "into"))
    assert (tmp_path / "outside").read_text() == "theirs"
    assert not (tmp_path / "into/a").is_symlink()
    assert (tmp_path / "into/a").read_bytes() == b"hello"


# Real archives, held against the libraries and programs that read them.

parts = st.text(st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="/\\"), min_size=1, max_size=40)
paths = st.lists(
    parts | st.sampled_from(["n" * 120, "Track 2.0 (Clean)", "e\u0301", "._a", "a:b"]), min_size=1, max_size=4
)
contents = st.binary(max_size=300) | st.integers(0, 3).map(lambda n: bytes(n * 1_000_001))
trees = st.dictionaries(paths.map("/".join), contents, min_size=1, max_size=6)


def lawful(tree: dict[str, bytes]) -> bool:
    """Whether a tree could be unpacked on any disk, and nothing of it is passed over."""
    twins = {unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold()) for path in tree}
    folders = {path[:at] for path in tree for at in range(len(path)) if path[at] == "/"}
    odd = any(part in (".", "..", ".DS_Store") or part.startswith("._") for path in tree for part in path.split("/"))
    begins = any(path[0] == "-" or path[1:2] == ":" for path in tree)
    long = any(len(part.encode()) > 255 for path in tree for part in path.split("/"))
    return len(twins) == len(tree) and not folders & set(tree) and not odd and not begins and not long


def contents_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@settings(max_examples=40)
@given(
    trees.filter(lawful),
    st.sampled_from(["", "gz", "bz2", "xz"]),
    st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
)
def test_any_tar_unpacks_as_tarfile_unpacks_it(tree: dict[str, bytes], packer: str, layout: int) -> None:
    with fresh() as top:
        with tarfile.open(top / "a", f"w:{packer}", format=layout) as archive:
            for path, content in tree.items():
                info = tarfile.TarInfo(path)
                info.size, info.mtime, info.mode = len(content), 1_234_567_890.25, 0o6777
                archive.addfile(info, io.BytesIO(content))
        with tarfile.open(top / "a") as archive:
            archive.extractall(top / "theirs", filter="data")
        made = unpack(str(top / "a"), str(top / "ours"), record=str(top / "record"))
        assert contents_of(top / "ours") == contents_of(top / "theirs") == tree
        assert (made.files, made.bytes) == (len(tree), sum(map(len, tree.values())))
        assert made.format == ("tar." + packer if packer else "tar")
        assert_recorded(top / "record", top / "ours", 1_234_567_890)
        streamed = {member.name: member.read() for member in stream_members(str(top / "a"))}
        assert streamed == tree


@settings(max_examples=40)
@given(
    trees.filter(lawful), st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2]), st.booleans()
)
def test_any_zip_unpacks_as_zipfile_unpacks_it(tree: dict[str, bytes], method: int, streamed: bool) -> None:
    with fresh() as top:
        out = Unseekable() if streamed else io.BytesIO()
        with zipfile.ZipFile(out, "w", method) as archive:
            for path, content in tree.items():
                info = zipfile.ZipInfo(path, (2009, 2, 13, 23, 31, 30))
                info.compress_type = method
                with archive.open(info, "w", force_zip64=streamed) as file:
                    file.write(content)
        (top / "a").write_bytes(out.getvalue())
        with zipfile.ZipFile(top / "a") as archive:
            theirs = {name: archive.read(name) for name in archive.namelist()}
        assert unpack(str(top / "a"), str(top / "ours"), record=str(top / "record")).format == "zip"
        assert contents_of(top / "ours") == theirs == tree
        assert_recorded(top / "record", top / "ours", 1_234_567_890)


class Unseekable(io.BytesIO):
    """Makes zipfile write what it writes to a pipe."""

    def seekable(self) -> bool:
        return False

    def seek(self, *_: int) -> int:
        raise io.UnsupportedOperation

    def tell(self) -> int:
        raise io.UnsupportedOperation


@contextlib.contextmanager
def fresh() -> Iterator[Path]:
    """A folder for one example."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def assert_recorded(record: Path, folder: Path, mtime: int | None = None) -> None:
    """The record tells of every file what a look at the disk tells."""
    rows = read_table(str(record), RECORD).to_pylist()
    assert [row["path"] for row in rows] == sorted(contents_of(folder), key=str)
    for row in rows:
        about = (folder / row["path"]).stat()
        assert (row["bytes"], row["mtime_ns"]) == (about.st_size, about.st_mtime_ns)
        assert row["crc32"] == zlib.crc32((folder / row["path"]).read_bytes())
        assert mtime is None or row["mtime_ns"] == mtime * 10**9


def split(whole: bytes, cuts: list[int]) -> list[bytes]:
    """Cut a zip into the parts that `zip -s` would make of it: the directory tells parts and places in them."""
    whole = b"PK\7\x08" + whole
    ends = sorted({cut for cut in cuts if 4 < cut < len(whole) - 22})
    begins = [0, *ends]
    made, at = bytearray(whole), whole.index(b"PK\1\2")
    directory = at
    while made[at : at + 4] == b"PK\1\2":
        name, extra = struct.unpack_from("<HH", made, at + 28)
        place = struct.unpack_from("<L", made, at + 42)[0] + 4
        disk = max(number for number, begin in enumerate(begins) if begin <= place)
        struct.pack_into("<H", made, at + 34, disk)
        struct.pack_into("<L", made, at + 42, place - begins[disk])
        at += 46 + name + extra
    disk = max(number for number, begin in enumerate(begins) if begin <= directory)
    struct.pack_into("<HH", made, at + 4, len(begins) - 1, disk)
    struct.pack_into("<L", made, at + 16, directory - begins[disk])
    return [bytes(made[begin:end]) for begin, end in zip(begins, [*begins[1:], len(made)], strict=True)]


@settings(max_examples=40)
@given(st.lists(st.integers(5, 4000), max_size=6), st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
def test_a_split_zip_unpacks_wherever_it_is_cut(cuts: list[int], method: int) -> None:
    tree = {f"Source/{n}.flac": random.Random(n).randbytes(n * 97) for n in range(8)}
    with fresh() as top:
        *earlier, last = split(zip_of(*tree.items(), method=method), cuts)
        (top / "X.zip").write_bytes(last)
        for number, part in enumerate(earlier, start=1):
            (top / f"X.z{number:02}").write_bytes(part)
        assert unpack(str(top / "X.zip"), str(top / "into")).format == "zip"
        assert contents_of(top / "into") == tree
        for number in range(1, len(earlier) + 1):
            (top / f"X.z{number:02}").rename(top / "away")
            with pytest.raises(UserError, match=rf"X\.z{number:02}' is not there"):
                unpack(str(top / "X.zip"), str(top / "into"))
            (top / "away").rename(top / f"X.z{number:02}")


def test_the_first_part_of_a_split_zip_says_which_is_the_last(tmp_path: Path) -> None:
    (tmp_path / "X.z01").write_bytes(split(zip_of(("a", random.Random(0).randbytes(900))), [400])[0])
    with pytest.raises(UserError, match="name its last part"):
        unpack(str(tmp_path / "X.z01"), str(tmp_path / "into"))


# The peer that writes them: Python's zipfile makes no split archives.
@pytest.mark.skipif(not shutil.which("zip"), reason="no program zip")
def test_the_parts_that_the_program_zip_makes_unpack(tmp_path: Path) -> None:
    tree = {f"Source/{n}.flac": random.Random(n).randbytes(40_000) for n in range(9)}
    write(tmp_path / "tree", tree)
    subprocess.run(["zip", "-q", "-s", "64k", "-r", tmp_path / "X.zip", "."], cwd=tmp_path / "tree", check=True)
    assert len(list(tmp_path.glob("X.z*"))) > 4
    unpack(str(tmp_path / "X.zip"), str(tmp_path / "into"), record=str(tmp_path / "record"))
    assert contents_of(tmp_path / "into") == tree
    assert_recorded(tmp_path / "record", tmp_path / "into")


def write(folder: Path, tree: dict[str, bytes]) -> None:
    for path, content in tree.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)


# The peer: without the program there is nothing to hold ours against.
@pytest.mark.skipif(not shutil.which("tar"), reason="no program tar")
@pytest.mark.parametrize("layout", ["v7", "oldgnu", "gnu", "ustar", "posix"])
def test_what_the_program_tar_packs_unpacks(tmp_path: Path, layout: str) -> None:
    name = "n" * (90 if layout in ("v7", "ustar") else 200)
    tree = {
        f"top/{name}": b"long",
        "top/e/f.wav": WAV * 9000,
        "top/empty": b"",
        **{f"top/e/{n}": b"x" for n in range(30)},
    }
    write(tmp_path / "tree", tree)
    (tmp_path / "tree/top/hollow").mkdir()
    command = ["tar", "-cz", f"--format={layout}", "-f", tmp_path / "a.tgz", "-C", tmp_path / "tree", "top"]
    subprocess.run(command, check=True)
    assert unpack(str(tmp_path / "a.tgz"), str(tmp_path / "into")).files == len(tree)
    assert listing(tmp_path / "into") == listing(tmp_path / "tree")


FILTERS = {
    "lzma2": [{"id": py7zr.FILTER_LZMA2, "preset": 1}],
    "lzma": [{"id": py7zr.FILTER_LZMA}],
    "delta": [{"id": py7zr.FILTER_DELTA}, {"id": py7zr.FILTER_LZMA2, "preset": 1}],
    "copy": [{"id": py7zr.FILTER_COPY}],
}


@pytest.mark.parametrize("name", FILTERS)
def test_what_py7zr_packs_unpacks(tmp_path: Path, name: str) -> None:
    tree = {"dev/18_44 05.10.wav": WAV * 40_000, "dev/caf\xe9.wav": WAV, "dev/empty.wav": b"", "0": b"0"}
    write(tmp_path / "tree", tree)
    (tmp_path / "tree/hollow").mkdir()
    with py7zr.SevenZipFile(tmp_path / "a.7z", "w", filters=FILTERS[name]) as archive:
        for path in sorted((tmp_path / "tree").rglob("*")):
            archive.write(path, path.relative_to(tmp_path / "tree").as_posix())
    with py7zr.SevenZipFile(tmp_path / "a.7z", "a", filters=FILTERS[name]) as archive:  # a second folder of streams
        archive.writestr(b"later", "later.wav")
    made = unpack(str(tmp_path / "a.7z"), str(tmp_path / "into"), record=str(tmp_path / "record"))
    assert (made.files, made.format) == (5, "7z")
    assert contents_of(tmp_path / "into") == {**tree, "later.wav": b"later"}
    assert (tmp_path / "into/hollow").is_dir()
    assert_recorded(tmp_path / "record", tmp_path / "into")


@pytest.mark.parametrize(
    ("program", "told"),
    [
        ("import time; time.sleep(60)", r"nothing came out of it for 0\.5 s"),
        ("import os; os.abort()", "its reader broke down"),
        (
            "import sys; sys.modules['py7zr'] = None; from pipelines.unpacking.sevenzip import main; main(sys.argv[1])",
            "needs py7zr; pip install py7zr",
        ),
    ],
)
def test_a_reader_of_7z_that_hangs_or_dies_or_lacks_its_library_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, told: str
) -> None:
    (tmp_path / "a.7z").write_bytes(seven(("a", b"a")))
    monkeypatch.setattr(sevenzip, "PROGRAM", ("-c", program))
    monkeypatch.setattr(sevenzip, "STALLED", 0.5 if "sleep" in program else 60.0)
    with pytest.raises(UserError, match=told):
        unpack(str(tmp_path / "a.7z"), str(tmp_path / "into"))
    assert os.listdir(tmp_path) == ["a.7z"]


def test_the_reader_of_7z_is_found_where_nothing_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the code that travels with a job: the packages lie in some folder, and no site-packages knows them."""
    room = "pipelines.unpacking.sevenzip"
    told = "b'E' + struct.pack('>I', len(path)) + path"
    program = f"import sys, struct; from importlib.util import find_spec; path = find_spec({room!r}).origin.encode()"
    (tmp_path / "a.7z").write_bytes(seven(("a", b"a")))
    monkeypatch.setattr(sevenzip, "PROGRAM", ("-S", "-P", "-c", f"{program}; sys.stdout.buffer.write({told})"))
    with pytest.raises(UserError) as raised:
        unpack(str(tmp_path / "a.7z"), str(tmp_path / "into"))
    assert sevenzip.__file__ in str(raised.value)


def test_rows_of_a_table_become_files_of_their_kind(tmp_path: Path) -> None:
    kinds = {"wav": WAV, "flac": b"fLaC" + bytes(40), "ogg": b"OggS" + bytes(40), "mp3": b"ID3\4" + bytes(40)}
    kinds |= {"opus": b"OggS" + bytes(24) + b"OpusHead" + bytes(9), "m4a": bytes(4) + b"ftypM4A " + bytes(9)}
    rows = [{"bytes": content, "path": f"/root/.cache/{name}.bin"} for name, content in kinds.items()]
    (tmp_path / "train-00000-of-00001.parquet").write_bytes(table(audio=[*rows, {"bytes": None, "path": "none"}]))
    made = unpack(str(tmp_path / "train-00000-of-00001.parquet"), str(tmp_path))
    assert (made.format, made.skipped) == ("parquet", {"no_audio": 1})
    assert contents_of(tmp_path / "train-00000-of-00001") == {f"{name}.{name}": kinds[name] for name in kinds}


def test_streams_of_gzip_behind_one_another_are_one(tmp_path: Path) -> None:
    whole = tar(one("a", WAV * 999), one("b"))
    made = b"".join(gzip.compress(whole[at : at + 5000]) for at in range(0, len(whole), 5000)) + bytes(512)
    (tmp_path / "a.tgz").write_bytes(made)
    unpack(str(tmp_path / "a.tgz"), str(tmp_path / "into"))
    assert contents_of(tmp_path / "into") == {"a": WAV * 999, "b": b"hello"}


# What unpacking promises.


def test_what_is_passed_over_is_counted(tmp_path: Path) -> None:
    members = ["a/x.wav", "a/._x.wav", "__MACOSX/a/x", ".DS_Store", "-rf", "./-o/x", "a/-x.wav"]
    (tmp_path / "a.tar").write_bytes(tar(*map(one, members)))
    made = unpack(str(tmp_path / "a.tar"), str(tmp_path / "into"))
    assert made.skipped == {"macos": 3, "option": 2}
    assert set(contents_of(tmp_path / "into")) == {"a/x.wav", "a/-x.wav"}


def test_rights_are_those_of_new_files_and_times_those_of_the_archive(tmp_path: Path) -> None:
    times = {"old": b"\xff" * 12, "far": b"\x80" + b"\x7f" * 11, "usual": b"%011o\0" % 1_000_000_000}
    (tmp_path / "a.tar").write_bytes(tar(*(one(f"a/{name}", times=time) for name, time in times.items())))
    unpack(str(tmp_path / "a.tar"), str(tmp_path / "into"))
    umask = os.umask(0)
    os.umask(umask)
    found = {path.name: path.stat() for path in (tmp_path / "into/a").iterdir()}
    assert {stat.S_IMODE(about.st_mode) for about in found.values()} == {0o666 & ~umask}
    assert stat.S_IMODE((tmp_path / "into/a").stat().st_mode) == 0o777 & ~umask
    assert {name: about.st_mtime for name, about in found.items()} == {"old": 0, "far": 1 << 33, "usual": 1e9}


def test_two_archives_share_a_folder_and_the_same_again_changes_nothing(tmp_path: Path) -> None:
    """LibriSpeech's archives all hold LibriSpeech/ and its README."""
    for split in ("dev", "test"):
        members = [one("LibriSpeech/README", b"readme"), one(f"LibriSpeech/{split}/1/2.flac", split.encode())]
        (tmp_path / f"{split}.tar.gz").write_bytes(gzip.compress(tar(*members)))
    (tmp_path / "into").mkdir()
    (tmp_path / "into/mine").write_text("mine")
    records = []
    for split in ("dev", "test", "dev", "test"):
        unpack(str(tmp_path / f"{split}.tar.gz"), str(tmp_path / "into"), record=str(tmp_path / "record"))
        records.append((tmp_path / "record").read_bytes())
    assert records[:2] == records[2:]
    inside = {"LibriSpeech/README": b"readme", "LibriSpeech/dev/1/2.flac": b"dev", "LibriSpeech/test/1/2.flac": b"test"}
    assert contents_of(tmp_path / "into") == {"mine": b"mine", **inside}
    assert sorted(os.listdir(tmp_path)) == ["dev.tar.gz", "into", "record", "test.tar.gz"]


def test_one_process_at_a_time_unpacks_an_archive(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar(one("a")))
    with stage.open_stage(tmp_path / "into", str(tmp_path / "a.tar")) as other:
        (Path(other.folder) / "half").write_text("half")
        with pytest.raises(Failed, match="another process"):
            unpack(str(tmp_path / "a.tar"), str(tmp_path / "into"))
        assert (Path(other.folder) / "half").exists()
    unpack(str(tmp_path / "a.tar"), str(tmp_path / "into"))
    assert contents_of(tmp_path / "into") == {"a": b"hello"}


def test_what_a_killed_one_left_is_cleared(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar(one("a")))
    with stage.open_stage(tmp_path / "into", str(tmp_path / "a.tar")) as other:
        left = Path(other.folder)
    (left / "a").mkdir(parents=True)
    (left / "a/half").symlink_to("/etc/passwd")
    unpack(str(tmp_path / "a.tar"), str(tmp_path / "into"))
    assert contents_of(tmp_path / "into") == {"a": b"hello"}
    assert not left.exists()


def test_a_full_disk_is_a_sentence_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.tar").write_bytes(tar(one("a"), one("b")))

    def full(handle: int, piece: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stage.os, "write", full)
    with pytest.raises(UserError, match="is full"):
        unpack(str(tmp_path / "a.tar"), str(tmp_path / "into"))
    assert os.listdir(tmp_path) == ["a.tar"]


def test_a_folder_and_nothing_are_no_archives(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="it is a folder"):
        unpack(str(tmp_path), str(tmp_path / "into"))
    with pytest.raises(UserError, match="there is no file"):
        unpack(str(tmp_path / "a"), str(tmp_path / "into"))
    (tmp_path / "a.tar").write_bytes(tar(one("a")))
    with pytest.raises(UserError, match="a folder on this machine"):
        unpack(str(tmp_path / "a.tar"), "s3://key:secret@bucket/x")


def test_members_stream_by_and_need_not_be_read(tmp_path: Path) -> None:
    tree = {f"a/{n}": random.Random(n).randbytes(n * 1000) for n in range(200)}
    (tmp_path / "a.tgz").write_bytes(
        gzip.compress(tar(one("a/", b"", b"5"), *(one(*item) for item in tree.items())), 1)
    )
    for reads in (0, 1, 7777):
        for member in stream_members(str(tmp_path / "a.tgz")):
            assert member.size == len(tree[member.name])
            assert member.read(reads) == tree[member.name][:reads]
            assert reads < 7777 or member.read() == tree[member.name][reads:]
    (tmp_path / "a.zip").write_bytes(zip_of(*tree.items()))
    with pytest.raises(UserError, match="is zip, which cannot be read as it comes"):
        next(stream_members(str(tmp_path / "a.zip")))


def test_a_stream_is_held_to_the_same_law(tmp_path: Path) -> None:
    for name, (make, told) in HOSTILE.items():
        if name.startswith(("tar", "gz", "bz2", "xz")) and "no file" not in told and "in one place" not in told:
            (tmp_path / "a").write_bytes(make())
            with pytest.raises(UserError) as caught:
                read_all(tmp_path / "a")
            assert told in str(caught.value)


def read_all(archive: Path) -> int:
    return sum(len(member.read()) for member in stream_members(str(archive), SMALL))


@settings(max_examples=150)
@given(st.integers(0, 10**6), st.integers(1, 255), st.sampled_from(["tar", "gz", "zip", "parquet"]))
def test_a_flipped_byte_anywhere_is_told_or_harmless(place: int, flip: int, kind: str) -> None:
    """No crash, no other error, nothing outside; and where the format has checksums, no other content."""
    tree = {f"a/{n}": random.Random(n).randbytes(n * 300) for n in range(5)}
    members = tar(*(one(*item) for item in tree.items()))
    whole = {
        "tar": members,
        "gz": gzip.compress(members),
        "zip": zip_of(*tree.items()),
        "parquet": sounds("a", "b", content=WAV),
    }[kind]
    place %= len(whole)
    with fresh() as top:
        (top / "a").write_bytes(whole[:place] + bytes([whole[place] ^ flip]) + whole[place + 1 :])
        with contextlib.suppress(UserError):
            unpack(str(top / "a"), str(top / "into"), caps=SMALL)
            if kind == "gz":
                assert contents_of(top / "into") == tree
            if kind == "zip":
                assert sorted(contents_of(top / "into").values()) == sorted(tree.values())
        assert set(os.listdir(top)) <= {"a", "into"}


KILLED = """
import os, signal, sys
from pipelines.unpacking.unpack import unpack

moment, events = int(sys.argv[4]), 0

def count(event, _):
    global events
    if event in ("open", "os.mkdir", "os.rename", "os.utime", "os.remove", "os.rmdir", "os.scandir"):
        events += 1
        if events == moment:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(count)
unpack(sys.argv[1], sys.argv[2], record=sys.argv[3])
print(events)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "kills"), [("tar.gz", 20), ("zip", 8), ("7z", 8), ("parquet", 8)])
def test_killed_at_random_moments_and_run_again_it_is_the_same_tree(tmp_path: Path, kind: str, kills: int) -> None:
    tree = {f"top/{n // 10}/{n}.wav": WAV + random.Random(n).randbytes(3000) for n in range(200)}
    archive, into, record = tmp_path / "a", tmp_path / "into", tmp_path / "record"
    audio = [{"bytes": content, "path": "x"} for content in tree.values()]
    made = {
        "tar.gz": lambda: gzip.compress(tar(*(one(*item) for item in tree.items())), 1),
        "zip": lambda: zip_of(*tree.items()),
        "7z": lambda: seven(*tree.items()),
        "parquet": lambda: table(segment_id=[path.replace("/", "-") for path in tree], audio=audio),
    }
    archive.write_bytes(made[kind]())

    def run(moment: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", KILLED, archive, into, record, str(moment)]
        return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)

    write(into, {"top/3/mine": b"mine"})  # so that folders are merged, and not moved whole
    events = int(run(0).stdout)
    calm, recorded = listing(into), record.read_bytes()
    assert len(contents_of(into)) == len(tree) + 1
    chance = random.Random(kind)
    # Half of the moments are while files are written, half while they are moved and recorded.
    moments = [chance.randint(1, events) for _ in range(kills // 2)]
    for moment in moments + [chance.randint(events - 60, events) for _ in range(kills - len(moments))]:
        shutil.rmtree(into)
        record.unlink()
        write(into, {"top/3/mine": b"mine"})
        assert run(moment).returncode == -signal.SIGKILL
        assert listing(into).items() <= calm.items()
        assert not record.exists() or listing(into) == calm  # it says that all is there
        assert run(0).returncode == 0
        assert listing(into) == calm
        assert record.read_bytes() == recorded
        assert sorted(os.listdir(tmp_path)) == ["a", "into", "record"]


@pytest.mark.slow
# The peer: without the program there is nothing to hold ours against.
@pytest.mark.skipif(not shutil.which("tar"), reason="no program tar")
def test_unpacking_costs_no_more_processor_time_than_tar(tmp_path: Path) -> None:
    tree = {f"top/{n // 50}/{n}.flac": random.Random(n).randbytes(130_000) for n in range(800)}
    (tmp_path / "a.tgz").write_bytes(gzip.compress(tar(*(one(*item) for item in tree.items())), 6))

    def ours() -> float:
        begin = time.process_time()
        unpack(str(tmp_path / "a.tgz"), str(tmp_path / "ours"), record=str(tmp_path / "record"))
        return time.process_time() - begin

    def theirs() -> float:
        (tmp_path / "theirs").mkdir()
        begin = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(["tar", "xzf", tmp_path / "a.tgz", "-C", tmp_path / "theirs"], check=True)
        end = resource.getrusage(resource.RUSAGE_CHILDREN)
        return end.ru_utime + end.ru_stime - begin.ru_utime - begin.ru_stime

    costs = []
    for _ in range(3):
        costs.append((ours(), theirs()))
        shutil.rmtree(tmp_path / "ours")
        shutil.rmtree(tmp_path / "theirs")
    ratio = min(cost for cost, _ in costs) / min(cost for _, cost in costs)
    print(f"{ratio:.2f} times tar xzf")
    assert ratio < 1.3
