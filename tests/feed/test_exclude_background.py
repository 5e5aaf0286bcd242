"""What becomes of strategies without background, what is refused, and bars of progress."""

from __future__ import annotations

import sys
from math import ceil
from types import SimpleNamespace

import numpy as np
import pytest
from coverages import careamics_starts, coverage_of, expected_starts, included_pixels
from filtering import assert_undecided, blotches, expected_grids, patch_sizes, ragged
from worlds import PATCH, SHAPES, constructor, images, world

from gpu_patch import ImageStack, PatchExtractor, StratifiedPatching
from gpu_patch.feed import (
    MaskFilter,
    MaxFilter,
    exclude_background,
    filter_background,
    find_background,
)
from gpu_patch.feed import (
    cells as cells_module,
)

# ---- what becomes of the strategy --------------------------------------------------------------


def patches_of(strategy, n_epochs=20):
    uniforms = np.random.default_rng(0)
    index = np.tile(np.arange(strategy.n_patches), n_epochs)
    places = strategy.locate(index, uniforms.random((strategy.n_uniforms, len(index))))
    return zip(places.data_idx, places.sample_idx, places.coords.tolist(), strict=True)


def is_within(maps, data_idx, sample_idx, coords, patch_size):
    """Whether all of a patch, as far as there is an image, is marked."""
    window = tuple(slice(c, c + p) for c, p in zip(coords, patch_size, strict=True))
    return bool(maps[data_idx][sample_idx][window].all())


@patch_sizes
def test_no_patch_touches_a_cell_that_is_background(patch_size):
    case = ragged(patch_size)
    before = case.strategy.n_patches
    report = exclude_background(case.strategy, case.extractor, MaskFilter(0.3))
    assert_undecided(report.kept)
    assert case.strategy.n_patches < before
    maps = report.maps()
    assert all(is_within(maps, *place, patch_size) for place in patches_of(case.strategy))
    included = case.strategy.get_included_grid_coords()
    assert included == {
        sample: [tuple(cell) for cell in np.argwhere(grid).tolist()]
        for sample, grid in report.kept.items()
    }


