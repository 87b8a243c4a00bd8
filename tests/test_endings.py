"""Endings: a lossy file that was cut is known by what its container says; a whole one never is taken for cut."""

from __future__ import annotations

import io
import random
import time
from pathlib import Path

import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from shards.endings import Ending, ending
from sounds import RATE, by_ffmpeg, by_libsndfile, speech, without_first_frame

COUNTED = ("mp3", "mp3-vbri", "m4a", "m4a-fast", "webm", "vorbis", "opus", "nist")
"""Kinds that say where they end, so that every cut shows."""


def of(data: bytes) -> Ending:
    return ending(io.BytesIO(data), len(data))


def mp3(**options: object) -> bytes:
    return by_libsndfile(speech(rate=48000), 48000, "MP3", "MPEG_LAYER_III", **options)


def vbri(data: bytes) -> bytes:
    """The same MP3, its counts told as FhG's encoders tell them."""
    place = data.index(b"Xing")
    frames, size = data[place + 8 : place + 12], data[place + 12 : place + 16]
    length = len(data) - len(without_first_frame(data))
    counts = b"VBRI" + bytes(6) + size + frames
    return data[:4] + bytes(32) + counts + bytes(length - 36 - len(counts)) + data[length:]


@pytest.fixture(scope="module")
def kinds() -> dict[str, bytes]:
    wave = speech()
    return {
        "mp3": mp3(),
        "mp3-vbri": vbri(mp3()),
        "m4a": by_ffmpeg(wave, RATE, "ipod", "aac"),
        "m4a-fast": by_ffmpeg(wave, RATE, "mp4", "aac", movflags="faststart"),
        "webm": by_ffmpeg(speech(rate=48000), 48000, "webm", "libopus"),
        "vorbis": by_libsndfile(wave, RATE, "OGG", "VORBIS"),
        "opus": by_libsndfile(wave, RATE, "OGG", "OPUS"),
        "nist": by_libsndfile(wave, RATE, "NIST"),
        "uncounted": without_first_frame(mp3()),
        "aac": by_ffmpeg(wave, RATE, "adts", "aac"),
    }


def test_no_real_file_is_taken_for_cut(corpora: Path) -> None:
    paths = [path for path in sorted(corpora.rglob("*")) if path.suffix in (".ogg", ".opus", ".mp3")]
    seen = {path: of(path.read_bytes()) for path in paths if b"<html" not in path.read_bytes()[:500].lower()}
    assert len(seen) > 50
    assert {end.container for end in seen.values()} == {"ogg", "mp3"}
    assert not {path.name: end.missing for path, end in seen.items() if end.missing}


def test_no_made_file_is_taken_for_cut(kinds: dict[str, bytes]) -> None:
    assert not {name: of(data).missing for name, data in kinds.items() if of(data).missing}


@pytest.mark.parametrize("kind", COUNTED)
def test_what_counts_is_missed_wherever_it_is_cut(kinds: dict[str, bytes], kind: str) -> None:
    data = kinds[kind]
    cuts = [len(data) - 1, len(data) - 2, *random.Random(kind).sample(range(1100, len(data)), 200)]
    assert not [cut for cut in cuts if not of(data[:cut]).missing]


@pytest.mark.parametrize("kind", ["uncounted", "aac"])
def test_what_does_not_count_is_missed_unless_it_is_cut_between_two_frames(kinds: dict[str, bytes], kind: str) -> None:
    data = kinds[kind]
    unseen = [cut for cut in range(len(data) // 2, len(data)) if not of(data[:cut]).missing]
    # A frame begins there: the same two bytes as at the start, but for the last cut, which is none.
    assert unseen
    assert {data[cut : cut + 2] for cut in unseen} == {data[:2]}
    assert len(unseen) < 2 * 48000 // 1000


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 24000, 32000, 44100, 48000])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
def test_the_frames_of_an_mp3_are_counted_as_they_are_decoded(rate: int, channels: int, mode: str) -> None:
    wave = speech(3, rate).repeat(channels).reshape(-1, channels)
    data = by_libsndfile(wave, rate, "MP3", "MPEG_LAYER_III", bitrate_mode=mode, compression_level=0.4)
    counted = of(data)
    assert (counted.container, counted.missing, counted.guessed, counted.frames) == ("mp3", "", False, None)
    blind = data.replace(b"Xing", bytes(4)).replace(b"Info", bytes(4))
    end = of(blind)
    assert end.guessed
    assert end.frames is not None
    # The frame that held the counts is one of silence now, and nothing says what the encoder added.
    frame = 576 if rate < 32000 else 1152
    assert end.frames % frame == 0
    assert len(wave) <= end.frames - frame <= len(wave) + 3 * frame


def test_the_counts_of_real_files_agree_with_libsndfile(corpora: Path) -> None:
    clips = sorted((corpora / "covost2/clips").glob("*.mp3"))
    assert clips
    for path in clips:
        assert of(path.read_bytes()).frames == len(soundfile.read(path)[0])


@pytest.mark.parametrize("tags", [b"TAG" + bytes(125), b"APETAGEX" + bytes(60), bytes(1000)])
def test_tags_around_an_mp3_are_no_matter(kinds: dict[str, bytes], tags: bytes) -> None:
    data = kinds["uncounted"]
    front = b"ID3\x04\x00\x00\x00\x00\x01\x00" + bytes(128) + bytes(50)
    for dressed in (data + tags, front + data, front + data + tags):
        assert of(dressed) == of(data)
    assert of((front + data)[:-5]).missing


def test_an_mp3_with_a_hole_is_not_counted(kinds: dict[str, bytes]) -> None:
    data = kinds["uncounted"]
    end = of(data[:5000] + b"\x55" * 700 + data[5700:])
    assert (end.guessed, end.frames, end.missing) == (True, None, "")


def test_a_stream_of_unknown_size_is_not_cut(kinds: dict[str, bytes]) -> None:
    data = kinds["webm"]
    place = data.index(b"\x18\x53\x80\x67") + 4
    opened = data[:place] + b"\x01" + b"\xff" * 7 + data[place + 8 :]
    assert of(data[:-100]).missing
    assert not of(opened[:-100]).missing


MARKS = (
    b"",
    b"OggS",
    b"\0\0\0\x20ftyp",
    b"\x1a\x45\xdf\xa3",
    b"NIST_1A\n   1024\n",
    b"ID3\x04",
    b"\xff\xfb\x94",
    b"\xff\xf1",
)


@given(st.sampled_from(MARKS), st.binary(max_size=300), st.integers(0, 3))
def test_nothing_that_follows_a_mark_is_too_much(mark: bytes, rest: bytes, times: int) -> None:
    data = (mark + rest) * times
    found = of(data)
    assert found.container in ("", "ogg", "mp3", "mp4", "matroska", "aac")
    assert found.frames is None or 0 <= found.frames <= 1152 * len(data)
    assert of(data) == found


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "piece", [b"\0\0\0\x08free", b"ID3\x04\0\0\0\0\0\0", b"\xff\xf1\x50\x40\x00\xff\xfc", b"\xff\xfb\x14\0"]
)
def test_a_file_made_of_tiny_pieces_takes_no_age(piece: bytes) -> None:
    data = b"\0\0\0\x08ftyp" * (piece[4:] == b"free") + piece * (2**22 // len(piece))
    begin = time.process_time()
    found = of(data)
    assert time.process_time() - begin < 10
    assert found.container in ("", "mp3", "mp4", "aac")
    assert found.frames is None or found.frames <= 1152 * len(data)
