"""A chat endpoint on this machine that answers, or misbehaves, as a test's script says."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

Script = Callable[[int, dict[str, Any]], tuple[int, dict[str, str], bytes]]


def completion(content: object, **more: object) -> bytes:
    text = content if isinstance(content, str) else json.dumps(content)
    return json.dumps(
        {"id": "x", "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, **more}]}
    ).encode()


class Endpoint(http.server.ThreadingHTTPServer):
    """A model: `script(number, asked)` gives (status, headers, body) of the request with that number."""

    daemon_threads = True

    def __init__(self, script: Script) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[dict[str, Any]] = []
        self.heads: list[dict[str, str]] = []
        self.times: list[float] = []
        self.busy = self.most = 0
        self.lock = threading.Lock()
        self.script = script

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers as the script says."""

    server: Endpoint

    def do_POST(self) -> None:
        server = self.server
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.asked.append(asked)
            server.heads.append({**self.headers, "path": self.path})
            server.times.append(time.monotonic())
            number = len(server.asked) - 1
            server.busy += 1
            server.most = max(server.most, server.busy)
        try:
            status, headers, body = server.script(number, asked)
        finally:
            with server.lock:
                server.busy -= 1
        if status == 0:
            self.close_connection = True
            return
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        # Who has read enough, or waited long enough, hangs up.
        with contextlib.suppress(ConnectionError):
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def serving(script: Script) -> Iterator[Endpoint]:
    """A model on this machine."""
    with Endpoint(script) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
