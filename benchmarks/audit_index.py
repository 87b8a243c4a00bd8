"""A synthetic dataset that an audit takes for a real one: every column of the index, for millions of samples, no audio.

Sources are those of the recipe salmonn, as large to each other as published. Prompts are the paraphrases of the tasks;
transcripts, captions and phones are drawn by the frequencies of language; the rest has the entropy that it has in fact.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests import TASKS, Recipe, files, load_corpus, load_recipe
from manifests.tables import GROUP, write_tables
from shards import Dataset
from shards.index import FORMAT, QUARANTINE, SCHEMA, File, Manifest, Source, digest_of
from shards.quality import Quality

A_SHARD = 1200
VOCABULARY = 40_000
SPEAKERS = {"librispeech": 2338, "gigaspeech": 0, "covost2": 16_000, "voxceleb1": 1211, "iemocap": 10, "librimix": 1172}
VIDEOS = ("audiocaps", "musiccaps", "coreasoning")
"""Corpora of video ids, a tenth of which are gone."""
PUBLISHED = {("millionsong", "full"): 48_000}
"""Clips that the paper takes where all those published are too many."""
WORDS_A_SECOND = 2.7
PHONES = "AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY P R S SH T TH UH UW V W Y Z ZH"
LABELS = {
    "gender_recognition": ("Female", "Male"),
    "speaker_verification": ("Yes", "No"),
    "emotion_recognition": ("Neutral", "Angry", "Sad", "Happy"),
}
LENGTHS = {"audio_caption": 9, "music_caption": 48, "audio_story": 90, "speech_qa": 6, "audio_qa": 4, "music_qa": 5}
"""Words of an answer that the length of the clip does not give."""
CHINESE = [chr(0x4E00 + number) for number in range(3000)]

Dice = np.random.Generator


@functools.cache
def vocabulary() -> tuple[pa.Array, np.ndarray[Any, Any]]:
    """Return words that could be, and where the chance of each ends: the k-th is 1/k as frequent as the first."""
    dice = np.random.default_rng(1)
    syllables = [a + b for a in "bcdfghklmnprstvw" for b in ("a", "e", "i", "o", "u", "an", "er", "in", "ou", "el")]
    made = {"".join(dice.choice(syllables, dice.integers(1, 4)).tolist()) for _ in range(2 * VOCABULARY)}
    words = sorted(made)[:VOCABULARY]
    return pa.array(dice.permutation(words).tolist()), np.cumsum(1 / np.arange(2, len(words) + 2))


def texts(dice: Dice, lengths: Any, words: pa.Array | None = None, chances: Any = None) -> pa.Array:
    """Return texts of so many words each."""
    if words is None:
        words, chances = vocabulary()
    lengths = np.maximum(1, lengths).astype(np.int32)
    ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    if chances is None:
        drawn = dice.integers(0, len(words), ends[-1], np.int32)
    else:
        drawn = np.searchsorted(chances, dice.random(ends[-1]) * chances[-1]).astype(np.int32)
    return pc.binary_join(pa.ListArray.from_arrays(pa.array(ends), words.take(pa.array(drawn))), " ")


def letters(dice: Dice, lengths: Any) -> pa.Array:
    """Return texts without white space, of so many characters each."""
    parts = pa.array(CHINESE)
    ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    drawn = pa.array((dice.beta(0.6, 4, ends[-1]) * len(CHINESE)).astype(np.int32))
    return pc.binary_join(pa.ListArray.from_arrays(pa.array(ends), parts.take(drawn)), "")


def answers_of(task: str, dice: Dice, count: int, seconds: Any, said: pa.Array) -> tuple[pa.Array, int]:
    """Return the answers that a task wants of `count` clips, and how many of each clip."""
    if task == "asr":
        return said, 1
    if task == "phone_recognition":
        return texts(dice, seconds * WORDS_A_SECOND * 3, pa.array(PHONES.split())), 1
    if task in LABELS:
        return pa.array(LABELS[task]).take(pa.array(dice.integers(0, len(LABELS[task]), count))), 1
    if task in ("translation_en_zh", "translation_en_ja"):
        return letters(dice, np.maximum(2, seconds * WORDS_A_SECOND * 1.6).astype(np.int32)), 1
    if task in LENGTHS:
        return texts(dice, dice.poisson(LENGTHS[task], count)), 1
    return texts(dice, seconds * WORDS_A_SECOND), 1


def interleaved(columns: list[pa.Array]) -> pa.Array:
    """Return arrays of equal length as one: the first of each, then the second of each."""
    each = len(columns[0])
    order = np.arange(each * len(columns)).reshape(len(columns), each).T.reshape(-1)
    return pa.concat_arrays([column.cast(pa.string()) for column in columns]).take(pa.array(order))


def lists(values: pa.Array, each: int) -> pa.Array:
    """Return lists of `each` values."""
    return pa.ListArray.from_arrays(pa.array(np.arange(0, len(values) + 1, each, dtype=np.int32)), values)


def hexes(dice: Dice, count: int) -> pa.Array:
    """Return digests of 32 digits; one of a thousand is that of its neighbour."""
    data = dice.bytes(16 * count).hex()
    digests = [data[32 * one : 32 * one + 32] for one in range(count)]
    for one in range(500, count, 1000):
        digests[one] = digests[one - 1]
    return pa.array(digests)


def qualities(dice: Dice, count: int, seconds: Any) -> dict[str, pa.Array]:
    """Return what shards/quality.py measures, in the digits in which it is kept."""
    half = np.abs(dice.normal(0.4, 0.3, count))
    values = {
        "peak": np.clip(dice.normal(0.5, 0.2, count), 0.01, 1).round(6),
        "clipped": np.where(dice.random(count) < 0.02, dice.random(count) / 500, 0).round(7),
        "dc": dice.normal(0, 1e-4, count).round(6),
        "rms_dbfs": dice.normal(-25, 5, count).round(2),
        "lufs": dice.normal(-26, 5, count).round(2),
        "silence": np.clip(dice.normal(0.15, 0.1, count), 0, 1).round(4),
        "leading_silence": np.minimum(half, seconds).round(2),
        "trailing_silence": np.minimum(half[::-1], seconds).round(2),
        "snr_db": dice.normal(28, 9, count).round(2),
        "bandwidth_hz": dice.choice(np.arange(3000, 8001, 125), count, p=spread_of(41)),
        "all_zero": np.zeros(count, bool),
    }
    assert values.keys() == Quality.__annotations__.keys()
    return {name: pa.array(column) for name, column in values.items()}


@functools.cache
def spread_of(size: int) -> Any:
    """Return chances of which the last takes the most."""
    weights = 1 / (1 + np.arange(size)[::-1]) ** 2
    return weights / weights.sum()


def prints(dice: Dice, seconds: Any) -> pa.Array:
    """Return fingerprints: 8 bytes for a second and a quarter, six words at least."""
    words = np.clip(seconds / 1.25, 6, 96).astype(np.int64)
    ends = np.concatenate([[0], np.cumsum(8 * words)]).astype(np.int32)
    return pa.Array.from_buffers(
        pa.binary(), len(words), [None, pa.py_buffer(ends), pa.py_buffer(dice.bytes(int(ends[-1])))]
    )


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
        "prompts": lists(interleaved(prompts), len(split.tasks)),
        "answers": lists(pa.concat_arrays(answers).take(pa.array(order)), len(split.tasks)),
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
