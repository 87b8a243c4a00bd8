"""Upload: what the Hub lacks of a parcel goes there in commits, dataset.json last; what it has is not sent again.

A push that was killed goes on where it was: files of earlier commits are in the repository's list, and what was sent
and not yet committed is in the Hub's store, which asks for nothing twice. While files change, there is no dataset.json.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from manifests import Failed, UserError
from pipelines.pushing.parcel import FOLDERS, Parcel, Piece
from pipelines.pushing.writer import insistently

KIND = "dataset"
BATCH = 50
"""Files of a commit: the Hub's advice is to stay below a hundred."""
AT_A_TIME = 5
"""Files that are sent side by side; after them, the progress is told."""
BEGINS_WITH = (".gitattributes", "README.md")
"""What a new repository may hold that nobody has pushed to."""

Watch = Callable[[str, int, int, str], None]
"""Told a step, how much of it is done, how much there is, and a note."""


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """What a push did."""

    files: int
    """Sent."""
    bytes: int
    kept: int
    """Files that were there already."""
    removed: int
    """Files of an earlier push."""
    commits: int
    commit: str
    """The address of the last one, empty if there was nothing to do."""


class Repository:
    """One dataset repository on the Hub, at one revision."""

    def __init__(self, library: Any, api: Any, repo: str, revision: str) -> None:
        """Speak to the Hub by `library` and its `api`; an empty `revision` is the repository's main one."""
        self.library, self.api, self.name = library, api, repo
        self.revision = revision or "main"
        self.commits = 0
        self.last = ""

    def open(self, private: bool) -> None:
        """Make the repository, and the branch, unless they are there."""
        how = {"repo_type": KIND, "exist_ok": True}
        insistently(lambda: self.api.create_repo(self.name, private=private or None, **how))
        if self.revision != "main":
            insistently(lambda: self.api.create_branch(self.name, branch=self.revision, **how))

    def files(self) -> dict[str, Any]:
        """Return what is in the repository, by path."""
        listed = insistently(
            lambda: list(self.api.list_repo_tree(self.name, recursive=True, repo_type=KIND, revision=self.revision))
        )
        return {one.path: one for one in listed if isinstance(one, self.library.RepoFile)}

    def send(self, pieces: Sequence[Piece]) -> list[Any]:
        """Send the content of files, and return what commits them; Failed if they are not as dataset.json says."""
        adds = [self.library.CommitOperationAdd(path_in_repo=one.path, path_or_fileobj=one.place) for one in pieces]
        how = {"repo_type": KIND, "revision": self.revision, "num_threads": AT_A_TIME, "free_memory": False}
        insistently(lambda: self.api.preupload_lfs_files(self.name, additions=adds, **how))
        for piece, add in zip(pieces, adds, strict=True):
            # The library hashed what it sent: nothing damaged is ever committed.
            if add.upload_info.sha256.hex() != piece.sha256:
                raise Failed(
                    f"{piece.path}: its bytes are not those that dataset.json names; salmonn verify --data says more"
                )
        return adds

    def commit(self, message: str, operations: Sequence[Any]) -> None:
        """Commit what was sent, and what is to go."""
        made = insistently(
            lambda: self.api.create_commit(
                self.name, list(operations), commit_message=message, repo_type=KIND, revision=self.revision
            )
        )
        self.commits += 1
        self.last = made.commit_url

    def delete(self, path: str) -> Any:
        """Return what removes a file, to be committed."""
        return self.library.CommitOperationDelete(path_in_repo=path, is_folder=False)


def upload(parcel: Parcel, repository: Repository, watch: Watch) -> Sent:
    """Bring the repository to hold the parcel and nothing of an earlier one; UserError if it holds something else."""
    there = repository.files()
    check_ours(parcel, there, repository.name)
    missing = [piece for piece in parcel.pieces if not present(piece, there)]
    texts = [piece for piece in parcel.texts if not present(piece, there)]
    stale = sorted(path for path in there if path.partition("/")[0] in FOLDERS and path not in paths(parcel.pieces))
    changed = bool(missing or texts or stale)
    if not changed and present(parcel.seal, there):
        return report(repository, parcel, [], [])
    if changed and parcel.seal.path in there:
        # From now on readers are told that the dataset is not whole.
        repository.commit("Take dataset.json down: the dataset changes", [repository.delete(parcel.seal.path)])
    send_all(missing, repository, watch)
    if texts:
        repository.commit("Card, attribution, croissant", repository.send(texts))
    gone = [repository.delete(path) for path in stale]
    for group in batches(gone, BATCH):
        repository.commit("Remove what an earlier push had", group)
    there = repository.files()
    lost = [piece.path for piece in (*parcel.pieces, *parcel.texts) if not present(piece, there)]
    if lost:
        raise Failed(
            f"{len(lost)} files, {lost[0]!r} the first, are not in {repository.name} though they were sent; does it "
            "have a .gitignore that names them? Run it again"
        )
    repository.commit("dataset.json: the dataset is whole", repository.send([parcel.seal]))
    return report(repository, parcel, [*missing, *texts, parcel.seal], stale)


def send_all(missing: Sequence[Piece], repository: Repository, watch: Watch) -> None:
    """Send files and commit them, some at a time."""
    total, done, size = len(missing), 0, 0
    watch("upload", 0, total, "")
    for batch in batches(missing, BATCH):
        adds: list[Any] = []
        for group in batches(batch, AT_A_TIME):
            adds += repository.send(group)
            done, size = done + len(group), size + sum(piece.bytes for piece in group)
            watch("upload", done, total, f"{size / 1e9:.2f} GB")
        repository.commit(f"Files {done - len(batch) + 1} to {done} of {total}", adds)


def check_ours(parcel: Parcel, there: dict[str, Any], repo: str) -> None:
    """Raise UserError if the repository holds something that no push of a dataset of ours put there."""
    ours = {piece.path for piece in (*parcel.texts, parcel.seal)}
    others = [path for path in there if path.partition("/")[0] not in FOLDERS and path not in (*ours, *BEGINS_WITH)]
    if others and parcel.seal.path not in there:
        raise UserError(
            f"{repo} holds something else already ({', '.join(sorted(others)[:3])}), and no dataset.json of ours; name "
            "another repository"
        )


def present(piece: Piece, there: dict[str, Any]) -> bool:
    """Whether the repository has a file with this content."""
    found = there.get(piece.path)
    if found is None or found.size != piece.bytes:
        return False
    if found.lfs is not None:
        return bool(found.lfs.sha256 == piece.sha256)
    content = Path(piece.place).read_bytes()
    return bool(found.blob_id == hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest())


def paths(pieces: Iterable[Piece]) -> set[str]:
    """Return the paths of some files."""
    return {piece.path for piece in pieces}


def batches(items: Sequence[Any], length: int) -> Iterable[Sequence[Any]]:
    """Cut a list into parts of at most `length`."""
    return (items[start : start + length] for start in range(0, len(items), length))


def report(repository: Repository, parcel: Parcel, sent: Sequence[Piece], removed: Sequence[str]) -> Sent:
    """Return what was done."""
    total = len(parcel.pieces) + len(parcel.texts) + 1
    return Sent(
        files=len(sent),
        bytes=sum(piece.bytes for piece in sent),
        kept=total - len(sent),
        removed=len(removed),
        commits=repository.commits,
        commit=repository.last,
    )
