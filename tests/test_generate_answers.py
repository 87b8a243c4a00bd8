"""Answers to a stage: each example once, the same bytes after any kill, in batches of any size, by many processes."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from conftest import digests
from evaluated_world import ROWS, SMALL, WORLD
from manifests import TASKS, Instruction, Recipe, load_recipe
from manifests.errors import Failed, UserError
from salmonn.evaluation import answers, generate
from salmonn.evaluation.answers import Book, Journal, Made
from salmonn.evaluation.asking import Asking, open_answer, question_of
from salmonn.evaluation.generate import answer_stage, generate_answers
from salmonn.evaluation.request import MORE_TOKENS, Decoding, Request, Share
from salmonn.evaluation.respondent import Reply, RunModel
from salmonn.evaluation.sharing import dealt
from salmonn.scoring.answer import Answer, read_answers
from salmonn.training.run import load_run
from salmonn.training.trainer import run_training
from shards import Dataset
from shards.reading import Held
from shards.sample import Sample
from tiny_model import MODEL, ToneStream, config

torch.set_num_threads(2)
SPAWN = multiprocessing.get_context("forkserver")
SPAWN.set_forkserver_preload(["salmonn.training.trainer", "salmonn.evaluation.generate"])
BATCHES = 6 + 4 + 1  # of SMALL: 17 asr, 11 gender, 2 captions


class Parrot:
    """Answers with the length of what it hears; notes the batches it was asked."""

    def __init__(self, name: str = "parrot", dies_at: int = -1) -> None:
        self.name, self.dies_at = name, dies_at
        self.asked: list[tuple[str, ...]] = []

    def reply(self, waves: Sequence[np.ndarray], prompts: Sequence[str], decoding: Decoding) -> list[Reply]:
        if len(self.asked) == self.dies_at:
            raise KeyboardInterrupt
        self.asked.append(tuple(prompts))
        return [Reply(answer=f"{len(wave)} samples", finished=len(wave) % 2 == 0) for wave in waves]


@pytest.fixture(scope="module")
def world(make_dataset: Callable[..., Dataset]) -> Dataset:
    return make_dataset(WORLD, shards=2)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    path = tmp_path_factory.mktemp("recipe") / "small.toml"
    path.write_text(ROWS)
    return load_recipe(path)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, world: Dataset) -> Path:
    """A run of toy sizes, three steps of tones old."""
    folder = tmp_path_factory.mktemp("runs") / "toy"
    (folder.parent / "small.toml").write_text(ROWS)
    settings = config(folder, steps=3, dataset=str(world.url), recipe=str(folder.parent / "small.toml"))
    run_training(settings, ToneStream())
    return folder


@pytest.fixture(scope="module")
def whole(run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The files that a generation makes that nothing disturbs."""
    folder = tmp_path_factory.mktemp("whole")
    generate_answers(run, SMALL, out=folder)
    return digests(folder)


def ask(world: Dataset, recipe: Recipe, folder: Path, parrot: Parrot, **changes: object) -> dict[str, Made]:
    anew = bool(changes.pop("anew", False))
    request = msgspec.structs.replace(SMALL, data=str(world.url), **changes)
    asking = Asking(
        world,
        recipe,
        "evaluate",
        tasks=request.tasks,
        limit=request.limit,
        seed=request.seed,
        batch_seconds=request.batch_seconds,
        batch_examples=request.batch_examples,
    )
    return answer_stage(parrot, asking, request, folder, anew=anew)


# ---------------------------------------------------------------- what is asked


