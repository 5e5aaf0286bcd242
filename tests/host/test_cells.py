"""Background filters decide by compiled kernels as by NumPy."""

import numpy as np
import pytest
from pixels import DTYPES, distinct

from gpu_patch import ImageStack, PatchExtractor, StratifiedPatching
from gpu_patch._host.cells import (
    count_marked,
    count_near,
    entropies,
    mean_and_deviation,
    serves,
)
from gpu_patch._host.library import computing
from gpu_patch.feed import (
    MaskFilter,
    MaxFilter,
    MeanStdFilter,
    ShannonFilter,
    find_background,
)
from gpu_patch.ops import cells as cells_module

SHAPES = [
    (1, 1),
    (1, 2),
    (2, 3),
    (5, 4),
    (7, 33),
    (16, 17),
    (40, 64),
    (3, 5, 7),
    (4, 1, 9),
    (2, 8, 3),
]


def some_cells(shape, n=9, seed=0):
    """Cells whose pixels differ, with more and more of them bright."""
    rng = np.random.default_rng(seed)
    cells = rng.normal(size=(n, *shape)).astype(np.float32)
    return cells + np.linspace(-3, 3, n, dtype=np.float32).reshape(-1, *(1 for _ in shape))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("threshold", [1.5, 0, -0.75, 3, 10.0, -20])
def test_pixels_near_the_threshold_are_counted(compiled, shape, threshold):
    cells = some_cells(shape)
    cells[2, ..., -1] = np.nan
    cells[3, ..., 0] = np.inf
    cells[4] = threshold  # reached, not exceeded
    near, reaches = count_near(compiled, cells, threshold)
    own = MaxFilter(threshold, 0.0)
    with computing(None):
        for coverage in (0.0, 0.25, 0.5, 1.0):
            expected = MaxFilter(threshold, coverage).keeps(cells)
            np.testing.assert_array_equal((near / cells[0].size >= coverage) & reaches, expected)
        assert cells_module.count_near(cells, threshold) is None
    np.testing.assert_array_equal(own.keeps(cells), reaches)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_moments_are_numpys(compiled, shape):
    cells = some_cells(shape)
    cells[1] = 0.1  # nothing deviates
    cells[2] = np.random.default_rng(1).integers(0, 2**16, shape)
    cells[3, ..., 0] = np.nan
    cells[4] = 1e30
    mean, deviation = mean_and_deviation(compiled, cells)
    with computing(None):
        expected = MeanStdFilter(0).scores(cells)
    np.testing.assert_allclose(mean, expected["mean_threshold"], rtol=1e-14, atol=1e-15)
    np.testing.assert_allclose(deviation, expected["std_threshold"], rtol=1e-13, atol=1e-15)
    assert mean[2] == expected["mean_threshold"][2]  # sums of whole numbers are exact


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_entropies_and_marks_are_numpys(compiled, shape):
    cells = some_cells(shape)  # all values differ
    cells[1] = 0.1  # one value
    cells[2] = np.random.default_rng(1).integers(0, 2**16, shape)
    cells[3] = np.random.default_rng(2).integers(-1, 2, shape) * np.float32(0)  # of both signs
    cells[4] = np.random.default_rng(3).integers(0, 3, shape)
    cells[5].view(np.uint32)[..., ::2] = 0x7FC00001  # NaN of two kinds
    cells[5].view(np.uint32)[..., 1::2] = 0xFFC00000
    cells[6, ..., 0] = -np.inf
    cells[6, ..., -1] = np.inf
    cells[7] = np.random.default_rng(4).integers(0, 9, shape) * np.float32(2.0**100)
    with computing(None):
        expected = ShannonFilter(0).scores(cells)["threshold"]
        marked = MaskFilter(0).scores(cells)["coverage"]
    found = entropies(compiled, cells)
    np.testing.assert_allclose(found, expected, rtol=1e-15)  # but for the logarithm, the same steps
    assert found[1] == found[3] == found[5] == 0
    assert not (np.signbit(found) | np.signbit(expected)).any()
    np.testing.assert_array_equal(count_marked(compiled, cells) / cells[0].size, marked)
    with computing(compiled):
        np.testing.assert_array_equal(ShannonFilter(0).scores(cells)["threshold"], found)
        np.testing.assert_array_equal(MaskFilter(0).scores(cells)["coverage"], marked)


