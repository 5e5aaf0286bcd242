"""Tiles back into images: the same bits as adding them pixel by pixel, however they are divided."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from tilings import Tiling, divided, tilings, with_values

from gpu_patch import TiledPatching, ops
from gpu_patch.tiling import BLENDS

TWO = Tiling((37, 50), (16, 12), (5, 4), "hann", 0, 2, seed=1)
THREE = Tiling((11, 9, 13), (4, 5, 6), (2, 1, 4), "gaussian", 2, 2, seed=1)


def assert_same_bits(found, expected):
    """Also of zeros and of what is not a number."""
    assert found.dtype == expected.dtype == np.float32
    np.testing.assert_array_equal(found.view(np.uint32), expected.view(np.uint32))


def expected_image(tiling, linear):
    """Pixel by pixel, tile by tile."""
    grid = tiling.grid
    pixels = np.empty((*grid.shape, *tiling.tiles.shape[1:]), tiling.dtype)
    pixels[tuple(grid.positions(np.arange(grid.n_tiles)))] = tiling.tiles
    return reference.stitched(
        pixels,
        tiling.size,
        tiling.patch_size,
        tiling.overlaps,
        tiling.blend,
        tiling.slab_axis,
        [cover.weights for cover in grid.covers],
        linear,
    )


def stitched(backend, tiling, counts=None, **linear):
    """The image, through a slab as large as it is."""
    counts = counts or [tiling.grid.n_tiles]
    with backend.running():
        slab = backend.array(np.full(tiling.shape, np.nan, np.float32))
        first = 0
        for count in counts:
            tiles = backend.array(tiling.tiles[first : first + count])
            ops.stitch(tiles, [tiling.segment(slab, first, count)], **(linear or tiling.linear))
            first += count
        return backend.to_host(slab)


@settings(max_examples=100)
@given(case=divided())
def test_equal_to_adding_pixel_by_pixel(backend, case):
    tiling, counts = case
    with backend.running():
        found = tiling.through_a_ring(counts, ops.stitch, backend.array, backend.to_host)
    assert_same_bits(np.ascontiguousarray(found), expected_image(tiling, tiling.linear))


@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize(
    ("size", "patch", "overlaps"),
    [
        ((5, 7), (8, 9), (2, 3)),  # tiles larger than the image
        ((33, 17), (8, 8), (0, 0)),  # one pixel left over
        ((30, 31), (9, 8), (3, 5)),  # odd overlaps
        ((21, 22), (9, 8), (8, 6)),  # more than two tiles at a pixel
        ((1, 1), (1, 1), (0, 0)),
        ((6, 1, 9), (3, 4, 4), (1, 3, 2)),
    ],
)
def test_every_order_and_every_batch(backend, size, patch, overlaps, blend):
    for slab_axis in range(len(size)):
        tiling = Tiling(size, patch, overlaps, blend, slab_axis, 2, seed=1)
        expected = expected_image(tiling, tiling.linear)
        for count in (1, 7, tiling.grid.n_tiles):
            n_whole, rest = divmod(tiling.grid.n_tiles, count)
            counts = [count] * n_whole + [rest] * (rest > 0)
            assert_same_bits(stitched(backend, tiling, counts), expected)


@settings(max_examples=60)
@given(tiling=tilings())
def test_tiles_of_an_image_are_the_image(backend, tiling):
    image = np.random.default_rng(0).normal(size=tiling.shape).astype(tiling.dtype)
    # what tiles hold beyond the image must not matter
    padded = np.pad(image, [(0, 0), *((0, p) for p in tiling.patch_size)], constant_values=np.nan)
    tiles = np.empty_like(tiling.tiles)
    for tile, index in zip(
        tiles, tiling.grid.positions(np.arange(len(tiles))).T.tolist(), strict=True
    ):
        starts = [c.starts[i] for c, i in zip(tiling.grid.covers, index, strict=True)]
        box = [slice(s, s + p) for s, p in zip(starts, tiling.patch_size, strict=True)]
        tile[...] = padded[(slice(None), *box)]
    found = stitched(backend, with_values(tiling, tiles), scale=None)
    if tiling.blend == "crop":
        assert_same_bits(found, image.astype(np.float32))
    else:
        np.testing.assert_allclose(found, image, rtol=0, atol=2e-6)


@settings(max_examples=60)
@given(tiling=tilings())
def test_crop_is_what_writing_boxes_one_after_the_other_leaves(backend, tiling):
    """As upstream does it (docs/specification.md, 5), in the order of `TiledPatching`."""
    tiling = replace(tiling, blend="crop")
    strategy = TiledPatching([(1, 2, *tiling.size)], tiling.patch_size, tiling.overlaps)
    indices = tiling.grid.indices(np.arange(tiling.grid.n_tiles))
    assert sorted(indices.tolist()) == list(range(strategy.n_patches))
    expected = np.full(tiling.shape, np.nan, np.float32)
    for index in range(strategy.n_patches):
        spec = strategy.get_patch_spec(index)
        tile = tiling.tiles[indices.tolist().index(index)]
        inside, outside = (
            tuple(slice(a, a + n) for a, n in zip(spec[name], spec["crop_size"], strict=True))
            for name in ("crop_coords", "stitch_coords")
        )
        expected[(slice(None), *outside)] = tile[(slice(None), *inside)]
    assert_same_bits(stitched(backend, tiling, scale=None), expected)


@given(tiling=tilings())
def test_the_order_goes_along_the_slab(tiling):
    grid = tiling.grid
    strategy = TiledPatching([(1, 1, *tiling.size)], tiling.patch_size, tiling.overlaps)
    indices = grid.indices(np.arange(grid.n_tiles))
    coords = [strategy.get_patch_spec(i)["coords"] for i in indices.tolist()]
    axis = grid.slab_axis
    assert coords == sorted(coords, key=lambda c: (c[axis], c))
    assert sorted(indices.tolist()) == list(range(strategy.n_patches)) == list(range(grid.n_tiles))
    for position, coord in zip(grid.positions(np.arange(len(coords))).T, coords, strict=True):
        assert tuple(c.starts[i] for c, i in zip(grid.covers, position, strict=True)) == coord


@given(tiling=tilings())
def test_rows_are_those_where_tiles_count(tiling):
    grid, axis = tiling.grid, tiling.slab_axis
    at = [
        reference.tiles_at(
            p, tiling.size[axis], tiling.patch_size[axis], tiling.overlaps[axis], tiling.blend
        )
        for p in range(tiling.size[axis])
    ]
    for first, count in product(range(grid.n_tiles), (1, 2, 5)):
        layers = grid.positions(np.arange(first, min(first + count, grid.n_tiles)))[axis]
        rows = [p for p, there in enumerate(at) if set(there) & set(layers.tolist())]
        assert grid.slab_range(first, len(layers) if count > 1 else 1) == (rows[0], rows[-1] + 1)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_crop_copies_bits(backend, dtype):
    tiling = Tiling((150, 131), (64, 64), (16, 17), "crop", 1, 1, dtype)
    bits = f"u{np.dtype(dtype).itemsize}"
    rng = np.random.default_rng(0)
    tiles = rng.integers(0, np.iinfo(bits).max, tiling.tiles.shape, bits).view(dtype)
    if dtype == "float16":  # which bits a NaN has as float32 is the converter's choice
        tiles[np.isnan(tiles)] = -0.0
    assert dtype == "float16" or np.isnan(tiles).any()
    tiling = with_values(tiling, tiles)
    with np.errstate(invalid="ignore"):
        expected = expected_image(tiling, {})
    assert_same_bits(stitched(backend, tiling, scale=None), expected)


@pytest.mark.parametrize("scale", [None, [2.0]])
@pytest.mark.parametrize("blend", BLENDS)
def test_negative_zero_stays_and_nan_stays_where_it_is(backend, blend, scale):
    tiling = Tiling((20, 20), (8, 8), (4, 4), blend)
    tiles = np.full(tiling.tiles.shape, -0.0, np.float32)
    tiles[3, 0, 5, 5] = np.nan
    tiles[5, 0, 5, 2] = np.inf
    found = stitched(backend, with_values(tiling, tiles), [1, 4, 11], scale=scale)
    assert np.signbit(found[found == 0]).all()
    assert np.argwhere(np.isnan(found)).tolist() == [[0, 5, 17]]
    assert np.isinf(found).sum() == 1


@pytest.mark.parametrize("tiling", [TWO, THREE])
@pytest.mark.parametrize("blend", BLENDS)
def test_only_the_rows_asked_for_are_written(backend, tiling, blend):
    tiling = replace(tiling, blend=blend)
    axis = tiling.slab_axis
    expected = np.moveaxis(expected_image(tiling, tiling.linear), 1 + axis, 0)
    cover, layer = tiling.grid.covers[axis], tiling.grid.strides[axis]
    for start, stop in ((0, 3), (4, 9), (6, 7), (5, tiling.size[axis])):
        first = int(cover.first[start]) * layer
        count = int(cover.stop[stop - 1]) * layer - first
        with backend.running():
            slab = backend.array(np.full(tiling.shape, 7, np.float32))
            tiles = backend.array(tiling.tiles[first : first + count])
            segment = tiling.segment(slab, first, count, (start, stop))
            ops.stitch(tiles, [segment], **tiling.linear)
            found = np.moveaxis(backend.to_host(slab), 1 + axis, 0)
        np.testing.assert_array_equal(found[start:stop], expected[start:stop])
        assert (np.delete(found, np.arange(start, stop), axis=0) == 7).all()


def test_a_batch_of_many_samples(backend):
    """Of different sizes, slab axes and blends, each with a slab of its own."""
    tilings = [
        replace(TWO, size=(20 + 5 * i, 41 - 7 * i), blend=BLENDS[i % 3], slab_axis=i % 2, seed=i)
        for i in range(5)
    ]
    linear = TWO.linear
    with backend.running():
        slabs = [backend.array(np.full(t.shape, np.nan, np.float32)) for t in tilings]
        batch = np.concatenate([t.tiles for t in tilings])
        owners = [
            (t, s, i) for t, s in zip(tilings, slabs, strict=True) for i in range(len(t.tiles))
        ]
        for start in range(0, len(batch), 7):
            segments = []
            for tiling, slab, i in owners[start : start + 7]:
                if segments and segments[-1].slab is slab:
                    segments[-1] = segments[-1]._replace(count=segments[-1].count + 1)
                else:
                    segments.append(tiling.segment(slab, i, 1))
            ops.stitch(backend.array(batch[start : start + 7]), segments, **linear)
        found = [backend.to_host(slab) for slab in slabs]
    for tiling, image in zip(tilings, found, strict=True):
        assert_same_bits(image, expected_image(tiling, linear))


@pytest.mark.parametrize("blend", BLENDS)
def test_float32_overflows_to_infinity_in_silence(backend, blend):
    tiling = Tiling((9, 9), (4, 4), (2, 2), blend)
    tiling = with_values(tiling, np.full(tiling.tiles.shape, 3e38, np.float32))
    assert np.isposinf(stitched(backend, tiling, scale=[10], offset=[1])).all()


GOOD = replace(TWO, seed=0)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"tiles": GOOD.tiles.astype(np.float64)}, TypeError, "tiles must be float32 or float16"),
        ({"tiles": [[1.0]]}, TypeError, "tiles must be NumPy or CuPy arrays, found list"),
        ({"tiles": GOOD.tiles[..., ::-1]}, ValueError, "tiles must be C-contiguous"),
        ({"tiles": GOOD.tiles[0]}, ValueError, r"BC\(Z\)YX, found the shape"),
        ({"tiles": GOOD.tiles[:3]}, ValueError, "as many tiles as the batch, 3: found"),
        ({"tiles": GOOD.tiles[..., :5].copy()}, ValueError, r"segments\[0\].grid must have tiles"),
        ({"first": 1}, ValueError, r"segments\[0\] must have .* first = 1 and count ="),
        ({"first": -1}, ValueError, "found first = -1"),
        ({"count": 0}, ValueError, "count = 0"),
        ({"slab_range": (0, 38)}, ValueError, r"slab_range must be \[start, stop\) in 0 … 37"),
        ({"slab_range": (5, 4)}, ValueError, r"found \(5, 4\)"),
        ({"slab": np.zeros((1, 37, 50), np.float32)}, ValueError, r"slab must have the shape"),
        ({"slab": np.zeros((2, 37, 49), np.float32)}, ValueError, r"slab must have the shape"),
        ({"slab": np.zeros((2, 37), np.float32)}, ValueError, r"slab must have the shape"),
        (
            {"slab": np.zeros((2, 37, 50))},
            ValueError,
            "must be C-contiguous float32, found float64",
        ),
        (
            {"slab": np.zeros((2, 50, 37), np.float32).transpose(0, 2, 1)},
            ValueError,
            "C-contiguous",
        ),
        ({"slab": np.zeros((2, 36, 50), np.float32)}, ValueError, "must hold the 37 pixels .* 36"),
        ({"slab": [[0.0]]}, TypeError, r"segments\[0\].slab must be NumPy or CuPy arrays"),
        ({"scale": [1, 2, 3]}, ValueError, "scale must have one number per channel, 2"),
        ({"offset": 1}, ValueError, "offset must have one number per channel, 2"),
    ],
)
def test_what_does_not_fit_is_refused(change, error, message):
    slab = np.full(GOOD.shape, 7, np.float32)
    segment = GOOD.segment(slab)
    segment = segment._replace(**{k: v for k, v in change.items() if k in segment._fields})
    linear = {k: v for k, v in change.items() if k in ("scale", "offset")}
    with pytest.raises(error, match=message):
        ops.stitch(change.get("tiles", GOOD.tiles), [segment], **linear)
    assert (slab == 7).all()


def test_tiles_are_only_read(backend):
    tiles = GOOD.tiles.copy()
    tiles.setflags(write=False)
    stitched(backend, with_values(GOOD, tiles), scale=[2, 3], offset=[1, 1])
    np.testing.assert_array_equal(tiles, GOOD.tiles)
