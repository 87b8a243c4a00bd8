"""The numbers of the audit equal plain loops over the index and what the stream deals; planted faults are found."""

from __future__ import annotations

import itertools
import os
import re
import statistics
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests import Instruction, Recipe, UserError, files
from manifests.recipe import Row
from manifests.tables import write_table
from shards.audio import encode, pcm_md5
from shards.audit import Report, audit, write
from shards.audit.sections import GATES, QUERIES, difference
from shards.audit.tables import TABLES
from shards.flac import RATE
from shards.index import FORMAT, QUARANTINE, SCHEMA, Dataset, Manifest, Source, digest_of, proof
from shards.quality import measure
from shards.render import Stored
from shards.sample import Sample
from shards.stream import Stream
from shards.traits import traits
from shards.writer import open_shard


class Made(msgspec.Struct, kw_only=True):
    """One clip to put into a dataset."""

    name: str
    seconds: float = 0.1
    pitch: int | None = None
    """Clips of one pitch and length have the same audio; None gives each its own."""
    asked: list[tuple[str, str, list[str]]]
    """Task, prompt and answers of each instruction."""
    license: str = "CC-BY-4.0"


class World(msgspec.Struct, kw_only=True):
    """What a dataset is built from: the same world gives the same bytes."""

    clips: dict[tuple[str, str], list[Made]]
    refused: list[tuple[str, str, str, str, str, str]] = []
    """Corpus, split, id, verdict, reason and detail."""
    published: dict[tuple[str, str], int] = {}
    title: str = "A small world"
    tools: dict[str, str] = {}
    skipped: dict[str, dict[str, int]] = {}
    terms: str = "CC-BY-4.0"


def build(folder: Path, world: World) -> Dataset:
    """Write a dataset as the packer would."""
    pitches = itertools.count(100)
    sources = []
    for (corpus, split), clips in sorted(world.clips.items()):
        path = f"shards/{corpus}/{split}-000000.tar"
        with open_shard(str(folder), path) as writer:
            for clip in clips:
                pitch = next(pitches) if clip.pitch is None else clip.pitch
                pcm = (np.sin(np.arange(round(clip.seconds * RATE)) * pitch / 900) * 9000).astype(np.int16)
                sample = Sample(
                    key=f"{corpus}_{split}_{clip.name}",
                    id=f"{corpus}/{clip.name}",
                    corpus=corpus,
                    split=split,
                    samples=len(pcm),
                    seconds=len(pcm) / RATE,
                    language="en",
                    speaker="",
                    gender="",
                    text="",
                    license=clip.license,
                    instructions=tuple(Instruction(task=t, prompt=p, answers=tuple(a)) for t, p, a in clip.asked),
                )
                stored = Stored(
                    flac=encode(pcm),
                    samples=len(pcm),
                    pcm_md5=pcm_md5(pcm),
                    action="copy",
                    source_rate=RATE,
                    quality=measure(pcm),
                )
                writer.add(sample, stored, [f"{clip.name}.wav"], 2 * len(pcm))
        refused = [row for row in world.refused if row[:2] == (corpus, split)]
        sources.append(source_of(folder, world, corpus, split, writer, refused))
    manifest = Manifest(
        format=FORMAT,
        recipe="small",
        title=world.title,
        plan="0123456789abcdef",
        digest=digest_of([source.index for source in sources]),
        sources=tuple(sources),
        tools=world.tools,
    )
    files.write_whole(folder / "dataset.json", msgspec.json.encode(manifest, order="sorted"))
    return Dataset(folder)


def source_of(folder: Path, world: World, corpus: str, split: str, writer: Any, refused: list[Any]) -> Source:
    index, quarantine = f"index/{corpus}/{split}.parquet", f"quarantine/{corpus}/{split}.parquet"
    table = writer.table()
    rows = [
        {"id": id, "verdict": verdict, "reason": reason, "detail": detail, "source": "", "bytes": 0}
        for _, _, id, verdict, reason, detail in refused
    ]
    write_table(str(folder / index), table)
    write_table(str(folder / quarantine), pa.Table.from_pylist(rows, schema=QUARANTINE))
    verdicts = Counter(row["verdict"] for row in rows)
    return Source(
        corpus=corpus,
        split=split,
        tasks=tuple(sorted({task for tasks in table["tasks"].to_pylist() for task in tasks})),
        found=table.num_rows + len(rows),
        packed=table.num_rows,
        quarantined=verdicts["quarantined"],
        excluded=verdicts["excluded"],
        reasons=dict(Counter(row["reason"] for row in rows)),
        skipped=world.skipped,
        seconds=sum(table["seconds"].to_pylist()),
        license=world.terms,
        published_clips=world.published.get((corpus, split), table.num_rows),
        index=proof(str(folder), index),
        quarantine=proof(str(folder), quarantine),
        shards=(writer.proof(),),
    )


