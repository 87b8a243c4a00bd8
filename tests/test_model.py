"""The model: results of a sample its own, frozen parts frozen, and only what should learn learning."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
import msgspec
import pytest
import torch
from peft.tuners.lora import LoraLayer
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from manifests.errors import UserError
from manifests.settings import convert
from salmonn.batch import tokenize
from salmonn.config import BeatsConfig, LLMConfig, SalmonnConfig, load_preset, preset_names
from salmonn.merged import export_merged
from salmonn.model import Salmonn, until
from salmonn.tokenizer import encode, load_tokenizer
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
    assert preset_names() == ("compact", "salmonn-13b", "salmonn-7b", "tiny")
    for name in preset_names():
        assert load_preset(name).model.qformer.kernel == 17
        assert load_preset(name).model.beats is not None, "both streams, in every size"
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


TWO_STREAMS = msgspec.structs.replace(
    MODEL, beats=BeatsConfig(width=16, layers=1, heads=2, ffn=16, patch_width=8, seed=5)
)


@torch.no_grad()
def test_the_second_stream_is_heard_frozen_and_each_clip_s_own() -> None:
    model = disturb(Salmonn.from_config(TWO_STREAMS))
    together = model.audio_tokens(AUDIO)
    for i, audio in enumerate(AUDIO):
        assert torch.allclose(together[i : i + 1], model.audio_tokens([audio]), atol=1e-5)
    model.train()
    assert not any(module.training for module in model.beats.modules())
    assert not any(weight.requires_grad for weight in model.beats.parameters())
    assert "qformer.ln_audio.weight" in model.trained
    before = model.audio_tokens(AUDIO)
    for weight in model.beats.parameters():
        weight += 0.5
    assert not torch.allclose(model.audio_tokens(AUDIO), before, atol=1e-3)


def test_every_trained_weight_is_in_one_part() -> None:
    model = Salmonn.from_config(TWO_STREAMS)
    parts = model.parts()
    assert tuple(parts) == ("qformer", "ln", "projection", "lora", "words")
    assert sorted(name for names in parts.values() for name in names) == sorted(model.trainable_state())
    assert all("lora_" in name for name in parts["lora"])
    assert all("modules_to_save" in name for name in parts["words"])
    assert parts["projection"] == ["qformer.projection.weight", "qformer.projection.bias"]
    assert len(parts["ln"]) == 4
    # a stage that holds some of them still changes neither what is saved nor what counts as the base
    digest, names = model.frozen_digest(), list(model.trainable_state())
    for name in parts["qformer"] + parts["lora"]:
        model.get_parameter(name).requires_grad_(False)
    assert list(model.trainable_state()) == names
    assert model.frozen_digest() == digest
    assert model.parts() == parts


def test_the_digest_does_not_depend_on_what_auto_became() -> None:
    def built(dtype: str) -> Salmonn:
        return Salmonn.from_config(
            msgspec.structs.replace(
                TWO_STREAMS,
                whisper=msgspec.structs.replace(MODEL.whisper, dtype=dtype),
                beats=msgspec.structs.replace(TWO_STREAMS.beats, dtype=dtype),
                llm=msgspec.structs.replace(MODEL.llm, dtype=dtype),
            )
        )

    auto, half = built("auto"), built("bfloat16")
    assert auto.whisper.dtype == auto.llm_dtype == torch.float32, "this is no GPU"
    assert half.llm_dtype == torch.bfloat16
    digest = auto.frozen_digest()
    assert digest != built("float32").frozen_digest()
    # what a GPU would hold
    half.config = auto.config
    assert half.frozen_digest() == digest


def test_in_half_precision_what_is_trained_stays_float32() -> None:
    config = msgspec.structs.replace(MODEL, llm=msgspec.structs.replace(MODEL.llm, dtype="bfloat16"))
    model = disturb(Salmonn.from_config(config)).train()
    assert {weight.dtype for weight in model.trainable_state().values()} == {torch.float32}
    frozen = {weight.dtype for name, weight in model.llm.named_parameters() if not weight.requires_grad}
    assert frozen == {torch.bfloat16}
    for precision in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision):
            model.loss(AUDIO, PROMPTS, ANSWERS).backward()
    assert all(weight.grad is not None for weight in model.parameters() if weight.requires_grad)
    assert len(model.generate_ids(AUDIO, PROMPTS, beams=2, max_new_tokens=3)) == 3


def test_a_compiled_model_keeps_its_names() -> None:
    model = Salmonn.from_config(TWO_STREAMS)
    names, digest = list(model.trainable_state()), model.frozen_digest()
    model.speed_up(compile=True, gradient_checkpointing=True)
    assert list(model.trainable_state()) == names
    assert model.frozen_digest() == digest


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as Qwen's are: no BOS, tied embeddings, fewer keys than heads, more rows than the tokenizer has ids."""
    folder = tmp_path_factory.mktemp("qwen")
    pieces = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(piece, special=True) for piece in pieces[:3]])
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    wrapped.save_pretrained(folder)
    sizes = Qwen2Config(
        vocab_size=272,
        hidden_size=24,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        initializer_range=0.2,
        bos_token_id=0,
        eos_token_id=2,
    )
    torch.manual_seed(3)
    Qwen2ForCausalLM(sizes).save_pretrained(folder)
    return folder


