"""Videos: what the tables ask for, what yt-dlp's errors mean, downloads by the real yt-dlp, own copies."""

from __future__ import annotations

import contextlib
import http.server
import importlib
import io
import json
import os
import shutil
import signal
import threading
import time
import wave
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from conftest import digests
from manifests import UserError, load_corpus
from pipelines.fetching import video_download, videos
from pipelines.fetching.video_list import Segment, Video, frame_span, list_videos
from pipelines.fetching.video_status import ABOUT, PERMANENT, TRANSIENT, WORDS, Trouble, classify, tidy
from pipelines.fetching.videos import VideoOptions, fetch_videos, video_status
from pipelines.journal import read_journal
from shards.audio import load_audio

RATE = 44_100
HEADER = "audiocap_id,youtube_id,start_time,caption"
FFMPEG = {"M4A": ("mp4", "aac", 44_100), "WEBM": ("webm", "libopus", 48_000)}
QUICK = {"pause": 0.0, "cool": 0.0}


def ramp(seconds: float) -> np.ndarray:
    """Stereo in which every second has a pitch of its own: 200 Hz and 40 more each second."""
    at = np.arange(round(seconds * RATE)) / RATE
    wave = 0.4 * np.sin(2 * np.pi * (200 + 40 * np.floor(at)) * at)
    return np.stack([wave, wave], axis=1)


def sound(seconds: float, format: str = "WAV") -> bytes:
    sink = io.BytesIO()
    if format not in FFMPEG:
        soundfile.write(sink, ramp(seconds), RATE, format=format)
        return sink.getvalue()
    container, codec, rate = FFMPEG[format]
    with av.open(sink, "w", format=container) as file:
        stream = file.add_stream(codec, rate=rate, layout="stereo")
        pcm = (ramp(seconds) * 32767).astype(np.int16).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(pcm, format="s16", layout="stereo")
        frame.sample_rate = RATE
        for one in [*av.AudioResampler("fltp", "stereo", rate).resample(frame), None]:
            file.mux(stream.encode(one))
    return sink.getvalue()


def pitches(path: Path) -> list[float]:
    """The loudest frequency of each second of a file."""
    wave = load_audio(str(path))
    seconds = [wave[start : start + 16_000] for start in range(0, len(wave) - 15_000, 16_000)]
    return [float(np.argmax(np.abs(np.fft.rfft(one, 16_000)))) for one in seconds]


def expected(start: int, end: int) -> list[float]:
    return [200.0 + 40 * second for second in range(start, end)]


def audiocaps(root: Path, *rows: tuple[str, int | str], part: str = "test") -> None:
    """Write the table of a split of AudioCaps."""
    table = root / "raw/audiocaps/dataset" / f"{part}.csv"
    table.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{number},{video},{start},A sound." for number, (video, start) in enumerate(rows)]
    table.write_text("\n".join([HEADER, *lines, ""]))


class Site(http.server.ThreadingHTTPServer):
    """A site of videos: path to a status and a body, or to something worse."""

    daemon_threads = True

    def __init__(self) -> None:
        self.content: dict[str, bytes | int | str] = {}
        self.asked: list[str] = []
        self.cookies: set[str | None] = set()
        self.busy = self.most = 0
        self.lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), Answer)
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/{{id}}.wav"


