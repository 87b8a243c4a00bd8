"""Containers: m4a, webm and aac come out as they went in; what libsndfile reads badly, ffmpeg reads well."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import soxr

from manifests import AudioRef
from shards import audio, containers, refusals
from shards.audio import decode, load_audio, open_sound, probe
from shards.containers import Container
from shards.refusals import Refused
from shards.render import store
from sounds import RATE, by_ffmpeg, by_libsndfile, speech, without_first_frame

KINDS = {
    "m4a": (44100, "ipod", "aac", {}),
    "m4a-fast": (RATE, "mp4", "aac", {"movflags": "faststart"}),
    "m4a-fragments": (RATE, "mp4", "aac", {"movflags": "frag_keyframe+empty_moov"}),
    "alac": (44100, "ipod", "alac", {}),
    "webm": (48000, "webm", "libopus", {}),
    "mkv": (RATE, "matroska", "pcm_s16le", {}),
    "aac": (32000, "adts", "aac", {}),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of each kind, of the same three seconds of speech."""
    folder = tmp_path_factory.mktemp("containers")
    for name, (rate, kind, codec, options) in KINDS.items():
        (folder / name).write_bytes(by_ffmpeg(speech(3, rate), rate, kind, codec, **options))
    return folder


def whole(path: Path) -> np.ndarray:
    """All samples of the first channel, by PyAV alone."""
    with av.open(str(path)) as media:
        arrays = [frame.to_ndarray()[:1] for frame in media.decode(audio=0)]
    samples = np.concatenate(arrays, axis=1)[0]
    return samples if samples.dtype == np.float32 else samples / np.float32(2 ** (8 * samples.itemsize - 1))


def likeness(ours: np.ndarray, theirs: np.ndarray, slip: int = 2100) -> float:
    """The best correlation of two signals, one of which may be late."""
    length = min(len(ours), len(theirs)) - slip
    return max(float(np.corrcoef(ours[late : late + length], theirs[:length])[0, 1]) for late in range(0, slip, 1))


@pytest.mark.parametrize("kind", KINDS)
def test_the_speech_comes_out_that_went_in(folder: Path, kind: str) -> None:
    rate = KINDS[kind][0]
    of = store(str(folder), (AudioRef(path=kind),))
    assert (of.action, of.source_rate) == ("transcode", rate)
    ours = soundfile.read(io.BytesIO(of.flac), dtype="float32")[0]
    source = speech(3)
    # The frames of a codec begin before the clip and end behind it.
    assert 0 <= len(ours) - len(source) <= 4200 * RATE / rate
    assert likeness(ours[::4], source[::4], 550) > (0.95 if rate > RATE else 0.9)
    theirs = whole(folder / kind)
    theirs = theirs if rate == RATE else soxr.resample(theirs, rate, RATE, quality="HQ")
    assert np.abs(ours - np.clip(theirs, -1, 1)).max() <= 0.51 / 32768


@pytest.mark.parametrize("kind", KINDS)
def test_a_span_is_a_slice(folder: Path, kind: str) -> None:
    theirs = whole(folder / kind)
    data = (folder / kind).read_bytes()
    for first, frames in [(0, None), (1, 5), (1023, 1026), (40_000, None), (7, 70_000), (len(theirs) - 3, 100)]:
        with open_sound(io.BytesIO(data), kind, len(data)) as sound:
            assert isinstance(sound, Container)
            ours = np.concatenate(list(sound.blocks(first, frames)))[:, 0]
        assert np.array_equal(ours, theirs[first : None if frames is None else first + frames])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.3, 0.7, 0.99])
def test_what_was_cut_is_refused(folder: Path, tmp_path: Path, kind: str, share: float) -> None:
    data = (folder / kind).read_bytes()
    (tmp_path / "cut").write_bytes(data[: round(len(data) * share)])
    with pytest.raises(Refused) as refused:
        store(str(tmp_path), (AudioRef(path="cut"),))
    assert refused.value.reason == "truncated"


def test_a_track_that_ends_before_its_index_says_is_truncated(folder: Path, tmp_path: Path) -> None:
    """The bytes are all there, and nothing but zeros: ffmpeg passes over them."""
    data = (folder / "m4a-fast").read_bytes()
    place = data.index(b"mdat") + 4
    half = place + (len(data) - place) // 2
    (tmp_path / "holed").write_bytes(data[:half] + bytes(len(data) - half))
    with pytest.raises(Refused) as refused:
        store(str(tmp_path), (AudioRef(path="holed"),))
    assert refused.value.reason in ("truncated", "corrupt")


def test_stereo_and_the_channel_that_is_named(tmp_path: Path) -> None:
    left = speech(1, 44100)
    stereo = np.stack([left, np.zeros_like(left)], 1)
    (tmp_path / "a.m4a").write_bytes(by_ffmpeg(stereo, 44100, "ipod", "alac"))
    signals = [
        soundfile.read(io.BytesIO(store(str(tmp_path), (AudioRef(path="a.m4a", channel=channel),)).flac))[0]
        for channel in (None, 0, 1)
    ]
    assert np.abs(signals[0] * 2 - signals[1]).max() < 2 / 32768
    assert not signals[2].any()
    with pytest.raises(Refused, match="channels"):
        store(str(tmp_path), (AudioRef(path="a.m4a", channel=2),))


