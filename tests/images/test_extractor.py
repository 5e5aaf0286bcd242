"""Patches from several image stacks."""

import numpy as np
import pytest

from gpu_patch import ImageStack, PatchExtractor


@pytest.fixture(autouse=True)
def on_the_host(monkeypatch):
    """What these tests prove is the same everywhere; images stay where NumPy can look at them."""
    monkeypatch.setenv("GPU_PATCH_DEVICE", "cpu")


def made(shapes, dtypes=(np.uint16, np.float32, np.uint8)):
    """Stacks in which every pixel differs, and their arrays."""
    arrays = [
        (np.arange(np.prod(shape)) + 1000 * i).reshape(shape).astype(dtypes[i % 3])
        for i, shape in enumerate(shapes)
    ]
    axes = "SCYX" if len(shapes[0]) == 4 else "SCZYX"
    return arrays, [ImageStack.from_array(array, axes) for array in arrays]


SHAPES = [(2, 3, 7, 5), (1, 3, 4, 9), (3, 3, 1, 1)]


def test_attributes():
    _, stacks = made(SHAPES)
    for sequence in (stacks, tuple(stacks)):
        extractor = PatchExtractor(sequence)
        assert extractor.shapes == SHAPES
        assert extractor.n_channels == 3
        assert extractor.n_spatial_dims == 2
        assert extractor.image_stacks == stacks
        assert extractor.device == "cpu"
        assert "(2, 3, 7, 5)" in repr(extractor)
    assert PatchExtractor(made([(1, 1, 2, 3, 4)])[1]).n_spatial_dims == 3


def test_list_of_stacks_is_the_extractors_own():
    _, stacks = made(SHAPES)
    extractor = PatchExtractor(stacks)
    stacks.pop()
    assert len(extractor.image_stacks) == len(extractor.shapes) == 3


@pytest.mark.parametrize("shapes", [SHAPES, [(2, 3, 3, 7, 5), (1, 3, 6, 4, 2)]])
def test_patches_come_from_the_stack_and_sample_asked_for(shapes):
    arrays, stacks = made(shapes)
    extractor = PatchExtractor(stacks)
    for i, array in enumerate(arrays):
        for sample in range(len(array)):
            place = [0] * (array.ndim - 2), array.shape[2:]
            expected = array[sample].astype(np.float32)
            for data_idx in (i, i - len(arrays), np.int64(i)):
                assert np.array_equal(extractor.extract_patch(data_idx, sample, *place), expected)
                from_end = extractor.extract_patch(data_idx, sample - len(array), *place)
                assert np.array_equal(from_end, expected)
            for channels in (None, [2], [2, 0], [0, 1, 2], [1, 1]):
                patch = extractor.extract_channel_patch(i, sample, channels, *place)
                assert patch.dtype == np.float32
                assert np.array_equal(patch, expected[channels if channels else slice(None)])


def test_patches_across_a_border_are_zero_there():
    arrays, stacks = made(SHAPES)
    patch = PatchExtractor(stacks).extract_channel_patch(1, 0, [2, 0], (-1, 7), (3, 4))
    expected = np.zeros((2, 3, 4), np.float32)
    expected[:, 1:, :2] = arrays[1][0, [2, 0], :2, 7:]
    assert np.array_equal(patch, expected)


@pytest.mark.parametrize(
    ("shapes", "what"),
    [
        ([(1, 2, 5, 5), (1, 3, 5, 5)], "channels"),
        ([(1, 2, 5, 5), (1, 2, 5, 5, 5)], "spatial axes"),
    ],
)
def test_stacks_must_agree(shapes, what):
    stacks = [made([shape])[1][0] for shape in shapes]
    with pytest.raises(ValueError, match=rf"agree in {what}: image_stacks\[0\] has 2, .*\[1\]"):
        PatchExtractor(stacks)


def test_stacks_may_differ_in_everything_else():
    arrays, stacks = made([(1, 2, 5, 5), (4, 2, 9, 1)], [np.uint8, np.float16, bool])
    extractor = PatchExtractor([*stacks, stacks[0]])
    assert extractor.shapes == [(1, 2, 5, 5), (4, 2, 9, 1), (1, 2, 5, 5)]
    assert np.array_equal(extractor.extract_patch(2, 0, (0, 0), (5, 5)), arrays[0][0])


def test_it_can_be_written_as_upstreams():
    assert PatchExtractor[ImageStack].__origin__ is PatchExtractor
