"""The frozen parts a model is built from: published weights from a folder, or random ones of given sizes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, GenerationConfig, LlamaConfig, LlamaForCausalLM, WhisperModel
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from manifests.errors import UserError
from salmonn.config import FRAMES, LLMConfig, WhisperConfig


@contextlib.contextmanager
def loading(part: str, folder: str, files: str) -> Iterator[None]:
    """Turn a failure to load `folder` into a UserError that says what is missing and where it belongs."""
    try:
        yield
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        if Path(folder).is_dir():
            why = first if (Path(folder) / "config.json").is_file() else "there is no config.json"
            raise UserError(f"{part}: cannot load the folder {folder!r}, which should hold {files}: {why}") from None
        raise UserError(
            f"{part}: {folder!r} is neither a folder here nor in the Hugging Face cache of this machine; run "
            f"'hf download {folder}' where there is a network (unset HF_HUB_OFFLINE), or put {files} into a folder "
            f"and name it in {part}.folder ({first})"
        ) from None


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw torch's random numbers from `seed` inside, and leave the state outside as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def load_whisper(config: WhisperConfig) -> Any:
    """Return the WhisperEncoder that `config` describes, frozen and in eval mode."""
    if config.folder:
        with loading("whisper", config.folder, "config.json and model.safetensors"):
            encoder = WhisperModel.from_pretrained(config.folder, dtype=getattr(torch, config.dtype)).encoder
    else:
        sizes = transformers.WhisperConfig(
            d_model=config.width,
            encoder_layers=config.layers,
            encoder_attention_heads=config.heads,
            encoder_ffn_dim=config.ffn,
            num_mel_bins=config.mel_bins,
            max_source_positions=FRAMES,
            init_std=config.init_std,
        )
        with seeded(config.seed):
            encoder = WhisperEncoder(sizes).to(getattr(torch, config.dtype))
    return encoder.requires_grad_(False).eval()


def load_llm(config: LLMConfig, tokenizer: Any) -> Any:
    """Return the causal language model that `config` describes, frozen and in eval mode.

    Its own generation settings (sampling, penalties) are dropped: decoding is what the caller asks for, nothing else.
    """
    if config.folder:
        with loading("llm", config.folder, "config.json and model.safetensors"):
            llm = AutoModelForCausalLM.from_pretrained(config.folder, dtype=getattr(torch, config.dtype))
    else:
        sizes = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.width,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.heads,
            intermediate_size=config.ffn,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            initializer_range=config.init_std,
            tie_word_embeddings=False,
        )
        with seeded(config.seed):
            llm = LlamaForCausalLM(sizes).to(getattr(torch, config.dtype))
    llm.generation_config = GenerationConfig()
    return llm.requires_grad_(False).eval()
