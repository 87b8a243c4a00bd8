"""Released checkpoints and exports: in by strict rules, out again to the bit, and readable by other code."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import peft
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig
from transformers import WhisperConfig as PublishedWhisper

from manifests.errors import UserError
from salmonn import export_commands
from salmonn.checkpoint import IGNORED, export_released, load_released, read_released, released_name, released_state
from salmonn.config import BeatsConfig, LLMConfig, LoraConfig, SalmonnConfig, WhisperConfig, load_preset
from salmonn.merged import export_adapter, export_merged, load_merged
from salmonn.model import Salmonn
from salmonn.training.settings import TrainConfig
from test_golden import GOLDEN, beats_file
from tiny_model import MODEL, tone

torch.set_num_threads(2)
PTH = GOLDEN / "salmonn_tiny.pth"
RELEASED = torch.load(PTH, weights_only=True)["model"]
ASK = (
    [tone(300, 1.5)],
    ["USER: <Speech><SpeechHere></Speech> How high?\nASSISTANT:"],
    ["low, and rather quiet"],
)


@pytest.fixture(scope="module")
def beats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return beats_file(tmp_path_factory.mktemp("beats"))


@pytest.fixture(scope="module")
def model(beats: Path) -> Salmonn:
    return load_released(GOLDEN / "tiny_llama", GOLDEN / "tiny_whisper", beats, PTH)


def changed(path: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> Path:
    """Write the released checkpoint with something of it changed."""
    tensors = dict(RELEASED)
    change(tensors)
    torch.save({"model": tensors, "optimizer": {}, "config": {}, "scaler": None, "epoch": 0}, path)
    return path


def test_import_export_import_is_the_same_to_the_bit(model: Salmonn, tmp_path: Path) -> None:
    state = released_state(model)
    assert {name: tensor for name, tensor in RELEASED.items() if not IGNORED.fullmatch(name)}.keys() == state.keys()
    for name, tensor in state.items():
        assert tensor.equal(RELEASED[name]), name
    path = tmp_path / "out" / "again.pth"
    export_released(model, path)
    content = torch.load(path, weights_only=True)
    assert content.keys() == {"model", "optimizer", "config", "scaler", "epoch"}
    assert content["model"].keys() == state.keys()
    with torch.no_grad():
        for weight in model.trainable_state().values():
            weight += 1
    assert read_released(model, path) == []
    for name, tensor in released_state(model).items():
        assert tensor.equal(RELEASED[name]), name
    assert os.listdir(path.parent) == ["again.pth"], "nothing temporary stays"


def test_an_exported_file_tells_all_that_load_released_needs(model: Salmonn, beats: Path, tmp_path: Path) -> None:
    path = tmp_path / "again.pth"
    export_released(model, path)
    again = load_released(GOLDEN / "tiny_llama", GOLDEN / "tiny_whisper", beats, path)
    assert again.config == model.config
    with torch.no_grad():
        assert again.loss(*ASK).equal(model.loss(*ASK))
    assert again.frozen_digest() == model.frozen_digest()
    assert not again.training


def test_what_is_ignored_is_listed(model: Salmonn) -> None:
    ignored = read_released(model, PTH)
    assert ignored == sorted(
        [f"llama_model.base_model.model.model.layers.{i}.self_attn.rotary_emb.inv_freq" for i in range(4)]
        + ["beats.encoder.layers.1.self_attn.relative_attention_bias.weight"]
        + ["speech_Qformer.bert.embeddings.position_ids"]
    )


def test_names_go_both_ways(model: Salmonn) -> None:
    names = [released_name(name) for name in model.trained]
    assert len(set(names)) == len(names)
    assert set(names) <= RELEASED.keys()


Q = "llama_model.base_model.model.model.layers.3.self_attn.q_proj.lora_A.default.weight"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop("ln_audio.bias"), r"lacks 1 tensors of this model \(first 'ln_audio.bias'\)"),
        (lambda t: t.pop(Q), r"lacks 1 tensors .*layers.3.self_attn.q_proj.lora_A"),
        (lambda t: t.update({Q.replace(".3.", ".4."): t[Q]}), r"holds 1 that it has no place for .*layers\.4\."),
        (
            lambda t: t.update({"ln_speech.weight": torch.ones(7)}),
            r"'ln_speech.weight' has the shape \(7,\), here it is",
        ),
        (lambda t: t.update({"speech_extra": torch.ones(7)}), r"no place for \(first 'speech_extra'\)"),
        (lambda t: t.pop("speech_llama_proj.weight"), "lacks 'speech_llama_proj.weight'"),
        (
            lambda t: t.update({"speech_llama_proj.weight": torch.ones(5120, 40)}),
            r"trained on a language model 5120 wide \(13B\), but the one here is 56 wide",
        ),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_and_nothing_is_changed(
    model: Salmonn, tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], Any], said: str
) -> None:
    before = released_state(model)
    with pytest.raises(UserError, match=said):
        read_released(model, changed(tmp_path / "x.pth", change))
    assert all(tensor.equal(before[name]) for name, tensor in released_state(model).items())


def test_a_7b_checkpoint_on_a_13b_model_says_both_widths(beats: Path, tmp_path: Path) -> None:
    llm = published_llm(tmp_path / "vicuna-13b", width=5120, layers=40)
    path = changed(tmp_path / "7b.pth", lambda t: t.update({"speech_llama_proj.weight": torch.ones(4096, 40)}))
    with pytest.raises(UserError, match=r"4096 wide \(7B\), but the one here is 5120 wide \(13B\)"):
        load_released(llm, GOLDEN / "tiny_whisper", beats, path)


def test_old_files_hold_parts_of_bert_that_are_not_needed(model: Salmonn, tmp_path: Path) -> None:
    old = {
        "speech_Qformer.bert.embeddings.word_embeddings.weight": torch.ones(3, 40),
        "speech_Qformer.bert.encoder.layer.0.intermediate.dense.weight": torch.ones(80, 40),
        "speech_Qformer.bert.encoder.layer.0.output.dense.weight": torch.ones(40, 80),
        "speech_Qformer.cls.predictions.bias": torch.ones(3),
    }
    ignored = read_released(model, changed(tmp_path / "x.pth", lambda t: t.update(old)))
    assert old.keys() <= set(ignored)


class Bomb:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return (Path.touch, (self.mark,))


def test_a_malicious_pickle_is_refused_and_not_run(model: Salmonn, tmp_path: Path) -> None:
    mark = tmp_path / "run"
    torch.save({"model": RELEASED, "config": Bomb(mark)}, tmp_path / "bomb.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps({"model": Bomb(mark)}))
    (tmp_path / "short.pth").write_bytes(PTH.read_bytes()[:5000])
    (tmp_path / "empty.pth").write_bytes(b"")
    for name in ("bomb", "plain", "short", "empty"):
        with pytest.raises(UserError, match="no checkpoint of tensors alone and was not opened"):
            read_released(model, tmp_path / f"{name}.pth")
    assert not mark.exists()
    torch.save({"state": RELEASED}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="it holds no table 'model'"):
        read_released(model, tmp_path / "other.pth")
    with pytest.raises(UserError, match="there is no checkpoint"):
        read_released(model, tmp_path / "none.pth")


def logits(llm: Any, scale: float = 1.0) -> torch.Tensor:
    ids = torch.arange(3, 43)[None]
    with torch.no_grad():
        return llm(input_ids=ids).logits * scale


def test_a_merged_folder_gives_the_same_logits_and_answers(model: Salmonn, tmp_path: Path) -> None:
    out = tmp_path / "merged"
    export_merged(model, out)
    found = AutoModelForCausalLM.from_pretrained(out)
    expected = logits(model.llm)
    assert (logits(found) - expected).abs().max() < 1e-5
    assert (logits(model.llm.get_base_model()) - expected).abs().max() < 1e-6, "the model itself is left as it was"
    with model.llm.disable_adapter():
        assert (logits(model.llm) - expected).abs().max() > 1e-2, "LoRA does something"
    text = "The ferry leaves the pier"
    assert AutoTokenizer.from_pretrained(out)(text).input_ids == model.tokenizer(text).input_ids
    again = load_merged(out)
    with torch.no_grad():
        assert again.loss(*ASK).item() == pytest.approx(model.loss(*ASK).item(), abs=1e-5)
    rest = load_file(out / "salmonn.safetensors")
    assert rest.keys() == {name for name in released_state(model) if not name.startswith("llama_model.")}
    with pytest.raises(UserError, match="is there already"):
        export_merged(model, out)


def test_an_adapter_folder_gives_the_same_logits(model: Salmonn, tmp_path: Path) -> None:
    export_adapter(model, tmp_path / "adapter")
    base = AutoModelForCausalLM.from_pretrained(GOLDEN / "tiny_llama", dtype=torch.float32)
    found = peft.PeftModel.from_pretrained(base, tmp_path / "adapter")
    assert (logits(found) - logits(model.llm)).abs().max() < 1e-6
    assert (tmp_path / "adapter" / "salmonn.safetensors").is_file()


def test_modules_trained_in_full_are_exported_too(tmp_path: Path) -> None:
    model = Salmonn.from_config(MODEL)
    generator = torch.Generator().manual_seed(0)
    for weight in model.trainable_state().values():
        weight += 0.1 * torch.randn(weight.shape, generator=generator)
    export_merged(model, tmp_path / "merged")
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert (logits(found) - logits(model.llm)).abs().max() < 1e-4
    again = load_merged(tmp_path / "merged")
    with torch.no_grad():
        assert again.loss(*ASK).item() == pytest.approx(model.loss(*ASK).item(), abs=1e-4)
    export_adapter(model, tmp_path / "adapter")
    base = Salmonn.from_config(MODEL).llm.unload()
    reloaded = peft.PeftModel.from_pretrained(base, tmp_path / "adapter")
    assert (logits(reloaded) - logits(model.llm)).abs().max() < 1e-5
    export_released(model, tmp_path / "x.pth")
    fresh = Salmonn.from_config(MODEL)
    read_released(fresh, tmp_path / "x.pth")
    assert all(weight.equal(fresh.trainable_state()[name]) for name, weight in model.trainable_state().items())


def test_half_a_merge_is_no_folder(model: Salmonn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise OSError("no room")

    monkeypatch.setattr(type(model.tokenizer), "save_pretrained", broken)
    with pytest.raises(OSError, match="no room"):
        export_merged(model, tmp_path / "merged")
    assert os.listdir(tmp_path) == []


def test_the_command_says_what_it_wrote(
    model: Salmonn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    config = TrainConfig(run=str(run), dataset="d", recipe="r", model=MODEL, steps=1)
    (run / "config.json").write_bytes(msgspec.json.encode(config))
    monkeypatch.setattr("salmonn.training.run.load_run", lambda run: (config, model, 7))
    for form, made in (("released", "a.pth"), ("merged", "m/config.json"), ("adapter", "l/adapter_config.json")):
        export_commands.export(str(run), form, str(tmp_path / made.split("/")[0]))
        assert (tmp_path / made).is_file()
        assert "step 7 of" in capsys.readouterr().out
    for run_, form, out, said in (
        (run, "onnx", "b", "--to is 'onnx'; it must be one of released, merged, adapter"),
        (tmp_path, "merged", "b", "there is no run in"),
        (run, "merged", "m", "is there already"),
    ):
        with pytest.raises(UserError, match=said):
            export_commands.export(str(run_), form, str(tmp_path / out))


def published_llm(folder: Path, *, width: int, layers: int) -> Path:
    """Write the settings of a Vicuna, and no weights."""
    LlamaConfig(
        vocab_size=32000,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // 128,
        intermediate_size={4096: 11008, 5120: 13824}[width],
        architectures=["LlamaForCausalLM"],
    ).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("name", "width", "layers", "trained", "lora", "projection"),
    [
        ("salmonn-7b", 4096, 32, 30_186_240, 4_194_304, 3_149_824),
        ("salmonn-13b", 5120, 40, 33_332_992, 6_553_600, 3_937_280),
    ],
)
def test_the_paper_s_presets_train_what_the_paper_s_model_trains(
    tmp_path: Path, name: str, width: int, layers: int, trained: int, lora: int, projection: int
) -> None:
    """Counted on the meta device, against counts of the released code; no weights, no network."""
    PublishedWhisper(
        d_model=1280,
        encoder_layers=32,
        encoder_attention_heads=20,
        encoder_ffn_dim=5120,
        decoder_layers=1,
        decoder_attention_heads=20,
    ).save_pretrained(tmp_path / "whisper")
    preset = load_preset(name).model
    config = msgspec.structs.replace(
        preset,
        llm=LLMConfig(folder=str(published_llm(tmp_path / "llm", width=width, layers=layers))),
        whisper=WhisperConfig(folder=str(tmp_path / "whisper")),
    )
    model = Salmonn.from_config(config, "meta")
    sizes = {n: w.numel() for n, w in model.named_parameters()}
    parts = {part: sum(sizes[n] for n in names) for part, names in model.parts().items()}
    assert parts == {"qformer": 22_837_248 + 768, "ln": 4096, "projection": projection, "lora": lora, "words": 0}
    assert sum(parts.values()) == trained == sum(w.numel() for w in model.parameters() if w.requires_grad)
    assert sorted(n for names in model.parts().values() for n in names) == sorted(model.trained)
    assert all(weight.is_meta for weight in model.parameters())


def test_missing_weights_are_told_in_a_sentence(beats: Path, tmp_path: Path) -> None:
    broken = tmp_path / "llm"
    shutil.copytree(GOLDEN / "tiny_llama", broken)
    config = SalmonnConfig(
        whisper=WhisperConfig(folder=str(GOLDEN / "tiny_whisper")),
        beats=BeatsConfig(file=str(tmp_path / "models" / "BEATs.pt")),
        llm=LLMConfig(folder=str(broken)),
        lora=LoraConfig(),
    )
    with pytest.raises(
        UserError, match=r"beats: there is no file '.*BEATs.pt'; download 'BEATs.pt' .* and put it there"
    ):
        Salmonn.from_config(config)
    config = msgspec.structs.replace(config, beats=BeatsConfig(file=str(beats)))
    sizes = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps(sizes | {"num_hidden_layers": 5}))
    with pytest.raises(UserError, match=r"llm: the weights in .* are not whole: 'model.layers.4.*' and 8 more are"):
        Salmonn.from_config(config)
    (broken / "config.json").write_text(json.dumps(sizes))
    (broken / "model.safetensors").write_bytes(b"torn" * 50)
    with pytest.raises(UserError, match="llm: cannot load the folder"):
        Salmonn.from_config(config)
    (broken / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"llm: cannot load the folder .* should hold config.json and model.saf"):
        Salmonn.from_config(config)
    wrong = msgspec.structs.replace(config, llm=LLMConfig(folder=str(GOLDEN / "tiny_llama")))
    wrong = msgspec.structs.replace(wrong, whisper=WhisperConfig(folder=str(GOLDEN / "tiny_llama")))
    with pytest.raises(UserError, match="whisper: "):
        Salmonn.from_config(wrong)


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    model = Salmonn.from_config(MODEL)
    small = msgspec.structs.replace(MODEL, llm=LLMConfig(folder=str(tmp_path / "llm")))
    model.llm.unload().save_pretrained(tmp_path / "llm")
    for name in ("tokenizer.model", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(GOLDEN / "tiny_llama" / name, tmp_path / "llm" / name)
    with pytest.raises(UserError, match=r"llm: the tokenizer in .* makes ids up to 599, but .* embeds only 259"):
        Salmonn.from_config(small)
