"""The lock of a root, ROOT/fetch.lock: the bytes of every file when it was first fetched, so that no change is silent.

    {"format": 1, "items": {"slurp/slurp_synth.tar.gz": {"url": "https://...", "bytes": 2834757103, "sha256": "...",
                                                         "time": "2026-01-31T12:00:00Z"}}}

It learns what publishers do not tell. Addresses stand in it without user, password and query. Keep it with your recipe:
another machine with the same lock fetches the same bytes or says what changed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator

import msgspec

from manifests import UserError, files

FORMAT = 1
NAME = "fetch.lock"


class Locked(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one file."""

    url: str
    bytes: int
    sha256: str
    time: str
    """When it was learned, in UTC."""


class Lock(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of the lock file."""

    format: int = FORMAT
    items: dict[str, Locked] = {}
    """``<corpus>/<file>`` to what is known of it."""


class Changed(Exception):
    """A file that has other bytes than the lock says; the message is a sentence."""


def lock_path(root: str) -> str:
    """Return where the lock of `root` is."""
    return files.join(root, NAME)


def read_lock(root: str) -> dict[str, Locked]:
    """Return what the lock of `root` knows; UserError if it is no lock."""
    place = lock_path(root)
    try:
        content = files.read_bytes(place)
    except FileNotFoundError:
        return {}
    try:
        found = msgspec.json.decode(content, type=Lock)
    except msgspec.MsgspecError as error:
        raise UserError(f"{place} is no lock of fetched files ({error}); restore it, or move it away") from None
    if found.format != FORMAT:
        raise UserError(f"{place} has format {found.format}, which this version does not know; it knows {FORMAT}")
    return found.items


@contextlib.contextmanager
def alone(root: str) -> Iterator[None]:
    """Keep other processes from changing the lock of `root` meanwhile."""
    os.makedirs(files.local(root), exist_ok=True)
    # The lock file itself is replaced by each writer, so what they wait for is a file that stays.
    with open(files.local(files.join(root, f".{NAME}.guard")), "ab") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        yield


def learn(root: str, key: str, url: str, size: int, sha256: str) -> Locked:
    """Note the bytes of the file `key`, or return what was noted before; Changed if that was something else."""
    with alone(root):
        items = read_lock(root)
        known = items.get(key)
        if known is not None:
            if known.sha256 != sha256:
                raise Changed(changed(root, key, known, sha256))
            return known
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        made = Locked(url=files.redact(url), bytes=size, sha256=sha256, time=now)
        lock = Lock(items=dict(sorted((items | {key: made}).items())))
        files.write_whole(lock_path(root), msgspec.json.format(msgspec.json.encode(lock), indent=2) + b"\n")
        return made


def changed(root: str, key: str, known: Locked, sha256: str) -> str:
    """Return the sentence that names the old and the new digest."""
    return (
        f"{key} changed: its sha256 was {known.sha256} at {known.time} and is {sha256} now; if the change is meant, "
        f"take its entry out of {lock_path(root)} and run the command again"
    )
