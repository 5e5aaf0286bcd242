"""Background filters against careamics 0.3.5: the same decisions, probabilities and maps."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("careamics", reason="the live comparison needs careamics 0.3.5")

from builders import UPSTREAM, make_extractor, ours
from coverages import careamics_starts, cells, expected_starts, make, masks

import gpu_patch
from gpu_patch.feed import (
    MaskFilter,
    MaxFilter,
    MeanStdFilter,
    ShannonFilter,
    exclude_background,
    filter_background,
    find_background,
    score_maps,
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from careamics.config.data import patch_filter as configs
    from careamics.config.data.data_config import _default_filter_coverage
    from careamics.dataset import patch_filter as upstream
    from careamics.dataset.factory.filter_bg import filter_background as upstream_filter_background
    from careamics.dataset.factory.filter_bg import filter_background_with_mask
    from careamics.dataset.patching import StratifiedPatching as UpstreamStratified

DTYPES = ("bool", "uint8", "uint16", "int16", "float32")


def patches(rng, dtype):
    """One size of patches, 2D or 3D, odd, even or single pixels; dark and repetitive in parts."""
    shape = rng.integers(1, 24 if rng.random() < 0.6 else 9, rng.choice([2, 3]))
    values = rng.integers(-40, 200, (12, *shape)) * (rng.random((12, *shape)) < rng.random())
    values = values * rng.random((12, *(1 for _ in shape)))
    if dtype == "float32":
        return values.astype(dtype)
    return (values if dtype == "int16" else np.abs(values)).astype(dtype)


def pairs(rng, cells):
    """Our filters and careamics' of the same parameters; some thresholds are values that occur."""
    occurring = float(rng.choice(cells.astype(np.float32).ravel()))
    threshold = float(rng.choice([occurring, rng.uniform(-10, 100)]))
    coverage = float(rng.choice([0, 0.25, rng.random(), 1]))
    mean, std = rng.uniform(0, 40), rng.choice([None, rng.uniform(0, 60)])
    bits = float(rng.choice([0, rng.uniform(0, 6)]))
    return [
        (MaxFilter(threshold, coverage), upstream.MaxPatchFilter(threshold, coverage)),
        (MeanStdFilter(mean, std), upstream.MeanStdPatchFilter(mean, std)),
        (ShannonFilter(bits), upstream.ShannonPatchFilter(bits)),
        (MaskFilter(coverage), upstream.MaskPatchFilter(coverage)),
    ]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", range(60))
def test_decisions_are_equal(seed, dtype):
    rng = np.random.default_rng([seed, DTYPES.index(dtype)])
    # careamics keeps images, and cuts patches, as float32, with a channel axis
    cells = patches(rng, dtype).astype(np.float32)
    for one, theirs in pairs(rng, cells):
        expected = [not theirs.filter_out(cell[None]) for cell in cells]
        assert one.keeps(cells).tolist() == expected, one
        assert one.keeps(cells[:0]).tolist() == []


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", range(30))
def test_scores_are_equal(seed, dtype):
    rng = np.random.default_rng([seed, DTYPES.index(dtype)])
    cells = patches(rng, dtype).astype(np.float32)
    expected = {
        "entropy": [upstream.shannon_patch_filter.shannon_entropy(cell) for cell in cells],
        "coverage": [upstream.MaskPatchFilter._filter_value(cell) for cell in cells],
        "mean": [cell.mean() for cell in cells],
        "std": [cell.std() for cell in cells],
    }
    found = {
        "entropy": ShannonFilter(0).scores(cells)["threshold"],
        "coverage": MaskFilter().scores(cells)["coverage"],
        "mean": MeanStdFilter(0).scores(cells)["mean_threshold"],
        "std": MeanStdFilter(0).scores(cells)["std_threshold"],
    }
    for name, values in expected.items():
        scale = max(1, np.abs(values).max())
        np.testing.assert_allclose(found[name], values, rtol=0, atol=1e-6 * scale, err_msg=name)


def images(rng, n_channels=2, least=1):
    """Ragged stacks with dark parts, 2D or 3D, and a patch size that fits into all."""
    n_dims = int(rng.choice([2, 2, 3]))
    patch_size = tuple(rng.integers(1, 9 if n_dims == 2 else 4, n_dims).tolist())
    arrays = []
    for _ in range(int(rng.integers(1, 4))):
        size = [int(rng.integers(p, (40 if n_dims == 2 else 12) + p)) for p in patch_size]
        shape = (int(rng.integers(1, 3)), n_channels, *size)
        array = rng.integers(least, 200, shape)
        for axis in range(2, len(shape)):  # bright where waves of every axis are
            wave = np.sin(np.arange(shape[axis]) / rng.uniform(1, 4) + rng.uniform(0, 6)) > -0.3
            array = array * wave.reshape([-1 if a == axis else 1 for a in range(len(shape))])
        arrays.append(array.astype(rng.choice(["uint8", "uint16", "float32"])))
    return patch_size, arrays


