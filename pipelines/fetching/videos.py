"""Videos: fetch the audio of corpora that publish only ids, by yt-dlp or from one's own copies, with a status an id."""

from __future__ import annotations

import concurrent.futures
import contextlib
import importlib.util
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

import msgspec

from manifests import Failed, UserError, files
from pipelines.fetching.video_audio import LARGEST, SLACK, Shelf, cut, find_copies, store, take_copy
from pipelines.fetching.video_list import VIDEO_CORPORA, Segment, Video, list_videos
from pipelines.fetching.video_process import SITE, Downloader, Got
from pipelines.fetching.video_status import NOW, PERMANENT, SLOW_DOWN, classify, tidy
from pipelines.journal import Entry, Journal, open_journal, read_journal
from pipelines.scan import disk_folder
from shards.audio import Refused
from shards.flac import RATE

__all__ = ["VIDEO_CORPORA", "Segment", "Video", "VideoOptions", "fetch_videos", "list_videos", "video_status"]

CLOSED = 5
"""Troubles of one kind in a row, of the connection or of too many requests, after which a run ends."""
LATER = 5.0
"""Times the pause between two downloads, before those that failed are tried again; and again as many times."""
UNUSABLE = {"ModuleNotFoundError", "ImportError", "CookieLoadError"}
"""Errors of yt-dlp that no other video mends."""

Watch = Callable[[str, str], None]
Try = Callable[[Video], None]
Facts = dict[str, str]


class VideoOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How to get videos."""

    audio_dir: str = ""
    """A folder of one's own copies, in any container; then nothing is downloaded."""
    cookies: str = ""
    """A cookies.txt; its path is never told."""
    deadline: float = 180.0
    """Seconds for one video."""
    pause: float = 1.0
    """Seconds between the beginnings of two downloads, of all jobs together."""
    cool: float = 60.0
    """Seconds in which nothing is begun after the site asked for fewer requests; twice as many each further time."""
    jobs: int = 2
    """Videos at a time."""
    attempts: int = 3
    """Tries of a video whose trouble passes, in one run."""
    retry_failed: bool = False
    """Whether to try those again too whose trouble does not pass."""
    address: str = SITE + "watch?v={id}"
    """Where a video is, with {id} in it."""


def journal_path(root: str, corpus: str) -> str:
    """Return where the statuses of the videos of a corpus are."""
    return files.join(root, "fetch", f"{corpus}-videos.jsonl")


def video_status(corpus: str, splits: tuple[str, ...], root: str) -> dict[str, int]:
    """Count the videos of `splits` by status, from what is on disk. UserError if the table of ids is not there."""
    journal = read_journal(journal_path(root, corpus))
    return count(list_videos(corpus, splits, root), journal, Shelf(disk_folder(root, corpus)))


def count(videos: list[Video], journal: Journal, shelf: Shelf) -> dict[str, int]:
    """Count `videos` by status, the most frequent first."""
    return dict(Counter(status_of(video, journal, shelf) for video in videos).most_common())


def status_of(video: Video, journal: Journal, shelf: Shelf) -> str:
    """Return the status of a video: what is on disk counts for more than what is written of it."""
    if not video.valid:
        return "malformed"
    missing = {segment.path for segment in shelf.missing(video)}
    if not missing:
        return "ok"
    entry = journal.entries.get(video.id)
    if entry is None or entry.failed:
        return entry.failed if entry else "waiting"
    # It was fetched: what is missing all the same lies behind its end, or another split wants it now.
    return "short" if missing <= set(dict(entry.pairs).get("short", "").split()) else "waiting"


