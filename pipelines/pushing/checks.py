"""What is checked before a dataset is pushed: that it may be, that it is whole, and that `datasets` reads it."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any

from manifests import Failed, UserError
from pipelines.pushing.parcel import Parcel
from pipelines.verify import index_problems, size_problem
from shards.card import split_name
from shards.index import Dataset, Source
from shards.papers import refusals

LOOKED_AT = 3
"""Samples of a split that `datasets` has to read."""
NAMED = 5
"""Problems that an error names."""
EXTRA = "which is not installed here: pip install 'salmonn-data-engine[push]'"


def check_licences(parcel: Parcel) -> None:
    """Raise UserError with every corpus whose licence forbids to pass it on, and what to do."""
    found = refusals(parcel.papers)
    if not found:
        return
    told = "; ".join(f"{corpus} ({why})" for corpus, why in found.items())
    left = [corpus for corpus in parcel.papers.corpora if corpus not in found]
    remedy = f"leave it out: --only {','.join(left)}" if left else "nothing of this dataset may be pushed"
    raise UserError(f"the licence forbids to pass on {told}; {remedy}")


def check_whole(dataset: Dataset, parcel: Parcel) -> None:
    """Raise Failed unless every file is there, of its size, and the indexes agree with dataset.json."""
    problems = []
    for source in parcel.manifest.sources:
        problems += [problem for file in source.shards if (problem := size_problem(dataset.url, file))]
        problems += index_problems(dataset, source)
    if problems:
        more = f" and {len(problems) - NAMED} more" if len(problems) > NAMED else ""
        raise Failed(f"the dataset is not whole: {'; '.join(problems[:NAMED])}{more}; build it again, it mends itself")


def check_readable(dataset: Dataset, parcel: Parcel, cache: str) -> int:
    """Let `datasets` read the first samples of every split from the stage, and return how many it read.

    UserError if it is not installed; Failed if it reads anything but what the index says. `cache` is a folder for it.
    """
    try:
        library = importlib.import_module("datasets")
    except ImportError:
        raise UserError(f"push lets datasets read what it pushes, {EXTRA}") from None
    read = 0
    with quiet(library):
        for corpus in parcel.papers.corpora:
            sources = [part.source for part in parcel.papers.of(corpus) if part.source.shards]
            if not sources:
                continue
            try:
                splits = library.load_dataset(parcel.stage, corpus, streaming=True, cache_dir=cache)
                told = [first_keys(library, splits[split_name(source)]) for source in sources]
            except Exception as error:
                # Whatever it is that datasets raises: it means that others could not load it either.
                raise Failed(f"datasets cannot read {corpus}: {type(error).__name__}: {one_line(error)}") from None
            for source, keys in zip(sources, told, strict=True):
                read += compare(dataset, source, keys)
    return read


def first_keys(library: Any, split: Any) -> list[str]:
    """Return the keys of the first samples of a split, with their audio as bytes: to decode it takes torchcodec."""
    raw = split.cast(library.Features(split.features | {"flac": library.Value("binary")}))
    return [sample["__key__"] for sample in raw.take(LOOKED_AT) if sample["flac"] and sample["json"]["instructions"]]


def compare(dataset: Dataset, source: Source, keys: list[str]) -> int:
    """Hold the keys that were read against those of the index; return how many."""
    wanted = dataset.table(source.corpus, source.split, ["key"])["key"].slice(0, LOOKED_AT).to_pylist()
    if keys != wanted:
        raise Failed(f"datasets reads {keys} of {source.corpus}:{source.split}, where the index begins with {wanted}")
    return len(keys)


def one_line(error: Exception) -> str:
    """Return the first line of what an error says."""
    return (str(error).strip().splitlines() or [""])[0][:300]


@contextlib.contextmanager
def quiet(library: Any) -> Iterator[None]:
    """Keep `datasets` from drawing bars over ours."""
    were = library.are_progress_bars_disabled()
    library.disable_progress_bars()
    try:
        yield
    finally:
        if not were:
            library.enable_progress_bars()
