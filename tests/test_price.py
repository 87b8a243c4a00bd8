"""The price of a run: counts equal the built model's, memory what autograd keeps, examples what training deals."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import build_index, build_world
from manifests import TASKS, load_recipe
from manifests.errors import UserError
from manifests.recipe import STAGES
from salmonn import cli
from salmonn.config import LLMConfig, LoraConfig, SalmonnConfig, load_preset
from salmonn.model import Salmonn
from salmonn.training.forecast import Fullest, forecast
from salmonn.training.memory import NAMES, estimate_memory
from salmonn.training.optimizer import make_optimizer, optimizer_tensors
from salmonn.training.price import price
from salmonn.training.run import Log, StepLog, TaskLog
from salmonn.training.settings import PARTS, BatchConfig, TrainConfig, differences, load_train_config, resolve
from salmonn.training.show import Pace, curve, show_tasks, spans
from salmonn.training.skeleton import PUBLISHED, skeleton
from salmonn.training.trainer import train
from shards import Dataset, Stream
from shards.report import plan_report
from tiny_model import MODEL, config, tone

STAGE_FILES = Path(cli.__file__).parent / "stages"
RECIPE = """title = "Two tasks"
[[instruct]]
task = "asr"
corpus = "librispeech"
splits = ["dev-clean"]
[[instruct]]
task = "gender_recognition"
corpus = "librispeech"
splits = ["dev-clean"]
[[evaluate]]
task = "asr"
corpus = "librispeech"
splits = ["test-clean"]
"""


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Hub is not asked, as in a test that happens to have a network it would be."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe and a dataset: 30 clips of two tasks, 1 to 5 s."""
    place = tmp_path_factory.mktemp("priced")
    (place / "two.toml").write_text(RECIPE)
    clips = [(16_000 * (1 + number % 5), ("asr", "gender_recognition")) for number in range(30)]
    build_world(str(place / "data"), {("librispeech", "dev-clean"): clips})
    return place


def settings_of(place: Path, **changes: Any) -> TrainConfig:
    told = {"dataset": str(place / "data"), "recipe": str(place / "two.toml"), "batch": BatchConfig(max_examples=4)}
    return config(changes.pop("run", place / "run"), **told | changes)


# -- weights


def counted(model: Salmonn) -> tuple[int, int]:
    trained = sum(w.numel() for w in model.parameters() if w.requires_grad)
    return trained, sum(w.numel() for w in model.parameters()) - trained


@pytest.mark.parametrize("name", ["tiny", "toy"])
def test_counts_are_those_of_the_built_model(name: str, place: Path) -> None:
    sizes = MODEL if name == "toy" else load_preset(name).model
    told = price(settings_of(place, model=sizes))
    built = Salmonn.from_config(sizes)
    assert (told.trained, told.frozen) == counted(built)
    assert told.learning == told.trained
    state = built.trainable_state()
    assert {part.name: part.trained for part in told.parts if part.trained} == {
        part: sum(state[name].numel() for name in names) for part, names in built.parts().items() if names
    }
    frozen = {NAMES[part]: getattr(built, part) for part in NAMES if getattr(built, part) is not None}
    for part in told.parts:
        if part.frozen:
            learnt = {id(w) for w in built.parameters() if w.requires_grad}
            held = frozen[part.name].parameters()
            assert part.frozen == sum(w.numel() for w in held if id(w) not in learnt), part.name


