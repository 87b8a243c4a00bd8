"""Storage: files appear whole or not at all, secrets stay out of sentences, and no address runs anything."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests import UserError, files

PLACES = ("local", "file", "memory")


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A folder: as a path, as a file:// address, in fsspec's memory."""
    if request.param != "memory":
        yield str(tmp_path) if request.param == "local" else f"file://{tmp_path}"
        return
    url = f"memory://{tmp_path.name}"
    yield url
    files.remove_tree(url)


class Stop(Exception):
    pass


def write_half(url: str) -> None:
    with files.open_whole(url) as file:
        file.write(b"half of it")
        raise Stop


# -- whole or not at all


def test_a_file_appears_only_when_its_block_has_ended(place: str) -> None:
    url = files.join(place, "deep", "down", "a.bin")
    with files.open_whole(url) as file:
        file.write(b"first ")
        assert not files.exists(url)
        file.write(b"second")
    assert files.read_bytes(url) == b"first second"
    assert files.walk(place) == ["deep/down/a.bin"]


@pytest.mark.parametrize("before", [None, b"what was there"])
def test_an_error_leaves_what_was_there_and_nothing_else(place: str, before: bytes | None) -> None:
    url = files.join(place, "a.bin")
    if before is not None:
        files.write_whole(url, before)
    with pytest.raises(Stop):
        write_half(url)
    assert files.walk(place) == ([] if before is None else ["a.bin"])
    assert before is None or files.read_bytes(url) == before
    files.write_whole(url, b"a later write")
    assert files.read_bytes(url) == b"a later write"


