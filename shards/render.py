"""Rendering: a clip's references to its stored form. One renderer serves files, spans, pairs and mixtures.

A whole file that already conforms is copied byte for byte; everything else is decoded, resampled, joined and encoded,
block by block, so that memory holds what is stored and little else.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import itertools
import os
from collections.abc import Iterable, Iterator
from typing import IO

import msgspec
import numpy as np

from manifests import AudioRef, files
from manifests.clips import Join
from shards import dr_flac
from shards.audio import PCM, Encoder, Wave, open_sound, pcm_md5, resample, to_pcm, waves
from shards.fingerprint import fingerprint
from shards.flac import HEAD, RATE, StreamInfo, conforms, flac_info, read_conforming
from shards.proofs import Proofs
from shards.quality import UNKNOWN, Quality, measure
from shards.refusals import MAX_SECONDS, Refused, hold
from shards.sums import BLOCK as PIECE
from shards.sums import sums_of

SILENCE = 1600
"""Samples between the clips of a concatenation: 0.1 s, as SALMONN's loader puts between a verification pair."""
BLOCK = 1 << 16
"""Samples mixed at a time."""
RECORDING = 1 << 25
"""Bytes of a remote recording up to which it is read whole for one span of it: two hours of Opus."""
LONG = 105 * 60 * RATE
"""Samples of a clip up to which its quality is measured: for that all of them are held in memory, 2 bytes each."""


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
    quality: Quality = UNKNOWN
    fingerprint: bytes = b""
    """Of its sound, see shards/fingerprint.py; empty where there is none, or nobody decoded it."""


class Heard(msgspec.Struct, frozen=True):
    """What is measured of a clip's samples while they are in hand."""

    quality: Quality = UNKNOWN
    fingerprint: bytes = b""


UNHEARD = Heard()
"""Of samples that nobody saw, or asked about."""


def hear(pcm: PCM) -> Heard:
    """Measure a clip's samples."""
    if not len(pcm):
        return UNHEARD
    sums = sums_of(pcm, PIECE)
    return Heard(measure(pcm, sums=sums), fingerprint(pcm, sums.tens))


def store(
    root: str,
    audio: tuple[AudioRef, ...],
    join: Join = "single",
    *,
    trusted: bool = False,
    measured: bool = True,
    size: int | None = None,
    proofs: Proofs | None = None,
) -> Stored:
    """Bring a clip's audio, as its references below `root` describe it, to the stored form; Refused if it cannot be.

    `trusted`: its files are known to be as published, so that one which conforms is copied without being decoded; its
    quality and its fingerprint are then unknown. `measured`: whether to measure those of what is decoded. `size`: the
    bytes that its files had together when they were scanned; Refused if they have fewer now. `proofs`: told the samples
    of what is copied, which may raise Unproven, also later; without it, they are proven here.
    """
    assert audio and (len(audio) == 1 or join != "single"), (audio, join)
    first, whole = audio[0], len(audio) == 1 and is_whole(audio[0])
    plain = whole and first.channel in (None, 0) and first.gain == 1.0
    url = files.join(root, first.path)
    if plain and files.is_local(url):
        found = read_conforming(files.local(url))
        if found is not None and len(found[0]) >= (size or 0):
            return copied(*found, first.path, trusted=trusted, measured=measured, proofs=proofs)
    with contextlib.ExitStack() as stack:
        opened = [None if ref.speech else open_source(files.join(root, ref.path), ref, stack) for ref in audio]
        now = {ref.path: source.size for ref, source in zip(audio, opened, strict=True) if source}
        if size is not None and sum(now.values()) < size:
            raise Refused("truncated", f"{', '.join(now)}: {sum(now.values())} bytes, {size} when they were scanned")
        source = opened[0]
        if plain and source:
            info = flac_info(source.file.read(HEAD))
            if info is not None and conforms(info):
                source.file.seek(0)
                data = source.file.read(source.size)
                return copied(data, info, first.path, trusted=trusted, measured=measured, proofs=proofs)
        sources = [sounding(ref, source, stack) for ref, source in zip(audio, opened, strict=True)]
        flac, heard = encoded(joined([blocks for _, blocks in sources], join), measured=measured)
    info = flac_info(flac)
    assert info is not None
    return Stored(
        flac=flac,
        samples=info.samples,
        pcm_md5=info.md5,
        action="transcode" if whole else "render",
        source_rate=sources[0][0],
        quality=heard.quality,
        fingerprint=heard.fingerprint,
    )


def is_whole(ref: AudioRef) -> bool:
    """Whether a reference is to all of a file."""
    return ref.start == 0 and ref.seconds is None and not ref.speech


class Opened(msgspec.Struct, frozen=True):
    """An open source file."""

    file: IO[bytes]
    size: int


def open_source(url: str, ref: AudioRef, stack: contextlib.ExitStack) -> Opened:
    """Open the source file of a reference until `stack` ends; Refused if it is gone or empty."""
    size = None
    try:
        if files.is_local(url) or not is_whole(ref):
            size = files.size(url)
            # A pipe has no size; to open one that lies among the files would wait for its writer.
            if size is None:
                raise FileNotFoundError
            if not files.is_local(url) and size <= RECORDING:
                return Opened(io.BytesIO(recording(url, size)), size)
        file = stack.enter_context(files.open_read(url))
    except FileNotFoundError:
        raise Refused("audio_missing", ref.path) from None
    if size is None:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
    if not size:
        raise Refused("zero_length", ref.path)
    return Opened(file, size)


