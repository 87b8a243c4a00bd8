"""A long JSON file read as a stream: the members of one list in its object, one after the other, in little memory.

ijson can do as much, but its memory grows with the square of the depth of what it reads: a file of 100 kB of brackets
takes it down. Python's own decoder stops at its recursion limit, and is as quick.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import IO, Any

from manifests import files
from manifests.errors import UserError

CHUNK = 1 << 20
"""Bytes read at a time."""
LONGEST = 1 << 26
"""Characters of the longest value that is read: no row of ours has a thousandth of it."""
SPACE = re.compile(r"[ \t\n\r]*")


def stream_list(path: str, name: str) -> Iterator[Any]:
    """Yield the members of the list ``{name: [...]}`` of the JSON file at `path`; UserError if it is none."""
    with files.open_read(path) as file:
        reader = Reader(file, f"{files.redact(path)}")
        found = False
        reader.take("{", f'an object {{"{name}": [...]}}')
        while reader.peek() != "}":
            key = reader.value()
            reader.take(":", "a colon")
            if key == name:
                found = True
                yield from reader.members()
            else:
                reader.value()
            if reader.peek() != "}":
                reader.take(",", "a comma")
        reader.take("}", "a brace")
        if reader.peek():
            raise reader.broken("there is more behind its end")
        if not found:
            raise UserError(f"{reader.name} has no list {name!r}; it must be {{{name!r}: [...]}}")


class Reader:
    """Decodes JSON values from a file, piece by piece."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        """Read `file`; errors call it `name`."""
        self.file, self.name = file, name
        self.decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self.text, self.at, self.ended = "", 0, False
        self.row = 0
        """Number of the member in hand, from 1; 0 before the list."""

    def broken(self, why: str) -> UserError:
        """Return the error for what is not JSON here."""
        place = f", row {self.row}" if self.row else ""
        return UserError(f"{self.name}{place}: not JSON ({why}); fetch or make it anew")

    def more(self) -> bool:
        """Read on, as much again as is in hand; False at the end of the file."""
        if self.ended:
            return False
        rest = self.text[self.at :]
        if len(rest) > LONGEST:
            raise self.broken(f"a value goes on for more than {LONGEST:,} characters")
        data = self.file.read(max(CHUNK, len(rest)))
        self.ended = not data
        try:
            self.text, self.at = rest + self.decoder.decode(data, final=self.ended), 0
        except UnicodeDecodeError as error:
            raise self.broken(f"its bytes are not UTF-8: {error.reason}") from None
        return True

    def peek(self) -> str:
        """Return the next character that is no space, without taking it; empty at the end of the file."""
        while True:
            match = SPACE.match(self.text, self.at)
            assert match
            self.at = match.end()
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.more():
                return ""

    def take(self, sign: str, wanted: str) -> None:
        """Take the next character, which must be `sign`."""
        found = self.peek()
        if found != sign:
            raise self.broken(f"{wanted} was expected, not {found!r}" if found else f"it ends before {wanted}")
        self.at += 1

    def value(self) -> Any:
        """Take the next value."""
        self.peek()
        while True:
            try:
                value, end = DECODER.raw_decode(self.text, self.at)
            except RecursionError:
                raise self.broken("it nests too deeply") from None
            except ValueError as error:
                # Wrong, or cut off by the end of the chunk: only reading on can tell.
                if not self.more():
                    raise self.broken(error.msg if isinstance(error, json.JSONDecodeError) else str(error)) from None
            else:
                # A number at the end of the chunk may go on in the next: of "0." or "1e" only the digit is read.
                goes_on = not self.text[end : end + 3].strip(".eE+-0123456789")
                if not (goes_on and end + 3 > len(self.text)) or not self.more():
                    self.at = end
                    return value

    def members(self) -> Iterator[Any]:
        """Take a list, member by member."""
        self.take("[", "a list")
        while self.peek() != "]":
            self.row += 1
            yield self.value()
            if self.peek() != "]":
                self.take(",", "a comma")
                if self.peek() == "]":
                    raise self.broken("a comma stands before the end of the list")
        self.take("]", "the end of the list")


DECODER = json.JSONDecoder()
