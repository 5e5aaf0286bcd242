"""Which orientation a sample's random numbers stand for."""

import numpy as np
import pytest
from reference import turned

from gpu_patch import Augmentation

LOW, HIGH = 0.2, 0.8
THIRDS = (0.1, 0.4, 0.9)


def orientation(augmentation, flip, axis, turn, quarters):
    uniforms = np.array([[flip], [axis], [turn], [quarters]])
    found = augmentation.orientations(uniforms)
    assert found.dtype == np.uint8
    return int(found[0])


@pytest.mark.parametrize("flip", [LOW, HIGH])
@pytest.mark.parametrize("axis", [LOW, HIGH])
@pytest.mark.parametrize("turn", [LOW, HIGH])
@pytest.mark.parametrize(("quarters", "uniform"), list(enumerate(THIRDS, 1)))
def test_first_a_flip_along_one_axis_and_then_a_turn(flip, axis, turn, quarters, uniform):
    patch = np.arange(9).reshape(1, 3, 3)
    found = turned(patch, orientation(Augmentation(), flip, axis, turn, uniform))
    if flip == LOW:
        patch = np.flip(patch, -2 if axis == LOW else -1)
    if turn == LOW:
        patch = np.rot90(patch, quarters, (-2, -1))
    np.testing.assert_array_equal(found, patch)


@pytest.mark.parametrize("axis", [LOW, HIGH])
@pytest.mark.parametrize(
    ("flip", "along", "expected"),
    [("x", -1, 6), ("y", -2, 4), (False, None, 0)],
)
def test_one_axis_or_none_can_be_chosen(axis, flip, along, expected):
    augmentation = Augmentation(flip=flip, rotate=False)
    assert orientation(augmentation, LOW, axis, LOW, 0.5) == expected
    patch = np.arange(6).reshape(1, 2, 3)
    if along:
        np.testing.assert_array_equal(turned(patch, expected), np.flip(patch, along))


def many(n=100_000):
    return np.random.default_rng(0).random((4, n))


@pytest.mark.parametrize("flip_p", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("rotate_p", [0.0, 0.3, 0.5, 1.0])
def test_shares_are_the_probabilities(flip_p, rotate_p):
    found = Augmentation(flip_p=flip_p, rotate_p=rotate_p).orientations(many())
    shares = np.bincount(found, minlength=8) / found.size
    expected = np.zeros(8)
    for flip, share in ((0, 1 - flip_p), (4, flip_p / 2), (6, flip_p / 2)):
        for quarters in range(4):
            turns = 1 - rotate_p if quarters == 0 else rotate_p / 3
            expected[flip // 4 * 4 + (flip + quarters) % 4] += share * turns
    assert np.abs(shares - expected).max() < 5 * 0.5 / np.sqrt(found.size)
    assert (shares[expected == 0] == 0).all()


def test_nothing_chosen_changes_nothing():
    assert not Augmentation(flip=False, rotate=False).orientations(many(100)).any()


def test_patches_that_are_turned_must_be_square():
    for size in ((5, 5), (3, 5, 5)):
        Augmentation().check_patch(size)
    for size in ((5, 6), (5, 5, 6)):
        with pytest.raises(ValueError, match="square") as raised:
            Augmentation().check_patch(size)
        assert str(size) in str(raised.value)
        Augmentation(rotate=False).check_patch(size)
        Augmentation(rotate_p=0).check_patch(size)


def test_augmentations_are_values():
    assert Augmentation() == Augmentation(flip=True, rotate=True, flip_p=0.5, rotate_p=0.5)
    assert Augmentation() != Augmentation(flip="x")
    assert len({Augmentation(), Augmentation(), Augmentation(rotate=False)}) == 2
    for one in (Augmentation(), Augmentation("y", False, 0.25, 1)):
        assert eval(repr(one)) == one
    with pytest.raises(AttributeError):
        Augmentation().flip = False


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"flip": "z"}, ValueError, ["flip", "'z'", "'x', 'y'"]),
        ({"flip": 1}, TypeError, ["flip", "1", "bool"]),
        ({"flip": None}, TypeError, ["flip", "None"]),
        ({"rotate": "yes"}, TypeError, ["rotate", "'yes'", "bool"]),
        ({"flip_p": 1.5}, ValueError, ["flip_p", "1.5", "[0, 1]"]),
        ({"flip_p": np.nan}, ValueError, ["flip_p", "nan"]),
        ({"rotate_p": -0.1}, ValueError, ["rotate_p", "-0.1"]),
        ({"rotate_p": "0.5"}, TypeError, ["rotate_p", "'0.5'"]),
    ],
)
def test_wrong_arguments_are_named(arguments, error, words):
    with pytest.raises(error) as raised:
        Augmentation(**arguments)
    assert all(word in str(raised.value) for word in words)
