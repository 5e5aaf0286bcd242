"""ClassBalancedPatching against lists of all pixels; shares; what its index takes."""

import pickle
from itertools import count

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import on_host

import gpu_patch
from gpu_patch import ClassBalancedPatching, ImageStack, PatchExtractor
from gpu_patch.feed import BatchLoader
from gpu_patch.patching.class_index import Bits, IndexBuilder, Runs
from gpu_patch.patching.identity import identity


def discs(shape, n, radius, dtype="uint8", n_classes=2, seed=0):
    """Round objects (Z)YX at random places; each its own label, or one of a few classes."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, dtype)
    grid = np.indices(shape)
    for i, centre in zip(range(n), rng.integers(0, shape, (n, len(shape))), strict=False):
        inside = sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)) < radius**2
        labels[inside] = 1 + (i if n_classes is None else i % n_classes)
    return labels


# -------------------------------------------------------------------------------------------------
# The index

LENGTHS = st.lists(
    st.one_of(st.integers(0, 3), st.integers(250, 260), st.just(700)), min_size=1, max_size=150
)


@given(LENGTHS, st.booleans(), st.integers(0, 9))
def test_the_index_knows_every_pixel_however_it_comes_in_pieces(lengths, starts_with, seed):
    mask = np.resize([starts_with, not starts_with], len(lengths)).repeat(lengths)
    mask = np.append(mask, True)
    expected = np.flatnonzero(mask)
    indices = []
    for n_pieces in (1, 7):
        builder = IndexBuilder()
        cuts = np.sort(np.random.default_rng(seed).integers(0, len(mask) + 1, n_pieces - 1))
        assert sum(builder.add(piece) for piece in np.split(mask, cuts)) == len(expected)
        indices.append(builder.finish())
    for index in indices:
        np.testing.assert_array_equal(index.pixels(np.arange(len(expected))), expected)
    for one, other in zip(indices[0].columns, indices[1].columns, strict=True):
        np.testing.assert_array_equal(one, other)
    bits = Bits(iter(np.split(mask, cuts)))
    np.testing.assert_array_equal(bits.pixels(np.arange(len(expected))), expected)


@pytest.mark.parametrize(("density", "kind"), [(0.5, Bits), (0.0005, Runs), (0.9995, Runs)])
def test_noise_is_kept_as_bits_and_rare_changes_as_runs(density, kind):
    mask = np.random.default_rng(0).random(300_000) < density
    builder = IndexBuilder()
    builder.add(mask)
    index = builder.finish()
    assert type(index) is kind
    expected = np.flatnonzero(mask)
    rank = np.random.default_rng(1).integers(0, len(expected), 999)
    np.testing.assert_array_equal(index.pixels(rank), expected[rank])


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (discs((700, 900), 300, 9), ["foreground"]),
        (discs((700, 900), 300, 9), [0, 1, 2]),
        (discs((700, 900), 300, 9, "uint16", n_classes=None), ["foreground", 0]),
        (discs((700, 900), 300, 9, "int32", n_classes=None), ["foreground", 0, 7, 100]),
        (discs((30, 150, 160), 60, 8), [0, 1, 2]),
    ],
)
def test_the_index_takes_at_most_a_quarter_of_labels_of_objects(labels, classes):
    weights = dict.fromkeys(classes, 1 / len(classes))
    patching = ClassBalancedPatching([labels[None, None]], (8,) * labels.ndim, weights)
    assert patching.index_nbytes <= labels.nbytes / 4
    sizes = [column.nbytes for index in patching._indices for column in index.columns]
    assert patching.index_nbytes == sum(sizes)
    assert len(pickle.dumps(patching)) <= patching.index_nbytes + 20_000


def test_of_noise_the_index_takes_a_seventh_of_a_byte_per_pixel_and_class():
    labels = np.random.default_rng(0).integers(0, 3, (1, 1, 400, 500), np.uint8)
    patching = ClassBalancedPatching([labels], (8, 8), {0: 0.2, 1: 0.2, 2: 0.2})
    assert labels.size * 3 / 8 < patching.index_nbytes < labels.size * 3 / 7


# -------------------------------------------------------------------------------------------------
# Places


def expected_places(arrays, patch_size, weights, index, uniforms):
    """One by one, from lists of all pixels of each class in each sample."""
    samples = [(i, s) for i, a in enumerate(arrays) for s in range(len(a))]
    full = [
        np.prod([-(-n // p) for n, p in zip(arrays[i].shape[2:], patch_size, strict=True)])
        for i, _ in samples
    ]
    pixels = {
        (i, s, k): np.argwhere(arrays[i][s, 0] > 0 if k == "foreground" else arrays[i][s, 0] == k)
        for i, s in samples
        for k in weights
    }
    totals = {k: sum(len(pixels[i, s, k]) for i, s in samples) for k in weights}
    stretches, at = [], 0.0
    for (i, s), area in zip(samples, full, strict=True):
        for k in weights:
            at += sum(full) * weights[k] * len(pixels[i, s, k]) / totals[k]
            stretches.append((at, i, s, k))
        at += area * (1 - sum(weights.values()))
        stretches.append((at, i, s, None))
    for n, u in zip(index, uniforms.T, strict=True):
        _, i, s, k = next(each for each in stretches if n + u[0] < each[0])
        size = arrays[i].shape[2:]
        last = [max(a - p, 0) for a, p in zip(size, patch_size, strict=True)]
        if k is None:
            start = [int(v * (m + 1)) for v, m in zip(u[1:], last, strict=True)]
        else:
            centre = pixels[i, s, k][int(u[1] * len(pixels[i, s, k]))]
            start = [
                min(max(c - p // 2, 0), m)
                for c, p, m in zip(centre.tolist(), patch_size, last, strict=True)
            ]
        yield {
            "data_idx": i, "sample_idx": s, "coords": tuple(start), "patch_size": patch_size
        }  # fmt: skip


CASES = {
    "2D": ([(1, 1, 31, 47)], (9, 6)),
    "ragged samples and channels": ([(3, 2, 17, 23), (1, 2, 40, 5), (2, 2, 8, 33)], (7, 8)),
    "3D": ([(2, 1, 5, 17, 13), (1, 1, 9, 11, 8)], (3, 5, 4)),
}


def labels_of(shapes, dtype="uint8", seed=0):
    found = []
    for shape, i in zip(shapes, count(seed)):
        each = [discs(shape[2:], 6, 4, dtype, 3, seed=10 * i + s) for s in range(shape[0])]
        array = np.zeros(shape, dtype)
        array[:, 0] = each
        found.append(array)
    return found


@pytest.mark.filterwarnings("ignore:patch_size is")
@pytest.mark.parametrize("weights", [{1: 0.3, 3: 0.25, 0: 0.1}, {"foreground": 1.0}])
@pytest.mark.parametrize("case", CASES)
def test_places_are_those_of_lists_of_all_pixels(case, weights):
    shapes, patch_size = CASES[case]
    arrays = labels_of(shapes)
    ordered = dict(sorted(weights.items(), key=str))
    patching = ClassBalancedPatching(arrays, patch_size, weights, seed=0)
    full = sum(
        n * int(np.prod([-(-a // p) for a, p in zip(size, patch_size, strict=True)]))
        for n, _, *size in shapes
    )
    assert patching.n_patches == full
    index = np.tile(np.arange(full), 20)
    uniforms = np.random.default_rng(0).random((patching.n_uniforms, len(index)))
    places = patching.locate(index, uniforms)
    found = [places.spec(i) for i in range(len(index))]
    assert found == list(expected_places(arrays, patch_size, ordered, index, uniforms))


def test_the_chosen_pixel_is_the_middle_unless_a_border_is_near():
    labels = np.zeros((1, 1, 50, 60), np.uint16)
    labels[0, 0, 20, 30], labels[0, 0, 1, 58] = 5, 9
    patching = ClassBalancedPatching([labels], (16, 11), {5: 0.5, 9: 0.5})
    starts = {patching.get_patch_spec(i)["coords"] for i in range(patching.n_patches)}
    assert starts == {(12, 25), (0, 49)}
    assert patching.n_pixels == {5: 1, 9: 1}


@pytest.mark.filterwarnings("ignore:patch_size is")
def test_an_image_smaller_than_the_patch_starts_at_0():
    labels = np.ones((1, 1, 5, 60), np.uint8)
    patching = ClassBalancedPatching([labels], (8, 8), {1: 1.0})
    assert {patching.get_patch_spec(i)["coords"][0] for i in range(patching.n_patches)} == {0}


def draws(patching, n_epochs, seed=0):
    """First pixels and samples of all patches of some epochs, as batches have them."""
    images = PatchExtractor(
        [ImageStack.from_array(np.zeros(s, np.uint8), "SCYX") for s in patching.data_shapes]
    )
    constructor = gpu_patch.BasicPatchConstr(patching, images, seed=seed)
    for epoch in range(n_epochs):
        yield from constructor.plan_batch(range(patching.n_patches), epoch=epoch).specs


def test_shares_are_met():
    """Chi-square of 3 degrees of freedom: 11.3 is exceeded by independent draws once in 100."""
    # classes far from borders, so that the middle is the pixel that was drawn
    arrays = [np.pad(a[:, :, 9:-9, 9:-9], [(0, 0), (0, 0), (9, 9), (9, 9)])
              for a in labels_of([(2, 1, 90, 80), (1, 1, 60, 120)])]  # fmt: skip
    weights = {1: 0.3, 2: 0.2, 3: 0.1}
    patching = ClassBalancedPatching(arrays, (9, 9), weights)
    middles = np.zeros(4)
    free = np.zeros(4)
    for spec in draws(patching, 8):
        y, x = spec["coords"]
        middles[arrays[spec["data_idx"]][spec["sample_idx"], 0, y + 4, x + 4]] += 1
    for array in arrays:  # where patches anywhere have their middle
        inside = np.bincount(array[:, 0, 4:-4, 4:-4].ravel(), minlength=4)
        full = -(-array.shape[2] // 9) * -(-array.shape[3] // 9) * len(array)
        free += inside / inside.sum() * full / patching.n_patches
    expected = middles.sum() * (np.array([0, 0.3, 0.2, 0.1]) + 0.4 * free)
    assert ((middles - expected) ** 2 / expected).sum() < 11.3


def test_every_pixel_of_a_class_is_as_likely():
    """Chi-square of N − 1 degrees of freedom, within four standard deviations."""
    arrays = labels_of([(1, 1, 40, 40), (1, 1, 30, 50)])
    arrays[0][arrays[0] == 3] = 0  # in one image only
    patching = ClassBalancedPatching(arrays, (1, 1), {1: 0.5, 3: 0.5})
    for name in (1, 3):
        wanted = {(i, *at) for i, a in enumerate(arrays) for at in np.argwhere(a[0, 0] == name)}
        counts = dict.fromkeys(wanted, 0)
        for spec in draws(patching, 6):
            place = (spec["data_idx"], *spec["coords"])
            if place in counts:
                counts[place] += 1
        numbers = np.array(list(counts.values()))
        mean, n = numbers.mean(), len(numbers)
        assert numbers.sum() == pytest.approx(6 * patching.n_patches / 2, abs=6)
        assert ((numbers - mean) ** 2 / mean).sum() < n - 1 + 4 * np.sqrt(2 * (n - 1))


def test_indices_of_an_image_follow_each_other_and_lie_in_it():
    arrays = labels_of([(2, 1, 90, 80), (1, 1, 60, 120), (1, 1, 70, 70)])
    patching = ClassBalancedPatching(arrays, (9, 9), {"foreground": 1 / 3})
    parts = [list(patching.get_patch_indices(i)) for i in range(3)]
    assert [i for part in parts for i in part] == list(range(patching.n_patches))
    assert min(map(len, parts)) > 10
    for epoch in (0, 1):
        found = list(draws(patching, epoch + 1))[-patching.n_patches :]
        others = [i for i, part in enumerate(parts) for n in part if found[n]["data_idx"] != i]
        assert len(others) <= 2  # at the two borders between images
    with pytest.raises(IndexError, match="data_idx"):
        patching.get_patch_indices(3)


# -------------------------------------------------------------------------------------------------
# In use


def extractors(arrays, device, by_chunk=False):
    options = {"device": device, "by_chunk": by_chunk}
    images = [np.random.default_rng(0).integers(0, 999, a.shape, np.uint16) for a in arrays]
    return (
        gpu_patch.open_images(images, "SCYX", **options),
        gpu_patch.open_images(arrays, "SCYX", labels=True, **options),
    )


@pytest.mark.parametrize("by_chunk", [False, True])
def test_batches_are_centred_on_what_their_targets_show(device, by_chunk):
    arrays = labels_of([(2, 1, 90, 80), (1, 1, 60, 120)], "int32")
    images, labels = extractors(arrays, device, by_chunk)
    patching = ClassBalancedPatching(labels, (9, 9), {1: 0.5, 3: 0.5}, seed=1)
    # the same of arrays, of stacks, and by chunk
    for other in (arrays, labels.image_stacks):
        assert identity(ClassBalancedPatching(other, (9, 9), {3: 0.5, 1: 0.5}, 1)) == identity(
            patching
        )
    constructor = gpu_patch.BasicPatchConstr(patching, images, labels, seed=4)
    batch = constructor.construct_batch(range(0, 200, 3), target_dtype="native")
    size = {i: np.array(a.shape[2:]) for i, a in enumerate(arrays)}
    n_middle = 0
    for target, spec in zip(on_host(batch.target), batch.specs, strict=True):
        assert np.isin([1, 3], target).any()
        start, last = np.array(spec["coords"]), size[spec["data_idx"]] - 9
        if (start > 0).all() and (start < last).all():
            n_middle += 1
            assert target[0, 4, 4] in (1, 3)
    assert n_middle > 30


def test_every_constructor_takes_it():
    arrays = labels_of([(2, 1, 90, 80), (1, 1, 60, 120)])
    images, labels = extractors(arrays, "cpu")
    patching = ClassBalancedPatching(labels, (8, 8), {"foreground": 0.5}, seed=1)
    context = (2, "reflect")
    for constructor in (
        gpu_patch.BasicPatchConstr(patching, images, seed=0),
        gpu_patch.PairedInputTargetMsPatchConstr(patching, images, labels, *context, seed=0),
        gpu_patch.PredMsPatchConstr(patching, images, *context, seed=0),
        gpu_patch.MultiChannelTargetMsPatchConstr(
            patching, images, *context, None, 0.5, seed=0
        ),
        gpu_patch.IndependentTargetsMsPatchConstr(
            [patching, gpu_patch.RandomPatching(images.shapes, (8, 8))], [images, images],
            *context, None, seed=0,
        ),
    ):  # fmt: skip
        for order in ("shuffle", "by_image", "blocks"):
            loader = BatchLoader(constructor, 50, order=order)
            seen = [tuple(batch.input.shape[2:]) for batch in loader]
            assert set(seen) == {(8, 8)}
        input_patch, *_ = constructor.construct_patch(3)
        assert input_patch.shape[1:] == (8, 8)


def test_same_patches_in_any_batch_rank_and_after_a_resume():
    arrays = labels_of([(2, 1, 90, 80), (1, 1, 60, 120)])
    images, labels = extractors(arrays, "cpu")

    def loader(seed=0, **options):
        patching = ClassBalancedPatching(labels, (9, 9), {1: 0.4, "foreground": 0.2}, seed)
        return BatchLoader(gpu_patch.BasicPatchConstr(patching, images, seed=2), **options)

    whole = [spec for batch in loader(batch_size=32) for spec in batch.specs]
    parts = [
        [list(batch.specs) for batch in loader(batch_size=16, rank=rank, world_size=2)]
        for rank in (0, 1)
    ]
    assert [s for pair in zip(*parts, strict=True) for part in pair for s in part] == whole
    first = loader(batch_size=32)
    taken = list(next(iter(first)).specs)
    rest = loader(batch_size=7)
    rest.load_state_dict(first.state_dict())
    assert taken + [spec for batch in rest for spec in batch.specs] == whole
    other = loader(batch_size=32)
    next(iter(other))
    state = other.state_dict()
    changed = [array.copy() for array in arrays]
    changed[0][0, 0, 0, 0] = 1 if changed[0][0, 0, 0, 0] != 1 else 0
    patching = ClassBalancedPatching(changed, (9, 9), {1: 0.4, "foreground": 0.2}, 0)
    with pytest.raises(ValueError, match="strateg"):
        BatchLoader(gpu_patch.BasicPatchConstr(patching, images, seed=2), 32).load_state_dict(state)


def test_pieces_of_large_images_make_no_difference(monkeypatch):
    from gpu_patch.patching import class_index

    arrays = labels_of([(2, 1, 90, 80), (1, 1, 60, 120)])
    expected = identity(ClassBalancedPatching(arrays, (9, 9), {1: 0.5, 0: 0.5}, 0))
    for n in (1, 81, 1000):
        monkeypatch.setattr(class_index, "_PIXELS_AT_ONCE", n)
        assert identity(ClassBalancedPatching(arrays, (9, 9), {1: 0.5, 0: 0.5}, 0)) == expected


def test_another_channel_signed_and_boolean_labels():
    labels = np.zeros((1, 2, 20, 20), np.int16)
    labels[0, 1, 3:6, 4:9] = -7
    patching = ClassBalancedPatching([labels], (4, 4), {-7: 0.5, 0: 0.25}, channel=1)
    assert patching.n_pixels == {-7: 15, 0: 385}
    weights = {"foreground": 0.5, 1: 0.5}
    masks = ClassBalancedPatching([labels == -7], (4, 4), weights, channel=1)
    assert masks.n_pixels == {1: 15, "foreground": 15}


@pytest.mark.parametrize(
    ("weights", "kind", "message"),
    [
        ({7: 0.1, 1: 0.2, 9: 0.1}, ValueError, "shares of 7 and 9, of which no image has a pixel"),
        ({300: 0.1}, ValueError, "shares of 300, of which no image"),
        ({-1: 0.1}, ValueError, "shares of -1, of which no image"),
        ({}, ValueError, "weights must be shares of all patches, of one class at least"),
        ({1: 0.7, 2: 0.5}, ValueError, "a sum of at most 1, found .* with the sum 1.2"),
        ({1: 0}, ValueError, r"weights\[1\] must be above 0 and at most 1, found 0"),
        ({1: float("nan")}, ValueError, r"weights\[1\] must be above 0"),
        ({1: "a"}, TypeError, r"weights\[1\] must be a number, found 'a'"),
        ({"nucleus": 0.5}, TypeError, "whole numbers or 'foreground', found 'nucleus'"),
        ({1.5: 0.5}, TypeError, "whole numbers or 'foreground', found 1.5"),
        ({True: 0.5}, TypeError, "whole numbers or 'foreground', found True"),
        ([0.5], TypeError, "weights must be a dict"),
    ],
)
def test_bad_weights(weights, kind, message):
    with pytest.raises(kind, match=message):
        ClassBalancedPatching(labels_of([(1, 1, 40, 40)]), (8, 8), weights)


@pytest.mark.parametrize(
    ("labels", "kind", "message"),
    [
        (np.zeros((1, 1, 9, 9), np.uint8), TypeError, "labels must be .*: put the array in a list"),
        ([np.zeros((9, 9), np.uint8)], ValueError, r"labels\[0\] must be SCYX or SCZYX"),
        ([np.zeros((1, 1, 9, 9))], TypeError, r"labels\[0\] must be of integers or bool, found fl"),
        ([np.zeros((1, c, 9, 9), np.uint8) for c in (1, 2)], ValueError, "one number of channels"),
        (["a.tif"], TypeError, r"found 'a.tif' in labels\[0\]"),
        (7, TypeError, "labels must be a sequence"),
    ],
)
def test_bad_labels(labels, kind, message):
    with pytest.raises(kind, match=message):
        ClassBalancedPatching(labels, (4, 4), {0: 0.5})


def test_labels_of_other_images_and_splitting_are_refused():
    arrays = labels_of([(1, 1, 40, 40)])
    images, _ = extractors([np.zeros((1, 1, 41, 40), np.uint8)], "cpu")
    patching = ClassBalancedPatching(arrays, (8, 8), {1: 0.5})
    with pytest.raises(ValueError, match=r"was made for data_shapes\[0\]"):
        gpu_patch.BasicPatchConstr(patching, images)
    with pytest.raises(TypeError, match=r"must not be a ClassBalancedPatching.*validation images"):
        gpu_patch.split_validation(patching, 0.1, seed=0)
    with pytest.raises(IndexError, match="channel is 1, but there are 1 channels"):
        ClassBalancedPatching(arrays, (8, 8), {1: 0.5}, channel=1)
