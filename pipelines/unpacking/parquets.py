"""Parquet files of the Hugging Face Hub with an ``audio`` column of struct(bytes, path): a file a row.

``m/train-00000-of-00069.parquet`` gives ``train-00000-of-00069/<segment_id>.wav``, with the suffix of its kind.
Rows are named by ``segment_id`` (GigaSpeech) where there is such a column, and else by the path beside the bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import PurePosixPath

import pyarrow as pa

from manifests import files
from manifests.tables import open_parquet
from pipelines.unpacking.archives import Gate, Member

MAGIC = b"PAR1"
ROWS = 16
"""Taken at a time: a row is one sound."""
NAME = "segment_id"


def read_parquet(archive: str, gate: Gate) -> Generator[Member, None, None]:
    """Yield the sounds of a Parquet file in the order of its rows."""
    stem = PurePosixPath(files.redact(archive)).name.removesuffix(".parquet")
    try:
        # Through a buffer: row groups of the Hub hold a hundred megabytes.
        with open_parquet(archive, buffer_size=1 << 20) as parquet:
            kind = audio_type(parquet.schema_arrow)
            if kind is None:
                told = ", ".join(parquet.schema_arrow.names)[:200]
                raise gate.broken(f"it has no column 'audio' of bytes and path, but {told}")
            named = NAME in parquet.schema_arrow.names
            columns = ["audio.bytes", NAME if named else "audio.path"]
            size = files.size(archive) or 0
            for batch in parquet.iter_batches(batch_size=ROWS, columns=columns, use_threads=False):
                audio = batch.column("audio")
                sounds = audio.field("bytes")
                names = batch.column(NAME) if named else audio.field("path")
                for name, sound in zip(names.to_pylist(), sounds, strict=True):
                    gate.count()
                    if (member := sound_of(name, sound, named, stem, gate)) is not None:
                        gate.weigh(gate.bytes, size)
                        yield member
    except (pa.ArrowException, OSError) as error:
        raise gate.broken(f"it is no Parquet that can be read ({str(error)[:120]})") from None


def audio_type(schema: pa.Schema) -> pa.DataType | None:
    """Return the type of the audio column, None if there is none with bytes and path."""
    if "audio" not in schema.names:
        return None
    kind = schema.field("audio").type
    if not pa.types.is_struct(kind) or not {"bytes", "path"} <= {field.name for field in kind}:
        return None
    content = kind.field("bytes").type
    return kind if pa.types.is_binary(content) or pa.types.is_large_binary(content) else None


def sound_of(name: object, sound: pa.Scalar, named: bool, stem: str, gate: Gate) -> Member | None:
    """Return the member of a row; None, and counted, if it has no name or no sound."""
    if not isinstance(name, str) or not name:
        gate.skipped["no_name"] += 1
        return None
    if not sound.is_valid or not len(content := memoryview(sound.as_buffer())):
        gate.skipped["no_audio"] += 1
        return None
    if "/" in name and named:
        raise gate.refuse(name, f"has a slash in its {NAME}")
    suffix = suffix_of(bytes(content[:64]))
    if suffix is None:
        raise gate.refuse(name, f"is no sound that we know: it begins with {bytes(content[:8])!r}")
    stripped = name if named else PurePosixPath(name).name.rsplit(".", 1)[0]
    gate.check(stripped)  # on its own as well: the folder in front must not hide an absolute path
    path = gate.admit(f"{stem}/{stripped}{suffix}", len(content), folder=False)
    return None if path is None else Member(path, len(content), slices(content))


def slices(content: memoryview) -> Callable[[int], memoryview]:
    """Return a function that gives `content` piece by piece."""
    at = 0

    def pull(most: int) -> memoryview:
        nonlocal at
        at += most
        return content[at - most : at]

    return pull


def suffix_of(head: bytes) -> str | None:
    """Return the suffix of a sound file that begins with `head`; None for what is no sound we know."""
    if head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE":
        return ".wav"
    if head[:4] == b"fLaC":
        return ".flac"
    if head[:4] == b"OggS":
        return ".opus" if b"OpusHead" in head else ".ogg"
    if head[:3] == b"ID3" or (head[:1] == b"\xff" and len(head) > 1 and head[1] & 0xE0 == 0xE0):
        return ".mp3"
    return ".m4a" if head[4:8] == b"ftyp" else None
