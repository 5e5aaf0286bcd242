"""The same random cases through careamics 0.3.5 and through this package."""

from importlib.metadata import version
from types import SimpleNamespace

import numpy as np
import pytest
from builders import KINDS, OURS, assert_close, make_constructor, make_strategy, plain
from pixels import DTYPES, distinct

pytest.importorskip("careamics", reason="the live comparison needs careamics 0.3.5")

from builders import UPSTREAM

pytestmark = pytest.mark.filterwarnings("ignore:patch_size is .*, larger than")

STRATEGIES = ("random", "fixed_random", "sequential", "fixed")
ALL_DTYPES = (*DTYPES, "int32", "uint32", "float64")


def test_upstream_is_the_version_compared_with():
    assert version("careamics") == "0.3.5"


def random_shape(rng, n_dims, least):
    """Samples and spatial axes, odd and even, at least as large as `least`."""
    return [
        int(rng.integers(1, 4)),
        *(int(rng.integers(low, 70 if n_dims == 2 else 26)) for low in least),
    ]


def random_specs(rng, shapes, size):
    """Places with their centres in the image; some stick out of it."""
    specs = []
    for data_idx, shape in enumerate(shapes):
        for _ in range(5):
            coords = rng.integers(0, shape[2:]) - np.array(size) // 2
            specs.append(
                {
                    "data_idx": data_idx,
                    "sample_idx": int(rng.integers(shape[0])),
                    "coords": tuple(coords.tolist()),
                    "patch_size": tuple(size),
                }
            )
    return specs


def random_case(kind, seed):
    """Parameters and images of one comparison."""
    rng = np.random.default_rng([KINDS.index(kind), seed])
    n_dims = int(rng.choice([2, 2, 3]))
    size = [int(p) for p in rng.integers(1, 17 if n_dims == 2 else 8, n_dims)]
    strategy = str(rng.choice(STRATEGIES))
    if kind in ("basic", "pred"):
        # upstream's training constructors do not take tiles
        strategy = str(rng.choice([*STRATEGIES, "tiled"]))
    # upstream's sequential strategy needs patches that fit
    least = size if strategy == "sequential" else [1] * n_dims
    n_channels = {"basic": 3, "multichannel": int(rng.integers(2, 5))}.get(kind, 1)
    n_stacks = int(rng.integers(1, 4))

    def images(shapes, n_channels):
        return [
            distinct((shape[0], n_channels, *shape[1:]), str(rng.choice(ALL_DTYPES)), seed + i)
            for i, shape in enumerate(shapes)
        ]

    shapes = [random_shape(rng, n_dims, least) for _ in range(n_stacks)]
    found = {}
    if kind == "independent":
        found["sources"] = [
            images([random_shape(rng, n_dims, least) for _ in range(rng.integers(1, 3))], 1)
            for _ in range(rng.integers(2, 5))
        ]
        n_channels = len(found["sources"])
    else:
        found["input"] = images(shapes, n_channels)
        if kind == "paired" or (kind == "basic" and rng.random() < 0.6):
            found["target"] = images(shapes, int(rng.integers(1, 4)))
    channels = None
    if kind in ("basic", "multichannel") and rng.random() < 0.5:
        fewest = 1 if kind == "basic" else 2  # one channel has a test of its own
        n_chosen = int(rng.integers(fewest, n_channels + 1))
        channels = [int(c) for c in rng.permutation(n_channels)[:n_chosen]]
    ranges = None
    if rng.random() < 0.7:
        ranges = [tuple(sorted(pair)) for pair in rng.uniform(0, 2, (n_channels, 2)).tolist()]
    case = {
        "kind": kind,
        "strategy": strategy,
        "patch_size": size,
        "overlaps": [int(rng.integers(0, p)) for p in size],
        "sequential_overlaps": [int(rng.integers(0, p)) for p in size],
        "multiscale_count": int(rng.integers(1, 5 if n_dims == 2 else 4)),
        "padding_mode": str(rng.choice(["reflect", "wrap"])),
        "channels": channels,
        "alpha_ranges": ranges,
        "uncorrelated_channel_prob": float(rng.choice([0, 0.5, 1])),
        "strategy_seed": int(rng.integers(2**31)),
        "rng_seed": int(rng.integers(2**31)),
    }
    if strategy == "fixed" and kind != "independent":
        case["fixed_patch_specs"] = random_specs(rng, [i.shape for i in found["input"]], size)
    elif strategy == "fixed":
        case["strategy"] = "random"
    return case, found


def both(case, images):
    """Our constructor and upstream's."""
    return make_constructor(OURS, case, images), make_constructor(UPSTREAM, case, images)


