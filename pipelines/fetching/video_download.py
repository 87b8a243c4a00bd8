"""The downloader: a program of its own that fetches videos with yt-dlp, one a line. video_process.py runs it.

A download that hangs cannot be ended from within its process: a server may send a byte a second for hours, and yt-dlp
looks up only when a block is full. So this program can be killed at any time, and it dies with who started it.

stdin brings a JSON object a line: url, folder, cookies, extractor, largest. stdout answers each with one of its own:
``{"name": ..., "duration": ...}`` for a file in the folder, or ``{"kinds": [...], "message": ..., "code": ...}``. It
imports the standard library and yt-dlp, and nothing of this project, which may not be on its path.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import signal
import sys
import threading
import time
from typing import Any

WATCH_SECONDS = 1.0
"""How often to look whether the parent lives."""
SOCKET_SECONDS = 20.0
"""Without a byte, and the connection is given up."""


class Silence:
    """A logger: what yt-dlp says goes nowhere but into the error it raises."""

    def debug(self, message: str) -> None:
        """Say nothing."""

    info = warning = error = debug


def settings(request: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters of yt-dlp for one video."""
    made: dict[str, Any] = {
        # % begins a field of a template.
        "outtmpl": {"default": os.path.join(request["folder"].replace("%", "%%"), "video.%(ext)s")},
        "format": "bestaudio/best",
        "allowed_extractors": [request["extractor"]],
        "noplaylist": True,
        "playlist_items": "1",
        "logger": Silence(),
        "quiet": True,
        "noprogress": True,
        "no_warnings": True,
        "cachedir": False,
        "fixup": "never",
        "nopart": True,
        "overwrites": True,
        "retries": 2,
        "fragment_retries": 2,
        "extractor_retries": 1,
        "socket_timeout": SOCKET_SECONDS,
        "max_filesize": request["largest"],
        # By default yt-dlp leaves out a fragment it cannot get, and all that follows is early by as much.
        "skip_unavailable_fragments": False,
        "match_filter": refuse_live,
    }
    if request["cookies"]:
        with open(request["cookies"], encoding="utf-8") as file:
            # A file given by name would be written back when yt-dlp ends.
            made["cookiefile"] = io.StringIO(file.read())
    return made


def refuse_live(info: dict[str, Any], *, incomplete: bool = False) -> str | None:
    """Return a reason not to download a stream that has no end."""
    return "a live stream" if info.get("is_live") else None


def download(request: dict[str, Any]) -> dict[str, Any]:
    """Fetch one video into the folder of the request."""
    yt_dlp = importlib.import_module("yt_dlp")
    with yt_dlp.YoutubeDL(settings(request)) as downloader:
        info = downloader.extract_info(request["url"])
    info = ((info or {}).get("entries") or [info])[0] or {}
    names = os.listdir(request["folder"])
    if len(names) == 1:
        return {"name": names[0], "duration": float(info.get("duration") or 0)}
    # Neither a filter nor the limit of bytes raises an error.
    message = "is live" if info.get("is_live") else "larger than max-filesize" if info else "unavailable"
    return {"kinds": [], "message": message, "code": 0}


def tell(error: BaseException) -> dict[str, Any]:
    """Return an error and what caused it as a record: video_status.py has a type for it."""
    chain: list[BaseException] = []
    waiting: list[Any] = [error]
    while waiting:
        one = waiting.pop(0)
        if isinstance(one, BaseException) and not any(one is known for known in chain):
            chain.append(one)
            told = getattr(one, "exc_info", None) or (None, None, None)
            waiting += [told[1], getattr(one, "cause", None), one.__cause__, one.__context__]
    kinds = [kind.__name__ for one in chain for kind in type(one).__mro__[:-2]]
    codes = [code for one in chain if isinstance(code := getattr(one, "status", None), int)]
    return {"kinds": kinds, "message": str(error), "code": codes[0] if codes else 0}


def watch(parent: int) -> None:
    """End with the parent, and take along what yt-dlp has started."""
    while os.getppid() == parent:
        time.sleep(WATCH_SECONDS)
    os.killpg(0, signal.SIGKILL)


def main(parent: int) -> None:
    """Answer requests until there are no more."""
    threading.Thread(target=watch, args=(parent,), daemon=True).start()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    # Whatever else prints must not be taken for an answer.
    os.dup2(2, 1)
    for line in sys.stdin:
        try:
            answer = download(json.loads(line))
        except Exception as error:
            answer = tell(error)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]))
