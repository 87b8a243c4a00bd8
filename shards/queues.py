"""The queues of a stage: the examples of each of its rows, as arrays over the index."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from manifests import TASKS, UserError, draw
from manifests.recipe import Row
from shards.index import Dataset

Numbers = NDArray[np.int64]
Small = NDArray[np.int32]


class Queue(msgspec.Struct, frozen=True, kw_only=True):
    """The examples of one row of the recipe: parallel arrays."""

    row: Row
    sample: Small
    """Row of the concatenated index."""
    instruction: Small
    """Which instruction of that sample."""
    seconds: NDArray[np.float64]
    shard: Small
    """Number of its shard, over all sources."""
    prompt: Small
    """Tokens of the longest prompt of its task; zeros if tokens do not matter."""
    answer: Small
    """Tokens of its longest answer; zeros if tokens do not matter."""

    def order(self, seed: int, epoch: int, window: int) -> Small:
        """Return the order of the queue's examples in one of its epochs.

        Shards are shuffled and dealt into windows; examples are shuffled within a window. All rows of a source go
        through its shards in one order, so that what a cache holds serves them all.
        """
        # Raw words of a bit generator stay the same in every version of numpy; its shuffles may not.
        names = ("order", seed, self.row.task, self.row.corpus, ",".join(self.row.splits), epoch)
        words = np.random.PCG64(draw.number(*names)).random_raw(len(self.sample))
        shards = int(self.shard.max()) + 1 if len(self.shard) else 0
        if shards > window:
            of_shard = np.random.PCG64(draw.number("shards", seed, epoch)).random_raw(shards)
            present = np.unique(self.shard)
            rank = np.zeros(shards, np.uint64)
            rank[present[np.argsort(of_shard[present], kind="stable")]] = np.arange(len(present)) // window
            words = (words >> np.uint64(20)) | (rank[self.shard] << np.uint64(44))
        return np.argsort(words, kind="stable").astype(np.int32)


class Columns(msgspec.Struct, frozen=True, kw_only=True):
    """What queues need of one split: an entry an instruction, in the order of the index."""

    rows: int
    task: pa.Array
    parent: Numbers
    """Which row of the index it is of."""
    place: Numbers
    """Which instruction of that row."""
    seconds: NDArray[np.float64]
    """By row."""
    shard: Small
    """By row."""
    shards: int
    language: pa.ChunkedArray | None
    """By row; None if no row of the recipe asks for one."""
    answer: Small | None
    """Tokens of the longest answer; None if tokens do not matter."""
    prompt: Small | None
    """Tokens of the prompt that is stored, with what fills its slot; None if tokens do not matter."""


def make_queues(
    dataset: Dataset, rows: tuple[Row, ...], *, count: Callable[[str], int] | None, tokens: bool
) -> tuple[list[tuple[str, str]], list[int], list[Queue]]:
    """Return the sources that a stage reads, where each begins in the concatenated index, and the queue of each row."""
    sources = sorted({(row.corpus, split) for row in rows for split in row.splits})
    by_language = any(row.language for row in rows)
    columns, firsts, first_shards = {}, {}, {}
    samples = shards = 0
    for source in sources:
        columns[source] = read_columns(dataset, source, by_language, tokens, count)
        firsts[source], first_shards[source] = samples, shards
        samples, shards = samples + columns[source].rows, shards + columns[source].shards
    queues = []
    for row in rows:
        queues.append(make_queue(row, columns, firsts, first_shards, count, tokens))
        if not len(queues[-1].sample):
            named = ", ".join(row.splits)
            raise UserError(f"the dataset has no example for {row.name} ({named}); build it, or drop the row")
    return sources, [firsts[source] for source in sources], queues


def read_columns(
    dataset: Dataset,
    source: tuple[str, str],
    by_language: bool,
    tokens: bool,
    count: Callable[[str], int] | None,
) -> Columns:
    """Read one split's part of the index."""
    names = [
        "tasks",
        "seconds",
        "shard",
        *(["language"] if by_language else []),
        *(["answers", "prompts"] if tokens else []),
    ]
    table = dataset.table(*source, names, dictionaries=["shard"])
    tasks = table["tasks"].combine_chunks()
    parent = pc.list_parent_indices(tasks).to_numpy()
    offsets = tasks.offsets.to_numpy()
    shard = table["shard"].combine_chunks()
    if isinstance(shard, pa.ChunkedArray):
        shard = shard.unify_dictionaries().combine_chunks()
    if not pa.types.is_dictionary(shard.type):
        shard = shard.dictionary_encode()
    answer = prompt = None
    if tokens:
        answer = longest_answers(table["answers"].combine_chunks(), count)
        prompt = token_lengths(table["prompts"].combine_chunks().flatten(), count).astype(np.int32)
    return Columns(
        rows=table.num_rows,
        task=tasks.flatten(),
        parent=parent,
        place=np.arange(len(parent)) - (offsets[:-1] - offsets[0])[parent],
        seconds=table["seconds"].to_numpy(),
        shard=shard.indices.to_numpy().astype(np.int32),
        shards=len(shard.dictionary),
        language=table["language"] if by_language else None,
        answer=answer,
        prompt=prompt,
    )


