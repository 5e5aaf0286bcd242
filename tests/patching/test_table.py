"""Patches from a list, and whole samples."""

import numpy as np
import pytest

from gpu_patch import (
    BasicPatchConstr,
    FixedPatching,
    ImageStack,
    PatchExtractor,
    TiledPatching,
    WholeSamplePatching,
)


@pytest.fixture(autouse=True)
def on_the_host(monkeypatch):
    """What these tests prove is the same everywhere; images stay where NumPy can look at them."""
    monkeypatch.setenv("GPU_PATCH_DEVICE", "cpu")


SPECS = [
    {"data_idx": 1, "sample_idx": 0, "coords": (3, 4), "patch_size": (5, 6)},
    {"data_idx": 0, "sample_idx": 2, "coords": (-2, 7), "patch_size": (5, 6)},
    {"data_idx": 1, "sample_idx": 1, "coords": (0, 0), "patch_size": (5, 6)},
]


def test_fixed_patches_are_those_given():
    strategy = FixedPatching(SPECS)
    assert strategy.n_patches == 3
    for index in (0, 1, 2, -1, -2, -3, np.int64(1)):
        assert strategy.get_patch_spec(index) == SPECS[index]
    assert list(strategy.get_patch_indices(0)) == [1]
    assert list(strategy.get_patch_indices(1)) == list(strategy.get_patch_indices(-1)) == [0, 2]


def test_fixed_patches_are_copies():
    given = [dict(spec, coords=list(spec["coords"])) for spec in SPECS]
    strategy = FixedPatching(given)
    given[0]["coords"][0] = 99
    given[1]["data_idx"] = 99
    strategy.get_patch_spec(2)["data_idx"] = 99
    del given[2]
    assert [strategy.get_patch_spec(i) for i in range(3)] == SPECS


def test_fixed_patches_become_plain_numbers():
    arrays = {"coords": np.array([3, 4]), "patch_size": np.array([5, 6], np.uint8)}
    spec = {**SPECS[0], **arrays, "data_idx": np.int32(1), "sample_idx": np.uint8(0)}
    found = FixedPatching((spec,)).get_patch_spec(0)
    assert found == SPECS[0]
    assert type(found["data_idx"]) is type(found["sample_idx"]) is int
    assert {type(n) for n in (*found["coords"], *found["patch_size"])} == {int}


def test_fixed_patches_keep_further_keys():
    tiled = TiledPatching([(1, 1, 20, 20)], (8, 8), (2, 2))
    tiles = [tiled.get_patch_spec(i) for i in range(tiled.n_patches)]
    strategy = FixedPatching(tiles)
    assert [strategy.get_patch_spec(i) for i in range(strategy.n_patches)] == tiles
    images = PatchExtractor([ImageStack.from_array(np.zeros((20, 20), np.uint8), "YX")])
    constructor = BasicPatchConstr(strategy, images, seed=0)
    assert constructor.construct_patch(2)[2] == tiles[2]
    assert list(constructor.construct_batch([2, 0]).specs) == [tiles[2], tiles[0]]


def test_fixed_patches_of_several_sizes_work_one_size_at_a_time():
    specs = [SPECS[0], {**SPECS[0], "patch_size": (2, 3)}]
    stacks = [ImageStack.from_array(np.ones((3, 20, 20), np.uint8), "SYX") for _ in range(2)]
    constructor = BasicPatchConstr(FixedPatching(specs), PatchExtractor(stacks), seed=0)
    assert constructor.construct_patch(0)[0].shape == (1, 5, 6)
    assert constructor.construct_patch(1)[0].shape == (1, 2, 3)
    assert constructor.construct_batch([1, 1]).input.shape == (2, 1, 2, 3)
    with pytest.raises(ValueError, match=r"patch_size.*\(2, 3\), \(5, 6\)"):
        constructor.construct_batch([0, 1])


WHOLE = [
    ([(2, 3, 7, 5), (1, 3, 9, 4), (3, 3, 7, 5)], (7, 5), [0, 1, 3, 4, 5]),
    ([(1, 1, 4, 7, 5), (2, 1, 2, 9, 4)], (2, 9, 4), [1, 2]),
]


@pytest.mark.parametrize(("shapes", "size", "indices"), WHOLE)
def test_whole_samples(shapes, size, indices):
    strategy = WholeSamplePatching(shapes)
    expected = [
        {
            "data_idx": data_idx,
            "sample_idx": sample_idx,
            "coords": (0,) * len(size),
            "patch_size": shape[2:],
        }
        for data_idx, shape in enumerate(shapes)
        for sample_idx in range(shape[0])
    ]
    assert strategy.n_patches == len(expected)
    assert [strategy.get_patch_spec(i) for i in range(-len(expected), 0)] == expected
    for data_idx in range(len(shapes)):
        found = list(strategy.get_patch_indices(data_idx))
        assert found == [i for i, spec in enumerate(expected) if spec["data_idx"] == data_idx]
    axes = "SCYX" if len(size) == 2 else "SCZYX"
    arrays = [np.arange(np.prod(s), dtype=np.float32).reshape(s) + i for i, s in enumerate(shapes)]
    images = PatchExtractor([ImageStack.from_array(array, axes) for array in arrays])
    batch = BasicPatchConstr(strategy, images, seed=0).construct_batch(indices)
    assert batch.input.shape == (len(indices), shapes[0][1], *size)
    for patch, spec in zip(batch.input, batch.specs, strict=True):
        assert np.array_equal(patch, arrays[spec["data_idx"]][spec["sample_idx"]])


def test_whole_samples_of_several_sizes_make_no_batch():
    images = PatchExtractor(
        [ImageStack.from_array(np.ones(shape, np.uint8), "SYX") for shape in ((2, 7, 5), (1, 9, 4))]
    )
    constructor = BasicPatchConstr(WholeSamplePatching(images.shapes), images, seed=0)
    with pytest.raises(ValueError, match=r"patch_size.*\(7, 5\).*\(9, 4\)"):
        constructor.construct_batch([0, 2])
    assert constructor.construct_patch(2)[0].shape == (1, 9, 4)
