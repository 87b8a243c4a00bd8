"""How much memory a training step will take, item by item, told from sizes alone: an estimate, and how it is made.

What lies there all the time (weights, gradients, Adam's two moments) is counted exactly. What a step adds is told for
its fullest batch, from what autograd keeps for the backward pass of the layers we use: tests compare with what it does
keep. B clips, D width of the language model, F width inside its layers, N answer tokens, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import msgspec
import torch

from salmonn.config import FRAMES
from salmonn.lora import LoraLayer
from salmonn.model import Salmonn
from salmonn.parts import dtype_on
from salmonn.training.forecast import Fullest
from salmonn.training.settings import TrainConfig

LIBRARIES = 700_000_000
"""What torch, transformers and, on a GPU, CUDA's own context take before a model is there; seen to be 0.5 to 0.9 GB."""
FLOAT = 4
"""Bytes of a number in float32."""


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """What one process takes, bytes."""

    device: str
    """``cuda`` or ``cpu``."""
    processes: int
    """That train together."""
    items: dict[str, int]
    total: int


def estimate_memory(
    model: Salmonn, config: TrainConfig, device: str, processes: int, fullest: Fullest, learn: int
) -> Memory:
    """Return what each of `processes` takes on `device`, where so many of the trained weights `learn`.

    `model` may be without weights, `config` is resolved.
    """
    half = config.precision == "bfloat16" or (config.precision == "auto" and device == "cuda")
    own = sum(weight.numel() for weight in model.trainable_state().values())
    sharers = processes if config.shard_frozen else 1
    kept = qformer_kept(model, half, fullest) + (words := llm_kept(model, config, device, half, fullest))
    logits = answer_logits(model, device, fullest)
    items = {
        **frozen_bytes(model, device, sharers),
        "trained weights": own * FLOAT,
        "their copies in bfloat16": own * 2 if half else 0,
        "gradients": learn * FLOAT,
        "gradients on their way between processes": learn * FLOAT if processes > 1 else 0,
        "AdamW's two moments": 2 * learn * FLOAT,
        "activations kept by the Q-Former": kept - words,
        "activations kept by the language model": words,
        "answers' logits, their softmax and gradient": logits,
        # The encoders are done, and their activations gone, before the language model begins.
        "encoders at work, beyond the activations": max(0, encoders_at_work(model, device, fullest) - kept - logits),
        "libraries": LIBRARIES,
    }
    items = {name: count for name, count in items.items() if count}
    return Memory(device=device, processes=processes, items=items, total=sum(items.values()))


def bytes_of(model: Salmonn, part: str, device: str) -> int:
    """Return the bytes that a number of a frozen part takes on `device`."""
    return dtype_on(getattr(model.config, part).dtype, torch.device(device)).itemsize


def frozen_counts(model: Salmonn) -> dict[str, int]:
    """Return how many frozen weights each part has: whisper, beats and llm."""
    trained, counts = set(model.trained), {"whisper": 0, "beats": 0, "llm": 0}
    for name, weight in model.named_parameters():
        if name not in trained:
            counts[name.partition(".")[0]] += weight.numel()
    return counts


def frozen_bytes(model: Salmonn, device: str, sharers: int) -> dict[str, int]:
    """Return the bytes of the frozen weights by part; `sharers` processes cut the language model's among them."""
    bytes_by_part: dict[str, int] = {}
    for part, count in frozen_counts(model).items():
        if count:
            cut = sharers if part == "llm" else 1
            bytes_by_part[f"weights of {NAMES[part]}"] = count * bytes_of(model, part, device) // cut
    if sharers > 1:
        # Two layers are whole at a time: the one at work and the one fetched ahead. Embeddings stay whole.
        shape, each = llm_shape(model), bytes_of(model, "llm", device)
        layer = 4 * shape.width**2 + 3 * shape.width * shape.inner
        bytes_by_part["its layers at work, made whole"] = 2 * layer * each
    return bytes_by_part