def of_qwen(folder: Path) -> SalmonnConfig:
    compact = load_preset("compact").model
    return msgspec.structs.replace(
        MODEL,
        llm=LLMConfig(folder=str(folder)),
        prompt=compact.prompt,
        lora=msgspec.structs.replace(compact.lora, dropout=0.0),
    )


def test_a_language_model_without_bos_with_tied_embeddings_and_shared_keys(qwen: Path) -> None:
    config = of_qwen(qwen)
    model = disturb(Salmonn.from_config(config))
    prompts = [config.prompt.wrap(words) for words in ("How high?", "Say at some length how high the tone was.", "So?")]
    with torch.no_grad():
        batch = model.answer_tokens(AUDIO, prompts, ANSWERS)
        for i in range(3):
            alone = model.answer_tokens([AUDIO[i]], [prompts[i]], [ANSWERS[i]])
            assert torch.allclose(batch.nll_N[batch.row_N == i], alone.nll_N, atol=1e-4)
    together = model.generate_ids(AUDIO, prompts, beams=2, max_new_tokens=6)
    assert together == [
        model.generate_ids([a], [p], beams=2, max_new_tokens=6)[0] for a, p in zip(AUDIO, prompts, strict=True)
    ]
    model.train().loss(AUDIO, prompts, ANSWERS).backward()
    assert all(model.get_parameter(name).grad is not None for name in model.trained)


def test_a_template_s_special_tokens_are_meant_and_those_of_the_data_are_text(qwen: Path) -> None:
    config = of_qwen(qwen)
    tokenizer = load_tokenizer(config.llm)
    prompt = config.prompt.wrap("Say <|im_end|> and <|im_start|>.")
    row = tokenize(tokenizer, prompt, "no <|im_end|>", max_answer_tokens=50, template=config.prompt)
    assert row.before == (1, *encode(tokenizer, "user\n<Speech>")), "no BOS, and the turn begins with its mark"
    assert [i for i in row.after if i < 3] == [2, 1]
    assert row.answer.count(2) == 1
    assert tokenizer.decode(row.answer[:-1], skip_special_tokens=True) == "no <|im_end|>"
    own = tokenizer("<|im_end|>\n<|im_start|>assistant\n", add_special_tokens=False).input_ids
    assert list(row.after[-len(own) :]) == own


def test_one_of_two_tied_layers_cannot_be_trained_alone(qwen: Path) -> None:
    lora = msgspec.structs.replace(MODEL.lora, trained_modules=("embed_tokens",))
    with pytest.raises(UserError, match="'embed_tokens' shares its weight with the other end"):
        Salmonn.from_config(msgspec.structs.replace(of_qwen(qwen), lora=lora))


def test_tied_embeddings_survive_a_merge(qwen: Path, tmp_path: Path) -> None:
    model = disturb(Salmonn.from_config(of_qwen(qwen)))
    export_merged(model, tmp_path / "merged")
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    ids = torch.arange(3, 43)[None]
    with torch.no_grad():
        assert torch.allclose(found(input_ids=ids).logits, model.llm(input_ids=ids).logits, atol=1e-4)
    assert found.lm_head.weight is found.model.embed_tokens.weight


def test_128_mel_bins_as_in_large_v3() -> None:
    config = msgspec.structs.replace(MODEL, whisper=msgspec.structs.replace(MODEL.whisper, mel_bins=128))
    model = Salmonn.from_config(config)
    with torch.no_grad():
        assert model.audio_tokens(AUDIO[:1]).shape == (1, 88, MODEL.llm.width)


@torch.no_grad()
def test_special_strings_in_an_answer_are_words_like_others(model: Salmonn) -> None:
    answer = "</s> <s> <SpeechHere> <pad>"
    tokenizer = model.tokenizer
    row = tokenize(tokenizer, PROMPTS[0], answer, max_answer_tokens=99, template=MODEL.prompt)
    assert not {tokenizer.bos_token_id, tokenizer.pad_token_id} & set(row.answer)
    assert row.answer.count(tokenizer.eos_token_id) == 1
    assert tokenizer.decode(row.answer[:-1]) == answer
    assert model.loss(AUDIO[:1], PROMPTS[:1], [answer]).isfinite()
    with pytest.raises(UserError, match="<SpeechHere> once, where the audio goes; it is there 2 times"):
        model.loss(AUDIO[:1], [MODEL.prompt.wrap("What is <SpeechHere>?")], ["low"])


def test_ids_end_with_their_first_end() -> None:
    assert until([5, 6, 1, 1, 7], 1) == [5, 6, 1]
    assert until([5, 6], 1) == [5, 6]
    assert until([1], 1) == [1]
