"""Adopt: corpora that a person gets by hand. The page that says how, and taking a copy of them into ROOT by links."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import filecmp
import importlib
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec

from manifests import Clip, Failed, UserError, files, load_corpus
from manifests.catalogue import ACCESS
from pipelines.scan import disk_folder
from shards.flac import HEAD, flac_info

NO_LINK = {errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS}
"""Why a hard link may not be had: another disk, or a file system or a rule that has none."""
SHOWN = 20
"""Damaged files that are named."""
TREE = re.compile(r"::\n\n((?:    .*\n|\n)+)")
"""The first block of a reader's docstring: the published tree."""


class AdoptedSplit(msgspec.Struct, frozen=True, kw_only=True):
    """What the reader of the corpus finds of a split."""

    split: str
    clips: int
    with_audio: int
    refused: int
    """Rows that the reader passes over."""
    published: int


class Adopted(msgspec.Struct, frozen=True, kw_only=True):
    """What was taken."""

    corpus: str
    folder: str
    files: int
    bytes: int
    linked: dict[str, int]
    """How many files by ``hard link``, ``symbolic link`` or ``copy``; empty if all was there."""
    splits: tuple[AdoptedSplit, ...]
    unread: dict[str, str]
    """Splits that are not there, and what the reader says of them."""
    empty: int
    """Files without a byte."""
    broken: tuple[str, ...]
    """FLAC files that do not begin as such; the first few."""
    already: bool
    """Whether all of it was there."""


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """A file to take."""

    path: str
    """Absolute, links resolved."""
    bytes: int


def page(corpus: str) -> str:
    """Return the steps to get a corpus by hand, the folder it goes to and the counts it should have, as plain text."""
    facts = load_corpus(corpus).facts
    reader = importlib.import_module(f"manifests.corpora.{corpus}")
    tree = TREE.search((reader.__doc__ or "") + "\n")
    lines = [
        f"{facts.title} ({corpus}): {ACCESS[facts.access]}",
        f"  homepage   {facts.homepage}",
        f"  licence    {facts.license}",
        f"  steps      {facts.steps}",
        f"  folder     ROOT/raw/{corpus}/, or anywhere, and then: salmonn fetch {corpus} --from DIR --root ROOT",
        *(["", "The folder holds:", "", tree[1].strip("\n")] if tree else []),
        "",
        "As published:",
        *(f"  {name:<20} {one.clips:>10,} clips {one.hours:>10,.1f} h" for name, one in facts.splits.items()),
    ]
    return "\n".join(lines) + "\n"


def adopt(
    corpus: str, from_dir: str, root: str, copy: bool = False, splits: tuple[str, ...] = (), dry_run: bool = False
) -> Adopted:
    """Take the copy of a corpus in `from_dir` into ROOT/raw/<corpus>, whole or not at all; `from_dir` stays as it is.

    Files are hard links, or symbolic links where those cannot be had, or copies if `copy`. A link in `from_dir` to a
    file in it counts as that file; one to a folder, or out of `from_dir`, is refused. UserError if the reader of the
    corpus accepts no split of what would lie in ROOT/raw/<corpus>, or not all of `splits`, or if another file has the
    name of one there; Failed if it cannot be written. With `dry_run` `root` is left as it is.
    """
    known = load_corpus(corpus)
    for split in splits:
        known.split(split)
    if not (files.is_local(from_dir) and files.is_local(root)):
        raise UserError("--from and --root must be folders of this machine, for files are linked")
    if not files.is_folder(from_dir):
        raise UserError(f"--from: there is no folder {from_dir!r}")
    source, target = Path(files.local(from_dir)).resolve(), Path(files.local(disk_folder(root, corpus))).absolute()
    if target.is_symlink():
        raise UserError(f"{str(target)!r} is a link to {str(target.resolve())!r}; remove it first, then adopt")
    here = target.resolve()
    if here == source or here.is_relative_to(source) or source.is_relative_to(here):
        raise UserError(f"--from {from_dir!r} and {str(target)!r} lie one in the other; {corpus} is there, or will be")
    found = find_files(source)
    if not found:
        raise UserError(f"--from: {from_dir!r} holds no file")
    with contextlib.ExitStack() as held:
        if dry_run:
            apart = held.enter_context(tempfile.TemporaryDirectory(prefix="salmonn-adopt-"))
        else:
            held.enter_context(lock(corpus, root))
        tree = held.enter_context(making(Path(apart, corpus) if dry_run else target))
        new = differ(found, target)
        try:
            if copy and (need := sum(one.bytes for one in new.values())) > shutil.disk_usage(target.parent).free:
                raise Failed(f"copying {corpus} takes {need:,} bytes, more than are free in {root}")
            means = Counter(take(one, tree / name, copy and not dry_run) for name, one in new.items())
            for name in files.walk(target):
                take(Source(path=str(target / name), bytes=0), tree / name, False)
            read, unread = read_splits(corpus, tree, splits or known.splits)
            lost = [split for split in splits if split in unread]
            if lost or not any(one.clips for one in read):
                said = next((unread[split] for split in (*lost, *unread)), "its reader finds no clip")
                raise UserError(f"{from_dir!r} is not {corpus} as published: {said.replace(str(tree), from_dir)}")
            if not dry_run:
                move(new, tree, target)
        except OSError as error:
            raise Failed(f"{corpus} cannot be taken into {root}: {error.strerror or error}; try again") from None
    return Adopted(
        corpus=corpus,
        folder=str(target),
        files=len(found),
        bytes=sum(one.bytes for one in found.values()),
        linked=dict(means),
        splits=read,
        unread={split: said.replace(str(tree), str(target)) for split, said in unread.items()},
        empty=sum(one.bytes == 0 for one in found.values()),
        broken=tuple(broken(found)),
        already=not new,
    )


