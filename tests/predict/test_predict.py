"""predict: whole images through models that see tiles."""

from __future__ import annotations

import gc
import threading
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import reference
from emulation import fake_cupy
from emulation.gpu import gpu
from emulation.runtime import available
from pixels import DTYPES, distinct

import gpu_patch
from gpu_patch import PatchExtractor, TiledPatching, predict
from gpu_patch.feed import Normalization
from gpu_patch.finite import count_not_finite
from gpu_patch.pages import PageCache
from gpu_patch.predict.slab_writer import SlabWriter
from gpu_patch.tiling import BLENDS

# sizes with one pixel left over, smaller than a tile, and of several layers; odd overlaps
TILINGS = {
    "2D": ((70, 45), (16, 16), (4, 6)),
    "wide": ((30, 131), (16, 16), (8, 4)),
    "tile larger": ((9, 40), (16, 12), (4, 4)),
    "one left over": ((33, 25), (16, 12), (0, 0)),
    "odd overlaps": ((50, 41), (15, 16), (5, 7)),
    "one pixel": ((1, 1), (4, 4), (2, 2)),
    "3D": ((9, 40, 21), (6, 16, 16), (2, 4, 6)),
    "3D, one plane": ((1, 30, 33), (4, 16, 16), (2, 4, 4)),
}
tilings = pytest.mark.parametrize("tiling", TILINGS.values(), ids=TILINGS)


def make_stack(size, device="cpu", *, n_samples=2, n_channels=1, dtype="float32", seed=0):
    axes = "SCYX" if len(size) == 2 else "SCZYX"
    pixels = distinct((n_samples, n_channels, *size), dtype, seed)
    return gpu_patch.ImageStack.from_array(pixels, axes, device=device), pixels


def whole(images, model, tiling, **options):
    _, tile, overlaps = tiling
    return predict(images, model, tile_size=tile, overlaps=overlaps, progress=False, **options)


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


def to_device(array):
    import cupy

    return cupy.asarray(np.ascontiguousarray(array))


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


# ---- samples, normalisation, data types --------------------------------------------------------


@pytest.mark.parametrize("blend", BLENDS)
def test_samples_give_mean_and_standard_deviation(blend, device):
    """A model that says another number each time it sees a batch."""
    stack, pixels = make_stack((40, 37), device)
    draws, calls = np.array([0.5, -3.0, 2.25, 8.0], np.float32), []

    def model(x):
        values = reference.on_host(x) + draws[len(calls) % 4]
        calls.append(None)
        return values if device == "cpu" else to_device(values)

    found = whole(stack, model, TILINGS["2D"], n_samples=4, blend=blend, batch_size=4)
    np.testing.assert_allclose(found.images[0], pixels + draws.mean(), rtol=1e-6, atol=1e-2)
    np.testing.assert_allclose(found.std[0], np.full_like(pixels, draws.std(ddof=1)), rtol=2e-3)
    assert found.std[0].dtype == np.float32


def test_tiles_are_made_once_for_all_samples(monkeypatch):
    stack, _ = make_stack((40, 37))
    made, seen = [], []
    construct = gpu_patch.BasicPatchConstr.construct_batch

    def counted(self, indices, **options):
        made.append(list(indices))
        return construct(self, indices, **options)

    monkeypatch.setattr(gpu_patch.BasicPatchConstr, "construct_batch", counted)
    with pytest.warns(UserWarning, match="the standard deviation is 0"):
        whole(stack, lambda x: seen.append(x) or x, TILINGS["2D"], n_samples=3, batch_size=4)
    assert len(seen) == 3 * len(made)
    indices = [index for batch in made for index in batch]
    assert sorted(indices) == list(range(len(indices)))


@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize("n_scales", [None, 2])
def test_each_sample_of_a_model_that_works_in_place_sees_the_same_tile(n_scales, blend, device):
    stack, pixels = make_stack((40, 37), device, dtype="int16")
    options = {"n_samples": 3, "blend": blend, "batch_size": 4, "multiscale_count": n_scales}
    options["normalization"] = Normalization.mean_std(50, 3)
    seen = []

    def apart(x):
        seen.append(reference.on_host(x).copy())
        found = (seen[-1][:, :1] - 300) * (1 + len(seen) % 3)
        return found if device == "cpu" else to_device(found)

    def in_place(x):
        found = apart(x)
        x[...] = found if n_scales is None else 0
        return found

    expected = whole(stack, apart, TILINGS["2D"], **options)
    inputs, seen = seen, []
    found = whole(stack, in_place, TILINGS["2D"], **options)
    for given, wanted in zip(seen, inputs, strict=True):
        reference.assert_same(given, wanted)
    for name in ("images", "std"):
        reference.assert_same(getattr(found, name)[0], getattr(expected, name)[0])
    reference.assert_same(reference.on_host(stack.data), pixels)  # nor is the image changed


