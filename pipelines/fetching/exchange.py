"""Exchange: one address is asked once for what a part lacks, and nothing that it says is taken on trust."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import time

import urllib3

from pipelines.fetching.hosts import Target, Unreachable, explain, open_url
from pipelines.fetching.line import Line
from pipelines.fetching.part import BLOCK, Origin, Part, boot
from pipelines.fetching.sniff import HEAD, encoded_twice, suspect, suspect_headers
from pipelines.fetching.wanted import Limits, Unfetched, Wanted

PASSING = (408, 409, 421, 423, 425, 429)
"""Beside 5xx, the statuses that a later try may not meet."""
SENTENCES = {
    401: "wants credentials (401); has the address its login?",
    403: "refuses the file (403); are its terms accepted, or its credentials given?",
    404: "has no such file (404)",
    410: "has the file no more (410)",
    451: "may not give the file (451)",
}
RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")
ROOM = 64 << 20
"""Bytes of a disk that are left free."""


class Exchange:
    """The talk with servers about one file."""

    def __init__(self, wanted: Wanted, limits: Limits, part: Part) -> None:
        """Fetch `wanted` into `part`."""
        self.wanted, self.limits, self.part = wanted, limits, part
        self.received = 0
        """Bytes of bodies that came over the network."""
        self.resumed = False
        """Whether the part has bytes of an earlier response."""
        self.encoded = False
        """Whether the server says that it packed the file for the way."""

    def take(self, url: str, line: Line) -> str:
        """Ask `url` for what is missing, give the file its final name if it is the right one, return its sha256.

        Raises Unfetched, and Unreachable and Forbidden of the hosts.
        """
        source = hashlib.sha256(url.encode()).hexdigest()
        rest = self.resume(source)
        offset, host, self.resumed = self.part.size, "", True
        if not offset or offset != (self.wanted.bytes or self.part.origin.total):
            headers = {"Accept-Encoding": "identity", "User-Agent": "salmonn-data-engine", **rest}
            with line.within(self.limits.connect + self.limits.stall):
                response, target = open_url(
                    url,
                    headers,
                    line,
                    allow_private=self.limits.allow_private,
                    connect=self.limits.connect,
                    stall=self.limits.stall,
                )
            host = target.host
            try:
                self.copy(response, host, self.accept(response, target, source), line)
            finally:
                response.close()
        return self.check(host)

    def resume(self, source: str) -> dict[str, str]:
        """Return the headers that ask for the rest of the part; clears a part that cannot be built upon."""
        origin, sure, size = self.part.origin, self.wanted.known, self.part.size
        if not size:
            return {}
        whole = self.wanted.bytes or origin.total
        rest = {"Range": f"bytes={size}-"}
        # Without a digest nobody would find pages that a power cut left unwritten.
        if (sure or origin.boot == boot()) and not (whole and size > whole):
            if origin.source == source and origin.etag:
                return rest | {"If-Range": origin.etag}
            if sure and origin.source == source and origin.last_modified:
                # A date is a weak witness, but the digest of the whole has the last word.
                return rest | {"If-Range": origin.last_modified}
            if sure and origin.source and origin.source != source and self.wanted.bytes:
                return rest  # another mirror of a file whose size and digest are known
        self.part.clear()
        return {}

    def accept(self, response: urllib3.BaseHTTPResponse, target: Target, source: str) -> int | None:
        """Return how many bytes the whole file has, None if nobody says; Unfetched for a response that is not it.

        Clears the part unless the response goes on from its end.
        """
        headers, wanted, host = response.headers, self.wanted, target.host
        if response.status == 416:
            self.part.clear()
        refuse_status(response, host)
        origin, etag = self.part.origin, strong(headers.get("ETag", ""))
        length = headers.get("Content-Length", "")
        total = int(length) if length.isdecimal() else None
        if response.status == 206:
            span = RANGE.fullmatch(headers.get("Content-Range", "").strip())
            whole = wanted.bytes or origin.total
            other = origin.source == source and origin.etag and etag and origin.etag != etag
            if not self.part.size or not span or int(span[1]) != self.part.size or other:
                self.part.clear()
                raise Unfetched("range", f"{host} sent another range than asked for")
            total = int(span[2])
            if whole and total != whole:
                self.part.clear()
        else:
            self.part.clear()
            self.resumed = False
        kind, encoding = headers.get("Content-Type", ""), headers.get("Content-Encoding", "")
        self.encoded = encoding.strip().lower() not in ("", "identity")
        if trouble := suspect_headers(wanted.name, kind, encoding):
            raise Unfetched("not_the_file", f"{host}: {trouble}")
        if total is not None and wanted.bytes and total != wanted.bytes:
            said = f"{host} has {total:,} bytes where {wanted.bytes:,} are published"
            raise Unfetched("size", said, permanent=True)
        if response.status == 206 and not self.part.size:
            raise Unfetched("range", f"{host} has another file than before")
        chunked = "chunked" in headers.get("Transfer-Encoding", "").lower()
        if total is None and not (chunked or wanted.known or wanted.bytes):
            said = f"{host} does not say how long the file is and no digest is known, so it could be cut short unseen"
            raise Unfetched("unproven", said, permanent=True)
        require_room(self.part.path, (total or wanted.bytes) - self.part.size)
        modified = headers.get("Last-Modified", "")
        noted = Origin(source=source, etag=etag, last_modified=modified, total=total or 0, boot=boot())
        if noted != origin or not self.part.size:
            self.part.note(noted)
        return total

    def copy(self, response: urllib3.BaseHTTPResponse, host: str, total: int | None, line: Line) -> None:
        """Write the body behind the part; Unfetched or Unreachable if it is not as long as it should be."""
        most = self.wanted.bytes or total or self.limits.cap
        pending, looked = b"", bool(self.part.size)
        since, came = time.monotonic(), 0
        while data := self.read(response, host, line):
            came += len(data)
            if self.part.size + len(pending) + len(data) > most:
                self.part.clear()
                raise Unfetched("too_long", f"{host} sends more than {most:,} bytes", permanent=True)
            pending += data
            if looked or len(pending) >= HEAD:
                self.look(pending, host, looked)
                self.part.write(pending)
                pending, looked = b"", True
            passed = time.monotonic() - since
            if passed >= self.limits.stall:
                if came < self.limits.slowest * passed:
                    raise Unfetched("slow", f"{host} sends fewer than {self.limits.slowest:,.0f} bytes a second")
                since, came = time.monotonic(), 0
        if pending:
            self.look(pending, host, looked)
            self.part.write(pending)
        whole = self.wanted.bytes if total is None else total
        if whole and self.part.size < whole:
            raise Unreachable("short", f"{host} ended after {self.part.size:,} of {whole:,} bytes")

    def read(self, response: urllib3.BaseHTTPResponse, host: str, line: Line) -> bytes:
        """Return what has come of the body, at most a block; nothing at its end."""
        try:
            data = response.read1(BLOCK, decode_content=False) or b""
        except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError, ValueError) as error:
            raise Unreachable(*explain(error, host, line)) from None
        if not data and line.expired:
            # A line that was cut ends like a file that is whole.
            raise Unreachable("slow", f"{host} was too slow")
        self.received += len(data)
        return data

    def look(self, head: bytes, host: str, looked: bool) -> None:
        """Raise Unfetched if the first bytes of the file are not of its kind."""
        if looked:
            return
        trouble = suspect(self.wanted.name, head[:HEAD])
        if self.encoded and not trouble and encoded_twice(head[:HEAD]):
            trouble = "it came packed twice"
        if trouble:
            raise Unfetched("not_the_file", f"{host}: {trouble}")

    def check(self, host: str) -> str:
        """Return the sha256 of the part, now under its final name; Unfetched, and no part, if it is not the file."""
        part, wanted = self.part, self.wanted
        part.catch_up()
        sha256, md5 = part.sha256.hexdigest(), part.md5.hexdigest()
        if not part.size:
            raise Unfetched("not_the_file", f"{host} sent nothing")
        for kind, found, right in (("sha256", sha256, wanted.sha256), ("md5", md5, wanted.md5)):
            if right and found != right:
                part.clear()
                if self.resumed:
                    raise Unfetched(
                        "digest", f"the rest of {wanted.name} did not fit to what was there; all is fetched anew"
                    )
                said = f"{host} sent another file: its {kind} is {found}, not {right}"
                raise Unfetched("digest", said, sha256=sha256)
        part.finish(wanted.path)
        return sha256


def strong(etag: str) -> str:
    """Return an entity tag that promises the same bytes, empty for one that does not."""
    return etag if etag.startswith('"') and etag.isprintable() else ""


def refuse_status(response: urllib3.BaseHTTPResponse, host: str) -> None:
    """Raise Unfetched unless the response holds a file."""
    status = response.status
    if status in (200, 206):
        return
    if status == 416:
        raise Unfetched("range", f"{host} has no such range")
    if status >= 500 or status in PASSING:
        # Heavy, and seldom needed.
        from manifests.chat import retry_after

        wait = retry_after(response.headers.get("Retry-After", ""))
        raise Unfetched(f"http_{status}", f"{host} answers {status} for now", wait=wait)
    said = SENTENCES.get(status, f"answers {status}")
    raise Unfetched(f"http_{status}", f"{host} {said}", permanent=True)


def require_room(path: str, need: int) -> None:
    """Raise Unfetched unless the disk of `path` has room for `need` more bytes."""
    disk = os.statvfs(os.path.dirname(path) or ".")
    free = disk.f_bavail * disk.f_frsize
    if need > 0 and need + ROOM > free:
        said = f"the disk of {os.path.dirname(path)} has {free:,} bytes free where {need:,} are needed"
        raise Unfetched("disk_full", said)
