"""Learning: what the sound goes through before anything is learnt from it."""

from __future__ import annotations

import torch

from salmonn.config import QFormerConfig
from salmonn.qformer import WindowQFormer


def test_a_narrow_q_former_passes_the_sound_on_where_its_weights_begin_wider() -> None:
    """Of N(0, 0.02), meant for 768 channels, 64 channels make tokens in which other sounds hardly differ."""

    def spread(**settings: float) -> float:
        """How far the tokens of unlike windows differ, in parts of their size."""
        config = QFormerConfig(width=64, layers=1, heads=2, ffn=128, dropout=0.0, **settings)
        with torch.no_grad():
            tokens_BAD = WindowQFormer(config, speech_width=64, llm_width=32).eval()(windows_BFC)
        return float(tokens_BAD.std(dim=(0, 1)).mean() / tokens_BAD.square().mean().sqrt())

    windows_BFC = torch.randn(4, 1500, 64, generator=torch.Generator().manual_seed(0))
    assert spread(init_std=0.07) > 5 * spread(), (spread(init_std=0.07), spread())
    assert spread(init_std=0.02) == spread()
