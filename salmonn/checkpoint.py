"""The released checkpoint: a file of what was trained, under the names of the code that came with the paper.

{"model": {name: tensor}, "optimizer": ..., "config": {"model": {...}}, "scaler": ..., "epoch": ...}, by torch.save.
Its trainer kept every state-dict entry that is no frozen parameter, so buffers and copies of shared tensors are in it.
"""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import torch

from manifests.errors import UserError
from salmonn.config import BeatsConfig, DType, LLMConfig, LoraConfig, QFormerConfig, SalmonnConfig, WhisperConfig
from salmonn.model import Salmonn

LOG = logging.getLogger("salmonn")

RENAMES = (
    ("speech_query_tokens", "qformer.query_1QE"),
    ("ln_speech.", "qformer.ln_speech."),
    ("ln_audio.", "qformer.ln_audio."),
    ("speech_llama_proj.", "qformer.projection."),
    ("speech_Qformer.bert.embeddings.LayerNorm.", "qformer.blip.layernorm."),
    ("speech_Qformer.bert.encoder.", "qformer.blip.encoder."),
    ("llama_model.", "llm."),
)
"""How a released name begins, and how ours does."""

IGNORED = re.compile(
    "|".join(
        (
            # Buffers, and parts of BERT that a Q-Former without text has not (files of the first release).
            r"speech_Qformer\.bert\.embeddings\.(position_ids|word_embeddings\..*|position_embeddings\..*)",
            r"speech_Qformer\.bert\.encoder\.layer\.\d+\.(intermediate|output)\..*",
            r"speech_Qformer\.cls\..*",
            r"llama_model\..*\.rotary_emb\.inv_freq",
            # What was frozen lies in the folders of its own.
            r"(beats|speech_encoder)\..*",
            r"llama_model\.(?!.*(lora_|modules_to_save)).*",
        )
    )
)
LORA = re.compile(r"llama_model\..*\.(\w+)\.lora_A\.default\.weight")
WORDS = re.compile(r"llama_model\..*\.(\w+)\.modules_to_save\.default\.")
ELSEWHERE = "it was trained on another base model or with other settings"
SIZES = {4096: "7B", 5120: "13B"}
"""Width of the language models that checkpoints were released for."""


def load_released(
    llm_folder: str | Path,
    whisper_folder: str | Path,
    beats_file: str | Path,
    checkpoint_file: str | Path,
    *,
    qformer_heads: int = 0,
    dtype: DType = "auto",
    device: torch.device | str = "cpu",
) -> Salmonn:
    """Return the model of a released checkpoint, in eval mode on `device`.

    Sizes come from the tensors of the file; what they do not tell, from its settings, else from those of the paper. The
    heads of the Q-Former are told by neither: they are 64 wide as in BERT, or where that does not fit as many as
    BEATs has, unless `qformer_heads` says otherwise. UserError for a file that is missing, not of this kind, or of
    another language model.
    """
    tensors, settings = read_file(checkpoint_file)
    config = SalmonnConfig(
        whisper=WhisperConfig(folder=str(whisper_folder), dtype=dtype),
        beats=BeatsConfig(file=str(beats_file)),
        llm=LLMConfig(folder=str(llm_folder), dtype=dtype),
    )
    outline = Salmonn.from_config(msgspec.structs.replace(config, qformer=QFormerConfig(width=12)), "meta")
    demand_width(tensors, outline.qformer.projection.out_features, checkpoint_file)
    if qformer_heads:
        settings["num_attention_heads"] = qformer_heads
    assert outline.beats is not None
    qformer = qformer_of(tensors, settings, outline.beats.settings.heads, checkpoint_file)
    lora = lora_of(tensors, settings, checkpoint_file)
    model = Salmonn.from_config(msgspec.structs.replace(config, qformer=qformer, lora=lora), device)
    fill(model, tensors, checkpoint_file)
    return model


def read_released(model: Salmonn, path: str | Path) -> list[str]:
    """Fill every trained tensor of `model` from a released checkpoint; return the names in it that were not needed.

    UserError names what is missing, what the model has no place for, and what has another shape.
    """
    tensors, _ = read_file(path)
    demand_width(tensors, model.qformer.projection.out_features, path)
    return fill(model, tensors, path)


def released_state(model: Salmonn) -> dict[str, torch.Tensor]:
    """Return the trained tensors of `model` under their released names, on the CPU."""
    return {released_name(name): weight.cpu().clone() for name, weight in model.trainable_state().items()}


def export_released(model: Salmonn, path: str | Path) -> None:
    """Write the trained part of `model` as a released checkpoint, whole or not at all.

    Torch reads it with weights_only=True, and the released code by its own names.
    """
    q, lora, audio = model.config.qformer, model.config.lora, model.config
    settings = {
        "llama_path": audio.llm.folder,
        "whisper_path": audio.whisper.folder,
        "beats_path": audio.beats.file if audio.beats is not None else "",
        "use_speech_Qformer": True,
        "num_speech_query_token": q.queries,
        "window_level_Qformer": True,
        "second_per_window": q.window_seconds,
        "second_stride": q.stride_seconds,
        "num_attention_heads": q.heads,
        "lora": True,
        "lora_rank": lora.r,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "prompt_template": audio.prompt.template,
        "max_txt_len": audio.max_answer_tokens,
        "end_sym": model.tokenizer.eos_token,
    }
    content = {
        "model": released_state(model),
        "optimizer": {},
        "config": {"model": settings},
        "scaler": None,
        "epoch": 0,
    }
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def own_name(name: str) -> str | None:
    """Return our name of a released tensor, None if it is not one that is trained."""
    if IGNORED.fullmatch(name):
        return None
    for theirs, ours in RENAMES:
        if name.startswith(theirs):
            name = ours + name.removeprefix(theirs)
            break
    if name.startswith("qformer.blip."):
        name = re.sub(r"\.(attention|crossattention)\.self\.", r".\1.attention.", name)
    return name


