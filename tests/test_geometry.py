"""Borders, taps and grids against the definitions."""

from itertools import pairwise

import numpy as np
import pytest
import reference
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gpu_patch import table
from gpu_patch.geometry import (
    border_index,
    border_range,
    border_stretches,
    fir_blocks,
    fir_taps,
    mirror,
    window_start,
)
from gpu_patch.tiling import BLENDS, axis_cover, sequential_starts, tile_axis

MODES = table.MODES


def cut(coord, patch, n_scales):
    """First pixel and size of the window that the border rule looks at."""
    return window_start(coord, patch, n_scales), patch << n_scales


@st.composite
def axes(draw, centre_inside):
    """(coord, patch, scale, n_scales, n) such that the largest window touches the image."""
    n, patch, n_scales = draw(st.integers(1, 40)), draw(st.integers(1, 9)), draw(st.integers(1, 5))
    scale = draw(st.integers(0, n_scales - 1))
    size = patch * 2**n_scales
    reach = 0 if centre_inside else size
    centre = draw(
        st.integers(-reach, n - 1 + reach).filter(
            lambda c: c - size // 2 < n and c - size // 2 + size > 0
        )
    )
    return centre - patch // 2, patch, scale, n_scales, n


def expected_pixels(axis, mode):
    coord, patch, scale, n_scales, n = axis
    pixels = reference.window_pixels(coord, patch, scale, n_scales, n, mode)
    return [-1 if pixel is None else pixel for pixel in pixels]


def index_of(axis, mode):
    coord, patch, scale, n_scales, n = axis
    start = window_start(coord, patch, scale)
    low, high = border_range(*cut(coord, patch, n_scales), n, mode)
    return border_index(np.arange(start, start + (patch << scale)), low, high, mode).tolist()


@given(st.integers(-50, 50), st.integers(1, 20), st.integers(0, 6))
def test_windows_are_centred_on_the_patch(coord, patch, scale):
    centre = coord + patch // 2
    assert window_start(coord, patch, scale) == centre - patch * 2**scale // 2
    assert window_start(np.array([coord]), np.array([patch]), scale).tolist() == [
        centre - patch * 2**scale // 2
    ]
    assert window_start(coord, patch, 0) == coord


@pytest.mark.parametrize("mode", MODES)
@given(axes(centre_inside=True))
@example((0, 1, 4, 5, 2))
@example((3, 7, 2, 3, 1))
def test_border_index_reads_the_pixels_of_the_definition(mode, axis):
    assert index_of(axis, mode) == expected_pixels(axis, mode)


@pytest.mark.parametrize("mode", MODES)
@given(axes(centre_inside=False))
def test_border_index_where_the_centre_is_outside_the_image(mode, axis):
    assert index_of(axis, mode) == expected_pixels(axis, mode)


@pytest.mark.parametrize("mode", MODES)
@given(st.integers(-90, 90), st.integers(1, 90), st.integers(0, 5), st.integers(1, 20))
def test_runs_are_the_index_map(mode, start, size, low, n):
    pixels, image = np.full(size, -1), np.arange(low + n + 3)
    at = 0
    for run in border_stretches(start, size, low, low + n, mode):
        assert run.length > 0
        assert abs(run.step) == 1
        assert mode == "zero" or run.at == at  # without gaps, and in order
        at += run.length
        assert (pixels[run.window] == -1).all()
        pixels[run.window] = image[run.image]
    index = border_index(np.arange(start, start + size), low, low + n, mode)
    np.testing.assert_array_equal(pixels, index)


@given(st.integers(0, 30), st.integers(31, 70))
def test_a_window_inside_is_one_run(start, stop):
    for mode in MODES:
        (run,) = border_stretches(start, stop - start, 0, 70, mode)
        assert run == (0, start, stop - start, 1)


@given(st.lists(st.integers(-(10**6), 10**6), min_size=1), st.integers(1, 2000))
def test_mirror_bounces(pixels, n):
    found = mirror(np.array(pixels), n).tolist()
    assert found == [reference.mirrored(pixel, n) for pixel in pixels]