@contextlib.contextmanager
def making(target: Path) -> Iterator[Path]:
    """Give a new folder beside `target`, which goes at the end; those of killed runs go first."""
    target.parent.mkdir(parents=True, exist_ok=True)
    for left in target.parent.glob(f".{target.name}-*.adopting"):
        shutil.rmtree(left)
    tree = target.parent / f".{target.name}-{secrets.token_hex(4)}.adopting"
    tree.mkdir()
    try:
        yield tree
    finally:
        shutil.rmtree(tree, ignore_errors=True)


def differ(found: dict[str, Source], target: Path) -> dict[str, Source]:
    """Return what of `found` is not in `target`; UserError if something else has its name there."""
    new = {}
    for name, one in found.items():
        path = target / name
        if not os.path.lexists(path):
            new[name] = one
        elif not path.is_file() or not (path.samefile(one.path) or filecmp.cmp(path, one.path, shallow=False)):
            raise UserError(f"{str(path)!r} is there and is another file; nothing was changed: move it away first")
    return new


def move(new: dict[str, Source], tree: Path, target: Path) -> None:
    """Move the files that are new from `tree` to `target`: all at once where nothing was there before."""
    if new and not files.walk(target):
        if target.exists():
            shutil.rmtree(target)
        os.rename(tree, target)
    else:
        # Each appears whole; a run that is killed here is completed by the next.
        for name in new:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            os.rename(tree / name, target / name)
    for folder in {target.parent, *((target / name).parent for name in new)}:
        files.sync_folder(folder)


def find_files(top: Path) -> dict[str, Source]:
    """Map the paths below `top`, relative to it, to the files they are; UserError for what we do not take."""
    found = {}
    for here, folders, names in os.walk(top):
        folders.sort()
        for name in sorted([*folders, *names]):
            path = Path(here, name)
            told = f"--from: {str(path)!r}"
            about = path.lstat()
            if stat.S_ISDIR(about.st_mode):
                continue
            real = path
            if stat.S_ISLNK(about.st_mode):
                real = path.resolve()
                if not real.is_relative_to(top):
                    raise UserError(f"{told} is a link that leads out of the folder; put there what it leads to")
                if not real.exists():
                    raise UserError(f"{told} is a link to nothing; remove it")
                about = real.stat()
            if not stat.S_ISREG(about.st_mode):
                what = "a link to a folder" if stat.S_ISDIR(about.st_mode) else "neither a file nor a folder"
                raise UserError(f"{told} is {what}, which is not taken; remove it, or put there what it leads to")
            found[path.relative_to(top).as_posix()] = Source(path=str(real), bytes=about.st_size)
    return found


def read_splits(corpus: str, tree: Path, splits: tuple[str, ...]) -> tuple[tuple[AdoptedSplit, ...], dict[str, str]]:
    """Read `splits` as the corpus's reader does: what it finds, and of those it cannot read, why."""
    there = frozenset(files.walk(tree))
    read, unread = [], {}
    for split in splits:
        refused: Counter[str] = Counter()

        def refuse(reason: str, clip_id: str, detail: str, refused: Counter[str] = refused) -> None:
            refused[reason] += 1

        clips = whole = 0
        try:
            for clip in load_corpus(corpus).clips(tree, split, refuse):
                clips += 1
                whole += has_audio(clip, there)
        except UserError as error:
            unread[split] = str(error)
            continue
        read.append(
            AdoptedSplit(
                split=split,
                clips=clips,
                with_audio=whole,
                refused=refused.total(),
                published=load_corpus(corpus).split(split).clips,
            )
        )
    return tuple(read), unread


def has_audio(clip: Clip, there: frozenset[str]) -> bool:
    """Whether all that a clip refers to is there; what is to be spoken always is."""
    return bool(clip.audio) and all(ref.speech or os.path.normpath(ref.path) in there for ref in clip.audio)


def broken(found: dict[str, Source]) -> Iterator[str]:
    """Yield the first few FLAC files that have bytes and no header."""
    left = SHOWN
    for name, one in found.items():
        flac = left and one.bytes and name.lower().endswith(".flac")
        if flac and flac_info(files.read_range(one.path, 0, HEAD)) is None:
            left -= 1
            yield name


def take(one: Source, path: Path, copy: bool) -> str:
    """Make `path` the file `one`; return by which means."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if copy:
        with open(one.path, "rb") as source, files.open_whole(path) as sink:
            shutil.copyfileobj(source, sink, 1 << 20)
        return "copy"
    try:
        os.link(one.path, path)
        return "hard link"
    except OSError as error:
        if error.errno not in NO_LINK:
            raise
    os.symlink(one.path, path)
    return "symbolic link"


@contextlib.contextmanager
def lock(corpus: str, root: str) -> Iterator[None]:
    """Be the only one to adopt a corpus; UserError if another is at it."""
    path = Path(files.local(files.join(root, "fetch", f"{corpus}-adopt.lock")))
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as holder:
        try:
            fcntl.flock(holder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"another run is adopting {corpus} into {root!r}; wait for it") from None
        yield