def released_name(name: str) -> str:
    """Return the released name of a trained tensor of ours."""
    if name.startswith("qformer.blip."):
        name = re.sub(r"\.(attention|crossattention)\.attention\.", r".\1.self.", name)
    for theirs, ours in RENAMES:
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    raise AssertionError(f"{name} has no released name")


def read_file(path: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return the tensors of a released checkpoint and its settings of the model; nothing in it is executed."""
    if not Path(path).is_file():
        raise UserError(f"there is no checkpoint {str(path)!r}; name a file such as salmonn_v1.pth")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or hostile file fails anywhere in the reader
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{str(path)!r} is no checkpoint of tensors alone and was not opened: {first}") from None
    tensors = content.get("model") if isinstance(content, dict) else None
    if not isinstance(tensors, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in tensors.values()):
        raise UserError(f"{str(path)!r} is no released checkpoint: it holds no table 'model' of tensors by name")
    settings = content.get("config")
    inner = settings.get("model") if isinstance(settings, dict) else None
    return tensors, inner if isinstance(inner, dict) else {}


def fill(model: Salmonn, tensors: Mapping[str, torch.Tensor], path: str | Path) -> list[str]:
    """Copy released tensors into `model`; return the names that were ignored."""
    named = {name: own_name(name) for name in tensors}
    ignored = sorted(name for name, ours in named.items() if ours is None)
    found = {ours: tensors[name] for name, ours in named.items() if ours is not None}
    own = model.trainable_state()
    missing = sorted(map(released_name, own.keys() - found.keys()))
    foreign = sorted(name for name, ours in named.items() if ours is not None and ours not in own)
    if missing or foreign:
        said = [f"lacks {len(missing)} tensors of this model (first {missing[0]!r})"] if missing else []
        said += [f"holds {len(foreign)} that it has no place for (first {foreign[0]!r})"] if foreign else []
        raise UserError(f"{str(path)!r} {' and '.join(said)}: {ELSEWHERE}")
    for name, weight in own.items():
        if weight.shape != found[name].shape:
            raise UserError(
                f"{str(path)!r}: {released_name(name)!r} has the shape {tuple(found[name].shape)}, here it is "
                f"{tuple(weight.shape)}: {ELSEWHERE}"
            )
    model.load_trainable(found)
    if ignored:
        LOG.info("%s: %d entries are not trained and were ignored: %s", path, len(ignored), ", ".join(ignored))
    return ignored


def demand_width(tensors: Mapping[str, torch.Tensor], width: int, path: str | Path) -> None:
    """Raise UserError unless the checkpoint was trained on a language model of this width."""
    if "speech_llama_proj.weight" not in tensors:
        raise UserError(f"{str(path)!r} is no released checkpoint: it lacks 'speech_llama_proj.weight'")
    trained = tensors["speech_llama_proj.weight"].shape[0]
    if trained != width:
        was, now = (f"{w} wide" + (f" ({SIZES[w]})" if w in SIZES else "") for w in (trained, width))
        raise UserError(
            f"{str(path)!r} was trained on a language model {was}, but the one here is {now}: take the language model "
            "it was trained on"
        )


def qformer_of(
    tensors: Mapping[str, torch.Tensor], settings: Mapping[str, Any], otherwise: int, path: str | Path
) -> QFormerConfig:
    """Return the sizes of the Q-Former in a checkpoint."""
    layer = "speech_Qformer.bert.encoder.layer."
    first = tensors.get(f"{layer}0.intermediate_query.dense.weight")
    queries = tensors.get("speech_query_tokens")
    if first is None or queries is None or queries.ndim != 3:
        raise UserError(f"{str(path)!r} holds no Q-Former: it is no released checkpoint of SALMONN")
    ffn, width = first.shape
    heads = int(settings.get("num_attention_heads") or (width // 64 if width % 64 == 0 else otherwise))
    if width % heads:
        raise UserError(f"{str(path)!r}: a Q-Former {width} wide cannot have {heads} heads; give qformer_heads")
    return QFormerConfig(
        window_seconds=float(settings.get("second_per_window", 0.333333)),
        stride_seconds=float(settings.get("second_stride", 0.333333)),
        queries=queries.shape[1],
        width=width,
        layers=1 + max(int(name.removeprefix(layer).split(".")[0]) for name in tensors if name.startswith(layer)),
        heads=heads,
        ffn=ffn,
    )


def lora_of(tensors: Mapping[str, torch.Tensor], settings: Mapping[str, Any], path: str | Path) -> LoraConfig:
    """Return the settings of LoRA in a checkpoint: the tensors tell its layers and rank."""
    found = {match.group(1): tensors[name].shape[0] for name in tensors if (match := LORA.fullmatch(name))}
    if not found:
        raise UserError(f"{str(path)!r} holds no LoRA, for example no '...q_proj.lora_A.default.weight'")
    words = sorted({match.group(1) for name in tensors if (match := WORDS.match(name))})
    return LoraConfig(
        r=max(found.values()),
        alpha=float(settings.get("lora_alpha", 32)),
        dropout=float(settings.get("lora_dropout", 0.1)),
        targets=tuple(sorted(found)),
        trained_modules=tuple(words),
    )
