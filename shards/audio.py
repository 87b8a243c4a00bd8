"""Audio: the one room that knows codecs. Decodes block by block under caps, resamples, encodes.

What a dataset stores is 16 kHz, mono, 16-bit FLAC. FLAC carries the MD5 of its PCM, so a stored clip proves itself.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from manifests import AudioRef, UserError, files
from shards.flac import RATE, flac_info

BLOCK = 1 << 18
"""Frames decoded at a time."""
LEVEL = 3 / 8
"""FLAC level 3: 0.6 % larger than level 5 and 6 % faster to decode."""

MAX_SECONDS = 3 * 3600.0
MAX_CHANNELS = 16
MIN_RATE, MAX_RATE = 4_000, 192_000
UNKNOWN = 2**63 - 1
"""What libsndfile says of a length it does not know."""
STREAMED = 0xFFFFFF00
"""Sizes of a WAV's samples from here on are placeholders of a writer that could not go back."""
DATA_CHUNK = re.compile(r"^data : (\d+) \(should be (\d+)\)", re.MULTILINE)

REASONS = {
    "audio_missing": "the file was there at the scan and is gone",
    "zero_length": "the file has no bytes",
    "not_audio": "no decoder recognizes the file",
    "truncated": "the file ends before its header says",
    "corrupt": "the decoder met damaged data",
    "md5_mismatch": "the samples are not those the FLAC header signed",
    "no_samples": "the file or the span holds no audio",
    "too_long": f"longer than {MAX_SECONDS / 3600:.0f} hours, or its header lies",
    "channels": f"more than {MAX_CHANNELS} channels, or not the channel the clip names",
    "sample_rate": f"sample rate outside {MIN_RATE} to {MAX_RATE} Hz",
    "speech_failed": "the voice could not speak the text",
    "not_finite": "samples that are not numbers",
}

PCM = NDArray[np.int16]
Wave = NDArray[np.float32]


class Refused(Exception):
    """Audio that cannot be packed: `reason` is a code of REASONS, `detail` is for the reader."""

    def __init__(self, reason: str, detail: str) -> None:
        assert reason in REASONS, reason
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def pcm_md5(pcm: PCM) -> str:
    """Return the hex MD5 of samples as FLAC signs them."""
    return hashlib.md5(pcm.astype("<i2", copy=False).tobytes()).hexdigest()


def open_sound(file: str | IO[bytes], name: str, size: int) -> Any:
    """Open a sound file for reading and hold its header against the caps; Refused says what is wrong with it."""
    if size == 0:
        raise Refused("zero_length", name)
    try:
        sound = soundfile.SoundFile(file)
    except soundfile.LibsndfileError as error:
        raise Refused("not_audio", f"{name}: {error.error_string.strip()}") from None
    if not MIN_RATE <= sound.samplerate <= MAX_RATE:
        raise Refused("sample_rate", f"{name}: {sound.samplerate} Hz")
    if sound.channels > MAX_CHANNELS:
        raise Refused("channels", f"{name}: {sound.channels} channels")
    declared = DATA_CHUNK.search(sound.extra_info)
    # A WAV that ends early is read without a word; its header remembers. Streamed WAVs carry no length.
    if declared and int(declared[1]) > int(declared[2]) and int(declared[1]) < STREAMED:
        raise Refused("truncated", f"{name}: {declared[2]} of {declared[1]} bytes of samples")
    if sound.frames == UNKNOWN:
        # FLAC may leave its length open. libsndfile cannot seek in such a file, and soundfile seeks after each read.
        sound._info.seekable = 0
    elif sound.frames > MAX_SECONDS * sound.samplerate:
        raise Refused("too_long", f"{name}: its header says {sound.frames} frames at {sound.samplerate} Hz")
    return sound


def blocks(sound: Any, source: io.BytesIO, name: str, frames: int | None, dtype: str) -> Iterator[NDArray[Any]]:
    """Yield arrays [frames, channels] from the position of `sound` on, `frames` in all or to its end.

    `source` is what `sound` reads. The length an MP3 header gives is a guess, so only other formats are held to it.
    """
    guessed = frames is None and (sound.format == "MPEG" or sound.frames == UNKNOWN)
    wanted = left = sound.frames - (0 if guessed else sound.tell()) if frames is None else frames
    while left > 0 or guessed:
        try:
            block = sound.read(BLOCK if guessed else min(BLOCK, left), dtype=dtype, always_2d=True)
        except soundfile.LibsndfileError as error:
            # libsndfile reports a FLAC that ends early as lost synchronization, like any damage; only that it has
            # used up the bytes tells them apart.
            reason = "truncated" if source.tell() == len(source.getbuffer()) else "corrupt"
            raise Refused(reason, f"{name}: {error.error_string.strip()}") from None
        if len(block) == 0:
            break
        left -= len(block)
        yield block
    if left > 0 and not guessed:
        raise Refused("truncated", f"{name}: {left} of {wanted} frames are missing")


