"""The whole model against the reference implementation: every case of tests/golden/full."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from salmonn.batch import tokenize_all
from salmonn.checkpoint import load_released, released_name
from salmonn.lora import rescale_adapter_scale
from salmonn.model import Salmonn

GOLDEN = Path(__file__).parent / "golden" / "full"
FACTS = json.loads((GOLDEN / "cases.json").read_text())
CLIPS, CASES = FACTS["clips"], FACTS["cases"]
TENSORS = load_file(GOLDEN / "cases.safetensors")
AUDIO_TOKENS, LOSS, NLL, GRADIENT = 1e-4, 1e-4, 5e-4, 1e-4
NEW = 24

torch.set_num_threads(2)


def beats_file(folder: Path) -> Path:
    """Write the golden BEATs in the format of the published checkpoint."""
    path = folder / "beats.pt"
    config = json.loads((GOLDEN / "beats_config.json").read_text())
    torch.save({"cfg": config, "model": load_file(GOLDEN / "beats.safetensors")}, path)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Salmonn:
    beats = beats_file(tmp_path_factory.mktemp("beats"))
    return load_released(GOLDEN / "tiny_llama", GOLDEN / "tiny_whisper", beats, GOLDEN / "salmonn_tiny.pth")


@pytest.fixture(scope="module")
def padded(tmp_path_factory: pytest.TempPathFactory) -> Salmonn:
    """The same with the row that the reference's [PAD] appends to embedding and output layer."""
    beats = beats_file(tmp_path_factory.mktemp("beats"))
    model = load_released(GOLDEN / "tiny_llama", GOLDEN / "tiny_whisper", beats, GOLDEN / "salmonn_tiny.pth")
    base = model.llm.get_base_model()
    for layer, row in ((base.get_input_embeddings(), "embed_tokens"), (base.get_output_embeddings(), "lm_head")):
        layer.weight = torch.nn.Parameter(torch.cat([layer.weight, TENSORS[f"pad_row.{row}"][None]]), False)
    return model


def given(*names: str) -> tuple[list[np.ndarray], list[str], list[str]]:
    waves = [TENSORS[f"{name}.wave_int16"].numpy().astype(np.float32) / FACTS["wave_scale"] for name in names]
    return waves, [CLIPS[name]["prompt"] for name in names], [CLIPS[name]["answer"] for name in names]


@pytest.mark.parametrize("name", CLIPS)
def test_token_ids_are_the_reference_s(model: Salmonn, name: str) -> None:
    facts = CLIPS[name]
    _, prompts, answers = given(name)
    (row,) = tokenize_all(model.tokenizer, prompts, answers, model.config)
    assert row.before == (1, *facts["ids_before"])
    assert row.after == tuple(facts["ids_after"])
    assert row.answer == tuple(facts["ids_answer"])
    assert len(row.before) + 88 + len(row.after) + len(row.answer) == facts["sequence_length"]
    assert row.answer[-1] == model.tokenizer.eos_token_id == 2


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_audio_tokens_equal_the_reference_alone_and_in_a_batch(model: Salmonn, case: str) -> None:
    names = CASES[case]["clips"]
    tokens_BAD = model.audio_tokens(given(*names)[0])
    for name, tokens_AD in zip(names, tokens_BAD, strict=True):
        assert (tokens_AD - TENSORS[f"{name}.audio_tokens"]).abs().max() < AUDIO_TOKENS, name


@torch.no_grad()
def test_all_clips_in_one_batch_hear_what_each_hears_alone(model: Salmonn) -> None:
    """From 0.4 s to 31 s: nothing of a longer neighbour reaches a clip."""
    tokens_BAD = model.audio_tokens(given(*CLIPS)[0])
    for name, tokens_AD in zip(CLIPS, tokens_BAD, strict=True):
        assert (tokens_AD - TENSORS[f"{name}.audio_tokens"]).abs().max() < AUDIO_TOKENS, name


