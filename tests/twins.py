"""Datasets of clips whose every fact a test chooses, and real speech to put into them."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import soundfile

from manifests import Instruction, Recipe, files
from manifests.recipe import Row
from shards.audio import encode, pcm_md5
from shards.audit import LONGEST, known
from shards.audit.database import Database
from shards.audit.sections import QUERIES
from shards.audit.view import Settings, View
from shards.fingerprint import fingerprint
from shards.flac import RATE
from shards.index import FORMAT, Dataset, Manifest, digest_of
from shards.render import Stored
from shards.sample import Sample, key_of
from shards.writer import open_shard
from test_audit import World, source_of

PCM = np.ndarray[Any, np.dtype[np.int16]]


class Twin(msgspec.Struct, kw_only=True):
    """One clip to put into a dataset."""

    corpus: str
    split: str
    name: str
    """Its id without the corpus."""
    pcm: Any = None
    """Its samples; None makes a tone that no other clip has."""
    flac: bytes = b""
    """Its file, if it is not to be ours."""
    speaker: str = ""
    text: str = ""
    asked: tuple[tuple[str, str, tuple[str, ...]], ...] = (("asr", "Write.", ("something",)),)


def shelve(folder: Path, clips: list[Twin], refused: list[Any] | None = None) -> Dataset:
    """Write a dataset as the packer would; `refused` as in World."""
    sources, pitch = [], 100
    splits = sorted({(clip.corpus, clip.split) for clip in clips} | {row[:2] for row in refused or []})
    for corpus, split in splits:
        with open_shard(str(folder), f"shards/{corpus}/{split}-000000.tar") as writer:
            for clip in [clip for clip in clips if (clip.corpus, clip.split) == (corpus, split)]:
                pitch += 1
                pcm = clip.pcm
                if pcm is None:
                    pcm = (np.sin(np.arange(1600 + pitch) * pitch / 900) * 9000).astype(np.int16)
                sample = Sample(
                    key=key_of(f"{split}/{corpus}/{clip.name}"),
                    id=f"{corpus}/{clip.name}",
                    corpus=corpus,
                    split=split,
                    samples=len(pcm),
                    seconds=len(pcm) / RATE,
                    language="en",
                    speaker=clip.speaker,
                    gender="",
                    text=clip.text,
                    license="CC0-1.0",
                    instructions=tuple(Instruction(task=t, prompt=p, answers=a) for t, p, a in clip.asked),
                )
                stored = Stored(
                    flac=clip.flac or encode(pcm),
                    samples=len(pcm),
                    pcm_md5=pcm_md5(pcm),
                    action="copy",
                    source_rate=RATE,
                    fingerprint=fingerprint(pcm),
                )
                writer.add(sample, stored, [f"{clip.name}.wav"], 2 * len(pcm))
        rows = [row for row in refused or [] if row[:2] == (corpus, split)]
        sources.append(source_of(folder, World(clips={}), corpus, split, writer, rows))
    manifest = Manifest(
        format=FORMAT,
        recipe="small",
        title="Twins",
        plan="0123456789abcdef",
        digest=digest_of([source.index for source in sources]),
        sources=tuple(sources),
        tools={},
    )
    files.write_whole(folder / "dataset.json", msgspec.json.encode(manifest, order="sorted"))
    return Dataset(folder)


def recipe_of(trained: list[str], evaluated: list[str], task: str = "asr") -> Recipe:
    """A recipe that trains and evaluates on splits, each CORPUS:SPLIT."""

    def rows(names: list[str]) -> tuple[Row, ...]:
        parted = [name.partition(":") for name in names]
        return tuple(Row(task=task, corpus=corpus, splits=(split,)) for corpus, _, split in parted)

    return Recipe(title="t", name="t", instruct=rows(trained), evaluate=rows(evaluated))


def view_of(dataset: Dataset, recipe: Recipe, stages: tuple[str, ...] = (), against: tuple[str, ...] = ()) -> View:
    """What a section of the audit looks at, so that a test of one section need not wait for all."""
    named = stages or recipe.stages
    settings = Settings(
        stages=named, seed=0, max_seconds=120.0, max_examples=8, longest=LONGEST, world_size=1, against=against
    )
    database = Database(dataset, recipe, named, QUERIES)
    database.define(known.tables(known.sides(dataset, recipe, named, against)))
    return View(dataset=dataset, recipe=recipe, stages=named, settings=settings, database=database)


def speech(corpora: Path, subset: str = "*") -> dict[str, PCM]:
    """The bundled clips of LibriSpeech of at least two seconds, by id, in the order of their paths."""
    clips = {}
    for path in sorted((corpora / "librispeech" / "LibriSpeech").glob(f"{subset}/**/*.flac")):
        with contextlib.suppress(soundfile.LibsndfileError):
            pcm, rate = soundfile.read(path, dtype="int16")
            assert rate == RATE
            if len(pcm) >= 2 * RATE:
                clips[path.stem] = pcm
    return clips