def test_every_example_is_answered_once_and_stored(world: Dataset, recipe: Recipe, tmp_path: Path) -> None:
    parrot = Parrot()
    made = ask(world, recipe, tmp_path, parrot)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        f"{task}.{end}" for task in ("asr", "gender_recognition", "audio_caption") for end in ("jsonl", "made.json")
    )
    assert len(parrot.asked) == BATCHES and all(len(set(batch)) == 1 for batch in parrot.asked)
    rows = read_answers(tmp_path / "asr.jsonl")
    assert [row.key for row in rows] == sorted(
        [f"librispeech_test-clean-{n}" for n in range(11)] + [f"librispeech_test-other-{n}" for n in range(6)]
    )
    for row in rows:
        number = int(row.key.rpartition("-")[2])
        samples = WORLD["librispeech", row.split][number][0]
        name = f"librispeech/{row.split}-{number}"
        assert row == Answer(
            key=row.key,
            task="asr",
            corpus="librispeech",
            split=row.split,
            prompt="Stored prompt of asr.",
            answer=f"{samples} samples",
            references=(f"{name} one", f"{name} two"),
            finished=samples % 2 == 0,
            seconds=samples / 16_000,
            beams=1,
            max_new_tokens=5,
            model="parrot",
        )
    assert made["asr"].answers == 17 and made["asr"].unfinished == sum(not row.finished for row in rows)
    [long] = [row for row in read_answers(tmp_path / "audio_caption.jsonl") if row.cut]
    assert (long.seconds, long.cut, long.answer, made["audio_caption"].cut) == (30.0, 1.0, "480000 samples", 1)


def test_a_batch_holds_clips_of_one_task_and_of_similar_length(world: Dataset, recipe: Recipe) -> None:
    asking = Asking(world, recipe, "evaluate", batch_examples=4, batch_seconds=60.0)
    for task, batches in asking.batches.items():
        spans = [[question.seconds for question in batch] for batch in batches]
        assert all(len(span) <= 4 and len(span) * min(max(span), 30.0) <= 60.0 for span in spans), task
        # The longest come first, and no batch reaches into the lengths of another.
        assert all(min(a) >= max(b) for a, b in itertools.pairwise(spans))
    assert asking.count("asr") == 17
    again = Asking(world, recipe, "evaluate", batch_examples=4, batch_seconds=60.0)
    assert again.batches == asking.batches


def test_a_limit_draws_some_of_each_task_and_more_of_it_keep_those(world: Dataset, recipe: Recipe) -> None:
    def keys(limit: int, seed: int = 0) -> set[str]:
        asking = Asking(world, recipe, "evaluate", limit=limit, seed=seed)
        assert [asking.count(task) for task in ("asr", "audio_caption")] == [min(limit, 17), min(limit, 2)]
        return {question.key for batch in asking.batches["asr"] for question in batch}

    assert keys(3) < keys(8) < keys(99)
    assert len({frozenset(keys(3, seed)) for seed in range(5)}) > 1
    shortest = sorted((seconds, key) for key, seconds in seconds_of(world, recipe).items())[:3]
    assert keys(3) != {key for _, key in shortest}


def seconds_of(world: Dataset, recipe: Recipe) -> dict[str, float]:
    asking = Asking(world, recipe, "evaluate", tasks=("asr",))
    return {question.key: question.seconds for batch in asking.batches["asr"] for question in batch}


