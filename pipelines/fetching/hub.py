"""Corpora on the Hugging Face Hub: list their files at one commit, and fetch them, digests checked."""

from __future__ import annotations

import fcntl
import fnmatch
import hashlib
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from manifests import Failed, UserError, files, load_corpus
from manifests.corpora.gigaspeech import SUBSETS
from manifests.corpora.wavcaps import SOURCES
from pipelines.fetching.hub_client import download, endpoint, hub, patiently
from pipelines.scan import disk_folder

BLOCK = 1 << 20
"""Bytes read at a time for a digest."""
SPARE = 1 << 28
"""Bytes that stay free on the disk."""
PART = re.compile(r"\.z[0-9][0-9]$")
"""How the names of all but the last part of a split zip end."""


class Repo(msgspec.Struct, frozen=True, kw_only=True):
    """A dataset on the Hub."""

    name: str
    patterns: dict[str, tuple[str, ...]]
    """Split to patterns of the paths that it needs; a star goes over slashes. Other splits are not on the Hub."""


class HubFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a dataset at a commit."""

    path: str
    """In the repository, and in the folder of the corpus."""
    bytes: int
    sha256: str = ""
    """Of a large file."""
    blob: str = ""
    """Of a small file: git's name for its content, SHA-1."""


class HubPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What to fetch."""

    corpus: str
    repo: str
    commit: str
    files: tuple[HubFile, ...]

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(file.bytes for file in self.files)


def gigaspeech_patterns(split: str) -> tuple[str, ...]:
    """Return what a subset needs: a chunk of s has what is not in xs, and so on."""
    found = []
    for part in SUBSETS[: SUBSETS.index(split) + 1] if split in SUBSETS else (split,):
        more = "_additional" if part in SUBSETS[1:] else ""
        found += [
            f"data/{part}_n_archives{more}.txt",
            f"data/metadata/{part}_metadata{more}/*.csv",
            f"data/audio/{part}_files{more}/*.tar.gz",
        ]
    return tuple(found)


HUB_CORPORA = {
    "gigaspeech": Repo(
        name="speechcolab/gigaspeech",
        patterns={split: gigaspeech_patterns(split) for split in (*SUBSETS, "dev", "test")},
    ),
    "musiccaps": Repo(
        name="google/MusicCaps", patterns={split: ("musiccaps-public.csv",) for split in ("train", "eval")}
    ),
    "wavcaps": Repo(
        name="cvssp/WavCaps",
        patterns={
            split: (f"json_files/{folder}/{table}", "json_files/blacklist/*.json", f"Zip_files/{folder}/*")
            for split, (folder, table) in SOURCES.items()
        },
    ),
}


def record_path(root: str, corpus: str) -> str:
    """Return where the commit of a corpus is written down, and all its files that were ever planned."""
    return files.join(root, "fetch", f"{corpus}-hub.json")


def read_record(root: str, corpus: str) -> HubPlan | None:
    """Return what was written down of a corpus; None if nothing was. UserError if it cannot be read."""
    path = record_path(root, corpus)
    if not files.exists(path):
        return None
    try:
        return msgspec.json.decode(files.read_bytes(path), type=HubPlan)
    except msgspec.MsgspecError as error:
        raise UserError(f"{path} is no record of a fetch ({error}); move it away and fetch {corpus} again") from None


def plan_hub(corpus: str, splits: tuple[str, ...], root: str, revision: str = "") -> HubPlan:
    """Ask the Hub which files `splits` need, how large they are and what their digests are; fetches none.

    Without a `revision` it is the commit of the first fetch into `root`, or that of main now. UserError if the Hub does
    not let us in, and how it would; Failed if it does not answer.
    """
    if corpus not in HUB_CORPORA:
        raise UserError(f"{corpus} is not fetched from the Hub; {', '.join(HUB_CORPORA)} are")
    repo = HUB_CORPORA[corpus]
    for split in splits:
        load_corpus(corpus).split(split)
    known = read_record(root, corpus)
    with hub(repo.name) as (library, token):
        api = library.HfApi(endpoint=endpoint(), token=token)
        wanted = revision or (known.commit if known else "main")
        commit = patiently(lambda: api.dataset_info(repo.name, revision=wanted)).sha
        if known and known.commit != commit:
            raise UserError(
                f"{corpus} in {root} is commit {known.commit[:12]} of {repo.name}, not {commit[:12]}; a corpus is of "
                f"one commit: fetch that one, or use another --root"
            )
        # The list of a gated dataset is open to all, its files are not.
        patiently(lambda: api.auth_check(repo.name, repo_type="dataset"))
        listed = patiently(
            lambda: list(api.list_repo_tree(repo.name, recursive=True, revision=commit, repo_type="dataset"))
        )
    patterns = {pattern for split in splits for pattern in repo.patterns.get(split, ())}
    chosen = [
        entry
        for entry in listed
        if hasattr(entry, "blob_id") and any(fnmatch.fnmatchcase(entry.path, pattern) for pattern in patterns)
    ]
    for pattern in sorted(patterns):
        if not any(fnmatch.fnmatchcase(entry.path, pattern) for entry in chosen):
            raise UserError(f"{repo.name} at {commit[:12]} has no {pattern}; its layout has changed: {corpus} needs it")
    return HubPlan(corpus=corpus, repo=repo.name, commit=commit, files=tuple(map(file_of, chosen)))


def file_of(entry: Any) -> HubFile:
    """Return an entry of a list of the Hub as a file; UserError if its name leads out of the folder."""
    parts = entry.path.split("/")
    if "\\" in entry.path or not entry.path.isprintable() or any(part in ("", ".", "..") for part in parts):
        raise UserError(f"the Hub lists a file named {entry.path[:80]!r}, which no file of a corpus can be called")
    if entry.lfs is not None:
        return HubFile(path=entry.path, bytes=int(entry.lfs.size), sha256=entry.lfs.sha256)
    return HubFile(path=entry.path, bytes=int(entry.size), blob=entry.blob_id)


def fetch_hub(plan: HubPlan, root: str, watch: Callable[[str, int], None] | None = None) -> list[HubFile]:
    """Fetch what is not there yet of a plan, one file after the other, and return it.

    ``watch(path, bytes)`` is told each file that came. Failed if the Hub does not answer, the disk is full or what came
    has another digest; then no file has its name. What came stays for the next time.
    """
    write_record(plan, root)
    missing = [file for file in plan.files if not is_there(plan, file, root)]
    rest = sum(file.bytes for file in missing)
    os.makedirs(disk_folder(root, plan.corpus), exist_ok=True)
    free = shutil.disk_usage(disk_folder(root, plan.corpus)).free
    if missing and free < rest + SPARE:
        raise Failed(f"{plan.corpus} needs {rest:,} bytes more, and only {free:,} are free in {root}")
    fetched = []
    for file in missing:
        if fetch_hub_file(plan, file, root):
            fetched.append(file)
            if watch:
                watch(file.path, file.bytes)
    return fetched


def write_record(plan: HubPlan, root: str) -> None:
    """Write down the commit and the files of a plan, with those of other splits that were planned before."""
    if not files.is_local(root):
        raise UserError(f"the Hub's files are fetched into a folder of this machine, not to {files.redact(root)!r}")
    known = read_record(root, plan.corpus)
    merged = {file.path: file for file in (*(known.files if known else ()), *plan.files)}
    full = msgspec.structs.replace(plan, files=tuple(merged[path] for path in sorted(merged)))
    if full != known:
        files.write_whole(record_path(root, plan.corpus), msgspec.json.encode(full))


def is_there(plan: HubPlan, file: HubFile, root: str) -> bool:
    """Whether a file is there, which got its name after its digest was checked, or went after it was unpacked."""
    found = files.size(files.join(disk_folder(root, plan.corpus), file.path))
    return found == file.bytes or (found is None and files.exists(unpacked_path(root, plan.corpus, file.path)))


def unpacked_path(root: str, corpus: str, path: str) -> str:
    """Return where it is written down what the archive at `path` held; the parts of a split zip have its record."""
    return files.join(root, "fetch", corpus, f"{PART.sub('.zip', path)}.unpacked.parquet")


def planned_files(corpus: str, splits: tuple[str, ...], root: str) -> dict[str, HubFile]:
    """Return the files of `splits` by their paths, without asking the Hub.

    A split that was never planned has none, though it may share files with another that was.
    """
    known = read_record(root, corpus)
    planned: dict[str, HubFile] = {}
    for split in splits:
        found = [
            [file for file in (known.files if known else ()) if fnmatch.fnmatchcase(file.path, pattern)]
            for pattern in HUB_CORPORA[corpus].patterns.get(split, ())
        ]
        if all(found):
            planned |= {file.path: file for files_of_one in found for file in files_of_one}
    return planned


def hub_status(corpus: str, splits: tuple[str, ...], root: str) -> tuple[int, int, int]:
    """Return how many files of `splits` are there, how many were planned, and the bytes that are missing."""
    known, planned = read_record(root, corpus), planned_files(corpus, splits, root).values()
    there = [file for file in planned if known and is_there(known, file, root)]
    return len(there), len(planned), sum(file.bytes for file in planned) - sum(file.bytes for file in there)


def fetch_hub_file(plan: HubPlan, file: HubFile, root: str) -> bool:
    """Fetch one file, from where the last attempt broke off; False if it was there. Failed as for `fetch_hub`."""
    target = Path(files.local(files.join(disk_folder(root, plan.corpus), file.path)))
    name = file.sha256 or file.blob
    part = Path(files.local(files.join(root, "fetch", "hub", plan.corpus, f"{name}.part")))
    target.parent.mkdir(parents=True, exist_ok=True)
    part.parent.mkdir(parents=True, exist_ok=True)
    lock = part.with_suffix(".lock")
    with open(lock, "w") as holder:
        # A task may run twice at a time; the second finds the file of the first.
        fcntl.flock(holder, fcntl.LOCK_EX)
        if is_there(plan, file, root):
            lock.unlink(missing_ok=True)
            return False
        # What an earlier run left may be wrong from its first byte on: then once more, from nothing.
        resumed = part.exists() and part.stat().st_size <= file.bytes
        for fresh in (False, True) if resumed else (True,):
            if fresh:
                part.unlink(missing_ok=True)
            fill(plan, file, part)
            if (found := digest_of(part, file)) == name:
                break
        else:
            part.unlink()
            raise Failed(f"{plan.repo}/{file.path}: the digest of what came is {found}, it should be {name}; try again")
        os.replace(part, target)
        files.sync_folder(target.parent)
        lock.unlink(missing_ok=True)
    return True


def fill(plan: HubPlan, file: HubFile, part: Path) -> None:
    """Append to `part` what it lacks of a file."""
    with hub(plan.repo) as (library, token), open(part, "ab") as sink:
        url = library.hf_hub_url(plan.repo, file.path, repo_type="dataset", revision=plan.commit, endpoint=endpoint())
        patiently(lambda: download(library, token, url, file.sha256 or file.blob, file.bytes, sink))
        sink.flush()
        os.fsync(sink.fileno())


def digest_of(path: Path, file: HubFile) -> str:
    """Return the digest of what lies at `path` as the Hub has it for such a file."""
    digest = hashlib.sha256() if file.sha256 else hashlib.sha1(f"blob {path.stat().st_size}\0".encode())
    with open(path, "rb") as source:
        while block := source.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
