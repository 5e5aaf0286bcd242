"""`from_careamics` with careamics 0.3.5 itself: what it makes gives equal items."""

import copy
import pickle
import warnings

import numpy as np
import pytest
from builders import KINDS, assert_close, make_constructor, plain
from pixels import distinct

pytest.importorskip("careamics", reason="what is converted comes from careamics 0.3.5")

import torch
import zarr
from builders import UPSTREAM
from careamics.config.data.data_config import DataConfig
from careamics.dataset import factory, image_stack, patching
from careamics.dataset.patch_constructor import BasicPatchConstr
from careamics.dataset.patch_extractor import PatchExtractor
from careamics.lightning.data.grouped_index_sampler import GroupedIndexSampler
from test_readme import ROOT, blocks
from tifffile import imwrite
from torch.utils.data import DataLoader, default_collate
from upstream_datasets import DATA_TYPES, MODES, assert_same, converted, make_dataset, settings

import gpu_patch
from gpu_patch.careamics import Feed, from_careamics
from gpu_patch.chunks import ChunkedImage
from gpu_patch.feed.loader import BatchLoader

STRATEGIES = ("random", "fixed_random", "sequential", "tiled", "whole", "fixed", "stratified")


# ---------------------------------------------------------------------------------------------
# Constructors


def a_constructor(kind, strategy, dtype="uint16", n_dims=2):
    """One of careamics, with two stacks of images."""
    size = (30, 26) if n_dims == 2 else (6, 16, 14)
    shapes = [(2, *size), (1, *size)] if strategy == "whole" else [(2, *size), (1, *size[:-1], 19)]

    def images(n_channels, seed):
        return [distinct((s[0], n_channels, *s[1:]), dtype, seed + i) for i, s in enumerate(shapes)]

    found = {"input": images({"basic": 3, "multichannel": 3}.get(kind, 1), 0)}
    if kind == "independent":
        found = {"sources": [images(1, seed) for seed in (0, 5, 9)]}
    if kind in ("basic", "paired"):
        found["target"] = images(2, 3)
    patch_size = (8, 9) if n_dims == 2 else (3, 8, 5)
    data_idx = [0, 0, 0, 0, 1, 1]
    case = {
        "kind": kind,
        "strategy": "random" if strategy == "stratified" else strategy,
        "patch_size": patch_size,
        "overlaps": [2] * n_dims,
        "sequential_overlaps": [1] * n_dims,
        "fixed_patch_specs": [
            {
                "data_idx": i,
                "sample_idx": 0,
                "coords": (2 * n - 3,) * n_dims,
                "patch_size": patch_size,
            }
            for n, i in enumerate(data_idx)
        ],
        "multiscale_count": 3,
        "padding_mode": "reflect",
        "channels": [2, 0] if kind in ("basic", "multichannel") else None,
        "alpha_ranges": [(0.2, 0.9)] * 3,
        "uncorrelated_channel_prob": 0.5,
        "strategy_seed": 7,
        "rng_seed": 11,
    }
    constructor = make_constructor(UPSTREAM, case, found)
    if strategy == "stratified":
        stratify(constructor, patch_size)
    return constructor


def stratify(constructor, patch_size):
    """Give a constructor stratified strategies with excluded and improbable cells."""
    several = hasattr(constructor, "patching_strategies")
    extractors = constructor.target_extractors if several else [None]
    made = []
    for extractor in extractors:
        shapes = constructor.input_shapes if extractor is None else extractor.shapes
        strategy = patching.StratifiedPatching(shapes, patch_size, seed=3)
        strategy.exclude_patches(0, 0, [(0,) * len(patch_size)])
        strategy.set_region_probs(0, 1, {(0, 1, 0)[: len(patch_size)]: 0.1})
        made.append(strategy)
    if several:
        constructor.patching_strategies = made
    else:
        constructor.patching_strategy = made[0]


def items(constructor, indices):
    """Patches, with all that may be asked about them."""
    found = []
    for index in indices:
        patch, target, spec = constructor.construct_patch(index)
        principal = constructor.get_principal_input(patch)
        metadata = [
            constructor.get_input_image_metadata(spec),
            constructor.get_target_image_metadata(spec),
        ]
        found.append((patch, target, principal, copy.deepcopy([spec, metadata])))
    return found


