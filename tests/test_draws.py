"""Random numbers by counter: the generator, the counters, and what becomes of them."""

from itertools import combinations

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_patch.draws import (
    DrawPurpose,
    DrawSpec,
    RestoredOnError,
    integers,
    philox4x32,
)
from gpu_patch.ops.draws import CounterDraws

WORDS = st.integers(0, 2**32 - 1)
# Random123, kat_vectors, philox4x32 with 10 rounds
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000",
     "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff",
     "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0",
     "d16cfe09 94fdcceb 5001e420 24126ea1"),
]  # fmt: skip


def words(text):
    return tuple(int(word, 16) for word in text.split())


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_philox_gives_the_published_answers(counter, key, expected):
    found = philox4x32(np.array(words(counter), np.uint64), words(key))
    assert tuple(found.tolist()) == words(expected)
    assert reference.philox4x32(words(counter), words(key)) == words(expected)


@given(st.lists(st.tuples(WORDS, WORDS, WORDS, WORDS), min_size=1), st.tuples(WORDS, WORDS))
def test_philox_takes_counters_of_any_shape(counters, key):
    found = philox4x32(np.array(counters, np.uint64).T, key)
    assert found.shape == (4, len(counters))
    expected = [reference.philox4x32(counter, key) for counter in counters]
    assert [tuple(answer) for answer in found.T.tolist()] == expected
    stacked = philox4x32(np.array(counters, np.uint64).T.reshape(4, 1, -1), key)
    np.testing.assert_array_equal(stacked[:, 0], found)


REQUESTS = st.lists(
    st.builds(
        DrawSpec, st.sampled_from(list(DrawPurpose)), st.integers(0, 2**24 - 1), st.integers(0, 5)
    ),
    min_size=1,
    max_size=6,
)


def documented(requests, seed, epoch, index):
    """The numbers that the documented counters give, one array (n_uniforms, B) per request."""
    return [
        [
            [reference.uniform(seed, epoch, i, r.purpose, r.channel, k) for i in index]
            for k in range(r.n_uniforms)
        ]
        for r in requests
    ]


@settings(max_examples=60)
@given(
    REQUESTS,
    st.integers(0, 2**64 - 1),
    WORDS,
    st.lists(st.integers(0, 2**56 - 1), min_size=1, max_size=6),
)
def test_numbers_come_from_the_documented_counters(requests, seed, epoch, index):
    found = CounterDraws(requests)(seed, epoch, np.array(index))
    for request, numbers, expected in zip(
        requests, found, documented(requests, seed, epoch, index), strict=True
    ):
        assert numbers.shape == (request.n_uniforms, len(index))
        assert numbers.dtype == np.float64
        np.testing.assert_array_equal(numbers, np.reshape(expected, numbers.shape))


def test_streams_never_change():
    assert {stream.name: stream.value for stream in DrawPurpose} == {
        "LOCATION": reference.LOCATION,
        "UNCORRELATED": reference.UNCORRELATED,
        "PARTNER": reference.PARTNER,
        "WEIGHT": reference.WEIGHT,
        "AUGMENTATION": reference.AUGMENTATION,
        "ABSENT": reference.ABSENT,
        "ORDER": reference.ORDER,
    }


@pytest.mark.parametrize("seed", [0, 1, 2**31, 2**32 - 1, 2**32, 2**63, 2**64 - 1])
@pytest.mark.parametrize("index", [0, 2**31, 2**32 - 1, 2**32, 2**40 + 7, 2**56 - 1])
@pytest.mark.parametrize("epoch", [0, 1, 2**32 - 1])
def test_every_bit_of_seed_epoch_and_index_counts(seed, index, epoch):
    (numbers,) = CounterDraws([DrawSpec(DrawPurpose.WEIGHT, 3, 3)])(seed, epoch, np.array([index]))
    expected = [reference.uniform(seed, epoch, index, reference.WEIGHT, 3, k) for k in range(3)]
    assert numbers.ravel().tolist() == expected