class Answer(http.server.BaseHTTPRequestHandler):
    """Answers for it."""

    server: Site

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        site = self.server
        video = self.path.removeprefix("/").removesuffix(".wav")
        with site.lock:
            site.asked.append(video)
            site.cookies.add(self.headers.get("Cookie"))
        found = site.content.get(video, 404)
        if isinstance(found, int):
            return self.send_error(found)
        body = found if isinstance(found, bytes) else sound(3)
        self.send_response(200)
        html = found == "html"
        body = b"<html><title>Nothing to hear</title></html>" if html else body
        self.send_header("Content-Type", "text/html" if html else "audio/x-wav")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if found == "tarpit":
            while True:
                self.wfile.write(b"R")
                time.sleep(0.2)
        self.wfile.write(body[: len(body) // 2] if found == "broken" else body)


@pytest.fixture
def site() -> Iterator[Site]:
    server = Site()
    yield server
    server.shutdown()


# What is wanted


def test_tables_become_videos_with_spans(root: Path) -> None:
    made = list_videos("audiocaps", ("train", "val", "test", "train-v2"), str(root))
    assert len({video.id for video in made}) == len(made)
    for video in made:
        for segment in video.segments:
            assert segment.end - segment.start == 10
            assert segment.path.endswith(f"/{video.id}_{segment.start:g}.flac")
    music = list_videos("musiccaps", ("train", "eval"), str(root))
    assert any(video.id.startswith("-") for video in music)
    assert all(segment.end - segment.start == 10 for video in music for segment in video.segments)
    with pytest.raises(UserError, match="those are audiocaps, musiccaps, voxceleb1"):
        list_videos("librispeech", ("dev-clean",), str(root))
    with pytest.raises(UserError, match=r"vox1_dev_txt\.zip"):
        list_videos("voxceleb1", ("dev",), str(root))


def test_what_the_miniatures_hold_counts_as_ok(root: Path, corpora: Path) -> None:
    for corpus, split in (("audiocaps", "test"), ("musiccaps", "eval")):
        clips = list(load_corpus(corpus).clips(corpora / corpus, split, lambda *_: None))
        with_audio = {clip.id.rsplit("/", 1)[-1][:11] for clip in clips if clip.audio}
        assert video_status(corpus, (split,), str(root)).get("ok", 0) == len(with_audio)


def test_frames_of_voxceleb_are_spans_at_25_a_second(tmp_path: Path, corpora: Path) -> None:
    text = (
        "Identity  : \tid10001\nReference : \t1zcIwhmdeo4\n\nFRAME \tX \tY \tW \tH \n000245 \t0.4 \t0.2 \t0.2 \t0.3 \n"
    )
    assert frame_span(text + "000448 \t0.4 \t0.2 \t0.2 \t0.3\n") == (9.8, 17.92)
    assert frame_span("nothing") == (-1, -1)
    raw = tmp_path / "raw/voxceleb1"
    shutil.copytree(corpora / "voxceleb1", raw, ignore=shutil.ignore_patterns("wav"))
    for speaker, video, number in (
        ("id10001", "1zcIwhmdeo4", 1),
        ("id10001", "1zcIwhmdeo4", 2),
        ("id10270", "x6uYqmx31kE", 1),
    ):
        place = raw / "txt" / speaker / video / f"{number:05d}.txt"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text.replace("000245", f"{number * 50:06d}") + f"{number * 50 + 100:06d} \t0 \t0 \t0 \t0\n")
    (dev,) = list_videos("voxceleb1", ("dev", "verification-train"), str(tmp_path))
    assert [(one.start, one.end) for one in dev.segments] == [(2, 6), (4, 8)]
    assert dev.segments[1].path == "wav/id10001/1zcIwhmdeo4/00002.wav"
    (test,) = list_videos("voxceleb1", ("test",), str(tmp_path))
    own = tmp_path / "own"
    own.mkdir()
    (own / f"{dev.id}.mp3").write_bytes(sound(9, "MP3"))
    assert fetch_videos("voxceleb1", ("dev", "test"), str(tmp_path), VideoOptions(audio_dir=str(own))) == {
        "ok": 1,
        "absent": 1,
    }
    assert test.id == "x6uYqmx31kE"
    with wave.open(str(raw / dev.segments[1].path)) as cut:
        assert (cut.getframerate(), cut.getnchannels(), cut.getsampwidth(), cut.getnframes()) == (16_000, 1, 2, 64_000)
    assert pitches(raw / dev.segments[1].path) == expected(4, 8)


@given(st.text(max_size=20), st.floats(), st.floats())
def test_only_ids_of_videos_and_spans_of_time_are_asked_for(video: str, start: float, end: float) -> None:
    made = Video(corpus="audiocaps", id=video, segments=(Segment(start=start, end=end, path="x.flac"),))
    if made.valid:
        assert len(video) == 11
        assert all(letter.isascii() and (letter.isalnum() or letter in "_-") for letter in video)
        assert 0 <= start < end


# What errors mean

SAID = {
    "Private video. Sign in if you've been granted access to this video": "private",
    "Video unavailable. This video is private": "private",
    "Video unavailable. This video has been removed by the uploader": "removed",
    "Video unavailable. This video is no longer available because the YouTube account associated with this video "
    "has been terminated.": "removed",
    "This video has been removed for violating YouTube's Terms of Service": "removed",
    "Video unavailable. This video is no longer available due to a copyright claim by X": "removed",
    "Sign in to confirm your age. This video may be inappropriate for some users.": "age",
    "Sign in to confirm you\u2019re not a bot. Use --cookies-from-browser or --cookies": "bot_check",
    "Video unavailable. YouTube is requiring a captcha challenge before playback": "bot_check",
    "Video unavailable. The uploader has not made this video available in your country": "geo",
    "Video unavailable. This video contains content from X, who has blocked it in your country on "
    "copyright grounds": "geo",
    "Join this channel to get access to members-only content like this video.": "members_only",
    "This video is available to this channel's members on level: X": "members_only",
    "This video requires payment to watch": "members_only",
    "This live event will begin in 3 days.": "live",
    "Premieres in 3 hours": "live",
    "Video unavailable. This content isn't available, try again later. The current session has been rate-limited by "
    "YouTube for up to an hour.": "rate_limit",
    "Video unavailable": "unavailable",
    "This video is not available": "unavailable",
    "Requested format is not available. Use --list-formats for a list of available formats": "format",
    "This video is DRM protected": "format",
    "The read operation timed out": "timeout",
    "Something nobody has seen": "failed",
}


@pytest.mark.parametrize(("message", "status"), SAID.items())
def test_reasons_of_the_site_are_known_by_their_words(message: str, status: str) -> None:
    utils = importlib.import_module("yt_dlp.utils")
    inner = utils.ExtractorError(message, expected=True, video_id="deleted-404", ie="youtube")
    error = utils.DownloadError(f"ERROR: {inner}", (type(inner), inner, None))
    assert classify(Trouble(**video_download.tell(error))) == status


def test_errors_are_known_by_their_classes_too() -> None:
    utils = importlib.import_module("yt_dlp.utils")
    net = importlib.import_module("yt_dlp.networking.exceptions")
    for error, status in [
        (utils.GeoRestrictedError("Video unavailable"), "geo"),
        (utils.UserNotLive(), "live"),
        (utils.UnsupportedError("http://a/b"), "format"),
        (utils.ContentTooShortError(3, 5), "network"),
        (net.TransportError("odd"), "network"),
        (net.IncompleteRead(3, 5), "network"),
        (net.CertificateVerifyError("odd"), "network"),
        (utils.ExtractorError("odd", cause=net.TransportError("odder")), "network"),
        (utils.ExtractorError("odd", cause=TimeoutError()), "timeout"),
        (ValueError("odd"), "failed"),
    ]:
        assert classify(Trouble(**video_download.tell(error))) == status, error


def test_every_status_has_its_place_and_its_meaning() -> None:
    assert {status for status, _ in WORDS} <= set(ABOUT)
    assert PERMANENT | TRANSIENT | {"ok"} == set(ABOUT)
    assert not PERMANENT & TRANSIENT
    assert {"private", "removed", "age", "geo", "members_only"} <= PERMANENT


@given(st.text(), st.integers(0, 600), st.lists(st.text(max_size=9), max_size=3))
def test_any_error_has_a_status_and_a_tidy_line(message: str, code: int, kinds: list[str]) -> None:
    assert classify(Trouble(kinds=tuple(kinds), message=message, code=code)) in ABOUT
    line = tidy(f"{message} https://u:secret@host/p?sig=secret /home/me/cookies.txt", "/home/me/cookies.txt")
    assert "\n" not in line and len(line) <= 200 and "secret" not in line and "cookies" not in line.replace(message, "")


# Downloads


def test_segments_are_cut_exactly_and_each_id_has_a_status(site: Site, tmp_path: Path) -> None:
    audiocaps(
        tmp_path, ("-begins_-00", 3), ("gone_______", 0), ("forbidden__", 0), ("page_______", 0), ("../../../xx", 0)
    )
    audiocaps(tmp_path, ("-begins_-00", 5), ("short______", 30), ("tail_______", 8), part="val")
    site.content = {"-begins_-00": sound(16), "forbidden__": 403, "page_______": "html"}
    site.content |= {"short______": sound(2), "tail_______": sound(12)}
    told: list[tuple[str, str]] = []
    options = VideoOptions(address=site.address, attempts=1, **QUICK)
    counts = fetch_videos("audiocaps", ("test", "val"), str(tmp_path), options, lambda *one: told.append(one))
    assert counts == {"ok": 2, "removed": 1, "forbidden": 1, "format": 1, "short": 1, "malformed": 1}
    assert counts == video_status("audiocaps", ("test", "val"), str(tmp_path))
    statuses = {"-begins_-00": "ok", "gone_______": "removed", "forbidden__": "forbidden", "page_______": "format"}
    assert sorted(told) == sorted((statuses | {"short______": "short", "tail_______": "ok"}).items())
    audio = tmp_path / "raw/audiocaps/audio"
    assert pitches(audio / "test/-begins_-00_3.flac") == expected(3, 13)
    assert pitches(audio / "val/-begins_-00_5.flac") == expected(5, 15)
    assert pitches(audio / "val/tail________8.flac") == expected(8, 12)
    assert len(load_audio(str(audio / "test/-begins_-00_3.flac"))) == 160_000
    assert len(digests(audio)) == 3
    assert not (tmp_path / "fetch/audiocaps-videos.tmp").exists()
    clips = {
        clip.id: clip for clip in load_corpus("audiocaps").clips(tmp_path / "raw/audiocaps", "test", lambda *_: None)
    }
    assert clips["audiocaps/-begins_-00_3"].audio[0].path == "audio/test/-begins_-00_3.flac"
    # Only what may have changed is asked for again.
    site.asked.clear()
    site.content["forbidden__"] = sound(10)
    assert fetch_videos("audiocaps", ("test", "val"), str(tmp_path), options)["ok"] == 3
    assert set(site.asked) == {"forbidden__", "page_______"}
    site.asked.clear()
    retry = VideoOptions(address=site.address, attempts=1, retry_failed=True, **QUICK)
    fetch_videos("audiocaps", ("test", "val"), str(tmp_path), retry)
    assert set(site.asked) == {"gone_______", "short______", "page_______"}


def test_a_cut_begins_and_ends_at_its_sample(site: Site, tmp_path: Path) -> None:
    audiocaps(tmp_path, ("exact______", 3))
    pcm = np.random.default_rng(0).integers(-9000, 9000, 16_000 * 14).astype("<i2")
    sink = io.BytesIO()
    with wave.open(sink, "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(pcm.tobytes())
    site.content = {"exact______": sink.getvalue()}
    fetch_videos("audiocaps", ("test",), str(tmp_path), VideoOptions(address=site.address, **QUICK))
    cut = load_audio(str(tmp_path / "raw/audiocaps/audio/test/exact_______3.flac"))
    assert np.array_equal(cut * 32768, pcm[48_000:208_000])


def test_one_more_split_fetches_what_it_lacks_of_known_ids(site: Site, tmp_path: Path) -> None:
    audiocaps(tmp_path, ("twice______", 0))
    audiocaps(tmp_path, ("twice______", 2), part="val")
    site.content = {"twice______": sound(12)}
    options = VideoOptions(address=site.address, **QUICK)
    assert fetch_videos("audiocaps", ("test",), str(tmp_path), options) == {"ok": 1}
    assert video_status("audiocaps", ("test", "val"), str(tmp_path)) == {"waiting": 1}
    assert fetch_videos("audiocaps", ("test", "val"), str(tmp_path), options) == {"ok": 1}
    assert pitches(tmp_path / "raw/audiocaps/audio/val/twice_______2.flac") == expected(2, 12)


def test_a_tarpit_costs_its_deadline_and_no_other_video(site: Site, tmp_path: Path) -> None:
    audiocaps(tmp_path, ("tarpit_____", 0), ("fine_______", 0))
    site.content = {"tarpit_____": "tarpit", "fine_______": sound(10)}
    options = VideoOptions(address=site.address, deadline=2.5, attempts=1, jobs=1, **QUICK)
    begin = time.monotonic()
    assert fetch_videos("audiocaps", ("test",), str(tmp_path), options) == {"timeout": 1, "ok": 1}
    assert time.monotonic() - begin < 6
    assert children() == set()


def children() -> set[str]:
    """The ids of processes of the downloader that this process has started."""
    started: set[str] = set()
    for one in Path(f"/proc/{os.getpid()}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # threads end while we look
            started |= set((one / "children").read_text().split())
    return {pid for pid in started if b"video_download" in Path(f"/proc/{pid}/cmdline").read_bytes()}


def test_what_breaks_off_is_tried_again_and_never_kept(site: Site, tmp_path: Path) -> None:
    audiocaps(tmp_path, ("broken_____", 0), ("busy_______", 0))
    site.content = {"broken_____": "broken", "busy_______": 429}
    options = VideoOptions(address=site.address, attempts=2, **QUICK)
    assert fetch_videos("audiocaps", ("test",), str(tmp_path), options) == {"network": 1, "rate_limit": 1}
    assert not (tmp_path / "raw/audiocaps/audio").exists()
    assert site.asked.count("busy_______") >= 2
    site.content = {"broken_____": sound(10), "busy_______": sound(10)}
    assert fetch_videos("audiocaps", ("test",), str(tmp_path), options) == {"ok": 2}


def test_a_site_that_is_away_ends_the_run_and_a_later_one_gets_all(site: Site, tmp_path: Path) -> None:
    names = [f"video{number:06d}" for number in range(12)]
    audiocaps(tmp_path, *[(name, 0) for name in names])
    away = VideoOptions(address="http://127.0.0.1:9/{id}.wav", jobs=1, **QUICK)
    told: list[str] = []
    counts = fetch_videos("audiocaps", ("test",), str(tmp_path), away, lambda video, status: told.append(video))
    assert counts == {"network": videos.CLOSED, "waiting": 12 - videos.CLOSED}
    assert told == names[: videos.CLOSED]
    site.content = dict.fromkeys(names, sound(3))
    assert fetch_videos("audiocaps", ("test",), str(tmp_path), VideoOptions(address=site.address, **QUICK)) == {
        "ok": 12
    }


def test_many_requests_are_answered_by_pauses_then_by_the_end(site: Site, tmp_path: Path) -> None:
    audiocaps(tmp_path, *[(f"video{number:06d}", 0) for number in range(9)])
    site.content = {f"video{number:06d}": 429 for number in range(9)}
    options = VideoOptions(address=site.address, jobs=1, pause=0.0, cool=0.05)
    begin = time.monotonic()
    assert fetch_videos("audiocaps", ("test",), str(tmp_path), options)["waiting"] == 9 - videos.CLOSED
    assert time.monotonic() - begin >= 0.05 * (1 + 2 + 4 + 8)


def test_cookies_are_sent_and_neither_told_nor_changed(site: Site, tmp_path: Path) -> None:
    audiocaps(tmp_path, ("gone_______", 0), ("fine_______", 0))
    site.content = {"fine_______": sound(10)}
    cookies = tmp_path / "my-secret-place.txt"
    cookies.write_text("# Netscape HTTP Cookie File\n127.0.0.1\tFALSE\t/\tFALSE\t0\tsession\tcanary\n")
    before = cookies.read_bytes(), cookies.stat().st_mtime_ns
    options = VideoOptions(address=site.address, cookies=str(cookies), **QUICK)
    assert fetch_videos("audiocaps", ("test",), str(tmp_path), options) == {"removed": 1, "ok": 1}
    assert site.cookies == {"session=canary"}
    assert (cookies.read_bytes(), cookies.stat().st_mtime_ns) == before
    journal = (tmp_path / "fetch/audiocaps-videos.jsonl").read_text()
    assert "secret" not in journal and "canary" not in journal
    cookies.write_text("not cookies")
    audiocaps(tmp_path, ("other______", 0))
    with pytest.raises(UserError) as told:
        fetch_videos("audiocaps", ("test",), str(tmp_path), options)
    assert "secret" not in str(told.value)
    cookies.unlink()
    with pytest.raises(UserError, match="cannot be read"):
        fetch_videos("audiocaps", ("test",), str(tmp_path), options)


def test_the_downloader_dies_with_its_parent(site: Site, tmp_path: Path) -> None:
    audiocaps(tmp_path, ("tarpit_____", 0))
    site.content = {"tarpit_____": "tarpit"}
    child = os.fork()
    if child == 0:
        fetch_videos("audiocaps", ("test",), str(tmp_path), VideoOptions(address=site.address, **QUICK))
        os._exit(0)
    wait_for(lambda: bool(site.asked))
    started = Path(f"/proc/{child}/task/{child}/children").read_text().split() or [
        pid for one in Path(f"/proc/{child}/task").iterdir() for pid in (one / "children").read_text().split()
    ]
    assert started
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    wait_for(lambda: not any(alive(pid) for pid in started))


def alive(pid: str) -> bool:
    try:
        return "video_download" in Path(f"/proc/{pid}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_for(done: Callable[[], bool]) -> None:
    until = time.monotonic() + 15
    while not done():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_without_yt_dlp_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    audiocaps(tmp_path, ("fine_______", 0))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install yt-dlp.*--audio-dir"):
        fetch_videos("audiocaps", ("test",), str(tmp_path))


@pytest.mark.parametrize("wrong", [{"jobs": 0}, {"jobs": 99}, {"attempts": 0}, {"deadline": 0.0}, {"pause": -1.0}])
def test_options_that_cannot_be_meant_are_refused(wrong: dict, tmp_path: Path) -> None:
    audiocaps(tmp_path, ("fine_______", 0))
    with pytest.raises(UserError):
        fetch_videos("audiocaps", ("test",), str(tmp_path), VideoOptions(**wrong))


# One's own copies


@pytest.mark.parametrize("format", ["wav", "flac", "ogg", "mp3", "m4a", "webm"])
def test_own_copies_are_cut_or_kept(format: str, tmp_path: Path) -> None:
    audiocaps(
        tmp_path,
        *[("whole______", 3), ("Ywhole_____", 2), ("clip_______", 30), ("named______", 30), ("wrong______", 30)],
        *[("longnamed__", 3), ("damaged____", 0), ("absent_____", 0), ("empty______", 0)],
    )
    own = tmp_path / "own" / "deep"
    own.mkdir(parents=True)
    whole, clip = sound(14, format.upper()), sound(10, format.upper())
    named = {
        "whole______": whole,
        "YYwhole_____": whole,
        "clip_______": clip,
        "Ynamed_______30": clip,
        "wrong______": whole,
        "longnamed___3": whole,
        "damaged____": b"RIFF and nothing",
        "empty______": b"",
    }
    for stem, data in named.items():
        (own / f"{stem}.{format.upper()}").write_bytes(data)
    (own / "absent_____.txt").write_text("no audio")
    before = digests(own)
    counts = fetch_videos("audiocaps", ("test",), str(tmp_path), VideoOptions(audio_dir=str(own.parent)))
    assert counts == {"ok": 4, "wrong_length": 2, "undecodable": 2, "absent": 1}
    assert digests(own) == before
    audio = tmp_path / "raw/audiocaps/audio/test"
    assert pitches(audio / "whole_______3.flac") == expected(3, 13)
    assert pitches(audio / "Ywhole______2.flac") == expected(2, 12)
    assert (audio / f"clip________30.{format}").read_bytes() == clip
    assert (audio / f"named_______30.{format}").read_bytes() == clip
    entries = read_journal(str(tmp_path / "fetch/audiocaps-videos.jsonl")).entries
    assert "wrong______" in dict(entries["wrong______"].pairs)["detail"]
    # What was wrong is tried again: another copy may be right.
    (own / f"wrong______.{format.upper()}").write_bytes(clip)
    assert fetch_videos("audiocaps", ("test",), str(tmp_path), VideoOptions(audio_dir=str(own)))["ok"] == 5


def test_a_copy_mends_what_the_site_has_no_more(site: Site, tmp_path: Path) -> None:
    audiocaps(tmp_path, ("gone_______", 0), ("gone2______", 0))
    options = VideoOptions(address=site.address, **QUICK)
    assert fetch_videos("audiocaps", ("test",), str(tmp_path), options) == {"removed": 2}
    own = tmp_path / "own"
    own.mkdir()
    (own / "gone_______.wav").write_bytes(sound(10))
    counts = fetch_videos("audiocaps", ("test",), str(tmp_path), VideoOptions(audio_dir=str(own)))
    assert counts == {"ok": 1, "removed": 1}, "of what has no copy, the site's word stands"
    with pytest.raises(UserError, match="no folder"):
        fetch_videos("audiocaps", ("test",), str(tmp_path), VideoOptions(audio_dir=str(tmp_path / "nowhere")))


def test_the_journal_is_lines_of_json(site: Site, tmp_path: Path) -> None:
    audiocaps(tmp_path, ("fine_______", 0), ("gone_______", 0))
    site.content = {"fine_______": sound(10)}
    fetch_videos("audiocaps", ("test",), str(tmp_path), VideoOptions(address=site.address, **QUICK))
    lines = (tmp_path / "fetch/audiocaps-videos.jsonl").read_text().splitlines()
    told = {line["key"]: line for line in map(json.loads, lines)}
    assert dict(told["fine_______"]["pairs"])["seconds"] == "10.000"
    assert told["gone_______"]["failed"] == "removed"
    assert "404" in dict(told["gone_______"]["pairs"])["detail"]
