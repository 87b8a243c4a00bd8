"""A parcel: the files of a dataset as they go to the Hub, all of them or those of some corpora, and their papers."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from manifests import UserError, files
from manifests.errors import nearest
from shards.attribution import attribution
from shards.card import card
from shards.croissant import croissant
from shards.finishing import PAPERS, encoded
from shards.index import Dataset, Manifest, digest_of
from shards.papers import Papers, gather

FOLDERS = ("index", "quarantine", "shards")
"""What of a repository is ours: what lies in them and is not in the parcel is of an earlier push."""


class Piece(msgspec.Struct, frozen=True, kw_only=True):
    """One file to push."""

    path: str
    """In the repository."""
    place: str
    """On this machine."""
    bytes: int
    sha256: str


class Parcel(msgspec.Struct, frozen=True, kw_only=True):
    """What goes to the Hub, in this order."""

    papers: Papers
    pieces: tuple[Piece, ...]
    """Indexes, quarantines, shards."""
    texts: tuple[Piece, ...]
    """Card, attribution, croissant."""
    seal: Piece
    """dataset.json, whose existence says that all the rest is there."""
    stage: str
    """A folder with the papers and links to the rest: the dataset as the Hub will have it."""

    @property
    def manifest(self) -> Manifest:
        """What dataset.json says."""
        return self.papers.manifest

    @property
    def bytes(self) -> int:
        """How much there is of it."""
        return sum(piece.bytes for piece in (*self.pieces, *self.texts, self.seal))


def make_parcel(dataset: Dataset, only: tuple[str, ...], stage: str, page: str, base: str) -> Parcel:
    """Lay a dataset out in the folder `stage`, of its shards but links: whole, or the corpora named by `only`.

    What is taken out of a dataset is a dataset of its own, with its own papers and digest. `page` and `base` are its
    addresses on the Hub. UserError if the dataset is on an object store, or has no such corpus.
    """
    if not files.is_local(dataset.url):
        raise UserError(
            f"{files.redact(dataset.url)!r} is on an object store, and the Hub's library sends files of a disk only; "
            "copy it to one, and push it from there"
        )
    folder = Path(files.absolute(dataset.url))
    manifest = subset(dataset.manifest, only)
    papers = gather(str(folder), manifest)
    whole = manifest is dataset.manifest
    written = {
        "README.md": card(papers).encode(),
        "ATTRIBUTION.md": attribution(papers).encode(),
        # It names files by their addresses, for who reads it from the Hub has no folder to look in.
        "croissant.json": croissant(papers, page, base),
        "dataset.json": encoded(manifest),
    }
    for name in ("README.md", "dataset.json"):
        # A person may have written into the card of the whole; and its dataset.json is what was built.
        if whole and (folder / name).is_file():
            written[name] = (folder / name).read_bytes()
    for name, content in written.items():
        (Path(stage) / name).write_bytes(content)
    for name in FOLDERS:
        os.symlink(folder / name, Path(stage) / name, target_is_directory=True)
    return Parcel(
        papers=papers,
        pieces=tuple(pieces_of(folder, manifest)),
        texts=tuple(text_piece(stage, name) for name in PAPERS),
        seal=text_piece(stage, "dataset.json"),
        stage=stage,
    )


def subset(manifest: Manifest, only: tuple[str, ...]) -> Manifest:
    """Return the manifest of some corpora of a dataset, the very same if all of them are meant."""
    have = {source.corpus for source in manifest.sources}
    for corpus in only:
        if corpus not in have:
            raise UserError(f"the dataset has no corpus {corpus!r}; {nearest(corpus, have)}")
    if not only or set(only) == have:
        return manifest
    sources = tuple(source for source in manifest.sources if source.corpus in only)
    digest = digest_of([source.index for source in sources])
    return msgspec.structs.replace(manifest, sources=sources, digest=digest)


def pieces_of(folder: Path, manifest: Manifest) -> Iterable[Piece]:
    """Yield the files that a manifest names, in its order."""
    for source in manifest.sources:
        for file in (source.index, source.quarantine, *source.shards):
            parts = file.path.split("/")
            if parts[0] not in FOLDERS or ".." in parts:
                # Who pushes what others built must not send files of his own along.
                raise UserError(
                    f"dataset.json names {file.path!r}, which is not in a folder of datasets: it is not pushed"
                )
            yield Piece(path=file.path, place=str(folder / file.path), bytes=file.bytes, sha256=file.sha256)


def text_piece(stage: str, name: str) -> Piece:
    """Return a file of the stage."""
    place = Path(stage) / name
    content = place.read_bytes()
    return Piece(path=name, place=str(place), bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