def assert_same_calls(ours, theirs, indices):
    for index in indices:
        found, expected = ours.construct_patch(index), theirs.construct_patch(index)
        assert plain(found[2]) == plain(expected[2])
        assert_close(found[0], expected[0])
        if expected[1] is None:
            assert found[1] is None
        else:
            assert_close(found[1], expected[1])
        for name in ("input", "target"):
            metadata = f"get_{name}_image_metadata"
            assert plain(getattr(ours, metadata)(found[2])) == plain(
                getattr(theirs, metadata)(expected[2])
            )
        principal = theirs.get_principal_input(expected[0])
        assert_close(ours.get_principal_input(found[0]), principal)


@pytest.mark.parametrize("seed", range(150))
@pytest.mark.parametrize("kind", KINDS)
def test_random_cases_are_equal(kind, seed):
    case, images = random_case(kind, seed)
    ours, theirs = both(case, images)
    assert ours.n_patches == theirs.n_patches
    assert plain(ours.input_shapes) == plain(theirs.input_shapes)
    assert plain(ours.target_shapes) == plain(theirs.target_shapes)
    rng = np.random.default_rng(seed)
    assert_same_calls(ours, theirs, rng.integers(0, ours.n_patches, 4).tolist())
    uncorrelated = kind == "multichannel" and case["uncorrelated_channel_prob"] > 0
    if kind != "independent" and not uncorrelated:  # where upstream has them
        for data_idx in range(len(ours.input_shapes)):
            found = ours.get_patch_indices(data_idx)
            assert list(found) == list(theirs.get_patch_indices(data_idx))


@pytest.mark.parametrize("probability", [0.0, 0.5, 1.0])
def test_one_channel_is_equal(probability):
    case, images = random_case("multichannel", 0)
    case |= {
        "strategy": "random",
        "channels": [1],
        "uncorrelated_channel_prob": probability,
        "alpha_ranges": [(0.5, 1.5)] * images["input"][0].shape[1],
    }
    assert_same_calls(*both(case, images), range(6))


def test_one_structure_is_equal():
    case, images = random_case("independent", 1)
    images["sources"] = images["sources"][:1]
    case |= {"strategy": "random", "alpha_ranges": [(0.5, 1.5)]}
    assert_same_calls(*both(case, images), range(4))


@pytest.mark.parametrize("mode", ["reflect", "wrap"])
@pytest.mark.parametrize("n_scales", [1, 2, 3])
@pytest.mark.parametrize("kind", ["basic", "multichannel", "paired", "pred"])
def test_patches_whose_centre_is_outside_the_image_are_equal(kind, n_scales, mode):
    case, images = random_case(kind, 3)
    n_dims, size = images["input"][0].ndim - 2, (8, 5, 6)
    specs = []
    for coords in ((29, 3, 2), (-7, 4, 0), (28, -4, 12), (3, 16, -5)):
        place = {"data_idx": 0, "sample_idx": 0}
        specs.append({**place, "coords": coords[:n_dims], "patch_size": size[:n_dims]})
    for name in images:
        n_channels = images[name][0].shape[1]
        images[name] = [distinct((1, n_channels, *(30, 17, 13)[:n_dims]), "uint16")]
    case |= {
        "strategy": "fixed",
        "fixed_patch_specs": specs,
        "patch_size": size[:n_dims],
        "multiscale_count": n_scales,
        "padding_mode": mode,
    }
    assert_same_calls(*both(case, images), range(4))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("kind", KINDS)
