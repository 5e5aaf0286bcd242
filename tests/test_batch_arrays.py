"""Arrays in and out: types, layout, memory, and images that are laid out oddly."""

import numpy as np
import pytest
import reference
from builders import KINDS
from pixels import DTYPES, distinct
from reference import on_host
from samples import STRATEGIES, assert_batch_is, assert_equal_batches, make_sample

import gpu_patch
from gpu_patch import ImageStack, PatchExtractor
from gpu_patch.device import is_cuda_array


def overlap(a, b):
    """Whether two contiguous arrays have memory in common."""
    (a_start, a_stop), (b_start, b_stop) = (
        (start, start + array.nbytes)
        for array in (a, b)
        for start in [array.data.ptr if is_cuda_array(array) else array.ctypes.data]
    )
    return a_start < b_stop and b_start < a_stop


def outputs(constructor, dtype=np.float32):
    """Arrays of a batch and, in float32, of a patch."""
    batch = constructor.construct_batch([0, 2, 1], dtype=dtype)
    arrays = [batch.input, batch.target]
    if dtype == np.float32:
        arrays += constructor.construct_patch(1)[:2]
    return [array for array in arrays if array is not None]


@pytest.mark.parametrize("n_dims", [2, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, "float32", "float16"])
@pytest.mark.parametrize("kind", KINDS)
def test_results_are_contiguous_and_of_the_type_asked_for(kind, dtype, n_dims, device):
    with np.errstate(over="ignore"):
        arrays = outputs(make_sample(kind, n_dims=n_dims, device=device).constructor, dtype)
    for array in arrays:
        if device == "cpu":
            assert type(array) is np.ndarray
            assert array.flags.writeable
        else:
            assert is_cuda_array(array)
        assert array.dtype == dtype
        assert array.flags.c_contiguous


@pytest.mark.parametrize("kind", KINDS)
def test_float16_is_the_rounded_float32(kind, device):
    with np.errstate(over="ignore"):
        constructor = make_sample(kind, device=device).constructor
        found = constructor.construct_batch(range(9), dtype=np.float16)
        expected = constructor.construct_batch(range(9))
        reference.assert_same(found.input, on_host(expected.input).astype(np.float16))
        if expected.target is not None:
            reference.assert_same(found.target, on_host(expected.target).astype(np.float16))
    assert list(found.specs) == list(expected.specs)