def assert_same_items(found, expected):
    assert len(found) == len(expected) > 0
    for ours, theirs in zip(found, expected, strict=True):
        for array, upstream in zip(ours[:3], theirs[:3], strict=True):
            assert (array is None) == (upstream is None)
            if array is not None:
                assert_close(array, upstream)
        assert plain(with_their_keys(ours[3], theirs[3])) == plain(theirs[3])


def with_their_keys(found, expected):
    """A spec, with metadata of its images, without the places of channels where upstream has none.

    Of mode I where channels may come from different places: all of our specs tell them then.
    """
    spec, images = found
    if "all_coords" in expected[0] or "all_coords" not in spec:
        return found
    n = len(spec["all_coords"])
    assert spec.pop("principal_channel") == 0
    for key in ("data_idx", "sample_idx", "coords"):
        assert spec.pop(f"all_{key}") == [spec[key]] * n
    for image in filter(None, images):
        more = image["additional_metadata"]
        assert more.pop("all_sources") == [image["source"]] * n
        for key in ("data_shape", "original_data_shape"):
            # careamics gives the number of chosen channels for the image's
            for shape in (shapes := more.pop(f"all_{key}s")):
                assert (*shape[:1], *shape[2:]) == (*image[key][:1], *image[key][2:])
            assert len(shapes) == n
    return found


def some(constructor, n=5):
    return np.random.default_rng(0).integers(0, constructor.n_patches, n).tolist()


def training_takes(kind, strategy):
    # tiles' specs are a TypeError in careamics' own training constructors
    return kind in ("basic", "pred") or strategy != "tiled"


@pytest.mark.parametrize("n_dims", [2, 3])
@pytest.mark.parametrize(
    ("kind", "strategy"),
    [(k, s) for k in KINDS for s in STRATEGIES if training_takes(k, s)],
)
def test_draws_go_on_where_upstreams_would(kind, strategy, n_dims):
    theirs = a_constructor(kind, strategy, n_dims=n_dims)
    items(theirs, some(theirs, 3))
    ours = from_careamics(theirs, "cpu")
    assert isinstance(ours, getattr(gpu_patch, type(theirs).__name__))
    assert type(ours).__module__.startswith("gpu_patch.")
    assert ours.n_patches == theirs.n_patches
    assert plain(ours.input_shapes) == plain(theirs.input_shapes)
    assert plain(ours.target_shapes) == plain(theirs.target_shapes)
    # all of ours before any of theirs: neither may advance the other
    found = items(ours, some(theirs))
    again = from_careamics(theirs, "cpu")
    expected = items(theirs, some(theirs))
    assert_same_items(found, expected)
    assert_same_items(items(again, some(theirs)), expected)
    assert_same_items(items(ours, range(2)), items(theirs, range(2)))


@pytest.mark.parametrize("kind", KINDS)
def test_batches_can_be_made_of_what_was_converted(kind):
    theirs = a_constructor(kind, "random")
    batches = [
        from_careamics(theirs, "cpu", seed=seed).construct_batch([3, 1]) for seed in (1, 1, 2)
    ]
    for found, equal in ((batches[1], True), (batches[2], False)):
        assert np.array_equal(found.input, batches[0].input) == equal
    state = theirs.construct_patch(0)[2]
    assert plain(from_careamics(a_constructor(kind, "random"), "cpu").construct_patch(0)[2]) == (
        plain(state)
    )


def test_generators_that_are_shared_stay_shared():
    def make():
        theirs = a_constructor("multichannel", "random")
        shapes = theirs.input_shapes
        theirs.patching_strategy = patching.RandomPatching(shapes, (8, 9), seed=theirs.rng)
        assert theirs.patching_strategy.rng is theirs.rng
        return theirs

    ours = from_careamics(make(), "cpu")
    assert ours.rng is ours.patching_strategy.rng
    assert_same_items(items(ours, range(5)), items(make(), range(5)))


def test_a_strategy_that_is_shared_stays_shared():
    def make():
        theirs = a_constructor("independent", "random")
        theirs.patching_strategies = [theirs.patching_strategies[0]] * 3
        return theirs

    assert_same_items(items(from_careamics(make(), "cpu"), range(5)), items(make(), range(5)))