@pytest.mark.parametrize("prob", [None, 0.2, 0, 1])
@patch_sizes
def test_patches_rarely_start_where_their_region_is_background(patch_size, prob):
    case, expected = ragged(patch_size), ragged(patch_size)
    before = case.strategy.n_patches
    options = {} if prob is None else {"filtered_patch_prob": prob}
    report = filter_background(case.strategy, case.extractor, MaskFilter(0.3), **options)
    for sample, grid in expected_grids(case, MaskFilter(0.3), 0, regions=True).items():
        probs = dict.fromkeys(zip(*np.where(~grid), strict=True), 0.1 if prob is None else prob)
        expected.strategy.set_region_probs(*sample, probs)
    assert case.strategy.n_patches == expected.strategy.n_patches
    if prob in (0, 1):
        assert (case.strategy.n_patches < before) == (prob == 0)
    indices = range(case.strategy.n_patches)
    assert [*map(case.strategy.get_patch_spec, indices)] == [
        *map(expected.strategy.get_patch_spec, indices)
    ]
    if prob == 0:
        assert all(
            report.kept[data_idx, sample_idx][tuple(np.array(coords) // patch_size)]
            for data_idx, sample_idx, coords in patches_of(case.strategy)
        )


def discs(shape, radius, n):
    """A mask of discs at random places, as nuclei or colonies."""
    rng = np.random.default_rng([radius, n])
    mask = np.zeros(shape, np.uint8)
    y, x = np.ogrid[: shape[0], : shape[1]]
    for cy, cx in rng.random((n, 2)) * shape:
        mask[(y - cy) ** 2 + (x - cx) ** 2 < radius**2] = 1
    return mask


@pytest.mark.parametrize("shape", [(512, 640), (500, 650)])
@pytest.mark.parametrize(("radius", "n"), [(20, 12), (20, 60), (70, 9)])
def test_an_epoch_without_background_goes_over_the_signal_once(radius, n, shape):
    image = ImageStack.from_array(discs(shape, radius, n), "YX", device="cpu")
    extractor, patch_size = PatchExtractor([image]), (32, 32)
    strategy = StratifiedPatching(extractor.shapes, patch_size, seed=0)
    report = exclude_background(strategy, extractor, MaskFilter(0.05), progress=False)
    kept = report.kept[0, 0]
    off = [tuple(cell) for cell in np.argwhere(~kept).tolist()]
    assert 0.05 < kept.mean() < 0.95
    included = included_pixels(shape, patch_size, off)
    assert strategy.n_patches == -(-included.sum() // 32**2)
    theirs = careamics_starts(shape, patch_size, off)
    if shape == (512, 640):  # elsewhere they count an excluded remainder as a whole cell
        assert strategy.n_patches == round(theirs.sum()) == report.n_kept
    errors = [
        ((coverage_of(starts, patch_size)[included] - 1) ** 2).mean() ** 0.5
        for starts in (expected_starts(strategy, shape), theirs)
    ]
    assert errors[0] < 0.5 * errors[1]


@pytest.mark.parametrize("prob", [0.1, 0.5])
def test_rare_background_counts_by_its_probability(prob):
    shape, patch_size = (512, 640), (32, 32)
    image = ImageStack.from_array(discs(shape, 60, 9), "YX", device="cpu")
    extractor = PatchExtractor([image])
    strategy = StratifiedPatching(extractor.shapes, patch_size, seed=0)
    report = filter_background(
        strategy, extractor, MaskFilter(0.05), filtered_patch_prob=prob, progress=False
    )
    rare = {tuple(cell): prob for cell in np.argwhere(~report.kept[0, 0]).tolist()}
    assert 20 < len(rare) < 300
    theirs = careamics_starts(shape, patch_size, probs=rare)
    assert strategy.n_patches == round(theirs.sum())
    assert strategy.n_patches == ceil(320 - (1 - prob) * len(rare) - 1e-9)


def masks(shapes, seed):
    """Masks for the images of `worlds`, with whole cells off."""
    arrays = [blotches((s, 1, *size), "uint8", seed) for s, *size in shapes]
    return PatchExtractor([ImageStack.from_array(a, "SCYX", device="cpu") for a in arrays])


@pytest.mark.parametrize("name", ["basic", "multichannel", "paired", "pred"])
@pytest.mark.parametrize("run", [exclude_background, filter_background])
def test_every_constructor_keeps_to_signal(name, run):
    w = world()
    strategy = StratifiedPatching(w.one.shapes, PATCH, seed=1)
    made = constructor(w, name, patching_strategy=strategy)
    before = made.n_patches
    zero = {"filtered_patch_prob": 0} if run is filter_background else {}
    report = run(strategy, masks(SHAPES, 0), MaskFilter(0.4), **zero)
    assert_undecided(report.kept)
    assert made.n_patches < before
    maps, drawn = report.maps(), []
    for epoch in range(5):
        drawn += made.construct_batch(range(made.n_patches), epoch=epoch).specs
    drawn += [made.construct_patch(i)[2] for i in range(made.n_patches)]
    n_channels = 2 if any("all_coords" in spec for spec in drawn) else 1
    assert n_channels == (2 if name == "multichannel" else 1)
    for spec in drawn:
        plain = [[spec["data_idx"]], [spec["sample_idx"]], [spec["coords"]]]
        places = [spec.get(f"all_{key}") for key in ("data_idx", "sample_idx", "coords")]
        for place in zip(*(plain if places[0] is None else places), strict=True):
            assert is_within(maps, *place, PATCH)


def test_each_source_of_independent_targets_keeps_to_its_own_signal():
    w = world()
    shapes = [SHAPES, [(3, 16, 14)]]
    strategies = [StratifiedPatching(e.shapes, PATCH, seed=1) for e in (w.one, w.actin)]
    made = constructor(w, "independent", patching_strategies=strategies)
    maps = [
        exclude_background(strategy, masks(shape, 1 + i), MaskFilter(0.4)).maps()
        for i, (strategy, shape) in enumerate(zip(strategies, shapes, strict=True))
    ]
    for epoch in range(20):
        for spec in made.construct_batch(range(made.n_patches), epoch=epoch).specs:
            places = zip(
                spec["all_data_idx"], spec["all_sample_idx"], spec["all_coords"], strict=True
            )
            assert all(is_within(m, *p, PATCH) for m, p in zip(maps, places, strict=True))
    assert not all(part.all() for source in maps for part in source)


def test_a_second_filter_adds_to_the_first():
    case, one = ragged((4, 6)), ragged((4, 6))
    first = exclude_background(case.strategy, case.extractor, MaskFilter(0.2))
    second = exclude_background(case.strategy, case.extractor, MaskFilter(0.2), ref_channel=1)
    both = exclude_background(
        one.strategy, one.extractor, MaskFilter(0.2), ref_channel=[0, 1], keep="all"
    )
    assert both.n_kept < min(first.n_kept, second.n_kept)
    assert case.strategy.get_included_grid_coords() == one.strategy.get_included_grid_coords()


# ---- what goes wrong ---------------------------------------------------------------------------


def snapshot(strategy):
    return (
        strategy.n_patches,
        strategy.get_included_grid_coords(),
        strategy.rng.bit_generator.state,
        list(patches_of(strategy, 2)),
    )


@pytest.mark.parametrize("run", [exclude_background, filter_background])
def test_nothing_changes_where_nothing_would_be_left(run):
    case = ragged((4, 6))
    before = snapshot(case.strategy)
    with pytest.raises(ValueError, match=r"no signal in any of the .* cells.*lower its thresholds"):
        run(case.strategy, case.extractor, MaxFilter(1e6))
    assert snapshot(case.strategy) == before


@pytest.mark.parametrize("run", [exclude_background, filter_background])
def test_nothing_changes_where_no_patch_would_fit(run):
    array = np.zeros((8, 12))
    array[:, :6] = 1
    extractor = PatchExtractor([ImageStack.from_array(array, "YX", device="cpu")])
    strategy = StratifiedPatching(extractor.shapes, (4, 6))
    strategy.exclude_patches(0, 0, [(0, 0), (1, 0)])
    before = snapshot(strategy)
    options = {"filtered_patch_prob": 0} if run is filter_background else {}
    with pytest.raises(ValueError, match=r"keeps \d of 4 cells, but no patch fits"):
        run(strategy, extractor, MaskFilter(0.3), **options)
    assert snapshot(strategy) == before


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"patching_strategy": None}, TypeError, "must be a StratifiedPatching, .* found None"),
        ({"extractor": "images"}, TypeError, "extractor must be a PatchExtractor, found 'images'"),
        ({"extractor": images(1, np.uint8)}, ValueError, "patching_strategy was made for"),
        ({"patch_filter": 3}, TypeError, "patch_filter must be a sequence of a PatchFilter"),
        ({"patch_filter": [3]}, TypeError, r"patch_filter\[0\] must be a PatchFilter, found 3"),
        ({"patch_filter": MaxFilter}, TypeError, "patch_filter must be"),
        ({"patch_filter": []}, ValueError, "at least one filter and channel"),
        ({"ref_channel": []}, ValueError, "at least one filter and channel"),
        ({"ref_channel": 2}, ValueError, "ref_channel must be .* at most 1, found 2"),
        ({"ref_channel": [0, -1]}, ValueError, "ref_channel must be .* at least 0 .*, found -1"),
        ({"ref_channel": "a"}, TypeError, "ref_channel must be a whole number"),
        (
            {"patch_filter": [MaskFilter()] * 3, "ref_channel": [0, 1]},
            ValueError,
            "one for each of the 2 channels of ref_channel, found 3",
        ),
        ({"keep": "most"}, ValueError, "keep must be one of 'any', 'all', found 'most'"),
        ({"filtered_patch_prob": 2}, ValueError, "filtered_patch_prob must be in"),
    ],
)
def test_arguments_are_checked(changes, error, words):
    case = ragged((4, 6))
    before = snapshot(case.strategy)
    arguments = {
        "patching_strategy": case.strategy,
        "extractor": case.extractor,
        "patch_filter": MaskFilter(),
    }
    with pytest.raises(error, match=words):
        filter_background(**{**arguments, **changes})
    assert snapshot(case.strategy) == before


# ---- progress ----------------------------------------------------------------------------------


@pytest.mark.parametrize("progress", [True, False])
def test_progress(progress, monkeypatch):
    shown = []

    class Bar:
        def __init__(self, total, **options):
            shown.append([total])

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def update(self, n):
            shown[0].append(n)

    monkeypatch.setitem(sys.modules, "tqdm.auto", SimpleNamespace(tqdm=Bar))
    monkeypatch.setattr(cells_module, "_HOST_BYTES", 2000)
    case = ragged((4, 6))
    report = exclude_background(case.strategy, case.extractor, MaskFilter(0.3), progress=progress)
    if not progress:
        assert not shown
        return
    ((total, *steps),) = shown
    assert total == report.n_cells == sum(steps)
    assert len(steps) > 5


def test_progress_without_tqdm(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    case = ragged((4, 6))
    assert find_background(case.strategy, case.extractor, MaskFilter(0.3)).n_cells
