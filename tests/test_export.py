"""Exporting a dataset as released annotations: every answer a row, the same bytes each time, and it reads back."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import World, digests, tone, write_dataset, write_source
from manifests import TASKS, AudioRef, Clip, Failed, Instruction
from manifests.annotations import Annotations
from manifests.join import QUESTIONS, join
from manifests.tasks import instruct
from shards import Dataset
from shards.audio import encode, pcm_md5, read_flac
from shards.export import RELEASED, export, file_name, task_name
from shards.flac import RATE
from shards.render import Stored
from shards.sample import Sample, key_of
from shards.writer import open_shard

# The keys of the prompt files released with SALMONN (train and test).
PROMPTED = (
    "asr asr_zh asr_de translation_ec audiocaption audiocaption_v2 QA inference_QA gender_QA gender_recognition "
    "phone_recognition speech_separation emotion_recognition music_description speaker_verification "
    "audio_story_telling speaker_diarization_asr speech_query speech_audio_query slot_filling keywords "
    "translation_en2ja translation_en2de speech_audio_coreasoning"
)
PAIRS = (("Who speaks?", "A man."), ("Who speaks?", "A person."), ("Listen to the speech and answer: what?", "That."))


def clip(name: str, **more: Any) -> Clip:
    return Clip(id=name, audio=(AudioRef(path=f"{name.partition('/')[2]}.flac"),), **more)


def pack(folder: str, clips: list[tuple[Clip, tuple[str, ...]]]) -> Dataset:
    """Write clips as a dataset with what their tasks ask of them, as the builder does."""
    by_corpus: dict[str, list[tuple[Clip, tuple[str, ...]]]] = {}
    for one, tasks in clips:
        by_corpus.setdefault(one.id.partition("/")[0], []).append((one, tasks))
    sources = []
    for corpus, own in sorted(by_corpus.items()):
        path = f"shards/{corpus}/train-000000.tar"
        with open_shard(folder, path) as writer:
            for number, (one, tasks) in enumerate(own):
                pcm, key = tone(1600, number), key_of(one.id)
                writer.add(
                    Sample(
                        key=key,
                        id=one.id,
                        corpus=corpus,
                        split="train",
                        samples=1600,
                        seconds=1600 / RATE,
                        language=one.language,
                        speaker="",
                        gender=one.gender,
                        text=one.text,
                        license="CC0-1.0",
                        provenance="",
                        instructions=tuple(made for task in tasks for made in instruct(TASKS[task], one, key)),
                    ),
                    Stored(flac=encode(pcm), samples=1600, pcm_md5=pcm_md5(pcm), action="transcode", source_rate=RATE),
                    ["x.flac"],
                    1,
                )
        sources.append(write_source(folder, corpus, "train", [writer.table()], [writer.proof()]))
    return write_dataset(folder, sources)


def read(out: Path) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = json.loads(out.read_text(encoding="utf-8"))["annotation"]
    return rows


def test_every_task_has_the_name_it_was_released_under() -> None:
    assert set(RELEASED) == set(TASKS)
    assert set(RELEASED.values()) <= set(PROMPTED.split())
    assert task_name("audio_caption", "clotho") == "audiocaption_v2" and task_name("my_own", "c") == "my_own"


def test_a_row_for_every_answer_of_every_instruction(tmp_path: Path) -> None:
    dataset = pack(
        str(tmp_path / "dataset"),
        [
            (clip("librispeech/1-2-0000", text="HELLO THERE", gender="female"), ("asr", "gender_recognition")),
            (clip("clotho/rain.wav", captions=("Rain falls.", "It rains.")), ("audio_caption",)),
            (clip("slurp/audio-1", questions=(("time", "nine"),)), ("slot_filling",)),
            (clip("librispeech/1-2-0001", labels={"story": "Once."}), ("audio_story",)),
        ],
    )
    done = export(dataset, str(tmp_path / "out.json"))
    assert (done.samples, done.rows, done.files) == (4, 6, 0)
    assert read(tmp_path / "out.json") == [
        {"path": path, "text": text, "task": task, "Q": question, "clip": name}
        for path, text, task, question, name in [
            ("clotho/train/rain.wav.flac", "Rain falls.", "audiocaption_v2", "", "clotho/rain.wav"),
            ("clotho/train/rain.wav.flac", "It rains.", "audiocaption_v2", "", "clotho/rain.wav"),
            ("librispeech/train/1-2-0000.flac", "Hello there", "asr", "", "librispeech/1-2-0000"),
            ("librispeech/train/1-2-0000.flac", "Female", "gender_recognition", "", "librispeech/1-2-0000"),
            ("librispeech/train/1-2-0001.flac", "Once.", "audio_story_telling", "", "librispeech/1-2-0001"),
            ("slurp/train/audio-1.flac", "nine", "slot_filling", "time", "slurp/audio-1"),
        ]
    ]


@pytest.mark.parametrize("task", QUESTIONS)
@pytest.mark.parametrize("names", ["as written", "by path alone"])
def test_what_is_read_back_asks_the_same(tmp_path: Path, task: str, names: str) -> None:
    clips = [clip(f"corpus/a/{number}", questions=PAIRS, labels={"story": "S."}) for number in range(12)]
    dataset = pack(str(tmp_path / "dataset"), [(one, (task, "audio_story")) for one in clips])
    out = tmp_path / "corpus" / "out.json"
    export(dataset, str(out))
    if names == "by path alone":
        out.write_text(re.sub(r',"clip":"[^"]*"', "", out.read_text()))
    bare = [msgspec.structs.replace(one, questions=(), labels={}) for one in clips]
    made, report = join(bare, Annotations.read([str(out)]), (task, "audio_story"))
    assert made == clips
    assert (report.rows, report.unjoined, report.repeated, report.passed) == (4 * 12, 0, 0, {})


def test_the_audio_is_where_the_paths_say(tmp_path: Path) -> None:
    hostile = "corpus/../../etc/passwd\0"
    clips = [clip("corpus/one", text="A"), clip(hostile, text="B"), clip("corpus/x/two", text="C")]
    dataset = pack(str(tmp_path / "dataset"), [(one, ("asr",)) for one in clips])
    folder = tmp_path / "audio"
    done = export(dataset, str(tmp_path / "out.json"), str(folder))
    assert done.files == 3
    rows = read(tmp_path / "out.json")
    assert [row["clip"] for row in rows] == [one.id for one in clips]
    for number, row in enumerate(rows):
        path = Path(row["path"]).resolve()
        assert path.is_relative_to(folder.resolve())
        assert (read_flac(path.read_bytes(), "x") == tone(1600, number)).all()
    assert rows[1]["path"] == f"{folder}/corpus/train/{key_of(hostile)}.flac"
    before = digests(tmp_path / "audio"), (tmp_path / "out.json").read_bytes()
    (folder / "corpus/train/one.flac").write_bytes(b"half")
    export(dataset, str(tmp_path / "out.json"), str(folder))
    assert (digests(tmp_path / "audio"), (tmp_path / "out.json").read_bytes()) == before


def test_damage_is_found_before_anything_is_named(tmp_path: Path) -> None:
    dataset = pack(str(tmp_path / "dataset"), [(clip("corpus/one", questions=PAIRS), ("speech_qa",))])
    shard = next((tmp_path / "dataset").rglob("*.tar"))
    content = shard.read_bytes()
    row = dataset.row("corpus_one")
    for offset, audio in ((row["json_offset"], ""), (row["flac_offset"], str(tmp_path / "audio"))):
        shard.write_bytes(content[:offset] + b"\xff" * 20 + content[offset + 20 :])
        with pytest.raises(Failed, match="corpus_one is not what was written"):
            export(dataset, str(tmp_path / "out.json"), audio)
    assert not (tmp_path / "out.json").exists()


def test_a_dataset_of_several_shards_and_splits_is_written_in_its_order(
    make_dataset: Callable[..., Dataset], tmp_path: Path
) -> None:
    world: World = {
        ("one", "train"): [(800, ("asr", "speech_qa"))] * 5,
        ("one", "test"): [(800, ("asr",))] * 2,
        ("two", "train"): [(800, ("music_caption",))] * 3,
    }
    dataset = make_dataset(world, shards=2)
    for name in ("a.json", "b.json"):
        assert export(dataset, str(tmp_path / name)).rows == 2 * (5 * 2 + 2 + 3)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    rows = read(tmp_path / "a.json")
    assert [row["path"].rsplit("/", 1)[0] for row in rows] == ["one/test"] * 4 + ["one/train"] * 20 + ["two/train"] * 6
    # A shard of an earlier version says no slot: the whole prompt is the question.
    assert {row["Q"] for row in rows if row["task"] == "QA"} == {"Stored prompt of speech_qa."}


def test_mini_reads_back_with_the_oracle_of_its_index(built: Path, tmp_path: Path) -> None:
    dataset = Dataset(built)
    export(dataset, str(tmp_path / "out.json"))
    expected = [
        (row["id"], task_name(task, source.corpus), answer)
        for source in dataset.manifest.sources
        for row in dataset.table(source.corpus, source.split).to_pylist()
        for task, answers in zip(row["tasks"], row["answers"], strict=True)
        for answer in answers
    ]
    assert [(row["clip"], row["task"], row["text"]) for row in read(tmp_path / "out.json")] == expected


@given(st.lists(st.text(max_size=200) | st.from_regex(r"[A-Za-z0-9./_-]{1,40}", fullmatch=True), unique=True))
def test_no_id_leads_out_of_the_folder_or_to_the_file_of_another(names: list[str]) -> None:
    ids = [f"corpus/{name}" for name in names] + ["corpus/x", "corpus/x.flac/y", "corpus/x.flac"]
    ids += [f"corpus/{key_of(name)}" for name in ids]
    paths = {}
    for name in dict.fromkeys(ids):
        path = file_name(key_of(name), name)
        assert re.fullmatch(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*", path), path
        assert not any(part.startswith(".") for part in path.split("/"))
        assert paths.setdefault(f"{path}.flac", name) == name
    folders = {path.rsplit("/", number)[0] for path in paths for number in range(1, path.count("/") + 1)}
    assert not folders & set(paths)


def test_instructions_keep_their_questions() -> None:
    made: tuple[Instruction, ...] = instruct(TASKS["speech_qa"], clip("c/1", questions=PAIRS), "key")
    assert [one.slot for one in made] == ["Who speaks?", "Listen to the speech and answer: what?"]
