"""The peers of benchmarks/stream.py: other loaders over the same FLAC bytes, each at its best setting.

webdataset reads our tars. lhotse Shar, litdata and grain (ArrayRecord) get their own files, written from those tars
byte for byte before anything is timed. Each peer is a function that imports what it needs, so that no import is timed,
and returns `run(see)`, which calls `see(audio, lengths)` for every padded batch: [examples, samples] and [examples].
All shuffle, none drops the last batch. Where the peer leaves decoding to its user it is libsndfile to int16, half the
bytes of float32 to pad and to move; lhotse decodes to float32 itself.
"""

from __future__ import annotations

import io
import itertools
import json
import os
import random
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

RATE = 16_000
MAX_SECONDS, MAX_EXAMPLES = 240, 16
"""What a batch holds: its longest clip times its clips, and its clips."""
LONGEST = 17.0
"""Seconds of the longest clip of benchmarks/speech.py."""
FIXED = min(MAX_EXAMPLES, int(MAX_SECONDS / LONGEST))
"""Clips of a batch for loaders that know no lengths: as many as never exceed the budget."""
POOL = 512
"""Clips that are shuffled, or sorted by length, together."""
BUCKETS, BUFFER = 20, 2000
"""Of lhotse's sampler: how many lengths it tells apart, and clips it holds."""

See = Callable[[Any, Any], None]
Run = Callable[[See], None]


def load_members(place: Path) -> tuple[list[str], np.ndarray]:
    """Return the paths of the shards, and of each clip its shard, offset, bytes and samples: int64 [clips, 4]."""
    shards = json.loads((place / "shards.json").read_text())
    return shards, np.load(place / "members.npy")


def a_shard(place: Path) -> int:
    """Return how many clips our first shard holds: the peers' shards get as many."""
    return int(np.count_nonzero(load_members(place)[1][:, 0] == 0))


def contents(place: Path) -> Iterator[tuple[str, bytes, int]]:
    """Yield name, FLAC bytes and samples of every clip, in the order of the shards."""
    shards, members = load_members(place)
    for shard, path in enumerate(shards):
        with open(path, "rb") as file:
            for _, offset, size, samples in members[members[:, 0] == shard].tolist():
                file.seek(offset)
                yield f"{shard:06d}-{offset:012d}", file.read(size), samples


def samples_of(data: bytes) -> int:
    """Return the total samples that a FLAC file's STREAMINFO holds."""
    return int.from_bytes(data[21:26], "big") & (1 << 36) - 1


def decode(data: bytes) -> np.ndarray:
    """Decode a FLAC file by libsndfile."""
    import soundfile

    return soundfile.read(io.BytesIO(data), dtype="int16")[0]


def dr_flac() -> Callable[[bytes, np.ndarray], None]:
    """Return what decodes a FLAC file into a row."""
    import miniaudio

    lib, ffi = miniaudio.lib, miniaudio.ffi

    def decode(data: bytes, row: np.ndarray) -> None:
        flac = lib.ma_dr_flac_open_memory(data, len(data), ffi.NULL)
        lib.ma_dr_flac_read_pcm_frames_s16(flac, len(row), ffi.cast("ma_dr_flac_int16 *", row.ctypes.data))
        lib.ma_dr_flac_close(flac)

    return decode


def decode_fast() -> Callable[[bytes], np.ndarray]:
    """Return what decodes a FLAC file by the decoder that ours uses: what a peer gains that is given it."""
    into = dr_flac()

    def decode(data: bytes) -> np.ndarray:
        pcm = np.empty(samples_of(data), np.int16)
        into(data, pcm)
        return pcm

    return decode


