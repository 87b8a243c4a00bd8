"""A model without its weights: every tensor has its shape, none has a value (torch's meta device).

It is built by the classes that build the real one, so what is counted here is what will be there. Of published models
that are not on this machine yet, the few numbers in their config.json are here, to price a run before a download.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import msgspec
from huggingface_hub import try_to_load_from_cache

from salmonn.config import SalmonnConfig
from salmonn.model import Salmonn


def whisper(width: int, layers: int, heads: int) -> dict[str, Any]:
    """Return the sizes of a Whisper with 80 mel bins."""
    encoder = {
        "d_model": width,
        "encoder_layers": layers,
        "encoder_attention_heads": heads,
        "encoder_ffn_dim": 4 * width,
    }
    decoder = {"decoder_layers": layers, "decoder_attention_heads": heads, "decoder_ffn_dim": 4 * width}
    return {"model_type": "whisper", **encoder, **decoder}


def llm(family: str, width: int, layers: int, heads: int, ffn: int, *, shared: int, words: int) -> dict[str, Any]:
    """Return the sizes of a language model; `shared` is the number of key and value heads, `words` its vocabulary."""
    sizes = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads, "intermediate_size": ffn}
    tied = {"num_key_value_heads": shared, "vocab_size": words, "tie_word_embeddings": family == "qwen2"}
    return {"model_type": family, **sizes, **tied}


PUBLISHED = {
    "openai/whisper-small": whisper(768, 12, 12),
    "openai/whisper-medium": whisper(1024, 24, 16),
    "openai/whisper-large-v2": whisper(1280, 32, 20),
    "lmsys/vicuna-7b-v1.5": llm("llama", 4096, 32, 32, 11008, shared=32, words=32000),
    "lmsys/vicuna-13b-v1.1": llm("llama", 5120, 40, 40, 13824, shared=40, words=32000),
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0": llm("llama", 2048, 22, 32, 5632, shared=4, words=32000),
    "Qwen/Qwen2.5-0.5B-Instruct": llm("qwen2", 896, 24, 14, 4864, shared=2, words=151936),
    "Qwen/Qwen2.5-1.5B-Instruct": llm("qwen2", 1536, 28, 12, 8960, shared=2, words=151936),
}
"""Sizes from the config.json of published models, https://huggingface.co/NAME/blob/main/config.json."""


def skeleton(config: SalmonnConfig) -> tuple[Salmonn, tuple[str, ...]]:
    """Return the model that `config` describes, without weights, and which parts have sizes of the table PUBLISHED.

    UserError for a part whose sizes are neither on this machine nor known: it says what is missing.
    """
    remarks = []
    with tempfile.TemporaryDirectory() as place:
        for part in ("whisper", "llm"):
            settings = getattr(config, part)
            if settings.folder in PUBLISHED and not is_here(settings.folder):
                folder = Path(place, part)
                folder.mkdir()
                (folder / "config.json").write_text(json.dumps(PUBLISHED[settings.folder]))
                remarks.append(f"{settings.folder} is not on this machine yet: its published sizes were taken")
                config = msgspec.structs.replace(
                    config, **{part: msgspec.structs.replace(settings, folder=str(folder))}
                )
        model = Salmonn.from_config(config, "meta")
    if config.beats is not None and config.beats.file and not Path(config.beats.file).is_file():
        remarks.append(f"there is no file {config.beats.file!r} yet: the sizes of the published BEATs were taken")
    return model, tuple(remarks)


def is_here(name: str) -> bool:
    """Whether the sizes of a model are in a local folder of this name, or in the cache of the Hub."""
    return Path(name).is_dir() or isinstance(try_to_load_from_cache(name, "config.json"), str)
