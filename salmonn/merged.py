"""Export for other tools: the language model with LoRA merged into it, or LoRA alone as peft's adapter.

FOLDER/config.json, model*.safetensors, tokenizer files        merged: what AutoModelForCausalLM and AutoTokenizer read
FOLDER/adapter_config.json, adapter_model.safetensors          adapter: what PeftModel reads onto the same base model
FOLDER/salmonn.safetensors                                     the rest that was trained, under its released names
FOLDER/salmonn.json                                            the settings of the whole model
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import torch
from peft.tuners.lora import LoraLayer
from peft.utils import ModulesToSaveWrapper
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from manifests.errors import UserError
from salmonn.checkpoint import own_name, released_state
from salmonn.config import LLMConfig, LoraConfig, SalmonnConfig
from salmonn.model import Salmonn

REST, SETTINGS = "salmonn.safetensors", "salmonn.json"


def export_merged(model: Salmonn, folder: str | Path, dtype: torch.dtype | None = None) -> None:
    """Write the language model with LoRA merged in, its tokenizer, and the rest beside them.

    The sum is taken in float32 and stored as `dtype`, by default that of the language model as it is here.
    UserError if `folder` is there.
    """
    with torch.device("meta"):
        plain = AutoModelForCausalLM.from_config(model.llm.get_base_model().config)
    weights = {name: weight.cpu().to(dtype or model.llm_dtype) for name, weight in merged_state(model).items()}
    foreign = plain.load_state_dict(weights, strict=False, assign=True).unexpected_keys
    plain.tie_weights()
    empty = sorted(name for name, weight in plain.named_parameters() if weight.is_meta)
    assert not foreign and not empty, f"{(*foreign, *empty)[0]} was not merged"
    with new_folder(folder) as place:
        plain.save_pretrained(place)
        model.tokenizer.save_pretrained(place)
        save_rest(model, place)


def export_adapter(model: Salmonn, folder: str | Path) -> None:
    """Write LoRA as an adapter for the same base model, its tokenizer and the rest; see `export_merged`."""
    with new_folder(folder) as place:
        # Whether the vocabulary grew would be asked of the Hub; it never does here.
        model.llm.save_pretrained(str(place), save_embedding_layers=False)
        model.tokenizer.save_pretrained(place)
        save_rest(model, place)


def load_merged(folder: str | Path, device: torch.device | str = "cpu") -> Salmonn:
    """Return the whole model from what `export_merged` wrote; its encoders come from where its settings say.

    LoRA is in the language model: there is a fresh one beside it, which changes nothing before it is trained.
    """
    path = Path(folder) / SETTINGS
    if not path.is_file() or not (Path(folder) / "config.json").is_file():
        raise UserError(f"{str(folder)!r} holds no merged model; 'salmonn export RUN --to merged' makes one")
    config = msgspec.json.decode(path.read_bytes(), type=SalmonnConfig)
    config = msgspec.structs.replace(
        config,
        llm=LLMConfig(folder=str(folder), dtype=config.llm.dtype),
        lora=LoraConfig(targets=config.lora.targets, r=config.lora.r, alpha=config.lora.alpha),
    )
    model = Salmonn.from_config(config, device)
    fill_rest(model, load_file(Path(folder) / REST))
    return model


def merged_state(model: Salmonn) -> dict[str, torch.Tensor]:
    """Return the language model's weights under its own names, LoRA added in float32 where there is one."""
    base = model.llm.get_base_model()
    weights = {name: weight.detach() for name, weight in base.named_parameters()}
    for name, module in base.named_modules():
        if isinstance(module, LoraLayer):
            layer = module.get_base_layer()
            # peft's own sum for this layer: it knows which kinds are stored transposed.
            delta = module.get_delta_weight("default").float()
            weights[f"{name}.base_layer.weight"] = layer.weight.detach().float() + delta
        elif isinstance(module, ModulesToSaveWrapper):
            for inner, weight in module.modules_to_save["default"].named_parameters():
                weights[f"{name}.{inner}"] = weight.detach()
    return {
        name.replace(".base_layer.", "."): weight
        for name, weight in weights.items()
        if not any(part in name for part in (".lora_", ".original_module.", ".modules_to_save."))
    }


def save_rest(model: Salmonn, place: Path) -> None:
    """Write what was trained outside the language model, and the settings."""
    rest = {name: weight for name, weight in released_state(model).items() if not name.startswith("llama_model.")}
    save_file({name: rest[name].contiguous() for name in sorted(rest)}, place / REST)
    settings = msgspec.json.format(msgspec.json.encode(model.config, order="deterministic"))
    (place / SETTINGS).write_bytes(settings + b"\n")


def fill_rest(model: Salmonn, tensors: Mapping[str, torch.Tensor]) -> None:
    """Fill in what `save_rest` wrote; UserError if it is of another model."""
    llm: dict[str, Any] = {name: w for name, w in model.trainable_state().items() if name.startswith("llm.")}
    model.load_trainable(llm | {str(own_name(name)): weight for name, weight in tensors.items()})


@contextlib.contextmanager
def new_folder(folder: str | Path) -> Iterator[Path]:
    """Give a folder to write to, which becomes `folder` when all is written; UserError if that is there already."""
    place = Path(folder)
    if place.exists():
        raise UserError(f"--out {str(folder)!r} is there already; name a folder that is not")
    temporary = place.with_name(f".{place.name}.{os.getpid()}")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        temporary.rename(place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
