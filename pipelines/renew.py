"""Renewing a dataset: what an earlier build of it has that is still right, and so is not made again.

A build remembers, below ROOT/builds, the plan, the clips and the commits of each dataset it finished. When its
inputs change, the old dataset is first taken down into DATASET/build/old. A shard all of whose clips are as they were
is linked back into its place; of any other shard, the audio of such clips is copied, and the rest is made.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import msgspec
import pyarrow as pa
from isal import isal_zlib

from manifests import files
from manifests.tables import Scanned, read_group, read_table
from manifests.trees import copy_tree, move
from pipelines.layout import Frozen, Lot, Plan, ShardTask, commit_path, read_lots, rows_path, shard_path
from shards.finishing import PAPERS
from shards.index import FORMAT
from shards.quality import Quality
from shards.render import Stored

OLD = "build/old"
PARTS = ("dataset.json", *PAPERS, "index", "quarantine", "shards")
WORK = ("build/plan.json", "build/rows", "build/commits")


def memory(root: str, dataset: str) -> str:
    """Return the folder below ROOT that remembers how the dataset at this address was built."""
    name = hashlib.sha256(files.absolute(dataset).encode()).hexdigest()[:16]
    return files.join(root, "builds", name)


def read_frozen(folder: str) -> Frozen | None:
    """Return the frozen plan in a folder, None if there is none that this version can read."""
    place = files.join(folder, "plan.json")
    if not files.exists(place):
        return None
    try:
        return msgspec.json.decode(files.read_bytes(place), type=Frozen)
    except msgspec.MsgspecError:
        return None


def remember(out: str, root: str) -> None:
    """Keep what the build of a finished dataset knew, and clear its workshop."""
    workshop = files.join(out, "build")
    frozen = read_frozen(workshop)
    if frozen is not None:
        place, commits = memory(root, out), f"commits/{frozen.digest[:12]}"
        files.remove_tree(place)
        for name in ("rows", commits):
            copy_tree(files.join(workshop, name), files.join(place, name))
        # Last, for a memory is whole or none; and the plan goes from the workshop before what it needs goes.
        files.write_whole(files.join(place, "plan.json"), msgspec.json.encode(frozen, order="sorted"))
        files.remove(files.join(workshop, "plan.json"))
    files.remove_tree(workshop)


def take_down(out: str, root: str) -> None:
    """Move the dataset in `out`, finished or not, into its workshop, to be renewed from there; safe to be killed in.

    On an object store nothing can be moved: its shards stay and are read where they lie until they are replaced.
    """
    old, mark, workshop = files.join(out, OLD), files.join(out, "build/taking-down"), files.join(out, "build")
    if not files.exists(mark) and files.exists(files.join(old, "plan.json")):
        # A renewal that was itself given up: what it was to renew is still the better source.
        clear(out, (*WORK, *(PARTS if files.is_local(out) else ())))
        return
    if not files.exists(mark) or files.read_bytes(mark) == b"copying":
        files.write_whole(mark, b"copying")
        known = workshop if read_frozen(workshop) else memory(root, out)
        for name in ("rows", "commits"):
            copy_tree(files.join(known, name), files.join(old, name))
        if frozen := read_frozen(known):
            files.write_whole(files.join(old, "plan.json"), msgspec.json.encode(frozen, order="sorted"))
        files.write_whole(mark, b"moving")
    # dataset.json goes first: from then on readers are told that the build has not finished.
    if files.is_local(out):
        for name in PARTS:
            move(files.join(out, name), files.join(old, name))
    else:
        clear(out, PARTS[:-1])
    clear(out, WORK)
    files.remove(mark)


def clear(out: str, names: tuple[str, ...]) -> None:
    """Remove files and folders of `out`."""
    for name in names:
        if files.is_folder(files.join(out, name)):
            files.remove_tree(files.join(out, name))
        else:
            files.remove(files.join(out, name))


def compatible(old: Plan, new: Plan) -> bool:
    """Whether the same clip's audio would be stored in the same bytes under both plans."""
    return (old.format, old.trusted, old.tools) == (new.format, new.trusted, new.tools)


