"""Training: resumed to the bit, refused by name, each step once in the log, and learning something."""

from __future__ import annotations

import math
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from manifests.errors import UserError
from manifests.settings import convert
from salmonn.config import OptimizerConfig
from salmonn.model import Salmonn
from salmonn.training.optimizer import learning_rate, make_optimizer
from salmonn.training.run import Log, StepLog, load_run
from salmonn.training.saves import checkpoint_paths
from salmonn.training.settings import BatchConfig, TrainConfig, differences, resolve
from salmonn.training.trainer import Trainer, run_training
from tiny_model import MODEL, STEADY, ToneStream, config, example

torch.set_num_threads(1)


def lines(run: Path) -> list[StepLog]:
    return Log(run).lines()


def learnt(run: Path) -> list[tuple[Any, ...]]:
    """What must be equal to the bit; the clock may differ."""
    return [(line.step, line.loss, line.grad_norm, line.lr, line.tasks, line.tokens) for line in lines(run)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("undisturbed")
    result = run_training(config(run), ToneStream())
    assert (result.steps, result.resumed_from, result.ended) == (6, 0, "done")
    return run


def test_a_run_resumed_twice_equals_one_undisturbed_to_the_bit(undisturbed: Path, tmp_path: Path) -> None:
    ended = []
    for stop_after in (1, 3, None):
        torch.manual_seed(1234)  # a new process has another random state
        result = run_training(config(tmp_path), ToneStream(), stop_after=stop_after)
        ended.append((result.resumed_from, result.steps, result.ended))
    assert ended == [(0, 1, "stop_after"), (1, 4, "stop_after"), (4, 6, "done")]
    assert learnt(tmp_path) == learnt(undisturbed)
    for name in ("model.safetensors", "optimizer.safetensors", "state.json"):
        newest = checkpoint_paths(tmp_path / "checkpoints")[-1] / name
        assert newest.read_bytes() == (undisturbed / "checkpoints" / "step-000006" / name).read_bytes()
    # a finished run is left as it is
    again = run_training(config(tmp_path), ToneStream())
    assert (again.resumed_from, again.steps, again.tokens, again.ended) == (6, 6, 0, "done")


def test_killed_between_checkpoints_the_lost_steps_are_done_again(undisturbed: Path, tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def kill(line: StepLog) -> None:
        if line.step == 5:
            raise Killed

    settings = config(tmp_path, checkpoint_every=2)
    with pytest.raises(Killed):
        run_training(settings, ToneStream(), on_step=kill)
    with (tmp_path / "log.jsonl").open("ab") as log:
        log.write(b'{"step": 6, "loss"')  # and the kill came in the middle of a line
    assert [line.step for line in lines(tmp_path)] == [1, 2, 3, 4, 5]
    result = run_training(settings, ToneStream())
    assert result.resumed_from == 4
    assert [line.step for line in lines(tmp_path)] == [1, 2, 3, 4, 5, 6]
    assert learnt(tmp_path) == learnt(undisturbed)


def test_a_torn_newest_checkpoint_costs_its_steps_only(undisturbed: Path, tmp_path: Path) -> None:
    settings = config(tmp_path, checkpoint_every=2)
    run_training(settings, ToneStream(), stop_after=4)
    (tmp_path / "checkpoints" / "step-000004" / "optimizer.safetensors").write_bytes(b"torn")
    assert run_training(settings, ToneStream()).resumed_from == 2
    assert learnt(tmp_path) == learnt(undisturbed)


def test_a_signal_ends_the_run_after_its_step(tmp_path: Path) -> None:
    def interrupt(line: StepLog) -> None:
        if line.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    result = run_training(config(tmp_path), ToneStream(), on_step=interrupt)
    assert (result.steps, result.ended) == (2, "signal")
    assert [path.name for path in checkpoint_paths(tmp_path / "checkpoints")] == ["step-000002"]
    assert signal.getsignal(signal.SIGTERM) is before


def test_another_configuration_is_refused_by_name(undisturbed: Path) -> None:
    other = config(undisturbed, seed=1, batch=BatchConfig(max_examples=16))
    with pytest.raises(UserError, match=r"other settings: batch.max_examples was 4, is 16; seed was 0, is 1\. Give"):
        run_training(other, ToneStream())
    with pytest.raises(UserError, match="steps was 6, is 5"):
        run_training(config(undisturbed, steps=5), ToneStream())


def test_reseeding_goes_on_with_the_weights_and_begins_the_stream_again(undisturbed: Path, tmp_path: Path) -> None:
    run_training(config(tmp_path), ToneStream(), stop_after=3)
    other = config(tmp_path, seed=1, dataset="other tones")
    with pytest.raises(UserError, match=r"dataset was 'tones', is 'other tones'; seed was 0, is 1.*--reseed goes on"):
        run_training(other, ToneStream())
    stream = ToneStream()
    result = run_training(other, stream, reseed=True, stop_after=2)
    assert (result.resumed_from, result.steps, stream.dealt) == (3, 5, 2)
    told = lines(tmp_path)
    assert [line.step for line in told] == [1, 2, 3, 4, 5]
    assert [told[3].examples, told[4].examples] == [told[0].examples, told[1].examples]
    assert told[3].loss != told[0].loss
    # From here on it is a run of the new settings, and resumed as any other.
    result = run_training(other, ToneStream())
    assert (result.resumed_from, result.steps) == (5, 6)
    with pytest.raises(UserError, match="seed was 1, is 0"):
        run_training(config(tmp_path), ToneStream())
    fast = msgspec.structs.replace(other, optimizer=msgspec.structs.replace(other.optimizer, peak_lr=0.5))
    with pytest.raises(UserError, match=r"optimizer\.peak_lr was"):
        run_training(fast, ToneStream(), reseed=True)


def test_steps_may_be_extended(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run_training(config(tmp_path, steps=2), ToneStream())
    result = run_training(config(tmp_path, steps=3, checkpoint_every=1, keep=1), ToneStream())
    assert (result.resumed_from, result.steps) == (2, 3)
    assert "follows the longer cosine" in caplog.text
    assert [line.step for line in lines(tmp_path)] == [1, 2, 3]


def test_the_log_tells_each_task(undisturbed: Path) -> None:
    for line in lines(undisturbed):
        assert set(line.tasks) == {"asr", "gender_recognition"}
        assert sum(task.tokens for task in line.tasks.values()) == line.tokens
        asked = Counter(example(7 * (line.step - 1) + i).task for i in range(line.examples))
        assert line.mixture == asked == {name: task.examples for name, task in line.tasks.items()}
        assert line.clips_per_second == pytest.approx(line.examples / line.seconds)
        assert line.tokens_per_second == pytest.approx(line.tokens / line.seconds)
        assert 0 <= line.wait_seconds <= line.seconds
        assert line.memory > 2**26, "python with torch holds more than 64 MiB"
        assert line.skipped == ()
        total = sum(task.loss * task.tokens for task in line.tasks.values())
        assert line.loss == pytest.approx(total / line.tokens)
        assert 0 <= line.padding < 1
        assert line.truncated == sum(
            example(7 * (line.step - 1) + i).answer == "very high indeed" for i in range(line.examples)
        )


def test_micro_batches_make_one_step(tmp_path: Path) -> None:
    """The loss and the gradient are those of all examples at once: a sum over tokens, not a mean of means."""
    model = STEADY
    settings = config(tmp_path, model=model, batch=BatchConfig(micro_batches=2))
    result = run_training(settings, ToneStream(micro_batches=2), stop_after=1)
    batches = iter(ToneStream())
    examples = [*next(batches).examples, *next(batches).examples]
    whole = Salmonn.from_config(model).train()
    prompts = [model.prompt.wrap(e.prompt) for e in examples]
    loss = whole.loss([e.audio for e in examples], prompts, [e.answer for e in examples])
    loss.backward()
    norm = math.sqrt(sum(float(w.grad.square().sum()) for w in whole.parameters() if w.grad is not None))
    assert result.first_loss == pytest.approx(loss.item(), rel=1e-5)
    assert lines(tmp_path)[0].grad_norm == pytest.approx(norm, rel=1e-4)
    assert lines(tmp_path)[0].examples == len(examples)


def test_a_run_is_loaded_with_what_it_learnt(undisturbed: Path) -> None:
    settings, model, step = load_run(undisturbed)
    assert step == 6
    assert settings.run == str(undisturbed)
    fresh = Salmonn.from_config(MODEL)
    moved = [
        name for name, weight in model.trainable_state().items() if not weight.equal(fresh.trainable_state()[name])
    ]
    assert len(moved) > 20
    assert not model.training


def test_weights_of_another_base_model_are_refused(undisturbed: Path, tmp_path: Path) -> None:
    run_training(config(tmp_path), ToneStream(), stop_after=1)
    trainer = Trainer(config(tmp_path), Salmonn.from_config(MODEL), ToneStream())
    trainer.frozen = "0" * 64
    with pytest.raises(UserError, match="other frozen weights"):
        trainer.resume()


def test_a_diverging_run_says_so_and_keeps_its_weights(tmp_path: Path) -> None:
    trainer = Trainer(config(tmp_path), Salmonn.from_config(MODEL), ToneStream())
    with torch.no_grad():
        trainer.model.qformer.projection.bias[0] = math.nan
    before = {name: weight.clone() for name, weight in trainer.model.trainable_state().items()}
    tmp_path.mkdir(exist_ok=True)
    words = (
        r"step 1: the loss is nan .* 3 of its examples.*examples: tone-0, tone-1, tone-2\. .*lower optimizer.peak_lr"
    )
    with pytest.raises(UserError, match=words):
        trainer.run(stop_after=None, on_step=None)
    report = msgspec.json.decode((tmp_path / "stopped.json").read_bytes())
    assert report["keys"] == report["without_loss"] == ["tone-0", "tone-1", "tone-2"]
    assert not checkpoint_paths(tmp_path / "checkpoints")
    for name, weight in trainer.model.trainable_state().items():
        assert torch.equal(weight.nan_to_num(), before[name].nan_to_num()), name


@pytest.mark.slow
def test_it_learns(tmp_path: Path) -> None:
    result = run_training(config(tmp_path, steps=25), ToneStream())
    assert result.last_loss < 0.7 * result.first_loss


def test_the_learning_rate_is_the_released_one() -> None:
    released = OptimizerConfig()
    rates = [learning_rate(released, step, 90_000) for step in (0, 1500, 3000, 45_000, 90_000)]
    cosine = 1e-5 + 2e-5 * (1 + math.cos(math.pi / 30)) / 2
    assert rates == pytest.approx([1e-6, 1.55e-5, cosine, 2e-5, 1e-5])


def test_only_matrices_decay() -> None:
    model = Salmonn.from_config(MODEL)
    weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    decayed, free = make_optimizer(weights, OptimizerConfig()).param_groups
    assert decayed["weight_decay"] == 0.05
    assert free["weight_decay"] == 0
    assert any(w is model.qformer.query_1QE for w in decayed["params"])
    assert all(w.ndim < 2 for w in free["params"])
    assert len(decayed["params"]) + len(free["params"]) == len(weights)


def test_settings_resolve_presets_and_compare(tmp_path: Path) -> None:
    named = convert({"run": "r", "dataset": "d", "recipe": "x", "model": "tiny", "steps": 5}, TrainConfig, where="f")
    plain = resolve(named)
    assert plain.sizes.whisper.width == 64
    assert plain.adam.peak_lr > 1e-3, "the preset brings its own"
    assert resolve(plain) == plain
    assert differences(plain, msgspec.structs.replace(plain, steps=9, keep=5, run="elsewhere")) == []
    with pytest.raises(UserError, match="steps is 0"):
        convert({"run": "r", "dataset": "d", "recipe": "x", "model": "tiny", "steps": 0}, TrainConfig, where="f")
