"""Pack: bring the clips of one shard to the stored form, write it with their instructions, read it back, commit it.

A shard is committed by one small Parquet file that holds its index rows, what was refused, and the digest of the tar.
Tasks may run twice, even at once: the same clips give the same bytes, and both files appear whole or not at all.
"""

from __future__ import annotations

import contextlib
import gc
from collections import Counter
from collections.abc import Iterator

import msgspec
import pyarrow as pa

from manifests import TASKS, Clip, Instruction, files
from manifests.phones import word_sources
from manifests.tables import Scanned, read_group, read_metadata, read_table, to_bytes
from manifests.tasks import NoAnswer, instruct
from manifests.text import sentence_case
from pipelines.head_start import stop_if_told
from pipelines.layout import ShardTask, rows_path
from pipelines.renew import Renewal
from pipelines.scan import raw_folder
from shards.audio import Refused
from shards.flac import RATE
from shards.index import FORMAT, SCHEMA, File
from shards.proofs import Proofs, Unproven
from shards.render import store
from shards.sample import Sample, key_of
from shards.speech import engine_of
from shards.writer import ShardWriter, open_shard


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """One clip that was not packed, and why."""

    id: str
    verdict: str
    """``quarantined``: its audio is bad. ``excluded``: there is nothing to pack."""
    reason: str
    detail: str
    source: str
    bytes: int


