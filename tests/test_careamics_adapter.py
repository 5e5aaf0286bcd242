"""What `from_careamics` does with what it is given; tests/parity has careamics itself."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from pixels import distinct
from reference import on_host

from gpu_patch import BasicPatchConstr, FixedPatching, RandomPatching
from gpu_patch.augmentation import Augmentation
from gpu_patch.careamics import from_careamics, images
from gpu_patch.feed.loader import BatchLoader
from gpu_patch.feed.normalization import Normalization


def stand_in(name, *bases, **members):
    """A class that goes by the name of one of careamics'."""
    return type(name, bases, {"__module__": "careamics.dataset.somewhere", **members})


def _set(self, **attributes):
    vars(self).update(attributes)


def _extract_patch(self, data_idx, sample_idx, coords, patch_size):
    self.asked.append((data_idx, sample_idx, tuple(coords), tuple(patch_size)))
    return self.image_stacks[data_idx].pixels[sample_idx].astype(np.float32)


Constructor = stand_in("BasicPatchConstr", __init__=_set, construct_patch=lambda self, index: None)
Dataset = stand_in("CareamicsDataset", __init__=_set, __getitem__=lambda self, index: None)
Extractor = stand_in("PatchExtractor", __init__=_set, extract_patch=_extract_patch)
InMemory = stand_in("InMemoryImageStack", __init__=_set, extract_patch=lambda self: None)
Other = stand_in("OtherImageStack", __init__=_set, extract_patch=lambda self: None)


def _cut(self, sample_idx, channels, coords, patch_size):
    self.asked.append((sample_idx, channels, coords, patch_size))
    y, x = coords
    h, w = patch_size
    return self.pixels[sample_idx, channels, y : y + h, x : x + w].astype(np.float32)


Czi = stand_in("CziImageStack", __init__=_set, extract_patch=_cut)
File = stand_in(
    "FileImageStack",
    __init__=_set,
    extract_patch=_cut,
    load=lambda self: self.asked.append("load"),
    close=lambda self: self.asked.append("close"),
)


def in_memory(seed=0):
    pixels = distinct((2, 3, 20, 30), "uint16", seed)
    return InMemory(
        source="array",
        _data=pixels.astype(np.float32),
        data_shape=pixels.shape,
        data_dtype=pixels.dtype,
        original_data_shape=pixels.shape,
        original_axes="SCYX",
    )


def from_file():
    """A stack that is read, with odd metadata."""
    return Other(
        source="some/file.czi@1",
        pixels=distinct((2, 3, 20, 30), "uint16", 9),
        data_shape=[2, 3, 20, 30],
        data_dtype=np.float32,
        original_data_shape=(2, 1, 3, 20, 30),
        original_axes="VTCYX",
    )


def extractor(*stacks):
    return Extractor(image_stacks=list(stacks), asked=[])


def a_constructor(*stacks, **more):
    places = [
        {"data_idx": i % len(stacks), "sample_idx": 1, "coords": (i, 2 * i), "patch_size": (8, 8)}
        for i in range(6)
    ]
    found = {
        "patching_strategy": FixedPatching(places),
        "input_extractor": extractor(*stacks),
        "target_extractor": None,
        "channels": None,
    }
    return Constructor(**found | more)


XY_FLIP = {"name": "XYFlip", "flip_x": True, "flip_y": True, "p": 0.5}
TURN = {"name": "XYRandomRotate90", "p": 0.25}


def a_dataset(mode="training", augmentations=(XY_FLIP, TURN), **parameters):
    config = SimpleNamespace(
        mode=mode,
        batch_size=4,
        seed=17,
        normalization=SimpleNamespace(
            name="mean_std",
            skip_target=False,
            input_means=[100.0],
            input_stds=[20.0],
            target_means=None,
            target_stds=None,
        ),
        augmentations=[SimpleNamespace(**transform) for transform in augmentations],
        train_dataloader_params={"shuffle": True, **parameters},
        val_dataloader_params={},
        pred_dataloader_params={"drop_last": True},
    )
    return Dataset(config=config, patch_constructor=a_constructor(in_memory()))


