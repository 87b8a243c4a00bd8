"""Corpora of the Hub, as tasks on Ray as all others: their files, then what the archives among them hold."""

from __future__ import annotations

import fnmatch
import os
from pathlib import Path

import msgspec

from manifests import Failed, UserError, files
from manifests.corpus import ARCHIVES
from pipelines.executor import Executor, Watch
from pipelines.fetching.hub import (
    HUB_CORPORA,
    PART,
    HubFile,
    HubPlan,
    digest_of,
    fetch_hub_file,
    is_there,
    plan_hub,
    read_record,
    unpacked_path,
    write_record,
)
from pipelines.scan import disk_folder


class HubTask(msgspec.Struct, frozen=True, kw_only=True):
    """A file to fetch."""

    plan: HubPlan
    """Without its files, which would travel with each of them."""
    file: HubFile
    root: str


class HubArchive(msgspec.Struct, frozen=True, kw_only=True):
    """An archive among the files, unpacked beside itself."""

    archive: str
    parts: tuple[str, ...]
    """Itself, and what else it consists of."""
    record: str
    remove: bool
    """Whether it goes once it is unpacked."""


class HubFetched(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a corpus of the Hub."""

    corpus: str
    files: int
    bytes: int
    fetched: int
    unpacked: int
    """Archives unpacked now."""
    failed: dict[str, str]
    """Paths to why they are not there."""


def plan_of(corpus: str, splits: tuple[str, ...], root: str) -> HubPlan:
    """Return the plan of `splits`; without asking the Hub where an earlier one holds all of it."""
    known = read_record(root, corpus)
    patterns = {pattern for split in splits for pattern in HUB_CORPORA[corpus].patterns.get(split, ())}
    if known:
        chosen = tuple(file for file in known.files if any(fnmatch.fnmatchcase(file.path, one) for one in patterns))
        covered = all(any(fnmatch.fnmatchcase(file.path, one) for file in chosen) for one in patterns)
        if covered and all(is_there(known, file, root) for file in chosen):
            return msgspec.structs.replace(known, files=chosen)
    return plan_hub(corpus, splits, root)


def fetch_from_hub(
    corpus: str,
    splits: tuple[str, ...],
    root: str,
    *,
    executor: Executor,
    unpack: bool = True,
    remove: bool = False,
    verify: bool = False,
    watch: Watch | None = None,
) -> HubFetched:
    """Fetch the files of `splits` and unpack the archives among them; UserError if the Hub does not let us in.

    With `remove` archives go once they are unpacked, with `verify` what is there is hashed again. The executor's
    workers are how many files come at a time.
    """
    plan = plan_of(corpus, splits, root)
    wanted = [file for file in plan.files if verify or not is_there(plan, file, root)]
    failed: dict[str, str] = {}
    come, bare = 0, msgspec.structs.replace(plan, files=())
    if wanted:
        write_record(plan, root)
        tasks = [HubTask(plan=bare, file=file, root=root) for file in sorted(wanted, key=lambda file: -file.bytes)]
        for done, (task, result) in enumerate(executor.run(fetch_one, tasks), 1):
            failed |= {task.file.path: result} if isinstance(result, str) else {}
            come += result is True
            if watch:
                watch(corpus, done, len(tasks))
    archives = [] if failed or not unpack else archives_of(plan, root, remove)
    for done, (archive, why) in enumerate(executor.run(unpack_one, archives), 1):
        failed |= {archive.archive: why} if why else {}
        if watch:
            watch("unpack", done, len(archives))
    return HubFetched(
        corpus=corpus,
        files=len(plan.files),
        bytes=plan.bytes,
        fetched=come,
        unpacked=len(archives) - sum(archive.archive in failed for archive in archives),
        failed=failed,
    )


def is_archive(path: str) -> bool:
    """Whether a file of the Hub is unpacked after it was fetched."""
    return path.endswith((*ARCHIVES, ".parquet"))


def archives_of(plan: HubPlan, root: str, remove: bool = False) -> list[HubArchive]:
    """Return the archives of a plan that are not unpacked yet."""
    raw = disk_folder(root, plan.corpus)
    made = []
    for file in plan.files:
        if is_archive(file.path) and not files.exists(record := unpacked_path(root, plan.corpus, file.path)):
            parts = [one.path for one in plan.files if PART.sub(".zip", one.path) == file.path]
            there = tuple(files.join(raw, path) for path in parts)
            made.append(HubArchive(archive=files.join(raw, file.path), parts=there, record=record, remove=remove))
    return made


def fetch_one(task: HubTask) -> bool | str:
    """Fetch a file, or hash it if it is there; return whether it came now, or why it is not there."""
    place = Path(files.local(files.join(disk_folder(task.root, task.plan.corpus), task.file.path)))
    try:
        # One that is gone and was unpacked is there all the same.
        if is_there(task.plan, task.file, task.root):
            if not place.exists() or digest_of(place, task.file) == (task.file.sha256 or task.file.blob):
                return False
            place.unlink()
            files.remove(unpacked_path(task.root, task.plan.corpus, task.file.path))
        return fetch_hub_file(task.plan, task.file, task.root)
    except (Failed, UserError) as error:
        return str(error)


def unpack_one(task: HubArchive) -> str:
    """Unpack one archive beside itself; return why that failed, or nothing."""
    from pipelines.unpacking.unpack import unpack

    try:
        unpack(task.archive, os.path.dirname(task.archive), record=task.record)
    except (UserError, Failed) as error:
        return str(error)
    for part in task.parts if task.remove else ():
        files.remove(part)
    return ""