def longest_answers(answers: pa.Array, count: Callable[[str], int] | None) -> Small:
    """Return the tokens of the longest answer of each instruction: list<list<text>> to [instructions]."""
    inner = answers.flatten()
    texts = inner.flatten()
    lengths = token_lengths(texts, count)
    starts = inner.offsets.to_numpy()[:-1] - inner.offsets[0].as_py()
    return np.maximum.reduceat(lengths, starts).astype(np.int32) if len(starts) else np.zeros(0, np.int32)


def token_lengths(texts: pa.Array, count: Callable[[str], int] | None) -> Numbers:
    """Return how many tokens each text has: by `count`, or a third of its bytes, rounded up."""
    if count is not None:
        return np.array([count(text) for text in texts.to_pylist()], np.int64)
    lengths: Numbers = pc.binary_length(texts).to_numpy().astype(np.int64)
    return -(-lengths // 3)


def make_queue(
    row: Row,
    columns: dict[tuple[str, str], Columns],
    firsts: dict[tuple[str, str], int],
    first_shards: dict[tuple[str, str], int],
    count: Callable[[str], int] | None,
    tokens: bool,
) -> Queue:
    """Return the examples of one row of the recipe, in the order of the index."""
    parts = []
    for split in row.splits:
        source = (row.corpus, split)
        of = columns[source]
        chosen = pc.equal(of.task, row.task).to_numpy(zero_copy_only=False)
        length = of.seconds[of.parent]
        chosen &= (length >= row.min_seconds) & (length <= row.max_seconds)
        if row.language and of.language is not None:
            chosen &= pc.equal(of.language, row.language).to_numpy()[of.parent]
        parent = of.parent[chosen]
        nothing = np.zeros(len(parent), np.int32)
        parts.append(
            (
                parent + firsts[source],
                of.place[chosen],
                of.seconds[parent],
                of.shard[parent] + first_shards[source],
                nothing if of.answer is None else of.answer[chosen],
                nothing if of.prompt is None else of.prompt[chosen],
            )
        )
    sample, place, seconds, shard, answer, stored = (np.concatenate(part) for part in zip(*parts, strict=True))
    templates = TASKS[row.task].prompts
    longest = int(token_lengths(pa.array(templates), count).max()) if tokens else 0
    # What fills a slot is known only within the stored prompt: both together are more than any drawn one can be.
    slot = any("{}" in template for template in templates)
    return Queue(
        row=row,
        sample=sample.astype(np.int32),
        instruction=place.astype(np.int32),
        seconds=seconds,
        shard=shard.astype(np.int32),
        prompt=longest + stored if slot else np.full(len(sample), longest, np.int32),
        answer=answer,
    )