def test_entropy_of_as_many_values_as_there_are_pixels(compiled):
    n = 1 << 16
    values = np.random.default_rng(5).permutation(n).astype(np.float32)
    cells = np.stack([values, values // 2, values % 7, values * 0]).reshape(4, 256, 256)
    for scale in (1, 1 / 8, 2.0**30):  # counted in place, and two that are not
        scaled = cells * np.float32(scale)
        found = entropies(compiled, scaled)
        with computing(None):
            expected = ShannonFilter(0).scores(scaled)["threshold"]
        np.testing.assert_allclose(found, expected, rtol=1e-15)
        assert found[:2].tolist() == [16, 15]


@pytest.mark.parametrize("last", [0.5, 4095, 4096, 1 << 24, (1 << 24) + 2, 3e9, np.inf, np.nan])
@pytest.mark.parametrize("at", [0, 40, 127, 129])
def test_entropy_with_one_pixel_unlike_the_others(compiled, last, at):
    cells = np.random.default_rng(6).integers(0, 5, (2, 10, 13)).astype(np.float32)
    cells.reshape(2, -1)[0, at], cells.reshape(2, -1)[1, at] = last, -last
    found = entropies(compiled, cells)
    with computing(None):
        expected = ShannonFilter(0).scores(cells)["threshold"]
    np.testing.assert_allclose(found, expected, rtol=1e-15)


@pytest.mark.parametrize("n_threads", [1, 3])
def test_a_channel_of_several_is_read_in_place(compiled, monkeypatch, n_threads):
    cells = np.stack([some_cells((9, 10)), some_cells((9, 10), seed=1)], axis=1)
    monkeypatch.setattr("gpu_patch._host.arguments.get_num_threads", lambda: n_threads)
    for channel in (0, 1):
        own = cells[:, channel]
        assert serves(own)
        copied = np.ascontiguousarray(own)
        for function in (
            lambda c: count_near(compiled, c, 0.5),
            lambda c: mean_and_deviation(compiled, c),
            lambda c: [entropies(compiled, c), count_marked(compiled, c)],
        ):
            for found, expected in zip(function(own), function(copied), strict=True):
                np.testing.assert_array_equal(found, expected)


def test_other_arrays_are_numpys(compiled):
    cells = some_cells((6, 8))
    for other in (cells.astype(np.float64), cells[..., ::2], cells.swapaxes(1, 2), cells[::-1]):
        assert not serves(other)
        with computing(None):
            expected = MaxFilter(0.5).keeps(other)
        np.testing.assert_array_equal(MaxFilter(0.5).keeps(other), expected)
    # of a type of its own, in which it is compared
    assert cells_module.count_near(cells, np.float64(0.1)) is None
    assert cells_module.count_near(cells, 1e300) is None
    assert cells_module.count_near(cells, 0.1) is not None


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(2, 1, 45, 70), (1, 1, 9, 21, 30)], ids=["2D", "3D"])
def test_background_is_numpys(compiled, dtype, shape):
    pixels = distinct(shape, dtype, 3)
    pixels[..., : shape[-1] // 2] = 0
    axes = "SCYX" if len(shape) == 4 else "SCZYX"
    images = PatchExtractor([ImageStack.from_array(pixels, axes, device="cpu")])
    strategy = StratifiedPatching(images.shapes, (8, 11) if len(shape) == 4 else (4, 8, 11))
    middle = float(np.median(pixels.astype(np.float64)))
    spread = float(pixels.astype(np.float64).std())
    for one in (
        MaxFilter(middle, 0.5),
        MaxFilter(0.5),
        MeanStdFilter(middle, spread / 2),
        ShannonFilter(2.0),
        MaskFilter(0.5),
    ):
        for regions in (True, False):
            found = find_background(strategy, images, one, regions=regions, progress=False)
            with computing(None):
                expected = find_background(strategy, images, one, regions=regions, progress=False)
            assert found.n_kept == expected.n_kept
            for sample, kept in expected.kept.items():
                np.testing.assert_array_equal(found.kept[sample], kept)
