"""Repeated predictions, scales and data types of results; memory, threads and devices meanwhile."""

from __future__ import annotations

import threading
from contextlib import nullcontext

import numpy as np
import pytest
import reference
from emulation import fake_cupy
from emulation.gpu import gpu
from emulation.runtime import available
from predicting import TILINGS, make_stack, to_device, whole

import gpu_patch
from gpu_patch import PatchExtractor, TiledPatching
from gpu_patch.feed import Normalization
from gpu_patch.predict.slab_writer import SlabWriter
from gpu_patch.tiling import BLENDS

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


# ---- memory, threads and devices ---------------------------------------------------------------


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
