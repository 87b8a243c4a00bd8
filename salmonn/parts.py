"""The frozen parts a model is built from: published weights from a folder, or random ones of given sizes.

On the device ``meta`` no weights are loaded: a part then has its sizes only, which is enough to count and to price.
"""

from __future__ import annotations

import contextlib
import hashlib
import pickle
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, LlamaConfig, LlamaForCausalLM, WhisperModel
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from manifests.errors import UserError
from salmonn.beats import Beats, BeatsSettings, load_beats_file
from salmonn.config import FRAMES, BeatsConfig, DType, LLMConfig, WhisperConfig

CPU = torch.device("cpu")
BEATS_PAGE = "https://github.com/microsoft/unilm/tree/master/beats"


@contextlib.contextmanager
def loading(part: str, folder: str, files: str) -> Iterator[None]:
    """Turn a failure to load `folder` into a UserError that says what is missing and where it belongs."""
    try:
        yield
    except UserError:
        raise
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError, pickle.UnpicklingError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
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


def dtype_on(dtype: DType, device: torch.device) -> torch.dtype:
    """Return the type of frozen weights on `device`: ``auto`` is bfloat16 on a GPU and float32 elsewhere."""
    if dtype == "auto":
        dtype = "bfloat16" if device.type == "cuda" else "float32"
    found: torch.dtype = getattr(torch, dtype)
    return found


def load_whisper(config: WhisperConfig, device: torch.device = CPU) -> Any:
    """Return the WhisperEncoder that `config` describes, frozen and in eval mode, its type that of `device`."""
    dtype = dtype_on(config.dtype, device)
    if config.folder:
        with loading("whisper", config.folder, "config.json and model.safetensors"):
            encoder = published("whisper", WhisperModel, config.folder, dtype, device).encoder
        frames = encoder.config.max_source_positions
        if encoder.config.model_type != "whisper" or frames != FRAMES:
            raise UserError(
                f"whisper: {config.folder!r} holds a {encoder.config.model_type} model of {frames} frames; "
                f"it should be a Whisper of {FRAMES} frames, 30 s"
            )
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
        with seeded(config.seed), on(device):
            encoder = WhisperEncoder(sizes).to(dtype)
    return encoder.requires_grad_(False).eval()


def load_beats(config: BeatsConfig, device: torch.device = CPU) -> Beats:
    """Return the audio encoder that `config` describes, frozen and in eval mode, its type that of `device`."""
    if config.file and Path(config.file).is_file():
        beats = load_beats_file(config.file)
    elif config.file and device.type != "meta":
        raise UserError(
            f"beats: there is no file {config.file!r}; download {Path(config.file).name!r} by its link on {BEATS_PAGE} "
            "and put it there, or name the place it lies at in beats.file"
        )
    elif config.file:
        # All published ones have these sizes.
        with on(device):
            beats = Beats(BeatsSettings())
    else:
        sizes = BeatsSettings(
            layers=config.layers,
            width=config.width,
            heads=config.heads,
            ffn=config.ffn,
            patch_width=config.patch_width,
        )
        with seeded(config.seed), on(device):
            beats = Beats(sizes)
    return beats.to(dtype_on(config.dtype, device)).requires_grad_(False).eval()


def load_llm(config: LLMConfig, tokenizer: Any, device: torch.device = CPU) -> Any:
    """Return the causal language model that `config` describes, frozen and in eval mode, its type that of `device`.

    Its own generation settings (sampling, penalties) are dropped: decoding is what the caller asks for, nothing else.
    """
    dtype = dtype_on(config.dtype, device)
    if config.folder:
        with loading("llm", config.folder, "config.json and model.safetensors"):
            llm = published("llm", AutoModelForCausalLM, config.folder, dtype, device)
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
        with seeded(config.seed), on(device):
            llm = LlamaForCausalLM(sizes).to(dtype)
    llm.generation_config = GenerationConfig()
    return llm.requires_grad_(False).eval()


def published(part: str, kind: Any, folder: str, dtype: torch.dtype, device: torch.device) -> Any:
    """Return the model in `folder` on the CPU, or its outline on ``meta``; UserError if weights are missing."""
    if device.type == "meta":
        settings = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        with device:
            if kind is WhisperModel:
                return WhisperModel(settings)
            return kind.from_config(settings, dtype=dtype, trust_remote_code=False)
    model, report = kind.from_pretrained(folder, dtype=dtype, trust_remote_code=False, output_loading_info=True)
    missing = sorted(report["missing_keys"])
    if missing:
        # transformers would go on with random weights in their places.
        raise UserError(
            f"{part}: the weights in {folder!r} are not whole: {missing[0]!r} and {len(missing) - 1} more are missing; "
            "download the folder again"
        )
    return model


@contextlib.contextmanager
def on(device: torch.device) -> Iterator[None]:
    """Make weights on the CPU, so that a seed gives the same on any device, or only their sizes on ``meta``."""
    if device.type == "meta":
        with device:
            yield
    else:
        yield


def weights_digest(weights: Iterable[tuple[str, torch.Tensor, bool]]) -> str:
    """Return the sha256 of weights by name; one with a true third value counts as it is in bfloat16."""
    digest = hashlib.sha256()
    for name, weight, rounded in sorted(weights, key=lambda one: one[0]):
        weight = weight.detach().to(torch.bfloat16) if rounded else weight.detach()
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}\n".encode())
        digest.update(weight.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
