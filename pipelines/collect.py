"""Garbage: what lies in the folder of a dataset and is no part of it, left by builds that were killed or changed."""

from __future__ import annotations

import msgspec

from manifests import UserError, files
from pipelines.place import locked
from pipelines.renew import read_frozen
from shards.index import Dataset


class Orphan(msgspec.Struct, frozen=True, kw_only=True):
    """One file that nothing refers to."""

    path: str
    """Relative to the dataset."""
    bytes: int
    why: str


def orphans(out: str) -> list[Orphan]:
    """List what may be removed from the folder of a dataset; UserError if there is neither a dataset nor a build."""
    finished = files.exists(files.join(out, "dataset.json"))
    begun = read_frozen(files.join(out, "build"))
    if not finished and begun is None:
        raise UserError(f"there is no dataset and no build in {out!r}; nothing is removed from such a folder")
    known: set[str] = {"dataset.json", "README.md"}
    if finished:
        for source in Dataset(out).manifest.sources:
            known |= {source.index.path, source.quarantine.path, *(shard.path for shard in source.shards)}
    found = []
    for path in files.walk(out):
        top, name = path.partition("/")[0], path.rsplit("/", 1)[-1]
        why = ""
        if name.startswith(".") and name.endswith(".tmp"):
            why = "a half-written file of a process that was killed"
        elif finished and top == "build":
            why = "the workshop of a build that has finished"
        elif begun and path.startswith("build/commits/") and path.split("/")[2] != begun.digest[:12]:
            why = "a commit of a plan that was given up"
        elif finished and top in ("shards", "index", "quarantine") and path not in known:
            why = "no part of the dataset that dataset.json describes"
        if why:
            found.append(Orphan(path=path, bytes=files.size(files.join(out, path)) or 0, why=why))
    return found


def collect(out: str, dry_run: bool = False) -> list[Orphan]:
    """Remove what nothing refers to, and return it; with `dry_run`, only return it. UserError if a build is at work."""
    found = orphans(out)
    if found and not dry_run:
        with locked(out):
            for orphan in found:
                files.remove(files.join(out, orphan.path))
        if files.exists(files.join(out, "dataset.json")):
            files.remove_tree(files.join(out, "build"))
    return found
