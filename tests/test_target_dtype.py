"""Targets that are labels: integers as they are in the files, turned with the input, no more."""

import numpy as np
import pytest
from pixels import LABEL_DTYPES, distinct, labels
from reference import on_host, turned

import gpu_patch
from gpu_patch import ImageStack, PatchExtractor
from gpu_patch.augmentation import Augmentation
from gpu_patch.feed import BatchLoader, Normalization, compute_normalization

SHAPES = [(2, 1, 41, 37), (1, 1, 20, 55)]


def stacks(arrays, device="cpu", **options):
    return PatchExtractor(
        [ImageStack.from_array(array, "SCYX", device=device, **options) for array in arrays]
    )


def target_arrays(dtype, n_channels=2):
    return [labels((s, n_channels, *size), dtype, i) for i, (s, _, *size) in enumerate(SHAPES)]


def constructor_of(kind, targets, device="cpu"):
    images = stacks([distinct(shape, "uint16") for shape in SHAPES], device)
    strategy = gpu_patch.RandomPatching(images.shapes, (12, 12))
    if kind == "basic":
        return gpu_patch.BasicPatchConstr(strategy, images, targets, seed=3)
    return gpu_patch.PairedInputTargetMsPatchConstr(strategy, images, targets, 2, "reflect", seed=3)


def cut(arrays, spec, turn=0):
    y, x = spec["coords"]
    h, w = spec["patch_size"]
    return turned(arrays[spec["data_idx"]][spec["sample_idx"], :, y : y + h, x : x + w], turn)


@pytest.mark.parametrize("dtype", LABEL_DTYPES)
@pytest.mark.parametrize("kind", ["basic", "paired"])
def test_native_targets_are_the_labels_turned_and_never_normalised(kind, dtype, device):
    arrays = target_arrays(dtype)
    constructor = constructor_of(kind, stacks(arrays, device, labels=True), device)
    options = {
        "normalization": Normalization.mean_std(500, 30, 7, 3),
        "augmentation": Augmentation(),
        "epoch": 2,
    }
    batch = constructor.construct_batch(range(14), target_dtype="native", **options)
    assert batch.target.dtype == dtype
    assert batch.input.dtype == np.float32
    plan = constructor.plan_batch(range(14), **options)
    turns = plan.epilogue.orientation.tolist()
    assert len(set(turns)) > 3
    for target, spec, turn in zip(on_host(batch.target), batch.specs, turns, strict=True):
        np.testing.assert_array_equal(target, cut(arrays, spec, turn))
    # the input is as ever
    small = constructor_of(kind, stacks(target_arrays("uint8"), device), device)
    expected = small.construct_batch(range(14), **options)
    np.testing.assert_array_equal(on_host(batch.input), on_host(expected.input))


def test_construct_patch_and_extract_patch_give_labels_as_they_are(device):
    arrays = target_arrays("int64")
    targets = stacks(arrays, device, labels=True)
    constructor = constructor_of("basic", targets, device)
    _, target, spec = constructor.construct_patch(5, target_dtype="native")
    np.testing.assert_array_equal(on_host(target), cut(arrays, spec))
    found = targets.extract_patch(1, 0, (5, 7), (3, 4))
    assert found.dtype == np.int64
    np.testing.assert_array_equal(on_host(found), arrays[1][0, :, 5:8, 7:11])


def test_20000001_stays_and_was_lost_before(device):
    arrays = [np.full((s, 1, *size), 20_000_001, np.int32) for s, _, *size in SHAPES]
    native = constructor_of("basic", stacks(arrays, device, labels=True), device)
    assert (on_host(native.construct_batch([0], target_dtype="native").target) == 20_000_001).all()
    with pytest.warns(UserWarning, match="lose precision"):
        plain = constructor_of("basic", stacks(arrays, device), device)
    assert (on_host(plain.construct_batch([0]).target) == 20_000_000).all()
    assert np.isinf(on_host(plain.construct_batch([0], dtype=np.float16).target)).all()


def test_images_of_several_types_get_the_smallest_that_holds_all(device):
    arrays = [target_arrays("uint8")[0], target_arrays("int16")[1]]
    constructor = constructor_of("basic", stacks(arrays, device), device)
    for wanted, dtype in (("native", np.int16), (np.int64, np.int64), ("int32", np.int32)):
        batch = constructor.construct_batch(range(14), target_dtype=wanted)
        assert batch.target.dtype == dtype
        for target, spec in zip(on_host(batch.target), batch.specs, strict=True):
            np.testing.assert_array_equal(target, cut(arrays, spec))


@pytest.mark.parametrize("dtype", ["uint32", "int64"])
def test_by_chunk_gives_the_same(dtype, device):
    arrays = [labels((2, 1, 200, 300), dtype), labels((1, 1, 150, 170), dtype, 1)]
    batches = []
    for by_chunk in (False, True):
        options = {"device": device, "by_chunk": by_chunk}
        images = gpu_patch.open_images(
            [distinct(a.shape, "uint16") for a in arrays], "SCYX", **options
        )
        targets = gpu_patch.open_images(arrays, "SCYX", labels=True, **options)
        assert targets.image_stacks[0].data.dtype == dtype
        strategy = gpu_patch.RandomPatching(images.shapes, (40, 40))
        constructor = gpu_patch.BasicPatchConstr(strategy, images, targets, seed=5)
        loader = BatchLoader(constructor, 11, target_dtype="native", augmentation=Augmentation())
        batches.append([(on_host(b.input), on_host(b.target)) for b in loader])
    for resident, chunked in zip(*batches, strict=True):
        assert resident[1].dtype == dtype
        for a, b in zip(resident, chunked, strict=True):
            np.testing.assert_array_equal(a, b)