def pad(waves: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Make one batch of waves: [examples, samples], zero behind the end of each; and how long each is."""
    waves = list(waves)
    lengths = np.array([len(wave) for wave in waves])
    batch = np.zeros((len(waves), lengths.max()), np.int16)
    for row, wave in zip(batch, waves, strict=True):
        row[: len(wave)] = wave
    return batch, lengths


def pad_tensor(waves: Iterable[np.ndarray]) -> tuple[Any, np.ndarray]:
    """Make a batch that a worker process hands over in shared memory, not through a pipe."""
    import torch

    batch, lengths = pad(waves)
    return torch.from_numpy(batch), lengths


def in_budget(items: list[Any], samples: Callable[[Any], int]) -> Iterator[list[Any]]:
    """Cut items, sorted by length, into batches within the budget."""
    batch: list[Any] = []
    for item in items:
        if len(batch) == MAX_EXAMPLES or (len(batch) + 1) * samples(item) > MAX_SECONDS * RATE:
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch


# webdataset ----------------------------------------------------------------------------------------------------------


def sorted_batches(samples: Iterator[dict[str, Any]]) -> Iterator[list[bytes]]:
    """Sort pools of encoded clips by length, cut each into batches, and shuffle these."""
    dice = random.Random(0)
    while pool := [sample["flac"] for sample in itertools.islice(samples, POOL)]:
        batches = list(in_budget(sorted(pool, key=samples_of), samples_of))
        dice.shuffle(batches)
        yield from batches


def webdataset(place: Path, workers: int = 0, by_length: bool = False, decoder: Callable = lambda: decode) -> Run:
    """Our tars; batches as clips come, or of sorted pools."""
    import webdataset as wds

    decode = decoder()

    def run(see: See) -> None:
        shards, _ = load_members(place)
        data = wds.WebDataset(
            shards, shardshuffle=len(shards), seed=0, select_files=lambda name: name.endswith(".flac")
        )
        collate = pad_tensor if workers else pad
        if by_length:
            data = data.compose(sorted_batches).map(lambda batch: collate(map(decode, batch)))
        else:
            data = data.shuffle(POOL).map(lambda sample: decode(sample["flac"])).batched(FIXED, collate)
        for batch, lengths in wds.WebLoader(data, batch_size=None, num_workers=workers) if workers else data:
            see(batch, lengths)

    return run


# lhotse --------------------------------------------------------------------------------------------------------------


def write_shar(place: Path, out: Path) -> None:
    """Write Shar with lhotse's writers; its to_shar would encode the audio anew."""
    from lhotse import Recording
    from lhotse.dataset.sampling.dynamic_bucketing import estimate_duration_buckets
    from lhotse.shar.utils import to_shar_placeholder
    from lhotse.shar.writers import JsonlShardWriter, TarWriter

    out.mkdir()
    size, cuts = a_shard(place), []
    with (
        TarWriter(f"{out}/recording.%06d.tar", size) as audio,
        JsonlShardWriter(f"{out}/cuts.%06d.jsonl.gz", size) as manifest,
    ):
        for name, data, _ in contents(place):
            recording = to_shar_placeholder(Recording.from_bytes(data, name))
            audio.write(f"{name}.flac", io.BytesIO(data))
            audio.write(f"{name}.json", io.BytesIO(json.dumps(recording.to_dict()).encode()), count=False)
            cuts.append(recording.to_cut())
            manifest.write(cuts[-1])
    (place / "bins.json").write_text(json.dumps(estimate_duration_buckets(cuts, BUCKETS)))


def lhotse(place: Path, workers: int = 0, threads: int = 0) -> Run:
    """Shar, and the bucketing sampler with bins known beforehand; `threads` decode the clips of a batch."""
    os.environ["LHOTSE_AUDIO_BACKEND"] = "LibsndfileBackend"
    from concurrent.futures import ThreadPoolExecutor

    import torch
    from lhotse import CutSet
    from lhotse.dataset import DynamicBucketingSampler, IterableDatasetWrapper
    from lhotse.dataset.collation import collate_audio
    from torch.utils.data import DataLoader, Dataset

    torch.set_num_threads(1)  # else its threads wait for each other over every small tensor: half as quick again

    class Audio(Dataset):
        def __getitem__(self, cuts: CutSet) -> tuple[Any, Any]:
            if not threads:
                return collate_audio(cuts)
            with ThreadPoolExecutor(threads) as pool:
                return collate_audio(cuts, executor=pool)

    def run(see: See) -> None:
        cuts = CutSet.from_shar(in_dir=place / "lhotse", shuffle_shards=True, split_for_dataloading=True, seed=0)
        sampler = DynamicBucketingSampler(
            cuts, max_duration=MAX_SECONDS, max_cuts=MAX_EXAMPLES, shuffle=True, drop_last=False, num_buckets=BUCKETS,
            duration_bins=json.loads((place / "bins.json").read_text()), buffer_size=BUFFER, rank=0,
            world_size=1,
        )  # fmt: skip
        data = IterableDatasetWrapper(Audio(), sampler)
        for batch, lengths in DataLoader(data, batch_size=None, num_workers=workers):
            see(batch, lengths)

    return run


# litdata -------------------------------------------------------------------------------------------------------------


def write_litdata(place: Path, out: Path) -> None:
    """Write chunks as long as our shards with the writer that litdata's optimize runs in its workers."""
    from litdata.streaming.writer import BinaryWriter

    writer = BinaryWriter(str(out), chunk_size=a_shard(place))
    for number, (_, data, _) in enumerate(contents(place)):
        writer[number] = data
    writer.done()
    writer.merge()


def litdata(place: Path, workers: int = 0) -> Run:
    """Its own dataset and loader."""
    from litdata import StreamingDataLoader, StreamingDataset

    def run(see: See) -> None:
        data = StreamingDataset(str(place / "litdata"), shuffle=True, drop_last=False, transform=decode)
        collate = pad_tensor if workers else pad
        loader = StreamingDataLoader(data, batch_size=FIXED, num_workers=workers, collate_fn=collate, drop_last=False)
        for batch, lengths in loader:
            see(batch, lengths)

    return run


# grain ---------------------------------------------------------------------------------------------------------------


def write_array_record(place: Path, out: Path) -> None:
    """Write ArrayRecord files that give single records; FLAC would not shrink further."""
    from array_record.python.array_record_module import ArrayRecordWriter

    out.mkdir()
    size = a_shard(place)
    for shard, clips in itertools.groupby(enumerate(contents(place)), key=lambda item: item[0] // size):
        writer = ArrayRecordWriter(f"{out}/{shard:06d}.array_record", "group_size:1,uncompressed")
        for _, (_, data, _) in clips:
            writer.write(data)
        writer.close()


def grain(place: Path, threads: int = 0, workers: int = 0) -> Run:
    """Random access to ArrayRecord; a thread, or a worker process, makes whole batches."""
    import grain

    def run(see: See) -> None:
        source = grain.sources.ArrayRecordDataSource(sorted(map(str, (place / "grain").glob("*"))))
        reading = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
        data = grain.MapDataset.source(source).shuffle(seed=0).map(decode).batch(FIXED, batch_fn=pad)
        data = data.to_iter_dataset(reading)
        if workers:
            data = data.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2))
        for batch, lengths in data:
            see(batch, lengths)

    return run


WRITERS: dict[str, Callable[[Path, Path], None]] = {
    "lhotse": write_shar,
    "litdata": write_litdata,
    "grain": write_array_record,
}
