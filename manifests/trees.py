"""Folders as a whole: copied, moved and linked, on this machine and on object stores."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from manifests import files


def copy_tree(source: str, target: str) -> None:
    """Copy every file below `source` to its place below `target`, each whole; nothing if there is no such folder."""
    for name in files.walk(source) if files.is_folder(source) else ():
        files.write_whole(files.join(target, name), files.read_bytes(files.join(source, name)))


def move(source: str, target: str) -> None:
    """Move a local file or folder, in one step on one file system; nothing if it is not there."""
    if not os.path.exists(files.local(source)):
        return
    Path(files.local(target)).parent.mkdir(parents=True, exist_ok=True)
    shutil.move(files.local(source), files.local(target))


def link(source: str, target: str) -> None:
    """Let a local file appear at `target` too, by a hard link; a copy where the file system has none."""
    place = Path(files.local(target))
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    try:
        os.link(files.local(source), place)
    except OSError:
        files.write_whole(target, files.read_bytes(source))


def is_link(url: str) -> bool:
    """Whether there is a symbolic link at `url` itself."""
    return files.is_local(url) and os.path.islink(files.local(url))


def same(handle: int, path: str) -> bool:
    """Whether `handle` is the file that is at `path` now."""
    try:
        there, ours = os.stat(path, follow_symlinks=False), os.fstat(handle)
    except FileNotFoundError:
        return False
    return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)
