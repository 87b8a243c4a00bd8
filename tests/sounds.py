"""Sound files of every kind, made from real speech, for the tests of decoding."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import av
import numpy as np
import soundfile
import soxr

RATE = 16_000
CORPORA = Path(__file__).parent / "corpora"
SPEECH = CORPORA / "librispeech/LibriSpeech/test-clean/1089/134691/1089-134691-0000.flac"


def speech(seconds: float = 2.0, rate: int = RATE) -> np.ndarray:
    """Real speech, float32 [samples]."""
    wave = soundfile.read(SPEECH, dtype="float32")[0]
    wave = np.resize(wave, round(seconds * RATE))
    return wave if rate == RATE else soxr.resample(wave, RATE, rate)


def by_libsndfile(wave: np.ndarray, rate: int, kind: str, subtype: str = "PCM_16", **options: object) -> bytes:
    """Encode with libsndfile, in pieces: it falls over long ones."""
    sink = io.BytesIO()
    channels = 1 if wave.ndim == 1 else wave.shape[1]
    with soundfile.SoundFile(sink, "w", rate, channels, format=kind, subtype=subtype, **options) as file:
        for start in range(0, len(wave), 1 << 14):
            file.write(wave[start : start + (1 << 14)])
    return sink.getvalue()


def by_ffmpeg(wave: np.ndarray, rate: int, kind: str, codec: str, **options: str) -> bytes:
    """Encode float32 [samples] or [samples, 2] with ffmpeg, as container `kind` with `codec`."""
    columns = np.ascontiguousarray(wave.reshape(len(wave), -1).T)
    layout = "mono" if len(columns) == 1 else "stereo"
    # Some options need a file that can be opened twice.
    with tempfile.NamedTemporaryFile() as sink, av.open(sink.name, "w", format=kind, options=options) as media:
        track = media.add_stream(codec, rate=rate, layout=layout)
        whole = av.AudioFrame.from_ndarray(columns, format="fltp", layout=layout)
        whole.sample_rate, whole.pts = rate, 0
        made = track.codec_context
        cutter = av.AudioResampler(
            format=made.format.name, layout=layout, rate=rate, frame_size=made.frame_size or 1024
        )
        for frame in [*cutter.resample(whole), *cutter.resample(None)]:
            for packet in track.encode(frame):
                media.mux(packet)
        for packet in track.encode(None):
            media.mux(packet)
        media.close()
        return Path(sink.name).read_bytes()


def without_first_frame(mp3: bytes) -> bytes:
    """Take from an MP3 of MPEG 1 the first frame, the one that counts the others."""
    kilobits = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)[mp3[2] >> 4]
    rate = (44100, 48000, 32000)[mp3[2] >> 2 & 3]
    return mp3[144_000 * kilobits // rate + (mp3[2] >> 1 & 1) :]


def every_kind(seconds: float = 2.0) -> dict[str, bytes]:
    """One file of each kind that is decoded, by name."""
    stereo = np.stack([speech(seconds, 44100), speech(seconds, 44100)[::-1] * np.float32(0.3)], 1)
    mono, high = speech(seconds), speech(seconds, 48000)
    mp3 = by_libsndfile(high, 48000, "MP3", "MPEG_LAYER_III")
    return {
        "flac": by_libsndfile(mono, RATE, "FLAC"),
        "flac24": by_libsndfile(stereo, 44100, "FLAC", "PCM_24"),
        "wav": by_libsndfile(stereo, 44100, "WAV"),
        "wav-float": by_libsndfile(mono, RATE, "WAV", "FLOAT"),
        "aiff": by_libsndfile(mono, RATE, "AIFF"),
        "au": by_libsndfile(mono, RATE, "AU"),
        "w64": by_libsndfile(mono, RATE, "W64"),
        "rf64": by_libsndfile(mono, RATE, "RF64"),
        "caf": by_libsndfile(mono, RATE, "CAF"),
        "nist": by_libsndfile(mono, RATE, "NIST"),
        "vorbis": by_libsndfile(stereo, 44100, "OGG", "VORBIS"),
        "opus16": by_libsndfile(mono, RATE, "OGG", "OPUS"),
        "opus48": by_libsndfile(np.stack([high, high], 1), 48000, "OGG", "OPUS"),
        "mp3": mp3,
        "mp3-uncounted": without_first_frame(mp3),
        "m4a": by_ffmpeg(stereo, 44100, "ipod", "aac"),
        "m4a-fast": by_ffmpeg(mono, RATE, "mp4", "aac", movflags="faststart"),
        "m4a-fragments": by_ffmpeg(mono, RATE, "mp4", "aac", movflags="frag_keyframe+empty_moov"),
        "webm": by_ffmpeg(high, 48000, "webm", "libopus"),
        "aac": by_ffmpeg(stereo, 44100, "adts", "aac"),
    }
