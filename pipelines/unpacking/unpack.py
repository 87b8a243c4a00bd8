"""Unpacking: an archive becomes files in a folder, all of them or none, under names that were checked.

What an archive is, is told by its first bytes and not by its name: tar, alone or in gzip, bzip2 or xz; zip, whole or in
parts; 7z; and Parquet with a column of audio. The law of names and the caps stand in archives.py.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pyarrow as pa

from manifests import files
from manifests.errors import UserError
from manifests.tables import write_table
from pipelines.unpacking import parquets, sevenzip, tars, zips
from pipelines.unpacking.archives import CAPS, Caps, Gate, Member, Reader
from pipelines.unpacking.stage import Row, Stage, open_stage

RECORD = "salmonn-unpacked-1"
"""The format of a record."""
SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("mtime_ns", pa.int64(), nullable=False),
        pa.field("crc32", pa.int64(), nullable=False),
    ],
    metadata={"format": RECORD},
)
"""A row a file, by path: relative to the folder unpacked into, with / between names; its time as it is on disk."""
TARS = ("tar", *(f"tar.{packer}" for packer in tars.PACKERS.values()))


class Unpacked(msgspec.Struct, frozen=True, kw_only=True):
    """What an archive gave."""

    files: int
    bytes: int
    """Of all files."""
    format: str
    """``tar``, ``tar.gz``, ``tar.bz2``, ``tar.xz``, ``zip``, ``7z`` or ``parquet``."""
    skipped: dict[str, int] = {}
    """Members passed over, by reason: ``macos``, ``option``; of Parquet ``no_audio``, ``no_name``."""


def unpack(archive: str, into: str, *, caps: Caps = CAPS, record: str = "") -> Unpacked:
    """Unpack `archive` into the folder `into`, all or nothing, and return what there was; the same again if repeated.

    What is in the folder already stays, but for files of the same paths, which are replaced. With `record`, a Parquet
    file under SCHEMA is written there, last, of all files. A split zip is named by its last part, ``X.zip``; a Parquet
    file fills a folder of its name. UserError if the archive is damaged, hostile, beyond `caps`, of no known kind, or
    if the disk is full; Failed if another process unpacks the same.
    """
    kind, reader = format_of(archive)
    if not files.is_local(into):
        raise UserError(f"cannot unpack into {files.redact(into)}; name a folder on this machine")
    gate = Gate(archive, caps)
    place = Path(os.path.realpath(files.local(into)))
    try:
        with open_stage(place, archive) as stage:
            rows = sorted(fill(stage, reader, archive, gate))
            if not rows:
                told = ", ".join(f"{count:,} {reason}" for reason, count in gate.skipped.items())
                raise UserError(f"{gate.archive} holds no file to unpack{told and f' (passed over: {told})'}")
            if record:
                files.remove(record)
            stage.move_into(place)
        if record:
            columns = [
                pa.array(column, field.type) for column, field in zip(zip(*rows, strict=True), SCHEMA, strict=True)
            ]
            write_table(record, pa.Table.from_arrays(columns, schema=SCHEMA))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"the disk of {into} is full, {gate.bytes:,} bytes into {gate.archive}; make room"
            ) from None
        raise UserError(f"cannot unpack {gate.archive} into {into}: {error.strerror or error}") from None
    return Unpacked(
        files=len(rows), bytes=sum(row[1] for row in rows), format=kind, skipped=dict(sorted(gate.skipped.items()))
    )


def fill(stage: Stage, reader: Reader, archive: str, gate: Gate) -> Iterator[Row]:
    """Write every member to the stage, and yield the facts of the files."""
    with contextlib.closing(reader(archive, gate)) as members:
        for member in members:
            try:
                if member.folder:
                    stage.make_folder(member.name)
                    continue
                row = stage.write(member)
            except (FileExistsError, NotADirectoryError, IsADirectoryError):
                raise gate.refuse(member.name, "is a file in one place and a folder in another") from None
            if member.crc32 is not None and member.crc32 != row[3]:
                raise gate.broken("its content has another checksum than the archive says", member.name)
            yield row


def stream_members(archive: str, caps: Caps = CAPS) -> Iterator[Member]:
    """Yield the files of a tar archive, packed or not, without unpacking them, under the same law and caps.

    Each can be read until the next is asked for. UserError, from the member on at which it shows, if the archive is
    damaged or hostile: what was made of those before it must wait for the end.
    """
    kind, reader = format_of(archive)
    if kind not in TARS:
        raise UserError(f"{files.redact(archive)} is {kind}, which cannot be read as it comes; unpack it")
    with contextlib.closing(reader(archive, Gate(archive, caps))) as members:
        yield from (member for member in members if not member.folder)


def format_of(archive: str) -> tuple[str, Reader]:
    """Return the format of an archive, by its first bytes, and what reads it; UserError if there is none."""
    shown = files.redact(archive)
    if files.size(archive) is None:
        raise UserError(f"there is no file {shown!r}" + (": it is a folder" if files.is_folder(archive) else ""))
    with files.open_read(archive) as file:
        head = file.read(tars.BLOCK)
        end = zips.find_end(file)
    if head.startswith(sevenzip.MAGIC):
        return "7z", sevenzip.read_7z
    if head.startswith(parquets.MAGIC):
        return "parquet", parquets.read_parquet
    for magic, packer in tars.PACKERS.items():
        if head.startswith(magic):
            return f"tar.{packer}", tars.read_tar
    if len(head) == tars.BLOCK and (tars.is_header(head) or head == tars.ZEROS):
        return "tar", tars.read_tar
    if head.startswith(zips.SPLIT) and end is None:
        raise UserError(f"{shown} is the first part of a split zip; name its last part, the .zip")
    if head.startswith(zips.MAGIC) or (end and end.disk):  # a last part begins anywhere in a member
        return "zip", zips.read_zip
    what = "empty" if not head else f"no archive that we know: it begins with {head[:16]!r}"
    if head.startswith(b"version https://git-lfs"):
        what = "a pointer of git-lfs, not the file itself"
    elif head.lstrip()[:5].lower() in (b"<html", b"<!doc"):
        what = "a page of HTML, not an archive"
    raise UserError(
        f"{shown} is {what}; fetch it anew (known: tar, tar.gz, tar.bz2, tar.xz, zip, 7z, Parquet with audio)"
    )
