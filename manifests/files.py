"""Storage: the one room that knows where bytes live (fsspec), and how to write a file whole or not at all."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

import fsspec

from manifests.errors import UserError
from manifests.uploads import whole

# Other fsspec schemes can run shells or unpack archives on a name alone; a name from outside must not.
SCHEMES = ("file", "http", "https", "s3", "gs", "hf", "memory", "archive")


def filesystem(url: str | Path) -> tuple[Any, str]:
    """Return the fsspec file system of `url` and the path in it."""
    text = os.fspath(url)
    scheme, _, rest = text.partition("://") if "://" in text else ("file", "", text)
    if scheme == "archive":
        import manifests.mounts as mounts  # it reads tables, which come through here

        return mounts.mounted(rest), rest
    if "::" in text or scheme not in SCHEMES:
        raise UserError(
            f"cannot use the address {redact(text)!r}; it must be a path or begin with {', '.join(SCHEMES)}"
        )
    # Other processes write to the same store: what it listed before is no longer so.
    fs, path = fsspec.core.url_to_fs(text, **({"use_listings_cache": False} if scheme in ("s3", "gs") else {}))
    return fs, str(path)


def is_local(url: str | Path) -> bool:
    """Whether `url` is a path on this machine."""
    return "://" not in os.fspath(url) or os.fspath(url).startswith("file://")


def redact(url: str | Path) -> str:
    """Return `url` without what may be secret: user, password, query and fragment."""
    text = os.fspath(url)
    return "::".join(map(redact_one, text.split("::"))) if "://" in text else text


def redact_one(url: str) -> str:
    """Redact one link of a chain of addresses."""
    scheme, colon, rest = url.partition("://")
    if not colon:
        return url
    host, slash, path = re.split(r"[?#]", rest, maxsplit=1)[0].partition("/")
    return f"{scheme}://{host.rsplit('@', 1)[-1]}{slash}{path}"


def join(base: str | Path, *parts: str) -> str:
    """Return `base` with `parts` behind it, with forward slashes."""
    return "/".join([os.fspath(base).rstrip("/"), *(part.strip("/") for part in parts)]) or "/"


def exists(url: str | Path) -> bool:
    """Whether there is a file or a folder at `url`."""
    if is_local(url):
        return os.path.exists(local(url))
    fs, path = filesystem(url)
    return bool(fs.exists(path))


def is_folder(url: str | Path) -> bool:
    """Whether there is a folder at `url`."""
    if is_local(url):
        return os.path.isdir(local(url))
    fs, path = filesystem(url)
    return bool(fs.isdir(path))


def size(url: str | Path) -> int | None:
    """Bytes of the file at `url`, None if there is none."""
    try:
        if is_local(url):
            return about.st_size if stat.S_ISREG((about := os.stat(local(url))).st_mode) else None
        fs, path = filesystem(url)
        return int(info["size"]) if (info := fs.info(path))["type"] == "file" else None
    except (FileNotFoundError, NotADirectoryError):
        return None


def read_head(url: str | Path, length: int) -> tuple[bytes, int, int] | None:
    """Return the first `length` bytes of the file at `url`, its size and its stamp, None if there is no regular file.

    The stamp is a number that changes with the content: the time of change in nanoseconds, or made of what an object
    store says. The head of a file that is there and cannot be read is empty: who needs it finds out why.
    """
    try:
        if "://" not in (place := os.fspath(url)) or is_local(place):
            # One open in place of a stat and an open; a pipe that lies among the files must not hold us up.
            handle = os.open(place.removeprefix("file://"), os.O_RDONLY | os.O_NONBLOCK)
            try:
                about = os.fstat(handle)
                if not stat.S_ISREG(about.st_mode):
                    return None
                return os.read(handle, length), about.st_size, about.st_mtime_ns
            finally:
                os.close(handle)
        fs, path = filesystem(url)
        told = fs.info(path)
        if told["type"] != "file":
            return None
        changed = next((told[name] for name in ("ETag", "etag", "sha256", "mtime", "LastModified") if name in told), "")
        head = bytes(fs.cat_file(path, start=0, end=length))[:length] if told["size"] else b""
        return head, int(told["size"]), zlib.crc32(str(changed).encode())
    except (OSError, ValueError):
        found = size(url)
        return None if found is None else (b"", found, 0)


def local(url: str | Path) -> str:
    """Return the path of a local `url`."""
    return os.fspath(url).removeprefix("file://")


def absolute(url: str | Path) -> str:
    """Return `url` so that it means the same in every process: workers of a cluster stand in other folders."""
    return os.path.abspath(local(url)) if is_local(url) else os.fspath(url)


def open_read(url: str | Path) -> IO[bytes]:
    """Open the file at `url` for reading bytes; it can seek."""
    if is_local(url):
        return open(local(url), "rb")
    fs, path = filesystem(url)
    return cast(IO[bytes], fs.open(path, "rb"))


def read_bytes(url: str | Path) -> bytes:
    """Return the whole content of the file at `url`."""
    with open_read(url) as file:
        return file.read()


def read_text(url: str | Path, encoding: str = "utf-8") -> str:
    """Return the text of the file at `url`; line ends become newlines, a byte-order mark is dropped."""
    return read_bytes(url).decode(encoding).removeprefix("\ufeff").replace("\r\n", "\n")


def names(folder: str | Path, suffix: str = "") -> list[str]:
    """Sorted names directly in `folder` that end with `suffix`; empty if there is no such folder."""
    if is_local(folder):
        try:
            return sorted(name for name in os.listdir(local(folder)) if name.endswith(suffix))
        except FileNotFoundError:
            return []
    fs, path = filesystem(folder)
    if not fs.isdir(path):
        return []
    listed = (str(entry).rstrip("/").rsplit("/", 1)[-1] for entry in fs.ls(path, detail=False))
    return sorted(name for name in listed if name.endswith(suffix))


def walk(folder: str | Path, suffix: str = "") -> list[str]:
    """Sorted paths, relative to `folder`, of all files below it that end with `suffix`."""
    if is_local(folder):
        top = local(folder)
        walked = ((here, name) for here, _, found in os.walk(top, followlinks=True) for name in found)
        wanted = (os.path.join(here, name) for here, name in walked if name.endswith(suffix))
        return sorted(os.path.relpath(path, top).replace(os.sep, "/") for path in wanted)
    fs, path = filesystem(folder)
    prefix = path.rstrip("/") + "/"
    return sorted(str(name).removeprefix(prefix) for name in fs.find(path) if str(name).endswith(suffix))


@contextlib.contextmanager
def open_whole(url: str | Path) -> Iterator[IO[bytes]]:
    """Open a file for writing that appears at `url` whole, synced, when the block ends without error, or not at all.

    Locally it is written under a hidden attempt-named name beside its place and renamed; two attempts at one file
    cannot disturb each other, and the last to finish wins. Object stores make an upload visible only when complete.
    """
    if not is_local(url):
        with whole(*filesystem(url)) as file:
            yield file
        return
    place = Path(local(url))
    place.parent.mkdir(parents=True, exist_ok=True)
    attempt = place.with_name(f".{place.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with open(attempt, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(attempt, place)
    except BaseException:
        attempt.unlink(missing_ok=True)
        raise
    sync_folder(place.parent)


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_whole(url: str | Path, content: bytes) -> None:
    """Write `content` to `url`, whole or not at all."""
    with open_whole(url) as file:
        file.write(content)


def write_new(url: str | Path, content: bytes) -> bool:
    """Write `content` to `url` if there is nothing yet, whole or not at all; return whether it was us who did."""
    if is_local(url):  # a hard link never replaces; on object stores, a conditional put
        place = Path(local(url))
        place.parent.mkdir(parents=True, exist_ok=True)
        attempt = place.with_name(f".{place.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
        try:
            with open(attempt, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.link(attempt, place)
        except FileExistsError:
            return False
        finally:
            attempt.unlink(missing_ok=True)
        sync_folder(place.parent)
        return True
    fs, path = filesystem(url)
    try:
        fs.pipe_file(path, content, mode="create")
    except FileExistsError:
        return False
    return True


def remove_attempts(folder: str | Path) -> int:
    """Remove what killed writers left below `folder`; return how many files. Only when no writer can be running."""
    if not is_local(folder) or not exists(folder):
        return 0
    left = [path for path in Path(local(folder)).rglob(".*.tmp") if path.is_file()]
    for path in left:
        path.unlink(missing_ok=True)
    return len(left)


def remove(url: str | Path) -> None:
    """Remove the file at `url`, if it is there."""
    if is_local(url):
        Path(local(url)).unlink(missing_ok=True)
        return
    fs, path = filesystem(url)
    if fs.exists(path):
        fs.rm_file(path)


def remove_tree(url: str | Path) -> None:
    """Remove the folder at `url` and all below it, if it is there."""
    if is_local(url):
        shutil.rmtree(local(url), ignore_errors=True)
        return
    fs, path = filesystem(url)
    if fs.exists(path):
        fs.rm(path, recursive=True)


def require_writable(folder: str | Path) -> None:
    """Raise UserError unless files can be made in `folder`; leaves nothing behind, not even the folder."""
    if not is_local(folder):
        return
    place = Path(local(folder)).absolute()
    while not place.exists():
        place = place.parent
    if not place.is_dir():
        raise UserError(f"cannot write to {os.fspath(folder)!r}: {str(place)!r} is not a folder")
    # Asking the system for permission bits is not enough: a read-only mount or a superuser answers otherwise.
    probe = place / f".salmonn-{secrets.token_hex(4)}.tmp"
    try:
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise UserError(f"cannot write to {os.fspath(folder)!r}: {error.strerror}; choose another folder") from None


def read_range(url: str | Path, start: int, length: int) -> bytes:
    """Return `length` bytes of the file at `url` from byte `start` on; fewer if it ends before."""
    if is_local(url):
        with open(local(url), "rb", buffering=0) as file:
            return os.pread(file.fileno(), length, start)
    fs, path = filesystem(url)
    exactly = {"cache_type": "none"} if os.fspath(url).startswith("hf://") else {}  # or it reads 5 MB ahead
    return bytes(fs.cat_file(path, start=start, end=start + length, **exactly))
