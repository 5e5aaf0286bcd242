"""What of images the filters are shown, on every device, and the maps and reports made of it."""

from __future__ import annotations

import sys
from math import prod

import numpy as np
import pytest
from emulation import fake_cupy
from emulation.gpu import gpu
from emulation.runtime import available
from filtering import assert_undecided, expected_grids, looked_at, patch_sizes, ragged
from pixels import DTYPES

import gpu_patch
from gpu_patch.feed import (
    FilterReport,
    MaskFilter,
    MaxFilter,
    MeanStdFilter,
    ShannonFilter,
    find_background,
    score_maps,
)
from gpu_patch.feed import (
    cells as cells_module,
)

# ---- what of the images is looked at -----------------------------------------------------------


@pytest.fixture
def computing_device(backend, device, monkeypatch):
    """Where images are; the stand-in for CuPy computes by NumPy."""
    if backend.name == "emulated":
        let_the_fake_compute(sys.modules["cupy"], monkeypatch)
    return device


def let_the_fake_compute(cupy, monkeypatch):
    """Give the stand-in what filters use, from NumPy."""

    def on_device(function):
        def call(*arguments, **options):
            gpu.record("launch", "of CuPy")
            gpu.stream.run()
            plain = {name: pixels(value) for name, value in options.items()}
            made = function(*map(pixels, arguments), **plain)
            if isinstance(made, tuple):
                return tuple(map(fake_cupy._filled, made))
            return fake_cupy._filled(np.asarray(made))

        return call

    def pixels(value):
        if isinstance(value, list):
            return [pixels(item) for item in value]
        return value._pixels if isinstance(value, fake_cupy.FakeArray) else value

    functions = "sort where pad maximum log2 flatnonzero concatenate full ones bincount unique"
    for name in functions.split():
        monkeypatch.setattr(cupy, name, on_device(getattr(np, name)), raising=False)
    operators = "eq ne gt ge and or add sub rsub mul truediv floordiv mod pow neg"
    methods = [f"__{name}__" for name in operators.split()] + ["sum", "mean", "any", "swapaxes"]
    for name in methods:
        method = on_device(getattr(np.ndarray, name))
        monkeypatch.setattr(fake_cupy.FakeArray, name, method, raising=False)


FILTERS = [
    MaxFilter(60, 0.5),
    MeanStdFilter(18, 20),
    ShannonFilter(3.3),
    MaskFilter(0.45),
]
filters = pytest.mark.parametrize("one", FILTERS, ids=lambda one: type(one).__name__)
windows = pytest.mark.parametrize("regions", [True, False], ids=["regions", "cells"])


def assert_same_grids(found, expected):
    assert list(found) == list(expected)
    for sample, grid in expected.items():
        assert found[sample].dtype == bool
        np.testing.assert_array_equal(found[sample], grid, err_msg=str(sample))


@windows
@filters
@patch_sizes
def test_what_is_found(patch_size, one, regions, computing_device):
    case = ragged(patch_size, computing_device)
    for channel in (0, 1):
        found = find_background(
            case.strategy, case.extractor, one, ref_channel=channel, regions=regions
        )
        expected = expected_grids(case, one, channel, regions)
        assert_same_grids(found.kept, expected)
    assert_undecided(expected)


@pytest.mark.parametrize("dtype", DTYPES)
@filters
def test_images_of_every_data_type(dtype, one, computing_device):
    case = ragged((4, 6), computing_device, [dtype])
    found = find_background(case.strategy, case.extractor, one)
    assert_same_grids(found.kept, expected_grids(case, one, 0, regions=True))


@windows
@patch_sizes
def test_any_and_all_of_several_filters(patch_size, regions, computing_device):
    case = ragged(patch_size, computing_device)
    a, b = MaxFilter(60, 0.5), MaskFilter(0.45)

    def combined(*pairs, how):
        grids = [expected_grids(case, one, channel, regions) for one, channel in pairs]
        return {sample: how([grid[sample] for grid in grids]) for sample in grids[0]}

    def find(*arguments, **options):
        return find_background(
            case.strategy, case.extractor, *arguments, regions=regions, **options
        ).kept

    def any_of(grids):
        return np.any(grids, axis=0)

    def all_of(grids):
        return np.all(grids, axis=0)

    cases = [
        (find(a, ref_channel=[1, 0]), combined((a, 1), (a, 0), how=any_of)),
        (find(a, ref_channel=(0, 1), keep="all"), combined((a, 0), (a, 1), how=all_of)),
        (find([a, b], ref_channel=[1, 0]), combined((a, 1), (b, 0), how=any_of)),
        (find([a, b], ref_channel=[1, 0], keep="all"), combined((a, 1), (b, 0), how=all_of)),
        (find([a, b], keep="all"), combined((a, 0), (b, 0), how=all_of)),
        (find([a, b], ref_channel=1, keep="any"), combined((a, 1), (b, 1), how=any_of)),
    ]
    for found, expected in cases:
        assert_same_grids(found, expected)
    n_kept = [sum(int(grid.sum()) for grid in expected.values()) for _, expected in cases]
    assert n_kept[0] > n_kept[1]
    assert n_kept[2] > n_kept[3]