def test_the_caps_hold(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "MAX_SECONDS", 2.0)
    monkeypatch.setattr(containers, "MAX_SECONDS", 2.0)
    for kind in ("m4a", "webm", "aac"):
        with pytest.raises(Refused) as refused:
            store(str(folder), (AudioRef(path=kind),))
        assert refused.value.reason == "too_long"
    monkeypatch.setattr(refusals, "MAX_RATE", 40_000)
    with pytest.raises(Refused, match="44100 Hz"):
        store(str(folder), (AudioRef(path="m4a"),))


def test_a_film_without_sound_is_no_audio(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as media:
        track = media.add_stream("mpeg4", rate=5)
        track.width = track.height = 64
        for packet in [*track.encode(av.VideoFrame(64, 64, "yuv420p")), *track.encode(None)]:
            media.mux(packet)
    with pytest.raises(Refused, match="no audio track"):
        store(str(tmp_path), (AudioRef(path="a.mp4"),))


@pytest.mark.parametrize(
    "list_of_files",
    [b"#EXTM3U\n#EXTINF:3,\n{0}\n", b"ffconcat version 1.0\nfile '{0}'\n", b"<MPD><BaseURL>{0}</BaseURL></MPD>"],
)
def test_a_list_of_files_opens_none_of_them(folder: Path, tmp_path: Path, list_of_files: bytes) -> None:
    content = list_of_files.replace(b"{0}", bytes(folder / "m4a"))
    for mark in (
        b"",
        b"\0\0\0\x10ftypM4A \0\0\0\0\0\0\0\x08moov",
        b"\x1a\x45\xdf\xa3\x80",
        b"\xff\xf1\x50\x40\x02\x1f\xfc",
    ):
        (tmp_path / "list.m4a").write_bytes(mark + content)
        with pytest.raises(Refused) as refused:
            store(str(tmp_path), (AudioRef(path="list.m4a"),))
        assert refused.value.reason in ("not_audio", "corrupt", "truncated", "no_samples")
    with pytest.raises(PermissionError):
        containers.no_other_file("http://127.0.0.1/", 0, {})


def test_an_mp3_that_does_not_count_its_frames_is_not_cut_where_libsndfile_guesses_its_end(tmp_path: Path) -> None:
    loud = np.random.default_rng(0).normal(0, 0.3, 4 * 48000).astype(np.float32)
    wave = np.concatenate([loud, np.zeros(12 * 48000, np.float32), speech(4, 48000)])
    data = without_first_frame(
        by_libsndfile(wave, 48000, "MP3", "MPEG_LAYER_III", bitrate_mode="VARIABLE", compression_level=0.3)
    )
    (tmp_path / "a.mp3").write_bytes(data)
    assert len(soundfile.read(io.BytesIO(data))[0]) < 10 * 48000, "libsndfile has learned to count: drop our way round"
    of = store(str(tmp_path), (AudioRef(path="a.mp3"),))
    assert of.samples / RATE == pytest.approx(20, abs=0.1)
    ours = soundfile.read(io.BytesIO(of.flac), dtype="float32")[0][16 * RATE :]
    assert likeness(ours[::4], speech(4)[::4], 500) > 0.9
    assert probe(str(tmp_path / "a.mp3"), len(data)) == pytest.approx(20, abs=0.1)
    end = store(str(tmp_path), (AudioRef(path="a.mp3", start=17.0, seconds=2.0),))
    assert end.samples == 2 * RATE


def test_opus_at_48_kilohertz_is_the_same_by_ffmpeg_as_by_libsndfile(tmp_path: Path) -> None:
    wave = speech(3, 48000)
    data = by_libsndfile(np.stack([wave, wave / 2], 1), 48000, "OGG", "OPUS")
    with open_sound(io.BytesIO(data), "a", len(data), whole=True) as sound:
        assert isinstance(sound, Container)
        ours = np.concatenate(list(sound.blocks(0, None)))
    theirs = soundfile.read(io.BytesIO(data), dtype="float32")[0]
    assert ours.shape == theirs.shape
    assert 10 * np.log10((theirs**2).mean() / ((ours - theirs) ** 2).mean()) > 25
    with open_sound(io.BytesIO(data), "a", len(data)) as sound:
        assert not isinstance(sound, Container), "spans are sought, by libsndfile"


def test_without_pyav_the_user_is_told_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "pyav", lambda: None)
    with pytest.raises(Refused, match="pip install av"):
        store(str(folder), (AudioRef(path="m4a"),))
    assert audio.versions()["av"] == ""
    high = speech(1, 48000)
    uncounted = without_first_frame(by_libsndfile(high, 48000, "MP3", "MPEG_LAYER_III", bitrate_mode="VARIABLE"))
    with pytest.raises(Refused, match="pip install av"):
        decode(uncounted, AudioRef(path="a.mp3"))
    opus = by_libsndfile(high, 48000, "OGG", "OPUS")
    assert len(decode(opus, AudioRef(path="a.opus"))[0]) == RATE


def test_the_other_doors_open_them_too(folder: Path) -> None:
    for kind in KINDS:
        path = folder / kind
        assert len(load_audio(str(path))) >= 3 * RATE
        seconds = probe(str(path), path.stat().st_size)
        # ADTS counts nothing.
        assert seconds == pytest.approx(0 if kind == "aac" else 3, abs=0.2)