def both(patch_size, arrays):
    """Our extractor and strategy, and careamics'."""
    a, b = (make_extractor(library, arrays) for library in (ours("cpu"), UPSTREAM))
    return (
        SimpleNamespace(
            extractor=a, strategy=gpu_patch.StratifiedPatching(a.shapes, patch_size, seed=0)
        ),
        SimpleNamespace(extractor=b, strategy=UpstreamStratified(b.shapes, patch_size, seed=0)),
    )


def set_by(strategy, call):
    """The probabilities that a call sets; careamics fails to use them on some small images."""
    found = {}

    def record(data_idx, sample_idx, probs):
        found[data_idx, sample_idx] = dict(probs)

    strategy.set_region_probs = record
    call()
    return found


CONFIGS = [
    (MaxFilter(90), configs.MaxPatchFilterConfig(threshold=90)),
    (MaxFilter(60, 0.7), configs.MaxPatchFilterConfig(threshold=60, coverage=0.7)),
    (
        MeanStdFilter(25, 45),
        configs.MeanStdPatchFilterConfig(mean_threshold=25, std_threshold=45),
    ),
    (MeanStdFilter(30), configs.MeanStdPatchFilterConfig(mean_threshold=30)),
    (ShannonFilter(2.6), configs.ShannonPatchFilterConfig(threshold=2.6)),
    (MaskFilter(), configs.MaskPatchFilterConfig()),
    (MaskFilter(0.4), configs.MaskPatchFilterConfig(coverage=0.4)),
]


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize(("one", "config"), CONFIGS, ids=lambda x: repr(x)[:40])
def test_the_same_regions_become_rare(one, config, seed):
    rng = np.random.default_rng(seed)
    patch_size, arrays = images(rng)
    mine, theirs = both(patch_size, arrays)
    channel = int(rng.integers(2))
    config = config.model_copy(update={"ref_channel": channel})
    if one.__dict__.get("coverage", 0) is None:  # careamics' data config chooses by the axes
        default = _default_filter_coverage(len(patch_size) == 3)
        config = config.model_copy(update={"coverage": default})
    run = filter_background_with_mask if isinstance(one, MaskFilter) else upstream_filter_background
    expected = set_by(theirs.strategy, lambda: run(config, theirs.strategy, theirs.extractor))
    report = find_background(mine.strategy, mine.extractor, one, ref_channel=channel)
    # where a last cell lacks a pixel to a patch, careamics has it too, though no patch starts there
    inside = {
        sample: {cell: prob for cell, prob in probs.items() if all(np.less(cell, grid.shape))}
        for (sample, probs), grid in zip(expected.items(), report.kept.values(), strict=True)
    }
    assert {sample: probs.keys() for sample, probs in inside.items()} == {
        sample: {tuple(cell) for cell in np.argwhere(~grid).tolist()}
        for sample, grid in report.kept.items()
    }
    if not report.n_kept:  # which is an error here
        with pytest.raises(ValueError, match="no signal"):
            filter_background(mine.strategy, mine.extractor, one, ref_channel=channel)
        return
    # the defaults are the same
    filtered = gpu_patch.StratifiedPatching(mine.extractor.shapes, patch_size, seed=0)
    for sample, probs in inside.items():
        filtered.set_region_probs(*sample, probs)
    filter_background(mine.strategy, mine.extractor, one, ref_channel=channel)
    assert mine.strategy.n_patches == filtered.n_patches
    indices = range(filtered.n_patches)
    assert [*map(mine.strategy.get_patch_spec, indices)] == [*map(filtered.get_patch_spec, indices)]


def test_regions_of_both_kinds_are_among_the_cases():
    for one, _ in CONFIGS:
        shares = []
        for seed in range(25):
            mine, _ = both(*images(np.random.default_rng(seed)))
            report = find_background(mine.strategy, mine.extractor, one)
            shares.append(report.n_kept / report.n_cells)
        assert sum(0.05 < share < 0.95 for share in shares) > 5, (one, shares)


def grids_agree(shape, patch_size):
    """Whether careamics has the same regions: not where a last cell lacks a pixel to a patch."""
    return all(p == 1 or (n + 1) % p for n, p in zip(shape, patch_size, strict=True))


def test_maps_are_equal():
    n_compared = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        patch_size, (array, *_) = images(rng, n_channels=1)
        image = array[0, 0]
        if not grids_agree(image.shape, patch_size) or 1 in patch_size:
            continue
        n_compared += 1
        mine, _ = both(patch_size, [array[:1]])

        def scores(one, mine=mine):
            (of_stack,) = score_maps(mine.strategy, mine.extractor, one)
            return np.stack([scores[0] for scores in of_stack.values()]).squeeze()

        def kept(one, mine=mine):
            (of_stack,) = find_background(mine.strategy, mine.extractor, one).maps()
            return of_stack[0]

        image = image.astype(np.float32)
        for one, theirs, limits in (
            (MaxFilter(50.5), upstream.MaxPatchFilter, {"threshold": 50.5}),
            (MeanStdFilter(30.05), upstream.MeanStdPatchFilter, {"mean_threshold": 30.05}),
            (ShannonFilter(2.505), upstream.ShannonPatchFilter, {"threshold": 2.505}),
            (MaskFilter(0.3333), upstream.MaskPatchFilter, {"threshold": 0.3333}),
        ):
            expected = theirs.filter_map(image, patch_size)
            np.testing.assert_allclose(scores(one), expected, rtol=1e-5, atol=1e-6)
            np.testing.assert_array_equal(kept(one), theirs.apply_filter(expected, **limits))
    assert n_compared > 15


