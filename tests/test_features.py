"""Waveforms to log-mel: lengths, cuts counted, and each clip's values its own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from salmonn.features import LONGEST, SHORTEST, LogMel, fit_length


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, samples).astype(np.float32)


@pytest.mark.parametrize(
    ("samples", "fitted"), [(1, SHORTEST), (SHORTEST, SHORTEST), (50_000, 50_000), (LONGEST + 7, LONGEST)]
)
def test_a_clip_is_padded_to_one_second_and_cut_at_thirty(samples: int, fitted: int) -> None:
    audio_S = noise(samples)
    out_S = fit_length(audio_S)
    assert len(out_S) == fitted
    kept = min(samples, fitted)
    assert np.array_equal(out_S[:kept], audio_S[:kept])
    assert not out_S[kept:].any()


def test_what_is_cut_is_counted() -> None:
    log_mel = LogMel(80)
    log_mel([noise(LONGEST)])
    assert log_mel.cut == 0
    log_mel([noise(LONGEST + 1), noise(100), noise(LONGEST * 2)])
    assert log_mel.cut == 2


@pytest.mark.parametrize("wrong", [np.zeros((2, 16000), np.float32), np.zeros(0, np.float32)])
def test_only_mono_with_samples_is_taken(wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match="mono"):
        fit_length(wrong)


def test_log_mel_equals_the_numpy_reference_and_takes_the_torch_path(monkeypatch: pytest.MonkeyPatch) -> None:
    log_mel = LogMel(80)
    padded_S = np.pad(noise(40_000), (0, LONGEST - 40_000))
    slow = log_mel.extractor._np_extract_fbank_features([padded_S], device="cpu")
    monkeypatch.setattr(log_mel.extractor, "_np_extract_fbank_features", None)
    fast_BMF = log_mel([noise(40_000)])
    assert fast_BMF.shape == (1, 80, 3000)
    assert fast_BMF.dtype == torch.float32
    assert np.abs(fast_BMF.numpy() - slow).max() < 1e-4


def test_a_clip_has_the_same_features_in_any_batch() -> None:
    log_mel = LogMel(80)
    loud, quiet = noise(90_000, 1), noise(20_000, 2) * 1e-3
    both_BMF = log_mel([loud, quiet])
    assert torch.allclose(both_BMF[1:], log_mel([quiet]), atol=1e-6)
    assert torch.allclose(both_BMF[:1], log_mel([loud]), atol=1e-6)
