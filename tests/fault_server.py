"""A web server on loopback that fails in the ways web servers fail: the path of an address names the way.

``/<mode>/<times>/<key>/<file>`` serves `file` of the world, after failing `times` requests of this key in this mode;
``always`` never serves it. Ranges, If-Range and strong entity tags work, unless the mode breaks them.
"""

from __future__ import annotations

import contextlib
import email.utils
import gzip
import http.server
import re
import socketserver
import threading
import time
from collections import Counter
from collections.abc import Callable

PROXIED = re.compile("^http://[^/]*")
"""What is before the path when we are asked as a proxy."""
MODES: dict[str, Callable[[Handler], None]] = {}


class Handler(http.server.BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    server: FaultServer

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        _, mode, times, key, name = (*PROXIED.sub("", self.path.partition("?")[0]).split("/", 4), "", "", "")[:5]
        self.query = self.path.partition("?")[2]
        with self.server.lock:
            self.server.asked[mode, key] += 1
            count = self.server.asked[mode, key]
            self.server.requests.append((self.path, dict(self.headers)))
        self.close_connection = True
        self.key, self.name, self.body = key, name, self.server.world.get(name, b"")
        self.etag = f'"{hash(self.body) & 0xFFFFFFFF:x}"'
        fails = times == "always" or count <= int(times or 0)
        with contextlib.suppress(ConnectionError, TimeoutError, ValueError):
            if mode == "good" or not fails:
                self.serve()
            else:
                MODES[mode](self)

    def head(self, status: int, **headers: object) -> None:
        """Send the status line and the headers; ``Content_Length`` is written with a hyphen."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.send_header("Connection", "close")
        self.end_headers()

    def send(self, data: bytes) -> None:
        """Send a part of the body, and count it."""
        with self.server.lock:
            self.server.sent[self.key] += len(data)
        self.wfile.write(data)

    def serve(self, ranges: bool = True) -> None:
        """Serve the file as a good server does."""
        if not self.name or self.name not in self.server.world:
            self.head(404, Content_Length=0)
            return
        wants = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        condition = self.headers.get("If-Range")
        if ranges and wants and condition in (None, self.etag):
            start, end = int(wants[1]), len(self.body)
            if start >= end:
                self.head(416, Content_Range=f"bytes */{end}", Content_Length=0)
                return
            span = f"bytes {start}-{end - 1}/{end}"
            self.head(206, Content_Range=span, Content_Length=end - start, ETag=self.etag)
            self.send(self.body[start:])
            return
        self.head(200, Content_Length=len(self.body), ETag=self.etag, Content_Type="application/octet-stream")
        self.send(self.body)

    def drip(self, seconds: float, pause: float = 0.05) -> None:
        """Send a byte now and then."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.server.closing.is_set():
            self.send(b"\x1f")
            self.wfile.flush()
            time.sleep(pause)


class FaultServer(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """The server; as a context it serves until the end of the block."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, world: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.world = world
        self.lock = threading.Lock()
        self.asked: Counter[tuple[str, str]] = Counter()
        self.sent: Counter[str] = Counter()
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.closing = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> FaultServer:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, *_: object) -> None:
        """A client that went away is no news here."""


def mode(function: Callable[[Handler], None]) -> Callable[[Handler], None]:
    """Register a way to fail under the name of its function."""
    MODES[function.__name__] = function
    return function


@mode
def short(ask: Handler) -> None:
    """Ends before the length it told."""
    ask.head(200, Content_Length=len(ask.body), ETag=ask.etag)
    ask.send(ask.body[: len(ask.body) * 2 // 3])


@mode
def short_without_length(ask: Handler) -> None:
    """Ends early and never said how long the file is."""
    ask.head(200)
    ask.send(ask.body[: len(ask.body) * 2 // 3])


@mode
def cut_chunks(ask: Handler) -> None:
    """Ends within the chunks."""
    ask.head(200, Transfer_Encoding="chunked")
    half = ask.body[: len(ask.body) // 2]
    ask.wfile.write(f"{len(half):x}\r\n".encode() + half + b"\r\n" + b"ffff\r\n" + b"rest")


@mode
def web_page(ask: Handler) -> None:
    """A page with status 200 where the file should be."""
    page = b"<!DOCTYPE html><html><title>Please log in</title></html>".ljust(len(ask.body))
    ask.head(200, Content_Length=len(page), Content_Type="text/html; charset=utf-8")
    ask.send(page)


@mode
def web_page_as_bytes(ask: Handler) -> None:
    """The same, called a gzip file."""
    page = b"\n  <html><title>Maintenance</title></html>".ljust(len(ask.body))
    ask.head(200, Content_Length=len(page), Content_Type="application/gzip")
    ask.send(page)


@mode
def flipped(ask: Handler) -> None:
    """One bit is wrong."""
    ask.head(200, Content_Length=len(ask.body))
    middle = len(ask.body) // 2
    ask.send(ask.body[:middle] + bytes([ask.body[middle] ^ 1]) + ask.body[middle + 1 :])


@mode
def gzip_lie(ask: Handler) -> None:
    """Encodes what was to come as it is."""
    packed = gzip.compress(ask.body, 1)
    ask.head(200, Content_Length=len(packed), Content_Encoding="gzip")
    ask.send(packed)


@mode
def cut_gzip(ask: Handler) -> None:
    """Encodes, and ends early, as if that were all."""
    packed = gzip.compress(ask.body, 1)[: len(ask.body) // 2]
    ask.head(200, Content_Length=len(packed), Content_Encoding="gzip")
    ask.send(packed)


@mode
def too_many(ask: Handler) -> None:
    """429, for a second."""
    ask.head(429, Content_Length=0, Retry_After=1)


@mode
def too_many_dated(ask: Handler) -> None:
    """429 until a date that is past."""
    ask.head(429, Content_Length=0, Retry_After=email.utils.formatdate(time.time() - 5, usegmt=True))


@mode
def error_500(ask: Handler) -> None:
    ask.head(500, Content_Length=9)
    ask.wfile.write(b"<html>500")


@mode
def error_503(ask: Handler) -> None:
    ask.head(503, Content_Length=0)


@mode
def stall(ask: Handler) -> None:
    """Sends half and then nothing."""
    ask.head(200, Content_Length=len(ask.body), ETag=ask.etag)
    ask.send(ask.body[: len(ask.body) // 2])
    ask.wfile.flush()
    ask.server.closing.wait(20)


@mode
def tarpit(ask: Handler) -> None:
    """A byte now and then, so that no time-out of a read ever strikes."""
    ask.head(200, Content_Length=len(ask.body))
    ask.drip(20)


@mode
def tarpit_head(ask: Handler) -> None:
    """The same in the headers."""
    end = time.monotonic() + 20
    ask.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while time.monotonic() < end and not ask.server.closing.is_set():
        ask.wfile.write(b"a")
        ask.wfile.flush()
        time.sleep(0.05)


@mode
def no_range(ask: Handler) -> None:
    """Breaks off, and on resuming sends everything again."""
    if "Range" in ask.headers:
        ask.serve(ranges=False)
    else:
        short(ask)


@mode
def changed(ask: Handler) -> None:
    """Breaks off a file of another time: its tag is another too."""
    old = bytes(reversed(ask.body))
    old = ask.body[:2] + old[2:]
    ask.head(200, Content_Length=len(old), ETag='"old"')
    ask.send(old[: len(old) // 2])


@mode
def wrong_range(ask: Handler) -> None:
    """Breaks off, and resumes at another place than asked."""
    wants = re.fullmatch(r"bytes=(\d+)-", ask.headers.get("Range", ""))
    if not wants:
        short(ask)
        return
    start, end = max(0, int(wants[1]) - 1000), len(ask.body)
    ask.head(206, Content_Range=f"bytes {start}-{end - 1}/{end}", Content_Length=end - start)
    ask.send(ask.body[start:])


@mode
def to_file(ask: Handler) -> None:
    ask.head(302, Location="file:///etc/passwd", Content_Length=0)


@mode
def to_metadata(ask: Handler) -> None:
    ask.head(302, Location="http://169.254.169.254/latest/meta-data/", Content_Length=0)


@mode
def in_circles(ask: Handler) -> None:
    ask.head(302, Location=ask.path, Content_Length=0)


@mode
def endless(ask: Handler) -> None:
    """Never ends and says no length."""
    ask.head(200, Transfer_Encoding="chunked")
    block = b"\x1f\x8b" + b"x" * 65534
    while not ask.server.closing.is_set():
        ask.wfile.write(b"10000\r\n" + block + b"\r\n")


@mode
def reset(ask: Handler) -> None:
    """Hangs up without a word."""


@mode
def garbage(ask: Handler) -> None:
    ask.wfile.write(b"\x00\x01\x02 this is no HTTP\r\n\r\n")


@mode
def empty(ask: Handler) -> None:
    ask.head(200, Content_Length=0)
