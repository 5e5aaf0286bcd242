"""predict: whole images through models that see tiles, and what the models are given."""

from __future__ import annotations

import numpy as np
import pytest
import reference
from pixels import DTYPES, distinct
from predicting import TILINGS, make_stack, to_device, whole

import gpu_patch
from gpu_patch import predict
from gpu_patch.feed import Normalization
from gpu_patch.pages import PageCache
from gpu_patch.tiling import BLENDS

tilings = pytest.mark.parametrize("tiling", TILINGS.values(), ids=TILINGS)


# ---- pixels ------------------------------------------------------------------------------------


@pytest.mark.parametrize("blend", BLENDS)
@tilings
def test_an_identity_gives_the_image_back(tiling, blend, device):
    stack, pixels = make_stack(tiling[0], device, n_channels=3)
    found = whole(stack, lambda x: x, tiling, blend=blend, batch_size=5)
    assert found.std is None
    (image,) = found.images
    assert isinstance(image, np.ndarray)
    if blend == "crop":
        reference.assert_same(image, pixels)
    else:
        np.testing.assert_allclose(image, pixels, rtol=3e-7 * max(1, len(tiling[0])))


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_stored_type_comes_back_bit_for_bit(dtype, device):
    stack, pixels = make_stack((40, 37), device, dtype=dtype)
    (image,) = whole(stack, lambda x: x, TILINGS["2D"]).images
    reference.assert_same(image, pixels.astype(np.float32))


@pytest.mark.parametrize("blend", BLENDS)
@tilings
def test_any_batch_size_gives_the_same_bits(tiling, blend, device):
    stack, _ = make_stack(tiling[0], device)
    made = [
        whole(stack, lambda x: x, tiling, blend=blend, batch_size=size).images[0]
        for size in (1, 3, 7, 1000)
    ]
    for image in made[1:]:
        reference.assert_same(image, made[0])


@pytest.mark.parametrize("blend", BLENDS)
def test_backends_give_the_same_bits(blend, device):
    tiling = TILINGS["3D"]
    options = {"blend": blend, "batch_size": 4}
    expected = whole(make_stack(tiling[0])[0], lambda x: x, tiling, **options).images[0]
    found = whole(make_stack(tiling[0], device)[0], lambda x: x, tiling, **options).images[0]
    reference.assert_same(found, expected)


def stitched(pixels, tiling, tile_model):
    """One tile after the other, as upstream stitches them: the later one wins."""
    _, tile, overlaps = tiling
    extractor = gpu_patch.PatchExtractor(
        [gpu_patch.ImageStack.from_array(pixels, "SCYX", device="cpu")]
    )
    strategy = gpu_patch.TiledPatching(extractor.shapes, tile, overlaps)
    made = gpu_patch.BasicPatchConstr(strategy, extractor)
    image = np.full(pixels.shape, np.nan, np.float32)
    for index in range(strategy.n_patches):
        patch, _, spec = made.construct_patch(index)
        kept = [slice(a, a + n) for a, n in zip(spec["crop_coords"], spec["crop_size"],
                                                 strict=True)]  # fmt: skip
        place = [slice(a, a + n) for a, n in zip(spec["stitch_coords"], spec["crop_size"],
                                                  strict=True)]  # fmt: skip
        image[spec["sample_idx"], :, *place] = tile_model(patch[None])[0][:, *kept]
    return image


@pytest.mark.parametrize("name", ["2D", "wide", "tile larger", "odd overlaps"])
def test_crop_is_what_stitching_tile_by_tile_gives(name):
    """With a model whose values tell where in the tile they are."""

    def model(x):
        n = np.arange(x[0, 0].size, dtype=np.float32).reshape(x.shape[2:])
        return x + n

    stack, pixels = make_stack(TILINGS[name][0])
    (image,) = whole(stack, model, TILINGS[name], batch_size=4).images
    reference.assert_same(image, stitched(pixels, TILINGS[name], model))


def gaussian(x, radius=5):
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / 2) ** 2)
    taps /= taps.sum()
    found = x.astype(np.float64)
    for axis in (2, 3):
        padded = np.pad(found, [(radius, radius) if a == axis else (0, 0) for a in range(4)])
        windows = np.lib.stride_tricks.sliding_window_view(padded, len(taps), axis=axis)
        found = windows @ taps
    return found.astype(np.float32)


@pytest.mark.parametrize("blend", BLENDS)
def test_no_seam(blend):
    """A filter that reaches less far than half the overlap cannot tell tiles from the image."""
    rng = np.random.default_rng(0)
    pixels = rng.uniform(0, 1, (150, 170)).astype(np.float32)
    stack = gpu_patch.ImageStack.from_array(pixels, "YX", device="cpu")
    (image,) = whole(stack, gaussian, (None, (48, 48), (12, 12)), blend=blend).images
    expected = gaussian(pixels[None, None])[0, 0]
    difference = np.abs(image - expected).max()
    if blend == "crop":
        assert difference <= 1e-6
    else:  # borders of tiles, which the filter sees as zero, count a little
        assert difference <= 0.2


# ---- inputs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["reflect", "wrap", "periodic"])
@pytest.mark.parametrize("name", ["2D", "3D", "tile larger"])
def test_the_native_scale_of_context_gives_the_image_back(name, mode, device):
    stack, pixels = make_stack(TILINGS[name][0], device, dtype="uint16")
    seen = []

    def model(x):
        seen.append(tuple(x.shape[1:]))
        return x[:, :1]

    options = {"multiscale_count": 3, "padding_mode": mode, "batch_size": 4}
    (image,) = whole(stack, model, TILINGS[name], **options).images
    reference.assert_same(image, pixels.astype(np.float32))
    assert set(seen) == {(3, *TILINGS[name][1])}