def test_what_a_model_returns_may_be_what_it_was_given(device):
    """In a list, too, from which the caller takes one."""
    stack, pixels = make_stack((40, 37), device)
    with pytest.warns(UserWarning, match="the standard deviation is 0"):
        found = whole(stack, lambda x: [x, {"other": x}][0], TILINGS["2D"], n_samples=3)
    reference.assert_same(found.images[0], pixels)
    assert not found.std[0].any()


def test_a_copy_is_made_for_each_sample_that_others_follow(monkeypatch):
    stack, _ = make_stack((40, 37))
    calls, copies, copy = [], [], SlabWriter.copy
    monkeypatch.setattr(SlabWriter, "copy", lambda self, x: copies.append(x) or copy(self, x))
    for n_samples, most in ((1, 0), (3, 2)):
        model = lambda x: calls.append(None) or x + len(calls) % 2  # noqa: E731
        whole(stack, model, TILINGS["2D"], n_samples=n_samples, batch_size=7)
        assert len(copies) * n_samples == most * len(calls)
        calls.clear()


@pytest.mark.parametrize("varying", [None, 0, 3, "last"])
def test_a_deviation_of_zero_everywhere_is_worth_a_warning(varying, device):
    """And one at a single pixel of a single tile is not."""
    stack, _ = make_stack((40, 37), device, n_samples=1)
    n_calls = -(-TiledPatching(PatchExtractor([stack]).shapes, (16, 16), (4, 6)).n_patches // 2)
    at = 3 * (n_calls - 1 if varying == "last" else varying or 0) + 1
    calls = []

    def model(x):
        values = reference.on_host(x)
        if len(calls) == at and varying is not None:
            values = values.copy()
            values[0, 0, 8, 12] += 0.5  # which counts in every tile
        calls.append(None)
        return values if device == "cpu" else to_device(values)

    said = pytest.warns(UserWarning, match=r"standard deviation is 0 .* all 3 samples")
    with said if varying is None else nullcontext():
        found = whole(stack, model, TILINGS["2D"], n_samples=3, batch_size=2)
    assert found.std[0].any() == (varying is not None)


def test_modes_are_for_modules():
    stack, _ = make_stack((40, 37))
    with pytest.raises(ValueError, match=r"training_mode='keep' is for torch modules, found <func"):
        whole(stack, lambda x: x, TILINGS["2D"], training_mode="keep")
    with pytest.raises(ValueError, match="training_mode must be one of 'eval', 'keep', found 'on'"):
        whole(stack, lambda x: x, TILINGS["2D"], training_mode="on")


STATISTICS = {
    "input": Normalization.mean_std([100, 50, 10], [20, 30, 5]),
    "one for all": Normalization.mean_std(100, 20),
    "target": Normalization.quantile(0, 900, [10, 20, 30], [1000, 1100, 1300]),
    "none": Normalization.none(),
    "skip": Normalization.min_max(0, 900, skip_target=True),
}


@pytest.mark.parametrize("normalization", STATISTICS.values(), ids=STATISTICS)
def test_normalisation_is_taken_back_as_it_says(normalization, device):
    stack, _ = make_stack((40, 37), device, n_channels=3, dtype="uint16")
    (image,) = whole(stack, lambda x: x, TILINGS["2D"], normalization=normalization).images
    (raw,) = whole(
        make_stack((40, 37), n_channels=3, dtype="uint16")[0],
        lambda x: (
            (x - normalization.input_center.astype(np.float32)[:, None, None])
            * normalization.input_scale[:, None, None]
        ),
        TILINGS["2D"],
    ).images
    reference.assert_same(image, normalization.denormalize(raw))


def test_standard_deviations_are_scaled_and_not_moved(device):
    normalization = Normalization.mean_std(100, 20)
    stack, _ = make_stack((40, 37), device)
    calls = []

    def model(x):
        values = np.zeros_like(reference.on_host(x)) + (1.0 if len(calls) % 2 else -1.0)
        calls.append(None)
        return values if device == "cpu" else to_device(values)

    found = whole(stack, model, TILINGS["2D"], n_samples=2, normalization=normalization)
    np.testing.assert_allclose(found.images[0], 100, rtol=1e-6)
    np.testing.assert_allclose(found.std[0], 20 * np.sqrt(2), rtol=1e-6)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "float16", "float32"])
