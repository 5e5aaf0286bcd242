"""Running sums and means of sliding tiles: a loop over pixels and tiles in float64."""

from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tilings import Tiling

from gpu_patch import ops
from gpu_patch.sliding import sliding_grid


@dataclass(frozen=True)
class Sliding(Tiling):
    """A sample and its sliding tiles."""

    stride: tuple[int, ...] = (1, 1)

    @cached_property
    def grid(self):
        return sliding_grid(self.size, self.patch_size, self.overlaps, self.stride, self.slab_axis)

    def samples(self, n_samples):
        """All tiles several times, each time others."""
        rng = np.random.default_rng(self.seed)
        shape = (n_samples, self.grid.n_tiles, self.n_channels, *self.patch_size)
        return (rng.normal(size=shape) * 10 + 100).astype(self.dtype)


TWO = Sliding((37, 23), (16, 12), (5, 4), slab_axis=0, n_channels=2, seed=1, stride=(4, 3))
THREE = Sliding((9, 11, 13), (4, 5, 6), (2, 1, 4), slab_axis=1, seed=1, stride=(2, 3, 1))


def all_values(tiling, samples):
    """Of each pixel and channel the values that tiles have there, in order."""
    grid = tiling.grid
    found = {pixel: [] for pixel in np.ndindex(*tiling.size)}
    positions = grid.positions(np.arange(grid.n_tiles)).T.tolist()
    for tiles in samples:
        for tile, position in zip(tiles, positions, strict=True):
            ranges = [
                [p for p in range(n) if cover.first[p] <= i < cover.stop[p]]
                for n, cover, i in zip(tiling.size, grid.covers, position, strict=True)
            ]
            starts = [c.starts[i] for c, i in zip(grid.covers, position, strict=True)]
            for pixel in product(*ranges):
                inside = [p - s for p, s in zip(pixel, starts, strict=True)]
                found[pixel].append(tile[(slice(None), *inside)].astype(np.float64))
    return found


def expected_means(tiling, samples):
    """Means, and standard deviations after them."""
    image = np.zeros((2 * tiling.n_channels, *tiling.size))
    for pixel, values in all_values(tiling, samples).items():
        mean = np.mean(values, axis=0)
        std = np.std(values, axis=0, ddof=1) if len(values) > 1 else 0 * mean
        image[(slice(None), *pixel)] = np.concatenate([mean, std])
    return image


