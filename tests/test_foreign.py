"""Foreign models: an endpoint, a folder of transformers, a file of answers; all end in the same files as a run's."""

from __future__ import annotations

import base64
import csv
import io
import json
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
    WhisperFeatureExtractor,
)

from chat_server import Endpoint, completion, serving
from conftest import World, tone
from manifests import Failed, Recipe, UserError
from manifests.chat import Limits
from salmonn.evaluation.asking import Asking
from salmonn.evaluation.foreign import EndpointRespondent, open_foreign
from salmonn.evaluation.generate import answer_stage
from salmonn.evaluation.given import take_answers
from salmonn.evaluation.huggingface import FolderRespondent
from salmonn.evaluation.request import Decoding, Request
from salmonn.scoring.answer import Answer, read_answers
from salmonn.scoring.results import score_all
from shards import Dataset

SECRET = "sk-a-secret-that-nobody-may-see"
QUICK = Limits(parallel=4, retries=2, timeout=5.0, backoff=0.01)
WORLD: World = {
    ("librispeech", "test-clean"): [(800 + 160 * clip, ("asr", "gender_recognition")) for clip in range(7)],
    ("wikiqa", "test"): [(1600 + 160 * clip, ("spoken_query_qa",)) for clip in range(3)],
}
GREEDY = Request(beams=1, batch_examples=3)


@pytest.fixture(scope="module")
def dataset(make_dataset: Callable[..., Dataset]) -> Dataset:
    return make_dataset(WORLD)


@pytest.fixture(scope="module")
def recipe(make_recipe: Callable[..., Recipe]) -> Recipe:
    rows = [("asr", "librispeech"), ("gender_recognition", "librispeech"), ("spoken_query_qa", "wikiqa")]
    splits = {"librispeech": ("test-clean",), "wikiqa": ("test",)}
    return make_recipe(*((task, corpus, splits[corpus], None) for task, corpus in rows), stage="evaluate")


@pytest.fixture
def asking(dataset: Dataset, recipe: Recipe) -> Asking:
    return Asking(dataset, recipe, "evaluate", batch_examples=3)


def rows(folder: Path) -> dict[str, list[Answer]]:
    return {path.stem: read_answers(path) for path in sorted(folder.glob("*.jsonl"))}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def heard(asked: dict[str, Any]) -> tuple[np.ndarray, str]:
    """The sound and the question of a request."""
    [message] = asked["messages"]
    sound, text = message["content"]
    assert (message["role"], sound["type"], text["type"]) == ("user", "input_audio", "text")
    assert sound["input_audio"]["format"] == "wav"
    pcm, rate = soundfile.read(io.BytesIO(base64.b64decode(sound["input_audio"]["data"], validate=True)), dtype="int16")
    assert rate == 16_000 and pcm.ndim == 1
    return pcm, text["text"]


def spoken(asked: dict[str, Any]) -> bytes:
    """An answer that depends on sound and question alone."""
    pcm, prompt = heard(asked)
    return completion(f" {len(pcm)} {prompt} ", finish_reason="length" if len(pcm) % 320 else "stop")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    monkeypatch.setenv("SALMONN_API_KEY", SECRET)
    monkeypatch.setenv("SALMONN_JUDGE_KEY", "another")
    with serving(lambda _, asked: (200, {}, spoken(asked))) as server:
        yield server


def test_an_endpoint_hears_every_clip_and_its_answers_are_files_like_a_run_s(
    server: Endpoint, asking: Asking, tmp_path: Path
) -> None:
    made = answer_stage(EndpointRespondent(server.url, "ear", QUICK), asking, GREEDY, tmp_path)
    found = rows(tmp_path)
    assert {task: one.answers for task, one in made.items()} == {task: len(found[task]) for task in found}
    assert {task: len(own) for task, own in found.items()} == {"asr": 7, "gender_recognition": 7, "spoken_query_qa": 3}
    sent = {pcm.tobytes() for pcm, _ in map(heard, server.asked)}
    assert sent == {tone(n, place).tobytes() for clips in WORLD.values() for place, (n, _) in enumerate(clips)}
    for own in found.values():
        assert [one.key for one in own] == sorted(one.key for one in own)
        for one in own:
            samples = round(one.seconds * 16_000)
            assert one.answer == f"{samples} {one.prompt}" and one.model == "openai:ear"
            assert one.finished is (samples % 320 == 0) and (one.beams, one.max_new_tokens) == (1, 200)
            assert one.references == (f"{one.key.replace('_', '/', 1)} one", f"{one.key.replace('_', '/', 1)} two")
    assert {asked["max_tokens"] for asked in server.asked} == {200} and len(server.asked) == 17
    assert {head["Authorization"] for head in server.heads} == {f"Bearer {SECRET}"}
    assert sum(one.count for one in score_all(tmp_path).sets) == 17


