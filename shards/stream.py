"""The stream: examples of a dataset, mixed as a recipe says, in batches of similar length, read ahead by threads.

What a step holds depends on (index, recipe stage, seed) alone: its state is one integer, and resuming replays nothing.
"""

from __future__ import annotations

import functools
import hashlib
import json
import time
import zlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from manifests import TASKS, Failed, Recipe, UserError, draw, files
from shards.audio import Refused, read_flac
from shards.flac import RATE
from shards.index import FORMAT, Dataset
from shards.plan import Budget, Mark, Order, Pool
from shards.sample import Sample

AHEAD = 3
"""Batches read ahead of the one in use."""
COLUMNS = [
    "key",
    "shard",
    "flac_offset",
    "flac_bytes",
    "json_offset",
    "json_bytes",
    "samples",
    "flac_crc32",
    "json_sha256",
]


class Damaged(Failed):
    """A sample whose bytes are not those of the index."""


class Example(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One sample seen through one of its instructions: what the loader deals and the trainer learns from."""

    key: str
    id: str
    corpus: str
    split: str
    task: str
    prompt: str
    answer: str
    """One of the answers, drawn anew each epoch."""
    answers: tuple[str, ...]
    """All that are right."""
    audio: NDArray[np.float32]
    """[samples] at 16 kHz, in [-1, 1]."""
    seconds: float
    """Length of `audio`."""
    cut: float
    """Seconds of the clip behind the cut, that are not in `audio`."""


class Batch(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Examples of similar length."""

    step: int
    micro: int
    """Which micro-batch of the step."""
    examples: tuple[Example, ...]

    @property
    def seconds(self) -> float:
        """Audio in it."""
        return sum(example.seconds for example in self.examples)

    @property
    def padding(self) -> float:
        """Share of the padded audio that is padding, from 0 to 1."""
        longest = max((example.seconds for example in self.examples), default=0.0)
        return 1 - self.seconds / (longest * len(self.examples)) if longest else 0.0


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """One batch of the endless sequence, and a pool it lies in or behind."""

    step: int
    micro: int
    mark: Mark


class Stream:
    """Deals batches for one rank. Iterating goes on where the last iteration stopped."""

    def __init__(
        self,
        dataset: Dataset,
        recipe: Recipe,
        *,
        stage: str = "instruct",
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        micro_batches: int | None = None,
        max_seconds: float = 120.0,
        max_examples: int = 8,
        longest: float = 30.0,
        epochs: int | None = None,
        threads: int = 2,
        prompts: str = "drawn",
    ) -> None:
        """Deal `stage` of `recipe` from `dataset`.

        A step is `micro_batches` batches (by default one a rank); rank r of `world_size` is dealt every one whose
        number is r modulo `world_size`. A batch holds at most `max_examples`, and `max_seconds` of audio with its
        padding; clips are cut at `longest` seconds. `epochs` cycles are dealt, endlessly if None. `prompts` is
        ``drawn`` (anew each epoch) or ``stored`` (as in the shard).
        """
        micro_batches = world_size if micro_batches is None else micro_batches
        if not 0 <= rank < world_size or micro_batches < 1 or micro_batches % world_size:
            raise UserError(
                f"rank {rank} of {world_size} cannot share {micro_batches} micro-batches a step; "
                "their number must be a multiple of the world size"
            )
        if max_seconds < longest:
            raise UserError(
                f"max_seconds is {max_seconds}, but a clip may be {longest} s long; raise it, or lower longest"
            )
        if max_examples < 1 or threads < 1 or longest <= 0:
            raise UserError(
                f"max_examples is {max_examples}, threads {threads}, longest {longest}; each must be above 0"
            )
        if prompts not in ("drawn", "stored"):
            raise UserError(f"prompts is {prompts!r}; it can be 'drawn' or 'stored'")
        self.dataset, self.recipe, self.stage, self.seed = dataset, recipe, stage, seed
        self.rank, self.world_size, self.micro_batches = rank, world_size, micro_batches
        self.epochs, self.threads, self.prompts = epochs, threads, prompts
        budget = Budget(seconds=max_seconds, examples=max_examples, longest=longest)
        self.order = Order(dataset, recipe, stage, seed, budget)
        self.begun = self.next = Place(step=0, micro=rank, mark=self.order.start)
        """Where the step in hand began, and the batch this rank is due next."""
        self.pools: dict[int, Pool] = {}
        self.waited = 0.0
        """Seconds the last batch was waited for."""

    def state_dict(self) -> dict[str, Any]:
        """Return where the stream stands, in whole steps: a few integers, and digests of what its order depends on."""
        return {
            "step": self.begun.step,
            "mark": json.loads(msgspec.json.encode(self.begun.mark)),
            "seed": self.seed,
            "stage": self.stage,
            "micro_batches": self.micro_batches,
            "prompts": self.prompts,
            "budget": self.order.digest,
            "dataset": self.dataset.digest,
            "recipe": self.recipe.digest(self.stage),
            "format": FORMAT,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`, also on another number of ranks or threads; UserError names what has changed since."""
        mine = self.state_dict()
        if unknown := mine.keys() ^ state.keys():
            raise UserError(
                f"this is not the state of a stream: {', '.join(sorted(unknown))} should not be missing or added"
            )
        for name in mine.keys() - {"step", "mark"}:
            if state[name] != mine[name]:
                raise UserError(
                    f"cannot resume: {name} was {state[name]!r}, now it is {mine[name]!r}; restore it or start anew"
                )
        try:
            mark = msgspec.convert(state["mark"], Mark)
        except msgspec.ValidationError as error:
            raise UserError(f"this is not the state of a stream: its mark is damaged ({error})") from None
        if len(mark.items) != len(self.order.queues):
            raise UserError(
                f"this is not the state of this stream: it has {len(mark.items)} rows, not {len(self.order.queues)}"
            )
        self.begun = self.next = Place(step=int(state["step"]), micro=self.rank, mark=mark)

    def __iter__(self) -> Iterator[Batch]:
        """Deal this rank's batches, from where the stream stands."""
        todo = self.places()
        with ThreadPoolExecutor(self.threads, thread_name_prefix="stream") as pool:
            ahead: deque[tuple[Place, list[Future[Example]]]] = deque()
            try:
                while True:
                    while len(ahead) < AHEAD and (place := next(todo, None)) is not None:
                        ahead.append((place, [pool.submit(self.read, *draws) for draws in self.draws(place)]))
                    if not ahead:
                        return
                    place, futures = ahead.popleft()
                    begin = time.perf_counter()
                    examples = tuple(future.result() for future in futures)
                    self.waited = time.perf_counter() - begin
                    self.next = self.after(place)
                    if self.next.step > place.step:
                        self.begun = self.next
                    yield Batch(step=place.step, micro=place.micro, examples=examples)
            finally:
                for _, futures in ahead:
                    for future in futures:
                        future.cancel()

    def after(self, place: Place) -> Place:
        """Return the batch this rank is due after `place`, its pool not yet brought up to date."""
        micro = place.micro + self.world_size
        if micro < self.micro_batches:
            return msgspec.structs.replace(place, micro=micro)
        return msgspec.structs.replace(place, step=place.step + 1, micro=self.rank)

    def places(self) -> Iterator[Place]:
        """Yield every batch this rank is due, with the pool it lies in."""
        place = self.next
        while True:
            number = place.step * self.micro_batches + place.micro
            while not self.ended(place.mark):
                after = self.pool(place.mark).next
                if number < after.batch:
                    break
                place = msgspec.structs.replace(place, mark=after)
            # At the end of the last epoch all ranks are dealt the step, some of them nothing.
            if self.ended(place.mark) and place.step * self.micro_batches >= place.mark.batch:
                return
            yield place
            place = self.after(place)

    def ended(self, mark: Mark) -> bool:
        """Whether the last epoch ends at `mark`."""
        return self.epochs is not None and mark.deal >= self.epochs * self.order.examples

    def pool(self, mark: Mark) -> Pool:
        """Return the pool at `mark`; the last few are kept."""
        found = self.pools.get(mark.deal)
        if found is None:
            while len(self.pools) > 2:
                self.pools.pop(next(iter(self.pools)))
            found = self.pools[mark.deal] = self.order.pool(mark)
        return found

    def draws(self, place: Place) -> list[tuple[int, int, int]]:
        """Return queue, item and epoch of every example of one batch; none behind the last."""
        if self.ended(place.mark):
            return []
        pool = self.pool(place.mark)
        number = place.step * self.micro_batches + place.micro - place.mark.batch
        span = slice(int(pool.starts[number]), int(pool.starts[number + 1]))
        return list(zip(pool.queue[span].tolist(), pool.item[span].tolist(), pool.epoch[span].tolist(), strict=True))

    @functools.cached_property
    def tables(self) -> dict[tuple[str, str], Any]:
        """The columns of the index that say where samples are."""
        return {source: self.dataset.table(*source, COLUMNS).combine_chunks() for source in self.order.sources}

    def read(self, queue: int, item: int, epoch: int) -> Example:
        """Read one example: audio and JSON lie side by side in the shard, so it is one read."""
        of = self.order.queues[queue]
        corpus, split, place = self.order.locate(int(of.sample[item]))
        row = {name: column[0] for name, column in self.tables[corpus, split].slice(place, 1).to_pydict().items()}
        begin, end = row["flac_offset"], row["json_offset"] + row["json_bytes"]
        try:
            content = files.read_range(files.join(self.dataset.url, row["shard"]), begin, end - begin)
        except FileNotFoundError:
            raise Damaged(f"{row['shard']} is missing from {files.redact(self.dataset.url)}") from None
        flac, text = content[: row["flac_bytes"]], content[row["json_offset"] - begin :]
        where = f"{row['shard']}: sample {row['key']!r}"
        whole = zlib.crc32(flac) == row["flac_crc32"] and hashlib.sha256(text).hexdigest() == row["json_sha256"]
        if not whole:
            raise Damaged(f"{where} is damaged; salmonn verify {self.dataset.url} --data finds all that are")
        try:
            pcm = read_flac(flac, where)
            sample = msgspec.json.decode(text, type=Sample)
        except (Refused, msgspec.DecodeError) as error:
            raise Damaged(f"{where} is damaged ({error})") from None
        if sample.key != row["key"] or len(pcm) != row["samples"]:
            raise Damaged(f"{where} is not the sample of the index")
        kept = pcm[: round(self.order.budget.longest * RATE)]
        asked = sample.instructions[int(of.instruction[item])]
        names = (self.seed, epoch, sample.key, int(of.instruction[item]))
        return Example(
            key=sample.key,
            id=sample.id,
            corpus=corpus,
            split=split,
            task=asked.task,
            prompt=asked.prompt if self.prompts == "stored" else TASKS[asked.task].prompt(asked.slot, "prompt", *names),
            answer=draw.choice(asked.answers, "answer", *names),
            answers=asked.answers,
            audio=kept.astype(np.float32) / np.float32(32768),
            seconds=len(kept) / RATE,
            cut=(len(pcm) - len(kept)) / RATE,
        )
