"""Clips to listen to: drawn by name, from every task and corpus in turn, read back from the shards."""

from __future__ import annotations

import base64
from collections.abc import Container
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from isal import isal_zlib
from markupsafe import Markup
from numpy.typing import NDArray

from manifests import Recipe, draw, files
from manifests.tables import open_parquet
from shards.audio import PCM, REASONS, Refused, pcm_md5, read_flac, to_mp3
from shards.audit import plots
from shards.audit.digits import neat, shown
from shards.audit.spectrogram import HELP, spectrogram
from shards.audit.verdicts import Gate, fail, good
from shards.audit.view import View, ordered
from shards.flac import RATE
from shards.index import Dataset

GATES = ("audio",)
QUERIES: dict[str, str] = {}
CLIPS = 10
MOST_MP3 = 200_000
"""Bytes of one clip: ten of them, in base64, leave half of the page's 5 MB."""
MOST_ANSWERS = 10
PEAKS = 160
COLUMNS = ["key", "id", "shard", "flac_offset", "flac_bytes", "flac_crc32", "samples", "pcm_md5"]
COLUMNS += ["tasks", "prompts", "answers"]


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """One instruction of a clip."""

    task: str
    prompt: str
    answers: tuple[str, ...]


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """One clip to listen to."""

    task: str
    """Which task it was drawn for."""
    key: str
    id: str
    corpus: str
    split: str
    shard: str
    flac_offset: int
    flac_bytes: int
    seconds: float
    problem: str
    """Why it cannot be heard; empty if it can."""
    heard: float
    """Seconds from its beginning that `mp3` holds."""
    mp3: bytes
    peaks: tuple[int, ...]
    """Loudest 16-bit sample of each of equal parts of what is heard."""
    spectrogram: bytes
    """A PNG of what is heard; empty without librosa."""
    instructions: tuple[Asked, ...]


class Stratum(msgspec.Struct, frozen=True, kw_only=True):
    """The samples of one corpus that carry a task: how many, split by split."""

    task: str
    corpus: str
    splits: tuple[str, ...]
    counts: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many samples there are."""
        return sum(self.counts)

    def at(self, dataset: Dataset, number: int) -> tuple[str, int]:
        """Return split and row of one of them."""
        for split, count in zip(self.splits, self.counts, strict=True):
            if number < count:
                return split, row_with(dataset, self, split, number, count)
            number -= count
        raise AssertionError(number)


def look(view: View) -> tuple[Heard, ...]:
    """Return the clips to listen to."""
    held = {(corpus, split, task): samples for corpus, split, task, samples, _ in view.database.ask("held")}
    strata = stratify(held, view.recipe, view.stages)
    return draw_clips(view.dataset, strata, view.settings.seed, view.settings.longest)


def draw_clips(dataset: Dataset, strata: list[Stratum], seed: int, longest: float) -> tuple[Heard, ...]:
    """Return one clip of each stratum, then a second of each, up to CLIPS in all."""
    drawn: dict[tuple[str, str, int], Heard] = {}
    for turn in range(CLIPS):
        for stratum in strata if len(drawn) < CLIPS else ():
            place = next_place(dataset, stratum, drawn.keys(), "listen", seed, stratum.task, stratum.corpus, turn)
            if place is not None and len(drawn) < CLIPS:
                drawn[place] = hear(dataset, stratum.task, *place, longest)
    return tuple(drawn.values())


def stratify(held: dict[tuple[str, str, str], int], recipe: Recipe, stages: tuple[str, ...]) -> list[Stratum]:
    """Return the strata of `stages`: of every task its first corpus, then of every task its second, and so on.

    `held` counts the samples of a corpus and a split that carry a task.
    """
    wanted: dict[str, dict[str, set[str]]] = {}
    for stage in stages:
        for row in recipe.stage(stage):
            splits = {split for split in row.splits if (row.corpus, split, row.task) in held}
            wanted.setdefault(row.task, {}).setdefault(row.corpus, set()).update(splits)
    strata = []
    for task in ordered(wanted):
        for rank, (corpus, names) in enumerate(sorted(wanted[task].items())):
            listed = tuple(sorted(names))
            counts = tuple(held[corpus, split, task] for split in listed)
            strata.append((rank, Stratum(task=task, corpus=corpus, splits=listed, counts=counts)))
    return [stratum for _, stratum in sorted(strata, key=lambda entry: entry[0])]


def row_with(dataset: Dataset, stratum: Stratum, split: str, number: int, count: int) -> int:
    """Return the row in its split's index of one sample of a stratum: the `number`-th of its `count`."""
    with open_parquet(files.join(dataset.url, dataset.source(stratum.corpus, split).index.path)) as parquet:
        if parquet.metadata.num_rows == count:
            return number
        before = 0
        for group in range(parquet.num_row_groups):
            tasks = parquet.read_row_group(group, ["tasks"], use_threads=False)["tasks"].combine_chunks()
            rows = rows_with(tasks, stratum.task)
            if number < len(rows):
                return before + int(rows[number])
            number -= len(rows)
            before += len(tasks)
    raise AssertionError(number)


