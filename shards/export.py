"""Export: a dataset as annotations in the format released with SALMONN, and its audio as files, if wanted.

Each answer is a row, so a sample with five captions gives five. Pairs and mixtures are one file each, as they are
stored, so no row needs `expand_wav`. A row's path is ``<corpus>/<split>/<official id>.flac``, below the folder of the
audio where that is written; an id that is no safe name gives way to the sample's key.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec
from isal import isal_zlib

from manifests import Failed, files
from manifests.annotations import Row, write
from manifests.join import QUESTIONS
from shards.index import Dataset
from shards.sample import Sample

RELEASED = {
    "asr": "asr",
    "translation_en_zh": "translation_ec",
    "audio_caption": "audiocaption",
    "phone_recognition": "phone_recognition",
    "emotion_recognition": "emotion_recognition",
    "music_caption": "music_description",
    "overlapped_speech_recognition": "speech_separation",
    "speaker_verification": "speaker_verification",
    "gender_recognition": "gender_recognition",
    "speech_qa": "QA",
    "audio_qa": "QA",
    "music_qa": "QA",
    "translation_en_de": "translation_en2de",
    "translation_en_ja": "translation_en2ja",
    "keyword_extraction": "keywords",
    "spoken_query_qa": "speech_query",
    "slot_filling": "slot_filling",
    "audio_story": "audio_story_telling",
    "speech_audio_coreasoning": "speech_audio_coreasoning",
}
"""Our tasks to the names in SALMONN's prompt files; Clotho's captions have one of their own there, audiocaption_v2."""
ASKING = {"slot_filling", *QUESTIONS}
"""Tasks whose prompts hold a question."""
COLUMNS = [
    "key",
    "id",
    "shard",
    "flac_offset",
    "flac_bytes",
    "flac_crc32",
    "json_offset",
    "json_bytes",
    "tasks",
    "answers",
]
BATCH = 4096
NAME = re.compile(r"([A-Za-z0-9_-]{1,150}/){0,4}(?!\.)[A-Za-z0-9_.-]{1,150}")
"""An id that can be a path as it is. Its folders have no dot, so that none has the name of another's file."""
KEYED = re.compile(r"-x[0-9a-f]{31}$")
"""How a key ends that was made of an unsafe id; no id may pass for one."""


class Exported(msgspec.Struct, frozen=True, kw_only=True):
    """What was written."""

    samples: int
    rows: int
    files: int
    """Of audio; those that were there already among them."""


def task_name(task: str, corpus: str) -> str:
    """Return what the released annotations call a task; a task of the user's own keeps its name."""
    if task == "audio_caption" and corpus == "clotho":
        return "audiocaption_v2"
    return RELEASED.get(task, task)


def file_name(key: str, clip_id: str) -> str:
    """Return the path of a sample's audio below its split, without extension."""
    name = clip_id.partition("/")[2]
    return name if NAME.fullmatch(name) and not KEYED.search(name) else key


def export(dataset: Dataset, out: str, audio: str = "") -> Exported:
    """Write the annotations of `dataset` to `out`, and its audio below the folder `audio` if that is given."""
    samples = 0

    def rows() -> Iterator[Row]:
        nonlocal samples
        for source in dataset.manifest.sources:
            table = dataset.table(source.corpus, source.split, COLUMNS)
            for batch in table.to_batches(max_chunksize=BATCH):
                for sample in batch.to_pylist():
                    samples += 1
                    path = f"{source.corpus}/{source.split}/{file_name(sample['key'], sample['id'])}.flac"
                    if audio:
                        path = files.join(audio, path)
                        write_audio(dataset, sample, path)
                    yield from rows_of(dataset, sample, path, source.corpus)

    count = write(out, rows())
    return Exported(samples=samples, rows=count, files=samples if audio else 0)


def rows_of(dataset: Dataset, sample: dict[str, Any], path: str, corpus: str) -> Iterator[Row]:
    """Yield a row for every answer of every instruction of a sample."""
    slots = slots_of(dataset, sample) if ASKING.intersection(sample["tasks"]) else [""] * len(sample["tasks"])
    for task, answers, slot in zip(sample["tasks"], sample["answers"], slots, strict=True):
        for answer in answers:
            yield Row(path=path, text=answer, task=task_name(task, corpus), question=slot, clip=sample["id"])


def slots_of(dataset: Dataset, sample: dict[str, Any]) -> list[str]:
    """Return what stands in Q for each instruction of a sample: its question, or the slot it asks for.

    The index holds prompts with the question within; the question itself is in the shard.
    """
    place = files.join(dataset.url, sample["shard"])
    try:
        stored = msgspec.json.decode(
            files.read_range(place, sample["json_offset"], sample["json_bytes"]), type=Sample
        ).instructions
    except msgspec.MsgspecError:
        raise damaged(place, sample["key"]) from None
    return [(one.slot or one.prompt) if one.task in ASKING else "" for one in stored]


def write_audio(dataset: Dataset, sample: dict[str, Any], path: str) -> None:
    """Write the FLAC of one sample, unless it is there; Failed if the shard does not hold what the index says."""
    if files.size(path) == sample["flac_bytes"] and isal_zlib.crc32(files.read_bytes(path)) == sample["flac_crc32"]:
        return
    place = files.join(dataset.url, sample["shard"])
    flac = files.read_range(place, sample["flac_offset"], sample["flac_bytes"])
    if isal_zlib.crc32(flac) != sample["flac_crc32"]:
        raise damaged(place, sample["key"])
    files.write_whole(path, flac)


def damaged(place: str, key: str) -> Failed:
    """Return the error for a sample whose bytes are not those of the index."""
    return Failed(f"{files.redact(place)}: {key} is not what was written; salmonn verify says what else is not")
