"""Waveforms to one tensor on the model's device, and from there to Whisper's log-mel spectrogram of 30 s.

Shapes: B clips, S samples at 16 kHz, M mel bins, F = 3000 frames of 10 ms.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional
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


def stack(waveforms: Sequence[Waveform]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return audio_BS, float32, zeros behind each clip, and its lengths_B in samples, int64; both on the CPU."""
    fitted = [torch.from_numpy(fit_length(audio_S)) for audio_S in waveforms]
    lengths_B = torch.tensor([len(audio_S) for audio_S in fitted])
    return nn.utils.rnn.pad_sequence(fitted, batch_first=True), lengths_B


class LogMel(nn.Module):
    """Whisper's features on the device of the audio.

    `cut` counts the clips above 30 s that lost their end, so that nothing is cut in silence.
    """

    window_K: torch.Tensor
    filters_MK: torch.Tensor

    def __init__(self, mel_bins: int) -> None:
        """Every published Whisper has these settings but for the number of mel bins (80, or 128 in large-v3)."""
        super().__init__()
        self.extractor = WhisperFeatureExtractor(feature_size=mel_bins)
        self.cut = 0
        # Not in the state dict: they follow from the number of bins.
        self.register_buffer("window_K", torch.hann_window(self.extractor.n_fft), persistent=False)
        filters_MK = torch.from_numpy(self.extractor.mel_filters.T.astype(np.float32)).contiguous()
        self.register_buffer("filters_MK", filters_MK, persistent=False)

    def count(self, waveforms: Sequence[Waveform]) -> None:
        """Add to `cut`."""
        self.cut += sum(len(audio_S) > LONGEST for audio_S in waveforms)

    @torch.no_grad()
    def forward(self, audio_BS: torch.Tensor) -> torch.Tensor:
        """Return mel_BMF, float32, of mono audio at 16 kHz in [-1, 1] with zeros behind each clip.

        Each clip's values depend on it alone. The steps are those of transformers' WhisperFeatureExtractor, which would
        bring its result back to the CPU.
        """
        audio_BS = functional.pad(audio_BS, (0, LONGEST - audio_BS.shape[1]))
        # Half precision would drown what is quiet, and an autocast around a step reaches this product too.
        with torch.autocast(audio_BS.device.type, enabled=False):
            stft_BKF = torch.stft(
                audio_BS, self.extractor.n_fft, self.extractor.hop_length, window=self.window_K, return_complex=True
            )
            power_BKF = (stft_BKF[..., :-1].abs() ** 2).contiguous()
            mel_BMF = (self.filters_MK @ power_BKF).clamp(min=1e-10).log10()
        loudest_B11 = mel_BMF.amax(dim=(1, 2), keepdim=True)
        return (torch.maximum(mel_BMF, loudest_B11 - 8.0) + 4.0) / 4.0