def test_results_are_rounded_to_the_nearest_and_cut(dtype, device):
    pixels = np.linspace(-70000, 70000, 1200, dtype=np.float32).reshape(30, 40)
    pixels[0, :5] = [0.5, 1.5, 2.4999, -0.5, 254.6]
    stack = gpu_patch.ImageStack.from_array(pixels, "YX", device=device)
    (image,) = whole(stack, lambda x: x, (None, (16, 16), (4, 4)), dtype=dtype).images
    assert image.dtype == dtype
    if image.dtype.kind == "f":
        with np.errstate(over="ignore"):
            np.testing.assert_array_equal(image, pixels.astype(dtype))
    else:
        limits = np.iinfo(dtype)
        expected = np.clip(np.rint(pixels.astype(np.float64)), limits.min, limits.max)
        np.testing.assert_array_equal(image, expected)


# ---- memory and threads ------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(2000, 100), (100, 2000)])
def test_the_slab_is_small(size, device, monkeypatch):
    from gpu_patch.predict import slab_writer

    shapes = []
    for kind in (slab_writer.SlabWriter, slab_writer.CudaSlabWriter):
        new = vars(kind)["new"]
        monkeypatch.setattr(
            kind,
            "new",
            lambda self, shape, *dtype, new=new: shapes.append(shape) or new(self, shape, *dtype),
        )
    stack, pixels = make_stack(size, device, n_samples=1)
    (image,) = whole(stack, lambda x: x, (None, (32, 32), (8, 8)), batch_size=8).images
    reference.assert_same(image, pixels)
    (shape,) = shapes
    assert np.prod(shape) <= pixels.size / 12


def test_writing_is_done_elsewhere_while_the_next_batch_is_made(monkeypatch):
    """The thread that writes waits for a batch that only comes if it is not waited for."""
    from gpu_patch.predict import results

    stack, pixels = make_stack((300, 40))
    writing, gone_on, threads = threading.Event(), threading.Event(), set()
    write = results.Results.write

    def slow(*arguments):
        threads.add(threading.get_ident())
        writing.set()
        assert gone_on.wait(30)
        write(*arguments)

    def model(x):
        if writing.is_set():
            gone_on.set()
        return x

    monkeypatch.setattr(results.Results, "write", slow)
    (image,) = whole(stack, model, (None, (16, 16), (4, 4)), batch_size=2).images
    reference.assert_same(image, pixels)
    assert len(threads) == 1
    assert threading.get_ident() not in threads


# ---- errors ------------------------------------------------------------------------------------


def wrong(x, shape):
    made = np.zeros(shape(tuple(x.shape)), np.float32)
    return made if isinstance(x, np.ndarray) else to_device(made)


@pytest.mark.parametrize(
    ("model", "error", "words"),
    [
        (None, TypeError, ["model must be a torch module or a function", "None"]),
        (lambda x: (x, x), TypeError, ["a tuple of 2", "model(batch)[0]"]),
        (lambda x: {"mean": x}, TypeError, ["a dict of 1", "model(batch)['mean']"]),
        (lambda x: None, TypeError, ["must return an array", "None"]),
        (lambda x: wrong(x, lambda s: (s[0], 2, 8, 8)), ValueError,
         ["(6, C, 16, 16)", "(6, 1, 16, 16)", "(6, 2, 8, 8)"]),
        (lambda x: wrong(x, lambda s: s[1:]), ValueError, ["(1, 16, 16)"]),
        (lambda x: wrong(x, lambda s: (1, *s[1:])), ValueError, ["(1, 1, 16, 16)"]),
        (lambda x: wrong(x, lambda s: (s[0], 0, *s[2:])), ValueError, ["(6, 0, 16, 16)"]),
    ],
)  # fmt: skip
def test_models_that_return_something_else(model, error, words, device):
    stack, _ = make_stack((40, 37), device)
    with pytest.raises(error) as raised:
        whole(stack, model, TILINGS["2D"], batch_size=6)
    for word in words:
        assert word in str(raised.value)


def test_a_model_that_changes_its_mind_about_channels():
    stack, _ = make_stack((40, 37))
    counts = iter([2, 3, 3, 3, 3])
    with pytest.raises(ValueError, match="as many channels each time, found 3 after 2"):
        whole(stack, lambda x: np.repeat(x, next(counts), axis=1), TILINGS["2D"], batch_size=6)