def test_nothing_asked_for_is_nothing_drawn():
    one = CounterDraws([DrawSpec(DrawPurpose.LOCATION, 0, 0), DrawSpec(DrawPurpose.WEIGHT, 0, 0)])
    assert [numbers.shape for numbers in one(1, 2, np.arange(3))] == [(0, 3), (0, 3)]


N = 100_000


@pytest.fixture(scope="module")
def many():
    """Numbers of neighbouring counters: streams, channels, blocks, epochs and seeds."""
    requests = [
        DrawSpec(DrawPurpose.LOCATION, 0, 3),
        DrawSpec(DrawPurpose.LOCATION, 1, 1),
        DrawSpec(DrawPurpose.UNCORRELATED, 0, 1),
        DrawSpec(DrawPurpose.PARTNER, 1, 1),
        DrawSpec(DrawPurpose.WEIGHT, 0, 1),
        DrawSpec(DrawPurpose.WEIGHT, 1, 1),
    ]
    index = np.arange(N)
    rows = [
        row
        for seed, epoch in [(0, 0), (0, 1), (1, 0), (2**32, 0)]
        for numbers in CounterDraws(requests)(seed, epoch, index)
        for row in numbers
    ]
    return np.array(rows)


def test_numbers_are_uniform(many):
    assert many.min() >= 0
    assert many.max() < 1
    # five standard errors
    assert np.abs(many.mean(axis=1) - 1 / 2).max() < 5 * np.sqrt(1 / 12 / N)
    assert np.abs(many.var(axis=1) - 1 / 12).max() < 5 * np.sqrt(1 / 180 / N)
    for row in many:
        counts = np.bincount((row * 64).astype(int), minlength=64)
        chi_squared = ((counts - N / 64) ** 2 / (N / 64)).sum()
        assert abs(chi_squared - 63) < 5 * np.sqrt(2 * 63)


def test_numbers_are_independent(many):
    limit = 5 / np.sqrt(N)
    deviations = (many - many.mean(axis=1, keepdims=True)) / many.std(axis=1, keepdims=True)
    for a, b in combinations(deviations, 2):
        assert abs((a * b).mean()) < limit
    for lag in (1, 2, 7, 64):
        assert np.abs((deviations[:, lag:] * deviations[:, :-lag]).mean(axis=1)).max() < limit


def test_all_bits_of_a_number_are_used(many):
    bits = (many * 2.0**53).astype(np.uint64)
    for bit in range(53):
        share = (bits >> np.uint64(bit) & np.uint64(1)).mean()
        assert abs(share - 0.5) < 5 * 0.5 / np.sqrt(bits.size)


LARGEST = 1 - 2.0**-53


@given(st.integers(1, 2**53 - 1), st.floats(0, LARGEST))
def test_integers_are_below_their_count(count, uniform):
    found = integers(np.array([0.0, uniform, LARGEST]), count)
    assert found.dtype == np.int64
    assert found[0] == 0
    assert found.max() < count
    assert found.min() >= 0
    assert np.diff(found[[0, 1]]) >= 0


def test_integers_are_equally_likely(many):
    for count in (1, 2, 3, 7, 10):
        share = np.bincount(integers(many.ravel(), count), minlength=count) / many.size
        assert len(share) == count
        assert np.abs(share - 1 / count).max() < 5 * 0.5 / np.sqrt(many.size)


def test_integers_take_a_count_per_number():
    found = integers(np.array([[0.0, 0.5], [0.99, LARGEST]]), np.array([[1, 10], [100, 1000]]))
    assert found.tolist() == [[0, 5], [99, 999]]


def test_generators_are_put_back_only_after_an_error():
    rng, untouched = np.random.default_rng(0), np.random.default_rng(1)
    before = rng.bit_generator.state
    with pytest.raises(ValueError), RestoredOnError([rng, None, untouched, "no generator"]):  # noqa: PT011
        rng.choice(rng.random(5), 6, replace=False)
    assert rng.bit_generator.state == before
    with RestoredOnError([rng]):
        expected = np.random.default_rng(0).random(5)
        np.testing.assert_array_equal(rng.random(5), expected)
    assert rng.bit_generator.state != before
