"""Constructors whose images are on a device: what they ask of it, and what may go wrong there.

On the emulation's stand-in for CuPy, which keeps a record. That they are right is proven by the
tests of constructors, which take every backend.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from builders import KINDS
from emulation import fake_cupy
from emulation.gpu import gpu
from emulation.runtime import available
from pixels import distinct
from reference import assert_same, on_host
from samples import assert_equal_batches, make_images, make_sample

import gpu_patch
from gpu_patch import ImageStack, PatchExtractor
from gpu_patch import device as devices
from gpu_patch.device import transfer

pytestmark = pytest.mark.skipif(not available(), reason="needs a C++ compiler")

OPERATIONS = {
    "basic": ["gather", "gather"],
    "multichannel": ["lateral_context"],
    "independent": ["lateral_context"],
    "paired": ["lateral_context", "gather"],
    "pred": ["lateral_context"],
}
"""Kernels that a batch takes: one launch each, and one upload of the rows that it reads."""

CHANNELS = {"basic": 3, "multichannel": 3, "independent": 3, "paired": 1, "pred": 1}
"""Of the samples' input; their targets have 2."""

ROW_BYTES, FINISH_BYTES, MOST_OTHER_BYTES = 64, 48, 512
"""What is uploaded per channel of a sample, alone and for an epilogue, and at most besides: sizes
and filters."""


@pytest.fixture(autouse=True)
def cupy():
    with fake_cupy.installed() as module:
        yield module


def recorded(call):
    """What a call gives, and what it asks of the device."""
    gpu.log.clear()
    return call(), list(gpu.log)


def on_device(array, device="cuda"):
    """An extractor of one array SC(Z)YX."""
    axes = "SCYX" if array.ndim == 4 else "SCZYX"
    return PatchExtractor([ImageStack.from_array(array, axes, device=device)])


# ---- copies, launches, streams -----------------------------------------------------------------


