"""The compiled generator of random numbers draws what NumPy's does."""

import numpy as np
import pytest

from gpu_patch._host.draws import draw as host_draw
from gpu_patch._host.library import computing
from gpu_patch.draws import DrawPurpose, DrawSpec, counter_words, draw
from gpu_patch.ops.draws import CounterDraws

SPECS = [
    DrawSpec(DrawPurpose.LOCATION, 0, 3),
    DrawSpec(DrawPurpose.PARTNER, 2**24 - 1, 1),
    DrawSpec(DrawPurpose.ORDER, 7, 5),
]
EXTREMES = [0, 1, 2**31, 2**32 - 1, 2**32, 2**40 + 7, 2**56 - 1]


@pytest.mark.parametrize("seed", [0, 5, 2**32 - 1, 2**32, 2**63, 2**64 - 1])
@pytest.mark.parametrize("epoch", [0, 1, 2**32 - 1])
def test_numbers_are_numpys(compiled, seed, epoch):
    words, index = counter_words(SPECS), np.array(EXTREMES)
    expected = draw(words, seed, epoch, index)
    found = host_draw(compiled, words, seed, epoch, index)
    assert found.shape == (len(EXTREMES), 12)
    np.testing.assert_array_equal(found, expected)
    # beside each other in memory or not
    spread = np.stack([index, index[::-1]], axis=1)[:, 0]
    np.testing.assert_array_equal(host_draw(compiled, words, seed, epoch, spread), expected)


def test_many_numbers_are_numpys(compiled):
    index = np.random.default_rng(0).integers(0, 2**40, 5000)
    for own, wanted in zip(*both(index), strict=True):
        np.testing.assert_array_equal(own, wanted)


def both(index):
    """What is drawn by the library that computes, and by NumPy."""
    draws = CounterDraws(SPECS)
    by_library = draws(3, 4, index)
    with computing(None):
        return by_library, draws(3, 4, index)
