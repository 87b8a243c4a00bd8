"""The queues of a stage: the examples of each of its rows, as arrays over the index."""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from manifests import TASKS, UserError, draw
from manifests.recipe import Row
from shards.growing import Growing, behind, ranked
from shards.index import Dataset

Numbers = NDArray[np.int64]
Small = NDArray[np.int32]
Short = NDArray[np.int16] | NDArray[np.int32]
ANSWER_BYTES = "answer_traits.list.element.list.element.bytes"


class Queue(msgspec.Struct, frozen=True, kw_only=True):
    """The examples of one row of the recipe: parallel arrays."""

    row: Row
    sample: Small
    """Row of the concatenated index."""
    instruction: Short
    """Which instruction of that sample."""
    seconds: NDArray[np.float64]
    shards: Small
    """Of each run of examples that lie in one shard, the number of that shard over all sources."""
    runs: Small
    """How many examples each run has."""
    prompt: Small
    """Tokens of the longest prompt of its task; zeros if tokens do not matter."""
    answer: Small
    """Tokens of its longest answer; zeros if tokens do not matter."""

    @property
    def shard(self) -> Small:
        """Number of the shard of each example."""
        return np.repeat(self.shards, self.runs)

    def order(self, seed: int, epoch: int, window: int) -> Small:
        """Return the order of the queue's examples in one of its epochs.

        Shards are shuffled and dealt into windows; examples are shuffled within a window. All rows of a source go
        through its shards in one order, so that what a cache holds serves them all.
        """
        # Raw words of a bit generator stay the same in every version of numpy; its shuffles may not.
        names = ("order", seed, self.row.task, self.row.corpus, ",".join(self.row.splits), epoch)
        words = np.random.PCG64(draw.number(*names)).random_raw(len(self.sample))
        shards = int(self.shards.max()) + 1 if len(self.shards) else 0
        if shards <= window:
            return ranked(words)
        of_shard = np.random.PCG64(draw.number("shards", seed, epoch)).random_raw(shards)
        present = np.unique(self.shards)
        rank = np.zeros(shards, np.int64)
        rank[present[np.argsort(of_shard[present], kind="stable")]] = np.arange(len(present)) // window
        # Window by window: a sort of all would take thrice the memory, and longer.
        words = words >> np.uint64(20) << np.uint64(20)
        of_run = rank[self.shards]
        runs = np.argsort(of_run, kind="stable")
        ends = np.flatnonzero(np.diff(of_run[runs], append=-1)) + 1
        firsts, order, at = np.cumsum(self.runs, dtype=np.int64) - self.runs, np.empty(len(words), np.int32), 0
        for chosen in np.split(runs, ends[:-1]):
            members = spans(firsts[chosen], self.runs[chosen])
            order[at : at + len(members)] = members[ranked(words[members])]
            at += len(members)
        return order


def spans(firsts: Numbers, sizes: Small) -> Numbers:
    """Return the numbers of spans behind one another: from each of `firsts` as many as its size."""
    before = np.cumsum(sizes, dtype=np.int64) - sizes
    return np.repeat(firsts - before, sizes) + np.arange(int(sizes.sum()))


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """What queues need of a few rows of the index: an entry an instruction, in the order of the index."""

    first: int
    """Row of the first in the concatenated index."""
    task: pa.Array
    """A dictionary, where the file was read as one."""
    parent: Numbers
    """Which of these rows it is of."""
    place: Numbers
    """Which instruction of that row."""
    seconds: NDArray[np.float64]
    """By row."""
    shard: Small
    """By row, over all sources."""
    language: pa.ChunkedArray | None
    """By row; None if no row of the recipe asks for one."""
    answer: Small | None
    """Tokens of the longest answer; None if tokens do not matter."""
    prompt: Small | None
    """Tokens of the prompt that is stored, with what fills its slot; None if tokens do not matter."""


class Gathered:
    """The examples of a row of the recipe in one split, as they come."""

    def __init__(self) -> None:
        """Begin with none."""
        self.examples, self.runs = Growing(), Growing()