@pytest.mark.parametrize(("name", "trained"), [("salmonn-13b", 33_332_992), ("salmonn-7b", 30_186_240)])
def test_the_paper_s_models_have_the_paper_s_trained_weights(name: str, trained: int) -> None:
    """Without a weight or a config on this machine (facts: 33,332,992 and 30,186,240)."""
    model, remarks = skeleton(load_preset(name).model)
    assert counted(model)[0] == trained
    assert sum("published sizes" in remark for remark in remarks) == 2
    assert all(weight.is_meta for weight in model.parameters())


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("lmsys/vicuna-7b-v1.5", 6_738_415_616),
        ("lmsys/vicuna-13b-v1.1", 13_015_864_320),
        ("TinyLlama/TinyLlama-1.1B-Chat-v1.0", 1_100_048_384),
        ("Qwen/Qwen2.5-0.5B-Instruct", 494_032_768),
        ("Qwen/Qwen2.5-1.5B-Instruct", 1_543_714_304),
    ],
)
def test_published_language_models_have_their_published_size(name: str, weights: int) -> None:
    sizes = SalmonnConfig(whisper=MODEL.whisper, llm=LLMConfig(folder=name))
    model, _ = skeleton(sizes)
    trained = {weight for weight in model.llm.parameters() if weight.requires_grad}
    assert sum(weight.numel() for weight in model.llm.parameters() if weight not in trained) == weights


def test_every_model_of_a_preset_can_be_priced_without_a_download() -> None:
    for name in ("compact", "salmonn-7b", "salmonn-13b"):
        sizes = load_preset(name).model
        assert {sizes.whisper.folder, sizes.llm.folder} <= PUBLISHED.keys()


def test_an_unknown_model_is_told_with_what_is_missing(place: Path) -> None:
    sizes = SalmonnConfig(whisper=MODEL.whisper, llm=LLMConfig(folder="nobody/no-such-model"))
    with pytest.raises(UserError, match=r"llm: 'nobody/no-such-model' is neither a folder here nor in the .* cache"):
        price(settings_of(place, model=sizes))


def test_only_the_chosen_parts_learn(place: Path) -> None:
    told = price(settings_of(place, parts=("lora", "ln")))
    learning = {part.name for part in told.parts if part.learning}
    assert learning == {"lora", "ln"}
    assert told.learning == sum(part.trained for part in told.parts if part.name in learning) < told.trained
    assert told.checkpoint_weights == 4 * told.trained, "a checkpoint holds all that is trained in any stage"
    assert told.checkpoint_optimizer == 8 * told.learning
    bare = msgspec.structs.replace(MODEL, lora=LoraConfig())
    with pytest.raises(UserError, match="parts: this model has nothing trained in 'words'; it has"):
        price(settings_of(place, model=bare, parts=("words",)))


# -- memory


def kept_by_autograd(model: Salmonn, clips: int, letters: int, half: bool) -> tuple[int, Fullest]:
    """What autograd really keeps of a step, bytes; and the batch it was."""
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept: dict[int, torch.Tensor] = {}
    # The tensors are held here, so that no storage is freed and its address used again.

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    prompt, answer = "What is said?", "x" * letters
    model.train()
    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=half),
    ):
        tokens = model.answer_tokens(
            [tone(300, 1.0)] * clips, [model.config.prompt.wrap(prompt)] * clips, [answer] * clips
        )
    # One token a byte; a long answer was cut.
    text = len(model.config.prompt.wrap(prompt)) - len("<SpeechHere>")
    row = 1 + text + 88 + len(tokens.row_N) // clips
    fullest = Fullest(examples=clips, tokens=clips * row, answers=len(tokens.row_N))
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values()), fullest


@pytest.mark.parametrize(
    ("dtype", "half", "lora"),
    [
        ("float32", False, LoraConfig()),
        ("bfloat16", False, LoraConfig()),
        ("bfloat16", True, LoraConfig()),
        ("float32", False, LoraConfig(dropout=0.0, targets=("q_proj", "k_proj", "down_proj"))),
    ],
)
def test_activations_are_what_autograd_keeps(dtype: str, half: bool, lora: LoraConfig, tmp_path: Path) -> None:
    sizes = msgspec.structs.replace(
        MODEL,
        llm=LLMConfig(width=256, layers=3, heads=4, ffn=700, dtype=dtype),
        lora=lora,  # type: ignore[arg-type]
    )
    model = Salmonn.from_config(sizes)
    kept, fullest = kept_by_autograd(model, 3, 30, half)
    run = config(tmp_path, model=sizes, precision="bfloat16" if half else "float32")
    items = estimate_memory(model, run, "cpu", 1, fullest, 0).items
    told = items["activations kept by the Q-Former"] + items["activations kept by the language model"]
    assert told == pytest.approx(kept, rel=0.1)


