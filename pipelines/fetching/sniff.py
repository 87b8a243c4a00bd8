"""Sniff: whether what a server sent is a file of the kind that was asked for, by its first bytes and its headers."""

from __future__ import annotations

import contextlib
import re
import zlib

HEAD = 512
"""Bytes that are looked at."""
MAGIC: dict[str, tuple[bytes, ...]] = {
    ".gz": (b"\x1f\x8b",),
    ".tgz": (b"\x1f\x8b",),
    ".zip": (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08"),
    ".7z": (b"7z\xbc\xaf\x27\x1c",),
    ".xz": (b"\xfd7zXZ\x00",),
    ".bz2": (b"BZh",),
    ".zst": (b"\x28\xb5\x2f\xfd",),
    ".parquet": (b"PAR1",),
    ".flac": (b"fLaC",),
    ".wav": (b"RIFF", b"RF64"),
    ".h5": (b"\x89HDF",),
}
"""Suffixes to how such files begin."""
TEXT = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".md")
PAGE = re.compile(rb"\s*(<!doctype\s+html|<html|<head|<\?xml|<!--|<script)", re.IGNORECASE)
"""How pages begin, and the error documents of object stores."""


def suffix_of(name: str) -> str:
    """Return the last suffix of `name`, in lower case, empty if it has none."""
    stem, dot, suffix = name.rpartition(".")
    return f".{suffix.lower()}" if dot and stem else ""


def suspect(name: str, head: bytes) -> str:
    """Say why a file called `name` cannot begin with `head`; empty if it can."""
    suffix = suffix_of(name)
    if suffix in (".html", ".htm", ".xml"):
        return ""
    if PAGE.match(head.removeprefix(b"\xef\xbb\xbf")):
        return "a web page came in its place"
    if suffix in MAGIC and not head.startswith(MAGIC[suffix]):
        return f"what came is no {suffix} file"
    if suffix == ".tar" and len(head) >= 262 and head[257:262] != b"ustar":
        return "what came is no .tar file"
    if suffix in (".json", ".jsonl") and head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] not in (b"{", b"["):
        return f"what came is no {suffix} file"
    if suffix in TEXT and b"\x00" in head:
        return "bytes came where text was meant"
    return ""


def encoded_twice(head: bytes) -> bool:
    """Whether a gzip file beginning with `head` holds another one: a server packed once more what was packed."""
    with contextlib.suppress(zlib.error):
        return zlib.decompressobj(31).decompress(head, 16).startswith(MAGIC[".gz"])
    return False


def suspect_headers(name: str, content_type: str, encoding: str) -> str:
    """Say why a response with these headers cannot be the file `name`; empty if it can."""
    kind = content_type.partition(";")[0].strip().lower()
    suffix = suffix_of(name)
    if kind in ("text/html", "application/xhtml+xml") and suffix not in (".html", ".htm"):
        return "a web page came in its place"
    # Many servers call a .tar.gz gzip-encoded; its bytes are the file all the same, for we never decode.
    plain = encoding.strip().lower() in ("", "identity") or suffix in (".gz", ".tgz")
    return "" if plain else f"it came encoded ({encoding[:20]!r}) although that was not asked for"
