"""Generation: any sound file in, one answer each, the same alone and among others; a mistake is one sentence."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
import soundfile
import soxr
import torch

from manifests.errors import UserError
from salmonn.cli import main
from salmonn.config import SalmonnConfig
from salmonn.features import LONGEST
from salmonn.generation import BATCH, Question, Recording, Reply, generate, listen, open_model, replies, reply
from salmonn.model import Salmonn
from salmonn.training.settings import flatten
from sounds import CORPORA, RATE, by_ffmpeg, by_libsndfile, every_kind, speech
from speaking_model import SPEAKING, speaking_run

torch.set_num_threads(2)
PROMPT = "Please write down what the speaker says."
CLIPS = sorted(map(str, CORPORA.glob("librispeech/LibriSpeech/*/*/*/*.flac")))[: BATCH + 3]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return speaking_run(tmp_path_factory.mktemp("speaking") / "run")


@pytest.fixture(scope="module")
def model(run: Path) -> Salmonn:
    return open_model(run)


def question(**changes: object) -> Question:
    return Question(**{"prompt": PROMPT, "beams": 1, "max_new_tokens": 8} | changes)


def recording(wave: np.ndarray) -> Recording:
    return Recording(path="", wave_S=wave.astype(np.float32), cut=0.0)


@pytest.fixture
def salmonn(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """The command line, in this process: exit code, stdout, stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["salmonn", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return call


@pytest.mark.parametrize("beams", [1, 3])
def test_an_answer_is_the_same_alone_and_among_others(run: Path, model: Salmonn, beams: int) -> None:
    together = list(replies(run, CLIPS, question(beams=beams)))
    assert [one.path for one in together] == CLIPS
    alone = [reply(model, [listen(path)], question(beams=beams))[0] for path in CLIPS]
    assert together == alone
    assert len({one.answer for one in together}) > len(CLIPS) / 2, "a model that does not listen shows nothing"


def test_the_answers_are_those_of_the_model(run: Path, model: Salmonn) -> None:
    waves = [soundfile.read(path, dtype="float32")[0] for path in CLIPS]
    prompts = [SPEAKING.prompt.wrap(PROMPT)] * len(waves)
    for options in ((2, 8, 1.0), (1, 5, 0.0)):
        beams, tokens, scale = options
        theirs = model.generate(waves, prompts, *options)
        assert generate(run, CLIPS, PROMPT, beams=beams, max_new_tokens=tokens, lora_scale=scale) == theirs


def test_the_prompt_and_the_strength_of_lora_are_heeded(model: Salmonn) -> None:
    clips = [listen(path) for path in CLIPS]
    answers = [
        tuple(one.answer for one in reply(model, clips, question(**changes)))
        for changes in ({}, {"prompt": "Is the speaker female or male?"}, {"lora_scale": 60.0})
    ]
    assert len(set(answers)) == 3


@pytest.mark.parametrize(
    ("rate", "channels"), [(8_000, 1), (22_050, 2), (44_100, 1), (44_100, 2), (48_000, 6), (96_000, 2)]
)
def test_a_file_is_answered_as_its_resampled_twin(tmp_path: Path, model: Salmonn, rate: int, channels: int) -> None:
    wave = speech(2.0, rate)
    soundfile.write(tmp_path / "a.wav", np.stack([wave] * channels, 1), rate, subtype="FLOAT")
    ours = listen(str(tmp_path / "a.wav"))
    twin = soxr.resample(wave, rate, RATE, quality="HQ")
    assert abs(len(ours.wave_S) - len(twin)) <= 1
    length = min(len(ours.wave_S), len(twin))
    assert np.abs(ours.wave_S[:length] - twin[:length]).max() < 1e-5
    assert reply(model, [ours], question())[0].answer == reply(model, [recording(twin)], question())[0].answer


def test_every_container_is_answered(tmp_path: Path, run: Path) -> None:
    high = speech(2.0, 44_100)
    stereo = np.stack([high, high], 1)
    kinds = every_kind() | {
        "mp3-stereo": by_libsndfile(stereo, 44_100, "MP3", "MPEG_LAYER_III"),
        "opus-stereo": by_libsndfile(np.stack([speech(2.0, 48_000)] * 2, 1), 48_000, "OGG", "OPUS"),
        "webm-stereo": by_ffmpeg(np.stack([speech(2.0, 48_000)] * 2, 1), 48_000, "webm", "libopus"),
        "m4a-stereo": by_ffmpeg(stereo, 44_100, "ipod", "aac"),
        "alac": by_ffmpeg(high, 44_100, "ipod", "alac"),
    }
    for kind, data in kinds.items():
        (tmp_path / kind).write_bytes(data)
    told = list(replies(run, [str(tmp_path / kind) for kind in kinds], question()))
    for kind, one in zip(kinds, told, strict=True):
        assert one.seconds == pytest.approx(2.0, abs=0.15), kind
        assert one.cut == 0, kind
    # What is lossless and holds the same samples has the same answer.
    lossless = ("flac", "wav-float", "aiff", "au", "w64", "rf64", "caf", "nist")
    assert len({one.answer for kind, one in zip(kinds, told, strict=True) if kind in lossless}) == 1


def test_channels_are_averaged_as_where_a_dataset_is_packed(tmp_path: Path) -> None:
    left, right = speech(1.0, 44_100), speech(2.0, 44_100)[44_100:]
    for name, channels in {"both": [left, right], "right": [0 * right, right]}.items():
        soundfile.write(tmp_path / f"{name}.wav", np.stack(channels, 1), 44_100, subtype="FLOAT")
        heard = listen(str(tmp_path / f"{name}.wav")).wave_S
        twin = soxr.resample(np.mean(channels, 0), 44_100, RATE, quality="HQ")[: len(heard)]
        assert np.abs(heard[: len(twin)] - twin).max() < 1e-5
        assert np.abs(heard).max() > 0.01, "a voice on the right is heard"


def test_what_is_behind_thirty_seconds_is_told_and_changes_nothing(
    tmp_path: Path, run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, seconds in {"30": 30.0, "31": 31.25}.items():
        soundfile.write(tmp_path / f"{name}.flac", speech(seconds), RATE)
    whole, cut = replies(run, [str(tmp_path / "30.flac"), str(tmp_path / "31.flac")], question())
    assert (whole.seconds, whole.cut, cut.seconds, cut.cut) == (30.0, 0.0, 30.0, 1.25)
    assert whole.answer == cut.answer
    assert "1 of 2 files are longer than 30 s" in caplog.text
    assert len(listen(cut.path).wave_S) == LONGEST, "the model would cut, and count, what is longer"


def test_an_answer_that_the_model_ended_is_finished(model: Salmonn, request: pytest.FixtureRequest) -> None:
    clip = listen(CLIPS[0])
    (endless,) = reply(model, [clip], question())
    assert not endless.finished
    ids = model.generate_ids([clip.wave_S], [SPEAKING.prompt.wrap(PROMPT)], 1, 8)[0]
    assert len(ids) == 8
    # The same model, were its end another of the pieces that it says.
    last = next(place for place in range(1, 8) if ids[place] not in ids[:place])
    usual = model.tokenizer.eos_token
    model.tokenizer.eos_token = model.tokenizer.convert_ids_to_tokens(ids[last])
    request.addfinalizer(lambda: setattr(model.tokenizer, "eos_token", usual))
    (ended,) = reply(model, [clip], question())
    assert ended.finished
    assert ended.answer == model.decode(ids[: last + 1])


def test_the_command_prints_a_json_line_a_file(run: Path, tmp_path: Path, salmonn: Callable[..., tuple]) -> None:
    odd = tmp_path / "[red] a :smile: \N{SNOWMAN}.wav"
    soundfile.write(odd, np.stack([speech(31.0, 44_100)] * 2, 1), 44_100)
    options = ("--prompt", PROMPT, "--beams", 2, "--max-new-tokens", 6, "--lora-scale", 0.5)
    code, out, _ = salmonn("generate", run, CLIPS[0], odd, *options, "--json")
    assert code == 0
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["path"] for row in rows] == [CLIPS[0], str(odd)]
    assert all(list(row) == ["path", "prompt", "answer", "finished", "seconds", "cut"] for row in rows)
    expected = replies(run, [CLIPS[0], str(odd)], question(beams=2, max_new_tokens=6, lora_scale=0.5))
    assert [msgspec.convert(row, Reply) for row in rows] == list(expected)
    assert rows[1]["cut"] == 1.0

    code, out, _ = salmonn("generate", run, CLIPS[0], odd, *options)
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == CLIPS[0] and lines[1] == f"  {rows[0]['answer']}" and lines[2] == "  (cut off after 6 tokens)"
    assert lines[3] == str(odd) and lines[4] == f"  {rows[1]['answer']}"


MISTAKES = [
    (["RUN", "absent.wav"], ["absent.wav", "No such file"]),
    (["RUN", "."], ["'.'", "directory"]),
    (["RUN", "text.wav"], ["text.wav", "no decoder recognizes the file"]),
    (["RUN", "empty.wav"], ["empty.wav", "no bytes"]),
    (["RUN", "half.flac"], ["half.flac"]),
    (["RUN", "CLIP", "absent.wav"], ["absent.wav"]),
    (["RUN", "CLIP", "--prompt", "  "], ["prompt is empty", "Please write down"]),
    (["RUN", "CLIP", "--prompt", "Say <SpeechHere>"], ["<SpeechHere>", "leave it out"]),
    (["RUN", "CLIP", "--beams", "-1"], ["beams is -1", "from 1"]),
    (["RUN", "CLIP", "--beams", "1000"], ["beams is 1000", "to 64"]),
    (["RUN", "CLIP", "--max-new-tokens", "0"], ["max_new_tokens is 0", "at least 1"]),
    (["RUN", "CLIP", "--lora-scale", "nan"], ["lora_scale is nan", "1 is as trained"]),
    (["RUN", "CLIP", "--lora-scale", "-0.5"], ["lora_scale is -0.5"]),
    (["RUN", "CLIP", "--config", "tiny"], ["--config is for a released .pth file"]),
    (["nowhere", "CLIP"], ["no run in 'nowhere'", "salmonn train"]),
    (["untrained", "CLIP"], ["has no checkpoint yet", "train it first"]),
    (["a.pth", "CLIP"], ["'a.pth' is a file", "--config", "tiny"]),
    (["a.pth", "CLIP", "--config", "tinny"], ["no model preset 'tinny'", "did you mean 'tiny'?"]),
    (["a.pth", "CLIP", "--config", "absent.toml"], ["no settings file 'absent.toml'"]),
]


@pytest.mark.parametrize(("arguments", "words"), MISTAKES, ids=[" ".join(arguments) for arguments, _ in MISTAKES])
def test_a_mistake_is_one_sentence(
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    salmonn: Callable[..., tuple],
    arguments: list[str],
    words: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.wav").write_text("not a sound")
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "half.flac").write_bytes(Path(CLIPS[0]).read_bytes()[:5000])
    (tmp_path / "a.pth").write_bytes(b"")
    (tmp_path / "untrained").mkdir()
    (tmp_path / "untrained" / "config.json").write_bytes((run / "config.json").read_bytes())
    known = {"RUN": str(run), "CLIP": CLIPS[0]}
    prompt = [] if "--prompt" in arguments else ["--prompt", PROMPT]
    code, out, err = salmonn("generate", *(known.get(argument, argument) for argument in arguments), *prompt)
    assert (code, out) == (2, "")
    assert err.startswith("salmonn: ") and len(err.strip().splitlines()) == 1, err
    for word in words:
        assert word in err, err


def test_a_mistake_is_told_before_torch_is_imported(tmp_path: Path, run: Path) -> None:
    code = (
        "import sys\nfrom salmonn.cli import main\n"
        "try: main()\nexcept SystemExit as ended: print(ended.code, 'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code, "generate", str(run), str(tmp_path / "absent.wav"), "--prompt", PROMPT]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.stdout.split() == ["2", "False"], done


def toml(model: SalmonnConfig) -> str:
    """The settings of a model as the lines of a TOML file."""
    values = flatten({"model": msgspec.to_builtins(model)})
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items() if value is not None)


def test_a_released_file_answers_as_the_run_it_was_made_of(tmp_path: Path, model: Salmonn) -> None:
    from salmonn.checkpoint import export_released

    export_released(model, tmp_path / "small.pth")
    (tmp_path / "small.toml").write_text(toml(SPEAKING))
    clips = CLIPS[:4]
    options = {"beams": 1, "max_new_tokens": 8, "config": str(tmp_path / "small.toml")}
    expected = [one.answer for one in reply(model, [listen(path) for path in clips], question())]
    assert generate(tmp_path / "small.pth", clips, PROMPT, **options) == expected
    wider = msgspec.structs.replace(SPEAKING, llm=msgspec.structs.replace(SPEAKING.llm, width=32))
    (tmp_path / "small.toml").write_text(toml(wider))
    with pytest.raises(UserError, match=r"small\.pth.* 24 wide"):
        generate(tmp_path / "small.pth", clips, PROMPT, **options)
