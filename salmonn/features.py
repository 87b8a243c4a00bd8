"""Waveforms to Whisper's log-mel spectrogram of 30 s.

Shapes: B clips, S samples at 16 kHz, M mel bins, F = 3000 frames of 10 ms.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from transformers import WhisperFeatureExtractor

SAMPLE_RATE = 16_000
SHORTEST = 1 * SAMPLE_RATE
"""A clip below 1 s is padded with zeros, as in the released code."""
LONGEST = 30 * SAMPLE_RATE

Waveform = npt.NDArray[np.float32]


def fit_length(audio_S: Waveform) -> Waveform:
    """Return the clip padded with zeros to 1 s at least and cut at 30 s; ValueError unless it is mono and not empty."""
    audio_S = np.asarray(audio_S, dtype=np.float32)
    if audio_S.ndim != 1 or not len(audio_S):
        raise ValueError(f"a waveform must be mono with one sample at least, of shape [S]; this one is {audio_S.shape}")
    return np.pad(audio_S[:LONGEST], (0, max(0, SHORTEST - len(audio_S))))


class LogMel:
    """Whisper's features; `cut` counts the clips above 30 s that lost their end, so that nothing is cut in silence."""

    def __init__(self, mel_bins: int) -> None:
        """Every published Whisper has these settings but for the number of mel bins (80, or 128 in large-v3)."""
        self.extractor = WhisperFeatureExtractor(feature_size=mel_bins)
        self.cut = 0

    def __call__(self, waveforms: Sequence[Waveform]) -> torch.Tensor:
        """Return mel_BMF, float32, from mono waveforms at 16 kHz in [-1, 1]; each clip's values depend on it alone."""
        self.cut += sum(len(audio_S) > LONGEST for audio_S in waveforms)
        fitted = [fit_length(audio_S) for audio_S in waveforms]
        # With torch installed the extractor takes its torch path, several times faster than numpy on 30 s of padding.
        mel_BMF: torch.Tensor = self.extractor(fitted, sampling_rate=SAMPLE_RATE, return_tensors="pt").input_features
        return mel_BMF
