"""Whole predictions: careamics 0.3.5's tiles and stitching, against `predict`."""

import warnings

import numpy as np
import pytest
from pixels import distinct

pytest.importorskip("careamics", reason="the live comparison needs careamics 0.3.5")

from builders import UPSTREAM, assert_close, make_extractor, ours

import gpu_patch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from careamics.dataset.image_region_data import ImageRegionData
    from careamics.lightning.prediction.stitch_prediction import stitch_prediction


def upstream_prediction(constructor, strategy, shapes, model):
    """Tile by tile, as careamics' dataset makes and stitches them."""
    regions = []
    for index in range(strategy.n_patches):
        patch, _, spec = constructor.construct_patch(index)
        shape = shapes[spec["data_idx"]]
        axes = "SC" + "ZYX"[5 - len(shape) :]
        tile = model(patch[None].astype(np.float32))[0]
        regions.append(
            ImageRegionData(tile, "array", shape, "float32", axes, axes, shape, spec, {})
        )
    return stitch_prediction(regions)[0]


def random_case(seed, n_channels):
    rng = np.random.default_rng(seed)
    n_dims = int(rng.choice([2, 2, 3]))
    most = 70 if n_dims == 2 else 20
    arrays = []
    for i in range(rng.integers(1, 4)):
        size = rng.integers(1, most, n_dims).tolist()
        dtype = str(rng.choice(["uint8", "uint16", "float32"]))
        arrays.append(distinct((int(rng.integers(1, 3)), n_channels, *size), dtype, seed + i))
    tile = rng.integers(4, 24 if n_dims == 2 else 9, n_dims).tolist()
    return rng, arrays, tile, [int(rng.integers(0, n)) for n in tile]


def model_of(n_outputs):
    """Values that tell where in the tile they are, of each channel in turn."""

    def model(x):
        place = np.arange(x[0, 0].size, dtype=np.float32).reshape(x.shape[2:])
        return np.stack([x[:, c % x.shape[1]] + c * place for c in range(n_outputs)], axis=1)

    return model


def compared(seed, n_channels, upstream, **options):
    """Our prediction and careamics' of the same images, pairwise."""
    rng, arrays, tile, overlaps = random_case(seed, n_channels)
    model = model_of(int(rng.integers(1, 4)))
    shapes = [array.shape for array in arrays]
    strategy = UPSTREAM.tiled(shapes, tile, overlaps)
    constructor = upstream(strategy, make_extractor(UPSTREAM, arrays))
    expected = upstream_prediction(constructor, strategy, shapes, model)
    found = gpu_patch.predict(
        make_extractor(ours("cpu"), arrays), model, tile_size=tile, overlaps=overlaps,
        batch_size=int(rng.integers(1, 9)), progress=False, **options,
    ).images  # fmt: skip
    return zip(found, expected, strict=True)


@pytest.mark.parametrize("seed", range(40))
def test_plain_tiles_give_the_same_bits(seed):
    for found, expected in compared(seed, 1 + seed % 3, UPSTREAM.basic):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("mode", ["reflect", "wrap"])
def test_tiles_with_context_give_the_same_images(seed, mode):
    def upstream(strategy, extractor):
        return UPSTREAM.pred(strategy, extractor, 3, mode)

    options = {"multiscale_count": 3, "padding_mode": mode}
    for found, expected in compared(100 + seed, 1, upstream, **options):
        assert_close(found, expected)
