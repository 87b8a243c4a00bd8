"""A small dataset with something of all that can be browsed: facets, qualities, copies, refusals, hostile texts."""

from __future__ import annotations

import math
import random

import msgspec
import numpy as np
import pyarrow as pa

from conftest import write_dataset, write_index
from manifests import Instruction
from shards.audio import encode, pcm_md5
from shards.flac import RATE
from shards.index import QUARANTINE, Dataset, Source
from shards.quality import measure
from shards.render import Stored
from shards.sample import Sample, key_of
from shards.writer import open_shard

HOSTILE = (
    "<script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    "'; drop table samples; --",
    "javascript:document.title='owned'",
    "</bdi><svg onload=document.title='owned'>",
    "\x1b]0;owned\x07 \x1b[31mred\x1b[0m [bold]loud[/bold] [link=http://evil.example]x[/link]",
    "\u202eright to left\u2066",
    "line\nbreak\ttab \x00nul \x85next",
    "${alert(1)} {{7*7}} %s %00",
)
PLAIN = ["the", "a", "Of", "river", "STONE", "quick", "brown", "fox", "said", "over", "word"]
WORDS = (*PLAIN, "\u00dcn\u00efcode", "na\u00efve", "\u6cb3\u6d41", "\u77f3\u5934", "Stra\u00dfe", "\u00c5NGSTR\u00d6M")
SPLITS = {
    ("librispeech", "train-clean-100"): 61,
    ("wavcaps", "bbc"): 47,
    ("covost2", "test"): 31,
    ("clotho", "empty"): 0,
}
TASKS = (("asr", "gender_recognition"), ("audio_caption",), ("asr", "translation_en_zh"), ("speech_qa", "asr", "asr"))
REFUSED = 7


def sound(dice: random.Random, kind: int) -> np.ndarray:
    """Noise, a tone, a tone that clips, or silence."""
    samples = dice.randrange(400, 3 * RATE)
    if kind == 0:
        return np.zeros(samples, np.int16)
    wave = np.sin(np.arange(samples) * (0.02 + 0.3 * dice.random())) * dice.choice((900, 12000, 60000))
    wave *= np.linspace(0, 1, samples) if kind == 1 else 1
    return np.clip(wave, -32768, 32767).astype(np.int16)


def write(folder: str) -> Dataset:
    """Write it into `folder`."""
    dice = random.Random(8)
    sources = []
    first = sound(dice, 2)
    for (corpus, split), count in SPLITS.items():
        path = f"shards/{corpus}/{split}-000000.tar"
        with open_shard(folder, path) as writer:
            for place in range(count):
                slug = " Odd [name].wav" if place % 5 == 4 else ""
                clip_id = f"{corpus}/{'AB' if slug else 'ab'}_{place:03d}-x{slug}"
                text = " ".join(dice.choices(WORDS, k=dice.randrange(0, 12)))
                hostile = HOSTILE[place % len(HOSTILE)] if place % 4 == 3 else ""
                tasks = dice.choice(TASKS)
                # Every eleventh sounds as the first of all, which makes copies.
                pcm = first if place % 11 == 10 or (place == 0 and corpus == "librispeech") else sound(dice, place % 6)
                stored = Stored(
                    flac=encode(pcm), samples=len(pcm), pcm_md5=pcm_md5(pcm), quality=measure(pcm),
                    action=dice.choice(("copy", "transcode")), source_rate=44100,
                )  # fmt: skip
                told = [text.lower(), f"{text} {hostile}", dice.choice(("Male", "Female", ""))]
                sample = Sample(
                    key=key_of(clip_id), id=clip_id, corpus=corpus, split=split, samples=len(pcm),
                    seconds=len(pcm) / RATE, language=dice.choice(("en", "zh", "")),
                    speaker=dice.choice(("spk/7", "spk/12", "", hostile)), gender=dice.choice(("female", "male", "")),
                    text=hostile if place % 8 == 3 else text, license=dice.choice(("CC0-1.0", "CC-BY-4.0", hostile)),
                    instructions=tuple(
                        Instruction(
                            task=task,
                            prompt=f"What of {place}? {hostile}" if task == "speech_qa" else f"Please do {task} now.",
                            answers=tuple(told[: dice.randrange(1, 4)]),
                        )
                        for task in tasks
                    ),
                )  # fmt: skip
                writer.add(sample, stored, [f"{place}.wav"], 2 * len(pcm))
        refused = [
            {
                "id": f"{corpus}/bad-{place}", "verdict": ("quarantined", "excluded")[place % 2],
                "reason": ("corrupt", "audio_missing", "no_such_reason")[place % 3],
                "detail": HOSTILE[place % len(HOSTILE)], "source": f"{place}.wav", "bytes": place * 1000,
            }
            for place in range(REFUSED if count else 0)
        ]  # fmt: skip
        table = writer.table()
        sources.append(
            Source(
                corpus=corpus, split=split, tasks=tuple(sorted({t for row in writer.rows for t in row["tasks"]})),
                found=count + len(refused), packed=count, quarantined=math.ceil(len(refused) / 2),
                excluded=len(refused) // 2, reasons={}, skipped={}, seconds=sum(table["seconds"].to_pylist()),
                license="CC0-1.0", published_clips=count, shards=(writer.proof(),),
                index=write_index(folder, f"index/{corpus}/{split}.parquet", table),
                quarantine=write_index(
                    folder, f"quarantine/{corpus}/{split}.parquet", pa.Table.from_pylist(refused, schema=QUARANTINE)
                ),
            )
        )  # fmt: skip
    return write_dataset(folder, sources)


def rows_of(dataset: Dataset) -> list[dict]:
    """Every row of its index, in order."""
    return [
        row for source in dataset.manifest.sources for row in dataset.table(source.corpus, source.split).to_pylist()
    ]


def decode(content: bytes) -> object:
    """The value of a JSON text."""
    return msgspec.json.decode(content)