# ---- how many patches, and where ---------------------------------------------------------------


def their_strategy(shape, patch_size, excluded):
    strategy = UpstreamStratified([(1, 1, *shape)], patch_size, seed=0)
    strategy.exclude_patches(0, 0, excluded)
    return strategy


LIVE = [
    mask for mask in masks() if mask[0].split(",")[0] in ("2D", "2D ragged", "thin stack ragged")
]


@pytest.mark.parametrize("mask", LIVE, ids=lambda mask: mask[0])
def test_starts_of_careamics_are_as_the_formula_says(mask):
    _, shape, patch_size, excluded = mask
    expected, n_drawn = careamics_starts(shape, patch_size, excluded), 6000
    if not expected.any():  # it fails to count less than none
        with pytest.raises(ValueError, match="empty"):
            their_strategy(shape, patch_size, excluded)
        return
    strategy = their_strategy(shape, patch_size, excluded)
    assert strategy.n_patches == round(expected.sum())
    drawn = np.zeros(shape)
    for i in range(n_drawn):
        drawn[tuple(strategy.get_patch_spec(i % strategy.n_patches)["coords"])] += 1
    assert not drawn[expected == 0].any()
    # in blocks, where there are enough to compare
    drawn, expected = (by_blocks(x / x.sum()) for x in (drawn, expected))
    error = np.sqrt(np.maximum(expected, 1e-3) / n_drawn)
    assert (np.abs(drawn - expected) / error).max() < 6


def by_blocks(values, n=16):
    for axis in range(values.ndim):
        values = np.add.reduceat(values, np.arange(0, values.shape[axis], n), axis)
    return values


COUNTED = {
    "178 of 256 excluded": ((1024, 1024), (64, 64), 178),
    "74 of 256 excluded": ((1024, 1024), (64, 64), 74),
    "thin stack": ((8, 512, 512), (8, 64, 64), 0),
    "thin image": ((64, 640), (64, 64), 0),
    "small": ((256, 256), (64, 64), 0),
    "ragged": ((1000, 700), (64, 64), 90),
    "volume": ((32, 192, 200), (16, 64, 64), 7),
}


@pytest.mark.parametrize(("shape", "patch_size", "n_excluded"), COUNTED.values(), ids=COUNTED)
def test_an_epoch_has_as_many_patches_as_theirs(shape, patch_size, n_excluded):
    grid = [n // p for n, p in zip(shape, patch_size, strict=True)]
    chosen = np.random.default_rng(0).permutation(list(np.ndindex(*grid)))[:n_excluded]
    excluded = [tuple(cell) for cell in chosen.tolist()]
    theirs = their_strategy(shape, patch_size, excluded)
    mine = make(shape, patch_size, excluded)
    assert mine.n_patches == theirs.n_patches
    assert expected_starts(mine, shape).sum() == pytest.approx(theirs.n_patches)


def nuclei(shape, radius, n, seed=0):
    """An image of bright discs on a dark background with noise."""
    rng = np.random.default_rng(seed)
    image = rng.normal(100, 5, shape)
    y, x = np.ogrid[: shape[0], : shape[1]]
    for cy, cx in rng.random((n, 2)) * shape:
        image[(y - cy) ** 2 + (x - cx) ** 2 < radius**2] += 400
    return image[None, None].clip(0).astype(np.uint16)


@pytest.mark.parametrize(("radius", "n"), [(20, 5), (20, 40), (60, 12)])
def test_filtered_images_have_as_many_patches_as_theirs(radius, n):
    mine, theirs = both((32, 32), [nuclei((512, 640), radius, n)])
    one = MeanStdFilter(130)
    config = configs.MeanStdPatchFilterConfig(mean_threshold=130)
    report = filter_background(mine.strategy, mine.extractor, one)
    upstream_filter_background(config, theirs.strategy, theirs.extractor)
    assert 0.05 < report.n_kept / report.n_cells < 0.95
    assert mine.strategy.n_patches == theirs.strategy.n_patches
    # and with the same cells excluded
    mine, theirs = both((32, 32), [nuclei((512, 640), radius, n)])
    report = exclude_background(mine.strategy, mine.extractor, one)
    kept = report.kept[0, 0]
    theirs.strategy.exclude_patches(0, 0, cells(kept.shape, lambda *cell: not kept[cell]))
    assert mine.strategy.n_patches == theirs.strategy.n_patches == report.n_kept
