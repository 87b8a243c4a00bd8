"""BEATs, the encoder of sounds that are not speech: 8 tokens every 160 ms (Chen et al., ICML 2023; always frozen).

Shapes: B clips, S samples at 16 kHz, F frames of 10 ms, M = 128 mel bins, T tokens, E width of a patch, C width,
H heads, D = C / H, R offsets from -max_distance to max_distance, O = 2 T - 1 offsets within T tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn
from torch.nn import functional

from manifests.errors import UserError
from salmonn.beats_published import (
    BANDS,
    PATCH,
    BeatsSettings,
    check_tensors,
    own_tensors,
    read_checkpoint,
)
from salmonn.fbank import fbank, frame_count, own_frames

__all__ = ["Beats", "BeatsSettings", "load_beats_file"]

BIASES_AT_ONCE = {"cpu": 3_000_000}
"""Elements of the gated bias that are made at once, by kind of device: on a CPU what its cache holds (12 MB)."""
BIASES_AT_ONCE_ELSEWHERE = 1 << 27
"""256 MB in bfloat16, five clips of 30 s; all of a batch of 32 would be 1.7 GB."""


class Beats(nn.Module):
    """The encoder: filter bank, patches, a position convolution, layers of attention with a gated position bias."""

    ignored: tuple[str, ...] = ()
    """What a published checkpoint held beside the encoder."""

    def __init__(self, settings: BeatsSettings) -> None:
        """Make it with random weights from torch's current seed."""
        super().__init__()
        self.settings = settings
        self.patch = nn.Linear(PATCH * PATCH, settings.patch_width, bias=False)
        self.patch_norm = nn.LayerNorm(settings.patch_width)
        self.widen = nn.Linear(settings.patch_width, settings.width)
        self.encoder = Encoder(settings)
        self.requires_grad_(False).eval()

    @classmethod
    def from_published(cls, checkpoint: Mapping[str, Any]) -> Self:
        """Return the encoder of a published checkpoint, float32, on the CPU; UserError unless it is exactly one."""
        for part in ("cfg", "model"):
            if not isinstance(checkpoint.get(part), Mapping):
                raise UserError(
                    f"a BEATs checkpoint holds 'cfg' and 'model'; this one holds {sorted(map(str, checkpoint))}"
                )
        settings = BeatsSettings.of_published(checkpoint["cfg"])
        classifier = check_tensors(settings, checkpoint["model"])
        with torch.device("meta"):
            beats = cls(settings)
        beats.load_state_dict(own_tensors(settings, checkpoint["model"]), strict=True, assign=True)
        others = [key for key in checkpoint if key not in ("cfg", "model")]
        beats.ignored = (*(f"model.{name}" for name in classifier), *others)
        return beats

    @staticmethod
    def tokens(samples: int) -> int:
        """Return how many tokens a clip of so many samples has: 8 for every whole 16 frames, 1496 for 30 s."""
        return BANDS * (frame_count(samples) // PATCH)

    @staticmethod
    def own_tokens(lengths_B: torch.Tensor, tokens: int) -> torch.Tensor:
        """Return own_BT, true on the tokens that belong to a clip of so many samples, on the lengths' device."""
        count_B = BANDS * (own_frames(lengths_B) // PATCH)
        return torch.arange(tokens, device=lengths_B.device) < count_B[:, None]

    def forward(self, waveforms_BS: torch.Tensor, lengths_B: torch.Tensor) -> torch.Tensor:
        """Return the features [B, T, C] of waveforms in [-1, 1], zero beyond each clip's own tokens.

        `lengths_B` says in samples where a clip ends and its padding begins. T is what S samples make. What a clip
        gets does not depend on its batch. A LayerNorm after this must be followed by `own_tokens` again: of zeros it
        makes its bias.
        """
        weight = self.patch.weight
        waveforms_BS, lengths_B = waveforms_BS.to(weight.device), lengths_B.to(weight.device)
        own_BT = self.own_tokens(lengths_B, self.tokens(waveforms_BS.shape[1]))
        patches_BTP = to_patches(fbank(waveforms_BS, lengths_B)).to(weight.dtype)
        features_BTC: torch.Tensor = self.encoder(self.widen(self.patch_norm(self.patch(patches_BTP))), own_BT)
        return features_BTC


class Encoder(nn.Module):
    """Embedded patches to features; of fixed shapes if the caller pads to some, and without a branch on values."""

    def __init__(self, settings: BeatsSettings) -> None:
        super().__init__()
        c, k = settings.width, settings.conv_positions
        self.conv = nn.Conv1d(c, c, k, padding=k // 2, groups=settings.conv_groups)
        self.norm = nn.LayerNorm(c)
        self.bias_HR = nn.Parameter(settings.spread(torch.randn(settings.buckets, settings.heads)))
        self.layers = nn.ModuleList(Layer(settings) for _ in range(settings.layers))

    def forward(self, x_BTC: torch.Tensor, own_BT: torch.Tensor) -> torch.Tensor:
        """Return the last layer's output; tokens outside `own_BT` neither count nor come out (they are zero)."""
        t = x_BTC.shape[1]
        if not t:
            return x_BTC
        x_BTC = x_BTC.masked_fill(~own_BT[:, :, None], 0)
        # An even kernel makes one place too many; the last one goes, as released.
        places_BTC = self.conv(x_BTC.transpose(1, 2))[:, :, :t].transpose(1, 2)
        x_BTC = self.norm(x_BTC + functional.gelu(places_BTC))
        bias_HTT = self.position_bias(t)
        # Half the lowest number, for minus infinity would make not-a-number of a clip without tokens.
        lowest = torch.finfo(x_BTC.dtype).min / 2
        outside_BT = torch.zeros_like(own_BT, dtype=x_BTC.dtype).masked_fill(~own_BT, lowest).flip(1)
        for layer in self.layers:
            x_BTC = layer(x_BTC, bias_HTT, outside_BT[:, None, None])
        return x_BTC.masked_fill(~own_BT[:, :, None], 0)

    def position_bias(self, t: int) -> torch.Tensor:
        """Return the bias of every pair of T tokens, with the KEYS IN REVERSE ORDER, as a view of 2 T - 1 numbers.

        It depends on key minus query only. Row i with the keys reversed is then the row of numbers from the i-th on,
        so that all rows overlap in memory: no T x T of it is ever stored, in the model or beside it.
        """
        reach = self.bias_HR.shape[1] // 2
        bias_HR = functional.pad(self.bias_HR[None], (max(0, t - 1 - reach),) * 2, mode="replicate")[0]
        middle = bias_HR.shape[1] // 2
        bias_HO = bias_HR[:, middle - t + 1 : middle + t].flip(1)
        return bias_HO.unfold(1, t, 1)


class Layer(nn.Module):
    """Attention and feed-forward, each followed by a LayerNorm, with deep norm's weight on what goes past them."""

    def __init__(self, settings: BeatsSettings) -> None:
        super().__init__()
        c, h = settings.width, settings.heads
        self.alpha = (2 * settings.layers) ** 0.25
        self.qkv = nn.Linear(c, 3 * c)
        self.gate = nn.Linear(c // h, 2)
        self.gate_scale_H = nn.Parameter(torch.ones(h))
        self.out = nn.Linear(c, c)
        self.attention_norm = nn.LayerNorm(c)
        self.fc1 = nn.Linear(c, settings.ffn)
        self.fc2 = nn.Linear(settings.ffn, c)
        self.ffn_norm = nn.LayerNorm(c)

    def forward(self, x_BTC: torch.Tensor, bias_HTT: torch.Tensor, outside_B11T: torch.Tensor) -> torch.Tensor:
        """Return the layer's output; the keys of `bias_HTT` and of what is added outside a clip are in reverse."""
        attended_BTC = self.out(self.attend(x_BTC, bias_HTT, outside_B11T))
        x_BTC = self.attention_norm(torch.add(attended_BTC, x_BTC, alpha=self.alpha))
        fed_BTC = self.fc2(functional.gelu(self.fc1(x_BTC)))
        x_BTC = self.ffn_norm(torch.add(fed_BTC, x_BTC, alpha=self.alpha))
        return x_BTC

    def attend(self, x_BTC: torch.Tensor, bias_HTT: torch.Tensor, outside_B11T: torch.Tensor) -> torch.Tensor:
        """Return softmax(q k / sqrt(D) + gate * bias) v, the heads side by side, some clips and heads at a time."""
        heads = len(bias_HTT)
        qkv_BTAHD = self.qkv(x_BTC).unflatten(-1, (3, heads, -1))
        q_BTHD = qkv_BTAHD[:, :, 0]
        k_BHTD, v_BHTD = qkv_BTAHD[:, :, 1:].flip(1).permute(2, 0, 3, 1, 4)
        gate_BHT1 = self.gates(q_BTHD).transpose(1, 2)[..., None]
        out_BTHD = torch.empty_like(q_BTHD, memory_format=torch.contiguous_format)
        for clips, some in pieces(len(x_BTC), heads, x_BTC.shape[1], x_BTC.device.type):
            # One pass makes the mask: padding + gate * bias.
            mask_BHTT = torch.addcmul(outside_B11T[clips], gate_BHT1[clips, some], bias_HTT[some])
            out_BTHD[clips, :, some] = functional.scaled_dot_product_attention(
                q_BTHD[clips, :, some].transpose(1, 2), k_BHTD[clips, some], v_BHTD[clips, some], attn_mask=mask_BHTT
            ).transpose(1, 2)
        return out_BTHD.flatten(2)

    def gates(self, q_BTHD: torch.Tensor) -> torch.Tensor:
        """Return what a query's position biases are multiplied by, [B, T, H], from the projected, unscaled query."""
        a_BTH, b_BTH = self.gate(q_BTHD).float().sigmoid().unbind(-1)
        gate_BTH: torch.Tensor = a_BTH * (b_BTH * self.gate_scale_H.float() - 1) + 2
        return gate_BTH.to(q_BTHD.dtype)


def to_patches(mel_BFM: torch.Tensor) -> torch.Tensor:
    """Return the patches of 16 x 16, [B, T, 256]: the 8 of a time are neighbours; frames that fill none are dropped."""
    clips, times = len(mel_BFM), mel_BFM.shape[1] // PATCH
    patches = mel_BFM[:, : times * PATCH].reshape(clips, times, PATCH, BANDS, PATCH).transpose(2, 3)
    return patches.reshape(clips, times * BANDS, PATCH * PATCH)


def pieces(clips: int, heads: int, tokens: int, device: str) -> Iterator[tuple[slice, slice]]:
    """Yield slices of clips and heads whose biases fit into what a device should hold at once, at least one head's."""
    limit = BIASES_AT_ONCE.get(device, BIASES_AT_ONCE_ELSEWHERE)
    fit = max(1, limit // tokens**2)
    some_clips, some_heads = max(1, fit // heads), min(heads, fit)
    for clip in range(0, clips, some_clips):
        for head in range(0, heads, some_heads):
            yield slice(clip, clip + some_clips), slice(head, head + some_heads)


def load_beats_file(path: str | Path) -> Beats:
    """Return the encoder of a published checkpoint's file; UserError names the file and what is wrong with it."""
    checkpoint = read_checkpoint(path)
    try:
        return Beats.from_published(checkpoint)
    except UserError as error:
        raise UserError(f"the BEATs checkpoint {str(path)!r}: {error}") from None