@pytest.mark.parametrize("before", [None, b"what was there"])
def test_a_writer_killed_in_the_middle_leaves_only_a_hidden_attempt(tmp_path: Path, before: bytes | None) -> None:
    target = tmp_path / "data.tar"
    if before is not None:
        target.write_bytes(before)
    program = (
        "import sys, time; from manifests import files\n"
        f"with files.open_whole({str(target)!r}) as file:\n"
        "    file.write(bytes(100_000)); file.flush(); print('half', flush=True); time.sleep(60)\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "half\n"
    writer.send_signal(signal.SIGKILL)
    assert writer.wait(10) == -signal.SIGKILL
    left = [path.name for path in tmp_path.iterdir() if path != target]
    assert target.exists() == (before is not None)
    assert before is None or target.read_bytes() == before
    assert len(left) == 1
    assert left[0].startswith(".")
    assert left[0].endswith(".tmp")
    # nobody takes it for data, and the next run sweeps it up
    assert files.walk(str(tmp_path), ".tar") == files.names(str(tmp_path), ".tar") == (["data.tar"] if before else [])
    assert files.remove_attempts(str(tmp_path)) == 1
    assert [path.name for path in tmp_path.iterdir()] == (["data.tar"] if before else [])


def test_two_attempts_at_one_file_do_not_mix_and_the_last_wins(tmp_path: Path) -> None:
    url = str(tmp_path / "a.bin")
    with files.open_whole(url) as slow:
        slow.write(b"slow")
        with files.open_whole(url) as quick:
            quick.write(b"quick")
        assert files.read_bytes(url) == b"quick"
        slow.write(b" but sure")
    assert files.read_bytes(url) == b"slow but sure"
    assert files.names(str(tmp_path)) == ["a.bin"]


def test_many_writers_at_once_leave_one_whole_file(tmp_path: Path) -> None:
    url, contents = str(tmp_path / "a.bin"), [bytes([number]) * 50_000 for number in range(8)]
    threads = [threading.Thread(target=files.write_whole, args=(url, content)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert files.read_bytes(url) in contents
    assert files.names(str(tmp_path)) == ["a.bin"]


def test_sweeping_takes_attempts_alone(tmp_path: Path) -> None:
    kept = ["a.tmp", ".hidden", ".tmp.d/keep.tar", "deep/.b.tar"]
    swept = [".a.tar.1-00.tmp", "deep/.b.tar.2-ff.tmp", "deep/er/.c.tmp"]
    for name in kept + swept:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert files.remove_attempts(str(tmp_path)) == len(swept)
    assert sorted(files.walk(str(tmp_path))) == sorted(kept)
    assert files.remove_attempts(str(tmp_path / "nowhere")) == 0


# -- may we write there


@pytest.mark.parametrize("below", ["", "new", "new/and/newer"])
def test_asking_whether_a_folder_is_writable_leaves_nothing_behind(tmp_path: Path, below: str) -> None:
    files.require_writable(str(tmp_path / below))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("below", ["", "/below", "/far/below"])
def test_a_file_in_the_way_of_a_folder_is_named(tmp_path: Path, below: str) -> None:
    (tmp_path / "taken").touch()
    with pytest.raises(UserError, match=r"cannot write to .*taken.* is not a folder"):
        files.require_writable(f"{tmp_path}/taken{below}")


# The one folder of Linux in which not even root can make a file; other systems have none.
@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="there is no /proc")
@pytest.mark.parametrize("folder", ["/proc", "/proc/self/out", "/proc/1/a/b"])
def test_a_folder_that_takes_no_files_is_refused_also_for_a_superuser(folder: str) -> None:
    with pytest.raises(UserError, match=r"cannot write to '/proc.*choose another folder"):
        files.require_writable(folder)


# -- secrets

plain = st.text("abcxyz019-", min_size=1, max_size=8)
secrets = st.text("QRSTUV", min_size=8, max_size=12)
"""Letters that no other part of an address is made of."""


@st.composite
def addresses(draw: st.DrawFn) -> tuple[str, str]:
    """An address and the secret in it."""
    secret, host, scheme = draw(secrets), draw(plain), draw(st.sampled_from(["https", "s3", "gs", "hf", "memory"]))
    path = "/".join(draw(st.lists(plain, max_size=3)))
    user = draw(st.sampled_from(["", f"{secret}@", f"me:{secret}@", f"me:a@{secret}@"]))
    query = draw(st.sampled_from(["", f"?sig={secret}", f"?a=1&X-Amz-Signature={secret}/+%2F", f"#token={secret}"]))
    slash = "/" if path else draw(st.sampled_from(["", "/"]))
    return f"{scheme}://{user}{host}{slash}{path}{query}", secret


@given(addresses())
def test_a_redacted_address_has_no_user_password_or_query(address: tuple[str, str]) -> None:
    url, secret = address
    assert secret not in files.redact(url)
    assert files.redact(url).split("://")[0] == url.split("://")[0]


@given(addresses())
def test_a_chained_address_is_refused_without_its_secret(address: tuple[str, str]) -> None:
    url, secret = address
    for chain in (f"simplecache::{url}", f"zip://in.csv::{url}", f"tar://x/y::{url}"):
        with pytest.raises(UserError) as error:
            files.exists(chain)
        assert secret not in str(error.value)


@given(st.lists(plain, min_size=1, max_size=4).map("/".join))
def test_an_address_without_secrets_is_shown_as_it_is(path: str) -> None:
    for url in (path, f"/{path}", f"s3://{path}", f"https://{path}"):
        assert files.redact(url) == url


# -- addresses that would run something, or unpack something

HOSTILE = (
    "simplecache::memory://a",
    "filecache::https://example.org/a",
    "zip://a.csv::memory://b.zip",
    "tar://a::memory://b.tar",
    "pipe://touch marker",
    "ssh://host/a",
    "ftp://host/a",
    "github://owner:repo@main/a",
    "reference://",
    "data://text/plain,a",
    "MEMORY://a",
    "python://a",
    "::memory://a",
    "memory://a::b",
)


@pytest.mark.parametrize("url", HOSTILE)
@pytest.mark.parametrize("ask", [files.exists, files.size, files.open_read, files.names, files.walk, files.remove])
def test_an_address_of_another_kind_is_refused(url: str, ask: object) -> None:
    with pytest.raises(UserError, match=r"cannot use the address .* must be a path or begin with file, http"):
        ask(url)  # type: ignore[operator]
    with pytest.raises(UserError), files.open_whole(url) as file:
        file.write(b"")


def test_a_shell_in_the_place_of_a_path_is_only_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("pipe:touch marker", "| touch marker", "$(touch marker)", "; touch marker", "`touch marker`"):
        assert not files.exists(name)
        assert files.size(name) is None
        with pytest.raises(FileNotFoundError):
            files.read_bytes(name)
    assert list(tmp_path.iterdir()) == []


# -- every function, in every place


def test_what_is_written_is_found_listed_measured_read_and_removed(place: str) -> None:
    for name, content in {"b.txt": b"bee", "a.txt": b"ay", "sub/c.bin": b"sea", "sub/deep/d.txt": b""}.items():
        files.write_whole(files.join(place, name), content)
    assert files.walk(place) == ["a.txt", "b.txt", "sub/c.bin", "sub/deep/d.txt"]
    assert files.walk(place, ".txt") == ["a.txt", "b.txt", "sub/deep/d.txt"]
    assert files.names(place) == ["a.txt", "b.txt", "sub"]
    assert files.names(place, ".txt") == ["a.txt", "b.txt"]
    assert files.names(files.join(place, "nowhere")) == []
    assert files.is_folder(files.join(place, "sub"))
    assert not files.is_folder(files.join(place, "a.txt"))
    assert [files.size(files.join(place, name)) for name in ("b.txt", "sub/deep/d.txt", "nowhere")] == [3, 0, None]
    assert files.exists(files.join(place, "a.txt"))
    with files.open_read(files.join(place, "b.txt")) as file:
        file.seek(1)
        assert file.read() == b"ee"
    files.remove(files.join(place, "a.txt"))
    files.remove(files.join(place, "a.txt"))
    assert not files.exists(files.join(place, "a.txt"))
    files.remove_tree(files.join(place, "sub"))
    files.remove_tree(files.join(place, "sub"))
    assert files.walk(place) == ["b.txt"]
    with pytest.raises(FileNotFoundError):
        files.read_bytes(files.join(place, "a.txt"))


def test_a_folder_has_no_size(place: str) -> None:
    files.write_whole(files.join(place, "sub/a.bin"), b"a")
    assert files.size(files.join(place, "sub")) is None


@given(content=st.binary(max_size=40), start=st.integers(0, 50), length=st.integers(0, 50))
def test_a_range_is_a_slice(content: bytes, start: int, length: int) -> None:
    url = "memory://ranges/a.bin"
    files.write_whole(url, content)
    assert files.read_range(url, start, length) == content[start : start + length]


def test_a_range_of_a_local_file_is_a_slice(tmp_path: Path) -> None:
    content, url = bytes(range(100)), str(tmp_path / "a.bin")
    files.write_whole(url, content)
    for start, length in [(0, 100), (0, 0), (7, 13), (90, 50), (100, 5), (200, 5)]:
        assert files.read_range(url, start, length) == content[start : start + length]


def test_text_loses_its_byte_order_mark_and_windows_line_ends(place: str) -> None:
    url = files.join(place, "a.txt")
    files.write_whole(url, b"\xef\xbb\xbfone\r\ntwo\nth\xc3\xa9")
    assert files.read_text(url) == "one\ntwo\nth\u00e9"


@given(
    st.sampled_from(["a", "/", "/a/b", "a/", "s3://bucket", "memory://a/"]),
    st.lists(st.sampled_from(["b", "b/c", "d/", "/e"]), max_size=3),
)
def test_joined_paths_have_single_slashes(base: str, parts: list[str]) -> None:
    joined = files.join(base, *parts)
    inside = joined.split("://")[-1]
    assert "//" not in inside
    assert [p for p in inside.split("/") if p] == [
        p for x in (base.split("://")[-1], *parts) for p in x.split("/") if p
    ]
    assert joined.startswith("/") == base.startswith("/")


def test_a_listing_follows_links_that_users_make(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "a.flac").touch()
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "corpus").symlink_to(tmp_path / "disk")
    assert files.walk(str(tmp_path / "raw")) == ["corpus/a.flac"]


class Hub(fsspec.AbstractFileSystem):
    """A store of one file that is read as huggingface_hub reads: through fsspec's buffered files."""

    protocol = "hf"
    cachable = False

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.content = content
        self.fetched: list[tuple[int, int]] = []

    def info(self, path: str, **_: object) -> dict[str, object]:
        return {"name": path, "size": len(self.content), "type": "file"}

    def _open(self, path: str, mode: str = "rb", **options: object) -> fsspec.spec.AbstractBufferedFile:
        return HubFile(self, path, mode, **options)


class HubFile(fsspec.spec.AbstractBufferedFile):
    def _fetch_range(self, start: int, end: int) -> bytes:
        self.fs.fetched.append((start, end))
        return self.fs.content[start:end]


def test_a_range_of_a_file_of_the_hub_is_fetched_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(bytes(range(256)) * 2**16)
    monkeypatch.setattr(files, "filesystem", lambda url: (hub, "a/b"))
    assert files.read_range("hf://a/b", 1000, 5000) == hub.content[1000:6000]
    assert hub.fetched == [(1000, 6000)]