def make_queues(
    dataset: Dataset,
    rows: tuple[Row, ...],
    *,
    count: Callable[[str], int] | None,
    tokens: bool,
    answers: bool = False,
) -> tuple[list[tuple[str, str]], list[int], list[Queue]]:
    """Return the sources that a stage reads, where each begins in the concatenated index, and the queue of each row.

    `answers` alone counts the tokens of answers, and leaves out those of prompts. The index is read a row group at a
    time: beside the queues, no more of it is in memory.
    """
    sources = sorted({(row.corpus, split) for row in rows for split in row.splits})
    found: dict[tuple[int, str], Gathered] = {}
    firsts: list[int] = []
    samples, shards = 0, 0
    columns = ["tasks", "seconds", "shard", *(["language"] if any(row.language for row in rows) else [])]
    # How long an answer is is told beside it: where its text is not asked for, that is read, a fifth of the time.
    said = "answers" if count is not None else ANSWER_BYTES
    columns += [*([said] if tokens or answers else []), *(["prompts"] if tokens else [])]
    for corpus, split in sources:
        firsts.append(samples)
        numbers: dict[str, int] = {}
        wanted = [(place, row) for place, row in enumerate(rows) if row.corpus == corpus and split in row.splits]
        for table in dataset.groups(corpus, split, columns, ["shard", "tasks.list.element"]):
            group = read_group(table, samples, numbers, shards, count)
            for place, row in wanted:
                choose(group, row, found.setdefault((place, split), Gathered()))
            samples += table.num_rows
        shards += len(numbers)
    queues = []
    for place, row in enumerate(rows):
        queues.append(join(row, [found.pop((place, split), Gathered()) for split in row.splits], columns, count))
        if not len(queues[-1].sample):
            named = ", ".join(row.splits)
            raise UserError(f"the dataset has no example for {row.name} ({named}); build it, or drop the row")
    return sources, firsts, queues


def read_group(
    table: pa.Table,
    first: int,
    numbers: dict[str, int],
    before: int,
    count: Callable[[str], int] | None,
) -> Group:
    """Return a few rows of one split's index; `numbers` are those of its shards, to be counted behind `before`."""
    tasks = table["tasks"].combine_chunks()
    parent = pc.list_parent_indices(tasks).to_numpy()
    offsets = tasks.offsets.to_numpy()
    answer = prompt = None
    for name in {"answers", "answer_traits"}.intersection(table.column_names):
        answer = longest_answers(table[name].combine_chunks(), count)
    if "prompts" in table.column_names:
        prompt = token_lengths(table["prompts"].combine_chunks().flatten(), count).astype(np.int32)
    return Group(
        first=first,
        task=tasks.flatten(),
        parent=parent,
        place=np.arange(len(parent)) - (offsets[:-1] - offsets[0])[parent],
        seconds=table["seconds"].to_numpy(),
        shard=np.concatenate([np.zeros(0, np.int32), *(numbered(c, numbers, before) for c in table["shard"].chunks)]),
        language=table["language"] if "language" in table.column_names else None,
        answer=answer,
        prompt=prompt,
    )


def numbered(names: pa.Array, numbers: dict[str, int], before: int) -> Small:
    """Return the numbers of shards, `before` and on; new names are added to `numbers` as they come."""
    if not pa.types.is_dictionary(names.type):
        names = names.dictionary_encode()
    of = [before + numbers.setdefault(name, len(numbers)) for name in names.dictionary.to_pylist()]
    found: Small = np.array(of, np.int32)[names.indices.to_numpy()]
    return found


