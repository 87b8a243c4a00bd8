"""Who takes part in benchmarks/stream.py: the bare loop of the decoders, our stream, and the peers at their settings.

A contender is called with the place of the data; it imports what it needs and returns `run(see)`, as peers do.
"""

from __future__ import annotations

import functools
import io
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

import stream_peers as peers
from stream_peers import MAX_EXAMPLES, MAX_SECONDS, RATE, Run, See, load_members


def libsndfile() -> Callable[[bytes, np.ndarray], None]:
    """Return what decodes a FLAC file into a row."""
    import soundfile

    return lambda data, row: soundfile.read(io.BytesIO(data), dtype="int16", out=row)


def bare(place: Path, decoder: Callable[[], Callable[[bytes, np.ndarray], None]], threads: int) -> Run:
    """Decode clips by known byte ranges into reused padded batches, and nothing else."""
    paths, members = load_members(place)
    batches = list(peers.in_budget(members[members[:, 3].argsort()].tolist(), lambda member: member[3]))
    order = np.random.default_rng(0).permutation(len(batches)).tolist()
    files = [os.open(path, os.O_RDONLY) for path in paths]
    decode = decoder()

    def run(see: See) -> None:
        todo = iter([batches[number] for number in order])

        def work() -> None:
            held = np.zeros(MAX_SECONDS * RATE, np.int16)
            for batch in todo:  # a list's iterator can be shared: each item is taken once
                width = batch[-1][3]
                pcm = held[: len(batch) * width].reshape(len(batch), width)
                for row, (file, offset, size, samples) in zip(pcm, batch, strict=True):
                    decode(os.pread(files[file], size, offset), row[:samples])
                    row[samples:] = 0
                see(pcm, np.array([member[3] for member in batch]))

        pool = [threading.Thread(target=work) for _ in range(threads)]
        for thread in pool:
            thread.start()
        for thread in pool:
            thread.join()

    return run


def ours(place: Path, threads: int, floats: bool = False, epochs: int = 1) -> Run:
    """Our stream: int16 batches, or float32."""
    from manifests import load_recipe
    from shards import Dataset, Stream

    def run(see: See) -> None:
        stream = Stream(
            Dataset(place / "dataset"), load_recipe(place / "bench.toml"), stage="instruct", seed=0,
            max_seconds=MAX_SECONDS, max_examples=MAX_EXAMPLES, epochs=epochs, threads=threads,
        )  # fmt: skip
        for batch in stream:
            see(batch.audio if floats else batch.pcm, batch.lengths)

    return run


def write_members(place: Path) -> None:
    """Write where our shards hold each clip, for who reads them without us."""
    from shards import Dataset

    dataset = Dataset(place / "dataset")
    source = dataset.manifest.sources[0]
    table = dataset.table(source.corpus, source.split, ["shard", "flac_offset", "flac_bytes", "samples"])
    shards = sorted(set(table["shard"].to_pylist()))
    numbers = [shards.index(shard) for shard in table["shard"].to_pylist()]
    np.save(place / "members.npy", np.array([numbers, *(table[name].to_pylist() for name in table.column_names[1:])]).T)
    (place / "shards.json").write_text(json.dumps([str(place / "dataset" / shard) for shard in shards]))


part = functools.partial
OURS = {"ours, 1 thread": part(ours, threads=1), "ours, 2 threads": part(ours, threads=2)}
PEERS = {
    "webdataset": peers.webdataset,
    "webdataset, 2 workers": part(peers.webdataset, workers=2),
    "webdataset by length": part(peers.webdataset, by_length=True),
    "webdataset by length, 2 workers": part(peers.webdataset, by_length=True, workers=2),
    "lhotse": peers.lhotse,
    "lhotse, 2 threads": part(peers.lhotse, threads=2),
    "lhotse, 2 workers": part(peers.lhotse, workers=2),
    "litdata": peers.litdata,
    "litdata, 2 workers": part(peers.litdata, workers=2),
    "grain": peers.grain,
    "grain, 2 threads": part(peers.grain, threads=2),
    "grain, 4 threads": part(peers.grain, threads=4),
    "grain, 2 workers": part(peers.grain, workers=2),
}
CONTENDERS: dict[str, Callable[..., Run]] = {
    "bare dr_flac, 1 thread": part(bare, decoder=peers.dr_flac, threads=1),
    "bare dr_flac, 2 threads": part(bare, decoder=peers.dr_flac, threads=2),
    "bare libsndfile, 1 thread": part(bare, decoder=libsndfile, threads=1),
    "bare libsndfile, 2 threads": part(bare, decoder=libsndfile, threads=2),
    **OURS,
    "ours, 2 threads, float32": part(ours, threads=2, floats=True),
    **PEERS,
    # Not as anybody ships them, so no peers of ours: what is left of our lead if they are given our decoder.
    "(webdataset, dr_flac)": part(peers.webdataset, decoder=peers.decode_fast),
    "(webdataset, dr_flac, 2 workers)": part(peers.webdataset, decoder=peers.decode_fast, workers=2),
}