def test_what_lies_there_all_the_time_is_counted_exactly(place: Path) -> None:
    run = settings_of(place)
    told = price(run).memory[0].items
    model = Salmonn.from_config(MODEL)
    weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    optimizer = make_optimizer(weights, run.adam)
    for weight in weights.values():
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    moments = [x for name, x in optimizer_tensors(weights, optimizer).items() if not name.endswith("/step")]
    assert told["trained weights"] == told["gradients"] == sum(w.nbytes for w in weights.values())
    assert told["AdamW's two moments"] == sum(x.nbytes for x in moments)
    assert told["weights of Whisper"] == sum(w.nbytes for w in model.whisper.parameters())


def test_one_clip_at_13b_takes_what_a_reproduction_saw(tmp_path: Path) -> None:
    """Facts, section 8: Vicuna-13B in half precision with batch size 1 took 30.7 GB of a GPU."""
    run = resolve(config(tmp_path, model="salmonn-13b", device="cuda"))
    model, _ = skeleton(run.sizes)
    told = estimate_memory(model, run, "cuda", 1, Fullest(examples=1, tokens=200, answers=40), 33_332_992)
    assert told.total == pytest.approx(30.7e9, rel=0.05)


def test_options_that_save_memory_save_it(tmp_path: Path) -> None:
    run = resolve(config(tmp_path, model="salmonn-7b", device="cuda"))
    model, _ = skeleton(run.sizes)
    full = Fullest(examples=8, tokens=1600, answers=400)

    def told(processes: int = 1, **changes: Any) -> dict[str, int]:
        changed = msgspec.structs.replace(run, **changes)
        return estimate_memory(model, changed, "cuda", processes, full, 30_186_240).items

    plain = told()
    words = "activations kept by the language model"
    assert told(gradient_checkpointing=True)[words] < plain[words] / 5
    cut = told(8, shard_frozen=True)
    assert cut["weights of the language model"] == plain["weights of the language model"] // 8
    assert 0.3e9 < cut["its layers at work, made whole"] < 1.5e9
    assert "its layers at work, made whole" not in told(8)
    assert told(8)["gradients on their way between processes"] == plain["gradients"]
    assert "their copies in bfloat16" not in told(precision="float32")


# -- data