# ---------------------------------------------------------------------------------------------
# Images


def test_images_are_where_they_are_wanted(device):
    theirs = a_constructor(in_memory(), in_memory(1))
    ours = from_careamics(theirs, device)
    assert ours.input_extractor.device == ("cpu" if device == "cpu" else "cuda:0")
    for stack, upstream in zip(
        ours.input_extractor.image_stacks, theirs.input_extractor.image_stacks, strict=True
    ):
        assert stack.device == ours.input_extractor.device
        assert stack.data.dtype == np.uint16
        np.testing.assert_array_equal(on_host(stack.data), upstream._data)
    assert theirs.input_extractor.asked == []
    patch = on_host(ours.construct_patch(2)[0])
    np.testing.assert_array_equal(
        patch, theirs.input_extractor.image_stacks[0]._data[1, :, 2:10, 4:12]
    )


def test_what_is_not_in_memory_is_read_sample_by_sample():
    theirs = a_constructor(in_memory(), from_file())
    ours = from_careamics(theirs, "cpu")
    whole = [(1, sample, (0, 0), (20, 30)) for sample in range(2)]
    assert theirs.input_extractor.asked == whole
    read = ours.input_extractor.image_stacks[1]
    np.testing.assert_array_equal(read.data, theirs.input_extractor.image_stacks[1].pixels)
    assert ours.get_input_image_metadata({"data_idx": 1}) == {
        "source": "some/file.czi@1",
        "dtype": "<class 'numpy.float32'>",
        "data_shape": (2, 3, 20, 30),
        "original_data_shape": (2, 1, 3, 20, 30),
        "additional_metadata": {},
    }
    assert read.original_axes == "VTCYX"


def in_a_file(kind, **more):
    return kind(
        source="some/file",
        pixels=distinct((2, 3, 700, 1300), "uint16", 9),
        asked=[],
        data_shape=[2, 3, 700, 1300],
        data_dtype=np.float32,
        original_data_shape=(2, 3, 700, 1300),
        original_axes="SCYX",
        **more,
    )


@pytest.mark.parametrize(
    ("kind", "dtype"), [("Gray8", "uint8"), ("Gray16", "uint16"), ("Gray32Float", "float32")]
)
def test_czi_stacks_are_read_by_chunk(kind, dtype):
    stack = in_a_file(Czi, _czi=SimpleNamespace(pixel_types={0: kind, 1: kind}))
    stack.pixels = stack.pixels.astype(dtype)
    theirs = a_constructor(stack)
    images = from_careamics(theirs, "cpu", memory_budget=10**8).input_extractor
    data = images.image_stacks[0].data
    assert (data.dtype, data.chunk_shape) == (dtype, (1, 1, 700, 1024))
    assert images.image_stacks[0].metadata["data_shape"] == (2, 3, 700, 1300)
    assert stack.asked == theirs.input_extractor.asked == []
    found = images.extract_patch(0, 1, (690, 1000), (10, 50))
    np.testing.assert_array_equal(found, stack.pixels[1, :, 690:, 1000:1050])
    assert len(stack.asked) == 6  # two chunks of each channel, and nothing of the other sample


def test_files_that_are_loaded_as_a_whole_are_let_go():
    stack = in_a_file(File, read_func=lambda path: None)
    images = from_careamics(a_constructor(stack), "cpu", memory_budget=10**8).input_extractor
    for sample in (1, 0):
        found = images.extract_patch(0, sample, (3, 5), (60, 70))
        np.testing.assert_array_equal(found, stack.pixels[sample, :, 3:63, 5:75])
    assert (stack.asked[0], stack.asked[-1]) == ("load", "close")
    assert stack.asked.count("load") == stack.asked.count("close") == 1


def test_a_file_that_does_not_fit_is_refused():
    theirs = a_constructor(in_a_file(File, read_func=lambda path: None))
    with pytest.raises(MemoryError, match="raise memory_budget"):
        from_careamics(theirs, "cpu", memory_budget=10**6)