def speech(count: int, words: int, **more: Any) -> list[Made]:
    """Clips with a transcript and a gender, of different lengths."""
    return [
        Made(
            name=f"{more.get('name', 'u')}{n}",
            seconds=0.1 + 0.05 * (n % 7),
            asked=[
                ("asr", f"Prompt {n % 3}.", [" ".join(f"w{n}x{k}" for k in range(1 + n % words))]),
                ("gender_recognition", "Who speaks?", ["Female" if n % 3 else "Male"]),
            ],
        )
        for n in range(count)
    ]


def sounds(count: int) -> list[Made]:
    """Clips with captions of different lengths."""
    return [
        Made(
            name=f"s{n}",
            seconds=0.2 + 0.1 * (n % 4),
            license="CC0-1.0" if n % 2 else "CC-BY-4.0",
            asked=[("audio_caption", "Describe it.", ["a dog", f"sound number {n} of many", "one two three"])],
        )
        for n in range(count)
    ]


def clean() -> World:
    """A world without a fault."""
    return World(
        clips={
            ("audiocaps", "train"): sounds(9),
            ("librispeech", "dev-clean"): speech(5, 4, name="d"),
            ("librispeech", "train-clean-100"): speech(23, 6),
        }
    )


def recipe_of(*, weights: tuple[float, float, float] = (0.5, 0.2, 0.3), **targets: Any) -> Recipe:
    train = {"corpus": "librispeech", "splits": ("train-clean-100",)}
    dev = {"corpus": "librispeech", "splits": ("dev-clean",)}
    return Recipe(
        title="Small",
        name="small",
        instruct=(
            Row(task="asr", weight=weights[0], **train, **targets),
            Row(task="gender_recognition", weight=weights[1], **train),
            Row(task="audio_caption", corpus="audiocaps", splits=("train",), weight=weights[2]),
        ),
        evaluate=(Row(task="asr", **dev), Row(task="gender_recognition", **dev)),
    )


def rows_of(dataset: Dataset) -> list[dict[str, Any]]:
    """All rows of the index, by plain Python."""
    return [row for s in dataset.manifest.sources for row in dataset.table(s.corpus, s.split).to_pylist()]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    world = clean()
    world.refused = [
        ("audiocaps", "train", "audiocaps/gone", "excluded", "audio_missing", "not among the files"),
        ("librispeech", "train-clean-100", "librispeech/cut", "quarantined", "truncated", "lost sync"),
        ("librispeech", "train-clean-100", "librispeech/no", "quarantined", "never_heard_of", "?"),
    ]
    world.published = {("librispeech", "train-clean-100"): 100, ("audiocaps", "train"): 0}
    return build(tmp_path_factory.mktemp("audit"), world)


@pytest.fixture(scope="module")
def report(dataset: Dataset) -> Report:
    return audit(dataset, recipe_of(samples=25, hours=0.001), max_examples=4)


def test_totals_and_targets_are_sums_over_the_index(dataset: Dataset, report: Report) -> None:
    rows = rows_of(dataset)
    assert report.totals.samples == len(rows)
    assert report.totals.examples == sum(len(row["tasks"]) for row in rows)
    assert report.totals.hours == pytest.approx(sum(row["seconds"] for row in rows) / 3600, abs=1e-9)
    assert report.totals.tasks == ("asr", "audio_caption", "gender_recognition")
    assert (report.totals.found, report.totals.refused) == (len(rows) + 3, 3)
    for row in report.targets.rows:
        mine = [r for r in rows if r["corpus"] == row.corpus and r["split"] in row.splits and row.task in r["tasks"]]
        assert (row.samples, row.examples) == (len(mine), len(mine))
        assert row.hours == pytest.approx(sum(r["seconds"] for r in mine) / 3600, abs=1e-9)
    asr, gender = report.targets.rows[:2]
    assert asr.samples_off == pytest.approx(23 / 25 - 1)
    assert asr.hours_off == pytest.approx(asr.hours / 0.001 - 1, abs=1e-6)
    assert (gender.target_hours, gender.hours_off, gender.samples_off) == (None, None, None)


