"""Items: the files that a corpus publishes, where each goes below ROOT, and what became of it so far.

ROOT/raw/<corpus>/<into>/<file>                  a file as published, or what an archive held
ROOT/raw/<corpus>/.archives/<file>               an archive; it stays after it was unpacked, unless told otherwise
ROOT/fetch/<corpus>/<file>.json                  what became of it: a rerun does only what is left to do
ROOT/fetch.lock                                  size and digest of every file that was ever fetched
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from manifests import UserError, files
from manifests.corpus import Archive, Corpus

KEPT = ".archives"
SAFE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,150}")
"""Names of files and folders that we make."""


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One file to fetch."""

    corpus: str
    splits: tuple[str, ...]
    """Those of the splits asked for that need it."""
    name: str
    """Its name in the corpus; of a file that is no archive, with its folder."""
    urls: tuple[str, ...]
    path: str
    """Where the file goes, relative to ROOT."""
    into: str = ""
    """The folder that it is unpacked into, relative to ROOT; empty if it is not."""
    md5: str = ""
    sha256: str = ""
    bytes: int = 0
    """Its published size, 0 if unknown."""
    by_hand: bool = False

    @property
    def key(self) -> str:
        """Its name in the lock."""
        return f"{self.corpus}/{self.name}"

    @property
    def identity(self) -> str:
        """What it is fetched as: when that changes, an earlier failure says nothing any more."""
        return hashlib.sha256(msgspec.json.encode((self.urls, self.md5, self.sha256, self.bytes))).hexdigest()[:16]


class Outcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of an item."""

    key: str
    state: Literal["ok", "transient", "permanent"]
    reason: str = ""
    """A code: fetched, found, or what is wrong."""
    why: str = ""
    """A sentence without secrets."""
    url: str = ""
    bytes: int = 0
    sha256: str = ""
    verified: str = ""
    """What the digest was held against: ``published`` or ``lock``; empty if it was the first ever seen."""
    identity: str = ""
    received: int = 0
    seconds: float = 0.0
    tries: int = 0
    unpacked: bool = False
    files: int = 0
    """Files that it held."""
    removed: bool = False
    """Whether the archive was removed after it was unpacked."""
    streamed: bool = False
    """Whether it was not unpacked after all, but is read as it is: a plain tar with an index."""


def safe(corpus: str, what: str, path: str) -> str:
    """Return `path` if it is a plain relative one; UserError otherwise."""
    if path and not all(SAFE.fullmatch(part) for part in path.split("/")):
        raise UserError(f"{corpus}.toml: {what} is {path!r}; it must be of letters, digits, and . _ - and stay inside")
    return path


def mirrored(url: str, mirror: str) -> str:
    """Return `url` with its scheme and host replaced by `mirror`, whose own path goes before."""
    parts = urlsplit(url)
    base, mark, query = mirror.partition("?")
    return base.rstrip("/") + parts.path + (f"?{query}" if mark else f"?{parts.query}" if parts.query else "")


def item_of(corpus: str, archive: Archive, splits: tuple[str, ...], mirror: str) -> Item:
    """Return the item of one archive."""
    name, into = safe(corpus, "a name", archive.file_name), safe(corpus, "into", archive.into)
    home = f"raw/{corpus}"
    folder = f"{home}/{into}" if into else home
    within = f"{into}/{name}" if into and not archive.packed else name
    urls = (archive.url, *archive.mirrors)
    return Item(
        corpus=corpus,
        splits=splits,
        name=within,
        urls=tuple(dict.fromkeys(mirrored(url, mirror) for url in urls)) if mirror else urls,
        path=f"{home}/{KEPT}/{name}" if archive.packed else f"{home}/{within}",
        into=folder if archive.packed else "",
        md5=archive.md5,
        sha256=archive.sha256,
        bytes=archive.bytes,
        by_hand=archive.by_hand and not mirror,
    )


def items_of(corpus: Corpus, splits: tuple[str, ...], mirror: str = "") -> tuple[Item, ...]:
    """Return what the `splits` of a corpus publish, each file once; `mirror` replaces scheme and host of all."""
    users: dict[str, tuple[Archive, list[str]]] = {}
    for split in splits:
        for archive in (*corpus.facts.archives, *corpus.split(split).archives):
            place = f"{archive.into}/{archive.file_name}"
            known, names = users.setdefault(place, (archive, []))
            if known != archive:
                raise UserError(f"{corpus.name}.toml: two files are called {place!r}; give one a name")
            names.append(split)
    return tuple(item_of(corpus.name, archive, tuple(names), mirror) for archive, names in users.values())


def outcome_path(root: str, item: Item) -> str:
    """Return where it is written down what became of an item."""
    return files.join(root, "fetch", item.corpus, f"{item.name}.json")


def read_outcome(root: str, item: Item) -> Outcome | None:
    """Return what became of an item; None if nothing is known, or nothing that can be read."""
    with contextlib.suppress(OSError, msgspec.MsgspecError):
        return msgspec.json.decode(files.read_bytes(outcome_path(root, item)), type=Outcome)
    return None


def write_outcome(root: str, item: Item, outcome: Outcome) -> Outcome:
    """Write down what became of an item."""
    files.write_whole(outcome_path(root, item), msgspec.json.encode(outcome))
    return outcome


def finished(root: str, item: Item, outcome: Outcome | None, unpack: bool = True) -> bool:
    """Whether nothing is left to do for an item: it is there in its size, and unpacked if that is asked for."""
    if outcome is None or outcome.state != "ok" or (unpack and item.into and not outcome.unpacked):
        return False
    published = item.sha256 in ("", outcome.sha256) and item.bytes in (0, outcome.bytes)
    there = files.size(files.join(root, item.path)) == outcome.bytes
    if outcome.streamed:
        from pipelines.unpacking.stream_archive import is_streamed

        return published and is_streamed(files.local(files.join(root, item.path)))
    return published and (there or (outcome.removed and os.path.isdir(files.local(files.join(root, item.into)))))


def hopeless(item: Item, outcome: Outcome | None) -> bool:
    """Whether an item failed for good when it was last tried, from the same addresses."""
    return outcome is not None and outcome.state == "permanent" and outcome.identity == item.identity