def test_whatever_the_order_of_replies_and_wherever_it_stops_the_bytes_are_the_same(
    server: Endpoint, asking: Asking, tmp_path: Path
) -> None:
    answer_stage(EndpointRespondent(server.url, "ear", QUICK), asking, GREEDY, tmp_path / "whole")

    def unsteady(number: int, asked: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        time.sleep(0.02 * (number % 3 == 0))
        if number % 5 == 2:
            return (429, {"Retry-After": "0.01"}, b"") if number % 2 else (500, {}, b"<html>")
        return 200, {}, spoken(asked)

    server.script = unsteady
    answer_stage(EndpointRespondent(server.url, "ear", QUICK), asking, GREEDY, tmp_path / "unsteady")
    assert contents(tmp_path / "unsteady") == contents(tmp_path / "whole")
    once = Limits(parallel=1, retries=0, timeout=5.0, backoff=0.01)
    told: list[str] = []
    before = len(server.asked)
    server.script = lambda number, asked: (
        (503, {}, SECRET.encode()) if (number - before) % 5 == 4 else (200, {}, spoken(asked))
    )
    for _ in range(30):
        try:
            answer_stage(EndpointRespondent(server.url, "ear", once), asking, GREEDY, tmp_path / "stopped")
            break
        except Failed as stopped:
            told.append(str(stopped))
    stops = len(told)
    assert stops >= 2 and SECRET not in "".join(told) and all("run the same command again" in one for one in told)
    # What was answered before a stop, batch by batch, was not asked again.
    assert len(server.asked) - before <= 17 + 3 * stops
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")


def test_what_an_endpoint_cannot_do_is_told(server: Endpoint) -> None:
    respondent = EndpointRespondent(server.url, "ear", QUICK)
    wave = np.zeros(1600, np.float32)
    for decoding in (Decoding(beams=4, max_new_tokens=5), Decoding(beams=1, max_new_tokens=5, lora_scale=2.0)):
        with pytest.raises(UserError, match="an endpoint offers neither"):
            respondent.reply([wave], ["Who?"], decoding)
    assert not server.asked
    server.script = lambda *_: (401, {}, f"bad {SECRET}".encode())
    with pytest.raises(UserError, match="SALMONN_API_KEY") as caught:
        respondent.reply([wave], ["Who?"], Decoding(beams=1, max_new_tokens=5))
    assert SECRET not in str(caught.value)
    server.script = lambda *_: (200, {}, completion("", finish_reason="content_filter"))
    [reply] = respondent.reply([wave], ["Who?"], Decoding(beams=1, max_new_tokens=5))
    assert reply.answer == "" and not reply.finished


def test_models_are_named_by_kind(tmp_path: Path) -> None:
    assert open_foreign("openai:a/b:c", "http://host").name == "openai:a/b:c"
    for model, url, words in (
        ("openai:m", "", "needs --url"),
        ("openai:", "http://host", "openai:NAME"),
        ("gpt", "http://host", "openai:NAME"),
        ("openai:m", "file:///etc", "--url is"),
        ("openai:m", "https://me:pass@host", "SALMONN_API_KEY"),
        (f"hf:{tmp_path}", "", "no config.json"),
        (f"hf:{tmp_path}", "http://host", "for openai"),
    ):
        with pytest.raises(UserError, match=words) as caught:
            open_foreign(model, url)
        assert "pass@" not in str(caught.value)


SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Qwen2-Audio, real but for its size and its random weights, saved as a model's folder is."""
    folder = tmp_path_factory.mktemp("models") / "tiny-qwen2-audio"
    pieces = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(piece, special=True) for piece in SPECIAL])
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = Qwen2AudioConfig(
            audio_config={
                "model_type": "qwen2_audio_encoder",
                "num_mel_bins": 16,
                "encoder_layers": 1,
                "encoder_attention_heads": 2,
                "encoder_ffn_dim": 16,
                "d_model": 16,
                "initializer_range": 0.3,
            },
            text_config={
                "model_type": "qwen2",
                "vocab_size": len(pieces),
                "hidden_size": 16,
                "intermediate_size": 32,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "num_key_value_heads": 2,
                "max_position_embeddings": 4096,
                "initializer_range": 0.5,
            },
            audio_token_index=3,
        )
        model = Qwen2AudioForConditionalGeneration(config)
    # The piece that it says most in the tests ends its answers, so that some are finished and some are not.
    model.generation_config.eos_token_id = [2, len(SPECIAL) + 3]
    model.generation_config.pad_token_id = 0
    model.save_pretrained(folder)
    Qwen2AudioProcessor(WhisperFeatureExtractor(feature_size=16), wrapped).save_pretrained(folder)
    return folder