def test_what_is_priced_is_what_training_deals(place: Path, tmp_path: Path) -> None:
    """The log of a real run, and its checkpoint, against the price told before."""
    run = settings_of(place, run=tmp_path / "run", steps=9, batch=BatchConfig(max_examples=4, micro_batches=2))
    told = price(run)
    train(run)
    lines = Log(run.folder).lines()
    assert told.data is not None
    assert told.data.examples == sum(line.examples for line in lines)
    assert told.data.hours * 3600 == pytest.approx(sum(line.audio_seconds for line in lines))
    assert told.data.epochs == pytest.approx(told.data.examples / 60)
    by_task = {task.name: task.examples for task in told.data.tasks}
    assert by_task == {name: sum(line.mixture.get(name, 0) for line in lines) for name in by_task}
    assert told.fullest.examples == max(-(-line.examples // 2) for line in lines)
    newest = run.folder / "checkpoints" / "step-000009"
    assert (newest / "model.safetensors").stat().st_size == pytest.approx(told.checkpoint_weights, rel=0.2)
    assert (newest / "optimizer.safetensors").stat().st_size == pytest.approx(told.checkpoint_optimizer, rel=0.2)


def test_the_plan_is_the_stream_s_own(place: Path) -> None:
    run = settings_of(place, steps=40, batch=BatchConfig(max_examples=4, micro_batches=3, max_seconds=40.0))
    told = price(run, processes=3)
    recipe, batch = load_recipe(run.recipe), run.batch
    stream = Stream(Dataset(run.dataset), recipe, micro_batches=3, max_seconds=40.0, max_examples=batch.max_examples)
    report = plan_report(stream, steps=40)
    assert told.data is not None
    assert (told.data.tasks, told.data.rows, told.data.examples) == (report.tasks, report.rows, report.examples)
    assert (told.data.hours, told.data.padding) == (report.hours, report.padding)


@settings(max_examples=25)
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=40), examples=st.integers(1, 6))
def test_the_fullest_batch_is_found(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], examples: int
) -> None:
    place = tmp_path_factory.mktemp("full")
    (place / "two.toml").write_text(RECIPE)
    clips = [(8_000 * length, ("asr", "gender_recognition")) for length in lengths]
    dataset = build_index(str(place / "data"), {("librispeech", "dev-clean"): clips})
    run = resolve(settings_of(place, steps=5, batch=BatchConfig(max_examples=examples)))
    found = forecast(run, load_recipe(run.recipe), 88).fullest
    # The same by hand: every batch, every row of it, in bytes, since the toy's tokenizer has one token a byte.
    stream = Stream(dataset, load_recipe(run.recipe), max_examples=examples)
    table = dataset.table("librispeech", "dev-clean")
    answers = [[max(len(text) for text in texts) for texts in row] for row in table["answers"].to_pylist()]
    order, mark, most, rows = stream.order, stream.order.start, 0, 0
    longest = {
        task: 3 * -(-max(len(text) for text in TASKS[task].prompts) // 3) for task in ("asr", "gender_recognition")
    }
    fixed = 1 + 88 + 3 * -(-(len(MODEL.prompt.wrap("")) - len("<SpeechHere>")) // 3)
    batches = tokens = 0
    while batches < 5:
        pool = order.pool(mark)
        for first, last in zip(pool.starts[:-1], pool.starts[1:], strict=True):
            if (batches := batches + 1) > 5:
                break
            lengths_of = [
                min(12, 3 * -(-answers[order.queues[q].sample[i]][order.queues[q].instruction[i]] // 3) + 1)
                for q, i in zip(pool.queue[first:last], pool.item[first:last], strict=True)
            ]
            prompts = [longest[order.queues[queue].row.task] for queue in pool.queue[first:last]]
            widest = max(prompt + answer for prompt, answer in zip(prompts, lengths_of, strict=True)) + fixed
            most, rows = max(most, sum(lengths_of)), max(rows, len(lengths_of))
            tokens = max(tokens, widest * len(lengths_of))
        mark = pool.next
    assert (found.examples, found.tokens, found.answers) == (rows, tokens, most)


def test_without_a_dataset_the_recipe_s_own_figures_are_told(tmp_path: Path) -> None:
    told = price(config(tmp_path, recipe="salmonn", stage="instruct", dataset=str(tmp_path / "none")))
    assert told.data is None and len(told.targets) == 16
    assert sum(target.samples or 0 for target in told.targets) == pytest.approx(2.37e6, rel=0.01)
    assert any("no dataset in" in remark for remark in told.remarks)


def test_processes_must_share_a_step(place: Path) -> None:
    with pytest.raises(UserError, match="micro_batches is 3, which 2 processes cannot share"):
        price(settings_of(place, batch=BatchConfig(micro_batches=3)), processes=2)


# -- the three stages


@pytest.mark.parametrize("name", ["pretrain", "instruct", "activate"])
def test_a_stage_s_settings_load_resolve_and_have_a_price(name: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    run = resolve(load_train_config(STAGE_FILES / f"{name}.toml"))
    assert name in STAGES and run.stage == name
    load_recipe(run.recipe).stage(run.stage)
    assert set(run.parts) < set(PARTS)
    told = price(run, processes=run.batch.micro_batches)
    assert told.trained == told.learning == 33_332_992
    assert told.checkpoint_weights == pytest.approx(133e6, rel=0.01)
    text = (STAGE_FILES / f"{name}.toml").read_text()
    other = re.sub("^model = .*", 'model = "compact"', text, flags=re.MULTILINE)
    assert '# model = "compact"' in text
    (tmp_path / "other.toml").write_text(other)
    assert price(load_train_config(tmp_path / "other.toml")).memory[0].total < 24e9


def test_the_stages_are_a_chain() -> None:
    pretrain, instruct, activate = (
        load_train_config(STAGE_FILES / f"{name}.toml") for name in ("pretrain", "instruct", "activate")
    )
    assert (pretrain.init_from, instruct.init_from, activate.init_from) == ("", pretrain.run, instruct.run)
    assert len({pretrain.run, instruct.run, activate.run}) == 3
    assert pretrain.batch.max_examples * pretrain.batch.micro_batches == 256
    assert pretrain.adam.schedule == "cosine" and pretrain.adam.warmup_steps == 3000
    assert activate.adam.schedule == "constant" and activate.steps == 12 and activate.batch.max_examples == 1
    assert activate.dataset != instruct.dataset


# -- settings


def test_what_may_change_between_resumes(tmp_path: Path) -> None:
    run = resolve(config(tmp_path))
    free = {"loggers": ("tensorboard",), "skips": 0.5, "gradient_checkpointing": True, "shard_frozen": True, "keep": 9}
    assert differences(run, msgspec.structs.replace(run, **free)) == []
    for name, value in {
        "compile": True,
        "precision": "bfloat16",
        "parts": ("lora",),
        "init_from": "x",
        "threads": 7,
    }.items():
        told = differences(run, msgspec.structs.replace(run, **{name: value}))
        assert len(told) == 1 and told[0].startswith(f"{name} was")


# -- the command


def salmonn(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Run the command in this process; its exit code."""
    monkeypatch.setattr(sys, "argv", ["salmonn", *map(str, arguments)])
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def write_run(place: Path, **changes: str) -> Path:
    """A settings file with some lines replaced or added."""
    lines = {
        "run": f'"{place / "run"}"',
        "dataset": f'"{place / "data"}"',
        "recipe": f'"{place / "two.toml"}"',
        "model": '"tiny"',
        "steps": "20",
    }
    path = place / "run.toml"
    path.write_text("".join(f"{name} = {value}\n" for name, value in (lines | changes).items() if value))
    return path


def test_dry_run_prints_tables_or_json_and_leaves_nothing(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_run(place)
    assert salmonn(monkeypatch, "train", path, "--dry-run") == 0
    out = capsys.readouterr().out
    for words in ("qformer", "AdamW's two moments", "gender_recognition", "20 steps of 1 batch", "a checkpoint takes"):
        assert words in out
    assert salmonn(monkeypatch, "train", path, "--dry-run", "--json", "--steps", "7") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["steps"] == 7 and told["trained"] == counted(skeleton(load_preset("tiny").model)[0])[0]
    assert told["data"]["examples"] == sum(task["examples"] for task in told["data"]["tasks"])
    assert [memory["device"] for memory in told["memory"]] == ["cuda", "cpu"]
    assert all(sum(memory["items"].values()) == memory["total"] for memory in told["memory"])
    assert not (place / "run").exists()


MISTAKES: list[tuple[dict[str, str], list[str], list[str]]] = [
    ({"stpes": "3"}, [], ["unknown key 'stpes'", "did you mean 'steps'?"]),
    ({"optimizer": "{ schedul = 'constant' }"}, [], ["unknown key 'schedul' in [optimizer]", "'schedule'?"]),
    ({"optimizer": "{ schedule = 'linear' }"}, [], ["'linear'", "optimizer.schedule"]),
    ({"parts": "['lra']"}, [], ["parts", "'lra'", "did you mean 'lora'?"]),
    ({"loggers": "['tensorbord']"}, [], ["'tensorbord'", "loggers"]),
    ({"precision": "'fp16'"}, [], ["'fp16'", "precision"]),
    ({"skips": "2.0"}, [], ["skips is 2.0"]),
    ({"model": "'tinny'"}, [], ["no model preset 'tinny'", "did you mean 'tiny'?"]),
    ({"stage": "'activate'"}, [], ["has no stage 'activate'", "instruct, evaluate"]),
    ({"stage": "'evaluate'"}, [], ["has no librispeech:test-clean"]),
    ({"dataset": "'nowhere'"}, [], ["no dataset in 'nowhere'", "salmonn build"]),
    ({"recipe": "'salmon'"}, [], ["no recipe 'salmon'", "'salmonn'"]),
    ({"init_from": "'runs/none'"}, [], ["init_from: there is nothing at 'runs/none'"]),
    ({}, ["--steps", "0"], ["--steps is 0"]),
    ({"batch": "{ max_seconds = 3.0 }"}, [], ["max_seconds is 3.0"]),
]


@pytest.mark.parametrize(("changes", "options", "words"), MISTAKES, ids=[str(one[0] or one[1]) for one in MISTAKES])
def test_a_mistake_is_one_clear_sentence(
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, str],
    options: list[str],
    words: list[str],
) -> None:
    path = write_run(place, **changes)
    assert salmonn(monkeypatch, "train", path, *options) == 2
    told = capsys.readouterr().err
    assert told.startswith("salmonn: ") and len(told.strip().splitlines()) == 1, told
    for word in words:
        assert word in told
    assert not (place / "run").exists()


# -- what a run shows


def line(step: int, **hits: float) -> StepLog:
    tasks = {task: TaskLog(loss=1.0, accuracy=share, tokens=10) for task, share in hits.items()}
    facts = {"lr": 0.0, "grad_norm": 0.0, "audio_seconds": 1.0, "padding": 0.0, "wait_seconds": 0.0, "seconds": 1.0}
    return StepLog(step=step, loss=1.0, tasks=tasks, tokens=20, examples=4, cut=0, truncated=0, **facts)


def test_the_alignment_plateau_can_be_seen(capsys: pytest.CaptureFixture[str]) -> None:
    whole = [line(step, asr=0.42 if step < 60 else 0.9, audio_caption=0.3) for step in range(1, 101)]
    show_tasks(spans(whole[80:], 10), whole)
    out = capsys.readouterr().out
    (asr,) = [row for row in out.splitlines() if row.startswith("asr")]
    bars = [ord(letter) - 0x2581 for letter in asr.split()[-1]]
    assert len(bars) == 34 and set(bars[:19]) == {3} and set(bars[20:]) == {7}
    assert "hits from step 1 to 100" in out


def test_a_curve_has_a_gap_where_a_task_was_not_dealt_and_tenths_without_utf8(monkeypatch: pytest.MonkeyPatch) -> None:
    from salmonn.training import show

    assert curve([0.0, None, 0.5, 1.0]) == "\u2581 \u2585\u2588"

    class Plain:
        encoding = "ascii"

    monkeypatch.setattr(show, "console", Plain())
    assert curve([0.0, 0.42, None, 0.99, 1.0]) == "04 99"


def test_a_pace_tells_speed_and_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    from salmonn.training import show

    now = iter(np.arange(100, 200, 0.5).tolist())
    monkeypatch.setattr(show.time, "monotonic", lambda: next(now))
    pace = Pace(7200)
    assert pace.note(line(1)) == "loss 1.000"
    for step in range(2, 100):
        said = pace.note(line(step))
    assert said == "loss 1.000, 8.0 clips/s, 59.2 min left"
