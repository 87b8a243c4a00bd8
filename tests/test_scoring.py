"""Scores of every task: the metric in its row, best for perfect answers, worst for none, the same in any order."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from manifests.errors import UserError
from manifests.tasks import TASKS
from salmonn.scoring import java
from salmonn.scoring.answer import Answer, read_answers
from salmonn.scoring.bootstrap import interval, mean_interval, ratio_interval
from salmonn.scoring.metrics import JUDGED, METRICS, score
from salmonn.scoring.published import PUBLISHED
from salmonn.scoring.results import score_all, score_answers
from salmonn.scoring.score import Score
from salmonn.scoring.table import remarks, rows, ways
from scored import answer, answers, every_task, world

BEST = {"BLEU4": 100.0, "diversity": 60.0, "CIDEr-D": 10.0}
"""What a perfect score is, where it is not 1, or 0 of an error rate."""
# No task's scores change with Java but those of captions, and its METEOR takes ten seconds to start.
NO_JAVA = "needs Java 17, which is not on this machine"


@pytest.fixture(autouse=True)
def without_java(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(java.shutil, "which", lambda name: None)


def test_every_task_names_a_metric() -> None:
    assert {task.metric for task in TASKS.values()} == set(METRICS) | set(JUDGED)


def test_an_unknown_metric_is_told() -> None:
    with pytest.raises(UserError, match="no metric 'weer'; did you mean 'wer'"):
        score("weer", [answer("asr", "a", "a")])
    with pytest.raises(ValueError, match="0 answers"):
        score("wer", [])


@pytest.mark.parametrize("task", every_task())
def test_perfect_answers_score_the_best(task: str) -> None:
    for part in score(TASKS[task].metric, world(task, perfect=True)).parts():
        if part.value is None:
            assert part.note.endswith(NO_JAVA), part
        else:
            assert part.value == pytest.approx(0 if part.lower_is_better else BEST.get(part.name, 1)), part


@pytest.mark.parametrize("task", every_task())
def test_empty_answers_score_the_worst(task: str) -> None:
    for part in score(TASKS[task].metric, world(task, perfect=False)).parts():
        if part.value is not None and part.name not in ("repeat rate", "unfinished"):
            assert part.value == (1 if part.lower_is_better else 0), part


TEXT = st.text(max_size=30) | st.sampled_from(
    [
        "",
        " ",
        "Yes.",
        "no",
        "the cat",
        "a, b and c",
        "\u6211\u559c\u6b22",
        "\u3053\u306e\u732b",
        "HH AH",
        "\x00",
        "$0.5",
        "...",
        "<SIL>",
        "|||",
    ]
)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(TEXT, st.lists(TEXT, max_size=5), TEXT, st.booleans()), min_size=1, max_size=6), st.randoms())
def test_no_text_crashes_a_score_and_no_order_changes_it(
    texts: list[tuple[str, list[str], str, bool]], order: random.Random
) -> None:
    for task in every_task():
        lines = [
            answer(task, said, *right, key=f"k{at % 3}", transcript=spoken, finished=finished)
            for at, (said, right, spoken, finished) in enumerate(texts)
        ]
        made = score(TASKS[task].metric, lines)
        for part in made.parts():
            assert part.value is None or np.isfinite(part.value)
            assert part.low is None or part.low <= part.high  # type: ignore[operator]
        order.shuffle(lines)
        assert score(TASKS[task].metric, lines) == made


HOSTILE = ["a\x00b\x00", "\u2028\x85\x0c", "\ud800 lone", "word " * 100_000, "9" * 6000, "one " * 3000, "." * 100_000]


@pytest.mark.parametrize("task", every_task())
def test_hostile_answers_neither_crash_nor_hang(task: str) -> None:
    start = time.perf_counter()
    right = world(task, perfect=True)
    lines = right + [msgspec.structs.replace(right[0], key=f"h{at}", answer=said) for at, said in enumerate(HOSTILE)]
    for part in score(TASKS[task].metric, lines).parts():
        assert part.value is None or np.isfinite(part.value)
    assert time.perf_counter() - start < 20


def test_hostile_references_are_survived() -> None:
    for text in HOSTILE:
        assert score("wer", [answer("asr", text, text)]).value == 0


def test_the_interval_lies_around_the_score() -> None:
    draw = random.Random(3)
    lines = []
    for at in range(600):
        right = [draw.choice(("the", "of", "said", "mister", "don't", "colour", "hundred", "house")) for _ in range(30)]
        said = [word for word in right if draw.random() > 0.05] + ["21"] * (at % 20 == 0)
        lines.append(answer("asr", " ".join(said), " ".join(right), key=str(at)))
    made = score("wer", lines)
    assert made.low is not None and made.value is not None and made.high is not None
    assert made.low < made.value < made.high


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    draw = np.random.default_rng(0)
    held = 0
    for _ in range(200):
        low, high = mean_interval(draw.random(80) < 0.3)
        assert low is not None and high is not None
        held += low <= 0.3 <= high
    assert 0.9 <= held / 200 <= 0.99


def test_the_interval_is_that_of_a_plain_loop() -> None:
    draw = np.random.default_rng(1)
    parts, wholes = draw.integers(0, 5, 60), draw.integers(1, 20, 60)
    loop = []
    for _ in range(4000):
        drawn = draw.integers(0, 60, 60)
        loop.append(parts[drawn].sum() / wholes[drawn].sum())
    found = ratio_interval(parts.astype(float), wholes.astype(float))
    assert found == pytest.approx(np.percentile(loop, (2.5, 97.5)), rel=0.05)
    assert found == ratio_interval(parts.astype(float), wholes.astype(float))
    assert interval(np.ones((1, 2)), lambda sums: sums[:, 0]) == (None, None)


def write(path: Path, lines: list[Answer]) -> None:
    path.write_bytes(b"".join(msgspec.json.encode(one) + b"\n" for one in lines))


def test_each_test_set_is_a_row_beside_the_papers(tmp_path: Path) -> None:
    for split, said in (("test-clean", "a b c d"), ("test-other", "a b")):
        right = answers("asr", [(said, ["a b c d"])] * 4, corpus="librispeech", split=split, prompt="Write it down.")
        write(tmp_path / f"asr-{split}.jsonl", right)
    write(tmp_path / "audio_caption.jsonl", answers("audio_caption", [("a dog", ["a dog"])] * 2, finished=False))
    write(tmp_path / "nothing.jsonl", [])
    results = score_all(tmp_path)
    found = {(row.task, row.set, row.score): row for row in rows(results)}
    other = found["asr", "librispeech/test-other", "WER"]
    assert (other.value, other.without, other.with_, other.reference, other.by) == (
        "50.0",
        "4.9",
        "4.9",
        "5.1",
        "Whisper",
    )
    assert (other.count, other.unfinished) == (4, 0)
    assert "whisper-normalizer 0." in other.how and "jiwer" in other.how
    assert "Write it down." in other.asked
    assert found["asr", "librispeech/test-clean", "WER"].value == "0.0"
    meteor = found["audio_caption", "-", "METEOR"]
    assert (meteor.value, meteor.interval, meteor.note, meteor.unfinished) == ("-", "-", NO_JAVA, 2)
    assert "nltk's Treebank" in found["audio_caption", "-", "CIDEr-D"].how
    assert found["nothing", "-", "-"].note == "no answers"
    assert any(NO_JAVA in line for line in remarks(results))
    assert any(line.startswith("WER: normalizer: Whisper's English") for line in ways(results))


def test_models_and_scales_are_scored_apart() -> None:
    lines = [
        answer("gender_recognition", said, "Male", model=model, lora_scale=scale)
        for model, scale, said in (("a", 1.0, "Male"), ("a", 2.0, "Female"), ("b", 1.0, "Female"))
    ]
    found = {(one.model, one.lora_scale): one.score.value for one in score_answers(lines).sets if one.score}
    assert found == {("a", 1.0): 1, ("a", 2.0): 0, ("b", 1.0): 0}


def test_every_published_number_has_a_score_that_we_make() -> None:
    for row in PUBLISHED:
        names = {part.name for part in score(TASKS[row.task].metric, world(row.task, perfect=True)).parts()}
        assert row.score in names, row


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"{", "line 1, is not an answer"),
        (b'{"key": "k", "task": "asr", "answer": 3, "references": []}', r"Expected `str`, got `int` - at `\$.answer`"),
        (b'{"key":"k","task":"asr","answer":"","references":[]}\n' * 2, "line 2 answers 'k' again, after line 1"),
        (b"\xff\xfe", "line 1, is not an answer"),
    ],
)
def test_a_broken_file_is_told_by_its_line(tmp_path: Path, line: bytes, told: str) -> None:
    (tmp_path / "asr.jsonl").write_bytes(line)
    with pytest.raises(UserError, match=told):
        read_answers(tmp_path / "asr.jsonl")
    with pytest.raises(UserError, match="cannot read the answers"):
        read_answers(tmp_path / "none.jsonl")


def test_the_folder_of_a_run_is_not_that_of_its_answers(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "log.jsonl").write_text('{"step": 1}\n')
    with pytest.raises(UserError, match="is the folder of a run; its answers lie below"):
        score_all(tmp_path)


def test_the_command_needs_no_torch_and_writes_json(tmp_path: Path) -> None:
    write(tmp_path / "asr.jsonl", answers("asr", [("the cat", ["the cat sat"]), ("", ["a dog"])]))
    code = (
        "import sys; from salmonn.cli import main\n"
        f"sys.argv = ['salmonn', 'score', {str(tmp_path)!r}, '--json', {str(tmp_path / 'scores.json')!r}]\n"
        "try: main()\n"
        "except SystemExit as done: assert not done.code, done.code\n"
        "assert not {'torch', 'transformers', 'ray'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "WER" in done.stdout and "60.0" in done.stdout
    told = json.loads((tmp_path / "scores.json").read_text())
    assert told["sets"][0]["score"]["value"] == 3 / 5
    assert told["table"][0]["value"] == "60.0"
    assert msgspec.convert(told["sets"][0]["score"], Score).value == 3 / 5


def test_half_a_judge_is_refused(tmp_path: Path) -> None:
    from salmonn.scoring.commands import find_judge

    with pytest.raises(UserError, match="--judge-model 'm' needs --judge"):
        find_judge("", "m")
    with pytest.raises(UserError, match=r"no file ends with \.jsonl"):
        score_all(tmp_path)
