"""A journal: a file that grows by a line an answer, and that the next run reads, whatever ended the last."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from typing import IO

import msgspec

from manifests import UserError, files


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line: what was answered under a key, or why not."""

    key: str
    pairs: tuple[tuple[str, str], ...] = ()
    failed: str = ""


class Journal:
    """The entries by key. Made by `open_journal`, or by `read_journal` to look only."""

    def __init__(self, entries: dict[str, Entry], file: IO[bytes] | None = None) -> None:
        """Hold `entries`; add to `file`."""
        self.entries, self.file = entries, file

    def add(self, entry: Entry) -> None:
        """Add an entry. It is with the system when this returns, so that it survives the death of this process."""
        assert self.file
        self.entries[entry.key] = entry
        self.file.write(msgspec.json.encode(entry) + b"\n")
        self.file.flush()


def read_entries(file: IO[bytes], path: str) -> tuple[dict[str, Entry], int]:
    """Return the entries of a file and how many bytes they take; a last line torn by a kill is left out."""
    entries: dict[str, Entry] = {}
    whole = 0
    for number, line in enumerate(file, start=1):
        if not line.endswith(b"\n"):
            break
        try:
            entry = msgspec.json.decode(line, type=Entry)
        except msgspec.MsgspecError as error:
            raise UserError(f"{path}, line {number} is no line of a journal ({error}); move the file away") from None
        entries[entry.key] = entry
        whole += len(line)
    return entries, whole


def read_journal(path: str) -> Journal:
    """Return what is in the journal at `path`; nothing if there is none."""
    if not files.exists(path):
        return Journal({})
    with files.open_read(path) as file:
        return Journal(read_entries(file, path)[0])


@contextlib.contextmanager
def open_journal(path: str) -> Iterator[Journal]:
    """Open the journal at `path`, a new one if there is none, for this process alone."""
    place = files.local(path)
    os.makedirs(os.path.dirname(place) or ".", exist_ok=True)
    with open(place, "a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"another run is writing {path!r}; wait for it, or give another --out") from None
        file.seek(0)
        entries, whole = read_entries(file, path)
        file.truncate(whole)
        yield Journal(entries, file)
