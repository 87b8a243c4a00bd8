"""Rendering: a clip's references to its stored form. One renderer serves files, spans, pairs and mixtures.

A whole file that already conforms is copied byte for byte; everything else is decoded, resampled, joined and encoded.
"""

from __future__ import annotations

import functools
import hashlib
import io

import msgspec
import numpy as np

from manifests import AudioRef, files
from manifests.clips import Join
from shards.audio import Refused, Wave, blocks, decode, encode, open_sound, pcm_md5, resample, to_pcm
from shards.flac import StreamInfo, conforms, flac_info

SILENCE = 1600
"""Samples between the clips of a concatenation: 0.1 s, as SALMONN's loader puts between a verification pair."""


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """A clip's audio as it goes into a shard."""

    flac: bytes
    samples: int
    pcm_md5: str
    """Hex MD5 of the little-endian 16-bit samples: the identity of the audio, whatever encoder wrote it."""
    action: str
    """``copy`` (bytes as published), ``transcode`` (a whole file) or ``render`` (a span, a pair or a mixture)."""
    source_rate: int
    """Hz, of the first file."""


def store(root: str, audio: tuple[AudioRef, ...], join: Join = "single") -> Stored:
    """Bring a clip's audio, as its references below `root` describe it, to the stored form; Refused if it cannot be."""
    assert audio and (len(audio) == 1 or join != "single"), (audio, join)
    first = audio[0]
    whole = len(audio) == 1 and first.start == 0 and first.seconds is None and not first.speech
    if whole and first.channel in (None, 0) and first.gain == 1.0:
        data = read_source(root, first.path)
        info = flac_info(data)
        if info is not None and conforms(info):
            return copied(data, info, first.path)
    waves = [spoken(ref) if ref.speech else decode(read_source(root, ref.path), ref) for ref in audio]
    pcm = to_pcm(joined([wave for wave, _ in waves], join))
    return Stored(
        flac=encode(pcm),
        samples=len(pcm),
        pcm_md5=pcm_md5(pcm),
        action="transcode" if whole else "render",
        source_rate=waves[0][1],
    )


@functools.lru_cache(maxsize=4)
def read_source(root: str, path: str) -> bytes:
    """Return the bytes of one source file; Refused if it is gone or empty.

    The last few are kept: the segments of a long recording follow each other, and a pair may be of one file.
    """
    try:
        data = files.read_bytes(files.join(root, path))
    except FileNotFoundError:
        raise Refused("audio_missing", path) from None
    if not data:
        raise Refused("zero_length", path)
    return data


def spoken(ref: AudioRef) -> tuple[Wave, int]:
    """Return the speech of a reference as float32 [samples] at 16 kHz, and the rate it was synthesized at."""
    from shards.speech import SpeechFailed, synthesize

    try:
        pcm, rate = synthesize(ref.speech, ref.voice)
    except SpeechFailed as error:
        raise Refused("speech_failed", f"{ref.voice}: {error}") from None
    wave = resample(pcm.astype(np.float32) / np.float32(32768), rate)
    return wave * np.float32(ref.gain), rate


def copied(data: bytes, info: StreamInfo, name: str) -> Stored:
    """Return a conforming FLAC as it is, after decoding it once to prove that its samples are those it signed."""
    digest, count = hashlib.md5(), 0
    source = io.BytesIO(data)
    with open_sound(source, name, len(data)) as sound:
        for block in blocks(sound, source, name, None, "int16"):
            digest.update(block.astype("<i2", copy=False).tobytes())
            count += len(block)
    if count != info.samples or digest.hexdigest() != info.md5:
        raise Refused(
            "md5_mismatch", f"{name}: {count} samples with MD5 {digest.hexdigest()}, its header says {info.md5}"
        )
    return Stored(flac=data, samples=count, pcm_md5=info.md5, action="copy", source_rate=info.rate)


def joined(waves: list[Wave], join: Join) -> Wave:
    """Make one signal of several: one after the other with 0.1 s of silence between, or their sum to the longest."""
    if join == "mix":
        total = np.zeros(max(map(len, waves)), np.float32)
        for wave in waves:
            total[: len(wave)] += wave
        return total
    silence = np.zeros(SILENCE, np.float32)
    pieces = [piece for wave in waves for piece in (silence, wave)]
    return np.concatenate(pieces[1:])
