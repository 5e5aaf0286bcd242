"""Specs: plain Python values, any strategy with any constructor, indices and metadata."""

import copy
import json

import numpy as np
import pytest
from builders import KINDS
from samples import (
    PATCH_SIZE,
    SHAPES,
    STRATEGIES,
    assert_batch_is,
    fixed_specs,
    make_extractor,
    make_images,
    make_sample,
)

import gpu_patch

PLAIN = {"data_idx", "sample_idx", "coords", "patch_size"}
TILE = {"crop_coords", "crop_size", "stitch_coords", "total_tiles"}
UNCORRELATED = {"principal_channel", "all_data_idx", "all_sample_idx", "all_coords"}


def assert_plain(value):
    """Nothing but dicts, lists and tuples of Python's own numbers and strings."""
    if type(value) is dict:
        for key, item in value.items():
            assert type(key) is str
            assert_plain(item)
    elif type(value) in (list, tuple):
        for item in value:
            assert_plain(item)
    else:
        assert type(value) in (int, float, str, bool), (value, type(value))


# ---------------------------------------------------------------------------------------------
# Strategies that this package did not write


class Duck:
    """The members of the protocol and nothing else."""

    def __init__(self, shapes, patch_size):
        self._specs = fixed_specs(shapes, patch_size)

    @property
    def n_patches(self):
        return len(self._specs)

    def get_patch_spec(self, index):
        return self._specs[index]

    def get_patch_indices(self, data_idx):
        return [i for i, spec in enumerate(self._specs) if spec["data_idx"] == data_idx]


class NumpyDuck(Duck):
    """NumPy integers, lists and arrays where the package has ints and tuples."""

    def get_patch_spec(self, index):
        spec = self._specs[index]
        return {
            "data_idx": np.int64(spec["data_idx"]),
            "sample_idx": np.uint8(spec["sample_idx"]),
            "coords": [np.int32(x) for x in spec["coords"]],
            "patch_size": np.array(spec["patch_size"]),
        }


class TileDuck(Duck):
    """Tiles with NumPy values in them."""

    def get_patch_spec(self, index):
        return {
            **self._specs[index],
            "crop_coords": np.array([0] * len(self._specs[0]["coords"])),
            "crop_size": [np.int64(3)] * len(self._specs[0]["coords"]),
            "stitch_coords": tuple(np.arange(len(self._specs[0]["coords"]))),
            "total_tiles": np.int64(9),
        }


class Left(gpu_patch.RandomPatching):
    """Somebody's subclass with places of its own."""

    def get_patch_spec(self, index):
        spec = super().get_patch_spec(index)
        return {**spec, "coords": (0,) * len(self.patch_size)}


def fixed_with_extras(shapes, patch_size):
    specs = fixed_specs(shapes, patch_size)
    for i, spec in enumerate(specs):
        spec["name"] = f"cell {i}"
        spec["score"] = 0.5 * i
        spec["box"] = [[np.int64(i), 2], (np.uint16(3), i)]
        spec["nested"] = {"centre": np.arange(3), "flag": np.bool_(True)}
    return gpu_patch.FixedPatching(specs)


OTHERS = {"duck": Duck, "numpy": NumpyDuck, "tiles": TileDuck, "subclass": Left}


