"""Audio: decodes any sound file under caps, resamples, encodes. With its lower rooms the one place that knows codecs.

What a dataset stores is 16 kHz, mono, 16-bit FLAC. FLAC carries the MD5 of its PCM, so a stored clip proves itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
import soundfile
import soxr
from isal import isal_zlib
from numpy.typing import NDArray

from manifests import AudioRef, UserError, files
from shards import containers, dr_flac
from shards.containers import Container
from shards.endings import ending, ogg_damage
from shards.flac import RATE, flac_info, flac_length
from shards.refusals import MAX_CHANNELS as MAX_CHANNELS
from shards.refusals import MAX_RATE, MAX_SECONDS, MIN_RATE
from shards.refusals import REASONS as REASONS
from shards.refusals import Refused as Refused
from shards.sound import Sound

LEVEL = 3 / 8
"""FLAC level 3: 0.6 % larger than level 5 and 6 % faster to decode."""

PCM = NDArray[np.int16]
Wave = NDArray[np.float32]


def pcm_md5(pcm: PCM) -> str:
    """Return the hex MD5 of samples as FLAC signs them."""
    return hashlib.md5(np.ascontiguousarray(pcm, "<i2").data).hexdigest()


@contextlib.contextmanager
def open_sound(file: IO[bytes], name: str, size: int, *, whole: bool = False) -> Iterator[Sound | Container]:
    """Open a sound file of `size` bytes and hold it against the caps; Refused says what is wrong with it.

    `whole` says that all of it will be read, from its start.
    """
    if size == 0:
        raise Refused("zero_length", name)
    end = ending(file, size)
    if end.missing:
        raise Refused("truncated", f"{name}: {end.missing}")
    if whole and end.container == "ogg" and (damage := ogg_damage(file)):
        raise Refused("corrupt", f"{name}: {damage}")
    if end.container in ("mp4", "matroska", "aac"):
        with contextlib.closing(Container(file, name, end.container)) as track:
            yield track
        return
    with contextlib.closing(Sound(file, name, size, end)) as sound:
        if not better_by_ffmpeg(sound, whole):
            yield sound
            return
        length = sound.length
    with contextlib.closing(Container(file, name, end.container, end.frames if end.guessed else length)) as track:
        yield track


def better_by_ffmpeg(sound: Sound, whole: bool) -> bool:
    """Whether ffmpeg reads a file better than libsndfile, which can open it.

    An MP3 that does not count its frames is cut off by libsndfile where it guesses the end. Opus above 16 kHz takes
    libsndfile three times as long (at 16 kHz, where it decodes no more than that, as long); but it can seek.
    """
    if sound.end.guessed:
        return sound.end.frames is None or sound.length is None or sound.length < sound.end.frames
    opus = sound.end.container == "ogg" and sound.sound.subtype == "OPUS" and sound.rate > RATE
    return whole and opus and bool(containers.version())


def mono(block: NDArray[Any], ref: AudioRef) -> Wave:
    """Return the channel a reference asks for, or the mean of all, at its gain: [frames, channels] to [frames]."""
    channels = block.shape[1]
    scale = ref.gain / 32768 if block.dtype == np.int16 else ref.gain
    if ref.channel is not None or channels == 1:
        if (ref.channel or 0) >= channels:
            raise Refused("channels", f"{ref.path}: has {channels} channels, not number {ref.channel}")
        wave: Wave = block[:, ref.channel or 0]
        return wave if scale == 1.0 else wave * np.float32(scale)
    # Column by column: numpy's sum along so short an axis takes ten times as long.
    columns = block.astype(np.float32, copy=False).T
    wave = columns[0] + columns[1]
    for column in columns[2:]:
        wave += column
    wave *= np.float32(scale / channels)
    return wave


def waves(sound: Sound | Container, ref: AudioRef) -> Iterator[Wave]:
    """Yield the samples of a reference at 16 kHz, block by block; Refused if there are none. Resampled by soxr, HQ."""
    rate, length = sound.rate, sound.length
    first, total = round(ref.start * rate), 0
    if first and length is not None and first >= length:
        raise Refused("no_samples", f"{ref.path}: starts at {ref.start} s, the file has {length / rate:.3f} s")
    resampler = None if rate == RATE else soxr.ResampleStream(rate, RATE, 1, dtype="float32", quality="HQ")
    some = False
    for block in sound.blocks(first, None if ref.seconds is None else round(ref.seconds * rate)):
        total += len(block)
        if total > MAX_SECONDS * rate:
            raise Refused("too_long", f"{ref.path}: more than {MAX_SECONDS} s")
        wave = mono(block, ref)
        wave = wave if resampler is None else resampler.resample_chunk(wave, last=False)
        # What is no number stays so, or takes its neighbours with it, so here is soon enough.
        if block.dtype != np.int16 and not np.isfinite(wave).all():
            raise Refused("not_finite", ref.path)
        some |= len(wave) > 0
        yield wave
    if resampler is not None:
        wave = resampler.resample_chunk(np.zeros(0, np.float32), last=True)
        if not np.isfinite(wave).all():
            raise Refused("not_finite", ref.path)
        some |= len(wave) > 0
        yield wave
    if not some:
        raise Refused("no_samples", ref.path)


def decode(data: bytes, ref: AudioRef) -> tuple[Wave, int]:
    """Return one reference as float32 [samples] at 16 kHz, and the rate of its file in Hz."""
    whole = ref.start == 0 and ref.seconds is None
    with open_sound(io.BytesIO(data), ref.path, len(data), whole=whole) as sound:
        return np.concatenate(list(waves(sound, ref))), sound.rate


def resample(wave: Wave, rate: int) -> Wave:
    """Return a whole wave at 16 kHz, by soxr at its high quality."""
    resampled: Wave = wave if rate == RATE else soxr.resample(wave, rate, RATE, quality="HQ")
    return resampled


def to_pcm(wave: Wave) -> PCM:
    """Return 16-bit samples of a wave in [-1, 1], rounded to the nearest and clipped; exact for 16-bit sources."""
    scaled = np.clip(wave, np.float32(-1), np.float32(32767 / 32768))
    scaled *= np.float32(32768)
    np.rint(scaled, out=scaled)
    pcm: PCM = scaled.astype(np.int16)
    return pcm


class Encoder:
    """A FLAC file at 16 kHz, mono, that is made of samples as they come."""

    def __init__(self) -> None:
        self.sink = io.BytesIO()
        form = {"format": "FLAC", "subtype": "PCM_16", "compression_level": LEVEL}
        self.file = soundfile.SoundFile(self.sink, "w", RATE, 1, **form)

    def add(self, pcm: PCM) -> None:
        """Append samples; in how many pieces does not change the file."""
        self.file.write(pcm)

    def close(self) -> None:
        """End the file."""
        self.file.close()

    def done(self) -> bytes:
        """End the file and return it."""
        self.close()
        return self.sink.getvalue()


def encode(pcm: PCM) -> bytes:
    """Return 16 kHz mono samples as a FLAC file."""
    encoder = Encoder()
    encoder.add(pcm)
    return encoder.done()


def read_flac(data: bytes, name: str, *, crc32: int | None = None, frames: int | None = None) -> PCM:
    """Return the samples of a stored clip; Refused if they are not all there. Used by the stream and by verify.

    With the checksum of the bytes and the number of samples, as the index has them, damage shows at once, and a decoder
    that does not look for any can be taken, which is faster.
    """
    if crc32 is not None and isal_zlib.crc32(data) != crc32:
        raise Refused("corrupt", f"{name}: its bytes are not those that were written")
    info = flac_info(data)
    if crc32 is not None and frames is not None and info is not None and info.samples == frames:
        pcm = dr_flac.decode(data, frames)
        if pcm is not None:
            return pcm
    with open_sound(io.BytesIO(data), name, len(data)) as sound:
        parts = [block[:, 0] for block in sound.blocks(0, None)]
    pcm = np.concatenate([np.zeros(0, np.int16), *parts])
    if pcm.dtype != np.int16:
        raise Refused("corrupt", f"{name}: not 16-bit samples")
    if frames is not None and len(pcm) != frames:
        raise Refused("truncated", f"{name}: {len(pcm)} of {frames} samples")
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
    """Return the seconds that the header of a sound file claims, 0 if it cannot be read. An estimate, for some MP3.

    `head` are its first bytes, if known: a FLAC says it there, and libsndfile, many times slower, need not be asked.
    """
    if (length := flac_length(head)) is not None:
        rate, samples = length
        return samples / rate if MIN_RATE <= rate <= MAX_RATE and samples <= MAX_SECONDS * rate else 0.0
    try:
        with files.open_read(url) as file, open_sound(file, url, size) as sound:
            return (sound.length or 0) / sound.rate
    except (Refused, OSError):
        return 0.0


def to_mp3(pcm: PCM) -> bytes:
    """Return samples as an MP3 file, which every browser plays."""
    sink = io.BytesIO()
    soundfile.write(sink, pcm, RATE, format="MP3", subtype="MPEG_LAYER_III")
    return sink.getvalue()


def versions() -> dict[str, str]:
    """Name what decodes, resamples and encodes here: it belongs to what identifies a build.

    Not miniaudio: what it decodes is copied, or compared with libsndfile, and shapes no byte.
    """
    return {
        "soundfile": soundfile.__version__,
        "libsndfile": soundfile.__libsndfile_version__,
        "soxr": soxr.__version__,
        "av": containers.version(),
    }
