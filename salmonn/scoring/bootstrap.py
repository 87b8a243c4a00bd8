"""How sure a score is: the interval of the bootstrap over answers (Bisani and Ney, 2004), from sums of each answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
RESAMPLES = 1000
SEED = 2004
CHUNK = 1 << 20
"""Draws held in memory at once."""


def interval(rows_NK: Floats, value: Callable[[Floats], Floats]) -> tuple[float | None, float | None]:
    """Return the bounds between which 95 % of resampled scores lie; none for fewer than two answers.

    `rows_NK` holds what is summed of each of N answers; `value` makes scores [R] of sums [R, K]. The draws are seeded,
    so the same rows in the same order have the same interval.
    """
    count = len(rows_NK)
    if count < 2:
        return None, None
    low, high = np.percentile(value(resampled_sums(rows_NK)), (2.5, 97.5))
    return float(low), float(high)


def resampled_sums(rows_NK: Floats) -> Floats:
    """Return the sums [RESAMPLES, K] over as many answers drawn with replacement as there are."""
    rows_NK = np.asarray(rows_NK, dtype=np.float64)
    count = len(rows_NK)
    draw = np.random.default_rng(SEED)
    at_once = max(1, min(RESAMPLES, CHUNK // count))
    sums = []
    for start in range(0, RESAMPLES, at_once):
        rounds = min(at_once, RESAMPLES - start)
        drawn_RN = draw.integers(0, count, (rounds, count)) + (np.arange(rounds) * count)[:, None]
        times_RN = np.bincount(drawn_RN.ravel(), minlength=rounds * count).reshape(rounds, count)
        sums.append(times_RN.astype(np.float64) @ rows_NK)
    return np.concatenate(sums)


def mean_interval(values: Sequence[float] | Floats) -> tuple[float | None, float | None]:
    """Return the interval of a mean over answers, as of an accuracy."""
    column = np.asarray(values, dtype=np.float64).reshape(-1, 1)
    return interval(column, lambda sums_RK: sums_RK[:, 0] / len(column))


def ratio_interval(
    parts: Sequence[float] | Floats, wholes: Sequence[float] | Floats
) -> tuple[float | None, float | None]:
    """Return the interval of a sum divided by a sum, as of an error rate; a whole of nothing counts as one."""
    rows_NK = np.stack([np.asarray(parts, dtype=np.float64), np.asarray(wholes, dtype=np.float64)], axis=1)
    return interval(rows_NK, lambda sums_RK: sums_RK[:, 0] / np.maximum(1, sums_RK[:, 1]))
