"""The window-level Q-Former: encoder frames to the tokens that the language model reads (paper, section 3.1).

Shapes: B clips, F frames (50 a second), W windows, K frames a window, Q queries a window, C channels of all streams,
E width of the Q-Former, D width of the language model. With the paper's settings W = 88 and Q = 1 for every clip.
"""

from __future__ import annotations

import functools

import torch
from torch import nn
from torch.nn import functional
from transformers import Blip2QFormerConfig, Blip2QFormerModel

from salmonn.config import QFormerConfig
from salmonn.parts import seeded


class WindowQFormer(nn.Module):
    """LayerNorm on each stream, windows over their concatenation, a Q-Former on each window, a projection."""

    def __init__(self, config: QFormerConfig, *, speech_width: int, llm_width: int, audio_width: int = 0) -> None:
        """Make it with fresh weights drawn from `config.seed`; `audio_width` 0 means there is no second stream."""
        super().__init__()
        self.kernel, self.stride = config.kernel, config.stride
        with seeded(config.seed):
            self.ln_speech = nn.LayerNorm(speech_width)
            self.ln_audio = nn.LayerNorm(audio_width) if audio_width else None
            self.query_1QE = nn.Parameter(torch.randn(1, config.queries, config.width) * config.init_std)
            self.blip = Blip2QFormerModel(
                Blip2QFormerConfig(
                    hidden_size=config.width,
                    num_hidden_layers=config.layers,
                    num_attention_heads=config.heads,
                    intermediate_size=config.ffn,
                    hidden_dropout_prob=config.dropout,
                    attention_probs_dropout_prob=config.dropout,
                    cross_attention_frequency=1,
                    encoder_hidden_size=speech_width + audio_width,
                    use_qformer_text_input=False,
                    # Fused attention gives rounding noise where a lone query's gradient is zero, and Adam scales it up.
                    attn_implementation="eager",
                )
            )
            self.blip.apply(functools.partial(reset, std=config.init_std))
            self.projection = nn.Linear(config.width, llm_width)

    def forward(
        self,
        speech_BFC: torch.Tensor,
        audio_BFC: torch.Tensor | None = None,
        audio_frames_B: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the audio tokens [B, W * Q, D]; the queries of a window are adjacent.

        `audio_frames_B` says how many frames of the second stream are a clip's own; without it all are.
        """
        frames_BFC = self.join(speech_BFC, audio_BFC, audio_frames_B)
        # The incomplete window at the end is dropped, as released (4 of 1500 frames).
        windows_BWCK = frames_BFC.unfold(1, self.kernel, self.stride)
        b, w = windows_BWCK.shape[:2]
        windows_NKC = windows_BWCK.transpose(2, 3).reshape(b * w, self.kernel, -1)
        query_NQE = self.query_1QE.expand(b * w, -1, -1)
        hidden_NQE = self.blip(query_embeds=query_NQE, encoder_hidden_states=windows_NKC).last_hidden_state
        tokens_NQD: torch.Tensor = self.projection(hidden_NQE)
        return tokens_NQD.reshape(b, -1, tokens_NQD.shape[-1])

    def join(
        self,
        speech_BFC: torch.Tensor,
        audio_BFC: torch.Tensor | None,
        audio_frames_B: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return both streams after their LayerNorms, the shorter one padded with zeros, speech channels first."""
        speech_BFC = self.ln_speech(speech_BFC)
        assert (self.ln_audio is None) == (audio_BFC is None), "as many streams as it was made for"
        if self.ln_audio is None or audio_BFC is None:
            return speech_BFC
        audio_BFC = self.ln_audio(audio_BFC)
        # Padding comes after the LayerNorm, so that a padded frame is exactly zero; a clip in a longer batch has what
        # it has alone.
        if audio_frames_B is not None:
            own_BF = torch.arange(audio_BFC.shape[1], device=audio_BFC.device) < audio_frames_B[:, None]
            audio_BFC = audio_BFC.masked_fill(~own_BF[:, :, None], 0.0)
        frames = max(speech_BFC.shape[1], audio_BFC.shape[1])
        streams = [functional.pad(x_BFC, (0, 0, 0, frames - x_BFC.shape[1])) for x_BFC in (speech_BFC, audio_BFC)]
        return torch.cat(streams, dim=-1)


def reset(module: nn.Module, std: float) -> None:
    """Give a linear layer BERT's fresh weights: N(0, std) and no bias, at 0.02 as the released Q-Former starts."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=std)
        nn.init.zeros_(module.bias)
