"""The parent's end of video_download.py: a process that fetches videos, killed when one takes too long."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from types import TracebackType

import msgspec

from manifests import files
from manifests.waiting import readable
from pipelines.fetching import video_download
from pipelines.fetching.video_status import Trouble

SITE = "https://www.youtube.com/"


class Got(msgspec.Struct, frozen=True, kw_only=True):
    """A file that was fetched."""

    path: str
    duration: float = 0.0
    """Seconds that the site says the video has, 0 if it does not."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the process: a file, or an error."""

    name: str = ""
    duration: float = 0.0
    kinds: tuple[str, ...] = ()
    message: str = ""
    code: int = 0


class Downloader:
    """A process of yt-dlp and a folder of its own, for one thread; used as a context."""

    def __init__(self, folder: str, cookies: str, largest: int) -> None:
        """Fetch into `folder` with the cookies of a file, at most `largest` bytes a video. Starts nothing yet."""
        self.folder, self.cookies, self.largest = os.path.abspath(files.local(folder)), cookies, largest
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Downloader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        files.remove_tree(self.folder)

    def fetch(self, url: str, deadline: float) -> Got | Trouble:
        """Fetch the audio of one video within `deadline` seconds, start of the process included."""
        files.remove_tree(self.folder)
        os.makedirs(self.folder)
        request = {
            "url": url,
            "folder": self.folder,
            "cookies": self.cookies and os.path.abspath(self.cookies),
            "largest": self.largest,
            "extractor": "^youtube$" if url.startswith(SITE) else "^generic$",
        }
        try:
            line = self.ask(msgspec.json.encode(request) + b"\n", time.monotonic() + deadline)
            answer = msgspec.json.decode(line, type=Answer)
        except TimeoutError:
            self.stop()
            return Trouble(kinds=("TimeoutError",), message=f"timed out: not done after {deadline:g} s")
        except (OSError, EOFError, msgspec.MsgspecError) as error:
            self.stop()
            return Trouble(kinds=("Died",), message=f"the downloader died ({type(error).__name__})")
        except BaseException:
            # An interrupt between question and answer: the next question must not get this answer.
            self.stop()
            raise
        if not answer.name:
            return Trouble(kinds=answer.kinds, message=answer.message, code=answer.code)
        path = os.path.join(self.folder, os.path.basename(answer.name))
        if not os.path.lexists(path) or not stat.S_ISREG(os.lstat(path).st_mode):
            return Trouble(kinds=("Died",), message="the downloader left no file")
        return Got(path=path, duration=max(0.0, answer.duration))

    def ask(self, request: bytes, until: float) -> bytes:
        """Return the line that answers `request`; TimeoutError at the monotonic second `until`, EOFError at an end."""
        process = self.running()
        assert process.stdin and process.stdout
        process.stdin.write(request)
        line = b""
        while not line.endswith(b"\n"):
            rest = until - time.monotonic()
            if rest <= 0 or not readable(process.stdout, rest):
                raise TimeoutError
            piece = os.read(process.stdout.fileno(), 1 << 16)
            if not piece:
                raise EOFError
            line += piece
        return line

    def running(self) -> subprocess.Popen[bytes]:
        """Return the process, started if need be: of a session of its own, so that what it starts dies with it."""
        if self.process is None:
            self.process = subprocess.Popen(
                [sys.executable, "-I", video_download.__file__, str(os.getpid())],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        return self.process

    def stop(self) -> None:
        """Kill the process and all that it has started."""
        if self.process is None:
            return
        os.killpg(self.process.pid, signal.SIGKILL)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        self.process.wait()
        self.process = None
