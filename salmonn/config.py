"""The settings of a model: its parts and their sizes, read from TOML, and the presets that come with the project."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from manifests.errors import UserError, nearest
from manifests.settings import read_toml

PRESETS = Path(__file__).parent / "presets"
SPEECH = "<SpeechHere>"
FRAMES = 1500
"""Frames of Whisper's encoder for 30 s, the length every clip is padded to."""

DType = Literal["auto", "float32", "bfloat16", "float16"]
"""Of frozen weights: ``auto`` is bfloat16 on a GPU and float32 elsewhere. What is trained is float32 always."""


class WhisperConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The speech encoder, always frozen: a published one from `folder`, or one of these sizes with random weights."""

    folder: str = ""
    """A local folder or a name on the Hugging Face Hub; empty means random weights."""
    dtype: DType = "float32"
    seed: int = 0
    """Of the random weights."""
    width: int = 0
    layers: int = 0
    heads: int = 0
    ffn: int = 0
    mel_bins: int = 80
    init_std: float = 0.02
    """Standard deviation of the random weights; at 0.02 the position embedding drowns the sound."""

    def __post_init__(self) -> None:
        demand_one_source("whisper", self.folder, (self.width, self.layers, self.heads, self.ffn))


class BeatsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The audio encoder, always frozen: a published one from `file`, or one of these sizes with random weights."""

    file: str = ""
    """A published checkpoint, such as ``BEATs_iter3_plus_AS2M_finetuned_on_AS2M_cpt2.pt``; empty means random ones."""
    dtype: DType = "float32"
    """Of the encoder; its filter bank is computed in float32 all the same."""
    seed: int = 0
    """Of the random weights."""
    width: int = 0
    layers: int = 0
    heads: int = 0
    ffn: int = 0
    patch_width: int = 0
    """Of the embedding of a patch of 16 by 16 (512 as published)."""

    def __post_init__(self) -> None:
        sizes = (self.width, self.layers, self.heads, self.ffn, self.patch_width)
        demand_one_source("beats", self.file, sizes, "file", "width, layers, heads, ffn and patch_width")


class LLMConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The language model: a causal one from `folder` with its tokenizer, or a LLaMA with random weights."""

    folder: str = ""
    """A local folder or a name on the Hugging Face Hub; empty means random weights."""
    dtype: DType = "float32"
    seed: int = 0
    """Of the random weights."""
    width: int = 0
    layers: int = 0
    heads: int = 0
    ffn: int = 0
    init_std: float = 0.02
    """Standard deviation of the random weights; a frozen narrow layer at 0.02 hardly passes anything on."""
    pieces: Literal["bytes", "tiny"] = "bytes"
    """What a model of random weights reads: bytes, or the thousand pieces of presets/tiny.tokenizer.json."""

    def __post_init__(self) -> None:
        demand_one_source("llm", self.folder, (self.width, self.layers, self.heads, self.ffn))


class QFormerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The window-level Q-Former between encoder and language model; defaults are the paper's (section 3.1)."""

    window_seconds: float = 0.333333
    stride_seconds: float = 0.333333
    queries: int = 1
    """Per window."""
    width: int = 768
    layers: int = 2
    heads: int = 12
    ffn: int = 3072
    dropout: float = 0.1
    seed: int = 0
    """Of the weights before training."""
    init_std: float = 0.02
    """Standard deviation of them. A narrow one at the released 0.02 hardly passes sound on: try 0.55 / sqrt(width)."""

    def __post_init__(self) -> None:
        if not (1 <= self.kernel <= FRAMES and 1 <= self.stride <= FRAMES):
            raise ValueError(
                f"qformer: a window of {self.window_seconds} s every {self.stride_seconds} s makes "
                f"{self.kernel} and {self.stride} frames; both must be from 1 to {FRAMES} (0.02 to 30 s)"
            )

    @property
    def kernel(self) -> int:
        """Frames in a window; 50 frames a second, Python rounding (17 for a third of a second)."""
        return round(FRAMES * self.window_seconds / 30)

    @property
    def stride(self) -> int:
        """Frames from one window to the next."""
        return round(FRAMES * self.stride_seconds / 30)


class LoraConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The trained part of the language model; defaults are the released ones (scaling alpha / r = 4)."""

    r: int = 8
    alpha: float = 32.0
    dropout: float = 0.1
    targets: tuple[str, ...] = ("q_proj", "v_proj")
    """Names of the linear layers that get an adapter."""
    trained_modules: tuple[str, ...] = ()
    """Modules trained in full, for example ``embed_tokens``: a language model of random weights needs it."""
    seed: int = 0
    """Of the weights before training."""


class PromptConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How an instruction becomes the text around the audio tokens."""

    template: str = "USER: {}\nASSISTANT:"
    """The turn of the language model; ``{}`` takes the instruction."""
    speech: str = "<Speech><SpeechHere></Speech> {prompt}"
    """The instruction; ``<SpeechHere>`` takes the audio tokens and ``{prompt}`` the words."""

    def __post_init__(self) -> None:
        if self.template.count("{}") != 1:
            raise ValueError(f"prompt.template must hold {{}} once, for the instruction; it is {self.template!r}")
        if self.speech.count(SPEECH) != 1 or self.speech.count("{prompt}") != 1:
            raise ValueError(f"prompt.speech must hold {SPEECH} once and {{prompt}} once; it is {self.speech!r}")

    def wrap(self, prompt: str) -> str:
        """Return the full text of an instruction, with ``<SpeechHere>`` where the audio tokens go."""
        return self.template.replace("{}", self.speech.replace("{prompt}", prompt.strip()))

    def borders(self) -> tuple[tuple[str, str], tuple[str, str]]:
        """Return what stands before and behind an instruction's own words, in the halves before and after the audio."""
        before, after = self.template.replace("{}", self.speech).split(SPEECH)
        return (before.partition("{prompt}")[::2], after.partition("{prompt}")[::2])


class SalmonnConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that a model is built from."""

    whisper: WhisperConfig
    beats: BeatsConfig | None = None
    """The second stream; without it the model hears through Whisper alone."""
    llm: LLMConfig
    qformer: QFormerConfig = QFormerConfig()
    lora: LoraConfig = LoraConfig()
    prompt: PromptConfig = PromptConfig()
    max_answer_tokens: int = 300
    """A longer answer is cut before its end-of-sequence token, which is always learnt; cuts are counted."""

    def __post_init__(self) -> None:
        if self.max_answer_tokens < 1:
            raise ValueError(f"max_answer_tokens is {self.max_answer_tokens}; it must be at least 1")


class OptimizerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """AdamW and its rate; defaults are those of the released stage 1."""

    schedule: Literal["cosine", "constant"] = "cosine"
    """Linear warm-up from `start_lr`, then a cosine to `final_lr`; or `peak_lr` at every step, as activation tuning
    wants it: its dozen steps would not leave the warm-up."""
    start_lr: float = 1e-6
    peak_lr: float = 3e-5
    final_lr: float = 1e-5
    warmup_steps: int = 3000
    weight_decay: float = 0.05
    """On tensors of two dimensions and more; biases and LayerNorms have none."""
    beta1: float = 0.9
    beta2: float = 0.999
    clip_norm: float = 0.0
    """Largest norm of the gradient; 0 means no clipping, as released."""

    def __post_init__(self) -> None:
        if not 0 <= self.start_lr <= self.peak_lr or not 0 <= self.final_lr <= self.peak_lr:
            raise ValueError(
                f"optimizer: start_lr {self.start_lr} and final_lr {self.final_lr} must lie between 0 and "
                f"peak_lr {self.peak_lr}"
            )
        if self.warmup_steps < 0 or self.clip_norm < 0 or self.weight_decay < 0:
            raise ValueError("optimizer: warmup_steps, clip_norm and weight_decay must not be negative")


class Preset(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A named model and the optimizer settings that suit it: a file ``salmonn/presets/NAME.toml``."""

    model: SalmonnConfig
    optimizer: OptimizerConfig = OptimizerConfig()


def demand_one_source(
    part: str,
    source: str,
    sizes: tuple[int, ...],
    kind: str = "folder",
    names: str = "width, layers, heads and ffn",
) -> None:
    """Raise ValueError unless a part has either a folder (or file) or all its sizes."""
    if source and any(sizes):
        raise ValueError(
            f"{part} has both {kind} {source!r} and sizes; a {kind} brings its own, so leave the sizes out"
        )
    if not source and min(sizes) < 1:
        raise ValueError(f"{part} needs either a {kind} or the sizes {names}, each at least 1")


def preset_names() -> tuple[str, ...]:
    """Return the names of the presets that come with the project."""
    return tuple(sorted(path.stem for path in PRESETS.glob("*.toml")))


def load_preset(name: str) -> Preset:
    """Return the preset called `name`; UserError with the nearest name if there is none."""
    if name not in preset_names():
        raise UserError(f"there is no model preset {name!r}; {nearest(name, preset_names())}")
    return read_toml(PRESETS / f"{name}.toml", Preset)