def test_the_model_gets_what_the_constructor_of_tiles_makes():
    stack, _ = make_stack((40, 37), dtype="uint16")
    normalization = Normalization.mean_std(1000, 200)
    extractor = gpu_patch.PatchExtractor([stack])
    strategy = gpu_patch.TiledPatching(extractor.shapes, (16, 16), (4, 4))
    constructor = gpu_patch.PredMsPatchConstr(strategy, extractor, 2, "wrap")
    expected = constructor.construct_batch(range(strategy.n_patches), normalization=normalization)
    seen = []

    def model(x):
        seen.append(x.copy())
        return x[:, :1]

    tiling = ((40, 37), (16, 16), (4, 4))
    options = {"multiscale_count": 2, "padding_mode": "wrap", "normalization": normalization}
    whole(stack, model, tiling, batch_size=5, **options)
    np.testing.assert_array_equal(np.concatenate(seen), expected.input)
    assert [len(x) for x in seen[:-1]] == [5] * (len(seen) - 1)


def test_many_images_of_different_sizes_share_batches(device):
    sizes = [(40, 33), (5, 5), (16, 16), (70, 20), (1, 90)]
    made = [make_stack(size, device, n_samples=1 + i % 2, seed=i) for i, size in enumerate(sizes)]
    stacks = [stack for stack, _ in made]
    counts = []

    def model(x):
        counts.append(len(x))
        return x

    arguments = [stacks, gpu_patch.PatchExtractor(stacks), [gpu_patch.PatchExtractor(stacks[:2]),
                                                            *stacks[2:]]]  # fmt: skip
    for images in arguments:
        counts.clear()
        found = whole(images, model, (None, (16, 16), (4, 4)), batch_size=6, blend="hann").images
        assert set(counts[:-1]) == {6}
        for image, (_, pixels) in zip(found, made, strict=True):
            np.testing.assert_allclose(image, pixels, rtol=1e-6)


@pytest.mark.parametrize(
    ("axes", "shape"),
    [
        ("YX", (30, 40)),
        ("XY", (30, 40)),
        ("CYX", (2, 30, 40)),
        ("YXC", (30, 40, 3)),
        ("TYX", (2, 30, 40)),
        ("TSYX", (2, 3, 30, 20)),
        ("ZTCYX", (5, 2, 2, 20, 30)),
        ("XZY", (20, 5, 30)),
    ],
)
def test_axes_are_those_of_the_image(axes, shape):
    pixels = distinct(shape, "float32")
    stack = gpu_patch.ImageStack.from_array(pixels, axes, device="cpu")
    tile = (4, 16, 16) if "Z" in axes else (16, 16)
    overlaps = (2, 4, 4)[-len(tile) :]
    (image,) = predict(stack, lambda x: x, tile_size=tile, overlaps=overlaps).images
    assert image.dtype == np.float32
    np.testing.assert_array_equal(image, pixels)


@pytest.mark.parametrize(("axes", "expected"), [("YX", (3, 30, 40)), ("TYX", (2, 3, 30, 40)),
                                                ("YXC", (30, 40, 3))])  # fmt: skip
def test_models_may_return_other_channels(axes, expected, device):
    shape = {"YX": (30, 40), "TYX": (2, 30, 40), "YXC": (30, 40, 2)}[axes]
    pixels = distinct(shape, "float32")
    stack = gpu_patch.ImageStack.from_array(pixels, axes, device=device)

    def model(x):
        made = np.concatenate([reference.on_host(x)[:, :1]] * 3, axis=1)
        return made if device == "cpu" else to_device(made)

    (image,) = predict(stack, model, tile_size=(16, 16), overlaps=(4, 4)).images
    assert image.shape == expected
    first = pixels[..., 0] if axes == "YXC" else pixels
    axis = -1 if axes == "YXC" else -3
    for channel in np.moveaxis(image, axis, 0):
        np.testing.assert_array_equal(channel, first)


@pytest.mark.parametrize("blend", BLENDS)
def test_images_by_chunk(blend, device):
    from chunk_readers import ArrayReader

    pixels = distinct((2, 1, 90, 70), "uint16")
    cache = PageCache(1 << 20, device if device == "cpu" else "cuda:0")
    stack = gpu_patch.ImageStack.by_chunk(ArrayReader(pixels, (1, 1, 32, 32)), cache=cache)
    tiling = (None, (16, 16), (6, 6))
    (found,) = whole(stack, lambda x: x, tiling, blend=blend, batch_size=7).images
    (expected,) = whole(
        gpu_patch.ImageStack.from_array(pixels, "SCYX", device="cpu"), lambda x: x, tiling,
        blend=blend,
    ).images  # fmt: skip
    reference.assert_same(found, expected)


def test_pages_of_the_next_batch_are_read_while_a_model_computes(device):
    from chunk_readers import ArrayReader

    pixels = distinct((1, 1, 16, 96), "uint16")
    cache = PageCache(4 * 16 * 16 * 2, device if device == "cpu" else "cuda:0")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gpu_patch.chunks.image._LEAST_BYTES", 0)
        stack = gpu_patch.ImageStack.by_chunk(ArrayReader(pixels, (1, 1, 16, 16)), cache=cache)
    begun = []

    def model(x):
        begun.append(np.flatnonzero(cache.pool.table >= 0).tolist())
        return x

    (found,) = whole(stack, model, (None, (16, 16), (0, 0)), batch_size=1).images
    reference.assert_same(found, pixels.astype(np.float32))
    assert [pages[-1] for pages in begun[-6:]] == [1, 2, 3, 4, 5, 5]  # of six tiles, one a page
    assert cache.traffic.bytes_moved == pixels.nbytes
    assert (cache.pool.next_use > 1 << 59).all()  # nothing is expected any more
