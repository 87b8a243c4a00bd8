"""Where a run starts: the weights of another stage, refused if they do not fit; parts that learn while others stay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from manifests.errors import Failed, UserError
from salmonn.checkpoint import export_released
from salmonn.model import Salmonn
from salmonn.training.run import Log, load_run
from salmonn.training.saves import checkpoint_paths, newest_checkpoint
from salmonn.training.start import init_from
from salmonn.training.trainer import Trainer, run_training
from tiny_model import MODEL, Batch, ToneStream, config

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of the stage before, with two checkpoints."""
    run = tmp_path_factory.mktemp("before")
    run_training(config(run, steps=2, checkpoint_every=1), ToneStream())
    return run


def weights(run: Path) -> dict[str, torch.Tensor]:
    found = newest_checkpoint(run / "checkpoints")
    assert found is not None
    return found.model


def started(run: Path, **changes: Any) -> dict[str, torch.Tensor]:
    """The weights of a run before its first step."""
    settings = config(run, **changes)
    run.mkdir(exist_ok=True)
    trainer = Trainer(settings, Salmonn.from_config(settings.sizes), ToneStream())
    trainer.resume()
    assert trainer.step == 0
    assert not trainer.optimizer.state, "the optimizer begins anew"
    return {name: weight.clone() for name, weight in trainer.model.trainable_state().items()}


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(one[name].equal(other[name]) for name in one)


def test_a_run_or_a_checkpoint_or_a_released_file_is_where_another_starts(before: Path, tmp_path: Path) -> None:
    first, last = checkpoint_paths(before / "checkpoints")
    assert equal(started(tmp_path / "a", init_from=str(before)), weights(before))
    assert equal(started(tmp_path / "b", init_from=str(last)), weights(before))
    assert not equal(started(tmp_path / "c", init_from=str(first)), weights(before))
    # Another stage may drop out more, and cut answers elsewhere.
    other = msgspec.structs.replace(
        MODEL, qformer=msgspec.structs.replace(MODEL.qformer, dropout=0.3), max_answer_tokens=20
    )
    assert equal(started(tmp_path / "d", init_from=str(before), model=other), weights(before))


def test_a_released_file_is_where_another_starts(tmp_path: Path) -> None:
    plain = msgspec.structs.replace(MODEL, lora=msgspec.structs.replace(MODEL.lora, trained_modules=()))
    model = Salmonn.from_config(plain)
    with torch.no_grad():
        for weight in model.trainable_state().values():
            weight.add_(0.25)
    export_released(model, tmp_path / "released.pth")
    assert equal(
        started(tmp_path / "e", init_from=str(tmp_path / "released.pth"), model=plain), model.trainable_state()
    )


def test_a_run_that_has_begun_does_not_start_again(before: Path, tmp_path: Path) -> None:
    settings = config(tmp_path, init_from=str(before), steps=2, checkpoint_every=1)
    run_training(settings, ToneStream(), stop_after=1)
    kept = weights(tmp_path)
    assert not equal(kept, weights(before))
    trainer = Trainer(settings, Salmonn.from_config(MODEL), ToneStream())
    trainer.resume()
    assert trainer.step == 1
    assert equal(dict(trainer.model.trainable_state()), kept)


def test_what_does_not_fit_is_refused_by_name(before: Path, tmp_path: Path) -> None:
    def refused(words: str, source: object = before, **changes: Any) -> None:
        with pytest.raises(UserError, match=words):
            started(tmp_path / "run", init_from=str(source), **changes)

    lora = msgspec.structs.replace(MODEL.lora, r=2, alpha=4.0)
    refused(
        r"init_from: .*step-000002 was trained as another model: lora\.alpha was 8\.0, is 4\.0; lora\.r was 4, is 2$",
        model=msgspec.structs.replace(MODEL, lora=lora),
    )
    llm = msgspec.structs.replace(MODEL.llm, seed=99)
    refused("trained with other frozen weights .*another base model", model=msgspec.structs.replace(MODEL, llm=llm))
    wider = msgspec.structs.replace(MODEL.llm, width=28)
    refused("other frozen weights", model=msgspec.structs.replace(MODEL, llm=wider))
    refused("there is nothing at '/nowhere'; it can be the folder of a run", "/nowhere")
    (tmp_path / "empty").mkdir()
    refused("has no checkpoint", tmp_path / "empty")
    torn = tmp_path / "torn"
    torn.mkdir()
    for path in checkpoint_paths(before / "checkpoints")[-1].iterdir():
        (torn / path.name).write_bytes(path.read_bytes())
    # Elsewhere than in its run, a checkpoint of the same settings will do; of others, nobody knows which they were.
    assert equal(started(tmp_path / "moved", init_from=str(torn)), weights(before))
    refused("config.json of its run is not beside it", torn, model=msgspec.structs.replace(MODEL, max_answer_tokens=3))
    (torn / "model.safetensors").write_bytes(b"torn")
    refused(r"the checkpoint .* is torn \(model.safetensors differs", torn)
    with pytest.raises(UserError, match="nothing at"):
        init_from(Salmonn.from_config(MODEL), str(tmp_path / "missing.pth"), "")