NAMES = {"whisper": "Whisper", "beats": "BEATs", "llm": "the language model"}


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """The sizes of a language model that its activations depend on."""

    width: int
    layers: int
    heads: int
    head: int
    inner: int
    words: int


def llm_shape(model: Salmonn) -> Shape:
    """Return the sizes of the language model."""
    sizes: Any = model.llm.config
    head = getattr(sizes, "head_dim", None) or sizes.hidden_size // sizes.num_attention_heads
    return Shape(
        width=sizes.hidden_size,
        layers=sizes.num_hidden_layers,
        heads=sizes.num_attention_heads,
        head=head,
        inner=sizes.intermediate_size,
        words=model.llm.get_input_embeddings().num_embeddings,
    )


def llm_kept(model: Salmonn, config: TrainConfig, device: str, half: bool, fullest: Fullest) -> int:
    """Return what autograd keeps of the language model's layers (LLaMA's, and those built like it).

    A frozen matrix keeps nothing of its input. What stays of a layer: the inputs of two norms in float32; queries,
    keys, values and result of fused attention; three products inside the feed-forward part; the input of each LoRA
    matrix, with its dropout's mask.
    """
    shape, each = llm_shape(model), bytes_of(model, "llm", device)
    dropout = model.config.lora.dropout > 0
    # On a CPU a dropout keeps its mask in the type of its input, on a GPU as one byte.
    mask = (1 if device == "cuda" else FLOAT) if dropout else 0
    adapted = sum(layer.in_features for layer in model.llm.modules() if isinstance(layer, LoraLayer))
    lora = adapted * ((2 if half else FLOAT) + mask)
    attention = 4 * shape.heads * shape.head * each
    layer = 2 * shape.width * FLOAT + attention + 3 * shape.inner * each
    layers = shape.layers * layer + lora
    if config.gradient_checkpointing:
        # Only what goes into each layer is kept; one layer at a time is there in full.
        layers = shape.layers * shape.width * each + layers // shape.layers
    return int(fullest.tokens * (layers + shape.width * FLOAT))


def qformer_kept(model: Salmonn, half: bool, fullest: Fullest) -> int:
    """Return what autograd keeps of the Q-Former: its frames, before and in windows, and of each layer.

    Where products are in bfloat16, `half`, so are the windows and what is made of them.
    """
    sizes, qformer = model.config.qformer, model.qformer
    each = 2 if half else FLOAT
    frames_width = model.whisper.config.d_model + (model.beats.settings.width if model.beats is not None else 0)
    windows = (FRAMES - qformer.kernel) // qformer.stride + 1
    queries = windows * sizes.queries
    # Keys and values of the frames in each layer; of a query its states, its scores and its feed-forward part.
    frames = FRAMES * frames_width * FLOAT + windows * qformer.kernel * frames_width * each
    keys = 2 * windows * qformer.kernel * sizes.width * each
    states = queries * (14 * sizes.width + 2 * sizes.ffn + 4 * sizes.heads * (qformer.kernel + sizes.queries)) * FLOAT
    return int(fullest.examples * (frames + sizes.layers * (keys + states)))


def answer_logits(model: Salmonn, device: str, fullest: Fullest) -> int:
    """Return what the answers' logits take at most: in the model's type, in float32, and their softmax or gradient."""
    return fullest.answers * llm_shape(model).words * (bytes_of(model, "llm", device) + 2 * FLOAT)


def encoders_at_work(model: Salmonn, device: str, fullest: Fullest) -> int:
    """Return what an encoder takes while it works, without gradients: its widest layer, BEATs' bias of attention."""
    whisper = model.whisper.config
    speech = FRAMES * (2 * whisper.d_model + 2 * whisper.encoder_ffn_dim) * bytes_of(model, "whisper", device)
    sound = 0
    if model.beats is not None:
        sizes, each = model.beats.settings, bytes_of(model, "beats", device)
        sound = FRAMES * (2 * sizes.width + 2 * sizes.ffn) * each + 2 * sizes.heads * FRAMES**2 * each
    return int(fullest.examples * max(speech, sound))
