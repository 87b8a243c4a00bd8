"""Waveforms to the filter bank that BEATs reads: Kaldi's, batched, on the device where the waveforms are.

Shapes: B clips, S samples at 16 kHz, F frames of 10 ms, M = 128 mel bins.
"""

from __future__ import annotations

import functools
import math

import torch

BINS = 128
WINDOW = 400
"""Samples of a frame, 25 ms; only frames that lie whole within their clip count (Kaldi's ``snip_edges``)."""
SHIFT = 160
FFT = 512
EMPHASIS = 0.97
LOWEST_HZ, HIGHEST_HZ = 20.0, 8000.0
MEAN, DEVIATION = 15.41663, 6.55582
"""Of AudioSet's log energies. Twice the deviation is divided by: so it is in BEATs' code, if not in its paper."""
FRAMES_AT_ONCE = {"cpu": 512}
"""Frames worked on at once by kind of device: on a CPU as many as its cache holds (six times faster than all)."""
FRAMES_AT_ONCE_ELSEWHERE = 65_536
"""About 700 MB on a GPU."""


def frame_count(samples: int) -> int:
    """Return how many frames a clip of so many samples has; none below 25 ms."""
    return max(0, 1 + (samples - WINDOW) // SHIFT)


def own_frames(lengths_B: torch.Tensor) -> torch.Tensor:
    """Return the frames of each clip, int64, of its samples: `frame_count` for a tensor."""
    return (1 + (lengths_B - WINDOW) // SHIFT).clamp(min=0)


def fbank(waveforms_BS: torch.Tensor, lengths_B: torch.Tensor) -> torch.Tensor:
    """Return normalised log energies [B, F, M], float32, of waveforms in [-1, 1]; zeros beyond a clip's own frames.

    A clip's values depend on its own `lengths_B` samples alone, not on the padding or the other clips. They are those
    of torchaudio.compliance.kaldi.fbank(128 bins, otherwise its defaults) on the samples times 2 ** 15.
    """
    clips, samples = waveforms_BS.shape
    frames = frame_count(samples)
    if not frames or not clips:
        return waveforms_BS.new_zeros(clips, frames, BINS, dtype=torch.float32)
    at_once = FRAMES_AT_ONCE.get(waveforms_BS.device.type, FRAMES_AT_ONCE_ELSEWHERE)
    pieces = torch.split(waveforms_BS.unfold(-1, WINDOW, SHIFT), max(1, at_once // clips), dim=1)
    mel_BFM = torch.cat([log_mel(frames_BFW) for frames_BFW in pieces], dim=1)
    place_F = torch.arange(frames, device=mel_BFM.device)
    own_BF = place_F < own_frames(lengths_B.to(mel_BFM.device))[:, None]
    # Not a product: what lies beyond a clip may be no number.
    return torch.where(own_BF[:, :, None], mel_BFM, 0.0)


def log_mel(frames_BFW: torch.Tensor) -> torch.Tensor:
    """Return the normalised log energies [B, F, M], float32, of frames of 400 samples.

    float64 inside, as in the released model (its reader returns float64): a quiet band beside a loud one keeps its
    value, and neither autocast nor TF32 touches it.
    """
    window_W, mel_MK = tables(frames_BFW.device)
    frames_BFW = frames_BFW.double() * 2**15
    frames_BFW = frames_BFW - frames_BFW.mean(dim=-1, keepdim=True)
    # The window is zero on a frame's first sample, so what Kaldi makes up as the sample before it never counts.
    frames_BFW = (frames_BFW[..., 1:] - EMPHASIS * frames_BFW[..., :-1]) * window_W[1:]
    spectrum_BFK = torch.fft.rfft(frames_BFW, n=FFT)[..., :-1]
    energy_BFM = (spectrum_BFK.real.square() + spectrum_BFK.imag.square()) @ mel_MK.T
    log_BFM: torch.Tensor = energy_BFM.clamp(min=torch.finfo(torch.float32).eps).log()
    return ((log_BFM - MEAN) / (2 * DEVIATION)).float()


@functools.lru_cache(maxsize=8)
def tables(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the Povey window [400] and the mel triangles [M, 256] over the FFT's bins, float64, on `device`."""
    window_W = torch.hann_window(WINDOW, periodic=False, dtype=torch.float64, device="cpu") ** 0.85
    low, high = (1127 * math.log(1 + hz / 700) for hz in (LOWEST_HZ, HIGHEST_HZ))
    width = (high - low) / (BINS + 1)
    # In float32, as torchaudio does it: a triangle that just touches a bin has a weight made of rounding.
    left_M1 = low + torch.arange(BINS, device="cpu")[:, None] * width
    centre_M1 = low + (torch.arange(BINS, device="cpu")[:, None] + 1.0) * width
    right_M1 = low + (torch.arange(BINS, device="cpu")[:, None] + 2.0) * width
    hz_K = 2 * HIGHEST_HZ / FFT * torch.arange(FFT / 2, device="cpu")
    mel_1K = (1127 * (1 + hz_K / 700).log())[None]
    rising_MK = (mel_1K - left_M1) / (centre_M1 - left_M1)
    falling_MK = (right_M1 - mel_1K) / (right_M1 - centre_M1)
    mel_MK = torch.minimum(rising_MK, falling_MK).clamp(min=0)
    return window_W.to(device), mel_MK.double().to(device)