def span_of(sound: Any, ref: AudioRef) -> int | None:
    """Move `sound` to the start of the span and return how many frames it has, None to the end."""
    first = round(ref.start * sound.samplerate)
    if first >= sound.frames and ref.start > 0:
        raise Refused(
            "no_samples", f"{ref.path}: starts at {ref.start} s, the file has {sound.frames / sound.samplerate:.3f} s"
        )
    if first:
        sound.seek(first)
    if ref.seconds is None:
        return None
    rest = sound.frames - first if sound.frames != UNKNOWN else UNKNOWN
    return int(min(round(ref.seconds * sound.samplerate), rest))


def mono(block: Wave, ref: AudioRef) -> Wave:
    """Return the channel a reference asks for, or the mean of all, at its gain: [frames, channels] to [frames]."""
    if ref.channel is not None:
        if ref.channel >= block.shape[1]:
            raise Refused("channels", f"{ref.path}: has {block.shape[1]} channels, not number {ref.channel}")
        wave = block[:, ref.channel]
    elif block.shape[1] == 1:
        wave = block[:, 0]
    else:
        wave = block.sum(axis=1, dtype=np.float32) / np.float32(block.shape[1])
    return wave if ref.gain == 1.0 else wave * np.float32(ref.gain)


def decode(data: bytes, ref: AudioRef) -> tuple[Wave, int]:
    """Return one reference as float32 [samples] at 16 kHz, and the rate of its file in Hz. Resampled by soxr, HQ."""
    source = io.BytesIO(data)
    with open_sound(source, ref.path, len(data)) as sound:
        rate = int(sound.samplerate)
        frames = span_of(sound, ref)
        resampler = None if rate == RATE else soxr.ResampleStream(rate, RATE, 1, dtype="float32", quality="HQ")
        parts: list[Wave] = []
        total = 0
        for block in blocks(sound, source, ref.path, frames, "float32"):
            total += len(block)
            if total > MAX_SECONDS * rate:
                raise Refused("too_long", f"{ref.path}: more than {MAX_SECONDS} s")
            wave = mono(block, ref)
            if not np.isfinite(wave).all():
                raise Refused("not_finite", ref.path)
            parts.append(wave if resampler is None else resampler.resample_chunk(wave, last=False))
        if resampler is not None:
            parts.append(resampler.resample_chunk(np.zeros(0, np.float32), last=True))
    wave = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    if not len(wave):
        raise Refused("no_samples", ref.path)
    return wave, rate


def resample(wave: Wave, rate: int) -> Wave:
    """Return a whole wave at 16 kHz, by soxr at its high quality."""
    resampled: Wave = wave if rate == RATE else soxr.resample(wave, rate, RATE, quality="HQ")
    return resampled


def to_pcm(wave: Wave) -> PCM:
    """Return 16-bit samples of a wave in [-1, 1], rounded to the nearest and clipped; exact for 16-bit sources."""
    pcm: PCM = np.clip(np.rint(wave * np.float32(32768)), -32768, 32767).astype(np.int16)
    return pcm


def encode(pcm: PCM) -> bytes:
    """Return 16 kHz mono samples as a FLAC file."""
    sink = io.BytesIO()
    soundfile.write(sink, pcm, RATE, format="FLAC", subtype="PCM_16", compression_level=LEVEL)
    return sink.getvalue()


def read_flac(data: bytes, name: str) -> PCM:
    """Return the samples of a stored clip; Refused if they are not all there. Used by the stream and by verify."""
    source = io.BytesIO(data)
    with open_sound(source, name, len(data)) as sound:
        pcm: PCM = np.concatenate([np.zeros((0, 1), np.int16), *blocks(sound, source, name, None, "int16")])[:, 0]
    return pcm


def load_audio(path: str) -> Wave:
    """Return any sound file as float32 [samples] at 16 kHz, mono, in [-1, 1]; UserError if it cannot be used."""
    try:
        return decode(files.read_bytes(path), AudioRef(path=path))[0]
    except OSError as error:
        raise UserError(f"cannot read the audio file {path!r}: {error.strerror or error}") from None
    except Refused as refusal:
        raise UserError(f"cannot use the audio file {path!r}: {REASONS[refusal.reason]}") from None


def probe(url: str, size: int, head: bytes = b"") -> float:
    """Return the seconds that the header of a sound file claims, 0 if it cannot be read. An estimate: see `blocks`.

    `head` are its first bytes, if known: a FLAC says it there, and libsndfile, many times slower, need not be asked.
    """
    if (info := flac_info(head)) is not None:
        fits = MIN_RATE <= info.rate <= MAX_RATE and info.samples <= MAX_SECONDS * info.rate
        return info.samples / info.rate if fits else 0.0
    try:
        with files.open_read(url) as file, open_sound(file, url, size) as sound:
            return 0.0 if sound.frames == UNKNOWN else float(sound.frames / sound.samplerate)
    except (Refused, OSError):
        return 0.0


def to_mp3(pcm: PCM) -> bytes:
    """Return samples as an MP3 file, which every browser plays."""
    sink = io.BytesIO()
    soundfile.write(sink, pcm, RATE, format="MP3", subtype="MPEG_LAYER_III")
    return sink.getvalue()


def versions() -> dict[str, str]:
    """Name what decodes, resamples and encodes here: it belongs to what identifies a build."""
    return {
        "soundfile": soundfile.__version__,
        "libsndfile": soundfile.__libsndfile_version__,
        "soxr": soxr.__version__,
    }
