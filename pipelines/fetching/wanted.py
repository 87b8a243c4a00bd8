"""Wanted: a file to fetch, how hard to try, and what came of it."""

from __future__ import annotations

import os

import msgspec


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """A file to fetch: from where, to where, and how to know that it is the right one."""

    path: str
    urls: tuple[str, ...]
    """The address and its mirrors, tried in turn."""
    md5: str = ""
    sha256: str = ""
    bytes: int = 0

    @property
    def known(self) -> bool:
        """Whether a digest is known."""
        return bool(self.md5 or self.sha256)

    @property
    def name(self) -> str:
        """The name of the file."""
        return os.path.basename(self.path)


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How hard to try."""

    allow_private: bool = False
    """Also fetch from loopback and private addresses."""
    deadline: float = 0.0
    """Seconds for one file, 0 to reckon them from its size."""
    connect: float = 30.0
    """Seconds to wait for a connection."""
    stall: float = 60.0
    """Seconds without a byte, or with fewer than `slowest` a second, after which a connection is given up."""
    slowest: float = 1024.0
    tries: int = 6
    """How often an address is tried."""
    backoff: float = 1.0
    """Seconds: the longest pause before the second try, doubled before each further one, up to `longest`."""
    longest: float = 120.0
    cap: int = 64 << 30
    """Bytes that a file of unknown size may have."""

    def seconds(self, size: int) -> float:
        """Return how long a file of `size` bytes may take: a quarter of an hour and what 200 kB/s need."""
        return self.deadline or 900 + (size or 4 << 30) / 200e3


class Got(msgspec.Struct, frozen=True, kw_only=True):
    """A file that was fetched."""

    url: str
    """Without what may be secret."""
    bytes: int
    sha256: str
    received: int = 0
    """Bytes that came over the network, in all tries."""
    tries: int = 0


class Unfetched(Exception):
    """Why a file was not fetched: a code, a sentence without secrets, and whether a later try may fare better."""

    def __init__(self, reason: str, why: str, *, permanent: bool = False, wait: float = 0.0, sha256: str = "") -> None:
        """Tell `why`; `wait` is the seconds a server asked for, `sha256` the digest of a whole but wrong file."""
        super().__init__(why)
        self.reason, self.why, self.permanent, self.wait, self.sha256 = reason, why, permanent, wait, sha256