def test_the_funnel_says_what_became_of_every_clip(report: Report) -> None:
    caps, dev, train = report.targets.funnel
    assert (train.published, train.found, train.packed, train.quarantined, train.excluded) == (100, 25, 23, 2, 0)
    assert (train.indexed, train.refused, train.coverage) == (23, {"quarantined": 2}, 0.23)
    assert (caps.excluded, caps.coverage, caps.reasons) == (1, None, {"audio_missing": 1})
    assert dev.coverage == 1
    assert [row.id for row in report.quarantine.refusals] == ["audiocaps/gone", "librispeech/cut", "librispeech/no"]
    meanings = {row.reason: row.meaning for row in report.quarantine.reasons}
    assert meanings["truncated"] == "the file ends before its header says"
    assert "another version" in meanings["never_heard_of"]


def test_prompts_answers_and_licences_are_counted(dataset: Dataset, report: Report) -> None:
    said: dict[str, list[str]] = {}
    asked: dict[str, list[str]] = {}
    for row in rows_of(dataset):
        for task, prompt, answers in zip(row["tasks"], row["prompts"], row["answers"], strict=True):
            asked.setdefault(task, []).append(prompt)
            said.setdefault(task, []).extend(answers)
    assert {row.task for row in report.prompts} == set(asked)
    for prompts in report.prompts:
        count = Counter(asked[prompts.task])
        assert (prompts.examples, prompts.distinct) == (count.total(), len(count))
        assert count[prompts.frequent] == max(count.values())
        assert prompts.frequent_share == pytest.approx(max(count.values()) / count.total(), abs=1e-9)
    for row in report.answers:
        words = [len(re.findall(r"\S+", answer, re.ASCII)) for answer in said[row.task]]
        count = Counter(said[row.task])
        assert (row.answers, row.distinct, row.empty) == (count.total(), len(count), 0)
        assert (row.words_least, row.words_median, row.words_most) == (
            min(words),
            statistics.median(words),
            max(words),
        )
        assert row.frequent_share == pytest.approx(max(count.values()) / count.total(), abs=1e-9)
        if row.task == "gender_recognition":
            assert {one.answer: one.count for one in row.classes} == dict(count)
        else:
            assert row.classes == ()
    licences = Counter((row["corpus"], row["license"]) for row in rows_of(dataset))
    assert {(row.corpus, row.license): row.samples for row in report.licences.rows} == dict(licences)


