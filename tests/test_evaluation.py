"""Evaluation: answers and scores told together, and the paper's figures as so many evaluations side by side."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from conftest import digests
from evaluated_world import ROWS, SMALL, WORLD
from manifests.errors import UserError
from salmonn.evaluation import commands
from salmonn.evaluation.curves import Curve, Panel, draw, rounds
from salmonn.evaluation.evaluate import Evaluation, evaluate
from salmonn.evaluation.figures import Figure, How, at_newest, at_scales, at_steps
from salmonn.evaluation.perplexity import measure
from salmonn.evaluation.request import Request
from salmonn.evaluation.respondent import RunModel
from salmonn.evaluation.spans import MOST_POINTS, read_scalings, read_steps
from salmonn.generation import generate
from salmonn.scoring.results import score_all
from salmonn.training.run import load_run
from salmonn.training.trainer import run_training
from shards import Dataset
from tiny_model import MODEL, ToneStream, config, tone

torch.set_num_threads(2)
STORIES = {**WORLD, ("audiocaps", "train"): [(9000, ("audio_story",))]}
TOLD = '[[evaluate]]\ntask = "audio_story"\ncorpus = "audiocaps"\nsplits = ["train"]\n'
# Without captions: their scores are Java's, which takes seconds to start.
MOST = msgspec.structs.replace(SMALL, tasks=("asr", "gender_recognition", "audio_story"))
TINY = msgspec.structs.replace(MOST, max_new_tokens=3, limit=4)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, make_dataset: Callable[..., Dataset]) -> Path:
    """A run whose checkpoints at steps 2, 4 and 6 are kept, and that began with another's weights."""
    top = tmp_path_factory.mktemp("runs")
    (top / "stories.toml").write_text(ROWS + TOLD)
    told = {"dataset": str(make_dataset(STORIES, shards=2).url), "recipe": str(top / "stories.toml")}
    run_training(config(top / "before", steps=1, **told), ToneStream())
    many = {"steps": 6, "checkpoint_every": 2, "keep": 9, "init_from": str(top / "before")}
    run_training(config(top / "toy", **told, **many), ToneStream())
    return top / "toy"


def values(figure: Figure) -> list[dict[tuple[str, str, str], float]]:
    return [{(one.name, one.task, one.set): one.value for one in point.values} for point in figure.points]


# ---------------------------------------------------------------- scores


def test_an_evaluation_is_its_answers_and_their_scores(run: Path, tmp_path: Path) -> None:
    found = evaluate(run, MOST, out=tmp_path)
    assert (found.step, found.stage, found.recipe, found.limit) == (6, "evaluate", "stories", None)
    assert {task: made.answers for task, made in found.tasks.items()} == {
        "asr": 17, "audio_story": 1, "gender_recognition": 11,
    }  # fmt: skip
    assert found.results == score_all(tmp_path)
    assert [(one.task, one.split, one.count) for one in found.results.sets][:2] == [
        ("asr", "test-clean", 11), ("asr", "test-other", 6),
    ]  # fmt: skip
    assert found.results.sets[0].score.name == "WER" or found.results.sets[0].score.name.lower() == "wer"
    told = msgspec.json.decode((tmp_path / "scores.json").read_bytes(), type=Evaluation)
    assert told == found
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert evaluate(run, MOST, out=tmp_path) == found
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_only_what_was_asked_now_is_scored(run: Path, tmp_path: Path) -> None:
    evaluate(run, TINY, step=2, out=tmp_path)
    one = evaluate(run, msgspec.structs.replace(TINY, tasks=("asr",)), step=4, out=tmp_path, anew=True)
    assert {each.task for each in one.results.sets} == {"asr"} and "@4-" in one.model
    with pytest.raises(UserError, match=r"model was 'toy@4-\w+', is 'toy@6-"):
        evaluate(run, TINY, out=tmp_path)