@pytest.mark.parametrize("kind", [Czi, File])
def test_stacks_in_files_may_be_read_in_full(kind):
    stack = in_a_file(kind)
    images = from_careamics(a_constructor(stack), "cpu", by_chunk=False).input_extractor
    np.testing.assert_array_equal(images.image_stacks[0].data, stack.pixels)


def test_some_stacks_in_files_beside_others_are_read_in_full():
    czi = in_a_file(Czi, _czi=None)
    images = from_careamics(a_constructor(in_memory(), czi), "cpu").input_extractor
    np.testing.assert_array_equal(images.image_stacks[1].data, czi.pixels)


def test_metadata_of_chunks_are_kept_and_cannot_be_changed():
    theirs = a_constructor(in_memory(), in_memory())
    theirs.input_extractor.image_stacks[1].chunks = (1, 1, 8, 8)
    theirs.input_extractor.image_stacks[1].shards = None
    ours = from_careamics(theirs, "cpu")
    additional = [
        ours.get_input_image_metadata({"data_idx": i})["additional_metadata"] for i in (0, 1)
    ]
    assert additional == [{}, {"chunks": (1, 1, 8, 8)}]
    additional[1].clear()
    assert ours.input_extractor.image_stacks[1].metadata["additional_metadata"]


def test_progress_is_shown_where_tqdm_is_installed(monkeypatch):
    steps = []

    class Bar:
        def __init__(self, **options):
            steps.append((options["total"], options["desc"]))

        def __enter__(self):
            return self

        def __exit__(self, *error):
            steps.append("closed")

        def update(self, n):
            steps.extend(["sample"] * n)

    monkeypatch.setitem(sys.modules, "tqdm.auto", SimpleNamespace(tqdm=Bar))
    from_careamics(a_constructor(in_memory(), from_file()), "cpu")
    assert steps == [(2, "reading images"), "sample", "sample", "closed"]
    from_careamics(a_constructor(in_memory()), "cpu")
    assert len(steps) == 4
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    from_careamics(a_constructor(from_file()), "cpu")


def test_images_are_shared_for_as_long_as_they_are_used():
    theirs = a_constructor(in_memory())
    ours = from_careamics(theirs, "cpu")
    assert from_careamics(theirs, "cpu").input_extractor is ours.input_extractor
    known = images._extractors[theirs.input_extractor]
    assert len(known) == 1
    del ours
    assert not known


# ---------------------------------------------------------------------------------------------
# Strategies


def test_generators_are_copied():
    theirs = RandomPatching([(2, 3, 20, 30)], (8, 8), seed=2)
    theirs.get_patch_spec(0)
    constructor = a_constructor(in_memory(), patching_strategy=theirs)
    first, second = (from_careamics(constructor, "cpu") for _ in range(2))
    expected = [first.construct_patch(i)[2] for i in range(4)]
    assert [second.construct_patch(i)[2] for i in range(4)] == expected
    assert [theirs.get_patch_spec(i) for i in range(4)] == expected


def test_what_is_no_strategy():
    with pytest.raises(TypeError, match="patching_strategy must be a patching strategy"):
        from_careamics(a_constructor(in_memory(), patching_strategy=3), "cpu")


# ---------------------------------------------------------------------------------------------
# Datasets


def test_a_dataset():
    feed = from_careamics(a_dataset(), "cpu")
    assert type(feed.constructor) is BasicPatchConstr
    assert feed.constructor.seed == feed.seed == 17
    assert (feed.batch_size, feed.shuffle, feed.drop_last) == (4, True, False)
    assert feed.normalization == Normalization.mean_std(100, 20)
    assert feed.augmentation == Augmentation(True, True, 0.5, 0.25)
    assert from_careamics(a_dataset(), "cpu", seed=0).seed == 0


def test_a_dataset_as_arguments_of_a_loader():
    loader = BatchLoader(**from_careamics(a_dataset(), "cpu")._asdict())
    batches = list(loader)
    assert [len(batch.input) for batch in batches] == [4, 2]
    spec = batches[1].specs[1]
    y, x = spec["coords"]
    pixels = loader.constructor.input_extractor.image_stacks[0].data
    plain = (pixels[1, :, y : y + 8, x : x + 8] - np.float32(100)) / 20
    # flips and turns move values, and keep what they are
    np.testing.assert_allclose(
        np.sort(batches[1].input[1], axis=None), np.sort(plain, axis=None), atol=1e-3
    )


