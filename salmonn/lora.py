"""The trained part of the language model: LoRA on some of its layers, and modules trained in full where asked for."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import peft
import torch
from peft.helpers import rescale_adapter_scale
from peft.tuners.lora import LoraLayer
from peft.utils import ModulesToSaveWrapper
from torch import nn

from manifests.errors import UserError, nearest
from salmonn.config import LoraConfig
from salmonn.parts import seeded

__all__ = ["LoraLayer", "add_lora", "rescale_adapter_scale"]


def add_lora(llm: Any, config: LoraConfig) -> Any:
    """Return the language model with fresh adapters, which at first change nothing; UserError for an unknown layer.

    What is trained is float32, whatever the type of the frozen weights.
    """
    layers = {name.rpartition(".")[2] for name, _ in llm.named_modules() if name}
    for name in (*config.targets, *config.trained_modules):
        if name not in layers:
            raise UserError(f"lora: the language model has no layer {name!r}; {nearest(name, layers)}")
    demand_untied(llm, config)
    settings = peft.LoraConfig(
        r=config.r,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=list(config.targets),
        modules_to_save=list(config.trained_modules) or None,
        task_type="CAUSAL_LM",
    )
    dtype = llm.get_input_embeddings().weight.dtype
    with seeded(config.seed), warnings.catch_warnings():
        # peft asks transformers by a name that is going away; nothing a user could mend.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        joined = peft.get_peft_model(llm, settings)
    for weight in joined.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()
    for module in joined.modules():
        if isinstance(module, ModulesToSaveWrapper):
            for trained in module.modules_to_save.values():
                if isinstance(trained, nn.Linear):
                    trained.register_forward_pre_hook(widen)
                elif isinstance(trained, nn.Embedding):
                    trained.register_forward_hook(functools.partial(narrow, dtype))
    return joined


def demand_untied(llm: Any, config: LoraConfig) -> None:
    """Raise UserError if one of two layers that share their weight would be trained in full."""
    output = llm.get_output_embeddings()
    if output is None or output.weight is not llm.get_input_embeddings().weight:
        return
    shared = {id(llm.get_input_embeddings()), id(output)}
    for name, module in llm.named_modules():
        if id(module) in shared and name.rpartition(".")[2] in config.trained_modules:
            raise UserError(
                f"lora.trained_modules: {name.rpartition('.')[2]!r} shares its weight with the other end of this "
                "language model (tie_word_embeddings), so it cannot be trained alone; leave it out"
            )


def widen(module: nn.Linear, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Bring what a half-precision layer hands on to the type of a module trained in full."""
    return (inputs[0].to(module.weight.dtype), *inputs[1:])


def narrow(
    dtype: torch.dtype, module: nn.Embedding, inputs: tuple[torch.Tensor, ...], words_BTD: torch.Tensor
) -> torch.Tensor:
    """Bring embeddings trained in full to the type of the half-precision layers behind them."""
    return words_BTD.to(dtype)
