"""The sums of a clip's samples: the loop in C against numpy, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards import sums


@given(
    seed=st.integers(0, 2**32 - 1),
    samples=st.integers(1, 5 * sums.HOP),
    loud=st.sampled_from([1, 300, 40_000]),
    block=st.sampled_from([sums.HOP, 2 * sums.HOP, 100 * sums.HOP]),
)
def test_the_loop_in_c_sums_what_numpy_sums(seed: int, samples: int, loud: int, block: int) -> None:
    """To the bit, since all are sums of integers. At 40,000 most samples are at an end of the scale."""
    assert sums.add_up is not sums.sums_in_numpy, "shards/_sums.c was not built: run 'make setup'"
    draw = np.random.default_rng(seed)
    pcm = np.clip(draw.normal(0, loud, samples), -32768, 32767).astype(np.int16)
    compiled = sums.sums_of(pcm, block)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sums, "add_up", sums.sums_in_numpy)
        plain = sums.sums_of(pcm, block)
    assert (compiled.total, compiled.energy) == (plain.total, plain.energy)
    for name in ("frame_sums", "tens", "frames", "hops"):
        assert np.array_equal(getattr(compiled, name), getattr(plain, name)), name


BEYOND = [(-1, 10, 0), (0, 2001, 1), (10, 1995, 1), (2001, 1, 0), (0, 2000, 2)]


@pytest.mark.parametrize(("start", "count", "hops"), BEYOND)
def test_the_loop_in_c_refuses_what_lies_outside_of_its_arrays(start: int, count: int, hops: int) -> None:
    boxes, wide = (np.zeros((hops + 2, sums.HOP // width), np.int32) for width in (sums.BOX, sums.FRAME))
    with pytest.raises(ValueError, match="do not fit"):
        sums.add_up(
            np.zeros(2000, np.int16), start, count, 0, 0, boxes, wide,
            np.zeros(max(count, 0) // sums.TEN), np.zeros((hops, len(sums.WEIGHTS))),
        )  # fmt: skip