def choose(group: Group, row: Row, into: Gathered) -> None:
    """Add the examples that a row of the recipe takes of a few rows of the index."""
    chosen = asked_for(group.task, row.task)
    if row.min_seconds > 0 or row.max_seconds < math.inf:
        length = group.seconds[group.parent]
        chosen &= (length >= row.min_seconds) & (length <= row.max_seconds)
    if row.language and group.language is not None:
        chosen &= pc.equal(group.language, row.language).to_numpy()[group.parent]
    parent, place = group.parent[chosen], group.place[chosen]
    shard = group.shard[parent]
    ends = np.flatnonzero(np.diff(shard, append=-1)) + 1
    into.runs.add((shard[ends - 1], np.diff(ends, prepend=0).astype(np.int32)))
    into.examples.add(
        (
            (parent + group.first).astype(np.int32),
            place.astype(np.int16 if place.max(initial=0) < 1 << 15 else np.int32),
            group.seconds[parent],
            *([] if group.answer is None else [group.answer[chosen]]),
            *([] if group.prompt is None else [group.prompt[chosen]]),
        )
    )


def asked_for(tasks: pa.Array, task: str) -> NDArray[np.bool_]:
    """Return which of `tasks` are `task`."""
    chosen: NDArray[np.bool_]
    if not pa.types.is_dictionary(tasks.type):
        chosen = pc.equal(tasks, task).to_numpy(zero_copy_only=False)
        return chosen
    same = pc.equal(tasks.dictionary, task).to_numpy(zero_copy_only=False)
    chosen = same[tasks.indices.to_numpy()]
    return chosen


def join(row: Row, parts: list[Gathered], columns: list[str], count: Callable[[str], int] | None) -> Queue:
    """Return the examples of one row of the recipe, in the order of the index, by the `columns` that were read."""
    answers, tokens = not {"answers", ANSWER_BYTES}.isdisjoint(columns), "prompts" in columns
    kinds = (np.int32, np.int16, np.float64, *([np.int32] * (answers + tokens)))
    sample, place, seconds, *counted = behind([np.zeros(0, kind) for kind in kinds], [part.examples for part in parts])
    shards, runs = behind([np.zeros(0, np.int32)] * 2, [part.runs for part in parts])
    templates = TASKS[row.task].prompts
    longest = int(token_lengths(pa.array(templates), count).max()) if tokens else 0
    # What fills a slot is known only within the stored prompt: both together are more than any drawn one can be.
    slot = tokens and any("{}" in template for template in templates)
    return Queue(
        row=row,
        sample=sample,
        instruction=place,
        seconds=seconds,
        shards=shards,
        runs=runs,
        prompt=longest + counted[1] if slot else np.broadcast_to(np.int32(longest), sample.shape),
        answer=counted[0] if answers else np.broadcast_to(np.int32(0), sample.shape),
    )


def longest_answers(answers: pa.Array, count: Callable[[str], int] | None) -> Small:
    """Return the tokens of the longest answer of each instruction: list<list<text>> to [instructions].

    For texts their traits will do, if a third of their bytes, rounded up, is wanted.
    """
    inner = answers.flatten()
    if len(inner) == 0:
        return np.zeros(0, np.int32)
    said = inner.flatten()
    lengths = thirds(pc.struct_field(said, "bytes")) if pa.types.is_struct(said.type) else token_lengths(said, count)
    offsets = inner.offsets.to_numpy() - inner.offsets[0].as_py()
    if len(lengths) == len(inner) and np.array_equal(offsets, np.arange(len(offsets))):
        return lengths.astype(np.int32)  # one answer each, as nearly always
    lengths = np.append(lengths, 0)
    longest = np.maximum.reduceat(lengths, offsets[:-1])
    longest[offsets[1:] == offsets[:-1]] = 0  # an instruction without an answer
    return longest.astype(np.int32)


def token_lengths(texts: pa.Array, count: Callable[[str], int] | None) -> Numbers | Small:
    """Return how many tokens each text has: by `count`, or a third of its bytes, rounded up."""
    if count is not None:
        return np.array([count(text) for text in texts.to_pylist()], np.int64)
    return thirds(pc.binary_length(texts))


def thirds(sizes: pa.Array) -> Small:
    """Return numbers of bytes as tokens: a third, rounded up."""
    tokens: Small = (sizes.to_numpy().astype(np.int32) + np.int32(2)) // np.int32(3)
    return tokens