@pytest.mark.parametrize("n_dims", [2, 3])
@pytest.mark.parametrize("patching", OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize("kind", KINDS)
def test_strategies_of_others_work(kind, patching, n_dims, device):
    sample = make_sample(kind, n_dims=n_dims, patching=patching, device=device)
    indices = [3, 0, -1, 3]
    batch = sample.constructor.construct_batch(indices, epoch=4)
    assert_batch_is(sample, batch, indices, 4)
    for spec in [*batch.specs, sample.constructor.construct_patch(1)[2]]:
        assert_plain(spec)
        assert spec.keys() >= PLAIN
        assert ("stitch_coords" in spec) == (patching is TileDuck)


@pytest.mark.parametrize("kind", KINDS)
def test_a_subclass_places_its_own_batches(kind):
    sample = make_sample(kind, patching=Left, probability=1.0)
    batch = sample.constructor.construct_batch([0, 1, 2, 3])
    for spec in batch.specs:
        assert spec["coords"] == (0, 0)
        assert set(spec.get("all_coords", [(0, 0)])) == {(0, 0)}


@pytest.mark.parametrize("kind", KINDS)
def test_further_entries_of_fixed_specs_are_kept_as_plain_values(kind):
    constructor = make_sample(kind, patching=fixed_with_extras).constructor
    batch = constructor.construct_batch([2, 0], epoch=1)
    for spec in [*batch.specs, constructor.construct_patch(2)[2]]:
        assert_plain(spec)
        json.dumps(spec)
        assert {"name", "score", "box", "nested"} <= spec.keys()
        i = int(spec["name"].split()[1])
        assert spec["score"] == 0.5 * i
        assert [list(pair) for pair in spec["box"]] == [[i, 2], [3, i]]


@pytest.mark.parametrize("kind", KINDS)
def test_changing_a_spec_changes_nothing_else(kind):
    constructor = make_sample(kind, patching=fixed_with_extras).constructor
    batch = constructor.construct_batch([2, 0, 2])
    before = copy.deepcopy(list(batch.specs))
    for spec in (batch.specs[0], constructor.construct_patch(2)[2]):
        spec["box"].append("changed")
        spec["nested"]["flag"] = "changed"
        spec["data_idx"] = 77
        spec.get("all_coords", []).append("changed")
    assert list(batch.specs) == before
    assert list(constructor.construct_batch([2, 0, 2]).specs) == before


def test_specs_given_are_copied():
    given = fixed_specs([(1, 1, 20, 20)], (3, 4))
    given[0]["box"] = [1, 2]
    strategy = gpu_patch.FixedPatching(given)
    before = copy.deepcopy([strategy.get_patch_spec(i) for i in range(strategy.n_patches)])
    given[0]["box"].append("changed")
    given[0]["coords"] = given[1]["coords"] = (9, 9)
    del given[2:]
    assert [strategy.get_patch_spec(i) for i in range(strategy.n_patches)] == before


def test_a_spec_is_the_same_in_any_batch():
    specs = fixed_specs([(1, 1, 20, 20)], (3, 4))
    specs[1]["note"] = 5
    images = make_extractor(make_images([(1, 20, 20)], 1, ["uint8"], 0))
    constructor = gpu_patch.BasicPatchConstr(gpu_patch.FixedPatching(specs), images, seed=0)
    alone = constructor.construct_batch([1]).specs[0]
    assert constructor.construct_patch(1)[2] == alone
    assert alone["note"] == 5
    for indices in ([0, 1], [1, 0]):
        batch = constructor.construct_batch(indices).specs
        assert batch[indices.index(1)] == alone
        assert batch[indices.index(0)] == specs[0]


@pytest.mark.parametrize("kind", KINDS)
def test_patches_of_a_batch_have_one_size(kind, device):
    def two_sizes(shapes, patch_size):
        smaller = tuple(p - 1 for p in patch_size)
        last = fixed_specs(shapes, smaller)[-1]
        return gpu_patch.FixedPatching([*fixed_specs(shapes, patch_size), last])

    if kind == "independent":  # all its patches have one size
        with pytest.raises(ValueError, match="one patch_size"):
            make_sample(kind, patching=two_sizes, device=device)
        return
    sample = make_sample(kind, patching=two_sizes, ranges=None, probability=0, device=device)
    for indices in ([0, 1], [-1, -1]):
        assert_batch_is(sample, sample.constructor.construct_batch(indices), indices, 0)
    with pytest.raises(ValueError, match="one patch_size"):
        sample.constructor.construct_batch([0, -1])


# ---------------------------------------------------------------------------------------------
# Keys


@pytest.mark.parametrize("probability", [0.0, 1.0])
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("kind", KINDS)
def test_keys_say_what_kind_of_spec_it_is(kind, strategy, probability):
    constructor = make_sample(kind, strategy, probability=probability).constructor
    keys = set(PLAIN)
    if strategy == "tiled":
        keys |= TILE
    if kind == "independent" or (kind == "multichannel" and probability):
        keys |= UNCORRELATED
    batch = constructor.construct_batch([1, 0, 2])
    for spec in [*batch.specs, constructor.construct_patch(1)[2]]:
        assert spec.keys() == keys
        assert_plain(spec)


@pytest.mark.parametrize("kind", KINDS)
def test_tiles_of_every_constructor_are_those_of_the_strategy(kind):
    sample = make_sample(kind, "tiled", probability=1.0)
    constructor = sample.constructor
    strategy = sample.strategies[getattr(constructor, "principal_channel", 0)]
    indices = range(constructor.n_patches)
    for index, spec in zip(indices, constructor.construct_batch(indices).specs, strict=True):
        expected = strategy.get_patch_spec(index)
        assert {key: spec[key] for key in expected} == expected
        assert {"crop_coords", "crop_size", "stitch_coords"} <= spec.keys()


@pytest.mark.parametrize("kind", ["multichannel", "independent"])
def test_one_channel_has_an_uncorrelated_spec_too(kind):
    """As careamics 0.3.5: whatever the number of channels, each has a place of its own."""
    sample = make_sample(kind, channels=(1,), n_structures=1, probability=1.0)
    constructor = sample.constructor
    for spec in (constructor.construct_patch(0)[2], constructor.construct_batch([0]).specs[0]):
        assert spec["principal_channel"] == 0
        assert spec["all_data_idx"] == [spec["data_idx"]]
        assert spec["all_sample_idx"] == [spec["sample_idx"]]
        assert spec["all_coords"] == [spec["coords"]]
        metadata = constructor.get_input_image_metadata(spec)
        assert len(metadata["additional_metadata"]["all_sources"]) == 1
        assert constructor.get_target_image_metadata(spec) == metadata


@pytest.mark.parametrize("kind", KINDS)
def test_specs_are_a_sequence(kind):
    constructor = make_sample(kind).constructor
    specs = constructor.construct_batch([4, 1, 7, 2], epoch=3).specs
    listed = [specs[i] for i in range(4)]
    assert len(specs) == 4
    assert list(specs) == listed
    assert [specs[i] for i in range(-4, 0)] == listed
    assert specs[np.int64(2)] == listed[2]
    for part in (slice(1, 3), slice(None, None, -1), slice(-2, None), slice(3, 99), slice(2, 2)):
        assert specs[part] == listed[part]
    assert list(reversed(specs)) == listed[::-1]
    assert listed[2] in specs
    assert repr(listed) in repr(specs)
    for beyond in (4, -5):
        with pytest.raises(IndexError):
            specs[beyond]
    first = specs[0]
    assert first is not specs[0]  # made when it is looked at


# ---------------------------------------------------------------------------------------------
# Indices and metadata


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("kind", KINDS)
def test_patch_indices_are_those_of_the_principal_places(kind, strategy):
    constructor = make_sample(kind, strategy, probability=0.7).constructor
    everything = range(constructor.n_patches)
    specs = constructor.construct_batch(everything, epoch=2).specs
    found = []
    for data_idx in range(len(constructor.input_shapes)):
        indices = list(constructor.get_patch_indices(data_idx))
        assert_plain(indices)
        assert indices == [i for i, spec in enumerate(specs) if spec["data_idx"] == data_idx]
        assert all(constructor.construct_patch(i)[2]["data_idx"] == data_idx for i in indices[:3])
        found += indices
    assert found == list(everything)


@pytest.mark.parametrize("kind", KINDS)
def test_images_without_patches_have_no_indices(kind):
    def first_image_only(shapes, patch_size):
        return gpu_patch.FixedPatching(fixed_specs(shapes[:1], patch_size))

    constructor = make_sample(kind, patching=first_image_only).constructor
    assert list(constructor.get_patch_indices(0)) == list(range(constructor.n_patches))
    assert list(constructor.get_patch_indices(1)) == []


@pytest.mark.parametrize("kind", KINDS)
def test_metadata_are_those_of_the_images_of_a_spec(kind):
    sample = make_sample(kind, probability=0.5)
    constructor = sample.constructor
    principal = getattr(constructor, "principal_channel", 0)
    for spec in constructor.construct_batch(range(0, 60, 4)).specs:
        for metadata, sources in (
            (constructor.get_input_image_metadata(spec), sample.sources),
            (
                constructor.get_target_image_metadata(spec),
                [(sample.targets, 0)] if sample.targets else sample.sources,
            ),
        ):
            if metadata is None:
                assert kind == "pred"
                continue
            images = [
                source[0][place[0]]
                for source, place in zip(sources, sample.places(spec), strict=False)
            ]
            assert metadata["source"] == "array"
            assert metadata["dtype"] == str(images[principal].dtype)
            assert metadata["data_shape"] == images[principal].shape
            assert metadata["original_data_shape"] == images[principal].shape
            assert metadata["additional_metadata"] == (
                {
                    "all_sources": ["array"] * 3,
                    "all_data_shapes": [image.shape for image in images],
                    "all_original_data_shapes": [image.shape for image in images],
                }
                if "all_coords" in spec
                else {}
            )
            assert_plain(metadata)


@pytest.mark.parametrize("n_dims", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_shapes_are_those_of_the_images(kind, n_dims):
    sample = make_sample(kind, n_dims=n_dims)
    constructor = sample.constructor
    images = sample.sources[getattr(constructor, "principal_channel", 0)][0]
    shapes = [image.shape for image in images]
    assert list(constructor.input_shapes) == shapes
    if kind == "pred":
        assert constructor.target_shapes is None
    else:
        targets = sample.targets or images
        assert list(constructor.target_shapes) == [image.shape for image in targets]
    assert [(shape[0], *shape[2:]) for shape in shapes] in SHAPES[n_dims]
    assert constructor.construct_batch([0]).input.shape[2:] == PATCH_SIZE[n_dims]


def test_the_principal_structure_is_the_first_with_the_most_patches():
    constructor = make_sample("independent").constructor
    counts = [strategy.n_patches for strategy in constructor.patching_strategies]
    assert constructor.principal_channel == counts.index(max(counts)) == 1
    assert constructor.n_patches == max(counts)
    equal = make_sample("independent", "random", n_dims=2, n_structures=1).constructor
    twice = gpu_patch.IndependentTargetsMsPatchConstr(
        equal.patching_strategies * 2, equal.target_extractors * 2, 1, "reflect", None
    )
    assert twice.principal_channel == 0
