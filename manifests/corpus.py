"""A corpus: the facts of its NAME.toml and the reader of its NAME.py. The folder `corpora/` is the registry."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from manifests import files
from manifests.clips import Clip, Refuse
from manifests.errors import UserError, nearest
from manifests.settings import read_toml

FOLDER = Path(__file__).parent / "corpora"
ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip", ".7z")
"""Suffixes of what is unpacked after it was fetched."""


class Archive(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file to fetch, and how to know that it is the right one."""

    url: str
    mirrors: tuple[str, ...] = ()
    """Other addresses of the same bytes."""
    md5: str = ""
    sha256: str = ""
    bytes: int = 0
    name: str = ""
    """Its name here, by default the last part of the address; unique in the corpus."""
    into: str = ""
    """The folder, in that of the corpus, that it goes into: itself, or what it holds."""
    unpack: bool | None = None
    """Whether it is unpacked; by default if its suffix is that of an archive."""
    by_hand: bool = False
    """Whether it takes credentials that only a person gets: it is known by its digest, and not fetched."""

    @property
    def file_name(self) -> str:
        """Its name here."""
        return self.name or self.url.split("?")[0].rsplit("/", 1)[-1]

    @property
    def packed(self) -> bool:
        """Whether it is unpacked."""
        return self.file_name.endswith(ARCHIVES) if self.unpack is None else self.unpack


class Split(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is published about one split."""

    clips: int
    hours: float
    archives: tuple[Archive, ...] = ()


class Facts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a corpus publishes about itself: the content of NAME.toml."""

    title: str
    homepage: str
    license: str
    """As the corpus states it; manifests/licences.py says what that allows."""
    attribution: str = ""
    """Who made it, as it asks to be cited."""
    credits: str = ""
    """Where the author of each clip is named, in a corpus of many authors."""
    sharing: str = ""
    """What is asked, beyond the licence, of who would pass it on."""
    access: Literal["open", "gated", "form", "manual"]
    steps: str
    """What a person does to get the corpus, and where its files go."""
    language: str
    tasks: tuple[str, ...]
    splits: dict[str, Split]
    archives: tuple[Archive, ...] = ()
    """What all splits share."""
    links: dict[str, str] = {}
    """Folders of other corpora that this one reads: their place in its folder to ``<corpus>/<folder>``."""
    spoken: bool = False
    """Whether some of its audio is synthesized from text: then the voices' engine shapes the bytes too."""
    nested: tuple[str, ...] = ()
    """Splits that another one holds whole, so that a sum must not count them twice."""
    aliases: dict[str, tuple[str, ...]] = {}
    """Other names people use: ``train-960`` for three splits."""


class Corpus(msgspec.Struct, frozen=True, kw_only=True):
    """One corpus by name."""

    name: str
    facts: Facts

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of its splits."""
        return tuple(self.facts.splits)

    def split(self, name: str) -> Split:
        """Return the facts of one split; UserError if there is none of that name."""
        if name not in self.facts.splits:
            raise UserError(f"{self.name} has no split {name!r}; {nearest(name, self.splits)}")
        return self.facts.splits[name]

    def expand(self, name: str) -> tuple[str, ...]:
        """Return the splits meant by the name of a split or an alias; UserError if there is none of that name."""
        if name not in self.facts.splits and name not in self.facts.aliases:
            known = (*self.facts.splits, *self.facts.aliases)
            raise UserError(f"{self.name} has no split {name!r}; {nearest(name, known)}")
        return self.facts.aliases.get(name, (name,))

    def clips(self, root: str | Path, split: str, refuse: Refuse | None = None) -> Iterator[Clip]:
        """Read the clips of `split` from the published tree in the folder `root`, in a fixed order.

        What the corpus lists and the reader passes over is told to `refuse`; without one it is an error. UserError if
        the split is unknown or its files are not where the corpus publishes them.
        """
        self.split(split)
        if not files.is_folder(root):
            raise UserError(f"{self.name}: there is no folder {str(root)!r}; {self.facts.steps}")
        reader = importlib.import_module(f"manifests.corpora.{self.name}")
        clips: Iterator[Clip] = reader.clips(str(root), split, refuse or refuse_none)
        return clips


def refuse_none(reason: str, clip_id: str, detail: str) -> None:
    """Raise UserError for what a reader would pass over: whoever gives no `refuse` wants every clip."""
    raise UserError(f"{clip_id}: {reason}: {detail}")


def corpus_names() -> tuple[str, ...]:
    """Return the names of all corpora, sorted."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))


@functools.cache
def load_corpus(name: str) -> Corpus:
    """Return the corpus called `name`; UserError with the nearest name if there is none."""
    if name not in corpus_names():
        raise UserError(f"there is no corpus {name!r}; {nearest(name, corpus_names())}")
    return Corpus(name=name, facts=read_toml(FOLDER / f"{name}.toml", Facts))


def parse_source(text: str) -> tuple[Corpus, tuple[str, ...]]:
    """Read ``CORPUS`` or ``CORPUS:SPLIT`` as typed on the command line into the corpus and the splits meant."""
    name, colon, split = text.partition(":")
    corpus = load_corpus(name)
    if not colon:
        return corpus, corpus.splits
    return corpus, corpus.expand(split)
