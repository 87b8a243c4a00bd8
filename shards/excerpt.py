"""An excerpt: some clips of a dataset as a dataset of their own, their audio byte for byte, with other instructions."""

from __future__ import annotations

from typing import Any

import msgspec
import pyarrow as pa

from manifests import Failed, Instruction, files
from manifests.tables import write_table
from shards.finishing import publish
from shards.flac import RATE
from shards.index import FORMAT, QUARANTINE, Dataset, Manifest, Source, digest_of, proof
from shards.quality import Quality
from shards.reading import Reader
from shards.render import Stored
from shards.writer import ShardWriter, open_shard


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """One clip that was looked at: taken with what is now asked of it, or left out for a reason."""

    row: int
    """In the index of its split."""
    instructions: tuple[Instruction, ...] = ()
    """Empty if it is left out."""
    verdict: str = "excluded"
    """Of one left out: ``excluded``, or ``quarantined`` if its audio is bad."""
    reason: str = ""
    detail: str = ""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One split of an excerpt."""

    corpus: str
    split: str
    clips: tuple[Taken, ...]
    """In the order of the shard; only those that were looked at."""


def write_excerpt(dataset: Dataset, out: str, parts: list[Part], about: Manifest) -> Manifest:
    """Write clips of `dataset` as the dataset `out`, dataset.json last, and return what that holds.

    `about` says what the excerpt is; its sources and its digest are made here. A split counts as found what was looked
    at. Damaged (Failed) if bytes of `dataset` are not those of its index.
    """
    sources = tuple(
        write_part(dataset, out, part) for part in sorted(parts, key=lambda part: (part.corpus, part.split))
    )
    digest = digest_of([source.index for source in sources])
    return publish(out, msgspec.structs.replace(about, format=FORMAT, sources=sources, digest=digest))


def write_part(dataset: Dataset, out: str, part: Part) -> Source:
    """Write one split: its shard, unless nothing of it is taken, its index and its quarantine."""
    told = dataset.source(part.corpus, part.split)
    table = dataset.table(part.corpus, part.split)
    rows = {clip.row: table.slice(clip.row, 1).to_pylist()[0] for clip in part.clips}
    taken = [clip for clip in part.clips if clip.instructions]
    path = f"shards/{part.corpus}/{part.split}-000000.tar"
    reader = Reader(dataset, [(part.corpus, part.split)])
    try:
        with open_shard(out, path) as writer:
            for clip in taken:
                add(writer, reader, rows[clip.row], clip)
    finally:
        reader.close()
    if taken:
        writer.read_back(files.join(out, path))
    else:
        files.remove(files.join(out, path))
    index, quarantine = (f"{kind}/{part.corpus}/{part.split}.parquet" for kind in ("index", "quarantine"))
    write_table(files.join(out, index), writer.table())
    left = [refusal(rows[clip.row], clip) for clip in part.clips if not clip.instructions]
    write_table(files.join(out, quarantine), pa.Table.from_pylist(left, schema=QUARANTINE))
    bad = sum(one["verdict"] == "quarantined" for one in left)
    return Source(
        corpus=part.corpus,
        split=part.split,
        tasks=tuple(sorted({task for row in writer.rows for task in row["tasks"]})),
        found=len(part.clips),
        packed=len(taken),
        quarantined=bad,
        excluded=len(left) - bad,
        reasons=counted([one["reason"] for one in left]),
        skipped={},
        seconds=sum(row["samples"] for row in writer.rows) / RATE,
        license=told.license,
        published_clips=told.published_clips,
        index=proof(out, index),
        quarantine=proof(out, quarantine),
        shards=(writer.proof(),) if taken else (),
    )


def add(writer: ShardWriter, reader: Reader, row: dict[str, Any], clip: Taken) -> None:
    """Append one clip to the shard: its audio and its facts as they are, its instructions as they are now."""
    held = reader.read(clip.row)
    if held.sample.key != row["key"]:
        raise Failed(f"{held.where} stands where the index has {row['key']!r}; salmonn verify says what else is wrong")
    stored = Stored(
        flac=bytes(held.flac),
        samples=row["samples"],
        pcm_md5=row["pcm_md5"],
        action=row["action"],
        source_rate=row["source_rate"],
        quality=Quality(**{name: row[name] for name in Quality.__struct_fields__}),
        fingerprint=row["fingerprint"],
    )
    sample = msgspec.structs.replace(held.sample, instructions=clip.instructions)
    writer.add(sample, stored, row["sources"], row["source_bytes"])


def refusal(row: dict[str, Any], clip: Taken) -> dict[str, Any]:
    """Return the row of the quarantine of a clip that is left out."""
    return {
        "id": row["id"],
        "verdict": clip.verdict,
        "reason": clip.reason,
        "detail": clip.detail,
        "source": " ".join(row["sources"]),
        "bytes": row["source_bytes"],
    }


def counted(reasons: list[str]) -> dict[str, int]:
    """Return how often each reason stands in a list."""
    return {reason: reasons.count(reason) for reason in sorted(set(reasons))}