def test_only_the_named_tasks_are_asked(world: Dataset, recipe: Recipe, tmp_path: Path) -> None:
    assert ask(world, recipe, tmp_path, Parrot(), tasks=("audio_caption",)).keys() == {"audio_caption"}
    with pytest.raises(UserError, match="has no task 'audio_capton'; did you mean 'audio_caption'"):
        ask(world, recipe, tmp_path, Parrot(), tasks=("audio_capton",))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"limit": 0}, "limit is 0"),
        ({"batch_examples": 0}, "a batch of 0 examples"),
        ({"batch_seconds": 29.0}, "29 s cannot be"),
    ],
)
def test_what_cannot_be_asked_is_told(world: Dataset, recipe: Recipe, changes: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        Asking(world, recipe, "evaluate", **changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"beams": 0}, "beams is 0"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"lora_scale": -1.0}, "lora_scale is -1"),
        ({"lora_scale": float("nan")}, "lora_scale is nan"),
    ],
)
def test_a_request_that_cannot_be_is_told(changes: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        Request(**changes)


def test_phones_get_more_tokens_than_other_answers() -> None:
    assert Request().decoding("phone_recognition").max_new_tokens == MORE_TOKENS["phone_recognition"] > 200
    assert Request().decoding("asr").max_new_tokens == 200
    assert Request(max_new_tokens=7).decoding("phone_recognition").max_new_tokens == 7
    assert MORE_TOKENS.keys() <= TASKS.keys()


def test_questions_and_transcripts_are_what_a_judge_needs() -> None:
    assert question_of("spoken_query_qa", "Answer.", "", "who wrote it") == "who wrote it"
    assert question_of("slot_filling", "What is the date?", "date", "wake me at 7") == "What is the date?"
    assert question_of("audio_qa", "Listen: does a dog bark?", "does a dog bark?", "") == "does a dog bark?"
    asked = [
        Instruction(task=task, prompt=f"p {slot}", answers=("a",), slot=slot)
        for task, slot in (("slot_filling", "date"), ("asr", ""))
    ]
    sample = Sample(
        key="k", id="i", corpus="c", split="s", samples=9, seconds=1.0, language="en", speaker="", gender="",
        text="Wake me.", license="", instructions=tuple(asked),
    )  # fmt: skip
    held = Held(flac=memoryview(b""), sample=sample, samples=480_000 + 8_000, crc32=0, where="")
    row = open_answer(held, 0, 480_000)
    assert (row.question, row.transcript, row.slot, row.seconds, row.cut) == ("p date", "Wake me.", "date", 30.0, 0.5)
    # Of other tasks nothing is judged: the references say it all.
    assert (open_answer(held, 1, 8).question, open_answer(held, 1, 8).transcript) == ("", "")


def test_damaged_samples_are_counted_and_named_and_not_answered(
    make_dataset: Callable[..., Dataset], recipe: Recipe, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world = make_dataset(WORLD, shards=2)
    row = world.row("librispeech_test-clean-4")
    shard = Path(world.url) / row["shard"]
    content = bytearray(shard.read_bytes())
    content[row["flac_offset"] + row["flac_bytes"] // 2] ^= 1
    shard.write_bytes(content)
    made = ask(world, recipe, tmp_path, Parrot())
    for task, many in (("asr", 17), ("gender_recognition", 11)):
        assert [one.key for one in made[task].damaged] == ["librispeech_test-clean-4"]
        assert "is damaged" in made[task].damaged[0].why
        assert made[task].answers == many - 1 == len(read_answers(tmp_path / f"{task}.jsonl"))
        told = json.loads((tmp_path / f"{task}.made.json").read_text())
        assert [one["key"] for one in told["damaged"]] == ["librispeech_test-clean-4"]
    assert made["audio_caption"].damaged == ()
    assert "asr: 1 samples are damaged and were not asked about" in caplog.text


# ---------------------------------------------------------------- going on


def test_what_is_there_is_not_asked_again(world: Dataset, recipe: Recipe, tmp_path: Path) -> None:
    first = ask(world, recipe, tmp_path, Parrot())
    before, again = digests(tmp_path), Parrot()
    assert ask(world, recipe, tmp_path, again) == first
    assert not again.asked and digests(tmp_path) == before


@pytest.mark.parametrize("stop", range(BATCHES))
def test_a_stop_before_any_batch_repeats_none_and_ends_in_the_same_bytes(
    world: Dataset, recipe: Recipe, tmp_path: Path, stop: int
) -> None:
    ask(world, recipe, tmp_path / "whole", Parrot())
    first, second = Parrot(dies_at=stop), Parrot()
    with pytest.raises(KeyboardInterrupt):
        ask(world, recipe, tmp_path / "stopped", first)
    ask(world, recipe, tmp_path / "stopped", second)
    assert len(first.asked) == stop and len(second.asked) == BATCHES - stop
    assert digests(tmp_path / "stopped") == digests(tmp_path / "whole")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"beams": 2}, "beams was 1, is 2"),
        ({"limit": 4}, r"questions was \d+, is \d; limit was None, is 4"),
        ({"lora_scale": 0.5, "max_new_tokens": 9}, r"max_new_tokens was 5, is 9; lora_scale was 1\.0, is 0\.5"),
        ({"batch_examples": 2}, "batch_examples was 3, is 2"),
    ],
)
@pytest.mark.parametrize("stop", [-1, 3])
def test_other_settings_are_refused_by_name_and_replace_only_when_told_to(
    world: Dataset, recipe: Recipe, tmp_path: Path, changes: dict, words: str, stop: int
) -> None:
    try:
        ask(world, recipe, tmp_path / "old", Parrot(dies_at=stop))
    except KeyboardInterrupt:
        assert stop >= 0
    before = digests(tmp_path / "old")
    with pytest.raises(
        UserError, match=rf"made otherwise: {words}\. Go back to that, name another --out, or let --anew"
    ):
        ask(world, recipe, tmp_path / "old", Parrot(), **changes)
    if stop < 0:
        assert digests(tmp_path / "old") == before
    ask(world, recipe, tmp_path / "old", Parrot(), anew=True, **changes)
    ask(world, recipe, tmp_path / "new", Parrot(), **changes)
    assert digests(tmp_path / "old") == digests(tmp_path / "new")


