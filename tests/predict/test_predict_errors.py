"""What predict refuses, what is not finite in images and results, and what errors leave behind."""

from __future__ import annotations

import gc
from types import SimpleNamespace

import numpy as np
import predicting
import pytest
import reference
from emulation import fake_cupy
from emulation.gpu import gpu
from emulation.runtime import available
from pixels import DTYPES, distinct
from predicting import TILINGS, make_stack, to_device, whole

import gpu_patch
from gpu_patch import predict
from gpu_patch.feed import Normalization
from gpu_patch.finite import count_not_finite
from gpu_patch.pages import PageCache


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
    assert [each.filename for each in said] == [predicting.__file__]  # where predict was called
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
