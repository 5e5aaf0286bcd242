"""Tiled samples to be stitched, with a value of its own in every pixel of every tile."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from hypothesis import strategies as st

from gpu_patch.tiling import BLENDS, Segment, tile_grid


@dataclass(frozen=True)
class Tiling:
    """A sample and its tiles."""

    size: tuple[int, ...]
    patch_size: tuple[int, ...]
    overlaps: tuple[int, ...]
    blend: str = "crop"
    slab_axis: int = 0
    n_channels: int = 1
    dtype: str = "float32"
    seed: int = 0

    @cached_property
    def grid(self):
        return tile_grid(self.size, self.patch_size, self.overlaps, self.blend, self.slab_axis)

    @cached_property
    def tiles(self):
        """All of them, in the order of the grid."""
        shape = (self.grid.n_tiles, self.n_channels, *self.patch_size)
        rng = np.random.default_rng(self.seed)
        return rng.normal(size=shape).astype(self.dtype)

    @cached_property
    def linear(self):
        """Scale and offset, one of them or none."""
        rng = np.random.default_rng(self.seed)
        found = {
            name: rng.normal(size=self.n_channels).astype(np.float32)
            for name in ("scale", "offset")
        }
        return {name: found[name] for name in [(), ("scale",), ("scale", "offset")][self.seed % 3]}

    @property
    def shape(self):
        return (self.n_channels, *self.size)

    def segment(self, slab, first=0, count=None, rows=None):
        """Some of the tiles; all of them, into the whole slab, where nothing else is said."""
        count = self.grid.n_tiles if count is None else count
        return Segment(slab, self.grid, first, count, rows or (0, self.size[self.slab_axis]))

    def through_a_ring(self, counts, stitch, array=np.asarray, to_host=np.asarray):
        """The image, from batches of so many tiles and a slab as small as can be."""
        grid, axis = self.grid, 1 + self.slab_axis
        firsts = np.cumsum(counts) - counts
        spans = [grid.slab_range(*batch) for batch in zip(firsts.tolist(), counts, strict=True)]
        shape = list(self.shape)
        shape[axis] = max(stop - start for start, stop in spans)
        slab = array(np.full(shape, np.nan, np.float32))
        image = np.moveaxis(np.full(self.shape, np.nan, np.float32), axis, 0)
        ends = [start for start, _ in spans[1:]] + [self.size[self.slab_axis]]
        for first, count, (start, _), end in zip(firsts.tolist(), counts, spans, ends, strict=True):
            tiles = array(self.tiles[first : first + count])
            stitch(tiles, [self.segment(slab, first, count)], **self.linear)
            # no later tile counts there
            done = np.arange(start, end)
            image[done] = np.moveaxis(to_host(slab), axis, 0)[done % shape[axis]]
        return np.moveaxis(image, 0, axis)


@st.composite
def tilings(draw, n_dims=None):
    """Small ones: tiles larger than the sample, and overlaps beyond half a tile, included."""
    n_dims = draw(st.sampled_from([2, 2, 3])) if n_dims is None else n_dims
    size = [draw(st.integers(1, 24 if n_dims == 2 else 8)) for _ in range(n_dims)]
    patch = [draw(st.integers(1, 10 if n_dims == 2 else 5)) for _ in range(n_dims)]
    overlaps = [draw(st.integers(0, p - 1)) for p in patch]
    return Tiling(
        tuple(size),
        tuple(patch),
        tuple(overlaps),
        draw(st.sampled_from(BLENDS)),
        draw(st.integers(0, n_dims - 1)),
        draw(st.integers(1, 3)),
        draw(st.sampled_from(["float32", "float32", "float16"])),
        draw(st.integers(0, 2**16)),
    )


@st.composite
def divided(draw):
    """A tiling, and how many of its tiles come at a time."""
    tiling = draw(tilings())
    counts, left = [], tiling.grid.n_tiles
    most = draw(st.sampled_from([1, 3, 10, 100]))
    while left:
        counts.append(draw(st.integers(1, min(left, most))) if len(counts) < 20 else left)
        left -= counts[-1]
    return tiling, counts


def with_values(tiling, tiles):
    """The same tiling with other tiles."""
    other = replace(tiling)
    other.__dict__["tiles"] = tiles
    return other