@functools.lru_cache(maxsize=4)
def recording(url: str, size: int) -> bytes:
    """Return a remote recording of `size` bytes that spans are cut from; to seek in it would take many requests.

    The last few are kept: segments may follow each other, and a pair may be of one file.
    """
    return files.read_bytes(url)


def sounding(ref: AudioRef, source: Opened | None, stack: contextlib.ExitStack) -> tuple[int, Iterable[Wave]]:
    """Return the rate of a reference's source in Hz, and its samples at 16 kHz, block by block, while `stack` lasts."""
    if source is None:
        wave, rate = spoken(ref)
        return rate, [wave]
    sound = stack.enter_context(open_sound(source.file, ref.path, source.size, whole=is_whole(ref)))
    return sound.rate, waves(sound, ref)


def spoken(ref: AudioRef) -> tuple[Wave, int]:
    """Return the speech of a reference as float32 [samples] at 16 kHz, and the rate it was synthesized at."""
    from shards.speech import SpeechFailed, synthesize

    try:
        pcm, rate = synthesize(ref.speech, ref.voice)
    except SpeechFailed as error:
        raise Refused("speech_failed", f"{ref.voice}: {error}") from None
    wave = resample(pcm.astype(np.float32) / np.float32(32768), rate)
    return wave * np.float32(ref.gain), rate


class Held:
    """The samples of a clip as they come, to be measured: none if they are too many, or nobody asked."""

    def __init__(self, measured: bool) -> None:
        self.measured = measured
        # Grows in place, where an array would have to be copied.
        self.samples = bytearray()

    def add(self, pcm: PCM) -> None:
        """Append samples."""
        if self.measured:
            self.samples += pcm.data
        if len(self.samples) > 2 * LONG:
            self.measured, self.samples = False, bytearray()

    def heard(self) -> Heard:
        """Measure them."""
        return hear(np.frombuffer(self.samples, np.int16)) if self.measured else UNHEARD


def copied(data: bytes, info: StreamInfo, name: str, *, trusted: bool, measured: bool, proofs: Proofs | None) -> Stored:
    """Return a conforming FLAC as it is, after decoding it once to prove that its samples are those it signed."""
    hold(name, info.rate, info.channels, info.samples)
    heard = UNHEARD
    if not trusted:
        pcm = dr_flac.decode(data, info.samples)
        if pcm is not None and proofs is not None:
            proofs.add(pcm, info.md5)
        elif pcm is None or pcm_md5(pcm) != info.md5:
            # The clip is long or damaged, or the decoder mistaken: libsndfile has the last word.
            pcm, heard = None, proven(data, info, name, measured=measured)
        if pcm is not None and measured:
            heard = hear(pcm)
    return Stored(
        flac=data,
        samples=info.samples,
        pcm_md5=info.md5,
        action="copy",
        source_rate=info.rate,
        quality=heard.quality,
        fingerprint=heard.fingerprint,
    )


def proven(data: bytes, info: StreamInfo, name: str, *, measured: bool) -> Heard:
    """Decode a FLAC block by block and measure it; Refused unless it holds the samples that it signed."""
    digest, count, held = hashlib.md5(), 0, Held(measured and info.samples <= LONG)
    with open_sound(io.BytesIO(data), name, len(data)) as sound:
        for block in sound.blocks(0, None):
            pcm = np.ascontiguousarray(block[:, 0], "<i2")
            digest.update(pcm.data)
            count += len(pcm)
            held.add(pcm)
    if count != info.samples or digest.hexdigest() != info.md5:
        raise Refused(
            "md5_mismatch", f"{name}: {count} samples with MD5 {digest.hexdigest()}, its header says {info.md5}"
        )
    return held.heard()


def encoded(blocks: Iterable[Wave], *, measured: bool) -> tuple[bytes, Heard]:
    """Return a signal as a FLAC file, and what is measured of it."""
    held, samples = Held(measured), 0
    with contextlib.closing(Encoder()) as encoder:
        for wave in blocks:
            samples += len(wave)
            if samples > MAX_SECONDS * RATE:
                raise Refused("too_long", f"joined, more than {MAX_SECONDS} s")
            pcm = to_pcm(wave)
            encoder.add(pcm)
            held.add(pcm)
        return encoder.done(), held.heard()


def joined(parts: list[Iterable[Wave]], join: Join) -> Iterator[Wave]:
    """Make one signal of several: one after the other with 0.1 s of silence between, or their sum to the longest."""
    if join == "mix":
        none = np.zeros(0, np.float32)
        for blocks in itertools.zip_longest(*map(even, parts), fillvalue=none):
            total = np.zeros(max(map(len, blocks)), np.float32)
            for block in blocks:
                total[: len(block)] += block
            yield total
        return
    for number, part in enumerate(parts):
        if number:
            yield np.zeros(SILENCE, np.float32)
        yield from part


def even(blocks: Iterable[Wave]) -> Iterator[Wave]:
    """Yield a signal in blocks of BLOCK samples; the last may have fewer."""
    held = np.zeros(0, np.float32)
    for block in blocks:
        held = np.concatenate([held, block])
        while len(held) >= BLOCK:
            yield held[:BLOCK]
            held = held[BLOCK:]
    if len(held):
        yield held
