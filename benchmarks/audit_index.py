"""A synthetic dataset that an audit takes for a real one: every column of the index, for millions of samples, no audio.

Sources are those of the recipe salmonn, as large to each other as published. Prompts are the paraphrases of the tasks;
transcripts, captions and phones are drawn by the frequencies of language; the rest has the entropy that it has in fact.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from drawn import WORDS_A_SECOND, answers_of, hexes, interleaved, lists, prints, qualities, texts
from manifests import TASKS, Recipe, files, load_corpus, load_recipe
from manifests.tables import GROUP, write_tables
from shards import Dataset
from shards.index import FORMAT, QUARANTINE, SCHEMA, File, Manifest, Source, digest_of
from shards.traits import traits

A_SHARD = 1200
SPEAKERS = {"librispeech": 2338, "gigaspeech": 0, "covost2": 16_000, "voxceleb1": 1211, "iemocap": 10, "librimix": 1172}
VIDEOS = ("audiocaps", "musiccaps", "coreasoning")
"""Corpora of video ids, a tenth of which are gone."""
PUBLISHED = {("millionsong", "full"): 48_000}
"""Clips that the paper takes where all those published are too many."""


class Split(msgspec.Struct, frozen=True, kw_only=True):
    """One split to write."""

    corpus: str
    split: str
    tasks: tuple[str, ...]
    clips: int
    mean: float
    """Seconds of a clip."""
    language: str
    license: str


def rows_of(split: Split, first: int, count: int) -> tuple[pa.Table, float]:
    """Return rows `first` and on of a split's index, and their seconds."""
    dice = np.random.default_rng([first, *split.corpus.encode(), *split.split.encode()])
    numbers = np.arange(first, first + count)
    samples = (np.clip(dice.gamma(9.0, split.mean / 9, count), 0.8, 590) * 16_000).astype(np.int64)
    seconds = samples / 16_000
    said = texts(dice, np.minimum(seconds, 30) * WORDS_A_SECOND)
    if split.corpus == "covost2":  # one sentence is read by several
        said = said.take(pa.array(np.arange(count) // 2 * 2))
    sizes = (seconds * 17_500).astype(np.int64)
    ends = np.cumsum(sizes + 2560) - (sizes + 2560)
    begins = ends - ends[np.maximum(0, numbers // A_SHARD * A_SHARD - first)]
    label = f"{split.corpus}/{split.split}"
    speakers = SPEAKERS.get(split.corpus, 0)
    speaker = dice.integers(0, speakers, count) if speakers else np.zeros(count, np.int64)
    prompts, answers = [], []
    for task in split.tasks:
        lines = pa.array(TASKS[task].prompts)
        asked = lines.take(pa.array(dice.integers(0, len(lines), count)))
        if any("{}" in line for line in TASKS[task].prompts):
            asked = pc.replace_substring(asked, "{}", "")
            asked = pc.binary_join_element_wise(asked, texts(dice, dice.poisson(7, count)), "")
        prompts.append(asked)
        found, each = answers_of(task, dice, count, np.minimum(seconds, 30), said)
        if split.corpus == "clotho":
            found, each = interleaved([texts(dice, dice.poisson(11, count)) for _ in range(5)]), 5
        answers.append(lists(found, each))
    tasks = pa.array(split.tasks).take(pa.array(np.tile(np.arange(len(split.tasks)), count)))
    order = np.arange(count * len(answers)).reshape(len(answers), count).T.reshape(-1)
    names = strings(f"{label}-", numbers)
    listed = lists(interleaved(prompts), len(split.tasks))
    answered = lists(pa.concat_arrays(answers).take(pa.array(order)), len(split.tasks))
    spoken = split.corpus not in ("wavcaps", "audiocaps", "clotho", "musiccaps", "millionsong", "musicnet", "voxceleb1")
    columns = {
        "key": strings(f"{split.corpus}_{split.split}-", numbers),
        "id": names,
        "corpus": pa.repeat(split.corpus, count),
        "split": pa.repeat(split.split, count),
        "shard": strings(f"shards/{label}-", numbers // A_SHARD, ".tar", 6),
        "flac_offset": pa.array(begins + 512),
        "flac_bytes": pa.array(sizes),
        "json_offset": pa.array(begins + sizes + 1536),
        "json_bytes": pa.array(dice.integers(400, 1600, count)),
        "samples": pa.array(samples),
        "seconds": pa.array(seconds),
        "language": pa.repeat(split.language, count),
        "speaker": strings(f"{split.corpus}/", speaker, "", 1) if speakers else pa.repeat("", count),
        "gender": pa.array(["female", "male"]).take(pa.array(speaker % 2)) if speakers else pa.repeat("", count),
        "text": said if spoken else pa.repeat("", count),
        "license": pa.repeat(split.license, count),
        "provenance": pa.repeat("", count),
        "tasks": lists(tasks, len(split.tasks)),
        "prompts": listed,
        "answers": answered,
        **traits(listed, answered),
        "sources": lists(strings(f"{label}/", numbers, ".flac"), 1),
        "source_bytes": pa.array(sizes + dice.integers(0, 999, count)),
        "source_rate": pa.repeat(pa.scalar(16_000, pa.int32()), count),
        "action": pa.repeat("transcode", count),
        **qualities(dice, count, seconds),
        "fingerprint": prints(dice, seconds),
        "pcm_md5": hexes(dice, count),
        "flac_crc32": pa.array(dice.integers(0, 2**32, count, np.uint32)),
        "json_crc32": pa.array(dice.integers(0, 2**32, count, np.uint32)),
    }
    return pa.table([columns[field.name].cast(field.type) for field in SCHEMA], schema=SCHEMA), float(seconds.sum())


def strings(before: str, numbers: Any, after: str = "", digits: int = 8) -> pa.Array:
    """Return numbers as texts with something before and behind."""
    padded = pc.utf8_lpad(pa.array(numbers).cast(pa.string()), digits, "0")
    return pc.binary_join_element_wise(before, padded, after, "")


def refused(split: Split, count: int) -> Iterator[pa.Table]:
    """Yield the rows of a split's quarantine: most videos that are gone, some damaged."""
    gone = split.corpus in VIDEOS
    for first in range(0, count, GROUP):
        numbers = np.arange(first, min(count, first + GROUP))
        bad = pa.array(numbers % 50 == 0) if gone else pa.repeat(True, len(numbers))
        columns = [
            strings(f"{split.corpus}/{split.split}-x", numbers),
            pc.if_else(bad, "quarantined", "excluded"),
            pc.if_else(bad, "corrupt", "audio_missing"),
            pc.if_else(bad, "lost sync at frame 12", "not among the files"),
            strings(f"{split.corpus}/{split.split}/x", numbers, ".flac"),
            pa.repeat(pa.scalar(81_920, pa.int64()), len(numbers)),
        ]
        yield pa.table(columns, schema=QUARANTINE)


def proof_of(folder: str, path: str) -> File:
    """Return size and digest of a file that may be large."""
    digest, size = hashlib.sha256(), 0
    with files.open_read(files.join(folder, path)) as file:
        while block := file.read(1 << 22):
            digest.update(block)
            size += len(block)
    return File(path=path, bytes=size, sha256=digest.hexdigest())


def write_split(folder: str, split: Split, tell: Callable[[str], None]) -> Source:
    """Write index and quarantine of one split, and return what dataset.json says of it."""
    name, total = f"{split.corpus}/{split.split}", [0.0]

    def blocks() -> Iterator[pa.Table]:
        for first in range(0, split.clips, A_SHARD * 16):
            table, seconds = rows_of(split, first, min(A_SHARD * 16, split.clips - first))
            total[0] += seconds
            yield table

    write_tables(f"{folder}/index/{name}.parquet", blocks(), SCHEMA)
    lost = split.clips // 9 if split.corpus in VIDEOS else split.clips // 2000
    bad = -(-lost // 50) if split.corpus in VIDEOS else lost
    write_tables(f"{folder}/quarantine/{name}.parquet", refused(split, lost), QUARANTINE)
    shards = -(-split.clips // A_SHARD)
    tell(f"{name}: {split.clips:,}")
    return Source(
        corpus=split.corpus,
        split=split.split,
        tasks=split.tasks,
        found=split.clips + lost,
        packed=split.clips,
        quarantined=bad,
        excluded=lost - bad,
        reasons={"corrupt": bad, **({"audio_missing": lost - bad} if lost > bad else {})} if lost else {},
        skipped={},
        seconds=total[0],
        license=split.license,
        published_clips=split.clips + lost,
        index=proof_of(folder, f"index/{name}.parquet"),
        quarantine=proof_of(folder, f"quarantine/{name}.parquet"),
        shards=tuple(
            File(path=f"shards/{name}-{one:06d}.tar", bytes=200 << 20, sha256=f"{one:064x}") for one in range(shards)
        ),
    )


def splits_of(recipe: Recipe, samples: int) -> Iterator[Split]:
    """Yield the splits that a recipe asks for, `samples` in all."""
    sizes = {}
    for corpus, split in recipe.sources():
        sizes[corpus, split] = PUBLISHED.get((corpus, split), load_corpus(corpus).facts.splits[split].clips)
    scale = samples / sum(sizes.values())
    for (corpus, split), tasks in recipe.sources().items():
        facts = load_corpus(corpus).facts
        published = facts.splits[split]
        yield Split(
            corpus=corpus,
            split=split,
            tasks=tasks,
            clips=max(4, round(sizes[corpus, split] * scale)),
            mean=published.hours * 3600 / published.clips if published.hours else 30.0,
            language=facts.language,
            license=facts.license,
        )


def write_dataset(folder: str, samples: int, tell: Callable[[str], None] = lambda said: None) -> Dataset:
    """Write a dataset of about so many samples, without its shards."""
    recipe = load_recipe("salmonn")
    sources = tuple(write_split(folder, split, tell) for split in splits_of(recipe, samples))
    manifest = Manifest(
        format=FORMAT,
        recipe=recipe.name,
        title=f"{samples:,} synthetic samples",
        plan="",
        digest=digest_of([source.index for source in sources]),
        sources=sources,
        tools={"benchmarks": "1"},
    )
    files.write_whole(f"{folder}/dataset.json", msgspec.json.encode(manifest))
    return Dataset(folder)
