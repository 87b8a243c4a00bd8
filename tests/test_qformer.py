"""The window Q-Former against the reference implementation: outputs and gradients of tests/golden/qformer."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from salmonn.config import QFormerConfig
from salmonn.qformer import WindowQFormer

GOLDEN = Path(__file__).parent / "golden" / "qformer"
TOLERANCE = 5e-5
CASES = json.loads((GOLDEN / "cases.json").read_text())
TENSORS = load_file(GOLDEN / "cases.safetensors")

# released name -> ours, in this order
RENAMES = [
    (r"^speech_query_tokens$", "query_1QE"),
    (r"^speech_llama_proj\.", "projection."),
    (r"^speech_Qformer\.bert\.embeddings\.LayerNorm\.", "blip.layernorm."),
    (r"^speech_Qformer\.bert\.", "blip."),
    (r"\.(attention|crossattention)\.self\.", r".\1.attention."),
]


def own_name(name: str) -> str:
    for pattern, replacement in RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


@pytest.fixture
def qformer() -> WindowQFormer:
    sizes = json.loads((GOLDEN / "config.json").read_text())
    inner = sizes["qformer"]
    config = QFormerConfig(
        window_seconds=sizes["second_per_window"],
        stride_seconds=sizes["second_stride"],
        queries=sizes["n_query"],
        width=inner["hidden_size"],
        layers=inner["num_hidden_layers"],
        heads=inner["num_attention_heads"],
        ffn=inner["intermediate_size"],
    )
    assert (config.kernel, config.stride) == (sizes["kernel_frames"], sizes["stride_frames"])
    model = WindowQFormer(
        config, speech_width=sizes["d_speech"], audio_width=sizes["d_audio"], llm_width=sizes["d_llm"]
    )
    weights = load_file(GOLDEN / "model.safetensors")
    model.load_state_dict({own_name(name): weight for name, weight in weights.items()}, strict=True)
    return model.eval()


def run(qformer: WindowQFormer, case: str) -> torch.Tensor:
    facts = CASES["cases"][case]
    audio_BFC = TENSORS[f"{case}.audio"].float()
    speech_BFC = TENSORS["speech"][: facts["batch"]].float()
    assert (speech_BFC.shape[1], audio_BFC.shape[1]) == (facts["speech_frames"], facts["audio_frames"])
    return qformer(speech_BFC, audio_BFC)


@pytest.mark.parametrize("case", CASES["cases"])
def test_tokens_equal_the_reference(qformer: WindowQFormer, case: str) -> None:
    with torch.no_grad():
        tokens_BAD = run(qformer, case)
    expected = TENSORS[f"{case}.output"]
    assert tokens_BAD.shape == expected.shape
    assert tokens_BAD.shape[1] == CASES["cases"][case]["tokens"] == 88
    assert (tokens_BAD - expected).abs().max() < TOLERANCE


def test_gradients_equal_the_reference(qformer: WindowQFormer) -> None:
    facts = CASES["gradient"]
    scalar = run(qformer, facts["case"]).square().mean()
    assert scalar.item() == pytest.approx(facts["scalar_value"], abs=TOLERANCE)
    scalar.backward()
    for name in facts["tensors"]:
        gradient = qformer.get_parameter(own_name(name.removeprefix("grad."))).grad
        assert (gradient - TENSORS[name]).abs().max() < TOLERANCE, name
    # with one query the softmax is over one element: this learns nothing, here and in the released model
    assert not qformer.blip.encoder.layer[0].attention.attention.query.weight.grad.any()


def test_without_a_second_stream_there_are_88_tokens_too() -> None:
    config = QFormerConfig(width=8, heads=2, ffn=8)
    speech_BFC = torch.randn(3, 1500, 6)
    qformer = WindowQFormer(config, speech_width=6, llm_width=10).eval()
    assert qformer(speech_BFC).shape == (3, 88, 10)
    again = WindowQFormer(config, speech_width=6, llm_width=10).eval()
    assert qformer(speech_BFC).equal(again(speech_BFC)), "the same seed gives the same weights"


def test_several_queries_and_overlapping_windows_follow_each_other_in_time() -> None:
    config = QFormerConfig(window_seconds=1.0, stride_seconds=0.5, queries=2, width=8, heads=2, ffn=8)
    assert (config.kernel, config.stride) == (50, 25)
    qformer = WindowQFormer(config, speech_width=6, llm_width=10).eval()
    speech_BFC = torch.randn(1, 1500, 6)
    tokens_BAD = qformer(speech_BFC)
    assert tokens_BAD.shape == (1, 2 * 59, 10)
    one = qformer(speech_BFC[:, 75:125])
    assert torch.allclose(tokens_BAD[:, 6:8], one, atol=1e-6)
