"""Proofs: decoded clips held against the MD5 that their files sign, several at a time, which takes a third as long.

Who uses it goes on before a clip is proven, and begins anew, clip by clip, in the rare case that one is not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

PCM = NDArray[np.int16]

CLIPS = 24
"""Clips held until they are looked at: three for each of the eight that shards/_md5.c does side by side."""
BYTES = 32 * 2**20
"""Bytes of samples held, and then those of the last clip."""


class Unproven(Exception):
    """Some clip among those held is not what its file signs."""


def digests_one_by_one(messages: Sequence[PCM]) -> list[bytes]:
    """Return the MD5 of each array: what shards/_md5.c does."""
    return [hashlib.md5(message.data).digest() for message in messages]


try:
    from shards._md5 import digests  # type: ignore[import-not-found]
except ImportError:
    digests = digests_one_by_one


class Proofs:
    """Clips whose samples are still to be held against their MD5."""

    def __init__(self) -> None:
        self.pcms: list[PCM] = []
        self.signed: list[str] = []
        self.bytes = 0

    def add(self, pcm: PCM, md5: str) -> None:
        """Take a clip and the hex MD5 that its file signs. Unproven, now or later, if this one or another is wrong."""
        self.pcms.append(np.ascontiguousarray(pcm, "<i2"))
        self.signed.append(md5)
        self.bytes += pcm.nbytes
        if len(self.pcms) == CLIPS or self.bytes >= BYTES:
            self.settle()

    def settle(self) -> None:
        """Look at the clips that are held, and let go of them; Unproven if one is wrong."""
        right = [digest.hex() for digest in digests(self.pcms)] == self.signed
        self.pcms, self.signed, self.bytes = [], [], 0
        if not right:
            raise Unproven