def test_strategies_and_constructors_can_be_exchanged(kind, seed):
    case, images = random_case(kind, 1000 + seed)
    strategies = ("random", "fixed_random", "sequential", "tiled", "whole", "fixed")
    ours = SimpleNamespace(**{**vars(UPSTREAM), **{n: getattr(OURS, n) for n in strategies}})
    theirs = SimpleNamespace(**{**vars(OURS), **{n: getattr(UPSTREAM, n) for n in strategies}})
    constructors = [
        make_constructor(library, case, images) for library in (theirs, OURS, ours, UPSTREAM)
    ]
    indices = range(0, constructors[0].n_patches, max(1, constructors[0].n_patches // 5))
    assert_same_calls(constructors[0], constructors[3], indices)  # their strategy in ours
    assert_same_calls(constructors[1], constructors[2], indices)  # our strategy in theirs


@pytest.mark.parametrize("name", ["random", "fixed_random", "sequential", "tiled"])
@pytest.mark.parametrize("kind", KINDS)
def test_their_strategies_work_in_batches(kind, name):
    case, images = random_case(kind, 2000)
    case |= {"strategy": name, "alpha_ranges": None, "uncorrelated_channel_prob": 1.0}
    case["patch_size"] = [min(4, size) for size in case["patch_size"]]
    case["overlaps"] = case["sequential_overlaps"] = [size // 2 for size in case["patch_size"]]
    for arrays in (*images.values(), *images.get("sources", [])):
        if not isinstance(arrays[0], list):
            arrays[:] = [np.pad(a, [(0, 0), (0, 0), *[(0, 4)] * (a.ndim - 2)]) for a in arrays]
    strategies = {
        n: getattr(UPSTREAM, n) for n in ("random", "fixed_random", "sequential", "tiled")
    }
    constructor = make_constructor(SimpleNamespace(**{**vars(OURS), **strategies}), case, images)
    batch = constructor.construct_batch(range(min(9, constructor.n_patches)), epoch=2)
    assert np.isfinite(batch.input).all()
    for index, spec in enumerate(batch.specs):
        assert_plain(spec)
        if name != "random" and kind != "independent":
            expected = plain(constructor.patching_strategy.get_patch_spec(index))
            assert {key: plain(spec)[key] for key in expected} == expected


def assert_plain(value):
    """Nothing but dicts, lists and tuples of Python ints."""
    if isinstance(value, (dict, list, tuple)):
        for item in value.values() if isinstance(value, dict) else value:
            assert_plain(item)
    else:
        assert type(value) is int


# ---------------------------------------------------------------------------------------------
# Strategies, spec by spec


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(
    "name", ["random", "fixed_random", "sequential", "tiled", "whole", "fixed"]
)
def test_strategies_are_equal_spec_by_spec(name, seed):
    rng = np.random.default_rng([5, seed])
    n_dims = int(rng.choice([2, 3]))
    size = [int(p) for p in rng.integers(1, 14, n_dims)]
    least = size if name == "sequential" else [1] * n_dims
    shapes = [
        (int(rng.integers(1, 4)), 2, *(int(rng.integers(p, p + 40 // n_dims)) for p in least))
        for _ in range(rng.integers(1, 4))
    ]
    case = {
        "strategy": name,
        "patch_size": size,
        "overlaps": [int(rng.integers(0, p)) for p in size],
        "sequential_overlaps": [int(rng.integers(0, p)) for p in size] if seed % 2 else None,
        "fixed_patch_specs": random_specs(rng, shapes, size),
    }
    ours, theirs = (make_strategy(library, case, shapes, seed) for library in (OURS, UPSTREAM))
    assert ours.n_patches == theirs.n_patches
    for index in range(min(ours.n_patches, 300)):
        spec = ours.get_patch_spec(index)
        assert_plain(spec)
        assert plain(spec) == plain(theirs.get_patch_spec(index))
    for data_idx in range(len(shapes)):
        indices = ours.get_patch_indices(data_idx)
        assert_plain(indices)
        assert list(indices) == list(theirs.get_patch_indices(data_idx))


# ---------------------------------------------------------------------------------------------
# Values that are no numbers


def spoiled(images, rng, values):
    """Put `values` into a few pixels of floating-point copies of the images."""

    def spoil(image):
        image = image.astype(np.float32)
        at = rng.choice(image.size, 1 + image.size // 500, replace=False)
        image.flat[at] = rng.choice(values, len(at))
        return image

    return {
        key: [[spoil(image) for image in source] for source in arrays]
        if key == "sources"
        else [spoil(image) for image in arrays]
        for key, arrays in images.items()
    }


@pytest.mark.parametrize("seed", range(15))
@pytest.mark.parametrize("kind", KINDS)
def test_nan_is_in_the_same_pixels(kind, seed):
    case, images = random_case(kind, 3000 + seed)
    ours, theirs = both(case, spoiled(images, np.random.default_rng(seed), [np.nan]))
    for index in range(min(3, ours.n_patches)):
        found, expected = ours.construct_patch(index), theirs.construct_patch(index)
        for array, upstream in zip(found[:2], expected[:2], strict=True):
            if upstream is not None:
                np.testing.assert_array_equal(np.isnan(array), np.isnan(upstream))
                assert_close(np.nan_to_num(array), np.nan_to_num(upstream))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", KINDS)
def test_infinity_is_in_the_same_pixels(kind, seed):
    """Upstream's resize makes NaN of infinity; here it stays infinite where taps reach it."""
    case, images = random_case(kind, 4000 + seed)
    ours, theirs = both(case, spoiled(images, np.random.default_rng(seed), [np.inf]))
    for index in range(min(3, ours.n_patches)):
        with np.errstate(all="ignore"):
            found, expected = ours.construct_patch(index), theirs.construct_patch(index)
        for array, upstream in zip(found[:2], expected[:2], strict=True):
            if upstream is not None:
                finite = np.isfinite(upstream)
                np.testing.assert_array_equal(np.isfinite(array), finite)
                assert_close(np.where(finite, array, 0), np.where(finite, upstream, 0))