def test_complex_numbers_are_refused():
    stack, _ = make_stack((40, 37))
    with pytest.raises(TypeError, match="real numbers, found complex64"):
        whole(stack, lambda x: x * 1j, TILINGS["2D"])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite(value, device):
    stack, _ = make_stack((300, 37), device)
    calls = []

    def model(x):
        calls.append(len(x))
        values = reference.on_host(x).copy()
        if len(calls) == 5:
            values[0, 0, 8, 8] = value
        return values if device == "cpu" else to_device(values)

    found = whole(stack, model, TILINGS["2D"], batch_size=4).images[0]
    assert np.isfinite(found).sum() == found.size - 1
    calls.clear()
    with pytest.raises(ValueError, match=r"prediction of array .* not finite, which uint16 cannot"):
        whole(stack, model, TILINGS["2D"], batch_size=4, dtype=np.uint16)


NOT_FINITE = (np.nan, np.inf, -np.inf)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("n_scales", [None, 2])
def test_pixels_of_images_that_are_not_finite_are_counted_once(n_scales, dtype, device):
    """Wherever they lie, in how many tiles they are, and whatever the model makes of them."""
    pixels = distinct((2, 1, 70, 45), dtype)
    for i, place in enumerate([(0, 0, 0, 0), (0, 0, 13, 14), (1, 0, 69, 44), (1, 0, 35, 0)]):
        pixels[place] = NOT_FINITE[i % 3]
    bad = gpu_patch.ImageStack(pixels, "SCYX", source="bad.tif", device=device)
    one, _ = make_stack((30, 30), device, dtype=dtype)
    options = {"multiscale_count": n_scales, "batch_size": 3}
    model = (lambda x: x[:, :1]) if device == "cpu" else (lambda x: to_device(x.get()[:, :1]))
    with pytest.warns(UserWarning, match=r"NaN or infinite .*: 4 of 6,300 in bad\.tif$") as said:
        whole([one, bad], model, TILINGS["2D"], **options)
    assert [each.filename for each in said] == [__file__]  # where predict was called
    whole([one], model, TILINGS["2D"], **options)


def test_many_images_with_such_pixels_are_named_in_one_warning():
    pixels = np.full((20, 20), np.nan, np.float32)
    stacks = [gpu_patch.ImageStack(pixels, "YX", source=f"{i}.tif") for i in range(7)]
    words = r"400 of 400 in 0\.tif; .*in 4\.tif; and in 2 more images$"
    with pytest.warns(UserWarning, match=words):
        whole(stacks, lambda x: x, TILINGS["2D"])


@pytest.mark.parametrize("n_before", [0, 1])
def test_pixels_of_images_by_chunk_are_counted_once_too(n_before, device):
    """Chunks that are read again, and those that were read before, too."""
    pixels = distinct((2, 1, 300, 700), "float32")
    pixels[0, 0, 0, 0], pixels[0, 0, 150, :], pixels[1, 0, -1, -1] = NOT_FINITE

    def read(region, out):
        out[...] = pixels[tuple(region)]

    reader = SimpleNamespace(
        shape=pixels.shape, dtype=pixels.dtype, chunk_shape=(1, 1, 128, 128), read=read
    )
    cache = PageCache(600_000, device)
    stack = gpu_patch.ImageStack.by_chunk(reader, cache=cache, source="large.tif")
    for _ in range(n_before):
        stack.extract_patch(0, None, (140, 0), (20, 20))
    for n_runs in (1, 2):
        with pytest.warns(UserWarning, match=r": 702 of 420,000 in large\.tif$"):
            whole(stack, lambda x: x, (None, (64, 64), (16, 16)))
        assert cache.traffic.bytes_moved > (n_runs - 0.5) * pixels.nbytes


def test_integers_are_not_looked_at(monkeypatch):
    from gpu_patch import finite

    looked = []
    monkeypatch.setattr(finite, "_count_on_host", lambda values: looked.append(values) or 0)
    for dtype in DTYPES:
        stack, _ = make_stack((40, 37), dtype=dtype)
        whole(stack, lambda x: x, TILINGS["2D"])
        assert bool(looked) == dtype.startswith("float")
        looked.clear()


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
@pytest.mark.parametrize("n", [1, 65_535, 65_537, 200_000])
def test_counting_what_is_not_finite(n, dtype):
    values = np.random.default_rng(n).normal(0, 100, n).astype(dtype)
    values[0] = np.finfo(dtype).max
    assert count_not_finite(values) == 0
    places = np.unique(np.linspace(0, n - 1, 5).astype(int))
    values[places] = np.resize(NOT_FINITE, len(places))
    assert count_not_finite(values) == len(places)
    assert count_not_finite(values.reshape(1, n, 1)) == len(places)