@pytest.mark.parametrize("kind", KINDS)
def test_float16_beyond_its_range_is_infinite_without_a_warning(kind, device):
    images = [np.full((1, 1, 30, 30), 65535, np.uint16)]
    extractor = PatchExtractor(
        [ImageStack.from_array(image, "SCYX", device=device) for image in images]
    )
    strategy = gpu_patch.RandomPatching(extractor.shapes, (4, 4))
    constructor = {
        "basic": lambda: gpu_patch.BasicPatchConstr(strategy, extractor, extractor),
        "multichannel": lambda: gpu_patch.MultiChannelTargetMsPatchConstr(
            strategy, extractor, 2, "reflect", None, 0
        ),
        "independent": lambda: gpu_patch.IndependentTargetsMsPatchConstr(
            [strategy], [extractor], 2, "reflect", None
        ),
        "paired": lambda: gpu_patch.PairedInputTargetMsPatchConstr(
            strategy, extractor, extractor, 2, "reflect"
        ),
        "pred": lambda: gpu_patch.PredMsPatchConstr(strategy, extractor, 2, "reflect"),
    }[kind]()
    for array in outputs(constructor, np.float16):
        assert np.isposinf(on_host(array)).all()


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("kind", KINDS)
def test_changing_a_result_never_changes_an_image(kind, strategy, device):
    sample = make_sample(kind, strategy, device=device)
    images = [image for source, _ in sample.sources for image in source] + (sample.targets or [])
    before = [image.copy() for image in images]
    for array in outputs(sample.constructor):
        assert not any(overlap(array, image) for image in images)
        array[...] = 99
    for image, copy in zip(images, before, strict=True):
        np.testing.assert_array_equal(image, copy)
    # nor the next result
    indices = [0, 2, 1]
    assert_batch_is(sample, sample.constructor.construct_batch(indices), indices, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_results_share_no_memory(kind, device):
    constructor = make_sample(kind, device=device).constructor
    arrays = [array for _ in range(3) for array in outputs(constructor)]
    for i, a in enumerate(arrays):
        assert not any(overlap(a, b) for b in arrays[i + 1 :])


# ---------------------------------------------------------------------------------------------
# Images


def strided(image):
    """Every second pixel of a larger array, axes reversed in memory."""
    large = np.zeros([2 * n for n in image.shape[::-1]], image.dtype).T
    view = large[tuple(slice(None, None, 2) for _ in image.shape)]
    view[...] = image
    return view


def backwards(image):
    return np.ascontiguousarray(image[..., ::-1, ::-1])[..., ::-1, ::-1]


def read_only(image):
    image = image.copy()
    image.setflags(write=False)
    return image


def byte_swapped(image):
    return image.astype(image.dtype.newbyteorder())


def unaligned(image):
    data = np.zeros(image.nbytes + 1, np.uint8)[1:].view(image.dtype).reshape(image.shape)
    data[...] = image
    return data


def repeated(image):
    """A view whose samples are one and the same memory."""
    return np.broadcast_to(image[:1], image.shape)


LAYOUTS = {
    "Fortran order": np.asfortranarray,
    "strided": strided,
    "backwards": backwards,
    "read-only": read_only,
    "byte-swapped": byte_swapped,
    "unaligned": unaligned,
    "repeated": repeated,
    "nested lists": lambda image: image.tolist(),
}


def constructors_of(image, axes="SCYX", device="cpu"):
    """Batches of each kind of reading: plain, and with context."""
    extractor = PatchExtractor([ImageStack.from_array(image, axes, device=device)])
    strategy = gpu_patch.RandomPatching(extractor.shapes, (6, 5))
    return [
        gpu_patch.BasicPatchConstr(strategy, extractor, seed=1),
        gpu_patch.MultiChannelTargetMsPatchConstr(
            strategy, extractor, 3, "reflect", None, 0.5, seed=1
        ),
    ]


def assert_images_are_equal(image, plain, axes="SCYX", device="cpu"):
    data = ImageStack.from_array(image, axes, device=device).data
    assert data.dtype.isnative
    assert data.flags.c_contiguous
    made = constructors_of(image, axes, device)
    for odd, usual in zip(made, constructors_of(plain), strict=True):
        index = range(usual.n_patches)
        assert_equal_batches(odd.construct_batch(index), usual.construct_batch(index))


@pytest.mark.parametrize("dtype", ["uint16", "float32", "bool", "float16", "int64", "float64"])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_layout_in_memory_does_not_matter(layout, dtype, device):
    image = distinct((2, 3, 21, 17), dtype)
    odd = layout(image)
    plain = np.array(odd).astype(image.dtype)
    assert_images_are_equal(odd, plain, device=device)


@pytest.mark.parametrize("dtype", ["uint16", "float32", ">i2"])
@pytest.mark.parametrize("mode", ["r", "c"])
def test_memory_mapped_files_are_read(tmp_path, dtype, mode):
    image = distinct((2, 3, 21, 17), np.dtype(dtype).newbyteorder("=")).astype(dtype)
    np.save(tmp_path / "image.npy", image)
    mapped = np.load(tmp_path / "image.npy", mmap_mode=mode)
    assert_images_are_equal(mapped, image)
    for constructor in constructors_of(mapped):
        for array in outputs(constructor):
            array[...] = 1
    np.testing.assert_array_equal(np.load(tmp_path / "image.npy"), image)


@pytest.mark.parametrize("axes", ["SCYX", "XYCS", "CYSX", "TCYX", "YXTC"])
def test_axes_in_any_order_are_the_same_images(axes, device):
    image = distinct((2, 3, 21, 17), "uint16")
    canonical = axes.replace("T", "S")
    moved = image.transpose(["SCYX".index(axis) for axis in canonical])
    assert_images_are_equal(moved, image, axes, device)


@pytest.mark.parametrize("axes", ["STCYX", "TSCYX", "YXCTS", "SYCXT"])
def test_times_of_samples_are_samples(axes, device):
    image = distinct((2, 4, 3, 21, 17), "uint16")
    moved = image.transpose(["STCYX".index(axis) for axis in axes])
    assert_images_are_equal(moved, image.reshape(8, 3, 21, 17), axes, device)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 2, 1, 9), (2, 1, 9, 1), (1, 2, 1, 1, 7)])
def test_axes_of_one_pixel(shape, dtype, device):
    image = distinct(shape, dtype)
    # NumPy calls an array contiguous whatever the strides of axes of one pixel are
    strides = [12345 if n == 1 else s for n, s in zip(image.shape, image.strides, strict=True)]
    odd = np.lib.stride_tricks.as_strided(image, strides=strides)
    axes = "SCYX" if image.ndim == 4 else "SCZYX"
    for data in (image, odd):
        extractor = PatchExtractor([ImageStack.from_array(data, axes, device=device)])
        for size in (1, 4):
            patch_size = (size,) * (image.ndim - 2)
            strategy = gpu_patch.SequentialPatching(extractor.shapes, patch_size)
            batch = gpu_patch.BasicPatchConstr(strategy, extractor).construct_batch(
                range(strategy.n_patches)
            )
            for patch, spec in zip(batch.input, batch.specs, strict=True):
                volumes = image[spec["sample_idx"]]
                expected = [
                    reference.window(v, spec["coords"], patch_size, 0, 0, "zero") for v in volumes
                ]
                reference.assert_same(patch, np.stack(expected).astype(np.float32))


@pytest.mark.parametrize("dtype", DTYPES)
def test_stored_types_are_kept_on_any_device(dtype, device):
    image = distinct((2, 3, 21, 17), dtype)
    stack = ImageStack.from_array(image, "SCYX", device=device)
    assert stack.data.dtype == dtype
    assert stack.nbytes == image.nbytes
    np.testing.assert_array_equal(on_host(stack.data), image)
    assert_images_are_equal(image, image, device=device)


@pytest.mark.parametrize("dtype", DTYPES)
def test_stored_types_are_kept_without_a_copy(dtype):
    image = distinct((2, 3, 21, 17), dtype)
    stack = ImageStack.from_array(image, "SCYX", device="cpu")
    assert np.shares_memory(stack.data, image)
    assert stack.data.dtype == dtype
