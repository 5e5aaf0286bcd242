"""Stitching the same tiles with careamics 0.3.5: the same images, bit by bit."""

import warnings

import numpy as np
import pytest

pytest.importorskip("careamics", reason="the live comparison needs careamics 0.3.5")

from builders import UPSTREAM

from gpu_patch import ops
from gpu_patch.tiling import tile_grid

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from careamics.dataset.image_region_data import ImageRegionData
    from careamics.lightning.prediction.stitch_prediction import stitch_prediction


def random_tiling(seed):
    """Shapes SC(Z)YX, tiles and overlaps: odd and even, tiles larger than an image included."""
    rng = np.random.default_rng(seed)
    n_dims = int(rng.choice([2, 2, 3]))
    most = 60 if n_dims == 2 else 16
    shapes = [
        (int(rng.integers(1, 4)), 1, *rng.integers(1, most, n_dims).tolist())
        for _ in range(rng.integers(1, 4))
    ]
    patch = rng.integers(2, 24 if n_dims == 2 else 9, n_dims).tolist()
    return rng, shapes, patch, [int(rng.integers(0, p)) for p in patch]


def upstream_images(strategy, shapes, tiles):
    """What careamics makes of the tiles of all images."""
    regions = []
    for index, tile in enumerate(tiles):
        spec = strategy.get_patch_spec(index)
        shape = shapes[spec["data_idx"]]
        axes = "SC" + "ZYX"[5 - len(shape) :]
        regions.append(
            ImageRegionData(tile, "array", shape, "float32", axes, axes, shape, spec, {})
        )
    return stitch_prediction(regions)[0]


@pytest.mark.parametrize("seed", range(150))
def test_the_same_tiles_make_the_same_images(seed):
    rng, shapes, patch, overlaps = random_tiling(seed)
    strategy = UPSTREAM.tiled(shapes, patch, overlaps)
    n_channels = int(rng.integers(1, 4))
    dtype = rng.choice(["float32", "float16"])
    tiles = rng.normal(size=(strategy.n_patches, n_channels, *patch)).astype(dtype)
    expected = upstream_images(strategy, shapes, tiles)

    images = [np.full((shape[0], n_channels, *shape[2:]), np.nan, np.float32) for shape in shapes]
    order, owners = [], []
    for image in images:
        size = image.shape[2:]
        grid = tile_grid(size, patch, overlaps, "crop", int(rng.integers(len(size))))
        for slab in image:
            order.extend(len(order) + grid.indices(np.arange(grid.n_tiles)))
            owners.extend((slab, grid, first) for first in range(grid.n_tiles))
    assert sorted(order) == list(range(strategy.n_patches))
    step = int(rng.integers(1, 9))
    for start in range(0, len(order), step):
        segments = [
            ops.Segment(slab, grid, first, 1, (0, grid.size[grid.slab_axis]))
            for slab, grid, first in owners[start : start + step]
        ]
        ops.stitch(tiles[order[start : start + step]], segments)
    for found, wanted in zip(images, expected, strict=True):
        assert found.dtype == wanted.dtype
        np.testing.assert_array_equal(found, wanted)
