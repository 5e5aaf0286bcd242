"""SwitiPatching against loops over every place that a tile may have, and stride_for likewise."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_patch import SwitiPatching, stride_for
from gpu_patch.sliding import sliding_cover


def tiles(n, patch, overlap, stride):
    """(start, crop, kept, stitch): every place is tried, far beyond the image on both sides."""
    if n <= patch:
        return [(0, 0, n, 0)]
    found = []
    for i in range(-3 * (patch + stride), n + 3 * (patch + stride)):
        kept = [x for x in range(i + overlap // 2, i + patch - overlap // 2) if 0 <= x < n]
        if i % stride == 0 and kept:
            start = min(max(i, 0), n - patch)
            found.append((start, kept[0] - start, len(kept), kept[0]))
    return found


def expected_specs(shapes, patch_size, overlaps, stride):
    for data_idx, (n_samples, _, *size) in enumerate(shapes):
        axes = [tiles(*numbers) for numbers in zip(size, patch_size, overlaps, stride, strict=True)]
        names = ("coords", "crop_coords", "crop_size", "stitch_coords")
        for sample_idx in range(n_samples):
            for place in product(*axes):
                yield {
                    "data_idx": data_idx,
                    "sample_idx": sample_idx,
                    "patch_size": patch_size,
                    **dict(zip(names, zip(*place, strict=True), strict=True)),
                    "total_tiles": n_samples * int(np.prod([*map(len, axes)])),
                }


RAGGED = [(2, 1, 20, 33), (1, 1, 7, 50), (3, 1, 8, 8), (1, 1, 5, 4), (1, 2, 9, 9)]
cases = pytest.mark.parametrize(
    ("shapes", "patch_size", "overlaps", "stride"),
    [
        (RAGGED, (8, 8), (4, 4), (2, 2)),
        (RAGGED, (8, 8), (4, 2), (4, 6)),  # inner tiling
        (RAGGED, (8, 9), (3, 1), (2, 3)),  # odd overlaps; strides that do not divide
        (RAGGED, (8, 8), (0, 0), (3, 8)),
        (RAGGED, (8, 8), (7, 6), (1, 2)),
        (RAGGED, (64, 6), (32, 4), (5, 1)),
        (RAGGED, (1, 1), (0, 0), (1, 1)),
        ([(1, 3, 6, 20, 17), (2, 3, 9, 9, 9)], (4, 8, 5), (2, 4, 0), (1, 3, 2)),
        ([(2, 1, 3, 4, 20)], (4, 8, 8), (1, 2, 6), (2, 3, 1)),
    ],
)


@cases
def test_equal_to_trying_every_place(shapes, patch_size, overlaps, stride):
    strategy = SwitiPatching(shapes, patch_size, overlaps, stride)
    expected = list(expected_specs(shapes, patch_size, overlaps, stride))
    assert strategy.n_patches == len(expected)
    found = [strategy.get_patch_spec(i) for i in range(strategy.n_patches)]
    assert found == expected
    assert {type(n) for spec in found for n in spec["coords"] + spec["crop_size"]} == {int}
    for data_idx in range(len(shapes)):
        indices = [i for i, spec in enumerate(expected) if spec["data_idx"] == data_idx]
        assert strategy.get_patch_indices(data_idx) == indices


@st.composite
def axes(draw):
    patch = draw(st.integers(1, 12))
    overlap = draw(st.integers(0, patch - 1))
    return draw(st.integers(1, 40)), patch, overlap, draw(st.integers(1, patch - overlap))


@given(axis=axes())
def test_the_tiles_that_count_are_those_that_keep_a_pixel(axis):
    n, patch, overlap, stride = axis
    found, cover = tiles(*axis), sliding_cover(*axis)
    for x in range(n):
        keep = [t for t, (_, _, kept, at) in enumerate(found) if at <= x < at + kept]
        assert keep == list(range(cover.first[x], cover.stop[x]))
        assert len(keep) >= ((patch - overlap) // stride if n > patch else 1)
    weights = np.zeros((len(found), patch), np.float32)
    for t, (_, crop, kept, at) in enumerate(found):
        counts = (cover.stop - cover.first)[at : at + kept]
        weights[t, crop : crop + kept] = 1 / counts
    np.testing.assert_array_equal(cover.weights, weights)


def test_a_large_image_is_planned_without_its_tiles():
    strategy = SwitiPatching([(1, 1, 30_000, 30_000)], (64, 64), (32, 32), (1, 1))
    assert strategy.n_patches == (30_000 + 31) ** 2
    last = strategy.get_patch_spec(-1)
    assert last["coords"] == (29_936, 29_936)
    assert (last["crop_coords"], last["crop_size"]) == ((63, 63), (1, 1))


@pytest.mark.parametrize("n_draws", [1, 2, 3, 4, 5, 9, 10, 16, 50, 64, 100, 800])
@pytest.mark.parametrize("sizes", [((64, 64), (32, 32)), ((40, 33), (7, 0))])
def test_stride_for_is_the_largest(n_draws, sizes):
    kept = [p - o for p, o in zip(*sizes, strict=True)]
    enough = [s for s in range(1, min(kept) + 1) if (kept[0] // s) * (kept[1] // s) >= n_draws]
    assert stride_for(n_draws, *sizes) == (max(enough),) * 2


def test_stride_for_in_3d_keeps_z():
    assert stride_for(64, (16, 64, 64), (8, 32, 32)) == (8, 4, 4)
    assert stride_for(64, (16, 64, 64), (8, 32, 32), z_stride=2) == (2, 8, 8)
    assert stride_for(64, (16, 64, 64), (8, 32, 32), z_stride=3) == (3, 5, 5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: stride_for(1025, (64, 64), (32, 32)), "n_draws must be at most 1024, .* 1025"),
        (lambda: stride_for(0, (64, 64), (32, 32)), "n_draws must be .* at least 1"),
        (lambda: stride_for(4, (64,), (32,)), "patch_size must have 2 or 3 numbers"),
        (lambda: stride_for(4, (8, 8), (4, 4), z_stride=1), "z_stride is for images with Z"),
        (lambda: stride_for(4, (8, 8, 8), (4, 4, 4), z_stride=5), "z_stride must be .* 4"),
        (
            lambda: SwitiPatching([(1, 1, 9, 9)], (8, 8), (4, 4), (4, 5)),
            r"stride\[1\] must be at most patch_size\[1\] − overlaps\[1\] = 4, .* found 5",
        ),
        (lambda: SwitiPatching([(1, 1, 9, 9)], (8, 8), (4, 4), (4, 0)), r"stride\[1\] must be"),
        (lambda: SwitiPatching([(1, 1, 9, 9)], (8, 8), (4, 4), (4,)), "stride must "),
        (lambda: SwitiPatching([(1, 1, 9, 9)], (8, 8), (8, 4), (1, 1)), r"overlaps\[0\]"),
    ],
)
def test_bad_sizes_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
