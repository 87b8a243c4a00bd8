"""Spectra and moments: the loops in C against numpy, to the bit; against numpy's own transform; what is refused."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards import fingerprint, quality, spectra
from shards.spectra import WINDOW


def drawn(seed: int, samples: int, loud: float) -> np.ndarray:
    draw = np.random.default_rng(seed)
    wave = draw.normal(0, loud, samples) + loud * np.sin(np.arange(samples) * draw.uniform(0.001, 3))
    return np.clip(wave, -32768, 32767).astype(np.int16)


@given(
    seed=st.integers(0, 2**32 - 1),
    windows=st.integers(0, 11),
    loud=st.sampled_from([0, 1, 300, 40_000]),
    fold=st.sampled_from([1, 2]),
    middle=st.sampled_from([0.0, -17.25]),
)
def test_the_loop_in_c_transforms_as_numpy_does(seed: int, windows: int, loud: float, fold: int, middle: float) -> None:
    assert spectra.fill is not spectra.bands_in_numpy, "shards/_spectra.c was not built: run 'make setup'"
    pcm, draw = drawn(seed, 2000, loud), np.random.default_rng(seed)
    starts = draw.integers(0, 2000 - fold * WINDOW + 1, windows)
    edges = np.sort(draw.integers(0, WINDOW // 2 + 1, 5))
    taper = draw.uniform(0, 1, WINDOW)
    compiled = spectra.bands(pcm, starts, taper, edges, fold=fold, middle=middle)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spectra, "fill", spectra.bands_in_numpy)
        plain = spectra.bands(pcm, starts, taper, edges, fold=fold, middle=middle)
    assert compiled.tobytes() == plain.tobytes()
    waves = np.stack(
        [np.zeros(WINDOW), *(pcm[start:][: fold * WINDOW].reshape(-1, fold).sum(axis=1) for start in starts)]
    )
    power = np.abs(np.fft.rfft((waves - middle) * taper)) ** 2
    oracle = [[row[low:high].sum() for low, high in itertools.pairwise(edges)] for row in power[1:]]
    np.testing.assert_allclose(compiled, np.array(oracle).reshape(compiled.shape), rtol=1e-7, atol=1e-3)


@given(seed=st.integers(0, 2**32 - 1), tens=st.integers(1, 900), loud=st.sampled_from([0, 3, 2**37]))
def test_the_loop_in_c_finds_the_moments_that_numpy_finds(seed: int, tens: int, loud: int) -> None:
    assert fingerprint.moments is not fingerprint.moments_in_numpy, "shards/_spectra.c was not built: run 'make setup'"
    # Of few values many are alike: what is as loud as its neighbour is as much a moment.
    energies = np.random.default_rng(seed).integers(0, loud + 1, tens).astype(np.float64)
    compiled = fingerprint.find_moments(energies)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fingerprint, "moments", fingerprint.moments_in_numpy)
        plain = fingerprint.find_moments(energies)
    assert compiled.tolist() == plain.tolist()


@given(seed=st.integers(0, 2**32 - 1), samples=st.integers(0, 60_000), loud=st.sampled_from([0, 1, 300, 40_000]))
def test_clips_have_the_same_fingerprint_and_bandwidth_without_a_compiler(seed: int, samples: int, loud: float) -> None:
    pcm = drawn(seed, samples, loud)
    compiled = fingerprint.fingerprint(pcm), quality.measure(pcm)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spectra, "fill", spectra.bands_in_numpy)
        patch.setattr(fingerprint, "moments", fingerprint.moments_in_numpy)
        assert fingerprint.fingerprint(pcm) == compiled[0]
        assert repr(quality.measure(pcm)) == repr(compiled[1])


@pytest.mark.parametrize("starts", [[-1], [0, 489], [2**62]])
def test_the_loop_in_c_refuses_windows_outside_of_the_samples(starts: list[int]) -> None:
    taper, edges = np.ones(WINDOW), np.array([0, 4, 256])
    assert spectra.bands(np.zeros(1000, np.int16), np.array([488]), taper, edges).shape == (1, 2)
    with pytest.raises(ValueError, match="do not fit"):
        spectra.bands(np.zeros(1000, np.int16), np.array(starts), taper, edges)


@pytest.mark.parametrize("edges", [[0, 257], [-1, 4], [4, 2, 8], [4]])
def test_the_loop_in_c_refuses_bands_that_are_none(edges: list[int]) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        spectra.bands(np.zeros(1000, np.int16), np.array([0]), np.ones(WINDOW), np.array(edges))


def test_the_loop_in_c_refuses_arrays_that_do_not_fit() -> None:
    pcm, starts, edges = np.zeros(1000, np.int16), np.array([0]), np.array([0, 4])
    good = [pcm, starts, 1, 0.0, np.ones(WINDOW), spectra.TURNS, edges, np.empty((1, 1))]
    spectra.fill(*good)
    for place, wrong in ((2, 3), (2, 0), (4, np.ones(511)), (5, np.ones(WINDOW)), (7, np.empty((2, 1)))):
        with pytest.raises(ValueError, match="do not fit"):
            spectra.fill(*good[:place], wrong, *good[place + 1 :])
    for wrong in (np.empty(9), np.empty(11)):
        with pytest.raises(ValueError, match="do not fit"):
            fingerprint.moments(np.zeros(10), wrong, np.empty(10, np.int64))