def rows_with(tasks: pa.Array, task: str) -> NDArray[np.int64]:
    """Return the rows of a column of lists that hold `task`."""
    rows = pc.list_parent_indices(tasks).filter(pc.equal(tasks.flatten(), task)).to_numpy(zero_copy_only=False)
    found: NDArray[np.int64] = rows[np.diff(rows, prepend=-1) > 0]
    return found


def next_place(
    dataset: Dataset, stratum: Stratum, used: Container[tuple[str, str, int]], *names: str | int
) -> tuple[str, str, int] | None:
    """Return corpus, split and row of a sample that `names` draw, the next one if it is `used`; None if all are."""
    first = draw.number(*names)
    for step in range(stratum.size):
        place = (stratum.corpus, *stratum.at(dataset, (first + step) % stratum.size))
        if place not in used:
            return place
    return None


def hear(
    dataset: Dataset, task: str, corpus: str, split: str, place: int, longest: float, most: int | None = None
) -> Heard:
    """Read one sample back and make it fit for a page; what is wrong with it is its `problem`.

    Without a `task` it is that of its first instruction. Its MP3 has at most `most` bytes.
    """
    row = index_row(dataset, corpus, split, place)
    pcm, problem = read_back(dataset, row)
    mp3, heard = excerpt(pcm[: round(longest * RATE)], most)
    instructions = zip(row["tasks"], row["prompts"], row["answers"], strict=True)
    return Heard(
        task=task or next(iter(row["tasks"]), ""),
        key=shown(row["key"]),
        id=shown(row["id"]),
        corpus=corpus,
        split=split,
        shard=shown(row["shard"]),
        flac_offset=row["flac_offset"],
        flac_bytes=row["flac_bytes"],
        seconds=neat(row["samples"] / RATE),
        problem=problem,
        heard=neat(len(heard) / RATE),
        mp3=mp3,
        peaks=peaks(heard),
        spectrogram=spectrogram(heard),
        instructions=tuple(asked(*instruction) for instruction in instructions),
    )


def index_row(dataset: Dataset, corpus: str, split: str, place: int) -> dict[str, Any]:
    """Return one row of the index of a split; only the row group that holds it is read."""
    with open_parquet(files.join(dataset.url, dataset.source(corpus, split).index.path)) as parquet:
        for group in range(parquet.num_row_groups):
            if place < parquet.metadata.row_group(group).num_rows:
                rows = parquet.read_row_group(group, COLUMNS, use_threads=False)
                row: dict[str, Any] = rows.slice(place, 1).to_pylist()[0]
                return row
            place -= parquet.metadata.row_group(group).num_rows
    raise AssertionError(place)