def assert_asks_little(log, operations, rows, row_bytes=ROW_BYTES):
    """Each operation is an upload and then a launch, and there is nothing else."""
    assert [action.kind for action in log] == ["upload", "launch"] * len(operations)
    assert [action.what for action in log[1::2]] == operations
    for upload, n_rows in zip(log[::2], rows, strict=False):
        assert n_rows * row_bytes <= upload.what <= n_rows * row_bytes + MOST_OTHER_BYTES


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("n_dims", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_an_upload_and_a_launch_per_operation(kind, n_dims, dtype):
    constructor = make_sample(kind, n_dims=n_dims, device="cuda").constructor
    constructor.construct_batch(range(16), dtype=dtype)
    gpu.finish()  # so that its pinned memory is free again
    with np.errstate(over="ignore"):
        batch, log = recorded(lambda: constructor.construct_batch(range(16, 32), dtype=dtype))
    assert_asks_little(log, OPERATIONS[kind], [16 * CHANNELS[kind], 16 * 2])
    assert {action.device for action in log} == {0}
    # the record can tell
    assert recorded(batch.input.get)[1] == [("download", batch.input.nbytes, 0, 0)]


@pytest.mark.parametrize("kind", KINDS)
def test_normalization_and_augmentation_ask_no_more(kind):
    numbers = [np.full(1, value, np.float32) for value in (2, 3, 4, 5)]
    names = ("input_scale", "input_offset", "target_scale", "target_offset")
    options = {
        "normalization": SimpleNamespace(**dict(zip(names, numbers, strict=True))),
        "augmentation": gpu_patch.Augmentation(rotate=False),
    }
    absence = {"absent_prob": 0.5} if kind in ("multichannel", "independent") else {}
    constructor = make_sample(kind, device="cuda", **absence).constructor
    constructor.construct_batch(range(16), **options)
    gpu.finish()
    _, log = recorded(lambda: constructor.construct_batch(range(16), **options))
    rows = [16 * CHANNELS[kind], 16 * 2]
    assert_asks_little(log, OPERATIONS[kind], rows, ROW_BYTES + FINISH_BYTES)


def test_a_batch_without_targets_is_one_operation():
    constructor = make_sample("basic", device="cuda", with_target=False).constructor
    constructor.construct_batch(range(16))
    gpu.finish()
    _, log = recorded(lambda: constructor.construct_batch(range(16)))
    assert_asks_little(log, ["gather"], [16 * 3])


@pytest.mark.parametrize("kind", KINDS)
def test_a_patch_asks_no_more_than_a_batch(kind):
    constructor = make_sample(kind, device="cuda").constructor
    constructor.construct_patch(0)
    gpu.finish()
    _, log = recorded(lambda: constructor.construct_patch(1))
    assert_asks_little(log, OPERATIONS[kind], [CHANNELS[kind], 2])


@pytest.mark.parametrize("kind", KINDS)
def test_batches_may_be_far_ahead_of_the_device(kind):
    sample, expected = (make_sample(kind, device=device) for device in ("cuda", "cpu"))
    indices = [range(size) for size in (5, 1, 16, 5, 16, 1)]

    def make():
        return [sample.constructor.construct_batch(i, epoch=len(i)) for i in indices]

    batches, log = recorded(make)
    assert {action.kind for action in log} == {"upload", "launch", "pin"}
    assert not gpu.stream.done
    for batch, i in zip(batches, indices, strict=True):
        assert_equal_batches(batch, expected.constructor.construct_batch(i, epoch=len(i)))


@pytest.mark.parametrize("kind", KINDS)
def test_everything_is_in_the_order_of_the_current_stream(kind, cupy):
    constructor = make_sample(kind, device="cuda").constructor
    expected = make_sample(kind).constructor.construct_batch(range(5))
    first, second = (cupy.cuda.Stream(non_blocking=True) for _ in range(2))
    for stream in (first, second, first):
        with stream:
            batch, log = recorded(lambda: constructor.construct_batch(range(5)))
            assert {action.stream for action in log if action.kind != "pin"} == {stream.ptr}
            assert not stream.done
            assert_equal_batches(batch, expected)
    assert cupy.cuda.get_current_stream().ptr == 0


def test_results_are_there_only_when_their_stream_is_done(cupy):
    """The stand-in is as late as CUDA may be, or the tests here could not fail."""
    constructor = make_sample("multichannel", device="cuda").constructor
    with cupy.cuda.Stream(non_blocking=True) as stream:
        batch = constructor.construct_batch(range(5))
    assert np.isnan(batch.input.get()).all()
    stream.synchronize()
    assert not np.isnan(batch.input.get()).any()


def test_numpy_cannot_take_what_is_on_a_device():
    batch = make_sample("basic", device="cuda").constructor.construct_batch(range(5))
    for function in (np.asarray, np.mean, np.ascontiguousarray, lambda array: array + np.ones(5)):
        with pytest.raises(TypeError):
            function(batch.input)


# ---- kernels compiled for the case -------------------------------------------------------------


def mode_one(probability, mode, n_scales):
    def make(device):
        images = PatchExtractor(
            [
                ImageStack.from_array(image, "SCYX", device=device)
                for image in make_images([(2, 90, 151), (1, 200, 64)], 2, ["uint16"], 3)
            ]
        )
        strategy = gpu_patch.RandomPatching(images.shapes, (64, 64))
        return gpu_patch.MultiChannelTargetMsPatchConstr(
            strategy, images, n_scales, mode, [(0.1, 0.9)] * 2, probability, seed=1
        )

    return make


def mode_two(device):
    images = [
        on_device(distinct(shape, "int16"), device)
        for shape in ((3, 1, 9, 20, 15), (1, 1, 4, 40, 30))
    ]
    strategies = [gpu_patch.RandomPatching(i.shapes, (4, 9, 11)) for i in images]
    return gpu_patch.IndependentTargetsMsPatchConstr(strategies, images, 3, "wrap", None, seed=1)


def paired(device):
    images = on_device(distinct((2, 1, 70, 80), "float32"), device)
    targets = on_device(distinct((2, 3, 70, 80), "uint8"), device)
    strategy = gpu_patch.SequentialPatching(images.shapes, (32, 32))
    return gpu_patch.PairedInputTargetMsPatchConstr(strategy, images, targets, 3, "reflect")


def tiles(device):
    images = on_device(distinct((2, 1, 70, 80), "float32"), device)
    strategy = gpu_patch.TiledPatching(images.shapes, (32, 32), (8, 8))
    return gpu_patch.PredMsPatchConstr(strategy, images, 3, "reflect")


@pytest.mark.parametrize(
    "make",
    [mode_one(0, "reflect", 4), mode_one(0.5, "wrap", 3), mode_two, paired, tiles],
    ids=["mode I", "mode I, uncorrelated", "mode II, 3D", "mode III", "prediction"],
)
def test_common_cases_have_kernels_of_their_own(make):
    """The shapes are some of test_emulated.py, so that each is compiled once."""
    constructor, expected = make("cuda"), make("cpu")
    constructor.construct_batch(range(4))
    gpu.finish()
    batch, log = recorded(lambda: constructor.construct_batch(range(8)))
    assert (log[0].kind, log[0].what) == ("launch", "specialised")  # its table is a parameter
    assert_asks_little(log[1:], ["gather"] if make is paired else [], [8 * 3])
    assert_equal_batches(batch, expected.construct_batch(range(8)))


# ---- images on a device ------------------------------------------------------------------------


def test_images_go_through_pinned_memory_in_pieces(monkeypatch):
    monkeypatch.setattr(transfer, "_PIECE_BYTES", 1000)
    image = distinct((2, 1, 33, 41), "uint16")
    stack, log = recorded(lambda: ImageStack.from_array(image, "SCYX", device="cuda"))
    assert [a.what for a in log if a.kind == "upload"] == [1000] * 5 + [image.nbytes - 5000]
    assert [a.what for a in log if a.kind == "pin"] == [1000] * 2
    assert not any(action.kind == "download" for action in log)
    # nobody need wait for it, whatever stream reads it
    np.testing.assert_array_equal(stack.data._pixels, image)
    assert stack.nbytes == image.nbytes == gpu.used_bytes()


def test_arrays_that_are_there_are_taken_in_place(cupy):
    class Foreign:
        __cuda_array_interface__ = property(lambda self: array.__cuda_array_interface__)

    array = cupy.asarray(distinct((2, 3, 9, 8), "uint16"))
    for data in (array, Foreign()):
        for device in (None, "cuda", "cuda:0"):
            stack, log = recorded(
                lambda d=data, at=device: ImageStack.from_array(d, "SCYX", device=at)
            )
            # waited for once, so that batches may be made on any stream
            assert [action.kind for action in log] == ["synchronize"]
            assert stack.data.data.ptr == array.data.ptr
            assert stack.device == "cuda:0"
            assert gpu.used_bytes() == array.nbytes


def test_arrays_that_are_there_are_put_in_order_there(cupy):
    image = distinct((2, 3, 9, 8), "uint16")
    array = cupy.asarray(np.ascontiguousarray(image.transpose(3, 1, 0, 2)))
    stack, log = recorded(lambda: ImageStack.from_array(array, "XCSY"))
    assert [action.kind for action in log] == ["launch", "synchronize"]
    np.testing.assert_array_equal(stack.data.get(), image)


def test_arrays_go_where_they_are_asked_for(cupy):
    gpu.n_devices = 2
    image = distinct((2, 3, 9, 8), "uint16")
    array = cupy.asarray(image)
    assert type(ImageStack.from_array(array, "SCYX", device="cpu").data) is np.ndarray
    for device in ("cuda:1", "cuda:0"):
        stack, log = recorded(lambda at=device: ImageStack.from_array(array, "SCYX", device=at))
        assert not [a for a in log if a.kind in ("download", "upload")]
        data = stack.data
        assert f"cuda:{data.device.id}" == device
        np.testing.assert_array_equal(data.get(), image)


@pytest.mark.parametrize("kind", KINDS)
def test_batches_are_made_where_the_images_are(kind):
    gpu.n_devices = 2
    constructor = make_sample(kind, device="cuda:1").constructor
    batch, log = recorded(lambda: constructor.construct_batch(range(5)))
    assert {action.device for action in log if action.kind != "pin"} == {1}
    assert batch.input.device.id == 1
    assert gpu.device == 0
    assert_equal_batches(batch, make_sample(kind).constructor.construct_batch(range(5)))


def test_single_patches_of_images():
    image = distinct((2, 3, 9, 8), "int8")
    there, here = (on_device(image, device) for device in ("cuda", "cpu"))
    for place in [(0, 1, (2, 3), (4, 5)), (0, 0, (-2, 6), (4, 5))]:
        patch = there.extract_patch(*place)
        assert devices.is_cuda_array(patch)
        assert_same(patch, here.extract_patch(*place))


# ---- what may go wrong -------------------------------------------------------------------------


def test_images_that_do_not_fit():
    gpu.capacity = 40_000_000
    resident = ImageStack.from_array(np.zeros((3000, 5000), np.uint8), "YX", device="cuda")
    with pytest.raises(MemoryError) as raised:
        ImageStack.from_array(np.zeros((5000, 5000), np.uint16), "YX", device="cuda")
    assert str(raised.value) == (
        "cuda:0 has no room for 0.05 GB of images: 0.03 of 0.04 GB are free, 0.01 GB are resident "
        "already. Delete images that are not needed, load fewer, or keep them on the host with "
        "device='cpu'"
    )
    assert gpu.used_bytes() == resident.nbytes
    ImageStack.from_array(np.zeros((5000, 5000), np.uint8), "YX", device="cuda")


@pytest.mark.parametrize("how", ["construct_patch", "construct_batch"])
@pytest.mark.parametrize("kind", KINDS)
def test_patches_that_do_not_fit(kind, how):
    constructor, untouched = (make_sample(kind, device="cuda").constructor for _ in range(2))
    used = gpu.used_bytes()
    room, gpu.capacity = gpu.capacity, used + 200
    index = 3 if how == "construct_patch" else [3, 4]
    with pytest.raises(MemoryError, match=r"cuda:0 has no room for 0\.00 GB of patches: 0\.00 of"):
        getattr(constructor, how)(index)
    assert gpu.used_bytes() == used
    gpu.capacity = room
    for a, b in zip(constructor.construct_patch(1), untouched.construct_patch(1), strict=True):
        np.testing.assert_equal(on_host(a), on_host(b))


def test_images_that_do_not_fit_in_another_order(cupy):
    array = cupy.asarray(np.zeros((3, 2, 500, 400), np.uint8))
    gpu.capacity = gpu.used_bytes() + 1000
    with pytest.raises(
        MemoryError, match=r"cuda:0 has no room for 0\.00 GB of images: .* resident"
    ):
        ImageStack.from_array(array, "CSYX")
    assert gpu.used_bytes() == array.nbytes


def extractors(*names):
    gpu.n_devices = 2
    return [on_device(distinct((1, 1, 9, 8), "uint8"), device) for device in names]


PLACES = [("cuda:0", "cpu"), ("cpu", "cuda:1"), ("cuda:1", "cuda:0")]


@pytest.mark.parametrize("names", PLACES)
def test_images_of_an_extractor_must_be_on_one_device(names):
    stacks = [extractor.image_stacks[0] for extractor in extractors(*names)]
    with pytest.raises(ValueError, match=f"device: image_stacks.0. has {names[0]}, .* {names[1]}"):
        PatchExtractor(stacks)


@pytest.mark.parametrize("names", PLACES)
def test_images_of_a_constructor_must_be_on_one_device(names):
    first, second = extractors(*names)
    strategy = gpu_patch.RandomPatching(first.shapes, (4, 4))
    calls = {
        "input_extractor, target_extractor": [
            lambda: gpu_patch.BasicPatchConstr(strategy, first, second),
            lambda: gpu_patch.PairedInputTargetMsPatchConstr(strategy, first, second, 2, "reflect"),
        ],
        r"target_extractors\[0\], target_extractors\[1\]": [
            lambda: gpu_patch.IndependentTargetsMsPatchConstr(
                [strategy] * 2, [first, second], 2, "reflect", None
            )
        ],
    }
    for arguments, makes in calls.items():
        for make in makes:
            with pytest.raises(ValueError, match=f"{arguments}.*{sorted(names)[0]}"):
                make()


def test_devices_by_name(cupy):
    gpu.n_devices = 2
    assert [devices.resolve(name) for name in ("cuda:1", "cuda", None)] == [
        *("cuda:1", "cuda:0", "cuda:0")
    ]
    with cupy.cuda.Device(1):  # as torch.cuda.set_device makes it current
        assert [devices.resolve(name) for name in ("cuda:0", "cuda", None)] == [
            *("cuda:0", "cuda:1", "cuda:1")
        ]
    with pytest.raises(RuntimeError, match=r"'cuda:2', but there are 2 CUDA devices"):
        ImageStack.from_array(np.zeros((3, 3)), "YX", device="cuda:2")
