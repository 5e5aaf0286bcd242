"""The cells of stratified patching: what is looked at for each, and maps of what was found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from math import prod
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gpu_patch.device import is_cuda_array
from gpu_patch.feed.team import Team
from gpu_patch.images import PatchExtractor
from gpu_patch.locations import Locations
from gpu_patch.ops import gather
from gpu_patch.patching import StratifiedPatching
from gpu_patch.progress import progress_bar
from gpu_patch.sources import ChannelSources

_HOST_BYTES, _DEVICE_BYTES = 1 << 20, 1 << 26
"""Bytes of pixels looked at in one go, as float32: what a cache holds, and what fills a GPU.

What filters compute on the way takes a few times this.
"""

Sample: TypeAlias = tuple[int, int]
"""(data_idx, sample_idx)."""


class CellWindows:
    """What is looked at, for each cell of a strategy.

    Parameters
    ----------
    strategy : StratifiedPatching
        Its cells.
    regions : bool
        Regions that patches starting in a cell touch, or cells, which are cut to the image.
    """

    def __init__(self, strategy: StratifiedPatching, regions: bool) -> None:
        patch = np.array(strategy.patch_size)
        self._shapes: dict[Sample, tuple[int, ...]] = {}
        starts, sizes = [], []
        for sample, cells in strategy.get_all_grid_coords().items():
            shape = np.array(strategy.data_shapes[sample[0]][2:])
            start = np.array(cells) * patch
            if regions:  # without cells behind the last pixel at which a patch can start
                start = start[(start <= np.maximum(shape - patch, 0)).all(axis=1)]
                size = np.broadcast_to(2 * patch, start.shape)
            else:
                size = np.minimum(patch, shape - start)
            starts.append(start)
            sizes.append(size)
            self._shapes[sample] = tuple((start[-1] // patch + 1).tolist())
        samples = np.repeat([*self._shapes], list(map(len, starts)), axis=0)
        self._data_idx, self._sample_idx = samples.T
        self._start, self._size = np.concatenate(starts), np.concatenate(sizes)

    def measure(
        self,
        extractor: PatchExtractor,
        channels: Sequence[int],
        function: Callable[[Any], dict[str, Any]],
        progress: bool,
        team: Team,
    ) -> dict[str, NDArray[Any]]:
        """Return what `function` makes of the windows (n, C, (Z), Y, X), for all of them.

        It works where the images are; nothing but its results comes to the host. Each process of
        the team looks at its part of them.
        """
        images, n = extractor.images, len(self._start)
        own: list[tuple[NDArray[np.intp], dict[str, NDArray[Any]]]] = []
        n_bytes = _HOST_BYTES if images.runtime is None else _DEVICE_BYTES
        device = nullcontext() if images.runtime is None else images.runtime.active()
        chunks = list(self._chunks(n_bytes // (4 * len(channels))))
        bar = progress_bar("Background", n, " cells", wanted=progress)
        with team.together(), device, bar as advance:
            for chunk, size in (chunks[i] for i in team.own(len(chunks))):
                places = Locations(
                    self._data_idx[chunk], self._sample_idx[chunk], self._start[chunk], size
                )
                cells = gather(images, ChannelSources.correlated(places, np.array(channels)), size)
                made = function(cells).items()
                own.append((chunk, {k: v.get() if is_cuda_array(v) else v for k, v in made}))
                advance(len(chunk) * team.size)
        found: dict[str, NDArray[Any]] = {}
        for parts in team.all_of(own):
            for chunk, host in parts:
                for name, values in host.items():
                    found.setdefault(name, np.empty(n, values.dtype))[chunk] = values
        return found

    def _chunks(self, n_pixels: int) -> Iterator[tuple[NDArray[np.intp], tuple[int, ...]]]:
        """Yield windows of one size, at most `n_pixels` together or one, and their size."""
        sizes, kind = np.unique(self._size, axis=0, return_inverse=True)
        for i, size in enumerate(sizes.tolist()):
            alike = np.flatnonzero(kind.ravel() == i)
            n = max(1, n_pixels // prod(size))
            for first in range(0, len(alike), n):
                yield alike[first : first + n], tuple(size)

    def grids(self, values: NDArray[Any]) -> dict[Sample, NDArray[Any]]:
        """Return a value per window as grids (Z)YX per sample."""
        ends = np.cumsum([prod(shape) for shape in self._shapes.values()])
        parts = np.split(values, ends[:-1])
        return {
            sample: part.reshape(shape)
            for (sample, shape), part in zip(self._shapes.items(), parts, strict=True)
        }


def paint(
    grids: Mapping[Sample, NDArray[Any]],
    data_shapes: Sequence[tuple[int, ...]],
    patch_size: tuple[int, ...],
    regions: bool,
) -> list[NDArray[Any]]:
    """Return S(Z)YX for each image stack: each pixel's largest value of all windows it lies in."""
    maps = []
    for data_idx, (n_samples, _, *shape) in enumerate(data_shapes):
        painted = []
        for sample_idx in range(n_samples):
            grid = grids[data_idx, sample_idx]
            for axis, patch in enumerate(patch_size):
                if regions:  # each covers its cell and the next one
                    first, last = grid.take([0], axis), grid.take([-1], axis)
                    grid = np.maximum(
                        np.concatenate([first, grid], axis), np.concatenate([grid, last], axis)
                    )
                grid = grid.repeat(patch, axis)
            painted.append(grid[tuple(map(slice, shape))])
        maps.append(np.stack(painted))
    return maps
