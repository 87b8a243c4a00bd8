"""Line: the socket of a download, which a clock can cut whatever the code that reads from it is waiting for."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator


class Line:
    """The socket of the moment, so that a clock can cut it whatever the code that reads from it is waiting for."""

    def __init__(self) -> None:
        self.socket: socket.socket | None = None
        self.expired = False
        self.lock = threading.Lock()

    def dial(self, peers: tuple[tuple[str, int], ...], timeout: float) -> socket.socket:
        """Connect to the first of `peers` that answers."""
        trouble: OSError = OSError("no peer")
        for peer in peers:
            try:
                made = socket.create_connection(peer, timeout)
            except OSError as error:
                trouble = error
                continue
            with self.lock:
                # TLS takes the socket over; a duplicate still ends it for both.
                self.drop()
                self.socket = made.dup()
            if self.expired:
                self.cut()
            return made
        raise trouble

    def cut(self) -> None:
        """End what is being read, at once and for good."""
        with self.lock:
            self.expired = True
            if self.socket is not None:
                with contextlib.suppress(OSError):
                    self.socket.shutdown(socket.SHUT_RDWR)

    def drop(self) -> None:
        """Let go of the socket."""
        if self.socket is not None:
            self.socket.close()
            self.socket = None

    @contextlib.contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Cut the line unless the block ends within `seconds`."""
        clock = threading.Timer(max(0.0, seconds), self.cut)
        clock.daemon = True
        clock.start()
        try:
            yield
        finally:
            clock.cancel()
