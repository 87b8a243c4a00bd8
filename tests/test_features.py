"""Waveforms to log-mel: lengths, cuts counted, and each clip's values its own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from salmonn.features import LONGEST, SHORTEST, LogMel, fit_length, stack


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
    log_mel.count([noise(LONGEST)])
    assert log_mel.cut == 0
    log_mel.count([noise(LONGEST + 1), noise(100), noise(LONGEST * 2)])
    assert log_mel.cut == 2


def test_clips_are_stacked_with_zeros_behind_them() -> None:
    clips = [noise(100), noise(20_000), noise(LONGEST + 5)]
    audio_BS, lengths_B = stack(clips)
    assert lengths_B.tolist() == [SHORTEST, 20_000, LONGEST]
    assert audio_BS.shape == (3, LONGEST)
    assert not audio_BS[0, 100:].any()
    assert np.array_equal(audio_BS[1, :20_000].numpy(), clips[1])
    assert not audio_BS[1, 20_000:].any()


@pytest.mark.parametrize("wrong", [np.zeros((2, 16000), np.float32), np.zeros(0, np.float32)])
def test_only_mono_with_samples_is_taken(wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match="mono"):
        fit_length(wrong)


@pytest.mark.parametrize("bins", [80, 128])
def test_log_mel_equals_both_ways_of_the_published_extractor(bins: int) -> None:
    log_mel = LogMel(bins)
    clip_S = noise(40_000)
    padded_S = np.pad(clip_S, (0, LONGEST - 40_000))
    mel_BMF = log_mel(stack([clip_S])[0])
    assert mel_BMF.shape == (1, bins, 3000)
    assert mel_BMF.dtype == torch.float32
    slow = log_mel.extractor._np_extract_fbank_features([padded_S], device="cpu")
    assert np.abs(mel_BMF.numpy() - slow).max() < 1e-4
    fast = log_mel.extractor(clip_S, sampling_rate=16_000, return_tensors="np").input_features
    assert np.abs(mel_BMF.numpy() - fast).max() < 1e-5


def test_an_autocast_around_it_leaves_log_mel_alone() -> None:
    log_mel, audio_BS = LogMel(80), stack([noise(20_000)])[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = log_mel(audio_BS)
    assert inside.dtype == torch.float32
    assert inside.equal(log_mel(audio_BS))
    assert not log_mel.state_dict(), "its tables follow from the number of bins"


def test_a_clip_has_the_same_features_in_any_batch() -> None:
    log_mel = LogMel(80)
    loud, quiet = noise(90_000, 1), noise(20_000, 2) * 1e-3
    both_BMF = log_mel(stack([loud, quiet])[0])
    assert torch.allclose(both_BMF[1:], log_mel(stack([quiet])[0]), atol=1e-6)
    assert torch.allclose(both_BMF[:1], log_mel(stack([loud])[0]), atol=1e-6)