def fetch_videos(
    corpus: str,
    splits: tuple[str, ...],
    root: str,
    options: VideoOptions | None = None,
    watch: Watch | None = None,
) -> dict[str, int]:
    """Fetch what is not there yet of the videos of `splits`, and return how many have which status.

    ``watch(id, status)`` is told each video that was tried, by one thread at a time. UserError if the table of ids or
    yt-dlp is missing, Failed if nothing can be written. The site counts requests by address: run one of these at a
    time behind an address.
    """
    options = options or VideoOptions()
    check(options, root)
    videos = list_videos(corpus, splits, root)
    copies = find_copies(options.audio_dir) if options.audio_dir else None
    raw = disk_folder(root, corpus)
    # What no site has, a copy of one's own may have.
    passed = set() if options.retry_failed or copies is not None else PERMANENT
    with open_journal(journal_path(root, corpus)) as journal:
        shelf = Shelf(raw)
        wanted = [video for video in videos if status_of(video, journal, shelf) not in {"ok", "malformed"} | passed]
        run = Run(files.join(root, "fetch", f"{corpus}-videos.tmp"), raw, shelf, options, journal, watch)
        try:
            if copies is not None:
                run.all(wanted, lambda: contextlib.nullcontext(lambda video: run.copy(video, copies)))
            elif wanted:
                run.download_all(wanted)
        except OSError as error:
            raise Failed(f"{corpus}: the videos cannot be written: {error.strerror or error}; run it again") from None
        return count(videos, journal, Shelf(raw))


def check(options: VideoOptions, root: str) -> None:
    """Raise UserError for what cannot be meant, or cannot be done here."""
    if not files.is_local(root):
        raise UserError(f"videos are fetched into a folder of this machine, not to {files.redact(root)!r}")
    if not 1 <= options.jobs <= 32 or options.attempts < 1:
        raise UserError(f"videos take 1 to 32 jobs and at least 1 attempt, not {options.jobs} and {options.attempts}")
    if options.deadline <= 0 or min(options.pause, options.cool) < 0:
        raise UserError("the deadline of a video must be above 0 s, and no pause below")
    if options.cookies and not os.access(options.cookies, os.R_OK):
        raise UserError("the cookies file cannot be read; --cookies takes a cookies.txt in the format of Netscape")
    if not options.audio_dir and importlib.util.find_spec("yt_dlp") is None:
        raise UserError(
            "videos need yt-dlp, an extra that is not installed here: pip install yt-dlp; or bring your own copies by "
            "--audio-dir"
        )