def test_what_a_model_raises_comes_with_the_shape_of_its_batch():
    stack, _ = make_stack((40, 37))

    def model(x):
        raise KeyError("its own")

    with pytest.raises(KeyError, match="its own") as raised:
        whole(stack, model, TILINGS["2D"], batch_size=6)
    assert raised.value.__notes__ == [
        "the model was given a batch of float32 and of the shape (6, 1, 16, 16), which is "
        "(batch_size or less, channels of the images, tile_size[0], tile_size[1])"
    ]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"tile_size": (16,)}, ValueError, ["tile_size", "2 entries"]),
        ({"tile_size": (0, 16)}, ValueError, ["tile_size[0]"]),
        ({"overlaps": (16, 4)}, ValueError, ["overlaps[0]", "tile_size[0] = 16"]),
        ({"batch_size": 0}, ValueError, ["batch_size"]),
        ({"n_samples": 0}, ValueError, ["n_samples"]),
        ({"blend": "mean"}, ValueError, ["blend", "'crop'", "'mean'"]),
        ({"dtype": "float64"}, ValueError, ["dtype", "float32", "float64"]),
        ({"dtype": "nothing"}, ValueError, ["dtype", "nothing"]),
        ({"normalization": "mean"}, TypeError, ["normalization", "mean"]),
        ({"multiscale_count": 0}, ValueError, ["multiscale_count"]),
        ({"padding_mode": "zero", "multiscale_count": 2}, ValueError, ["padding_mode"]),
        ({"resume": True}, ValueError, ["resume=True", "ome-zarr"]),
        ({"world_size": 2}, ValueError, ["world_size=2", "ome-zarr"]),
        ({"rank": 1}, ValueError, ["rank"]),
        ({"normalization": Normalization.mean_std([1, 2], [1, 2])}, ValueError, ["input_scale"]),
        ({"images": []}, ValueError, ["images is empty"]),
        ({"images": 3}, TypeError, ["images must be"]),
        ({"images": [np.zeros((4, 4))]}, TypeError, ["images[0]", "open_images"]),
    ],
)  # fmt: skip
def test_wrong_arguments(options, error, words):
    def model(x):
        raise AssertionError("nothing may be predicted")

    given = {"tile_size": (16, 16), "overlaps": (4, 4), "images": make_stack((40, 37))[0],
             **options}  # fmt: skip
    with pytest.raises(error) as raised:
        predict(given.pop("images"), model, **given)
    for word in words:
        assert word in str(raised.value)


def test_context_needs_one_channel():
    stack, _ = make_stack((40, 37), n_channels=2)
    with pytest.raises(ValueError, match="1 channel"):
        whole(stack, lambda x: x, TILINGS["2D"], multiscale_count=2)


@pytest.mark.skipif(not available(), reason="the emulated backend needs a C++ compiler")
def test_after_an_error_nothing_stays_on_the_device():
    """Not even as long as it takes to look for what refers to itself."""
    calls = []

    def model(x):
        calls.append(None)
        return x if len(calls) < 4 else to_device(np.full(x.shape, np.nan, np.float32))

    with fake_cupy.installed():
        stack, _ = make_stack((300, 37), "cuda")
        used = gpu.used_bytes()
        gc.disable()
        try:
            with pytest.raises(ValueError, match="not finite") as raised:
                whole(stack, model, TILINGS["2D"], batch_size=4, dtype=np.uint16)
            del raised
            gpu.finish()
            assert gpu.used_bytes() == used
        finally:
            gc.enable()


@pytest.mark.skipif(not available(), reason="the emulated backend needs a C++ compiler")
def test_the_memory_of_a_slab_waits_for_the_copies_of_its_rows():
    from gpu_patch.predict.slab_writer import CudaSlabWriter

    with fake_cupy.installed():
        writer = CudaSlabWriter("cuda:0")
        slab = writer.new((1, 8, 4))
        writer.write_rows(slab, 1, slice(2, 5), lambda rows: None)
        gpu.log.clear()
        del slab
        (wait,) = [action for action in gpu.log if action.kind == "wait_event"]
        assert wait.stream == 0
        writer.finish()
        writer.close()


@pytest.mark.skipif(not available(), reason="the emulated backend needs a C++ compiler")
def test_models_run_on_the_device_of_the_images():
    seen = set()

    def model(x):
        seen.add((gpu.device, x.device.id))
        return x

    with fake_cupy.installed():
        gpu.n_devices = 2
        stack, pixels = make_stack((60, 37), "cuda:1")
        (image,) = whole(stack, model, TILINGS["2D"]).images
        reference.assert_same(image, pixels)
        assert seen == {(1, 1)}
        with pytest.raises(ValueError, match="tiles on cuda:1, as the batch is, found cpu"):
            whole(stack, lambda x: np.zeros(x.shape), TILINGS["2D"])