@pytest.mark.parametrize("strategy", ["random", "stratified"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_was_converted_can_be_pickled(kind, strategy):
    theirs = a_constructor(kind, strategy)
    ours = pickle.loads(pickle.dumps(from_careamics(theirs, "cpu")))
    assert_same_items(items(ours, some(theirs)), items(theirs, some(theirs)))


def test_an_empty_list_of_patches():
    theirs = a_constructor("basic", "fixed")
    theirs.patching_strategy.fixed_patch_specs = []
    assert from_careamics(theirs, "cpu").n_patches == 0


def test_strategies_of_users_are_copied():
    class Shifted(patching.RandomPatching):
        def get_patch_spec(self, index):
            spec = super().get_patch_spec(index)
            return {**spec, "coords": tuple(c // 2 for c in spec["coords"])}

    theirs = a_constructor("basic", "random")
    theirs.patching_strategy = Shifted(theirs.input_shapes, (8, 9), seed=1)
    ours = from_careamics(theirs, "cpu")
    assert type(ours.patching_strategy) is Shifted
    assert_same_items(items(ours, some(theirs)), items(theirs, some(theirs)))


def test_subclasses_that_replace_nothing():
    class Mine(BasicPatchConstr):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.note = "mine"

        def describe(self):
            return self.note

    theirs = a_constructor("basic", "random")
    mine = Mine(theirs.patching_strategy, theirs.input_extractor, theirs.target_extractor)
    ours = from_careamics(mine, "cpu")
    assert type(ours) is gpu_patch.BasicPatchConstr
    assert_same_items(items(ours, range(3)), items(mine, range(3)))


def test_subclasses_that_replace_something():
    class Doubled(BasicPatchConstr):
        def construct_patch(self, index):
            patch, target, spec = super().construct_patch(index)
            return 2 * patch, target, spec

    theirs = a_constructor("basic", "random")
    doubled = Doubled(theirs.patching_strategy, theirs.input_extractor)
    with pytest.raises(TypeError, match="Doubled has its own construct_patch"):
        from_careamics(doubled, "cpu")


# ---------------------------------------------------------------------------------------------
# Images


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int16", "uint16", "float16", "float32"])
def test_images_have_their_own_type(dtype):
    theirs = a_constructor("basic", "random", dtype)
    for mine, stack in zip(
        from_careamics(theirs, "cpu").input_extractor.image_stacks,
        theirs.input_extractor.image_stacks,
        strict=True,
    ):
        assert mine.data.dtype == dtype
        assert np.shares_memory(mine.data, stack._data) == (dtype == "float32")
        np.testing.assert_array_equal(mine.data, stack._data)


@pytest.mark.parametrize("dtype", ["int32", "uint32", "int64", "float64"])
def test_images_of_other_types_stay_float32(dtype):
    theirs = a_constructor("basic", "random", dtype)
    ours = from_careamics(theirs, "cpu")
    assert ours.input_extractor.image_stacks[0].data.dtype == np.float32
    assert_same_items(items(ours, range(3)), items(theirs, range(3)))


def test_images_that_no_longer_fit_their_type_stay_as_they_are():
    theirs = a_constructor("basic", "random", "uint8")
    theirs.input_extractor.image_stacks[0]._data[0, 0, 0, :3] = [0.5, np.nan, 300]
    ours = from_careamics(theirs, "cpu")
    found = [stack.data.dtype.name for stack in ours.input_extractor.image_stacks]
    assert found == ["float32", "uint8"]


def test_not_a_number_keeps_its_place():
    theirs = a_constructor("basic", "random", "float16")
    theirs.input_extractor.image_stacks[0]._data[0, 0, 0, 1] = np.nan
    stack = from_careamics(theirs, "cpu").input_extractor.image_stacks[0]
    assert stack.data.dtype == np.float16
    assert np.isnan(stack.data[0, 0, 0, 1])


def test_one_extractor_is_placed_once():
    theirs = a_constructor("basic", "random")
    training, validation = from_careamics(theirs, "cpu"), from_careamics(theirs, "cpu")
    assert validation.input_extractor is training.input_extractor
    assert validation.target_extractor is not training.input_extractor


def test_extractors_of_users_are_asked():
    class Inverted(PatchExtractor):
        def extract_channel_patch(self, *arguments, **named):
            return 255 - super().extract_channel_patch(*arguments, **named)

    theirs = a_constructor("basic", "sequential", "uint8")
    theirs.input_extractor = Inverted(theirs.input_extractor.image_stacks)
    ours = from_careamics(theirs, "cpu")
    assert_same_items(items(ours, some(theirs)), items(theirs, some(theirs)))


def test_image_stacks_of_users_are_asked():
    class Inverted(image_stack.InMemoryImageStack):
        def extract_patch(self, *arguments, **named):
            return 255 - super().extract_patch(*arguments, **named)

    theirs = a_constructor("basic", "sequential", "uint8")
    arrays = [stack._data for stack in theirs.input_extractor.image_stacks]
    theirs.input_extractor = PatchExtractor([Inverted.from_array(a, "SCYX") for a in arrays])
    ours = from_careamics(theirs, "cpu")
    assert_same_items(items(ours, some(theirs)), items(theirs, some(theirs)))


@pytest.mark.parametrize("data_type", ["zarr", "tiff, one open"])
def test_what_careamics_leaves_in_files_stays_there(data_type, tmp_path):
    array = distinct((4, 2, 600, 500), "uint16")
    found = settings("n2v", data_type, patching={"name": "random", "patch_size": [16, 16]})
    if data_type == "zarr":
        group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w")
        group.create_array("image", data=array, chunks=(1, 1, 64, 64))
        source = tmp_path / "a.zarr"
    else:
        source = tmp_path / "a.tiff"
        imwrite(source, array, photometric="minisblack", tile=(64, 64))
    theirs, expected = (factory.create_dataset(DataConfig(**found), [source], None) for _ in "ab")
    budget = array.nbytes // 3
    ours = from_careamics(theirs.patch_constructor, "cpu", memory_budget=budget)
    (stack,) = ours.input_extractor.image_stacks
    assert isinstance(stack.data, ChunkedImage)
    assert (stack.data.dtype, stack.nbytes) == ("uint16", 0)
    theirs.patch_constructor = ours
    for index in range(0, len(theirs), 7):
        assert_same(theirs[index], expected[index])
    assert 0 < stack.nbytes <= budget


def test_chunks_that_were_never_written_are_the_fill_value(tmp_path):
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w")
    made = group.create_array(
        "image", shape=(1, 1, 128, 128), chunks=(1, 1, 64, 64), dtype="uint16", fill_value=7
    )
    made[0, 0, :64] = 3
    stack = image_stack.ZarrImageStack(group, "image", "SCYX")
    strategy = patching.SequentialPatching([stack.data_shape], (32, 32))
    theirs = BasicPatchConstr(strategy, PatchExtractor([stack]))
    ours = from_careamics(theirs, "cpu")
    assert_same_items(items(ours, range(16)), items(theirs, range(16)))


# ---------------------------------------------------------------------------------------------
# Datasets


@pytest.mark.parametrize("data_type", DATA_TYPES)
@pytest.mark.parametrize("mode", MODES)
def test_items_of_datasets_are_equal(mode, data_type, tmp_path):
    theirs = make_dataset(mode, data_type, tmp_path)
    ours = converted(make_dataset(mode, data_type, tmp_path))
    assert type(ours.patch_constructor).__module__.startswith("gpu_patch.")
    assert len(ours) == len(theirs)
    for index in (*range(len(theirs)), 3, 1, 2):
        assert_same(ours[index], theirs[index])
    with pytest.raises(IndexError):
        ours[len(ours)]


def test_the_guide_with_a_dataset(tmp_path):
    names = {}
    guide = blocks(ROOT / "docs/guide/from-careamics.md")
    (block,) = (block for block in guide if "def with_whole_batches" in block.code)
    exec(block.code, names)
    theirs, ours = (make_dataset("multichannel", "array", tmp_path) for _ in range(2))
    names["with_its_own_loader"](ours)
    assert type(ours.patch_constructor) is gpu_patch.MultiChannelTargetMsPatchConstr
    for index in range(len(theirs)):
        assert_same(ours[index], theirs[index])
    loader = names["with_whole_batches"](theirs)
    assert sum(len(batch.input) for batch in loader) == len(theirs)


@pytest.mark.parametrize("probability", [0.5, 1.0])
@pytest.mark.parametrize("data_type", ["array", "tiff, one open"])
def test_items_with_uncorrelated_channels_are_equal(data_type, probability, tmp_path):
    more = {"uncorrelated_channel_prob": probability, "channels": [2, 0]}
    theirs = make_dataset("multichannel", data_type, tmp_path, **more)
    ours = converted(make_dataset("multichannel", data_type, tmp_path, **more))
    for index in range(len(theirs)):
        found, expected = ours[index], theirs[index]
        found = [part._replace(region_spec={**part.region_spec}) for part in found]
        for region, upstream in zip(found, expected, strict=True):
            with_their_keys(*([r.region_spec, [r._asdict()]] for r in (region, upstream)))
        assert_same(found, expected)


def test_items_that_do_not_collate_upstream(tmp_path):
    """Correlated and uncorrelated patches in one batch."""
    more = {"uncorrelated_channel_prob": 0.5, "channels": [2, 0]}
    theirs = make_dataset("multichannel", "array", tmp_path, **more)
    with pytest.raises(KeyError, match="principal_channel"):
        list(DataLoader(theirs, batch_size=4, collate_fn=default_collate))
    theirs = make_dataset("multichannel", "array", tmp_path, **more)
    ours = converted(make_dataset("multichannel", "array", tmp_path, **more))
    batches = list(DataLoader(ours, batch_size=4, collate_fn=default_collate))
    expected = [theirs[i] for i in range(len(theirs))]
    for part in (0, 1):
        found = torch.cat([batch[part].data for batch in batches])
        assert_same(found, np.stack([item[part].data for item in expected]))
    specs = batches[0][0].region_spec
    assert [len(axis) for channel in specs["all_coords"] for axis in channel] == [4] * 4
    # those of whole batches too
    (loader,) = [BatchLoader(**from_careamics(theirs, "cpu")._asdict())]
    keys = {frozenset(spec) for batch in loader for spec in batch.specs}
    assert keys == {frozenset(specs)}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["mean_std", "min_max", "quantile"])
def test_items_are_normalised_as_before(name, mode, tmp_path):
    more = {"normalization": {"name": name, "per_channel": False}}
    theirs = make_dataset(mode, "array", tmp_path, **more)
    ours = converted(make_dataset(mode, "array", tmp_path, **more))
    for index in range(6):
        assert_same(ours[index], theirs[index])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("data_type", ["array", "zarr"])
@pytest.mark.parametrize("mode", MODES)
def test_batches_of_upstreams_loader_are_equal(mode, data_type, workers, tmp_path):
    def batches(dataset):
        return DataLoader(
            dataset,
            batch_size=dataset.config.batch_size,
            shuffle=True,
            generator=torch.Generator().manual_seed(1),
            collate_fn=default_collate,
            num_workers=workers,
        )

    theirs = make_dataset(mode, data_type, tmp_path)
    ours = converted(make_dataset(mode, data_type, tmp_path))
    for _ in range(2):
        found, expected = list(batches(ours)), list(batches(theirs))
        assert len(expected) > 1
        assert_same(found, expected)


@pytest.mark.parametrize("mode", ["multichannel", "paired", "n2v", "tiles"])
def test_upstreams_sampler_groups_the_same_patches(mode, tmp_path):
    theirs = make_dataset(mode, "tiff, one open", tmp_path)
    ours = converted(make_dataset(mode, "tiff, one open", tmp_path))
    groups = [GroupedIndexSampler.from_dataset(d, np.random.default_rng(0)) for d in (ours, theirs)]
    found, expected = map(list, groups)
    assert found == expected
    assert len(expected) == len(theirs)


def test_an_extractor_that_was_read_still_works(tmp_path):
    theirs = make_dataset("n2v", "tiff, one open", tmp_path)
    theirs[len(theirs) - 1]
    from_careamics(theirs.patch_constructor, "cpu")
    fresh = make_dataset("n2v", "tiff, one open", tmp_path)
    fresh[len(fresh) - 1]
    for index in (0, len(theirs) - 1, 0):
        assert_same(theirs[index], fresh[index])


def test_axes_in_another_order(tmp_path):
    array = distinct((24, 40, 2, 3), "uint16")  # YXCT

    def make():
        config = DataConfig(**settings("n2v", "array", axes="YXCT"))
        return factory.create_dataset(config, [array], None)

    theirs, ours = make(), converted(make())
    for index in range(len(theirs)):
        assert_same(ours[index], theirs[index])
    assert ours.patch_constructor.input_extractor.image_stacks[0].original_axes == "YXCT"


def test_a_split_shares_images():
    config = DataConfig(
        **settings("n2v", "array", patching={"name": "stratified", "patch_size": [8, 8]})
    )
    data = factory.TrainValSplitData([distinct((2, 1, 64, 80), "uint8")], n_val_patches=5)
    training, validation = factory.create_val_split_datasets(
        config, data, None, np.random.default_rng(0)
    )
    ours = [from_careamics(d, "cpu").constructor for d in (training, validation)]
    assert ours[0].input_extractor is ours[1].input_extractor
    for mine, theirs in zip(ours, (training, validation), strict=True):
        indices = range(min(20, len(theirs)))
        assert_same_items(items(mine, indices), items(theirs.patch_constructor, indices))


# ---------------------------------------------------------------------------------------------
# What a dataset becomes


@pytest.mark.parametrize("mode", MODES)
def test_a_dataset_becomes_the_arguments_of_a_loader(mode, tmp_path):
    dataset = make_dataset(mode, "array", tmp_path, normalization={"name": "mean_std"})
    feed = from_careamics(dataset, "cpu")
    assert isinstance(feed, Feed)
    assert (feed.batch_size, feed.seed, feed.drop_last) == (4, 42, False)
    assert feed.constructor.seed == 42
    training = dataset.config.mode == "training"
    assert feed.shuffle == training
    assert (feed.augmentation is not None) == training
    patch, target, _ = dataset.patch_constructor.construct_patch(2)
    expected = dataset.normalization(patch, target)
    scale, offset = feed.normalization.input_scale, feed.normalization.input_offset
    axes = (slice(None), *[None] * (patch.ndim - 1))
    np.testing.assert_allclose(patch * scale[axes] + offset[axes], expected[0], atol=1e-5)


@pytest.mark.parametrize("name", ["none", "mean_std", "min_max", "quantile"])
@pytest.mark.parametrize("mode", ["pred", "tiles", "validation"])
def test_batches_without_draws_are_upstreams(mode, name, tmp_path):
    more = {} if name == "none" else {"per_channel": False}
    dataset = make_dataset(mode, "array", tmp_path, normalization={"name": name, **more})
    loader = BatchLoader(**from_careamics(dataset, "cpu")._asdict())
    expected = list(DataLoader(dataset, batch_size=4, collate_fn=default_collate))
    assert len(loader) == len(expected)
    for batch, (upstream,) in zip(loader, expected, strict=True):
        assert_same(batch.input, upstream.data)
        assert_same(default_collate(list(batch.specs)), upstream.region_spec)


@pytest.mark.parametrize("per_channel", [True, False])
def test_quantiles_beyond_all_values_are_warned_of(per_channel):
    """careamics' estimate is taken as it is; one hot pixel moves it out of the data."""
    images = np.random.default_rng(0).normal(100, 10, (1, 2, 64, 64)).astype(np.float32)
    normalization = {"name": "quantile", "per_channel": per_channel}
    found = settings("n2v", "array", normalization=normalization)
    even = factory.create_dataset(DataConfig(**found), [images], None, None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        from_careamics(even, "cpu")
    images[0, 1, 16:48, 16:48][::8, ::8] = 1e8
    dataset = factory.create_dataset(DataConfig(**found), [images], None, None)
    with pytest.warns(UserWarning, match="all values lie in") as said:
        feed = from_careamics(dataset, "cpu")
    assert said[0].filename == __file__
    name = f"input_lower_quantile_values[{int(per_channel)}]"
    assert [name in str(each.message) for each in said] == [True]
    theirs = dataset.config.normalization
    expected = np.ravel(theirs.input_lower_quantile_values)
    np.testing.assert_array_equal(feed.normalization.input_statistics[0], expected)


def test_parameters_of_the_configured_loader(tmp_path):
    parameters = {"shuffle": True, "drop_last": True}
    dataset = make_dataset("n2v", "array", tmp_path, train_dataloader_params=parameters)
    feed = from_careamics(dataset, "cpu", seed=3)
    assert (feed.shuffle, feed.drop_last, feed.seed, feed.constructor.seed) == (True, True, 3, 3)


def test_datasets_that_replace_something(tmp_path):
    dataset = make_dataset("n2v", "array", tmp_path)

    class Mine(type(dataset)):
        def __getitem__(self, index):
            return super().__getitem__(index)[0]

    dataset.__class__ = Mine
    with pytest.raises(TypeError, match="Mine has its own __getitem__"):
        from_careamics(dataset, "cpu")