WAVES = [(0.1 * np.random.default_rng(n).standard_normal(n)).astype(np.float32) for n in (4000, 30_000, 16_000, 801)]
PROMPTS = ["What is this?", "Say it again please, and at some length.", "Hm?", "Who?"]


def test_a_folder_answers_as_transformers_own_way_does(tiny: Path) -> None:
    respondent = FolderRespondent(tiny)
    replies = respondent.reply(WAVES, PROMPTS, Decoding(beams=1, max_new_tokens=16))
    processor = Qwen2AudioProcessor.from_pretrained(tiny)
    model = Qwen2AudioForConditionalGeneration.from_pretrained(tiny).eval()
    for wave, prompt, reply in zip(WAVES, PROMPTS, replies, strict=True):
        # As the model's card shows it, one at a time.
        text = (
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
            f"Audio 1: <|audio_bos|><|AUDIO|><|audio_eos|>\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
        )
        long = np.pad(wave, (0, max(0, 3200 - len(wave))))
        inputs = processor(text=text, audio=[long], sampling_rate=16_000, return_tensors="pt")
        with torch.inference_mode():
            made = model.generate(**inputs, max_new_tokens=16, do_sample=False)
        new = made[0, inputs["input_ids"].shape[1] :]
        assert reply.answer == processor.decode(new, skip_special_tokens=True).strip()
        assert reply.finished is bool({2, len(SPECIAL) + 3} & set(new.tolist()))
    assert len({reply.answer for reply in replies}) > 1


@pytest.mark.parametrize("beams", [1, 3])
def test_its_answers_do_not_depend_on_the_batch(tiny: Path, beams: int) -> None:
    respondent, decoding = FolderRespondent(tiny), Decoding(beams=beams, max_new_tokens=4)
    together = respondent.reply(WAVES, PROMPTS, decoding)
    assert together == [respondent.reply([w], [p], decoding)[0] for w, p in zip(WAVES, PROMPTS, strict=True)]


def test_a_folder_s_answers_are_files_like_a_run_s(tiny: Path, asking: Asking, tmp_path: Path) -> None:
    respondent = FolderRespondent(tiny)
    request = Request(beams=2, max_new_tokens=4, batch_examples=3)
    answer_stage(respondent, asking, request, tmp_path)
    found = rows(tmp_path)
    assert {task: len(own) for task, own in found.items()} == {"asr": 7, "gender_recognition": 7, "spoken_query_qa": 3}
    assert {one.model for own in found.values() for one in own} == {respondent.name}
    assert respondent.name.startswith("hf:tiny-qwen2-audio@") and len(respondent.name.partition("@")[2]) == 12
    before = contents(tmp_path)
    answer_stage(FolderRespondent(tiny), asking, request, tmp_path)
    assert contents(tmp_path) == before