class Commit(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one shard. Its index rows lie in the same file."""

    frozen: str
    """The digest of the plan, and of the state of the files, that it was made from."""
    found: int
    packed: int
    seconds: float
    shard: File | None
    """None if nothing of it could be packed: then there is no tar."""
    refusals: tuple[Refusal, ...]
    skipped: dict[str, dict[str, int]]
    phones: dict[str, int]
    """Where the pronunciations of the words came from, if phones were asked for."""
    actions: dict[str, int] = {}
    """What was done to the audio that was not taken over: copy, transcode or render, to samples of audio."""
    kept: int = 0
    """Clips whose audio was taken over from an earlier build."""

    @property
    def quarantined(self) -> int:
        """How many clips had bad audio."""
        return sum(refusal.verdict == "quarantined" for refusal in self.refusals)


def sources_of(clip: Clip) -> list[str]:
    """Name what a clip's audio is made of: files of the corpus, and voices."""
    return list(dict.fromkeys(f"speech:{ref.voice}" if ref.speech else ref.path for ref in clip.audio))


def provenance_of(clip: Clip) -> str:
    """Say how a clip's audio was made: who spoke what is synthesized, and by which recipe it was mixed."""
    voices = list(dict.fromkeys(ref.voice for ref in clip.audio if ref.speech))
    engines = [engine_of(voice) for voice in voices]
    told = [f"speech by {e.name} {e.version}, voice {voice}" for e, voice in zip(engines, voices, strict=True)]
    return "; ".join([*told, *filter(None, [clip.labels.get("recipe")])])


class Tally:
    """Counts for one shard while it is packed."""

    def __init__(self) -> None:
        self.refusals: list[Refusal] = []
        self.skipped: dict[str, dict[str, int]] = {}
        self.phones: Counter[str] = Counter()
        self.actions: Counter[str] = Counter()
        self.kept = 0

    def refuse(self, scanned: Scanned, verdict: str, reason: str, detail: str) -> None:
        """Note a clip that is not packed."""
        paths = " ".join(sources_of(scanned.clip))
        self.refusals.append(
            Refusal(
                id=scanned.clip.id, verdict=verdict, reason=reason, detail=detail, source=paths, bytes=scanned.bytes
            )
        )

    def skip(self, task: str, reason: str) -> None:
        """Note a task that has nothing to ask of a clip."""
        reasons = self.skipped.setdefault(task, {})
        reasons[reason] = reasons.get(reason, 0) + 1


def pack(task: ShardTask) -> Commit:
    """Write one shard and its commit record, and return the record without its rows."""
    try:
        return pack_shard(task, Proofs())
    except Unproven:
        return pack_shard(task, None)


def pack_shard(task: ShardTask, proofs: Proofs | None) -> Commit:
    """Do that, with `proofs` only if every clip that is copied is what its file signs, else Unproven."""
    clips = read_group(files.join(task.dataset, rows_path(task.corpus, task.split)), task.lot.group)
    tally = Tally()
    raw = raw_folder(task.root, task.corpus)
    with frozen_heap(), Renewal(task) as old, open_shard(task.dataset, task.path) as writer:
        for scanned in clips:
            stop_if_told()
            pack_clip(task, raw, scanned, old, writer, tally, proofs)
        if proofs is not None:
            proofs.settle()
    packed = len(writer.rows)
    if not packed:
        files.remove(files.join(task.dataset, task.path))
    else:
        writer.read_back(files.join(task.dataset, task.path))
    commit = Commit(
        frozen=task.frozen,
        found=len(clips),
        packed=packed,
        seconds=sum(row["samples"] for row in writer.rows) / RATE,
        shard=writer.proof() if packed else None,
        refusals=tuple(tally.refusals),
        phones=dict(sorted(tally.phones.items())),
        skipped={name: dict(sorted(reasons.items())) for name, reasons in sorted(tally.skipped.items())},
        actions=dict(sorted(tally.actions.items())),
        kept=tally.kept,
    )
    write_commit(files.join(task.dataset, task.commit), commit, writer.table())
    return commit


@contextlib.contextmanager
def frozen_heap() -> Iterator[None]:
    """Let Python look for cyclic garbage among what comes now, not among what it imported: a tenth of a plain copy."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def pack_clip(
    task: ShardTask,
    raw: str,
    scanned: Scanned,
    old: Renewal,
    writer: ShardWriter,
    tally: Tally,
    proofs: Proofs | None,
) -> None:
    """Add one clip to the shard, or note why not."""
    clip = scanned.clip
    if scanned.state != "ok":
        return tally.refuse(scanned, "excluded", scanned.state, scanned.detail)
    key = key_of(clip.id)
    instructions = instructions_of(task, clip, key, tally)
    if not instructions:
        return tally.refuse(scanned, "excluded", "no_instruction", "no task of the recipe can ask anything of it")
    stored = old.stored(scanned)
    if stored is not None:
        tally.kept += 1
    else:
        trusted = task.trusted and scanned.verified
        try:
            stored = store(raw, clip.audio, clip.join, trusted=trusted, size=scanned.bytes, proofs=proofs)
        except Refused as refused:
            return tally.refuse(scanned, "quarantined", refused.reason, refused.detail)
        tally.actions[stored.action] += stored.samples
    sample = Sample(
        key=key,
        id=clip.id,
        corpus=task.corpus,
        split=task.split,
        samples=stored.samples,
        seconds=stored.samples / RATE,
        language=clip.language,
        speaker=clip.speaker,
        gender=clip.gender,
        text=clip.text,
        license=clip.license,
        provenance=provenance_of(clip),
        instructions=instructions,
    )
    writer.add(sample, stored, sources_of(clip), scanned.bytes)


def instructions_of(task: ShardTask, clip: Clip, key: str, tally: Tally) -> tuple[Instruction, ...]:
    """Return what all tasks ask of a clip."""
    instructions: list[Instruction] = []
    if "phone_recognition" in task.tasks:
        tally.phones += word_sources(sentence_case(clip.text))
    for name in task.tasks:
        try:
            instructions.extend(instruct(TASKS[name], clip, key, evaluated=name in task.evaluated))
        except NoAnswer as nothing:
            tally.skip(name, nothing.reason)
    return tuple(instructions)


def write_commit(url: str, commit: Commit, rows: pa.Table) -> None:
    """Write a commit record unless it is there: of two attempts at a shard, which write the same, the first counts."""
    metadata = {"format": FORMAT, "commit": msgspec.json.encode(commit, order="sorted").decode()}
    files.write_new(url, to_bytes(rows.cast(SCHEMA).replace_schema_metadata(metadata)))


def read_record(url: str) -> Commit | None:
    """Return a commit record without its rows, None if there is none."""
    told = read_metadata(url)
    return msgspec.json.decode(told[b"commit"], type=Commit) if b"commit" in told else None


def read_commit(url: str) -> tuple[Commit, pa.Table]:
    """Return a commit record and its index rows."""
    table = read_table(url, FORMAT)
    return msgspec.json.decode(table.schema.metadata[b"commit"], type=Commit), table.replace_schema_metadata(
        SCHEMA.metadata
    )
