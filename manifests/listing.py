"""What lies in a folder, as one digest: names, sizes and times. It tells whether anything changed since a scan."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable

from manifests import files


def listing(folders: Iterable[str]) -> str:
    """Return the digest of all files below local `folders`, by path, size and time of change; nothing is read.

    Empty where a folder is not on this machine: listing an object store costs a request for each thousand objects, so
    there only a new scan looks again. Links are followed, a loop of them once.
    """
    seen = hashlib.blake2b(digest_size=16)
    for folder in folders:
        if not files.is_local(folder):
            return ""
        visited: set[tuple[int, int]] = set()
        stack = [files.local(folder)]
        while stack:
            here = stack.pop()
            try:
                about = os.stat(here)
                entries = sorted(os.scandir(here), key=lambda entry: entry.name)
            except OSError:
                continue
            if (about.st_dev, about.st_ino) in visited:
                continue
            visited.add((about.st_dev, about.st_ino))
            for entry in entries:
                if entry.is_dir():
                    stack.append(entry.path)
                    seen.update(f"{entry.path}/\n".encode("utf-8", "surrogateescape"))
                    continue
                try:
                    told = entry.stat()
                    line = f"{entry.name}\0{told.st_size}\0{told.st_mtime_ns}\n"
                except OSError:
                    line = f"{entry.name}\0gone\n"
                seen.update(line.encode("utf-8", "surrogateescape"))
    return seen.hexdigest()