def test_another_model_or_dataset_is_refused(
    world: Dataset, make_dataset: Callable[..., Dataset], recipe: Recipe, tmp_path: Path
) -> None:
    ask(world, recipe, tmp_path, Parrot())
    with pytest.raises(UserError, match="model was 'parrot', is 'other'"):
        ask(world, recipe, tmp_path, Parrot("other"))
    changed = make_dataset({source: clips[::-1] for source, clips in WORLD.items()}, shards=2)
    with pytest.raises(UserError, match="dataset was '"):
        ask(changed, recipe, tmp_path, Parrot())


def test_answers_that_nobody_vouches_for_are_not_taken(world: Dataset, recipe: Recipe, tmp_path: Path) -> None:
    ask(world, recipe, tmp_path, Parrot())
    before = digests(tmp_path)
    with (tmp_path / "asr.jsonl").open("ab") as file:
        file.write(b"\n")
    with pytest.raises(UserError, match=r"asr\.jsonl was altered since it was made; --anew makes it again"):
        ask(world, recipe, tmp_path, Parrot())
    (tmp_path / "asr.made.json").write_text("{}")
    with pytest.raises(UserError, match=r"asr\.made\.json is damaged or of another version"):
        ask(world, recipe, tmp_path, Parrot())
    (tmp_path / "asr.made.json").unlink()
    with pytest.raises(UserError, match="nothing says how they were made"):
        ask(world, recipe, tmp_path, Parrot())
    again = Parrot()
    ask(world, recipe, tmp_path, again, anew=True)
    assert digests(tmp_path) == before
    assert {prompt for batch in again.asked for prompt in batch} == {"Stored prompt of asr."}


def test_two_at_once_are_refused_and_a_torn_line_is_cut_off(world: Dataset, recipe: Recipe, tmp_path: Path) -> None:
    ask(world, recipe, tmp_path / "whole", Parrot())
    with pytest.raises(KeyboardInterrupt):
        ask(world, recipe, tmp_path / "torn", Parrot(dies_at=2))
    journal = tmp_path / "torn" / "asr.partial" / "000.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    assert len(lines) == 2
    plan = answers.decode(journal.with_name("plan.json"), answers.Plan)
    with Journal(Book(tmp_path / "torn", plan)), pytest.raises(UserError, match="is being made by another process"):
        ask(world, recipe, tmp_path / "torn", Parrot())
    journal.write_bytes(lines[0] + lines[1][:-7])
    parrot = Parrot()
    ask(world, recipe, tmp_path / "torn", parrot)
    assert len(parrot.asked) == BATCHES - 1
    assert digests(tmp_path / "torn") == digests(tmp_path / "whole")