@pytest.mark.parametrize(("scale", "length"), [(0, 1), (1, 6), (2, 14), (3, 30), (4, 62)])
def test_taps_are_those_of_the_definition(scale, length):
    taps, offset = fir_taps(scale)
    assert len(taps) == length
    assert taps.dtype == np.float64
    np.testing.assert_allclose(taps, reference.taps(scale), rtol=1e-13)
    assert offset == (0 if scale == 0 else 2**scale // 2 - length // 2)


@pytest.mark.parametrize("scale", range(9))
def test_taps_are_a_symmetric_mean(scale):
    taps, _ = fir_taps(scale)
    assert abs(taps.sum() - 1) < 1e-12
    np.testing.assert_allclose(taps, taps[::-1], rtol=1e-12)
    assert (taps > 0).all()


@pytest.mark.parametrize("scale", range(1, 5))
@pytest.mark.parametrize("size", [(7, 4), (1, 5), (3, 2, 4)])
def test_taps_downscale_as_scikit_image_does(scale, size):
    transform = pytest.importorskip("skimage.transform", reason="needs scikit-image")
    pixels = np.random.default_rng(scale).random([n << scale for n in size])
    taps, offset = fir_taps(scale)
    found = pixels
    for axis, n in enumerate(size):
        at = (np.arange(n) << scale)[:, None] + offset + np.arange(len(taps))
        lines = found.take(mirror(at, n << scale), axis=axis)  # (..., n, taps, ...)
        found = np.moveaxis(lines, axis + 1, -1) @ taps
    np.testing.assert_allclose(found, transform.resize(pixels, size), rtol=0, atol=1e-12)
    np.testing.assert_allclose(found, reference.downscale(pixels, size, scale), atol=1e-13)


@settings(max_examples=60)
@given(st.integers(1, 24), st.integers(0, 5), st.integers(1, 30))
@example(1, 5, 1)
@example(2, 4, 8)
@example(17, 3, 8)
def test_blocks_are_the_definition(size, scale, rows):
    matrix = np.full((size, size << scale), np.nan)
    for block in fir_blocks(size, scale, rows):
        assert not block.weights.flags.writeable  # they are shared by all callers
        assert block.weights.dtype == np.float32
        count, reads = block.weights.shape
        assert count <= rows
        lines = matrix[block.first : block.first + count]
        assert np.isnan(lines).all()
        lines[:] = 0
        lines[:, block.start : block.start + reads] = block.weights
    expected = reference.downscale_axis(np.eye(size << scale), 0, size, scale)
    np.testing.assert_allclose(matrix, expected, rtol=0, atol=1e-7)


@given(st.integers(1, 200), st.integers(1, 60), st.data())
def test_sequential_starts_cover_the_axis(n, patch, data):
    overlap = data.draw(st.integers(0, patch - 1))
    starts = sequential_starts(n, patch, overlap)
    if patch >= n:
        assert starts == [0]
        return
    assert starts == reference.sequential_starts(n, patch, overlap)
    assert starts[-1] + patch == n
    assert all(0 < b - a <= patch - overlap for a, b in pairwise(starts))


@given(st.integers(1, 200), st.integers(1, 60), st.data())
def test_tiles_are_those_of_the_definition(n, patch, data):
    overlap = data.draw(st.integers(0, patch - 1))
    tiles = list(zip(*tile_axis(n, patch, overlap), strict=True))
    assert tiles == reference.tiles(n, patch, overlap)


@given(st.integers(1, 200), st.integers(1, 60), st.data())
def test_tiles_keep_every_pixel(n, patch, data):
    overlap = data.draw(st.integers(0, patch - 1))
    kept = np.zeros(n, int)
    for start, crop, size, stitch in zip(*tile_axis(n, patch, overlap), strict=True):
        assert start >= 0
        assert start + min(patch, n) <= n
        assert crop >= 0
        assert 0 < size <= patch - crop
        assert start + crop == stitch
        kept[stitch : stitch + size] += 1
    assert kept.min() == 1
    # under odd overlaps the first tile keeps a pixel that the second keeps too
    assert kept.max() == 1 or (overlap % 2 == 1 and kept.sum() == n + 1)


@st.composite
def tiled_axes(draw):
    """(n, patch, overlap); few enough tiles for the definition."""
    patch = draw(st.integers(1, 40))
    return draw(st.integers(1, 150)), patch, draw(st.integers(0, patch - 1))


@settings(max_examples=300)
@given(tiled_axes(), st.sampled_from(BLENDS))
@example((1, 1, 0), "gaussian")
@example((5, 9, 4), "hann")  # a tile larger than the axis
@example((33, 8, 0), "crop")  # one pixel left over
@example((40, 13, 7), "crop")
def test_covers_are_those_of_the_definition(axis, blend):
    n = axis[0]
    cover = axis_cover(*axis, blend)
    assert cover.starts.dtype == np.int64
    assert cover.first.dtype == cover.stop.dtype == np.int32
    assert cover.weights.dtype == np.float32
    assert cover.starts.tolist() == [start for start, *_ in reference.tiles(*axis)]
    at = [reference.tiles_at(pixel, *axis, blend) for pixel in range(n)]
    assert [list(range(*pair)) for pair in zip(cover.first, cover.stop, strict=True)] == at
    np.testing.assert_allclose(cover.weights, reference.tile_weights(*axis, blend), atol=1e-7)
    for tile, span in enumerate(cover.spans().T.tolist()):
        there = [pixel for pixel in range(n) if tile in at[pixel]]
        assert list(range(span[0], span[2])) == there
        assert list(range(span[1], span[2])) == [p for p in there if at[p][0] == tile]


def test_cropped_tiles_count_once_at_every_pixel():
    rng = np.random.default_rng(0)
    n_shared = 0
    for _ in range(5000):
        patch = int(rng.integers(1, 80))
        n, overlap = int(rng.integers(1, 400)), int(rng.integers(0, patch))
        kept = np.zeros(n, int)
        for _, _, size, stitch in zip(*tile_axis(n, patch, overlap), strict=True):
            kept[stitch : stitch + size] += 1
        # upstream's boxes: once, and twice at one pixel under odd overlaps
        assert kept.min() == 1
        assert kept.max() == 1 or (overlap % 2 and kept.sum() == n + 1)
        n_shared += kept.max() == 2
        # stitching: once
        cover = axis_cover(n, patch, overlap, "crop")
        assert (cover.stop - cover.first == 1).all()
        tile, inside = np.nonzero(cover.weights)
        assert (np.bincount(cover.starts[tile] + inside, minlength=n) == 1).all()
        assert set(np.unique(cover.weights)) <= {0, 1}
    assert n_shared > 1000


@pytest.mark.parametrize("blend", BLENDS)
def test_weights_sum_to_one(blend):
    rng = np.random.default_rng(1)
    for _ in range(1000):
        patch = int(rng.integers(1, 300))
        n, overlap = int(rng.integers(1, 2000)), int(rng.integers(0, 1 + patch * 7 // 8))
        cover = axis_cover(n, patch, min(overlap, patch - 1), blend)
        at = cover.starts[:, None] + np.arange(patch)
        inside = at < n
        total = np.bincount(at[inside], cover.weights[inside].astype(np.float64))
        np.testing.assert_allclose(total, 1, rtol=0, atol=1e-6)
        assert (cover.weights[~inside] == 0).all()
        assert blend == "crop" or (cover.weights[inside] > 0).all()
        alone = np.flatnonzero(cover.stop - cover.first == 1)
        tiles = cover.first[alone]
        assert (cover.weights[tiles, alone - cover.starts[tiles]] == 1).all()


def test_unknown_blends_are_refused():
    with pytest.raises(ValueError, match="blend must be one of 'crop', 'hann', 'gaussian'"):
        axis_cover(9, 4, 2, "linear")
