"""A small dataset of many corpora without a fault, of real speech, into which tests plant faults."""

from __future__ import annotations

import functools
import random
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import soundfile

from manifests import TASKS, Instruction, Recipe, files, load_corpus
from manifests.corpora import gigaspeech, voxceleb1
from manifests.recipe import Row
from manifests.tables import write_table
from shards.audio import PCM, encode, pcm_md5
from shards.fingerprint import fingerprint
from shards.flac import RATE
from shards.index import FORMAT, QUARANTINE, Dataset, Manifest, Source, digest_of, proof
from shards.quality import measure
from shards.render import Stored
from shards.sample import Sample, key_of
from shards.writer import open_shard

CORPORA = Path(__file__).parent / "corpora"
LENGTH = 2 * RATE
"""Samples of a clip."""


class Clip(msgspec.Struct, kw_only=True):
    """One clip to put into the dataset."""

    id: str
    pcm: PCM
    asked: list[tuple[str, str, list[str]]]
    """Task, prompt and answers of each instruction."""
    text: str = ""
    speaker: str = ""
    gender: str = ""
    language: str = "en"
    license: str = ""
    sources: list[str] = []
    provenance: str = ""
    flac: bytes | None = None
    """How it is stored, if not as it would be by default."""
    claims: dict[str, Any] = {}
    """Columns of the index that say something else than is true."""


Split = tuple[str, str]


class World(msgspec.Struct, kw_only=True):
    """What the dataset holds."""

    clips: dict[Split, list[Clip]]
    refused: list[tuple[str, str, str, str, str, str]] = []
    """Corpus, split, id, verdict, reason and detail."""
    unlisted: dict[Split, int] = {}
    """Refusals that dataset.json counts and the quarantine does not list."""
    unindexed: dict[Split, int] = {}
    """Samples that dataset.json counts and the index does not have."""
    published: dict[Split, int] = {}
    terms: dict[str, str] = {}
    """Licences of corpora, where they are not those published."""


@functools.cache
def windows() -> tuple[PCM, ...]:
    """Return pieces of real speech, none from the same moment as another."""
    found = []
    for path in sorted((CORPORA / "librispeech" / "LibriSpeech").rglob("*.flac")):
        try:
            pcm = soundfile.read(path, dtype="int16")[0]
        except soundfile.LibsndfileError:
            continue
        found += [pcm[at : at + LENGTH] for at in range(0, len(pcm) - LENGTH, LENGTH)]
    kept = [piece for piece in found if loud(piece)]
    # Backwards, speech is as loud and as broad, and like no other sound here.
    return tuple(kept + [piece[::-1].copy() for piece in kept])


def loud(piece: PCM) -> bool:
    """Whether a piece is speech from its beginning to its end."""
    told = measure(piece)
    heard = told.silence < 0.3 and told.leading_silence < 0.5 and told.peak > 0.1
    return heard and told.clipped == 0 and abs(told.dc) < 0.005


WORDS = (
    "river stone garden winter letter morning doctor window silver market bridge shadow teacher island candle "
    "engine forest painter harbour village mountain kitchen soldier captain orchard journey blanket thunder "
    "pocket lantern barrel copper farmer violin castle meadow ribbon temple hammer saddle basket pepper velvet "
    "anchor walnut sparrow"
)
CHARACTERS = (
    "\u6cb3\u77f3\u82b1\u56ed\u51ac\u5929\u4fe1\u65e9\u6668\u533b\u751f\u7a97\u94f6\u5e02\u573a\u6865"
    "\u5f71\u5b50\u8001\u5e08\u5c9b\u8721\u70db\u68ee\u6797\u753b\u5bb6\u6e2f\u6751\u5c71\u53a8\u623f"
)


def sentence(dice: random.Random, words: int = 9) -> str:
    """Return words that make a sentence of their own."""
    return " ".join(dice.choice(WORDS.split()) for _ in range(words))


def prompt(task: str, dice: random.Random, slot: str = "") -> str:
    """Return one of the task's own prompts."""
    return dice.choice(TASKS[task].prompts).replace("{}", slot)