@pytest.mark.parametrize(
    ("mode", "shuffle", "drop_last"), [("validating", False, False), ("predicting", False, True)]
)
def test_a_dataset_that_is_not_for_training(mode, shuffle, drop_last):
    feed = from_careamics(a_dataset(mode), "cpu")
    assert (feed.shuffle, feed.drop_last, feed.augmentation) == (shuffle, drop_last, None)


@pytest.mark.parametrize(
    ("augmentations", "expected"),
    [
        ([], None),
        ([XY_FLIP | {"flip_x": False}], Augmentation("y", False, 0.5, 0)),
        ([XY_FLIP | {"flip_y": False, "p": 0.1}], Augmentation("x", False, 0.1, 0)),
        ([TURN], Augmentation(False, True, 0, 0.25)),
        ([TURN, XY_FLIP], Augmentation(True, True, 0.5, 0.25)),
    ],
)
def test_augmentations(augmentations, expected):
    assert from_careamics(a_dataset(augmentations=augmentations), "cpu").augmentation == expected


@pytest.mark.parametrize("augmentations", [[TURN, TURN], [XY_FLIP, {"name": "Noise"}]])
def test_augmentations_that_there_are_not(augmentations):
    with pytest.raises(ValueError, match=r"config\.augmentations must have XYFlip"):
        from_careamics(a_dataset(augmentations=augmentations), "cpu")


# ---------------------------------------------------------------------------------------------
# What cannot be taken


@pytest.mark.parametrize("obj", [None, 3, [], BasicPatchConstr, SimpleNamespace(), in_memory()])
def test_what_is_none_of_careamics(obj):
    with pytest.raises(TypeError, match=r"obj must be a CareamicsDataset of careamics.*found"):
        from_careamics(obj, "cpu")


def test_the_name_alone_is_not_enough():
    mine = type("BasicPatchConstr", (), {})()
    with pytest.raises(TypeError, match=r"found .*test_careamics_adapter"):
        from_careamics(mine, "cpu")


def test_a_dataset_with_another_constructor():
    dataset = a_dataset()
    dataset.patch_constructor = SimpleNamespace()
    with pytest.raises(TypeError, match=r"obj\.patch_constructor must be .*SimpleNamespace"):
        from_careamics(dataset, "cpu")


def test_subclasses_that_replace_members():
    class Loud(Constructor):
        def construct_patch(self, index):
            raise AssertionError

    class Renamed(Constructor):
        def other(self):
            raise AssertionError

    theirs = a_constructor(in_memory())
    assert from_careamics(Renamed(**vars(theirs)), "cpu").n_patches == 6
    with pytest.raises(TypeError, match="Loud has its own construct_patch, which would be lost"):
        from_careamics(Loud(**vars(theirs)), "cpu")


def test_an_extractor_of_another_kind():
    theirs = a_constructor(in_memory(), input_extractor=SimpleNamespace(image_stacks=[]))
    with pytest.raises(TypeError, match=r"input_extractor must be careamics' PatchExtractor"):
        from_careamics(theirs, "cpu")


def test_a_stack_that_lacks_members():
    stack = from_file()
    del stack.original_axes, stack.data_dtype
    with pytest.raises(
        TypeError, match=r"input_extractor\.image_stacks\[1\].*lacks data_dtype, original_axes"
    ):
        from_careamics(a_constructor(in_memory(), stack), "cpu")


def test_a_device_that_there_is_not_is_noticed_before_anything_is_read():
    theirs = a_constructor(from_file())
    with pytest.raises(ValueError, match="device must be 'cpu', 'cuda' or 'cuda:N'"):
        from_careamics(theirs, "tpu")
    assert theirs.input_extractor.asked == []


IMPORTED = """
import sys
import gpu_patch.careamics
print(sorted({"careamics", "torch", "tqdm", "cupy"} & set(sys.modules)))
"""


def test_importing_it_imports_nothing_else():
    command = [sys.executable, "-c", IMPORTED]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "[]\n"
