"""Batches: examples decoded into one padded buffer, whose memory is used again."""

from __future__ import annotations

import logging
import threading
import weakref

import msgspec
import numpy as np
from numpy.typing import NDArray

from manifests import TASKS, draw
from shards import dr_flac
from shards.audio import Refused, read_flac
from shards.flac import RATE
from shards.plan import Order
from shards.reading import Damaged, Held, Reader

LOG = logging.getLogger(__name__)
GRACE = 3
"""So many samples may be damaged before their share counts."""
SCALE = np.float32(1 / 32768)


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
    pcm: NDArray[np.int16]
    """[samples] at 16 kHz: a part of its batch's."""
    cut: float
    """Seconds of the clip behind the cut, that are not in `pcm`."""

    @property
    def audio(self) -> NDArray[np.float32]:
        """[samples] at 16 kHz, in [-1, 1]; made anew each time."""
        made: NDArray[np.float32] = self.pcm * SCALE
        return made

    @property
    def seconds(self) -> float:
        """Length of its audio."""
        return len(self.pcm) / RATE


class Batch(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Examples of similar length."""

    step: int
    micro: int
    """Which micro-batch of the step."""
    examples: tuple[Example, ...]
    pcm: NDArray[np.int16]
    """[examples, samples] at 16 kHz, zero behind the end of each."""
    lengths: NDArray[np.int64]
    """[examples], in samples."""

    @property
    def audio(self) -> NDArray[np.float32]:
        """[examples, samples] in [-1, 1], zero behind the end of each; made anew each time."""
        made: NDArray[np.float32] = self.pcm * SCALE
        return made

    @property
    def seconds(self) -> float:
        """Audio in it."""
        return int(self.lengths.sum()) / RATE

    @property
    def padding(self) -> float:
        """Share of the padded audio that is padding, from 0 to 1."""
        return 1 - int(self.lengths.sum()) / self.pcm.size if self.pcm.size else 0.0


class Buffers:
    """Memory for batches. It comes back when the last array over it is gone: fresh memory costs many page faults."""

    def __init__(self, size: int) -> None:
        """Hold pieces of `size` bytes: as much as a batch may need, so that any of them will do."""
        self.size = size
        self.free: list[bytearray] = []
        self.lock = threading.Lock()

    def take(self, rows: int, samples: int) -> NDArray[np.int16]:
        """Return an array [rows, samples] of whatever was there before."""
        size = rows * samples * 2
        with self.lock:
            memory = self.free.pop() if self.free else bytearray()
        if len(memory) < size:
            memory = bytearray(max(size, self.size))
        whole = np.frombuffer(memory, np.int16)
        weakref.finalize(whole, self.put, memory)
        return whole[: rows * samples].reshape(rows, samples)

    def put(self, memory: bytearray) -> None:
        """Take memory back."""
        with self.lock:
            self.free.append(memory)


class Assembler:
    """Makes batches of draws: reads, checks and decodes. Safe for threads."""

    def __init__(self, order: Order, reader: Reader, prompts: str, skips: float) -> None:
        """Make batches of the draws of `order`; see Stream for `prompts` and `skips`."""
        self.order, self.reader, self.prompts, self.skips = order, reader, prompts, skips
        self.longest = round(order.budget.longest * RATE)
        budget = order.budget
        self.buffers = Buffers(2 * round(min(budget.seconds, budget.examples * budget.longest) * RATE))
        self.dealt = 0
        """Examples asked for so far."""
        self.skipped: list[str] = []
        """What was wrong with each damaged sample that was left out."""

    def batch(self, step: int, micro: int, draws: list[tuple[int, int, int]]) -> Batch:
        """Read and decode one batch, of (queue, item, epoch) each; damaged samples are left out."""
        self.dealt += len(draws)
        rows = [int(self.order.queues[queue].sample[item]) for queue, item, _ in draws]
        widest = min(max((int(self.reader.columns["samples"][row]) for row in rows), default=0), self.longest)
        pcm = self.buffers.take(len(draws), widest)
        examples: list[Example] = []
        for sample, (queue, item, epoch) in zip(rows, draws, strict=True):
            try:
                held = self.reader.read(sample)
            except Damaged as error:
                self.skip(str(error))
                continue
            row = pcm[len(examples)]
            length = min(held.samples, self.longest)
            if self.decode(held, row, length):
                instruction = int(self.order.queues[queue].instruction[item])
                examples.append(self.example(held, instruction, epoch, row[:length]))
        lengths = np.array([len(example.pcm) for example in examples], np.int64)
        if (width := int(lengths.max(initial=0))) < widest:  # the longest was damaged
            pcm = np.ascontiguousarray(pcm[:, :width])
        return Batch(step=step, micro=micro, examples=tuple(examples), pcm=pcm[: len(examples)], lengths=lengths)

    def decode(self, held: Held, row: NDArray[np.int16], length: int) -> bool:
        """Decode a sample into the first `length` of a row, zeros behind; False if it is damaged."""
        try:
            if held.samples == length and dr_flac.decode(held.flac, held.samples, row) is not None:
                row[length:] = 0
                return True
            # A clip that is cut, or one that only libsndfile can decode, goes through an array of its own.
            pcm = read_flac(bytes(held.flac), held.where, crc32=held.crc32, frames=held.samples)
        except Refused as error:
            self.skip(f"{held.where} is damaged ({error})")
            return False
        row[:length] = pcm[:length]
        row[length:] = 0
        return True

    def example(self, held: Held, instruction: int, epoch: int, pcm: NDArray[np.int16]) -> Example:
        """Return one sample seen through one of its instructions."""
        sample = held.sample
        asked = sample.instructions[instruction]
        names = (self.order.seed, epoch, sample.key, instruction)
        drawn = self.prompts == "drawn"
        return Example(
            key=sample.key,
            id=sample.id,
            corpus=sample.corpus,
            split=sample.split,
            task=asked.task,
            prompt=TASKS[asked.task].prompt(asked.slot, "prompt", *names) if drawn else asked.prompt,
            answer=draw.choice(asked.answers, "answer", *names),
            answers=asked.answers,
            pcm=pcm,
            cut=(held.samples - len(pcm)) / RATE,
        )

    def skip(self, why: str) -> None:
        """Note a damaged sample; Failed if there are too many."""
        LOG.warning("left out: %s", why)
        self.skipped.append(why)
        if len(self.skipped) > (max(GRACE, self.skips * self.dealt) if self.skips else 0):
            raise Damaged(f"{len(self.skipped)} of {self.dealt:,} samples are damaged, the last: {why}")
