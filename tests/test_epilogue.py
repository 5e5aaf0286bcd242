"""Turns and affine maps by themselves, without any image."""

from types import SimpleNamespace

import numpy as np
import pytest
from cases import random_epilogue
from reference import turned

from gpu_patch.epilogue import Epilogue, turn, turn_back, turned_places

SIZES = [(1, 1), (1, 5), (4, 4), (5, 5), (3, 7), (6, 2)]
ORIENTATIONS = range(8)


def plane(height, width, n=2):
    return np.arange(n * height * width).reshape(n, height, width)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_turning_is_a_flip_along_y_and_quarter_turns(orientation, size):
    array = plane(*size)
    found = turn(array, orientation)
    np.testing.assert_array_equal(found, turned(array, orientation))
    flipped = np.flip(array, -2) if orientation >= 4 else array
    np.testing.assert_array_equal(found, np.rot90(flipped, orientation % 4, axes=(-2, -1)))
    assert np.shares_memory(found, array)


def test_orientations_are_all_symmetries_of_the_square():
    array = plane(3, 3)
    assert len({turn(array, orientation).tobytes() for orientation in ORIENTATIONS}) == 8


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_what_fills_the_view_back_fills_the_array_turned(orientation, size):
    array = plane(*size)
    out = np.full((2, *turned(array, orientation).shape[-2:]), -1)
    turn_back(out, orientation)[...] = array
    np.testing.assert_array_equal(out, turned(array, orientation))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_places_are_where_pixels_go(orientation, size):
    (array,) = plane(*size, n=1)
    first, along_y, along_x = turned_places(*size)[orientation].tolist()
    found = np.full(array.size, -1)
    for y in range(size[0]):
        for x in range(size[1]):
            found[first + y * along_y + x * along_x] = array[y, x]
    np.testing.assert_array_equal(found, turned(array, orientation).ravel())


def normalization(**changes):
    numbers = {
        "input_scale": [2.0],
        "input_offset": [-1.0],
        "target_scale": [3.0, 4.0],
        "target_offset": [5.0, 6.0],
    } | changes
    arrays = {k: None if v is None else np.array(v, np.float32) for k, v in numbers.items()}
    return SimpleNamespace(**arrays)


def test_the_identity_followed_by_a_normalization_is_that():
    found = Epilogue.identity(3, 1, 2).normalized(normalization())
    assert found.input_scale.tolist() == [[2]] * 3
    assert found.input_offset.tolist() == [[-1]] * 3
    assert found.target_scale.tolist() == [[3, 4]] * 3
    assert found.target_offset.tolist() == [[5, 6]] * 3
    assert found.orientation is None
    arrays = [found.input_scale, found.input_offset, found.target_scale, found.target_offset]
    assert {array.dtype for array in arrays} == {np.dtype(np.float32)}


def test_a_normalization_follows_what_is_there():
    before = random_epilogue(0, 4, 1, 2, (3, 3))
    found = before.normalized(normalization())
    np.testing.assert_array_equal(found.input_scale, before.input_scale * 2)
    np.testing.assert_array_equal(found.input_offset, before.input_offset * 2 - 1)
    np.testing.assert_array_equal(found.target_scale, before.target_scale * np.float32([3, 4]))
    expected = before.target_offset * np.float32([3, 4]) + np.float32([5, 6])
    np.testing.assert_array_equal(found.target_offset, expected)
    assert found.orientation is before.orientation


def test_one_number_is_for_all_channels():
    found = Epilogue.identity(2, 3, 2).normalized(
        normalization(target_scale=[7], target_offset=[8])
    )
    assert found.input_scale.tolist() == [[2, 2, 2]] * 2
    assert found.target_scale.tolist() == [[7, 7]] * 2
    assert found.target_offset.tolist() == [[8, 8]] * 2


def test_targets_may_stay_as_they_are():
    found = Epilogue.identity(2, 1, 2).normalized(
        normalization(target_scale=None, target_offset=None)
    )
    assert found.target_scale.tolist() == [[1, 1]] * 2
    assert found.target_offset.tolist() == [[0, 0]] * 2


def test_without_targets_theirs_does_not_matter():
    found = Epilogue.identity(2, 1, 0).normalized(normalization(target_scale=[1, 2, 3]))
    assert found.target_scale.shape == (2, 0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"input_scale": [1, 2]}, ["input_scale", "(1,)", "[1., 2.]"]),
        ({"input_offset": [[1]]}, ["input_offset", "(1,)", "[[1.]]"]),
        ({"target_scale": [1, 2, 3]}, ["target_scale", "(1,) or (2,)", "[1., 2., 3.]"]),
        ({"target_offset": 1.0}, ["target_offset", "(1,) or (2,)", "1."]),
    ],
)
def test_normalizations_for_other_channels_are_refused(changes, words):
    with pytest.raises(ValueError, match="normalization") as raised:
        Epilogue.identity(2, 1, 2).normalized(normalization(**changes))
    assert all(word in str(raised.value) for word in words)


@pytest.mark.parametrize("wrong", [5, "mean_std", {"input_scale": [1]}])
def test_what_is_no_normalization_is_refused(wrong):
    with pytest.raises(TypeError, match="normalization must have input_scale"):
        Epilogue.identity(2, 1, 2).normalized(wrong)


def test_the_epilogue_of_targets_has_theirs_as_input():
    epilogue = random_epilogue(2, 3, 1, 2, (3, 3))
    found = epilogue.of_target()
    for name in ("scale", "offset", "shift"):
        expected = getattr(epilogue, f"target_{name}")
        np.testing.assert_array_equal(getattr(found, f"input_{name}"), expected)
    assert found.packed() is found.packed()  # once for all of an epoch's batches
    assert found.orientation is epilogue.orientation