def place_of(dataset: Dataset, corpus: str, split: str, key: str) -> int:
    """Return the row of a sample in the index of its split; row groups that cannot hold its key are not read."""
    with open_parquet(files.join(dataset.url, dataset.source(corpus, split).index.path)) as parquet:
        before, column = 0, parquet.schema.names.index("key")
        for number in range(parquet.num_row_groups):
            group = parquet.metadata.row_group(number)
            told = group.column(column).statistics
            if told is None or not told.has_min_max or told.min <= key <= told.max:
                found: int = pc.index(parquet.read_row_group(number, ["key"], use_threads=False)["key"], key).as_py()
                if found >= 0:
                    return before + found
            before += group.num_rows
    raise AssertionError(key)


def read_back(dataset: Dataset, row: dict[str, Any]) -> tuple[PCM, str]:
    """Return the audio of a sample, or none and what is wrong with it."""
    nothing = np.zeros(0, np.int16)
    try:
        flac = files.read_range(files.join(dataset.url, row["shard"]), row["flac_offset"], row["flac_bytes"])
        pcm = read_flac(flac, row["key"])
    except OSError:
        return nothing, "its shard is missing or cannot be read"
    except Refused as refused:
        return nothing, f"its audio cannot be decoded: {REASONS[refused.reason]}"
    if isal_zlib.crc32(flac) != row["flac_crc32"] or len(pcm) != row["samples"] or pcm_md5(pcm) != row["pcm_md5"]:
        return nothing, "its audio is not that of the index"
    return pcm, ""


def excerpt(pcm: PCM, most: int | None = None) -> tuple[bytes, PCM]:
    """Return the beginning of a clip as an MP3 file of at most `most` bytes (MOST_MP3), and the samples it holds."""
    most = MOST_MP3 if most is None else most
    if not len(pcm):
        return b"", pcm
    mp3 = to_mp3(pcm)
    while len(mp3) > most:
        pcm = pcm[: len(pcm) // 2]
        mp3 = to_mp3(pcm)
    return mp3, pcm


def peaks(pcm: PCM) -> tuple[int, ...]:
    """Return the loudest sample of each of up to PEAKS equal parts, from 0 to 32768."""
    if not len(pcm):
        return ()
    firsts = np.unique(np.arange(PEAKS) * len(pcm) // PEAKS)
    return tuple(np.maximum.reduceat(np.abs(pcm.astype(np.int32)), firsts).tolist())


def asked(task: str, prompt: str, answers: list[str]) -> Asked:
    """Return one instruction as it is shown."""
    said = [shown(answer) for answer in answers[:MOST_ANSWERS]]
    more = [f"... and {len(answers) - MOST_ANSWERS} more"] if len(answers) > MOST_ANSWERS else []
    return Asked(task=task, prompt=shown(prompt), answers=(*said, *more))


def gates(found: tuple[Heard, ...]) -> tuple[Gate, ...]:
    """Judge the bytes of what was read back."""
    return (sound(found),)


def sound(clips: tuple[Heard, ...]) -> Gate:
    """The bytes of the clips drawn to listen to are those the index describes."""
    broken = [clip for clip in clips if clip.problem]
    if broken:
        said = f"{len(broken)} of {len(clips)} clips read back are not whole: {broken[0].key}, {broken[0].problem}"
        return fail("audio", f"{said}; salmonn verify finds all that are damaged.")
    if not clips:
        return fail("audio", "There is no clip to listen to.")
    return good("audio", f"All {len(clips)} clips drawn to listen to decode to exactly what the index says.")


def wave(clip: Heard) -> Markup:
    """Return the outline of a clip."""
    return Markup(plots.waveform(clip.peaks, plots.colour(clip.task), f"waveform of {clip.key}"))


def playable(clip: Heard) -> str:
    """Return the sound of a clip as an address that holds it."""
    return f"data:audio/mpeg;base64,{base64.b64encode(clip.mp3).decode()}"


def picture(clip: Heard) -> str:
    """Return the spectrogram of a clip as an address that holds it."""
    return f"data:image/png;base64,{base64.b64encode(clip.spectrogram).decode()}"


DRAWN = {"wave": wave, "sound": playable, "picture": picture, "picture_help": HELP}