def test_the_commands_print_what_they_made(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = commands.Where(out=str(tmp_path / "out"))
    commands.generate_answers(str(run), TINY, where)
    assert "salmonn score" in capsys.readouterr().out
    commands.evaluate(str(run), TINY, where, json=str(tmp_path / "s.json"), html=str(tmp_path / "s.html"))
    printed = capsys.readouterr().out
    assert "asr" in printed and "beam 1" in printed
    assert json.loads((tmp_path / "s.json").read_text())["sets"]
    assert "<table" in (tmp_path / "s.html").read_text()


@pytest.mark.slow
def test_the_command_line_understands_its_options(run: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "salmonn.cli", "generate-answers", str(run), "--out", str(tmp_path / "a")]
    options = ["--tasks", "asr, audio_caption", "--limit", "2", "--beams", "1", "--max-new-tokens", "2"]
    done = subprocess.run([*command, *options, "--seed", "3"], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert sorted(path.stem for path in (tmp_path / "a").glob("*.jsonl")) == ["asr", "audio_caption"]
    row = json.loads((tmp_path / "a" / "asr.jsonl").read_text().splitlines()[0])
    assert (row["seed"], row["max_new_tokens"]) == (3, 2)
    asked = {"tasks": "asr,audio_caption", "limit": 2, "beams": 2, "max_new_tokens": 2, "seed": 0, "data": ""}
    asked |= {"recipe": "", "stage": "evaluate", "lora_scale": 1.0, "batch_seconds": 480.0, "batch_examples": 16}
    request, where = commands.understand(
        {**asked, "out": str(tmp_path / "a"), "anew": False, "workers": 0, "address": ""}
    )
    with pytest.raises(UserError, match="seed was 3, is 0; beams was 1, is 2"):
        commands.generate_answers(str(run), request, where)


# ---------------------------------------------------------------- figures


def test_a_figure_of_steps_holds_the_scores_of_so_many_evaluations(run: Path, tmp_path: Path) -> None:
    [figure] = at_steps(run, [4, 2], TINY, How(out=str(tmp_path)))
    assert [point.x for point in figure.points] == [2, 4]
    for point in figure.points:
        alone = evaluate(run, TINY, step=int(point.x), out=tmp_path / f"alone-{point.x}")
        assert point.model == alone.model
        expected = {
            (part.name, one.task, f"{one.corpus}/{one.split}"): part.value * part.scale
            for one in alone.results.sets
            if one.score
            for part in one.score.parts()
            if part.value is not None
        }
        assert {(one.name, one.task, one.set): one.value for one in point.values} == expected
        assert len(expected) > 3
    told = msgspec.json.decode((tmp_path / "steps.json").read_bytes(), type=Figure)
    assert told == figure
    assert (tmp_path / "steps.svg").read_text() == figure.svg()
    # The answers are there: drawn again, nothing is asked.
    before = digests(tmp_path / "steps")
    asked: list[str] = []
    how = How(out=str(tmp_path), on_batch=lambda place: lambda task, many, total: asked.append(task))
    assert at_steps(run, [2, 4], TINY, how) == [figure] and digests(tmp_path / "steps") == before
    assert len(asked) == 6  # each told once, as done before


def test_all_steps_begin_with_the_weights_the_run_began_with(run: Path, tmp_path: Path) -> None:
    one = msgspec.structs.replace(TINY, tasks=("asr",))
    [figure] = at_steps(run, None, one, How(out=str(tmp_path)))
    assert [point.x for point in figure.points] == [0, 2, 4, 6]
    first = evaluate(run.parent / "before", one, out=tmp_path / "before")
    assert figure.points[0].model.rpartition("-")[2] == first.model.rpartition("-")[2]
    answers = [path / "asr.jsonl" for path in (tmp_path / "steps/step-000000", tmp_path / "before")]
    said = [[json.loads(line)["answer"] for line in path.read_text().splitlines()] for path in answers]
    assert said[0] == said[1]
    with pytest.raises(UserError, match="no checkpoint at step 3; kept are 0, 2, 4, 6"):
        at_steps(run, [3], one, How(out=str(tmp_path)))


@pytest.mark.slow
def test_a_figure_of_scalings_weakens_lora(run: Path, tmp_path: Path) -> None:
    scaling = RunModel(run).scaling
    assert scaling == MODEL.lora.alpha / MODEL.lora.r == 2
    [figure] = at_scales(run, [0, 1, 2], TINY, How(out=str(tmp_path)))
    assert [(point.x, point.lora_scale) for point in figure.points] == [(0, 0), (1, 0.5), (2, 1)]
    assert figure.mark == 2
    for point in figure.points:
        request = msgspec.structs.replace(TINY, lora_scale=point.lora_scale)
        alone = evaluate(run, request, out=tmp_path / f"alone-{point.x}")
        place = tmp_path / "scales" / f"step-000006-{point.x:g}"
        assert digests(place) == digests(tmp_path / f"alone-{point.x}")
        assert alone.results.sets[0].lora_scale == point.lora_scale


@pytest.mark.parametrize(("text", "steps"), [("all", None), ("100,200", [100, 200]), (" 0, 7 ", [0, 7])])
def test_steps_are_read(text: str, steps: list[int] | None) -> None:
    assert read_steps(text) == steps


@pytest.mark.parametrize("text", ["", "1,,2", "-1", "1.5", "every"])
def test_other_steps_are_told(text: str) -> None:
    with pytest.raises(UserError, match="--at-steps is"):
        read_steps(text)


@pytest.mark.parametrize(
    ("text", "scalings"),
    [("0:4:0.5", [0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4]), ("2", [2]), ("0,4", [0, 4]), ("0:1:0.3", [0, 0.3, 0.6, 0.9])],
)
def test_scalings_are_read(text: str, scalings: list[float]) -> None:
    assert read_scalings(text) == scalings


@given(st.integers(1, MOST_POINTS - 1), st.sampled_from([0.1, 0.05, 0.25, 0.3, 1 / 3]))
def test_the_last_scaling_is_among_them(many: int, step: float) -> None:
    found = read_scalings(f"0:{many * step!r}:{step!r}")
    assert len(found) == many + 1 and found[-1] == pytest.approx(many * step)


@pytest.mark.parametrize(
    "text", ["0:4", "4:0:1", "0:4:0", "0:4:-1", "-1", "nan", "inf", "0:inf:1", "a", "", "0:9:1e-9"]
)
def test_other_scalings_are_told(text: str) -> None:
    with pytest.raises(UserError, match="--lora-scales is"):
        read_scalings(text)


def test_two_figures_at_once_are_refused(run: Path) -> None:
    where = commands.Where()
    with pytest.raises(UserError, match="one at a time"):
        commands.figures(str(run), TINY, where, steps="all", scales="0:4:1")
    with pytest.raises(UserError, match=r"takes the place of --lora-scale 0\.5"):
        commands.figures(str(run), msgspec.structs.replace(TINY, lora_scale=0.5), where, scales="0:4:1")


def test_the_command_writes_the_page_and_the_numbers(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where, files = commands.Where(out=str(tmp_path)), [str(tmp_path / name) for name in ("f.json", "f.html")]
    one = msgspec.structs.replace(TINY, limit=2)
    commands.figures(str(run), one, where, steps="2,6", perplexity=True, json=files[0], html=files[1])
    printed = capsys.readouterr().out
    assert "perplexity with instruction" in printed and "steps.svg" in printed and "steps-perplexity.svg" in printed
    page = Path(files[1]).read_text()
    assert (
        page.count("<svg") == page.count("<table") == 2
        and "<script" not in page
        and "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    )
    assert [each["name"] for each in json.loads(Path(files[0]).read_text())] == ["steps", "steps-perplexity"]


# ---------------------------------------------------------------- perplexity


def test_perplexity_is_that_of_single_answers(run: Path, tmp_path: Path) -> None:
    respondent = RunModel(run).at()
    request = msgspec.structs.replace(SMALL, tasks=("gender_recognition", "audio_story"))
    asking = request.asking(respondent.run.config.dataset, respondent.run.config.recipe)
    found = {(row.task, row.split): row for row in measure(respondent, asking, {})}
    assert ("audio_story", "train") not in found  # its references are captions, and nothing was told
    _, model, _ = load_run(run)
    for task, split in (("gender_recognition", "test-clean"),):
        nll = {"with": 0.0, "without": 0.0}
        tokens = answers = 0
        for number, batch in enumerate(asking.batches[task]):
            for heard in asking.read_batch(task, number).heard:
                if heard.open.split != split:
                    continue
                for how, prompt in (("with", heard.open.prompt), ("without", "")):
                    wrapped = MODEL.prompt.wrap(prompt)
                    with torch.no_grad():
                        made = model.answer_tokens([heard.wave_S], [wrapped], [heard.open.references[0]])
                    nll[how] += float(made.nll_N.sum())
                tokens += len(made.nll_N)
                answers += 1
            assert batch
        row = found[task, split]
        assert (row.answers, row.tokens, row.of) == (answers, tokens, "references")
        assert row.instructed == pytest.approx(math.exp(nll["with"] / tokens), rel=1e-4)
        assert row.uninstructed == pytest.approx(math.exp(nll["without"] / tokens), rel=1e-4)
        assert row.instructed != pytest.approx(row.uninstructed, rel=1e-6)
        # Bytes: a reference such as "librispeech/test-other-3 one" is longer than the toy model's 12 tokens.
        assert row.truncated == answers


def test_a_story_is_measured_by_what_the_last_step_told(run: Path, tmp_path: Path) -> None:
    one = msgspec.structs.replace(TINY, tasks=("audio_story", "asr"), max_new_tokens=6)
    [_, figure] = at_steps(run, [2, 6], one, How(out=str(tmp_path), perplexity=True))
    found = values(figure)
    assert {task for _, task, _ in found[0]} == {"audio_story", "asr"}
    told = json.loads((tmp_path / "steps/step-000006/audio_story.jsonl").read_text())["answer"]
    for step, at in ((2, 0), (6, 1)):
        respondent = RunModel(run).at(step)
        asking = one.asking(respondent.run.config.dataset, respondent.run.config.recipe)
        [heard] = asking.read_batch("audio_story", 0).heard
        prompt = respondent.model().config.prompt.wrap(heard.open.prompt)
        with torch.no_grad():
            loss = float(respondent.model().loss([heard.wave_S], [prompt], [told]))
        mine = found[at]["perplexity with instruction", "audio_story", "audiocaps/train"]
        assert mine == pytest.approx(math.exp(loss), rel=1e-4)


@pytest.mark.slow
def test_perplexity_follows_lora(run: Path, tmp_path: Path) -> None:
    [_, figure] = at_scales(run, [0, 2], TINY, How(out=str(tmp_path), perplexity=True))
    [_, newest] = at_newest(run, TINY, How(out=str(tmp_path / "newest"), perplexity=True))
    weak, trained = values(figure)
    assert trained == values(newest)[0]
    key = ("perplexity with instruction", "asr", "librispeech/test-clean")
    assert weak[key] != trained[key]


# ---------------------------------------------------------------- curves


@given(
    st.lists(
        st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(0, 1e9)), max_size=6, unique_by=lambda at: at[0]), max_size=4
    ),
    st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=20),
)
def test_any_curves_make_a_file_that_parses_and_lie_within_it(
    curves: list[list[tuple[float, float]]], name: str
) -> None:
    made = [
        Curve(
            name=name,
            task="asr",
            x=tuple(x for x, _ in points),
            y=tuple(y for _, y in points),
            low=tuple(None if at % 2 else y / 2 for at, (_, y) in enumerate(points)),
            high=tuple(2 * y for _, y in points),
        )
        for points in curves
    ]
    text = draw([Panel(title=name, curves=tuple(made)), Panel(title="empty", curves=())], name, "step", 1.0)
    top = ET.fromstring(text)
    space = {"s": "http://www.w3.org/2000/svg"}
    circles = top.findall(".//s:circle", space)
    assert len(circles) == sum(map(len, curves))
    for circle in circles:
        assert 64 <= float(circle.get("cx")) <= 510 and 30 <= float(circle.get("cy")) <= 180
        assert circle.find("s:title", space).text.startswith(name)


@given(st.floats(-1e5, 1e5), st.floats(0, 1e6), st.integers(2, 9))
def test_ticks_are_few_and_reach_around(low: float, wide: float, most: int) -> None:
    ticks = rounds(low, low + wide, most)
    assert 2 <= len(ticks) <= most + 2
    assert ticks[0] <= low + 1e-6 * max(1, abs(low)) and ticks[-1] >= low + wide - 1e-6 * max(1, abs(low + wide))


def test_higher_is_above_and_later_is_right() -> None:
    curve = Curve(name="a", task="asr", x=(1, 2), y=(10, 20))
    top = ET.fromstring(draw([Panel(title="t", curves=(curve,))], "t", "step"))
    places = [(float(one.get("cx")), float(one.get("cy"))) for one in top.iter("{http://www.w3.org/2000/svg}circle")]
    assert places[0][0] < places[1][0] and places[0][1] > places[1][1]


# ---------------------------------------------------------------- one question about files


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
    with pytest.raises(UserError, match="there is no run in"):
        commands.prepare(str(tmp_path), Request())


@pytest.mark.slow
def test_the_public_names_load_on_first_use() -> None:
    code = (
        "import sys, salmonn\n"
        "assert not {'torch', 'transformers', 'ray'} & set(sys.modules)\n"
        "import salmonn.evaluation.commands\n"
        "assert not {'torch', 'transformers', 'ray'} & set(sys.modules)\n"
        "from salmonn import Salmonn, SalmonnConfig, evaluate, generate, train\n"
        "assert callable(train) and callable(evaluate) and callable(generate)\n"
        "assert 'ray' not in sys.modules and 'pipelines' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