@pytest.mark.parametrize("pad_row", [False, True])
@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_losses_equal_the_reference(model: Salmonn, padded: Salmonn, case: str, pad_row: bool) -> None:
    names, ending = CASES[case]["clips"], "" if pad_row else "_without_pad_row"
    found = (padded if pad_row else model).answer_tokens(*given(*names))
    assert len(found.nll_N) == CASES[case]["answer_tokens"]
    assert found.nll_N.mean().item() == pytest.approx(CASES[case][f"loss_invariant{ending}"], abs=LOSS)
    for row, name in enumerate(names):
        own = found.row_N == row
        assert found.nll_N[own].mean().item() == pytest.approx(CLIPS[name][f"loss{ending}"], abs=LOSS)
        expected = torch.tensor(CLIPS[name][f"token_nll{ending}"])
        assert (found.nll_N[own] - expected).abs().max() < NLL
        assert int(found.correct_N[own].sum()) == CLIPS[name]["correct_tokens"]


@pytest.mark.parametrize("name", CLIPS)
@torch.no_grad()
def test_losses_at_other_scales_of_lora_equal_the_reference(padded: Salmonn, name: str) -> None:
    for scale, expected in CLIPS[name]["loss_at_lora_scale"].items():
        with rescale_adapter_scale(padded.llm, float(scale)):
            assert padded.loss(*given(name)).item() == pytest.approx(expected, abs=LOSS), scale


def test_gradients_equal_the_reference(padded: Salmonn) -> None:
    facts = FACTS["gradient"]
    padded.zero_grad()
    padded.loss(*given(facts["clip"])).backward()
    gradients = {released_name(name): padded.get_parameter(name).grad for name in padded.trained}
    for key in facts["tensors"]:
        assert (gradients[key.removeprefix("grad.")] - TENSORS[key]).abs().max() < GRADIENT, key
    assert all(weight.grad is None for name, weight in padded.named_parameters() if name not in padded.trained)


@pytest.mark.parametrize(("beams", "ids"), [(1, "greedy_ids"), (4, "beam4_ids")])
def test_generated_ids_equal_the_reference_in_a_left_padded_batch(model: Salmonn, beams: int, ids: str) -> None:
    waves, prompts, _ = given(*CLIPS)
    together = model.generate_ids(waves, prompts, beams=beams, max_new_tokens=NEW)
    assert together == [facts[ids] for facts in CLIPS.values()]


@pytest.mark.slow
@pytest.mark.parametrize(("beams", "ids"), [(1, "greedy_ids"), (4, "beam4_ids")])
def test_generated_ids_equal_the_reference_alone(model: Salmonn, beams: int, ids: str) -> None:
    for name, facts in CLIPS.items():
        waves, prompts, _ = given(name)
        assert model.generate_ids(waves, prompts, beams=beams, max_new_tokens=NEW) == [facts[ids]], name


@torch.no_grad()
def test_a_mixed_batch_is_each_clip_alone(model: Salmonn) -> None:
    batch = model.answer_tokens(*given(*CLIPS))
    for row, name in enumerate(CLIPS):
        alone = model.answer_tokens(*given(name))
        assert (batch.nll_N[batch.row_N == row] - alone.nll_N).abs().max() < 1e-5


@torch.no_grad()
def test_gradient_checkpointing_leaves_loss_and_gradients(model: Salmonn) -> None:
    def gradients() -> list[torch.Tensor]:
        model.train().zero_grad()
        torch.manual_seed(5)
        with torch.enable_grad():
            model.loss(*given("m0", "m1")).backward()
        return [model.get_parameter(name).grad.clone() for name in model.trained]

    plain = gradients()
    model.speed_up(gradient_checkpointing=True)
    counted: list[int] = []
    layer = model.llm.get_base_model().model.layers[0].mlp
    handle = layer.register_forward_pre_hook(lambda *_: counted.append(1))
    twice = gradients()
    handle.remove()
    assert len(counted) == 2, "each layer is computed again in the backward pass"
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(plain, twice, strict=True))
    assert not any(m.training for m in model.llm.modules() if isinstance(m, torch.nn.Linear)), "layers stay in eval"
    model.eval()
