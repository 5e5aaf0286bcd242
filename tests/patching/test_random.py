"""RandomPatching and FixedRandomPatching: upstream's stream (docs/specification.md, 6)."""

import numpy as np
import pytest

from gpu_patch import BasicPatchConstr, FixedRandomPatching, ImageStack, PatchExtractor, open_images
from gpu_patch import RandomPatching as Random


@pytest.fixture(autouse=True)
def on_the_host(monkeypatch):
    """What these tests prove is the same everywhere; images stay where NumPy can look at them."""
    monkeypatch.setenv("GPU_PATCH_DEVICE", "cpu")


CASES = [
    ([(1, 1, 20, 33)], (8, 8)),
    ([(3, 2, 20, 33), (1, 2, 8, 8), (2, 2, 50, 9)], (8, 8)),
    ([(2, 1, 5, 40), (1, 1, 9, 3)], (8, 7)),  # images smaller than the patch
    ([(2, 1, 6, 20, 17), (1, 1, 3, 9, 30)], (4, 8, 5)),
    ([(1, 1, 1, 1)], (1, 1)),
    ([(1, 1, 16, 24)], (8, 8)),  # an exact multiple
]
cases = pytest.mark.parametrize(("shapes", "patch_size"), CASES)
larger = pytest.mark.filterwarnings("ignore:patch_size is .*, larger than")


def samples(shapes, patch_size):
    """(data_idx, sample_idx, spatial shape) of each patch index, in order."""
    found = []
    for data_idx, (n_samples, _, *size) in enumerate(shapes):
        count = 1
        for n, p in zip(size, patch_size, strict=True):
            count *= n // p + (n % p > 0)
        for sample_idx in range(n_samples):
            found += [(data_idx, sample_idx, size)] * count
    return found


def upstream_spec(rng, place, patch_size):
    """One draw as careamics 0.3.5 makes it."""
    data_idx, sample_idx, size = place
    last = np.clip(np.array(size) - np.array(patch_size), 0, None)
    zeros = np.zeros(len(patch_size), dtype=int)
    coords = rng.integers(zeros, last, endpoint=True, dtype=int)
    return {
        "data_idx": data_idx,
        "sample_idx": sample_idx,
        "coords": tuple(coords.tolist()),
        "patch_size": patch_size,
    }


def plain(spec):
    """A spec may hold nothing but Python's own numbers and tuples."""
    assert type(spec["data_idx"]) is type(spec["sample_idx"]) is int
    assert type(spec["coords"]) is type(spec["patch_size"]) is tuple
    assert {type(n) for n in spec["coords"] + spec["patch_size"]} == {int}
    return spec


@larger
@cases
@pytest.mark.parametrize("kind", [Random, FixedRandomPatching])
def test_count_and_samples_of_the_patches(kind, shapes, patch_size):
    strategy = kind(shapes, patch_size, 0)
    expected = samples(shapes, patch_size)
    assert strategy.n_patches == len(expected)
    assert type(strategy.n_patches) is int
    for data_idx in range(-len(shapes), len(shapes)):
        indices = strategy.get_patch_indices(data_idx)
        at = data_idx % len(shapes)
        assert list(indices) == [i for i, place in enumerate(expected) if place[0] == at]


@larger
@cases
@pytest.mark.parametrize("seed", [0, 1, 2**80])
def test_stream_of_random_patching_is_upstreams(shapes, patch_size, seed):
    strategy, rng = Random(shapes, patch_size, seed), np.random.default_rng(seed)
    places = samples(shapes, patch_size)
    order = np.random.default_rng(9).integers(-len(places), len(places), 60).tolist()
    for index in [*range(len(places)), *order]:
        expected = upstream_spec(rng, places[index], patch_size)
        assert plain(strategy.get_patch_spec(index)) == expected
    assert strategy.rng.bit_generator.state == rng.bit_generator.state


@larger
@cases
@pytest.mark.parametrize("seed", [0, 5])
def test_fixed_random_patching_draws_once_in_order(shapes, patch_size, seed):
    strategy, rng = FixedRandomPatching(shapes, patch_size, seed), np.random.default_rng(seed)
    expected = [upstream_spec(rng, place, patch_size) for place in samples(shapes, patch_size)]
    backwards = [strategy.get_patch_spec(i) for i in range(-1, -len(expected) - 1, -1)]
    assert backwards[::-1] == expected
    for _ in range(2):
        assert [plain(strategy.get_patch_spec(i)) for i in range(len(expected))] == expected


