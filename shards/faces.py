"""Other faces of a stream: the same examples in the same order, for users of webdataset and of datasets."""

from __future__ import annotations

import copy
import hashlib
import json
from collections import deque
from collections.abc import Iterator
from typing import Any

from manifests import UserError
from shards.batch import Example
from shards.flac import RATE
from shards.stream import Stream


def as_webdataset(stream: Stream) -> Any:
    """Return a webdataset pipeline (``.map``, ``.shuffle``, ``.batched``, ...) of a stream's examples.

    A sample is ``{"__key__": text, "wav": float32 [samples] at 16 kHz, "json": dict}``: decoded, so that no ``.decode``
    is due; `facts_of` says what its JSON holds. Iterating goes on where it stopped, as the stream does, so that
    ``.with_epoch(n)`` has new samples each time; the place is the stream's ``state_dict``, in whole steps. ImportError
    without webdataset; UserError in one of several workers of a DataLoader, which would each deal all of it.
    """
    from webdataset.compat import FluidWrapper

    return FluidWrapper(Flow(stream))


def as_datasets(stream: Stream) -> Any:
    """Return a ``datasets.IterableDataset`` of a stream's examples.

    Its columns are those of `facts_of`, and ``pcm``: int16 little-endian at 16 kHz as bytes, for numpy's
    ``frombuffer``, since a list of numbers takes the library a hundred times as long. Each iteration begins where the
    stream stands now, and moves it not: the place is the dataset's own ``state_dict``, and resuming from one reads
    again what lies before it. To resume without, load the stream's state before this is called. ImportError without
    datasets.
    """
    import datasets

    text, number = datasets.Value("string"), datasets.Value("float64")
    names = ("key", "id", "corpus", "split", "task", "prompt", "answer")
    features: dict[str, Any] = {name: text for name in names}
    features |= {"answers": datasets.List(text), "seconds": number, "cut": number}
    features |= {"sample_rate": datasets.Value("int32"), "pcm": datasets.Value("binary")}
    return datasets.IterableDataset.from_generator(Rows(stream), features=datasets.Features(features))


def facts_of(example: Example) -> dict[str, Any]:
    """Return all of an example but its audio: texts, ``answers`` as a list, ``seconds``, ``cut``, ``sample_rate``."""
    names = ("key", "id", "corpus", "split", "task", "prompt", "answer", "seconds", "cut")
    return {name: getattr(example, name) for name in names} | {"answers": list(example.answers), "sample_rate": RATE}


class Flow:
    """The first stage of a webdataset pipeline: goes on with a stream, to the example, each time it is called."""

    def __init__(self, stream: Stream) -> None:
        """Read nothing yet."""
        self.stream = stream
        self.batches: Iterator[Any] | None = None
        self.left: deque[Example] = deque()
        """What is left of the batch in hand."""

    def __call__(self) -> Iterator[dict[str, Any]]:
        """Yield samples."""
        from webdataset.utils import pytorch_worker_info

        workers = pytorch_worker_info()[3]
        if workers > 1:
            raise UserError(
                f"each of {workers} workers would deal the whole stream; take num_workers=0, for it decodes in "
                "threads, or salmonn.torch_data.SalmonnIterable, whose workers share it"
            )
        if self.batches is None:
            self.batches = iter(self.stream)
        while True:
            while self.left:
                example = self.left.popleft()
                yield {"__key__": example.key, "wav": example.audio, "json": facts_of(example)}
            batch = next(self.batches, None)
            if batch is None:
                return
            self.left.extend(batch.examples)


class Rows:
    """What a datasets.IterableDataset calls for its examples: a stream's, from the same place each time."""

    def __init__(self, stream: Stream) -> None:
        """Keep the place where the stream stands."""
        self.origin = copy.copy(stream)

    def __call__(self) -> Iterator[dict[str, Any]]:
        """Yield rows."""
        self.origin.prepare()
        for batch in copy.copy(self.origin):
            for example in batch.examples:
                yield facts_of(example) | {"pcm": example.pcm.astype("<i2", copy=False).tobytes()}

    def __getstate__(self) -> dict[str, str]:
        """Return what identifies the rows: datasets names a dataset by a hash of this."""
        of = self.origin
        told = (of.state_dict(), of.rank, of.world_size, of.epochs, of.next.step, of.next.micro)
        return {"digest": hashlib.sha256(json.dumps(told).encode()).hexdigest()}

    def __setstate__(self, state: dict[str, str]) -> None:
        """Refuse: there is no stream in it."""
        raise UserError(
            "a dataset of a stream cannot be sent to another process or copied; make it there, or take "
            "salmonn.torch_data.SalmonnIterable"
        )
