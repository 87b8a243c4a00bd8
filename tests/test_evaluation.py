"""Evaluation and generation: every example answered once, written whole, scored as it is."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import soundfile
import torch

from manifests.errors import UserError
from salmonn.evaluation import Answer, EvaluationResult, answer_all, score_task, write_result
from salmonn.generation import generate
from salmonn.model import Salmonn
from salmonn.training.run import load_run
from salmonn.training.trainer import run_training
from tiny_model import MODEL, ToneStream, config, example, tone

torch.set_num_threads(2)


@pytest.fixture(scope="module")
def model() -> Salmonn:
    return Salmonn.from_config(MODEL)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    run_training(config(folder, steps=3), ToneStream())
    return folder


def answers(model: Salmonn, *, limit: int | None = None, told: list[int] | None = None) -> dict[str, list[Answer]]:
    batches = itertools.islice(ToneStream(), 2)  # 3 and 4 examples: tones 0 to 2 and 7 to 10
    on_batch = None if told is None else told.append
    return answer_all(model, batches, limit=limit, beams=1, max_new_tokens=4, on_batch=on_batch)


def test_every_example_is_answered_once(model: Salmonn) -> None:
    told: list[int] = []
    found = answers(model, told=told)
    keys = sorted(line.key for lines in found.values() for line in lines)
    assert keys == sorted(f"tone-{number}" for number in (0, 1, 2, 7, 8, 9, 10))
    assert told == [3, 4]
    for task, lines in found.items():
        assert [line.key for line in lines] == sorted(line.key for line in lines)
        for line in lines:
            number = int(line.key.removeprefix("tone-"))
            assert (line.task, line.references) == (task, example(number).answers)
            prompt = MODEL.prompt.wrap(line.prompt)
            ids = model.generate_ids([example(number).audio], [prompt], beams=1, max_new_tokens=4)[0]
            assert line.answer == model.decode(ids)
            assert line.finished == (ids[-1] == model.tokenizer.eos_token_id)


def test_a_limit_deals_the_first_few(model: Salmonn) -> None:
    told: list[int] = []
    found = answers(model, limit=4, told=told)
    assert sum(map(len, found.values())) == 4
    assert told == [3, 1]
    assert sum(map(len, answers(model, limit=3).values())) == 3


def line(task: str, answer: str, *, finished: bool = True, cut: float = 0.0) -> Answer:
    return Answer(
        key="k", task=task, prompt="p", answer=answer, references=("Male",), finished=finished, seconds=1.0, cut=cut
    )


def test_unfinished_and_cut_answers_are_scored_and_counted() -> None:
    lines = [line("gender_recognition", "Male"), line("gender_recognition", "Mal", finished=False, cut=2.5)]
    result = score_task("gender_recognition", lines)
    assert result.score is not None
    assert (result.score.value, result.score.count) == (0.5, 2)
    assert (result.count, result.unfinished, result.cut) == (2, 1, 1)


def test_a_task_without_a_scorer_is_answered_and_says_so() -> None:
    result = score_task("audio_caption", [line("audio_caption", "a dog")])
    assert result.score is None
    assert result.count == 1
    assert "'caption' has no scorer yet" in result.note


def test_answers_and_scores_are_written(tmp_path: Path, model: Salmonn) -> None:
    found = answers(model)
    result = EvaluationResult(
        folder=tmp_path / "evaluation",
        step=3,
        dataset="d" * 64,
        recipe="tones",
        stage="evaluate",
        limit=None,
        beams=1,
        max_new_tokens=4,
        tasks=tuple(score_task(task, found[task]) for task in sorted(found)),
    )
    result.folder.mkdir()
    (result.folder / "old_task.jsonl").write_text("left from an earlier evaluation")
    write_result(result, found)
    files = sorted(path.name for path in result.folder.iterdir())
    assert files == ["asr.jsonl", "gender_recognition.jsonl", "scores.json"]
    written = (result.folder / "asr.jsonl").read_bytes().splitlines()
    assert [msgspec.json.decode(entry, type=Answer) for entry in written] == found["asr"]
    scores = json.loads((result.folder / "scores.json").read_text())
    assert [(task["task"], task["count"]) for task in scores["tasks"]] == [("asr", 3), ("gender_recognition", 4)]
    assert scores["tasks"][0]["score"]["name"] == "wer"


def test_files_are_answered_as_their_sound(run: Path, tmp_path: Path) -> None:
    paths = []
    for i, hertz in enumerate((300, 500, 2000)):
        paths.append(tmp_path / f"{i}.wav")
        soundfile.write(paths[-1], tone(hertz, 1.0), 16_000, subtype="FLOAT")
    found = generate(run, paths, "How high is the tone?", beams=1, max_new_tokens=6)
    _, model, _ = load_run(run)
    prompts = [MODEL.prompt.wrap("How high is the tone?")] * 3
    sounds = [tone(hertz, 1.0) for hertz in (300, 500, 2000)]
    assert found == model.generate(sounds, prompts, beams=1, max_new_tokens=6)


def test_a_file_that_is_cut_is_told(run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    soundfile.write(tmp_path / "long.wav", tone(300, 30.5), 16_000)
    assert len(generate(run, [tmp_path / "long.wav"], "How high?", beams=1, max_new_tokens=1)) == 1
    assert "1 of 1 files are longer than 30 s" in caplog.text


def test_a_folder_without_a_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not the folder of a run"):
        generate(tmp_path, [], "Hello?")


def test_the_public_names_load_on_first_use() -> None:
    code = (
        "import sys, salmonn\n"
        "assert not {'torch', 'transformers', 'ray'} & set(sys.modules)\n"
        "from salmonn import Salmonn, SalmonnConfig, evaluate, generate, train\n"
        "assert callable(train) and callable(evaluate) and callable(generate)\n"
        "assert 'ray' not in sys.modules and 'pipelines' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