def test_files_of_labels(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    zarr = pytest.importorskip("zarr")
    array = labels((1, 30, 40), "uint32")[0]
    tifffile.imwrite(tmp_path / "a.tif", array)
    zarr.save(str(tmp_path / "b.zarr"), array.astype("int64"))
    np.save(tmp_path / "c.npy", array.astype(">i8"))
    for name, dtype in (("a.tif", "uint32"), ("b.zarr", "int64"), ("c.npy", "int64")):
        for by_chunk in (False, True):
            (stack,) = gpu_patch.open_images(
                tmp_path / name, "YX", labels=True, device="cpu", by_chunk=by_chunk
            ).image_stacks
            assert stack.is_labels
            assert stack.data.dtype == dtype
            np.testing.assert_array_equal(stack.extract_patch(0, None, (0, 0), (30, 40))[0], array)
    assert ImageStack.from_tiff(tmp_path / "a.tif", "YX", device="cpu", labels=True).is_labels
    np.save(tmp_path / "d.npy", np.zeros((9, 9), np.float32))
    with pytest.raises(TypeError, match=r"d\.npy: labels must be integers or bool, found float32"):
        gpu_patch.open_images(tmp_path / "d.npy", "YX", labels=True)


def test_normalization_leaves_labels_alone():
    constructor = constructor_of("basic", stacks(target_arrays("int32"), labels=True))
    found = compute_normalization(constructor)
    assert found.skip_target
    assert found.target_statistics is None
    small = constructor_of("basic", stacks(target_arrays("uint8")))
    assert found.input_statistics == compute_normalization(small).input_statistics


def test_loaders_of_constructors_without_targets_take_it():
    constructor = constructor_of("basic", None)
    (batch, *_) = BatchLoader(constructor, 4, target_dtype="native")
    assert batch.target is None


def mixing_constructor():
    targets = stacks(target_arrays("uint8"))
    strategy = gpu_patch.RandomPatching(targets.shapes, (12, 12))
    return gpu_patch.MultiChannelTargetMsPatchConstr(strategy, targets, 2, "reflect", None, 0)


@pytest.mark.parametrize(
    ("make", "wanted", "kind", "message"),
    [
        (mixing_constructor, "native", ValueError, "inputs are mixed from the targets"),
        (lambda: constructor_of("basic", stacks([np.zeros(s, np.float32) for s in SHAPES])),
         "native", TypeError, r"targets are float32: labels are integers.*labels=True"),
        (lambda: constructor_of("basic", stacks(target_arrays("int32"), labels=True)),
         None, TypeError, r"labels of int32, .* give target_dtype='native'"),
        (lambda: constructor_of("basic", stacks(target_arrays("uint16"))),
         "int16", TypeError, "targets are uint16: int16 does not hold all values"),
        (lambda: constructor_of("basic", stacks(
            [target_arrays("int64")[0], target_arrays("uint64")[1]], labels=True)),
         "native", TypeError, "targets are int64 and uint64: "),
        (lambda: constructor_of("basic", stacks(target_arrays("uint8"))),
         "float32", ValueError, "must be 'native', an integer type, bool or None, found 'float32'"),
        (lambda: constructor_of("basic", stacks(target_arrays("uint8"))),
         "labels", TypeError, "must be 'native', an integer type, bool or None, found 'labels'"),
    ],
)  # fmt: skip
def test_errors(make, wanted, kind, message):
    constructor = make()
    with pytest.raises(kind, match=message):
        constructor.construct_batch([0], target_dtype=wanted)
    with pytest.raises(kind, match=message):
        constructor.construct_patch(0, target_dtype=wanted)
    with pytest.raises(kind, match=message):
        BatchLoader(constructor, 2, target_dtype=wanted)


def test_inputs_are_never_integers():
    constructor = constructor_of("basic", None)
    for dtype in ("uint16", np.int64, bool):
        with pytest.raises(ValueError, match="dtype must be float32 or float16"):
            constructor.construct_batch([0], dtype=dtype)


def test_labels_are_no_inputs():
    wide = stacks(target_arrays("int32", 1), labels=True)
    strategy = gpu_patch.RandomPatching(wide.shapes, (12, 12))
    for make in (
        lambda: gpu_patch.BasicPatchConstr(strategy, wide),
        lambda: gpu_patch.PredMsPatchConstr(strategy, wide, 2, "reflect"),
        lambda: gpu_patch.MultiChannelTargetMsPatchConstr(strategy, wide, 2, "reflect", None, 0),
    ):
        with pytest.raises(TypeError, match=r"holds labels of int32.*without labels=True"):
            make()
    with pytest.raises(ValueError, match="must all be labels or none"):
        PatchExtractor([*wide.image_stacks, *stacks([np.zeros(SHAPES[0], np.uint8)]).image_stacks])
    with pytest.raises(TypeError, match="labels must be integers or bool, found float64"):
        ImageStack.from_array(np.zeros((4, 4)), "YX", labels=True)
    with pytest.raises(TypeError, match="labels must be True or False"):
        ImageStack.from_array(np.zeros((4, 4)), "YX", labels="yes")