def test_a_folder_that_changed_has_another_name(tiny: Path, tmp_path: Path) -> None:
    for path in tiny.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "x").write_text("x")
    same = FolderRespondent(tmp_path).name.partition("@")[2]
    assert same == FolderRespondent(tiny).name.partition("@")[2]
    weights = bytearray((tmp_path / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (tmp_path / "model.safetensors").write_bytes(weights)
    assert FolderRespondent(tmp_path).name.partition("@")[2] != same


def test_folders_that_cannot_answer_are_told(tiny: Path, tmp_path: Path) -> None:
    decoding = Decoding(beams=1, max_new_tokens=2)
    with pytest.raises(UserError, match="only 1 fits"):
        FolderRespondent(tiny).reply(WAVES[:1], PROMPTS[:1], Decoding(beams=1, max_new_tokens=2, lora_scale=2.0))
    with pytest.raises(UserError, match="does not take a sound"):
        FolderRespondent(tiny).reply(WAVES[:1], ["What is <|AUDIO|>?"], decoding)
    for name, content in (("config.json", b'{"model_type": "qwen2"}'), ("model.safetensors", b"half")):
        folder = tmp_path / name
        folder.mkdir()
        for path in tiny.iterdir():
            (folder / path.name).write_bytes(content if path.name == name else path.read_bytes())
        with pytest.raises(UserError, match="cannot load the folder"):
            FolderRespondent(folder).reply(WAVES[:1], PROMPTS[:1], decoding)


def given_rows(asking: Asking) -> list[dict[str, str]]:
    """A right answer to every question, with all that tells it from others."""
    found = []
    for task, batches in asking.batches.items():
        keys = [question.key for batch in batches for question in batch]
        found += [{"key": key, "task": task, "answer": f"{key.replace('_', '/', 1)} two"} for key in keys]
    return found


def write(path: Path, made: list[dict[str, Any]]) -> Path:
    if path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8-sig") as file:
            writer = csv.DictWriter(file, list(made[0]))
            writer.writeheader()
            writer.writerows(made)
    else:
        path.write_text("\n".join(json.dumps(row) for row in made) + "\n")
    return path


@pytest.mark.parametrize("name", ["theirs.jsonl", "theirs.csv"])
def test_a_file_of_answers_is_joined_and_scored(asking: Asking, tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, given_rows(asking))
    joined = take_answers(path, asking, GREEDY, tmp_path / "out")
    assert (joined.taken, joined.unknown, joined.missing) == (17, (), ())
    for own in rows(tmp_path / "out").values():
        for one in own:
            assert one.answer == one.references[1] and one.model.startswith(f"answers:{name}@") and one.finished
    scores = {one.task: one.score for one in score_all(tmp_path / "out").sets}
    assert scores["spoken_query_qa"] is not None and scores["spoken_query_qa"].value == 1
    before = contents(tmp_path / "out")
    take_answers(path, asking, GREEDY, tmp_path / "out")
    assert contents(tmp_path / "out") == before
    path.write_text(path.read_text().replace(" two", " six"))
    with pytest.raises(UserError, match="model was"):
        take_answers(path, asking, GREEDY, tmp_path / "out")
    take_answers(path, asking, GREEDY, tmp_path / "out", anew=True)
    assert contents(tmp_path / "out") != before


def test_unknown_and_missing_keys_are_counted_and_named(
    asking: Asking, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = given_rows(asking)
    gone = [row for row in made if row["task"] == "asr"][:2]
    strangers = [{"key": f"nobody_{n}", "task": "asr", "answer": "x"} for n in range(8)]
    path = write(tmp_path / "a.jsonl", [row for row in made if row not in gone] + strangers)
    with caplog.at_level(logging.WARNING):
        joined = take_answers(path, asking, GREEDY, tmp_path / "out", model="theirs")
    assert joined.taken == 15 and joined.unknown == tuple(row["key"] for row in strangers)
    assert sorted(joined.missing) == sorted(f"asr {row['key']}" for row in gone)
    assert "8 answers to no question" in caplog.text and "nobody_0" in caplog.text and "3 more" in caplog.text
    assert "2 questions have no answer" in caplog.text and gone[0]["key"] in caplog.text
    by_key = {one.key: one for one in rows(tmp_path / "out")["asr"]}
    # Nothing is dropped: who leaves out what is hard does not score better.
    assert {one.decoding for one in score_all(tmp_path / "out").sets} == {"decoding not told"}
    assert len(by_key) == 7 and {by_key[row["key"]].answer for row in gone} == {""}
    assert not by_key[gone[0]["key"]].finished and {one.model for one in by_key.values()} == {"theirs"}


def test_what_lmms_eval_logs_is_taken(asking: Asking, tmp_path: Path) -> None:
    logged = [
        {
            "doc_id": number,
            "doc": {"key": row["key"], "task": row["task"], "prompt": "", "slot": "", "answer": "not this"},
            "target": "not this",
            "arguments": ["x", {}],
            "resps": [[row["answer"] + " raw"]],
            "filtered_resps": [row["answer"]],
            "doc_hash": "0",
            "answered": 1.0,
        }
        for number, row in enumerate(given_rows(asking))
    ]
    joined = take_answers(write(tmp_path / "s.jsonl", logged), asking, GREEDY, tmp_path / "out")
    assert joined.taken == 17 and not joined.missing
    assert all(one.answer == one.references[1] for own in rows(tmp_path / "out").values() for one in own)


def test_a_run_s_own_files_are_taken(asking: Asking, server: Endpoint, tmp_path: Path) -> None:
    answer_stage(EndpointRespondent(server.url, "ear", QUICK), asking, GREEDY, tmp_path / "a")
    whole = b"".join(path.read_bytes() for path in sorted((tmp_path / "a").glob("*.jsonl")))
    (tmp_path / "all.jsonl").write_bytes(whole)
    take_answers(tmp_path / "all.jsonl", asking, GREEDY, tmp_path / "b", model="openai:ear")
    assert rows(tmp_path / "b") == rows(tmp_path / "a")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", "", "is empty"),
        ("a.jsonl", '{"key": "k"}\n', "line 1.*answer"),
        (
            "a.jsonl",
            '{"key": "librispeech_test-clean-0", "answer": "x", "task": "asr"}\n[1]\n',
            "line 2 is no JSON object",
        ),
        ("a.jsonl", '{"key": "k", "answer": null}\n', "line 1"),
        ("a.jsonl", '{"key": "nobody", "answer": "x"}\n', "none of its 1 keys.*'nobody'"),
        ("a.jsonl", '{"key": "librispeech_test-clean-0", "answer": "x"}\n', "a column 'task'"),
        ("a.jsonl", 2 * '{"key": "librispeech_test-clean-0", "answer": "x", "task": "asr"}\n', "lines 1 and 2 both"),
        ("a.csv", "name,answer\na,b\n", "line 2.*key"),
        ("a.csv", 'key,answer\n"a,b\n', "unexpected end"),
        ("a.jsonl", b"\xff\xfe\x00", "is not UTF-8"),
    ],
)
def test_files_that_are_none_are_told(
    asking: Asking, tmp_path: Path, name: str, content: str | bytes, words: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=words):
        take_answers(path, asking, GREEDY, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="cannot read"):
        take_answers(tmp_path / "nothing.jsonl", asking, GREEDY, tmp_path / "out")


def test_the_command_asks_others_and_takes_files(
    server: Endpoint, dataset: Dataset, asking: Asking, tmp_path: Path
) -> None:
    from typer.testing import CliRunner

    from salmonn.cli import app

    recipe = tmp_path / "small.toml"
    recipe.write_text(
        'title = "small"\n[[evaluate]]\ntask = "asr"\ncorpus = "librispeech"\nsplits = ["test-clean"]\n'
        '[[evaluate]]\ntask = "spoken_query_qa"\ncorpus = "wikiqa"\nsplits = ["test"]\n'
    )
    common = ["evaluate", "--data", dataset.url, "--recipe", str(recipe)]

    def run(*more: str) -> Any:
        return CliRunner().invoke(app, [*common, *more])

    out, page = tmp_path / "out", tmp_path / "page.html"
    done = run("--model", "openai:ear", "--url", server.url, "--out", str(out), "--html", str(page))
    assert done.exit_code == 0, done.output
    assert {task: len(own) for task, own in rows(out).items()} == {"asr": 7, "spoken_query_qa": 3}
    assert "openai:ear" in page.read_text() and SECRET not in done.output
    path = write(tmp_path / "theirs.csv", [row for row in given_rows(asking) if row["task"] != "gender_recognition"])
    done = run("--answers", str(path), "--out", str(tmp_path / "taken"), "--json", str(tmp_path / "scores.json"))
    assert done.exit_code == 0 and "10 answers taken" in " ".join(done.output.split()), done.output
    scores = {one["task"]: one for one in json.loads((tmp_path / "scores.json").read_text())["sets"]}
    assert scores["spoken_query_qa"]["score"]["value"] == 1 and scores["asr"]["count"] == 7
    for more, words in (
        (("--model", "openai:ear", "--url", server.url), "needs --out"),
        (("--model", "gpt", "--out", "x"), "openai:NAME"),
        (("run", "--answers", str(path), "--out", "x"), "leave one out"),
        (("--answers", str(path), "--out", "x", "--workers", "2"), "are for runs"),
        (("--answers", str(path), "--out", "x", "--at-steps", "all"), "figures are drawn of runs"),
        (("--model", "openai:e", "--url", server.url, "--out", "x", "--lora-scale", "2"), "has no LoRA"),
    ):
        failed = run(*more)
        assert isinstance(failed.exception, UserError) and words in str(failed.exception), (more, failed.exception)
