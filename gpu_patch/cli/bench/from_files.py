"""What one would write without gpu_patch to cut patches out of a Zarr array that is in a file."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpu_patch.images import ImageStack
from gpu_patch.optional import imported

_PURPOSE = "this way of reading patches"
_METADATA = {"zarr.json": "zarr3", ".zarray": "zarr"}
"""Of an array, and the driver of tensorstore that reads it."""


class Place(NamedTuple):
    """Where a patch is cut: sample and first pixel, (Z)YX."""

    sample: int
    coords: tuple[int, ...]


class Cut(NamedTuple):
    """How patches are cut out of an array.

    Attributes
    ----------
    folder : str
        That of the array.
    driver : str
        Of tensorstore.
    axes : str
        Of the array.
    n_times : int
        Length of T.
    patch_size : tuple of int
        (Z)YX.
    """

    folder: str
    driver: str
    axes: str
    n_times: int
    patch_size: tuple[int, ...]

    @classmethod
    def of(cls, stack: ImageStack, patch_size: Sequence[int]) -> Cut:
        """Return how patches of an image are cut; `ValueError` where it is no Zarr array."""
        folder = stack.files[-1] if stack.files else Path()
        for name, driver in _METADATA.items():
            if (folder / name).exists():
                axes = stack.original_axes
                shape = dict(zip(axes, stack.original_data_shape, strict=True))
                return cls(str(folder), driver, axes, shape.get("T", 1), tuple(patch_size))
        raise ValueError("the image is no folder of Zarr")

    def key(self, place: Place) -> tuple[int | slice, ...]:
        """Return the index of a patch."""
        sample, time_point = divmod(place.sample, self.n_times)
        found: dict[str, int | slice] = {"S": sample, "T": time_point, "C": slice(None)}
        spatial = "ZYX"[-len(self.patch_size) :]
        for axis, first, length in zip(spatial, place.coords, self.patch_size, strict=True):
            found[axis] = slice(first, first + length)
        return tuple(found[axis] for axis in self.axes)


def tensorstore_loop(
    cut: Cut, cache_bytes: int, batches: Sequence[Sequence[Place]]
) -> Iterator[NDArray[np.float32]]:
    """Yield batches whose patches tensorstore reads at once, with a cache of chunks of its own."""
    array = (
        imported("tensorstore", _PURPOSE)
        .open(
            {
                "driver": cut.driver,
                "kvstore": {"driver": "file", "path": cut.folder},
                "context": {"cache_pool": {"total_bytes_limit": cache_bytes}},
            },
            read=True,
            open=True,
        )
        .result()
    )
    _check_axes(cut, array.shape)
    for batch in batches:
        reads = [array[cut.key(place)].read() for place in batch]
        yield np.stack([read.result() for read in reads]).astype(np.float32)


class Patches:
    """A dataset of PyTorch, without its base class: patches as zarr-python reads them."""

    def __init__(self, cut: Cut, places: Sequence[Place]) -> None:
        self._cut, self._places = cut, places
        self._array: Any = None

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> NDArray[np.float32]:
        if self._array is None:  # each worker opens it
            self._array = imported("zarr", _PURPOSE).open_array(self._cut.folder, mode="r")
            _check_axes(self._cut, self._array.shape)
        patch: NDArray[Any] = self._array[self._cut.key(self._places[index])]
        return patch.astype(np.float32)


def data_loader(
    cut: Cut, batches: Sequence[Sequence[Place]], n_workers: int, limit: float
) -> tuple[int, float]:
    """Return how many patches a torch DataLoader makes, and in what time, after its first batch.

    Its workers are started anew, since threads of tensorstore and zarr do not live through a fork.
    """
    data = imported("torch", _PURPOSE).utils.data
    places = [place for batch in batches for place in batch]
    loader = data.DataLoader(
        Patches(cut, places),
        batch_size=len(batches[0]),
        num_workers=n_workers,
        multiprocessing_context="spawn",
    )
    found = iter(loader)
    for _ in range(n_workers):  # what was made while others started does not count
        next(found)
    n_patches, begun = 0, time.perf_counter()
    for batch in islice(found, len(batches)):
        n_patches += len(batch)
        if time.perf_counter() - begun > limit:
            break
    return n_patches, time.perf_counter() - begun


def _check_axes(cut: Cut, shape: Sequence[int]) -> None:
    if len(shape) != len(cut.axes):
        raise ValueError(f"the array has axes of one pixel beside {cut.axes}")
