"""Uploads: an object of a store that appears whole when its block ends, whichever threads write others."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import IO, Any, cast


@contextlib.contextmanager
def whole(fs: Any, path: str) -> Iterator[IO[bytes]]:
    """Open an object of an fsspec file system for writing that is there when the block ends without error, or never."""
    if not fs.async_impl:
        with fs.transaction, fs.open(path, "wb") as file:
            yield cast(IO[bytes], file)
        return
    # Threads share the file system of an object store, and with it its one transaction.
    upload = fs.open(path, "wb", autocommit=False)
    try:
        with upload:
            yield cast(IO[bytes], upload)
    except BaseException:
        upload.discard()
        raise
    upload.commit()