class Run:
    """One run over videos: who is tried when, and what is written of it."""

    def __init__(
        self, scratch: str, raw: str, shelf: Shelf, options: VideoOptions, journal: Journal, watch: Watch | None
    ) -> None:
        """Keep segments in `raw`, except for those of `shelf`; `scratch` is a folder for whole videos."""
        self.scratch, self.raw, self.shelf, self.options = scratch, raw, shelf, options
        self.journal, self.watch = journal, watch
        self.turn, self.gate = threading.Lock(), threading.Lock()
        self.next = 0.0
        """The monotonic second before which nothing is begun."""
        self.cool = options.cool
        self.trouble = ("", 0)
        """The last status, and how many times in a row, if it is one that ends a run."""
        self.closed = threading.Event()

    def download_all(self, videos: list[Video]) -> None:
        """Download `videos`; those whose trouble passes again behind all others, up to the attempts of the options."""
        files.remove_tree(self.scratch)
        try:
            for turn in range(self.options.attempts):
                self.next = max(self.next, time.monotonic() + (self.options.pause * LATER**turn if turn else 0))
                self.all(videos, self.downloading)
                failed = {key for key, entry in self.journal.entries.items() if entry.failed in NOW | SLOW_DOWN}
                videos = [video for video in videos if video.id in failed]
                if self.closed.is_set() or not videos:
                    return
        finally:
            files.remove_tree(self.scratch)

    def all(self, videos: list[Video], worker: Callable[[], contextlib.AbstractContextManager[Try]]) -> None:
        """Try each of `videos` once, in order, several at a time; each thread by a `worker` of its own."""
        queue = iter(videos)

        def work() -> None:
            with worker() as attempt:
                while not self.closed.is_set():
                    with self.turn:
                        video = next(queue, None)
                    if video is None:
                        return
                    attempt(video)

        with concurrent.futures.ThreadPoolExecutor(self.options.jobs) as pool:
            threads = [pool.submit(work) for _ in range(min(self.options.jobs, len(videos)))]
            try:
                for thread in concurrent.futures.as_completed(threads):
                    thread.result()
            except BaseException:
                # An interrupt or a full disk: the other threads end with the video they have.
                self.closed.set()
                raise

    @contextlib.contextmanager
    def downloading(self) -> Iterator[Try]:
        """Give a function that downloads a video, with a process of its own behind it."""
        folder = files.join(self.scratch, str(threading.get_ident()))
        with Downloader(folder, self.options.cookies, LARGEST) as downloader:
            yield lambda video: self.download(video, downloader)

    def download(self, video: Video, downloader: Downloader) -> None:
        """Download one video when its time has come, and keep its segments."""
        with self.gate:
            while (rest := self.next - time.monotonic()) > 0 and not self.closed.wait(min(rest, 0.2)):
                pass
            self.next = max(self.next, time.monotonic() + self.options.pause)
        if self.closed.is_set():
            return
        got = downloader.fetch(self.options.address.format(id=video.id), self.options.deadline)
        if isinstance(got, Got):
            self.tell(video, *self.keep(video, got))
            return
        detail = tidy(got.message, self.options.cookies, os.path.abspath(self.options.cookies))
        if UNUSABLE.intersection(got.kinds):
            raise UserError(f"yt-dlp cannot work here: {detail}")
        self.tell(video, classify(got), {"detail": detail})

    def keep(self, video: Video, got: Got) -> tuple[str, Facts]:
        """Cut the missing segments out of a whole video and store them; return a status, empty if done, and facts."""
        data = files.read_bytes(got.path)
        short, seconds = [], []
        for segment in self.shelf.missing(video):
            try:
                pcm = cut(data, video.id, segment)
            except Refused as refusal:
                if refusal.reason != "no_samples":
                    return "network" if refusal.reason == "truncated" else "undecodable", {"detail": str(refusal)}
                short.append(segment.path)
                continue
            length, due = len(pcm) / RATE, min(segment.end, got.duration) - segment.start
            if length < due - SLACK:
                return "network", {"detail": f"{length:.2f} s of {due:.2f} s: what came is not whole"}
            store(self.raw, segment.path, pcm)
            seconds.append(f"{length:.3f}")
        if short and not seconds:
            return "short", {"detail": f"ends before {min(one.start for one in video.segments):g} s"}
        return "", {"seconds": " ".join(seconds), "short": " ".join(short)}

    def copy(self, video: Video, copies: dict[str, list[str]]) -> None:
        """Take the missing segments of one video from one's own copies."""
        wanted = self.shelf.missing(video)
        said = [take_copy(video, segment, copies, self.raw) for segment in wanted]
        status, detail = ("", "") if ("", "") in said else next((one for one in said if one[0] != "absent"), said[0])
        short = [segment.path for segment, one in zip(wanted, said, strict=True) if one[0] == "short"]
        self.tell(video, status, {"detail": tidy(detail), "short": " ".join(short)})

    def tell(self, video: Video, status: str, facts: Facts) -> None:
        """Write down what became of a video; slow the run down, or end it, where many fail alike."""
        entry = Entry(key=video.id, failed=status, pairs=tuple((name, fact) for name, fact in facts.items() if fact))
        with self.turn:
            # What no copy was found for keeps what a site said of it.
            if status != "absent" or video.id not in self.journal.entries:
                self.journal.add(entry)
            alike = (self.trouble[1] if self.trouble[0] == status else 0) + 1
            self.trouble = (status, alike) if status in NOW | SLOW_DOWN else ("", 0)
            if status in SLOW_DOWN:
                self.next = max(self.next, time.monotonic() + self.cool)
                self.cool *= 2
            elif not status:
                self.cool = self.options.cool
            if self.trouble[1] >= CLOSED:
                self.closed.set()
            if self.watch:
                self.watch(video.id, status or "ok")