def kept_shards(old: str, frozen: Frozen, lots: dict[tuple[str, str], list[Lot]]) -> Iterator[tuple[str, str, Lot]]:
    """Yield the shards (corpus, split, lot) that would come out as they lie in the folder `old`."""
    before = read_frozen(old)
    if before is None or not compatible(before.plan, frozen.plan):
        return
    for (corpus, split), mine in lots.items():
        prints = {lot.number: lot.print for lot in read_lots(files.join(old, rows_in(corpus, split)))}
        yield from ((corpus, split, lot) for lot in mine if prints.get(lot.number) == lot.print)


def rows_in(corpus: str, split: str) -> str:
    """Return the path of laid-out rows in the folder of an old build."""
    return rows_path(corpus, split).removeprefix("build/")


def commit_in(frozen: Frozen, corpus: str, split: str, number: int) -> str:
    """Return the path of a commit record in the folder of an old build."""
    return commit_path(frozen.digest, corpus, split, number).removeprefix("build/")


def old_shard(task: ShardTask, number: int) -> str:
    """Return where an old shard lies."""
    path = shard_path(task.corpus, task.split, number)
    return files.join(task.old if files.is_local(task.dataset) else task.dataset, path)


class Renewal:
    """What an earlier build has of the clips of one shard. Used as a context manager: it holds a shard open."""

    def __init__(self, task: ShardTask) -> None:
        """Look up the clips of the slices of hashes that overlap the shard's."""
        self.task = task
        self.clips: dict[str, Scanned] = {}
        self.rows: dict[str, tuple[int, dict[str, Any]]] = {}
        self.shard: tuple[int, Any] = (-1, None)
        frozen = read_frozen(task.old) if task.old else None
        if frozen is None:
            return
        source = next((s for s in frozen.plan.sources if (s.corpus, s.split) == (task.corpus, task.split)), None)
        if source is None or not source.shards:
            return
        rows = files.join(task.old, rows_in(task.corpus, task.split))
        first = task.lot.number * source.shards // task.shards
        last = -(-(task.lot.number + 1) * source.shards // task.shards)
        for lot in read_lots(rows):
            place = files.join(task.old, commit_in(frozen, task.corpus, task.split, lot.number))
            if first <= lot.number < last and files.exists(place):
                self.clips.update((scanned.clip.id, scanned) for scanned in read_group(rows, lot.group))
                table: pa.Table = read_table(place, FORMAT)
                self.rows.update((row["id"], (lot.number, row)) for row in table.to_pylist())

    def __enter__(self) -> Renewal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.shard[1] is not None:
            self.shard[1].close()

    def stored(self, scanned: Scanned) -> Stored | None:
        """Return a clip's audio as an earlier build stored it, None unless it is certain to be the same."""
        found = self.rows.get(scanned.clip.id)
        if found is None or not same_audio(self.clips.get(scanned.clip.id), scanned):
            return None
        number, row = found
        flac = self.read(number, row["flac_offset"], row["flac_bytes"])
        if isal_zlib.crc32(flac) != row["flac_crc32"]:
            return None
        quality = Quality(**{name: row[name] for name in Quality.__struct_fields__})
        same = {name: row[name] for name in ("samples", "pcm_md5", "action", "source_rate", "fingerprint")}
        return Stored(flac=flac, quality=quality, **same)

    def read(self, number: int, start: int, length: int) -> bytes:
        """Return a range of an old shard; clips of one follow each other. Empty if it is gone."""
        if self.shard[0] != number:
            if self.shard[1] is not None:
                self.shard[1].close()
            try:
                self.shard = (number, files.open_read(old_shard(self.task, number)))
            except OSError:
                self.shard = (number, None)
        file = self.shard[1]
        if file is None:
            return b""
        file.seek(start)
        return bytes(file.read(length))


def same_audio(old: Scanned | None, new: Scanned) -> bool:
    """Whether a clip's audio is made of the same files, as far as their sizes, times and headers tell, in the same way.

    Speech that is synthesized has no file: its text, its voice and the versions of the engine make it.
    """
    if old is None or old.state != "ok":
        return False
    spoken = all(ref.speech for ref in new.clip.audio)
    known = (old.stamp != 0 or spoken) and old.verified == new.verified
    mine, theirs = (new.stamp, new.bytes, new.seconds), (old.stamp, old.bytes, old.seconds)
    return known and (old.clip.audio, old.clip.join) == (new.clip.audio, new.clip.join) and mine == theirs
