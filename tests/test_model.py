"""The model: results of a sample its own, frozen parts frozen, and only what should learn learning."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
import msgspec
import pytest
import torch
from peft.tuners.lora import LoraLayer

from manifests.errors import UserError
from manifests.settings import convert
from salmonn.config import LLMConfig, SalmonnConfig, load_preset, preset_names
from salmonn.model import Salmonn, until
from tiny_model import MODEL, WORDS, tone

torch.set_num_threads(2)
PROMPTS = [
    "USER: <Speech><SpeechHere></Speech> How high?\nASSISTANT:",
    "USER: Listen: <Speech><SpeechHere></Speech> Now say at some length how high the tone was.\nASSISTANT:",
    "<SpeechHere>",
]
AUDIO = [tone(200, 0.4), tone(900, 2.0), tone(3000, 1.2)]
ANSWERS = [WORDS[0], WORDS[3], ""]


def disturb(model: Salmonn) -> Salmonn:
    """Move every trained weight: a fresh LoRA does nothing."""
    generator = torch.Generator().manual_seed(0)
    for weight in model.trainable_state().values():
        weight += 0.1 * torch.randn(weight.shape, generator=generator)
    return model


@pytest.fixture(scope="module")
def model() -> Salmonn:
    return disturb(Salmonn.from_config(MODEL))


def test_every_clip_has_88_audio_tokens(model: Salmonn) -> None:
    with torch.no_grad():
        tokens_BAD = model.audio_tokens([tone(200, 0.1), tone(300, 31.0)])
    assert tokens_BAD.shape == (2, 88, MODEL.llm.width)
    assert not torch.allclose(tokens_BAD[0], tokens_BAD[1], atol=1e-3), "the audio is heard"
    assert model.log_mel.cut == 1


@torch.no_grad()
def test_a_loss_is_the_same_alone_and_in_a_batch(model: Salmonn) -> None:
    batch = model.answer_tokens(AUDIO, PROMPTS, ANSWERS)
    for i in range(3):
        alone = model.answer_tokens([AUDIO[i]], [PROMPTS[i]], [ANSWERS[i]])
        assert torch.allclose(batch.nll_N[batch.row_N == i], alone.nll_N, atol=1e-4)
    lengths = [min(len(answer), MODEL.max_answer_tokens) + 1 for answer in ANSWERS]
    assert batch.row_N.bincount().tolist() == lengths
    assert batch.truncated == 1
    # the loss is the mean over all answer tokens, not over rows
    assert model.loss(AUDIO, PROMPTS, ANSWERS).item() == pytest.approx(batch.nll_N.sum().item() / sum(lengths))


@torch.no_grad()
def test_the_loss_is_the_cross_entropy_of_all_logits(model: Salmonn) -> None:
    """Against the plainest way: every logit of one row, shifted by hand."""
    ids = [0, *model.tokenizer.encode("USER: <Speech>")]
    after = model.tokenizer.encode("</Speech> How high?\nASSISTANT:")
    answer = [*model.tokenizer.encode(WORDS[0]), model.tokenizer.eos_token_id]
    words = model.llm.get_input_embeddings()
    audio_1AD = model.audio_tokens(AUDIO[:1])
    x_1TD = torch.cat([words(torch.tensor([ids])), audio_1AD, words(torch.tensor([after + answer]))], dim=1)
    logits_TV = model.llm(inputs_embeds=x_1TD).logits[0]
    start = x_1TD.shape[1] - len(answer)
    expected = torch.nn.functional.cross_entropy(logits_TV[start - 1 : -1], torch.tensor(answer))
    assert model.loss(AUDIO[:1], PROMPTS[:1], ANSWERS[:1]).item() == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.parametrize("beams", [1, 3])
def test_generated_ids_are_the_same_alone_and_in_a_batch(model: Salmonn, beams: int) -> None:
    batch = model.generate_ids(AUDIO, PROMPTS, beams=beams, max_new_tokens=12)
    alone = [
        model.generate_ids([a], [p], beams=beams, max_new_tokens=12)[0] for a, p in zip(AUDIO, PROMPTS, strict=True)
    ]
    assert batch == alone
    assert model.generate(AUDIO, PROMPTS, beams=beams, max_new_tokens=12) == [model.decode(ids) for ids in alone]


@torch.no_grad()
def test_lora_scale_changes_the_answer_and_is_put_back(model: Salmonn) -> None:
    before = model.generate_ids(AUDIO, PROMPTS, beams=1, max_new_tokens=8)
    assert model.generate_ids(AUDIO, PROMPTS, beams=1, max_new_tokens=8, lora_scale=0.0) != before
    scales = {module.scaling["default"] for module in model.llm.modules() if isinstance(module, LoraLayer)}
    assert scales == {MODEL.lora.alpha / MODEL.lora.r}
    assert model.generate_ids(AUDIO, PROMPTS, beams=1, max_new_tokens=8) == before


def test_frozen_parts_stay_in_eval_and_only_trained_ones_have_gradients() -> None:
    model = disturb(Salmonn.from_config(MODEL)).train()
    assert not any(module.training for module in model.whisper.modules())
    for name, module in model.llm.named_modules():
        assert module.training == ("lora_dropout" in name), name
    assert all(module.training for module in model.qformer.modules())
    model.loss(AUDIO, PROMPTS, ANSWERS).backward()
    trained = set(model.trainable_state())
    for name, weight in model.named_parameters():
        part = name.startswith("qformer.") or "lora_" in name or "modules_to_save" in name
        assert part == (name in trained) == (weight.grad is not None), name
    touched = {
        name.split(".")[0] for name, weight in model.named_parameters() if weight.grad is not None and weight.grad.any()
    }
    assert touched == {"qformer", "llm"}
    model.generate(AUDIO[:1], PROMPTS[:1], beams=1, max_new_tokens=1)
    assert model.training, "generating in the middle of training leaves the mode"


def test_the_same_configuration_gives_the_same_model_and_leaves_the_random_state() -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    one, two = Salmonn.from_config(MODEL), Salmonn.from_config(MODEL)
    assert torch.get_rng_state().equal(before)
    assert one.frozen_digest() == two.frozen_digest()
    for name, weight in one.trainable_state().items():
        assert weight.equal(two.trainable_state()[name]), name
    other = msgspec.structs.replace(MODEL, llm=msgspec.structs.replace(MODEL.llm, seed=99))
    assert Salmonn.from_config(other).frozen_digest() != one.frozen_digest()


@torch.no_grad()
def test_trained_weights_load_whole_or_not(model: Salmonn) -> None:
    fresh = Salmonn.from_config(MODEL)
    fresh.load_trainable(model.trainable_state())
    assert fresh.loss(AUDIO, PROMPTS, ANSWERS).equal(model.loss(AUDIO, PROMPTS, ANSWERS))
    some = dict(list(model.trainable_state().items())[1:])
    with pytest.raises(UserError, match="not of this model"):
        fresh.load_trainable(some)


def test_parts_in_folders_give_the_same_model(tmp_path: Path) -> None:
    model = Salmonn.from_config(MODEL)
    llm = model.llm.unload()
    for name in ("embed_tokens", "lm_head"):
        assert not any("modules_to_save" in key for key, _ in llm.named_parameters() if name in key)
    llm.save_pretrained(tmp_path / "llm")
    model.tokenizer.save_pretrained(tmp_path / "llm")
    found = Salmonn.from_config(msgspec.structs.replace(MODEL, llm=LLMConfig(folder=str(tmp_path / "llm"))))
    again = Salmonn.from_config(MODEL)
    assert found.frozen_digest() == again.frozen_digest()
    with torch.no_grad():
        assert found.loss(AUDIO, PROMPTS, ANSWERS).equal(again.loss(AUDIO, PROMPTS, ANSWERS))


def test_a_missing_part_says_what_and_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    away = msgspec.structs.replace(MODEL, llm=LLMConfig(folder="nobody/nothing-7b"))
    with pytest.raises(
        UserError, match=r"llm: 'nobody/nothing-7b' is neither a folder here nor .* run 'hf download nobody"
    ):
        Salmonn.from_config(away)
    empty = msgspec.structs.replace(MODEL, llm=LLMConfig(folder=str(tmp_path)))
    with pytest.raises(
        UserError, match=r"llm: cannot load the folder .* should hold config.json, .*: there is no config.json"
    ):
        Salmonn.from_config(empty)


def test_an_unknown_layer_names_the_nearest() -> None:
    wrong = msgspec.structs.replace(MODEL, lora=msgspec.structs.replace(MODEL.lora, targets=("q_projj",)))
    with pytest.raises(UserError, match=r"no layer 'q_projj'; did you mean 'q_proj'\?"):
        Salmonn.from_config(wrong)


def test_presets_are_found_by_name() -> None:
    assert "tiny" in preset_names()
    assert load_preset("tiny").model.qformer.kernel == 17
    with pytest.raises(UserError, match=r"no model preset 'tini'; did you mean 'tiny'\?"):
        load_preset("tini")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"whisper": {"folder": "x", "width": 8}, "llm": {"folder": "y"}}, "both folder 'x' and sizes"),
        ({"whisper": {"width": 8}, "llm": {"folder": "y"}}, "needs either a folder or the sizes"),
        ({"whisper": {"folder": "x"}, "llm": {"folder": "y"}, "prompt": {"template": "hi"}}, "template must hold"),
        ({"whisper": {"folder": "x"}, "llm": {"folder": "y"}, "loar": {}}, "did you mean 'lora'"),
    ],
)
def test_wrong_settings_are_told_in_a_sentence(values: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        convert(values, SalmonnConfig, where="settings")


def test_ids_end_with_their_first_end() -> None:
    assert until([5, 6, 1, 1, 7], 1) == [5, 6, 1]
    assert until([5, 6], 1) == [5, 6]
    assert until([1], 1) == [1]