def test_only_the_parts_named_learn_and_all_are_saved(before: Path, tmp_path: Path) -> None:
    settings = config(tmp_path / "run", init_from=str(before), parts=("lora", "projection"), steps=3)
    run_training(settings, ToneStream(), stop_after=2)
    run_training(settings, ToneStream())
    then, now = weights(before), weights(tmp_path / "run")
    assert then.keys() == now.keys()
    moved = {name for name in then if not then[name].equal(now[name])}
    lora = {name for name in then if ".lora_" in name}
    assert moved == lora | {"qformer.projection.weight", "qformer.projection.bias"}
    found = newest_checkpoint(tmp_path / "run" / "checkpoints")
    assert found is not None
    slots = {name.rpartition("/")[0] for name in found.optimizer if not name.startswith("random/")}
    assert slots == moved, "what does not learn costs no memory of the optimizer"
    # The stage after learns all of it again, and an undisturbed run of the parts is the same to the bit.
    _, model, step = load_run(tmp_path / "run")
    assert (step, len(model.trainable_state())) == (3, len(then))
    run_training(config(tmp_path / "whole", init_from=str(before), parts=("lora", "projection"), steps=3), ToneStream())
    assert equal(weights(tmp_path / "whole"), now)
    frozen = msgspec.structs.replace(MODEL, lora=msgspec.structs.replace(MODEL.lora, trained_modules=()))
    with pytest.raises(UserError, match="nothing trained in 'words'; it has ln, lora, projection, qformer"):
        started(tmp_path / "none", parts=("words",), model=frozen)


class Damaging(ToneStream):
    """A stream that leaves out a sample now and then, and all samples of its third batch."""

    def __init__(self) -> None:
        super().__init__()
        self.skipped: list[str] = []

    def __iter__(self) -> Any:
        for number, batch in enumerate(super().__iter__()):
            if number in (1, 4):
                self.skipped.append(f"tone {number} is damaged")
            if number == 5:
                self.skipped.append("tone 4 is damaged")  # met again
            yield Batch(step=number, micro=0, examples=(), seconds=0.0, padding=0.0) if number == 2 else batch


def test_damaged_audio_is_counted_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = config(tmp_path / "run", checkpoint_every=1)
    result = run_training(settings, Damaging())
    assert result.skipped == ("tone 1 is damaged", "tone 4 is damaged")
    told = Log(tmp_path / "run").lines()
    assert [line.skipped for line in told] == [(), (result.skipped[0],), (), (), (result.skipped[1],), ()]
    assert "2 damaged samples were left out of this run: tone 1 is damaged; tone 4" in caplog.text
    # A step without any audio leaves the weights alone and is no division by zero.
    assert (told[2].examples, told[2].tokens, told[2].loss, told[2].tasks) == (0, 0, 0.0, {})
    again = run_training(msgspec.structs.replace(settings, steps=7), ToneStream())
    assert again.skipped == result.skipped, "a resumed run still knows"


def test_a_checkpoint_that_cannot_be_written_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, *pieces: bytes) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("salmonn.training.saves.write_synced", full)
    with pytest.raises(Failed, match=r"cannot write a checkpoint into .*: No space left on device"):
        run_training(config(tmp_path, checkpoint_every=1), ToneStream())


@pytest.mark.parametrize("changes", [{"precision": "bfloat16"}, {"gradient_checkpointing": True}])
def test_options_of_speed_and_memory_keep_the_curve(tmp_path: Path, changes: dict[str, Any]) -> None:
    runs = [config(tmp_path / name, steps=3, **told) for name, told in (("plain", {}), ("changed", changes))]
    plain, changed = (run_training(run, ToneStream()) for run in runs)
    exact = "gradient_checkpointing" in changes
    assert changed.last_loss == pytest.approx(plain.last_loss, rel=1e-5 if exact else 3e-2)
    if not exact:
        assert changed.last_loss != plain.last_loss, "products in bfloat16 have other bits"