@pytest.mark.parametrize("kind", [Random, FixedRandomPatching])
def test_without_a_seed_two_strategies_differ(kind):
    pair = [kind([(1, 1, 500, 500)], (8, 8)) for _ in range(2)]
    first, second = ([made.get_patch_spec(i)["coords"] for i in range(50)] for made in pair)
    assert first != second


def counted_starts(strategy, shape, n_epochs=1):
    """How often each start is drawn by batches of several epochs."""
    images = PatchExtractor([ImageStack.from_array(np.zeros(shape, np.uint8), "SCYX")])
    constructor = BasicPatchConstr(strategy, images, seed=5)
    counts = np.zeros(shape[2:], int)
    for epoch in range(n_epochs):
        specs = constructor.construct_batch(range(strategy.n_patches), epoch=epoch).specs
        np.add.at(counts, tuple(np.array([spec["coords"] for spec in specs]).T), 1)
    return counts


def test_batches_reach_every_start_equally():
    n_epochs, shape = 700, (1, 1, 12, 15)
    strategy = Random([shape], (6, 5), 0)
    counts = counted_starts(strategy, shape, n_epochs)
    assert not counts[7:].any()
    assert not counts[:, 11:].any()
    counts = counts[:7, :11]
    mean = n_epochs * strategy.n_patches / counts.size
    assert counts.sum() == n_epochs * strategy.n_patches
    assert np.abs(counts - mean).max() < 5 * np.sqrt(mean)
    chi_squared = ((counts - mean) ** 2 / mean).sum()
    assert abs(chi_squared - (counts.size - 1)) < 5 * np.sqrt(2 * counts.size)


@larger
def test_batches_place_a_large_patch_at_the_start():
    shape = (1, 1, 5, 9)
    counts = counted_starts(Random([shape], (8, 8), 0), shape, 30)
    assert counts[0, :2].sum() == counts.sum() == 60
    assert counts[0, :2].min() > 10


def test_batches_of_fixed_random_patching_are_its_own_places():
    shape = (1, 1, 30, 40)
    strategy = FixedRandomPatching([shape], (8, 8), 3)
    images = PatchExtractor([ImageStack.from_array(np.zeros(shape, np.uint8), "SCYX")])
    constructor = BasicPatchConstr(strategy, images, seed=5)
    expected = [strategy.get_patch_spec(i) for i in range(strategy.n_patches)]
    for epoch in (0, 1, 77):
        batch = constructor.construct_batch(range(strategy.n_patches), epoch=epoch)
        assert list(batch.specs) == expected


@pytest.mark.parametrize("kind", [Random, FixedRandomPatching])
def test_patches_larger_than_an_image_are_said_where_a_strategy_is_made(kind):
    shapes = [(1, 2, 40, 30), (3, 2, 31, 40), (1, 2, 32, 29)]
    with pytest.warns(UserWarning, match=r"patch_size is \(32, 30\), larger than data_shapes\[1\] "
                      r"with \(31, 40\) and 1 more") as caught:  # fmt: skip
        kind(shapes, (32, 30))
    assert len(caught) == 1
    assert caught[0].filename == __file__
    with pytest.warns(
        UserWarning, match=r"\(2, 8, 8\), larger than data_shapes\[0\] with \(1, 8, 8\):"
    ):
        kind([(1, 1, 1, 8, 8)], (2, 8, 8))
    # none where they fit exactly, whatever the number of samples and channels
    kind([(1, 1, 32, 30)], (32, 30))


def test_the_image_that_is_smaller_is_named(tmp_path):
    for name, size in (("t2.npy", 20), ("t10.npy", 15)):
        np.save(tmp_path / name, np.zeros((size, size), np.uint8))
    images = open_images(tmp_path, "YX")
    with pytest.warns(UserWarning, match=r"larger than .*t10\.npy with \(15, 15\): "):
        Random(images.shapes, (16, 16))