@pytest.mark.parametrize("weights", [(0.5, 0.2, 0.3), (0.05, 0.05, 0.9)])
def test_the_mixture_is_what_the_stream_deals(dataset: Dataset, weights: tuple[float, float, float]) -> None:
    recipe = recipe_of(weights=weights)
    stages = audit(dataset, recipe, seed=3, max_examples=4).mixture
    for stage in stages:
        assert stage.mixture is not None
        mixture = stage.mixture
        stream = Stream(dataset, recipe, stage=stage.name, seed=3, max_seconds=120.0, max_examples=4, epochs=1)
        batches = list(stream)
        dealt = [example for batch in batches for example in batch.examples]
        seconds, examples, tokens = Counter[str](), Counter[str](), Counter[str]()
        for example in dealt:
            examples[example.task] += 1
            seconds[example.task] += example.seconds
            tokens[example.task] += max(-(-len(answer.encode()) // 3) for answer in example.answers)
        assert mixture.draws == len(dealt)
        assert mixture.hours == pytest.approx(seconds.total() / 3600, abs=1e-8)
        assert mixture.tokens == tokens.total()
        for share in mixture.shares:
            assert share.draws == examples[share.task]
            assert share.by_examples == pytest.approx(examples[share.task] / len(dealt), abs=1e-8)
            assert share.by_seconds == pytest.approx(seconds[share.task] / seconds.total(), abs=1e-8)
            assert share.by_tokens == pytest.approx(tokens[share.task] / tokens.total(), abs=1e-8)
            assert share.epochs == pytest.approx(share.draws / share.examples, abs=1e-8)
            # the realised share keeps to the intended one within one example
            assert abs(share.by_examples - share.intended) * len(dealt) <= 1
        padded = sum(len(batch.examples) * max(e.seconds for e in batch.examples) for batch in batches)
        assert mixture.batching.batches == len(batches)
        assert mixture.batching.padding == pytest.approx(1 - seconds.total() / padded, abs=1e-8)
        assert mixture.batching.padding_longest == pytest.approx(1 - seconds.total() / (30 * len(dealt)), abs=1e-8)
        assert [line.steps for line in mixture.batching.steps] == [-(-len(batches) // n) for n in (1, 8, 64)]
        bins = Counter((example.task, int(example.seconds)) for example in dealt)
        for series in mixture.durations.series:
            assert {k: n for k, n in enumerate(series.counts) if n} == {
                k: n for (task, k), n in bins.items() if task == series.task
            }


@settings(max_examples=60)
@given(st.lists(st.lists(st.text("ab \t\n\r\x0c\u00a0\u3000\u4e2d", max_size=12), max_size=3), max_size=6))
def test_words_are_runs_without_white_space(answers: list[list[str]]) -> None:
    words = [[len(re.findall(r"[^ \t\n\r\f]+", text)) for text in texts] for texts in answers]
    prompts = pa.array([["p"] * len(answers)], SCHEMA.field("prompts").type)
    told = traits(prompts, pa.array([answers], SCHEMA.field("answers").type))
    samples = pa.table({"key": ["k"], "corpus": ["c"], "language": ["en"], "tasks": [["t"] * len(answers)], **told})
    connection = duckdb.connect()
    connection.register("samples", samples)
    connection.execute(TABLES["told"])
    flat = [count for counts in words for count in counts]
    expected = [("t", len(flat), flat.count(0), min(flat), statistics.median(flat), max(flat))] if flat else []
    assert [row[:6] for row in connection.execute(QUERIES["answers"]).fetchall()] == expected


def test_long_clips_are_cut_and_counted(tmp_path: Path) -> None:
    clips = [
        Made(name=f"c{n}", seconds=seconds, asked=[("asr", "Write.", ["word"])])
        for n, seconds in enumerate((1.0, 30.0, 30.5, 42.0))
    ]
    dataset = build(tmp_path, World(clips={("librispeech", "dev-clean"): clips}))
    row = Row(task="asr", corpus="librispeech", splits=("dev-clean",))
    report = audit(dataset, Recipe(title="t", name="t", instruct=(row,)))
    [stage] = report.mixture
    assert stage.mixture is not None
    assert stage.mixture.batching.cut_draws == 2
    assert stage.mixture.batching.cut_hours == pytest.approx(12.5 / 3600, abs=1e-8)
    assert {k: n for k, n in enumerate(stage.mixture.durations.series[0].counts) if n} == {1: 1, 29: 1, 30: 2}
    assert max(clip.heard for clip in report.clips) == 30
    assert max(clip.seconds for clip in report.clips) == 42


def test_clips_come_from_every_task_and_corpus_and_are_whole(dataset: Dataset, report: Report) -> None:
    assert len(report.clips) == 10
    drawn = {(clip.task, clip.corpus) for clip in report.clips}
    assert drawn == {(row.task, row.corpus) for row in report.targets.rows}
    assert len({clip.key for clip in report.clips}) == 10
    for clip in report.clips:
        row = dataset.row(clip.key)
        shard = Path(dataset.url, clip.shard).read_bytes()
        flac = shard[clip.flac_offset :][: clip.flac_bytes]
        assert zlib.crc32(flac) == row["flac_crc32"]
        assert clip.mp3
        assert len(clip.peaks) == 160
        assert max(clip.peaks) == pytest.approx(9000, abs=20)
        assert [one.task for one in clip.instructions] == row["tasks"]
        assert [list(one.answers) for one in clip.instructions] == row["answers"]
    assert audit(dataset, recipe_of(), max_examples=4).clips == report.clips
    assert {c.key for c in audit(dataset, recipe_of(), seed=1).clips} != {clip.key for clip in report.clips}


def test_a_dataset_without_a_fault_passes_every_gate(tmp_path: Path) -> None:
    report = audit(build(tmp_path, clean()), recipe_of())
    assert {gate.name: gate.verdict for gate in report.gates} == dict.fromkeys(
        set(GATES) - set(difference.GATES), "PASS"
    )
    assert report.verdict == "PASS"


def no_dev(world: World) -> None:
    del world.clips["librispeech", "dev-clean"]


def no_captions(world: World) -> None:
    world.clips["audiocaps", "train"] = speech(9, 3)


def unpublished(world: World) -> None:
    world.published["audiocaps", "train"] = 10


def refuse(count: int, verdict: str) -> Callable[[World], None]:
    def change(world: World) -> None:
        rows = [("audiocaps", "train", f"audiocaps/x{n}", verdict, "truncated", "") for n in range(count)]
        world.refused = [*world.refused, *rows]
        world.published["audiocaps", "train"] = 9

    return change


def empty_answer(world: World) -> None:
    world.clips["audiocaps", "train"][3].asked[0][2][1] = " \t "


def no_answer(world: World) -> None:
    world.clips["audiocaps", "train"][3].asked[0][2].clear()


def twice(world: World) -> None:
    for n in (1, 8):
        world.clips["librispeech", "train-clean-100"][n].pitch = 7


def leaked(world: World) -> None:
    world.clips["librispeech", "train-clean-100"][1].pitch = 7
    world.clips["librispeech", "dev-clean"][1].pitch = 7


@pytest.mark.parametrize(
    ("fault", "gate", "verdict", "says"),
    [
        (
            no_dev,
            "rows",
            "FAIL",
            "not whole: 2 of 5, for example asr of librispeech in evaluate finds nothing in dev-clean",
        ),
        (no_captions, "rows", "FAIL", "audio_caption of audiocaps in instruct"),
        (unpublished, "coverage", "WARN", "audiocaps:train has 9 of 10 published clips (90.0%)"),
        (refuse(1, "excluded"), "refusals", "WARN", "most in audiocaps:train (10.0%)"),
        (refuse(11, "quarantined"), "refusals", "FAIL", "11 of them have bad audio"),
        (empty_answer, "answers", "FAIL", "Empty or missing answers: 1, of which 1 in audio_caption"),
        (no_answer, "answers", "FAIL", "audio_caption"),
        (twice, "duplicates", "WARN", "_u1 and librispeech_train-clean-100_u8"),
        (leaked, "leak", "FAIL", "librispeech:train-clean-100 is trained on and shares audio, sample for sample"),
    ],
)
def test_a_planted_fault_is_found_and_nothing_else(
    tmp_path: Path, fault: Callable[[World], None], gate: str, verdict: str, says: str
) -> None:
    world = clean()
    fault(world)
    report = audit(build(tmp_path, world), recipe_of())
    found = {entry.name: entry for entry in report.gates}
    assert found[gate].verdict == verdict
    assert says in found[gate].sentence
    assert [entry.name for entry in report.gates if entry.verdict == "FAIL" and entry.name != gate] == []
    assert report.verdict == verdict


@pytest.mark.parametrize(
    ("targets", "verdict", "says"),
    [
        ({"samples": 23}, "PASS", "between 100.0% and 100.0%"),
        ({"samples": 25}, "WARN", "92.0%"),
        ({"samples": 230, "hours": 0.001}, "FAIL", "10.0%"),
        ({"samples": 20}, "WARN", "115.0% of its target samples: more than was meant"),
    ],
)
def test_coverage_is_held_against_the_targets(dataset: Dataset, targets: Any, verdict: str, says: str) -> None:
    gate = next(gate for gate in audit(dataset, recipe_of(**targets)).gates if gate.name == "coverage")
    assert gate.verdict == verdict
    assert says in gate.sentence


def test_much_repetition_is_a_warning(dataset: Dataset) -> None:
    gate = next(g for g in audit(dataset, recipe_of(weights=(1, 1, 98))).gates if g.name == "epochs")
    assert gate.verdict == "WARN"
    assert "deals audio_caption of audiocaps 6.00 times" in gate.sentence


def test_counts_that_do_not_add_up_fail(tmp_path: Path) -> None:
    dataset = build(tmp_path, clean())
    sources = dataset.manifest.sources
    for change, says in (
        ({"found": 10}, "found 10 clips, which is not 9 packed + 0 quarantined + 0 excluded"),
        ({"packed": 8, "found": 8}, "says 8 packed, but its index has 9 rows"),
        ({"excluded": 1, "found": 10}, "says 1 excluded, but its quarantine lists 0"),
    ):
        changed = (msgspec.structs.replace(sources[0], **change), *sources[1:])
        dataset.manifest = msgspec.structs.replace(dataset.manifest, sources=changed)
        report = audit(dataset, recipe_of())
        assert report.gates[0].verdict == report.verdict == "FAIL"
        assert says in report.gates[0].sentence


def test_damaged_and_missing_shards_are_told_not_raised(tmp_path: Path) -> None:
    dataset = build(tmp_path, clean())
    for name in ("audiocaps/train", "librispeech/dev-clean"):
        shard = tmp_path / f"shards/{name}-000000.tar"
        content = bytearray(shard.read_bytes())
        for place in range(600, len(content), 700):
            content[place] ^= 255
        shard.write_bytes(content)
    os.remove(tmp_path / "shards/librispeech/train-clean-100-000000.tar")
    report = audit(dataset, recipe_of())
    assert report.gates[-1].verdict == "FAIL"
    problems = {clip.problem for clip in report.clips}
    assert "its shard is missing or cannot be read" in problems
    assert "" not in problems
    write(report, tmp_path / "a.html", tmp_path / "a.json")


def test_a_stage_that_cannot_be_dealt_does_not_stop_the_audit(tmp_path: Path) -> None:
    world = clean()
    del world.clips["librispeech", "dev-clean"]
    report = audit(build(tmp_path, world), recipe_of())
    instruct, evaluate = report.mixture
    assert instruct.mixture is not None
    assert evaluate.mixture is None
    assert "the dataset has no librispeech:dev-clean, which asr of librispeech asks for" in evaluate.problem
    assert str(tmp_path) not in evaluate.problem


def test_a_split_of_refusals_alone_is_audited(tmp_path: Path) -> None:
    world = clean()
    world.clips["librispeech", "dev-clean"] = []
    world.refused = [("librispeech", "dev-clean", "librispeech/x", "quarantined", "corrupt", "")]
    report = audit(build(tmp_path, world), recipe_of())
    assert report.gates[1].verdict == "FAIL"
    assert report.mixture[1].mixture is None
    write(report, tmp_path / "a.html", tmp_path / "a.json")


def test_the_queries_on_the_page_give_the_same_answers_to_anyone(
    dataset: Dataset, report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(dataset.url)
    connection = duckdb.connect()
    connection.execute(report.sql["views"])

    def ask(name: str) -> list[tuple[Any, ...]]:
        return connection.execute(report.sql[name]).fetchall()

    compared = difference.QUERIES.keys()
    assert set(report.sql) == {*QUERIES, "views"} - compared
    [(samples, hours, examples)] = ask("totals")
    assert (samples, round(hours, 9), examples) == (report.totals.samples, report.totals.hours, report.totals.examples)
    held = {(row[0], row[1], row[2]): row[3] for row in ask("held")}
    assert all(row.samples == sum(held[row.corpus, s, row.task] for s in row.splits) for row in report.targets.rows)
    assert [row[2] for row in ask("refusals")] == [row.id for row in report.quarantine.refusals]
    assert [row[:3] for row in ask("licences")] == [
        (row.corpus, row.license, row.samples) for row in report.licences.rows
    ]
    assert ask("copies")[0][:3] == (0, 0, 0)
    for name in QUERIES.keys() - compared - {"copy"}:
        ask(name)


def test_the_same_dataset_gives_the_same_bytes_wherever_it_lies(tmp_path: Path) -> None:
    outputs = []
    for name in ("here", "some, [where] else's"):
        report = audit(build(tmp_path / name, clean()), recipe_of())
        write(report, tmp_path / "a.html", tmp_path / "a.json")
        outputs.append(((tmp_path / "a.html").read_bytes(), (tmp_path / "a.json").read_bytes()))
    assert outputs[0] == outputs[1]
    assert str(tmp_path).encode() not in outputs[0][0] + outputs[0][1]


def test_the_stages_asked_for_are_audited(dataset: Dataset) -> None:
    report = audit(dataset, recipe_of(), stages=["evaluate"])
    assert [stage.name for stage in report.mixture] == ["evaluate"]
    assert {row.stage for row in report.targets.rows} == {"evaluate"}
    assert {clip.split for clip in report.clips} == {"dev-clean"}
    assert len(report.clips) == 5


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"stages": ["instruct", "pretrian"]}, "has no stage 'pretrian'; it has instruct, evaluate"),
        ({"stages": []}, "there is no stage to audit; recipe 'small' has instruct, evaluate"),
        ({"max_seconds": 10.0}, "a batch must hold a clip of 30 s"),
        ({"max_examples": 0}, "max_examples 0"),
    ],
)
def test_a_mistake_is_told_in_a_sentence(dataset: Dataset, options: Any, says: str) -> None:
    with pytest.raises(UserError, match=re.escape(says)):
        audit(dataset, recipe_of(), **options)


def test_a_missing_index_is_told_in_a_sentence(tmp_path: Path) -> None:
    dataset = build(tmp_path, clean())
    os.remove(tmp_path / "index/audiocaps/train.parquet")
    with pytest.raises(UserError, match="there is no file"):
        audit(dataset, recipe_of())