def test_a_book_that_lacks_a_batch_is_not_closed(world: Dataset, recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        ask(world, recipe, tmp_path, Parrot(dies_at=2))
    book = Book(tmp_path, answers.decode(tmp_path / "asr.partial" / "plan.json", answers.Plan))
    with pytest.raises(Failed, match="4 of 6 batches are missing"):
        book.close(6)
    assert not book.answers.exists()


# ---------------------------------------------------------------- a run, and kills


def generate_there(run: str, out: str, kill_at: int, tear: bool) -> None:
    """What a child does: generate, and at a certain write to the disk kill itself, perhaps in the midst of a line."""
    torch.set_num_threads(2)
    writes, fsync, written = 0, os.fsync, Journal.write

    def count(number: int) -> None:
        nonlocal writes
        writes += 1
        if writes == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        fsync(number)

    def half(journal: Journal, done: answers.Done) -> None:
        if writes + 1 >= kill_at:
            journal.file.write(msgspec.json.encode(done)[:200])
            journal.file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        written(journal, done)

    if kill_at:
        os.fsync = count
    if tear:
        Journal.write = half
    generate_answers(run, SMALL, out=out)


def child(*args: object) -> int | None:
    process = SPAWN.Process(target=generate_there, args=args, daemon=True)
    process.start()
    process.join(60)
    return process.exitcode


def count_batches(folder: Path) -> int:
    """Batches that reached the disk whole."""
    many = 0
    for task, batches in (("asr", 6), ("gender_recognition", 4), ("audio_caption", 1)):
        journals = [path.read_bytes().count(b"\n") for path in folder.glob(f"{task}.partial/*.jsonl")]
        many += batches if (folder / f"{task}.jsonl").exists() else sum(journals)
    return many


KILLS = [
    pytest.param(random.Random(5).randint(9, 31), False, marks=pytest.mark.slow),
    pytest.param(11, True, marks=pytest.mark.slow),
    pytest.param(17, False, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("kill_at", "tear"), KILLS)
def test_killed_and_run_again_it_ends_in_the_same_bytes(
    run: Path, whole: dict[str, str], tmp_path: Path, kill_at: int, tear: bool
) -> None:
    """At a random write to the disk of the 32 there are, in the midst of a line, and between the last two files."""
    assert child(str(run), str(tmp_path), kill_at, tear) == -signal.SIGKILL
    assert digests(tmp_path) != whole
    kept, told = count_batches(tmp_path), []
    generate_answers(run, SMALL, out=tmp_path, on_batch=lambda task, many, _: told.append((task, many)))
    assert digests(tmp_path) == whole
    # The first three tell what was there; each of the others is a batch, and none was asked twice.
    assert len(told) - 3 == BATCHES - kept and sum(many for _, many in told) == 30


@pytest.mark.slow
def test_killed_at_twenty_random_moments_it_ends_in_the_same_bytes(
    run: Path, whole: dict[str, str], tmp_path: Path
) -> None:
    begin = time.perf_counter()
    assert child(str(run), str(tmp_path / "timed"), 0, False) == 0
    lasts, moments, killed = time.perf_counter() - begin, random.Random(7), 0
    for number in range(20):
        out = tmp_path / str(number)
        process = SPAWN.Process(target=generate_there, args=(str(run), str(out), 0, False), daemon=True)
        process.start()
        time.sleep(moments.uniform(0.2, 1.0) * lasts)
        process.kill()
        process.join()
        killed += process.exitcode == -signal.SIGKILL
        assert child(str(run), str(out), 0, False) == 0
        assert digests(out) == whole, number
    assert killed >= 10


@pytest.mark.slow
@pytest.mark.parametrize("beams", [1, 3])
def test_batches_of_any_size_give_the_answers_of_single_clips(run: Path, tmp_path: Path, beams: int) -> None:
    found = {}
    for size in (1, 2, 5, 16):
        request = Request(beams=beams, max_new_tokens=8, batch_examples=size)
        generate_answers(run, request, out=tmp_path / str(size))
        found[size] = {path.name: path.read_bytes() for path in sorted((tmp_path / str(size)).glob("*.jsonl"))}
    assert all(files == found[1] for files in found.values())
    _, model, _ = load_run(run)
    row = read_answers(tmp_path / "16" / "audio_caption.jsonl")[0]
    asking = Asking(Dataset(RunModel(run).config.dataset), load_recipe(RunModel(run).config.recipe), "evaluate")
    [heard] = [one for one in asking.read_batch("audio_caption", 0).heard if one.open.key == row.key]
    assert model.generate([heard.wave_S], [MODEL.prompt.wrap(row.prompt)], beams, 8) == [row.answer]
    assert len({answer for files in found.values() for answer in files.values()}) == 3


def test_rows_tell_who_answered_and_how(run: Path, tmp_path: Path) -> None:
    half = Request(beams=2, max_new_tokens=3, lora_scale=0.5, seed=4, limit=2, tasks=("asr",))
    generate_answers(run, half, out=tmp_path)
    weights = msgspec.json.decode((run / "checkpoints/step-000003/state.json").read_bytes())["files"]
    for row in read_answers(tmp_path / "asr.jsonl"):
        assert row.model == f"toy@3-{weights['model.safetensors'][:12]}"
        assert (row.lora_scale, row.seed, row.beams, row.max_new_tokens) == (0.5, 4, 2, 3)
    with pytest.raises(UserError, match="no checkpoint at step 2; kept are 3"):
        generate_answers(run, half, step=2, out=tmp_path)
    with pytest.raises(UserError, match="is not the folder of a run"):
        generate_answers(tmp_path / "nowhere")


def test_answers_lie_in_the_run_by_default(run: Path) -> None:
    generate_answers(run, Request(beams=1, max_new_tokens=1, limit=1, tasks=("asr",)))
    assert (run / "evaluation" / "evaluate" / "asr.jsonl").is_file()


# ---------------------------------------------------------------- many processes


def test_shares_hold_every_batch_once() -> None:
    todo = {"a": [0, 1, 4], "b": [0], "c": []}
    parts = dealt(todo, 3)
    assert sorted((task, n) for part in parts for task, numbers in part.items() for n in numbers) == [
        ("a", 0), ("a", 1), ("a", 4), ("b", 0),
    ]  # fmt: skip
    assert [sum(map(len, part.values())) for part in parts] == [2, 1, 1]
    with pytest.raises(UserError, match="--workers is -1"):
        Share(workers=-1)


def test_processes_with_journals_of_their_own_end_in_the_same_bytes(
    run: Path, whole: dict[str, str], tmp_path: Path
) -> None:
    """What Ray's workers do, one after the other."""
    model = RunModel(run)
    asking = SMALL.asking(model.config.dataset, model.config.recipe)
    respondent = model.at()
    books = {task: Book(tmp_path, generate.plan_of(respondent.name, asking, SMALL, task)) for task in asking.batches}
    assert all(book.open() is None for book in books.values())
    parts = dealt({task: generate.unanswered(book, asking) for task, book in books.items()}, 2)
    for process, part in enumerate(parts):
        for task, numbers in part.items():
            generate.answer_batches(respondent, asking, SMALL, books[task], numbers, process=process)
    for task, book in books.items():
        book.close(len(asking.batches[task]))
    assert digests(tmp_path) == whole


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_two_workers_of_ray_give_the_same_bytes_and_go_on_where_one_stopped(
    run: Path, whole: dict[str, str], tmp_path: Path
) -> None:
    told: list[int] = []
    generate_answers(
        run, SMALL, out=tmp_path / "two", share=Share(workers=2), on_batch=lambda task, many, _: told.append(many)
    )
    assert digests(tmp_path / "two") == whole and sum(told) == 30
    assert child(str(run), str(tmp_path / "stopped"), 16, False) == -signal.SIGKILL
    generate_answers(run, SMALL, out=tmp_path / "stopped", share=Share(workers=2))
    assert digests(tmp_path / "stopped") == whole
