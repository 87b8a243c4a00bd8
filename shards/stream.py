"""The stream: examples of a dataset, mixed as a recipe says, in batches of similar length, read ahead by threads.

What a step holds depends on (index, recipe stage, seed) alone. Its state is the mark of a pool and a step: resuming
replays nothing. Threads read and decode whole batches; there is no other process and no copy between processes.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from manifests import Recipe, UserError
from shards.batch import Assembler, Batch, Example
from shards.index import FORMAT, Dataset, File
from shards.plan import WINDOW, Budget, Mark, Order, Pool
from shards.reading import Damaged, Reader

if TYPE_CHECKING:
    from shards.cache import Cache

__all__ = ["Batch", "Damaged", "Example", "Place", "Stream"]

NAMED = 20
"""How many damaged samples a state names."""


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
        max_tokens: int = 0,
        unit: str = "examples",
        window: int = WINDOW,
        ahead: int | None = None,
        cache: Cache | None = None,
        skips: float = 0.001,
    ) -> None:
        """Deal `stage` of `recipe` from `dataset`.

        A step is `micro_batches` batches (by default one a rank); rank r of `world_size` is dealt every one whose
        number is r modulo `world_size`. A batch holds at most `max_examples`, and `max_seconds` of audio with its
        padding; clips are cut at `longest` seconds. `epochs` cycles are dealt, endlessly if None. `prompts` is
        ``drawn`` (anew each epoch) or ``stored`` (as in the shard). `max_tokens` of a batch with its padding are audio
        and text together (see Budget). Shares count `unit`: examples, seconds or tokens; examples are shuffled within
        `window` shards. `ahead` batches are read ahead, by default two more than there are threads. `cache` keeps whole
        shards on this machine. Damaged samples are left out and named; beyond a share of `skips` they end the stream.
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
        if max_tokens < 0 or not 0 <= skips <= 1 or (ahead is not None and ahead < 1):
            raise UserError(f"max_tokens is {max_tokens}, skips {skips}, ahead {ahead}; one of them cannot be")
        budget = Budget(seconds=max_seconds, examples=max_examples, longest=longest, tokens=max_tokens)
        self.order = Order(dataset, recipe, stage, seed, budget, unit=unit, window=window)
        self.ahead, self.cache, self.skips = ahead or threads + 2, cache, skips
        self.assembler: Assembler | None = None
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
            "skipped": {"count": len(self.skipped), "named": self.skipped[:NAMED]},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`, also on another number of ranks or threads; UserError names what has changed since."""
        mine = self.state_dict()
        if unknown := mine.keys() ^ state.keys():
            raise UserError(
                f"this is not the state of a stream: {', '.join(sorted(unknown))} should not be missing or added"
            )
        for name in mine.keys() - {"step", "mark", "skipped"}:
            if state[name] != mine[name]:
                raise UserError(
                    f"cannot resume: {name} was {state[name]!r}, now it is {mine[name]!r}; "
                    "restore it, or start the stream anew (salmonn train --reseed)"
                )
        try:
            mark = msgspec.convert(state["mark"], Mark)
        except msgspec.ValidationError as error:
            raise UserError(f"this is not the state of a stream: its mark is damaged ({error})") from None
        if len(mark.items) != len(self.order.queues) or len(mark.units) not in (0, len(mark.items)):
            raise UserError(
                f"this is not the state of this stream: it has {len(mark.items)} rows, not {len(self.order.queues)}"
            )
        self.begun = self.next = Place(step=int(state["step"]), micro=self.rank, mark=mark)

    def __iter__(self) -> Iterator[Batch]:
        """Deal this rank's batches, from where the stream stands."""
        todo, assembler = self.places(), self.prepare()
        with ThreadPoolExecutor(self.threads, thread_name_prefix="stream") as pool:
            ahead: deque[tuple[Place, Future[Batch]]] = deque()
            try:
                while True:
                    while len(ahead) < self.ahead and (place := next(todo, None)) is not None:
                        draws = self.draws(place)
                        ahead.append((place, pool.submit(assembler.batch, place.step, place.micro, draws)))
                    if not ahead:
                        return
                    place, future = ahead.popleft()
                    begin = time.perf_counter()
                    batch = future.result()
                    self.waited = time.perf_counter() - begin
                    # Nothing may hold the batch but who asked for it: its memory is to be used again.
                    del future
                    self.next = self.after(place)
                    if self.next.step > place.step:
                        self.begun = self.next
                    yield batch
                    del batch
            finally:
                for _, future in ahead:
                    future.cancel()

    def as_webdataset(self) -> Any:
        """Return a webdataset pipeline of this stream's examples; see shards/faces.py."""
        from shards.faces import as_webdataset

        return as_webdataset(self)

    def as_datasets(self) -> Any:
        """Return a datasets.IterableDataset of this stream's examples; see shards/faces.py."""
        from shards.faces import as_datasets

        return as_datasets(self)

    def prepare(self) -> Assembler:
        """Read where the samples lie, once; return who makes batches of them."""
        if self.assembler is None:
            reader = Reader(self.dataset, self.order.sources, self.cache)
            self.assembler = Assembler(self.order, reader, self.prompts, self.skips)
        return self.assembler

    @property
    def bytes_read(self) -> int:
        """Bytes that were read from shards."""
        return self.assembler.reader.bytes_read if self.assembler else 0

    @property
    def bytes_used(self) -> int:
        """Bytes of the members that were wanted."""
        return self.assembler.reader.bytes_used if self.assembler else 0

    @property
    def skipped(self) -> list[str]:
        """What was wrong with each damaged sample that was left out."""
        return self.assembler.skipped if self.assembler else []

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
            if self.cache is not None and not self.ended(mark):
                self.fetch_ahead(self.cache, found)
        return found

    def fetch_ahead(self, cache: Cache, pool: Pool) -> None:
        """Let the cache fetch the shards of a pool, and of the one behind it, before their samples are asked for."""
        shards: dict[str, File] = {}
        reader = self.prepare().reader
        for one in (pool, self.order.pool(pool.next)):
            for queue in np.unique(one.queue).tolist():
                samples = self.order.queues[queue].sample[one.item[one.queue == queue]]
                for number in np.unique(reader.columns["shard"][samples]).tolist():
                    shards.setdefault(reader.shards[number].path, reader.shards[number])
        cache.ahead(self.dataset.url, list(shards.values()))

    def draws(self, place: Place) -> list[tuple[int, int, int]]:
        """Return queue, item and epoch of every example of one batch; none behind the last."""
        if self.ended(place.mark):
            return []
        pool = self.pool(place.mark)
        number = place.step * self.micro_batches + place.micro - place.mark.batch
        span = slice(int(pool.starts[number]), int(pool.starts[number + 1]))
        return list(zip(pool.queue[span].tolist(), pool.item[span].tolist(), pool.epoch[span].tolist(), strict=True))