def through_a_ring(backend, tiling, samples, count, *, squares, height=None):
    """The image, from batches of so many tiles and a slab as small as can be."""
    grid, axis = tiling.grid, 1 + tiling.slab_axis
    length = tiling.size[tiling.slab_axis]
    firsts = list(range(0, grid.n_tiles, count))
    counts = [min(count, grid.n_tiles - first) for first in firsts]
    spans = [grid.slab_range(first, n) for first, n in zip(firsts, counts, strict=True)]
    shape = [(1 + squares) * tiling.n_channels, *tiling.size]
    ring = list(shape)
    ring[axis] = height or max(stop - start for start, stop in spans)
    image = np.full(shape, np.nan, np.float32)
    with backend.running():
        sums = backend.array(np.full(ring, np.nan))
        ends = [start for start, _ in spans[1:]] + [length]
        done = 0
        for first, n, end in zip(firsts, counts, ends, strict=True):
            for number, tiles in enumerate(samples):
                batch = backend.array(tiles[first : first + n])
                segments = [tiling.segment(sums, first, n)]
                ops.accumulate(batch, segments, squares=squares, again=number > 0)
            while done < end:
                stop = min(end, (done // ring[axis] + 1) * ring[axis])
                part = list(shape)
                part[axis] = stop - done
                out = backend.array(np.full(part, np.nan, np.float32))
                ops.means(sums, grid, (done, stop), out, n_samples=len(samples), squares=squares)
                image[(slice(None),) * axis + (slice(done, stop),)] = backend.to_host(out)
                done = stop
    return image


@pytest.mark.parametrize(("n_samples", "count"), [(1, 1), (3, 7), (1, 10_000)])
@pytest.mark.parametrize("tiling", [TWO, THREE])
def test_means_and_deviations_of_all_tiles(backend, tiling, n_samples, count):
    samples = tiling.samples(n_samples)
    expected = expected_means(tiling, samples)
    found = through_a_ring(backend, tiling, samples, count, squares=True)
    # float32 has 6e-8 of 100
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    alone = through_a_ring(backend, tiling, samples, count, squares=False)
    np.testing.assert_array_equal(alone, found[: tiling.n_channels])


@st.composite
def slidings(draw):
    n_dims = draw(st.sampled_from([2, 2, 3]))
    patch = [draw(st.integers(1, 9 if n_dims == 2 else 4)) for _ in range(n_dims)]
    overlaps = [draw(st.integers(0, p - 1)) for p in patch]
    return Sliding(
        tuple(draw(st.integers(1, 17 if n_dims == 2 else 7)) for _ in range(n_dims)),
        tuple(patch),
        tuple(overlaps),
        slab_axis=draw(st.integers(0, n_dims - 1)),
        n_channels=draw(st.integers(1, 3)),
        dtype=draw(st.sampled_from(["float32", "float16"])),
        seed=draw(st.integers(0, 99)),
        stride=tuple(draw(st.integers(1, p - o)) for p, o in zip(patch, overlaps, strict=True)),
    )


@settings(max_examples=60, deadline=None)
@given(tiling=slidings(), count=st.sampled_from([1, 3, 10, 1000]), n_samples=st.integers(1, 2))
def test_any_tiling_any_batch(backend, tiling, count, n_samples):
    samples = tiling.samples(n_samples)
    found = through_a_ring(backend, tiling, samples, count, squares=True)
    expected = expected_means(tiling, samples)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)
    if n_samples == 1:  # the same bits, however tiles are divided
        whole = through_a_ring(backend, tiling, samples, 10_000, squares=True)
        np.testing.assert_array_equal(found, whole)


@settings(max_examples=40, deadline=None)
@given(tiling=slidings(), count=st.sampled_from([1, 5, 1000]))
def test_the_same_bits_as_numpys(backend, tiling, count):
    from backends import Backend

    samples = tiling.samples(2)
    found = through_a_ring(backend, tiling, samples, count, squares=True)
    expected = through_a_ring(Backend(), tiling, samples, count, squares=True)
    np.testing.assert_array_equal(found.view(np.uint32), expected.view(np.uint32))


def test_a_sum_of_float32_would_not_do(backend):
    """What float32 sums lose: a large value among many small ones."""
    tiling = Sliding((12, 12), (8, 8), (0, 0), stride=(1, 1))
    samples = tiling.samples(1)
    samples[:, ::2] += 1e7
    found = through_a_ring(backend, tiling, samples, 9, squares=False)
    expected = expected_means(tiling, samples)[:1]
    np.testing.assert_array_equal(found, expected.astype(np.float32))


def test_subnormal_numbers_and_what_is_not_finite(backend):
    tiling = Sliding((9, 9), (4, 4), (0, 0), stride=(2, 2))
    samples = np.full_like(tiling.samples(1), 1e-40)
    samples[0, 7, 0, 1, 2] = np.inf
    samples[0, 21, 0, 1, 2] = np.nan
    found = through_a_ring(backend, tiling, samples, 4, squares=False)
    assert np.isinf(found).sum() == 1
    assert np.isnan(found).sum() == 1
    assert (found[np.isfinite(found)] == np.float32(1e-40)).all()


def test_only_the_rows_asked_for(backend):
    for tiling in (TWO, THREE):
        axis, samples = tiling.slab_axis, tiling.samples(1)
        expected = through_a_ring(backend, tiling, samples, 1000, squares=True)
        cover, layer = tiling.grid.covers[axis], tiling.grid.strides[axis]
        start, stop = 4, 8
        first = int(cover.first[start]) * layer
        count = int(cover.stop[stop - 1]) * layer - first
        shape = [2 * tiling.n_channels, *tiling.size]
        with backend.running():
            sums = backend.array(np.full(shape, 7.0))
            tiles = backend.array(samples[0, first : first + count])
            segment = tiling.segment(sums, first, count, (start, stop))
            ops.accumulate(tiles, [segment], squares=True)
            shape[1 + axis] = stop - start
            out = backend.array(np.full(shape, np.nan, np.float32))
            ops.means(sums, tiling.grid, (start, stop), out, n_samples=1, squares=True)
            found, sums = backend.to_host(out), backend.to_host(sums)
        np.testing.assert_array_equal(
            np.moveaxis(found, 1 + axis, 0), np.moveaxis(expected, 1 + axis, 0)[start:stop]
        )
        assert (np.delete(sums, np.arange(start, stop), axis=1 + axis) == 7).all()


def test_what_does_not_fit_is_refused():
    tiles = TWO.samples(1)[0]
    sums = np.zeros((2, *TWO.size))
    with pytest.raises(ValueError, match=r"slab must be C-contiguous float64, found float32"):
        ops.accumulate(tiles, [TWO.segment(sums.astype(np.float32))])
    with pytest.raises(ValueError, match=r"slab must have the shape \(4, 37, 23\)"):
        ops.accumulate(tiles, [TWO.segment(sums)], squares=True)
    with pytest.raises(TypeError, match="tiles must be NumPy or CuPy arrays"):
        ops.accumulate([1.0], [TWO.segment(sums)])
    good = {"n_samples": 1, "squares": False}
    out = np.zeros((2, 5, 23), np.float32)
    with pytest.raises(ValueError, match=r"out must be float32 of the shape \(2, 6, 23\)"):
        ops.means(sums, TWO.grid, (0, 6), out, **good)
    with pytest.raises(ValueError, match=r"rows must be of the image"):
        ops.means(sums, TWO.grid, (35, 40), out, **good)
    with pytest.raises(ValueError, match=r"not wrap in 7 rows, found \(4, 9\)"):
        ops.means(sums[:, :7], TWO.grid, (4, 9), out, **good)