@windows
@filters
def test_chunks_change_nothing_and_are_bounded(one, regions, monkeypatch):
    case = ragged((4, 6))
    expected = find_background(case.strategy, case.extractor, one, regions=regions)
    sizes = []

    def gather(images, rows, size):
        sizes.append(prod(rows.shape) * prod(size) * 4)
        return gpu_patch.ops.gather(images, rows, size)

    monkeypatch.setattr(cells_module, "gather", gather)
    for n_bytes, n_channels in ((1000, 1), (5000, 2), (1, 1)):
        sizes.clear()
        monkeypatch.setattr(cells_module, "_HOST_BYTES", n_bytes)
        found = find_background(
            case.strategy, case.extractor, one, ref_channel=[0] * n_channels, regions=regions
        )
        assert_same_grids(found.kept, expected.kept)
        one_window = 4 * prod((4, 6)) * (4 if regions else 1)
        assert max(sizes) <= max(n_bytes, one_window)
        assert len(sizes) > 1


@pytest.mark.skipif(not available(), reason="needs a C++ compiler")
@filters
def test_only_the_decisions_leave_the_device(one, monkeypatch):
    with fake_cupy.installed() as cupy:
        let_the_fake_compute(cupy, monkeypatch)
        gpu.n_devices = 2
        case = ragged((4, 6), "cuda:1")  # not the current one
        gpu.log.clear()
        report = find_background(case.strategy, case.extractor, one, ref_channel=[0, 1])
        downloaded = sum(action.what for action in gpu.log if action.kind == "download")
        assert downloaded == report.n_cells
        assert {action.device for action in gpu.log} == {1}
    expected = find_background(case.strategy, ragged((4, 6)).extractor, one, ref_channel=[0, 1])
    assert_same_grids(report.kept, expected.kept)


# ---- maps and reports --------------------------------------------------------------------------


def painted(case, values, regions, largest):
    """Each pixel's largest value of the windows it lies in."""
    maps = [np.full((a.shape[0], *a.shape[2:]), largest) for a in case.arrays]
    for (data_idx, sample_idx), grid in values.items():
        for cell in np.ndindex(grid.shape):
            window = tuple(
                slice(c * p, (c + (2 if regions else 1)) * p)
                for c, p in zip(cell, case.strategy.patch_size, strict=True)
            )
            part = maps[data_idx][sample_idx][window]
            np.maximum(part, grid[cell], out=part)
    return maps


@windows
@patch_sizes
def test_maps_show_what_is_kept(patch_size, regions):
    case = ragged(patch_size)
    report = find_background(case.strategy, case.extractor, FILTERS[0], regions=regions)
    expected = painted(case, report.kept, regions, False)
    for found, wanted in zip(report.maps(), expected, strict=True):
        assert found.dtype == bool
        np.testing.assert_array_equal(found, wanted)


@filters
@patch_sizes
def test_maps_of_scores_show_what_any_threshold_would_keep(patch_size, one, computing_device):
    case = ragged(patch_size, computing_device)
    maps = score_maps(case.strategy, case.extractor, one, ref_channel=1)
    assert [list(of_stack) for of_stack in maps] == [list(maps[0])] * len(case.arrays)
    for name in maps[0]:
        grids = {}
        for sample, kept in find_background(case.strategy, case.extractor, one).kept.items():
            grids[sample] = np.zeros(kept.shape)
            for cell in np.ndindex(kept.shape):
                window = looked_at(
                    case.arrays[sample[0]], sample[1], 1, cell, patch_size, regions=True
                )
                grids[sample][cell] = one.scores(window[None])[name][0]
        expected = painted(case, grids, True, -np.inf)
        for found, wanted in zip(maps, expected, strict=True):
            np.testing.assert_allclose(found[name], wanted, rtol=1e-6, atol=1e-12)


def test_a_report_can_be_read():
    case = ragged((4, 6))
    report = find_background(case.strategy, case.extractor, FILTERS[0], regions=False)
    counts = [
        (sum(int(g.sum()) for (d, _), g in report.kept.items() if d == i), n)
        for i, n in enumerate([12, 15, 6, 2, 3])
    ]
    assert report.n_cells == 38
    assert report.n_kept == sum(n_kept for n_kept, _ in counts)
    assert repr(report).splitlines() == [
        f"FilterReport: {report.n_kept} of 38 cells kept",
        *(f"  image stack {i}: {n_kept} of {n}" for i, (n_kept, n) in enumerate(counts)),
    ]


def test_a_report_of_many_images_is_cut():
    kept = {(i, 0): np.array([[True, False]]) for i in range(25)}
    report = FilterReport(kept, [(1, 1, 4, 12)] * 25, (4, 6), True)
    lines = repr(report).splitlines()
    assert lines[0] == "FilterReport: 25 of 50 regions kept"
    assert lines[-2:] == ["  image stack 9: 1 of 2", "  … and 15 more image stacks"]