def clean() -> World:
    """Return a world without a fault; every call gives the same, with clips of its own."""
    dice = random.Random(0)
    pieces = iter(windows())
    clips: dict[Split, list[Clip]] = {}

    def spoken(corpus: str, split: str, voices: range, each: int, license: str) -> None:
        for voice in voices:
            gender = "female" if voice % 2 else "male"
            for number in range(each):
                said = sentence(dice, 5)
                clips.setdefault((corpus, split), []).append(
                    Clip(
                        id=f"{corpus}/{voice}-{1000 + voice}-{number:04d}",
                        pcm=next(pieces),
                        asked=[
                            ("asr", prompt("asr", dice), [said.capitalize()]),
                            ("gender_recognition", prompt("gender_recognition", dice), [gender.capitalize()]),
                        ],
                        text=said.upper(),
                        speaker=f"{corpus}/{voice}",
                        gender=gender,
                        license=license,
                    )
                )

    def captioned(corpus: str, split: str, names: list[str], task: str, license: str) -> None:
        for name in names:
            clips.setdefault((corpus, split), []).append(
                Clip(
                    id=f"{corpus}/{name}",
                    pcm=next(pieces),
                    asked=[(task, prompt(task, dice), [f"A {sentence(dice, 7)}"])],
                    language="",
                    license=license,
                )
            )

    spoken("librispeech", "train-clean-100", range(9100, 9124), 2, "CC-BY-4.0")
    spoken("librispeech", "test-clean", range(9200, 9206), 1, "CC-BY-4.0")
    captioned("audiocaps", "train", [f"trainvid{n:03d}_30" for n in range(8)], "audio_caption", "MIT")
    captioned("audiocaps", "test", [f"testvide{n:03d}_10" for n in range(4)], "audio_caption", "MIT")
    captioned("clotho", "development", [f"development/Wind {n}.wav" for n in range(6)], "audio_caption", "CC0-1.0")
    captioned("clotho", "evaluation", [f"evaluation/Rain {n}.wav" for n in range(3)], "audio_caption", "CC0-1.0")
    captioned("wavcaps", "freesound", [f"freesound/{90000 + n}" for n in range(30)], "audio_caption", "CC0-1.0")
    captioned("musiccaps", "train", [f"musicvid{n:03d}" for n in range(6)], "music_caption", "CC-BY-SA-4.0")
    for number in range(16):
        clips.setdefault(("iemocap", "session1"), []).append(
            Clip(
                id=f"iemocap/Ses01F_impro{number:02d}_F000",
                pcm=next(pieces),
                asked=[
                    (
                        "emotion_recognition",
                        prompt("emotion_recognition", dice),
                        [("Angry", "Happy", "Neutral", "Sad")[number % 4]],
                    )
                ],
                text=sentence(dice),
                speaker=f"iemocap/Ses01{'FM'[number // 4 % 2]}",
                gender=("female", "male")[number // 4 % 2],
                license="IEMOCAP release form",
            )
        )
    for number in range(10):
        names = [f"id{11000 + number}/video{number}/00001", f"id{11000 + number + number % 2}/video{number}x/00002"]
        clips.setdefault(("voxceleb1", "verification-train"), []).append(
            Clip(
                id=f"voxceleb1/{'+'.join(names)}",
                pcm=next(pieces),
                asked=[("speaker_verification", prompt("speaker_verification", dice), ["No" if number % 2 else "Yes"])],
                license=voxceleb1.LICENSE,
            )
        )
    for number in range(8):
        said, translated = sentence(dice), "".join(dice.choice(CHARACTERS) for _ in range(12))
        clips.setdefault(("covost2", "train"), []).append(
            Clip(
                id=f"covost2/common_voice_en_{7000 + number}",
                pcm=next(pieces),
                asked=[("translation_en_zh", prompt("translation_en_zh", dice), [translated])],
                text=said.capitalize(),
                license="CC0-1.0",
            )
        )
    for number in range(44):
        said = sentence(dice, 5)
        clips.setdefault(("gigaspeech", "xs"), []).append(
            Clip(
                id=f"gigaspeech/POD{number:010d}_S0000001",
                pcm=next(pieces),
                asked=[("asr", prompt("asr", dice), [said.capitalize()])],
                text=said.upper(),
                license=gigaspeech.LICENSE,
            )
        )
    # WavCaps' own list of what is Clotho's was in place.
    listed = ("wavcaps", "freesound", "wavcaps/freesound/80000", "excluded", "blacklisted", "listed in exclude.json")
    return World(clips=clips, refused=[listed])


TRAINED = (
    ("asr", "librispeech", "train-clean-100"),
    ("gender_recognition", "librispeech", "train-clean-100"),
    ("audio_caption", "audiocaps", "train"),
    ("audio_caption", "clotho", "development"),
    ("audio_caption", "wavcaps", "freesound"),
    ("music_caption", "musiccaps", "train"),
    ("emotion_recognition", "iemocap", "session1"),
    ("speaker_verification", "voxceleb1", "verification-train"),
    ("translation_en_zh", "covost2", "train"),
    ("asr", "gigaspeech", "xs"),
)
EVALUATED = (
    ("asr", "librispeech", "test-clean"),
    ("gender_recognition", "librispeech", "test-clean"),
    ("audio_caption", "audiocaps", "test"),
    ("audio_caption", "clotho", "evaluation"),
)


def recipe(**targets: int) -> Recipe:
    """Return the recipe that the world was built for; `targets` are samples that corpora are meant to have."""
    return Recipe(
        title="Ten corpora",
        name="ten",
        instruct=tuple(
            Row(task=task, corpus=corpus, splits=(split,), samples=targets.get(f"{corpus}_{task}"))
            for task, corpus, split in TRAINED
        ),
        evaluate=tuple(Row(task=task, corpus=corpus, splits=(split,)) for task, corpus, split in EVALUATED),
    )


def build(folder: Path, world: World) -> Dataset:
    """Write the dataset as the packer would: real audio, measured, in real shards."""
    sources = []
    for (corpus, split), clips in sorted(world.clips.items()):
        path = f"shards/{corpus}/{split}-000000.tar"
        with open_shard(str(folder), path) as writer:
            for clip in clips:
                add(writer, clip, corpus, split)
        sources.append(source_of(folder, world, corpus, split, writer, clips))
    manifest = Manifest(
        format=FORMAT,
        recipe="ten",
        title="Ten corpora",
        plan="0123456789abcdef",
        digest=digest_of([source.index for source in sources]),
        sources=tuple(sources),
        tools={"salmonn": "0.1.0"},
    )
    files.write_whole(folder / "dataset.json", msgspec.json.encode(manifest, order="sorted"))
    return Dataset(folder)


def add(writer: Any, clip: Clip, corpus: str, split: str) -> None:
    """Append one clip to a shard, and to its index."""
    sample = Sample(
        key=key_of(clip.id),
        id=clip.id,
        corpus=corpus,
        split=split,
        samples=len(clip.pcm),
        seconds=len(clip.pcm) / RATE,
        language=clip.language,
        speaker=clip.speaker,
        gender=clip.gender,
        text=clip.text,
        license=clip.license,
        provenance=clip.provenance,
        instructions=tuple(Instruction(task=t, prompt=p, answers=tuple(a)) for t, p, a in clip.asked),
    )
    stored = Stored(
        flac=encode(clip.pcm) if clip.flac is None else clip.flac,
        samples=len(clip.pcm),
        pcm_md5=pcm_md5(clip.pcm),
        action="transcode",
        source_rate=RATE,
        quality=measure(clip.pcm),
        fingerprint=fingerprint(clip.pcm),
    )
    writer.add(sample, stored, clip.sources or [f"{clip.id.partition('/')[2]}.wav"], 2 * len(clip.pcm))
    writer.rows[-1].update(clip.claims)


def source_of(folder: Path, world: World, corpus: str, split: str, writer: Any, clips: list[Clip]) -> Source:
    """Write index and quarantine of one split, and return what dataset.json says of it."""
    index, quarantine = f"index/{corpus}/{split}.parquet", f"quarantine/{corpus}/{split}.parquet"
    rows = [
        {"id": id, "verdict": verdict, "reason": reason, "detail": detail, "source": "", "bytes": 0}
        for where, of, id, verdict, reason, detail in world.refused
        if (where, of) == (corpus, split)
    ]
    write_table(str(folder / index), writer.table())
    write_table(str(folder / quarantine), pa.Table.from_pylist(rows, schema=QUARANTINE))
    excluded = sum(row["verdict"] == "excluded" for row in rows)
    bad = len(rows) - excluded + world.unlisted.get((corpus, split), 0)
    packed = len(clips) + world.unindexed.get((corpus, split), 0)
    return Source(
        corpus=corpus,
        split=split,
        tasks=tuple(sorted({task for clip in clips for task, _, _ in clip.asked})),
        found=packed + bad + excluded,
        packed=packed,
        quarantined=bad,
        excluded=excluded,
        reasons={reason: sum(row["reason"] == reason for row in rows) for reason in {row["reason"] for row in rows}},
        skipped={},
        seconds=sum(len(clip.pcm) for clip in clips) / RATE,
        license=world.terms.get(corpus, load_corpus(corpus).facts.license),
        published_clips=world.published.get((corpus, split), len(clips)),
        index=proof(str(folder), index),
        quarantine=proof(str(folder), quarantine),
        shards=(writer.proof(),),
    )


def noise(seed: int, loudness: float = 3000.0) -> PCM:
    """Return a clip of noise."""
    return (np.random.default_rng(seed).normal(size=LENGTH) * loudness).astype(np.int16)
